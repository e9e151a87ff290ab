# %% [markdown]
r"""
# 02 · Tensors and autograd

A language model has thousands to billions of numbers inside. Training moves each of them a little in the direction
that makes the model's mistakes smaller. This chapter builds the machine that finds these directions, all of them at
once: **automatic differentiation**. It starts from a single number that remembers how it was computed, and ends at
the library's `Tensor`, whose gradients it reproduces up to rounding.

**Afterwards you can** derive the backward of an op with shapes, write it and check it; say why gradients add up, why
the order matters, and what training keeps in memory; find your way in `minillm/tensor.py` and
`minillm/tensor_methods.py`.

**You need** Python, a little NumPy, what a derivative is and how matrices are multiplied.
"""

# %%
import gc
import tracemalloc

import numpy as np
from minillm import ops, plot, workshop
from minillm.tensor import Parameter
from minillm.tensor import topological_order as library_order
from minillm.workshop import as_plain, check, gradients, progress, read_scale, show_versions

SCALE = read_scale()  # "smoke", "cpu" or "gpu": how much to compute

# For the experiment at the end: evaluations that each way of learning may use, and the widths of
# the network that is timed.
BUDGET = {"smoke": 600, "cpu": 6_000, "gpu": 60_000}[SCALE]
WIDTHS = [2**i for i in range(2, {"smoke": 6, "cpu": 9, "gpu": 10}[SCALE])]

rng = np.random.default_rng(2)
show_versions(SCALE)

# %% [markdown]
r"""
## Why: which way should each number move?

Take a model with two numbers, a weight $w$ and a bias $b$. For an input $x$ it predicts $wx + b$; the right answer
would be $t$. How wrong it is, is measured by one number, the **loss**, here the squared error $L = (wx + b - t)^2$.
To make the loss smaller we need to know how fast it changes with $w$: its **derivative** or slope $dL/dw$. The most
direct way to find out is to try: move $w$ up and down by a tiny amount and see how much the loss changes.
"""


# %%
def loss_of(w, b, x=3.0, t=10.0):
    return (w * x + b - t) ** 2


w, b, nudge = 2.0, 1.0, 1e-6
slope_w = (loss_of(w + nudge, b) - loss_of(w - nudge, b)) / (2 * nudge)
slope_b = (loss_of(w, b + nudge) - loss_of(w, b - nudge)) / (2 * nudge)
print(f"loss {loss_of(w, b):.2f}")
print(f"dL/dw ≈ {slope_w:.3f}, dL/db ≈ {slope_b:.3f}")
assert slope_w < 0 and slope_b < 0

learning_rate = 0.01  # how far to move each number against its slope
better = loss_of(w - learning_rate * slope_w, b - learning_rate * slope_b)
print(f"after one step against them: loss {better:.2f}")
assert better < loss_of(w, b)

# %% [markdown]
r"""
Both slopes are negative: the loss falls when $w$ or $b$ grows. So the step *against* the slopes makes both larger,
and the loss smaller. Repeat this, and you have **gradient descent**; the **gradient** is all the slopes together.

Trying works, and we will use it to check everything below. But it evaluates the loss twice **for every weight**. A
model with a million weights would need two million evaluations for a single step. We want all slopes for the price of
a few evaluations.

## The idea: each step knows its own slope

Cut the computation into steps so small that the derivative of each is known. Then chain them: if $L$ changes $g$
times as fast as $y$, and $y$ changes $s$ times as fast as $x$, then $L$ changes $g\cdot s$ times as fast as $x$. This
is the **chain rule**,

$$\frac{dL}{dx} = \frac{dL}{dy}\cdot\frac{dy}{dx}.$$

If $x$ was used in two places, for $y$ and for $z$, then a small change of $x$ reaches $L$ on two paths, and the two
changes **add up**:

$$\frac{dL}{dx} = \frac{dL}{dy}\cdot\frac{dy}{dx} + \frac{dL}{dz}\cdot\frac{dz}{dx}.$$

So we start at the end, where $dL/dL = 1$, and walk back. Each step receives the slope of $L$ along its output,
multiplies it by its own slope along each of its inputs, and hands the results to them. Here is the whole walk for
$e = ab,\; d = e + a,\; L = e\cdot d$ at $a = 2,\; b = -3$. Both $a$ and $e$ are used twice.
"""

# %%
a, b = 2.0, -3.0
e = a * b
d = e + a
L = e * d
print(f"forward: e = {e}, d = {d}, L = {L}")

# Backward. The name dL_de stands for dL/de.
dL_dL = 1.0
dL_de, dL_dd = dL_dL * d, dL_dL * e  # L = e·d: slope d along e, slope e along d
print(f"L: dL/de = {dL_de} so far, dL/dd = {dL_dd}")
dL_de, dL_da = dL_de + dL_dd * 1, dL_dd * 1  # d = e + a: slope 1 along both
print(f"d: dL/de = {dL_de}, dL/da = {dL_da} so far")
dL_da, dL_db = dL_da + dL_de * b, dL_de * a  # e = a·b: slope b along a, slope a along b
print(f"e: dL/da = {dL_da}, dL/db = {dL_db}")

# The same without steps: L = ab(ab + a) = a²b² + a²b, differentiated along a and along b.
assert dL_da == 2 * a * b**2 + 2 * a * b and dL_db == 2 * a**2 * b + a**2

# %% [markdown]
r"""
The finished library does the same walk. A `Parameter` is a number (or an array) whose gradient we want;
`retain_graph=True` keeps the record of the computation, so that it can be drawn. Values flow to the right; blue boxes
are the parameters, with their gradients. The inner results show none: the library keeps them only during the walk, for
a reason that we will meet.
"""

# %%
a, b = Parameter(2.0), Parameter(-3.0)
e = a * b
d = e + a
L = e * d
L.backward(retain_graph=True)
assert (a.grad, b.grad) == (dL_da, dL_db)
plot.graph(L, {"a": a, "b": b, "e": e, "d": d, "L": L})

# %% [markdown]
r"""
## A number that remembers

Now we build it. To walk back we need a record of the way forward. Every result gets a **node** that stores

- its `parents`: the values it was computed from,
- a `backward` function: it is called as `backward(grad, *saved)`, where `grad` is $dL/d(\text{this result})$, and
  returns one gradient for each parent,
- the `saved` numbers that this function needs. The slope of $a\cdot b$ along $a$ is $b$, so a product saves both
  factors. The slope of $a + b$ is 1 along both, so a sum saves nothing.

The nodes with their parents form the **graph** of the computation. A forward and its backward stand together, here
and in the library.
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

The shortest way to write the walk is recursion: add what arrives to the value's own `grad`, and at once hand on its
effect to each parent. This follows every path from $L$ to a leaf separately and adds up what the paths bring, so the
numbers are right.
"""


