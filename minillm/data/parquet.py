"""Parquet: the text column of a .parquet file, a few rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .columns import SAMPLE, text_column
from .documents import Document, Reading
from .folders import COMPRESSIONS
from .opening import INSTALL, File, Unreadable

ROWS = 256  # at a time
BLOCK = 1 << 20  # bytes of a column, read at a time
WHOLE = 16 << 20  # of a file: where it has at most as many, what a row group holds of a column is read at once


def read_parquet(file: File, reading: Reading) -> Iterator[Document]:
    """The documents of a Parquet file; an empty cell is an empty text. Only the column with the text is read, in blocks
    if the file is large (but a page, a dictionary and a batch of rows must fit into memory). Raises Unreadable,
    ValueError, OSError."""
    pyarrow = need_pyarrow()
    if file.name.lower().endswith(tuple(COMPRESSIONS)):
        raise Unreadable("a Parquet file is compressed inside: decompress it")
    try:
        with file.raw() as raw:
            if not raw.seekable():
                raise Unreadable("a Parquet file can't be read inside an archive: unpack it")
            # In blocks, room is made for a page before it is seen to be there: 800 MB where a bit of its size is wrong.
            block = 0 if raw.seek(0, os.SEEK_END) <= WHOLE else BLOCK
            table = pyarrow.parquet.ParquetFile(
                raw, buffer_size=block, pre_buffer=False, page_checksum_verification=True
            )
            kinds = {field.name: field.type for field in table.schema_arrow}
            texts = [name for name, kind in kinds.items() if is_text(pyarrow.types, kind)]
            key = text_column([dict.fromkeys(kinds), *first_rows(table, texts)], file.name, reading)
            if key not in texts:
                raise Unreadable(f"the column {key!r} holds {kinds.get(key)}, not text")
            n = 0
            for batch in table.iter_batches(ROWS, columns=[key], use_threads=False):
                for text in batch.column(0).to_pylist():
                    yield Document(text or "", f"{file.name}#{n}")
                    n += 1
            if n == 0:
                raise Unreadable("there are no rows in it")
    except pyarrow.ArrowException as error:  # not all of them are ValueError or OSError
        raise Unreadable(f"damaged or no Parquet ({str(error).splitlines()[0]})") from error


def need_pyarrow() -> Any:
    """The package that reads Parquet. Raises Unreadable where it isn't installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Unreadable(f"to read .parquet {INSTALL}") from None
    return pyarrow


def first_rows(table: Any, names: list[str]) -> list[dict[str, Any]]:
    """The texts of the first rows, to guess from."""
    batch = next(table.iter_batches(SAMPLE, columns=names, use_threads=False), None) if names else None
    return batch.to_pylist() if batch is not None else []


def is_text(types: Any, kind: Any) -> bool:
    """Whether values of this Arrow type come as str."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
