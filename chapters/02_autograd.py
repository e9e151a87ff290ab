# %% [markdown]
r"""
# 02 · Tensors and autograd

A language model has thousands to billions of numbers inside. Training moves each of them a little in the direction
that makes the model's mistakes smaller. This chapter builds the machine that finds those directions, all of them at
once: **automatic differentiation**. It starts from a single number that remembers how it was computed, and ends at
the library's `Tensor`, whose results it reproduces to the last digits.

**Afterwards you can** derive the backward of an op with shapes, check it, and write it; say why gradients add up, why
the order matters, and what training keeps in memory; find your way in `minillm/tensor.py` and
`minillm/tensor_methods.py`.

**You need** Python, a little NumPy, what a derivative is and how matrices are multiplied.
"""

# %%
import gc
import time
import tracemalloc

import numpy as np
from minillm import ops, plot
from minillm.optim import SGD
from minillm.tensor import Parameter, Tensor, no_grad
from minillm.tensor import topological_order as library_order

from workshop import check, read_scale, show_versions

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute
BUDGET = {"smoke": 600, "cpu": 12_000, "gpu": 60_000}[
    SCALE
]  # evaluations that each way of learning may use
WIDTHS = [
    2**i for i in range(2, {"smoke": 6, "cpu": 9, "gpu": 10}[SCALE])
]  # of the network that is timed

rng = np.random.default_rng(2)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: which way should each number move?

Take a model with two numbers, a weight $w$ and a bias $b$, that predicts $wx + b$. Its mistake on one example
$(x, t)$ is measured by a **loss**, here the squared error. To make the loss smaller we need to know how it answers to
a small change of $w$: its **derivative** $dL/dw$. The most direct way to find out is to try.
"""


# %%
def loss_of(w, b, x=3.0, t=10.0):
    return (w * x + b - t) ** 2


w, b, nudge = 2.0, 1.0, 1e-6
slope_w = (loss_of(w + nudge, b) - loss_of(w - nudge, b)) / (2 * nudge)
slope_b = (loss_of(w, b + nudge) - loss_of(w, b - nudge)) / (2 * nudge)
print(f"loss {loss_of(w, b):.2f}, dL/dw ≈ {slope_w:.3f}, dL/db ≈ {slope_b:.3f}")

step = 0.01  # move each number against its slope
better = loss_of(w - step * slope_w, b - step * slope_b)
print(f"after one step against the slopes: loss {better:.2f}")
assert better < loss_of(w, b)

# %% [markdown]
r"""
That works, and we will use it to check everything below. But it evaluates the loss twice **for every weight**. A
model with a million weights would need two million evaluations for a single step. We want all slopes for the price of
a few.

## The idea: each step knows its own slope

Cut the computation into steps so small that the derivative of each is known. Then chain them: if $L$ changes $g$
times as fast as $y$, and $y$ changes $s$ times as fast as $x$, then $L$ changes $g\cdot s$ times as fast as $x$. This
is the **chain rule**,

$$\frac{dL}{dx} = \frac{dL}{dy}\cdot\frac{dy}{dx}.$$

So we start at the end, where $dL/dL = 1$, and walk back. Each step receives $dL/d(\text{its output})$, which we will
call `grad`, multiplies by its own slope, and hands the result to its inputs. If a number was used in several places,
it influences $L$ along several paths, and the contributions **add up**.

Here is what the finished library makes of $e = ab,\; d = e + a,\; L = e\cdot d$ for $a = 2, b = -3$. Values flow to
the right; blue boxes are the numbers whose gradients we want.
"""

# %%
a, b = Parameter(2.0), Parameter(-3.0)
e = a * b
d = e + a
L = e * d
L.backward(retain_graph=True)
plot.graph(L, {"a": a, "b": b, "e": e, "d": d, "L": L})

# %% [markdown]
r"""
Check one gradient by hand before going on: $L = ab(ab + a) = a^2b^2 + a^2b$, hence $dL/da = 2ab^2 + 2ab$. Insert
$a = 2, b = -3$, and compare with the box.

## A number that remembers

To walk back we need a record of the way forward. Every result gets a **node** that stores

- its `parents`: the values it was computed from,
- a `backward` function: from the gradient of the result to one gradient for each parent,
- the `saved` numbers that this function needs. The slope of $a\cdot b$ along $a$ is $b$, so a product saves both
  factors. The slope of $a + b$ is 1 along both, so a sum saves nothing.
"""


# %%
class Node:
    def __init__(self, parents, backward, saved):
        self.parents, self.backward, self.saved = parents, backward, saved


class Value:
    def __init__(self, data, node=None):
        self.data = data  # the number itself
        self.grad = None  # dL/d(this), once backward has run
        self.node = node  # how it was computed; None for numbers that we put in: the leaves


def add(a, b):
    return Value(a.data + b.data, Node((a, b), add_backward, ()))


def add_backward(grad):
    return grad, grad


def mul(a, b):
    return Value(a.data * b.data, Node((a, b), mul_backward, (a.data, b.data)))


def mul_backward(grad, a, b):
    return grad * b, grad * a


def example(a, b):
    e = mul(a, b)
    return mul(e, add(e, a))


print("L =", example(Value(2.0), Value(-3.0)).data)

# %% [markdown]
r"""
## In which order?

