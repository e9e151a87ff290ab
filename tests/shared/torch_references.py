"""What PyTorch computes for each op: the independent witness. torch is imported inside, so that the rest runs without
it."""

from __future__ import annotations

import numpy as np


def linear(x, weight, bias=None):
    from torch.nn import functional as F

    return F.linear(x, weight, bias)


def embedding(weight, *, ids):
    import torch
    from torch.nn import functional as F

    return F.embedding(torch.from_numpy(ids), weight)


def gelu(x, *, approximate):
    from torch.nn import functional as F

    return F.gelu(x, approximate=approximate)


def relu(x):
    from torch.nn import functional as F

    return F.relu(x)


def log_sigmoid(x):
    from torch.nn import functional as F

    return F.logsigmoid(x)


def silu(x):
    from torch.nn import functional as F

    return F.silu(x)


def swiglu(gate, up):
    return silu(gate) * up


def softmax(x, *, dim):
    return x.softmax(dim)


def log_softmax(x, *, dim):
    return x.log_softmax(dim)


def layer_norm(x, weight, bias=None, *, eps):
    from torch.nn import functional as F

    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rms_norm(x, weight, *, eps):
    from torch.nn import functional as F

    return F.rms_norm(x, weight.shape, weight, eps)


def dropout(x, *, p, mask):
    import torch

    return x * torch.from_numpy(mask) / (1 - p)


def attention(q, k, v, sinks=None, *, causal=False, mask=None, segments=None, window=None, scale=None):
    """PyTorch's scaled_dot_product_attention with one explicit boolean mask. Its own `is_causal` is aligned top-left;
    ours
    bottom-right, so the triangle is made here. A query that may look at nothing is let look everywhere, then set to
    zero."""
    import torch
    from torch.nn import functional as F

    (batch, heads, t_q, _), t_k = q.shape, k.shape[2]
    allowed = np.ones((batch, heads, t_q, t_k), dtype=bool)
    if mask is not None:
        allowed = allowed & mask
    for i in range(t_q):
        for j in range(t_k):
            if causal and j > i + (t_k - t_q):
                allowed[:, :, i, j] = False
            if window is not None and j <= i + (t_k - t_q) - window:
                allowed[:, :, i, j] = False
            if segments is not None:  # one number from the first of both to the last
                between = segments[:, min(i, j) : max(i, j) + 1]
                allowed[(between != between[:, :1]).any(axis=1), :, i, j] = False
    if sinks is not None:  # a column of scores that is dropped after the softmax
        scores = q @ k.repeat_interleave(heads // k.shape[1], 1).transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
        scores = scores.masked_fill(~torch.from_numpy(allowed), -torch.inf)
        scores = torch.cat([scores, sinks[None, :, None, None].expand(batch, heads, t_q, 1)], dim=-1)
        return scores.softmax(-1)[..., :-1] @ v.repeat_interleave(heads // v.shape[1], 1)
    sees = torch.from_numpy(allowed.any(axis=-1, keepdims=True))
    allowed = torch.from_numpy(allowed) | ~sees
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale, enable_gqa=True)
    return torch.where(sees, out, torch.zeros((), dtype=out.dtype))


def rope(x, *, cos, sin):
    """The rotation as complex numbers: (x₁ + i x₂) · e^(iθ)."""
    import torch

    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(torch.from_numpy(cos), torch.from_numpy(sin))
    return torch.cat([turned.real, turned.imag], dim=-1)


def lstm_cell(x, h, c, w_ih, w_hh, b_ih=None, b_hh=None):
    import torch

    return torch.lstm_cell(x, (h, c), w_ih, w_hh, b_ih, b_hh)


def lstm(x, h, c, *weights):
    import torch

    module = torch.nn.LSTM(x.shape[2], h.shape[1], bias=len(weights) == 4, batch_first=True, dtype=torch.float64)
    named = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights))
    out, (h, c) = torch.func.functional_call(module, named, (x, (h[None], c[None])))
    return out, h[0], c[0]


def cross_entropy(logits, *, targets, **options):
    import torch
    from torch.nn import functional as F

    loss = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), torch.from_numpy(np.asarray(targets).reshape(-1)), **options
    )
    return loss.reshape(logits.shape[:-1]) if options["reduction"] == "none" else loss


def linear_cross_entropy(h, weight, *, targets, **options):
    return cross_entropy(linear(h, weight), targets=targets, **options)


def mse_loss(x, target, *, reduction):
    from torch.nn import functional as F

    return F.mse_loss(x, target, reduction=reduction)


def binary_cross_entropy_with_logits(x, *, target, reduction):
    import torch
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(x, torch.from_numpy(target).to(x.dtype), reduction=reduction)


def cat(*tensors, dim):
    import torch

    return torch.cat(tensors, dim)


def stack(*tensors, dim):
    import torch

    return torch.stack(tensors, dim)


def where(a, b, *, condition):
    import torch

    return torch.where(torch.from_numpy(condition), a, b)


# --- methods of Tensor ----------------------------------------------------------------------------------------------


def add(a, b):
    return a + b


def sub(a, b):
    return a - b


def mul(a, b):
    return a * b


def div(a, b):
    return a / b


def neg(x):
    return -x


def power(x, *, exponent):
    return x**exponent


def exp(x):
    return x.exp()


def log(x):
    return x.log()


def sqrt(x):
    return x.sqrt()


def absolute(x):
    return x.abs()


def clip(x, *, min, max):
    return x.clip(min, max)


def tanh(x):
    return x.tanh()


def sigmoid(x):
    return x.sigmoid()


def same(x):
    return x.clone()


def matmul(a, b):
    return a @ b


def summed(x, *, dim, keepdim):
    return x.sum() if dim is None else x.sum(dim, keepdim)


def mean(x, *, dim, keepdim):
    return x.mean() if dim is None else x.mean(dim, keepdim)


def largest(x, *, dim, keepdim):
    return x.max() if dim is None else x.max(dim, keepdim).values


def smallest(x, *, dim, keepdim):
    return x.min() if dim is None else x.min(dim, keepdim).values


def ranked(x, *, k, dim):
    import torch

    return (x + 0.01 * torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape)).topk(k, dim).values


def var(x, *, dim, keepdim, correction):
    return x.var(dim, correction=correction, keepdim=keepdim)


def expand(x, *, shape):
    return x.expand(*shape)


def permute(x, *, dims):
    return x.permute(*dims)


def reshape(x, *, shape):
    return x.reshape(shape)


def transpose(x, *, dim0, dim1):
    return x.transpose(dim0, dim1)


def getitem(x, *, index):
    import torch

    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in parts)
    return x[parts if isinstance(index, tuple) else parts[0]]
