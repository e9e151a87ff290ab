"""`minillm corpus`: clean, deduplicate and split text into a corpus folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from ..data import (
    CorpusConfig,
    Document,
    build_corpus,
    environment_documents,
    first_bytes,
    read_documents,
    stdlib_documents,
    wiki_documents,
)
from ..training.config_file import build
from .options import add_fields, add_option, by_options, keywords, taken, typed_text

STDLIB = {"stdlib": "source", "docstrings": "docstrings", "topics": "topics"}  # --from -> stdlib_documents' word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="FOLDER", help="corpus folder to make")
    parser.add_argument(
        "--from", dest="sources", action=Sources, default=["stdlib"], metavar="SOURCE",
        help="a file or a folder with prose, code, pages (.html), rows (.jsonl .json .csv .tsv .parquet), also in .zip "
        ".gz .bz2 .xz .zst; hf:OWNER/NAME[/CONFIG][:SPLIT], a data set of the Hugging Face hub; wiki:FILE, a Wikipedia "
        "dump (pages-articles.xml.bz2); stdlib (Python's own source), docstrings, topics (its help texts), environment "
        "(the source of all installed packages); repeatable",
    )  # fmt: skip
    part = "of each source: a sample of a built-in one, else its beginning; 0: all"
    parser.add_argument("--max-mb", type=float, default=0.0, help=part)
    key = "column of rows that holds the text (default: guessed, and said)"
    add_option(parser, read_documents, "text_key", key, metavar="KEY", type=typed_text)
    add_option(parser, read_documents, "encoding", "of text files, such as cp1252 or gb18030, where they don't say")
    follow = "read what links below a folder lead to, also outside of it"
    add_option(parser, read_documents, "follow_links", follow, action="store_true")
    cores = "that work where there is much text (default: one a core, where Linux can fork them)"
    add_option(parser, build_corpus, "processes", cores, metavar="N")
    add_option(parser, build_corpus, "overwrite", "replace an earlier corpus in the folder", action="store_true")
    add_fields(parser, CorpusConfig)


class Sources(argparse.Action):
    """Collects a repeated option, the first of which replaces the default. (With several values to one option,
    `--from a.txt FOLDER` would take the folder for a source.)"""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if given is self.default else [*given, values])


def run(arguments: argparse.Namespace) -> int:
    with by_options(CorpusConfig):
        return make_corpus(arguments)


def make_corpus(arguments: argparse.Namespace) -> int:
    config = build(CorpusConfig, keywords(CorpusConfig, arguments), "corpus")
    if not arguments.max_mb >= 0:
        raise ValueError(f"--max-mb {arguments.max_mb:g} must be at least 0; 0: all of each source.")
    if arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed} must be 0 or more.")
    skipped: list[Any] = []
    notes: list[str] = []

    def tell(note: str) -> None:
        """At once, since a wrong guess is worth stopping for; and for the report."""
        tqdm.write(note, file=sys.stderr)
        notes.append(note.removeprefix("note: "))

    progress = sys.stderr.isatty()
    how = {**keywords(read_documents, arguments), "skipped": skipped, "tell": tell, "progress": progress}
    documents = source_documents(arguments.sources, int(arguments.max_mb * 1e6) or None, how)
    options = {**keywords(build_corpus, arguments), "skipped": skipped, "notes": notes, "progress": progress}
    report = build_corpus(documents, arguments.out, config, **options)
    print(report.summary())
    files = [f"{split}.jsonl" for split in report.splits] + ["report.json", "dropped.jsonl"]
    print(f"wrote {arguments.out}: {', '.join(files)}")
    return 0


def source_documents(sources: list[str], max_bytes: int | None, how: dict[str, Any]) -> Iterator[Document]:
    """The documents of --from; `how` has what the readers of files, of the hub and of dumps take, each its own."""
    for source in sources:
        kind, _, name = source.partition(":")
        if source in STDLIB:
            yield from stdlib_documents(STDLIB[source], max_bytes=max_bytes, skipped=how["skipped"])
        elif source == "environment":
            yield from environment_documents(max_bytes=max_bytes, skipped=how["skipped"])
        else:
            read: Any = wiki_documents if kind == "wiki" else read_documents
            if kind == "hf":
                from ..hub.datasets import hub_documents as read
            documents = read(source if read is read_documents else name, **taken(read, how))
            yield from documents if max_bytes is None else first_bytes(documents, max_bytes)
