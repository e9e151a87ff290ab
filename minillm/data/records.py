"""Records: the rows of a user's CSV or TSV, the objects of a JSONL or JSON file, each with the line it begins on.

A record that can't be read doesn't end the reading: in its place stands a `BadRecord`, so that whoever reads can name
the first one, count the others, or leave them out. Only what is wrong with the file as a whole (no such file, not
text, no header) is raised here.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk.names import AnyPath
from .documents import DAMAGED, Unreadable, json_value, open_text, why_unreadable
from .folders import JSONL_EXTENSIONS, extension_of

TABLES = (".csv", ".tsv")
EXTENSIONS = (*TABLES, *sorted(JSONL_EXTENSIONS), ".json")
# A field of a TSV that a CSV writer made: in quotes, with a doubled one inside. '"Hello!"' in a TSV is what was said.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_SPACE = re.compile(r"[ \t\r\n]*")


class BadRecord(ValueError):
    """One record that can't be used: what is wrong and how it is mended, the end of a sentence that begins with its
    place. `kind` is what a report counts it under ("empty text")."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True)
class Table:
    """What a file holds: `records` are (line, {column: value}) or (line, BadRecord), lines counted from 1.

    `columns` are all names, with the number of records that have them, in the order in which they appear.
    """

    path: str
    columns: Counter[str]
    records: list[tuple[int, dict[str, Any] | BadRecord]]

    def column(self, wanted: str, option: str) -> str:
        """The column that the caller named, capitals aside. Raises ValueError, with the nearest name, if none is."""
        if wanted in self.columns:
            return wanted
        alike = [name for name in self.columns if plain(name) == plain(wanted)]
        if alike:
            return alike[0]
        close = difflib.get_close_matches(plain(wanted), [plain(name) for name in self.columns], n=1)
        hint = f" Did you mean {next(n for n in self.columns if plain(n) == close[0])!r}?" if close else ""
        raise ValueError(f"{self.path}: there is no column {wanted!r} for {option}.{hint} {self.named()}")

    def named(self) -> str:
        """A sentence that lists the columns."""
        names = ", ".join(f"{name[:40]!r}" for name in list(self.columns)[:20])
        return f"The file's columns: {names or 'none'}{', ...' if len(self.columns) > 20 else ''}."


def plain(name: str) -> str:
    """A column's name as it is compared: "Text " is "text"."""
    return name.strip().casefold()


def read_table(path: AnyPath, *, encoding: str = "utf-8", names: tuple[str, ...] = ()) -> Table:
    """Read a whole .csv, .tsv, .jsonl (.ndjson) or .json file, each also as .gz, .bz2 or .xz, into memory.

    A table's first line names its columns, unless `names` does. A .csv is RFC 4180's: a field with commas, quotes or
    line breaks stands in quotes, a quote in it is doubled; it is cut at semicolons (or tabs) instead where its first
    line has those and no comma, as spreadsheets write it in half of Europe. A .tsv is IANA's: one record a line, cut at
    tabs, quotes are part of the text (but what a CSV writer has quoted, `"say ""hi"" "`, is unquoted). A .json is a
    list of objects. Byte order marks and encodings are read as `read_documents` reads them.

    Raises FileNotFoundError, or ValueError for what is wrong with the whole file.
    """
    file = os.fspath(path)
    source = Path(file).as_posix()
    extension = extension_of(file)
    if not os.path.exists(file):
        raise FileNotFoundError(f"there is no file {source!r} (looked from the current folder {os.getcwd()!r}).")
    if os.path.isdir(file):
        raise ValueError(f"{source!r} is a folder: name the file with the examples.")
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{source!r}: what a file holds is told by its ending, which must be one of {' '.join(EXTENSIONS)} (also "
            f"with .gz .bz2 .xz behind), not {extension!r}: rename or convert it."
        )
    try:
        with open_text(file, encoding) as stream:
            if extension == ".json":
                records = list(json_records(stream.read()))
            elif extension in JSONL_EXTENSIONS:
                records = list(jsonl_records(stream))
            else:
                lines = list(stream)
                rows = csv_rows(lines, delimiter_of(lines)) if extension == ".csv" else tsv_rows(lines)
                records = list(table_records(rows, names))
    except (ValueError, OSError, *DAMAGED) as error:
        raise ValueError(f"cannot read {source!r}: {why_unreadable(file, error).rstrip('.')}.") from error
    columns: Counter[str] = Counter()
    for _, record in records:
        if isinstance(record, dict):
            columns.update(record.keys())
    return Table(source, columns, records)


