"""What all figures share: colours, sizes, and labels that every machine can draw.

Figures are made without pyplot: nothing global changes, nothing stays open, and a notebook shows each figure once,
where its cell returns it.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color universal design": distinct for every common kind of colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # yellow is too pale for a line on white

WIDTH = 7.0  # inches; at 120 dots per inch a figure fills a notebook's column and is still legible on a phone
DPI = 120

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 10,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "font.size": 10,
    "lines.linewidth": 1.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}

# Families that hold Chinese, Japanese and Korean, in the order of preference (Linux, macOS, Windows).
CJK_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti",
    "Arial Unicode MS", "Microsoft YaHei", "SimHei", "SimSun",
)  # fmt: skip

# Characters that a label shows by a sign, because they cannot be seen themselves.
VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def subplots(
    rows: int = 1, columns: int = 1, *, height: float = 3.0, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes in the style of this package, as from `matplotlib.pyplot.subplots`.

    `height` and `width` in inches; `options` go to `Figure.subplots` (sharey=, gridspec_kw=, ...). Returns (figure,
    axes), axes being one Axes or an array of them.
    """
    import matplotlib
    from cycler import cycler

    style: dict[Any, Any] = {**STYLE, "axes.prop_cycle": cycler(color=CYCLE), "font.family": font_families()}
    with matplotlib.rc_context(style):
        figure = figure_class()(figsize=(width, height), dpi=DPI, layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


@functools.cache
def figure_class() -> type[Figure]:
    """matplotlib's Figure, which a notebook can show even where pyplot was never imported."""
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            return to_png(self)

    return NotebookFigure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file, without metadata, so that the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@functools.cache
def cjk_font() -> str | None:
    """The name of an installed font with Chinese characters, or None. Labels then show code points: see `readable`."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return next((family for family in CJK_FAMILIES if family in installed), None)


def font_families() -> list[str]:
    """Families for text, tried glyph by glyph."""
    cjk = cjk_font()
    return ["DejaVu Sans"] if cjk is None else ["DejaVu Sans", cjk]


@functools.cache
def drawable_characters() -> frozenset[int]:
    """Code points that `font_families()` can draw."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    characters: set[int] = set()
    for family in font_families():
        characters.update(FT2Font(font_manager.findfont(family)).get_charmap())
    return frozenset(characters)


def readable(text: str | bytes, *, longest: int = 14) -> str:
    """A token as a label that every machine can draw and every reader can see.

    White space becomes a sign (␣ ↵ ⇥); bytes that are no whole characters become hex, as in "E4·BD"; a character that
    no installed font has becomes its code point, as in "U+4F60". Cut after `longest` characters; matplotlib's "$" is
    escaped.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            return "·".join(f"{byte:02X}" for byte in text)
    drawable = drawable_characters()
    signs = []
    for character in text:
        character = VISIBLE.get(character, character)
        signs.append(character if ord(character) in drawable and character.isprintable() else f"U+{ord(character):04X}")
    label = "".join(signs)
    if len(label) > longest:
        label = label[: longest - 1] + "…"
    return label.replace("$", r"\$")
