"""A watermark for generated text: a statistical mark that nobody reads and that a test with the key finds.

Kirchenbauer et al. 2023, arXiv 2301.10226. The id before and a secret key divide the vocabulary at every step: a share
γ of the ids is green. Their scores get δ more, so that more than γ of the text becomes green. Who has the key counts
the green ids g among T: without a watermark each is green with probability γ,

    z = (g − γT) / √(Tγ(1 − γ))             (equation 3)

so z is about N(0, 1) for other texts, and grows with √T for marked ones. A pair (id before, id) that is repeated has
the same colour again, so only different pairs count: then, over random keys, g is binomial, and p = P(g or more) exact.

Its limits. Where one continuation is certain (code, facts, quotations) δ changes nothing or spoils it: little text is
marked that is short or has little entropy. Paraphrase, translation and a share of words exchanged bring z down by as
much as they break pairs. Who sees enough marked text learns the green pairs, and can forge or remove the mark; who has
the key can too. A text without a mark is not therefore a human's; a single test at p < 10⁻⁶ is fair only if few texts
are tested. And it changes what the model says: greedy text, or large δ, is worse text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..tensor import Array


@dataclass(frozen=True)
class Detection:
    """`greens` of `scored` different pairs are green; `z` as above, `p` the probability of as many without a mark."""

    z: float
    p: float
    greens: int
    scored: int


@dataclass(frozen=True)
class Watermark:
    """Both sides of the mark: `generate(..., rules=watermark)` writes it, `watermark.detect(ids)` looks for it.

    Scores are changed before the temperature divides them, so that δ/temperature is what counts.
    """

    key: int
    gamma: float = 0.25  # share of green ids
    delta: float = 2.0  # what is added to their scores

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1 or not 0 <= self.delta < math.inf:
            raise ValueError(
                f"Watermark: gamma = {self.gamma} must be above 0 and below 1, delta = {self.delta} 0 or more."
            )

    def __call__(self, n_new: int, scores: Array, ids: Array) -> Array:
        """As a rule of `generate`: the scores (V,) of the next id, after the ids so far."""
        return scores + self.delta * self.is_green(ids[-1], np.arange(len(scores)))

    def is_green(self, before: Array | int, ids: Array) -> Array:
        """Whether each id is green after the id before it: a random number of key and pair is below γ. Each pair has
        one of its own, so that no list of the vocabulary need be shuffled to look one id up."""
        start = mixed(np.full(np.shape(ids), self.key % 2**64, dtype=np.uint64))
        number = mixed(mixed(start + np.asarray(before).astype(np.uint64)) + np.asarray(ids).astype(np.uint64))
        return number < np.uint64(round(self.gamma * 2**64))

    def detect(self, ids: Array) -> Detection:
        """Look for the mark in ids (T,), which begin with an id before the first that counts."""
        ids = np.asarray(ids)
        pairs = np.unique(np.stack([ids[:-1], ids[1:]]), axis=1)  # (2, pairs)
        T = pairs.shape[1]
        if T == 0:
            raise ValueError(f"Watermark.detect: {len(ids)} ids have no pair to look at: give at least 2.")
        greens = int(self.is_green(pairs[0], pairs[1]).sum())
        z = (greens - self.gamma * T) / math.sqrt(T * self.gamma * (1 - self.gamma))
        return Detection(z, binomial_tail(greens, T, self.gamma), greens, T)


def mixed(x: Array) -> Array:
    """64 bits so shuffled that neighbours have nothing in common (splitmix64, Steele et al. 2014); the same on every
    machine and in every version of NumPy, which its generators don't promise."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(at least k of n), each with probability p, summed in logarithms."""
    i = np.arange(k, n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_p = log_factorial[n] - log_factorial[i] - log_factorial[n - i] + i * math.log(p) + (n - i) * math.log1p(-p)
    top = log_p.max()
    return min(1.0, float(math.exp(top) * np.exp(log_p - top).sum()))
