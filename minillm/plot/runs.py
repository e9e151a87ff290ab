"""The losses of finished or running runs, one or several in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves import running_mean
from .style import CYCLE, drawable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
AXES = {"step": "step", "tokens": "tokens read", "seconds": "seconds of training"}  # key of a row -> what it is
MEASURES = {"loss": "loss (nats per token)", "bits_per_byte": "bits per byte"}
MARKS = "os^DvPX"  # of validation, which with the lines tell the runs apart without their colours
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))


def loss_of_runs(runs: Mapping[str, Sequence[Row]], *, x: str = "step", y: str = "loss") -> Figure:
    """The rows of metrics.jsonl of each run, by its name, as curves: training thin (its running mean), validation bold
    with marks, and its last value in the legend.

    `x`: "step", "tokens" or "seconds"; `y`: "loss", or "bits_per_byte", which compares runs with different tokenizers
    and is of validation only. Raises ValueError for others, and for runs of which none has anything to draw.
    """
    if x not in AXES or y not in MEASURES:
        raise ValueError(f"x = {x!r} must be one of {', '.join(AXES)}, and y = {y!r} one of {', '.join(MEASURES)}.")
    figure, ax = subplots(height=3.6)
    n_drawn = 0
    for i, (name, rows) in enumerate(runs.items()):
        color, mark, line = CYCLE[i % len(CYCLE)], MARKS[i % len(MARKS)], LINES[(i + i // len(CYCLE)) % len(LINES)]
        train = points(rows, x, "loss") if y == "loss" else np.empty((0, 2))
        val = points(rows, x, f"val_{y}")
        last = f": {val[-1, 1]:.3f}" if len(val) else ""
        label = drawable(name).replace("$", r"\$") + last
        if len(train):
            style: dict[str, Any] = {"color": color, "linewidth": 1.0, "alpha": 0.6}
            ax.plot(train[:, 0], running_mean(train[:, 1]), label=None if len(val) else label, **style)
        if len(val):
            style = {"color": color, "linewidth": 2.2, "linestyle": line}
            ax.plot(val[:, 0], val[:, 1], marker=mark, markersize=5, label=label, **style)
        n_drawn += bool(len(train) or len(val))
    if not n_drawn:
        raise ValueError(f"{', '.join(runs)}: no step has been logged yet, so that there is nothing to draw.")
    ax.set_xlabel(AXES[x])
    ax.set_ylabel(MEASURES[y])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    thin = "\nthin: training" if y == "loss" else ""
    ax.legend(
        fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, alignment="left",
        title=f"with marks: validation{thin}", title_fontsize=9,
    )  # fmt: skip
    return figure


def points(rows: Sequence[Row], x: str, y: str) -> np.ndarray:
    """(x, y) of each row that has both as numbers, (n, 2) float64."""
    found = [(row[x], row[y]) for row in rows if all(isinstance(row.get(key), (int, float)) for key in (x, y))]
    return np.array(found, dtype=np.float64).reshape(-1, 2)
