"""Pieces of text, within which BPE and WordPiece work: how often each occurs, and the ids of those seen before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tqdm import tqdm

from ..disk.processes import in_order
from .checks import check_text, check_texts, surrogate_error

BATCH = 1 << 22  # characters that are counted at a time


def count_pieces(
    texts: Iterable[str],
    count: Callable[[list[str]], Counter[str]],
    special_tokens: Sequence[str] = (),
    *,
    progress: bool = False,
) -> Counter[str]:
    """How often each piece occurs in `texts`, the texts of special tokens left out, counted by all cores.

    count: how often each piece occurs in some texts. Text repeats its words (31 MB of Python hold 119,000 different
    ones), so learning from counts is what makes it fast. Raises ValueError if there is no piece at all, or text that
    has no UTF-8.
    """
    check_texts(texts)
    counts: Counter[str] = Counter()
    for _, found in in_order(
        count_some, count, grouped(ordinary_texts(texts, special_tokens, progress), BATCH), alone=1
    ):
        counts.update(found)
    if not counts:
        raise ValueError("the texts hold nothing to learn from; a generator gives its texts only once.")
    return counts


def count_some(count: Callable[[list[str]], Counter[str]], texts: list[str]) -> Counter[str]:
    return count(texts)


def ordinary_texts(texts: Iterable[str], special_tokens: Sequence[str], progress: bool) -> Iterator[str]:
    """What is left of the texts when special tokens are taken out."""
    for text in tqdm(texts, desc="count", unit="text", disable=not progress):
        try:
            check_text(text).encode()
        except UnicodeEncodeError:
            raise surrogate_error(text) from None
        parts = [text]
        for special in special_tokens:
            parts = [part for whole in parts for part in whole.split(special)]
        yield from parts


def grouped(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of texts with `size` characters together, or with the one more that makes it so."""
    group: list[str] = []
    n = 0
    for text in texts:
        group.append(text)
        n += len(text)
        if n >= size:
            yield group
            group, n = [], 0
    if group:
        yield group


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
