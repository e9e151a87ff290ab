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


def text_offsets(starts: Any, length: int) -> Any:
    """Where texts begin and end in the tokens of all rows one after another: (B·K,), as the second of a pair.

    `starts` (B, K): of each row of `length` tokens the columns where its texts begin, rising, and `length` in what is
    left of the row, in its last column at least. So the offsets count an empty text for each of these, which harm none.
    """
    rows = (starts[:, :1] * 0 + 1).cumsum(0) - 1  # (B, 1): 0, 1, 2, ... as an ndarray or a tensor, as `starts` is one
    return (starts + rows * length).reshape(-1)