def first_row(path: AnyPath, encoding: str = "utf-8") -> list[str]:
    """The cells of a .tsv's first line; none where it can't be read, which `read_table` will tell."""
    try:
        with open_text(os.fspath(path), encoding) as stream:
            return next((cells for _, cells in tsv_rows(stream)), [])
    except (ValueError, OSError, *DAMAGED):
        return []


def table_records(
    rows: Iterable[tuple[int, list[str] | BadRecord]], names: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Give each row's cells the names of their columns; a row with more or fewer cells is a bad one."""
    header = list(names)
    for line, row in rows:
        if isinstance(row, BadRecord):
            if not header:
                raise Unreadable(f"line {line}, which names the columns: {row}")
            yield line, row
        elif not header:
            header = [name.strip() for name in row]
            twice = [name for name, n in Counter(header).items() if name and n > 1]
            if twice:
                raise Unreadable(f"line {line} names the column {twice[0]!r} twice: rename one")
        elif len(row) != len(header):
            many = "put a text that holds the separator in quotes" if len(row) > len(header) else "fill it up"
            is_are = f"{len(row)} field{'s' if len(row) != 1 else ''} where there are {len(header)} columns"
            yield line, BadRecord("wrong number of fields", f"{is_are} ({', '.join(header)[:200]}): {many}")
        else:
            yield line, dict(zip(header, row))


def delimiter_of(lines: list[str]) -> str:
    """What cuts a CSV's lines into fields: the comma, unless its first line has only semicolons or tabs."""
    first = next((line for line in lines if line.strip()), "")
    return "," if "," in first else ";" if ";" in first else "\t" if "\t" in first else ","


def csv_rows(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Yield (line on which the record begins, its fields). After a faulty one, reading goes on in the next line."""
    begin = 0
    while begin < len(lines):
        reader = csv.reader((lines[i] for i in range(begin, len(lines))), delimiter=delimiter, strict=True)
        start = begin
        try:
            for row in reader:
                if len(row) > 1 or (row and row[0].strip()):
                    yield start + 1, row
                start = begin + reader.line_num
            return
        except csv.Error as error:
            if "limit" in str(error):  # of csv: a text of 131,072 characters, or a quote that is never closed
                what = f"a field of over {csv.field_size_limit():,} characters: close its quote, or cut the text"
            else:
                what = f"its quotes don't match ({error}): close each, and double those inside a quoted field"
            yield start + 1, BadRecord("unbalanced quotes", what)
            begin = start + 1


def tsv_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of a TSV, one record a line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells = line.rstrip("\r\n").split("\t")
            yield number, [c[1:-1].replace('""', '"') if _QUOTED.fullmatch(c) else c for c in cells]


def jsonl_records(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Yield (line, object) for each line of JSON."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json_object(json_value(line.strip()))  # so that a fault at its end has a column
        except BadRecord as bad:
            yield number, bad
        except Unreadable as error:
            yield number, BadRecord("broken JSON", f"{error}; each line must be one whole JSON object")


def json_records(content: str) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Yield (line on which it begins, object) for each object of a JSON list. What is behind a fault can't be read."""
    at = skip_space(content, 0)
    if not content.startswith("[", at):
        try:
            yield content.count("\n", 0, at) + 1, json_object(json_value(content))  # a single object
        except Unreadable:
            yield from jsonl_records(content.split("\n"))  # JSONL under another name
        return
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = skip_space(content, at + 1)
    if content.startswith("]", at):
        return
    while True:
        line, counted = line + content.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(content, at)
            record = json_object(value)
        except BadRecord as bad:
            yield line, bad
        except RecursionError:
            raise Unreadable("not usable JSON (nested too deeply)") from None
        except json.JSONDecodeError as error:
            why = f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})"
            yield line, BadRecord("broken JSON", f"{why}; what stands behind can't be read")
            return
        else:
            yield line, record
        at = skip_space(content, at)
        if not content.startswith(",", at):
            break
        at = skip_space(content, at + 1)
    if not content.startswith("]", at) or content[at + 1 :].strip():
        line += content.count("\n", counted, at)
        why = "not JSON (',' or the list's end ']' missing, or text behind it)"
        yield line, BadRecord("broken JSON", f"{why}; what stands behind can't be read")


def json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRecord("no object", f"a JSON {type(value).__name__} where an object is needed, as {{'text': ...}}")
    return value


def skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
