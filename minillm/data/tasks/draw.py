"""Drawing from a seed: what every generator of this room begins with."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Choices and orders drawn from a seed: the same on every machine and with every version of NumPy.

    NumPy promises that the raw 64-bit numbers of PCG64 never change, but not what its Generator makes of them (NEP 19).
    So all is made from the raw ones here. `what` names the drawing: two names under one seed share nothing.
    """

    def __init__(self, seed: int, what: str) -> None:
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be a whole number from 0 on, not {seed!r}.")
        self.raw = self.stream(np.random.PCG64([seed, zlib.crc32(what.encode())]))

    @staticmethod
    def stream(bits: np.random.PCG64) -> Iterator[int]:
        while True:
            yield from bits.random_raw(4096).tolist()

    def below(self, n: int) -> int:
        """A whole number from 0 to n − 1 (of 2⁶⁴ numbers some fall n/2⁶⁴ oftener: nothing here can see that)."""
        return next(self.raw) % n

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """The items in another order (Fisher and Yates)."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different ones of the items, in any order."""
        places: dict[int, None] = {}
        while len(places) < count:
            places[self.below(len(items))] = None
        return [items[place] for place in places]

    def held_out(self, percent: int, *parts: Iterable[str]) -> set[tuple[str, ...]]:
        """A share of all combinations, one of each of the `parts`: those that must not stand together in training."""
        every = self.shuffled(product(*parts))
        return set(every[: len(every) * percent // 100])


def near_copy_key(text: str) -> str:
    """What two texts share that differ in case, digits, punctuation or spacing only.

    >>> near_copy_key("At 7, go!") == near_copy_key("at 12 go")
    True
    """
    return " ".join(re.sub(r"[\W\d_]+", " ", text.lower()).split())


def same_words_key(text: str) -> str:
    """As `near_copy_key`, for tasks in which a digit is a word like others."""
    return " ".join(re.findall(r"\w+", text.lower()))


def fill(
    count: int,
    draw_one: Callable[[], tuple[str, T] | None],
    taken: set[str],
    key_of: Callable[[str], str] = near_copy_key,
) -> list[T]:
    """`count` examples of `draw_one`, which gives (text, example), or None for a drawing that does not fit.

    A text whose near copy (the same by `key_of`) is among the `taken` is drawn again; those kept are added to them, so
    that splits that are filled one after the other share nothing. Raises RuntimeError where the grammar has no more
    texts to give.
    """
    found: list[T] = []
    misses = 0
    while len(found) < count:
        drawn = draw_one()
        key = key_of(drawn[0]) if drawn else ""
        if drawn is None or key in taken:
            misses += 1
            if misses > 200 * count + 20_000:
                raise RuntimeError(
                    f"the grammar gives {len(found)} texts of this kind, fewer than the {count} asked for."
                )
            continue
        taken.add(key)
        found.append(drawn[1])
    return found


def fill_more(count: int, draw_one: Callable[[], tuple[str, T] | None], held_out: set[str]) -> list[T]:
    """As `fill`, for a training split whose texts may differ in a number only: no near copy of the `held_out`, no text
    twice."""
    seen: set[str] = set()

    def fresh() -> tuple[str, T] | None:
        drawn = draw_one()
        return None if drawn is None or near_copy_key(drawn[0]) in held_out else drawn

    return fill(count, fresh, seen, key_of=str)
