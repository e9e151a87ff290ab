"""Learning-rate schedules: functions from the number of the step to a factor in [0, 1] on the peak learning rate.

Each takes the step (0 for the first update), the `total` number of steps, the `warmup` steps over which the rate
climbs from 0 to its peak, and the factor `final` that it ends at. `total` may be an estimate that changes from
step to step: that is how the training loop fits a schedule to a time budget. Why a rate climbs first and falls later:
chapters/08_pretraining.ipynb.
"""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "linear", "wsd", "constant")
WSD_DECAY = 0.2  # the last fifth of a WSD run decays (Hägele et al. 2024, section 3.2: longer gains little)


def constant(step: int, total: float, warmup: int = 0, final: float = 0.0) -> float:
    """Warm up, then stay at the peak (`total` and `final` play no part)."""
    return warmup_factor(step, warmup) if step < warmup else 1.0


def linear(step: int, total: float, warmup: int = 0, final: float = 0.0) -> float:
    """Warm up, then fall along a straight line to `final`."""
    if step < warmup:
        return warmup_factor(step, warmup)
    return 1.0 + (final - 1.0) * fraction_done(step, warmup, total)


def cosine(step: int, total: float, warmup: int = 0, final: float = 0.0) -> float:
    """Warm up, then fall along half a cosine to `final` (Loshchilov & Hutter 2017, without restarts)."""
    if step < warmup:
        return warmup_factor(step, warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fraction_done(step, warmup, total)))


def wsd(step: int, total: float, warmup: int = 0, final: float = 0.0) -> float:
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM): stay at the peak, then fall linearly over the last fifth.

    The stable part does not depend on `total`: one run can be continued for longer, and decayed at any time.
    """
    if step < warmup:
        return warmup_factor(step, warmup)
    decay_start = max(warmup, min(total * (1.0 - WSD_DECAY), total - 2))  # at least one step decays
    if step < decay_start:
        return 1.0
    return 1.0 + (final - 1.0) * fraction_done(step, decay_start, total)


def lr_factor(name: str, step: int, total: float, warmup: int = 0, final: float = 0.0) -> float:
    """The factor of the schedule called `name`. Raises ValueError for a name that is not in SCHEDULES."""
    if name == "cosine":
        return cosine(step, total, warmup, final)
    if name == "linear":
        return linear(step, total, warmup, final)
    if name == "wsd":
        return wsd(step, total, warmup, final)
    if name == "constant":
        return constant(step, total, warmup, final)
    raise ValueError(f"the schedule must be one of {', '.join(map(repr, SCHEDULES))}, not {name!r}.")


def warmup_factor(step: int, warmup: int) -> float:
    return (step + 1) / warmup  # the first update already moves, and the last warmup step has the full rate


def fraction_done(step: int, start: float, total: float) -> float:
    """How much of the way from `start` to the last step, total - 1, has been gone: 0 to 1."""
    return min(1.0, max(0.0, (step - start) / max(1.0, total - 1 - start)))
