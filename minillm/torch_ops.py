"""The operations of ops.py on PyTorch tensors: the same names and meanings, as thin calls of torch.nn.functional.

Everything here can be traced by torch.compile without a graph break. Under autocast, matrix products run in the low
precision and norms and losses in float32; attention casts its inputs to one dtype, since a norm on q and k makes them
float32 while v is still bfloat16. Generators (`rng`) are NumPy's: torch draws from its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BOOL = torch.bool  # the type of a mask
INTEGERS = (torch.int64, torch.int32)  # and of segments
LOW_PRECISION = (torch.float16, torch.bfloat16)
is_compiling = torch.compiler.is_compiling
CHUNK = 4096  # rows of logits at a time, where each row's loss is asked for


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(ids, weight)


def gelu(x: Tensor, approximate: str) -> Tensor:
    return F.gelu(x, approximate=approximate)


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def silu(x: Tensor) -> Tensor:
    return F.silu(x)


def log_sigmoid(x: Tensor) -> Tensor:
    return F.logsigmoid(x)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def softmax(x: Tensor, dim: int) -> Tensor:
    return F.softmax(x, dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    return F.log_softmax(x, dim)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps)  # bfloat16 under autocast, from a linear layer


def dropout(x: Tensor, p: float, rng: Any, mask: Tensor | None) -> Tensor:
    if mask is None:
        return F.dropout(x, p)
    return x * (mask.to(x.dtype) * (1 / (1 - p)))


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x1, x2 = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


def lstm_cell(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor]:
    return torch.lstm_cell(x, (h, c), w_ih, w_hh, b_ih, b_hh)


def lstm(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    weights = [w_ih, w_hh] if b_ih is None or b_hh is None else [w_ih, w_hh, b_ih, b_hh]
    if x.device.type != "cpu":
        return lstm_layer(x, h, c, weights)
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):  # few processors have an LSTM of 16 bits
        x, h, c = x.float(), h.float(), c.float()
    with torch.autocast("cpu", enabled=False):  # which would make it one
        outputs = lstm_layer(x, h.to(x.dtype), c.to(x.dtype), [w.to(x.dtype) for w in weights])
    return outputs[0].to(dtype), outputs[1].to(dtype), outputs[2].to(dtype)


def lstm_layer(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    state = (h[None], c[None])  # (layers, B, H): torch counts layers
    # 1 layer, dropout 0, "training" (cuDNN keeps nothing for a backward pass otherwise), one direction, batch first
    out, h, c = torch.lstm(x, state, weights, len(weights) == 4, 1, 0.0, True, False, True)
    return out, h[0], c[0]


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(tensors), dim)


def stack(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return torch.stack(list(tensors), dim)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


# --- attention --------------------------------------------------------------------------------------------------------


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    mask: Tensor | None,
    segments: Tensor | None,
    offsets: Tensor | None,
    window: int | None,
    scale: float | None,
    dropout_p: float,
    rng: Any,
    impl: str,
    sinks: Tensor | None,
) -> Tensor:
    """impl "auto" is PyTorch's scaled_dot_product_attention, which runs on every device and chooses a kernel by itself.
    Ours is taken by name, "triton": which is faster depends on the card (tests/bench/attention.py compares them)."""
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast a norm or a rotation has made them float32
    if impl == "triton":
        return triton_attention(q, k, v, causal, mask, segments, offsets, window, scale, dropout_p, sinks)
    t_q, t_k = q.shape[2], k.shape[2]
    if segments is not None:
        texts = text_starts(segments).cumsum(1)  # (B, T): the number of each token's text
        mask = (texts[:, :, None] == texts[:, None, :])[:, None]  # (B, 1, T, T)
    window = None if window is not None and window >= t_k else window  # hides nothing
    if causal and t_q == 1 and window is None:
        causal = False  # the one query is the last: it sees everything
    # torch's is_causal is aligned top-left, and knows no window
    masked = mask is not None or window is not None or sinks is not None
    if causal and (masked or t_q != t_k or impl == "reference"):
        triangle = torch.ones(t_q, t_k, dtype=torch.bool, device=q.device).tril(t_k - t_q)
        triangle = triangle if window is None else triangle.triu(t_k - t_q - window + 1)
        mask = triangle if mask is None else mask & triangle
        causal = False
    if sinks is not None and impl != "reference":
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        q, k, v, mask = with_sink(q, k, v, mask, sinks.to(v.dtype) / scale)
    if mask is None:
        grouped = k.shape[1] < q.shape[1]
        if impl == "reference":
            return reference_attention(q, k, v, None, scale, dropout_p, sinks)
        return F.scaled_dot_product_attention(q, k, v, None, dropout_p, causal, scale=scale, enable_gqa=grouped)
    # A query that may look at no key: what kernels make of the softmax of nothing differs (zeros, NaN, an average).
    # Such a query is shown every key and its result replaced by zeros, so that no NaN exists, forward or backward.
    sees_any = mask.any(dim=-1, keepdim=True)  # (..., Tq, 1)
    if impl == "reference":
        out = reference_attention(q, k, v, mask | ~sees_any, scale, dropout_p, sinks)
    else:
        shape, fold = q.shape[:-1], t_q == 1 and (mask.ndim < 4 or mask.shape[1] == 1)
        if fold:  # with a mask, torch has no grouped kernel: the queries of a group as rows of one head
            q = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])  # (B, Hkv, G, D)
        k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
        out = F.scaled_dot_product_attention(q, k, v, mask | ~sees_any, dropout_p, scale=scale)
        out = out.reshape(*shape, -1)
    return out.masked_fill(~sees_any, 0.0)


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout_p: float,
    sinks: Tensor | None,
) -> Tensor:
    """The formula as written, all scores at once; the softmax in float32 at least."""
    k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)  # (B, H, Tq, Tk)
    if scores.dtype in LOW_PRECISION:
        scores = scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:  # a column more, which nothing is gathered from
        scores = torch.cat((sinks.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:3], 1), scores), -1)
    p = F.softmax(scores, dim=-1).to(v.dtype)[..., scores.shape[-1] - k.shape[2] :]
    return F.dropout(p, dropout_p) @ v if dropout_p else p @ v


def with_sink(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A key more, which every query sees before the others and whose value is 0. That its score is the head's sink
    (H,), divided by the scale here, takes a feature more: the sink in each query, 1 in that key, 0 in all others. (8
    more: what kernels read at once.)"""
    sink = F.pad(sinks[None, :, None, None].expand(*q.shape[:3], 1), (0, 7))  # (B, H, Tq, 8)
    key = F.pad(k.new_ones(*k.shape[:2], 1, 1), (k.shape[-1], 7))  # (B, Hkv, 1, D + 8)
    mask = q.new_ones(q.shape[2], 1, dtype=torch.bool) if mask is None else mask
    mask = mask.expand(*mask.shape[:-1], k.shape[2])
    mask = torch.cat((mask.new_ones(*mask.shape[:-1], 1), mask), -1)  # of F.pad, Inductor makes C++ that is none
    return torch.cat((q, sink), -1), torch.cat((key, F.pad(k, (0, 8))), 2), F.pad(v, (0, 0, 1, 0)), mask


