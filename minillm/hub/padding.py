"""Texts of different lengths to rows of one length, cut or padded, and to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def truncate(
    a: list[int], b: list[int] | None, limit: int, strategy: str, side: str = "right"
) -> tuple[list[int], list[int] | None]:
    """One text, or two, cut to `limit` ids together.

    strategy: "longest_first" takes from the longer of the two until they are equal, then from both; "only_first" and
    "only_second" from one; "do_not_truncate" from none. side: the end that is cut off. Raises ValueError if the one to
    be cut is too short, or the limit leaves no room.
    """
    if strategy == "do_not_truncate" or len(a) + len(b or ()) <= limit:
        return a, b
    if limit < 0:
        raise ValueError(f"truncation: max_length is {-limit} too small for the special tokens alone.")
    if strategy == "longest_first":
        n_a, n_b = share(len(a), len(b or ()), limit)
    elif strategy == "only_first":
        n_a, n_b = limit - len(b or ()), len(b or ())
    elif strategy == "only_second":
        n_a, n_b = len(a), limit - len(a) if b is not None else 0
    else:
        known = "True, 'longest_first', 'only_first', 'only_second' or 'do_not_truncate'"
        raise ValueError(f"truncation = {strategy!r} must be {known}.")
    if strategy != "longest_first" and (n_a if strategy == "only_first" else n_b) < 1:  # nothing would remain of it
        raise ValueError(f"{len(a)} and {len(b or ())} ids cannot be cut to {limit} at one only: use 'longest_first'.")
    return cut(a, n_a, side), None if b is None else cut(b, n_b, side)


def share(n_a: int, n_b: int, limit: int) -> tuple[int, int]:
    """How many ids of two texts remain, as the `tokenizers` library divides them: the shorter whole if under half."""
    short, long = sorted((n_a, n_b))
    long = max(short, limit - short)
    if short + long > limit:
        short = limit // 2
        long = limit - short
    return (short, long) if n_a <= n_b else (long, short)


def cut(ids: list[int], n: int, side: str) -> list[int]:
    return ids[:n] if side == "right" else ids[len(ids) - n :]


def pad(
    columns: Mapping[str, list[list[Any]]], length: int, values: Mapping[str, Any], side: str, multiple: int | None
) -> dict[str, list[list[Any]]]:
    """Every row of every column filled up to `length`, or the next multiple of `multiple`; with 0 where `values` says
    nothing. Longer rows stay as they are."""
    if multiple:
        length = -(-length // multiple) * multiple
    padded = {}
    for name, rows in columns.items():
        fillers = [[values.get(name, 0)] * (length - len(row)) for row in rows]
        padded[name] = [row + filler if side == "right" else filler + row for row, filler in zip(rows, fillers)]
    return padded


class Inputs(dict[str, Any]):
    """What a tokenizer makes of texts: input_ids, attention_mask and token_type_ids, for `model(**inputs)`."""

    words: list[list[int | None]] | None = None  # for each token of each row the number of its word, if it is known

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of the word that it is a part of, None for special ones.

        Raises ValueError if nobody asked for places (`is_split_into_words` or `return_offsets_mapping`).
        """
        if self.words is None:
            raise ValueError("words are not known: pass is_split_into_words=True or return_offsets_mapping=True.")
        return self.words[batch_index]

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"these inputs have no {name!r}, only {', '.join(self)}")

    def to(self, device: Any) -> Inputs:
        """The same on another device (PyTorch)."""
        moved = Inputs({name: value.to(device) for name, value in self.items()})
        moved.words = self.words
        return moved


def to_tensors(inputs: Inputs, kind: str) -> Inputs:
    """Rows of equal length as int64 arrays (B, T), "np", or torch tensors, "pt"."""
    lengths = {len(row) for row in inputs["input_ids"]}
    if len(lengths) > 1:
        span = f"{min(lengths)} to {max(lengths)}"
        raise ValueError(f"the texts have {span} tokens, and a tensor needs rows of one length: pass padding=True.")
    arrays = {name: np.array(rows, dtype=np.int64) for name, rows in inputs.items()}
    if kind == "np":
        return Inputs(arrays)
    import torch

    return Inputs({name: torch.from_numpy(array) for name, array in arrays.items()})
