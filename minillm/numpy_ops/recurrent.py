"""A long short-term memory: one step, and a whole sequence."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_functions import logistic
from .linear import linear

# LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), one step from (h, c) to (h', c'):
#   z = x Wᵢₕᵀ + bᵢₕ + h Wₕₕᵀ + bₕₕ (B, 4H), cut into four: i = σ(z₁) what to write, f = σ(z₂) what to keep,
#   g = tanh(z₃) the new content, o = σ(z₄) what to show;   c' = f c + i g,   h' = o tanh(c')
# Backward, with dh = dL/dh' and dc = dL/dc' from the step after, and t = tanh(c'):
#   dc  += dh · o (1 − t²)                           (c' reaches the loss through h' too)
#   dz₁ = dc · g · i(1 − i)      dz₂ = dc · c · f(1 − f)      dz₃ = dc · i · (1 − g²)      dz₄ = dh · t · o(1 − o)
#   dL/dc = dc · f: a product with the forget gate only, which is why gradients survive many steps.
# Derived, with shapes, in chapters/05_recurrent_networks.ipynb.


def lstm_cell(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor]:
    z = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)  # (B, 4H)
    hidden = c.shape[-1]
    both = lstm_gates(z, c)  # (B, 2H): h' beside c'
    return both[:, :hidden], both[:, hidden:]


def lstm_gates(z: Tensor, c: Tensor) -> Tensor:
    i, f, g, o = np.split(z.data, 4, axis=-1)  # each (B, H)
    i, f, g, o = logistic(i), logistic(f), np.tanh(g), logistic(o)
    c_new = f * c.data + i * g
    t = np.tanh(c_new)
    both = np.concatenate([o * t, c_new], axis=-1)
    return Tensor.from_op(both, (z, c), lstm_gates_backward, (i, f, g, o, c.data, t))


def lstm_gates_backward(grad: Array, needs: tuple, i: Array, f: Array, g: Array, o: Array, c: Array, t: Array) -> tuple:
    dh, dc = np.split(grad, 2, axis=-1)
    dc = dc + dh * o * (1 - t * t)
    dz = np.concatenate(
        [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], axis=-1
    )
    return dz, dc * f


# A whole sequence. Only h' → z of the next step must wait; everything else is done for all steps at once: the
# products with x before the loop and, once the loop backward has found every dz, the products that give dL/dx,
# dL/dWᵢₕ and dL/dWₕₕ after it. The loop itself keeps to few calls: with σ(z) = (1 + tanh(z/2))/2, one tanh serves all
# four gates. The weights are halved before it (not those of g), z ↦ ½z + ½ (z for g) follows it; and the factors of dh
# and dc above are found for all steps before the loop backward. Inside, the batch is the last axis: each gate is then
# one block of memory. W h is taken some rows of W at a time (`in_parts`).

SMALL_PRODUCT = 10**6  # multiplications up to which OpenBLAS does not first rearrange both matrices in memory


def lstm(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, n_in = x.shape
    H = h.shape[-1]
    scale = np.full((4 * H, B), 0.5, x.dtype)
    scale[2 * H : 3 * H] = 1
    shift = np.full((4 * H, B), 0.5, x.dtype)
    shift[2 * H : 3 * H] = 0
    half = scale[:, :1]  # (4H, 1)
    x2 = x.data.swapaxes(0, 1).reshape(T * B, n_in)
    z = x2 @ (w_ih.data * half).T  # (T·B, 4H), halved
    if b_ih is not None and b_hh is not None:
        z += (b_ih.data + b_hh.data) * half[:, 0]
    gates = np.ascontiguousarray(z.reshape(T, B, 4 * H).swapaxes(1, 2))  # (T, 4H, B), z at first
    hs = np.empty((T + 1, H, B), z.dtype)  # h before each step, and after the last
    cs = np.empty((T + 1, H, B), z.dtype)
    tanh_c = np.empty((T, H, B), z.dtype)
    hs[0], cs[0] = h.data.T, c.data.T
    w = in_parts(w_hh.data * half, B)
    for t in range(T):
        gate = gates[t]  # (4H, B)
        gate += (w @ hs[t]).reshape(4 * H, B)
        np.tanh(gate, out=gate)
        gate *= scale
        gate += shift
        i, f, g, o = gate.reshape(4, H, B)
        np.multiply(f, cs[t], out=cs[t + 1])
        cs[t + 1] += i * g
        np.tanh(cs[t + 1], out=tanh_c[t])
        np.multiply(o, tanh_c[t], out=hs[t + 1])
    packed = np.concatenate([hs[1:], cs[-1:]]).transpose(2, 0, 1)  # (B, T + 1, H): every h', then the last c'
    parents = (x, h, c, w_ih, w_hh) if b_ih is None or b_hh is None else (x, h, c, w_ih, w_hh, b_ih, b_hh)
    both = Tensor.from_op(packed, parents, lstm_backward, (x2, gates, hs, cs, tanh_c, w_ih.data, w_hh.data))
    return both[:, :T], both[:, T - 1], both[:, T]


def lstm_backward(
    grad: Array, needs: tuple, x2: Array, gates: Array, hs: Array, cs: Array, tanh_c: Array, w_ih: Array, w_hh: Array
) -> tuple:
    T, H, B = tanh_c.shape
    i, f, g, o = gates.reshape(T, 4, H, B).swapaxes(0, 1)  # each (T, H, B)
    dz_dc = np.stack([g * i * (1 - i), cs[:-1] * f * (1 - f), i * (1 - g * g)], axis=1)  # (T, 3, H, B)
    dz_dh = tanh_c * o * (1 - o)
    dc_dh = o * (1 - tanh_c * tanh_c)
    dout = np.ascontiguousarray(grad.transpose(1, 2, 0))  # (T + 1, H, B)
    w_t = in_parts(np.ascontiguousarray(w_hh.T), B)  # (k, H/k, 4H)
    dh, dc = np.zeros_like(dout[T]), dout[T].copy()
    dz = np.empty((T, 4, H, B), grad.dtype)
    for t in range(T - 1, -1, -1):
        dh += dout[t]
        dc += dh * dc_dh[t]
        np.multiply(dc, dz_dc[t], out=dz[t, :3])
        np.multiply(dh, dz_dh[t], out=dz[t, 3])
        dh = (w_t @ dz[t].reshape(4 * H, B)).reshape(H, B)
        dc *= f[t]
    dz2 = dz.reshape(T, 4 * H, B).swapaxes(1, 2).reshape(T * B, 4 * H)
    dx = (dz2 @ w_ih).reshape(T, B, -1).swapaxes(0, 1) if needs[0] else None
    dw_ih = dz2.T @ x2 if needs[3] else None
    dw_hh = dz2.T @ hs[:-1].swapaxes(1, 2).reshape(T * B, H) if needs[4] else None
    if len(needs) == 5:
        return dx, dh.T, dc.T, dw_ih, dw_hh
    db = dz2.sum(axis=0)
    return dx, dh.T, dc.T, dw_ih, dw_hh, db, db


def in_parts(w: Array, columns: int) -> Array:
    """w (n, m) as (k, n/k, m), for products with few columns: rearranging w would take as long as the product. So as
    few rows at a time as make each of the k products small, where k must divide n."""
    n, m = w.shape
    k = next(k for k in range(1, n + 1) if n % k == 0 and (n // k * m * columns <= SMALL_PRODUCT or k == n))
    return w.reshape(k, n // k, m)
