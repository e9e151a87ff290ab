"""The contract: one function per named operation, with one meaning on every engine.

A NumPy `Tensor` goes to `numpy_ops` (our own forward and backward), anything else to `torch_ops` (PyTorch's). Models
call these functions only, which is why the same model runs on both. B is the batch, T the length (time), D features, V
the vocabulary, H heads. Ids, targets and masks are integer or boolean arrays without gradient: ndarrays here, tensors
on torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import numpy_ops
from .tensor import Tensor

__all__ = [
    "attention", "binary_cross_entropy_with_logits", "cat", "cross_entropy", "dropout", "embedding", "gelu",
    "layer_norm", "linear", "linear_cross_entropy", "log_softmax", "lstm", "lstm_cell", "mse_loss", "rms_norm", "rope",
    "silu", "softmax", "stack", "swiglu", "where",
]  # fmt: skip

# A value that flows through a model: our Tensor, or torch's.
AnyTensor = Any


def linear(x: AnyTensor, weight: AnyTensor, bias: AnyTensor | None = None) -> AnyTensor:
    """y = x Wᵀ + b. x (..., in), weight (out, in), bias (out,) or None -> (..., out)."""
    if isinstance(x, Tensor):
        return numpy_ops.linear(x, weight, bias)
    from .torch_ops import linear

    return linear(x, weight, bias)


def embedding(ids: Any, weight: AnyTensor) -> AnyTensor:
    """Rows of a table: ids, integers of any shape; weight (V, D) -> (*ids.shape, D). An id outside 0..V−1 raises
    IndexError."""
    if isinstance(weight, Tensor):
        return numpy_ops.embedding(ids, weight)
    from .torch_ops import embedding

    return embedding(ids, weight)


def gelu(x: AnyTensor, approximate: str = "none") -> AnyTensor:
    """x Φ(x), exact with "none" (BERT), by tanh with "tanh" (GPT-2). Hendrycks & Gimpel 2016, arXiv 1606.08415."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}.")
    if isinstance(x, Tensor):
        return numpy_ops.gelu(x, approximate)
    from .torch_ops import gelu

    return gelu(x, approximate)


def silu(x: AnyTensor) -> AnyTensor:
    """x σ(x), also called swish. Elfwing et al. 2017, arXiv 1702.03118."""
    if isinstance(x, Tensor):
        return numpy_ops.silu(x)
    from .torch_ops import silu

    return silu(x)


def swiglu(gate: AnyTensor, up: AnyTensor) -> AnyTensor:
    """SiLU(gate) · up, both (..., D). Shazeer 2020, arXiv 2002.05202."""
    if isinstance(gate, Tensor):
        return numpy_ops.swiglu(gate, up)
    from .torch_ops import swiglu

    return swiglu(gate, up)


def softmax(x: AnyTensor, dim: int = -1) -> AnyTensor:
    """e^xᵢ / Σⱼ e^xⱼ along `dim`."""
    if isinstance(x, Tensor):
        return numpy_ops.softmax(x, dim)
    from .torch_ops import softmax

    return softmax(x, dim)


def log_softmax(x: AnyTensor, dim: int = -1) -> AnyTensor:
    """ln softmax(x) along `dim`, without overflow."""
    if isinstance(x, Tensor):
        return numpy_ops.log_softmax(x, dim)
    from .torch_ops import log_softmax

    return log_softmax(x, dim)


def layer_norm(x: AnyTensor, weight: AnyTensor, bias: AnyTensor | None = None, eps: float = 1e-5) -> AnyTensor:
    """(x − mean)/√(variance + eps) · weight + bias over the last axis; weight, bias (D,). Ba et al. 2016, arXiv
    1607.06450."""
    if isinstance(x, Tensor):
        return numpy_ops.layer_norm(x, weight, bias, eps)
    from .torch_ops import layer_norm

    return layer_norm(x, weight, bias, eps)


def rms_norm(x: AnyTensor, weight: AnyTensor, eps: float = 1e-6) -> AnyTensor:
    """x/√(mean x² + eps) · weight over the last axis; weight (D,). Zhang & Sennrich 2019, arXiv 1910.07467."""
    if isinstance(x, Tensor):
        return numpy_ops.rms_norm(x, weight, eps)
    from .torch_ops import rms_norm

    return rms_norm(x, weight, eps)


