"""Attention: each position takes a weighted average of the values at the positions that it may look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..settings import NEEDS_TORCH
from ..tensor import Array, Tensor, records_graph
from .dropout import draw_mask, mask_scale, packed, unpacked

# Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1), for each head:
#   S = scale · Q Kᵀ (Tq, Tk)    P = softmax of S over the allowed keys, row by row    O = P V
# Backward, with G = dL/dO, derived in chapters/06_attention.ipynb:
#   O = P V        dL/dV = Pᵀ G          dL/dP = G Vᵀ
#   P = softmax S  dL/dS = P ∘ (dL/dP − rowsum(P ∘ dL/dP))         (softmax's backward, see softmax.py)
#   S = scale QKᵀ  dL/dQ = scale · dL/dS K    dL/dK = scale · (dL/dS)ᵀ Q
# The row sum is that of O ∘ G, which has D columns, not Tk: Σⱼ Pᵢⱼ (Gᵢ·Vⱼ) = Gᵢ · Σⱼ Pᵢⱼ Vⱼ = Gᵢ·Oᵢ. But
# where scores are large, P is 1 at one key and dL/dS a difference of two equal numbers: 0 only if both are one dL/dP.
# With dropout, O = (P ∘ M) V, M the mask over (1 − p): dL/dV = (P ∘ M)ᵀ G and dL/dP = M ∘ (G Vᵀ).
# With a sink s (gpt-oss, 2025), a learned score whose value is 0, each row of P sums to 1 − p₀ < 1 with p₀ = eˢ/Σ:
# dL/dp₀ = 0, so that all above holds as it is, and dL/ds = p₀ (0 − rowsum(P ∘ dL/dP)), summed over the queries.
#
# Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): H query heads share Hkv < H key/value heads.
# Queries are viewed as (B, Hkv, G, T, D), keys as (B, Hkv, 1, T, D); matmul broadcasts, backward sums over the group.
#
# Queries are taken `BLOCK` rows at a time. Causal rows i..j need only the keys up to j, so about half of the scores
# are never computed. As many texts are taken at once as keep a block's scores in the cache, `SCORES` of them. Where
# several texts stand in one row (`segments`), a block ends with its text, and its keys begin there.

BLOCK, SCORES = 64, 1 << 17
SMALL = 50.0  # |s| up to which no e^s overflows or vanishes, in float32 either: no largest score need be subtracted


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    mask: Array | None,
    segments: Array | None,
    offsets: Array | None,  # where they begin, which kernels want to know: `cut` finds out
    window: int | None,
    scale: float | None,
    dropout_p: float,
    rng: np.random.Generator | None,
    impl: str,
    sinks: Tensor | None,
    found: Array | None = None,  # the result of an earlier pass (engines/recompute.py)
) -> Tensor:
    if impl in NEEDS_TORCH:
        raise ValueError(
            f"attention: impl={impl!r} runs on PyTorch; this model runs on NumPy. Use impl='auto', or port the model "
            "with minillm.port.to_torch(model)."
        )
    (batch, heads, t_q, d), (kv_heads, t_k) = q.shape, k.shape[1:3]
    scale = q.dtype.type(1 / math.sqrt(d) if scale is None else scale)
    q5 = q.data.reshape(batch, kv_heads, heads // kv_heads, t_q, d)  # (B, Hkv, G, Tq, D)
    k5, v5 = k.data[:, :, None], v.data[:, :, None]  # (B, Hkv, 1, Tk, D)
    mask = mask if mask is None else grouped(mask, kv_heads)
    sink = None if sinks is None else sinks.data.reshape(kv_heads, -1, 1, 1)
    parents = (q, k, v) if sinks is None else (q, k, v, sinks)

    merged = np.empty((batch, t_q, heads, v.shape[-1]), q.dtype) if found is None else found.swapaxes(1, 2)
    out4 = merged.swapaxes(1, 2)  # (B, H, Tq, D), laid out so that putting heads side by side copies nothing
    out = out4.reshape(*q5.shape[:4], v.shape[-1])  # (B, Hkv, G, Tq, D)
    blocks = []  # what backward needs of each block: its texts, its rows, its keys, P, dropout's mask
    small = longest(q5) * longest(k5) * abs(scale) < SMALL and (sink is None or np.abs(sink).max() < SMALL)
    for texts, rows, keys in cut((batch, heads, t_q, t_k), causal, segments, window):
        scores = (q5[texts, ..., rows, :] * scale) @ k5[texts, ..., keys, :].swapaxes(-1, -2)  # (..., rows, keys)
        if mask is not None:
            hide(scores, of_block(mask, texts, rows, keys))
        if causal and t_q > 1:
            hide_unseen(scores, rows, keys, t_k - t_q, window)
        p = masked_softmax(scores, small, sink)
        drawn = draw_mask(p.shape, dropout_p, rng) if dropout_p else None
        if found is None:
            weights = p if drawn is None else p * mask_scale(drawn, dropout_p, p.dtype)
            np.matmul(weights, v5[texts, ..., keys, :], out=out[texts, ..., rows, :])
        if records_graph(*parents):
            blocks.append((texts, rows, keys, p, None if drawn is None else packed(drawn)))
    return Tensor.from_op(out4, parents, attention_backward, (q5, k5, v5, out4, blocks, scale, dropout_p, small))


def attention_backward(
    grad: Array, needs: tuple, q5: Array, k5: Array, v5: Array, out: Array, blocks: list, *how: float
) -> tuple:
    scale, dropout_p, small = how
    sums = np.einsum("...d,...d->...", grad, out).reshape(*q5.shape[:4], 1)  # rows' sums of P ∘ dL/dP
    grad5 = grad.reshape(*q5.shape[:4], v5.shape[-1])
    dq = np.empty(q5.shape, grad.dtype)
    dk = np.zeros((*k5.shape[:2], *k5.shape[3:]), grad.dtype)  # (B, Hkv, Tk, D)
    dv = np.zeros((*v5.shape[:2], *v5.shape[3:]), grad.dtype)
    dsinks = np.zeros(q5.shape[1:3], grad.dtype)  # (Hkv, G)
    for texts, rows, keys, p, bits in blocks:
        kept = None if bits is None else mask_scale(unpacked(bits, p.shape), dropout_p, p.dtype)
        g = grad5[texts, ..., rows, :]
        ds = g @ v5[texts, ..., keys, :].swapaxes(-1, -2)  # dL/dP (texts, Hkv, G, rows, keys)
        if kept is not None:
            ds *= kept
        row_sums = sums[texts, ..., rows, :] if small else np.einsum("...k,...k->...", p, ds)[..., None]
        if len(needs) > 3:
            dsinks -= (row_sums * (1 - p.sum(axis=-1, keepdims=True))).sum(axis=(0, 3, 4))
        ds -= row_sums
        ds *= p  # dL/dS
        np.matmul(ds, k5[texts, ..., keys, :], out=dq[texts, ..., rows, :])
        dk[texts, :, keys] += sum_group(ds.swapaxes(-1, -2) @ (q5[texts, ..., rows, :] * scale))
        dv[texts, :, keys] += sum_group((p if kept is None else p * kept).swapaxes(-1, -2) @ g)
    dq *= scale
    return (dq.reshape(grad.shape[:3] + dq.shape[-1:]), dk, dv, dsinks.reshape(-1))[: len(needs)]


def cut(shape: tuple, causal: bool, segments: Array | None, window: int | None) -> Iterator[tuple[slice, ...]]:
    """The blocks of scores of a `shape` (B, H, Tq, Tk): which rows of the batch (several, if each is one text), which
    queries, which keys these see: from the first of their text (or window) to its last, or causal, the last query's."""
    batch, heads, t_q, t_k = shape
    stretches = []  # (rows of the batch, first and last query of a text)
    if segments is None:
        at_once = max(1, SCORES // max(1, heads * min(t_q, BLOCK) * t_k))
        stretches = [(slice(i, i + at_once), 0, t_q) for i in range(0, batch, at_once)]
    else:
        for i, row in enumerate(segments):
            edges = [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), t_q]
            stretches += [(slice(i, i + 1), first, last) for first, last in pairwise(edges)]
    for texts, first, last in stretches:
        for start in range(first, last, BLOCK):
            rows = slice(start, min(start + BLOCK, last))
            end = (rows.stop if causal else last) + t_k - t_q
            begin = first if window is None else max(first, start + t_k - t_q - window + 1)
            yield texts, rows, slice(begin, max(end, begin))


