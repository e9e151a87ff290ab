"""`minillm corpus`: clean, deduplicate and split text into a corpus folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from ..data import CorpusConfig, Document, build_corpus, environment_documents, read_documents, stdlib_documents
from ..training.config_file import build
from .options import add_fields, add_option, by_options, keywords, typed_text

STDLIB = {"stdlib": "source", "docstrings": "docstrings", "topics": "topics"}  # --from -> stdlib_documents' word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="FOLDER", help="corpus folder to make")
    parser.add_argument(
        "--from", dest="sources", action=Sources, default=["stdlib"], metavar="SOURCE",
        help="a file, a folder, or: stdlib (Python's own source), docstrings, topics (its help texts), "
        "environment (the source of all installed packages); repeatable",
    )  # fmt: skip
    parser.add_argument("--max-mb", type=float, default=0.0, help="sample of each built-in source; 0: all of it")
    key = "the key of a JSON object that holds its text"
    add_option(parser, read_documents, "text_key", key, metavar="KEY", type=typed_text)
    follow = "read what links below a folder lead to, also outside of it"
    add_option(parser, read_documents, "follow_links", follow, action="store_true")
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
    how = keywords(read_documents, arguments)
    documents = source_documents(arguments.sources, int(arguments.max_mb * 1e6) or None, skipped, how)
    overwrite, progress = arguments.overwrite, sys.stderr.isatty()
    report = build_corpus(documents, arguments.out, config, skipped=skipped, overwrite=overwrite, progress=progress)
    print(report.summary())
    files = [f"{split}.jsonl" for split in report.splits] + ["report.json", "dropped.jsonl"]
    print(f"wrote {arguments.out}: {', '.join(files)}")
    return 0


def source_documents(
    sources: list[str], max_bytes: int | None, skipped: list[Any], how: dict[str, Any]
) -> Iterator[Document]:
    """The documents of --from: names of built-in sources, files and folders; `how` is for `read_documents`."""
    for source in sources:
        if source in STDLIB:
            yield from stdlib_documents(STDLIB[source], max_bytes=max_bytes, skipped=skipped)
        elif source == "environment":
            yield from environment_documents(max_bytes=max_bytes, skipped=skipped)
        else:
            yield from read_documents(source, skipped=skipped, **how)
