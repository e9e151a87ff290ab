"""Which blocks of the table of scores our flash attention computes, and which it never touches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .style import BLACK, ORANGE, SKY, drawable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES: dict[str, dict[str, Any]] = {
    "everything": {"tq": 384},
    "causal": {"tq": 384, "causal": True},
    "causal, window of 160": {"tq": 384, "causal": True, "window": 160},
    "three packed texts": {"tq": 384, "causal": True, "lengths": [160, 32, 192]},
}


def tiles_visited(cases: Mapping[str, Mapping[str, Any]] = CASES) -> Figure:
    """A picture for each case, titled by its name: queries down, keys across, and each tile that the forward kernel
    computes, as Triton's interpreter runs it. Blue tiles count whole; hatched ones hold pairs that don't, so that
    positions are compared; what is white is never computed, nor are its keys read.

    A case holds the arguments of `minillm.kernels.visited.visited`, which raises RuntimeError outside the interpreter.
    """
    from matplotlib.patches import Patch, Rectangle

    from ..kernels.visited import visited

    figure, axes = subplots(1, len(cases), height=2.6, squeeze=False)
    for ax, (name, case) in zip(axes[0], cases.items()):
        rows, columns = case["tq"], case.get("tk") or case["tq"]
        tiles = visited(**case)
        for tile in tiles:
            look: dict[str, Any] = {"facecolor": ORANGE, "hatch": "////"} if tile.edge else {"facecolor": SKY}
            corner, size = (tile.column, tile.row), (tile.width, tile.height)
            ax.add_patch(Rectangle(corner, *size, edgecolor=BLACK, linewidth=0.7, **look))
        share = sum(min(t.height, rows - t.row) * min(t.width, columns - t.column) for t in tiles) / (rows * columns)
        ax.set_title(f"{drawable(name)}\n{share:.0%} computed", fontsize=9)
        ax.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xlabel="key")
        ax.set_xticks([0, columns // 2, columns])
        ax.set_yticks([0, rows // 2, rows])
        ax.grid(visible=False)
        ax.spines[["top", "right"]].set_visible(True)
    axes[0, 0].set_ylabel("query")
    kinds = [Patch(facecolor=SKY, edgecolor=BLACK, label="whole: no position is compared"),
             Patch(facecolor=ORANGE, edgecolor=BLACK, hatch="////", label="edge: pairs that don't count are hidden"),
             Patch(facecolor="white", edgecolor=BLACK, label="never computed")]  # fmt: skip
    figure.legend(handles=kinds, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
