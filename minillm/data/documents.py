"""Documents: pieces of text with the place that they are from, how a long one is cut, and how they lie in a corpus.

reading.py makes them of files and folders.
"""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from tqdm import tqdm

from .folders import JSONL_EXTENSIONS, extension_of
from .opening import File, Unreadable, line_of_fault
from .rows import json_value

MAX_DOCUMENT_CHARS = 1_000_000  # no single document of a text file is longer, so that memory stays bounded


@dataclass(frozen=True)
class Document:
    """A piece of text and where it came from.

    `source` is a path, or a path with `#3` (the fourth part of a long file, or the fourth line of a JSONL file).
    """

    text: str
    source: str


@dataclass(frozen=True)
class Dropped:
    """Why a document (or a paragraph, or a file) is not in the corpus.

    `stage` is the step that dropped it ("read", "clean", "exact", "near", "paragraph", "contamination"), `duplicate_of`
    the source that was kept instead, `similarity` the Jaccard similarity or overlap (0 to 1) that decided.
    """

    source: str
    stage: str
    reason: str
    duplicate_of: str | None = None
    similarity: float | None = None


def on_standard_error(note: str) -> None:
    """Say something while a bar may be drawn."""
    tqdm.write(note, file=sys.stderr)


@dataclass
class Reading:
    """How files are read, and what was met. `encoding`, `text_key`, `part_chars` and `tell` are `read_documents`'.

    What is wrong with a file that the user named is raised; in a folder it is `skipped` with its reason, and there no
    unusual column is taken for text.
    """

    encoding: str = "utf-8"
    text_key: str | None = None
    part_chars: int = 20_000
    tell: Callable[[str], None] = on_standard_error
    skipped: list[Dropped] = field(default_factory=list)
    strict_files: bool = True  # what is wrong with a file as a whole is raised
    strict_rows: bool = True  # and what is wrong with one of its rows
    told: set[str] = field(default_factory=set)

    def tell_once(self, what: str, note: str) -> None:
        """Tell what is worth knowing, of all files that are alike once."""
        if what not in self.told:
            self.told.add(what)
            self.tell(note)


def read_parts(stream: IO[str], source: str, limit: int, head: str = "") -> Iterator[Document]:
    """Cut a stream of text, before which `head` stands, into documents of at most `limit` characters, at the last blank
    line that fits."""
    buffer, number, done = head, 0, False
    while not done:
        wanted = max(limit + 1 - len(buffer), 0)
        more = stream.read(wanted)
        done = len(more) < wanted
        buffer += more
        if done and number == 0:
            if buffer.strip():
                yield Document(buffer, source)
            return
        cut = len(buffer) if done else last_break(buffer, limit)
        if buffer[:cut].strip():
            yield Document(buffer[:cut], f"{source}#{number}")
            number += 1
        buffer = buffer[cut:]


def cut_document(document: Document, limit: int) -> Iterator[Document]:
    """The parts of a document, each of at most `limit` characters, cut at the last blank line that fits; a document
    that is not longer stays whole and keeps its source. Parts of white space alone are left out."""
    return read_parts(io.StringIO(document.text, newline=""), document.source, limit)


def last_break(text: str, limit: int) -> int:
    """The position just after the last blank line in text[:limit]; or after the last line, sentence or word there; or
    `limit`, or before it, so that no mark is parted from its letter."""
    for separator in ("\n\n", "\n\r\n", "\n", ". ", "。", "।", " "):
        at = text.rfind(separator, 0, limit)
        if at > 0:
            return at + len(separator)
    at = limit
    while at > max(1, limit - 30) and at < len(text) and unicodedata.category(text[at])[0] == "M":
        at -= 1
    return at


def first_bytes(documents: Iterable[Document], n_bytes: int) -> Iterator[Document]:
    """The documents' text up to about `n_bytes`, the last document cut."""
    for document in documents:
        encoded = document.text.encode("utf-8", "surrogatepass")
        if len(encoded) > n_bytes:
            document = replace(document, text=encoded[:n_bytes].decode(errors="ignore"))  # no half characters
        if document.text:
            yield document
        n_bytes -= len(encoded)
        if n_bytes <= 0:
            return


def check_half_pairs(document: Document, place: str = "") -> None:
    """Raise ValueError, with file and line, for half of a surrogate pair, which no encoding of text has: JSON's escapes
    can bring it in. `clean_text` removes it. `place` says where the document stands, if its source doesn't."""
    try:
        document.text.encode()
    except UnicodeEncodeError as error:
        file, _, number = document.source.rpartition("#")
        if not place and number.isdecimal() and extension_of(file) in JSONL_EXTENSIONS:
            place = f"{file}, line {int(number) + 1}"
        raise ValueError(
            f"document {document.source!r} {f'({place}) ' if place else ''}holds half of a surrogate pair at character "
            f"{error.start}, which is no text: clean it first (minillm corpus does)."
        ) from None


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[Document]:
    """Yield the documents of one JSONL file with the keys "text" and "source", as `write_jsonl` writes them.

    An empty file holds no documents (an empty split is legal). Raises ValueError on the first faulty line.
    """
    file = File.of(path)
    number = 0
    with open(path, encoding="utf-8", newline="\n") as stream:
        try:
            for number, line in enumerate(stream):
                yield written_document(json_value(line), f"{file.name}#{number}")
        except UnicodeDecodeError as error:
            where = line_of_fault(file, "utf-8")
            raise ValueError(f"cannot read {file.name!r}: {where}not UTF-8 ({error.reason}).") from None
        except Unreadable as error:
            raise ValueError(f"cannot read {file.name!r}: line {number + 1}: {error}.") from error


def written_document(record: object, where: str) -> Document:
    """The document of one line that `write_jsonl` wrote. Raises Unreadable for anything else."""
    if not isinstance(record, dict):
        raise Unreadable(f"a JSON {type(record).__name__} where an object with the key 'text' is needed")
    text, source = record.get("text"), record.get("source")
    if not isinstance(text, str):
        raise Unreadable(f"no text under the key 'text'; the object's keys are {sorted(record)[:10]}")
    return Document(text, source if isinstance(source, str) and source else where)


def open_jsonl(path: str | os.PathLike[str]) -> IO[str]:
    """Open a JSONL file for writing. Half surrogate pairs (from file names that are not UTF-8) become JSON escapes."""
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def write_jsonl(stream: IO[str], document: Document) -> None:
    """Write one document as one line of JSON, non-ASCII characters kept readable."""
    stream.write(json.dumps({"text": document.text, "source": document.source}, ensure_ascii=False) + "\n")


def as_line(document: Document) -> bytes:
    """The line of a JSONL file that `write_jsonl` writes into what `open_jsonl` opens."""
    stream = io.StringIO()
    write_jsonl(stream, document)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def as_document(item: Document | bytes) -> Document:
    """A document, or that of a line which `as_line` made."""
    return item if isinstance(item, Document) else Document(**json.loads(item))
