"""The `minillm` command: one subcommand for each stage of the road from text to a trained model.

Each is a file in commands/. Mistakes in arguments, files and configurations end with one line that says what to do, and
exit status 2; Ctrl-C ends with 130; a training run whose loss becomes nan with 1.
"""

from __future__ import annotations

import argparse
import codecs
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence

from .. import __version__
from ..engines.protocol import ProcessLost
from ..training.run_folder import TrainingDiverged
from .options import HelpFormatter, as_option

COMMANDS = {  # the name of a file in commands/ -> what it does
    "quickstart": "from raw text to a trained model in four minutes",
    "corpus": "clean, deduplicate and split text into a corpus folder",
    "tokenizer": "train a tokenizer, encode with it, look at it",
    "pretrain": "train a model on a corpus",
    "finetune": "train a model for a task: classify, translate, summarize, ...",
    "ablate": "the same fine-tuning with one thing changed at a time, as a table",
    "predict": "the answers of a fine-tuned model to the rows of a file",
    "plot": "draw the loss of one or several runs",
    "check": "say whether a run is healthy, and if not, why",
    "evaluate": "measure a model on text: loss and bits per byte",
    "generate": "continue a text",
    "chat": "talk with a model that has a chat template",
    "convert": "write a checkpoint in another form",
    "inspect": "what a model is, and what it costs to train and run",
    "compare": "models side by side: size, speed here, bits per byte",
}
NAME = r"(?<![\w.-])([a-z]+(?:_[a-z]+)*)"  # of an argument, in an error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: this process's) and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    if codecs.lookup(getattr(sys.stdin, "encoding", None) or "utf-8").name == "ascii":
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # what is typed there may be more
    words = sys.argv[1:] if argv is None else argv
    arguments = argparse.Namespace()
    try:  # around the parser too: it imports the command, which takes a second in which Ctrl-C may come
        arguments = make_parser(words).parse_args(words)
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
        if "--traceback" in words:
            raise
        print(f"minillm: {as_typed(in_words(error), words, arguments)}", file=sys.stderr)
        return 2


def in_words(error: Exception) -> str:
    """What an error says; the system's own as "FILE: No such file or directory.", without its number, also where
    another error quotes it."""
    if isinstance(error, UnicodeEncodeError) and codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        text = error.object.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return f"a name in {text!r:.300} is not ASCII, and this locale knows nothing else: set LC_ALL=C.UTF-8 before."
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' and '.join(names)}: {error.strerror.rstrip('.')}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.rstrip('.')}."
    return re.sub(r"\[Errno -?\d+\] ", "", str(error))


def as_typed(text: str, words: Sequence[str], arguments: argparse.Namespace) -> str:
    """An error of a function, which calls its arguments by their names, in the words of who typed the options:
    "max_new_tokens = 0 must be ..." is "--max-new-tokens 0 must be ...", "Use engine='torch'" is "Use --engine torch".
    Only options that were typed are meant, with the values that they have; advice may name any that there is."""
    given = vars(arguments)

    def typed(name: str) -> bool:
        return any(word.partition("=")[0] == as_option(name) for word in words)

    def with_value(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'")
        return f"{as_option(name)} {value}" if typed(name) and value == str(given.get(name)) else match[0]

    def alone(match: re.Match[str]) -> str:
        return f"{as_option(match[1])} must " if typed(match[1]) else match[0]

    def advice(match: re.Match[str]) -> str:
        return f"{as_option(match[1])} {match[2]}" if match[1] in given else match[0]

    text = re.sub(r"^(\w+Config|[a-z]+(_[a-z]+)+): ", "", text)  # who says it
    text = re.sub(rf"{NAME} = ('[^']*'|-?[\w.+-]*\w)", with_value, text)
    text = re.sub(rf"{NAME} must ", alone, text)
    return re.sub(rf"{NAME}='(\w+)'", advice, text)


def make_parser(words: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of a command line with these words. Of the commands, only those that it names are imported, so that
    none waits for what the others need."""
    description = "Train a language model from raw text, every step open to read."
    parser = argparse.ArgumentParser("minillm", description=description)
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error was raised")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        p = subparsers.add_parser(name, help=summary, description=summary, formatter_class=HelpFormatter)
        if name in words:
            command = importlib.import_module(f".{name}", __package__)
            command.add_arguments(p)
            p.set_defaults(function=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
