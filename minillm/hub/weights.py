"""Checkpoint files: safetensors, in one file or several ("shards"), read and written tensor by tensor.

A safetensors file is 8 bytes with the length of a header, the header, which is JSON, and then nothing but numbers:

    {"__metadata__": {"format": "pt"}, "wte.weight": {"dtype": "F32", "shape": [50257, 768], "data_offsets": [0, ...]}}

So all names, shapes and places are known before a number is read, and reading runs no code, which a pickle does. The
library `safetensors` reads these files too, but cannot give NumPy bfloat16, and holds all that it writes in memory at
once; here a model of any size passes through one block of rows at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from ..disk import read_json, whole_file, write_json
from ..disk.records import fits
from ..engines.shards import WEIGHTS, Part, first_rows, shard_files, whole_shape
from ..nn import shapes
from .dtypes import BITS, CODES, NAMES, STORED, decode, encode

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
KERAS = "model.keras"  # see keras_folder.py
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
BLOCK = 1 << 20  # numbers read at once, at least one row
PARTS, PART = 8, 512  # of a tensor, and bytes of each, that a fingerprint is made of
LFS = b"version https://git-lfs"  # how the file begins that git keeps in place of a large one


class WeightsError(ValueError):
    """Weights that are missing, damaged or do not fit: the message says which file or tensor, and what to do."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where it lies, not yet read."""

    file: Path
    code: str  # dtype as the file spells it, "BF16"
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def files(self) -> list[Path]:
        """Where it lies."""
        return [self.file]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows (n, ...) as float32 or float64) until all is read, at most `BLOCK` numbers at a time."""
        n_rows = self.shape[0] if self.shape else 1
        row = self.size // n_rows if n_rows else 0
        step = max(1, BLOCK // max(row, 1))
        n_rows = n_rows if row else 0
        stored = STORED[self.code]
        for start in range(0, n_rows, step):
            n = min(step, n_rows - start)
            offset = self.offset + start * row * stored.itemsize
            block = np.fromfile(self.file, stored, n * row, offset=offset)
            yield start, decode(block, self.code).reshape(n, *self.shape[1:])

    def read(self) -> np.ndarray:
        """The whole tensor as float32, or float64 if that is what the file holds."""
        stored = np.fromfile(self.file, STORED[self.code], self.size, offset=self.offset)
        return decode(stored, self.code).reshape(self.shape)

    def piece(self, first: int, end: int) -> bytes:
        """Bytes first to end - 1 of its numbers as they are stored."""
        with open(self.file, "rb") as file:
            file.seek(self.offset + first)
            return file.read(end - first)


@dataclass(frozen=True)
class Joined(Stored):
    """A tensor in several files, some rows in each: of a checkpoint in shards (engines/shards.py). `file` is the
    first."""

    parts: tuple[Stored, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [part.file for part in self.parts]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        first = 0
        for part in self.parts:
            for start, block in part.blocks():
                yield first + start, block
            first += part.shape[0]

    def read(self) -> np.ndarray:
        return np.concatenate([part.read() for part in self.parts])

    def piece(self, first: int, end: int) -> bytes:
        found, begin = [], 0
        for part in self.parts:
            size = part.size * BITS[part.code] // 8
            found.append(part.piece(min(max(first - begin, 0), size), min(max(end - begin, 0), size)))
            begin += size
        return b"".join(found)


def fingerprint(tensors: Mapping[str, Stored]) -> str:
    """16 hex digits by which the same weights are known again, wherever they lie: names, shapes, and of each tensor
    PARTS pieces of up to PART bytes, evenly spread, so that a model of any size takes a moment."""
    digest = hashlib.sha256()
    for name, stored in sorted(tensors.items()):
        digest.update(f"{name} {stored.code} {stored.shape}\n".encode())
        n_bytes = stored.size * BITS[stored.code] // 8
        for part in range(PARTS):
            first, end = ((part + i) * n_bytes // PARTS for i in (0, 1))
            digest.update(stored.piece(first, min(first + PART, end)))
    return digest.hexdigest()[:16]


def read_folder(folder: Path) -> dict[str, Stored]:
    """Every tensor in a checkpoint folder, by its name there; only headers are read, and checked.

    Raises WeightsError: no safetensors in the folder (a pickle is refused, and the way to convert it given), a file
    that is missing or cut off, an index that does not agree with the files or names a file outside of the folder.
    """
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    if (folder / INDEX).exists():
        return read_shards(folder)
    if files := shard_files(folder, WEIGHTS):
        return read_parts(files)
    if (folder / KERAS).exists():
        raise WeightsError(
            f"{folder} has its weights in {KERAS}: write them as safetensors first, to another folder, with minillm "
            f"convert {quote(str(folder))} FOLDER (--to hf or --to minillm)."
        )
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        raise WeightsError(
            f"{folder} has its weights in {pickles[0]}, a pickle: reading one can run any program that is hidden in "
            f"it, so minillm does not. {how_to_convert(folder)}"
        )
    beside = sorted(path.name for path in folder.iterdir())[:20]
    raise WeightsError(
        f"{folder} has no weights, neither {SINGLE} nor {INDEX}, only {beside}. What is on the hub as a pickle only "
        f"(pytorch_model.bin) is not fetched. {how_to_convert(folder)}"
    )


def how_to_convert(folder: Path) -> str:
    """The way from a pickle to safetensors."""
    return (
        "If you trust where it comes from, convert it where transformers is installed:\n"
        "  from transformers import AutoModel\n"
        f"  AutoModel.from_pretrained({str(folder)!r}).save_pretrained('converted')  # writes {SINGLE}\n"
        "(with the class that config.json names under 'architectures' in place of AutoModel, to keep its head)"
    )


def read_shards(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint in several files, which INDEX lists: {"weight_map": {tensor: file}}."""
    path, weight_map = folder / INDEX, read_index(folder)
    files = shards(folder)
    beside = {path.name for path in folder.iterdir()}
    if absent := [name for name in files if name not in beside]:
        what = f"{folder} lacks {len(absent)} of {len(files)} shards: {', '.join(absent)}."
        raise WeightsError(f"{what} Download them; {INDEX} lists them.")
    tensors: dict[str, Stored] = {}
    for file in files:
        for name, stored in read_header(folder / file).items():
            if weight_map.get(name) != file:
                place = f"which {INDEX} places in {weight_map.get(name, 'no file')}"
                raise WeightsError(f"{folder / file} holds {name!r}, {place}: the files do not belong together.")
            tensors[name] = stored
    if lost := [name for name in weight_map if name not in tensors]:
        raise WeightsError(f"{path} names {len(lost)} tensors that their files do not hold: {shorten(lost)}.")
    return tensors


