"""Scaling laws: the loss as a function of parameters N and tokens D, fitted to runs, and what to buy with a budget.

Hoffmann et al. 2022 ("Chinchilla"), arXiv 2203.15556, two of its three ways. The parametric form (section 3.3):

    L(N, D) = E + A/N^α + B/D^β

E is what no model of this kind can predict, A/N^α what a model of N parameters can't hold, B/D^β what D tokens don't
tell. For a compute of C = 6ND operations, dL/dN = 0 along ND = C/6 gives

    N_opt = G (C/6)^a,  D_opt = (C/6)^b / G      with G = (αA/βB)^(1/(α+β)), a = β/(α+β), b = α/(α+β)

It is fitted as in the paper, in ln A, ln B and ln E, by the Huber loss of r = ln L̂ − ln L with δ = 10⁻³, from several
starts. Each step solves least squares, damped (Gauss–Newton; Levenberg & Marquardt), whose weights min(1, δ/|r|) make
Huber's loss of squares. IsoFLOP (section 3.2): runs of one compute, a parabola of the loss in ln N, its lowest point;
then a line through these, ln N_opt = a ln C + c.

How sure is it? Runs are drawn again with replacement, and all is fitted anew. That shows the scatter of these runs, not
whether the form holds beyond them; Besiroglu et al. 2024 (arXiv 2404.10102) found the intervals printed in the paper
far too narrow, and its E, α and β off. A law of one data set, tokenizer and architecture is a law of that one. A first
law, in N alone, is fitted and put to the test in chapters/08_pretraining.ipynb, these two ways with N and D in
chapters/17_training_at_real_size.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

Array = np.ndarray
DELTA = 1e-3  # of Huber's loss: what is further off than 0.1% counts by its size, not its square


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = E + A/N^α + B/D^β, in nats per token of the data that it was fitted to."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: Array | float, d: Array | float) -> Array:
        return self.E + self.A / np.asarray(n, dtype=np.float64) ** self.alpha + self.B / np.asarray(d) ** self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) with the least loss for a compute of 6ND = `flops` operations."""
        total = self.alpha + self.beta
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        return g * (flops / 6) ** (self.beta / total), (flops / 6) ** (self.alpha / total) / g


# The paper's own data, fitted again by Besiroglu et al. 2024, section 3.
CHINCHILLA = ScalingLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def fit_scaling_law(n: Sequence[float], d: Sequence[float], losses: Sequence[float]) -> ScalingLaw:
    """The law that fits the final losses of runs with `n` parameters and `d` tokens. At least 6 runs, of 3 sizes and 3
    lengths or more; otherwise ValueError, as for what is not positive."""
    x, y = as_rows(n, d, losses)
    if len(y) < 6 or len(set(x[:, 0])) < 3 or len(set(x[:, 1])) < 3:
        raise ValueError(f"fit_scaling_law: {len(y)} runs: give 6 or more, with 3 or more values of each of n and d.")
    starts = [first_guess(x, y, *exponents) for exponents in product(np.linspace(0.1, 1.0, 7), repeat=2)]
    starts = sorted(starts, key=lambda start: huber(residuals(start, x, y)))
    return as_law(min((descend(start, x, y) for start in starts[:6]), key=lambda p: huber(residuals(p, x, y))))


def as_rows(n: Sequence[float], d: Sequence[float], losses: Sequence[float]) -> tuple[Array, Array]:
    """(ln n, ln d) (runs, 2) and ln loss (runs,)."""
    given = [np.asarray(values, dtype=np.float64) for values in (n, d, losses)]
    if len({values.shape for values in given}) != 1 or given[0].ndim != 1 or not all((v > 0).all() for v in given):
        raise ValueError("a scaling law needs as many n, d and losses, all above 0.")
    return np.log(np.stack(given[:2], axis=1)), np.log(given[2])


def first_guess(x: Array, y: Array, alpha: float, beta: float) -> Array:
    """(a, b, e, α, β): for given exponents L is linear in A, B and E."""
    columns = np.stack([np.exp(-alpha * x[:, 0]), np.exp(-beta * x[:, 1]), np.ones(len(y))], axis=1)
    scale = columns.max(axis=0)
    found = np.linalg.lstsq(columns / scale / np.exp(y)[:, None], np.ones(len(y)), rcond=None)[0]
    return np.array([*np.log(np.maximum(found, 1e-3 * found.max()) / scale), alpha, beta])


def terms(p: Array, x: Array) -> Array:
    """ln of A/N^α, B/D^β and E, for each run (runs, 3)."""
    return np.stack([p[0] - p[3] * x[:, 0], p[1] - p[4] * x[:, 1], np.full(len(x), p[2])], axis=1)