The shortest way to write the walk is recursion: add the gradient to the value's own sum, then hand on to each parent.
It gives right numbers, since it follows every path from $L$ to a leaf separately. That is also what is wrong with it.
"""


# %%
def accumulate(value, grad):
    value.grad = grad if value.grad is None else value.grad + grad


def backward_every_path(value, grad=1.0):
    """Follows each path on its own. Returns how many values it has visited."""
    accumulate(value, grad)
    visits = 1
    if value.node is not None:
        for parent, g in zip(value.node.parents, value.node.backward(grad, *value.node.saved)):
            visits += backward_every_path(parent, g)
    return visits


a, b = Value(2.0), Value(-3.0)
backward_every_path(example(a, b))
print(f"dL/da = {a.grad}, dL/db = {b.grad}")
assert (a.grad, b.grad) == (2 * 2 * 9 + 2 * 2 * -3, 2 * 4 * -3 + 4)  # 2ab² + 2ab and 2a²b + a²

# %% [markdown]
r"""
Each doubling `y = add(y, y)` doubles the number of paths, so a short chain of them already takes very long. We must
visit each value **once**. But when? A value may hand on its gradient only when that gradient is complete, after
**everything that was computed from it** has contributed. Visiting in another order gives wrong numbers without any
error:
"""


# %%
def backward_too_early(root):
    """Each value once, in the order in which they are met from the root: wrong."""
    root.grad = 1.0
    queue = [root]
    for value in queue:
        if value.node is not None:
            for parent, g in zip(
                value.node.parents, value.node.backward(value.grad, *value.node.saved)
            ):
                accumulate(parent, g)
                if parent not in queue:
                    queue.append(parent)


a, b = Value(2.0), Value(-3.0)
backward_too_early(example(a, b))
print(
    f"dL/da = {a.grad}, dL/db = {b.grad}: wrong, because e handed on before d had added to e's gradient"
)
assert a.grad != 24 and b.grad != -20

# %% [markdown]
r"""
An order in which every value comes after its parents is called **topological**; read from the back, every value comes
*before* its parents, with all its contributions collected. To find it: place a value when all its parents are placed.
The explicit stack below does what recursion would, without Python's limit of about a thousand nested calls, which a
deep network exceeds.
"""


# %%
def topological_order(root):
    """Everything that root was computed from, parents first, root last."""
    order, met, stack = [], set(), [(root, False)]
    while stack:
        value, parents_placed = stack.pop()
        if parents_placed:
            order.append(value)
        elif id(value) not in met:
            met.add(id(value))
            stack.append((value, True))  # comes back when everything above it on the stack is done
            stack += [(parent, False) for parent in (value.node.parents if value.node else ())]
    return order


def backward_once(root, grad=1.0):
    accumulate(root, grad)
    order = topological_order(root)
    for value in reversed(order):
        if value.node is not None:
            for parent, g in zip(
                value.node.parents, value.node.backward(value.grad, *value.node.saved)
            ):
                accumulate(parent, g)
    return len(order)


a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward_once(L)
print(f"dL/da = {a.grad}, dL/db = {b.grad}")
assert (a.grad, b.grad) == (24, -20)
plot.graph(L, {"a": a, "b": b, "L": L})

# %%
depths = list(range(1, 16))
visits = {"every path": [], "each value once": []}
for depth in depths:
    for name, walk in (("every path", backward_every_path), ("each value once", backward_once)):
        y = Value(1.0)
        for _ in range(depth):
            y = add(y, y)
        visits[name].append(walk(y))

figure, ax = plot.subplots(height=2.8)
for (name, counts), marker in zip(visits.items(), "os"):
    ax.plot(depths, counts, marker=marker, label=name)
ax.set_yscale("log")
ax.set_xlabel("length of the chain y = y + y")
ax.set_ylabel("visits")
ax.legend()
for name, counts in visits.items():
    print(f"{name}: {counts[-1]:,} visits for a chain of {depths[-1]}")
assert visits["every path"][-1] == 2 ** (depths[-1] + 1) - 1
figure

# %% [markdown]
r"""
## Why a second `backward()` adds

`accumulate` adds because one value may be used in several places. The same rule means that a second call adds to what
the first has left. That is wanted for the leaves: the gradient of a big batch is the sum of the gradients of its
parts, so we can compute the parts one after the other. But our walk keeps sums in the *inner* values as well, and
there the first call's leftovers are handed on again:
"""

# %%
a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward_once(L)
first = a.grad
backward_once(L)
print(
    f"first call: dL/da = {first}; second call on the same graph: {a.grad}, which is not twice {first}"
)
assert a.grad != 2 * first


# %% [markdown]
r"""
So inner sums must not outlive the call. We keep them in a dictionary and write `.grad` for leaves only. This is the
version we keep, and it is how the library does it. (The library also *frees* the graph as it walks, to give memory
back early: there, a second call raises an error that tells you to compute the loss again, unless the first call was
given `retain_graph=True`.) Between two training steps the leaves' sums must be cleared, `grad = None`; to forget that
is a classic bug that makes training slowly go wrong.
"""


# %%
def backward(root, grad=1.0):
    sums = {id(root): grad}  # complete when a value's turn comes
    for value in reversed(topological_order(root)):
        grad = sums.pop(id(value))
        if value.node is None:
            accumulate(value, grad)
        else:
            for parent, g in zip(value.node.parents, value.node.backward(grad, *value.node.saved)):
                sums[id(parent)] = sums[id(parent)] + g if id(parent) in sums else g


a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward(L)
once = a.grad
backward(L)
print(f"once: {once}, twice: {a.grad}")
assert a.grad == 2 * once

# %% [markdown]
r"""
## From numbers to arrays

Nothing above says that `data` is one number. Put NumPy arrays in, and `add` and `mul` work element by element,
forward and backward. One array op then stands for thousands of scalar steps, and Python's slowness stops to matter.

Two rules make the derivations below almost mechanical:

