"""Text cut into tokens, as HTML: a colour for each token, and a replay of how merges built them."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# Pale versions of the Okabe-Ito colours, each with a darker edge, which separates neighbours without any colour.
FILLS = (("#D6E9F5", "#0072B2"), ("#FBE5C2", "#B87F00"), ("#CFEBE2", "#007A5A"), ("#F5DEEA", "#A8507F"))
VISIBLE = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
BOX = (
    "background:#ffffff;color:#111111;padding:8px;font-family:monospace;font-size:15px;line-height:2.1;"
    "overflow-wrap:anywhere"
)
TOKEN = (
    "display:inline-block;line-height:1.25;text-align:center;white-space:pre;margin:1px;padding:1px 3px;"
    "border-radius:3px;color:#111111"
)


@dataclass(frozen=True)
class Html:
    """HTML that a notebook shows; `text` is what a terminal prints instead."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def token_spans(pieces: Sequence[str | bytes], ids: Sequence[int] | None = None, *, title: str = "") -> Html:
    """A text's tokens in coloured boxes, with their ids beneath if given.

    A space shows as ·, a new line as ↵ (and breaks the line), a tab as ⇥; bytes that are no whole characters, such as a
    part of 你, show in hex. Raises ValueError if there is not one id for each piece.
    """
    if ids is not None and len(ids) != len(pieces):
        raise ValueError(f"token_spans: {len(ids)} ids for {len(pieces)} pieces: one for each.")
    spans = []
    for i, piece in enumerate(pieces):
        spans.append(span(piece, *FILLS[i % len(FILLS)], None if ids is None else ids[i]))
        if visible(piece).endswith("↵"):
            spans.append("<br>")
    heading = f'<div style="font-weight:bold">{html.escape(title)}</div>' if title else ""
    body = "".join(spans)
    return Html(f'<div style="{BOX}">{heading}{body}</div>', "|".join(visible(piece) for piece in pieces))


def merge_replay(pieces: Sequence[bytes], merges: Sequence[tuple[bytes, bytes]], *, longest: int = 40) -> Html:
    """How byte-pair encoding cuts one chunk of text: a row for each merge that applies, until none does.

    `pieces` is the start, usually single bytes; `merges` the pairs that the tokenizer learned, earliest first. In each
    row the pair that was learned earliest is joined, everywhere it stands; the new tokens have a thick edge. At most
    `longest` rows.
    """
    rank = {pair: i for i, pair in enumerate(merges)}
    current = list(pieces)
    rows = [("start", spans_with_new(current, set()))]
    texts = ["start: " + "|".join(visible(piece) for piece in current)]
    for _ in range(longest):
        candidates = [pair for pair in itertools.pairwise(current) if pair in rank]
        if not candidates:
            break
        pair = min(candidates, key=rank.__getitem__)
        current, new = join(current, pair)
        name = f"{visible(pair[0])} + {visible(pair[1])}"
        escaped = html.escape(name)
        rows.append(
            (f"{escaped} <span style='color:#666666'>(merge {rank[pair]})</span>", spans_with_new(current, new))
        )
        texts.append(f"{name} (merge {rank[pair]}): " + "|".join(visible(piece) for piece in current))
    cells = "".join(
        f'<tr style="background:#ffffff"><td style="text-align:left;color:#111111;white-space:nowrap">{name}</td>'
        f'<td style="text-align:left">{spans}</td></tr>'
        for name, spans in rows
    )
    return Html(
        f'<div style="{BOX};overflow-x:auto"><table style="border-collapse:collapse">{cells}</table></div>',
        "\n".join(texts),
    )


def join(pieces: list[bytes], pair: tuple[bytes, bytes]) -> tuple[list[bytes], set[int]]:
    """Join each occurrence of the pair, from the left; the new pieces' places with it."""
    out: list[bytes] = []
    new = set()
    i = 0
    while i < len(pieces):
        if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == pair:
            new.add(len(out))
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out, new


def spans_with_new(pieces: Sequence[bytes], new: set[int]) -> str:
    return "".join(span(piece, *FILLS[i % len(FILLS)], None, thick=i in new) for i, piece in enumerate(pieces))


def span(piece: str | bytes, fill: str, edge: str, id: int | None, *, thick: bool = False) -> str:
    """One token as a box."""
    below = "" if id is None else f'<br><span style="font-size:10px;color:#444444">{id}</span>'
    width = 3 if thick else 1
    style = f"{TOKEN};background:{fill};border:{width}px solid {edge}"
    return f'<span style="{style}">{html.escape(visible(piece))}{below}</span>'


def visible(piece: str | bytes) -> str:
    """The token with its white space made visible, bytes that are no whole characters in hex."""
    if isinstance(piece, bytes):
        try:
            piece = piece.decode("utf-8")
        except UnicodeDecodeError:
            return "·".join(f"{byte:02X}" for byte in piece)
    return "".join(VISIBLE.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in piece)
