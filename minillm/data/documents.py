"""Documents: local files and folders become a stream of `Document`, one at a time, whatever their size.

A file that the user names is wanted, so anything wrong with it is an error. A file that merely lies in a folder that
the user names may be skipped, and then the reason is recorded. Nothing is ever dropped in silence.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import tokenize
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from .folders import CODE_EXTENSIONS, JSONL_EXTENSIONS, PROSE_EXTENSIONS, extension_of, files_below

COMPRESSED: dict[str, Callable[[str], IO[bytes]]] = {
    ".gz": cast(Callable[[str], IO[bytes]], gzip.open),
    ".bz2": cast(Callable[[str], IO[bytes]], bz2.open),
    ".xz": cast(Callable[[str], IO[bytes]], lzma.open),
}

MAX_DOCUMENT_CHARS = 1_000_000  # no single document is longer than this, so that memory stays bounded
MAX_JSONL_LINE_CHARS = 64_000_000
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


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


def read_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    encoding: str = "utf-8",
    text_key: str = "text",
    part_chars: int = 20_000,
    follow_links: bool = False,
    skipped: list[Dropped] | None = None,
) -> Iterator[Document]:
    """Yield the documents of files and folders in a deterministic order, holding one document at a time.

    Folders are walked in sorted order, without hidden entries and `__pycache__`. Read are prose (.txt .md .rst), source
    code (.py .c .rs ...), and JSONL with one object a line whose `text_key` holds the text; each also as .gz, .bz2 or
    .xz. Prose longer than `part_chars` characters is cut at blank lines into parts of about that length (a book in one
    file could not be split into train and validation otherwise); code is cut only beyond a million characters.
    Python files are decoded as their coding line says, all others as `encoding`, or as UTF-16 or UTF-32 when they say
    so with a byte order mark. Line endings are kept: cleaning them is `clean`'s work. Links that leave a folder, and
    links to folders, are skipped unless `follow_links`. A .json file is read if it is named: a list of objects like
    those of JSONL, or of texts.

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
    for path in named:
        if not os.path.isdir(path):
            yield from read_file(os.fspath(path), encoding, text_key, part_chars, skipped=None)
            continue
        n_documents = 0
        for file, why_not in files_below(os.fspath(path), follow_links):
            if why_not is not None:
                if skipped is not None:
                    skipped.append(Dropped(file, "read", why_not))
                continue
            for document in read_file(file, encoding, text_key, part_chars, skipped if skipped is not None else []):
                n_documents += 1
                yield document
        if n_documents == 0:
            known = " ".join(sorted(PROSE_EXTENSIONS | CODE_EXTENSIONS | JSONL_EXTENSIONS))
            raise ValueError(
                f"the folder {os.fspath(path)!r} holds no readable text: looked for {known} (also .gz .bz2 .xz)."
            )


class Unreadable(ValueError):
    """A file or a line that holds no text for us: its text is the reason, part of a sentence that names the place."""


def read_file(
    file: str, encoding: str, text_key: str, part_chars: int, skipped: list[Dropped] | None
) -> Iterator[Document]:
    """Yield a file's documents. Where `skipped` is None, raise what is wrong; otherwise note it there and return."""
    source = Path(file).as_posix()
    try:
        with open_text(file, encoding) as stream:
            if extension_of(file) in JSONL_EXTENSIONS:
                yield from read_jsonl_stream(stream, source, text_key, skipped)
            elif extension_of(file) == ".json":
                yield from read_json_list(stream, source, text_key)
            else:
                limit = part_chars if extension_of(file) in PROSE_EXTENSIONS else MAX_DOCUMENT_CHARS
                empty = True
                for part in read_parts(stream, source, limit):
                    empty = False
                    yield part
                if empty:
                    raise Unreadable("it is empty (no character other than white space)")
    except (ValueError, OSError, *DAMAGED) as error:
        reason = why_unreadable(file, error)
        if skipped is None:
            raise ValueError(f"cannot read {source!r}: {reason}.") from error
        skipped.append(Dropped(source, "read", reason))


def why_unreadable(file: str, error: Exception) -> str:
    """What was wrong with a file that gave this error, as part of a sentence, and what to do where that is known."""
    if isinstance(error, UnicodeDecodeError):
        half = b"\xed\xa0" <= error.object[error.start : error.start + 2] <= b"\xed\xbf"
        what = "half of a surrogate pair" if half and error.encoding == "utf-8" else error.reason
        return (
            f"not {error.encoding} text: {line_of_fault(file, error.encoding)}byte "
            f"0x{error.object[error.start]:02x} ({what}); convert the file (iconv -t utf-8), or name its encoding"
        )
    if isinstance(error, DAMAGED):
        return f"damaged or cut-off compressed data ({error})"
    return str(error)


def open_text(file: str, encoding: str) -> io.TextIOWrapper:
    """Open a file, compressed or not, as text with its line endings kept; refuse binary content."""
    opener = COMPRESSED.get(os.path.splitext(file.lower())[1])
    raw = (opener or open_bytes)(file)
    try:
        buffered = io.BufferedReader(cast(io.RawIOBase, raw), 1 << 16) if opener else cast(io.BufferedReader, raw)
        head = buffered.peek(8192)[:8192]
        if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):  # the first two bytes alone would be UTF-16's mark
            encoding = "utf-32"
        elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
            encoding = "utf-16"
        elif b"\0" in head:  # git's rule for "binary"
            raise Unreadable(f"it is binary, not text (a zero byte at position {head.index(0)})")
        elif extension_of(file) in {".py", ".pyi"}:
            try:
                encoding = tokenize.detect_encoding(io.BytesIO(head[: head.rfind(b"\n") + 1]).readline)[0]
            except SyntaxError as error:
                raise Unreadable(f"its Python coding line is wrong ({error})") from error
        if encoding.lower().replace("_", "-") in {"utf-8", "utf8"}:
            encoding = "utf-8-sig"  # drops a byte order mark at the start
        return io.TextIOWrapper(buffered, encoding=encoding, newline="")
    except LookupError:
        raw.close()
        raise ValueError(f"Python knows no text encoding called {encoding!r}") from None
    except BaseException:
        raw.close()
        raise


