"""Scaling laws: what is planted comes out, the derivation holds, and the interval says how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.costs.scaling import (
    CHINCHILLA,
    DELTA,
    ScalingLaw,
    as_rows,
    bootstrap_fits,
    descend,
    fit_isoflop,
    fit_scaling_law,
    huber,
    residuals,
)

PAPER = ScalingLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # Hoffmann et al. 2022, section 3.3


def runs(law, noise=0.0, seed=0):
    """A grid of runs, 5 sizes by 5 lengths, whose losses scatter by a share of `noise`."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e5, 1e9, 5), np.geomspace(1e7, 1e11, 5)))
    return n, d, law.loss(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(25))


def isoflop_runs(law, noise=0.0, seed=0):
    flops = np.repeat(np.geomspace(1e18, 1e21, 4), 9)
    n = np.concatenate([law.optimum(c)[0] * np.geomspace(0.5, 3, 9) for c in np.unique(flops)])
    losses = law.loss(n, flops / 6 / n) * np.exp(noise * np.random.default_rng(seed).standard_normal(36))
    return flops, n, losses


@pytest.mark.parametrize("law", [PAPER, CHINCHILLA, ScalingLaw(0.5, 20.0, 900.0, 0.25, 0.55)])
def test_the_law_that_made_the_losses_is_found(law):
    found = fit_scaling_law(*runs(law))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=1e-3), name


@settings(max_examples=10, deadline=None)
@given(st.floats(0.5, 2.5), st.floats(0.2, 0.7), st.floats(0.2, 0.7), st.floats(1, 3), st.floats(1, 3))
def test_drawn_laws_are_found(E, alpha, beta, at_n, at_d):
    """A and B such that the terms are `at_n` and `at_d` at the smallest model and shortest run."""
    law = ScalingLaw(E, at_n * 1e5**alpha, at_d * 1e7**beta, alpha, beta)
    found = fit_scaling_law(*runs(law))
    assert (found.E, found.alpha, found.beta) == pytest.approx((E, alpha, beta), rel=0.01)


def test_one_wild_run_hardly_matters():
    """What Huber's loss is for: least squares would move by more."""
    n, d, losses = runs(PAPER)
    losses[7] *= 1.5
    found = fit_scaling_law(n, d, losses)
    assert (found.E, found.alpha, found.beta) == pytest.approx((PAPER.E, PAPER.alpha, PAPER.beta), rel=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_at_least_as_good_as_scipys(seed):
    optimize = pytest.importorskip("scipy.optimize")
    n, d, losses = runs(PAPER, noise=0.01, seed=seed)
    x, y = as_rows(n, d, losses)
    law = fit_scaling_law(n, d, losses)
    ours = huber(residuals(np.array([math.log(law.A), math.log(law.B), math.log(law.E), law.alpha, law.beta]), x, y))
    truth = np.array([math.log(406.4), math.log(410.7), math.log(1.69), 0.34, 0.28])
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-8, "fatol": 1e-12}
    simplex = {"method": "Nelder-Mead", "options": options}
    theirs = optimize.minimize(lambda p: huber(residuals(p, x, y)) * 1e4, truth, **simplex).fun / 1e4
    assert ours <= theirs * 1.001
    away = descend(truth + np.array([2.0, -1.0, 0.3, 0.05, -0.05]), x, y)
    assert huber(residuals(away, x, y)) == pytest.approx(ours, rel=1e-3)


@given(st.floats(-0.02, 0.02))
def test_huber(r):
    expected = r * r / 2 if abs(r) <= DELTA else DELTA * (abs(r) - DELTA / 2)
    assert huber(np.array([r])) == pytest.approx(expected)


@given(st.floats(1e15, 1e26), st.sampled_from([PAPER, CHINCHILLA]))
def test_the_optimum_is_the_lowest_point_of_its_compute(flops, law):
    n, d = law.optimum(flops)
    assert 6 * n * d == pytest.approx(flops)
    around = law.loss(n * np.array([0.8, 1.0, 1.25]), d / np.array([0.8, 1.0, 1.25]))
    assert around.argmin() == 1


def test_chinchilla_itself():
    """About 20 tokens for each parameter, at the compute of the model that the paper trained: 70B on 1.4T tokens."""
    n, d = CHINCHILLA.optimum(6 * 70e9 * 1.4e12)
    assert 15 < d / n < 25 and 50e9 < n < 90e9
    a = CHINCHILLA.beta / (CHINCHILLA.alpha + CHINCHILLA.beta)
    assert a == pytest.approx(0.512, abs=0.002)  # as Besiroglu et al. have it


def test_parabolas_find_the_same_optimum():
    found = fit_isoflop(*isoflop_runs(PAPER))
    assert found.exponent == pytest.approx(0.28 / 0.62, abs=0.01) and len(found.optima) == 4
    for flops, n in found.optima.items():
        assert n == pytest.approx(PAPER.optimum(flops)[0], rel=0.15)
    n, d = found.optimum(1e20)
    assert 6 * n * d == pytest.approx(1e20) and n == pytest.approx(PAPER.optimum(1e20)[0], rel=0.15)


def test_the_interval_holds_the_truth_and_shrinks_with_the_noise():
    widths = []
    for noise in (0.02, 0.002):
        laws = bootstrap_fits(fit_scaling_law, *runs(PAPER, noise), times=40)
        low, high = np.quantile([law.beta for law in laws], [0.02, 0.98])
        assert low < PAPER.beta < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    exponents = [fit.exponent for fit in bootstrap_fits(fit_isoflop, *isoflop_runs(PAPER, 0.001), times=40)]
    assert np.quantile(exponents, 0.02) - 0.01 < 0.28 / 0.62 < np.quantile(exponents, 0.98) + 0.01


def test_what_cannot_be_fitted():
    n, d, losses = runs(PAPER)
    with pytest.raises(ValueError, match="5 runs: give 6 or more"):
        fit_scaling_law(n[:5], d[:5], losses[:5])
    with pytest.raises(ValueError, match="3 or more values of each"):
        fit_scaling_law(n, np.full(25, 1e9), losses)
    with pytest.raises(ValueError, match="as many n, d and losses, all above 0"):
        fit_scaling_law(n, d[:9], losses)
    with pytest.raises(ValueError, match="all above 0"):
        fit_scaling_law(n, d, -losses)
    flops, sizes, losses = isoflop_runs(PAPER)
    with pytest.raises(ValueError, match="2 sizes at 1e"):
        fit_isoflop(flops[7:], sizes[7:], losses[7:])
    with pytest.raises(ValueError, match="no lowest point"):
        fit_isoflop(flops, sizes, 10 - losses)
    small = sizes < 0.9 * np.concatenate([[PAPER.optimum(c)[0]] * 9 for c in np.unique(flops)])
    with pytest.raises(ValueError, match=r"no lowest point between [\d,]+ and [\d,]+ parameters: more sizes"):
        fit_isoflop(flops[small], sizes[small], losses[small])
    with pytest.raises(ValueError, match="1 compute: a line needs 2"):
        fit_isoflop(flops[:9], sizes[:9], losses[:9])
    with pytest.raises(ValueError, match="most draws can't be fitted"):
        bootstrap_fits(fit_isoflop, flops[::4], sizes[::4], losses[::4], times=5)
