"""The choice of the next token: what temperature and the filters leave of the model's distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..generate import Sampling
from ..tensor import Array
from .style import BLUE, drawable, readable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sampling_bars(
    logits: Array,
    labels: Sequence[str | bytes],
    settings: Mapping[str, Sampling],
    *,
    previous: Sequence[int] = (),
    top: int = 12,
    title: str = "",
) -> Figure:
    """The probability of each of the `top` likeliest tokens, a panel for each of `settings` (name -> Sampling).

    `logits` (V,) for one position; `labels` a name for each of the V ids; `previous` the ids so far (for the repetition
    penalty). Each panel shows probabilities in percent; a token that a filter has removed is crossed out (×).
    """
    logits = np.asarray(logits)
    if logits.ndim != 1 or len(labels) != len(logits):
        given = f"{logits.shape} and {len(labels)} labels"
        raise ValueError(f"sampling_bars: logits {given} must be (V,), of one position, and a label for each token.")
    order = np.argsort(-logits, kind="stable")[:top]
    height = 0.9 + 0.23 * len(order)
    figure, axes = subplots(1, len(settings), height=height, title=title, sharey=True, squeeze=False)
    ids = np.asarray(previous, dtype=np.int64)
    panels = {name: 100 * sampling.probabilities(logits, ids)[order] for name, sampling in settings.items()}
    widest = max(float(p.max()) for p in panels.values())
    for ax, (name, percent) in zip(axes[0], panels.items()):
        ax.barh(range(len(order)), percent, color=BLUE, height=0.75)
        for row, value in enumerate(percent):
            text = f"{value:.0f}" if value >= 0.5 else "<1" if value > 0 else "×"
            color = "black" if value > 0 else "#777777"
            ax.text(value + 0.02 * widest, row, text, va="center", fontsize=8, color=color)
        ax.set_xlim(0, 1.18 * widest)
        ax.set_title(drawable(name), fontsize=9, fontweight="normal")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(order)), [readable(labels[i]) for i in order])
    axes[0, 0].invert_yaxis()
    figure.supxlabel("probability of the next token (%)", fontsize=10)
    return figure
