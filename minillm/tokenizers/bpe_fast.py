"""The two slow parts of bpe.py made fast: learning the merges, and encoding one pre-token.

Both are proven equal to the plain versions in bpe.py on random text (tests/tokenizers/test_bpe.py).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

LONG = 512  # tokens from which a heap beats scanning a list for its minimum


def train_fast(words: Mapping[str, int], n_merges: int, n_symbols: int = 256) -> Iterator[tuple[tuple[int, int], int]]:
    """The same merges as `bpe.train_naive`, without looking at every word for every merge.

    words: pre-token -> how often it occurs. Its characters stand for ids: chr(id), with ids below n_symbols (for BPE,
    those of single bytes). The first merge makes the id n_symbols.
    Yields ((left id, right id), count) for each merge, best first; ends early when no pair is left.

    A merge changes only the words that hold its pair. So keep, for every pair, its count and the words that hold it,
    and update both for the neighbours of each place that is merged. Counts only fall for pairs that exist, so the
    heap of (-count, pair) is lazy: an entry that is out of date is noticed when it comes out, and goes back corrected.

    A word is a `str` whose characters are token ids, chr(id), and a pair is a `str` of two: finding, counting and
    merging a pair are then `in`, `split` and `join`, which run in C, and strings compare in the order of their ids.
    """
    texts = list(words)
    counts = list(words.values())
    pair_counts, pair_words = _count_pairs(words)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    new_id = n_symbols
    while heap and new_id < n_symbols + n_merges:
        claimed, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if count != -claimed:  # out of date
            if count > 0:
                heapq.heappush(heap, (-count, pair))
            continue
        yield (ord(pair[0]), ord(pair[1])), count

        new = chr(new_id)
        changes: defaultdict[str, int] = defaultdict(int)
        for w in pair_words.pop(pair):
            text = texts[w]
            if pair not in text:  # another merge took it since, or `w` is listed twice
                continue
            n = counts[w]
            parts = text.split(pair)
            texts[w] = new.join(parts)
            # The pair stood between parts[i] and parts[i + 1]. Its neighbours are the last character of the one and the
            # first of the other; where the part between two occurrences is empty, they touch.
            last = len(parts) - 1
            for i in range(last):
                before, after = parts[i], parts[i + 1]
                if before:
                    changes[before[-1] + pair[0]] -= n
                    changes[before[-1] + new] += n
                    pair_words[before[-1] + new].append(w)
                if after:
                    changes[pair[1] + after[0]] -= n
                    changes[new + after[0]] += n
                    pair_words[new + after[0]].append(w)
                elif i + 1 < last:  # two occurrences touch: xyxy -> new new
                    changes[pair[1] + pair[0]] -= n
                    changes[new + new] += n
                    pair_words[new + new].append(w)
        for changed, change in changes.items():
            pair_counts[changed] += change
            if new in changed:
                heapq.heappush(heap, (-change, changed))
        del pair_counts[pair]
        new_id += 1


def _count_pairs(words: Mapping[str, int]) -> tuple[defaultdict[str, int], defaultdict[str, list[int]]]:
    """Count every pair of neighbouring ids, and list the words that hold it, by NumPy over all words at once."""
    pair_counts: defaultdict[str, int] = defaultdict(int)
    pair_words: defaultdict[str, list[int]] = defaultdict(list)
    if not words:
        return pair_counts, pair_words
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    counts = np.fromiter(words.values(), np.int64, len(words))
    ids = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    owner = np.repeat(np.arange(len(words)), lengths)  # which word each id belongs to
    inside = owner[:-1] == owner[1:]
    owner = owner[:-1][inside]
    pairs = ((ids[:-1] << 32) + ids[1:])[inside]

    order = np.argsort(pairs, kind="stable")
    pairs, owner = pairs[order], owner[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    totals = np.add.reduceat(counts[owner], starts) if len(starts) else starts
    for code, total, holders in zip(pairs[starts].tolist(), totals.tolist(), np.split(owner, starts[1:])):
        pair = chr(code >> 32) + chr(code & 0xFFFFFFFF)
        pair_counts[pair] = total
        pair_words[pair] = holders.tolist()
    return pair_counts, pair_words


def merge_word(ids: list[int], ranks: Mapping[tuple[int, int], int], merged: Sequence[int]) -> list[int]:
    """Merge the tokens of one pre-token: always the pair of lowest rank, the leftmost if it occurs twice.

    ids: one token per byte; changed in place and returned. ranks: pair -> rank; merged: rank -> id of the result.

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


def merge_very_long(ids: list[int], ranks: Mapping[tuple[int, int], int], merged: Sequence[int]) -> list[int]:
    """`merge_word` by a heap of (rank, place) over a linked list of tokens; a merged token keeps its left place."""
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
    return [token for token in ids if token >= 0]