def sum_group(x: Array) -> Array:
    """(B, Hkv, G, T, D) -> (B, Hkv, T, D): a key/value head receives the gradients of all query heads that share it."""
    return x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2)


def longest(x: Array) -> float:
    """The length of the longest of the vectors x (..., D): |q·k| ≤ |q||k|."""
    return math.sqrt(np.einsum("...d,...d->...", x, x).max(initial=0))


def masked_softmax(scores: Array, small: bool, sink: Array | None = None) -> Array:
    """Softmax over the last axis, in place. A row of −∞ (no key allowed) gives zeros, not NaN. `small`: |s| < SMALL."""
    if scores.shape[-1] == 0:
        return scores
    top = scores.dtype.type(0)
    if not small:
        top = scores.max(axis=-1, keepdims=True)
        top[np.isneginf(top)] = 0  # −∞ − (−∞) would be NaN
        top = top if sink is None else np.maximum(top, sink)
        scores -= top
    p = np.exp(scores, out=scores)
    total = p @ np.ones((p.shape[-1], 1), p.dtype)  # by BLAS: faster than sum
    total += 0 if sink is None else np.exp(sink - top)
    total[total == 0] = 1
    p /= total
    return p


def hide(scores: Array, allowed: Array) -> None:
    """Make scores −∞, in place, where a query may not look."""
    scores += np.where(allowed, scores.dtype.type(0), scores.dtype.type(-np.inf))


def hide_unseen(scores: Array, rows: slice, keys: slice, past: int, window: int | None) -> None:
    """Hide what a block's queries do not see, causal: the last query stands at the last key (bottom-right aligned), so
    that query i sees keys j ≤ i + past, past = Tk − Tq, and with a window j > i + past − window."""
    first = keys.start if window is not None else max(keys.start, rows.start + past)  # those before, all queries see
    behind = np.arange(rows.start, rows.stop)[:, None] + past - np.arange(first, keys.stop)  # how far a key lies back
    seen = behind >= 0
    hide(scores[..., first - keys.start :], seen if window is None else seen & (behind < window))


def grouped(mask: Array, kv_heads: int) -> Array:
    """A mask whose axes may be 1 (B, H, Tq, Tk), in the grouped layout (B, Hkv, G, Tq, Tk)."""
    heads = (1, 1) if mask.shape[1] == 1 else (kv_heads, mask.shape[1] // kv_heads)
    return mask.reshape(len(mask), *heads, *mask.shape[2:])


def of_block(mask: Array, texts: slice, rows: slice, keys: slice) -> Array:
    """A block's part of a grouped mask; one of an axis stands for all."""
    texts, rows, keys = (
        own if n > 1 else slice(None) for own, n in zip((texts, rows, keys), (len(mask), *mask.shape[-2:]))
    )
    return mask[texts, ..., rows, keys]
