"""Columns: which one of a file's rows holds the text. Readers of rows give (number, {column: value}); here they become
documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .documents import MAX_DOCUMENT_CHARS, Document, Dropped, Reading
from .folders import JSONL_EXTENSIONS
from .opening import File, Unreadable, lines_of, open_text, whole_text
from .rows import BadRecord, csv_rows, json_object, json_records, jsonl_records, table_records, tsv_rows

# What a column of text is called, the likeliest first; capitals aside, and _ or - as a space.
USUAL = (
    "text", "content", "contents", "body", "article", "document", "passage", "story", "main text", "full text",
    "raw text", "raw content", "page content", "text content", "article text", "body text", "paragraph", "abstract",
    "markdown", "code", "sentence", "review", "comment", "post", "message", "transcript", "lyrics", "poem",
    "正文", "内容", "內容", "文本",
)  # fmt: skip
SAMPLE, SAMPLE_CHARS = 100, 1_000_000  # rows to guess from


def read_rows(file: File, reading: Reading) -> Iterator[Document]:
    """The documents of a .csv, .tsv, .jsonl or .json file, row by row; a .json is held whole."""
    extension = file.extension
    with open_text(file, reading.encoding) as stream:
        if extension == ".csv":
            rows = table_records(csv_rows(lines_of(stream), MAX_DOCUMENT_CHARS), ())
        elif extension == ".tsv":
            rows = table_records(tsv_rows(lines_of(stream)), ())
        elif extension in JSONL_EXTENSIONS:
            rows = jsonl_records(lines_of(stream), text_or_object)
        else:
            content = whole_text(stream, remedy=": write it as JSONL, an object a line")
            rows = json_records(content, text_or_object)
        yield from texts_of(rows, file.name, reading, by_line=extension != ".json")


def text_or_object(value: Any) -> dict[str, Any]:
    return {"text": value} if isinstance(value, str) else json_object(value)


def texts_of(
    rows: Iterable[tuple[int, dict[str, Any] | BadRecord]], source: str, reading: Reading, by_line: bool
) -> Iterator[Document]:
    """The texts of rows, each named after its line (from 0), or its number among them. What is wrong with a row is
    skipped with its reason, or raised as ValueError."""
    rows = iter(rows)
    begin = list(first_rows(rows))
    if not begin:
        raise Unreadable("there are no rows in it")
    key = text_column([row for _, row in begin if isinstance(row, dict)], source, reading)
    n_documents = 0
    for number, (line, row) in enumerate(chain(begin, rows)):
        where = f"{source}#{line - 1 if by_line else number}"
        try:
            document = row_document(row, key, where)
        except BadRecord as bad:
            if reading.strict_rows:
                raise ValueError(f"line {line}: {bad}") from bad
            reading.skipped.append(Dropped(where, "read", str(bad)))
            continue
        n_documents += 1
        yield document
    if n_documents == 0:
        raise Unreadable("no row of it can be read")


def first_rows(
    rows: Iterator[tuple[int, dict[str, Any] | BadRecord]],
) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """As many as a guess needs."""
    n = 0
    for number, (line, row) in enumerate(rows, 1):
        yield line, row
        n += sum(len(v) for v in row.values() if isinstance(v, str)) if isinstance(row, dict) else 0
        if number >= SAMPLE or n > SAMPLE_CHARS:
            return


def row_document(row: dict[str, Any] | BadRecord, key: str, where: str) -> Document:
    """The document of a row; a "source" in it wins over its own place. Raises BadRecord where there is none."""
    if isinstance(row, BadRecord):
        raise row
    if key not in row:
        raise BadRecord("no text", f"no key {key!r}; the object's keys are {sorted(row)[:10]}")
    text, source = row[key], row.get("source")
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise BadRecord("no text", f"the value under {key!r} is a {type(text).__name__}, not a string")
    return Document(text, source if isinstance(source, str) and source else where)


def text_column(sample: Sequence[Mapping[str, Any]], source: str, reading: Reading) -> str:
    """The name of the column with the text: the one that was asked for, one with a usual name, or, in a file that was
    named by the user, the only one with texts, or the one with the longest. A guess is told. Raises Unreadable."""
    lengths: dict[str, list[int]] = {}  # of the texts in each column
    for row in sample:
        for name, value in row.items():
            lengths.setdefault(name, []).extend([len(value)] if isinstance(value, str) and value else [])
    if reading.text_key is not None or not lengths:
        wanted = reading.text_key or USUAL[0]
        found = same_name(lengths, wanted)
        if found is None and lengths:
            raise Unreadable(f"no row has a column {wanted!r}; there are {in_quotes(lengths)}")
        return found or wanted
    texts = {name: sum(found) / len(found) for name, found in lengths.items() if found}
    key = next((found for usual in USUAL if (found := same_name(texts, usual)) is not None), None)
    if not texts:
        raise Unreadable(f"no column of it holds text: {in_quotes(lengths)}")
    if key is None and not reading.strict_files:
        raise Unreadable(f"no column of text has a usual name, and --text-key can name it: {in_quotes(lengths)}")
    if key is None:
        key = max(texts, key=lambda name: texts[name])
    others = [name for name in lengths if name != key]
    if key != USUAL[0] and others:
        note = f"note: {source}: the text is taken from {key!r}; --text-key names another: {in_quotes(others)}"
        reading.tell_once(f"text {key} {sorted(others)}", note)
    return key


def same_name(names: Iterable[str], wanted: str) -> str | None:
    """The name that was meant, capitals and underscores aside."""
    names = list(names)
    if wanted in names:
        return wanted
    return next((name for name in names if spaced(name) == spaced(wanted)), None)


def spaced(name: str) -> str:
    return name.strip().casefold().replace("_", " ").replace("-", " ")


def in_quotes(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(repr(name[:40]) for name in names[:10]) + (", ..." if len(names) > 10 else "")
