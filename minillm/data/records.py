"""Records: the rows of a user's CSV or TSV, the objects of a JSONL or JSON file, as one table in memory."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..disk.names import AnyPath
from .folders import JSONL_EXTENSIONS
from .opening import DAMAGED, File, open_text, why_unreadable
from .rows import BadRecord, csv_rows, json_records, jsonl_records, table_records, tsv_rows

TABLES = (".csv", ".tsv")
EXTENSIONS = (*TABLES, *sorted(JSONL_EXTENSIONS), ".json")


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
    """Read a whole .csv, .tsv, .jsonl (.ndjson) or .json file, each also as .gz, .bz2, .xz or .zst, into memory.

    A table's first line names its columns, unless `names` does. A .csv is RFC 4180's: a field with commas, quotes or
    line breaks stands in quotes, a quote in it is doubled; it is cut at semicolons (or tabs) instead where its first
    line has those and no comma, as spreadsheets write it in half of Europe. A .tsv is IANA's: one record a line, cut at
    tabs, quotes are part of the text (but what a CSV writer has quoted, `"say ""hi"" "`, is unquoted). A .json is a
    list of objects. Byte order marks and encodings are read as `read_documents` reads them.

    Raises FileNotFoundError, or ValueError for what is wrong with the whole file.
    """
    file = File.of(path)
    source, extension = file.name, file.extension
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {source!r} (looked from the current folder {os.getcwd()!r}).")
    if os.path.isdir(path):
        raise ValueError(f"{source!r} is a folder: name the file with the examples.")
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{source!r}: what a file holds is told by its ending, which must be one of {' '.join(EXTENSIONS)} (also "
            f"with .gz .bz2 .xz .zst behind), not {extension!r}: rename or convert it."
        )
    try:
        with open_text(file, encoding) as stream:
            if extension == ".json":
                records = list(json_records(stream.read()))
            elif extension in JSONL_EXTENSIONS:
                records = list(jsonl_records(stream))
            else:
                records = list(table_records(csv_rows(stream) if extension == ".csv" else tsv_rows(stream), names))
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
        with open_text(File.of(path), encoding) as stream:
            return next((cells for _, cells in tsv_rows(stream)), [])
    except (ValueError, OSError, *DAMAGED):
        return []
