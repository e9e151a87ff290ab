# %% [markdown]
r"""
# 05 · Recurrent networks

An n-gram model (chapter 01) forgets all but the last few symbols. A **recurrent network** keeps a **state**, a vector
of fixed size: at each token it makes a new state from the old one and the token, by one and the same rule. So a text
of any length fits, and nothing is forgotten unless the rule forgets it. This chapter finds out what the rule can
learn to keep.

**Afterwards you can** write a recurrent network and its backward through time, say from a matrix how fast its
gradients vanish or explode, derive the LSTM and say what each gate is for, train one as a language model, and name
what it does better and worse than counting and than a Transformer.

**You need** [02 · Tensors and autograd](02_autograd.ipynb): shapes, how a backward is derived and checked. For the
comparison on text: n-grams and bits per byte from [01 · What a language model is](01_what_is_a_language_model.ipynb),
tokens from [03](03_tokens.ipynb), and the text of [04](04_collecting_and_cleaning_text.ipynb).
"""

# %%
import time

import numpy as np
from minillm import nn, ops
from minillm.costs.sizes import cache_bytes
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.lstm import LSTM, LSTMConfig
from minillm.numpy_ops import recurrent
from minillm.tensor import Parameter, Tensor, no_grad
from minillm.workshop import (
    as_plain,
    check,
    numerical_gradient,
    progress,
    read_scale,
    show_versions,
    type_into_debugger,
)
from minillm.workshop.deliverables import recurrent_baseline
from minillm.workshop.recurrence import (
    count_weights,
    draw_cell,
    draw_unrolled,
    learn,
    percent_right,
    plot_growing_cost,
    plot_language_models,
    plot_scores,
    plot_shrinking,
    print_scores,
    small_gpt,
)

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
STEPS = {"smoke": 5, "cpu": 150, "gpu": 500}[SCALE]  # training steps of the made-up tasks
SEEDS = {"smoke": 1, "cpu": 3, "gpu": 5}[SCALE]  # random starts for each kind of model
DISTANCES = {"smoke": [5, 10], "cpu": [5, 12, 40], "gpu": [5, 12, 40, 100]}[SCALE]
LONGEST = {"smoke": 9, "cpu": 12, "gpu": 13}[SCALE]  # generation is timed up to 2 ** LONGEST tokens

rng = np.random.default_rng(5)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: one bit that no window holds

Read zeros and ones, and say after each whether the number of ones so far is odd. An $n$-gram model sees the last
$n - 1$ symbols. They say nothing about what came before them, and one more 1 at the very beginning turns every later
answer around: over random texts, each window is followed by "odd" and by "even" equally often. However large its $n$,
it guesses. But a reader who keeps **one bit** in mind, and turns it at each 1, is always right.
"""

# %%
bits = rng.integers(0, 2, 20_000)
odd = bits.cumsum() % 2  # the right answers

window = 8
codes = np.convolve(bits, 2 ** np.arange(window), "valid")  # the last 8 bits as one number
answers = odd[window - 1 :]
half = len(codes) // 2  # count on the first half, answer on the second
votes = np.zeros((2**window, 2))
np.add.at(votes, (codes[:half], answers[:half]), 1)
counted_right = np.mean(votes.argmax(axis=1)[codes[half:]] == answers[half:])

state, kept_right = 0, []
for bit, answer in zip(bits, odd):
    state = state if bit == 0 else 1 - state  # the rule
    kept_right.append(state == answer)

print(f"counting windows of {window} bits: {100 * counted_right:.0f}% right")
print(f"keeping one bit: {100 * np.mean(kept_right):.0f}% right")
assert np.all(kept_right) and 0.45 < counted_right < 0.55

# %% [markdown]
r"""
A recurrent network is that loop, with a vector in place of the bit and a rule that is learned. Along a text it looks
as below: the same step, with the same weights, at every token; the state $h$ (orange) is handed on, beginning with
$h_0$, all zeros, and after each token the guess for the next one is made from the state alone.
"""

# %%
draw_unrolled(["The", "cat", "sat", "on"])

# %% [markdown]
r"""
## The recurrence