def share_heads(x: Tensor, heads: int) -> Tensor:
    """Keys or values (B, Hkv, T, D) -> (B, H, T, D): each repeated for the query heads that share it."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def text_starts(segments: Tensor) -> Tensor:
    """Where in packed rows a text begins: segments (B, T) -> True (B, T) where another number stood before, or none."""
    return F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)


def triton_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    mask: Tensor | None,
    segments: Tensor | None,
    offsets: Tensor | None,
    window: int | None,
    scale: float | None,
    dropout_p: float,
    sinks: Tensor | None,
) -> Tensor:
    if not torch.compiler.is_compiling():  # inside a compiled graph the operator itself checks, when it runs
        from .kernels.availability import flash_unavailable_reason

        reason = flash_unavailable_reason(q, k, v)
        if reason is not None:
            raise RuntimeError(f"attention: impl='triton' cannot run here: {reason}.")
    from .kernels.attention import flash_attention

    options: dict[str, Any] = {"causal": causal, "window": window, "scale": scale}
    options |= {"dropout_p": dropout_p, "sinks": sinks}
    if segments is None:
        return flash_attention(q, k, v, mask=mask, **options)
    (B, T), n_tokens = segments.shape, segments.numel()
    looked_at = offsets is not None and not torch.compiler.is_compiling()  # in training, PackedLoss has looked
    if offsets is None:  # how many texts there are, the GPU alone knows: room for as many as there are tokens
        places = torch.arange(n_tokens, dtype=torch.int32, device=q.device)
        starts = places.where(text_starts(segments).flatten(), n_tokens).sort().values  # n_tokens where no text begins
        offsets = F.pad(starts, (0, 1), value=n_tokens)
    q, k, v = (t.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None] for t in (q, k, v))  # (1, H, B·T, D)
    options |= {"cu_seqlens": offsets, "max_seqlen": T, "check_values": looked_at}
    out = flash_attention(q, k, v, **options)
    return out.reshape(-1, B, T, out.shape[-1]).transpose(0, 1)  # (B, H, T, D)


# --- losses -----------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int, reduction: str, label_smoothing: float) -> Tensor:
    shape, logits = targets.shape, logits.reshape(-1, logits.shape[-1])
    if logits.dtype in LOW_PRECISION:
        logits = logits.float()
    loss = F.cross_entropy(
        logits, targets.reshape(-1), ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )
    return loss.reshape(shape) if reduction == "none" else loss


def linear_cross_entropy(
    h: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, reduction: str, label_smoothing: float
) -> Tensor:
    """In chunks, as numpy_ops/cross_entropy.py does it; the softmax is a Triton kernel on a GPU that has Triton."""
    from .kernels.cross_entropy import linear_cross_entropy

    h, targets = h.reshape(-1, h.shape[-1]), targets.reshape(-1)
    return linear_cross_entropy(
        h, weight, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def linear_row_losses(h: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    """In chunks; the backward pass makes each chunk's logits once more."""
    rows, flat = h.reshape(-1, h.shape[-1]), targets.reshape(-1)
    kept = flat != ignore_index
    some = h.device.type == "cpu" and not is_compiling()  # a GPU would have to wait for the number of those that count
    if some:
        rows, flat = rows[kept], flat[kept]
    options = (ignore_index, "none", label_smoothing)
    losses = [
        checkpoint(chunk_losses, part, weight, flat[i * CHUNK : (i + 1) * CHUNK], *options, use_reentrant=False)
        for i, part in enumerate(rows.split(CHUNK))
    ]
    found = torch.cat(losses)
    return (found.new_zeros(kept.shape).masked_scatter(kept, found) if some else found).reshape(targets.shape)


