"""Which tiles of the table of scores the fast forward kernel computes: watched while it runs in Triton's interpreter.

FlashAttention never stores the (Tq, Tk) table, and most of a causal one it never computes. `minillm.plot.tiles_visited`
draws what `visited` returns.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from . import flash_fast
from .attention import flash_attention
from .call import interpreted


@dataclass(frozen=True)
class Tile:
    """One block of scores: queries row .. row + height - 1, keys column .. column + width - 1. Only at an `edge` are
    positions compared."""

    row: int
    column: int
    height: int
    width: int
    edge: bool


def visited(tq: int, tk: int | None = None, *, lengths: list[int] | None = None, **options: Any) -> list[Tile]:
    """The tiles that attention of one head computes, in the order in which it does, for Tq queries and Tk keys (Tq if
    None). options are `flash_attention`'s; `lengths` packs sequences, and positions are then those in the whole row.

    Raises RuntimeError outside the interpreter: on a GPU nobody can watch.
    """
    if not interpreted():
        raise RuntimeError("visited: set TRITON_INTERPRET=1 before Python starts; only the interpreter can be watched.")
    q, k = torch.zeros(1, 1, tq, 16), torch.zeros(1, 1, tk or tq, 16)
    starts = [0]
    if lengths is not None:
        starts = [sum(lengths[:n]) for n in range(len(lengths))]
        options |= {"cu_seqlens": torch.tensor([*starts, sum(lengths)], dtype=torch.int32)}
    with watching() as tiles, torch.no_grad():
        flash_attention(q, k, k, **options)
    return [Tile(t.row + starts[z], t.column + starts[z], t.height, t.width, t.edge) for z, t in tiles]


@contextmanager
def watching():
    """Inside the block, each tile whose scores the forward kernel hides, or finds all to count, joins the list."""
    tiles: list[tuple[int, Tile]] = []
    attend, hide = flash_fast.attend, flash_fast.hide
    program = [0]

    def watched_attend(*args, **named):
        program[0] = int(flash_fast.tl.program_id(2).handle.data[0])
        return attend(*args, **named)

    def watched_hide(s, i, j, q_len, k_len, left, right, mask, mask_strides, EDGE, *rest):
        rows, columns = (t.handle.data.ravel() for t in (i, j))
        corner, size = (int(rows[0]), int(columns[0])), (len(rows), len(columns))
        tiles.append((program[0], Tile(*corner, *size, bool(EDGE))))
        return hide(s, i, j, q_len, k_len, left, right, mask, mask_strides, EDGE, *rest)

    flash_fast.attend, flash_fast.hide = watched_attend, watched_hide
    try:
        yield tiles
    finally:
        flash_fast.attend, flash_fast.hide = attend, hide
