"""Packing: documents become one long array of token ids in a file that training maps into memory.

Layout, for a tokenizer that has an end-of-text token E:

    E  document 1  E  document 2  E  ...  document n  E

So every token of text is predicted once, the first one of a document from E, and the model learns where texts end.
Without such a token the documents stand end to end. Ids are uint16 where the vocabulary allows it, else uint32. Beside
"tokens.bin" stands "tokens.json", which says how to read it and what made it; it is written last, so that a packing
that was interrupted does not load. It holds checksums: of the token file, of the text file that it was made from, and
of itself, so that damage is noticed, and text that has changed since is packed anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..disk import check_fields, checksum, claim, flush_to_disk, holding, read_json, whole_file, write_json
from .documents import Document, check_half_pairs, read_jsonl
from .encoding import Encoder, encode_documents

WAIT = 600.0  # seconds in which another process that packs the same file may write nothing, before one gives up waiting


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
    sha256: str  # of the token file: its identity, which a resumed run compares
    crc32: str = ""  # of the token file, quicker: checked when it is opened
    source: str = ""  # checksum of the JSONL file it was made from, "" for a stream of documents
    source_bytes: int = 0  # its size


class TokenDataset:
    """A token file, mapped into memory: `tokens` is a read-only (n_tokens,) array of uint16 or uint32.

    The whole file is read once to compare its checksum: 4 GB/s from memory, the disk's speed otherwise. With
    `verify=False` opening costs nothing, whatever the size. Pages are read as they are used. Raises FileNotFoundError
    or ValueError where the file or its sidecar is missing, incomplete, damaged, or of another size than the sidecar
    says; also where `source`, a JSONL file, is not the one that it was made from (by size only without `verify`).
    """

    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool = True, source: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(path)
        sidecar = self.path.with_suffix(".json")
        if not self.path.is_file() or not sidecar.is_file():
            missing = [str(p) for p in (self.path, sidecar) if not p.is_file()]
            raise FileNotFoundError(
                f"no packed tokens at {str(self.path)!r}: missing {', '.join(missing)}. "
                "Pack a corpus first (pack), and let that finish."
            )
        self.info = read_sidecar(sidecar)
        dtype = np.dtype(self.info.dtype).newbyteorder("<")
        size, expected = self.path.stat().st_size, self.info.n_tokens * dtype.itemsize
        if size != expected or size == 0:
            raise ValueError(
                f"{str(self.path)!r} has {size:,} bytes where its sidecar promises {expected:,} "
                f"({self.info.n_tokens:,} tokens of {dtype.itemsize} bytes): "
                "it was cut off or replaced; pack the corpus again."
            )
        if verify and checksum(self.path) != self.info.crc32:
            raise ValueError(
                f"{str(self.path)!r} is damaged: its checksum is not its sidecar's; pack the corpus again."
            )
        if source is not None and (
            os.path.getsize(source) != self.info.source_bytes or (verify and checksum(source) != self.info.source)
        ):
            raise ValueError(f"{str(self.path)!r} was packed when {os.fspath(source)!r} was another text.")
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


def read_sidecar(path: Path) -> PackInfo:
    """What a sidecar says. Raises ValueError, naming it, if it is damaged or says what no packing can have written."""
    wrong = "pack the corpus again."
    try:
        content = read_json(path)
        said = content.pop("checksum")
        info = PackInfo(**content)
        check_fields(info)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} does not describe packed tokens ({error}); {wrong}") from error
    if info.dtype not in ("uint16", "uint32"):
        raise ValueError(f"{str(path)!r} says dtype {info.dtype[:50]!r}; token files are uint16 or uint32.")
    if said != own_checksum(info):
        raise ValueError(f"{str(path)!r} is damaged: its checksum is not that of what it says; {wrong}")
    return info


def own_checksum(info: PackInfo) -> str:
    return f"{zlib.crc32(json.dumps(asdict(info), sort_keys=True).encode()):08x}"


def pack(
    documents: Iterable[Document] | str | os.PathLike[str],
    tokenizer: Encoder,
    path: str | os.PathLike[str],
    *,
    processes: int | None = None,
    progress: bool = False,
) -> TokenDataset:
    """Encode documents (a stream, or a JSONL file) into the token file `path`, some megabytes in memory at a time.

    processes: how many encode where there is much text, by default one a core where they can be forked (Linux). The
    file is the same for any number.

    Text that looks like a special token is encoded as plain text: a document cannot forge a separator. An existing file
    is replaced, and not before the new one is complete; one process packs it at a time. Raises ValueError where there
    is no document or no token, or where the tokenizer gives ids outside its vocabulary, and what `holding` raises.
    """
    if Path(path).suffix == ".json":
        raise ValueError(f"{str(path)!r} is the name of the sidecar; call the token file something like tokens.bin.")
    with holding(path, "packing", wait=WAIT):
        return write_tokens(documents, tokenizer, Path(path), processes, progress)


def pack_split(
    source: Path, tokenizer: Encoder, folder: Path, *, verify: bool = True, progress: bool = False
) -> TokenDataset:
    """The token file of a JSONL file of a corpus in `folder`: the one that is there, if it is whole and of this text;
    else it is packed now, by one process, for which the others wait. What was there and why it won't do is said on
    standard error. Raises what `pack` does, and PermissionError where the folder can't be written.
    """
    path = folder / f"{source.stem}.bin"
    try:
        return open_for(tokenizer, path, verify, source)
    except (FileNotFoundError, ValueError):
        pass
    try:
        if folder.parent == source.parent:
            claim(source.parent, "corpus", [folder.name])
        claim(folder, "tokens", [path.name, path.with_suffix(".json").name])
        with holding(path, "packing", wait=WAIT):
            try:
                return open_for(tokenizer, path, verify, source)  # another process has packed it meanwhile
            except FileNotFoundError:
                pass
            except ValueError as error:
                print(f"packing anew: {error}", file=sys.stderr)
            return write_tokens(source, tokenizer, path, None, progress)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(
            f"cannot write token files into {str(folder)!r} ({error.strerror}): name another folder for them, "
            "tokens in the config's [data] or --tokens FOLDER."
        ) from error


def open_for(tokenizer: Encoder, path: Path, verify: bool, source: Path) -> TokenDataset:
    dataset = TokenDataset(path, verify=verify, source=source)
    dataset.check_tokenizer(tokenizer)
    return dataset


def write_tokens(
    documents: Iterable[Document] | str | os.PathLike[str],
    tokenizer: Encoder,
    target: Path,
    processes: int | None,
    progress: bool,
) -> TokenDataset:
    """`pack` for whoever holds the file."""
    sidecar = target.with_suffix(".json")
    total, source, file = None, "", ""
    if isinstance(documents, (str, os.PathLike)):
        file = os.fspath(documents)
        total, source = os.path.getsize(documents), checksum(documents)
        documents = read_jsonl(documents)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    eos = tokenizer.eos_id
    separator = np.array([] if eos is None else [eos], dtype=dtype)
    digest, crc = hashlib.sha256(), 0
    n_tokens = n_bytes = n_documents = 0
    with whole_file(target) as temporary:
        with (
            open(temporary, "wb") as stream,
            tqdm(desc="pack", total=total, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for document, ids in encode_documents(whole_texts(documents, file), tokenizer, processes):
                size = len(document.text.encode())
                first = separator if n_documents == 0 else separator[:0]
                chunk = np.concatenate([first, ids, separator]).tobytes()
                stream.write(chunk)
                digest.update(chunk)
                crc = zlib.crc32(chunk, crc)
                n_tokens += len(chunk) // dtype.itemsize
                n_bytes += size
                n_documents += 1
                bar.update(size)
        if n_bytes == 0:
            text = f"{n_documents} documents with no text in them{f', in {file}' if file else ''}"
            raise ValueError(f"nothing to pack into {str(target)!r}: {text}.")
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
        f"{crc:08x}",
        source,
        total or 0,
    )
    write_json(sidecar, {**asdict(info), "checksum": own_checksum(info)})
    return TokenDataset(target, verify=False)  # it was checked on its way


def whole_texts(documents: Iterable[Document], file: str) -> Iterator[Document]:
    """The documents as they are. Raises ValueError for half of a surrogate pair."""
    for number, document in enumerate(documents, 1):
        check_half_pairs(document, f"{file}, line {number}" if file else "")
        yield document
