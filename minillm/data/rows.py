"""Rows: the records of a CSV, TSV, JSONL or JSON file one at a time, each with the line that it begins on.

A record that can't be read doesn't end the reading: in its place stands a `BadRecord`, so that whoever reads can name
the first one, count the others, or leave them out. Only what is wrong with the file as a whole (not text, no header) is
raised here.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .opening import Unreadable

# A field of a TSV that a CSV writer made: in quotes, with a doubled one inside. '"Hello!"' in a TSV is what was said.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_SPACE = re.compile(r"[ \t\r\n]*")


AsObject = Callable[[Any], dict[str, Any]]  # of a JSON value; raises BadRecord for one that is none


class BadRecord(ValueError):
    """One record that can't be used: what is wrong and how it is mended, the end of a sentence that begins with its
    place. `kind` is what a report counts it under ("empty text")."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


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


def csv_rows(lines: Iterable[str], field_chars: int = 0) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Yield (line on which the record begins, its fields), holding the lines of one record at a time. After a faulty
    one, reading goes on in the next line. `field_chars`: how long a field may be (0: what Python's csv allows)."""
    source, taken = iter(lines), list[str]()  # the lines of the record that is being read
    again = deque[str]()  # lines that were taken already
    for line in source:
        again.append(line)
        if line.strip():
            break
    delimiter = delimiter_of(again[-1] if again else "")

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            taken.append(line)
            yield line

    begin, reader = 1, csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next_row(reader, field_chars)
        except csv.Error as error:
            yield begin, unbalanced(error, field_chars)
            again.extendleft(reversed(taken[1:]))
            begin, reader = begin + 1, csv.reader(feed(), delimiter=delimiter, strict=True)
        else:
            if row is None:
                return
            if len(row) > 1 or (row and row[0].strip()):
                yield begin, row
            begin += len(taken)
        taken.clear()


def delimiter_of(first: str) -> str:
    """What cuts a CSV's lines into fields: the comma, unless its first line has only semicolons or tabs."""
    return "," if "," in first else ";" if ";" in first else "\t" if "\t" in first else ","


def next_row(reader: Any, field_chars: int) -> list[str] | None:
    """The reader's next row. The limit of a field, which is one for all of the process, is lifted for this row only."""
    before = csv.field_size_limit()
    csv.field_size_limit(field_chars or before)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def unbalanced(error: csv.Error, field_chars: int) -> BadRecord:
    """What is wrong with a record that csv refuses: of a quote that is never closed it says that a field is long."""
    if "limit" in str(error):
        most = field_chars or csv.field_size_limit()
        return BadRecord("unbalanced quotes", f"a field of over {most:,} characters: close its quote, or cut the text")
    what = f"its quotes don't match ({error}): close each, and double those inside a quoted field"
    return BadRecord("unbalanced quotes", what)


def tsv_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of a TSV, one record a line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells = line.rstrip("\r\n").split("\t")
            yield number, [c[1:-1].replace('""', '"') if _QUOTED.fullmatch(c) else c for c in cells]


def jsonl_records(
    lines: Iterable[str], as_object: AsObject | None = None
) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Yield (line, object) for each line of JSON."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield (
                number,
                (as_object or json_object)(json_value(line.strip())),
            )  # so that a fault at its end has a column
        except BadRecord as bad:
            yield number, bad
        except Unreadable as error:
            yield number, BadRecord("broken JSON", f"{error}; each line must be one whole JSON object")


def json_records(content: str, as_object: AsObject | None = None) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """Yield (line on which it begins, object) for each object of a JSON list. What is behind a fault can't be read."""
    as_object = as_object or json_object
    at = skip_space(content, 0)
    if not content.startswith("[", at):
        try:
            yield content.count("\n", 0, at) + 1, as_object(json_value(content))  # a single object
        except Unreadable:
            yield from jsonl_records(content.split("\n"), as_object)  # JSONL under another name
        return
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = skip_space(content, at + 1)
    if content.startswith("]", at):
        return
    while True:
        line, counted = line + content.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(content, at)
            record = as_object(value)
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


def json_value(line: str) -> Any:
    """The value of one line of JSON, or of several. Raises Unreadable, with the column."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise Unreadable("not usable JSON (nested too deeply)") from None
    except ValueError as error:  # a number of thousands of digits
        raise Unreadable(f"not usable JSON ({error})") from None


def skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
