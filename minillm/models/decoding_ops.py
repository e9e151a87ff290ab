"""The parts of a layer as a plan (decoding.py) computes them: arrays in, arrays out, many overwritten on the way.

N tokens of several texts stand below each other, x (N, D); a cache has a row for each text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from .. import ops
from ..numpy_ops.cores import shares, side_by_side
from ..tensor import Tensor

Array = np.ndarray
Matrix = Callable[[Array], Array]  # x (N, in) -> (N, out)
SLOPE = 2 * math.sqrt(2 / math.pi)  # of the exponent in GELU's form with tanh, at 0


@dataclass
class Layer:
    """What the plan needs of a block."""

    norm_1: Any
    norm_2: Any
    qkv: list[Matrix]  # one matrix for all three, or three
    heads: tuple[int, int, int]  # query heads, key/value heads, features of each
    head_norms: tuple[Any, Any] | None  # of queries and keys
    out: Matrix
    up: list[Matrix]  # GPT's one, or Llama's gate and up
    down: Matrix
    window: int | None


class Cache:
    """Keys and values (rows, Hkv, capacity, D) of each layer, of texts that each have a length of their own."""

    def __init__(self, layers: Sequence[Layer], rows: int, capacity: int, dtype: Any) -> None:
        shapes = [(rows, layer.heads[1], capacity, layer.heads[2]) for layer in layers]
        self.keys = [np.zeros(shape, dtype) for shape in shapes]  # zeros: what is hidden is multiplied by 0
        self.values = [np.zeros(shape, dtype) for shape in shapes]
        self.lengths = [0] * rows

    def take(self, rows: Sequence[int]) -> None:
        """Make row i what row rows[i] was. A row may be taken twice, as for several texts after one prompt, or left
        out, when its text has ended."""
        self.lengths, end = [self.lengths[row] for row in rows], max(self.lengths)
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                buffers[layer] = np.zeros((len(rows), *old.shape[1:]), old.dtype)
                buffers[layer][:, :, :end] = old[rows, :, :end]


class New:
    """What each row of a cache is to read: `counts` tokens behind the `lengths` that it holds."""

    def __init__(self, lengths: Sequence[int], counts: Sequence[int]) -> None:
        self.lengths = lengths
        self.ends = [past + n for past, n in zip(lengths, counts)]
        self.least, self.most = min(self.ends), max(self.ends)
        self.one_each = max(counts) == 1
        stops = [0, *accumulate(counts)]
        self.spans = [slice(*pair) for pair in pairwise(stops)]  # where the tokens of each row stand below each other
        self.last = [stop - 1 for stop in stops[1:]]
        self.places = [place for past, end in zip(lengths, self.ends) for place in range(past, end)]

    def store(self, buffer: Array, new: Array) -> None:
        """Put keys or values (N, Hkv, D) of the new tokens behind those in a buffer (rows, Hkv, capacity, D)."""
        if self.one_each and self.least == self.most:
            buffer[:, :, self.lengths[0]] = new
        elif self.one_each:
            buffer[range(len(new)), :, self.lengths] = new
        else:
            for rows, own, past, end in zip(buffer, self.spans, self.lengths, self.ends):
                rows[:, past:end] = new[own].swapaxes(0, 1)


def norm(x: Array, module: Any) -> Array:
    """LayerNorm, or RMSNorm where the module has no bias, of the last axis."""
    weight, bias, eps, n = module.weight.data, getattr(module, "bias", None), module.eps, x.shape[-1]
    if x.size == n:  # one vector: numbers of Python's and no axes take half as long
        y = x.reshape(n)
        y = y - np.add.reduce(y) / n if bias is not None else y
        y = (y * (1 / math.sqrt(y.dot(y) / n + eps))).reshape(x.shape)
    else:
        y = x - np.add.reduce(x, -1, keepdims=True) / n if bias is not None else x
        y = y / np.sqrt(np.add.reduce(y * y, -1, keepdims=True) / n + eps)
    y *= weight
    if bias is not None:
        y += bias.data
    return y


def turn(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary positions: x (N, H, D), angles (N, 1, D/2). See ops.rope."""
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    y = np.empty_like(x)
    np.multiply(x1, cos, out=y[..., :half])
    np.multiply(x2, cos, out=y[..., half:])
    y[..., :half] -= x2 * sin
    y[..., half:] += x1 * sin
    return y


def feed_forward(layer: Layer, x: Array) -> Array:
    h = norm(x, layer.norm_2)
    a = layer.up[0](h)
    if len(layer.up) == 1:  # GELU in its form with tanh: a/(1 + e^(−2√(2/π)(a + 0.044715a³)))
        e = a * a
        e *= -0.044715 * SLOPE
        e -= SLOPE
        e *= a
    else:  # SiLU: a/(1 + e^−a)
        e = -a
    np.exp(e, e)
    e += 1
    a /= e
    return layer.down(a if len(layer.up) == 1 else np.multiply(a, layer.up[1](h), a))


def attend_last(layer: Layer, q: Array, keys: Array, values: Array, new: New) -> Array:
    """For the last query of each row, q (rows, H, D), which sees all of its row's keys -> (rows, H · D)."""
    n_q, n_kv, d = layer.heads
    first = 0 if layer.window is None else max(0, new.least - layer.window)
    keys, values = keys[:, :, first : new.most], values[:, :, first : new.most]
    q = (q * d**-0.5).reshape(len(q), n_kv, n_q // n_kv, d)
    scores = q @ keys.swapaxes(-1, -2)  # (rows, Hkv, G, T)
    if new.least < new.most:
        place, end = np.arange(first, new.most), np.array(new.ends)[:, None]
        hidden = place >= end  # (rows, T)
        if layer.window is not None:
            hidden |= place < end - layer.window
        scores[np.broadcast_to(hidden[:, None, None], scores.shape)] = -np.inf
    scores -= np.maximum.reduce(scores, -1, keepdims=True)
    np.exp(scores, scores)
    mixed = scores @ values  # (rows, Hkv, G, D)
    mixed /= np.add.reduce(scores, -1, keepdims=True)
    return mixed.reshape(len(q), -1)


def attend(layer: Layer, q: Array, keys: Array, values: Array, new: New, cores: int = 1) -> Array:
    """For the queries q (N, H, D) of all new tokens, text by text -> (N, H · D). Each core takes the next text when it
    is free; or, where texts are few, the next of a text's key heads with their queries."""
    (n, n_q, d), n_kv = q.shape, keys.shape[1]
    mixed = np.empty((n, n_q, d), q.dtype)
    groups = shares(n_kv, cores if len(new.ends) < 2 * cores else 1)
    work = iter([(row, group) for row in range(len(new.ends)) for group in groups])

    def take() -> None:
        for row, kv in work:
            own, end = new.spans[row], new.ends[row]
            heads = slice(kv.start * n_q // n_kv, kv.stop * n_q // n_kv)
            asked = Tensor(q[own, heads].swapaxes(0, 1)[None])  # (1, H, n, D)
            k, v = Tensor(keys[row : row + 1, kv, :end]), Tensor(values[row : row + 1, kv, :end])
            found = ops.attention(asked, k, v, causal=True, window=layer.window).data
            mixed[own, heads] = found[0].swapaxes(0, 1)

    side_by_side([take] * cores)
    return mixed.reshape(n, -1)