# %%
def accumulate(value, grad):
    value.grad = grad if value.grad is None else value.grad + grad


def backward_every_path(value, grad=1.0):
    """Follows each path on its own. Returns how many values it has visited."""
    accumulate(value, grad)
    visits = 1
    if value.node is not None:
        parent_grads = value.node.backward(grad, *value.node.saved)
        for parent, g in zip(value.node.parents, parent_grads):
            visits += backward_every_path(parent, g)
    return visits


a, b = Value(2.0), Value(-3.0)
backward_every_path(example(a, b))
print(f"dL/da = {a.grad}, dL/db = {b.grad}")
assert (a.grad, b.grad) == (dL_da, dL_db)

# %% [markdown]
r"""
But there may be very many paths. Each step `y = add(y, y)` doubles their number, and we will soon count the visits.
We must visit each value **once**. When? A value may hand on its gradient only when that gradient is complete: after
**everything that was computed from it** has contributed. Visiting it earlier gives wrong numbers without any error:
"""


# %%
def backward_too_early(root):
    """Each value once, in the order in which they are met from the root: wrong."""
    root.grad = 1.0
    queue = [root]
    for value in queue:  # the queue grows while we walk along it
        if value.node is not None:
            parent_grads = value.node.backward(value.grad, *value.node.saved)
            for parent, g in zip(value.node.parents, parent_grads):
                accumulate(parent, g)
                if parent not in queue:
                    queue.append(parent)


a, b = Value(2.0), Value(-3.0)
backward_too_early(example(a, b))
print(f"dL/da = {a.grad}, dL/db = {b.grad}: wrong")
assert a.grad != dL_da and b.grad != dL_db

# %% [markdown]
r"""
Here $e$ was visited right after $L$, before $d$ had added its part to $e$'s gradient.

An order in which every value comes after its parents is called **topological**. Read it from the back: everything
that was computed from a value now comes before it, so its gradient is complete when its turn comes. To find such an
order, place a value as soon as all its parents are placed. The code below puts each value on a stack twice: first to
push its parents above it, and again (`True`) to be placed once they are done; a value met before is skipped. Recursion
would be shorter, but Python allows only about a thousand nested calls, and long computations have longer chains.
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
            if value.node is not None:
                stack += [(parent, False) for parent in value.node.parents]
    return order


def backward_once(root, grad=1.0):
    accumulate(root, grad)
    order = topological_order(root)
    for value in reversed(order):
        if value.node is not None:
            parent_grads = value.node.backward(value.grad, *value.node.saved)
            for parent, g in zip(value.node.parents, parent_grads):
                accumulate(parent, g)
    return len(order)


a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward_once(L)
print(f"dL/da = {a.grad}, dL/db = {b.grad}")
assert (a.grad, b.grad) == (dL_da, dL_db)
e, d = L.node.parents
plot.graph(L, {"a": a, "b": b, "e": e, "d": d, "L": L})

# %%
depths = list(range(1, 16))
visits = {"every path": [], "each value once": []}
for depth in depths:
    for name, walk in (("every path", backward_every_path), ("each value once", backward_once)):
        y = Value(1.0)
        for _ in range(depth):
            y = add(y, y)
        visits[name].append(walk(y))

for name, counts in visits.items():
    print(f"length {depths[-1]}, {name}: {counts[-1]:,} visits")
assert visits["every path"][-1] == 2 ** (depths[-1] + 1) - 1

start = y = Value(1.0)
for _ in range(5_000):
    y = add(y, start)
print(f"length 5,000, each value once: {backward_once(y):,}")  # and no recursion limit
assert start.grad == 5_001
gradients.visit_curves(depths, visits)

# %% [markdown]
r"""
The vertical axis is logarithmic. On it the straight line of "every path" is a doubling with every step; "each value
once" grows by one.

## Why a second `backward()` adds

`accumulate` adds because one value may be used in several places. By the same rule a second call adds to what the
first has left. For the leaves this is wanted. If the loss of a batch is the sum of its examples' losses, its gradient
is the sum of theirs: we can run the examples one after the other, and the gradients add up by themselves. But our
walk leaves sums in the *inner* values as well, and a second call on the same graph hands these leftovers on again:
"""

# %%
a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward_once(L)
first = a.grad
backward_once(L)
print(f"first call: dL/da = {first}")
print(f"second call: {a.grad}, not twice {first}")
assert a.grad != 2 * first


# %% [markdown]
r"""
So inner sums must not outlive the call. We keep them in a dictionary, by the identity (`id`) of the value, and write
`.grad` for leaves only. This is the version we keep, and it is how the library does it.

The library also *frees* the graph as it walks, to give memory back early. There a second call on the same graph raises
an error, unless the first was given `retain_graph=True`.
"""


# %%
def backward(root, grad=1.0):
    sums = {id(root): grad}  # for each value what has arrived so far
    for value in reversed(topological_order(root)):
        grad = sums.pop(id(value))  # complete, since everything computed from it has had its turn
        if value.node is None:
            accumulate(value, grad)
            continue
        parent_grads = value.node.backward(grad, *value.node.saved)
        for parent, g in zip(value.node.parents, parent_grads):
            key = id(parent)
            sums[key] = sums[key] + g if key in sums else g


a, b = Value(2.0), Value(-3.0)
L = example(a, b)
backward(L)
once = a.grad
backward(L)
print(f"the same graph, once: {once}, twice: {a.grad}")
assert a.grad == 2 * once

a.grad = b.grad = None  # clear, and run two "examples" one after the other
backward(example(a, b))
backward(mul(a, b))
one_by_one = (a.grad, b.grad)
a.grad = b.grad = None
backward(add(example(a, b), mul(a, b)))
print(f"one by one: {one_by_one}, their sum at once: {(a.grad, b.grad)}")
assert one_by_one == (a.grad, b.grad)

p = Parameter(2.0)
square = p * p
square.backward()
try:
    square.backward()
except RuntimeError as error:
    print("\nthe library, called twice:", error)

# %% [markdown]
r"""
Between two training steps the leaves' sums must be cleared, as `a.grad = None` does here. If that is forgotten, every
step follows the sum of all gradients since the start, and no error tells you.

## From numbers to arrays

Nothing above says that `data` is one number. Put NumPy arrays in, and `add` and `mul` work element by element,
forward and backward. One array op stands for thousands of scalar steps, which run in NumPy's compiled code instead
of Python. From now on `data` is an array.

We write $\frac{\partial y_i}{\partial x_j}$ (a **partial derivative**) for how fast the output's element $y_i$ changes
when only $x_j$ moves; for the slopes of $L$ we go on writing $d$. Two rules make the derivations below almost
mechanical:

1. **$dL/dx$ has the shape of $x$**: one slope for each element, because $L$ is one number.
2. To derive a backward, write **one element** of the output by its indices, differentiate it, and sum over every
   output element in which the input element occurs:

