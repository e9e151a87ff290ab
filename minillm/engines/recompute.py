"""Memory for time: compute a part of the model again in the backward pass instead of keeping what its derivative needs.

What training keeps is mostly what the nodes of the graph have saved: in each layer of a GPT, for every token, 16 times
`d_model` numbers and the attention weights. `checkpoint(function, *inputs)` has the nodes of a function save nothing.
What stays of a layer is its input, D numbers for each token. When the backward pass arrives there, the function runs a
second time, and its nodes get what they would have saved. With a checkpoint for each of L layers there are L inputs and
the arrays of one layer at a time, for nearly one forward pass more: a third of a step's work (Chen et al. 2016,
"Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, section 4; the word is Griewank's and Walther's,
2000).

    forward    x₀ → layer 1 → x₁ → layer 2 → x₂ → layer 3 → loss     kept: x₀, x₁, x₂
    backward   x₂ → layer 3 again → dL/dx₂    x₁ → layer 2 again → dL/dx₁    x₀ → layer 1 again → dL/dx₀

The gradient is the same to the last bit: the graph is that of the first pass, with the same nodes in the same order,
and the numbers are the same, since the same operations make them of the same inputs. (Those that are drawn, too: the
generator is set back for the second pass.)

With `keep=True` the two operations that take the time are not done twice: the results of matrix products (`linear`) and
of attention stay, about 10 of the 16 D, and what is between them is cheap: norms, activations, dropout, sums. Of
attention the weights are computed again, as many numbers as there are keys for each query. This is the "selective"
recomputation of Korthikanti et al. 2022 (arXiv 2205.05198, section 5): to drop what is large and soon made again.

The second pass ends with the last node that has saved something. In a layer of GPT that is the last product, whose own
result nobody needs: a third of the layer's products is spared by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, get_args, get_type_hints

import numpy as np

from .. import numpy_ops, ops
from ..debug import Frozen, guard, watching
from ..interpret.activations import wrapping
from ..nn import Module
from ..settings import EngineConfig
from ..tensor import Array, Node, Tensor, grad_enabled, records_graph

RECOMPUTE = get_args(get_type_hints(EngineConfig)["recompute"])


def checkpoint(
    function: Callable[..., Any],
    *inputs: Any,
    rng: np.random.Generator | None = None,
    keep: bool = False,
    **options: Any,
) -> Any:
    """`function(*inputs, **options)`, of whose graph nothing but the inputs is kept: it runs again in backward.

    `inputs` may be Tensors, lists, tuples and dictionaries of them, and anything else; the function may use parameters
    besides. Values and gradients are those of a plain call to the last bit. `rng` is the generator that the function
    draws from, if it does: both times it gives the same numbers. `keep`: the results of `ops.linear` and
    `ops.attention` are kept. Without a graph (under no_grad) this is a plain call.

    Between the two times nothing may change that the result depends on (weights, training mode), and the function may
    change nothing itself. Raises RuntimeError in the backward pass where it does other operations than it did at first.
    Chen et al. 2016, arXiv 1604.06174.
    """
    if not grad_enabled.get():
        return function(*inputs, **options)
    return Part(function, inputs, options, rng, keep).first()


class Part:
    """A part of the graph that is computed twice: what is needed for it, and what the second time has found."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple,
        options: dict[str, Any],
        rng: np.random.Generator | None,
        keep: bool,
    ) -> None:
        self.function, self.inputs, self.options, self.rng, self.keep = function, inputs, options, rng, keep
        self.state: Any = None if rng is None else rng.bit_generator.state  # from which the function draws
        self.steps: list[tuple[Any, tuple[int, ...]]] = []  # the nodes: their backward and the shape of their result
        self.last = -1  # the last of them that the second time is for
        self.kept: dict[int, Array] = {}  # number of a node -> its result
        self.saved: dict[int, Any] = {}  # number of a node -> what it saved the second time, until it is asked for
        self.frozen: Frozen | None = None  # of debug_mode()

    def first(self) -> Any:
        """The function's result. Every node that saves numbers gives them up at once, for a promise."""
        leaves: list[Array] = []

        def note(node: Node) -> None:
            i = len(self.steps)
            self.steps.append((node.backward, node.shape))
            leaves.extend(parent.data for parent in node.parents if isinstance(parent, Tensor))
            if holds_floats(node.saved):
                node.saved, self.last = Again(self, i), i

        with observed((note, *watching.get()), Keeping(self.steps, self.kept) if self.keep else numpy_ops):
            result = self.function(*self.inputs, **self.options)
        self.kept = {i: array for i, array in self.kept.items() if i < self.last}
        if guard in watching.get():  # debug mode: what the second pass begins with must not change before
            self.frozen = Frozen((*leaves, *arrays_in((self.inputs, self.options)), *self.kept.values()))
        return result

    def second(self) -> None:
        """Run the function again, up to the last node that has saved numbers, and collect what the nodes save."""
        nodes: list[Node] = []

        def collect(node: Node) -> None:
            i = len(nodes)
            if i >= len(self.steps) or (node.backward, node.shape) != self.steps[i]:
                raise RuntimeError(self.difference(i, node))
            nodes.append(node)
            if i == self.last:
                raise Finished

        state: Any = None if self.rng is None else self.rng.bit_generator.state
        enabled = grad_enabled.set(True)
        try:
            if self.rng is not None:
                self.rng.bit_generator.state = self.state
            with observed((collect,), Keeping(nodes, self.kept, self.last)):
                self.function(*self.inputs, **self.options)
            raise RuntimeError(self.difference(len(nodes), None))
        except Finished:
            self.saved = {i: node.saved for i, node in enumerate(nodes) if holds_floats(node.saved)}
        finally:
            grad_enabled.reset(enabled)
            if self.rng is not None:
                self.rng.bit_generator.state = state

    def difference(self, i: int, node: Node | None) -> str:
        """What to say where the two passes are not alike at the operation `i`."""
        steps: list[Any] = [self.steps[i] if i < len(self.steps) else None, node and (node.backward, node.shape)]
        was, now = (
            "none" if step is None else f"{step[0].__name__.removesuffix('_backward')} {step[1]}" for step in steps
        )
        return (
            f"checkpoint: run again for its gradient, {getattr(self.function, '__qualname__', self.function)} did "
            f"something else: operation {i}, {was}, is now {now}. It must depend on its inputs and on nothing that "
            "changes before backward(), such as training mode; give the generator that it draws from as rng=."
        )


