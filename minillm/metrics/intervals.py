"""How far a score may be off, and whether one system is better than another: the bootstrap (Efron 1979).

The test set is taken as a sample. Drawn again from itself, N items with replacement, many times, it shows how much the
score would differ on another one. This says nothing of another training seed: that takes other runs.

A score must be a function of sums over items. For a mean the summands are the scores (N,); for BLEU and chrF the rows
of `bleu_counts` and `chrf_counts`, with `bleu_from_counts` and `chrf_from_counts` as `score`. A draw is then how often
each item occurs in it, and all draws are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Score = Callable[[Array], Array]  # summed rows (B, ...) -> (B,)
BLOCK = 1 << 22  # numbers held at once


class Interval(NamedTuple):
    """A score, and between what the middle `level` of the draws lie."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """First minus second system, its interval, and `p`: how often chance alone makes so large a difference."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap(
    items: Any, score: Score | None = None, *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Interval:
    """The percentile interval. items (N,), scores whose mean is taken (`score` None), or rows (N, ...) whose sum
    `score` takes. Raises ValueError without items.

    >>> bootstrap([1.0, 0.0, 1.0, 1.0], draws=200)
    Interval(value=0.75, low=0.25, high=1.0)
    """
    (value,), (samples,) = resample([items], score, level, draws, seed)
    return Interval(value, *quantiles(samples, level))


def paired_bootstrap(
    a: Any, b: Any, score: Score | None = None, *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Comparison:
    """Two systems on the same items, in the same order: both are drawn alike, so that hard items are hard for both
    (Koehn 2004, "Statistical significance tests for machine translation evaluation").

    p, two-sided: with d the difference and d* that of a draw, (1 + #{|d* − d| ≥ |d|}) / (1 + draws), since d* − d is
    spread as d* would be if d were 0 (Riezler and Maxwell 2005; + 1, so that it is never 0).
    """
    (first, second), (x, y) = resample([a, b], score, level, draws, seed)
    difference = first - second
    extreme = np.abs(x - y - difference) >= abs(difference) - 1e-12  # a hair: sums in another order are equal
    return Comparison(difference, *quantiles(x - y, level), float(1 + extreme.sum()) / (1 + draws))


def resample(
    systems: list[Any], score: Score | None, level: float, draws: int, seed: int
) -> tuple[list[float], list[Array]]:
    """For each system its score, and those of the draws (draws,)."""
    rows = [np.asarray(items, dtype=np.float64) for items in systems]
    n = len(rows[0]) if rows[0].ndim else 0
    if n == 0 or any(x.shape != rows[0].shape for x in rows) or not 0 < level < 1 or draws < 1:
        raise ValueError(
            f"bootstrap: {[x.shape for x in rows]} items, level = {level}, draws = {draws}: there must be at "
            "least one item, as many for both, a level between 0 and 1, and at least one draw."
        )
    if score is None and rows[0].ndim != 1:
        raise ValueError(f"bootstrap: a mean is taken of scores (N,), not of {rows[0].shape}: give the score of a sum.")
    rng = np.random.default_rng(seed)
    samples: list[list[Array]] = [[] for _ in rows]
    for start in range(0, draws, max(BLOCK // n, 1)):
        size = min(max(BLOCK // n, 1), draws - start)
        times = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)  # (B, N): how often each item
        for x, found in zip(rows, samples):
            sums = np.tensordot(times, x, axes=1)  # (B, ...)
            found.append(sums / n if score is None else score(sums))
    values = [float(x.mean() if score is None else score(x.sum(axis=0)[None])[0]) for x in rows]
    return values, [np.concatenate(found) for found in samples]


def quantiles(samples: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