$$\frac{dL}{dx_j} = \sum_i \frac{dL}{dy_i}\,\frac{\partial y_i}{\partial x_j}.$$

The second rule is the chain rule with all paths added up. The code's `grad` holds the $dL/dy_i$.

Before we derive more, we need a check that does not share our mistakes. It is the one from the start: move each
element of $x$ up and down by $\varepsilon$ and see what $L$ does (**finite differences**). An op's output $y$ is an
array, so we make one number of it with fixed random weights: $L = \sum_i r_i y_i$, with $r$ of $y$'s shape. Then
$dL/dy = r$, and with this `grad` our `backward` must start. Why random? With all $r_i = 1$ all elements of `grad`
would be equal, and a backward that mixes them up would pass.
"""


# %%
def numerical_gradient(loss, x, eps=1e-6):
    """dL/dx for each element of x, by two evaluations each. x changes in place and is restored."""
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

    def loss():  # computes the op anew, so that it sees the moved element
        return float(np.sum(r * op(*(Value(array) for array in arrays)).data))

    errors = []
    for value in values:
        if np.shape(value.grad) != value.data.shape:
            raise AssertionError(
                f"a gradient has shape {np.shape(value.grad)}, its value {value.data.shape}"
            )
        errors.append(np.abs(value.grad - numerical_gradient(loss, value.data)).max())
    return max(errors)


def check_gradients(op, *arrays):
    error = largest_error(op, *arrays)
    print(f"{op.__name__} on {', '.join(str(a.shape) for a in arrays)}: error {error:.0e}")
    assert error < 1e-7


x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
check_gradients(mul, x, y)
kept = workshop.numerical_gradient(lambda: float(np.sin(x).sum()), x)  # what later chapters import
assert np.array_equal(kept, numerical_gradient(lambda: float(np.sin(x).sum()), x))


def swapped_backward(grad, a, b):  # mul's, with its two results exchanged by mistake
    return grad * a, grad * b


def mul_with_a_bug(a, b):
    return Value(a.data * b.data, Node((a, b), swapped_backward, (a.data, b.data)))


print(f"with a bug: error {largest_error(mul_with_a_bug, x, y):.1f}")
assert largest_error(mul_with_a_bug, x, y) > 1e-3

# %% [markdown]
r"""
With numbers of size about 1, a right backward differs from finite differences by hardly more than rounding. So the
limit can be strict: we take $10^{-7}$.

Why $\varepsilon = 10^{-6}$, and why numbers in double precision (`float64`) when models are trained in single
(`float32`) or less? Two errors pull in opposite directions. With a large $\varepsilon$ we measure the slope of a chord
instead of the curve's. With a small one we subtract two almost equal numbers, and the rounding errors of both remain.
"""

# %%
epsilons = 10.0 ** np.arange(-12, 0.1, 0.5)
places = np.linspace(0.5, 1.5, 50)  # where the slope of eˣ is measured; it should be eˣ itself
errors = {}
for dtype in (np.float32, np.float64):
    x = places.astype(dtype)
    errors[dtype.__name__] = []
    for eps in epsilons:
        estimate = (np.exp(x + dtype(eps)) - np.exp(x - dtype(eps))) / dtype(2 * eps)
        relative = estimate / np.exp(places) - 1
        errors[dtype.__name__].append(np.sqrt(np.mean(relative**2)))

best = {}
for name, error in errors.items():
    best[name] = (epsilons[np.argmin(error)], min(error))
    print(f"{name}: numbers are rounded by {np.finfo(name).eps:.0e},")
    print(f"  best ε {best[name][0]:.0e}, error of the slope {best[name][1]:.0e}")
assert best["float64"][1] < 1e-8 < 1e-6 < best["float32"][1]
assert 1e-7 < best["float64"][0] < 1e-4
gradients.error_curves(epsilons, errors)

# %% [markdown]
r"""
From right to left each curve first falls, as the chord comes closer to the curve, and then rises, as rounding takes
over. In double precision $10^{-6}$ is near the lowest point, and the error there is far below our limit. In single
precision even the lowest point is far above it. So gradients are checked in double precision, and then used in single.

## Broadcasting

$y = x + b$ with $x$ of shape $(N, D)$ and $b$ of shape $(D)$: NumPy uses $b$ again for every row,
$y_{nd} = x_{nd} + b_d$. The element $b_d$ occurs in $N$ outputs, each time with slope 1, so by rule 2

$$\frac{dL}{db_d} = \sum_n \frac{dL}{dy_{nd}}$$

The sum of $dL/dy$, $(N, D)$, over its rows has the shape $(D)$ of $b$. What was copied on the way forward is summed on
the way back. Our `add_backward` does not do that: it hands on `grad` of shape $(N, D)$ where $(D)$ is due. The cure
works for every op that broadcasts: sum over the axes that broadcasting added in front, and over those that it stretched
from length 1. This gives back the input's own shape.
"""

# %%
x, b = rng.standard_normal((3, 4)), rng.standard_normal(4)
try:
    check_gradients(add, x, b)
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


def mul_backward(grad, a, b):  # mul itself stays as it is: it finds this new version by its name
    return unbroadcast(grad * b, a.shape), unbroadcast(grad * a, b.shape)


for shapes in [((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1))]:
    x, b = (rng.standard_normal(shape) for shape in shapes)
    check_gradients(add, x, b)
    check_gradients(mul, x, b)

# %% [markdown]
r"""
## Reduction and indexing

A **sum** is broadcasting's mirror image. From $x$ of shape $(N, D)$ the sum over rows, $y_d = \sum_n x_{nd}$, has
shape $(D)$. Each $x_{nd}$ occurs in one output, with slope 1, so $dL/dx_{nd} = dL/dy_d$: what was summed forward is
copied back.

**Indexing**, $y = x[\text{ids}]$, picks rows of a table. This is how a language model turns the ids of $N$ tokens into
vectors: $x$ is $(V, D)$, a row for each token of the vocabulary, ids is $(N)$, and $y$ is $(N, D)$ with rows
$y_n = x_{\text{ids}_n}$. Row $v$ of the table occurs in every output row that was copied from it:

$$\underset{(D)}{\frac{dL}{dx_v}} = \sum_{n:\,\text{ids}_n = v} \underset{(D)}{\frac{dL}{dy_n}}.$$