class Again:
    """In the place of what a node has saved: it is computed again when the backward pass unpacks it."""

    __slots__ = ("i", "part")

    def __init__(self, part: Part, i: int) -> None:
        self.part, self.i = part, i

    def __iter__(self) -> Iterator[Any]:
        if self.i not in self.part.saved:
            self.part.second()
        return iter(self.part.saved.pop(self.i))


class Finished(BaseException):
    """The second pass has all it needs: what the function would still compute, nobody asks for."""


class Keeping:
    """The operations of numpy_ops, of which `linear` and `attention` note their results in `kept` by the number of
    their node, or take them from there. `last` is the number of the last node of a second pass: if that is a product,
    its result is not needed, and is not computed."""

    def __init__(self, nodes: list[Any], kept: dict[int, Array], last: int = -1) -> None:
        self.nodes, self.kept, self.last = nodes, kept, last

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy_ops, name)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found = None
        if records_graph(x, weight, *(() if bias is None else (bias,))):  # the next node will be its own
            found = self.kept.pop(len(self.nodes), None)
            if len(self.nodes) == self.last:
                found = np.empty((*x.shape[:-1], weight.shape[0]), x.dtype)
        return self.noted(numpy_ops.linear(x, weight, bias, found))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *how: Any) -> Tensor:
        found = self.kept.pop(len(self.nodes), None) if records_graph(q, k, v) else None
        return self.noted(numpy_ops.attention(*(q, k, v, *how, found)))

    def noted(self, result: Tensor) -> Tensor:
        """In a first pass: note the result of the node that was just made, if one was."""
        if self.last < 0 and result.node is not None:
            self.kept[len(self.nodes) - 1] = result.data
        return result


@contextmanager
def observed(watchers: tuple[Callable[[Any], None], ...], computes: Any) -> Iterator[None]:
    """Inside, each new node is shown to the watchers, and `computes` has the operations."""
    before, engine = watching.set(watchers), ops.computing.set(computes)
    try:
        yield
    finally:
        watching.reset(before)
        ops.computing.reset(engine)


def holds_floats(saved: Any) -> bool:
    """Whether a node has saved arrays that are large and can be computed again: ids, masks and shapes may stay."""
    return not isinstance(saved, tuple) or any(array.dtype.kind == "f" for array in arrays_in(saved))


def arrays_in(things: Any) -> Iterator[Array]:
    """All arrays in nested lists, tuples and dictionaries, those of Tensors included."""
    if isinstance(things, dict):
        things = tuple(things.values())
    if isinstance(things, (tuple, list)):
        for thing in things:
            yield from arrays_in(thing)
    elif isinstance(things, (np.ndarray, Tensor)):
        yield things.data if isinstance(things, Tensor) else things


# --- a model's layers ------------------------------------------------------------------------------------------------


def recomputing(how: str, model: Any) -> AbstractContextManager[None]:
    """Inside, the layers of a model keep nothing of what they compute but their inputs ("layers"), or that and the
    results of matrix products and attention ("selective"). "none": they are left alone. Gradients are the same to the
    last bit. Raises ValueError for another word."""
    if how not in RECOMPUTE:
        raise ValueError(f"recompute must be one of {', '.join(map(repr, RECOMPUTE))}, not {how!r}.")
    if how == "none":
        return nullcontext()
    layers = {str(i): block for i, block in enumerate(blocks(model))}
    return wrapping(layers, partial(compute_twice, model.rng, how == "selective"))


def compute_twice(rng: np.random.Generator, keep: bool, _: str, forward: Any, *inputs: Any, **options: Any) -> Any:
    return checkpoint(forward, *inputs, rng=rng, keep=keep, **options)


def blocks(module: Module) -> list[Module]:
    """A model's layers: the items of its outermost lists of modules."""
    found: list[Module] = []
    for value in vars(module).values():
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, Module)]
        elif isinstance(value, Module):
            found += blocks(value)
    return found
