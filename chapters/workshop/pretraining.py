"""Chapter 08's pictures and bookkeeping: what a run noted, curves with their seeds, number formats, sick runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from minillm import plot
from minillm.hub.dtypes import decode, encode
from minillm.training.run_log import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_FP16 = 2.0**-24  # float16's smallest number above 0; half of it is rounded to 0
LARGEST_FP16 = 65504.0


@dataclass
class Run:
    """What one training run leaves: the model, the optimizer, and what was noted at each step."""

    model: Any
    optimizer: Any
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)  # of the gradients, before clipping
    moved: list[float] = field(
        default_factory=list
    )  # size of the update over size of the weights, one matrix
    val: list[tuple[int, float]] = field(default_factory=list)  # (steps made, held-out loss)
    _before: Any = None

    def before_step(self) -> None:
        """Keep the matrix whose movement is measured: the first layer's first feed-forward matrix."""
        self._before = watched(self.model).copy()

    def after_step(self, loss: float, norm: float) -> None:
        """Note a step."""
        self.loss.append(loss)
        self.norm.append(norm)
        self.moved.append(movement(self._before, watched(self.model)))

    @property
    def final(self) -> float:
        """The last held-out loss."""
        return self.val[-1][1]


def watched(model: Any) -> np.ndarray:
    return model.blocks[0].mlp.fc.weight.data


def movement(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square of the update over that of the weights."""
    return float(np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2)))


def rms(array: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array))))


def smooth(values: Sequence[float], width: int = 10) -> np.ndarray:
    """The mean of each value and up to `width` − 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def mean_sd(values: Iterable[float], digits: int = 3) -> str:
    """ "4.638 ± 0.021", the standard deviation being the sample's; without it for a single value."""
    values = list(values)
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def draw_step() -> Figure:
    """One training step as a picture: what is computed from what, and what is kept for the next step."""
    figure, ax = plot.subplots(height=2.9)
    ax.set_xlim(0, 10)
    ax.set_ylim(0, 4)
    ax.axis("off")
    boxes = {
        "text": (0.8, 3.2, "text", "#EFEFEF"),
        "batch": (2.7, 3.2, "batch\nids, targets", "#EFEFEF"),
        "model": (5.0, 3.2, "model\nforward", "#D6E9F5"),
        "loss": (7.1, 3.2, "loss\none number", "#D6E9F5"),
        "grads": (9.1, 3.2, "gradients\nbackward", "#D6E9F5"),
        "clip": (9.1, 0.9, "clip\nthe norm", "#FBE6D3"),
        "adam": (7.1, 0.9, "AdamW\nkeeps m and v", "#FBE6D3"),
        "weights": (5.0, 0.9, "weights\nmove a little", "#FBE6D3"),
        "rate": (2.7, 0.9, "schedule\nlearning rate", "#FBE6D3"),
    }
    for x, y, text, color in boxes.values():
        style = {"boxstyle": "round,pad=0.4", "facecolor": color, "edgecolor": plot.BLACK}
        ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=style)

    def arrow(a: str, b: str, curve: float = 0.0) -> None:
        (x0, y0, *_), (x1, y1, *_) = boxes[a], boxes[b]
        dx, dy = x1 - x0, y1 - y0
        gap_x, gap_y = (
            (0.85 if dx else 0.0) * np.sign(dx),
            (0.62 if dy and not dx else 0.0) * np.sign(dy),
        )
        style = {"arrowstyle": "-|>", "color": plot.BLACK, "connectionstyle": f"arc3,rad={curve}"}
        ax.annotate("", (x1 - gap_x, y1 - gap_y), (x0 + gap_x, y0 + gap_y), arrowprops=style)

    for pair in (
        "text batch",
        "batch model",
        "model loss",
        "loss grads",
        "grads clip",
        "clip adam",
        "adam weights",
    ):
        arrow(*pair.split())
    arrow("weights", "model")
    style = {"arrowstyle": "-|>", "color": plot.BLACK, "connectionstyle": "arc3,rad=0.35"}
    ax.annotate("", (6.9, 0.25), (2.9, 0.25), arrowprops=style)
    ax.text(5.22, 2.05, "and again", fontsize=9, va="center")
    return figure


