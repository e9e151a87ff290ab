"""Documents to ids, by all cores: the slow half of packing (packing.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..disk.processes import in_order
from .documents import Document

BATCH = 1 << 20  # characters
ALONE = 2  # batches before other processes are worth their start

Ids = npt.NDArray[np.unsignedinteger]
Item = TypeVar("Item")


class Encoder(Protocol):
    """What packing needs of a tokenizer. Of `encode_arrays` too, where it is there (tokenizers/base.py)."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int | None: ...
    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]: ...
    def fingerprint(self) -> str: ...


def encode_documents(
    documents: Iterable[Document], tokenizer: Encoder, processes: int | None = None
) -> Iterator[tuple[Document, Ids]]:
    """Each document with its ids, uint16 or uint32, in order. processes: how many work on it (`in_order`).

    Raises ValueError where the tokenizer gives ids outside its vocabulary, and OSError if a process is killed.
    """
    batches = in_order(encode_batch, tokenizer, batched(documents, n_chars), alone=ALONE, processes=processes)
    for batch, found in batches:
        yield from zip(batch, found)


def n_chars(document: Document) -> int:
    return len(document.text)


def batched(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Lists of documents, or of their lines, with about BATCH characters together, of which each has `size`."""
    batch: list[Item] = []
    n = 0
    for item in items:
        batch.append(item)
        n += size(item)
        if n >= BATCH or len(batch) >= BATCH >> 4:
            yield batch
            batch, n = [], 0
    if batch:
        yield batch


def encode_batch(tokenizer: Encoder, documents: list[Document]) -> list[Ids]:
    """The ids of each document, checked, as small as the vocabulary allows."""
    texts = [document.text for document in documents]
    if hasattr(tokenizer, "encode_arrays"):
        found = tokenizer.encode_arrays(texts)
    else:
        found = [np.asarray(tokenizer.encode(text, disallowed_special=()), np.int64) for text in texts]
    for document, ids in zip(documents, found):
        if len(ids) and (ids.min() < 0 or ids.max() >= tokenizer.vocab_size):
            raise ValueError(
                f"the tokenizer gave ids from {ids.min()} to {ids.max()} for {document.source!r}, outside its "
                f"vocabulary of {tokenizer.vocab_size:,} (0 to {tokenizer.vocab_size - 1})."
            )
    return [ids.astype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4") for ids in found]