A row may be picked several times, and here NumPy has a trap.
"""

# %%
ids = np.array([0, 2, 2, 2])
once_only, every_time = np.zeros(3), np.zeros(3)
once_only[ids] += 1.0  # reads all, adds 1, writes all: place 2 is set to 0 + 1 three times
np.add.at(every_time, ids, 1.0)  # reads, adds and writes for one index after the other
print("x[ids] += 1 gives    ", once_only)
print("np.add.at(x, ids, 1):", every_time)
assert once_only[2] == 1 and every_time[2] == 3


def sum_rows(x):
    return Value(x.data.sum(axis=0), Node((x,), sum_rows_backward, (x.data.shape,)))


def sum_rows_backward(grad, shape):
    return (np.broadcast_to(grad, shape),)  # one parent: a tuple with one gradient


def pick(x, ids):
    return Value(x.data[ids], Node((x,), pick_backward, (ids, x.data.shape)))


def pick_backward(grad, ids, shape):
    dx = np.zeros(shape)
    np.add.at(dx, ids, grad)
    return (dx,)


def pick_ids(x):  # the check wants a function of arrays that have slopes; whole numbers have none
    return pick(x, ids)


table = rng.standard_normal((3, 4))
check_gradients(sum_rows, table)
check_gradients(pick_ids, table)

# %% [markdown]
r"""
## The matrix product

$Y = AB$ with $A\,(N, K)$ and $B\,(K, M)$ gives $Y\,(N, M)$: $\;y_{nm} = \sum_k a_{nk}\, b_{km}$. The element $a_{nk}$
occurs in row $n$ of $Y$, once in each column $m$, each time with the factor $b_{km}$. The element $b_{km}$ occurs in
column $m$ of $Y$, once in each row $n$, with the factor $a_{nk}$:

$$\frac{dL}{da_{nk}} = \sum_m \frac{dL}{dy_{nm}}\, b_{km}, \qquad
\frac{dL}{db_{km}} = \sum_n a_{nk}\, \frac{dL}{dy_{nm}} .$$

Both are matrix products again, with a factor transposed so that the index of the sum stands on the inside:

$$\underset{(N,K)}{\frac{dL}{dA}} = \underset{(N,M)}{\frac{dL}{dY}}\;\underset{(M,K)}{B^\top}, \qquad
\underset{(K,M)}{\frac{dL}{dB}} = \underset{(K,N)}{A^\top}\;\underset{(N,M)}{\frac{dL}{dY}}$$

If you forget this, the shapes bring it back: when $N$, $K$ and $M$ differ, no other order of the two factors fits.
Each of the two takes as many multiplications as the forward, $N K M$. So for one matrix product a forward with its
backward has **three** times the multiplications of the forward alone. A whole network comes to somewhat less, about
two to three times: its first layer needs no gradient of the data, which saves one product, and not everything in it is
a matrix product. The experiment at the end measures it.
"""


# %%
def matmul(a, b):
    return Value(a.data @ b.data, Node((a, b), matmul_backward, (a.data, b.data)))


def matmul_backward(grad, a, b):
    return grad @ b.T, a.T @ grad


A, B = rng.standard_normal((3, 5)), rng.standard_normal((5, 2))
check_gradients(matmul, A, B)

# %% [markdown]
r"""
## Softmax with cross-entropy

A language model ends in a vector of **logits** $x$, one number for each of the $V$ tokens that could come next.
**Softmax** makes probabilities of them, $p_j = e^{x_j} / \sum_k e^{x_k}$: all positive, sum 1. If the token that
really came was $c$, the loss is the **cross-entropy** $\ell = -\ln p_c$: zero if the model was sure of $c$, large if
it thought $c$ nearly impossible. Insert softmax, and the logarithm removes the fraction:

$$\ell = -\ln \frac{e^{x_c}}{\sum_k e^{x_k}} = \ln\Big(\sum_k e^{x_k}\Big) - x_c .$$

Differentiate. The slope of a logarithm is one over its argument, and of the sum only $e^{x_j}$ moves with $x_j$:

$$\frac{\partial\ell}{\partial x_j} = \frac{e^{x_j}}{\sum_k e^{x_k}} - [j = c] = p_j - [j = c],$$

where $[j = c]$ is 1 if $j$ is the target, else 0. The gradient is *what the model said minus what was true*. A step
against it raises the target's logit in proportion to what its probability lacks to 1, and lowers each other logit in
proportion to the probability that it took.

A batch has $N$ rows: logits $(N, V)$, targets $(N)$. Its loss is the mean over the rows, so each row's gradient is
divided by $N$. One precaution in code: $e^x$ overflows for large $x$, so the row's largest logit is subtracted first.
That multiplies numerator and denominator by the same number, and $p$ does not change.
"""


# %%
def cross_entropy(logits, targets):
    """Mean of −ln softmax(logits)[target] over the rows: logits (N, V), targets (N,) -> a number"""
    rows = np.arange(len(targets))
    shifted = logits.data - logits.data.max(axis=1, keepdims=True)  # (N, V)
    exponentials = np.exp(shifted)  # (N, V)
    total = exponentials.sum(axis=1, keepdims=True)  # (N, 1)
    p = exponentials / total  # (N, V)
    losses = np.log(total[:, 0]) - shifted[rows, targets]  # (N,)
    return Value(losses.mean(), Node((logits,), cross_entropy_backward, (p, targets)))


def cross_entropy_backward(grad, p, targets):
    dlogits = p.copy()  # (N, V)
    dlogits[np.arange(len(targets)), targets] -= 1  # in each row one place, so no trap here
    return (grad * dlogits / len(targets),)


targets = np.array([3, 0, 3])


def cross_entropy_of(logits):
    return cross_entropy(logits, targets)


logits = rng.standard_normal((3, 5))
check_gradients(cross_entropy_of, logits)

# %%
words = ["cat", "dog", "mat", "sat", "the"]
x = Value(np.array([[1.0, 2.5, 0.5, 1.5, -1.0]]))
backward(cross_entropy(x, np.array([3])))
p = np.exp(x.data[0]) / np.exp(x.data[0]).sum()

print(f"the gradients of the row add up to {abs(x.grad.sum()):.0e}")
assert np.argmin(x.grad) == 3 and abs(x.grad.sum()) < 1e-12
gradients.said_and_pushed(words, p, x.grad[0], "sat")

# %% [markdown]
r"""
The bar of the target is the only one below zero: its logit will rise. The most probable wrong word is pushed down the
most. All bars together add up to zero, because $p$ adds up to 1 and so does $[j = c]$.

## Layer norm

