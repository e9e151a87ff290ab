r"""Much text at once: byte-level BPE at the speed of a library in Rust. bpe.py gives the same ids, one piece at a time.

Python's own steps are what costs, so as few as can be are taken for each word of the text:

1. `str.split(" ")` cuts the text into parts, which takes a fifth of the time that a regular expression does.
2. Each part is looked up in a dictionary, which numbers those that it does not know yet. Words repeat, so most are known.
3. Only new parts are cut into pieces by the pattern (split.py), and only new pieces are merged, all of them together
   (bpe_arrays.py).
4. NumPy puts the ids together: those of each piece into the part's, those of each part into the text's.

>>> ids, counts = Bulk("gpt4", lambda piece: [len(piece)], None).encode(["So  it goes.", "Yes."])
>>> ids.tolist(), counts.tolist()
([2, 1, 3, 5, 1, 3, 1], [5, 2])

A space belongs to the word after it. So a part stands for itself with a space before it, and of several spaces in a row
the last goes with the next part and the others are a piece of their own. That a text may be cut before a space, whatever
stands on its left, holds where the next character is no white space: no piece goes on over such a place, and none looks
beyond it but to see that white space ends. What other white space has to do with spaces is put together again, and the
pattern cuts it (`_glue`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .bpe_arrays import ArrayMerger, grouped
from .split import cut_each

Array = npt.NDArray[np.int64]
MAX_KNOWN = 1 << 19  # parts or pieces that are kept, about 100 MB
MAX_CHARACTERS = 1 << 24  # in them
BATCH = 1 << 20  # characters whose new parts are worked out together
WINDOW = 1 << 15  # characters that are looked up at a time: their parts should stay in the processor's cache
FEW = 1 << 12  # characters of new pieces up to which one after the other is quicker

AS_IT_IS = " "  # begins a part in the dictionary that has no space before it; other parts hold no space
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])  # U+3001 stands for all from there on


class Column:
    """An array that grows at its end, seldom copied."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.room = np.zeros(1 << 12, dtype)
        self.n = 0

    def add(self, values: npt.ArrayLike) -> None:
        values = np.asarray(values)
        start, self.n = self.n, self.n + len(values)
        if self.n > len(self.room):
            self.room = np.concatenate([self.room, np.zeros(self.n, self.room.dtype)])
        self.room[start : self.n] = values

    def take(self, places: Array) -> npt.NDArray[Any]:
        return self.room.take(places)


