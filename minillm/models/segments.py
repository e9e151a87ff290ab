"""Packed rows: several short texts side by side in one row of tokens, each computed as if it stood alone.

`segments` (B, T), int64 or int32, numbers the texts of each row: tokens side by side with the same number are one text.

    ids       7 3 9 4 | 5 8 | 6 2 1
    segments  0 0 0 0   1 1   2 2 2
    positions 0 1 2 3   0 1   0 1 2

No query sees another text's keys (ops.attention), and every text's positions begin at 0 (here). A batch of rows that
are full wastes nothing on padding; which texts go into which row is said in assistant/packing.py and, of documents to
pretrain on, in training/objectives.py. Whoever makes the batch knows how many texts there are, which a GPU would have
to be waited for to hear: then `segments` is a pair, with `text_offsets` behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def packed_positions(model: Any, ids: Any, segments: Any, cache: Any) -> Any:
    """Each token's place in its text, from 0 on: (B, T) int64, an ndarray or a torch tensor as `segments` is one (of a
    pair, the first). Without `segments`, what a static cache says of its rows (static_cache.py), or None: one behind
    the other.

    Raises ValueError where `segments` do not belong to `ids` (B, T), or with a cache.
    """
    if segments is None:
        return None if cache is None else cache.places
    name = type(model).__name__
    segments = segments[0] if isinstance(segments, tuple) else segments
    if cache is not None:
        raise ValueError(f"{name}: segments and a cache do not go together: a cache continues one text in each row.")
    if segments.shape != ids.shape:
        raise ValueError(f"{name}: segments {tuple(segments.shape)} must be as ids, {tuple(ids.shape)}.")
    on_numpy = isinstance(segments, np.ndarray)
    before = np.roll(segments, 1, axis=1) if on_numpy else segments.roll(1, 1)  # of the token before; the first is at 0
    places = (segments == segments).cumsum(1) - 1  # (B, T): 0, 1, 2, ... in each row
    starts = places * (segments != before)  # the place itself where a text begins, elsewhere 0
    latest = np.maximum.accumulate(starts, axis=1) if on_numpy else starts.cummax(1).values
    return places - latest


def begins_of(segments: Array) -> Array:
    """Where a text begins, booleans (B, T)."""
    begins = np.ones(segments.shape, dtype=bool)
    np.not_equal(segments[:, 1:], segments[:, :-1], out=begins[:, 1:])
    return begins


def starts_of(segments: Array) -> Array:
    """The columns (B, K) where the texts of each row of `segments` (B, T) begin, then T: what `text_offsets` takes. K
    is a power of two and one, so that a compiled model meets few shapes.

    >>> starts_of(np.array([[0, 0, 1, 1, 2], [0, 0, 0, 0, 0]])).tolist()
    [[0, 2, 4, 5, 5], [0, 5, 5, 5, 5]]
    """
    begins, (n_rows, length) = begins_of(segments), segments.shape
    number = begins.cumsum(axis=1) - 1  # (B, T): of the text in its row
    most = int(number.max(initial=0)) + 1  # texts in a row
    starts = np.full((n_rows, (1 << (most - 1).bit_length()) + 1), length, dtype=np.int64)
    rows, columns = np.nonzero(begins)
    starts[rows, number[rows, columns]] = columns
    return starts


def check_starts(segments: Array, starts: Array) -> None:
    """Raise ValueError unless `starts` (B, K) say where the texts of `segments` (B, T) begin. Our kernels go by them
    alone: a text that they lengthen would end in rows of zeros, and one that they cut would not see itself."""
    n_rows, length = segments.shape
    right = starts.ndim == 2 and len(starts) == n_rows and ((starts >= 0) & (starts <= length)).all()
    if right:
        begins = np.zeros((n_rows, length + 1), dtype=bool)
        begins[np.arange(n_rows)[:, None], starts] = True
        right = (begins[:, :-1] == begins_of(segments)).all() and begins[:, -1].all() and (np.diff(starts) >= 0).all()
    if not right:
        raise ValueError(
            f"starts {tuple(starts.shape)} are not where the texts of segments {tuple(segments.shape)} begin: of each "
            f"row the columns, rising from 0, then {length}, its length, in what is left. models.segments.starts_of "
            "makes them."
        )


def text_lengths(segments: Array) -> Array:
    """How many tokens each text of all rows has, padding counted as one: (N,)."""
    return np.diff(np.flatnonzero(begins_of(segments)), append=segments.size)


def with_offsets(segments: Any, *starts: Any) -> Any:
    """`segments` as a model takes them: alone, or with the offsets that `starts` make, where there are any."""
    return (segments, text_offsets(starts[0], segments.shape[1])) if starts else segments


def text_offsets(starts: Any, length: int) -> Any:
    """Where texts begin and end in the tokens of all rows one after another: (B·K,), as the second of a pair.

    `starts` (B, K): of each row of `length` tokens the columns where its texts begin, rising, and `length` in what is
    left of the row, in its last column at least. So the offsets count an empty text for each of these, which harm none.
    """
    rows = (starts[:, :1] * 0 + 1).cumsum(0) - 1  # (B, 1): 0, 1, 2, ... as an ndarray or a tensor, as `starts` is one
    return (starts + rows * length).reshape(-1)
