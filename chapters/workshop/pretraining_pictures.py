"""Chapter 08's pictures. What they show is computed in the chapter, or noted by pretraining.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from minillm import plot

from .pretraining import Run, rows_of, smooth

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_step() -> Figure:
    """One training step as a picture: what is computed from what, and what is kept for the next step."""
    figure, ax = plot.subplots(height=3.2)
    ax.set_xlim(0, 10)
    ax.set_ylim(-0.9, 3.9)
    ax.axis("off")
    grey, blue, orange = "#EFEFEF", "#D6E9F5", "#FBE6D3"
    boxes = {
        "text": (0.7, 3.3, "text", grey),
        "batch": (2.7, 3.3, "batch\nids, targets", grey),
        "model": (5.0, 3.3, "model\nforward", blue),
        "loss": (7.1, 3.3, "loss\none number", blue),
        "gradients": (9.2, 3.3, "gradients\nbackward", blue),
        "clip": (9.2, 1.3, "clip\nthe norm", orange),
        "adamw": (7.1, 1.3, "AdamW\nkeeps m and v", orange),
        "weights": (5.0, 1.3, "weights\nmove a little", orange),
        "schedule": (7.1, -0.4, "schedule\nlearning rate", orange),
    }
    placed = {}
    for name, (x, y, text, color) in boxes.items():
        style = {"boxstyle": "round,pad=0.4", "facecolor": color, "edgecolor": plot.BLACK}
        placed[name] = ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=style)
    arrows = "text batch, batch model, model loss, loss gradients, gradients clip, clip adamw, adamw weights"
    for pair in f"{arrows}, weights model, schedule adamw".split(", "):
        a, b = pair.split()
        style = {"arrowstyle": "-|>", "color": plot.BLACK, "patchA": placed[a].get_bbox_patch()}
        style |= {"patchB": placed[b].get_bbox_patch(), "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", boxes[b][:2], boxes[a][:2], arrowprops=style)
    ax.text(4.85, 2.3, "next step", fontsize=9, va="center", ha="right")
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


def draw_losses(
    ax: Any, runs: Mapping[str, Sequence[Run]], width: int = 10, colors: Sequence[str] = plot.CYCLE
) -> None:
    """The training losses of each kind of run, smoothed: every seed thin, their mean bold."""
    for (name, seeds), color in zip(runs.items(), colors):
        curves = np.array([smooth(run.loss, width) for run in seeds])
        for curve in curves:
            ax.plot(curve, color=color, linewidth=0.7, alpha=0.5)
        ax.plot(curves.mean(axis=0), color=color, label=name)
    ax.set_xlabel("step")
    ax.set_ylabel("training loss")


def draw_points(ax: Any, values: Mapping[str, Sequence[float]], colors: Sequence[str] = plot.CYCLE) -> None:
    """One column for each kind: a dot for each seed, a line for their mean."""
    for i, ((_, seeds), color) in enumerate(zip(values.items(), colors)):
        ax.plot([i] * len(seeds), seeds, "o", color=color, markerfacecolor="none")
        ax.plot([i - 0.25, i + 0.25], [np.mean(seeds)] * 2, color=color)
    ax.set_xticks(range(len(values)), list(values), fontsize=8)
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.grid(axis="x", visible=False)


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
    ax.legend(fontsize=7, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)


def plot_health(folders: Mapping[str, Path], moved: Mapping[str, Sequence[float]], floor: float) -> Figure:
    """A column for each run folder: losses, gradient norm, update over weight. `floor`: a counting model's loss."""
    figure, axes = plot.subplots(3, len(folders), height=5.4, sharex=True, sharey="row")
    for column, (name, folder) in zip(axes.T, folders.items()):
        rows = rows_of(folder)
        steps = [row for row in rows if "lr" in row]
        values = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
        at = [row["step"] for row in steps]
        column[0].plot(at, smooth([row["loss"] for row in steps]), color=plot.BLUE, label="training")
        column[0].plot(*zip(*values), "o", color=plot.VERMILION, markersize=4, label="validation")
        column[0].axhline(floor, color=plot.BLACK, linestyle=":", linewidth=1, label="5-gram")
        column[1].plot(at, [row["grad_norm"] for row in steps], color=plot.GREEN, linewidth=1)
        column[2].plot(at[: len(moved[name])], moved[name], color=plot.PURPLE, linewidth=1)
        column[0].set_title(name, fontsize=10)
        column[2].set_xlabel("step")
    for ax, label in zip(axes[:, 0], ("loss", "gradient norm", "update / weight")):
        ax.set_ylabel(label)
    axes[1, 0].set_ylim(0, 4)
    for ax in axes[2]:
        ax.set_yscale("log")
    axes[0, 0].legend(fontsize=7)
    return figure


