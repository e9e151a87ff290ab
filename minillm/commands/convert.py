"""`minillm convert`: write a checkpoint in another form."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..hub.convert import convert
from .options import add_option, keywords


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = "checkpoint or run folder, in minillm's or Hugging Face's format, or a name on the hub"
    parser.add_argument("name_or_folder", metavar="MODEL", help=model)
    parser.add_argument("out", metavar="FOLDER", help="folder to write")
    add_option(parser, convert, "to", "format: transformers' or minillm's own", choices=["hf", "minillm"])
    dtypes = ["float32", "bfloat16", "float16", "float64"]
    add_option(parser, convert, "dtype", "of the weights; default: as stored", choices=dtypes)
    tied = "leave out a head that equals the token table, or write the table again as the head; default: as stored"
    add_option(parser, convert, "tied", tied)
    size = "split larger weights into files of this size (hf)"
    add_option(parser, convert, "max_shard_size", size, metavar="SIZE")


def run(arguments: argparse.Namespace) -> int:
    weights = [path.name for path in convert(**keywords(convert, arguments))]
    others = sorted(path.name for path in Path(arguments.out).iterdir() if path.name not in weights)  # it was empty
    print(f"wrote {arguments.out}: {', '.join([*weights, *others])}")
    return 0
