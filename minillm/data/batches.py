"""Batches: windows of a token file in a shuffled order that can be left and taken up again exactly.

The tokens are a ring of M. An epoch cuts the ring, from a random place on, into N = M // context windows that follow
each other, and visits them in a random order, each once. A window at s gives the inputs s … s+T−1 and the targets
s+1 … s+T. Everything random is computed from (seed, epoch, index), nothing is stored, so a position is one number: how
many windows the whole job has used. It means the same on one process or on eight.

The order is a Feistel network (Luby & Rackoff 1988): split an index of 2h bits into halves (L, R) and repeat
(L, R) → (R, L ⊕ F(R)). Whatever F is, that can be undone, so it is a permutation, of 0 … 4ʰ−1. To permute 0 … N−1 only,
apply it again to whatever falls outside until it falls inside ("cycle walking", Black & Rogaway 2002).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..settings import IGNORE
from .packing import TokenDataset
from .shingles import mix

Ids = npt.NDArray[np.int64]
_ROUNDS = 6


class Batcher:
    """Gives training batches for ever: `next()` -> ids (B, T) int64, targets (B, T) int64.

    `batch_size` is per process. Of each global batch of world_size · batch_size windows, process `rank` gets its own
    stretch; stacked in rank order they are the batch that one process with world_size · batch_size would get. A batch
    may begin in one epoch and end in the next. Raises ValueError where the dataset is shorter than one window.
    """

    ahead = True

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        context: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_window(batch_size, context)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, not {rank}.")
        if len(dataset) < context + 1:
            raise ValueError(
                f"{dataset!r} is shorter than one window of {context} inputs and a last target ({context + 1} tokens): "
                "give more text, or a shorter context."
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.context = context
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.n_windows = len(dataset) // context
        self.windows_used = 0  # by all processes together

    def next(self) -> tuple[Ids, Ids]:
        """The next batch of this process: ids (B, T) and targets (B, T), int64."""
        starts = self.window_starts(self.first_row + np.arange(self.batch_size))
        self.windows_used += self.world_size * self.batch_size
        places = (starts[:, None] + np.arange(self.context + 1)) % len(self.dataset)  # (B, T+1)
        tokens = self.dataset.tokens[places].astype(np.int64)  # (B, T+1)
        return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])

    @property
    def first_row(self) -> int:
        """Which window of the endless order the first row of this process's next batch is."""
        return self.windows_used + share_of_rank(self.world_size * self.batch_size, self.rank, self.world_size).start

    def window_starts(self, positions: Ids) -> Ids:
        """Where the windows at these positions of the endless order begin in the token file: (n,) int64."""
        epochs, indices = np.divmod(positions, self.n_windows)
        starts = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = epoch_key(self.seed, int(epoch))
            offset = key % len(self.dataset)
            starts[here] = (offset + permute(indices[here], self.n_windows, key) * self.context) % len(self.dataset)
        return starts

    def state_dict(self) -> dict[str, Any]:
        """The exact position as JSON values. Independent of batch size and number of processes."""
        return {
            "windows_used": self.windows_used,
            "seed": self.seed,
            "context": self.context,
            "dataset": self.dataset.info.sha256,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Raises ValueError where the seed, the context or the data is not the saved one."""
        self.windows_used = saved_position("a Batcher", "windows_used", self.state_dict(), state)


def saved_position(who: str, counter: str, mine: dict[str, Any], state: dict[str, Any]) -> int:
    """The counter of a position that was saved; all else in it must be as it is now. Raises ValueError."""
    missing = sorted(mine.keys() - state.keys())
    if missing:
        raise ValueError(f"the saved data position lacks {', '.join(missing)}: it was not saved by {who}.")
    for key in mine:
        if key != counter and state[key] != mine[key]:
            raise ValueError(
                f"cannot resume the data where it stopped: {key} was {state[key]!r:.80} and is {mine[key]!r:.80} now. "
                "Resume with the same data and settings, or start a new run from the saved weights."
            )
    if type(state[counter]) is not int or not 0 <= state[counter] < 2**63:
        raise ValueError(f"{counter} must be a whole number from 0 up, not {state[counter]!r:.50}.")
    return state[counter]


def check_window(batch_size: int, context: int) -> None:
    for value in (batch_size, context):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(
                f"batch_size and context must be whole numbers, at least 1, not {batch_size!r} and {context!r}."
            )


def share_of_rank(n: int, rank: int, world_size: int) -> slice:
    """Which of `n` windows (or rows of a batch) process `rank` works on: its own stretch, ⌈n / world_size⌉ of them.

    In rank order the stretches are the whole. Where n is no multiple of world_size, the last ones are shorter or empty.
    """
    each = -(-n // world_size)
    return slice(min(rank * each, n), min((rank + 1) * each, n))


_KEY_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], dtype=np.uint64)


def epoch_key(seed: int, epoch: int) -> int:
    """64 bits, made of the seed and an epoch, that everything random of the epoch follows from."""
    return int(mix(np.array([seed % 2**64, epoch], dtype=np.uint64) + np.uint64(1)) @ _KEY_MIX)


def count_targets(targets: np.ndarray) -> int:
    """How many positions count, that is, are not IGNORE; of numbers to predict (regression), all."""
    if targets.dtype.kind == "f":
        return targets.size
    return int(np.count_nonzero(targets != IGNORE))


def require_targets(n_targets: float) -> float:
    """`n_targets` of a training step, by which its losses are divided. Raises ValueError for 0."""
    if not n_targets:
        raise ValueError(
            f"no target of this step counts: all are {IGNORE}, which the loss leaves out, and the mean of nothing is "
            "no loss. Look at what makes the batches (padding only? a text of separators?)."
        )
    return n_targets


def permute(indices: Ids, n: int, key: int) -> Ids:
    """Send each of `indices` (0 … n−1) to its place in a permutation of 0 … n−1 that `key` (64 bits) picks."""
    half = np.uint64(((n - 1).bit_length() + 1) // 2)  # bits of each half
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = mix(np.uint64(key) + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _KEY_MIX[0])
    x = indices.astype(np.uint64)
    outside = np.ones(len(x), dtype=bool)
    while outside.any():
        y = x[outside]
        left, right = y >> half, y & mask
        for round_key in keys:
            left, right = right, left ^ (mix(right + round_key) & mask)
        x[outside] = left << half | right
        outside = x >= n
    return x.astype(np.int64)


def iter_eval_batches(dataset: TokenDataset, batch_size: int, context: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield (ids, targets), each (B, T) int64, in which every token but the first is a target exactly once.

    Windows follow each other in file order. All batches have the same shape: what is left over at the end is filled
    with id 0 and target −100, which the loss ignores. The summed loss over all batches / ln 2 / dataset.n_bytes is bits
    per byte (the first token is the separator, which is no text; without separators one token goes unscored).
    """
    check_window(batch_size, context)
    if len(dataset) < 2:
        raise ValueError(f"{dataset!r} has no token to predict: evaluation needs at least two.")
    size = batch_size * context
    for start in range(0, len(dataset) - 1, size):
        tokens = dataset.tokens[start : start + size + 1].astype(np.int64)
        n = len(tokens) - 1
        ids = np.zeros(size, dtype=np.int64)
        targets = np.full(size, IGNORE, dtype=np.int64)
        ids[:n], targets[:n] = tokens[:-1], tokens[1:]
        yield ids.reshape(batch_size, context), targets.reshape(batch_size, context)
