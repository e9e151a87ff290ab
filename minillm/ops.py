"""The contract: one function per named operation, with one meaning on every engine.

`backend` says which engine computes: `numpy_ops` for a NumPy `Tensor` (our own forward and backward), `torch_ops` for
anything else (PyTorch's). Models call these functions only, which is why the same model runs on both. Whether shapes
and options fit is checked here, so that both engines say the same; an engine checks only what it alone can know (ids
outside the table, a missing generator). B is the batch, T the length (time), D features, V the vocabulary, H heads.
Ids, targets and masks are integer or boolean arrays without gradient: ndarrays here, tensors on torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import numpy_ops
from .settings import ATTENTION, IGNORE
from .tensor import Tensor

__all__ = [
    "attention", "binary_cross_entropy_with_logits", "cat", "cross_entropy", "dropout", "embedding", "gelu",
    "layer_norm", "linear", "linear_cross_entropy", "log_sigmoid", "log_softmax", "lstm", "lstm_cell", "mse_loss",
    "relu", "rms_norm", "rope", "silu", "softmax", "stack", "swiglu", "where",
]  # fmt: skip

# A value that flows through a model: our Tensor, or torch's.
AnyTensor = Any

computing: ContextVar[Any] = ContextVar("computing", default=numpy_ops)  # or that, with results known before


def backend(x: AnyTensor) -> Any:
    """The module that computes with x: numpy_ops for our Tensor, torch_ops for any other."""
    if isinstance(x, Tensor):
        return computing.get()
    from . import torch_ops

    return torch_ops


def linear(x: AnyTensor, weight: AnyTensor, bias: AnyTensor | None = None) -> AnyTensor:
    """y = x Wᵀ + b. x (..., in), weight (out, in), bias (out,) or None -> (..., out)."""
    check_features("linear", x, weight, 2)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias {tuple(bias.shape)} must be {tuple(weight.shape[:1])}, as weight is (out, in).")
    return backend(x).linear(x, weight, bias)


def embedding(ids: Any, weight: AnyTensor) -> AnyTensor:
    """Rows of a table: ids, integers of any shape; weight (V, D) -> (*ids.shape, D). An id outside 0..V−1 raises
    IndexError."""
    return backend(weight).embedding(ids, weight)


def gelu(x: AnyTensor, approximate: str = "none") -> AnyTensor:
    """x Φ(x), exact with "none" (BERT), by tanh with "tanh" (GPT-2). Hendrycks & Gimpel 2016, arXiv 1606.08415."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}.")
    return backend(x).gelu(x, approximate)


def relu(x: AnyTensor) -> AnyTensor:
    """max(0, x). Nair & Hinton 2010, ICML."""
    return backend(x).relu(x)


def silu(x: AnyTensor) -> AnyTensor:
    """x σ(x), also called swish. Elfwing et al. 2017, arXiv 1702.03118."""
    return backend(x).silu(x)


def swiglu(gate: AnyTensor, up: AnyTensor) -> AnyTensor:
    """SiLU(gate) · up, both (..., D). Shazeer 2020, arXiv 2002.05202."""
    check_alike("swiglu", "gate", gate, "up", up)
    return backend(gate).swiglu(gate, up)


def log_sigmoid(x: AnyTensor) -> AnyTensor:
    """ln σ(x) = −ln(1 + e^−x), without overflow."""
    return backend(x).log_sigmoid(x)


def softmax(x: AnyTensor, dim: int = -1) -> AnyTensor:
    """e^xᵢ / Σⱼ e^xⱼ along `dim`."""
    return backend(x).softmax(x, dim)


def log_softmax(x: AnyTensor, dim: int = -1) -> AnyTensor:
    """ln softmax(x) along `dim`, without overflow."""
    return backend(x).log_softmax(x, dim)


def layer_norm(x: AnyTensor, weight: AnyTensor, bias: AnyTensor | None = None, eps: float = 1e-5) -> AnyTensor:
    """(x − mean)/√(variance + eps) · weight + bias over the last axis; weight, bias (D,). Ba et al. 2016, arXiv
    1607.06450."""
    check_features("layer_norm", x, weight, 1)
    if bias is not None:
        check_alike("layer_norm", "weight", weight, "bias", bias)
    return backend(x).layer_norm(x, weight, bias, eps)