Let $x_t$, of shape $(D)$, be the vector of the token at position $t$ (the row of a table that its id picks), and
$h_t$, of shape $(H)$, the state **before** it is read; $h_0 = 0$. The simplest rule (Elman 1990, "Finding structure
in time") is a linear map of both, then a tanh, which keeps every number of the state between −1 and 1:

$$\underset{(H)}{z_t} = \underset{(H, D)}{W_x}\,\underset{(D)}{x_t} + \underset{(H, H)}{W_h}\,\underset{(H)}{h_t}
+ \underset{(H)}{b}, \qquad \underset{(H)}{h_{t+1}} = \tanh(z_t).$$

$W_h$ is the **recurrent matrix**: what of the old state goes into the new one. We write **RNN** for this network. In
code a batch has $B$ texts, as rows, so a product $W h$ is written `h @ W.T`. Time is the first axis: `x` is
$(T, B, D)$, `x[t]` all tokens of step $t$.
"""


# %%
def rnn_forward(x, W_x, W_h, b):
    """x (T, B, D) -> the states (T + 1, B, H): hs[t] is the state before x[t] is read, hs[0] is zero."""
    T, B, _ = x.shape
    hs = np.zeros((T + 1, B, len(b)), x.dtype)
    for t in range(T):
        z = x[t] @ W_x.T + hs[t] @ W_h.T + b  # (B, H)
        hs[t + 1] = np.tanh(z)
    return hs


T, B, D, H = 6, 2, 3, 4
x = rng.standard_normal((T, B, D))
W_x, W_h, b = (rng.standard_normal(shape) / 2 for shape in ((H, D), (H, H), (H,)))
hs = rnn_forward(x, W_x, W_h, b)
print("x", x.shape, "→ states", hs.shape)
other = x.copy()
other[3:] += 1  # another future
assert np.array_equal(rnn_forward(other, W_x, W_h, b)[:4], hs[:4])  # changes no earlier state

# %% [markdown]
r"""
## Backward through time, by hand

Unrolled, the network is a chain of $T$ steps, so chapter 02's rules apply: walk back, hand on each gradient when it
is complete, add up what arrives from several places. This walk has a name, **backpropagation through time**.

A state $h_{t+1}$ reaches the loss in two ways: through the guess that is made from it, and through the next state.
Let $G_t$, of shape $(H)$, be what arrives from the guess after token $t$ (in a language model, from the output
layer), and $dh_{t+1}$ short for the whole $dL/dh_{t+1}$.

**The tanh.** $h = \tanh z$ has the slope $1 - h^2$, element by element (chapter 02), so
$dz_t = dh_{t+1} \circ (1 - h_{t+1}^2)$, with $\circ$ for the product element by element.

**The linear map.** Written out, $z_i = \sum_j (W_h)_{ij}\, h_j + \dots$; so $h_j$ acts on every $z_i$, with the
factor $(W_h)_{ij}$, and its gradient is the sum of all these, $\sum_i (W_h)_{ij}\,dz_i$, a product with the
transposed matrix; $(W_h)_{ij}$ acts on $z_i$ only, with the factor $h_j$:

$$\underset{(H)}{dh_t} = \underset{(H, H)}{W_h^\top}\,\underset{(H)}{dz_t} + \underset{(H)}{G_{t-1}}, \qquad
\underset{(D)}{dx_t} = \underset{(D, H)}{W_x^\top}\, dz_t,$$

$$\underset{(H, H)}{dW_h} = \sum_t dz_t\, h_t^\top, \qquad \underset{(H, D)}{dW_x} = \sum_t dz_t\, x_t^\top,
\qquad \underset{(H)}{db} = \sum_t dz_t .$$

The weights are used at every step, so their gradients are **sums over the steps** (and over the batch). No guess is
made from $h_0$, so there is no $G_{-1}$. Now the code. `G[t]` arrives at `hs[t + 1]`.
"""


# %%
def rnn_backward(G, x, hs, W_x, W_h):
    """G (T, B, H) -> dL/dx, dL/dW_x, dL/dW_h, dL/db, and dL/dh of every state (T + 1, B, H)."""
    dx, dhs = np.zeros_like(x), np.zeros_like(hs)
    dW_x, dW_h, db = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(W_h[0])
    for t in reversed(range(len(x))):
        dhs[t + 1] += G[t]  # now complete: the next step has added its part already
        dz = dhs[t + 1] * (1 - hs[t + 1] ** 2)  # (B, H)
        dhs[t] = dz @ W_h  # (B, H): W_hᵀ dz for each row
        dx[t] = dz @ W_x  # (B, D)
        dW_h += dz.T @ hs[t]  # (H, H): the sum over the batch is in the product
        dW_x += dz.T @ x[t]  # (H, D)
        db += dz.sum(axis=0)  # (H,)
    return dx, dW_x, dW_h, db, dhs


# the loss is L = Σ G ∘ (states 1 … T), so that G is what arrives at the states from outside
G = rng.standard_normal((T, B, H))
ours = rnn_backward(G, x, hs, W_x, W_h)[:4]


def loss():
    return float((G * rnn_forward(x, W_x, W_h, b)[1:]).sum())


tensors = [Parameter(array.copy()) for array in (x, W_x, W_h, b)]
h, total = Tensor(np.zeros((B, H))), Tensor(np.zeros(()))
for t in range(T):  # the same network of the library's small ops; autograd finds the way back
    h = (ops.linear(tensors[0][t], tensors[1], tensors[3]) + ops.linear(h, tensors[2])).tanh()
    total = total + (h * G[t]).sum()
total.backward()

for name, array, gradient, tensor in zip(("x", "W_x", "W_h", "b"), (x, W_x, W_h, b), ours, tensors):
    numerical = np.abs(gradient - numerical_gradient(loss, array)).max()
    library = np.abs(gradient - tensor.grad).max()
    print(
        f"dL/d{name}: gap to finite differences {numerical:.0e}, to the library's autograd {library:.0e}"
    )
    assert numerical < 1e-7 and library < 1e-12

# %% [markdown]
r"""
## What happens to a gradient on a long way back

Suppose only the last state matters: all $G$ but the last are zero. Then one step back is

$$dh_t = W_h^\top\,\operatorname{diag}(1 - h_{t+1}^2)\; dh_{t+1},$$

where $\operatorname{diag}(v)$ is the matrix with $v$ on its diagonal; $k$ steps back multiply $k$ such matrices. The
*same* $W_h$ is in each of them. What do powers of a matrix do?

- The **largest singular value** $\sigma_{\max}$ of $W_h$ is the most by which it makes any vector longer. So, since
  $1 - h^2 \le 1$, a gradient $k$ steps back is at most $\sigma_{\max}^k$ times as long: if $\sigma_{\max} < 1$, it
  vanishes for sure.
- In the long run, what a power does is decided by the eigenvalues. The **spectral radius** $\rho$ is the largest
  absolute value of an eigenvalue, and the length of $W_h^k v$ grows like $\rho^k$, for almost every $v$, as $k$
  grows. $\rho \le \sigma_{\max}$, and they may differ much. (Transposing changes neither.)

A random matrix shows the difference. If its $H^2$ entries are independent with standard deviation $s/\sqrt H$, then
for large $H$ its spectral radius is near $s$, but its largest singular value near $2s$. We measure: $H = 100$, three
sizes $s$, and the norm of $dh$ at $k$ steps before the end: with the tanh taken out, so that every slope is 1; and
with it, for small inputs and for inputs of size 1.
"""

# %%
H, T, B, D = 100, 60, 8, 20
x = rng.standard_normal((T, B, D))
W_x = rng.standard_normal((H, D)) / np.sqrt(D)
unit = rng.standard_normal((H, H)) / np.sqrt(H)  # s = 1
last = np.zeros((T, B, H))
last[-1] = rng.standard_normal((B, H))  # G: only the last state matters

panels = {"without tanh": {}, "inputs of size 0.1": {}, "inputs of size 1": {}}
factor = {}  # what one step back does to the norm, over steps 20 to 60
for s in (0.7, 1.0, 1.4):
    W_h = s * unit
    rho = np.abs(np.linalg.eigvals(W_h)).max()
    largest = np.linalg.norm(W_h, 2)
    print(f"s = {s}: spectral radius ρ = {rho:.2f}, largest singular value {largest:.2f}")
    no_slopes = np.zeros((T + 1, B, H))  # states of 0: every slope 1 − h² is 1
    small, large = (rnn_forward(size * x, W_x, W_h, np.zeros(H)) for size in (0.1, 1))
    for name, states in zip(panels, (no_slopes, small, large)):
        dhs = rnn_backward(last, x, states, W_x, W_h)[4]
        norms = np.linalg.norm(dhs, axis=(1, 2))[::-1]  # k = 0 is the last state
        panels[name][f"s = {s}"] = (norms / norms[0], rho)
        factor[name, s] = (norms[60] / norms[20]) ** (1 / 40)
        print(f"  {name}: each step back multiplies the norm by {factor[name, s]:.2f}")
        assert np.all(norms / norms[0] <= largest ** np.arange(T + 1) * (1 + 1e-9))
    assert abs(rho / s - 1) < 0.15 and abs(largest / s - 2) < 0.15
    assert abs(factor["without tanh", s] / rho - 1) < 0.05
    assert (
        factor["without tanh", s] > factor["inputs of size 0.1", s] > factor["inputs of size 1", s]
    )
assert factor["inputs of size 0.1", 1.4] > 1 and factor["inputs of size 1", 1.4] < 0.9
plot_shrinking(panels, title="gradient of an RNN's states; dashed: ρ$^k$")

# %% [markdown]
r"""
Left: without the tanh, the slope of each line is its spectral radius, not its largest singular value. Below 1, and
after 60 steps next to nothing arrives: gradients **vanish**, and the network cannot learn from a token that far back.
Above 1, and they **explode**: one step of training throws the weights far away.

With the tanh every slope is below 1, and every line falls more steeply or rises less. With small inputs (middle) the
large matrix still makes gradients grow, if much more slowly. With inputs of size 1 (right) the tanh is flat so often
that all of them vanish, even where $\rho$ is well above 1. So there is no $s$ that is right for good: it depends on
the states, which change with every input and with every step of training.

Against exploding there is a simple cure: a gradient longer than a limit is shortened to the limit. This is
**clipping**, `minillm.optim.clip_grad_norm_`, and all training below uses it. Against vanishing it does nothing: what
is gone cannot be lengthened.

## The idea of the LSTM: a path without a matrix

The trouble comes from going through a matrix and a tanh at *every* step. So give the network a second state that goes
through neither: the **cell** $c$, of shape $(H)$. A step may multiply each of its numbers by a factor between 0 and 1
and add something to it, nothing else. This is the **long short-term memory**, LSTM (Hochreiter & Schmidhuber 1997;
the forget gate is from Gers et al. 2000). The old $h$ remains, as what the cell shows to the outside.

The factors are computed from the token and from $h$, by four little RNN rules. Three of them end in the **sigmoid**
$\sigma(z) = 1/(1 + e^{-z})$, a number between 0 and 1 (it has nothing to do with the singular value $\sigma_{\max}$),
and are called **gates**: the *forget* gate $f$ says how much of the cell to **keep** (its name says the opposite),
the *input* gate $i$ how much to write, the *output* gate $o$ how much to show. The fourth, $g$, is the new content,
between −1 and 1.
"""

# %%
draw_cell()

# %% [markdown]
r"""
In formulas, with the four maps stacked into one $W_x\,(4H, D)$, $W_h\,(4H, H)$ and $b\,(4H)$, and their result $z_t$
cut into four parts of shape $(H)$, in the order $i, f, g, o$ (that of PyTorch and of the library):

$$\underset{(4H)}{z_t} = W_x x_t + W_h h_t + b, \qquad i = \sigma(z^{(1)}),\quad f = \sigma(z^{(2)}),\quad
g = \tanh(z^{(3)}),\quad o = \sigma(z^{(4)}),$$

$$\underset{(H)}{c_{t+1}} = f\circ c_t + i\circ g, \qquad \underset{(H)}{h_{t+1}} = o\circ\tanh(c_{t+1}).$$

A step with $f = 1$ and $i = 0$ leaves a number of the cell exactly as it is.
"""


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_forward(x, W_x, W_h, b):
    """x (T, B, D) -> hs and cs, the states before each step and after the last (T + 1, B, H); what backward needs."""
    T, B, _ = x.shape
    hs, cs = np.zeros((2, T + 1, B, len(b) // 4))
    saved = []
    for t in range(T):
        z = x[t] @ W_x.T + hs[t] @ W_h.T + b  # (B, 4H)
        i, f, g, o = np.split(z, 4, axis=1)  # each (B, H)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        cs[t + 1] = f * cs[t] + i * g
        shown = np.tanh(cs[t + 1])
        hs[t + 1] = o * shown
        saved.append((i, f, g, o, shown))
    return hs, cs, saved


# %% [markdown]
r"""
## The LSTM's backward

At step $t$ two gradients arrive: $dh_{t+1}$ and $dc_{t+1}$, both $(H)$. All products here are element by element, so
each rule is the one of the product $ab$: the gradient of $a$ is what arrives times $b$. Write
$\tau = \tanh(c_{t+1})$.

**Output.** $h_{t+1} = o\,\tau$. The gate gets $do = dh_{t+1}\circ\tau$; the cell gets $dh_{t+1}\circ o$ through the
tanh's slope, **in addition** to what came from the next step:

$$dc \;=\; dc_{t+1} + dh_{t+1}\circ o\circ(1 - \tau^2).$$

**Cell.** $c_{t+1} = f c_t + i g$:

$$df = dc\circ c_t, \qquad di = dc\circ g, \qquad dg = dc\circ i, \qquad \text{and, to the step before,}$$

$$dc_t = dc\circ f.$$

**Gates.** The slope of $\sigma$ is $\sigma(1 - \sigma)$, that of $\tanh$ is $1 - \tanh^2$:

$$\underset{(4H)}{dz_t}
= \big(\,di\circ i(1 - i),\;\; df\circ f(1 - f),\;\; dg\circ(1 - g^2),\;\; do\circ o(1 - o)\,\big).$$

**Linear map**, as in the RNN: $dh_t = W_h^\top dz_t$ (plus $G_{t-1}$), $dx_t = W_x^\top dz_t$, and sums over the
steps for $W_h$, $W_x$ and $b$.

The short formula $dc_t = dc\circ f$ is the point. Along the cell's path, a step back multiplies by $f$: no matrix, no
slope of a tanh. Where the gate is open, the gradient passes.
"""


# %%
def lstm_backward(G, x, hs, cs, saved, W_x, W_h):
    """G (T, B, H) -> dL/dx, dL/dW_x, dL/dW_h, dL/db, and dL/dh, dL/dc of every state (T + 1, B, H)."""
    dx, dhs, dcs = np.zeros_like(x), np.zeros_like(hs), np.zeros_like(cs)
    dW_x, dW_h, db = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros(len(W_x))
    for t in reversed(range(len(x))):
        i, f, g, o, shown = saved[t]
        dhs[t + 1] += G[t]
        dh, dc = dhs[t + 1], dcs[t + 1]
        dc += dh * o * (1 - shown**2)  # in place: dcs[t + 1] is complete now
        di, df, dg, do = dc * g, dc * cs[t], dc * i, dh * shown
        parts = (di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o))
        dz = np.concatenate(parts, axis=1)  # (B, 4H)
        dcs[t] = dc * f  # the path without a matrix
        dhs[t] = dz @ W_h
        dx[t] = dz @ W_x
        dW_h += dz.T @ hs[t]
        dW_x += dz.T @ x[t]
        db += dz.sum(axis=0)
    return dx, dW_x, dW_h, db, dhs, dcs


T, B, D, H = 5, 2, 3, 4
x = rng.standard_normal((T, B, D))
W_x, W_h, b = (rng.standard_normal(shape) for shape in ((4 * H, D), (4 * H, H), (4 * H,)))
G = rng.standard_normal((T, B, H))
hs, cs, saved = lstm_forward(x, W_x, W_h, b)
ours = lstm_backward(G, x, hs, cs, saved, W_x, W_h)[:4]

# the library's batch is the first axis
tensors = [Parameter(array.copy()) for array in (x.swapaxes(0, 1), W_x, W_h, b)]
zero, no_bias = Tensor(np.zeros((B, H))), Tensor(np.zeros(4 * H))
out, h_last, c_last = ops.lstm(tensors[0], zero, zero, *tensors[1:], no_bias)  # out (B, T, H)
out.backward(G.swapaxes(0, 1))
print(f"forward: gap to minillm.ops.lstm {np.abs(out.data.swapaxes(0, 1) - hs[1:]).max():.0e}")
assert np.allclose(out.data.swapaxes(0, 1), hs[1:], atol=1e-12)
assert np.allclose(c_last.data, cs[-1], atol=1e-12)


def loss():
    return float((G * lstm_forward(x, W_x, W_h, b)[0][1:]).sum())


tensors[0].grad = tensors[0].grad.swapaxes(0, 1)
for name, array, gradient, tensor in zip(("x", "W_x", "W_h", "b"), (x, W_x, W_h, b), ours, tensors):
    numerical = np.abs(gradient - numerical_gradient(loss, array)).max()
    library = np.abs(gradient - tensor.grad).max()
    print(
        f"dL/d{name}: gap to finite differences {numerical:.0e}, to minillm.ops.lstm {library:.0e}"
    )
    assert numerical < 1e-7 and library < 1e-12

# %% [markdown]
r"""
## How far its gradients reach

The same measurement as for the RNN, now of $dc$, with inputs of size 1. On the cell's path the factor is
$f = \sigma(z)$. With small weights $z$ is nearly the gate's bias $b_f$, so theory says $\sigma(b_f)^k$ (dashed). We
take four biases with small recurrent matrices, then one bias at three sizes.
"""


# %%
def lstm_reach(s, forget_bias, H=100, T=61, B=8, D=20):
    """Norm of dc at k = 0 … 60 steps before the end, 1 at k = 0, when only the last state matters."""
    r = np.random.default_rng(55)
    W_x = 0.3 * r.standard_normal((4 * H, D)) / np.sqrt(D)
    W_h = s * r.standard_normal((4 * H, H)) / np.sqrt(H)
    b = np.zeros(4 * H)
    b[H : 2 * H] = forget_bias
    x, last = r.standard_normal((T, B, D)), np.zeros((T, B, H))
    last[-1] = r.standard_normal((B, H))
    *_, dcs = lstm_backward(last, x, *lstm_forward(x, W_x, W_h, b), W_x, W_h)
    norms = np.linalg.norm(dcs, axis=(1, 2))[:0:-1]  # the last first
    return norms / norms[0]


biases, sizes = {}, {}
for forget_bias in (0, 1, 3, 5):
    biases[f"bias {forget_bias}"] = (lstm_reach(0.1, forget_bias), sigmoid(forget_bias))
for s in (0.1, 0.7, 1.4):
    sizes[f"s = {s}"] = (lstm_reach(s, 3), sigmoid(3))
for label, (norms, theory) in biases.items():
    print(
        f"{label}: {(norms[60] / norms[20]) ** (1 / 40):.3f} times as long with each step; σ(bias) {theory:.3f}"
    )
    assert abs((norms[60] / norms[20]) ** (1 / 40) / theory - 1) < 0.06
for label, (norms, _) in sizes.items():
    print(f"bias 3, {label}: {norms[60]:.0e} of the gradient left after 60 steps")
    assert 1e-3 < norms[60] < 1e3
for label, (norms, _) in panels["inputs of size 1"].items():
    print(f"RNN, {label}: {norms[60]:.0e} left after 60 steps")
    assert norms[60] < 1e-4
both = {"small matrices, s = 0.1": biases, "forget bias 3": sizes}
plot_shrinking(both, title="gradient of an LSTM's cell; dashed: σ(b$_f$)$^k$")

# %% [markdown]
r"""
Left: the forget gate's bias sets how far gradients reach, as the theory says. (The measured lines lie a little above:
the way through $h$ and the matrix adds something to that through the gate.) With bias 0 the gate is half open, and
each step halves the gradient. An LSTM is no cure by itself; an *open gate* is. That is why the library's gates start
with bias 1 (Jozefowicz et al. 2015), and why exercise 1 asks for more.

