"""The `minillm` command: one subcommand for each stage of the road from text to a trained model.

This file holds the options; what each subcommand does is in commands.py. Mistakes in arguments, files and
configurations end with one line that says what to do, and exit status 2; Ctrl-C ends with 130; a training run whose
loss becomes nan with 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import typing
from collections.abc import Sequence
from typing import Any

from . import __version__, commands
from .data import CorpusConfig
from .engines.protocol import ProcessLost
from .training.config_file import describe
from .training.diagnose import TrainingDiverged
from .training.pretrain import PRESETS, SECTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: this process's) and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.function(arguments)
    except KeyboardInterrupt:
        print("\nminillm: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as in `minillm generate ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (TrainingDiverged, ProcessLost) as error:
        print(f"minillm: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if arguments.traceback:
            raise
        print(f"minillm: {error}", file=sys.stderr)
        return 2


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows every option's default, and leaves the line breaks of descriptions alone."""


class Sources(argparse.Action):
    """Collects a repeated option, the first of which replaces the default. (With several values to one option,
    `--from a.txt FOLDER` would take the folder for a source.)"""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if given is self.default else [*given, values])


def make_parser() -> argparse.ArgumentParser:
    description = "Train a language model from raw text, every step open to read."
    parser = argparse.ArgumentParser("minillm", description=description)
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error was raised")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    p = add_command(subparsers, "quickstart", commands.quickstart, "from raw text to a trained model in four minutes")
    p.add_argument("--out", default="runs/quickstart", metavar="FOLDER", help="run folder to make")
    p.add_argument("--seconds", type=float, default=190.0, help="time to train for; a few are enough to see the road")
    p.add_argument("--seed", type=int, default=1337, help="of the initial weights and the order of the data")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart in the folder")

    p = add_command(subparsers, "corpus", commands.corpus, "clean, deduplicate and split text into a corpus folder")
    p.add_argument("out", metavar="FOLDER", help="corpus folder to make")
    p.add_argument(
        "--from", dest="sources", action=Sources, default=["stdlib"], metavar="SOURCE",
        help="a file, a folder, or: stdlib (Python's own source), docstrings, topics (its help texts), "
        "environment (the source of all installed packages); repeatable",
    )  # fmt: skip
    p.add_argument("--max-mb", type=float, default=0.0, help="size of a sample of each built-in source; 0: all of it")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier corpus in the folder")
    add_fields(p, CorpusConfig)

    tokenizer = subparsers.add_parser("tokenizer", help="train a tokenizer, encode with it, look at it")
    tokenizer_commands = tokenizer.add_subparsers(required=True, metavar="COMMAND")
    p = add_command(tokenizer_commands, "train", commands.tokenizer_train, "learn a tokenizer from text")
    p.add_argument("sources", nargs="+", metavar="SOURCE", help="corpora (their training split), files, folders")
    p.add_argument("--out", default="tokenizer.json", metavar="FILE", help="file to write")
    p.add_argument(
        "--kind", choices=["bpe", "wordpiece", "char"], default="bpe",
        help="byte-level BPE (GPT, Llama, Qwen), WordPiece (BERT), or one id per character",
    )  # fmt: skip
    given = argparse.SUPPRESS  # an option that is not given leaves no trace: which of them fit depends on the kind
    p.add_argument("--vocab-size", type=int, default=given, help="number of ids (bpe, wordpiece; default: 4096)")
    p.add_argument(
        "--pattern", choices=list(commands.PATTERNS), default=given,
        help="how text is split before merging (bpe; default: gpt4). llama3 is gpt4's; qwen2 brings text into "
        "Unicode's form NFC first",
    )  # fmt: skip
    p.add_argument(
        "--cased", action="store_true", default=given,
        help="keep capitals and accents (wordpiece; default: lower case, accents off)",
    )  # fmt: skip
    p.add_argument(
        "--special", nargs="*", default=given, metavar="TOKEN",
        help="special tokens (default: <|endoftext|>; of wordpiece: [PAD] [UNK] [CLS] [SEP] [MASK])",
    )  # fmt: skip
    p = add_command(tokenizer_commands, "encode", commands.tokenizer_encode, "print the ids of a text or a file")
    p.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    p.add_argument("text", nargs="?", metavar="TEXT", help="text to encode")
    p.add_argument("--file", metavar="FILE", help="UTF-8 file to encode, of any size")
    p.add_argument("--special", action="store_true", help="read the text of special tokens in TEXT as those tokens")
    p = add_command(tokenizer_commands, "show", commands.tokenizer_show, "show the tokens of a text, or the merges")
    p.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    p.add_argument("text", nargs="?", metavar="TEXT", help="text to cut; without it, the first merges (bpe)")
    p.add_argument("--merges", type=int, default=given, help="how many merges to show (bpe; default: 50)")
    p.add_argument("--steps", action="store_true", help="replay how the text was encoded, merge by merge (bpe)")

    p = add_command(
        subparsers, "pretrain", commands.pretrain_run, "train a model on a corpus",
        "The configuration is read from --config, then changed by --set. Sections, keys and defaults:\n\n" + all_keys(),
    )  # fmt: skip
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    p.add_argument("--config", metavar="FILE", help=f"TOML file, or the name of one that comes with minillm: {presets}")
    p.add_argument("--corpus", metavar="FOLDER", help="corpus folder; sets data.corpus")
    p.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json; sets data.tokenizer")
    p.add_argument("--engine", choices=["numpy", "torch"], help="what computes; sets engine.name")
    p.add_argument(
        "--attention", choices=["auto", "reference", "sdpa", "triton"], help="which attention; sets model.attention"
    )
    p.add_argument("--out", default="runs/pretrain", metavar="FOLDER", help="run folder to make, or to resume")
    p.add_argument("--resume", action="store_true", help="go on with the run in the folder, with its own configuration")
    p.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one key; repeatable")

    p = add_command(subparsers, "evaluate", commands.evaluate_run, "measure a model on text: loss and bits per byte")
    p.add_argument("run", metavar="RUN", help="run folder (its best checkpoint), or a checkpoint folder")
    p.add_argument("--data", nargs="+", default=[], metavar="FILE", help="text files or folders, not the run's corpus")
    p.add_argument("--split", default="val", help="split of the run's corpus")
    p.add_argument("--batch-size", type=int, default=16, help="sequences at a time")
    p.add_argument("--context", type=int, default=0, help="tokens per sequence; 0: the model's")
    p.add_argument("--max-tokens", type=int, default=0, help="stop after this many; 0: all")

    p = add_command(subparsers, "generate", commands.generate_text, "continue a text")
    p.add_argument("run", metavar="RUN", help="run folder (its best checkpoint), or a checkpoint folder")
    p.add_argument("--prompt", default="", help="text to continue; -: read it from standard input")
    p.add_argument("--max-new-tokens", type=int, default=200, help="length of the continuation")
    p.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token")
    p.add_argument("--top-k", type=int, help="choose among the k likeliest tokens")
    p.add_argument("--top-p", type=float, help="choose among the likeliest tokens that together reach probability p")
    p.add_argument("--min-p", type=float, help="leave out tokens less likely than min_p times the likeliest")
    p.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1: repeat less")
    p.add_argument("--samples", type=int, default=1, help="how many continuations")
    p.add_argument("--seed", type=int, help="of the first continuation; without it each run differs")
    p.add_argument("--no-cache", action="store_true", help="compute every step from scratch: slower, same result")

    p = add_command(subparsers, "convert", commands.convert_checkpoint, "write a checkpoint in another form")
    p.add_argument(
        "model",
        metavar="MODEL",
        help="checkpoint or run folder, in minillm's or Hugging Face's format, or a name on the hub",
    )
    p.add_argument("out", metavar="FOLDER", help="folder to write")
    p.add_argument("--to", choices=["hf", "minillm"], default="hf", help="format: transformers' or minillm's own")
    p.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16", "float64"], help="of the weights; default: as stored"
    )
    p.add_argument(
        "--tied", action=argparse.BooleanOptionalAction,
        help="leave out a head that equals the token table, or write the table again as the head; default: as stored",
    )  # fmt: skip
    p.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="split larger weights into files of this size (hf)"
    )

    p = add_command(
        subparsers, "inspect", commands.inspect_checkpoint, "what a model is, and what it costs to train and run"
    )
    p.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a name on the hub")
    p.add_argument("--batch-size", type=int, default=8, help="texts at a time")
    p.add_argument("--context", type=int, default=0, help="tokens of each; 0: the model's context")
    p.add_argument("--card", metavar="NAME", help="a graphics card, such as h100 or 'RTX 4090': time and cost there")
    p.add_argument("--mfu", type=float, default=0.4, help="share of the card's peak that training reaches")
    p.add_argument("--tokens", type=float, help="tokens to train on; default: 20 per parameter")
    p.add_argument("--price", type=float, help="dollars per hour of the card")

    p = add_command(
        subparsers, "compare", commands.compare_models, "models side by side: size, speed here, bits per byte"
    )
    p.add_argument("models", nargs="+", metavar="MODEL", help="checkpoint or run folders, or names on the hub")
    p.add_argument("--data", nargs="+", default=[], metavar="FILE", help="held-out text; default: Python's help texts")
    p.add_argument("--batch-size", type=int, default=4, help="texts at a time")
    p.add_argument("--context", type=int, default=128, help="tokens of each")
    p.add_argument("--max-bytes", type=int, default=30_000, help="of the held-out text")
    p.add_argument("--engine", choices=["numpy", "torch"], default="numpy", help="what runs the models")
    return parser


