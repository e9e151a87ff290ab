r"""Much text at once, cut into pieces by looking most of it up: what makes bulk.py and learning (bpe.py) fast.

A regular expression takes a fraction of a microsecond for each piece of a text. Two of Python's own steps take less:

1. `str.split(" ")` cuts the text into parts, in a fifth of the time.
2. A dictionary numbers the parts. Words repeat, so most of them it has seen. Only new ones are cut by the pattern.

A space belongs to the word after it. So a part stands for itself with a space before it, and of several spaces in a row
the last goes with the next part and the others are a piece of their own:

    "So  it goes.\n"    parts "So", "", "it", "goes.\n"     pieces "So" | " " | " it" | " goes" ".\n"

That a text may be cut before a space, whatever stands on its left, holds where the next character is no white space: no
piece goes on over such a place, and none looks beyond it but to see that white space ends. What other white space has
to do with spaces is put together again, and the pattern sees all of it (`_glue`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .split import cut_each

Array = npt.NDArray[np.int64]
WINDOW = 1 << 15  # characters that are looked up at a time: their parts should stay in the processor's cache

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


class Numbers(defaultdict[str, int]):
    """string -> its number. What is looked up and not there gets the next number."""

    def __init__(self) -> None:
        super().__init__()
        self.default_factory = self.__len__

    def look_up(self, strings: Iterable[str]) -> Array:
        """The number of each."""
        return np.fromiter(map(self.__getitem__, strings), np.int64)

    def since(self, n: int) -> list[str]:
        """All strings but the first n."""
        return list(islice(reversed(self), len(self) - n))[::-1]


class Parts:
    """The parts of texts, numbered as they come up. pattern: its name (split.py)."""

    def __init__(self, pattern: str):
        self.pattern = pattern
        # A newline ends a piece, except by "gpt2", and so does the place before a space or, by "gpt2", a newline.
        self.newlines_end = pattern != "gpt2"
        self.cut = re.compile(r" (?=\S)|(?<=\n)(?=\S)" if self.newlines_end else r"[ \n](?=\S)")
        self.number, self.piece = Numbers(), Numbers()  # of parts, of pieces
        self.piece_lengths = Column(np.int64)
        self.begins_white, self.ends_white, self.highest = Column(np.bool_), Column(np.bool_), Column(np.uint32)
        self.n_characters = 0
        self.number[""]  # is number 0, and what follows a last space
        self.begins_white.add([True])
        self.ends_white.add([False])
        self.highest.add([0])

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

    def numbers(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """(the numbers of the parts of all texts, how many parts each text has). Raises UnicodeEncodeError."""
        parts: list[str] = []
        sizes = []
        for text in texts:
            split = text.split(" ")
            split[0] = split[0] and AS_IT_IS + split[0]  # no space stands before it
            parts += split
            sizes.append(len(split))
        numbers = self.number.look_up(parts)
        self._describe()
        ends = np.cumsum(sizes)
        self._glue(parts, numbers, ends - sizes, ends - 1)
        self._describe()
        return numbers, np.array(sizes)

    def _describe(self) -> None:
        """Note of the new parts whether they begin or end with white space, and their highest code point."""
        new = self.number.since(self.highest.n)
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
            number_of[gap] = self.number[AS_IT_IS + " " * gap]
        numbers[at[1:][runs] - 1] = number_of[gaps[runs]]

        edges = at[np.flatnonzero(np.diff(joined, prepend=False, append=False))].tolist()
        for start, end in zip(edges[::2], edges[1::2]):
            text = " ".join(parts[start : end + 1])
            if not is_first[start]:
                text = AS_IT_IS + " " + text
            elif not parts[start]:
                text = AS_IT_IS + text
            numbers[start] = self.number[text]
            numbers[start + 1 : end + 1] = 0

    def pieces(self, start: int) -> tuple[Array, Array]:
        """(the numbers, in `piece`, of the pieces of the parts from number `start` on, how many each part has)."""
        texts = [part[1:] if part[0] == AS_IT_IS else " " + part for part in self.number.since(start)]
        if not texts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        highest = self.highest.room[start : self.highest.n]
        numbers = self.piece.look_up(chain.from_iterable(cut_each(texts, highest, self.pattern)))
        self.piece_lengths.add(lengths(self.piece.since(self.piece_lengths.n)))
        ends = np.searchsorted(np.cumsum(self.piece_lengths.take(numbers)), np.cumsum(lengths(texts))) + 1
        return numbers, np.diff(ends, prepend=0)


def lengths(strings: Sequence[Sized]) -> Array:
    return np.fromiter(map(len, strings), np.int64, len(strings))
