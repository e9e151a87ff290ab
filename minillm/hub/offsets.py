"""Tokens with the places in the text that they stand for, and long texts cut into windows that overlap.

A row is put together and cut (`PretrainedTokenizer.join`) as always, but of numbers that point at tokens: below zero,
-1 for the first, while the ids that the template puts around stay as they are. At the end `Tokens.columns` looks up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..tokenizers import CharTokenizer, PipelineTokenizer, SentencePieceTokenizer, Tokenizer
from ..tokenizers.aligned import Span
from ..tokenizers.base import Special
from ..tokenizers.json_parts import TOKENIZER_JSON
from ..tokenizers.pipeline import Encoded
from ..tokenizers.pipeline_formats import pipeline_of


def with_places(core: Tokenizer, content: Mapping[str, Any] | None) -> PipelineTokenizer:
    """The same tokenizer, part by part, which knows places. content: the tokenizer.json that it was read from, which
    says more about offsets than the tokenizer. Raises ValueError for one of characters."""
    if isinstance(core, PipelineTokenizer):
        return core
    if isinstance(core, CharTokenizer):
        raise ValueError("a character tokenizer has no offsets: its tokens are the text's characters, one by one.")
    if isinstance(core, SentencePieceTokenizer):
        raise ValueError("a tokenizer read from SentencePiece's model files has no offsets: ask for ids only.")
    return pipeline_of(core.to_json() if content is None else content, Path(TOKENIZER_JSON))


@dataclass
class Tokens:
    """Every token of a batch."""

    ids: list[int] = field(default_factory=list)
    offsets: list[Span] = field(default_factory=list)
    words: list[int] = field(default_factory=list)

    def add(self, encoded: Encoded) -> list[int]:
        """The numbers that point at the tokens of a text."""
        before = len(self.ids)
        self.ids += encoded.ids
        self.offsets += encoded.offsets
        self.words += encoded.words
        return [-1 - i for i in range(before, len(self.ids))]

    def columns(self, rows: Iterable[Sequence[int]]) -> dict[str, list[list[Any]]]:
        """input_ids, offset_mapping ((0, 0) for what the template puts in), special_tokens_mask and words."""
        rows = list(rows)
        return {
            "input_ids": [[self.ids[-1 - i] if i < 0 else i for i in row] for row in rows],
            "offset_mapping": [[self.offsets[-1 - i] if i < 0 else (0, 0) for i in row] for row in rows],
            "special_tokens_mask": [[int(i >= 0) for i in row] for row in rows],
            "words": [[self.words[-1 - i] if i < 0 else None for i in row] for row in rows],
        }


def encode_words(core: PipelineTokenizer, text: Any, split: bool, allowed: Special) -> Encoded:
    """A text, or with `split` a list of words: each is encoded by itself, and its offsets are those within it."""
    if not split:
        return core.encode_offsets(text, allowed_special=allowed)
    made = Encoded([], [], [])
    for number, word in enumerate(text):
        encoded = core.encode_offsets(word, allowed_special=allowed)
        made.ids.extend(encoded.ids)
        made.offsets.extend(encoded.offsets)
        made.words.extend([number] * len(encoded.ids))
    return made


def windows(n: int, size: int, stride: int, side: str) -> list[Span]:
    """From where to where the windows over n tokens go: of `size`, each beginning `stride` before the last one's end;
    from the other end if side is "left". Raises ValueError for a stride that is not smaller than the size."""
    if n <= size:
        return [(0, n)]
    if not 0 <= stride < size:
        raise ValueError(f"stride = {stride} must be from 0 to {size - 1}: {size} tokens of the text fit at a time.")
    found = []
    for start in range(0, n, size - stride):
        end = min(start + size, n)
        found.append((start, end) if side == "right" else (n - end, n - start))
        if end == n:
            break
    return found


def overflowing(
    a: list[int], b: list[int] | None, limit: int, strategy: str, stride: int, side: str
) -> list[tuple[list[int], list[int] | None]]:
    """One text or two, cut into as many parts as it takes: what `truncate` keeps, and windows over the rest.

    Raises ValueError for two texts that would both be cut.
    """
    if strategy == "do_not_truncate" or len(a) + len(b or ()) <= limit:
        return [(a, b)]
    if b is not None and strategy == "longest_first":
        raise ValueError("return_overflowing_tokens with two texts needs truncation='only_first' or 'only_second'.")
    if b is not None and strategy == "only_second":
        return [(a, b[start:end]) for start, end in windows(len(b), limit - len(a), stride, side)]
    return [(a[start:end], b) for start, end in windows(len(a), limit - len(b or ()), stride, side)]


def token_mask(offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    """1 for the tokens of the characters from ... to ... of any of `spans`."""
    mask = [0] * len(offsets)
    for start, end in spans:
        touching = [i for i, (first, last) in enumerate(offsets) if first < end and last > start]
        for i in range(min(touching, default=0), max(touching, default=-1) + 1):
            mask[i] = 1
    return mask