1. **$dL/dx$ has the shape of $x$**: one slope for each element, because $L$ is one number.
2. To derive a backward, write **one element** of the output by its indices, differentiate, and sum over every output
   element in which the input element occurs.

Before we derive more, we need a check that does not share our mistakes: nudge each element up and down by
$\varepsilon$ and see what $L$ does (**finite differences**). Since an op's output is an array, we make one number of
it with fixed random weights $r$: $L = \sum_i r_i y_i$. Random weights matter. With a plain sum, an error that cancels
in the sum would pass.
"""


# %%
def numerical_gradient(loss, x, eps=1e-6):
    """dL/dx for each element of x, by two evaluations each."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + eps
        above = loss()
        x[index] = kept - eps
        below = loss()
        x[index] = kept
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def largest_error(op, *arrays):
    """How far an op's gradients are from finite differences, over all its inputs."""
    values = [Value(array) for array in arrays]
    out = op(*values)
    r = rng.standard_normal(np.shape(out.data))
    backward(out, r)

    def loss():
        return float(np.sum(r * op(*(Value(array) for array in arrays)).data))

    for value in values:
        if np.shape(value.grad) != value.data.shape:
            raise AssertionError(
                f"the gradient has shape {np.shape(value.grad)}, its value {value.data.shape}"
            )
    return max(np.abs(value.grad - numerical_gradient(loss, value.data)).max() for value in values)


x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
print(f"mul: largest error {largest_error(mul, x, y):.1e}")
assert largest_error(mul, x, y) < 1e-7

# %% [markdown]
r"""
Why $\varepsilon = 10^{-6}$, and why numbers in double precision (`float64`, 16 digits) when models are trained in
single (`float32`, 7 digits)? Two errors pull in opposite directions. A large nudge measures the slope of a chord
instead of the curve. A small nudge makes two almost equal numbers, whose difference loses its digits.
"""

# %%
epsilons = 10.0 ** np.arange(-12, 0.1, 0.5)
places = np.linspace(0.5, 1.5, 50)  # where the slope of eˣ is measured; it should be eˣ itself
errors = {}
for dtype in (np.float32, np.float64):
    x = places.astype(dtype)
    estimates = [
        (np.exp(x + dtype(eps)) - np.exp(x - dtype(eps))) / dtype(2 * eps) for eps in epsilons
    ]
    errors[dtype.__name__] = np.sqrt(
        [np.mean((estimate / np.exp(places) - 1) ** 2) for estimate in estimates]
    )

figure, ax = plot.subplots(height=2.8)
for (name, error), marker in zip(errors.items(), "os"):
    ax.loglog(epsilons, error, marker=marker, markersize=4, label=name)
ax.set_xlabel("ε")
ax.set_ylabel("relative error of the slope")
ax.legend()
best = {name: (epsilons[error.argmin()], error.min()) for name, error in errors.items()}
for name, (eps, error) in best.items():
    print(f"{name}: best ε about {eps:.0e}, where the slope is right to {error:.0e}")
assert best["float64"][1] < 1e-8 < 1e-6 < best["float32"][1]
figure

# %% [markdown]
r"""
In single precision the best that finite differences can do would hide real mistakes. So gradients are checked in
double precision, and then used in single.

## Broadcasting

$y = x + b$ with $x$ of shape $(N, D)$ and $b$ of shape $(D)$: NumPy uses $b$ again for every row,
$y_{nd} = x_{nd} + b_d$. The element $b_d$ occurs in $N$ outputs, so by rule 2

$$\frac{dL}{db_d} = \sum_n \frac{dL}{dy_{nd}}.$$

What was copied on the way forward is summed on the way back. Axes that broadcasting added, or stretched from length
1, are summed away; the shape of $b$ comes out again.
"""

# %%
x, b = rng.standard_normal((3, 4)), rng.standard_normal(4)
try:
    largest_error(add, x, b)
except AssertionError as error:
    print("before:", error)


def unbroadcast(grad, shape):
    """Sum the gradient of a broadcast array back to the array's own shape."""
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)  # an axis that was added in front
    for axis, length in enumerate(shape):
        if length == 1 and grad.shape[axis] != 1:
            grad = grad.sum(axis=axis, keepdims=True)  # an axis that was stretched
    return grad


def add(a, b):
    return Value(a.data + b.data, Node((a, b), add_backward, (a.data.shape, b.data.shape)))


def add_backward(grad, a_shape, b_shape):
    return unbroadcast(grad, a_shape), unbroadcast(grad, b_shape)


def mul_backward(grad, a, b):
    return unbroadcast(grad * b, a.shape), unbroadcast(grad * a, b.shape)


for shapes in [((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1))]:
    x, b = (rng.standard_normal(shape) for shape in shapes)
    print(
        f"{shapes[0]} with {shapes[1]}: add {largest_error(add, x, b):.0e}, mul {largest_error(mul, x, b):.0e}"
    )
    assert max(largest_error(add, x, b), largest_error(mul, x, b)) < 1e-7

# %% [markdown]
r"""
## Reduction and indexing

A **sum** is broadcasting's mirror image: $y = \sum_n x_n$ has slope 1 along each $x_n$, so each receives a copy of
$dL/dy$. What was summed forward is copied back.

**Indexing**, $y = x[\text{ids}]$, picks rows of a table. This is how a language model turns token numbers into
vectors. Row $v$ of the table gets the gradients of all outputs that were copied from it:
$dL/dx_v = \sum_{n:\,\text{ids}_n = v} dL/dy_n$. A row may be picked several times, and here NumPy has a trap.
"""

