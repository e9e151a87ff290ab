"""Checkpoints in shards: each process of a job has written its own part of every array, and here they are read again.

    shard-00001-model-00001-of-00002.safetensors    the part of the first process, of the weights
    shard-00001-model-00002-of-00002.safetensors    its part of the optimizer's state
    shard-00002-model-00001-of-00002.safetensors    the part of the second process, and so on

torch.distributed.checkpoint writes them (torch_shards.py). The header of each says of which row of the whole array its
part is the first: {"blocks.0.attn.qkv.weight": {"saved_offsets": [24, 0]}}. FSDP cuts arrays along their rows, an array
that every process holds is written by one of them. So any number of processes, or NumPy, can read what another number
wrote; nothing is pickled. What is on the disk is trusted no further than it agrees with itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

SHARD = re.compile(r"shard-\d{5}-model-(\d{5})-of-\d{5}\.safetensors")
WEIGHTS, OPTIMIZER = 1, 2  # the second number in a shard's name: of what it is a part
NOTE, OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"  # where torch.distributed.checkpoint notes the first row
SHARDED_DTYPES = ("F64", "F32", "I64")
WHOLE_DTYPES = (*SHARDED_DTYPES, "F16", "I32", "I16", "I8", "U8", "BOOL")  # those that NumPy has, too


@dataclass(frozen=True)
class Part:
    """Some rows of an array, in a file; of an array without axes, the whole."""

    file: Path
    first: int  # row
    shape: tuple[int, ...]


def shard_files(folder: Path, of: int) -> list[Path]:
    """The shards in a folder, of the weights or the optimizer's state, in the order of the processes that wrote them.
    Empty where there are none."""
    found = ((SHARD.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(path for match, path in found if match and int(match[1]) == of)


def first_rows(path: Path, notes: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Of each array in a shard, the row of the whole one that its part begins with, by the `notes` of the file's header
    (texts). Raises ValueError, naming the file, where these do not say it."""
    try:
        offsets = {name: json.loads(notes[NOTE])[name][OFFSETS] for name in shapes}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its header does not say of which rows it is a part ({error}).") from None
    for name, shape in shapes.items():
        given = offsets[name]
        fits = isinstance(given, list) and len(given) == len(shape) and all(type(n) is int for n in given)
        if not fits or any(given[1:]) or not all(0 <= n < 2**63 for n in given):
            raise ValueError(f"{path} is damaged: {name!r:.100} {shape} begins at {given!r:.100}, which is no row.")
    return {name: given[0] if given else 0 for name, given in offsets.items()}


def whole_shape(name: str, parts: list[Part]) -> tuple[int, ...]:
    """The shape of the array that the parts, in the order of their rows, make up. Raises ValueError where they leave
    rows out, or hold some twice."""
    shape, n_rows = parts[0].shape, 0
    for part in parts:
        same = part.shape[1:] == shape[1:] and len(part.shape) == len(shape) and (shape or len(parts) == 1)
        if not same or (part.first != n_rows and part.shape[:1] != (0,)):
            raise ValueError(
                f"{part.file} is not of one checkpoint with the files beside it: its part of {name!r:.100}, "
                f"{part.shape} from row {part.first:,}, does not follow on {n_rows:,} rows of {shape[1:]}."
            )
        n_rows += part.shape[0] if shape else 0
    return (n_rows, *shape[1:]) if shape else ()


class Shards(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint in shards, by name, each put together when it is asked for and not kept: reading all,
    one after another, takes the memory of one. `whole`: of the one file that a process wrote alone, likewise.

    Opening reads and compares the headers. Raises ValueError, naming the file, for shards that are damaged, or not of
    one checkpoint.
    """

    def __init__(self, files: list[Path], *, whole: bool = False) -> None:
        self.parts: dict[str, list[Part]] = {}
        for path in files:
            shapes = {}
            try:
                with safe_open(path, framework="np") as file:
                    notes = file.metadata()
                    names = file.keys()
                    for name in names:
                        piece = file.get_slice(name)
                        if piece.get_dtype() not in (WHOLE_DTYPES if whole else SHARDED_DTYPES):
                            raise ValueError(f"{path}: {name!r:.100} is {piece.get_dtype()}, which no run writes.")
                        shapes[name] = tuple(piece.get_shape())
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path} is damaged (truncated or not safetensors): {error}.") from error
            firsts = dict.fromkeys(shapes, 0) if whole else first_rows(path, notes, shapes)
            for name, first in firsts.items():
                self.parts.setdefault(name, []).append(Part(path, first, shapes[name]))
        for parts in self.parts.values():
            parts.sort(key=lambda part: (part.first, part.shape[:1]))
        self.shapes = {name: whole_shape(name, parts) for name, parts in self.parts.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        found = []
        for part in self.parts[name]:
            with safe_open(part.file, framework="np") as file:
                found.append(file.get_tensor(name))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def __contains__(self, name: object) -> bool:
        return name in self.parts  # a Mapping would ask for the array, and read it

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)
