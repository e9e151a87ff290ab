"""Packing: documents become one long array of token ids in a file that training maps into memory.

Layout, for a tokenizer that has an end-of-text token E:

    E  document 1  E  document 2  E  ...  document n  E

So every token of text is predicted once, the first one of a document from E, and the model learns where texts end.
Without such a token the documents stand end to end. Ids are uint16 where the vocabulary allows it, else uint32. Beside
"tokens.bin" stands "tokens.json", which says how to read it and what made it; it is written last, so that a packing
that was interrupted does not load.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..disk import flush_to_disk, read_json, whole_file, write_json
from .documents import Document, read_jsonl


class Encoder(Protocol):
    """What packing needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int | None: ...
    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[int]: ...
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class PackInfo:
    """What the sidecar file says about a token file."""

    dtype: str  # "uint16" or "uint32", little-endian
    n_tokens: int  # separators included
    n_bytes: int  # UTF-8 bytes of the text, separators not counted: the denominator of bits per byte
    n_documents: int
    vocab_size: int
    eos_id: int | None  # the separator
    tokenizer: str  # its fingerprint
    sha256: str  # of the token file


class TokenDataset:
    """A token file, mapped into memory: `tokens` is a read-only (n_tokens,) array of uint16 or uint32.

    Opening costs nothing, whatever the size; pages are read as they are used. Raises FileNotFoundError or ValueError
    where the file or its sidecar is missing, incomplete, or of another size than the sidecar says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        sidecar = self.path.with_suffix(".json")
        if not self.path.is_file() or not sidecar.is_file():
            missing = [str(p) for p in (self.path, sidecar) if not p.is_file()]
            raise FileNotFoundError(
                f"no packed tokens at {str(self.path)!r}: missing {', '.join(missing)}. "
                "Pack a corpus first (pack), and let that finish."
            )
        try:
            self.info = PackInfo(**read_json(sidecar))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{str(sidecar)!r} does not describe packed tokens ({error}); pack the corpus again."
            ) from error
        if self.info.dtype not in ("uint16", "uint32"):
            raise ValueError(f"{str(sidecar)!r} says dtype {self.info.dtype!r}; token files are uint16 or uint32.")
        dtype = np.dtype(self.info.dtype).newbyteorder("<")
        size, expected = self.path.stat().st_size, self.info.n_tokens * dtype.itemsize
        if size != expected or size == 0:
            raise ValueError(
                f"{str(self.path)!r} has {size:,} bytes where its sidecar promises {expected:,} "
                f"({self.info.n_tokens:,} tokens of {dtype.itemsize} bytes): "
                "it was cut off or replaced; pack the corpus again."
            )
        self.tokens: npt.NDArray[np.unsignedinteger] = np.memmap(
            self.path, dtype=dtype, mode="r", shape=(self.info.n_tokens,)
        )

    def __len__(self) -> int:
        return self.info.n_tokens

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the text behind the tokens: total loss in nats / ln 2 / n_bytes is bits per byte."""
        return self.info.n_bytes

    @property
    def vocab_size(self) -> int:
        """Number of token ids of the tokenizer that packed it."""
        return self.info.vocab_size

    def check_tokenizer(self, tokenizer: Encoder) -> None:
        """Raise ValueError unless `tokenizer` is the one that packed this file."""
        if tokenizer.fingerprint() != self.info.tokenizer:
            raise ValueError(
                f"{str(self.path)!r} was packed with the tokenizer {self.info.tokenizer} (vocabulary "
                f"{self.vocab_size:,}), not with this one, {tokenizer.fingerprint()} (vocabulary "
                f"{tokenizer.vocab_size:,}): use that tokenizer, or pack the corpus again."
            )

    def __repr__(self) -> str:
        text = f"{self.n_bytes / 1e6:.3f} MB of text"
        return f"TokenDataset({str(self.path)!r}: {len(self):,} tokens of {self.vocab_size:,}, {text})"


def pack(
    documents: Iterable[Document] | str | os.PathLike[str],
    tokenizer: Encoder,
    path: str | os.PathLike[str],
    *,
    progress: bool = False,
) -> TokenDataset:
    """Encode documents (a stream, or a JSONL file) into the token file `path`, one document in memory at a time.

    Text that looks like a special token is encoded as plain text: a document cannot forge a separator. An existing file
    is replaced, and not before the new one is complete. Raises ValueError where there is no document or no token, or
    where the tokenizer gives ids outside its vocabulary.
    """
    target = Path(path)
    sidecar = target.with_suffix(".json")
    if target.suffix == ".json":
        raise ValueError(f"{str(target)!r} is the name of the sidecar; call the token file something like tokens.bin.")
    total = None
    if isinstance(documents, (str, os.PathLike)):
        total = os.path.getsize(documents)
        documents = read_jsonl(documents)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    eos = tokenizer.eos_id
    separator = np.array([] if eos is None else [eos], dtype=dtype)
    digest = hashlib.sha256()
    n_tokens = n_bytes = n_documents = 0
    with whole_file(target) as temporary:
        with (
            open(temporary, "wb") as stream,
            tqdm(desc="pack", total=total, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for document in documents:
                size = utf8_size(document)
                ids = encode_document(tokenizer, document)
                first = separator if n_documents == 0 else separator[:0]
                chunk = np.concatenate([first, ids.astype(dtype), separator]).tobytes()
                stream.write(chunk)
                digest.update(chunk)
                n_tokens += len(chunk) // dtype.itemsize
                n_bytes += size
                n_documents += 1
                bar.update(size)
        if n_bytes == 0:
            raise ValueError(f"nothing to pack into {str(target)!r}: {n_documents} documents with no text in them.")
        flush_to_disk(temporary)
        sidecar.unlink(missing_ok=True)  # from here until the new sidecar is in place, nothing loads
    info = PackInfo(
        "uint16" if dtype.itemsize == 2 else "uint32",
        n_tokens,
        n_bytes,
        n_documents,
        tokenizer.vocab_size,
        eos,
        tokenizer.fingerprint(),
        digest.hexdigest(),
    )
    write_json(sidecar, asdict(info))
    return TokenDataset(target)


def utf8_size(document: Document) -> int:
    try:
        return len(document.text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(
            f"document {document.source!r} holds half of a surrogate pair at character {error.start}, which is no "
            "text: clean it first (clean_text removes these)."
        ) from error


def encode_document(tokenizer: Encoder, document: Document) -> npt.NDArray[np.int64]:
    ids = np.asarray(tokenizer.encode(document.text, disallowed_special=()), dtype=np.int64)
    if len(ids) and (ids.min() < 0 or ids.max() >= tokenizer.vocab_size):
        raise ValueError(
            f"the tokenizer gave ids from {ids.min()} to {ids.max()} for {document.source!r}, outside its vocabulary "
            f"of {tokenizer.vocab_size:,} (0 to {tokenizer.vocab_size - 1})."
        )
    return ids