# %%
ids = np.array([0, 2, 2, 2])
wrong, right = np.zeros(3), np.zeros(3)
wrong[ids] += 1.0  # reads, adds and writes once for each distinct index
np.add.at(right, ids, 1.0)  # adds for each occurrence
print("wrong[ids] += 1 gives", wrong, "  np.add.at gives", right)
assert wrong[2] == 1 and right[2] == 3


def sum_rows(x):
    return Value(x.data.sum(axis=0), Node((x,), sum_rows_backward, (x.data.shape,)))


def sum_rows_backward(grad, shape):
    return (np.broadcast_to(grad, shape),)


def pick(x, ids):
    return Value(x.data[ids], Node((x,), pick_backward, (ids, x.data.shape)))


def pick_backward(grad, ids, shape):
    dx = np.zeros(shape)
    np.add.at(dx, ids, grad)
    return (dx,)


def pick_ids(x):
    return pick(x, ids)


table = rng.standard_normal((3, 4))
print(f"sum_rows: {largest_error(sum_rows, table):.0e}, pick: {largest_error(pick_ids, table):.0e}")
assert max(largest_error(sum_rows, table), largest_error(pick_ids, table)) < 1e-7

# %% [markdown]
r"""
## The matrix product

$Y = AB$ with $A\,(N, K)$ and $B\,(K, M)$ gives $Y\,(N, M)$: $\;y_{nm} = \sum_k a_{nk}\, b_{km}$. The element $a_{nk}$
occurs in row $n$ of $Y$, once in each column $m$, each time with the factor $b_{km}$:

$$\frac{dL}{da_{nk}} = \sum_m \frac{dL}{dy_{nm}}\, b_{km}
\quad\Longrightarrow\quad \underset{(N,K)}{\frac{dL}{dA}} = \underset{(N,M)}{\frac{dL}{dY}}\;\underset{(M,K)}{B^\top},
\qquad \underset{(K,M)}{\frac{dL}{dB}} = \underset{(K,N)}{A^\top}\;\underset{(N,M)}{\frac{dL}{dY}} .$$

If you forget it: only one arrangement of the factors has shapes that fit. Both sides are matrix products of the
forward's size, so the backward costs **two** products for the forward's one. Nearly all of training's time is spent
in these lines.
"""


# %%
def matmul(a, b):
    return Value(a.data @ b.data, Node((a, b), matmul_backward, (a.data, b.data)))


def matmul_backward(grad, a, b):
    return grad @ b.T, a.T @ grad


A, B = rng.standard_normal((3, 5)), rng.standard_normal((5, 2))
print(f"matmul: {largest_error(matmul, A, B):.0e}")
assert largest_error(matmul, A, B) < 1e-7

# %% [markdown]
r"""
## Softmax with cross-entropy

A language model ends in a vector of **logits** $x$, one number for each of the $V$ tokens that could come next.
**Softmax** makes probabilities of them, $p_j = e^{x_j} / \sum_k e^{x_k}$: all positive, sum 1. If the token that
really came was $c$, the loss is the **cross-entropy** $\ell = -\ln p_c$: zero if the model was sure of $c$, large if
it thought $c$ impossible. Insert softmax and the logarithm removes the fraction:

$$\ell = \ln\sum_k e^{x_k} - x_c, \qquad
\frac{d\ell}{dx_j} = \frac{e^{x_j}}{\sum_k e^{x_k}} - [j = c] = p_j - [j = c],$$

where $[j = c]$ is 1 if $j$ is the target, else 0. The gradient is simply *what the model said minus what was true*:
push the target up by what it lacks, push every other token down by the probability it took. For $N$ rows with a mean
over them, each row's gradient is divided by $N$. (In code the largest logit is subtracted first: it cancels in the
fraction, and without it $e^{x}$ overflows.)
"""


# %%
def cross_entropy(logits, targets):
    """Mean of −ln softmax(logits)[target] over the rows: logits (N, V), targets (N,) -> one number."""
    rows = np.arange(len(targets))
    shifted = logits.data - logits.data.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    p /= total  # (N, V)
    losses = np.log(total[:, 0]) - shifted[rows, targets]  # (N,)
    return Value(losses.mean(), Node((logits,), cross_entropy_backward, (p, targets)))


def cross_entropy_backward(grad, p, targets):
    dlogits = p.copy()
    dlogits[np.arange(len(targets)), targets] -= 1
    return (grad * dlogits / len(targets),)


targets = np.array([3, 0, 3])


def cross_entropy_of_targets(logits):
    return cross_entropy(logits, targets)


logits = rng.standard_normal((3, 5))
print(f"cross_entropy: {largest_error(cross_entropy_of_targets, logits):.0e}")
assert largest_error(cross_entropy_of_targets, logits) < 1e-7

# %%
words = ["cat", "dog", "mat", "sat", "the"]
x = Value(np.array([[1.0, 2.5, 0.5, 1.5, -1.0]]))
backward(cross_entropy(x, np.array([3])))
p = np.exp(x.data[0]) / np.exp(x.data[0]).sum()

figure, (left, right) = plot.subplots(1, 2, height=2.5)
left.bar(words, p, color=plot.BLUE)
left.set_ylabel("probability p")
right.bar(words, x.grad[0], color=[plot.VERMILION if g > 0 else plot.GREEN for g in x.grad[0]])
right.axhline(0, color="black", linewidth=0.8)
right.set_ylabel("gradient p − [target]")
right.set_title("the next word was “sat”", fontsize=10)
print(
    f"the gradients of one row add up to {abs(x.grad.sum()):.0e}: what the target gains, the others lose"
)
assert np.argmin(x.grad) == 3 and abs(x.grad.sum()) < 1e-12
figure