def plot_unknown(runs: Mapping[str, Run]) -> Figure:
    """Training loss with held-out points, and update over weight, of runs that are to be told apart."""
    figure, axes = plot.subplots(2, len(runs), height=4.4, sharex=False, sharey="row")
    for column, (name, run) in zip(axes.T, runs.items()):
        column[0].plot(smooth(run.loss), color=plot.BLUE, label="training")
        column[0].plot(*zip(*run.val), "o", color=plot.VERMILION, markersize=4, label="held out")
        column[1].plot(run.moved, color=plot.PURPLE, linewidth=1)
        column[1].set_yscale("log")
        column[0].set_title(name, fontsize=10)
        column[1].set_xlabel("step")
    axes[0, 0].set_ylim(-0.3, 9)
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("update / weight")
    axes[0, 0].legend(fontsize=7, loc="upper right")
    return figure


def plot_matrices(rows: Mapping[str, Sequence[float]]) -> Figure:
    """Bars for each matrix: size of its gradients, of AdamW's step for η = 1, and of that step over the weights."""
    figure, axes = plot.subplots(1, 3, height=3.2, sharey=True)
    titles = ("gradients: $\\sqrt{\\hat v}$", "AdamW's step for η = 1", "... over the weights")
    names = [name.removesuffix(".weight") for name in rows]
    for ax, values, title, color in zip(axes, zip(*rows.values()), titles, (plot.VERMILION, plot.BLUE, plot.BLUE)):
        ax.barh(names, values, color=color)
        ax.set_xscale("log")
        ax.set_xlim(10 ** np.floor(np.log10(min(values))), 10 ** np.ceil(np.log10(max(values))))
        ax.minorticks_off()
        ax.set_title(title, fontsize=10)
        ax.tick_params(axis="y", labelsize=8)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return figure


