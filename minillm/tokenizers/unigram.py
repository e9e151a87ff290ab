"""Unigram: the tokenizer of T5, XLM-R and Marian, in one file to read (Kudo 2018, arXiv 1804.10959, section 3.2).

BPE builds tokens up by merging. A unigram model takes every token for a word drawn by itself: each has a probability,
that of a sequence is their product, and a piece is cut in the way that makes the product largest. In logarithms, the
scores of the file, products are sums, and the best cut follows from best cuts of shorter beginnings (Viterbi 1967):

    best(0) = 0
    best(end) = max over tokens t that end there of  best(end - len(t)) + score(t)

>>> model = Unigram([("<unk>", 0.0), ("h", -3.0), ("u", -3.0), ("g", -3.0), ("hu", -4.0), ("ug", -3.5)], unk_id=0)
>>> [token_id for token_id, _, _ in model.tokenize("hug")]  # h + ug = -6.5; hu + g = -7; h + u + g = -9
[1, 5]

A character that no token covers is unknown: it costs ten more than the worst token, so that it is taken only where
there is nothing else, and unknown characters next to each other are one token. Marian, XLM-R and T5 have these scores
from SentencePiece's trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf
from operator import itemgetter

UNKNOWN_PENALTY = 10.0
Token = tuple[int, int, int]  # id, and from which byte of the piece to which


class Unigram:
    """Tokens with scores (the logarithms of their probabilities).

    vocab: (token, score) by id. unk_id: of what no token covers; None: such text raises ValueError. byte_fallback:
    it is written in tokens <0x00> to <0xFF>, if the vocabulary has them.
    """

    def __init__(self, vocab: Sequence[tuple[str, float]], unk_id: int | None, byte_fallback: bool = False):
        self.scores = [score for _, score in vocab]
        self.vocab = {token: token_id for token_id, (token, _) in enumerate(vocab)}
        self.unk_id = unk_id
        self.byte_fallback = byte_fallback
        self.unknown_score = min(self.scores, default=0.0) - UNKNOWN_PENALTY
        self.longest = max(map(len, self.vocab), default=0)

    def best_cut(self, piece: str) -> list[tuple[int, int, bool]]:
        """(from, to, whether it is known) of each token on the best way through `piece`."""
        best = [0.0] + [-inf] * len(piece)  # best[end]: the score of the best way to there
        came_from = [0] * (len(piece) + 1)
        known = [True] * (len(piece) + 1)
        for start in range(len(piece)):
            so_far = best[start]  # final by now: whatever leads here began before
            for end in range(start + 1, min(start + self.longest, len(piece)) + 1):
                token_id = self.vocab.get(piece[start:end])
                if token_id is not None and so_far + self.scores[token_id] > best[end]:
                    best[end] = so_far + self.scores[token_id]
                    came_from[end], known[end] = start, token_id != self.unk_id
            if piece[start] not in self.vocab and so_far + self.unknown_score > best[start + 1]:
                best[start + 1] = so_far + self.unknown_score
                came_from[start + 1], known[start + 1] = start, False
        way = []
        end = len(piece)
        while end > 0:
            way.append((came_from[end], end, known[end]))
            end = came_from[end]
        return way[::-1]

    def tokenize(self, piece: str) -> list[Token]:
        """Each token of a piece, with the bytes that it covers."""
        tokens: list[Token] = []
        at = 0
        for is_known, run in groupby(self.best_cut(piece), itemgetter(2)):
            parts = [piece[start:end] for start, end, _ in run]
            for part in parts if is_known or self.unk_id is None else ["".join(parts)]:
                end = at + len(part.encode())
                tokens += [(token_id, at, end) for token_id in self.ids_of(part)]
                at = end
        return tokens

    def ids_of(self, part: str) -> list[int]:
        """One token as it stands in the vocabulary; what does not stand there in bytes, or as unknown."""
        token_id = self.vocab.get(part)
        if token_id is not None:
            return [token_id]
        spelled = [self.vocab.get(f"<0x{byte:02X}>") for byte in part.encode()] if self.byte_fallback else [None]
        whole = [byte_id for byte_id in spelled if byte_id is not None]
        if len(whole) == len(spelled):
            return whole
        if self.unk_id is None:
            raise ValueError(f"the vocabulary has no token for {part!r}, and no unknown token (unk_id) either.")
        return [self.unk_id]