def read_parts(files: list[Path]) -> dict[str, Stored]:
    """The weights of a checkpoint in shards, of each tensor some rows in a file."""
    parts: dict[str, list[tuple[int, Stored]]] = {}
    for path in files:
        tensors, notes = read_header_and_notes(path)
        try:
            rows = first_rows(path, notes, shapes(tensors))
        except ValueError as error:
            raise WeightsError(str(error)) from None
        for name, stored in tensors.items():
            parts.setdefault(name, []).append((rows[name], stored))
    return {name: joined(name, sorted(found, key=row_and_rows)) for name, found in parts.items()}


def row_and_rows(part: tuple[int, Stored]) -> tuple[int, tuple[int, ...]]:
    return part[0], part[1].shape[:1]


def joined(name: str, parts: list[tuple[int, Stored]]) -> Stored:
    """One tensor of its parts, in the order of their rows. Raises WeightsError where they do not make up one."""
    first = parts[0][1]
    try:
        shape = whole_shape(name, [Part(stored.file, row, stored.shape) for row, stored in parts])
    except ValueError as error:
        raise WeightsError(str(error)) from None
    if any(stored.code != first.code for _, stored in parts):
        raise WeightsError(f"{first.file} holds {name!r:.100} as {first.code}, the files beside it as something else.")
    if len(parts) == 1:
        return first
    return Joined(first.file, first.code, shape, first.offset, tuple(stored for _, stored in parts))