def residuals(p: Array, x: Array, y: Array) -> Array:
    """ln L̂ − ln L (runs,)."""
    return np.logaddexp.reduce(terms(p, x), axis=1) - y


def huber(r: Array) -> float:
    size = np.abs(r)
    return float(np.where(size <= DELTA, r**2 / 2, DELTA * (size - DELTA / 2)).sum())


def descend(p: Array, x: Array, y: Array, steps: int = 300) -> Array:
    """The parameters from which no step lessens Huber's loss any more."""
    damping, value = 1e-3, huber(residuals(p, x, y))
    for _ in range(steps):
        r = residuals(p, x, y)
        share = np.exp(terms(p, x) - (r + y)[:, None])  # each term's part of L̂ (runs, 3): dlnL̂/d(ln term)
        jacobian = np.concatenate([share, -share[:, :2] * x], axis=1)  # (runs, 5)
        weighted = jacobian * np.minimum(1, DELTA / np.maximum(np.abs(r), 1e-300))[:, None]
        hessian, gradient = weighted.T @ jacobian, weighted.T @ r
        while damping < 1e9:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian) + 1e-12), gradient)
            new = huber(residuals(p - step, x, y))
            if new < value:
                break
            damping *= 4
        else:
            return p
        p, gain, value, damping = p - step, value - new, new, max(damping / 10, 1e-12)
        if gain < 1e-12 * value:
            return p
    return p


def as_law(p: Array) -> ScalingLaw:
    a, b, e, alpha, beta = map(float, p)
    return ScalingLaw(E=math.exp(e), A=math.exp(a), B=math.exp(b), alpha=alpha, beta=beta)


# --- IsoFLOP ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IsoFlop:
    """`optima` maps a compute to the parameters with the least loss; N_opt = c · C^exponent through all of them."""

    optima: dict[float, float]
    exponent: float
    c: float

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) for a compute of 6ND = `flops` operations."""
        n = self.c * flops**self.exponent
        return n, flops / 6 / n


def fit_isoflop(flops: Sequence[float], n: Sequence[float], losses: Sequence[float]) -> IsoFlop:
    """For each compute a parabola through its runs. Raises ValueError for a compute with fewer than 3 sizes, or whose
    parabola has no lowest point between the smallest and the largest, and where there are fewer than 2 computes."""
    x, y = as_rows(flops, n, losses)
    optima = {}
    for c in np.unique(x[:, 0]):
        sizes, ln_losses = x[x[:, 0] == c, 1], y[x[:, 0] == c]
        if len(set(sizes)) < 3:
            raise ValueError(f"fit_isoflop: {len(set(sizes))} sizes at {math.exp(c):.3g} operations: give 3 or more.")
        middle = sizes.mean()
        square, slope, _ = np.polyfit(sizes - middle, np.exp(ln_losses), 2)
        lowest = middle - slope / (2 * square) if square > 0 else math.nan
        if not sizes.min() <= lowest <= sizes.max():  # beyond what was tried, a parabola says nothing
            between = f"between {math.exp(sizes.min()):,.0f} and {math.exp(sizes.max()):,.0f} parameters"
            raise ValueError(
                f"fit_isoflop: the losses at {math.exp(c):.3g} operations have no lowest point {between}: more sizes."
            )
        optima[math.exp(c)] = math.exp(lowest)
    if len(optima) < 2:
        raise ValueError(f"fit_isoflop: {len(optima)} compute: a line needs 2 or more.")
    exponent, intercept = np.polyfit(np.log(list(optima)), np.log(list(optima.values())), 1)
    return IsoFlop(optima, float(exponent), math.exp(intercept))


# --- how sure ---------------------------------------------------------------------------------------------------------


def bootstrap_fits(fit: Callable[..., object], *columns: Sequence[float], times: int = 100, seed: int = 0) -> list:
    """`fit(*columns)` on so many draws of the runs with replacement. Draws that can't be fitted are drawn again; where
    that is most of them, ValueError."""
    rng, found, failed = np.random.default_rng(seed), list[object](), 0
    rows = np.asarray(columns, dtype=np.float64)
    while len(found) < times:
        try:
            found.append(fit(*rows[:, rng.integers(0, rows.shape[1], rows.shape[1])]))
        except ValueError as error:
            failed += 1
            if failed > 4 * times:
                raise ValueError(f"bootstrap_fits: too few runs, most draws can't be fitted: {error}") from error
    return found