# %% [markdown]
r"""
## Layer norm

Deep networks train better when the vector of features at each position is brought to mean 0 and variance 1 before it
is used. For one row $x$ with $D$ features, learned scales $w$ and shifts $b$ of shape $(D)$:

$$\mu = \frac1D\sum_i x_i,\quad \sigma^2 = \frac1D\sum_i (x_i - \mu)^2,\quad
r = \frac{1}{\sqrt{\sigma^2 + \epsilon}},\quad
\hat x_i = (x_i - \mu)\, r,\quad y_i = \hat x_i w_i + b_i.$$

The backward looks frightening because $x_j$ reaches $\hat x_i$ on three paths: directly, through the mean, and
through the variance. Take them one at a time. The first two give
$\partial (x_i - \mu)/\partial x_j = [i = j] - \frac1D$. For the third,
$\partial\sigma^2/\partial x_j = \frac2D (x_j - \mu)$ (the part through $\mu$ vanishes because
$\sum_i (x_i - \mu) = 0$), and $\partial r/\partial \sigma^2 = -\frac12 r^3$, together
$\partial r/\partial x_j = -\frac1D\, r^2\, \hat x_j$. Product rule:

$$\frac{\partial \hat x_i}{\partial x_j} = r\Big([i=j] - \frac1D - \frac{\hat x_i \hat x_j}{D}\Big).$$

With $h_i = \frac{dL}{dy_i} w_i$, which is $dL/d\hat x_i$, sum over $i$:

$$\frac{dL}{dx} = r\,\big(h - \operatorname{mean}(h) - \hat x \operatorname{mean}(h\hat x)\big),\qquad
\frac{dL}{dw} = \sum_{\text{rows}} \frac{dL}{dy}\,\hat x,\qquad \frac{dL}{db} = \sum_{\text{rows}} \frac{dL}{dy}.$$

Read the first formula as geometry: from $h$, remove the part along $(1, 1, \dots)$ and the part along $\hat x$.
Shifting or stretching $x$ in these two directions does not change the output, so the gradient there must be zero.
"""


# %%
def layer_norm(x, w, b, eps=1e-5):
    """x (N, D), w and b (D,) -> (N, D)."""
    centred = x.data - x.data.mean(axis=1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)  # (N, 1)
    xhat = centred * r  # (N, D)
    return Value(xhat * w.data + b.data, Node((x, w, b), layer_norm_backward, (xhat, r, w.data)))


def layer_norm_backward(grad, xhat, r, w):
    h = grad * w
    dx = r * (h - h.mean(axis=1, keepdims=True) - xhat * (h * xhat).mean(axis=1, keepdims=True))
    return dx, (grad * xhat).sum(axis=0), grad.sum(axis=0)


x, w, b = rng.standard_normal((3, 6)), rng.standard_normal(6), rng.standard_normal(6)
print(f"layer_norm: {largest_error(layer_norm, x, w, b):.0e}")
assert largest_error(layer_norm, x, w, b) < 1e-7

grad = rng.standard_normal((3, 6))
out = layer_norm(Value(x), Value(w), Value(b))
dx, _, _ = layer_norm_backward(grad, *out.node.saved)
print("dL/dx along (1, 1, ...):", np.abs(dx.sum(axis=1)).max().round(12))
assert np.abs(dx.sum(axis=1)).max() < 1e-12

# %% [markdown]
r"""
## The library's version

These pieces make a small language model: pick a vector for each token, mix it by a matrix, add a bias, normalise,
compute logits against an output matrix, compare with the true next token. We run it on our `Value` and on the
library's `Tensor`, with the same numbers, and compare every gradient.
"""

# %%
V, D, N = 7, 6, 10  # vocabulary, features, tokens
shapes = {"table": (V, D), "W": (D, D), "bias": (D,)}
arrays = {name: rng.standard_normal(shape) * 0.5 for name, shape in shapes.items()}
arrays |= {"scale": np.ones(D), "shift": np.zeros(D), "out": rng.standard_normal((D, V))}
ids, targets = rng.integers(0, V, N), rng.integers(0, V, N)

ours = {name: Value(array.copy()) for name, array in arrays.items()}
h = add(matmul(pick(ours["table"], ids), ours["W"]), ours["bias"])
h = layer_norm(h, ours["scale"], ours["shift"])
our_loss = cross_entropy(matmul(h, ours["out"]), targets)
backward(our_loss)

theirs = {name: Parameter(array.copy()) for name, array in arrays.items()}
h = ops.embedding(ids, theirs["table"]) @ theirs["W"] + theirs["bias"]
h = ops.layer_norm(h, theirs["scale"], theirs["shift"])
their_loss = ops.cross_entropy(h @ theirs["out"], targets)
backward_order = [node.backward.__name__ for node in reversed(library_order(their_loss.node))]
their_loss.backward()

gap = max(np.abs(ours[name].grad - theirs[name].grad).max() for name in arrays)
print(f"loss: ours {our_loss.data:.12f}, the library's {their_loss.item():.12f}")
print(f"largest gap between two gradients: {gap:.0e}")
assert gap < 1e-12 and abs(our_loss.data - their_loss.item()) < 1e-12
print("the library called, in this order:")
print("\n".join(f"  {name}" for name in backward_order))

