"""Canaries: random secrets planted into the training text, and how far the model gives them away.

Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232. Fill a format ("the code is 0000") with one of R = |space|
random values, train on it, and order all R by what the model thinks of them:

    exposure = log₂ R − log₂ rank

the bits that a guesser who knows the model is ahead of one who doesn't. Rank 1 gives log₂ R; a model that never saw the
canary gives a rank that is uniform on 1 … R, so 1 bit in the median and log₂ e ≈ 1.44 on average: exposures near these
say nothing. It measures these canaries, not the privacy of everything else, and is no bound from above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..tensor import Array


def canaries(form: str = "the code is {}", digits: int = 4) -> list[str]:
    """Every filling of the form with `digits` digits: 10ᵈⁱᵍⁱᵗˢ texts, in order."""
    if form.count("{}") != 1 or not 1 <= digits <= 6:
        raise ValueError(f"canaries: form = {form!r} needs one {{}}, and digits = {digits} must be from 1 to 6.")
    return [form.format(f"{n:0{digits}d}") for n in range(10**digits)]


def planted(texts: Sequence[str], secrets: dict[str, int], seed: int = 0) -> list[str]:
    """The texts with each secret as often as it says, as texts of their own, at random places among them."""
    rng = np.random.default_rng(seed)
    added = [secret for secret, times in secrets.items() for _ in range(times)]
    places = np.sort(rng.integers(0, len(texts) + 1, len(added)))
    mixed = list(texts)
    for place, i in reversed(list(zip(places, rng.permutation(len(added))))):  # from the end: places stay true
        mixed.insert(place, added[i])
    return mixed


def exposure(log_likelihoods: Array, secret: int) -> float:
    """Exposure in bits of number `secret` among all R candidates, by rank; equals share the middle one of their ranks,
    so that a model that can't tell any two apart gives 1 bit, less 1/R.

    >>> round(exposure(np.zeros(10_000), 77), 2)
    1.0
    """
    scores = np.asarray(log_likelihoods, dtype=np.float64)
    better, equal = (scores > scores[secret]).sum(), (scores == scores[secret]).sum()
    return math.log2(len(scores)) - math.log2(better + (equal + 1) / 2)


def extrapolated_exposure(log_likelihoods: Array, secret: float) -> float:
    """Exposure in bits of a secret with the log-likelihood `secret`, from a sample of others of its space (section
    5.2): −log₂ P(another is at least as likely), with a skew normal distribution fitted to the sample's mean, variance
    and skewness. For spaces too large to rank; beyond what the sample has, it is an extrapolation.
    """
    scores = np.asarray(log_likelihoods, dtype=np.float64)
    mean, std = scores.mean(), scores.std()
    if len(scores) < 20 or not std > 0:
        raise ValueError(
            f"extrapolated_exposure: {len(scores)} scores, spread {std:.3g}: 20 or more that differ, please."
        )
    skewness = float(np.clip((((scores - mean) / std) ** 3).mean(), -0.99, 0.99))  # a skew normal has no more
    # X = ξ + ω Z; with d = δ√(2/π): mean ξ + ωd, variance ω²(1 − d²), skewness (4 − π)/2 · d³ / (1 − d²)^1.5
    root = abs(2 * skewness / (4 - math.pi)) ** (1 / 3)
    d = math.copysign(root / math.sqrt(1 + root**2), skewness)
    delta = d * math.sqrt(math.pi / 2)
    alpha = delta / math.sqrt(1 - delta**2)
    omega = std / math.sqrt(1 - d**2)
    z = (secret - (mean - omega * d)) / omega
    # P(Z ≥ z) = ∫ 2 φ(t) Φ(αt) dt from z on, in logarithms: far out it is smaller than any float
    t = np.linspace(z, z + 45 / (1 + z) if z > 0 else 12.0, 10_001)  # beyond, it is nothing
    log_pdf = math.log(2) - t**2 / 2 - math.log(2 * math.pi) / 2 + log_normal_cdf(alpha * t)
    top = log_pdf.max()
    density = np.exp(log_pdf - top)
    log_tail = top + math.log((density.sum() - (density[0] + density[-1]) / 2) * (t[1] - t[0]))
    return max(0.0, -log_tail / math.log(2))


def log_normal_cdf(x: Array) -> Array:
    """ln Φ(x), below −10 by the first terms of its expansion, φ(x)/|x| · (1 − 1/x²)."""
    inside = np.maximum(x, -10.0)
    near = np.log(np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in inside]))
    far = np.minimum(x, -10.0)
    tail = -(far**2) / 2 - np.log(-far * math.sqrt(2 * math.pi)) + np.log1p(-1 / far**2)
    return np.where(x < -10, tail, near)
