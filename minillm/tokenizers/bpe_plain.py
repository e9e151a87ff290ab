"""BPE with nothing kept from one step to the next: to read, to watch (show.py), and to check the fast version by.

bpe.py gives the same merges and the same ids. This takes minutes where that takes seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .bpe import BPETokenizer
from .bpe_fast import Pair


def train_naive(words: Mapping[str, int], n_merges: int) -> Iterator[tuple[Pair, int]]:
    """Learn merges the way the definition says: count all pairs, merge the commonest, start over.

    words: pre-token, its bytes as characters, chr(id) -> how often it occurs (`bpe.count_words`). Yields what
    `bpe.learn_merges` yields: ((left id, right id), count) for each merge; number k makes the token with id 256 + k.
    """
    current = [([ord(symbol) for symbol in word], count) for word, count in words.items()]
    for new_id in range(256, 256 + n_merges):
        pair_counts: Counter[Pair] = Counter()
        for word, count in current:
            for pair in pairwise(word):
                pair_counts[pair] += count
        if not pair_counts:
            return
        most = max(pair_counts.values())
        best = min(pair for pair, count in pair_counts.items() if count == most)
        yield best, most
        current = [(merge(word, best, new_id), count) for word, count in current]


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of `pair` in `ids` by `new_id`, from left to right.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def merge_steps(tokenizer: BPETokenizer, piece: str) -> Iterator[list[int]]:
    """Every state on the way from a pre-token's bytes to its ids, one merge at a time.

    >>> tok = BPETokenizer.train(["low lower lowest low slow"], vocab_size=261)
    >>> [[tok.token_bytes(id) for id in ids] for ids in merge_steps(tok, "slow")]
    [[b's', b'l', b'o', b'w'], [b's', b'lo', b'w'], [b's', b'low']]
    """
    data = piece.encode()
    ids = [tokenizer.id_of_byte[byte] for byte in data]
    yield ids
    if tokenizer.whole_pieces and data in tokenizer.id_of_token:
        yield [tokenizer.id_of_token[data]]
        return
    while True:
        ranked = [(tokenizer.ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in tokenizer.ranks]
        if not ranked:
            return
        rank, i = min(ranked)  # the earliest merge; of several places, the leftmost
        ids = [*ids[:i], tokenizer.merged[rank], *ids[i + 2 :]]
        yield ids
