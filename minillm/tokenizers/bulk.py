"""Byte-level BPE of much text at the speed of a library in Rust. bpe.py gives the same ids, one piece at a time.

Nothing that Python does for each word of a text is left but to look it up: parts.py cuts the text into parts, most of
which were seen before. The pieces of those that are new are merged all together (bpe_arrays.py), and NumPy puts the ids
together, those of each piece into the part's, those of each part into the text's.

>>> ids, counts = Bulk("gpt4", lambda piece: [len(piece)], None).encode(["So  it goes.", "Yes."])
>>> ids.tolist(), counts.tolist()
([2, 1, 3, 5, 1, 3, 1], [5, 2])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from .bpe_arrays import ArrayMerger, grouped
from .parts import WINDOW, Array, Column, Parts, lengths

MAX_KNOWN = 1 << 19  # parts that are kept, about 100 MB
MAX_CHARACTERS = 1 << 24  # in them
BATCH = 1 << 20  # characters whose new parts are worked out together
FEW = 1 << 12  # characters of new pieces up to which one after the other is quicker


class IdLists:
    """The ids of things that are numbered, one after the other in one array."""

    def __init__(self) -> None:
        self.ids, self.starts, self.counts = Column(np.int32), Column(np.int64), Column(np.int64)

    def add(self, ids: npt.NDArray[np.integer], counts: Array) -> None:
        """The ids of the next ones, and how many each has."""
        self.starts.add(self.ids.n + np.cumsum(counts) - counts)
        self.counts.add(counts)
        self.ids.add(ids)

    def take(self, numbers: Array) -> tuple[npt.NDArray[np.int32], Array]:
        """The ids of all these, and how many each has."""
        counts = self.counts.take(numbers)
        places = np.repeat(self.starts.take(numbers) - np.cumsum(counts) + counts, counts)
        places += np.arange(len(places))
        return self.ids.take(places), counts


class Bulk:
    """BPE of much text. It keeps what it has seen, within bounds.

    pattern: its name (split.py). encode_piece: what gives the ids of one piece. merger: what gives those of many, if
    the tokenizer's merges allow it. whole_pieces: pieces that are a token as they stand.
    """

    def __init__(
        self,
        pattern: str,
        encode_piece: Callable[[str], list[int]],
        merger: ArrayMerger | None,
        whole_pieces: Mapping[bytes, int] | None = None,
    ):
        self.options = (pattern, encode_piece, merger, whole_pieces)
        self.encode_piece, self.merger, self.whole_pieces = encode_piece, merger, whole_pieces or {}
        self.clear()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.options

    def __setstate__(self, options: tuple[Any, ...]) -> None:
        self.__init__(*options)  # type: ignore[misc]

    def clear(self) -> None:
        """Forget what was seen."""
        self.parts = Parts(self.options[0])
        self.ids_of_part, self.ids_of_piece = IdLists(), IdLists()
        self.ids_of_part.add(np.empty(0, np.int64), np.zeros(1, np.int64))  # number 0, the empty part

    def encode(self, texts: Iterable[str]) -> tuple[npt.NDArray[np.int32], Array]:
        """(the ids of all texts one after the other, how many each has). Raises UnicodeEncodeError."""
        found = [(np.empty(0, np.int32), np.empty(0, np.int64))]
        owner: list[int] = []  # of each window, which text it belongs to
        n_texts = 0

        def windows() -> Iterator[str]:
            nonlocal n_texts
            for text in texts:
                for window in self.parts.windows(text):
                    owner.append(n_texts)
                    yield window
                n_texts += 1

        try:
            found += [self._encode(some) for some in grouped(windows(), BATCH)]
        except BaseException:  # Ctrl-C too: what was numbered may have no ids yet
            self.clear()
            raise
        counts = np.bincount(owner, np.concatenate([counts for _, counts in found]), n_texts)
        return np.concatenate([ids for ids, _ in found]), counts.astype(np.int64)

    def _encode(self, texts: Iterable[str]) -> tuple[npt.NDArray[np.int32], Array]:
        """`encode` for some texts, all of whose new pieces are merged together."""
        if len(self.parts.number) > MAX_KNOWN or self.parts.n_characters > MAX_CHARACTERS:
            self.clear()
        found = [self.parts.numbers(some) for some in grouped(texts, WINDOW)]
        self._learn()
        numbers = np.concatenate([numbers for numbers, _ in found])
        sizes = np.concatenate([sizes for _, sizes in found])
        totals = np.append(0, np.cumsum(self.ids_of_part.counts.take(numbers)))
        return self.ids_of_part.take(numbers[numbers > 0])[0], np.diff(totals[np.append(0, np.cumsum(sizes))])

    def _learn(self) -> None:
        """Work out the ids of the parts that are new."""
        numbers, sizes = self.parts.pieces(self.ids_of_part.counts.n)
        self.ids_of_piece.add(*self._merge(self.parts.piece.since(self.ids_of_piece.counts.n)))
        ids, counts = self.ids_of_piece.take(numbers)
        if len(sizes):
            self.ids_of_part.add(ids, np.add.reduceat(counts, np.cumsum(sizes) - sizes))

    def _merge(self, pieces: Sequence[str]) -> tuple[Array, Array]:
        """(the ids of all pieces, how many each has)."""
        if self.merger is None or sum(map(len, pieces)) <= FEW:
            found = [self.encode_piece(piece) for piece in pieces]
            return np.fromiter(chain.from_iterable(found), np.int64), lengths(found)
        if not self.whole_pieces:
            return self.merger.merge(pieces)
        whole = [self.whole_pieces.get(piece.encode(), -1) for piece in pieces]
        ids, counts = self.merger.merge([piece if token < 0 else "" for piece, token in zip(pieces, whole)])
        tokens = np.array(whole)
        ids = np.insert(ids, (np.cumsum(counts) - counts)[tokens >= 0], tokens[tokens >= 0])
        return ids, np.where(tokens < 0, counts, 1)
