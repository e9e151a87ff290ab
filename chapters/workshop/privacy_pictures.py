"""Chapter 19's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from minillm import plot

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_PURPLE, Box, draw_boxes

Array = np.ndarray
CHANCE = float(np.log2(np.e))  # the mean exposure of a secret that a model never saw
MARKERS = "osD^v"


def where_tools_act() -> Any:
    """From text to text, and which tool acts where."""
    boxes = {
        "text": Box(0.0, 1.0, 0.75, "text to learn from\n(of people)"),
        "training": Box(2.0, 1.0, 0.75, "training", PALE_ORANGE),
        "model": Box(4.0, 1.0, 0.75, "model", PALE_ORANGE),
        "made": Box(6.0, 1.0, 0.75, "text that it writes\n(for people)"),
        "clean": Box(0.0, 2.1, 0.75, "scrub, deduplicate,\naugment", PALE_GREEN),
        "private": Box(2.0, 2.1, 0.75, "DP-SGD: clip,\nadd noise", PALE_GREEN),
        "measure": Box(4.0, -0.1, 0.75, "measure: exposure,\ngaps, WEAT", PALE_BLUE),
        "mark": Box(6.0, 2.1, 0.75, "watermark", PALE_GREEN),
        "detect": Box(6.0, -0.1, 0.75, "detect:\n$z$ with the key", PALE_BLUE),
        "plant": Box(0.0, -0.1, 0.75, "plant canaries,\na known bias", PALE_PURPLE),
    }
    arrows = [("text", "training"), ("training", "model"), ("model", "made"), ("clean", "text")]
    arrows += [("private", "training"), ("mark", "made"), ("plant", "text"), ("model", "measure"), ("made", "detect")]
    return draw_boxes(boxes, arrows, height=3.0)


def exposure_panels(kinds: Mapping[str, Mapping[str, Sequence[float]]], most: float) -> Any:
    """For each kind of training, a dot for each secret by how often it stood in the notes, and a line by the means."""
    figure, axes = plot.subplots(1, len(kinds), height=3.2, sharey=True, squeeze=False)
    for ax, (kind, groups), color in zip(axes[0], kinds.items(), (plot.BLUE, plot.VERMILION, plot.GREEN)):
        rng = np.random.default_rng(0)
        for i, bits in enumerate(groups.values()):
            ax.plot(i + rng.uniform(-0.2, 0.2, len(bits)), bits, "o", color=color, mfc="none", markersize=4, alpha=0.7)
        means = [np.mean(bits) for bits in groups.values()]
        counted = [i for i, group in enumerate(groups) if group.isdigit()]
        ax.plot(counted, [means[i] for i in counted], color=plot.BLACK, marker="_", markersize=14, label="mean")
        rest = [i for i in range(len(means)) if i not in counted]
        ax.plot(rest, [means[i] for i in rest], color=plot.BLACK, marker="_", markersize=14, linestyle="")
        ax.axhline(CHANCE, color=plot.BLACK, linestyle=":", linewidth=1.2)
        ax.axhline(most, color=plot.BLACK, linestyle="--", linewidth=1.2)
        ax.set_xticks(range(len(groups)), [g.replace(", reworded", "*") for g in groups])
        ax.set_xlabel("times (*: reworded)" if rest else "times")
        if len(kinds) > 1:
            ax.set_title(kind, fontsize=10)
    axes[0][0].set_ylabel("exposure (bits)")
    side = axes[0][0]
    side.text(-0.4, most - 0.25, "first of all 10,000", fontsize=8, va="top")
    side.text(len(kinds[next(iter(kinds))]) - 1.5, CHANCE - 0.1, "chance", fontsize=8, va="top", ha="center")
    side.set_ylim(-0.3, most + 0.6)
    return figure


def price(plain: Array, private: Mapping[str, Array]) -> Any:
    """Exposure against held-out loss: the plain run on its way, a line for each start; private runs, a mark for each.

    plain (starts, moments, 2) and private, label -> (starts, 2), hold loss and exposure.
    """
    figure, ax = plot.subplots(height=3.4)
    for i, run in enumerate(plain):
        label = "plain training, from early to late" if i == 0 else None
        ax.plot(run[:, 0], run[:, 1], color=plot.BLUE, marker=".", linewidth=1, label=label)
    for (name, runs), color, marker in zip(private.items(), (plot.VERMILION, plot.GREEN, plot.PURPLE), MARKERS):
        style = {"linestyle": "", "markersize": 9, "mfc": "none", "markeredgewidth": 2}
        ax.plot(runs[:, 0], runs[:, 1], marker=marker, color=color, label=name, **style)
    ax.axhline(CHANCE, color=plot.BLACK, linestyle=":", label="chance")
    ax.set_xlabel("loss on other everyday lines (nats for each character)")
    ax.set_ylabel("exposure of what stood\n16 times (bits)")
    ax.legend(fontsize=8)
    return figure


def gaps_against_truth(known: Array, measured: Mapping[str, Array]) -> Any:
    """Measured log-odds against the injected ones, a mark for each job and start: label -> (starts, jobs)."""
    figure, ax = plot.subplots(height=3.4)
    ends = np.array([known.min(), known.max()]) * 1.1
    ax.plot(ends, ends, color=plot.BLACK, linestyle="--", linewidth=1, label="ln p/(1 − p)")
    ax.axhline(0, color=plot.BLACK, linestyle=":", linewidth=1)
    for (name, gaps), color, marker in zip(measured.items(), (plot.VERMILION, plot.BLUE), MARKERS):
        for i, values in enumerate(gaps):
            label = name if i == 0 else None
            ax.plot(known, values, marker, color=color, mfc="none", markersize=6, label=label)
    ax.set_xlabel("injected: ln p/(1 − p)")
    ax.set_ylabel("measured:\nln P(he) − ln P(she)")
    ax.legend(fontsize=9)
    return figure


def z_against_length(lengths: Sequence[int], z: Mapping[str, Array], fits: Mapping[str, Array]) -> Any:
    """z against the number of scored pairs: means over texts with their spread, and c √T through the last point."""
    figure, ax = plot.subplots(height=3.4)
    for (name, values), color, marker in zip(z.items(), (plot.BLACK, plot.BLUE, plot.VERMILION, plot.GREEN), MARKERS):
        mean, sd = values.mean(axis=0), values.std(axis=0)
        ax.errorbar(lengths, mean, sd, marker=marker, color=color, linestyle="", capsize=2, markersize=5, label=name)
        if name in fits:
            ax.plot(lengths, fits[name], color=color, linewidth=1)
    ax.axhspan(-2, 2, color=plot.BLACK, alpha=0.08)
    ax.axhline(4, color=plot.BLACK, linestyle=":", linewidth=1.2)
    ax.text(lengths[-1], 4.3, "z = 4: 3 of 100,000 unmarked texts", fontsize=8, ha="right")
    ax.set_xlabel("tokens of the text (bars: one standard deviation of texts; lines: c√T)")
    ax.set_ylabel("z")
    ax.legend(fontsize=9, loc="upper left")
    return figure


def keys_and_edits(null: Array, shares: Sequence[float], z: Array, expected: Array) -> Any:
    """Left: z by wrong keys, with N(0, 1). Right: z after edits, a mark for each start, with (1 − e)² z."""
    figure, (left, right) = plot.subplots(1, 2, height=3.2)
    left.hist(null, bins=np.arange(-4.25, 4.5, 0.5), density=True, color=plot.SKY, edgecolor="white")
    x = np.linspace(-4, 4, 200)
    left.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=plot.BLACK, label="N(0, 1)")
    left.set_xlabel("z by a wrong key")
    left.set_ylabel("density")
    left.legend(fontsize=9)
    for i, values in enumerate(z):
        right.plot(shares, values, "o", color=plot.VERMILION, mfc="none", label="measured" if i == 0 else None)
    right.plot(shares, expected, color=plot.BLACK, label="(1 − e)² z")
    right.axhline(4, color=plot.BLACK, linestyle=":")
    right.set_xlabel("e, share of tokens exchanged")
    right.set_ylabel("z by the right key")
    right.legend(fontsize=9)
    return figure


def weak_spots(places: Mapping[str, tuple[Array, Array]], gamma: float) -> Any:
    """How green a place becomes against how open it is: a dot for each place."""
    figure, ax = plot.subplots(height=3.2)
    for (name, (entropy, green)), color, marker in zip(places.items(), (plot.BLUE, plot.VERMILION), "o^"):
        chosen = np.random.default_rng(0).permutation(len(entropy))[:300]
        ax.plot(entropy[chosen], green[chosen], marker, color=color, mfc="none", markersize=4, alpha=0.6, label=name)
    ax.axhline(gamma, color=plot.BLACK, linestyle=":", label="γ: no mark")
    ax.set_xlabel("entropy of what comes next (nats)")
    ax.set_ylabel("probability that the mark\nmakes it green")
    ax.legend(fontsize=9)
    return figure