Right: larger recurrent matrices add more through $h$, and the gradient may even grow. But compare the scales: where
the RNN's gradients lie many powers of ten apart, these stay within a few. The difference is the path on which each
factor is between 0 and 1 by construction, belongs to one number of the state, and can be learned.

## The library's version

`minillm.ops.lstm_cell` is one step, `minillm.ops.lstm` a sequence, `minillm.models.lstm.Layer` holds the weights, and
`minillm.models.lstm.LSTM` is the language model: embedding, layers, output. What it has beyond ours: the products
with $x$ are taken for all steps at once before the loop, since only $W_h h_t$ has to wait; one tanh serves all four
gates, by $\sigma(z) = (1 + \tanh\frac z2)/2$; and inside, the batch is the last axis. The formulas above
`minillm.numpy_ops.recurrent.lstm_cell` are ours.

> **Step into it.** Put a breakpoint on the line `logits = model(ids)` of the next cell and step into it. You pass
> `minillm.models.causal.CausalLM.forward`, `minillm.models.lstm.LSTM.hidden`, `minillm.models.lstm.Layer.forward` and
> `minillm.ops.lstm`, and arrive in `minillm.numpy_ops.recurrent.lstm`. Stop in its loop: `gate` holds the four gates
> of one step, `cs[t + 1]` is the cell's path. For the way back set a breakpoint in
> `minillm.numpy_ops.recurrent.lstm_backward`; the notebook cell's last call of `backward` leads there, and the path
> without a matrix, $dc_t = dc\circ f$, is the line `dc *= f[t]`.
"""

# %%
model = LSTM(LSTMConfig(vocab_size=50, context=8, n_layers=1, d_model=16))
ids = np.array([[3, 1, 4, 1, 5]])
logits = model(ids)  # a breakpoint here
print("ids", ids.shape, "→ logits", logits.shape, "= (batch, positions, vocabulary)")
model(ids, np.array([[1, 4, 1, 5, 9]])).backward()  # for the second breakpoint

layer = model.layers[0]
arrays = [
    p.data.astype(np.float64)
    for p in (layer.weight_ih, layer.weight_hh, layer.bias_ih + layer.bias_hh)
]
x = model.token_embedding.weight.data[ids].swapaxes(0, 1).astype(np.float64)  # (T, B, D)
gap = np.abs(lstm_forward(x, *arrays)[0][1:, 0] - model.hidden(ids).data[0]).max()
print(f"gap between our states and the model's, which computes in single precision: {gap:.0e}")
assert gap < 1e-6

# %% [markdown]
r"""
The same in Python's own debugger. Each line after `(Pdb)` is a command: stop in the op, go on, say where we are
(outermost call first), run to the end of the function, print.
"""

# %%
commands = [
    "tbreak recurrent.lstm",
    "continue",
    "where",
    "return",
    "print(gates.shape, hs.shape, cs.shape)",
]
seen = type_into_debugger(
    "model(ids)", commands, {"model": model, "ids": ids, "recurrent": recurrent}
)
print(seen)
assert "backend(x).lstm(" in seen and "(5, 64, 1) (6, 16, 1) (6, 16, 1)" in seen

# %% [markdown]
r"""
`gates` is (steps, 4H, batch); `hs` and `cs` have one step more, the state before the first.