def line_of_fault(file: str, encoding: str) -> str:
    """ "line 3, " for the first line that is not of this encoding; "" where lines can't be told in its bytes."""
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        return ""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with COMPRESSED.get(os.path.splitext(file.lower())[1], open_bytes)(file) as stream:
        while True:
            block = stream.read(1 << 16)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return f"line {line}, "
            if not block:
                return ""
            line += block.count(b"\n")


def open_bytes(file: str) -> IO[bytes]:
    return open(file, "rb")


def read_parts(stream: IO[str], source: str, limit: int) -> Iterator[Document]:
    """Cut a stream of text into documents of at most `limit` characters, at the last blank line that fits."""
    buffer, number, done = "", 0, False
    while not done:
        more = stream.read(limit + 1 - len(buffer))
        done = len(more) < limit + 1 - len(buffer)
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


def read_jsonl_stream(stream: IO[str], source: str, text_key: str, skipped: list[Dropped] | None) -> Iterator[Document]:
    """Yield a document for each line of JSON; a faulty line is skipped with its reason, or raises ValueError."""
    number, n_documents = 0, 0
    while line := stream.readline(MAX_JSONL_LINE_CHARS):
        where = f"{source}#{number}"
        number += 1
        if not line.strip():
            continue
        try:
            text, where = jsonl_text(line, text_key, where)
        except ValueError as error:
            if skipped is None:
                raise ValueError(f"line {number}: {error}") from error
            skipped.append(Dropped(where, "read", str(error)))
            continue
        n_documents += 1
        yield Document(text, where)
    if n_documents == 0:
        raise Unreadable(f"no line holds a JSON object with text under the key {text_key!r}")


def read_json_list(stream: IO[str], source: str, text_key: str) -> Iterator[Document]:
    """Yield a document for each text, or object with a text, of a file with one JSON list (or one object)."""
    content = stream.read(MAX_JSONL_LINE_CHARS)
    if len(content) == MAX_JSONL_LINE_CHARS:
        raise Unreadable(f"it is longer than {MAX_JSONL_LINE_CHARS:,} characters: write it as JSONL, an object a line")
    try:
        records = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSONL under another name
            yield from read_jsonl_stream(io.StringIO(content), source, text_key, None)
            return
        raise Unreadable(f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise Unreadable("not usable JSON (nested too deeply)") from None
    records = records if isinstance(records, list) else [records]
    for number, record in enumerate(records):
        if isinstance(record, dict) and text_key not in record:
            raise Unreadable(
                f"which key holds the text? Object {number + 1} has no {text_key!r}, but {sorted(record)[:10]}: name "
                "it with text_key (--text-key KEY)"
            )
        where = f"{source}#{number}"
        yield Document(record, where) if isinstance(record, str) else Document(*record_text(record, text_key, where))
    if not records:
        raise Unreadable("its list is empty")


def jsonl_text(line: str, text_key: str, where: str) -> tuple[str, str]:
    """(text, source) of one JSONL line; a "source" inside the object wins over the line's own place."""
    if len(line) >= MAX_JSONL_LINE_CHARS:
        raise Unreadable(f"the line is longer than {MAX_JSONL_LINE_CHARS:,} characters")
    return record_text(json_value(line), text_key, where)


def json_value(line: str) -> Any:
    """The value of one line of JSON. Raises Unreadable, with the column."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise Unreadable("not usable JSON (nested too deeply)") from None
    except ValueError as error:  # a number of thousands of digits
        raise Unreadable(f"not usable JSON ({error})") from None


def record_text(record: Any, text_key: str, where: str) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise Unreadable(f"a JSON {type(record).__name__} where an object with the key {text_key!r} is needed")
    if text_key not in record:
        raise Unreadable(f"no key {text_key!r}; the object's keys are {sorted(record)[:10]}")
    text = record[text_key]
    if not isinstance(text, str):
        raise Unreadable(f"the value under {text_key!r} is a {type(text).__name__}, not a string")
    source = record.get("source")
    return text, source if isinstance(source, str) and source else where


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
    source = Path(path).as_posix()
    number = 0
    with open(path, encoding="utf-8", newline="\n") as stream:
        try:
            for number, line in enumerate(stream):
                yield Document(*jsonl_text(line, "text", f"{source}#{number}"))
        except UnicodeDecodeError as error:
            where = line_of_fault(os.fspath(path), "utf-8")
            raise ValueError(f"cannot read {source!r}: {where}not UTF-8 ({error.reason}).") from None
        except Unreadable as error:
            raise ValueError(f"cannot read {source!r}: line {number + 1}: {error}.") from error


def open_jsonl(path: str | os.PathLike[str]) -> IO[str]:
    """Open a JSONL file for writing. Half surrogate pairs (from file names that are not UTF-8) become JSON escapes."""
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def write_jsonl(stream: IO[str], document: Document) -> None:
    """Write one document as one line of JSON, non-ASCII characters kept readable."""
    stream.write(json.dumps({"text": document.text, "source": document.source}, ensure_ascii=False) + "\n")
