"""Chapter 17's pictures: what fills the memory, who holds and sends what, saving against losing, runs of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import NullLocator
from minillm import plot
from minillm.costs.scaling import ScalingLaw
from minillm.costs.sizes import Memory

from .boxes import GREY, PALE_BLUE, PALE_GREEN, PALE_ORANGE, Box, draw_boxes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray
PARTS = {"weights": plot.BLUE, "gradients": plot.SKY, "optimizer": plot.GREEN, "activations": plot.ORANGE}


def memory_bars(needs: Mapping[str, Mapping[str, Memory]], cards: Mapping[str, float]) -> Figure:
    """For each model, bars for each way to train it, in GB, and lines for the memory of some cards."""
    figure, axes = plot.subplots(1, len(needs), height=3.4, gridspec_kw={"wspace": 0.1})
    for ax, (model, ways) in zip(axes, needs.items()):
        bottom = np.zeros(len(ways))
        for part, color in PARTS.items():
            sizes = np.array([getattr(need, part) / 1e9 for need in ways.values()])
            ax.bar(range(len(ways)), sizes, bottom=bottom, color=color, edgecolor="white", width=0.7, label=part)
            bottom += sizes
        ax.set_ylim(0, 1.12 * bottom.max())
        ax.set_xlim(-0.6, len(ways) - 0.1)
        for card, size in cards.items():
            if size < 1.1 * bottom.max():
                ax.axhline(size, color=plot.BLACK, linestyle="--", linewidth=1)
                ax.text(len(ways) - 0.5, size, f" {card}", ha="left", va="bottom", fontsize=8, rotation=90)
        ax.set_xticks(range(len(ways)), list(ways), fontsize=8)
        ax.set_title(model, fontsize=9)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("GB")
    axes[0].legend(fontsize=8, loc="upper right")
    return figure


def two_ways_out(layers: Mapping[str, Sequence[float]], depths: Sequence[int], parts: Mapping[int, float]) -> Figure:
    """Left: what the graph keeps by depth, for each way to compute again (MB). Right: the most memory of a step by the
    number of micro-batches that one batch is cut into (MB)."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    marks = {"none": ("o", "keep everything"), "selective": ("s", "selective"), "layers": ("D", "layers")}
    for how, sizes in layers.items():
        marker, name = marks[how]
        left.plot(depths, sizes, marker + "-", label=name)
    left.set(xlabel="layers", ylabel="MB kept after the forward pass", ylim=(0, None), xticks=depths)
    left.legend(fontsize=8)
    right.bar(range(len(parts)), list(parts.values()), color=plot.ORANGE, width=0.6)
    right.set_xticks(range(len(parts)), [str(n) for n in parts])
    right.set(xlabel="micro-batches for the same 16 rows", ylabel="MB at most, in a step")
    right.grid(axis="x", visible=False)
    return figure


