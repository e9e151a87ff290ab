"""Attention: each position takes a weighted average of the values at the positions that it may look at."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor
from .dropout import dropout_scale

# Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1), for each head:
#   S = scale · Q Kᵀ (Tq, Tk)    P = softmax of S over the allowed keys, row by row    O = P V
# Backward, with G = dL/dO:
#   O = P V        dL/dV = Pᵀ G          dL/dP = G Vᵀ
#   P = softmax S  dL/dS = P ∘ (dL/dP − rowsum(P ∘ dL/dP))         (softmax's backward, see normalization.py)
#   S = scale QKᵀ  dL/dQ = scale · dL/dS K    dL/dK = scale · (dL/dS)ᵀ Q
# With dropout, O = (P ∘ M) V, M the mask over (1 − p): dL/dV = (P ∘ M)ᵀ G and dL/dP = M ∘ (G Vᵀ).
#
# Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): H query heads share Hkv < H key/value heads. Queries are viewed
# as (B, Hkv, G, T, D), keys as (B, Hkv, 1, T, D); NumPy's matmul broadcasts, and the backward sums over the group.


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    mask: Array | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    batch, heads, t_q, d = q.shape
    kv_heads, t_k = k.shape[1], k.shape[2]
    scale = 1 / math.sqrt(d) if scale is None else scale
    grouped = (batch, kv_heads, heads // kv_heads, t_q)
    q5 = q.data.reshape(*grouped, d)  # (B, Hkv, G, Tq, D)
    k5, v5 = k.data[:, :, None], v.data[:, :, None]  # (B, Hkv, 1, Tk, D)

    scores = (q5 * q.dtype.type(scale)) @ k5.swapaxes(-1, -2)  # (B, Hkv, G, Tq, Tk)
    hidden = hidden_keys(t_q, t_k, causal, mask, q.dtype)
    if hidden is not None:
        scores += hidden if hidden.ndim == 2 else hidden.reshape(*hidden.shape[:1], *split_heads(hidden.shape[1], grouped), *hidden.shape[2:])
    top = scores.max(axis=-1, keepdims=True)
    if mask is not None or t_k < t_q:  # a row without any allowed key has max −∞, and −∞ − (−∞) is NaN
        top[np.isneginf(top)] = 0
    scores -= top
    p = np.exp(scores, out=scores)
    total = p.sum(axis=-1, keepdims=True)
    total[total == 0] = 1  # a row without any allowed key attends to nothing: zeros
    p /= total

    kept = dropout_scale(p.shape, dropout_p, q.dtype, rng, None) if dropout_p else None
    out = (p if kept is None else p * kept) @ v5  # (B, Hkv, G, Tq, D)
    return Tensor.from_op(out.reshape(batch, heads, t_q, v.shape[-1]), (q, k, v), attention_backward, (q5, k5, v5, p, kept, scale))


def attention_backward(
    grad: Array, needs: tuple, q5: Array, k5: Array, v5: Array, p: Array, kept: Array | None, scale: float
) -> tuple:
    batch, kv_heads, group, t_q, d = q5.shape
    grad5 = grad.reshape(batch, kv_heads, group, t_q, v5.shape[-1])
    dq = dk = dv = None
    if needs[2]:
        pm = p if kept is None else p * kept
        dv = (pm.swapaxes(-1, -2) @ grad5).sum(axis=2) if group > 1 else (pm.swapaxes(-1, -2) @ grad5)[:, :, 0]
    if needs[0] or needs[1]:
        ds = grad5 @ v5.swapaxes(-1, -2)  # dL/dP (B, Hkv, G, Tq, Tk)
        if kept is not None:
            ds *= kept
        ds -= np.einsum("...qk,...qk->...q", ds, p)[..., None]
        ds *= p  # dL/dS
        ds *= scale
        if needs[0]:
            dq = (ds @ k5).reshape(batch, kv_heads * group, t_q, d)
        if needs[1]:
            dk = (ds.swapaxes(-1, -2) @ q5).sum(axis=2) if group > 1 else (ds.swapaxes(-1, -2) @ q5)[:, :, 0]
    return dq, dk, dv


def hidden_keys(t_q: int, t_k: int, causal: bool, mask: Array | None, dtype: np.dtype) -> Array | None:
    """What is added to the scores: 0 where a query may look, −∞ where it may not; None if everything is allowed.

    Causal: the last query stands at the last key (bottom-right aligned), so query i sees keys j ≤ i + Tk − Tq.
    """
    allowed = mask
    if causal and t_q > 1:
        triangle = np.tri(t_q, t_k, t_k - t_q, dtype=bool)
        allowed = triangle if mask is None else mask & triangle
    if allowed is None:
        return None
    return np.where(allowed, dtype.type(0), dtype.type(-np.inf))


def split_heads(mask_heads: int, grouped: tuple) -> tuple[int, int]:
    """A mask's head axis in the grouped layout: 1 → (1, 1), H → (Hkv, G)."""
    return (1, 1) if mask_heads == 1 else (grouped[1], grouped[2])


# Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2): the pair (x₁, x₂) at position t is turned by the angle
# t·θᵢ, so that a query and a key, turned by their own positions, meet in a dot product that depends on the distance only.
#   y₁ = x₁ cos − x₂ sin     y₂ = x₂ cos + x₁ sin
# A rotation's derivative is the same rotation, its transpose turns back: dL/dx is dL/dy rotated by minus the angle. Pairs are
# (xᵢ, xᵢ₊D/2), "half-split", as in Llama checkpoints. cos and sin are constants (T, D/2).


def rope(x: Tensor, cos: Array, sin: Array) -> Tensor:
    return Tensor.from_op(rotate(x.data, cos, sin), (x,), rope_backward, (cos, sin))


def rope_backward(grad: Array, needs: tuple, cos: Array, sin: Array) -> tuple:
    return (rotate(grad, cos, -sin),)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    y = np.empty(x.shape, dtype=x.dtype)
    y[..., :half] = x1 * cos - x2 * sin
    y[..., half:] = x2 * cos + x1 * sin
    return y