def plot_sweep(swept: Mapping[str, Mapping[float, Run]], best: Mapping[str, Sequence[Run]], unigram: float) -> Figure:
    """Held-out loss by learning rate for each optimizer, and the training losses at the best."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    for (name, runs), color in zip(swept.items(), (plot.VERMILION, plot.BLUE)):
        left.plot(list(runs), [run.final for run in runs.values()], "o-", color=color, label=name)
    left.axhline(unigram, color=plot.BLACK, linestyle=":", linewidth=1, label="frequencies only")
    left.set_xscale("log")
    left.set_xlabel("learning rate (one seed each)")
    left.set_ylabel("held-out loss")
    left.legend(fontsize=8)
    draw_losses(right, {name: best[name] for name in swept}, colors=(plot.VERMILION, plot.BLUE))
    right.legend(fontsize=8)
    return figure


def plot_schedules(factors: Mapping[str, Sequence[float]], runs: Mapping[str, Sequence[Run]]) -> Figure:
    """The schedules, the first steps of the two cosines, and all held-out losses."""
    figure, (left, middle, right) = plot.subplots(1, 3, height=3.2)
    for (name, values), color, style in zip(factors.items(), plot.CYCLE, ("-", "--", "-", ":")):
        left.plot(values, color=color, linestyle=style, label=name)
    left.set_title("factor on η", fontsize=10)
    left.set_xlabel("step")
    left.set_ylim(0, 1.65)
    left.legend(fontsize=7, loc="upper right")
    for name, color in (("cosine", plot.GREEN), ("cosine, no warmup", plot.PURPLE)):
        for i, run in enumerate(runs[name]):
            middle.plot(run.loss[:40], color=color, linewidth=1, label=None if i else name)
    middle.set_title("training loss, first steps", fontsize=10)
    middle.set_xlabel("step")
    middle.legend(fontsize=7)
    draw_points(
        right,
        {name.replace(", ", ",\n"): [run.final for run in seeds] for name, seeds in runs.items()},
    )
    right.tick_params(axis="x", rotation=60)
    right.set_title("held-out loss", fontsize=10)
    return figure


def plot_bad_batch(hit: Mapping[tuple[str, float], Sequence[Run]], bad: int) -> Figure:
    """Training losses around one bad batch, clipped and not, for each optimizer."""
    names = list(dict.fromkeys(name for name, _ in hit))
    figure, axes = plot.subplots(1, len(names), height=3.0, sharey=True)
    for ax, name in zip(axes, names):
        for clip, color, label in (
            (np.inf, plot.VERMILION, "not clipped"),
            (1.0, plot.BLUE, "clipped at 1"),
        ):
            for i, run in enumerate(hit[name, clip]):
                ax.plot(run.loss, color=color, linewidth=1, label=None if i else label)
        ax.axvline(bad, color=plot.BLACK, linestyle=":", linewidth=1)
        ax.set_xlim(bad - len(run.loss) // 6, len(run.loss))
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("step (dotted: the bad batch)")
    axes[0].set_ylim(3.5, 8)
    axes[0].set_ylabel("training loss")
    axes[-1].legend(fontsize=8)
    return figure


def plot_mean_of_means(
    kept: Sequence[int],
    weights: Sequence[Sequence[float]],
    errors: Sequence[float],
    library: Sequence[float],
) -> Figure:
    """What a target weighs in each half under the mean of means, and the error of the gradient."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    for values, label, color in zip(zip(*weights), ("in the full half", "in the padded half"), plot.CYCLE):
        left.plot(kept, values, "o-", color=color, label=label)
    left.axhline(1, color=plot.BLACK, linestyle=":", linewidth=1)
    left.set_ylabel("weight of a target\n(its fair share = 1)")
    right.plot(kept, [100 * e for e in errors], "o-", color=plot.VERMILION, label="mean of means")
    right.plot(kept, [100 * e for e in library], "s-", color=plot.GREEN, label="library")
    right.set_ylabel("error of the gradient (%)")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(kept, kept)
        ax.invert_xaxis()
        ax.set_xlabel("targets in a row of the padded half")
        ax.legend(fontsize=8)
    return figure


def plot_dropout(cases: Mapping[tuple[str, float], Sequence[Run]], epochs: Mapping[str, float]) -> Figure:
    """Held-out losses (bold, points) and training losses (thin) with dropout and without, for each text."""
    figure, axes = plot.subplots(1, len(epochs), height=3.2, sharey=True)
    for ax, name in zip(axes, epochs):
        for (text, p), runs in cases.items():
            if text != name:
                continue
            color = plot.VERMILION if p else plot.BLUE
            for run in runs:
                ax.plot(*zip(*run.val), "o-", color=color, linewidth=0.6, markersize=2.5, alpha=0.6)
            ax.plot(
                np.mean([smooth(run.loss, 20) for run in runs], axis=0),
                color=color,
                linestyle="--",
                linewidth=1,
            )
            points = np.mean([run.val for run in runs], axis=0)  # (looks, 2)
            ax.plot(*points.T, color=color, label=f"dropout {p}")
        ax.set_title(f"{name}: {epochs[name]:.2g} epochs", fontsize=10)
        ax.set_xlabel("step")
    axes[0].set_ylabel("loss (dashed: in training)")
    axes[-1].legend(fontsize=8)
    return figure


def plot_fp16(
    parts: Mapping[str, np.ndarray], scales: np.ndarray, lost: Mapping[str, Sequence[float]],
    overflown: Mapping[str, Sequence[bool]],
) -> Figure:  # fmt: skip
    """Sizes of gradients and float16's range; the share that becomes 0, by loss scale."""
    figure, (left, right) = plot.subplots(1, 2, height=3.4)
    draw_sizes(left, parts)
    for (name, values), color in zip(lost.items(), plot.CYCLE):
        right.plot(scales, values, "o-", color=color, markersize=4, label=f"{name}: become 0")
        if any(overflown[name]):
            first = scales[int(np.argmax(overflown[name]))]
            right.axvline(first, color=color, linestyle=":", label=f"{name}: first ∞")
    right.set_xlabel("k, the loss times $2^k$")
    right.set_ylabel("% of the gradients, in fp16")
    right.legend(fontsize=7, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)
    return figure