def utilisation(rows: Sequence[int], found: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """MFU (full lines) and HFU (dashed) in percent by the rows of a batch, for each way to compute."""
    figure, ax = plot.subplots(height=2.9)
    for (name, (mfu, hfu)), color, marker in zip(found.items(), (plot.BLUE, plot.VERMILION), "os"):
        ax.plot(rows, mfu, marker + "-", color=color, label=f"{name}: MFU")
        if list(hfu) != list(mfu):
            ax.plot(rows, hfu, marker + "--", color=color, markerfacecolor="white", label=f"{name}: HFU")
    ax.set_xscale("log", base=2)
    ax.set_xticks(rows, [str(n) for n in rows])
    ax.set(xlabel="rows of a micro-batch", ylabel="% of a large product's speed", ylim=(0, None))
    ax.legend(fontsize=8, loc="lower right")
    return figure


def draw_ranks() -> Figure:
    """One step of two ranks, with the whole model each, and with a half of it each."""
    boxes = {}
    for y, rank in ((1.0, 0), (0.0, 1)):
        boxes[f"rows {rank}"] = Box(0.0, y, 0.62, f"rank {rank}:\nits rows", GREY)
        boxes[f"forward {rank}"] = Box(2.1, y, 0.95, "forward, backward\nwith all weights\n(FSDP: gathered)", PALE_BLUE)
        boxes[f"own {rank}"] = Box(4.35, y, 0.75, "gradient of\nits own rows\n$(N)$", PALE_ORANGE)
        mean = "gradient of all rows\nDDP: all of it, $(N)$\nFSDP: a part, $(N/P)$"
        boxes[f"mean {rank}"] = Box(6.65, y, 0.95, mean, PALE_GREEN)
        boxes[f"step {rank}"] = Box(8.85, y, 0.72, "AdamW\non what it\nholds", PALE_BLUE)
    names = ("rows", "forward", "own", "mean", "step")
    arrows = [(f"{a} {rank}", f"{b} {rank}") for rank in (0, 1) for a, b in pairwise(names)]
    figure = draw_boxes(boxes, arrows, height=2.5)
    ax = figure.axes[0]
    for low, high in ((0.38, 0.62), (0.62, 0.38)):
        ax.annotate("", (5.75, high), (5.05, low), arrowprops={"arrowstyle": "->", "color": plot.VERMILION})
    ax.text(5.4, 0.5, "  exchange", fontsize=8, color=plot.VERMILION, ha="left", va="center")
    return figure


def rank_bars(
    notes: Mapping[str, Sequence[Mapping[str, Any]]], sent: Mapping[str, Mapping[str, float]], n: int
) -> Figure:
    """Left: what each rank holds, in units of the number of weights, n. Right: what it sends, in the same."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    names = [f"{kind.upper()}\nrank {note['rank']}" for kind, ranks in notes.items() for note in ranks]
    bottom = np.zeros(len(names))
    for part, color in (("weights", plot.BLUE), ("gradients", plot.SKY), ("moments", plot.GREEN)):
        sizes = np.array([note["held"][part] / n for ranks in notes.values() for note in ranks])
        left.bar(range(len(names)), sizes, bottom=bottom, color=color, edgecolor="white", label=part, width=0.7)
        bottom += sizes
    left.set_xticks(range(len(names)), names, fontsize=8)
    left.set(ylabel="numbers held, in units of $N$", ylim=(0, 5.2))
    left.legend(fontsize=8, loc="upper right")
    bottom = np.zeros(len(notes))
    for call, color in (("all-reduce", plot.VERMILION), ("all-gather", plot.PURPLE), ("reduce-scatter", plot.ORANGE)):
        sizes = np.array([sent[kind].get(call, 0) for kind in notes])
        right.bar(range(len(notes)), sizes, bottom=bottom, color=color, edgecolor="white", label=call, width=0.5)
        bottom += sizes
    right.set_xticks(range(len(notes)), [kind.upper() for kind in notes])
    right.set(ylabel="sent by a rank, in units of $N$", ylim=(0, 2.1))
    right.legend(fontsize=8, loc="upper left")
    for ax in (left, right):
        ax.grid(axis="x", visible=False)
    return figure


def saving_curve(
    fine: Array, expected: Mapping[str, Array], minutes: Array, measured: Mapping[str, Array], best: Mapping[str, float]
) -> Figure:
    """The time lost, as a share of the work, by how often one saves: expected (lines), simulated (mean and range of the
    seeds), and Young's interval (dotted), for each time that a save takes."""
    figure, ax = plot.subplots(height=3.2)
    for (name, curve), color in zip(expected.items(), plot.CYCLE):
        ax.plot(fine, 100 * curve, color=color, label=f"a save takes {name}")
        runs = 100 * measured[name]  # (intervals, seeds)
        middle = runs.mean(axis=1)
        bars = [middle - runs.min(axis=1), runs.max(axis=1) - middle]
        ax.errorbar(minutes, middle, bars, fmt="o", markersize=4, color=color, capsize=2, linewidth=1)
        ax.axvline(best[name], color=color, linestyle=":", linewidth=1.5)
    ax.set(xscale="log", yscale="log", xlabel="minutes of training between two saves")
    ax.set_ylabel("time lost, % of the work")
    ticks = [m for m in (5, 10, 20, 50, 100) if fine.min() <= m <= fine.max()]
    ax.set_xticks(ticks, [str(m) for m in ticks])
    ax.set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    ax.minorticks_off()
    ax.legend(fontsize=8, title="dotted: Young's interval", title_fontsize=8)
    return figure


def isoflop_curves(
    groups: Mapping[float, tuple[Array, Array]],
    optima: Mapping[float, float],
    parabola: Callable[[float, Array], Array],
) -> Figure:
    """For each compute the losses by size, (sizes,) and (sizes, seeds), with the parabola and its lowest point."""
    figure, ax = plot.subplots(height=3.4)
    for (compute, (sizes, losses)), color, marker in zip(groups.items(), plot.CYCLE, "osD^"):
        ax.plot(np.repeat(sizes, losses.shape[1]), losses.ravel(), marker, color=color, markersize=4)
        x = np.geomspace(sizes.min() / 1.2, sizes.max() * 1.2, 80)
        ax.plot(x, parabola(compute, x), color=color)
        ax.plot([], [], marker + "-", color=color, label=f"{compute:.1e} operations")
        best = optima[compute]
        ax.plot([best], parabola(compute, np.array([best])), "*", color=color, markersize=15, markeredgecolor="black")
    ax.set(xscale="log", xlabel="parameters $N$", ylabel="held-out loss\n(nats per character)")
    plain_ticks(ax.xaxis, *ax.get_xlim())
    ax.legend(fontsize=8)
    return figure


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Numbers of parameters as people write them, on a logarithmic axis from low to high."""
    ticks = [digit * 10**power for power in range(2, 8) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def optimum_by_compute(
    computes: Array, optima: Array, drawn: Array, lines: Mapping[str, Array], x: Array, beyond: float
) -> Figure:
    """N_opt by compute: each fit's line over x, the optima with the 90% range of the draws (draws, computes), and where
    the held-back compute lies."""
    figure, ax = plot.subplots(height=3.2)
    for (name, line), style in zip(lines.items(), ("-", "--", "-.", ":")):
        ax.plot(x, line, style, label=name)
    low, high = np.percentile(drawn, (5, 95), axis=0)
    bars = [np.maximum(optima - low, 0), np.maximum(high - optima, 0)]
    name = "lowest points, and 90% of the draws"
    ax.errorbar(computes, optima, bars, fmt="o", color=plot.BLACK, capsize=3, label=name)
    ax.axvline(beyond, color=plot.BLACK, linestyle=":", linewidth=1)
    ax.text(beyond, 0.04, " held back", fontsize=8, va="bottom", transform=ax.get_xaxis_transform())
    ax.set(xscale="log", yscale="log", xlabel="operations, $6ND$", ylabel="$N_{opt}$, parameters")
    plain_ticks(ax.yaxis, *ax.get_ylim())
    ax.legend(fontsize=8)
    return figure


def whole_cost(
    law: ScalingLaw, loss: float, served: Mapping[str, float], sizes: Array, best: Mapping[str, float]
) -> Figure:
    """Operations to train a model of each size to the same loss and to serve it, for each number of tokens served."""
    figure, ax = plot.subplots(height=3.2)
    tokens = (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    for (name, number), color in zip(served.items(), plot.CYCLE):
        cost = 6 * sizes * tokens + 2 * sizes * number
        ax.plot(sizes / 1e9, cost, color=color, label=f"{name} served")
        n = best[name]
        d = (law.B / (loss - law.E - law.A / n**law.alpha)) ** (1 / law.beta)
        ax.plot([n / 1e9], [6 * n * d + 2 * n * number], "o", color=color)
    ax.set(xscale="log", yscale="log", xlabel="billion parameters", ylabel="operations, trained and served")
    ticks = [t for t in (3, 5, 7, 10, 20, 30, 50, 100) if sizes.min() <= t * 1e9 <= sizes.max()]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return figure
