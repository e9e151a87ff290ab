"""Curves of a training run: the loss as it falls, and the norms of what flows through the layers."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BLACK, BLUE, GREEN, VERMILION, drawable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LiveCurve:
    """The training and validation loss, drawn while training runs.

    In a notebook one figure is updated in place; in a terminal one line is; elsewhere (a log file) a line is printed at
    each validation. Drawing takes at most about a tenth of the time.

        curve = LiveCurve(baselines={"5-gram": 2.3})
        curve.update(step, train=loss, val=val_loss)    # either may be left out
        figure = curve.finish()
    """

    def __init__(
        self,
        *,
        title: str = "",
        ylabel: str = "loss (nats per token)",
        baselines: Mapping[str, float] | None = None,
        every_seconds: float = 0.5,
    ) -> None:
        self.title = title
        self.ylabel = ylabel
        self.baselines = dict(baselines or {})  # name -> loss, drawn as dashed lines
        self.every_seconds = every_seconds
        self.train: list[tuple[int, float]] = []
        self.val: list[tuple[int, float]] = []
        self.next_draw = 0.0
        self.in_notebook = running_in_notebook()
        self.display: Any = None

    def update(self, step: int, *, train: float | None = None, val: float | None = None) -> None:
        """Add one point to either curve, in the unit of `ylabel`."""
        if train is not None:
            self.train.append((step, float(train)))
        if val is not None:
            self.val.append((step, float(val)))
        started = time.perf_counter()
        if self.in_notebook:
            if started < self.next_draw:
                return
            self.show()
            self.next_draw = time.perf_counter() + max(self.every_seconds, 10 * (time.perf_counter() - started))
        elif sys.stdout.isatty():
            if started >= self.next_draw:
                print("\r" + self.line(), end="", flush=True)
                self.next_draw = started + self.every_seconds
        elif val is not None:
            print(self.line(), flush=True)

    def line(self) -> str:
        """The latest values as text."""
        step = max(points[-1][0] for points in (self.train, self.val) if points)
        parts = [f"step {step:6d}"]
        if self.train:
            parts.append(f"train {self.train[-1][1]:.4f}")
        if self.val:
            parts.append(f"val {self.val[-1][1]:.4f}")
        return "  ".join(parts)

    def show(self) -> None:
        """Draw into the notebook cell, over the last drawing."""
        from IPython.display import display

        if self.display is None:
            self.display = display(self.draw(), display_id=True)
        else:
            self.display.update(self.draw())

    def draw(self) -> Figure:
        """The figure as it stands: every training loss faint, their running mean bold, validation as points."""
        figure, ax = subplots(height=3.0)
        if self.train:
            steps, losses = np.array(self.train).T
            ax.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=1)
            ax.plot(steps, running_mean(losses), color=BLUE, label="training")
        if self.val:
            steps, losses = np.array(self.val).T
            ax.plot(steps, losses, color=VERMILION, marker="o", markersize=4, label=f"validation: {losses[-1]:.2f}")
        for (name, value), style in zip(self.baselines.items(), ("--", ":", "-.", (0, (5, 1))) * 4):
            ax.axhline(value, color=BLACK, linestyle=style, linewidth=1.2, label=f"{drawable(name)}: {value:.2f}")
        ax.set_xlabel("step")
        ax.set_ylabel(drawable(self.ylabel))
        ax.set_title(drawable(self.title), loc="left", fontweight="bold", fontsize=11)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)  # beside the lines
        return figure

    def finish(self) -> Figure:
        """Draw a last time, with all points. In a notebook the figure in the cell is updated; returns the figure."""
        figure = self.draw()
        if self.display is not None:
            self.display.update(figure)
        elif not self.in_notebook and sys.stdout.isatty() and (self.train or self.val):
            print("\r" + self.line())
        return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each point and its neighbours, a fortieth of the points together; fewer at both ends, as many on the
    left as on the right, so that a falling curve is not drawn too high or too low."""
    n = len(values)
    reach = np.minimum(max(1, n // 80), np.minimum(np.arange(n), np.arange(n)[::-1]))  # neighbours on each side
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(n)
    return np.asarray((sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1))


def running_in_notebook() -> bool:
    """True in a Jupyter kernel (JupyterLab, VS Code, nbclient), False in a terminal, IPython's included."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def gradient_norms(model: Any) -> dict[str, float]:
    """The L2 norm of the gradients of each module that owns parameters, by the module's name, in the model's order.

    Call it after `backward()`. A module without any gradient is left out. NumPy engine.
    """
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            module = name.rpartition(".")[0] or name
            squares[module] = squares.get(module, 0.0) + float(np.square(parameter.grad, dtype=np.float64).sum())
    return {name: square**0.5 for name, square in squares.items()}


def whole_decades(values: Iterable[float]) -> tuple[float, float]:
    """Powers of ten just below and above the positive values, so that bars of similar length are similar values."""
    positive = [value for value in values if value > 0] or [1.0]
    return 10.0 ** math.floor(math.log10(min(positive)) - 0.1), 10.0 ** math.ceil(math.log10(max(positive)) + 0.01)


def norms_per_layer(
    gradients: Mapping[str, float] | None = None, activations: Mapping[str, float] | None = None, *, title: str = ""
) -> Figure:
    """Norms by layer on a logarithmic axis, the first layer at the top: gradients (from `gradient_norms`) and
    activations (from `look_inside(...).activation_sizes()`), side by side if both are given; ValueError without either.

    A healthy network shows bars of similar length; bars that shrink or grow steadily from one layer to the next are
    gradients that vanish or explode.
    """
    from matplotlib.ticker import NullFormatter

    possible = (activations, "activations: root mean square", GREEN), (gradients, "gradients: L2 norm", BLUE)
    panels = [(values, label, color) for values, label, color in possible if values]
    if not panels:
        raise ValueError("norms_per_layer: give activations=, or gradients=gradient_norms(model), or both.")
    longest = max(len(values) for values, _, _ in panels)
    figure, axes = subplots(1, len(panels), height=0.8 + 0.24 * longest, title=title, squeeze=False)
    for ax, (values, label, color) in zip(axes[0], panels):
        names = list(values)
        ax.barh(range(len(names)), [values[name] for name in names], color=color, height=0.7)
        ax.set_yticks(range(len(names)), [drawable(name) for name in names], fontsize=8)
        ax.set_ylim(longest - 0.4, -0.6)  # the first at the top, and bars as thick as in the other panel
        ax.set_xscale("log")
        ax.set_xlim(*whole_decades(values.values()))
        ax.xaxis.set_minor_formatter(NullFormatter())  # labels at whole powers of ten only
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(label)
    return figure
