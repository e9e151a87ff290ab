"""Keys and values of texts of different lengths, on PyTorch, in tensors whose shapes never change.

`nn.KVCache` hands out what it holds so far: keys (B, Hkv, 1, D) after the first token, (B, Hkv, 2, D) after the second,
all rows equally many. A program that was compiled for one of these shapes is of no use for the next. Here each step
gets the whole buffers, (slots, Hkv, capacity, D), and two tensors of fixed shapes say what is new: `places` (B, T),
where in its text each new token stands, and a mask, True for the keys up to there:

    text 0 holds 5 ids, text 1 holds 2          text 0 reads one more at place 5     1 1 1 1 1 1 0 0
    capacity 8, one new token each: T = 1       text 1 reads one more at place 2     1 1 1 0 0 0 0 0

So the shapes of a step are the same for every token, and so are the addresses: `update` writes into the buffers in
place. The first is what torch.compile needs to compile once. Both are what a CUDA graph needs, a recording of the
kernels that a step has started, with the addresses that they read and write: to replay it costs one call where the step
costs several for each layer, and what it computes is whatever then stands at these addresses. The price is that
attention goes over keys that nobody has written yet, hidden by the mask: they must be finite, as 0 · NaN is NaN.

A layer with a window masks what lies before it, too; its buffers are as long as the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Tensor = torch.Tensor
Buffers = list[Tensor]  # of each layer (slots, Hkv, capacity, D)


class StaticCache:
    """What a model's forward gets as its `cache` for one call: it reads ids (B, T) that stand at `places` (B, T).

    A token that is there twice is stored once: a row that has fewer than T to read repeats its last one, at its place.
    `reach`: how many of the buffers' positions are looked at. `rows` (B,): the slots of these texts; None: all.
    """

    def __init__(self, keys: Buffers, values: Buffers, places: Tensor, reach: int, rows: Tensor | None = None) -> None:
        self.keys, self.values, self.places, self.reach, self.rows = keys, values, places, reach, rows
        self.slots = (torch.arange(len(places), device=places.device) if rows is None else rows)[:, None]  # (B, 1)
        self.length = keys[0].shape[2] - places.shape[1]  # before the new ones there may be so many, which models check
        self.masks: dict[int | None, Tensor] = {}
        self.mask = self.visible(None)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, Hkv, T, D) of one layer at their places; returns all keys and values (B, Hkv, reach, D)."""
        found = []
        for buffer, new in ((self.keys[layer], k), (self.values[layer], v)):
            buffer[self.slots, :, self.places] = new.transpose(1, 2).to(buffer.dtype)
            found.append((buffer if self.rows is None else buffer[self.rows])[:, :, : self.reach])
        return found[0], found[1]

    def visible(self, window: int | None) -> Tensor:
        """True (B, 1, T, reach) for the keys that a query sees: up to its own place, the last `window` of them."""
        if window not in self.masks:
            back = self.places[:, None, :, None] - torch.arange(self.reach, device=self.places.device)  # 0: its own
            self.masks[window] = back >= 0 if window is None else back == back.clamp(0, window - 1)
        return self.masks[window]


class Slots:
    """The buffers behind it, and how many ids each of the first `len(lengths)` slots holds; the others are free."""

    def __init__(self, keys: Buffers, values: Buffers, rows: int) -> None:
        self.keys, self.values, self.lengths = keys, values, [0] * rows
        self.most, self.capacity = keys[0].shape[0], keys[0].shape[2]

    def first(self, n: int) -> tuple[Buffers, Buffers]:
        """The keys and values of the first n slots."""
        if n == self.most:
            return self.keys, self.values
        return [buffer[:n] for buffer in self.keys], [buffer[:n] for buffer in self.values]

    def take(self, rows: Sequence[int]) -> None:
        """Make text i what text rows[i] was. A text may be taken twice, as for several after one prompt, or left out,
        when it has ended."""
        end, index = max(self.lengths), torch.tensor(rows, device=self.keys[0].device)
        self.lengths = [self.lengths[row] for row in rows]
        for buffer in (*self.keys, *self.values):
            buffer[: len(rows), :, :end] = buffer[index, :, :end]


def make_buffers(model: Any, slots: int, capacity: int) -> tuple[Buffers, Buffers]:
    """Keys and values of nothing, for a decoder on PyTorch."""
    config, weight = model.config, model.norm.weight
    shape = (slots, getattr(config, "n_kv_heads", config.n_heads), capacity, config.head_dim)
    keys, values = ([weight.new_zeros(shape) for _ in range(config.n_layers)] for _ in range(2))
    return keys, values
