"""Reading: local files and folders become a stream of documents, one at a time, whatever their size.

A file that the user names is wanted, so anything wrong with it is an error. A file that merely lies in a folder, or in
an archive, that the user names may be skipped, and then the reason is recorded. Nothing is ever dropped in silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import IO

from .archives import members_of
from .columns import read_rows
from .documents import MAX_DOCUMENT_CHARS, Document, Dropped, Reading, on_standard_error, read_parts
from .folders import (
    ARCHIVES,
    CODE_EXTENSIONS,
    COMPRESSIONS,
    MARKDOWN_EXTENSIONS,
    ROW_EXTENSIONS,
    TEXT_EXTENSIONS,
    WEB_EXTENSIONS,
    files_below,
    kinds_skipped,
)
from .opening import DAMAGED, ENCODINGS, File, Unreadable, open_text, why_unreadable
from .parquet import read_parquet
from .rows import json_value
from .web import read_page

# What is no text, by name: how it becomes one. (Other unknown names are tried as text.)
CONVERT = {
    ".pdf": "pdftotext", ".doc": "pandoc -t plain", ".docx": "pandoc -t plain", ".odt": "pandoc -t plain",
    ".rtf": "pandoc -t plain", ".epub": "pandoc -t plain", ".ipynb": "jupyter nbconvert --to markdown",
    ".tar": "tar -xf", ".tgz": "tar -xf", ".7z": "7z x", ".rar": "unrar x", ".arrow": "datasets' to_parquet",
}  # fmt: skip
FRONT_LINES = 200  # of settings at the head of a Markdown file, at most
SETTING = re.compile(r"[\w.\"'-]+[ \t]*[:=]")
BESIDE_SETTINGS = re.compile(r"\s|#|-|[\[\]{}]|$")  # values below their key, comments


def read_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    encoding: str = "utf-8",
    text_key: str | None = None,
    part_chars: int = 20_000,
    follow_links: bool = False,
    skipped: list[Dropped] | None = None,
    tell: Callable[[str], None] = on_standard_error,
) -> Iterator[Document]:
    """Yield the documents of files and folders in a deterministic order, holding one document at a time.

    Folders are walked in sorted order, without hidden entries and `__pycache__`; a .zip is read like one. What a file
    holds is told by its ending, behind which .gz, .bz2, .xz or .zst may stand:

    - prose (.txt .rst .md), cut at blank lines into parts of about `part_chars` characters where it is longer (a book
      in one file could not be split into train and validation otherwise). Of Markdown the front matter, settings for a
      program at its head, is left out; the rest is kept as it is, links and comments too: it is what one writes.
    - source code (.py .c .rs ...), cut only beyond a million characters.
    - rows (.jsonl .ndjson .json .csv .tsv .parquet), a document each: of the column `text_key`, or, by default, of one
      with a usual name (text, content, body, ...). Where a file that is named has none, it is the column with the
      longest texts. Each guess is told (`tell`; by default on standard error), once for files that are alike.
    - pages (.html .htm), of which the main text is kept.

    Python files are decoded as their coding line says, pages as their head says, all others as `encoding`, or as UTF-16
    or UTF-32 when they say so with a byte order mark. Line endings are kept: cleaning them is `clean`'s work. Links
    that leave a folder, and links to folders, are skipped unless `follow_links`. A file with another ending is read as
    text if it is named, and as JSON where it begins like it.

    Files found in a folder that cannot be read as text are appended to `skipped` with their reason. For a file named
    in `paths` the same is an error: FileNotFoundError, or ValueError with the byte or line at fault.
    """
    if part_chars < 1:
        raise ValueError(f"part_chars must be at least 1 (the characters of a part), not {part_chars}.")
    named = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not named:
        raise ValueError("no file or folder given: read_documents needs at least one path.")
    for path in named:
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"there is no file or folder {os.fspath(path)!r} (looked from the current folder {os.getcwd()!r})."
            )
    reading = Reading(encoding, text_key, part_chars, tell, skipped if skipped is not None else [])
    for path in named:
        if os.path.isdir(path):
            found = ((File.of(file), why_not) for file, why_not in files_below(os.fspath(path), follow_links))
            yield from read_all(found, f"the folder {os.fspath(path)!r}", reading)
        else:
            yield from read_file(File.of(path), reading)


def read_all(found: Iterable[tuple[File, str | None]], place: str, reading: Reading) -> Iterator[Document]:
    """Yield the documents of those files that are text, and note why the others are not. Raises ValueError where none
    is."""
    reading = replace(reading, strict_files=False, strict_rows=False)
    before, n_documents = len(reading.skipped), 0
    for file, why_not in found:
        if why_not is not None:
            reading.skipped.append(Dropped(file.name, "read", why_not))
            continue
        for document in read_file(file, reading):
            n_documents += 1
            yield document
    if n_documents == 0:
        known = " ".join(sorted(TEXT_EXTENSIONS | ARCHIVES))
        why = "; ".join(kinds_skipped((one.source, one.reason) for one in reading.skipped[before:]))
        raise ValueError(
            f"{place} holds no readable text: looked for {known} (also {' '.join(sorted(COMPRESSIONS))})."
            f"{f' {why}.' if why else ''}"
        )


def read_file(file: File, reading: Reading) -> Iterator[Document]:
    """Yield a file's documents. What is wrong with it is raised as ValueError, or noted."""
    try:
        if file.extension in ARCHIVES:
            yield from read_all(members_of(file), "the archive", reading)
        else:
            yield from form_of(file)(file, reading)
    except (ValueError, OSError, *DAMAGED) as error:
        reason = why_unreadable(file, error)
        if reading.strict_files:
            hint = f" ({ENCODINGS})" if isinstance(error, UnicodeDecodeError) else ""
            raise ValueError(f"cannot read {file.name!r}: {reason}{hint}.") from error
        reading.skipped.append(Dropped(file.name, "read", reason))