# %% [markdown]
r"""
The same design, then. What `minillm/tensor.py` (the walk) and `minillm/tensor_methods.py` (the ops) add to ours is
engineering:

| ours | the library | why |
| --- | --- | --- |
| `Value`, `Node` | `minillm.tensor.Tensor`, `minillm.tensor.Node` | checks shapes, errors that explain themselves |
| every parent gets a gradient | `needs` tells a backward which parents want one | no work for inputs that are data |
| graph stays | `Node.free` while walking | memory is given back during the walk |
| `sums[...] + g` | `minillm.tensor.add_gradient` adds in place where it owns the array | fewer temporary arrays |
| `pick` makes a zero array | `minillm.tensor_methods.Piece`: index and gradient | slicing a large array is cheap |
| `add(a, b)` | `a + b`, `a @ b`, `x.sum(dim=0)`, named as in PyTorch | the same model code runs on both |

> **Step into it.** Put a breakpoint on the line `their_loss.backward()` above (in VS Code, click left of the line and
> choose *Debug Cell*), and step into it. You arrive in `minillm.tensor.Tensor.backward`. Watch `order` shrink from
> the back and `grads` fill. Step into `node.backward(...)`: the first stop is
> `minillm.numpy_ops.losses.cross_entropy_backward`, whose `dlogits` is our $p - [j = c]$; then
> `minillm.tensor_methods.matmul_backward`, then `minillm.numpy_ops.normalization.layer_norm_backward` with the
> formula from above. One frame for each, nothing between: the list printed by the last cell is the list of your
> stops.
"""

# %% [markdown]
r"""
## Why a node saves arrays, never its own output

The backward of $\tanh$ needs the output: $dy/dx = 1 - y^2$. A tempting way to write it is a function that remembers
the output *object*. But then the object owns the function and the function owns the object: a **reference cycle**.
Python frees most things the moment nobody refers to them; cycles have to wait for the garbage collector, and
meanwhile their arrays, possibly gigabytes, stay. Below, 20 small graphs are built and dropped with the collector
switched off.
"""


# %%
class CyclicValue:
    """The tempting way: backward is a function that remembers `out` itself."""

    def __init__(self, data):
        self.data, self.grad, self.backward = data, 0.0, None

    def tanh(self):
        out = CyclicValue(np.tanh(self.data))

        def backward():
            self.grad = self.grad + out.grad * (1 - out.data**2)

        out.backward = backward  # out → backward → out
        return out


def tanh_backward(grad, y):
    return (grad * (1 - y * y),)


def tanh(x):
    y = np.tanh(x.data)
    return Value(y, Node((x,), tanh_backward, (y,)))  # the node holds the array y, not the Value


def cyclic_tanh(x):
    return x.tanh()


def megabytes_left_behind(make, tanh):
    tracemalloc.start()
    for _ in range(20):
        x = make(np.zeros(100_000))
        for _ in range(3):
            x = tanh(x)
    del x
    left = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return left


gc.collect()
gc.disable()
left = {
    "remembers its output": megabytes_left_behind(CyclicValue, cyclic_tanh),
    "saves arrays": megabytes_left_behind(Value, tanh),
}
gc.enable()
for name, megabytes in left.items():
    print(f"{name:22s} {megabytes:6.1f} MB left behind")
assert left["saves arrays"] < 1 < 10 < left["remembers its output"]

# %% [markdown]
r"""
## Experiment: what a gradient costs, and what it buys

The baseline is what we began with: finite differences, two evaluations for each weight. First the price. We take a
network of two $d\times d$ matrices and measure one evaluation (forward), one forward with backward, and, where it
does not take too long, the full set of finite differences.
"""


# %%
def network(x, w1, w2):
    return (((x @ w1).tanh() @ w2) ** 2).mean()


def seconds(action, repeats):
    action()  # once unmeasured: the first call prepares memory
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


weights, backward_cost, difference_cost = [], [], []
for d in WIDTHS:
    x = Tensor(rng.standard_normal((64, d)))
    w1, w2 = (Parameter(rng.standard_normal((d, d)) / d**0.5) for _ in range(2))

    def forward(x=x, w1=w1, w2=w2):
        with no_grad():
            return network(x, w1, w2).item()

    def forward_and_backward(x=x, w1=w1, w2=w2):
        network(x, w1, w2).backward()
        w1.grad = w2.grad = None

    one = seconds(forward, 20)
    weights.append(2 * d * d)
    backward_cost.append(seconds(forward_and_backward, 20) / one)
    if d <= 16:

        def differences(w1=w1, w2=w2, forward=forward):
            numerical_gradient(forward, w1.data), numerical_gradient(forward, w2.data)

        difference_cost.append(seconds(differences, 1) / one)

print(f"backward for {weights[-1]:,} weights costs as much as {backward_cost[-1]:.1f} evaluations")
most = weights[len(difference_cost) - 1]
print(
    f"finite differences for {most:,} weights cost as much as {difference_cost[-1]:.0f} evaluations"
)
assert max(backward_cost) < 20 < difference_cost[-1]

# %% [markdown]
r"""
Now what it buys. A network with one hidden layer learns the curve $\sin 3x$ from 64 points, in three ways with the
same **budget** of evaluations: gradient descent with backward (counted as 3 evaluations a step: matrix products
decide, and the backward has two for the forward's one), gradient descent with finite differences (2 for each weight),
and random search, which keeps a random change if it helps (1 each). Three different starts for each; the band reaches
from the best to the worst.
"""

# %%
inputs = Tensor(np.linspace(-2, 2, 64)[:, None])
curve = np.sin(3 * inputs.data)


def new_parameters(seed, hidden=16):
    r = np.random.default_rng(seed)
    return [
        Parameter(r.standard_normal(s) * 0.7) for s in ((1, hidden), (hidden,), (hidden, 1), (1,))
    ]


def curve_loss(parameters):
    w1, b1, w2, b2 = parameters
    return ops.mse_loss((inputs @ w1 + b1).tanh() @ w2 + b2, Tensor(curve))