## Experiment: a language model

Now text: chapter 04's corpus (Python's help pages and docstrings), in chapter 03's tokens. We compare at **equal
parameters and tokens**: an LSTM of one layer, and, looking ahead, the GPT of chapter 07 with as many weights (within a
few percent), read the same stretches of the same training text in the same order; the n-grams count as much of the text
as the networks have read. Everything is scored on the same held-out text in bits per byte. Each network has its own
learning rate: the best of three, each twice the one before, for one start. The size of the numbers in its token table
at the start was chosen in the same way (all tried beforehand; `minillm.workshop.recurrence` has the values). Three
starts each. The function keeps its results on the disk; delete `made/` to train again.
"""

# %%
results = recurrent_baseline(SCALE)
print(f"{results['tokens']:,} tokens read, of a text of {results['corpus_tokens']:,}")
for n, bits in results["ngrams"].items():
    print(f"{n}-gram".ljust(8), f"{bits:.3f} bits per byte")
scores = {}
for kind, row in results["models"].items():
    scores[kind] = np.array(row["bits_per_byte"])
    spread = f" ± {scores[kind].std(ddof=1):.3f}" if len(scores[kind]) > 1 else ""
    print(
        f"{kind:8s} {scores[kind].mean():.3f}{spread} bits per byte, {row['parameters']:,} weights"
    )
sizes = [row["parameters"] for row in results["models"].values()]
if SCALE != "smoke":
    assert max(sizes) < 1.05 * min(sizes)
if SCALE == "cpu":
    assert scores["LSTM"].max() < scores["GPT"].min()
    best = min(results["ngrams"].values())
    assert scores["LSTM"].max() < best < scores["GPT"].min()
    assert scores["GPT"].max() < results["ngrams"]["3"]
plot_language_models(results)

# %% [markdown]
r"""
The LSTM beats every $n$-gram model that has read as much. The GPT, with as many weights and tokens, beats the short
ones only. If you expected the Transformer to win: it needs more text. A recurrence has the order of words built into
its rule, while a GPT has to learn from examples even what a position is. In the library's own comparison, on source
code and with models four times as large (`tests/bench/RESULTS.md`), the two are about level after twice as many tokens
as here; after eight times as many, Llama's improved Transformer is ahead, the GPT still a little behind. So the table
is a statement about **this size**, and no more.

