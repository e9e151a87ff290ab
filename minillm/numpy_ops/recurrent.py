"""One step of a long short-term memory."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor, sigmoid
from .linear import linear

# LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), one step from (h, c) to (h', c'):
#   z = x Wᵢₕᵀ + bᵢₕ + h Wₕₕᵀ + bₕₕ (B, 4H), cut into four: i = σ(z₁) what to write, f = σ(z₂) what to keep,
#   g = tanh(z₃) the new content, o = σ(z₄) what to show;   c' = f c + i g,   h' = o tanh(c')
# Backward, with dh = dL/dh' and dc = dL/dc' from the step after, and t = tanh(c'):
#   dc  += dh · o (1 − t²)                           (c' reaches the loss through h' too)
#   dz₁ = dc · g · i(1 − i)      dz₂ = dc · c · f(1 − f)      dz₃ = dc · i · (1 − g²)      dz₄ = dh · t · o(1 − o)
#   dL/dc = dc · f: a product with the forget gate only, which is why gradients survive many steps.


def lstm_cell(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor]:
    z = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)  # (B, 4H)
    hidden = c.shape[-1]
    both = lstm_gates(z, c)  # (B, 2H): h' beside c'
    return both[:, :hidden], both[:, hidden:]


def lstm_gates(z: Tensor, c: Tensor) -> Tensor:
    i, f, g, o = np.split(z.data, 4, axis=-1)  # each (B, H)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_new = f * c.data + i * g
    t = np.tanh(c_new)
    both = np.concatenate([o * t, c_new], axis=-1)
    return Tensor.from_op(both, (z, c), lstm_gates_backward, (i, f, g, o, c.data, t))


def lstm_gates_backward(grad: Array, needs: tuple, i: Array, f: Array, g: Array, o: Array, c: Array, t: Array) -> tuple:
    dh, dc = np.split(grad, 2, axis=-1)
    dc = dc + dh * o * (1 - t * t)
    dz = np.concatenate([dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], axis=-1)
    return dz, dc * f
