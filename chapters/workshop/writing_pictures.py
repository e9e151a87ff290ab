"""Chapter 14's pictures. What they show is computed in the chapter, or by writing.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from minillm import plot

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_PURPLE, Box, draw_boxes

Array = np.ndarray


def draw_loop() -> Any:
    """From a request over several programs and their execution to one answer."""
    boxes = {
        "request": Box(0.0, 1.0, 0.8, "request\n“add up the odd\nnumbers in xs”", PALE_BLUE),
        "model": Box(2.0, 1.0, 0.7, "model\ndraw n times", PALE_ORANGE),
        "programs": Box(4.05, 1.0, 0.85, "n programs\nsum(x for x in xs\nif x % 2 == 1) …", PALE_ORANGE),
        "run": Box(6.1, 1.0, 0.7, "evaluator\nruns each", PALE_GREEN),
        "values": Box(8.0, 1.0, 0.75, "values,\nor why there\nis none", PALE_GREEN),
        "score": Box(8.0, 2.1, 0.75, "measure:\npass@k", PALE_PURPLE),
        "choose": Box(6.1, 2.1, 0.7, "choose one:\nverify or vote", PALE_PURPLE),
    }
    arrows = [("request", "model"), ("model", "programs"), ("programs", "run"), ("run", "values")]
    arrows += [("values", "score"), ("run", "choose")]
    return draw_boxes(boxes, arrows, height=2.1, tall=0.8)


def estimators(ks: Array, truth: Array, ours: tuple[Array, Array], theirs: tuple[Array, Array], n: int) -> Any:
    """Mean of two estimators of pass@k over many draws, beside the truth, and their standard deviations."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    left.plot(ks, truth, color=plot.BLACK, label="truth, 1 − (1 − p)ᵏ")
    right.axhline(0, color=plot.BLACK, label="truth")
    rows = (("1 − C(n−c, k)/C(n, k)", ours, plot.BLUE, "o"), ("1 − (1 − c/n)ᵏ", theirs, plot.VERMILION, "s"))
    for name, (mean, sd), color, mark in rows:
        left.plot(ks, mean, mark, color=color, ms=5, mfc="none", label=name)
        right.errorbar(ks, mean - truth, 2 * sd, fmt=mark + "-", color=color, ms=4, capsize=2, label=name)
    left.set_ylabel("mean estimate of pass@k")
    right.set_ylabel("estimate − truth (± 2 s.e.)")
    for ax in (left, right):
        ax.set_xlabel(f"k (of n = {n} samples)")
    left.legend(fontsize=8)
    return figure


def by_temperature(temperatures: Sequence[float], scores: Mapping[int, Array], greedy: Array) -> Any:
    """pass@k against the temperature, for each k an array (starts, temperatures): means ± one standard deviation."""
    figure, ax = plot.subplots(height=3.2)
    marks = "os^DvPX"
    for (k, values), color, mark in zip(scores.items(), plot.CYCLE, marks):
        sd = values.std(axis=0, ddof=1) if len(values) > 1 else None
        ax.errorbar(temperatures, values.mean(axis=0), sd, color=color, marker=mark, ms=5, capsize=3, label=f"pass@{k}")
        best = int(values.mean(axis=0).argmax())
        ax.plot(temperatures[best], values.mean(axis=0)[best], "*", color=plot.BLACK, ms=11, zorder=5)
    ax.axhline(greedy.mean(), color="#666666", linestyle=":", label="greedy (temperature 0)")
    ax.plot([], [], "*", color=plot.BLACK, ms=11, linestyle="none", label="best temperature")
    ax.set_xlabel("temperature")
    ax.set_ylabel("share of problems")
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def compute_curve(counts: Sequence[int], curves: Mapping[str, Array], greedy: Array) -> Any:
    """Accuracy against the number of samples for each rule, arrays (starts, counts): means ± one standard deviation."""
    figure, ax = plot.subplots(height=3.4)
    styles = ((plot.BLACK, "x", ":"), (plot.PURPLE, "v", "-."), (plot.VERMILION, "s", "--"))
    styles += ((plot.SKY, "D", "-"), (plot.BLUE, "o", "-"), (plot.GREEN, "^", (0, (5, 1))))
    for i, ((name, values), (color, mark, line)) in enumerate(zip(curves.items(), styles)):
        x = np.array(counts) * 1.04 ** (i - 2)  # beside each other
        sd = values.std(axis=0, ddof=1) if len(values) > 1 else None
        options = {"color": color, "marker": mark, "linestyle": line, "ms": 5, "capsize": 3}
        ax.errorbar(x, values.mean(axis=0), sd, label=name, **options)
    ax.axhline(greedy.mean(), color="#999999", linewidth=1)
    ax.text(counts[0] * 0.9, greedy.mean() + 0.015, "greedy", fontsize=8, color="#555555")
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(counts), [str(n) for n in counts])
    ax.minorticks_off()
    ax.set_xlabel("samples for each request")
    ax.set_ylabel("share of requests answered rightly")
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def parsing(lines: Sequence[int], shares: Mapping[str, Array]) -> Any:
    """The share of completions that are Python against how many lines of them are kept."""
    figure, ax = plot.subplots(height=2.8)
    for (name, values), color, mark, line in zip(shares.items(), plot.CYCLE, "os^Dv", ("-", "--", "-.", "--", ":")):
        ax.plot(lines, values, color=color, marker=mark, linestyle=line, ms=5, label=name)
    ax.set_xticks(list(lines))
    ax.set_xlabel("lines of the completion")
    ax.set_ylabel("share that parses")
    ax.set_ylim(0, 1.03)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