## Where it falls behind: distance

A sequence begins with one of 8 letters; then come $k$ others, which do not matter; then a question mark, at which the
first letter is to be said. One thing to remember, over a distance that we choose. Five kinds of network, each with
about ten thousand weights, get the same number of training steps:

- the **RNN**, with $W_h$ random ($s = 0.6$), and with $W_h$ **orthogonal**: then all its singular values and the
  absolute values of its eigenvalues are 1, the best start that an RNN can have;
- the **LSTM** with the library's forget bias 1, and with bias 5;
- the **GPT**, whose attention looks at the first letter directly, however far it is.

Our RNN becomes an op of the library with a forward, a backward and `minillm.tensor.Tensor.from_op`, as every other
op; put in the place of the LSTM's layer it gives a whole model.
"""


# %%
def rnn(x, W_x, W_h, b):
    """Our RNN as an op: x (B, T, D) -> the states after each token (B, T, H)."""
    by_time = x.data.swapaxes(0, 1)  # (T, B, D)
    hs = rnn_forward(by_time, W_x.data, W_h.data, b.data)
    return Tensor.from_op(
        hs[1:].swapaxes(0, 1), (x, W_x, W_h, b), rnn_op_backward, (by_time, hs, W_x.data, W_h.data)
    )


def rnn_op_backward(grad, needs, by_time, hs, W_x, W_h):
    dx, dW_x, dW_h, db, _ = rnn_backward(grad.swapaxes(0, 1), by_time, hs, W_x, W_h)
    return dx.swapaxes(0, 1), dW_x, dW_h, db


class RNNLayer(nn.Module):
    def __init__(self, n_in, n_hidden, start, rng):
        self.W_x = nn.normal(rng, (n_hidden, n_in), n_in**-0.5)
        W_h = rng.standard_normal((n_hidden, n_hidden))
        W_h = np.linalg.qr(W_h)[0] if start == "orthogonal" else 0.6 * W_h / np.sqrt(n_hidden)
        self.W_h = Parameter(W_h.astype(np.float32))
        self.b = Parameter(np.zeros(n_hidden, np.float32))

    def forward(self, x, state):
        h = rnn(x, self.W_x, self.W_h, self.b)
        # the library's LSTM expects h and c after the last step as well
        return h, h[:, -1], h[:, -1]


def new_model(kind, vocabulary, context, seed):
    if kind == "GPT":
        return small_gpt(vocabulary, context, seed)
    rng = np.random.default_rng(seed)
    width = 64 if kind.startswith("RNN") else 32
    model = LSTM(LSTMConfig(vocabulary, context=context, n_layers=1, d_model=width), rng=rng)
    if kind.startswith("RNN"):
        model.layers[0] = RNNLayer(width, width, kind.removeprefix("RNN, "), rng)
    if kind == "LSTM, bias 5":
        model.layers[0].bias_ih.data[width : 2 * width] = 5
    return model


# %%
def remember_one(k):
    """Letters 8 … 15 come first, 0 … 7 in between, 16 is the question mark."""

    def make_batch(rng, size):
        ids = rng.integers(0, 8, (size, k + 2))
        ids[:, 0] += 8
        ids[:, -1] = 16
        targets = np.full_like(ids, -100)  # graded at the end only
        targets[:, -1] = ids[:, 0]
        return ids, targets

    return make_batch


rates = {
    "RNN, random": 0.003,
    "RNN, orthogonal": 0.003,
    "LSTM, bias 1": 0.02,
    "LSTM, bias 5": 0.02,
    "GPT": 0.005,
}
by_distance = {kind: {k: [] for k in DISTANCES} for kind in rates}
runs = [(kind, k, seed) for kind in rates for k in DISTANCES for seed in range(SEEDS)]
for kind, k, seed in progress(runs, "distance"):
    model = new_model(kind, 17, k + 2, seed)
    learn(model, remember_one(k), steps=STEPS, lr=rates[kind], seed=seed)
    by_distance[kind][k].append(percent_right(model, remember_one(k)))
print_scores(by_distance, "letters in between")
if SCALE == "cpu":
    means = {kind: [np.mean(by_distance[kind][k]) for k in DISTANCES] for kind in rates}
    assert min(means["GPT"]) > 95 and means["LSTM, bias 5"][1] > 90
    assert means["LSTM, bias 1"][-1] < 30 and means["RNN, random"][1] < 30
    assert means["RNN, orthogonal"][1] > 90 > 50 > means["RNN, orthogonal"][-1]
plot_scores(by_distance, "letters between the first one and the question", 100 / 8)

# %% [markdown]
r"""
All recurrent networks but one fall to guessing at some distance, in the order that the gradients foretold: first
those whose gradient shrinks fast from the start, the random RNN and the LSTM with bias 1, then the orthogonal RNN,
whose tanh takes a little at each step. The LSTM that starts with open gates gets furthest. (That bias has a price: a
cell that keeps everything must learn to forget.) For attention the distance makes no difference here.

## Where it falls behind: amount