def dropout(
    x: AnyTensor,
    p: float,
    *,
    training: bool = True,
    rng: np.random.Generator | None = None,
    mask: Any = None,
) -> AnyTensor:
    """Zero each element with probability p and divide the rest by 1 − p; does nothing unless `training`.

    NumPy draws from `rng`, torch from its own generator; `mask` (boolean, True = keep) replaces the draw on both.
    """
    if not 0 <= p < 1:
        raise ValueError(
            f"dropout: p = {p} must be at least 0 and below 1: it is the share of elements that are zeroed."
        )
    if not training or p == 0:
        return x
    if isinstance(x, Tensor):
        return numpy_ops.dropout(x, p, rng=rng, mask=mask)
    from .torch_ops import dropout

    return dropout(x, p, mask=mask)


def attention(
    q: AnyTensor,
    k: AnyTensor,
    v: AnyTensor,
    *,
    causal: bool = False,
    mask: Any = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
    impl: str = "auto",
) -> AnyTensor:
    """softmax(scale · Q Kᵀ) V for each head. Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1.

    q (B, H, Tq, D); k and v (B, Hkv, Tk, D) where Hkv divides H (grouped-query attention: head h uses k/v head
    h // (H/Hkv)) -> (B, H, Tq, D). `causal`: query i sees keys up to i + Tk − Tq, so the last query sees every key,
    which is what decoding with a cache needs. `mask`: boolean, True = may look, broadcastable to (B, H, Tq, Tk). A
    query that may look at no key gives zeros. `scale` is 1/√D by default. `impl`: "reference" (all scores at once),
    "sdpa" (PyTorch's), "triton" (our kernels), or "auto": the reference on NumPy, sdpa on PyTorch. One asked for by
    name where it can't run raises.
    """
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise ValueError(
            f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} must each have 4 axes: (batch, "
            "heads, length, features per head)."
        )
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"attention: q {tuple(q.shape)} = (B, H, Tq, D), k {tuple(k.shape)} = (B, Hkv, Tk, D), v {tuple(v.shape)} "
            "= (B, Hkv, Tk, D): B and D must agree, and k and v must have the same Hkv and Tk."
        )
    if q.shape[1] % k.shape[1]:
        raise ValueError(
            f"attention: {q.shape[1]} query heads cannot share {k.shape[1]} key/value heads: the second must divide "
            "the first."
        )
    if impl not in ("auto", "reference", "sdpa", "triton"):
        raise ValueError(f"attention: impl must be 'auto', 'reference', 'sdpa' or 'triton', not {impl!r}.")
    if mask is not None:
        shape, full = (1,) * (4 - mask.ndim) + tuple(mask.shape), (*q.shape[:3], k.shape[2])  # (1, ..., Tq, Tk)
        if len(shape) != 4 or any(n != 1 and n != m for n, m in zip(shape, full)):
            raise ValueError(f"attention: mask {tuple(mask.shape)} does not broadcast to (B, H, Tq, Tk) = {full}.")
        mask = mask.reshape(shape)
    if isinstance(q, Tensor):
        if impl in ("sdpa", "triton"):
            raise ValueError(
                f"attention: impl={impl!r} runs on PyTorch; this model runs on NumPy. Use impl='auto', or port the "
                "model with minillm.port.to_torch(model)."
            )
        if mask is not None and mask.dtype != bool:
            raise TypeError(
                f"attention: mask is {mask.dtype}; it must be boolean, True = may look. (For a mask to be added, of 0 "
                "and -inf, pass mask == 0.)"
            )
        return numpy_ops.attention(q, k, v, causal=causal, mask=mask, scale=scale, dropout_p=dropout_p, rng=rng)
    from .torch_ops import attention

    return attention(q, k, v, causal=causal, mask=mask, scale=scale, dropout_p=dropout_p, impl=impl)


