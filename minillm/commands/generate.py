"""`minillm generate`: continue a text, printing each piece as soon as it is chosen, several texts at once, or the best
that beams find."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..beam import beam_search
from ..data import Labelled, Pair
from ..engines.blas import blas_threads
from ..engines.speculative import speculate
from ..finetune.objectives import Classify, TaskObjective, Write
from ..finetune.predict import predict
from ..generate import Sampling, check_continues, generate, known_ids, prompt_ids, stream_text
from ..hub.assistants import refuse_assistant
from ..hub.checkpoint import load_model_and_tokenizer
from ..hub.finetuned import is_finetuned, open_finetuned
from ..hub.rules import Rules, StopTexts, check_stop_texts, cut, until
from ..models.int8 import quantize_int8
from ..settings import EngineConfig
from ..tokenizers import Tokenizer
from .options import add_option, add_sampling, choices, keywords, sampling_settings

TEMPERATURE = 0.8  # when none is given
MAX_NEW_TOKENS = 200

LEAST = {
    "max_new_tokens": 1, "min_new_tokens": 0, "no_repeat_ngram": 0, "samples": 1, "seed": 0, "beams": 1, "ahead": 1,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    parser.add_argument("--prompt", default="", help="text to continue; -: read it from standard input")
    parser.add_argument("--max-new-tokens", type=int, help=f"length of the continuation (default: {MAX_NEW_TOKENS})")
    parser.add_argument("--min-new-tokens", type=int, default=0, help="no end of text before so many new tokens")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)")
    add_sampling(parser, TEMPERATURE)
    no_repeat = "no N tokens in a row come twice, the prompt counted (0: they may)"
    parser.add_argument("--no-repeat-ngram", type=int, default=0, metavar="N", help=no_repeat)
    parser.add_argument("--beams", type=int, help="search for the likeliest text with this many beams; draw nothing")
    samples = "how many continuations, in one batch; of beams the best ones"
    parser.add_argument("--samples", type=int, default=1, help=samples)
    parser.add_argument("--seed", type=int, help="of the first continuation; without it each run differs")
    parser.add_argument("--no-cache", action="store_true", help="compute every step from scratch: slower, same result")
    parser.add_argument("--int8", action="store_true", help="round weights to 8 bits: a quarter of the memory, faster")
    parser.add_argument(
        "--draft", metavar="MODEL", help="a smaller model that guesses ahead: equally likely texts, sooner"
    )
    parser.add_argument("--lookup", action="store_true", help="guess ahead from what stood in the text before")
    add_option(parser, speculate, "ahead", "how many tokens --draft or --lookup guess")
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    drawing = sampling_settings(arguments)
    sampling = Sampling(**{"temperature": TEMPERATURE, **drawing})
    for name, least in LEAST.items():  # before the prompt is printed
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least {least}.")
    check_stop_texts(arguments.stop)
    arguments.new = arguments.max_new_tokens or MAX_NEW_TOKENS
    if arguments.min_new_tokens > arguments.new:
        raise ValueError(
            f"--min-new-tokens {arguments.min_new_tokens} must be at most --max-new-tokens {arguments.new}."
        )
    if is_finetuned(arguments.model):
        check_whole_model(arguments)
        model, objective, config = open_finetuned(arguments.model, **keywords(load_model_and_tokenizer, arguments))
        return answer(arguments, model, objective, config.task.beams)
    refuse_assistant(arguments.model, "answers in conversations only, in which it was trained")
    model, tokenizer = opened(arguments)
    if getattr(model.config, "start_id", None) is not None:  # a pretrained encoder–decoder
        check_whole_model(arguments)
        return answer(arguments, model, Write.for_model(tokenizer, model.config))
    check_continues(model)
    if arguments.beams is not None:
        check_beams(arguments, drawing)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    stops = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    options: dict[str, Any] = {"max_new_tokens": arguments.new, "use_cache": not arguments.no_cache}
    options["rules"] = rules_of(arguments, stops)
    seeds = None if arguments.seed is None else [arguments.seed + sample for sample in range(arguments.samples)]
    if guessing := guesses_of(arguments, tokenizer):
        del options["use_cache"]
        own = seeds or [None] * arguments.samples
    elif arguments.beams is None and arguments.samples == 1:
        print(prompt, end="", flush=True)
        pieces = stream_text(model, tokenizer, prompt, seed=seeds, sampling=sampling, **options)
        for piece in until(pieces, arguments.stop):
            print(piece, end="", flush=True)
        print()
        return 0
    options |= {"stop_ids": stops, "allowed": known_ids(tokenizer)}
    ids = prompt_ids(tokenizer, prompt)
    options["ends"] = StopTexts(tokenizer, arguments.stop, after=len(ids)) if arguments.stop else None
    if guessing:
        ends = options.pop("ends")
        new = [written(speculate(model, ids, sampling=sampling, seed=seed, **options, **guessing), ids, stops, ends)
               for seed in own]  # fmt: skip
    elif arguments.beams is not None:
        found = beam_search(model, [ids], n_beams=arguments.beams, n_return=arguments.samples, **options)[0]
        new = [hypothesis.ids for hypothesis in found]
    else:
        new = generate(model, [ids] * arguments.samples, seed=seeds, sampling=sampling, **options)
    texts = [prompt + cut(tokenizer.decode(row), arguments.stop) for row in new]
    print(("\n" + "-" * 40 + "\n").join(texts))
    return 0


def opened(arguments: argparse.Namespace) -> tuple[Any, Tokenizer]:
    """The model that writes, with --int8 its weights rounded, and its tokenizer."""
    how = keywords(load_model_and_tokenizer, arguments)
    if not arguments.int8:
        return load_model_and_tokenizer(arguments.model, **how)
    model, tokenizer = load_model_and_tokenizer(arguments.model, **{**how, "engine": "numpy", "device": None})
    model = quantize_int8(model, threads=blas_threads() or 1)
    if arguments.engine == "torch":
        from ..port import to_torch

        model = to_torch(model, device=arguments.device)
    return model, tokenizer


def check_whole_model(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that only a model that continues texts can follow."""
    asked = [f"--{name}" for name in ("int8", "draft", "lookup") if getattr(arguments, name)]
    if asked:
        raise ValueError(f"{arguments.model} answers a task, it does not continue texts: leave out {', '.join(asked)}.")


