"""`minillm convert`: write a checkpoint in another form."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from shlex import quote
from typing import Any

from ..hub.adapters import is_adapter
from ..hub.assistants import is_assistant, open_chat_start, read_assistant_config
from ..hub.convert import FORMS, convert
from ..hub.finetuned import is_finetuned, open_start, read_run_config
from ..models import config_to_dict
from ..training.checkpoint import save_checkpoint
from .options import add_option, keywords


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = "checkpoint or run folder (minillm's, Hugging Face's, Keras's), or a name on the hub; or a .gguf file"
    parser.add_argument("name_or_folder", metavar="MODEL", help=model)
    parser.add_argument("out", metavar="OUT", help="folder to write, or file (gguf)")
    add_option(parser, convert, "to", "format: transformers', minillm's own, llama.cpp's or Keras's", choices=FORMS)
    dtypes = ["float32", "bfloat16", "float16", "float64", "q8_0"]
    add_option(parser, convert, "dtype", "of the weights; default: as stored", choices=dtypes)
    tied = "leave out a head that equals the token table, or write the table again as the head; default: as stored"
    add_option(parser, convert, "tied", tied)
    size = "split larger weights into files of this size (hf)"
    add_option(parser, convert, "max_shard_size", size, metavar="SIZE")


def run(arguments: argparse.Namespace) -> int:
    how = keywords(convert, arguments)
    run = arguments.name_or_folder
    write = convert_assistant if is_assistant(run) else convert_run if is_finetuned(run) else convert
    weights = [path.name for path in write(**how)]
    if arguments.to == "gguf":
        print(f"wrote {arguments.out}")
        return 0
    others = sorted(path.name for path in Path(arguments.out).iterdir() if path.name not in weights)  # it was empty
    print(f"wrote {arguments.out}: {', '.join([*weights, *others])}")
    return 0


def convert_run(name_or_folder: str, out: str, **how: Any) -> list[Path]:
    """`convert` of a fine-tuned run: of one with adapters, the whole model, merged."""
    config = read_run_config(name_or_folder)
    if config.task.scale:
        numbers = f"(number - {config.task.center:g}) / {config.task.scale:g}"
        print(f"note: what is written gives {numbers}, as it was trained; minillm predict gives the number.")
    if config.method.name not in ("lora", "qlora"):
        return convert(name_or_folder, out, **how)
    check_whole(name_or_folder, config.method.name)
    start = open_start(name_or_folder)
    return convert_whole(start.model, start.tokenizer, out, **how)


def convert_assistant(name_or_folder: str, out: str, **how: Any) -> list[Path]:
    """`convert` of an assistant's run, with its chat template: of one with adapters, the whole model, merged."""
    config = read_assistant_config(name_or_folder)
    if config.chat.system:
        print(f"note: it was trained with the system message {config.chat.system!r}; give it that where it goes.")
    if config.method.name not in ("lora", "qlora"):
        return convert(name_or_folder, out, **how)
    check_whole(name_or_folder, config.method.name)
    start = open_chat_start(name_or_folder)
    return convert_whole(start.model, start.kept, out, **how)


def check_whole(run: str, method: str) -> None:
    """Raise ValueError for a run of qlora, whose model has weights of few bits, which no form written here has."""
    if method != "qlora":
        return
    adapter = Path(run, "adapter")
    advice = (
        f"Convert {quote(str(adapter))}: its adapters on the weights that were rounded, whose answers differ a little."
        if is_adapter(adapter)
        else "Use the run as it is, with --engine torch, or train one with --method lora."
    )
    raise ValueError(f"{run} was trained by qlora, on weights rounded to few bits, which are not written. {advice}")


def convert_whole(model: Any, tokenizer: Any, out: str, **how: Any) -> list[Path]:
    """`convert` of a model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        values, weights = config_to_dict(model.config), model.state_dict()
        save_checkpoint(whole, config=values, model=weights, optimizer={}, state={}, tokenizer=tokenizer)
        return convert(whole, out, **how)
