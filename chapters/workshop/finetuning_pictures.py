"""Chapter 11's pictures. What they show is computed in the chapter, or by finetuning.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import FancyBboxPatch, Rectangle
from minillm import plot

from .finetuning import Point

Array = np.ndarray
NEW, LEARNS, FROZEN, ADAPTER = "#FBE5C2", "#FBE5C2", "#D6E9F5", plot.ORANGE


def draw_methods() -> Any:
    """Four ways to train a classifier: what is new, what is pretrained, and what learns."""
    figure, axes = plot.subplots(1, 4, height=3.3)
    bodies = {"scratch": ("new", LEARNS), "frozen": ("pretrained", FROZEN), "LoRA": ("pretrained", FROZEN)}
    bodies["full"] = ("pretrained", LEARNS)
    for ax, (title, (kind, color)) in zip(axes, bodies.items()):
        parts = [("tokens", 0.0, "white"), (f"vectors\n{kind}", 1.0, color), (f"block 1\n{kind}", 2.0, color)]
        parts += [(f"block 2\n{kind}", 3.0, color), ("head\nnew", 4.0, NEW)]
        for text, y, face in parts:
            edge = "#BBBBBB" if text == "tokens" else plot.BLACK
            style = {"boxstyle": "round,pad=0.02", "facecolor": face, "edgecolor": edge}
            ax.add_patch(FancyBboxPatch((-0.6, y - 0.36), 1.2, 0.72, **style))
            ax.text(0, y, text, ha="center", va="center", fontsize=8)
            if title == "LoRA" and text.startswith("block"):
                ax.add_patch(Rectangle((0.72, y - 0.3), 0.34, 0.6, facecolor=ADAPTER, edgecolor=plot.BLACK))
                ax.text(0.89, y, "$BA$", ha="center", va="center", fontsize=8)
            if y:
                ax.annotate("", (0, y - 0.38), (0, y - 0.62), arrowprops={"arrowstyle": "->"})
        ax.annotate("", (0, 4.75), (0, 4.38), arrowprops={"arrowstyle": "->"})
        ax.text(0, 4.85, "logits", ha="center", fontsize=8)
        ax.set_xlim(-0.85, 1.15)
        ax.set_ylim(-0.6, 5.2)
        ax.set_title(title, fontsize=11)
        ax.axis("off")
    names = (("learns", LEARNS), ("frozen", FROZEN), ("adapter: learns", ADAPTER))
    patches = [Rectangle((0, 0), 1, 1, facecolor=color, edgecolor=plot.BLACK) for _, color in names]
    figure.legend(patches, [name for name, _ in names], loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def class_losses(x: Array, losses: Mapping[str, Array], slopes: Mapping[str, Array]) -> Any:
    """Two losses of a yes/no question whose answer is yes, and how strongly each pulls, against the logit."""
    figure, (left, right) = plot.subplots(1, 2, height=2.8)
    for (name, loss), color, line in zip(losses.items(), (plot.BLUE, plot.VERMILION), ("-", "--")):
        left.plot(x, loss, line, color=color, label=name)
        right.plot(x, slopes[name], line, color=color, label=name)
    left.set_ylabel("loss")
    right.set_ylabel("pull: −dℓ/dx")
    for ax in (left, right):
        ax.set_xlabel("logit x of the right answer")
    left.legend(fontsize=9)
    return figure


def confusion(counts: Array, names: Sequence[str]) -> Any:
    """A confusion matrix: a row for each class, a column for each answer, coloured by its share of the row."""
    figure, ax = plot.subplots(height=3.4, width=4.8)
    shares = counts / counts.sum(axis=1, keepdims=True)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.grid(visible=False)
    for (i, j), n in np.ndenumerate(counts):
        ax.text(j, i, str(n), ha="center", va="center", fontsize=9, color="white" if shares[i, j] > 0.55 else "black")
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("answered")
    ax.set_ylabel("truth")
    return figure


def by_threshold(thresholds: Array, curves: Mapping[str, Array]) -> Any:
    """Scores of a detector against the threshold above which it says yes."""
    figure, ax = plot.subplots(height=3.0)
    for (name, values), color, line in zip(curves.items(), plot.CYCLE, ("-", "--", "-.", ":")):
        ax.plot(thresholds, values, color=color, linestyle=line, label=name)
    ax.set_xlabel("threshold: it says yes where the probability is above")
    ax.set_ylabel("score")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def transfer_curves(panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]) -> Any:
    """Accuracy against the number of labels, a panel for each pretrained model: means, bars of one standard
    deviation."""
    figure, axes = plot.subplots(1, len(panels), height=3.1, sharey=True, squeeze=False)
    axes = axes[0]
    styles = {"scratch": (plot.BLACK, "x", ":"), "vectors only": (plot.PURPLE, "v", "-.")}
    styles |= {"frozen": (plot.BLUE, "o", "--"), "LoRA": (plot.ORANGE, "s", (0, (5, 1)))}
    styles |= {"full": (plot.VERMILION, "^", "-")}
    for ax, (title, rows) in zip(axes, panels.items()):
        for i, (name, cells) in enumerate(rows.items()):
            color, mark, line = styles[name]
            labels = np.array(list(cells)) * 1.06 ** (i - len(rows) / 2)  # beside each other
            means = [np.mean(v) for v in cells.values()]
            spreads = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in cells.values()]
            ax.errorbar(labels, means, spreads, color=color, marker=mark, linestyle=line, capsize=3, label=name)
        ax.axhline(0.5, color="#999999", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks([16, 64, 256], ["16", "64", "256"])
        ax.minorticks_off()
        ax.set_xlabel("labels")
        ax.set_title(title, fontsize=10)
    axes[0].set_ylabel("accuracy on new words")
    axes[-1].legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="lower right")  # where there is room
    return figure


def energy_by_rank(shares: Mapping[str, Array], random: Array, rank: int) -> Any:
    """How much of a change lies in its r strongest directions, against r: one line for each matrix, and a matrix of
    random numbers for comparison."""
    figure, ax = plot.subplots(height=3.0)
    for (name, share), color, mark in zip(shares.items(), plot.CYCLE, "os^D"):
        ax.plot(np.arange(1, len(share) + 1), share, color=color, marker=mark, markevery=8, ms=4, label=name)
    ax.plot(np.arange(1, len(random) + 1), random, ":", color=plot.BLACK, label="random numbers")
    ax.axvline(rank, color="#999999", linewidth=1)
    ax.text(rank + 0.5, 0.03, f"r = {rank}", fontsize=9)
    ax.set_xlabel("strongest directions kept, r")
    ax.set_ylabel("share of ‖ΔW‖²")
    ax.set_ylim(0, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def fit_curves(panels: Mapping[str, Sequence[Point]], floor: float) -> Any:
    """Training and validation losses of several runs, the step of the lowest validation loss, and the loss below which
    nobody can get honestly; below them the validation accuracy."""
    options: dict[str, Any] = {"sharex": True, "sharey": "row", "gridspec_kw": {"height_ratios": [1.7, 1]}}
    figure, rows = plot.subplots(2, len(panels), height=4.4, **options)
    for ax, below, (title, points) in zip(*rows, panels.items()):
        steps = [p.step for p in points]
        ax.plot(steps, [p.train for p in points], "--", color=plot.BLUE, label="training")
        ax.plot(steps, [p.val for p in points], "-o", color=plot.VERMILION, ms=3, label="validation")
        ax.axhline(floor, color=plot.BLACK, linestyle=":", linewidth=1.2, label="best possible")
        below.plot(steps, [p.accuracy for p in points], "-o", color=plot.VERMILION, ms=3)
        best = min(points, key=lambda p: p.val)
        ax.plot(best.step, best.val, "*", color=plot.BLACK, ms=10, label="lowest", linestyle="none", zorder=5)
        below.plot(best.step, best.accuracy, "*", color=plot.BLACK, ms=10, zorder=5)
        ax.set_title(title, fontsize=10)
        below.set_xlabel("step")
    rows[0, 0].set_ylabel("loss (nats per text)")
    rows[0, 0].set_ylim(0, 1.65)
    rows[0, 0].legend(fontsize=8, loc="upper left")
    rows[1, 0].set_ylabel("validation\naccuracy")
    rows[1, 0].set_ylim(0.45, 0.85)
    return figure


def cures_picture(results: Mapping[str, Array]) -> Any:
    """Accuracy and loss on clean test texts of each cure: values (seeds, 2 or more), columns loss and accuracy last.
    Open dots are seeds, bars are means; the line is the mean without any cure."""
    figure, (left, right) = plot.subplots(1, 2, height=3.4, sharey=True)
    names = list(results)
    for ax, column, title in ((left, -1, "accuracy"), (right, -2, "loss (nats)")):
        ax.axvline(results[names[0]][:, column].mean(), color=plot.VERMILION, linewidth=1.2, linestyle="--")
        for i, name in enumerate(names):
            values = results[name][:, column]
            ax.plot(values, np.full(len(values), i), "o", color=plot.BLUE, mfc="white", ms=5)
            ax.plot(values.mean(), i, "|", color=plot.BLACK, ms=16, markeredgewidth=2.4)
        ax.set_xlabel(f"{title} on clean test texts")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    return figure