Distance can be bridged. But a state of $H$ numbers must hold *everything* that will be needed. The task: read $n$
random letters, then say them again in the same order. We use the LSTM with bias 1 here, for the distances are short.
"""


# %%
def say_again(n):
    """n letters 0 … 7, then 8, then the letters again: the target is each letter of the second time."""

    def make_batch(rng, size):
        letters = rng.integers(0, 8, (size, n))
        both = np.concatenate([letters, np.full((size, 1), 8), letters], axis=1)  # (size, 2n + 1)
        targets = both[:, 1:].copy()
        targets[:, :n] = -100  # the first time nothing can be known
        return both[:, :-1], targets

    return make_batch


amounts = {"smoke": [2, 4], "cpu": [3, 6, 12], "gpu": [3, 6, 12, 24]}[SCALE]
by_amount = {kind: {n: [] for n in amounts} for kind in ("LSTM, bias 1", "GPT")}
runs = [(kind, n, seed) for kind in by_amount for n in amounts for seed in range(SEEDS)]
for kind, n, seed in progress(runs, "amount"):
    model = new_model(kind, 9, 2 * n, seed)
    learn(model, say_again(n), steps=STEPS, lr=rates[kind], seed=seed)
    by_amount[kind][n].append(percent_right(model, say_again(n)))
print_scores(by_amount, "letters to say again")
if SCALE == "cpu":
    assert np.mean(by_amount["LSTM, bias 1"][3]) > 90 > 40 > np.mean(by_amount["LSTM, bias 1"][12])
    assert min(np.mean(scores) for scores in by_amount["GPT"].values()) > 95
plot_scores(by_amount, "letters to say again", 100 / 8)

# %% [markdown]
r"""
Three letters fit, nearly; with every doubling less arrives. (This does not tell whether the state is too small or the
training too short to learn how to use it. The GPT got no more training, and has no need to learn how to pack.) The
GPT keeps all tokens, each in its own place, so it can always look the right one up.
[06 · Attention](06_attention.ipynb) begins with such a task.

## Where it does not: a state that counts

Back to the bits of the beginning: after each, is the number of ones so far odd? Both networks are trained on 16 bits
and graded at each of them, then tested on fresh texts, of 16 bits and of four times that length. (The GPT has vectors
for 64 positions; training never touches those after the first 16.) They get twice as many steps as in the tasks
before.
"""


# %%
def is_odd(length):
    """Bits 0 and 1; the answer is 3 after an odd number of ones, else 2."""

    def make_batch(rng, size):
        bits = rng.integers(0, 2, (size, length))
        return bits, 2 + bits.cumsum(axis=1) % 2

    return make_batch


by_length = {kind: {16: [], 64: []} for kind in ("LSTM, bias 1", "GPT")}
for kind, seed in progress([(kind, seed) for kind in by_length for seed in range(SEEDS)], "parity"):
    model = new_model(kind, 4, 64, seed)
    learn(model, is_odd(16), steps=2 * STEPS, lr=0.01, seed=seed)
    by_length[kind][16].append(percent_right(model, is_odd(16)))
    by_length[kind][64].append(percent_right(model, is_odd(64)))
print_scores(by_length, "bits (trained on 16)")
if SCALE == "cpu":
    assert np.mean(by_length["LSTM, bias 1"][16]) > 90 and max(by_length["GPT"][16]) < 75
    assert max(by_length["GPT"][64]) < 60
    assert np.mean(by_length["LSTM, bias 1"][64]) > 85

# %% [markdown]
r"""
The LSTM finds the rule that turns one bit, and a rule of one step holds for any length. One block of attention
averages over the past, and from an average it is hard to say whether a count is odd: the GPT hardly gets past the
first few positions, and beyond the trained length it guesses. Tasks of this kind, where each token changes a state
and only the state matters, are what a recurrence is made for.

## What one more token costs

To generate text, a model reads its own last token and makes the next. An LSTM needs its state, of one size for any
text. A GPT needs the keys and values of **all** earlier tokens (the cache of chapter [09](09_generating_text.ipynb)),
and looks at each of them. We time one more token after $n$ others. (The two models are not of equal size here: look at
how the lines grow.)
"""

# %%
lengths = [2**n for n in range(5, LONGEST + 1)]
configs = {
    "LSTM": LSTMConfig(100, context=max(lengths) + 1, n_layers=2, d_model=256),
    "GPT": GPTConfig(100, context=max(lengths) + 40, n_layers=2, n_heads=4, d_model=256),
}
milliseconds, kilobytes = ({kind: [] for kind in configs} for _ in range(2))
for kind, config in progress(list(configs.items()), "timing"):
    model = (LSTM if kind == "LSTM" else GPT)(config, rng=np.random.default_rng(0))
    cache, before = model.new_cache(), 0
    for n in lengths:
        with no_grad():
            model.hidden(rng.integers(0, 100, (1, n - before)), cache)  # read up to n tokens
            times = []
            for _ in range(12):
                start = time.perf_counter()
                model(np.array([[7]]), cache=cache)
                times.append(time.perf_counter() - start)
        before = n + 12
        milliseconds[kind].append(1e3 * min(times))  # the least disturbed
        kilobytes[kind].append(cache_bytes(config, 1, n) / 1024)
for kind in configs:
    growth = milliseconds[kind][-1] / milliseconds[kind][0]
    print(
        f"{kind}: after {lengths[-1]:,} tokens one more takes {growth:.1f} times as long", end=" "
    )
    print(f"as after {lengths[0]};", end=" ")
    print(
        f"kept {kilobytes[kind][-1]:,.0f} kB, {kilobytes[kind][-1] / kilobytes[kind][0]:.0f} times as much"
    )
assert (
    kilobytes["LSTM"][0] == kilobytes["LSTM"][-1]
    and kilobytes["GPT"][-1] > 10 * kilobytes["GPT"][0]
)
if SCALE != "smoke":
    assert (
        milliseconds["GPT"][-1] / milliseconds["GPT"][0]
        > 1.5 * milliseconds["LSTM"][-1] / milliseconds["LSTM"][0]
    )
plot_growing_cost(lengths, milliseconds, kilobytes)

# %% [markdown]
r"""
The LSTM's line is flat, the GPT's grows with the text, in time and in memory. While **training** it is the other way
around: all positions of a text are known, a GPT computes them all in a few large products, while an LSTM has to wait
for each state before the next. On a GPU, which is fast only when it has much to do at once, this is a main reason why
Transformers took over. Newer recurrent networks (Mamba, RWKV) look for a rule that can be computed in parallel for
training and keeps the flat line for generation.

## Summary

- A recurrent network makes a new state of fixed size from the old state and the token, by the same rule at each step.
- Its backward walks through time; the weights' gradients are sums over the steps.
- $k$ steps back multiply the gradient $k$ times by $W_h^\top\operatorname{diag}(1 - h^2)$: at most $\sigma_{\max}^k$,
  and in the long run, without a tanh, like $\rho^k$. Below 1 that vanishes, above 1 it explodes; the tanh makes it
  smaller. Clipping helps against exploding only.
- The LSTM's cell has a path on which a step multiplies by the forget gate, nothing else: $dc_t = dc \circ f$. It
  reaches as far as the gate is open, so the gate's bias matters.
