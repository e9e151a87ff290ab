"""`minillm generate`: continue a text, printing each piece as soon as it is chosen."""

from __future__ import annotations

import argparse
import sys

from ..generate import Sampling, check_continues, stream_text
from ..hub.checkpoint import load_model_and_tokenizer
from ..settings import EngineConfig
from .options import add_option, choices, keywords


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    parser.add_argument("--prompt", default="", help="text to continue; -: read it from standard input")
    add_option(parser, stream_text, "max_new_tokens", "length of the continuation", default=200)
    add_option(parser, Sampling, "temperature", "0: always the likeliest token", default=0.8)
    add_option(parser, Sampling, "top_k", "choose among the k likeliest tokens")
    add_option(parser, Sampling, "top_p", "choose among the likeliest tokens that together reach probability p")
    add_option(parser, Sampling, "min_p", "leave out tokens less likely than min_p times the likeliest")
    add_option(parser, Sampling, "repetition_penalty", "above 1: repeat less")
    parser.add_argument("--samples", type=int, default=1, help="how many continuations")
    parser.add_argument("--seed", type=int, help="of the first continuation; without it each run differs")
    parser.add_argument("--no-cache", action="store_true", help="compute every step from scratch: slower, same result")
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    options = {
        "max_new_tokens": arguments.max_new_tokens,
        "sampling": Sampling(**keywords(Sampling, arguments)),
        "use_cache": not arguments.no_cache,
    }
    model, tokenizer = load_model_and_tokenizer(arguments.model, **keywords(load_model_and_tokenizer, arguments))
    check_continues(model)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        print(prompt, end="", flush=True)
        for piece in stream_text(model, tokenizer, prompt, seed=seed, **options):
            print(piece, end="", flush=True)
        print("\n" + "-" * 40 if sample + 1 < arguments.samples else "")
    return 0