def rope(x: AnyTensor, cos: Any, sin: Any) -> AnyTensor:
    """Rotary positions: turn each pair (xᵢ, xᵢ₊D/2) by its angle. Su et al. 2021, arXiv 2104.09864.

    x (B, H, T, D) with D even; cos, sin (T, D/2), the cosines and sines of position times frequency, in x's dtype.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rope: the last axis of x {tuple(x.shape)} must be even: features are rotated in pairs.")
    if tuple(cos.shape[-2:]) != (x.shape[-2], x.shape[-1] // 2):
        raise ValueError(
            f"rope: x {tuple(x.shape)} = (B, H, T, D) needs cos and sin of shape (T, D/2) = "
            f"{(x.shape[-2], x.shape[-1] // 2)}, not {tuple(cos.shape)}."
        )
    if isinstance(x, Tensor):
        return numpy_ops.rope(x, cos, sin)
    from .torch_ops import rope

    return rope(x, cos, sin)


def lstm_cell(
    x: AnyTensor,
    h: AnyTensor,
    c: AnyTensor,
    w_ih: AnyTensor,
    w_hh: AnyTensor,
    b_ih: AnyTensor | None = None,
    b_hh: AnyTensor | None = None,
) -> tuple[AnyTensor, AnyTensor]:
    """One step of an LSTM: x (B, in), h and c (B, H), w_ih (4H, in), w_hh (4H, H), biases (4H,) -> new h and c (B, H).

    Gates in torch's order: input, forget, cell, output. Hochreiter & Schmidhuber 1997, Neural Computation 9(8).
    """
    if isinstance(x, Tensor):
        return numpy_ops.lstm_cell(x, h, c, w_ih, w_hh, b_ih, b_hh)
    from .torch_ops import lstm_cell

    return lstm_cell(x, h, c, w_ih, w_hh, b_ih, b_hh)


def lstm(
    x: AnyTensor,
    h: AnyTensor,
    c: AnyTensor,
    w_ih: AnyTensor,
    w_hh: AnyTensor,
    b_ih: AnyTensor | None = None,
    b_hh: AnyTensor | None = None,
) -> tuple[AnyTensor, AnyTensor, AnyTensor]:
    """lstm_cell at every step of a sequence: x (B, T, in), h and c (B, H) before it -> h after each step (B, T, H),
    and the last h and c (B, H). Weights as in lstm_cell; the products with x are taken for all steps at once. T is at
    least 1."""
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(
            f"lstm: x {tuple(x.shape)} must have 3 axes, (batch, time, features), and at least one time step."
        )
    if (b_ih is None) != (b_hh is None):
        raise ValueError("lstm: pass both biases, b_ih and b_hh, or neither.")
    if isinstance(x, Tensor):
        return numpy_ops.lstm(x, h, c, w_ih, w_hh, b_ih, b_hh)
    from .torch_ops import lstm

    return lstm(x, h, c, w_ih, w_hh, b_ih, b_hh)


def cross_entropy(
    logits: AnyTensor, targets: Any, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
) -> AnyTensor:
    """−ln softmax(logits)[target], in nats: logits (..., V), targets integers (...) -> a scalar.

    Rows whose target is `ignore_index` count for nothing. `reduction`: "mean" over the rows that count, or "sum".
    `label_smoothing` ε: the target becomes (1 − ε) one-hot + ε/V (Szegedy et al. 2015, arXiv 1512.00567, section 7).
    """
    if isinstance(logits, Tensor):
        return numpy_ops.cross_entropy(
            logits, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
    from .torch_ops import cross_entropy

    return cross_entropy(
        logits, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def linear_cross_entropy(
    h: AnyTensor,
    weight: AnyTensor,
    targets: Any,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> AnyTensor:
    """cross_entropy(linear(h, weight), targets) without ever holding all the logits: h (..., D), weight (V, D),
    targets (...)."""
    if isinstance(h, Tensor):
        return numpy_ops.linear_cross_entropy(
            h, weight, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
    from .torch_ops import linear_cross_entropy

    return linear_cross_entropy(
        h, weight, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def mse_loss(x: AnyTensor, target: AnyTensor, *, reduction: str = "mean") -> AnyTensor:
    """Mean (or sum) of (x − target)², both of one shape, both may want a gradient."""
    if isinstance(x, Tensor):
        return numpy_ops.mse_loss(
            x, target if isinstance(target, Tensor) else x.operand(target, "mse_loss"), reduction=reduction
        )
    from .torch_ops import mse_loss

    return mse_loss(x, target, reduction=reduction)


def binary_cross_entropy_with_logits(x: AnyTensor, target: Any, *, reduction: str = "mean") -> AnyTensor:
    """−t ln σ(x) − (1 − t) ln(1 − σ(x)), mean or sum: for yes/no questions that do not exclude each other."""
    if isinstance(x, Tensor):
        return numpy_ops.binary_cross_entropy_with_logits(x, target, reduction=reduction)
    from .torch_ops import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(x, target, reduction=reduction)


def cat(tensors: Sequence[AnyTensor], dim: int = 0) -> AnyTensor:
    """Join along an existing axis."""
    if isinstance(tensors[0], Tensor):
        return numpy_ops.cat(tensors, dim)
    from .torch_ops import cat

    return cat(tensors, dim)


def stack(tensors: Sequence[AnyTensor], dim: int = 0) -> AnyTensor:
    """Join along a new axis."""
    if isinstance(tensors[0], Tensor):
        return numpy_ops.stack(tensors, dim)
    from .torch_ops import stack

    return stack(tensors, dim)


def where(condition: Any, a: AnyTensor, b: AnyTensor) -> AnyTensor:
    """a where `condition` (boolean) is True, else b; a and b are tensors that broadcast."""
    if isinstance(a, Tensor):
        return numpy_ops.where(condition, a, b)
    from .torch_ops import where

    return where(condition, a, b)