def add_command(subparsers: Any, name: str, function: Any, summary: str, details: str = "") -> argparse.ArgumentParser:
    """A subcommand whose arguments go to `function`."""
    p = subparsers.add_parser(name, help=summary, description=summary, epilog=details, formatter_class=HelpFormatter)
    p.set_defaults(function=function)
    return p


def add_fields(parser: argparse.ArgumentParser, cls: type) -> None:
    """An option for every field of a config dataclass, with its default and the comment behind it."""
    hints = typing.get_type_hints(cls)
    for name, default, comment in describe(cls):
        option, hint, text = "--" + name.replace("_", "-"), hints[name], comment.replace("%", "%%")
        if hint is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=text)
        elif typing.get_origin(hint) is typing.Literal:
            parser.add_argument(option, choices=typing.get_args(hint), default=default, help=text)
        elif typing.get_origin(hint) is tuple:
            parser.add_argument(option, nargs="*", default=default, help=text)
        else:
            parser.add_argument(option, type=hint, default=default, help=text)


def all_keys() -> str:
    """Every section and key of a pretraining configuration, with defaults and comments."""
    lines = []
    for section, cls in SECTIONS.items():
        for name, default, comment in describe(cls):
            lines.append(f"  {f'{section}.{name} = {default!r}':38} {comment}".rstrip())
    note = "model.vocab_size is the tokenizer's unless it is set. The models llama, bert, lstm and encoder-decoder\n"
    note += "have keys of their own, and are chosen with model.model_type."
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    sys.exit(main())
