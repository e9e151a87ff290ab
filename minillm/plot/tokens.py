"""Text cut into tokens, as HTML: a colour for each token, and a replay of how merges built them."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from .style import visible

# Pale versions of the Okabe-Ito colours, each with a darker edge, which separates neighbours without any colour.
FILLS = (("#D6E9F5", "#0072B2"), ("#FBE5C2", "#B87F00"), ("#CFEBE2", "#007A5A"), ("#F5DEEA", "#A8507F"))
IDLE = ("#F2F2F2", "#BBBBBB")  # of a token that does not count
BOX = (
    "background:#ffffff;color:#111111;padding:8px;font-family:monospace;font-size:15px;line-height:2.1;"
    "overflow-wrap:anywhere"
)
TOKEN = (
    "display:inline-block;max-width:100%;box-sizing:border-box;line-height:1.25;text-align:center;margin:1px;"
    "padding:1px 3px;border-radius:3px;color:#111111"
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


def token_spans(
    pieces: Sequence[str | bytes],
    ids: Sequence[int] | None = None,
    *,
    mask: Sequence[bool] | None = None,
    title: str = "",
) -> Html:
    """A text's tokens in coloured boxes, with their ids beneath if given. With a `mask`, those which train (True) have
    a colour and a thick edge, the others are grey; in the text that a terminal prints they stand in [brackets].

    A space shows as ␣, a new line as ↵ (and breaks the line), a tab as ⇥; bytes that are no whole characters, such as a
    part of 你, show in hex. Raises ValueError if there is not one id, or one place of the mask, for each piece.
    """
    for name, values in (("ids", ids), ("places of the mask", mask)):
        if values is not None and len(values) != len(pieces):
            raise ValueError(f"token_spans: {len(values)} {name} for {len(pieces)} pieces: one for each.")
    spans, texts = [], []
    for i, piece in enumerate(pieces):
        counts = mask is not None and bool(mask[i])
        colors = FILLS[i % len(FILLS)] if mask is None else FILLS[0] if counts else IDLE
        spans.append(span(piece, *colors, None if ids is None else ids[i], thick=counts))
        texts.append(f"[{visible(piece)}]" if counts else visible(piece))
        if visible(piece).endswith("↵"):
            spans.append("<br>")
    heading = f'<div style="font-weight:bold">{html.escape(title)}</div>' if title else ""
    body = "".join(spans)
    return Html(f'<div style="{BOX}">{heading}{body}</div>', "|".join(texts))


def merge_replay(states: Sequence[Sequence[bytes]], *, longest: int = 40) -> Html:
    """How byte-pair encoding cuts a piece of text: a row for each state on the way, from single bytes to tokens.

    In each row the pieces that are new, joined from the row before, have a thick edge. The states are lists of bytes
    objects: `tokenizers.bpe_plain.merge_steps` yields them as ids.

        merge_replay([[tokenizer.token_bytes(i) for i in ids] for ids in merge_steps(tokenizer, " lower")])

    Draws `longest` rows at most. Raises ValueError if a state is not the one before with neighbours joined.
    """
    rows: list[tuple[str, Sequence[bytes], set[int]]] = [("start", states[0], set())] if states else []
    for before, after in itertools.pairwise(states[:longest]):
        joined = joined_pieces(before, after)
        name = ", ".join(dict.fromkeys(" + ".join(map(visible, parts)) for parts in joined.values()))
        rows.append((name, after, set(joined)))
    cells = "".join(
        f'<div style="display:flex;flex-wrap:wrap;align-items:center;column-gap:1em;border-top:1px solid #dddddd">'
        f'<span style="min-width:6em;color:#444444">{html.escape(name)}</span>'
        f'<span style="flex:1 1 16em">{spans_with_new(pieces, new)}</span></div>'
        for name, pieces, new in rows
    )
    texts = [f"{name}: " + "|".join(map(visible, pieces)) for name, pieces, _ in rows]
    return Html(f'<div style="{BOX}">{cells}</div>', "\n".join(texts))


def joined_pieces(before: Sequence[bytes], after: Sequence[bytes]) -> dict[int, list[bytes]]:
    """Place in `after` -> the pieces of `before` that it was joined from, for those that are new."""
    joined = {}
    start = 0
    for place, piece in enumerate(after):
        end = start
        while end < len(before) and len(b"".join(before[start:end])) < len(piece):
            end += 1
        if b"".join(before[start:end]) != piece:
            break
        if end - start > 1:
            joined[place] = list(before[start:end])
        start = end
    if start < len(before) or b"".join(after) != b"".join(before):
        raise ValueError(f"merge_replay: {list(after)} is not {list(before)} with neighbours joined.")
    return joined


def spans_with_new(pieces: Sequence[bytes], new: set[int]) -> str:
    return "".join(span(piece, *FILLS[i % len(FILLS)], None, thick=i in new) for i, piece in enumerate(pieces))


def span(piece: str | bytes, fill: str, edge: str, id: int | None, *, thick: bool = False) -> str:
    """One token as a box."""
    below = "" if id is None else f'<br><span style="font-size:10px;color:#444444">{id}</span>'
    width = 3 if thick else 1
    style = f"{TOKEN};background:{fill};border:{width}px solid {edge}"
    return f'<span style="{style}">{html.escape(visible(piece))}{below}</span>'
