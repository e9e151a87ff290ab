"""Chapter 13's pictures. What they show is computed in the chapter, or by conversing.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from minillm import plot

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_PURPLE, Box, draw_boxes

Array = np.ndarray
LOOKS = ((plot.BLUE, "o", "-"), (plot.VERMILION, "s", "--"), (plot.GREEN, "^", "-."), (plot.PURPLE, "D", ":"))


def draw_road() -> Any:
    """From a text that nobody wrote as an answer to three ways of getting better answers."""
    boxes = {
        "base": Box(0.0, 1.0, 0.75, "base model\ncontinues text", PALE_BLUE),
        "shown": Box(0.0, 2.1, 0.75, "conversations:\npeople show\nanswers", PALE_BLUE),
        "sft": Box(2.0, 1.0, 0.75, "SFT\nanswers as it\nwas shown", PALE_ORANGE),
        "pairs": Box(4.1, 1.0, 0.85, "draws two answers;\npeople say which\nis better", PALE_GREEN),
        "judge": Box(6.4, 2.1, 0.95, "reward model: a number\nfor an answer; take the\nbest of n", PALE_GREEN),
        "dpo": Box(6.4, 1.0, 0.95, "DPO: learn from\nthe pairs directly", PALE_GREEN),
        "grpo": Box(6.4, -0.1, 0.95, "GRPO: a program says\nhow good each is; learn\nfrom the difference", PALE_PURPLE),
        "group": Box(4.1, -0.1, 0.85, "draws a group of\nanswers", PALE_PURPLE),
    }  # fmt: skip
    arrows = [("base", "sft"), ("shown", "sft"), ("sft", "pairs"), ("pairs", "judge"), ("pairs", "dpo")]
    arrows += [("sft", "group"), ("group", "grpo")]
    return draw_boxes(boxes, arrows, height=3.2, tall=0.8)


def with_spread(ax: Any, x: Sequence[float] | Array, rows: Array, look: tuple[Any, ...], label: str) -> None:
    """The mean over rows (seeds, x) as a line, and a pale band from the lowest to the highest."""
    color, mark, line = look
    ax.plot(x, rows.mean(axis=0), color=color, marker=mark, linestyle=line, ms=4, label=label)
    if len(rows) > 1:
        ax.fill_between(x, rows.min(axis=0), rows.max(axis=0), color=color, alpha=0.15, linewidth=0)


def supervised(
    steps: Sequence[int], curves: Mapping[str, Array], groups: Sequence[str], bars: Mapping[str, Array]
) -> Any:
    """Left: the share of right answers on the way, arrays (seeds, steps). Right, at the end: for each group and each
    row of `bars` the mean over seeds, arrays (seeds, groups), with a dot for each seed."""
    figure, (left, right) = plot.subplots(1, 2, height=3.2, gridspec_kw={"width_ratios": (1, 1.3)})
    looks = dict(zip(bars, (LOOKS[3], LOOKS[0], LOOKS[1])))
    for name, rows in curves.items():
        with_spread(left, steps, rows, looks[name], name)
    left.set_xlabel("step")
    left.set_ylabel("right, greedy")
    left.legend(fontsize=8)
    width, hatches = 0.8 / len(bars), ("..", "", "//")
    for i, ((name, values), hatch) in enumerate(zip(bars.items(), hatches)):
        at = np.arange(len(groups)) + (i - (len(bars) - 1) / 2) * width
        look = {"color": looks[name][0], "alpha": 0.5, "hatch": hatch, "edgecolor": looks[name][0]}
        right.bar(at, values.mean(axis=0), width * 0.9, label=name, **look)
        for seed in values:
            right.plot(at, seed, "o", color=plot.BLACK, ms=3)
    right.set_xticks(range(len(groups)), groups)
    right.set_ylim(0, 1.3)
    right.set_yticks(np.linspace(0, 1, 6))
    right.legend(fontsize=8, loc="upper center", ncols=3, columnspacing=0.8, handlelength=1.2)
    return figure


def best_of(counts: Sequence[int], said: Array, meant: Array, perfect: Array) -> Any:
    """Of the best of n by a reward model, arrays (seeds, n): what that model says, and how much people like it; and
    how much the best of n by the people themselves would be liked."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    with_spread(left, counts, said, LOOKS[1], "by the reward model")
    with_spread(right, counts, perfect, LOOKS[2], "chosen by the people")
    with_spread(right, counts, meant, LOOKS[0], "chosen by the reward model")
    left.set_ylabel("what the reward model says")
    right.set_ylabel("how people like it")
    right.legend(fontsize=8, loc="lower right")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(counts), [str(n) for n in counts])
        ax.minorticks_off()
        ax.set_xlabel("answers to choose from, n")
    return figure


def preference_curves(steps: Sequence[int], curves: Mapping[float, Mapping[str, Array]]) -> Any:
    """For each β: how ln π of chosen and of rejected answers changed, and the share of pairs in the right order,
    arrays (seeds, steps)."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    for (beta, found), (color, mark, _) in zip(curves.items(), LOOKS):
        with_spread(left, steps, found["chosen"], (color, mark, "-"), f"chosen, β = {beta}")
        with_spread(left, steps, found["rejected"], (color, mark, ":"), f"rejected, β = {beta}")
        with_spread(right, steps, found["liked"], (color, mark, "-"), f"β = {beta}")
    left.axhline(0, color="#666666", linewidth=0.8)
    left.set_ylabel("ln π − ln π_ref (nats, mean)")
    right.set_ylabel("how people like drawn answers")
    for ax in (left, right):
        ax.set_xlabel("step")
        ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)
    return figure


def reinforcement(runs: Mapping[str, Array], loss: Array, norms: Array) -> Any:
    """The share of right answers among those drawn, arrays (seeds, steps), of several runs; and of one the loss and
    the gradient's norm at each step."""
    figure, (left, right) = plot.subplots(1, 2, height=3.0)
    for (name, rewards), (color, _, line) in zip(runs.items(), LOOKS):
        with_spread(left, range(rewards.shape[1]), rewards, (color, "", line), name)
    right.plot(norms, color=plot.VERMILION, linestyle="--", label="gradient's norm")
    right.plot(loss, color=plot.BLUE, label="loss")
    left.set_ylabel("right, of those drawn")
    left.legend(fontsize=8)
    right.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.08))  # between the two lines
    for ax in (left, right):
        ax.set_xlabel("step")
    return figure


def careless(runs: Mapping[str, Array]) -> Any:
    """What a careless reward says of the answers drawn, "reward", and how people like them, "liked": arrays (seeds,
    steps)."""
    figure, (left, right) = plot.subplots(1, 2, height=2.8)
    with_spread(left, range(runs["reward"].shape[1]), runs["reward"], (plot.VERMILION, "", "--"), "")
    with_spread(right, range(runs["liked"].shape[1]), runs["liked"], (plot.BLUE, "", "-"), "")
    left.set_ylabel("what the reward says")
    right.set_ylabel("how people like it")
    for ax in (left, right):
        ax.set_xlabel("step")
    return figure