def form_of(file: File) -> Callable[[File, Reading], Iterator[Document]]:
    """The reader for what a file holds."""
    extension = file.extension
    if extension == ".parquet":
        return read_parquet
    if extension in WEB_EXTENSIONS:
        return read_page
    if extension in ROW_EXTENSIONS or (extension not in TEXT_EXTENSIONS | CONVERT.keys() and is_jsonl(file)):
        return read_rows
    return read_text


def is_jsonl(file: File) -> bool:
    """Whether the first line is a JSON object: then it is JSONL, whatever the file is called."""
    with open_text(file, "latin-1") as stream:
        first = stream.readline(1_000_000)
    try:
        return first.startswith("{") and isinstance(json_value(first), dict)
    except Unreadable:
        return False


def read_text(file: File, reading: Reading) -> Iterator[Document]:
    """Prose, code, and whatever else is text."""
    if file.extension in CONVERT:
        raise Unreadable(f"{file.extension} is no text: convert it first ({CONVERT[file.extension]})")
    limit = MAX_DOCUMENT_CHARS if file.extension in CODE_EXTENSIONS else reading.part_chars
    with open_text(file, reading.encoding) as stream:
        head = without_front_matter(stream) if file.extension in MARKDOWN_EXTENSIONS else stream.read(100)
        if head.startswith("<mediawiki"):
            raise Unreadable("it is a Wikipedia dump: put wiki: before its name (wiki_documents)")
        empty = True
        for part in read_parts(stream, file.name, limit, head):
            empty = False
            yield part
    if empty:
        raise Unreadable("it is empty (no character other than white space)")


def without_front_matter(stream: IO[str]) -> str:
    """The first lines of Markdown, read to look for front matter: nothing if they are that, between lines of --- (YAML)
    or +++ (TOML)."""
    lines = [stream.readline(1000)]
    fence = lines[0].rstrip()
    if fence not in ("---", "+++"):
        return lines[0]
    for line in islice(iter(partial(stream.readline, 10_000), ""), FRONT_LINES):
        lines.append(line)
        if line.rstrip() == fence:
            inside = lines[1:-1]
            settings = sum(SETTING.match(line) is not None for line in inside)
            beside = sum(BESIDE_SETTINGS.match(line) is not None for line in inside)
            return "" if settings and settings + beside == len(inside) else "".join(lines)
    return "".join(lines)
