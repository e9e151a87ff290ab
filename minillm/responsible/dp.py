"""Differentially private training: what a model learns hardly depends on any one example, and by how much at most.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1), with lots drawn by Poisson sampling at a rate q:

    gᵢ ← ∇ loss of example i                            one at a time: a mean of losses hides whose gradient it was
    gᵢ ← gᵢ · min(1, C/‖gᵢ‖)                            nobody moves the sum by more than C
    g  ← (Σᵢ gᵢ + N(0, σ²C² I)) / lot size              and by how much anybody did is drowned in noise

Two data sets that differ in one example then give models whose distributions differ by at most (ε, δ): no test for
"was this example in it?" of false-positive rate f is right more often than eᵋ f + δ. The accountant adds up Rényi
divergences of order α over the steps (Mironov 2017, 1702.07476; of the sampled Gaussian: Mironov, Talwar & Zhang 2019,
1908.10530, section 3.3, for whole α):

    RDP(α) = 1/(α − 1) · ln Σₖ C(α,k) (1 − q)^(α−k) q^k exp((k² − k)/(2σ²))          per step; steps add up
    ε(δ) = min over α of  RDP(α) + ln((α − 1)/α) − (ln δ + ln α)/(α − 1)             (Balle et al. 2020, 1905.09982)

Its price. Time: a backward pass for each example alone. Accuracy: the noise of a step has the norm σC√d/lot over d
parameters, the gradient at most C, so that large models need large lots. And ε grows with every step:

    >>> [round(epsilon(0.01, noise, 1000, 1e-5), 2) for noise in (0.6, 1.0, 2.0)]
    [9.1, 2.11, 0.69]

What it doesn't promise: more for a person who is in many examples, than for each of them; anything about choosing
settings on the same data; or anything at all with a generator that can be guessed, as NumPy's can, if the noise is an
attacker's target. Lots must be drawn by `poisson_lots`, or the accountant's number is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..optim import Optimizer, clip_grad_norm_
from ..tensor import Array


class PrivateOptimizer:
    """Around an optimizer of the NumPy engine:

        for lot in poisson_lots(len(examples), rate, steps, rng):
            for i in lot:
                loss(model, examples[i]).backward()
                private.add()
            private.step()

    `max_norm` is C, `noise_multiplier` σ, `lot_size` what the sum is divided by, rate · examples: never the lot's own
    size, which would tell about who is in it. A frozen parameter takes no part.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        max_norm: float,
        noise_multiplier: float,
        lot_size: float,
        rng: np.random.Generator,
    ) -> None:
        if not (0 < max_norm < math.inf and 0 <= noise_multiplier < math.inf and lot_size > 0):
            raise ValueError(
                f"PrivateOptimizer: max_norm = {max_norm} and lot_size = {lot_size} must be above 0, "
                f"noise_multiplier = {noise_multiplier} 0 or more."
            )
        self.optimizer, self.rng = optimizer, rng
        self.max_norm, self.noise_multiplier, self.lot_size = max_norm, noise_multiplier, lot_size
        self.steps = 0  # for the accountant
        self.params = [p for p in optimizer.params if p.requires_grad]
        self.sums: list[Array] = [np.zeros_like(p.data) for p in self.params]

    def add(self) -> float:
        """Take one example's gradients into the sum, clipped, and forget them; returns their norm before."""
        norm = clip_grad_norm_(self.params, self.max_norm)
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"PrivateOptimizer: an example's gradient has the norm {norm}: it can't be clipped."
            )
        for p, total in zip(self.params, self.sums):
            if p.grad is not None:
                total += p.grad
        self.optimizer.zero_grad()
        return norm

    def step(self) -> None:
        """Noise to the sum, the mean, and one step of the optimizer; an empty lot, too, is one."""
        for p, total in zip(self.params, self.sums):
            noise = self.rng.normal(0.0, self.noise_multiplier * self.max_norm, p.shape).astype(p.dtype)
            p.grad = np.asarray((total + noise) / p.dtype.type(self.lot_size))
            total[...] = 0
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1


def poisson_lots(n_examples: int, rate: float, steps: int, rng: np.random.Generator) -> Iterator[Array]:
    """The indices of each step's lot: every example is in it with probability `rate`, by itself."""
    for _ in range(steps):
        yield np.flatnonzero(rng.random(n_examples) < rate)


# --- the accountant ---------------------------------------------------------------------------------------------------

ORDERS = np.arange(2, 257)


def rdp(rate: float, noise_multiplier: float, order: int) -> float:
    """The Rényi divergence of one step, of a whole order from 2 on, as above."""
    if rate == 1:
        return order / (2 * noise_multiplier**2)
    k = np.arange(order + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, order + 1)))])
    log_choose = log_factorial[order] - log_factorial[k] - log_factorial[order - k]
    terms = log_choose + (order - k) * math.log1p(-rate) + k * math.log(rate) + (k * k - k) / (2 * noise_multiplier**2)
    top = terms.max()
    return float(top + math.log(np.exp(terms - top).sum())) / (order - 1)


def epsilon(rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """The ε that so many steps spend at a δ, which should be well below 1/examples; inf without noise.

    Only whole orders are tried, which can give a few per cent more than all orders would, never less than is true.
    """
    if not 0 < rate <= 1 or not 0 < delta < 1 or noise_multiplier < 0 or steps < 0:
        raise ValueError(
            f"epsilon: rate = {rate} must be above 0 and at most 1, delta = {delta} between 0 and 1, "
            f"noise_multiplier = {noise_multiplier} and steps = {steps} not negative."
        )
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    found = (
        steps * rdp(rate, noise_multiplier, int(a)) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1)
        for a in ORDERS
    )
    return max(0.0, float(min(found)))


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The smallest noise multiplier, to three digits, with which so many steps spend at most the ε `target`."""
    if not target > 0:
        raise ValueError(f"noise_for: target = {target} must be above 0: without any ε nothing is learned.")
    low, high = 0.0, 1.0
    while epsilon(rate, high, steps, delta) > target:
        low, high = high, 2 * high
        if high > 1e6:
            raise ValueError(f"noise_for: no noise brings ε down to {target} at delta = {delta}: give a larger delta.")
    while high - low > 5e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(rate, middle, steps, delta) > target else (low, middle)
    return high