def plot_bf16(rates: np.ndarray, changed: Sequence[float], low: float, gained: Mapping[str, Sequence[float]]) -> Figure:
    """The share of bf16 weights that a step changes, by learning rate; what training on at a low one gains."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    left.plot(rates, changed, "o-", color=plot.BLUE)
    left.axvline(low, color=plot.BLACK, linestyle=":", linewidth=1)
    left.set_xscale("log")
    left.set_ylim(0, 100)
    left.set_xlabel("learning rate η")
    left.set_ylabel("% of the bf16 weights\nthat one step changes")
    names = {"fp32": "fp32", "bf16": "bf16 only", "master": "bf16, fp32\nmaster weights"}
    draw_points(right, {names[form]: values for form, values in gained.items()})
    right.axhline(0, color=plot.BLACK, linewidth=0.8)
    right.set_ylabel(f"fall of the held-out loss\nat η = {low:g}")
    return figure


def plot_law(
    sizes: np.ndarray, losses: np.ndarray, largest_size: int, largest: np.ndarray,
    law: Callable[[Any, Any], Any], fits: Mapping[str, Any], scatter: Mapping[str, np.ndarray],
) -> Figure:  # fmt: skip
    """Losses by size, the fitted laws with 90% bands, and the size that was not in the fit."""
    figure, ax = plot.subplots(height=3.4)
    grid = np.logspace(np.log10(sizes[0] / 1.5), np.log10(largest_size * 4), 60)
    for (name, sample), color in zip(scatter.items(), (plot.BLUE, plot.ORANGE)):
        curves = np.array([law(sample, n) for n in grid])  # (60, resamples)
        ax.fill_between(grid, *np.percentile(curves, (5, 95), axis=1), color=color, alpha=0.25, linewidth=0)
        ax.plot(
            grid,
            law(fits[name], grid),
            color=color,
            linestyle="-" if name == "E = 0" else "--",
            label=name,
        )
    for n, row in zip(sizes, losses):
        ax.plot([n] * len(row), row, "o", color=plot.BLACK, markerfacecolor="none")
    ax.plot(
        [largest_size] * len(largest),
        largest,
        "D",
        color=plot.VERMILION,
        markersize=5,
        label="not in the fit",
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = np.arange(3.6, 6.1, 0.4)
    ax.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(min(largest.min(), losses.min()) * 0.93, losses.max() * 1.04)
    ax.set_xlabel("N, weights")
    ax.set_ylabel("held-out loss")
    ax.legend(fontsize=8)
    return figure


def plot_python(folder: Path, bits: Mapping[str, float], floor: float) -> Figure:
    """The losses of a finished run, from its metrics.jsonl, and its bits per byte beside the baselines'."""
    figure, (left, right) = plot.subplots(1, 2, height=3.4)
    rows = rows_of(folder)
    steps, losses = zip(*((row["step"], row["loss"]) for row in rows if "loss" in row))
    left.plot(steps, losses, color=plot.BLUE, alpha=0.25, linewidth=1)
    left.plot(steps, smooth(losses, 20), color=plot.BLUE, label="training")
    values = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
    left.plot(*zip(*values), "o-", color=plot.VERMILION, markersize=4, label="validation")
    left.axhline(floor, color=plot.BLACK, linestyle="--", linewidth=1, label="5-gram")
    left.set_xlabel("step")
    left.set_ylabel("loss (nats per token)")
    left.legend(fontsize=8)
    names = sorted(bits, key=lambda name: -bits[name])
    colors = [plot.BLUE if "this run" in name else "#BBBBBB" for name in names]
    bars = right.barh(names, [bits[name] for name in names], color=colors)
    right.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    right.set_xlim(0, 1.15 * max(bits.values()))
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=8)
    right.set_xlabel("bits per byte, held-out code")
    right.grid(axis="y", visible=False)
    return figure