- With this little text it beats a GPT of equal size; it is worse in remembering over a distance, and at remembering
  much; it is better at keeping count; its cost for one more token does not grow.

## Exercises

Write your answer in place of `...` or `None` and run the cell; the check says what is still wrong. Solutions are
folded below.
"""

# %% [markdown]
r"""
### Exercise 1: open the gate (easy, core, 10 minutes)

A gradient passes $k$ steps along the cell's path. With small weights each step multiplies it by $\sigma(b_f)$. Which
bias $b_f$ leaves **half** of it after $k$ steps? Solve for $b_f$ and write the function. (`np.log` is $\ln$.)
"""


# %% tags=["exercise"]
def forget_bias(k):
    return None


with check():
    answer = as_plain(np.squeeze(forget_bias(1)))
    assert answer is not None, "forget_bias returns nothing yet: solve σ(b)ᵏ = ½ for b."
    assert isinstance(answer, int | float) and np.isfinite(answer), (
        f"It must be one finite number, not {answer!r}."
    )
    left = {k: float(sigmoid(np.squeeze(forget_bias(k)))) ** k for k in (1, 3, 10, 200)}
    assert all(np.isfinite(share) for share in left.values()), "Some bias is not a finite number."
    assert abs(left[1] - 0.5) < 1e-9, (
        f"After a single step your gate leaves {left[1]:.3f}. Put your bias into σ and compare with what is asked for."
    )
    assert left[10] > left[1] / 100, (
        "The further the gradient has to go, the more open must the gate be."
    )
    for k, share in left.items():
        assert abs(share - 0.5) < 1e-6, (
            f"Right for one step, but after {k} steps {share:.3f} is left: what must a single step leave?"
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

A single step must leave $f = 2^{-1/k}$. From $f = 1/(1 + e^{-b})$ follows $e^{-b} = 1/f - 1 = 2^{1/k} - 1$.

```python
def forget_bias(k):
    return -np.log(2 ** (1 / k) - 1)
```

For large $k$, $2^{1/k} - 1 \approx (\ln 2)/k$, so $b \approx \ln(k/\ln 2)$: the bias grows with the logarithm of the
distance, and 5 is right for about a hundred steps.

</details>
"""

# %% [markdown]
r"""
### Exercise 2: as many weights as the other (easy, core, 10 minutes)

"Equal parameters" needs counting. How many weights has the library's LSTM language model with a vocabulary of $V$
tokens, one layer and $H = D$ features, where the output layer is the embedding table again (`tie_embeddings=True`)?
The layer has a bias for $W_x$ and one for $W_h$, as PyTorch's.
"""


# %% tags=["exercise"]
def lstm_weights(V, D):
    return None


