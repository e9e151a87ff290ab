"""The `minillm` command: one subcommand for each stage of the road from text to a trained model.

Every subcommand is a function below, `corpus` to `generate`, that checks its arguments and calls the library; what it
prints names the files it wrote. Mistakes in arguments, files and configurations end with one line that says what to
do, and exit status 2; Ctrl-C ends with 130; a training run whose loss becomes nan with 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import tempfile
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .config import ConfigError, build, describe, override
from .data import CorpusConfig, Document, build_corpus, corpus_documents, environment_documents, pack, read_documents
from .data import stdlib_documents as stdlib
from .engine_config import process_rank
from .pretrain import CONFIG_FILE, PRESETS, SECTIONS, packed, pretrain, read_config, resumed_sections
from .train import TrainingDiverged

STDLIB_SOURCES = ("stdlib", "docstrings", "topics")


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
    except TrainingDiverged as error:
        print(f"minillm: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if arguments.traceback:
            raise
        print(f"minillm: {error}", file=sys.stderr)
        return 2


# --- the subcommands ------------------------------------------------------------------------------------------------


def quickstart(arguments: argparse.Namespace) -> int:
    from .quickstart import quickstart

    return quickstart(arguments.out, seconds=arguments.seconds, seed=arguments.seed, overwrite=arguments.overwrite)


def corpus(arguments: argparse.Namespace) -> int:
    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(CorpusConfig)}
    config = build(CorpusConfig, settings, "corpus")
    skipped: list[Any] = []
    max_bytes = int(arguments.max_mb * 1e6) or None
    documents = source_documents(arguments.sources, max_bytes, skipped)
    report = build_corpus(
        documents, arguments.out, config, skipped=skipped, overwrite=arguments.overwrite, progress=sys.stderr.isatty()
    )
    print(report.summary())
    print(f"wrote {arguments.out}: train.jsonl, val.jsonl, report.json, dropped.jsonl")
    return 0


def source_documents(sources: list[str], max_bytes: int | None, skipped: list[Any]) -> Iterator[Document]:
    """The documents of --from: names of built-in sources, files and folders."""
    for source in sources:
        if source in STDLIB_SOURCES:
            yield from stdlib("source" if source == "stdlib" else source, max_bytes=max_bytes, skipped=skipped)
        elif source == "environment":
            yield from environment_documents(max_bytes=max_bytes, skipped=skipped)
        else:
            yield from read_documents(source, skipped=skipped)


def tokenizer_train(arguments: argparse.Namespace) -> int:
    from .tokenizers import BPETokenizer, CharTokenizer

    texts = (document.text for source in arguments.sources for document in training_documents(source))
    if arguments.kind == "char":
        tokenizer: Any = CharTokenizer.train(texts, special_tokens=arguments.special, unk_token="<unk>")
    else:
        tokenizer = BPETokenizer.train(
            texts,
            arguments.vocab_size,
            pattern=arguments.pattern,
            special_tokens=arguments.special,
            progress=sys.stderr.isatty(),
        )
    tokenizer.save(arguments.out)
    print(f"wrote {arguments.out}: {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint()}")
    return 0


def training_documents(source: str) -> Iterator[Document]:
    """The training split of a corpus folder, or the documents of any file or folder."""
    if (Path(source) / "report.json").exists():
        return corpus_documents(source, "train")
    return read_documents(source)


def tokenizer_encode(arguments: argparse.Namespace) -> int:
    from .tokenizers import load_tokenizer

    tokenizer = load_tokenizer(arguments.tokenizer)
    if (arguments.text is None) == (arguments.file is None):
        raise ConfigError("give either a text or --file FILE")
    if arguments.text is not None:
        allowed = "all" if arguments.special else ()
        print(*tokenizer.encode(arguments.text, allowed_special=allowed, disallowed_special=()))
        return 0
    separator = ""
    for ids in tokenizer.encode_file(arguments.file, disallowed_special=()):
        print(separator, " ".join(map(str, ids.tolist())), sep="", end="")
        separator = " "
    print()
    return 0


def tokenizer_show(arguments: argparse.Namespace) -> int:
    from .tokenizers import BPETokenizer, load_tokenizer
    from .tokenizers.show import replay_encoding, show, show_merges

    tokenizer = load_tokenizer(arguments.tokenizer)
    print(tokenizer)
    if arguments.text is not None:
        print(show(tokenizer, arguments.text))
    if not isinstance(tokenizer, BPETokenizer):
        return 0
    if arguments.text is None:
        print(show_merges(tokenizer, 0, arguments.merges))
    elif arguments.steps:
        print(replay_encoding(tokenizer, arguments.text))
    return 0


def pretrain_command(arguments: argparse.Namespace) -> int:
    if arguments.resume:
        sections = resumed_sections(arguments.out)
    else:
        sections = read_config(arguments.config) if arguments.config else {}
    for key in ("corpus", "tokenizer"):
        if getattr(arguments, key):
            sections.setdefault("data", {})[key] = str(Path(getattr(arguments, key)).resolve())
    if arguments.engine:
        sections.setdefault("engine", {})["name"] = arguments.engine
    if arguments.attention:
        sections.setdefault("model", {})["attention"] = arguments.attention
    for option in arguments.set:
        override(sections, option, SECTIONS)
    result = pretrain(sections, arguments.out, resume=arguments.resume)
    if process_rank() > 0:  # under torchrun the first process speaks for all
        return 0
    print(f"{result.reason} at step {result.state.step:,} after {result.state.seconds:,.0f} s")
    if result.state.best_loss is not None:
        print(f"best validation loss {result.state.best_loss:.4f} nats/token, step {result.state.best_step:,}")
    print(f"wrote {arguments.out}: best, last, metrics.jsonl, config.toml")
    if result.signal is not None:
        print(f"to go on: minillm pretrain --resume --out {arguments.out}")
        return 128 + result.signal
    return 0


def evaluate_command(arguments: argparse.Namespace) -> int:
    from .checkpoint import checkpoint_in, load_model_and_tokenizer
    from .engine import batch_loss
    from .evaluate import evaluate

    model, tokenizer = load_model_and_tokenizer(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            data = pack(read_documents(arguments.data), tokenizer, Path(folder) / "tokens.bin")
        else:
            data = packed(corpus_of(arguments.run), arguments.split, tokenizer)
        context = arguments.context or model.config.context
        result = evaluate(
            lambda ids, targets: batch_loss(model, ids, targets),
            data,
            batch_size=arguments.batch_size,
            context=context,
            max_tokens=arguments.max_tokens,
        )
        print(f"{checkpoint_in(arguments.run)} on {' '.join(arguments.data) or arguments.split}: {result}")
        del data  # unmap the file before its folder goes (Windows)
    return 0


def corpus_of(run: str) -> str:
    """The corpus folder that the run of a run folder or checkpoint was trained on, from its config.toml."""
    for folder in (Path(run), Path(run).parent):
        if (folder / CONFIG_FILE).exists():
            return str(resumed_sections(folder).get("data", {}).get("corpus", ""))
    raise ConfigError(f"{run} does not say what it was trained on (no {CONFIG_FILE}): give --data FILE")


def generate_command(arguments: argparse.Namespace) -> int:
    from .checkpoint import load_model_and_tokenizer
    from .generate import Sampling, stream_text

    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
    )
    model, tokenizer = load_model_and_tokenizer(arguments.run)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        print(prompt, end="", flush=True)
        pieces = stream_text(
            model,
            tokenizer,
            prompt,
            max_new_tokens=arguments.max_new_tokens,
            sampling=sampling,
            seed=seed,
            use_cache=not arguments.no_cache,
        )
        for piece in pieces:
            print(piece, end="", flush=True)
        print("\n" + "-" * 40 if sample + 1 < arguments.samples else "")
    return 0


# --- the parser -----------------------------------------------------------------------------------------------------


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows every option's default, and leaves the line breaks of descriptions alone."""


