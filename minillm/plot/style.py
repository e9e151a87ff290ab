"""What all figures share: colours, sizes, and labels that every machine can draw.

Figures are made without pyplot: nothing global changes, nothing stays open, and a notebook shows each figure once,
where its cell returns it.
"""

from __future__ import annotations

import functools
import io
import itertools
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
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "axes.labelsize": 10, "grid.color": "#E3E3E3", "grid.linewidth": 0.8, "font.size": 10, "lines.linewidth": 1.8,
    "xtick.labelsize": 9, "ytick.labelsize": 9,
}  # fmt: skip

LATIN = "DejaVu Sans"  # comes with matplotlib

# Families that hold Chinese, Japanese and Korean, in the order of preference (Linux, macOS, Windows).
CJK_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
    "STHeiti", "Arial Unicode MS", "Microsoft YaHei", "SimHei", "SimSun",
)  # fmt: skip

# Characters that a label shows by a sign, because they cannot be seen themselves.
VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def subplots(
    rows: int = 1, columns: int = 1, *, height: float = 3.0, width: float = WIDTH, title: str = "", **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes in the style of this package, as from `matplotlib.pyplot.subplots`, under a `title`.

    `height` and `width` in inches; `options` go to `Figure.subplots` (sharey=, gridspec_kw=, ...). Returns (figure,
    axes), axes being one Axes or an array of them.
    """
    import matplotlib
    from cycler import cycler

    style: dict[Any, Any] = {**STYLE, "axes.prop_cycle": cycler(color=CYCLE), "font.family": LATIN}
    with matplotlib.rc_context(style):
        figure = figure_class()(figsize=(width, height), dpi=DPI, layout="constrained")
        if title:
            figure.suptitle(drawable(title), fontsize=11, fontweight="bold")
        return figure, figure.subplots(rows, columns, **options)


@functools.cache
def figure_class() -> type[Figure]:
    """matplotlib's Figure, which a notebook can show even where pyplot was never imported."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class NotebookFigure(Figure):
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):
                set_font(text)
            super().draw(renderer)

        def _repr_png_(self) -> bytes:
            return to_png(self)

    return NotebookFigure


def set_font(text: Any) -> None:
    """Our font for a matplotlib Text, whatever the global one is. Where it holds Chinese, the Chinese font is tried
    next, and not bold, which many of these fonts don't have."""
    if all(ord(character) in characters_of(LATIN) for character in text.get_text()):
        text.set_fontfamily([LATIN])
    else:
        text.set_fontfamily(font_families())
        text.set_fontweight("normal")


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
    return [LATIN] if cjk is None else [LATIN, cjk]


@functools.cache
def characters_of(family: str) -> frozenset[int]:
    """Code points that an installed font can draw."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_manager.findfont(family)).get_charmap())


def visible(token: str | bytes) -> str:
    """A token with its white space as signs (␣ ↵ ⇥), other characters that do not print as code points ("U+0007"), and
    bytes that are no whole characters in hex ("E4·BD", the beginning of 你)."""
    if isinstance(token, bytes):
        try:
            token = token.decode("utf-8")
        except UnicodeDecodeError:
            return "·".join(f"{byte:02X}" for byte in token)
    return "".join(VISIBLE.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in token)


def drawable(text: str) -> str:
    """The text with each character that no installed font has as its code point, as in "U+4F60 U+597D" for 你好."""

    def known(character: str) -> bool:
        return character == "\n" or any(ord(character) in characters_of(family) for family in font_families())

    parts = []
    for can_draw, characters in itertools.groupby(text, known):
        run = list(characters)
        parts.append("".join(run) if can_draw else " ".join(f"U+{ord(character):04X}" for character in run))
    return "".join(parts)


def readable(token: str | bytes, *, longest: int = 14) -> str:
    """A token as a label that every machine can draw and every reader can see: `visible`, then `drawable`, cut to
    `longest` characters. matplotlib's "$" is escaped."""
    shown = visible(token)
    label = drawable(shown)
    while len(label) > longest:  # whole characters go, so that no code point is cut
        shown = shown[:-1]
        label = drawable(shown) + "…"
    return label.replace("$", r"\$")
