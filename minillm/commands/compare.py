"""`minillm compare`: models side by side, measured on this machine: size, speed, and how well they predict."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..costs.sizes import forward_flops, in_bytes, n_parameters
from ..data import first_bytes, pack, read_documents, stdlib_documents
from ..engines.choose import batch_loss_of
from ..generate import generate
from ..hub.checkpoint import Checkpoint, open_checkpoint
from ..settings import EngineConfig
from ..training.evaluate import evaluate
from .options import add_option, choices, keywords, whole
from .table import table

ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help="checkpoint or run folders, or names on the hub")
    text = "held-out text; default: Python's help texts"
    add_option(parser, compare, "data", text, nargs="+", default=[], metavar="FILE")
    add_option(parser, compare, "batch_size", "texts at a time", type=whole(1))
    add_option(parser, compare, "context", "tokens of each", type=whole(1))
    add_option(parser, compare, "max_bytes", "of the held-out text", type=whole(1))
    add_option(parser, compare, "engine", "what runs the models", choices=choices(EngineConfig, "name"))


def run(arguments: argparse.Namespace) -> int:
    print(compare(**keywords(compare, arguments)))
    return 0


def compare(
    models: Sequence[str],
    *,
    data: Sequence[str] = (),
    batch_size: int = 4,
    context: int = 128,
    max_bytes: int = 30_000,
    engine: str = "numpy",
) -> str:
    """A table of the decoders `models`, folders or names on the hub.

    Speeds are medians of several rounds in which the models take turns, so that whatever else the machine does hits
    all. Bits per byte, which compares models with different tokenizers, is measured on the first `max_bytes` of the
    files `data` (by default of Python's help texts), in windows of `context` tokens; the text is held out only if no
    model was trained on it. Raises ValueError for a model that does not predict the next token, and what reading one
    raises.
    """
    if max_bytes < 1:
        raise ValueError(f"max_bytes = {max_bytes} must be at least 1: it is how much text to measure on.")
    checkpoints = [open_decoder(name) for name in models]
    length = min(context, *(checkpoint.config.context for checkpoint in checkpoints))
    dtype = "float32" if engine == "torch" else None  # what is stored in less is no faster to compare in it
    loaded = [checkpoint.model_and_tokenizer(engine=engine, dtype=dtype) for checkpoint in checkpoints]
    columns = [sizes(checkpoint, model, length) for checkpoint, (model, _) in zip(checkpoints, loaded)]
    for column, (model, tokenizer) in zip(columns, loaded):
        column["bits per byte"] = f"{bits_per_byte(model, tokenizer, data, batch_size, length, max_bytes):.4f}"
    reading, writing = [], []
    n_new = max(1, min(32, length - 1))
    for model, _ in loaded:
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (batch_size, length))
        reading.append(partial(batch_loss_of(model), ids, ids))  # one forward pass
        writing.append(partial(generate, model, [[0]], max_new_tokens=n_new, seed=0))  # one text, with the cache
    for column, seconds in zip(columns, take_turns(reading)):
        column["tokens read per second"] = f"{batch_size * length / seconds:,.0f}"
    for column, seconds in zip(columns, take_turns(writing)):
        column["tokens written per second"] = f"{n_new / seconds:,.0f}"
    rows = [(key, *(column[key] for column in columns)) for key in columns[0]]
    text = ", ".join(data) if data else "Python's help texts (held out if no model was trained on them)"
    note = f"{engine} engine, batch {batch_size} × {length} tokens; bits per byte on {text}"
    short = [Path(name).name for name in models]
    return table(note, rows, short if len({*short, ""}) > len(models) else list(models))  # run/best, other/best


def open_decoder(name: str) -> Checkpoint:
    """The checkpoint of a model that predicts the next token."""
    checkpoint = open_checkpoint(name)
    if checkpoint.config.task != "causal":
        what = f"{name} is a {checkpoint.config.model_type!r} model"
        raise ValueError(f"{what}: compare is for models that predict the next token.")
    return checkpoint


def sizes(checkpoint: Checkpoint, model: Any, length: int) -> dict[str, str]:
    config = checkpoint.config
    files = {file for tensor in checkpoint.stored.values() for file in tensor.files}
    return {
        "architecture": type(model).__name__,
        "parameters": f"{n_parameters(config):,}",
        "weights on disk": in_bytes(sum(file.stat().st_size for file in files)),
        "context": f"{config.context:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "million operations per token": f"{sum(forward_flops(config, length).values()) / 1e6:,.1f}",
    }


def bits_per_byte(
    model: Any, tokenizer: Any, data: Sequence[str], batch_size: int, length: int, max_bytes: int
) -> float:
    """How many bits a byte of the text costs, on the same text for every model."""
    documents: Any = read_documents(list(data)) if data else stdlib_documents("topics")
    with tempfile.TemporaryDirectory() as folder:
        dataset = pack(first_bytes(documents, max_bytes), tokenizer, Path(folder) / "tokens.bin")
        result = evaluate(batch_loss_of(model), dataset, batch_size=batch_size, context=length)
        del dataset  # unmap the file before its folder goes (Windows)
    return result.bits_per_byte


def take_turns(tasks: Sequence[Callable[[], object]]) -> list[float]:
    """The median seconds of each task, over rounds in which all take their turn; the first round does not count."""
    seconds: list[list[float]] = [[] for _ in tasks]
    for _ in range(1 + ROUNDS):
        for times, task in zip(seconds, tasks):
            start = time.perf_counter()
            task()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in seconds]