def rms_norm(x: AnyTensor, weight: AnyTensor, eps: float = 1e-6) -> AnyTensor:
    """x/√(mean x² + eps) · weight over the last axis; weight (D,). Zhang & Sennrich 2019, arXiv 1910.07467."""
    check_features("rms_norm", x, weight, 1)
    return backend(x).rms_norm(x, weight, eps)


def dropout(
    x: AnyTensor, p: float, *, training: bool = True, rng: np.random.Generator | None = None, mask: Any = None
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
    if mask is not None:
        check_alike("dropout", "x", x, "mask", mask)
    return backend(x).dropout(x, p, rng, mask)


def attention(
    q: AnyTensor,
    k: AnyTensor,
    v: AnyTensor,
    *,
    causal: bool = False,
    mask: Any = None,
    segments: Any = None,
    window: int | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
    impl: str = "auto",
    sinks: AnyTensor | None = None,
) -> AnyTensor:
    """softmax(scale · Q Kᵀ) V for each head. Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1.

    q (B, H, Tq, D); k and v (B, Hkv, Tk, D) where Hkv divides H (grouped-query attention: head h uses k/v head
    h // (H/Hkv)) -> (B, H, Tq, D). `causal`: query i sees keys up to i + Tk − Tq, so the last query sees every key,
    which is what decoding with a cache needs. `mask`: boolean, True = may look, broadcastable to (B, H, Tq, Tk). A
    query that may look at no key gives zeros. `segments`: int64 or int32 (B, T), for rows in which several texts stand
    side by side (Tq = Tk = T, no mask): a query sees keys of its own text only, the stretch of equal numbers in which
    it stands; or a pair, with the offsets of models/segments.py behind. `window`: with `causal`, a query sees the last
    `window` of its keys only, its own included (Beltagy et al. 2020, arXiv 2004.05150). `scale` is 1/√D by default.
    `impl`: "reference" (all scores at once), "sdpa" (PyTorch's), "triton" (ours), or "auto": reference on NumPy, sdpa
    on PyTorch; one that can't run raises. `sinks` (H,): a score for each head that takes part in the softmax and has no
    value, so that a query may look at next to nothing (gpt-oss, 2025; why: Xiao et al. 2023, arXiv 2309.17453).
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
    if impl not in ATTENTION:
        raise ValueError(f"attention: impl must be one of {', '.join(ATTENTION)}, not {impl!r}.")
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"attention: window = {window}, causal = {causal}: a window needs causal, and at least 1 key.")
    engine = backend(q)
    if mask is not None:
        shape, full = (1,) * (4 - mask.ndim) + tuple(mask.shape), (*q.shape[:3], k.shape[2])  # (1, ..., Tq, Tk)
        if len(shape) != 4 or any(n != 1 and n != m for n, m in zip(shape, full)):
            raise ValueError(f"attention: mask {tuple(mask.shape)} must broadcast to (B, H, Tq, Tk) = {full}.")
        if mask.dtype != engine.BOOL:
            raise TypeError(
                f"attention: mask must be boolean, True = may look, not {mask.dtype}. (For a mask to be added, of 0 "
                "and -inf, pass mask == 0.)"
            )
        mask = mask.reshape(shape)
    segments, offsets = segments if isinstance(segments, tuple) else (segments, None)
    if segments is not None:
        check_segments(q, k, mask, segments, engine.INTEGERS)
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"attention: sinks {tuple(sinks.shape)} must be (H,), one for each head of {tuple(q.shape)}.")
    return engine.attention(q, k, v, causal, mask, segments, offsets, window, scale, dropout_p, rng, impl, sinks)


def rope(x: AnyTensor, cos: Any, sin: Any) -> AnyTensor:
    """Rotary positions: turn each pair (xᵢ, xᵢ₊D/2) by its angle. Su et al. 2021, arXiv 2104.09864.

    x (B, H, T, D) with D even; cos, sin (T, D/2), the cosines and sines of position times frequency, in x's dtype;
    (B, 1, T, D/2) where rows have positions of their own.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rope: the last axis of x {tuple(x.shape)} must be even: features are rotated in pairs.")
    table = (x.shape[-2], x.shape[-1] // 2)
    if tuple(cos.shape) not in (table, (x.shape[0], 1, *table)) or cos.shape != sin.shape:
        raise ValueError(
            f"rope: cos and sin must be (T, D/2) = {table} for x {tuple(x.shape)} = (B, H, T, D), or (B, 1, T, D/2), "
            f"not {tuple(cos.shape)} and {tuple(sin.shape)}."
        )
    return backend(x).rope(x, cos, sin)


def lstm_cell(
    x: AnyTensor, h: AnyTensor, c: AnyTensor, w_ih: AnyTensor, w_hh: AnyTensor, b_ih: Any = None, b_hh: Any = None
) -> tuple[AnyTensor, AnyTensor]:
    """One step of an LSTM: x (B, in), h and c (B, H), w_ih (4H, in), w_hh (4H, H), biases (4H,) -> new h and c (B, H).

    Gates in torch's order: input, forget, cell, output. Hochreiter & Schmidhuber 1997, Neural Computation 9(8).
    """
    check_lstm("lstm_cell", x, h, c, w_ih, w_hh, b_ih, b_hh)
    return backend(x).lstm_cell(x, h, c, w_ih, w_hh, b_ih, b_hh)


def lstm(
    x: AnyTensor, h: AnyTensor, c: AnyTensor, w_ih: AnyTensor, w_hh: AnyTensor, b_ih: Any = None, b_hh: Any = None
) -> tuple[AnyTensor, AnyTensor, AnyTensor]:
    """lstm_cell at every step of a sequence: x (B, T, in), h and c (B, H) before it -> h after each step (B, T, H),
    and the last h and c (B, H). Weights as in lstm_cell; the products with x are taken for all steps at once. T is at
    least 1."""
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(
            f"lstm: x {tuple(x.shape)} must have 3 axes, (batch, time, features), and at least one time step."
        )
    check_lstm("lstm", x, h, c, w_ih, w_hh, b_ih, b_hh)
    return backend(x).lstm(x, h, c, w_ih, w_hh, b_ih, b_hh)


def cross_entropy(
    logits: AnyTensor,
    targets: Any,
    *,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> AnyTensor:
    """−ln softmax(logits)[target], in nats: logits (..., V), targets integers (...) -> a scalar.

    Rows whose target is `ignore_index` count for nothing. `reduction`: "mean" over the rows that count, "sum", or
    "none", which gives each row's loss (...), 0 for those that don't count. `label_smoothing` ε: the target becomes
    (1 − ε) one-hot + ε/V (Szegedy et al. 2015, arXiv 1512.00567, section 7).
    """
    check_loss("cross_entropy", logits, targets, reduction, label_smoothing, ("mean", "sum", "none"))
    return backend(logits).cross_entropy(logits, targets, ignore_index, reduction, label_smoothing)


def linear_cross_entropy(
    h: AnyTensor,
    weight: AnyTensor,
    targets: Any,
    *,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> AnyTensor:
    """cross_entropy(linear(h, weight), targets) without ever holding all the logits: h (..., D), weight (V, D),
    targets (...)."""
    check_features("linear_cross_entropy", h, weight, 2)
    check_loss("linear_cross_entropy", h, targets, reduction, label_smoothing, ("mean", "sum", "none"))
    if reduction == "none":
        return backend(h).linear_row_losses(h, weight, targets, ignore_index, label_smoothing)
    return backend(h).linear_cross_entropy(h, weight, targets, ignore_index, reduction, label_smoothing)


def mse_loss(x: AnyTensor, target: AnyTensor, *, reduction: str = "mean") -> AnyTensor:
    """Mean (or sum) of (x − target)², both of one shape, both may want a gradient."""
    check_alike("mse_loss", "x", x, "target", target)
    check_reduction("mse_loss", reduction)
    return backend(x).mse_loss(x, target, reduction)


def binary_cross_entropy_with_logits(x: AnyTensor, target: Any, *, reduction: str = "mean") -> AnyTensor:
    """−t ln σ(x) − (1 − t) ln(1 − σ(x)), mean or sum: for yes/no questions that do not exclude each other."""
    check_alike("binary_cross_entropy_with_logits", "x", x, "target", target)
    check_reduction("binary_cross_entropy_with_logits", reduction)
    return backend(x).binary_cross_entropy_with_logits(x, target, reduction)


def cat(tensors: Sequence[AnyTensor], dim: int = 0) -> AnyTensor:
    """Join along an existing axis."""
    if len({t.ndim for t in tensors}) != 1:
        raise ValueError(f"cat: {', '.join(str(tuple(t.shape)) for t in tensors)} must all have as many axes.")
    return backend(tensors[0]).cat(tensors, dim)


def stack(tensors: Sequence[AnyTensor], dim: int = 0) -> AnyTensor:
    """Join along a new axis."""
    return backend(tensors[0]).stack(tensors, dim)


def where(condition: Any, a: AnyTensor, b: AnyTensor) -> AnyTensor:
    """a where `condition` (boolean) is True, else b; they broadcast. a and b are tensors, or one is a number."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        raise TypeError(f"where: a = {a!r} or b = {b!r} must be a tensor: at least one says which engine computes.")
    return backend(b if isinstance(a, (int, float)) else a).where(condition, a, b)


# --- what several ops check -------------------------------------------------------------------------------------------


def check_alike(op: str, a_name: str, a: AnyTensor, b_name: str, b: AnyTensor) -> None:
    """Both must be of one shape: broadcasting would pair what does not belong together."""
    if a.shape != shape_of(b):
        raise ValueError(f"{op}: {a_name} {tuple(a.shape)} and {b_name} {shape_of(b)} must be of one shape.")


def check_features(op: str, x: AnyTensor, weight: AnyTensor, axes: int) -> None:
    """The last axis of both must be the same features; weight has so many axes."""
    if weight.ndim != axes:
        raise ValueError(f"{op}: weight {tuple(weight.shape)} must have {axes} {'axis' if axes == 1 else 'axes'}.")
    if x.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"{op}: x {tuple(x.shape)} must end with the {weight.shape[-1]} features that weight "
            f"{tuple(weight.shape)} takes."
        )


def check_segments(q: AnyTensor, k: AnyTensor, mask: Any, segments: Any, integers: Sequence[Any]) -> None:
    shape = (q.shape[0], q.shape[2])
    if q.shape[2] != k.shape[2] or tuple(segments.shape) != shape:
        raise ValueError(
            f"attention: segments {tuple(segments.shape)} must be (B, T) = {shape}, one number for each query "
            f"{tuple(q.shape)} and the same for its key {tuple(k.shape)}."
        )
    if mask is not None:
        raise ValueError("attention: segments and mask must not both be given: make one mask that says all of it.")
    if segments.dtype not in integers:
        raise TypeError(f"attention: segments must be int64 or int32, not {segments.dtype}.")


def check_reduction(op: str, reduction: str, choices: tuple[str, ...] = ("mean", "sum")) -> None:
    if reduction not in choices:
        raise ValueError(f"{op}: reduction must be {' or '.join(map(repr, choices))}, not {reduction!r}.")


def check_loss(
    op: str, rows: AnyTensor, targets: Any, reduction: str, label_smoothing: float, reductions: tuple[str, ...]
) -> None:
    check_reduction(op, reduction, reductions)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{op}: label_smoothing must be from 0 to 1, not {label_smoothing}.")
    if shape_of(targets) != rows.shape[:-1]:
        raise ValueError(
            f"{op}: targets {shape_of(targets)} must be {tuple(rows.shape[:-1])}, one class id for each row of logits."
        )


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of an array, or of numbers in lists."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def check_lstm(
    op: str, x: AnyTensor, h: AnyTensor, c: AnyTensor, w_ih: AnyTensor, w_hh: AnyTensor, b_ih: Any, b_hh: Any
) -> None:
    if (b_ih is None) != (b_hh is None):
        raise ValueError(f"{op}: both biases must be given, b_ih and b_hh, or neither.")
    given = [tuple(t.shape) for t in (x, h, c, w_ih, w_hh, b_ih, b_hh) if t is not None]
    B, H = x.shape[0], w_hh.shape[-1]
    if given != [given[0], (B, H), (B, H), (4 * H, x.shape[-1]), (4 * H, H), (4 * H,), (4 * H,)][: len(given)]:
        raise ValueError(
            f"{op}: the shapes of x, h, c, w_ih, w_hh, b_ih, b_hh must be (B, ..., in), (B, H), (B, H), (4H, in), "
            f"(4H, H), (4H,), (4H,), not {', '.join(map(str, given))}."
        )
