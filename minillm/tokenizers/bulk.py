"""Byte-level BPE of much text, several times faster than piece by piece (bpe.py), with the same ids.

Nothing that Python does for each piece of a text is left but to cut it off and to look it up in a dictionary, which
numbers the pieces as they come. Those that are new are merged all together (bpe_arrays.py), and NumPy puts the ids of
each piece, by its number, where the piece stands.

>>> bulk = Bulk("gpt4", lambda piece: [len(piece)], None)
>>> ids, counts, used = bulk.encode(["So it goes.", "Yes."])
>>> ids.tolist(), counts.tolist(), used
([2, 3, 5, 1, 3, 1], [4, 2], [11, 4])
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .bpe_arrays import Array, ArrayMerger
from .split import split_windows

MAX_KNOWN = 1 << 18  # pieces that are kept, about 50 MB
MAX_CHARACTERS = 1 << 23  # in them
BATCH = 1 << 20  # characters whose new pieces are merged together
FEW = 1 << 12  # characters of new pieces up to which one after the other is quicker


class Bulk:
    """BPE of much text. It keeps the pieces that it has seen, within bounds.

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
        self.pattern, self.encode_piece, self.merger = pattern, encode_piece, merger
        self.whole_pieces = whole_pieces or {}
        self.clear()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.options

    def __setstate__(self, options: tuple[Any, ...]) -> None:
        self.__init__(*options)  # type: ignore[misc]

    def clear(self) -> None:
        """Forget what was seen."""
        self.number: defaultdict[str, int] = defaultdict()  # of each piece
        self.number.default_factory = self.number.__len__  # what is looked up and not there gets the next number
        self.ids: npt.NDArray[np.int32] = np.empty(0, np.int32)  # of all pieces, one after the other
        self.starts, self.counts = (
            np.empty(0, np.int64),
            np.empty(0, np.int64),
        )  # where a piece's begin, how many it has
        self.n_characters = 0

    def encode(self, texts: Iterable[str], *, final: bool = True) -> tuple[npt.NDArray[np.int32], Array, list[int]]:
        """(the ids of all texts one after the other, how many each has, how many characters of each they cover).

        final=False: more follows, so of each text only what that cannot change. Raises UnicodeEncodeError.
        """
        found: list[tuple[npt.NDArray[np.int32], Array]] = []
        waiting: list[Array] = [np.empty(0, np.int64)]  # the numbers of the pieces of some windows
        n_waiting = 0
        n_pieces, used = [], []
        try:
            for text in texts:
                n_pieces.append(0)
                used.append(0)
                for pieces, n in split_windows(text, self.pattern, final=final):
                    waiting.append(np.fromiter(map(self.number.__getitem__, pieces), np.int64, len(pieces)))
                    n_pieces[-1] += len(pieces)
                    used[-1] += n
                    n_waiting += n
                    if n_waiting >= BATCH:
                        found.append(self._ids_of(np.concatenate(waiting)))
                        waiting, n_waiting = [], 0
            found.append(self._ids_of(np.concatenate(waiting or [np.empty(0, np.int64)])))
        except BaseException:  # Ctrl-C too: what has a number may have no ids yet
            self.clear()
            raise
        totals = np.cumsum(np.concatenate([[0], *(counts for _, counts in found)]))
        return np.concatenate([ids for ids, _ in found]), np.diff(totals[np.cumsum([0, *n_pieces])]), used

    def _ids_of(self, numbers: Array) -> tuple[npt.NDArray[np.int32], Array]:
        """(the ids of pieces, how many each has), after those that are new have got theirs."""
        new = list(islice(reversed(self.number), len(self.number) - len(self.counts)))[::-1]
        if new:
            new_ids, counts = self._merge(new)
            self.starts = np.append(self.starts, len(self.ids) + np.cumsum(counts) - counts)
            self.counts = np.append(self.counts, counts)
            self.ids = np.append(self.ids, new_ids.astype(np.int32))
            self.n_characters += sum(map(len, new))
        counts = self.counts.take(numbers)
        places = np.repeat(self.starts.take(numbers) - np.cumsum(counts) + counts, counts)
        places += np.arange(len(places))
        ids = self.ids.take(places)
        if len(self.number) > MAX_KNOWN or self.n_characters > MAX_CHARACTERS:
            self.clear()
        return ids, counts

    def _merge(self, pieces: Sequence[str]) -> tuple[Array, Array]:
        """(the ids of all pieces, how many each has)."""
        if self.merger is None or sum(map(len, pieces)) <= FEW:
            found = [self.encode_piece(piece) for piece in pieces]
            counts = np.fromiter(map(len, found), np.int64, len(found))
            return np.fromiter(chain.from_iterable(found), np.int64, counts.sum()), counts
        if not self.whole_pieces:
            return self.merger.merge(pieces)
        whole = [self.whole_pieces.get(piece.encode(), -1) for piece in pieces]
        ids, counts = self.merger.merge([piece if token < 0 else "" for piece, token in zip(pieces, whole)])
        tokens = np.array(whole)
        ids = np.insert(ids, (np.cumsum(counts) - counts)[tokens >= 0], tokens[tokens >= 0])
        return ids, np.where(tokens < 0, counts, 1)
