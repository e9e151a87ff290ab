"""The graph behind a Tensor as a drawing (SVG), laid out here: no Graphviz, nothing to install.

The method is Sugiyama's (1981): put each box into a column, add a bend wherever an arrow passes through a column, order
each column so that arrows cross little, then move boxes towards their neighbours.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"
CHARACTER = 7.3  # width of a character of 12-pixel monospace
LINE = 16  # height of a line of text
GAP_X, GAP_Y = 34, 12  # pixels between columns, between boxes of a column
LARGEST = 150  # boxes that one drawing may have

SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−x", "matmul": "@", "pow": "xⁿ", "getitem": "[ ]"}


@dataclass
class Box:
    """A tensor with the op that made it; `lines` is empty for a bend in an arrow that passes through a column."""

    lines: list[str]
    kind: str  # "result", "leaf" (wants a gradient), "constant" or "bend"
    column: int = 0
    y: float = 0.0  # middle
    before: list[Box] = field(default_factory=list)
    after: list[Box] = field(default_factory=list)

    @property
    def width(self) -> float:
        return 16 + CHARACTER * max(map(len, self.lines)) if self.lines else 0

    @property
    def height(self) -> float:
        return 10 + LINE * len(self.lines) if self.lines else 4


@dataclass(frozen=True)
class Drawing:
    """An SVG picture that notebooks show; `svg` is its source, `text` what a terminal prints instead."""

    svg: str
    text: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return self.text


def graph(root: Any, names: Mapping[str, Any] | None = None) -> Drawing:
    """Draw what `root` was computed from: a box for each tensor, with the op that made it, its value or shape and, if
    it has one, its gradient; arrows run from the parents to the result.

    `root` is a Tensor, or anything with `data`, `grad` and `node`, where a node has `parents` and `backward`. `names`
    labels tensors, as in `graph(loss, {"w": w, "b": b})`; a result in between without a name is drawn by its shape,
    since a graph of Tensors does not keep what it was. Draw before `backward()`, which frees the graph, or after
    `backward(retain_graph=True)`.
    Raises ValueError for a graph of more than 150 tensors.
    """
    boxes, edges = collect(root, names or {})
    assign_columns(boxes)
    columns = add_bends(boxes, edges)
    order_columns(columns)
    place(columns)
    return Drawing(to_svg(columns, edges), f"graph of {len(boxes)} tensors and {len(edges)} arrows")


def collect(root: Any, names: Mapping[str, Any]) -> tuple[list[Box], list[list[Box]]]:
    """A Box for every tensor that can be reached, parents first, and the arrows [from, to]. A result is known by its
    node: of those that nobody but the graph remembers, that is all there is."""
    labels = {id(node_or_leaf(tensor)): name for name, tensor in names.items()}
    tensors = {id(node_or_leaf(tensor)): tensor for tensor in (root, *names.values())}
    boxes: dict[int, Box] = {}
    edges: list[list[Box]] = []
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        found, parents_done = stack.pop()
        item = node_or_leaf(found)
        if id(item) in boxes:
            continue
        parents = getattr(item, "parents", ())
        if parents_done or not parents:
            tensor = tensors.get(id(item), found)
            boxes[id(item)] = box = Box(describe(tensor, item, labels.get(id(item), "")), kind_of(item))
            edges += [[boxes[id(node_or_leaf(parent))], box] for parent in parents]
            if len(boxes) > LARGEST:
                raise ValueError(f"graph: more than {LARGEST} tensors. Draw a smaller part, such as one layer.")
        else:
            stack.append((found, True))
            stack += [(parent, False) for parent in reversed(parents)]
    for start, end in edges:
        start.after.append(end)
        end.before.append(start)
    return list(boxes.values()), edges


def node_or_leaf(tensor: Any) -> Any:
    """What stands for a tensor in the graph: its node, or itself where it was not computed; a node for itself."""
    return tensor if getattr(tensor, "node", None) is None else tensor.node


def describe(tensor: Any, item: Any, label: str) -> list[str]:
    """The lines in the box of a tensor, or of the node (`item`) of one that is gone: name and op, value or shape,
    gradient."""
    op = item.backward.__name__.removesuffix("_backward").strip("_") if hasattr(item, "parents") else ""
    op = SYMBOLS.get(op, op)
    unnamed = "parameter" if getattr(tensor, "requires_grad", False) else "constant"
    first = f"{label} = {op}" if label and op else label or op or unnamed
    data = getattr(tensor, "data", None)
    shape = item.shape if data is None else np.shape(data)
    value = "×".join(map(str, shape)) or "a number"
    if data is not None and np.size(data) == 1:
        value = f"{float(np.reshape(data, -1)[0]):.4g}"
    lines = [first, value.replace("-", "−")]
    if getattr(tensor, "grad", None) is not None:
        grad = np.asarray(tensor.grad)
        size = f"{float(grad.reshape(-1)[0]):.4g}" if grad.size == 1 else f"norm {float(np.linalg.norm(grad)):.3g}"
        lines.append(f"grad {size}".replace("-", "−"))
    return lines


def kind_of(item: Any) -> str:
    if hasattr(item, "parents"):
        return "result"
    return "leaf" if getattr(item, "requires_grad", True) else "constant"


def assign_columns(boxes: list[Box]) -> None:
    """Each result one column right of its last parent (boxes come parents first); a leaf just left of its first use."""
    for box in boxes:
        box.column = max((parent.column + 1 for parent in box.before), default=0)
    for box in boxes:
        if not box.before and box.after:
            box.column = min(child.column for child in box.after) - 1


def add_bends(boxes: list[Box], edges: list[list[Box]]) -> list[list[Box]]:
    """The columns, with a bend wherever an arrow passes through one. Each edge becomes the list of boxes on its way."""
    columns: list[list[Box]] = [[] for _ in range(1 + max(box.column for box in boxes))]
    for box in boxes:
        columns[box.column].append(box)
        box.before, box.after = [], []
    for edge in edges:
        start, end = edge
        way = [start]
        for column in range(start.column + 1, end.column):
            bend = Box([], "bend", column)
            columns[column].append(bend)
            way.append(bend)
        edge[:] = [*way, end]
        for left, right in itertools.pairwise(edge):
            left.after.append(right)
            right.before.append(left)
    return columns


def order_columns(columns: list[list[Box]]) -> None:
    """Sort each column by the mean place of its neighbours, sweeping right and left a few times."""
    for sweep in range(8):
        to_right = sweep % 2 == 0
        for column in columns if to_right else reversed(columns):
            rank = {id(box): i for col in columns for i, box in enumerate(col)}
            wanted = []
            for i, box in enumerate(column):
                neighbours = box.before if to_right else box.after
                wanted.append(sum(rank[id(n)] for n in neighbours) / len(neighbours) if neighbours else float(i))
            column[:] = [column[i] for i in sorted(range(len(column)), key=wanted.__getitem__)]


def place(columns: list[list[Box]]) -> None:
    """Heights: stack each column, then pull every box towards the mean of its neighbours, keeping order and gaps."""
    for column in columns:
        y = 0.0
        for box in column:
            box.y = y + box.height / 2
            y += box.height + GAP_Y
    for sweep in range(12):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = []
            for box in column:
                neighbours = box.before + box.after
                wanted.append(sum(n.y for n in neighbours) / len(neighbours) if neighbours else box.y)
            spread(column, wanted)
    boxes = [box for column in columns for box in column]
    top = min(box.y - box.height / 2 for box in boxes)
    for box in boxes:
        box.y -= top


def spread(column: list[Box], wanted: list[float]) -> None:
    """Give each box its wanted place; boxes that would overlap form a group around the mean of their places."""
    groups: list[tuple[list[Box], float]] = []  # boxes that touch, and where the first one's middle is wanted
    for box, y in zip(column, wanted):
        groups.append(([box], y))
        while len(groups) > 1:
            (upper, y0), (lower, y1) = groups[-2], groups[-1]
            step = offset(upper) + distance(upper[-1], lower[0])  # from upper's first middle to lower's first middle
            if y0 + step <= y1:
                break
            share = len(lower) / (len(upper) + len(lower))
            groups[-2:] = [(upper + lower, (1 - share) * y0 + share * (y1 - step))]
    for boxes, y in groups:
        boxes[0].y = y
        for previous, box in itertools.pairwise(boxes):
            box.y = previous.y + distance(previous, box)


def distance(upper: Box, lower: Box) -> float:
    return (upper.height + lower.height) / 2 + GAP_Y


def offset(boxes: list[Box]) -> float:
    """From the middle of the first box to the middle of the last, when they touch."""
    return sum(distance(a, b) for a, b in itertools.pairwise(boxes))


COLORS = {"result": ("#FFFFFF", "#555555"), "leaf": ("#D6E9F5", "#0072B2"), "constant": ("#EEEEEE", "#999999")}


def to_svg(columns: list[list[Box]], edges: list[list[Box]]) -> str:
    """The drawing, 10 pixels of margin around it. It shrinks to the page's width, but only as far as its text can
    still be read (then a notebook's cell scrolls), and never grows."""
    left = [10.0]
    for column in columns:
        left.append(left[-1] + max(box.width for box in column) + GAP_X)
    width = left[-1] - GAP_X + 10
    height = max(box.y + box.height / 2 for column in columns for box in column) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" '
        f'style="max-width:100%;min-width:{0.6 * width:.0f}px;height:auto;background:#ffffff" '
        'role="img" aria-label="computation graph">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555555"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    middle = [(a + b - GAP_X) / 2 for a, b in itertools.pairwise(left)]
    stroke = 'fill="none" stroke="#555555" stroke-width="1.3" marker-end="url(#tip)"'
    parts += [f'<path d="{curve(way, middle, left)}" {stroke}/>' for way in edges]
    for box in itertools.chain.from_iterable(columns):
        if not box.lines:
            continue
        x, y = middle[box.column] - box.width / 2, 10 + box.y - box.height / 2
        fill, edge = COLORS[box.kind]
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5" '
            f'fill="{fill}" stroke="{edge}" stroke-width="1.4"/>'
        )
        for i, line in enumerate(box.lines):
            weight = "bold" if i == 0 else "normal"
            color = "#B34700" if line.startswith("grad ") else "#111111"
            parts.append(
                f'<text x="{middle[box.column]:.1f}" y="{y + 5 + LINE * i + 11:.1f}" text-anchor="middle" '
                f'font-family="{FONT}" font-size="12" font-weight="{weight}" fill="{color}">{html.escape(line)}</text>'
            )
    return "\n".join([*parts, "</svg>"])


def curve(way: list[Box], middle: list[float], left: list[float]) -> str:
    """A smooth path from the right edge of the first box through the bends to the left edge of the last."""
    points = [(middle[way[0].column] + way[0].width / 2, way[0].y + 10)]
    for bend in way[1:-1]:  # straight through the whole column, so that the arrow does not touch the boxes beside it
        points += [(left[bend.column], bend.y + 10), (left[bend.column + 1] - GAP_X, bend.y + 10)]
    points.append((middle[way[-1].column] - way[-1].width / 2, way[-1].y + 10))
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        half = (x0 + x1) / 2
        path += f" C{half:.1f},{y0:.1f} {half:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    return path