def learn(method, seed):
    """Losses by number of evaluations used."""
    parameters = new_parameters(seed)
    size = sum(p.data.size for p in parameters)
    cost = {"backward": 3, "finite differences": 2 * size, "random search": 1}[method]
    optimizer, r = SGD(parameters, lr=0.03, momentum=0.9), np.random.default_rng(seed)

    def loss():
        with no_grad():
            return curve_loss(parameters).item()

    used, losses = [0], [loss()]
    while used[-1] + cost <= BUDGET:
        if method == "random search":
            before = [p.data for p in parameters]
            for p in parameters:
                p.data = p.data + 0.03 * r.standard_normal(p.shape)
            tried = loss()
            if tried > losses[-1]:
                for p, data in zip(parameters, before):
                    p.data = data
            losses.append(min(tried, losses[-1]))
        else:
            if method == "backward":
                optimizer.zero_grad()
                value = curve_loss(parameters)
                value.backward()
                losses.append(value.item())
            else:
                for p in parameters:
                    p.grad = numerical_gradient(loss, p.data)
                losses.append(loss())
            optimizer.step()
        used.append(used[-1] + cost)
    return np.array(used), np.array(losses)


methods = ("backward", "finite differences", "random search")
results = {method: [learn(method, seed) for seed in range(3)] for method in methods}
final = {method: np.array([losses[-1] for _, losses in runs]) for method, runs in results.items()}
for method, losses in final.items():
    print(f"{method:20s} final loss {losses.mean():.4f} ± {losses.std(ddof=1):.4f}")

# %%
figure, (price, use) = plot.subplots(1, 2, height=3.2)
price.loglog(weights, backward_cost, marker="o", label="forward + backward")
price.loglog(
    weights[: len(difference_cost)], difference_cost, marker="s", label="finite differences"
)
price.loglog(
    weights, [2 * n for n in weights], linestyle=":", color=plot.BLACK, label="2 per weight"
)
price.set_xlabel("weights")
price.set_ylabel("cost of all gradients, in evaluations")
price.legend(fontsize=8)
for (method, runs), style in zip(results.items(), ("-", "--", "-.")):
    used, losses = runs[0][0], np.stack([losses for _, losses in runs])
    (line,) = use.plot(used, losses.mean(axis=0), linestyle=style, label=method)
    use.fill_between(
        used, losses.min(axis=0), losses.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0
    )
use.set_yscale("log")
use.set_xlabel("evaluations used")
use.set_ylabel("loss")
use.legend(fontsize=8)
if SCALE != "smoke":
    assert final["backward"].max() < final["random search"].min()
    assert final["random search"].mean() < final["finite differences"].mean()
figure

# %% [markdown]
r"""
Left: the price of finite differences grows with the number of weights, two evaluations for each; the price of backward
stays at a few evaluations, however many weights there are. Right: what that means for learning. Finite differences
find the same direction, but on the same budget they can take few steps; even blind trial and error gets further here.
At a million weights there is no contest.

## Summary

- Forward records for each result its parents, a backward function and saved arrays. Backward walks the record from
  the loss, **in reverse topological order**, each value once, and applies the chain rule.
- Gradients **add up** where a value is used several times, and over several calls. Clear them between steps.
- $dL/dx$ has the shape of $x$. Write one output element by indices, differentiate, sum over the outputs in which the
  input occurs. What is copied forward is summed backward, and the other way round.
- matmul: $\;\frac{dL}{dY}B^\top$ and $A^\top\frac{dL}{dY}$. Softmax with cross-entropy: $p - [\text{target}]$. Layer
  norm: remove the mean and the part along $\hat x$.
- Check with finite differences in double precision and random output weights. Train in single precision.
- All gradients cost about as much as a few evaluations, whatever the number of weights. This makes deep learning
  possible.

Next: [03 · Text into tokens](03_tokens.ipynb) makes the integers that `pick` looked up;
[06 · Attention](06_attention.ipynb) derives the one op that is still missing from a GPT.

## Exercises

Write your answer into the cell in place of `...` or `None`, and run it: the check below your answer tells you what is
still wrong. Solutions are folded under each exercise.
"""

# %% [markdown]
r"""
### Exercise 1: a kink (easy, 5 minutes)

`relu` keeps positive numbers and replaces negative ones by zero: $y = \max(x, 0)$. Write its backward. It gets `grad`
$= dL/dy$ and the saved `x`, and returns a tuple with one array, $dL/dx$.
"""


# %% tags=["exercise"]
def relu_backward(grad, x):
    return None


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))