def read_index(folder: Path) -> dict[str, str]:
    """INDEX, tensor -> file, checked."""
    path = folder / INDEX
    index = read_json(path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsError(f"{path} has no 'weight_map' of tensor -> file.")
    for name in sorted(set(weight_map.values())):
        if name in ("", ".", "..") or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            rule = "A shard must be a .safetensors file beside the index, no path."  # a stranger's reaches no further
            raise WeightsError(f"{path} sends tensors to {name!r}. {rule}")
    return weight_map


def shards(folder: Path) -> list[str]:
    """The files that INDEX lists."""
    return sorted(set(read_index(folder).values()))


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file. Raises WeightsError if the file is cut off or not what it should be."""
    return read_header_and_notes(path)[0]


def read_header_and_notes(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The same, and the texts of its __metadata__."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(LFS)) == LFS:
            raise WeightsError(f"{path} is a pointer of git-lfs, not the weights: fetch them with `git lfs pull`.")
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise WeightsError(f"{path} is cut off, or no safetensors file: {size:,} bytes, a header of {length:,}.")
        try:
            text = file.read(length).decode()
            header = json.loads(text, object_pairs_hook=without_twins, parse_constant=float_refused)
            json.dumps(header, ensure_ascii=False).encode()  # a lone surrogate is no text
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path} is damaged: its header is not JSON: {str(error).rstrip('.')}.") from None
    if not isinstance(header, dict) or not text.startswith("{"):
        raise WeightsError(f"{path} is damaged: its header is a {type(header).__name__}, not an object.")
    notes = header.pop("__metadata__", None)
    if notes is not None and not fits(notes, dict[str, str]):
        raise WeightsError(f"{path} is damaged: its __metadata__ must be an object of texts, not {notes!r:.100}.")
    tensors = {name: stored_tensor(path, name, entry, 8 + length) for name, entry in header.items()}
    check_layout(path, {name: entry["data_offsets"] for name, entry in header.items()}, size - 8 - length)
    return tensors, notes or {}


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of a name that stands twice, readers differ in which they take."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in content if names.count(name) > 1)!r:.100} stands twice in it.")
    return content


def float_refused(text: str) -> float:
    raise ValueError(f"{text} is no number.")


def check_layout(path: Path, places: Mapping[str, list[int]], size: int) -> None:
    """Raise WeightsError unless the tensors lie one behind the other and fill the `size` bytes behind the header: what
    two of them share, or none has, can hide anything."""
    end = max((last for _, last in places.values()), default=0)
    if end > size:
        raise WeightsError(f"{path} is cut off: it lacks {end - size:,} bytes of {end:,}. Copy it again.")
    place = 0
    for name, (first, last) in sorted(places.items(), key=itemgetter(1)):
        if first != place:
            what = "overlaps the one before" if first < place else f"leaves a hole of {first - place:,} bytes"
            raise WeightsError(f"{path} is damaged: {name!r} begins at byte {first:,} and {what}.")
        place = last
    if place < size:
        raise WeightsError(f"{path} is damaged: {size - place:,} bytes at its end belong to no tensor.")


def stored_tensor(path: Path, name: str, entry: Any, start: int) -> Stored:
    """One entry of a header, checked: a shape of whole numbers, and as many bytes as shape and dtype make."""
    try:
        code, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = isinstance(entry["shape"], list) and isinstance(entry["data_offsets"], list)
        good = whole and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, first, last)) and isinstance(code, str)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good or math.prod(max(n, 1) for n in shape) >= 2**63:
        raise WeightsError(f"{path} is damaged: its header says {entry!r:.200} about {name!r:.100}.")
    if code not in BITS:
        raise WeightsError(f"{path}: {name!r:.100} has the dtype {code!r:.50}, which safetensors does not know.")
    stored = Stored(path, code, shape, start + first)
    if 8 * (last - first) != stored.size * BITS[code]:
        raise WeightsError(f"{path} is damaged: {name!r}, {code} {shape}, has {last - first:,} bytes.")
    return stored


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A tensor to be written: its shape, and the function that brings its numbers, float32 or float64."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    turned: bool = False  # `read` brings them on their side


def write_folder(folder: Path, tensors: Mapping[str, Source], dtype: str, max_shard_bytes: int) -> list[Path]:
    """Write tensors, in their order, to SINGLE, or to shards of at most `max_shard_bytes` and INDEX; returns the files.

    Files take their names only when all are written, and weights of before go only then: a full disk leaves the folder
    as it was.
    """
    code = CODES[dtype]
    shards = split_into_shards(tensors, code, max_shard_bytes)
    total = len(shards)
    names = [SINGLE] if total == 1 else [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    with ExitStack() as whole:
        for name, shard in zip(names, shards):
            write_file(whole.enter_context(whole_file(folder / name)), {key: tensors[key] for key in shard}, code)
    if total > 1:
        size = sum(n_bytes(source, code) for source in tensors.values())
        weight_map = {tensor: file for file, shard in zip(names, shards) for tensor in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))})
    else:
        (folder / INDEX).unlink(missing_ok=True)
    for old in [folder / SINGLE, *folder.glob("model-*-of-*.safetensors")]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    return [folder / name for name in names]


def split_into_shards(tensors: Mapping[str, Source], code: str, max_bytes: int) -> list[list[str]]:
    """Names in groups of at most `max_bytes`, in order; a tensor that is larger alone gets a group of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, source in tensors.items():
        size = n_bytes(source, code)
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def write_file(path: Path, tensors: Mapping[str, Source], code: str) -> None:
    """One safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in tensors.items():
        start, end = end, end + n_bytes(source, code)
        header[name] = {"dtype": code, "shape": list(source.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for source in tensors.values():
            array = source.read().T if source.turned else source.read()
            encode(np.ascontiguousarray(array), code).tofile(file)


def n_bytes(source: Source, code: str) -> int:
    return math.prod(source.shape) * STORED[code].itemsize


def common_dtype(tensors: Mapping[str, Stored]) -> str:
    """The dtype of most of the numbers in a checkpoint, "bfloat16". Raises WeightsError if they are no floats."""
    sizes: dict[str, int] = {}
    for name, stored in tensors.items():
        if stored.code not in NAMES:
            rule = f"only {', '.join(NAMES)} can be read. Quantized weights must be made floats first."
            raise WeightsError(f"{stored.file}: {name!r} is {stored.code}; {rule}")
        sizes[stored.code] = sizes.get(stored.code, 0) + stored.size
    return NAMES[max(sizes, key=sizes.__getitem__)] if sizes else "float32"


def shorten(names: list[str], limit: int = 8) -> str:
    """A list of names for a message, with the rest counted."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
