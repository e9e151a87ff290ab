"""Pictures of how data flows: boxes with arrows between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.patches import FancyBboxPatch
from minillm import plot

GREY, PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PURPLE = "#eeeeee", "#D6E9F5", "#FBE5C2", "#CFEBE2", "#F5DEEA"


@dataclass(frozen=True)
class Box:
    """A box by its middle and half its width; all have the same height."""

    x: float
    y: float
    half: float
    text: str
    color: str = GREY


def draw_boxes(
    boxes: Mapping[str, Box], arrows: Iterable[tuple[str, str]], *, height: float, tall: float = 0.72
) -> Any:
    """The boxes, each `tall`, with an arrow for each pair of names: from side to side where they stand beside each
    other, from edge to edge where one stands above the other."""
    figure, ax = plot.subplots(height=height)
    for box in boxes.values():
        corner = (box.x - box.half, box.y - tall / 2)
        style = {"boxstyle": "round,pad=0.02", "facecolor": box.color, "edgecolor": plot.BLACK}
        ax.add_patch(FancyBboxPatch(corner, 2 * box.half, tall, **style))
        ax.text(box.x, box.y, box.text, ha="center", va="center", fontsize=8)
    for start, end in arrows:
        a, b = boxes[start], boxes[end]
        if abs(a.x - b.x) < max(a.half, b.half):  # one above the other
            down = -1 if b.y < a.y else 1
            tail, tip = (a.x, a.y + down * (tall / 2 + 0.03)), (b.x, b.y - down * (tall / 2 + 0.03))
        else:
            right = 1 if b.x > a.x else -1
            tail, tip = (a.x + right * (a.half + 0.03), a.y), (b.x - right * (b.half + 0.03), b.y)
        ax.annotate("", tip, tail, arrowprops={"arrowstyle": "->", "color": plot.BLACK, "shrinkA": 0, "shrinkB": 0})
    ax.set_xlim(min(b.x - b.half for b in boxes.values()) - 0.1, max(b.x + b.half for b in boxes.values()) + 0.1)
    ax.set_ylim(min(b.y for b in boxes.values()) - tall / 2 - 0.1, max(b.y for b in boxes.values()) + tall / 2 + 0.1)
    ax.axis("off")
    return figure


def draw_language_model() -> Any:
    """Chapter 00's five parts: text, tokens, model, loss, sampling."""
    boxes = {
        "text": Box(0.0, 1.0, 0.75, "text\n“The return value”"),
        "ids": Box(1.95, 1.0, 0.75, "tokens\n(a list of ids)", PALE_BLUE),
        "model": Box(4.0, 1.0, 0.85, "model: layers of\nattention and\nfeed-forward", PALE_ORANGE),
        "next": Box(6.2, 1.0, 0.9, "for each token of\nthe vocabulary: how\nlikely it is next", PALE_ORANGE),
        "sample": Box(6.2, 2.1, 0.9, "sampling\ndraw one of them", PALE_GREEN),
        "append": Box(1.95, 2.1, 0.75, "append it,\nask again", PALE_GREEN),
        "loss": Box(6.2, -0.1, 0.9, "loss\nhow surprised by what\nreally comes next?", PALE_PURPLE),
        "learn": Box(4.0, -0.1, 0.85, "backward, optimizer\nmove the weights a\nlittle, to lower it", PALE_PURPLE),
    }
    arrows = [("text", "ids"), ("ids", "model"), ("model", "next"), ("next", "sample"), ("sample", "append")]
    arrows += [("append", "ids"), ("next", "loss"), ("loss", "learn"), ("learn", "model")]
    return draw_boxes(boxes, arrows, height=3.3, tall=0.8)


def draw_attention() -> Any:
    """How vectors flow through attention, with their shapes (chapter 06)."""
    boxes = {
        "x": Box(0.0, 1.0, 0.5, "$X$\n$(T, D)$"),
        "Q": Box(2.0, 2.0, 0.95, "$Q = X\\,W_Q^\\top$   $(T, d)$\nwhat is wanted", PALE_BLUE),
        "K": Box(2.0, 1.0, 0.95, "$K = X\\,W_K^\\top$   $(T, d)$\nwhat is offered", PALE_BLUE),
        "V": Box(2.0, 0.0, 0.95, "$V = X\\,W_V^\\top$   $(T, d_v)$\nwhat is handed over", PALE_BLUE),
        "S": Box(4.35, 1.5, 0.8, "scores\n$S = Q K^\\top / \\sqrt{d}$\n$(T, T)$", PALE_ORANGE),
        "P": Box(6.35, 1.5, 0.8, "weights\n$P = $softmax$(S)$\n$(T, T)$", PALE_ORANGE),
        "O": Box(8.2, 0.5, 0.65, "$O = P\\,V$\n$(T, d_v)$", PALE_GREEN),
    }
    arrows = [("x", "Q"), ("x", "K"), ("x", "V"), ("Q", "S"), ("K", "S"), ("S", "P"), ("P", "O"), ("V", "O")]
    return draw_boxes(boxes, arrows, height=2.8)