def guesses_of(arguments: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Who guesses ahead, as `speculate` takes it; {} where nobody is to."""
    if not (arguments.draft or arguments.lookup):
        return {}
    if (arguments.draft and arguments.lookup) or arguments.beams is not None or arguments.no_cache:
        raise ValueError("--draft or --lookup, one of them, guesses ahead, without --beams and without --no-cache.")
    if arguments.lookup:
        return {"ahead": arguments.ahead}
    draft, its = load_model_and_tokenizer(arguments.draft, **keywords(load_model_and_tokenizer, arguments))
    if its.tokens != tokenizer.tokens:
        raise ValueError(
            f"--draft {arguments.draft} has other tokens than {arguments.model}: a guess must mean the same."
        )
    return {"draft": draft, "ahead": arguments.ahead}


def written(
    tokens: Iterable[int], prompt: list[int], stops: tuple[int, ...], ends: Callable[[list[int]], bool] | None
) -> list[int]:
    """New ids, up to a stop id, or to where the text ends."""
    new: list[int] = []
    for token in tokens:
        if token in stops:
            break
        new.append(token)
        if ends is not None and ends([*prompt, *new]):
            break
    return new


def rules_of(arguments: argparse.Namespace, stop_ids: tuple[int, ...]) -> Rules | None:
    """What the options forbid; None where that is nothing."""
    new, n = arguments.min_new_tokens, arguments.no_repeat_ngram
    return Rules(stop_ids=stop_ids, min_new_tokens=new, no_repeat_ngram_size=n) or None


def answer(arguments: argparse.Namespace, model: Any, objective: TaskObjective, beams: int = 1) -> int:
    """What a model answers to the prompt: greedily, or as the options say; with `beams` where they don't."""
    drawing = sampling_settings(arguments)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if isinstance(objective, Classify):
        check_class(arguments, drawing)
        (found,) = predict(model, objective, [Labelled(prompt, "", "--prompt")])
        print(", ".join(found.value) if isinstance(found.value, tuple) else found.value)
        return 0
    if arguments.beams is not None:
        check_beams(arguments, drawing)
    sampling = Sampling(**{"temperature": TEMPERATURE, **drawing}) if drawing or arguments.seed is not None else None
    options: dict[str, Any] = {"max_new_tokens": arguments.new, "n_beams": arguments.beams or beams}
    options["rules"] = rules_of(arguments, (objective.end_id,))
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        (found,) = predict(model, objective, [Pair(prompt, "", "--prompt")], sampling=sampling, seed=seed, **options)
        print(cut(found.value, arguments.stop))
    return 0


def check_class(arguments: argparse.Namespace, drawing: Iterable[str]) -> None:
    """Raise ValueError for options that a model which labels texts has no use for, by name."""
    idle: dict[str, Any] = {
        "max_new_tokens": None,
        "min_new_tokens": 0,
        "stop": [],
        "no_repeat_ngram": 0,
        "beams": None,
        "samples": 1,
    }
    unused = [*drawing, *(name for name, value in idle.items() if getattr(arguments, name) != value)]
    unused += ["seed"] * (arguments.seed is not None)
    if unused:
        names = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"{arguments.model} labels a text, it writes and draws nothing: leave out {names}.")


def check_beams(arguments: argparse.Namespace, drawing: Iterable[str]) -> None:
    """Raise ValueError for options that beam search has no use for, by name, and for more texts than it finds."""
    unused = [*drawing, *(["seed"] if arguments.seed is not None else [])]
    if unused:
        names = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"--beams looks for the likeliest text and draws nothing: leave out {names}.")
    if arguments.samples > arguments.beams:
        raise ValueError(f"samples = {arguments.samples} must be at most beams = {arguments.beams}, which find them.")
