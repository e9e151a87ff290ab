"""The experts of a layer in checkpoint files: one tensor for all of them, or some for each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial

import numpy as np

from .dtypes import STORED
from .weights import Source, Stored

Fused = Mapping[str, tuple[str, ...]]  # "experts.down_proj" -> ("down_proj.weight",): see Architecture


def split_experts(tensors: dict[str, Stored], fused: Fused, n_experts: int) -> dict[str, Stored]:
    """The tensors with those that hold all experts (E, ...) cut up, where they lie, into one for each:
    "mlp.experts.down_proj" is "mlp.experts.0.down_proj.weight" and so on. Others stay as they are."""
    found = {}
    for name, stored in tensors.items():
        parts = next((parts for ending, parts in fused.items() if name.endswith(f".{ending}")), ())
        rows = stored.shape[1] // len(parts) if parts and len(stored.shape) > 1 else 0
        if not rows or stored.shape[:2] != (n_experts, rows * len(parts)) or stored.code not in STORED:
            found[name] = stored
            continue
        shape = (rows, *stored.shape[2:])
        size = math.prod(shape) * STORED[stored.code].itemsize
        for i in range(n_experts * len(parts)):
            own = f"{name.rpartition('.')[0]}.{i // len(parts)}.{parts[i % len(parts)]}"
            found[own] = Stored(stored.file, stored.code, shape, stored.offset + i * size)
    return found


def join_experts(tensors: Mapping[str, Source], fused: Fused) -> dict[str, Source]:
    """The way back, of tensors that hold one part of each expert."""
    endings = {parts[0]: ending.rpartition(".")[2] for ending, parts in fused.items()}
    found: dict[str, Source] = {}
    groups: dict[str, list[Source]] = {}
    for name, source in tensors.items():
        owner, number, own = re.fullmatch(r"(?:(.*\.experts)\.(\d+)\.)?(.*)", name).groups()  # type: ignore[union-attr]
        if number is None:
            found[name] = source
        else:
            groups.setdefault(f"{owner}.{endings[own]}", []).append(source)
    for name, sources in groups.items():
        found[name] = Source((len(sources), *sources[0].shape), partial(stacked, sources))
    return found


def stacked(sources: list[Source]) -> np.ndarray:
    return np.stack([source.read().T if source.turned else source.read() for source in sources])
