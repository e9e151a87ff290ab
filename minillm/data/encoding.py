"""Documents to ids, by all cores: the slow half of packing (packing.py).

The first few batches are encoded right here. If more come, the rest goes to processes of their own, a batch at a time;
their results are taken in the order of the documents, so that the file is the same whoever encoded it. At most two
batches a process are on their way, so memory stays flat whatever the size of the corpus.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .documents import Document

BATCH = 1 << 20  # characters
ALONE = 8  # batches before other processes are worth their start
START = "fork" if sys.platform == "linux" else "spawn"  # how a process begins: spawn imports the user's script anew

Ids = npt.NDArray[np.unsignedinteger]


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
    """Each document with its ids, uint16 or uint32, in order. processes: how many work on it, by default one a core.

    Raises ValueError where the tokenizer gives ids outside its vocabulary, and OSError if a process is killed.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    batches = batched(documents)
    for batch in islice(batches, ALONE if processes > 1 else None):
        yield from zip(batch, encode_batch(tokenizer, batch))
    if (batch := next(batches, None)) is None:
        return
    pool = ProcessPoolExecutor(processes, get_context(START), start_worker, (tokenizer,))
    try:
        sent: deque[tuple[list[Document], Future[list[Ids]]]] = deque()
        with warnings.catch_warnings():  # of forking beside threads: those of BLAS, which the workers don't use
            warnings.simplefilter("ignore", DeprecationWarning)
            sent.append((batch, pool.submit(work, batch)))
        while sent:
            for batch in islice(batches, 2 * processes - len(sent)):
                sent.append((batch, pool.submit(work, batch)))
            batch, result = sent.popleft()
            yield from zip(batch, result.result())
    except BrokenProcessPool as error:
        raise OSError("one of the processes that encode was killed, perhaps for want of memory.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists of documents with about BATCH characters together."""
    batch: list[Document] = []
    n = 0
    for document in documents:
        batch.append(document)
        n += len(document.text)
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


def start_worker(tokenizer: Encoder) -> None:
    """What each process begins with. Ctrl-C is for the process that gathers the results; it ends the others."""
    global worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker_tokenizer = tokenizer


def work(documents: list[Document]) -> list[Ids]:
    return encode_batch(worker_tokenizer, documents)


worker_tokenizer: Encoder  # in a worker, the tokenizer that it was started with