def plot_paths(paths: Mapping[str, np.ndarray], curvature: Sequence[float]) -> Figure:
    """Paths (steps + 1, 2) of several optimizers over L = ½ Σ hᵢ wᵢ², and the loss along each."""
    figure, (ax, right) = plot.subplots(1, 2, height=3.0, gridspec_kw={"width_ratios": [1.4, 1]})
    h1, h2 = curvature
    x, y = np.meshgrid(np.linspace(-10, 1.5, 80), np.linspace(-1.6, 1.6, 60))
    ax.contour(x, y, 0.5 * (h1 * x**2 + h2 * y**2), levels=12, colors="#BBBBBB", linewidths=0.7)
    for (name, path), marker in zip(paths.items(), "os^D"):
        ax.plot(*path.T, marker=marker, markersize=3, linewidth=1, label=name)
        right.plot(0.5 * path**2 @ np.array(curvature), label=name)
    ax.set_xlabel("$w_1$ (flat)")
    ax.set_ylabel("$w_2$ (steep)")
    ax.set_ylim(-1.6, 1.6)
    right.set_yscale("log")
    right.set_xlabel("step")
    right.set_ylabel("loss")
    right.legend(fontsize=8)
    return figure


def draw_losses(ax: Any, runs: Mapping[str, Sequence[Run]], width: int = 10) -> None:
    """The training losses of each kind of run, smoothed: every seed thin, their mean bold."""
    for (name, seeds), color in zip(runs.items(), plot.CYCLE):
        curves = np.array([smooth(run.loss, width) for run in seeds])
        for curve in curves:
            ax.plot(curve, color=color, linewidth=0.7, alpha=0.5)
        ax.plot(curves.mean(axis=0), color=color, label=name)
    ax.set_xlabel("step")
    ax.set_ylabel("training loss")


def draw_points(
    ax: Any, values: Mapping[str, Sequence[float]], colors: Sequence[str] = plot.CYCLE
) -> None:
    """One column for each kind: a dot for each seed, a line for their mean."""
    for i, ((_, seeds), color) in enumerate(zip(values.items(), colors)):
        ax.plot([i] * len(seeds), seeds, "o", color=color, markerfacecolor="none")
        ax.plot([i - 0.25, i + 0.25], [np.mean(seeds)] * 2, color=color)
    ax.set_xticks(range(len(values)), list(values), fontsize=8)
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.grid(axis="x", visible=False)


def through(array: np.ndarray, code: str) -> np.ndarray:
    """The array as it comes back from a smaller format: "BF16", or "F16", which turns what is too large into ∞."""
    if code == "F16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)
    return decode(encode(array, code), code)


def draw_sizes(ax: Any, parts: Mapping[str, np.ndarray]) -> None:
    """Histograms of the sizes of numbers on a log₂ axis, and where float16's range lies."""
    bins = np.arange(-48, 18)
    for (name, values), color in zip(parts.items(), plot.CYCLE):
        sizes = np.abs(values[values != 0])
        weights = np.full(sizes.size, 100 / sizes.size)
        ax.hist(
            np.log2(sizes),
            bins,
            weights=weights,
            histtype="step",
            color=color,
            linewidth=1.5,
            label=name,
        )
    ax.axvspan(-25, -14, color=plot.YELLOW, alpha=0.25, linewidth=0, label="fp16: fewer digits")
    ax.axvspan(-48, -25, color=plot.VERMILION, alpha=0.15, linewidth=0, label="fp16: becomes 0")
    ax.axvspan(16, 18, color=plot.PURPLE, alpha=0.3, linewidth=0, label="fp16: becomes ∞")
    ax.set_xlabel("size of a gradient, log₂")
    ax.set_ylabel("% of the numbers")
    ax.legend(fontsize=7, loc="upper left")