class Known:
    """Strings, numbered in the order in which they came up, and the ids of each."""

    def __init__(self) -> None:
        self.number: defaultdict[str, int] = defaultdict()
        self.number.default_factory = self.number.__len__  # what is looked up and not there gets the next number
        self.ids, self.starts, self.counts = Column(np.int32), Column(np.int64), Column(np.int64)

    def look_up(self, strings: Iterable[str]) -> Array:
        """The number of each."""
        return np.fromiter(map(self.number.__getitem__, strings), np.int64)

    def new(self) -> list[str]:
        """Those that have no ids yet."""
        return newest(self.number, len(self.number) - self.counts.n)

    def add(self, ids: Array, counts: Array) -> None:
        """The ids of the new ones, one after the other, and how many each has."""
        self.starts.add(self.ids.n + np.cumsum(counts) - counts)
        self.counts.add(counts)
        self.ids.add(ids)

    def take(self, numbers: Array) -> tuple[npt.NDArray[np.int32], Array]:
        """The ids of all these, one after the other, and how many each has."""
        counts = self.counts.take(numbers)
        ends = np.cumsum(counts)
        places = np.repeat(self.starts.take(numbers) - ends + counts, counts)
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
        self.pattern, self.encode_piece, self.merger = pattern, encode_piece, merger
        self.whole_pieces = whole_pieces or {}
        # A newline ends a piece, except by "gpt2", and so does the place before a space or, by "gpt2", a newline.
        self.newlines_end = pattern != "gpt2"
        self.cut = re.compile(r" (?=\S)|(?<=\n)(?=\S)" if self.newlines_end else r"[ \n](?=\S)")
        self.clear()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.options

    def __setstate__(self, options: tuple[Any, ...]) -> None:
        self.__init__(*options)  # type: ignore[misc]

    def clear(self) -> None:
        """Forget what was seen."""
        self.parts, self.pieces = Known(), Known()
        self.parts.number[""]  # is number 0, without ids
        self.parts.add(np.empty(0, np.int64), np.zeros(1, np.int64))
        self.begins_white, self.ends_white, self.highest = Column(np.bool_), Column(np.bool_), Column(np.uint32)
        self.begins_white.add([True])
        self.ends_white.add([False])
        self.highest.add([0])
        self.piece_lengths = Column(np.int64)
        self.n_characters = 0

    def encode(self, texts: Iterable[str]) -> tuple[npt.NDArray[np.int32], Array]:
        """(the ids of all texts one after the other, how many each has). Raises UnicodeEncodeError."""
        found = [(np.empty(0, np.int32), np.empty(0, np.int64))]
        owner: list[int] = []  # of each window, which text it belongs to
        n_texts = 0

        def windows() -> Iterator[str]:
            nonlocal n_texts
            for text in texts:
                for window in self.windows(text):
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

    def windows(self, text: str) -> Iterator[str]:
        """The text in some, cut only where a piece ends and none looks beyond."""
        start = 0
        while len(text) - start > WINDOW and (place := self.cut.search(text, start + WINDOW)):
            yield text[start : place.start()]
            start = place.start()
        yield text[start:]

    def settled(self, text: str) -> int:
        """How much of `text` no text that follows could change; 0 if it does not show where."""
        at = len(text) - 1
        while (at := text.rfind(" ", 0, at)) > 0 and text[at + 1].isspace():
            pass
        return max(at, 0)

    def _encode(self, texts: Iterable[str]) -> tuple[npt.NDArray[np.int32], Array]:
        """`encode` for some texts, all of whose new pieces are merged together."""
        if len(self.parts.number) > MAX_KNOWN or self.n_characters > MAX_CHARACTERS:
            self.clear()
        found = [self._numbers(some) for some in grouped(texts, WINDOW)]
        self._learn()
        numbers = np.concatenate([numbers for numbers, _ in found])
        sizes = np.concatenate([sizes for _, sizes in found])
        totals = np.append(0, np.cumsum(self.parts.counts.take(numbers)))
        return self.parts.take(numbers[numbers > 0])[0], np.diff(totals[np.append(0, np.cumsum(sizes))])

    def _numbers(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """(the numbers of the parts of all texts, how many parts each text has)."""
        parts: list[str] = []
        sizes = []
        for text in texts:
            split = text.split(" ")
            split[0] = split[0] and AS_IT_IS + split[0]  # no space stands before it
            parts += split
            sizes.append(len(split))
        numbers = self.parts.look_up(parts)
        self._describe()
        ends = np.cumsum(sizes)
        self._glue(parts, numbers, ends - sizes, ends - 1)
        return numbers, np.array(sizes)

    def _describe(self) -> None:
        """Of the new parts: whether they begin or end with white space, and their highest code point."""
        new = newest(self.parts.number, len(self.parts.number) - self.highest.n)
        if not new:
            return
        text = "".join(new)
        text.encode()  # raises UnicodeEncodeError
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ends = np.cumsum(lengths(new))
        first, last = codes[np.append(0, ends[:-1])], codes[ends - 1]
        is_end = ((last == 10) | (last == 13)) & self.newlines_end
        self.begins_white.add(_IS_SPACE[np.minimum(first, 0x3001)])
        self.ends_white.add(_IS_SPACE[np.minimum(last, 0x3001)] & ~is_end)
        self.highest.add(np.maximum.reduceat(codes, np.append(0, ends[:-1])))
        self.n_characters += len(codes)

    def _glue(self, parts: Sequence[str], numbers: Array, firsts: Array, lasts: Array) -> None:
        """Where spaces stand in a row or beside other white space, put the numbers of what the pattern sees there.

        A run of spaces goes to the place of the last empty part in it. Parts that white space joins become one, at the
        place of the first. firsts, lasts: the places of each text's first and last part.
        """
        is_first = np.zeros(len(parts), bool)
        is_first[firsts] = True
        stands = numbers > 0
        stands[firsts] = stands[lasts] = True
        at = np.flatnonzero(stands)
        left, right = numbers[at[:-1]], numbers[at[1:]]
        gaps = np.diff(at) - 1  # how many spaces there are between two parts, less the one of the part on the right
        joined = (self.begins_white.take(right) | (self.ends_white.take(left) & (gaps > 0))) & ~is_first[at[1:]]

        runs = np.flatnonzero((gaps > 0) & ~joined)
        number_of = np.zeros(gaps.max(initial=0) + 1, np.int64)
        for gap in np.flatnonzero(np.bincount(gaps[runs])).tolist():
            number_of[gap] = self.parts.number[AS_IT_IS + " " * gap]
        numbers[at[1:][runs] - 1] = number_of[gaps[runs]]

        edges = at[np.flatnonzero(np.diff(joined, prepend=False, append=False))].tolist()
        for start, end in zip(edges[::2], edges[1::2]):
            text = " ".join(parts[start : end + 1])
            if not is_first[start]:
                text = AS_IT_IS + " " + text
            elif not parts[start]:
                text = AS_IT_IS + text
            numbers[start] = self.parts.number[text]
            numbers[start + 1 : end + 1] = 0

    def _learn(self) -> None:
        """Work out the ids of the parts that are new: cut them into pieces, merge the pieces that are new."""
        self._describe()
        new = self.parts.new()
        if not new:
            return
        highest = self.highest.room[self.highest.n - len(new) : self.highest.n]
        texts = [part[1:] if part[0] == AS_IT_IS else " " + part for part in new]
        numbers = self.pieces.look_up(chain.from_iterable(cut_each(texts, highest, self.pattern)))
        pieces = self.pieces.new()
        self.piece_lengths.add(lengths(pieces))
        self.pieces.add(*self._merge(pieces))
        ids, counts = self.pieces.take(numbers)
        ends = np.searchsorted(np.cumsum(self.piece_lengths.take(numbers)), np.cumsum(lengths(texts))) + 1
        self.parts.add(ids, np.add.reduceat(counts, np.append(0, ends[:-1])))

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


def lengths(strings: Sequence[Sized]) -> Array:
    return np.fromiter(map(len, strings), np.int64, len(strings))


def newest(numbered: dict[str, int], n: int) -> list[str]:
    """The last n that came into a dictionary."""
    return list(islice(reversed(numbered), n))[::-1]
