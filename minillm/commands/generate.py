"""`minillm generate`: continue a text, printing each piece as soon as it is chosen, or the best that beams find."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from ..beam import beam_search
from ..data import Labelled, Pair
from ..finetune.objectives import Classify, TaskObjective, Write
from ..finetune.predict import predict
from ..generate import Sampling, check_continues, known_ids, prompt_ids, stream_text
from ..hub.checkpoint import load_model_and_tokenizer
from ..hub.finetuned import is_finetuned, open_finetuned
from ..settings import EngineConfig
from .options import add_option, add_sampling, choices, keywords, sampling_settings

TEMPERATURE = 0.8  # when none is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    parser.add_argument("--prompt", default="", help="text to continue; -: read it from standard input")
    add_option(parser, stream_text, "max_new_tokens", "length of the continuation", default=200)
    add_sampling(parser, TEMPERATURE)
    parser.add_argument("--beams", type=int, help="search for the likeliest text with this many beams; draw nothing")
    parser.add_argument("--samples", type=int, default=1, help="how many continuations; of beams the best ones")
    parser.add_argument("--seed", type=int, help="of the first continuation; without it each run differs")
    parser.add_argument("--no-cache", action="store_true", help="compute every step from scratch: slower, same result")
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    drawing = sampling_settings(arguments)
    sampling = Sampling(**{"temperature": TEMPERATURE, **drawing})
    for name, least in (
        ("max_new_tokens", 1),
        ("samples", 1),
        ("seed", 0),
        ("beams", 1),
    ):  # before the prompt is printed
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"{name} = {value} must be at least {least}.")
    if is_finetuned(arguments.model):
        model, objective, config = open_finetuned(arguments.model, **keywords(load_model_and_tokenizer, arguments))
        return answer(arguments, model, objective, config.task.beams)
    model, tokenizer = load_model_and_tokenizer(arguments.model, **keywords(load_model_and_tokenizer, arguments))
    if getattr(model.config, "start_id", None) is not None:  # a pretrained encoder–decoder
        return answer(arguments, model, Write.for_model(tokenizer, model.config))
    check_continues(model)
    if arguments.beams is not None:
        check_beams(arguments, drawing)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    options = {"max_new_tokens": arguments.max_new_tokens, "use_cache": not arguments.no_cache}
    if arguments.beams is not None:
        texts = likeliest(model, tokenizer, prompt, n_beams=arguments.beams, n_return=arguments.samples, **options)
        print(("\n" + "-" * 40 + "\n").join(prompt + text for text in texts))
        return 0
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        print(prompt, end="", flush=True)
        for piece in stream_text(model, tokenizer, prompt, seed=seed, sampling=sampling, **options):
            print(piece, end="", flush=True)
        print("\n" + "-" * 40 if sample + 1 < arguments.samples else "")
    return 0


def answer(arguments: argparse.Namespace, model: Any, objective: TaskObjective, beams: int = 1) -> int:
    """What a model answers to the prompt: greedily, or as the options say; with `beams` where they don't."""
    drawing = sampling_settings(arguments)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if isinstance(objective, Classify):
        (found,) = predict(model, objective, [Labelled(prompt, "", "--prompt")])
        print(", ".join(found.value) if isinstance(found.value, tuple) else found.value)
        return 0
    if arguments.beams is not None:
        check_beams(arguments, drawing)
    sampling = Sampling(**{"temperature": TEMPERATURE, **drawing}) if drawing or arguments.seed is not None else None
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        options = {"max_new_tokens": arguments.max_new_tokens, "n_beams": arguments.beams or beams}
        (found,) = predict(model, objective, [Pair(prompt, "", "--prompt")], sampling=sampling, seed=seed, **options)
        print(found.value)
    return 0


def check_beams(arguments: argparse.Namespace, drawing: Iterable[str]) -> None:
    """Raise ValueError for options that beam search has no use for, by name, and for more texts than it finds."""
    unused = [*drawing, *(["seed"] if arguments.seed is not None else [])]
    if unused:
        names = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"--beams looks for the likeliest text and draws nothing: leave out {names}.")
    if arguments.samples > arguments.beams:
        raise ValueError(f"samples = {arguments.samples} must be at most beams = {arguments.beams}, which find them.")


def likeliest(model: Any, tokenizer: Any, prompt: str, **options: Any) -> list[str]:
    """The best continuations of a text that beam search finds, best first."""
    stops = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    ids = prompt_ids(tokenizer, prompt)
    found = beam_search(model, [ids], stop_ids=stops, allowed=known_ids(tokenizer), **options)
    return [tokenizer.decode(new) for new, _ in found[0]]