def chunk_losses(h: Tensor, weight: Tensor, targets: Tensor, *options: Any) -> Tensor:
    return cross_entropy(linear(h, weight, None), targets, *options)


def mse_loss(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    return F.mse_loss(x, target, reduction=reduction)


def binary_cross_entropy_with_logits(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, target.to(x.dtype), reduction=reduction)


# --- generation -------------------------------------------------------------------------------------------------------


def int8_linear(x: Tensor, codes: Tensor, row_scale: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b with W = codes (out, in) int8 times row_scale (out,). Few rows on a CPU go through PyTorch's kernel, in
    bfloat16, which is many times as fast as widening the codes; it reads beyond rows that are no multiple of 16."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.device.type == "cpu" and len(rows) <= 32 and codes.shape[1] % 32 == 0:
        ones = torch.ones(len(codes), dtype=torch.bfloat16)
        y = torch._weight_int8pack_mm(rows.bfloat16(), codes, ones).to(x.dtype) * row_scale
    else:
        y = F.linear(rows, codes.to(x.dtype)) * row_scale
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], -1)


def no_grad() -> Any:
    """Inside, torch records no graph."""
    return torch.no_grad()


@torch.no_grad()
def next_logits(model: Any, ids: np.ndarray, cache: Any, at: int | slice = -1) -> np.ndarray:
    """Logits (B, V) for the token after the last of ids (B, T), or after those `at` other places (B, n, V), computed
    where the model lives, as an ndarray."""
    device = next(model.parameters()).device
    h = model.hidden(torch.as_tensor(ids, device=device), cache)[:, at]
    return model.logits(h).double().cpu().numpy()
