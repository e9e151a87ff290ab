"""Arrays piece by piece: ten passes over a piece that stays in a core's cache are far faster than over megabytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Elements of a piece: five float32 arrays of this size (in AdamW parameter, gradient, two moments, scratch) are 1.3 MB.
BLOCK = 65536


def blocks(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Flat views of the same BLOCK elements of each array, block after block; all arrays have one shape. Those that
    are written must be contiguous, those that are read may be any views."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield [a[start : start + BLOCK] for a in flat]
