"""`minillm evaluate`: measure a model on text, its run's corpus or any other."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..data import Dropped, kinds_skipped, pack, read_documents
from ..engines.choose import batch_loss_of
from ..hub.checkpoint import load_model_and_tokenizer
from ..settings import EngineConfig
from ..training.checkpoint import checkpoint_in
from ..training.config_file import ConfigError, build
from ..training.evaluate import evaluate
from ..training.pretrain import CONFIG_FILE, DataConfig, model_objective, packed, resumed_sections
from .options import add_option, choices, keywords


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    text = "text files or folders; default: the corpus of the run"
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help=text)
    parser.add_argument("--split", default="val", help="split of the run's corpus")
    add_option(parser, evaluate, "batch_size", "sequences at a time", default=16)
    add_option(parser, evaluate, "context", "tokens per sequence; 0: the model's", default=0)
    add_option(parser, evaluate, "max_tokens", "stop after this many; 0: all")
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    opening = keywords(load_model_and_tokenizer, arguments)
    if arguments.engine == "torch":
        opening["dtype"] = "float32"  # what is measured on NumPy, too, whatever the files hold
    model, tokenizer = load_model_and_tokenizer(arguments.model, **opening)
    arguments.context = arguments.context or model.config.context
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            skipped: list[Dropped] = []
            data = pack(read_documents(arguments.data, skipped=skipped), tokenizer, Path(folder) / "tokens.bin")
            for kind in kinds_skipped((one.source, one.reason) for one in skipped):
                print(kind, file=sys.stderr)
        else:
            data = packed(data_of(arguments.model), arguments.split, tokenizer)
        objective = model_objective(model.config, tokenizer)
        result = evaluate(batch_loss_of(model), data, objective=objective, **keywords(evaluate, arguments))
        print(f"{checkpoint_in(arguments.model)} on {' '.join(arguments.data) or arguments.split}: {result}")
        del data  # unmap the file before its folder goes (Windows)
    return 0


def data_of(run: str) -> DataConfig:
    """What the run of a run folder or checkpoint was trained on, from its config.toml."""
    for folder in (Path(run), Path(run).parent):
        if (folder / CONFIG_FILE).exists():
            return build(DataConfig, resumed_sections(folder).get("data", {}), "[data]")
    raise ConfigError(f"{run} does not say what it was trained on (no {CONFIG_FILE}): give --data FILE.")
