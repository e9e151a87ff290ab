"""BPE of many pre-tokens at once, in NumPy: what `bpe.merge_word` does to one, with equal ids.

`merge_word` takes one merge after the other, some microseconds each. All words of a text together have the same few
thousand merges to choose from, so take the merges in their order instead, and each wherever it fits, in all words:

    ranks 0..2   "e"+"r", " "+"t", "i"+"n"     none of the three uses a token that another of them makes, so none can
                                               come to stand where another has just been: they may go at the same time
    ranks 3..9   " t"+"h", ...                 and so on: about a hundred such groups for 8,192 tokens (`groups`)

Within a group only neighbours compete, "a"+"b" and "b"+"c" in "abc": the earlier merge goes first, of equal ones the
left one. That is the order of `merge_word`, if every merge comes later than those that make its two parts. So it is in
whatever training gives; `groups` finds out, and a tokenizer of another kind keeps to `merge_word`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .bpe_fast import Pair
from .pieces import grouped

NEVER = np.iinfo(np.int32).max  # the rank of a pair that does not merge
NO_BYTE = 0xFF  # stands in no UTF-8, so it parts the words
MAX_CHARACTERS = 1 << 16  # of words merged at once: more would not stay in the processor's cache

Array = npt.NDArray[np.int64]


def groups(merges: Sequence[Pair], merged: Sequence[int]) -> list[int] | None:
    """Where each group of merges ends: the ranks below it use no token that another of the group makes.

    None if a merge comes before one that makes a part of it.
    """
    made: dict[int, int] = {}  # token -> the rank of the (last) merge that makes it
    ends, start = [], 0
    for rank, (left, right) in enumerate(merges):
        if max(made.get(left, -1), made.get(right, -1)) >= start:
            ends.append(rank)
            start = rank
        made[merged[rank]] = rank
    late = any(max(made.get(a, -1), made.get(b, -1)) >= rank for rank, (a, b) in enumerate(merges))
    return None if late else [*ends, len(merges)]


class PairTable:
    """pair -> rank for whole arrays of pairs.

    Think of a matrix with a row for each left token and a column for each right one, nearly empty. Its rows lie over
    each other in one array, each shifted so far that no two entries meet (Tarjan and Yao 1979): the entry of a pair is
    at shift[left] + right, and `owner` tells whether it is that row's.
    """

    def __init__(self, left: Array, right: Array, n_tokens: int):
        self.shift = np.zeros(n_tokens, np.int64)
        size = 8 * len(left) + 64
        self.owner = np.full(size + n_tokens, -1, np.int32)
        self.rank = np.full(size + n_tokens, NEVER, np.int32)
        order = np.argsort(left, kind="stable")
        tokens, starts = np.unique(left[order], return_index=True)
        rows = sorted(zip(tokens.tolist(), np.split(order, starts[1:])), key=lambda row: -len(row[1]))
        draw = np.random.default_rng(0)
        for token, ranks in rows:
            columns = right[ranks]
            for shift in iter(lambda: int(draw.integers(size)), None):  # long rows first, so that a few tries do
                if self.owner[shift + columns].max() < 0:
                    break
            self.shift[token] = shift
            self.owner[shift + columns] = token
            self.rank[shift + columns] = ranks

    def ranks(self, left: Array, right: Array) -> npt.NDArray[np.int32]:
        """The rank of each pair (left[i], right[i]), NEVER where it does not merge."""
        place = self.shift.take(left)
        place += right
        ranks = self.rank.take(place)
        ranks[self.owner.take(place) != left] = NEVER
        return ranks


class ArrayMerger:
    """The merges of one tokenizer, ready for arrays. ends: what `groups` gave."""

    def __init__(self, merges: Sequence[Pair], merged: Sequence[int], id_of_byte: Sequence[int], ends: list[int]):
        self.ends = ends
        self.merged = np.array(merged, np.int64)
        pairs = np.array(merges, np.int64).reshape(-1, 2)
        self.parting = max(pairs.max(initial=0), self.merged.max(initial=0), *id_of_byte) + 1  # merges with nothing
        self.table = PairTable(pairs[:, 0].copy(), pairs[:, 1].copy(), int(self.parting) + 1)
        self.id_of_byte = np.array(id_of_byte, np.int64)
        self.id_of_byte[NO_BYTE] = self.parting
        both = np.arange(1 << 16)
        self.first_ranks = self.table.ranks(self.id_of_byte[both >> 8], self.id_of_byte[both & 0xFF])

    def merge(self, words: Sequence[str]) -> tuple[Array, Array]:
        """(the ids of all words one after the other, how many each word has). Raises UnicodeEncodeError."""
        "".join(words).encode()  # a lone surrogate has no UTF-8, except by the way in which the ends are marked below
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for some in grouped(words, MAX_CHARACTERS):
            data = "\udcff".join([*some, ""]).encode("utf-8", "surrogateescape")  # \udcff becomes NO_BYTE
            ids = self._merge_bytes(np.frombuffer(data, np.uint8))
            ends = np.flatnonzero(ids == self.parting)
            found.append((np.delete(ids, ends), np.diff(ends, prepend=-1) - 1))
        return np.concatenate([ids for ids, _ in found]), np.concatenate([counts for _, counts in found])

    def _merge_bytes(self, data: npt.NDArray[np.uint8]) -> Array:
        """The tokens of bytes, in which NO_BYTE ends each word and stays, as `parting`.

        A token stands at the place of its first byte. left, right: the place of the token before it and after it.
        ranks: that of the pair which begins there.
        """
        n = len(data)  # tokens that are left
        ids = self.id_of_byte.take(data)
        ranks = np.full(n, NEVER, np.int32)
        ranks[:-1] = self.first_ranks.take(data[:-1].astype(np.intp) << 8 | data[1:])
        left, right = np.arange(-1, n - 1), np.arange(1, n + 1)
        for end in self.ends:
            at = np.flatnonzero(ranks < end)
            while len(at):
                i = at[self._goes_first(at, ranks, left, right)]
                j = right.take(i)
                after = right.take(j)
                new = self.merged.take(ranks.take(i))
                ids[i], ids[j], ranks[j] = new, -1, NEVER
                right[i], left[after] = after, i
                before = left.take(i)  # -1, the last place, for the first token: that is a parting, which never merges
                ranks[i] = self.table.ranks(new, ids.take(after))
                ranks[before] = self.table.ranks(ids.take(before), ids.take(i))
                at = at[ranks.take(at) < end]
                n -= len(i)
            if 2 * n < len(ids):  # close the gaps, so that there is less to search for the next group
                there = ids >= 0
                ids, ranks, left, right = ids[there], ranks[there], np.arange(-1, n - 1), np.arange(1, n + 1)
        return ids[ids >= 0]

    def _goes_first(self, at: Array, ranks: npt.NDArray[np.int32], left: Array, right: Array) -> npt.NDArray[np.bool_]:
        """Which of the pairs that begin `at` (in order) merge before those that they overlap with."""
        rank, after, before = ranks.take(at), right.take(at), ranks.take(left.take(at))
        first = (before > rank) & (ranks.take(after) >= rank)
        if (before == rank).any():  # "aaaa": in a run of one pair, every other one
            starts = np.flatnonzero(before != rank)
            run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(at)))  # which run each pair belongs to
            odd = (np.arange(len(at)) - starts[run]) % 2 == 1
            first = (before > rank)[starts][run] & (ranks.take(after) >= rank) & ~odd
        return first


def array_merger(ranks: Mapping[Pair, int], merged: Sequence[int], id_of_byte: Sequence[int]) -> ArrayMerger | None:
    """A merger of a tokenizer's merges, or None if their order does not allow it."""
    merges = sorted(ranks, key=ranks.__getitem__)
    if len(merges) < len(merged):
        return None  # a pair stands in the list twice
    ends = groups(merges, merged)
    return None if ends is None else ArrayMerger(merges, merged, id_of_byte, ends)
