"""What makes `minillm generate` faster at the same text: weights of 8 bits (nearly the same), guessing ahead, and steps
that PyTorch compiles."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

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
    add_compile(parser)


def add_compile(parser: argparse.ArgumentParser) -> None:
    what = "PyTorch's: compile each step, up to a minute before the first token, which come sooner then"
    parser.add_argument("--compile", action="store_true", help=what)


def check_continues_texts(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that only a model that continues texts can follow."""
    asked = [f"--{name}" for name in ("int8", "draft", "lookup", "compile") if getattr(arguments, name)]
    if asked:
        raise ValueError(f"{arguments.model} answers a task, it does not continue texts: leave out {', '.join(asked)}.")


def rounded(arguments: argparse.Namespace, model: Any) -> Any:
    """A NumPy model with weights of 8 bits, on the engine that was asked for."""
    model = quantize_int8(model)
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


def check_compile(arguments: argparse.Namespace, searches: bool = False) -> None:
    """Raise ValueError for --compile where nothing is compiled."""
    if arguments.compile and arguments.engine != "torch":
        raise ValueError("--compile is PyTorch's: give --engine torch, too, or leave it out.")
    if arguments.compile and (searches or getattr(arguments, "no_cache", False)):
        raise ValueError("--compile compiles steps that use the cache, without --beams and without --no-cache.")


def compiled(arguments: argparse.Namespace, model: Any, rows: int, longest: int, ahead: int = 0) -> Any:
    """A model on PyTorch with compiled steps, if they are asked for: compiled now, for so many texts of up to `longest`
    ids, before anything is written. As it is, with a note, where there are none."""
    if not arguments.compile:
        return model
    from ..models.decoding_torch import CompiledDecoder, why_not

    if reason := why_not(model):
        print(f"note: --compile changes nothing here: {reason}", file=sys.stderr)
        return model
    decoder = CompiledDecoder(model, compiling, shortest=longest)
    decoder.prepare(rows, longest, ahead)
    return decoder


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """In a terminal, seconds that count up; afterwards a note of how many it took."""
    start, done = time.perf_counter(), threading.Event()
    with tqdm(desc=f"compiling {what}", bar_format="{desc}: {elapsed}", disable=None, leave=False) as bar:

        def count() -> None:
            while not done.wait(1):
                bar.refresh()

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
    print(f"note: compiled {what} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