with check():
    answer = as_plain(lstm_weights(50, 16))
    assert answer is not None, (
        "lstm_weights returns nothing yet: add the table, the two matrices, the two biases."
    )

    def counted(V, D):
        return count_weights(
            LSTM(LSTMConfig(V, context=4, n_layers=1, d_model=D, tie_embeddings=True))
        )

    table = answer - (counted(50, 16) - 50 * 16)
    assert table != 2 * 50 * 16, "The table stands in it twice: it is shared, so it counts once."
    assert table != 0, "The embedding table is missing."
    assert answer not in (50 * 16 + 2 * 16**2 + 2 * 16, 50 * 16 + 2 * 16**2 + 16), (
        "How many maps does z hold?"
    )
    assert answer != counted(50, 16) - 4 * 16, "Nearly: how many biases are there?"
    assert answer != counted(50, 16) - 8 * 16, "Nearly: the biases are missing."
    for V, D in ((50, 16), (7, 30), (1000, 3)):
        assert as_plain(lstm_weights(V, D)) == counted(V, D), (
            f"Not right for V = {V}, D = {D}. Go through `model.named_parameters()` and their shapes."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

The table $V D$; $W_x$ and $W_h$ are each $(4D, D)$; two biases of $4D$.

```python
def lstm_weights(V, D):
    return V * D + 8 * D**2 + 8 * D
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: one text, in pieces (medium, core, 15 minutes)

A text longer than fits into memory is read in pieces, and the state is carried from each piece to the next. A model
keeps it in what `model.new_cache()` returns, when that is given to each call as `cache=`. Return the **sum** of the
losses of all targets (call the model with `reduction="sum"`), reading `piece` tokens at a time: it must be the same
as in one go. The last piece may be shorter.
"""


# %% tags=["exercise"]
def loss_in_pieces(model, ids, targets, piece):
    """ids and targets (1, T) -> a number."""
    return None


with check():
    read = []  # how many tokens each call was given

    class Reader(LSTM):
        def forward(self, ids, *others, **named):
            read.append(ids.shape[1])
            return super().forward(ids, *others, **named)

    reader = Reader(
        LSTMConfig(20, context=4, n_layers=2, d_model=8), rng=np.random.default_rng(3)
    ).to(np.float64)
    for p in reader.parameters():
        p.data *= 5  # so that what is remembered shows
    text = np.random.default_rng(4).integers(0, 20, (1, 14))
    given, wanted = text[:, :-1], text[:, 1:]
    with no_grad():
        whole = reader(given, wanted, reduction="sum").item()
        answers, longest = {}, {}
        for piece in (13, 1, 4, 5):
            read.clear()
            answers[piece] = loss_in_pieces(reader, given, wanted, piece)
            longest[piece] = max(read, default=0)
    assert answers[13] is not None, (
        "loss_in_pieces returns nothing yet: loop over the pieces and add up their losses."
    )
    answers = {piece: float(np.squeeze(as_plain(value))) for piece, value in answers.items()}
    assert abs(answers[13] - whole) < 1e-9, (
        f"In one piece it should be {whole:.4f}, a sum; you have {answers[13]:.4f}. A mean? A part left out?"
    )
    assert abs(answers[1] - whole) < 1e-9, (
        "Right in one piece, wrong token by token: does each call know what the one before has read?"
    )
    assert all(abs(answer - whole) < 1e-9 for answer in answers.values()), (
        "Wrong where the last piece is shorter than the others: is it read, and once?"
    )
    for piece, tokens in longest.items():
        assert tokens <= piece, (
            f"The sum is right, but with piece = {piece} a call was given {tokens} tokens at a time."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

```python
def loss_in_pieces(model, ids, targets, piece):
    state, total = model.new_cache(), 0.0
    for start in range(0, ids.shape[1], piece):
        part = slice(start, start + piece)
        total += model(ids[:, part], targets[:, part], cache=state, reduction="sum").item()
    return total
```

Gradients stop between the pieces, for the state is cut off from the graph: trained like this, one speaks of
*truncated* backpropagation through time. What the state holds goes on, what can be learned about it does not reach
further back than a piece.

</details>
"""

# %% [markdown]
r"""
### Exercise 4: one gate less (medium, useful, 20 minutes)

What is kept and what is written can share a gate: with $c$ the cell before the step and $c'$ the one after it,
$c' = f\circ c + (1 - f)\circ g$. (The GRU, Cho et al. 2014, does this.) Here $z$ is $(B, 2H)$, cut into $z^{(1)}$ for
$f = \sigma(z^{(1)})$ and $z^{(2)}$ for $g = \tanh(z^{(2)})$. Given $dL/dc'$, return $dL/dz$, of shape $(B, 2H)$, and
$dL/dc$, of shape $(B, H)$.
"""


# %% tags=["exercise"]
def coupled_backward(dc_new, f, g, c):
    """All arguments (B, H) -> dz (B, 2H) and dc (B, H)."""
    return None, None


with check():
    r = np.random.default_rng(8)
    z, c, arriving = r.standard_normal((3, 6)), r.standard_normal((3, 3)), r.standard_normal((3, 3))

    def coupled_loss():
        f, g = sigmoid(z[:, :3]), np.tanh(z[:, 3:])
        return float((arriving * (f * c + (1 - f) * g)).sum())

    dz, dc = coupled_backward(arriving.copy(), sigmoid(z[:, :3]), np.tanh(z[:, 3:]), c.copy())
    assert dz is not None and dc is not None, (
        "coupled_backward returns nothing yet: derive df, dg and dc first."
    )
    dz, dc = np.asarray(as_plain(dz)), np.asarray(as_plain(dc))
    assert dz.shape == (3, 6) and dc.shape == (3, 3), (
        f"dz must be (B, 2H) = (3, 6), dc (3, 3); yours are {dz.shape} and {dc.shape}."
    )
    expected = numerical_gradient(coupled_loss, z)
    assert np.allclose(dc, numerical_gradient(coupled_loss, c), atol=1e-7), (
        "dc is wrong. What multiplies c in c'?"
    )
    assert np.allclose(dz[:, 3:], expected[:, 3:], atol=1e-7), (
        "The second half of dz, for g, is wrong: what multiplies g in c', and what is the slope of tanh?"
    )
    assert np.allclose(dz[:, :3], expected[:, :3], atol=1e-7), (
        "The first half of dz, for f, is wrong: f stands in c' in two places; and σ has a slope, too."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

$c' = f c + g - f g$: the gate gets $dc'\,(c - g)$.

```python
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * (c - g), dc_new * (1 - f)
    dz = np.concatenate([df * f * (1 - f), dg * (1 - g**2)], axis=1)
    return dz, dc_new * f
```

</details>
"""

# %% [markdown]
r"""
### Exercise 5: a counter by hand (hard, useful, 25 minutes)

What can a cell do that nobody trained? Set the weights of an LSTM with $H = 1$ so that its cell counts how many
brackets are open: +1 at `(`, −1 at `)`, unchanged at `a`. The token's vector $x_t$ is (1, 0, 0) for `(`, (0, 1, 0)
for `)`, (0, 0, 1) for `a`. Return $W_x\,(4, 3)$, $W_h\,(4, 1)$ and $b\,(4)$, rows in the order $i, f, g, o$; after
each token the cell must be within 0.05 of the count, for 200 tokens. Large numbers make gates that are as good as
open or closed: $\sigma(20)$ is 1 up to $2\cdot 10^{-9}$.
"""


# %% tags=["exercise"]
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    ...
    return W_x, W_h, b


with check():
    W_x, W_h, b = (np.asarray(as_plain(array), dtype=float) for array in counter())
    assert W_x.shape == (4, 3) and W_h.shape == (4, 1) and b.shape == (4,), (
        f"The shapes must be (4, 3), (4, 1) and (4,), not {W_x.shape}, {W_h.shape} and {b.shape}."
    )
    assert W_x.any() or b.any(), (
        "All weights are still zero. Which gates must be open always, and what is g at each token?"
    )

    def cells(text):
        x = np.eye(3)[["()a".index(sign) for sign in text]][:, None]  # (T, 1, 3)
        with np.errstate(over="ignore"):
            return lstm_forward(x, W_x, W_h, b)[1][1:, 0, 0]

    assert abs(cells("(")[0] - 1) < 0.05, (
        f"After one “(” the cell is {cells('(')[0]:.3f}: is i open, and g near 1?"
    )
    assert abs(cells("((")[1] - 2) < 0.05, (
        f"After “((” the cell is {cells('((')[1]:.3f}: what does f do to the first 1?"
    )
    assert abs(cells("(a")[1] - 1) < 0.05, (
        f"After “(a” the cell is {cells('(a')[1]:.3f}: what must “a” leave alone?"
    )
    assert abs(cells("()")[1]) < 0.05, (
        f"After “()” the cell is {cells('()')[1]:.3f}: which g takes one away?"
    )
    signs = np.random.default_rng(2).choice(list("()a"), 200, p=[0.4, 0.3, 0.3])
    depth = np.cumsum((signs == "(").astype(int) - (signs == ")"))
    gap = np.abs(cells(signs) - depth).max()
    assert gap < 0.05, (
        f"Over 200 tokens the cell is wrong by {gap:.2f}: small errors add up. Open the gates wider."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

$i$ and $f$ are always open; $g$ is 1, −1 or 0; $o$ does not matter to the cell, and nothing depends on $h$.

```python
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[2] = [20, -20, 0]
    b[:2] = 20
    return W_x, W_h, b
```

(One could close $i$ at `a` instead.) The number in the cell may become as large as the text wants: it is a sum, no
tanh limits it. An RNN's state cannot do that, nor a GRU's.

</details>
"""

# %% [markdown]
r"""
## Quick questions

**1.** An RNN's recurrent matrix has the largest singular value 0.9. Can its gradients explode?

<details><summary>Answer</summary>

No: $k$ steps back they are at most $0.9^k$ times as long. With a largest singular value above 1 they may, and whether
they do is decided by $\rho$ and by the slopes of the tanh.

</details>

**2.** Why does an LSTM's forget gate start with a bias above 0?

<details><summary>Answer</summary>

With bias 0 it is half open, and each step halves what the cell holds and what its gradient brings. Before it can
learn what to keep, something must arrive.

</details>

**3.** Clipping shortens gradients that explode. Why does no such trick lengthen those that have vanished?

<details><summary>Answer</summary>

A long gradient still points somewhere. What comes from far back is added to what comes from near; when its part has
shrunk below the rest, making the sum longer makes the near part longer just as much.

</details>

**4.** Two models have equal parameters. Do they cost equally much for each token?

<details><summary>Answer</summary>

Nearly: each weight of a layer is used once for each token. But attention comes on top, growing with the length; a
GPT's positions can be computed all at once, and an LSTM's cannot.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now derive a recurrent network and an LSTM with their backward through time, predict from a matrix or a gate
how far gradients reach, and say for a given task whether a state of fixed size will do.

**What you take along**: the measured bits per byte of an LSTM, with the text, the tokens and the number of weights they
were measured at: `recurrent_baseline(SCALE)` of `minillm.workshop.deliverables`. Chapter [07](07_the_transformer.ipynb)
takes the GPT of that table apart and comes back to it; how a gradient that explodes is clipped, chapter
[08](08_pretraining.ipynb) shows.

Next: [06 · Attention](06_attention.ipynb), which keeps every token and looks back at the one it needs.
"""