Deep networks train better when the vector of features at each position is brought to mean 0 and variance 1 before it is
used ([Ba et al. 2016](https://arxiv.org/abs/1607.06450); chapter [07](07_the_transformer.ipynb) measures what goes
wrong without it). For one row $x$ with $D$ features, scales $w$ and shifts $b$ that are learned, both of shape $(D)$
and shared by all rows, and a tiny $\epsilon$ against division by zero:

$$\mu = \frac1D\sum_i x_i,\quad \sigma^2 = \frac1D\sum_i (x_i - \mu)^2,\quad
r = \frac{1}{\sqrt{\sigma^2 + \epsilon}},\quad
\hat x_i = (x_i - \mu)\, r,\quad y_i = \hat x_i w_i + b_i.$$

$\mu$, $\sigma^2$ and $r$ are one number for each row; $\hat x$ and $y$ have the shape of $x$. Begin with the last step.
$y_i$ has the slope $\hat x_i$ along $w_i$, 1 along $b_i$ and $w_i$ along $\hat x_i$; $w$ and $b$ occur in every row:

$$\frac{dL}{dw_i} = \sum_{\text{rows}} \frac{dL}{dy_i}\,\hat x_i,\qquad
\frac{dL}{db_i} = \sum_{\text{rows}} \frac{dL}{dy_i},\qquad
h_i := \frac{dL}{d\hat x_i} = \frac{dL}{dy_i}\, w_i .$$

For $N$ rows the first two are sums of $(N, D)$ over the rows, $(D)$ like $w$ and $b$; $h$ is $(N, D)$.

What remains is $\hat x$ as a function of $x$. It takes care because $x_j$ reaches $\hat x_i$ on three paths: directly,
through the mean $\mu$, and through $r$. The first two are in (with $[i = j]$ for 1 if $i = j$, else 0)

$$\frac{\partial (x_i - \mu)}{\partial x_j} = [i = j] - \frac1D .$$

For the third, first the variance. Rule 2 sums over all $i$; the $\frac1D$ drops out because $\sum_i (x_i - \mu) = 0$:

$$\frac{\partial\sigma^2}{\partial x_j} = \frac2D\sum_i (x_i - \mu)\Big([i = j] - \frac1D\Big) = \frac2D (x_j - \mu).$$

Then $r = (\sigma^2 + \epsilon)^{-1/2}$, whose slope along $\sigma^2$ is
$-\frac12 (\sigma^2 + \epsilon)^{-3/2} = -\frac12 r^3$:

$$\frac{\partial r}{\partial x_j} = -\frac12 r^3\cdot\frac2D (x_j - \mu) = -\frac{r^2}{D}\, \hat x_j .$$

The product rule for $\hat x_i = (x_i - \mu)\,r$ joins the paths, where once more $(x_i - \mu)\, r = \hat x_i$:

$$\frac{\partial \hat x_i}{\partial x_j} = \Big([i=j] - \frac1D\Big) r + (x_i - \mu)\Big(-\frac{r^2}{D}\hat x_j\Big)
= r\Big([i=j] - \frac1D - \frac{\hat x_i \hat x_j}{D}\Big).$$

By rule 2, multiply by $h_i$ and sum over $i$; the sums over $D$ elements divided by $D$ are means:

$$\frac{dL}{dx_j} = r\,\big(h_j - \operatorname{mean}(h) - \hat x_j \operatorname{mean}(h\,\hat x)\big).$$

The formula has a picture. From $h$ it removes the part along $(1, 1, \dots)$ and the part along $\hat x$. A step of
$x$ along the first shifts all features; a step along the second stretches them away from their mean. Layer norm undoes
both, so the output does not change, and the slope there must be zero (along $\hat x$ nearly, because of $\epsilon$).
"""


# %%
def layer_norm(x, w, b, eps=1e-5):
    """x (N, D), w and b (D,) -> (N, D)."""
    centred = x.data - x.data.mean(axis=1, keepdims=True)  # (N, D)
    r = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)  # (N, 1)
    xhat = centred * r  # (N, D)
    return Value(xhat * w.data + b.data, Node((x, w, b), layer_norm_backward, (xhat, r, w.data)))


def layer_norm_backward(grad, xhat, r, w):
    h = grad * w  # (N, D)
    mean_h = h.mean(axis=1, keepdims=True)  # (N, 1)
    mean_hx = (h * xhat).mean(axis=1, keepdims=True)  # (N, 1)
    dx = r * (h - mean_h - xhat * mean_hx)  # (N, D)
    return dx, (grad * xhat).sum(axis=0), grad.sum(axis=0)


x, w, b = rng.standard_normal((3, 6)), rng.standard_normal(6), rng.standard_normal(6)
check_gradients(layer_norm, x, w, b)

grad = rng.standard_normal((3, 6))
xhat, r, _ = layer_norm(Value(x), Value(w), Value(b)).node.saved
dx, _, _ = layer_norm_backward(grad, xhat, r, w)
along = {}
for name, vectors in (("h", grad * w), ("dL/dx", dx)):
    along[name] = (np.abs(vectors.mean(axis=1)).max(), np.abs((vectors * xhat).mean(axis=1)).max())
    print(f"{name:5s} along (1, 1, …): {along[name][0]:.0e}, along x̂: {along[name][1]:.0e}")
assert max(along["dL/dx"]) < 1e-3 < min(along["h"])

# %% [markdown]
r"""
## The library's version

These pieces make a small language model, one that sees a single token and predicts the next: pick a vector for the
token, multiply it by a matrix, add a bias, normalise, compute logits with an output matrix, compare with the true next
token. We run it on our `Value` and on the library's `Tensor` (a `Parameter` is a `Tensor` that wants a gradient), with
the same numbers, and compare the loss and every gradient.
"""


# %%
def our_loss(values, ids, targets):
    h = pick(values["table"], ids)  # (N, D)
    h = add(matmul(h, values["W"]), values["bias"])  # (N, D)
    h = layer_norm(h, values["scale"], values["shift"])  # (N, D)
    return cross_entropy(matmul(h, values["out"]), targets)


V, D, N = 7, 6, 10  # tokens in the vocabulary, features, tokens in the batch
shapes = {"table": (V, D), "W": (D, D), "bias": (D,), "scale": (D,), "shift": (D,), "out": (D, V)}
arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
ids, targets = rng.integers(0, V, N), rng.integers(0, V, N)

ours = {name: Value(array.copy()) for name, array in arrays.items()}
loss = our_loss(ours, ids, targets)
backward(loss)

theirs = {name: Parameter(array.copy()) for name, array in arrays.items()}
h = ops.embedding(ids, theirs["table"]) @ theirs["W"] + theirs["bias"]
h = ops.layer_norm(h, theirs["scale"], theirs["shift"])
their_loss = ops.cross_entropy(h @ theirs["out"], targets)
functions = [node.backward for node in reversed(library_order(their_loss.node))]
their_loss.backward()

gap = max(np.abs(ours[name].grad - theirs[name].grad).max() for name in arrays)
print(f"loss: ours {loss.data:.12f}\n   theirs {their_loss.item():.12f}")
print(f"largest gap between two gradients: {gap:.0e}")
assert gap < 1e-12 and abs(loss.data - their_loss.item()) < 1e-12
print("the library's walk called:")
print("\n".join(f"  {f.__name__} ({f.__module__.removeprefix('minillm.')})" for f in functions))
stops = ["cross_entropy_backward", "matmul_backward", "layer_norm_backward"]
assert [f.__name__ for f in functions[:3]] == stops  # as the box below says

# %% [markdown]
r"""
The design is the same. The formulas derived above stand as comments over the code that computes them:
`minillm.tensor_methods.unbroadcast` and `matmul_backward` below it, `minillm.numpy_ops.linear.embedding_backward`,
`minillm.numpy_ops.losses.cross_entropy_backward`, `minillm.numpy_ops.layer_norm.layer_norm_backward`. What
`minillm/tensor.py` (the walk) and `minillm/tensor_methods.py` (the ops) add is engineering:

- `minillm.tensor.Tensor` and `minillm.tensor.Node` check shapes and number formats, and their errors say what to do.
- `needs` tells a backward which parents want a gradient. Ours computes one for every parent, even for data.
- `Node.free` forgets parents and saved arrays as soon as the walk has passed: memory shrinks on the way back.
- `minillm.tensor.add_gradient` is our `sums[key] + g`. Where the sum is an array that it made itself, it adds in place.
  It must not write into a gradient that came in: our `add_backward`, too, may hand the *same* array to both parents.
- The backward of a slice, such as `x[2:5]`, returns a `minillm.tensor_methods.Piece`, an index with a gradient, instead
  of a large array that is zero almost everywhere. `ops.embedding` works like our `pick`.
- `a + b`, `a @ b`, `x.sum(dim=0)` stand in place of `add(a, b)`, with PyTorch's names and meaning, so that the same
  model also runs on PyTorch.

> **Step into it.** Put a breakpoint on the line `their_loss.backward()` above (in VS Code, click left of the line and
> choose *Debug Cell*), and step into it. You arrive in `minillm.tensor.Tensor.backward`. Watch `order` shrink from
> the back, and `grads` hold the sums that still wait for their turn.
>
> Step into the line with `node.backward(...)`. The first stop is `cross_entropy_backward`: its `dlogits` is our
> $p - [j = c]$, computed in the forward already, and `scale` is $1/N$. The next is `matmul_backward`, then
> `layer_norm_backward` with the formula from above. One frame for each, nothing between: the list that the cell has
> printed is the list of your stops.

## Why a node saves arrays, never its own output

The backward of $y = \tanh x$ is easiest with the output: the quotient rule gives $dy/dx = 1 - y^2$. A tempting way to
write it is a function that remembers the output *object*. But then the object owns the function and the function owns
the object: a **reference cycle**. Python frees most things the moment nobody refers to them; cycles wait for the
garbage collector. That starts after a certain number of new objects, however large they are, and until then their
arrays stay. Below, 20 small graphs are built and dropped with the collector switched off.
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


def tanh(x):
    y = np.tanh(x.data)
    return Value(y, Node((x,), tanh_backward, (y,)))  # the node holds the array y, not the Value


def tanh_backward(grad, y):
    return (grad * (1 - y * y),)


def megabytes_left_behind(make, function):
    tracemalloc.start()
    for _ in range(20):
        x = make(np.zeros(100_000))
        for _ in range(3):
            x = function(x)
    del x
    left = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return left


check_gradients(tanh, rng.standard_normal((3, 4)))
gc.collect()
gc.disable()
left = {
    "remembers its output": megabytes_left_behind(CyclicValue, CyclicValue.tanh),
    "saves arrays": megabytes_left_behind(Value, tanh),
}
gc.enable()
for name, megabytes in left.items():
    print(f"{name}: {megabytes:.1f} MB left behind")
assert left["saves arrays"] < 1 < 10 < left["remembers its output"]


def saved_numbers(root, leaves):
    """How many numbers the nodes have saved, without the leaves' own arrays, each array once."""
    arrays = {id(s): s for v in topological_order(root) if v.node for s in v.node.saved}
    own = {id(leaf.data) for leaf in leaves}
    return sum(s.size for key, s in arrays.items() if key not in own and isinstance(s, np.ndarray))


size = sum(value.data.size for value in ours.values())
print(f"\nthe model above has {size} weights and saves")
saved = []
for n in (10, 100, 1000):
    loss = our_loss(ours, rng.integers(0, V, n), rng.integers(0, V, n))
    saved.append(saved_numbers(loss, ours.values()))
    print(f"  {saved[-1]:,} numbers for {n} tokens")
assert saved[0] < saved[1] < saved[2] and size < saved[1]

# %% [markdown]
r"""
The second list answers what training keeps in memory: not only the weights, but for every token what the nodes have
saved. These arrays, often called *activations*, are why a larger batch or a longer text needs more memory.

Saving does not copy: the node holds the very arrays that are its parents' or its result's `data`. So nobody may write
into an array between the forward that saved it and the backward that reads it; the gradient would be wrong without any
error. Inside `minillm.debug.debug_mode` the library makes saved arrays read-only, and such a write raises at once.

## Experiment: what a gradient costs, and what it buys

The baseline is what we began with: finite differences, two evaluations for each weight. First the price. We take a
network of two $d\times d$ matrices on 64 rows, $\operatorname{mean}\big((\tanh(xW_1)\,W_2)^2\big)$, and measure the
time of one evaluation (a forward without a record, `no_grad`) and of a forward with backward. For finite differences we
count the evaluations, while they are not too many.
"""

# %%
weights = [2 * d * d for d in WIDTHS]
measured = [gradients.costs(d, rng) for d in progress(WIDTHS, "timing")]
backward_cost, difference_cost = zip(*measured)
difference_cost = [cost for cost in difference_cost if cost is not None]
most = weights[len(difference_cost) - 1]
print("the price of all gradients, in evaluations")
print(f"finite differences, {most:,} weights: {difference_cost[-1]:,.0f}")
print(f"forward + backward, {most:,} weights: {backward_cost[len(difference_cost) - 1]:.1f}")
print(f"forward + backward, {weights[-1]:,} weights: {backward_cost[-1]:.1f}")
assert np.median(backward_cost) < 20 < difference_cost[-1]
if SCALE != "smoke":  # in wide networks, where the matrix products decide, as announced
    assert 1.8 < np.median(backward_cost[-4:]) < 3.2

# %% [markdown]
r"""
Now what it buys. A network with one hidden layer, $\tanh(x w_1 + b_1)\, w_2 + b_2$, learns the curve $\sin 3x$ from 64
points, in three ways with the same **budget** of evaluations:

- gradient descent with backward, counted as 3 evaluations a step (generously: we have just measured less),
- gradient descent with finite differences, 2 for each weight,
- random search, which adds a random change to all weights and keeps it if the loss falls, 1 each.

Gradient descent is the library's `SGD`, in both cases with the same settings; its momentum lets a step go on in the
direction of the steps before. Each way has the same three starts. (The loop is `learn` in
`minillm.workshop.gradients`.)
"""

# %%
runs = [(method, seed) for method in gradients.METHODS for seed in range(3)]
results = {method: [] for method in gradients.METHODS}
for method, seed in progress(runs, "learning"):
    results[method].append(gradients.learn(method, seed, BUDGET))
final = {method: np.array([losses[-1] for _, losses in runs]) for method, runs in results.items()}
print("final loss of three starts ± sd; steps")
for method, losses in final.items():
    steps = len(results[method][0][1]) - 1
    print(f"{method:18s} {losses.mean():.4f} ± {losses.std(ddof=1):.4f} {steps:6,}")

by_backward, by_differences = (results[method][0][1] for method in gradients.METHODS[:2])
apart = np.abs(by_backward[: len(by_differences)] / by_differences - 1).max()
print(f"losses of the first two, step for step: equal to {apart:.0e}")
assert apart < 1e-3
if SCALE != "smoke":
    assert final["backward"].max() < final["random search"].min()
    assert final["random search"].max() < final["finite differences"].min()
gradients.price_and_use(weights, backward_cost, difference_cost, results)

# %% [markdown]
r"""
Above: the price of finite differences grows with the number of weights, two evaluations for each (dotted); the price of
backward stays at about two to three evaluations, however many weights there are. The matrix products alone would make
it 2.5: two forward and three backward, since the input $x$ wants no gradient. The $\tanh$ takes longer forward than
backward, which makes it a little less.

Below: what that means for learning, three starts each. Backward and finite differences take the same steps, as the last
printed line shows. But on the same budget finite differences can take only a few of them. Here even random search gets
further.

## Summary

- Forward records for each result its parents, a backward function and saved arrays. Backward walks the record from
  the loss, **in reverse topological order**, each value once, and applies the chain rule.
- Gradients **add up** where a value is used several times, and over several calls. Clear them between steps.
- $dL/dx$ has the shape of $x$. Write one output element by its indices, differentiate, sum over the outputs in which
  the input occurs. What is copied forward is summed backward, and the other way round.
- Matrix product: $\frac{dL}{dY}B^\top$ and $A^\top\frac{dL}{dY}$. Softmax with cross-entropy: $p - [\text{target}]$.
  Layer norm: remove from $h$ the mean and the part along $\hat x$, and scale by $r$.
- Nodes save arrays, not results. Saved arrays grow with the number of tokens, and nobody may write into them.
- Check with finite differences, in double precision, with random output weights.
- All gradients together cost about as much as a few evaluations, whatever the number of weights.

## Exercises

Put your answer in place of `None` and run the cell: the check below your answer tells you what is still wrong. The
solution is folded under each exercise.
"""

# %% [markdown]
r"""
### Exercise 1: a kink (easy, core, 5 minutes)

`relu` keeps positive numbers and replaces negative ones by zero: $y = \max(x, 0)$, for each element. Write its
backward. It gets `grad` $= dL/dy$ and the saved `x`, both of $x$'s shape, and returns a tuple with one array, $dL/dx$.
Like every backward it must not write into `grad`, which may belong to another parent as well.
"""


# %% tags=["exercise"]
def relu_backward(grad, x):
    return None


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))


