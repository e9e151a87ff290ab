"""What makes `minillm generate` faster at the same text: weights of 8 bits (nearly the same), and guessing ahead."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from ..engines.blas import blas_threads
from ..engines.speculative import speculate
from ..hub.checkpoint import load_model_and_tokenizer
from ..models.int8 import quantize_int8
from ..tokenizers import Tokenizer
from .options import add_option, keywords


def add_ahead(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--int8", action="store_true", help="round weights to 8 bits: a quarter of the memory, faster")
    draft = "a smaller model that guesses ahead: equally likely texts, sooner"
    parser.add_argument("--draft", metavar="MODEL", help=draft)
    parser.add_argument("--lookup", action="store_true", help="guess ahead from what stood in the text before")
    add_option(parser, speculate, "ahead", "how many tokens --draft or --lookup guess")


def check_continues_texts(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that only a model that continues texts can follow."""
    asked = [f"--{name}" for name in ("int8", "draft", "lookup") if getattr(arguments, name)]
    if asked:
        raise ValueError(f"{arguments.model} answers a task, it does not continue texts: leave out {', '.join(asked)}.")


def rounded(arguments: argparse.Namespace, model: Any) -> Any:
    """A NumPy model with weights of 8 bits, on the engine that was asked for."""
    model = quantize_int8(model, threads=blas_threads() or 1)
    if arguments.engine == "torch":
        from ..port import to_torch

        model = to_torch(model, device=arguments.device)
    return model


def guesses_of(arguments: argparse.Namespace, tokenizer: Tokenizer, searches: bool) -> dict[str, Any]:
    """Who guesses ahead, as `speculate` takes it; {} where nobody is to."""
    if not (arguments.draft or arguments.lookup):
        return {}
    if (arguments.draft and arguments.lookup) or searches or arguments.no_cache:
        raise ValueError("--draft or --lookup, one of them, guesses ahead, without --beams and without --no-cache.")
    if arguments.lookup:
        return {"ahead": arguments.ahead}
    draft, its = load_model_and_tokenizer(arguments.draft, **keywords(load_model_and_tokenizer, arguments))
    if its.tokens != tokenizer.tokens:
        raise ValueError(
            f"--draft {arguments.draft} has other tokens than {arguments.model}: a guess must mean the same."
        )
    return {"draft": draft, "ahead": arguments.ahead}


def guessed(model: Any, ids: list[int], seeds: Iterable[int | None], guessing: Any, **options: Any) -> list[list[int]]:
    """New ids for each seed, up to a stop id, or to where the text `ends`."""
    del options["use_cache"]
    ends, found = options.pop("ends"), []
    for seed in seeds:
        new: list[int] = []
        for token in speculate(model, ids, seed=seed, **options, **guessing):
            if token in options["stop_ids"]:
                break
            new.append(token)
            if ends is not None and ends([*ids, *new]):
                break
        found.append(new)
    return found
