"""What healthy runs of the presets had: reference bands of loss, gradient norm and size of updates, by step.

The bands (presets/bands.json) were measured by tests/bench/bands.py: runs of each preset that a CPU can train, of several
seeds, texts and vocabularies. A loss is compared as a share of ln V, the loss of a model that knows nothing about V
tokens: texts and vocabularies differ much less in that than in nats. A band goes from the lowest of the runs to the
highest, and on both sides further by `MARGIN` times the standard deviation of the seeds, the largest of any text.

A band belongs to a size: another model or batch has other losses, and none of these bands is for it. How it was trained
(learning rate, warmup, optimizer) is what a band judges: where that differs from the preset, the finding says in what.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

MARGIN = 3.0  # standard deviations of the seeds
POINT = 20  # steps up to a point, over which loss (mean) and gradient norm (median) are taken
MEASURES = ("loss", "grad_norm", "update_ratio")


def measures_at(step: int, rows: Sequence[dict[str, Any]], vocab_size: int) -> dict[str, float]:
    """The loss, as a share of ln V, and the gradient norm of the `POINT` steps up to `step`; {} where some are missing."""
    near = [row for row in rows if step - POINT < row["step"] <= step and "grad_norm" in row]
    if len(near) < POINT or not all(isinstance(row[name], float) for row in near for name in ("loss", "grad_norm")):
        return {}
    loss = statistics.mean(row["loss"] for row in near) / math.log(vocab_size)
    return {"loss": loss, "grad_norm": statistics.median(row["grad_norm"] for row in near)}


def band(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(lowest, highest) that a healthy run has, from runs in groups that differ by the seed only, with the margin."""
    values = [value for group in groups for value in group]
    margin = MARGIN * max(statistics.stdev(group) for group in groups if len(group) > 1)
    return min(values) - margin, max(values) + margin
