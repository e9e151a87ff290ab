"""Each fused op of minillm.ops written a second time from the primitives of Tensor: exp, log, sum, @, indexing.

Nothing here derives a gradient: `backward()` finds it through the primitives. That makes these functions the plainest
statement of what an op means, and the fused op, whose backward was derived by hand, must agree with it in value and
gradient.
Only constants (masks, one-hot rows, selection matrices) are made with NumPy.
"""

from __future__ import annotations

import math

import numpy as np

from minillm.tensor import Tensor


def linear(x, weight, bias=None):
    rows = x.reshape(-1, x.shape[-1])  # (N, in)
    y = rows @ weight.transpose(0, 1)  # (N, out)
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


def embedding(weight, *, ids):
    """A look-up is a product with one-hot rows."""
    one_hot = np.eye(weight.shape[0], dtype=weight.dtype)[ids.reshape(-1)]  # (N, V)
    return (Tensor(one_hot) @ weight).reshape(*ids.shape, weight.shape[1])


def gelu(x, *, approximate="none"):
    """x Φ(x). Exact: Φ(x) = ½ + ∫₀ˣ φ(u) du = ½ + x ∫₀¹ φ(xs) ds, the integral by Gauss–Legendre quadrature."""
    if approximate == "tanh":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (inner.tanh() + 1.0)
    nodes, weights = np.polynomial.legendre.leggauss(80)  # for −1..1
    s, ds = (nodes + 1) / 2, weights / 2  # for 0..1
    u = x.reshape(*x.shape, 1) * s.astype(x.dtype)  # (..., 80)
    density = (u * u * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    integral = (density * ds.astype(x.dtype)).sum(-1)
    return x * (x * integral + 0.5)


def relu(x):
    return x * (x.data > 0).astype(x.dtype)


def sigmoid(x):
    return 1.0 / ((-x).exp() + 1.0)


def log_sigmoid(x):
    return sigmoid(x).log()


def silu(x):
    return x * sigmoid(x)


def swiglu(gate, up):
    return gate * sigmoid(gate) * up


def softmax(x, *, dim=-1):
    top = Tensor(x.data.max(axis=dim, keepdims=True))  # a constant: it cancels
    e = (x - top).exp()
    return e / e.sum(dim, keepdim=True)


def log_softmax(x, *, dim=-1):
    top = Tensor(x.data.max(axis=dim, keepdims=True))
    shifted = x - top
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def layer_norm(x, weight, bias=None, *, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    y = centred * (variance + eps) ** -0.5 * weight
    return y if bias is None else y + bias


def rms_norm(x, weight, *, eps=1e-6):
    return x * ((x * x).mean(-1, keepdim=True) + eps) ** -0.5 * weight


def dropout(x, *, p, mask, training=True):
    return x * (mask.astype(x.dtype) / (1 - p)).astype(x.dtype) if training else x


def attention(q, k, v, sinks=None, *, causal=False, mask=None, segments=None, window=None, scale=None, kept=None):
    """softmax(scale · Q Kᵀ over the allowed keys, and the sink) V. `kept` is what dropout multiplied the probabilities
    by (B, H, Tq, Tk)."""
    heads, t_q, d = q.shape[1:]
    t_k = k.shape[2]
    share = heads // k.shape[1]
    head_of = np.arange(heads) // share  # query head -> key/value head
    k, v = k[:, head_of], v[:, head_of]  # (B, H, Tk, D)
    scores = q @ k.transpose(2, 3) * (1 / math.sqrt(d) if scale is None else scale)  # (B, H, Tq, Tk)
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    if segments is not None:
        texts = np.stack([np.cumsum(np.append(0, row[1:] != row[:-1])) for row in segments])  # (B, T): their numbers
        allowed = allowed & (texts[:, None, :, None] == texts[:, None, None, :])
    if causal:
        query, key = np.arange(t_q)[:, None], np.arange(t_k)
        allowed = allowed & (key - t_k <= query - t_q)  # both counted from the end
        if window is not None:
            allowed = allowed & (key - t_k > query - t_q - window)
    allowed = allowed.astype(q.dtype)
    top = Tensor(scores.data.max(axis=-1, keepdims=True))
    e = (scores - top).exp() * allowed
    total = e.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + (sinks.reshape(1, heads, 1, 1) - top).exp()
    p = e / (total + (total.data == 0).astype(q.dtype))  # nothing allowed: 0/1
    return (p if kept is None else p * kept) @ v


def rope(x, *, cos, sin):
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    return cat(x1 * cos - x2 * sin, x2 * cos + x1 * sin, dim=-1)


def lstm_cell(x, h, c, w_ih, w_hh, b_ih=None, b_hh=None):
    z = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)  # (B, 4H)
    n = h.shape[-1]
    i, f = sigmoid(z[:, :n]), sigmoid(z[:, n : 2 * n])
    g, o = z[:, 2 * n : 3 * n].tanh(), sigmoid(z[:, 3 * n :])
    c_new = f * c + i * g
    return o * c_new.tanh(), c_new


def lstm(x, h, c, *weights):
    steps = []
    for t in range(x.shape[1]):
        h, c = lstm_cell(x[:, t], h, c, *weights)
        steps.append(h)
    return stack(*steps, dim=1), h, c


def cross_entropy(logits, *, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    vocab_size, shape = logits.shape[-1], logits.shape[:-1]
    rows = log_softmax(logits.reshape(-1, vocab_size))
    targets = targets.reshape(-1)
    counts = targets != ignore_index  # (N,)
    wanted = np.eye(vocab_size)[np.where(counts, targets, 0)]  # one-hot (N, V)
    wanted = (1 - label_smoothing) * wanted + label_smoothing / vocab_size
    wanted = (wanted * counts[:, None]).astype(logits.dtype)
    if reduction == "none":
        return -(rows * wanted).sum(-1).reshape(*shape)
    loss = -(rows * wanted).sum()
    return loss / float(counts.sum()) if reduction == "mean" else loss


def linear_cross_entropy(h, weight, *, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    return cross_entropy(
        linear(h, weight),
        targets=targets,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def mse_loss(x, target, *, reduction="mean"):
    squares = (x - target) ** 2
    return squares.mean() if reduction == "mean" else squares.sum()


def binary_cross_entropy_with_logits(x, *, target, reduction="mean"):
    target = target.astype(x.dtype)
    losses = -(sigmoid(x).log() * target + sigmoid(-x).log() * (1 - target))
    return losses.mean() if reduction == "mean" else losses.sum()


def cat(*tensors, dim=0):
    """Along the last axis, cat(a, b) = a S + b R: each selection matrix puts its input's columns in their place."""
    dim %= tensors[0].ndim
    total = sum(t.shape[dim] for t in tensors)
    start, out = 0, 0.0
    for t in tensors:
        select = np.eye(t.shape[dim], total, start, dtype=t.dtype)  # (n, total), ones on a shifted diagonal
        last = t.transpose(dim, -1)
        placed = last.reshape(-1, t.shape[dim]) @ Tensor(select)
        out = placed.reshape(*last.shape[:-1], total) + out
        start += t.shape[dim]
    return out.transpose(dim, -1)


def stack(*tensors, dim=0):
    shape = tensors[0].shape
    dim %= len(shape) + 1
    return cat(*(t.reshape(*shape[:dim], 1, *shape[dim:]) for t in tensors), dim=dim)


def where(a, b, *, condition):
    return a * condition.astype(a.dtype) + b * (~condition).astype(a.dtype)


# --- methods of Tensor that could be written with others ------------------------------------------------------------


def sub(a, b):
    return a + b * -1.0


def div(a, b):
    return a * (b.log() * -1.0).exp()  # b > 0


def power(x, *, exponent):
    return (x.log() * exponent).exp()  # x > 0


def tanh(x):
    e = (x * 2.0).exp()
    return (e - 1.0) / (e + 1.0)


def matmul(a, b):
    """yᵢⱼ = Σₖ aᵢₖ bₖⱼ, every product in one array."""
    products = a.reshape(*a.shape, 1) * b.reshape(*b.shape[:-2], 1, *b.shape[-2:])  # (..., n, k, m)
    return products.sum(-2)


def mean(x, *, dim=None, keepdim=False):
    total = x.sum(dim, keepdim)
    return total / (x.data.size / total.data.size)


def largest(x, *, dim=None, keepdim=False):
    """Pick out the largest elements by a one-hot mask (no ties)."""
    top = x.data.max(axis=dim, keepdims=True)
    return (x * (x.data == top).astype(x.dtype)).sum(dim, keepdim)


def smallest(x, *, dim=None, keepdim=False):
    return largest(x * -1.0, dim=dim, keepdim=keepdim) * -1.0


def clip(x, *, min=None, max=None):
    """x where it lies between the bounds, the bound it has passed elsewhere; one above the other: the upper wins."""
    above = np.zeros(x.shape, bool) if max is None else x.data > max
    below = np.zeros(x.shape, bool) if min is None else ~above & (x.data < min)
    if min is not None and max is not None and min > max:
        above, below = np.ones(x.shape, bool), np.zeros(x.shape, bool)
    bounds = above * (max or 0.0) + below * (min or 0.0)
    return x * (~above & ~below).astype(x.dtype) + np.asarray(bounds, dtype=x.dtype)


def ranked(x, *, k, dim):
    """The largest, then the largest of the others, and so on, each picked out by a one-hot mask (no ties)."""
    x = x + np.arange(x.data.size).reshape(x.shape).astype(x.dtype) * 0.01
    left, found = x.data.copy(), []
    for _ in range(k):
        hit = left == left.max(axis=dim, keepdims=True)
        found.append((x * hit.astype(x.dtype)).sum(dim, keepdim=True))
        left[hit] = -np.inf
    return cat(*found, dim=dim)


def var(x, *, dim=None, correction=1, keepdim=False):
    centred = x - x.mean(dim, keepdim=True)
    total = (centred * centred).sum(dim, keepdim)
    return total / (x.data.size / total.data.size - correction)


def expand(x, *, shape):
    return x + Tensor(np.zeros([1 if n == -1 else n for n in shape], x.dtype))


def permute(x, *, dims):
    """One swap after another: what belongs on axis i is looked for and brought there."""
    order = list(range(x.ndim))
    for i, dim in enumerate(dims):
        j = order.index(dim % x.ndim)
        order[i], order[j] = order[j], order[i]
        x = x.transpose(i, j)
    return x


def summed(x, *, dim=None, keepdim=False):
    """A sum is a product with ones, one axis at a time."""
    axes = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = sorted(axis % x.ndim for axis in axes)
    for axis in axes:
        last = x.transpose(axis, -1)
        ones = Tensor(np.ones((last.shape[-1], 1), x.dtype))
        x = (last.reshape(-1, last.shape[-1]) @ ones).reshape(*last.shape[:-1], 1).transpose(axis, -1)
    return x if keepdim else x.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])