@dataclass(frozen=True)
class NotShifted:
    """A mistake as an objective: each token is asked for where it stands, instead of the next one."""

    vocab_size: int
    whole_text = True

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    def __call__(
        self, ids: np.ndarray, targets: np.ndarray, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return ids, ids


class Movement:
    """Given to `train` as before_step: notes by how much each step moved a matrix."""

    def __init__(self) -> None:
        self.moved: list[float] = []
        self.before: np.ndarray | None = None

    def __call__(self, step: int, model: Any) -> None:
        if self.before is not None:
            self.moved.append(movement(self.before, watched(model)))
        self.before = watched(model).copy()


def plot_health(
    folders: Mapping[str, Path], moved: Mapping[str, Sequence[float]], floor: float
) -> Figure:
    """A column for each run folder: losses, gradient norm, update over weight. `floor`: a counting model's loss."""
    figure, axes = plot.subplots(3, len(folders), height=5.4, sharex=True, sharey="row")
    for column, (name, folder) in zip(axes.T, folders.items()):
        rows = read_metrics(folder / "metrics.jsonl")
        steps = [row for row in rows if "lr" in row]
        values = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
        at = [row["step"] for row in steps]
        column[0].plot(
            at, smooth([row["loss"] for row in steps]), color=plot.BLUE, label="training"
        )
        column[0].plot(*zip(*values), "o", color=plot.VERMILION, markersize=4, label="validation")
        column[0].axhline(floor, color=plot.BLACK, linestyle=":", linewidth=1, label="5-gram")
        column[1].plot(at, [row["grad_norm"] for row in steps], color=plot.GREEN, linewidth=1)
        column[2].plot(at[: len(moved[name])], moved[name], color=plot.PURPLE, linewidth=1)
        column[0].set_title(name, fontsize=10)
        column[2].set_xlabel("step")
    for ax, label in zip(axes[:, 0], ("loss", "gradient norm", "update / weight")):
        ax.set_ylabel(label)
    for row in axes[1:]:
        for ax in row:
            ax.set_yscale("log")
    axes[0, 0].legend(fontsize=7)
    return figure


def plot_unknown(runs: Mapping[str, Run]) -> Figure:
    """Training loss with held-out points, and the gradient norm, of runs that are to be told apart."""
    figure, axes = plot.subplots(2, len(runs), height=4.0, sharex=False, sharey="row")
    for column, (name, run) in zip(axes.T, runs.items()):
        column[0].plot(smooth(run.loss), color=plot.BLUE, label="training")
        column[0].plot(*zip(*run.val), "o", color=plot.VERMILION, markersize=4, label="held out")
        column[1].plot(run.norm, color=plot.GREEN, linewidth=1)
        column[1].set_yscale("log")
        column[0].set_title(name, fontsize=10)
        column[1].set_xlabel("step")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("gradient norm")
    axes[0, 0].legend(fontsize=7)
    return figure


def fit_power_law(
    sizes: np.ndarray, losses: np.ndarray, floors: np.ndarray
) -> tuple[float, float, float]:
    """E, A and α of L = E + A·N^−α: for each E in `floors` a straight line through log(L − E), the best E is kept."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for floor in floors[floors < losses.min()]:
        slope, intercept = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
        fitted = floor + np.exp(intercept) * sizes**slope
        error = float(np.sum((fitted - losses) ** 2))
        if error < best[0]:
            best = (error, float(floor), float(np.exp(intercept)), -float(slope))
    return best[1:]


def bootstrap(
    losses: np.ndarray, fit: Callable[[np.ndarray], Any], rng: np.random.Generator, times: int = 200
) -> np.ndarray:
    """`fit` on as many resamples of the seeds: losses (sizes, seeds), in each row seeds drawn with replacement."""
    n_sizes, n_seeds = losses.shape
    found = []
    for _ in range(times):
        picked = rng.integers(0, n_seeds, (n_sizes, n_seeds))
        found.append(fit(np.take_along_axis(losses, picked, axis=1).mean(axis=1)))
    return np.array(found)