def make_parser() -> argparse.ArgumentParser:
    description = "Train a language model from raw text, every step open to read."
    parser = argparse.ArgumentParser("minillm", description=description)
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error was raised")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = add_command(commands, "quickstart", quickstart, "from raw text to a trained model in about four minutes")
    p.add_argument("--out", default="runs/quickstart", metavar="FOLDER", help="run folder to make")
    p.add_argument("--seconds", type=float, default=150.0, help="time to train for; a few are enough to see the road")
    p.add_argument("--seed", type=int, default=1337, help="of the initial weights and the order of the data")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart in the folder")

    p = add_command(commands, "corpus", corpus, "clean, deduplicate and split text into a corpus folder")
    p.add_argument("out", metavar="FOLDER", help="corpus folder to make")
    p.add_argument(
        "--from", dest="sources", nargs="+", default=["stdlib"], metavar="SOURCE",
        help="files, folders, or: stdlib (Python's own source), docstrings, topics (its help texts), "
        "environment (the source of all installed packages)",
    )  # fmt: skip
    p.add_argument("--max-mb", type=float, default=0.0, help="size of a sample of each built-in source; 0: all of it")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier corpus in the folder")
    add_fields(p, CorpusConfig)

    tokenizer = commands.add_parser("tokenizer", help="train a tokenizer, encode with it, look at it")
    tokenizer_commands = tokenizer.add_subparsers(required=True, metavar="COMMAND")
    p = add_command(tokenizer_commands, "train", tokenizer_train, "learn a tokenizer from text")
    p.add_argument("sources", nargs="+", metavar="SOURCE", help="corpora (their training split), files, folders")
    p.add_argument("--out", default="tokenizer.json", metavar="FILE", help="file to write")
    p.add_argument("--kind", choices=["bpe", "char"], default="bpe", help="byte-level BPE, or one id per character")
    p.add_argument("--vocab-size", type=int, default=4096, help="number of ids (bpe)")
    p.add_argument("--pattern", choices=["gpt2", "gpt4"], default="gpt4", help="how text is split before merging (bpe)")
    p.add_argument("--special", nargs="*", default=["<|endoftext|>"], metavar="TOKEN", help="special tokens")
    p = add_command(tokenizer_commands, "encode", tokenizer_encode, "print the ids of a text or a file")
    p.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    p.add_argument("text", nargs="?", metavar="TEXT", help="text to encode")
    p.add_argument("--file", metavar="FILE", help="UTF-8 file to encode, of any size")
    p.add_argument("--special", action="store_true", help="read the text of special tokens in TEXT as those tokens")
    p = add_command(tokenizer_commands, "show", tokenizer_show, "show the tokens of a text, or what was learned")
    p.add_argument("tokenizer", metavar="TOKENIZER", help="tokenizer.json, or a folder with one")
    p.add_argument("text", nargs="?", metavar="TEXT", help="text to cut; without it, the first merges are shown")
    p.add_argument("--merges", type=int, default=50, help="how many merges to show")
    p.add_argument("--steps", action="store_true", help="replay how the text was encoded, merge by merge")

    p = add_command(
        commands, "pretrain", pretrain_command, "train a model on a corpus",
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

    p = add_command(commands, "evaluate", evaluate_command, "loss, perplexity and bits per byte of a model on text")
    p.add_argument("run", metavar="RUN", help="run folder (its best checkpoint), or a checkpoint folder")
    p.add_argument("--data", nargs="+", default=[], metavar="FILE", help="text files or folders, not the run's corpus")
    p.add_argument("--split", default="val", help="split of the run's corpus")
    p.add_argument("--batch-size", type=int, default=16, help="sequences at a time")
    p.add_argument("--context", type=int, default=0, help="tokens per sequence; 0: the model's")
    p.add_argument("--max-tokens", type=int, default=0, help="stop after this many; 0: all")

    p = add_command(commands, "generate", generate_command, "continue a text")
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
    return parser


def add_command(commands: Any, name: str, function: Any, summary: str, details: str = "") -> argparse.ArgumentParser:
    """A subcommand whose arguments go to `function`."""
    p = commands.add_parser(name, help=summary, description=summary, epilog=details, formatter_class=HelpFormatter)
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
    note = "model.vocab_size is the tokenizer's unless it is set. The models llama and lstm have keys of their own."
    return "\n".join([*lines, "", note])
