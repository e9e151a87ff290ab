"""Chapter 12's pictures: the data flow, where a decoder looks, what its mistakes and its scores are made of."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from minillm import plot
from minillm.plot.tokens import Html

from .boxes import PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_PURPLE, Box, draw_boxes

Array = np.ndarray


def two_stacks() -> Any:
    """The data flow of an encoder–decoder, with shapes."""
    boxes = {
        "source": Box(0.0, 0.0, 1.0, "source ids  $(S)$\n“There were two …”"),
        "encoder": Box(0.0, 1.1, 1.0, "$n$ × encoder block\nself-attention, all see all;\nfeed-forward", PALE_BLUE),
        "memory": Box(0.0, 2.2, 1.0, "memory $M$  $(S, D)$\na vector for each word", PALE_BLUE),
        "target": Box(3.6, 0.0, 1.1, "target so far  $(T)$\n“<s> …”"),
        "causal": Box(3.6, 1.1, 1.1, "self-attention,\ncausal: only to the left", PALE_ORANGE),
        "cross": Box(3.6, 2.2, 1.1, "cross-attention\n$Q$ from here, $K, V$ from $M$", PALE_GREEN),
        "mlp": Box(3.6, 3.3, 1.1, "feed-forward;\n$n$ × these three", PALE_ORANGE),
        "next": Box(3.6, 4.4, 1.1, "logits  $(T, V)$\nthe next target token", PALE_PURPLE),
    }
    arrows = [("source", "encoder"), ("encoder", "memory"), ("memory", "cross"), ("target", "causal")]
    arrows += [("causal", "cross"), ("cross", "mlp"), ("mlp", "next")]
    return draw_boxes(boxes, arrows, height=4.6, tall=0.8)


def alignment(weights: Array, source: Sequence[str], target: Sequence[str], title: str) -> Html:
    """Where each target token (a row) looked in the source (a column): darker is more, percent where it is a tenth or
    more. `weights` (T, S)."""
    cell = "width:34px;min-width:34px;height:24px;text-align:center;font-size:11px;border:1px solid #fff"
    head = "".join(
        f'<th style="height:96px;vertical-align:bottom;font-weight:normal"><div style="writing-mode:vertical-rl;'
        f'transform:rotate(180deg);margin:auto">{html.escape(word.strip())}</div></th>'
        for word in source
    )
    rows = ""
    for token, row in zip(target, weights):
        cells = ""
        for w in row:
            ink, paper = ("#fff" if w > 0.55 else "#111"), f"rgba(0,114,178,{max(w, 0.03):.2f})"
            text = f"{100 * w:.0f}" if w >= 0.1 else ""
            cells += f'<td style="{cell};background:{paper};color:{ink}">{text}</td>'
        name = html.escape(token)
        rows += f'<tr><th style="font-weight:normal;font-size:16px;padding:0 6px">{name}</th>{cells}</tr>'
    table = f'<table style="border-collapse:collapse;margin:0"><tr><th></th>{head}</tr>{rows}</table>'
    body = f'<div style="font-weight:bold">{html.escape(title)}</div>{table}'
    lines = [f"{t}: {source[int(row.argmax())].strip()} {100 * row.max():.0f}%" for t, row in zip(target, weights)]
    return Html(f'<div style="background:#fff;color:#111;padding:8px;overflow-x:auto">{body}</div>', "\n".join(lines))


def curves(notes: Sequence[Mapping[str, Any]], names: Mapping[str, str], ylabel: str) -> Any:
    """A share of right answers along training: thin lines are starts, thick ones their mean. `names`: what the splits
    are called."""
    figure, ax = plot.subplots(height=3.0)
    for (split, name), color, marker in zip(names.items(), (plot.BLUE, plot.ORANGE, plot.VERMILION), "os^"):
        steps = [point["step"] for point in notes[0]["curve"]]
        values = 100 * np.array([[point[split] for point in note["curve"]] for note in notes])  # (starts, points)
        for line in values:
            ax.plot(steps, line, color=color, linewidth=0.8, alpha=0.5)
        ax.plot(steps, values.mean(axis=0), color=color, marker=marker, markersize=5, label=name)
    ax.set_ylim(-3, 103)
    ax.set_xlabel("training steps")
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def looks_and_needs(looks: Array, needs: Array, written: Sequence[str], read: Sequence[str]) -> Any:
    """Attention from the parts written to the parts read (percent), and how much ln p falls if they are hidden."""
    figure, axes = plot.subplots(1, 2, height=3.2, sharey=True)
    titles = ("looks: attention (%)", "needs: ln p lost if it is hidden")
    for ax, table, title, form in zip(axes, (100 * looks, needs), titles, ("{:.0f}", "{:.1f}")):
        ax.imshow(table, cmap="Blues", vmin=0, vmax=1.25 * table.max())
        ax.grid(visible=False)
        for (r, c), value in np.ndenumerate(table):
            dark = value > 0.7 * table.max()
            text = form.format(value).replace("-0.0", "0.0")
            ax.text(c, r, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
        ax.set_xticks(range(len(read)), read)
        ax.set_yticks(range(len(written)), written)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("part of the source")
    axes[0].set_ylabel("part being written")
    return figure


def after_mistake(curves: Mapping[str, Mapping[str, Array]]) -> Any:
    """By how much the loss rises after one wrong token, a picture for each split; each (starts, reach)."""
    figure, axes = plot.subplots(1, len(curves), height=2.9, sharey=True)
    for ax, (title, lines) in zip(axes, curves.items()):
        for (name, values), color, marker in zip(lines.items(), (plot.VERMILION, plot.BLUE), "s^"):
            places = np.arange(1, values.shape[1] + 1)
            for line in values:
                ax.plot(places, line, color=color, linewidth=0.8, alpha=0.5)
            ax.plot(places, values.mean(axis=0), color=color, marker=marker, label=name)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("places after it")
        ax.set_xticks(places)
        ax.axhline(0, color=plot.BLACK, linewidth=0.8)
    axes[0].set_ylabel("rise of the loss (nats)")
    axes[-1].legend(fontsize=9)
    return figure


def search_bars(shares: Mapping[str, Mapping[int, Array]]) -> Any:
    """For each model and number of beams: right, wrong although the right one is likelier (the search's fault), wrong
    and likelier (the model's): each (starts, 3), in percent; the mean is drawn."""
    figure, axes = plot.subplots(1, len(shares), height=2.9, sharey=True)
    kinds = ("right", "the search missed it", "the model prefers another")
    for ax, (title, by_beams) in zip(axes, shares.items()):
        below = np.zeros(len(by_beams))
        for i, (kind, color, hatch) in enumerate(zip(kinds, (plot.SKY, plot.VERMILION, plot.ORANGE), ("", "//", ""))):
            heights = np.array([values[:, i].mean() for values in by_beams.values()])
            ax.bar([str(n) for n in by_beams], heights, 0.65, bottom=below, color=color, hatch=hatch, label=kind)
            below += heights
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("beams")
    axes[0].set_ylabel("sentences (%)")
    axes[-1].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def score_bars(scores: Mapping[str, Mapping[str, float]], means_the_same: Sequence[str]) -> Any:
    """BLEU and chrF of several ways to change a right translation; those that keep its meaning have a star."""
    figure, ax = plot.subplots(height=3.2)
    names = [f"{name} *" if name in means_the_same else name for name in scores]
    metrics = list(next(iter(scores.values())))
    for i, (metric, color, hatch) in enumerate(zip(metrics, (plot.BLUE, plot.ORANGE), ("", "//"))):
        at = np.arange(len(scores)) + 0.36 * (i - 0.5)
        ax.barh(at, [row[metric] for row in scores.values()], 0.34, color=color, hatch=hatch, label=metric)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("score")
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def fact_bars(shares: Mapping[str, Mapping[str, Array]], facts: Sequence[str]) -> Any:
    """The share of summaries that say each fact: a picture for each split, systems side by side, (starts, facts) each;
    dots are starts."""
    figure, axes = plot.subplots(1, len(shares), height=3.0, sharey=True)
    for ax, (title, systems) in zip(axes, shares.items()):
        looks = zip((plot.SKY, plot.ORANGE, plot.BLUE), ("..", "//", ""))
        for i, ((name, values), (color, hatch)) in enumerate(zip(systems.items(), looks)):
            at = np.arange(len(facts)) + 0.27 * (i - 1)
            ax.bar(at, 100 * values.mean(axis=0), 0.25, color=color, hatch=hatch, label=name)
            for row in values if len(values) > 1 else ():
                ax.plot(at, 100 * row, "o", color=plot.BLACK, mfc="white", markersize=3)
        ax.set_xticks(range(len(facts)), facts)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("fact")
    axes[0].set_ylabel("summaries that say it (%)")
    axes[-1].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