with check():
    grad, x = np.ones(2), np.array([-1.0, 2.0])
    answer = relu_backward(grad, x)
    assert answer is not None, (
        "relu_backward returns nothing yet: return a tuple with one array, (dL/dx,)."
    )
    assert isinstance(answer, tuple | list) and len(answer) == 1, (
        "Return a tuple with one entry per parent: (dL/dx,). The comma makes it a tuple."
    )
    assert np.array_equal(grad, np.ones(2)), "Do not write into grad: compute a new array."
    assert np.array_equal(x, [-1, 2]), "Do not write into x: it is the parent's own array."
    assert np.shape(answer[0]) == (2,), f"dL/dx has shape {np.shape(answer[0])}, but x (2,)."
    for _ in range(3):
        x = rng.standard_normal((4, 5))
        x += 0.01 * np.sign(x)  # away from the kink, where there is no slope to compare with
        assert largest_error(relu, x) < 1e-7, (
            "The numbers differ from finite differences. What is the slope of relu at -1, and at 2? And what does a "
            "slope do with the dL/dy that arrives?"
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
### Exercise 2: running sums (medium, useful, 10 minutes)

For $x$ of shape $(N)$, `np.cumsum` gives $y_i = \sum_{j \le i} x_j$, also of shape $(N)$. In which outputs does $x_j$
occur? Write the backward, if you can without a Python loop. It saves nothing.
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
    assert isinstance(answer, tuple | list) and len(answer) == 1, (
        "Return a tuple with one entry per parent: (dL/dx,). The comma makes it a tuple."
    )
    first = np.array(as_plain(answer[0]))
    assert first.shape == (3,) and np.allclose(first, [1, 0, 0]), (
        f"If only y₀ counts (grad = [1, 0, 0]), then only x₀ matters, since y₀ = x₀; "
        f"you return {answer[0]}."
    )
    grad = rng.standard_normal(4)
    kept = grad.copy()
    cumsum_backward(grad)
    assert np.array_equal(grad, kept), "Do not write into grad: compute a new array."
    for size in (6, 1, 9):
        assert largest_error(cumsum, rng.standard_normal(size)) < 1e-7, (
            f"The numbers differ from finite differences (N = {size}). Write out y₀, y₁, y₂ and look for x₁."
        )

# %% [markdown]
r"""
<details><summary>Solution</summary>

$x_j$ occurs in every $y_i$ with $i \ge j$, each time with slope 1, so $dL/dx_j = \sum_{i \ge j} dL/dy_i$: a running sum
from the other end.

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
### Exercise 3: find the bugs (medium, core, 15 minutes)

Three colleagues wrote the backward of the matrix product. All three have tried theirs on one example and are content.
Not all of them are right. Write the test that tells: `is_right(colleague)` returns True or False for any such backward.
Use `largest_error` with arrays of your choice, as in `largest_error(matmul_of(ada), A, B)`. The check tries your test
on the three below and on ten more, some of them right and some wrong in other ways. (A wrong one may also raise an
error, and Python's `try` catches it.) Then ask yourself, for each of the wrong ones here, why its author's example did
not show it.
"""


# %% tags=["exercise"]
def ada(grad, a, b):  # tried with b = the identity matrix
    return grad @ b, a.T @ grad


def ben(grad, a, b):  # tried with a (3, 4) and b (4, 2)
    return (b @ grad.T).T, (grad.T @ a).T


def cho(grad, a, b):  # tried with a (1, 4) and b (4, 1)
    return grad.sum() * b.T, grad.sum() * a.T


def matmul_of(colleague):
    def op(a, b):
        return Value(a.data @ b.data, Node((a, b), colleague, (a.data, b.data)))

    return op


def is_right(colleague):
    return None


with check():
    assert is_right(matmul_backward) is not None, (
        "is_right returns nothing yet: return whether the largest error is small enough."
    )
    assert as_plain(is_right(matmul_backward)) == 1, (
        "Your test refuses the chapter's own matmul_backward, which is right. With numbers of size 1 the errors of a "
        "right one stay below 1e-7."
    )
    missed, refused = [], []
    for colleague, right, what in gradients.colleagues():
        try:
            verdict = bool(as_plain(is_right(colleague)))
        except Exception as error:
            raised = type(error).__name__
            raise AssertionError(
                f"Your test itself stops with {raised} at a colleague who {what}: take that for a verdict."
            ) from None
        if verdict != right:
            (refused if right else missed).append(what)
    assert not refused, f"Your test refuses a right one, who {refused[0]}."
    assert not missed, (
        f"Your test takes {len(missed)} wrong ones for right, among them one who {missed[0]}. "
        "Which arrays would show it?"
    )
    verdicts = [bool(as_plain(is_right(colleague))) for colleague in (ada, ben, cho)]
    assert verdicts == gradients.VERDICTS, (
        "It is right about the ten others, but not about ada, ben and cho. Try several rows and columns."
    )

# %% [markdown]
r"""
<details><summary>Solution</summary>

Random numbers, several rows and columns, and two pairs of shapes: with sizes that all differ, results of a wrong shape
show; with square matrices all shapes fit, so that the numbers have to tell. `ada` forgot to transpose `b`: with the
identity matrix, $B = B^\top$, so her example could not show it. `cho` wrote the case $N = M = 1$, in which `grad` has
one element. `ben` is right: with $G$ for `grad`, $(B\,G^\top)^\top = G B^\top$ and $(G^\top A)^\top = A^\top G$.

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


def is_right(colleague):
    for n, k, m in ((3, 4, 2), (3, 3, 3)):
        A, B = rng.standard_normal((n, k)), rng.standard_normal((k, m))
        try:
            if largest_error(matmul_of(colleague), A, B) > 1e-7:
                return False
        except (ValueError, AssertionError):  # shapes that do not fit
            return False
    return True
```

</details>
"""

# %% [markdown]
r"""
### Exercise 4: your own op (hard, core, 25 minutes)

Llama replaces layer norm by **RMS norm**: no mean is subtracted, and there is no shift. For a row $x$ with $D$
features and scales $w$ of shape $(D)$,

$$r = \frac{1}{\sqrt{\frac1D\sum_i x_i^2 + \epsilon}},\qquad \hat x_i = x_i\, r,\qquad y_i = \hat x_i\, w_i.$$

Derive $dL/dx$ and $dL/dw$ along the lines of layer norm (which of the three paths are left?) and write the backward.
The check compares with the library's `minillm.ops.rms_norm` and with finite differences.
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
    arrived = grad.copy()
    answer = rms_norm_backward(arrived, *rms_norm(Value(x), Value(w)).node.saved)
    assert isinstance(answer, tuple | list) and len(answer) == 2, (
        "Return a tuple of two arrays, dL/dx and dL/dw."
    )
    dx, dw = answer
    assert dx is not None and dw is not None, (
        "Return two arrays, dL/dx of shape (N, D) and dL/dw of shape (D,)."
    )
    assert np.array_equal(grad, arrived), "Do not write into grad: compute a new array."
    dx, dw = np.array(as_plain(dx)), np.array(as_plain(dw))
    assert dw.shape == w.shape, f"dL/dw is {dw.shape}, but w {w.shape}: sum over the rows."
    assert dx.shape == x.shape, f"dL/dx is {dx.shape}, but x {x.shape}: keepdims=True?"
    tx, tw = Parameter(x), Parameter(w)
    ops.rms_norm(tx, tw).backward(grad)
    assert np.abs(dw - tw.grad).max() < 1e-9, (
        "dL/dw differs from the library's. Each w_i meets x̂_i in every row."
    )
    assert np.abs(dx - tx.grad).max() < 1e-9, (
        "dL/dx differs from the library's. Which paths lead from x to x̂ here, and is each of them in it once?"
    )
    assert largest_error(rms_norm, x, w) < 1e-7, "The numbers differ from finite differences."

# %% [markdown]
r"""
<details><summary>Solution</summary>

There is no $\mu$, so two paths are left. With $m = \frac1D\sum_i x_i^2$ in place of the variance,
$\partial m/\partial x_j = \frac2D x_j$, and as before $\partial r/\partial x_j = -\frac{r^2}{D}\hat x_j$. The product
rule gives $\partial\hat x_i/\partial x_j = r\,([i = j] - \hat x_i\hat x_j / D)$. With $h_i = \frac{dL}{dy_i}w_i$ and
the sum over $i$, $\;dL/dx_j = r\,(h_j - \hat x_j\operatorname{mean}(h\hat x))$: layer norm's formula without its second
term.

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

# %% [markdown]
r"""
## Quick questions

**1.** A value is used in three places. How does the walk back get its gradient?

<details><summary>Answer</summary>

It adds up what the three places send back, and hands the sum on only when all three have sent theirs.

</details>

**2.** Why may the walk not simply go from the root to the parents, and to their parents, in the order in which it meets
them?

<details><summary>Answer</summary>

A value may be met before everything computed from it has had its turn. It would hand on an incomplete sum, and no error
would tell.

</details>

**3.** A bias of shape $(D)$ is added to $N$ rows. What is the shape of its gradient, and how is it computed?

<details><summary>Answer</summary>

$(D)$: the sum of $dL/dy\,(N, D)$ over the rows, because the bias was copied to each row.

</details>

**4.** Training needs far more memory than using the trained model. What for?

<details><summary>Answer</summary>

For what the nodes save, which grows with the number of tokens; also for the gradients, one for each weight.

</details>

**5.** A gradient check fails with an error of $10^{-3}$ in `float32`. What is the first thing to try?

<details><summary>Answer</summary>

The same in `float64`. In single precision even the best $\varepsilon$ leaves errors far above our limit.

</details>
"""

# %% [markdown]
r"""
## You can now

You can now derive the backward of an op with shapes, write it, check it, and find your way through the library's
engine.

**What you take along**: the check itself. `numerical_gradient` of this chapter is
`minillm.workshop.numerical_gradient`, with which later chapters check what they derive: chapter
[05](05_recurrent_networks.ipynb) the way back through time, chapter [06](06_attention.ipynb) attention. How far to step
along a gradient is a chapter of its own, [08](08_pretraining.ipynb), and in [15](15_the_same_model_on_pytorch.ipynb)
you find this engine again inside PyTorch. And the ids that `pick` looked up have to come from somewhere, which is next:
[03 · Text into tokens](03_tokens.ipynb).
"""
