"""Chapter 02's pictures and bookkeeping: what a gradient costs, what it buys, and colleagues who wrote one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from minillm import ops, plot
from minillm.engines.sgd import SGD
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.tensor import Parameter, Tensor, no_grad

from .stepping import numerical_gradient

METHODS = ("backward", "finite differences", "random search")


# --- what all gradients cost, in evaluations of the loss ----------------------------------------------------------


def network(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """x (64, d), w1 and w2 (d, d) -> a number."""
    return (((x @ w1).tanh() @ w2) ** 2).mean()


def seconds(*actions: Callable[[], Any], rounds: int) -> np.ndarray:
    """The shortest time of each, since other programs on the machine only make it longer."""
    times = np.zeros((rounds, len(actions)))
    for i in range(rounds):
        for k, action in enumerate(actions):  # in turn, so that a busy moment hits all of them
            start = time.perf_counter()
            action()
            times[i, k] = time.perf_counter() - start
    return times.min(axis=0)


def costs(d: int, rng: np.random.Generator) -> tuple[float, int | None]:
    """The price of all gradients of `network` in evaluations: by backward, and by finite differences if d ≤ 32."""
    x = Tensor(rng.standard_normal((64, d)))
    w1, w2 = (Parameter(rng.standard_normal((d, d)) / d**0.5) for _ in range(2))

    def forward() -> float:
        with no_grad():
            return network(x, w1, w2).item()

    def forward_and_backward() -> None:
        network(x, w1, w2).backward()
        w1.grad = w2.grad = None

    with limit_blas_threads(1):  # on one core, since waiting for a busy second one would count too
        one, both = seconds(forward, forward_and_backward, rounds=50)
    if d > 32:
        return both / one, None
    evaluations = 0

    def counted_forward() -> float:
        nonlocal evaluations
        evaluations += 1
        return forward()

    for w in (w1, w2):
        numerical_gradient(counted_forward, w.data)
    return both / one, evaluations


# --- what a gradient buys -----------------------------------------------------------------------------------------

POINTS = Tensor(np.linspace(-2, 2, 64)[:, None])  # (64, 1)
CURVE = Tensor(np.sin(3 * POINTS.data))  # (64, 1)


def new_parameters(seed: int, hidden: int = 16) -> list[Parameter]:
    """w1, b1, w2, b2 of a network with one hidden layer."""
    r = np.random.default_rng(seed)
    shapes = ((1, hidden), (hidden,), (hidden, 1), (1,))
    return [Parameter(0.7 * r.standard_normal(shape)) for shape in shapes]


def curve_loss(parameters: Sequence[Parameter]) -> Tensor:
    """The mean squared error of the network on the curve."""
    w1, b1, w2, b2 = parameters
    return ops.mse_loss((POINTS @ w1 + b1).tanh() @ w2 + b2, CURVE)


def learn(method: str, seed: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Learn the curve with one of METHODS: the evaluations used after each step, and the loss, both (steps + 1,)."""
    parameters = new_parameters(seed)
    size = sum(p.data.size for p in parameters)
    cost = {"backward": 3, "finite differences": 2 * size, "random search": 1}[method]
    optimizer, r = SGD(parameters, lr=0.03, momentum=0.9), np.random.default_rng(seed)

    def loss() -> float:
        with no_grad():
            return curve_loss(parameters).item()

    used, losses = [0], [loss()]
    while used[-1] + cost <= budget:
        before = [p.data.copy() for p in parameters]
        if method == "random search":
            for p in parameters:
                p.data += 0.03 * r.standard_normal(p.shape)
        elif method == "backward":
            optimizer.zero_grad()
            curve_loss(parameters).backward()
            optimizer.step()
        else:
            for p in parameters:
                p.grad = numerical_gradient(loss, p.data)
            optimizer.step()
        now = loss()  # for backward and finite differences only for the plot, so not counted
        if method == "random search" and now > losses[-1]:  # take the change back
            now = losses[-1]
            for p, data in zip(parameters, before):
                p.data = data
        used.append(used[-1] + cost)
        losses.append(now)
    return np.array(used), np.array(losses)


# --- exercise 3 ----------------------------------------------------------------------------------------------------


