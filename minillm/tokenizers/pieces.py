"""Pieces of text, within which BPE and WordPiece work: how often each occurs, and the ids of those seen before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tqdm import tqdm

from .checks import check_text, check_texts, surrogate_error


def count_pieces(
    texts: Iterable[str],
    pieces_of: Callable[[str], Iterable[str]],
    special_tokens: Sequence[str] = (),
    *,
    progress: bool = False,
) -> Counter[str]:
    """How often `pieces_of` gives each piece of `texts`, the texts of special tokens left out.

    Text repeats its words (31 MB of Python hold 119,000 different ones), so learning from counts is what makes it fast.
    Raises ValueError if there is no piece at all, or text that has no UTF-8.
    """
    check_texts(texts)
    counts: Counter[str] = Counter()
    for text in tqdm(texts, desc="count", unit="text", disable=not progress):
        try:
            check_text(text).encode()
        except UnicodeEncodeError:
            raise surrogate_error(text) from None
        parts = [text]
        for special in special_tokens:
            parts = [part for whole in parts for part in whole.split(special)]
        for part in parts:
            counts.update(pieces_of(part))
    if not counts:
        raise ValueError("the texts hold nothing to learn from; a generator gives its texts only once.")
    return counts


class PieceCache(dict[str, tuple[int, ...]]):
    """piece -> ids, filled as pieces come up. Words repeat, so most of a text is looked up, not worked out."""

    MAX_PIECES = 200_000  # about 60 MB; a language's common words are far fewer
    MAX_LENGTH = 64  # characters; longer pieces hardly ever come again

    def __init__(self, encode_piece: Callable[[str], list[int]]):
        super().__init__()
        self._encode_piece = encode_piece

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._encode_piece(piece))
        if len(piece) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_PIECES:
                self.clear()
            self[piece] = ids
        return ids
