"""What makes bpe.py fast: counts of pairs that are kept from merge to merge, and the merging of long pre-tokens.

Both are proven equal to the plain versions in bpe_plain.py on random text (tests/tokenizers/test_bpe.py).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

Pair = tuple[int, int]

LONG = 512  # tokens from which a heap beats scanning a list for its minimum


class PairCounts:
    """How often each pair of neighbouring ids occurs in words: `commonest` finds one, `merge` makes it one id.

    words: pre-token -> how often it occurs, its characters standing for ids, chr(id).

    A merge changes only the words that hold its pair. So keep, for every pair, its count and the words that hold it,
    and update both for the neighbours of each place that is merged. Counts only fall for pairs that exist, so the
    heap of (-count, pair) is lazy: an entry that is out of date is noticed when it comes out, and goes back corrected.

    A pair is a `str` of two characters in here: finding, counting and merging it are then `in`, `split` and `join`,
    which run in C, and strings compare in the order of their ids.
    """

    def __init__(self, words: Mapping[str, int]):
        self.words = list(words)
        self.word_counts = list(words.values())
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.holders: defaultdict[str, list[int]] = defaultdict(list)  # pair -> the places in `words` that hold it
        if words:
            self._count()
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.heap)

    def _count(self) -> None:
        """Count every pair by NumPy, over all words at once."""
        lengths = np.fromiter(map(len, self.words), np.int64, len(self.words))
        word_counts = np.array(self.word_counts, np.int64)
        ids = np.frombuffer("".join(self.words).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        owner = np.repeat(np.arange(len(self.words)), lengths)  # which word each id belongs to
        inside = owner[:-1] == owner[1:]
        owner = owner[:-1][inside]
        pairs = ((ids[:-1] << 32) + ids[1:])[inside]

        order = np.argsort(pairs, kind="stable")
        pairs, owner = pairs[order], owner[order]
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        totals = np.add.reduceat(word_counts[owner], starts) if len(starts) else starts
        for code, total, holders in zip(pairs[starts].tolist(), totals.tolist(), np.split(owner, starts[1:])):
            pair = chr(code >> 32) + chr(code & 0xFFFFFFFF)
            self.counts[pair] = total
            self.holders[pair] = holders.tolist()

    def __getitem__(self, pair: Pair) -> int:
        """How often the pair occurs."""
        return self.counts[chr(pair[0]) + chr(pair[1])]

    def commonest(self) -> Pair | None:
        """The pair that occurs most often, of several the smallest; None if no word has two ids left."""
        while self.heap:
            claimed, pair = self.heap[0]
            count = self.counts.get(pair, 0)
            if count == -claimed:
                return ord(pair[0]), ord(pair[1])
            heapq.heappop(self.heap)  # out of date
            if count > 0:
                heapq.heappush(self.heap, (-count, pair))
        return None

    def merge(self, ids: Pair, new_id: int) -> None:
        """Replace the pair by `new_id` in every word, from left to right."""
        pair, new = chr(ids[0]) + chr(ids[1]), chr(new_id)
        words, holders = self.words, self.holders
        changes: defaultdict[str, int] = defaultdict(int)
        for w in holders.pop(pair, []):
            word = words[w]
            if pair not in word:  # another merge took it since, or `w` is listed twice
                continue
            n = self.word_counts[w]
            parts = word.split(pair)
            words[w] = new.join(parts)
            # The pair stood between parts[i] and parts[i + 1]. Its neighbours are the last character of the one and the
            # first of the other; where the part between two occurrences is empty, they touch.
            last = len(parts) - 1
            for i in range(last):
                before, after = parts[i], parts[i + 1]
                if before:
                    changes[before[-1] + pair[0]] -= n
                    changes[before[-1] + new] += n
                    holders[before[-1] + new].append(w)
                if after:
                    changes[pair[1] + after[0]] -= n
                    changes[new + after[0]] += n
                    holders[new + after[0]].append(w)
                elif i + 1 < last:  # two occurrences touch: xyxy -> new new
                    changes[pair[1] + pair[0]] -= n
                    changes[new + new] += n
                    holders[new + new].append(w)
        for changed, change in changes.items():
            self.counts[changed] += change
            if new in changed:
                heapq.heappush(self.heap, (-change, changed))
        self.counts.pop(pair, None)


def merge_long_word(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`bpe.merge_word` for any length.

    The rank of each neighbouring pair stands in a list beside the ids, so a merge looks up only the two pairs that it
    makes. Finding the minimum scans the list, n² steps for n bytes; past `LONG` a heap takes over, n log n.
    """
    if len(ids) > LONG:
        return merge_very_long(ids, ranks, merged)
    none = len(merged)  # the rank of a pair that never merges
    pair_ranks = [ranks.get(pair, none) for pair in pairwise(ids)]
    while pair_ranks:
        rank = min(pair_ranks)
        if rank == none:
            break
        i = pair_ranks.index(rank)
        ids[i] = new = merged[rank]
        del ids[i + 1], pair_ranks[i]
        if i > 0:
            pair_ranks[i - 1] = ranks.get((ids[i - 1], new), none)
        if i < len(pair_ranks):
            pair_ranks[i] = ranks.get((new, ids[i + 1]), none)
    return ids


def merge_very_long(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """The same by a heap of (rank, place) over a linked list of tokens."""
    return [token for token in merge_in_place(ids, ranks, merged) if token >= 0]


def merge_in_place(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """Every token at the place of its first part, -1 at those of the others."""
    n = len(ids)
    left, right = list(range(-1, n - 1)), list(range(1, n + 1))
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, i = heapq.heappop(heap)
        j = right[i]
        if j == n or ids[i] < 0 or ranks.get((ids[i], ids[j])) != rank:  # the pair that was here is gone
            continue
        ids[i], ids[j] = merged[rank], -1  # -1: merged away
        after = right[j]
        right[i] = after
        if after < n:
            left[after] = i
            if (ids[i], ids[after]) in ranks:
                heapq.heappush(heap, (ranks[ids[i], ids[after]], i))
        before = left[i]
        if before >= 0 and (ids[before], ids[i]) in ranks:
            heapq.heappush(heap, (ranks[ids[before], ids[i]], before))
    return ids