def colleagues() -> list[tuple[Callable[..., Any], bool, str]]:
    """Backwards of the matrix product as people have written them: each with whether it is right, and what it does."""

    def by_einsum(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.einsum("nm,km->nk", grad, b), np.einsum("nk,nm->km", a, grad)

    def row_by_row(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        da = np.stack([b @ row for row in grad])
        return da, sum(np.outer(x, row) for x, row in zip(a, grad))

    def half(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return 0.5 * grad @ b.T, a.T @ grad

    def second_untransposed(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return grad @ b.T, a @ grad

    def mean_over_rows(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return grad @ b.T, a.T @ grad / len(a)

    def without_grad(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.ones_like(grad) @ b.T, a.T @ np.ones_like(grad)

    def sign(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return grad @ b.T, -a.T @ grad

    def exchanged(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return a.T @ grad, grad @ b.T

    def reshaped(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return grad @ b.reshape(b.shape[::-1]), a.T @ grad

    def first_column(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.outer(grad[:, 0], b[:, 0]), a.T @ grad

    return [
        (by_einsum, True, "sums over indices by np.einsum"),
        (row_by_row, True, "goes row by row, with outer products"),
        (half, False, "halves dL/dA"),
        (second_untransposed, False, "takes A where Aᵀ is due"),
        (mean_over_rows, False, "divides dL/dB by the number of rows"),
        (without_grad, False, "forgets grad"),
        (sign, False, "turns the sign of dL/dB"),
        (exchanged, False, "returns its two results in the other order"),
        (reshaped, False, "reshapes B where it should be transposed"),
        (first_column, False, "uses only the first column"),
    ]


VERDICTS = [False, True, False]  # on ada, ben and cho, whom the chapter shows


# --- pictures ------------------------------------------------------------------------------------------------------


def visit_curves(depths: Sequence[int], visits: dict[str, list[int]]) -> Any:
    """Values visited against the length of a chain."""
    figure, ax = plot.subplots(height=3.0, width=5.5)
    for (name, counts), marker in zip(visits.items(), "os"):
        ax.plot(depths, counts, marker=marker, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("length of the chain y = y + y")
    ax.set_ylabel("values visited")
    ax.legend()
    return figure


def error_curves(epsilons: np.ndarray, errors: dict[str, list[float]]) -> Any:
    """The error of a slope by finite differences against ε, a line for each number format."""
    figure, ax = plot.subplots(height=3.0, width=5.5)
    for (name, error), marker in zip(errors.items(), "os"):
        ax.loglog(epsilons, error, marker=marker, markersize=4, label=name)
    ax.set_xlabel("ε")
    ax.set_ylabel("relative error of the slope")
    ax.legend()
    return figure


def said_and_pushed(words: Sequence[str], p: np.ndarray, gradient: np.ndarray, target: str) -> Any:
    """Two panels: the probabilities, and the gradients of the logits."""
    figure, (left, right) = plot.subplots(1, 2, height=2.8, width=5.5)
    left.bar(words, p, color=plot.BLUE)
    left.set_ylabel("probability p")
    left.set_title("what the model said", fontsize=10)
    right.bar(words, gradient, color=[plot.VERMILION if g > 0 else plot.GREEN for g in gradient])
    right.axhline(0, color="black", linewidth=0.8)
    right.set_ylabel("gradient p − [target]")
    right.set_title(f"the next word was “{target}”", fontsize=10)
    return figure


def price_and_use(
    weights: Sequence[int],
    backward_cost: Sequence[float],
    difference_cost: Sequence[int],
    results: dict[str, list[tuple[np.ndarray, np.ndarray]]],
) -> Any:
    """Above, the price of all gradients against the number of weights; below, the loss against evaluations used."""
    figure, (price, use) = plot.subplots(2, 1, height=6.0, width=5.5)
    price.loglog(weights, backward_cost, marker="o", label="forward + backward")
    price.loglog(weights[: len(difference_cost)], difference_cost, marker="s", label="finite differences")
    price.loglog(weights, [2 * n for n in weights], linestyle=":", color=plot.BLACK, label="2 for each weight")
    price.set_xlabel("weights")
    price.set_ylabel("price of all gradients\n(evaluations)")
    price.legend(fontsize=9)
    for (method, runs), style, color in zip(results.items(), ("-", "--", "-."), plot.CYCLE):
        for i, (used, losses) in enumerate(runs):
            use.plot(used, losses, linestyle=style, color=color, linewidth=1, label=method if i == 0 else None)
    use.set_yscale("log")
    use.set_xlabel("evaluations used; a line is one start")
    use.set_ylabel("loss")
    use.legend(fontsize=9)
    return figure