with check():
    answer = relu_backward(np.ones(2), np.array([-1.0, 2.0]))
    assert answer is not None, (
        "relu_backward returns nothing yet: return a tuple with one array, (dL/dx,)."
    )
    assert isinstance(answer, tuple) and len(answer) == 1, (
        "Return a tuple with one entry per parent: (dL/dx,)."
    )
    assert largest_error(relu, rng.standard_normal((4, 5))) < 1e-7, (
        "The numbers differ from finite differences."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

The slope is 1 where $x > 0$ and 0 where $x < 0$ (at exactly 0 any value between will do; 0 is customary).

```python
def relu_backward(grad, x):
    return (grad * (x > 0),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))
```

</details>
"""

# %% [markdown]
r"""
### Exercise 2: running sums (medium, 10 minutes)

`np.cumsum` gives $y_i = \sum_{j \le i} x_j$. In which outputs does $x_j$ occur? Write the backward without a Python
loop. It saves nothing.
"""


# %% tags=["exercise"]
def cumsum_backward(grad):
    return None


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))


with check():
    answer = cumsum_backward(np.array([1.0, 0.0, 0.0]))
    assert answer is not None, (
        "cumsum_backward returns nothing yet: return a tuple with one array, (dL/dx,)."
    )
    assert np.array_equal(answer[0], [1, 0, 0]), (
        f"If only y₀ counts (grad = [1, 0, 0]), then only x₀ matters, since y₀ = x₀; you return {answer[0]}."
    )
    assert largest_error(cumsum, rng.standard_normal(6)) < 1e-7, (
        "The numbers differ from finite differences."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

$x_j$ occurs in every $y_i$ with $i \ge j$, so $dL/dx_j = \sum_{i \ge j} dL/dy_i$: a running sum from the other end.

```python
def cumsum_backward(grad):
    return (np.cumsum(grad[::-1])[::-1],)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))
```

</details>
"""

# %% [markdown]
r"""
### Exercise 3: find the bugs (medium, 15 minutes)

Three colleagues wrote the backward of the matrix product. All three have tried theirs on one example and are content.
Which of them are wrong? Use `largest_error` with shapes of your choice, and put the names of the wrong ones into the
set `wrong`. For one of them, ask yourself why its author's example did not show it.
"""


# %% tags=["exercise"]
def ada(grad, a, b):  # tried with b = the unit matrix
    return grad @ b, a.T @ grad


def ben(grad, a, b):  # tried with a (3, 4) and b (4, 2)
    return (b @ grad.T).T, (grad.T @ a).T


def cho(grad, a, b):  # tried with a (1, 4) and b (4, 1)
    return grad.sum() * b.T, grad.sum() * a.T


def matmul_of(colleague):
    def op(a, b):
        return Value(a.data @ b.data, Node((a, b), colleague, (a.data, b.data)))

    return op


wrong = set()  # for example {"ada", "cho"}

with check():
    assert wrong, (
        "Name at least one: try largest_error(matmul_of(ada), a, b) with b square, but not the unit matrix."
    )
    assert "ben" not in wrong, (
        "ben's formulas look unusual; are his numbers wrong? (Transpose his products.)"
    )
    assert wrong == {"ada", "cho"}, "There is one more. Try a and b of several rows and columns."

# %% [markdown]
r"""
<details><summary>Solution</summary>

`ada` forgot to transpose `b`. With the unit matrix, $B = B^\top$, so her example could not show it. `cho` wrote the
case $N = M = 1$, in which `grad` has one element. `ben` is right: $(B\,G^\top)^\top = G B^\top$ and
$(G^\top A)^\top = A^\top G$. The lesson:
check with random numbers and several rows and columns. (With sizes that all differ, `ada` and `cho` give themselves
away even sooner, by the wrong shape.)

```python
def ada(grad, a, b):
    return grad @ b, a.T @ grad


def ben(grad, a, b):
    return (b @ grad.T).T, (grad.T @ a).T


def cho(grad, a, b):
    return grad.sum() * b.T, grad.sum() * a.T


def matmul_of(colleague):
    def op(a, b):
        return Value(a.data @ b.data, Node((a, b), colleague, (a.data, b.data)))

    return op


a, b = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))  # here all shapes fit: only numbers can tell
wrong = {c.__name__ for c in (ada, ben, cho) if largest_error(matmul_of(c), a, b) > 1e-7}
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: your own op (hard, 25 minutes)

Llama replaces layer norm by **RMS norm**: no mean is subtracted, and there is no shift. For a row $x$ with $D$
features and scales $w$ of shape $(D)$,

$$r = \frac{1}{\sqrt{\frac1D\sum_i x_i^2 + \epsilon}},\qquad \hat x_i = x_i\, r,\qquad y_i = \hat x_i\, w_i.$$

Derive $dL/dx$ and $dL/dw$ along the lines of layer norm (which of the three paths is left?) and write the backward.
The check compares with finite differences and with the library's `minillm.ops.rms_norm`.
"""


# %% tags=["exercise"]
def rms_norm_backward(grad, xhat, r, w):
    """grad and xhat (N, D), r (N, 1), w (D,) -> dL/dx (N, D) and dL/dw (D,)"""
    return None, None


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))


with check():
    x, w, grad = rng.standard_normal((3, 6)), rng.standard_normal(6), rng.standard_normal((3, 6))
    dx, dw = rms_norm_backward(grad, *rms_norm(Value(x), Value(w)).node.saved)
    assert dx is not None and dw is not None, (
        "Return two arrays, dL/dx of shape (N, D) and dL/dw of shape (D,)."
    )
    assert dw.shape == w.shape, f"dL/dw has shape {dw.shape}, but w {w.shape}: sum over the rows."
    tx, tw = Parameter(x), Parameter(w)
    ops.rms_norm(tx, tw).backward(grad)
    assert np.abs(dw - tw.grad).max() < 1e-9, (
        "dL/dw differs from the library's. Each w_i meets x̂_i in every row."
    )
    assert np.abs(dx - tx.grad).max() < 1e-9, (
        "dL/dx differs from the library's: is the path through r in it?"
    )
    assert largest_error(rms_norm, x, w) < 1e-7, "The numbers differ from finite differences."

# %% [markdown]
r"""
<details><summary>Solution</summary>

No mean, so no path through $\mu$: $\partial\hat x_i/\partial x_j = r\,([i = j] - \hat x_i\hat x_j / D)$, and with
$h = \frac{dL}{dy}w$ this gives $dL/dx = r\,(h - \hat x\operatorname{mean}(h\hat x))$: layer norm's formula without
its second term.

```python
def rms_norm_backward(grad, xhat, r, w):
    h = grad * w
    dx = r * (h - xhat * (h * xhat).mean(axis=1, keepdims=True))
    return dx, (grad * xhat).sum(axis=0)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))
```

</details>
"""
