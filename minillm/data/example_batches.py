"""Batches of examples: each once an epoch in a shuffled order, on any number of processes, with an exact resume.

`Batcher` (batches.py) does this for windows of one long text; here a row is an example of its own length. As there,
everything random follows from (seed, epoch, place), and the position is one number: how many examples the whole job has
used. What a batch consists of is the caller's: `collate` is given row numbers and makes arrays of them.

Rows of one length waste nothing on padding. With `bucket` B, the order of an epoch is cut into stretches of B global
batches; each is sorted by length, cut into batches, and these are shuffled. So a batch's rows are alike, which rows
meet still changes each epoch, and every example is still there once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .batches import Ids, epoch_key, permute, saved_position, share_of_rank

Collate = Callable[[Ids, Ids], tuple[np.ndarray, ...]]  # (rows (B,), epochs (B,)) -> the model's arguments


class ExampleBatcher:
    """Gives training batches for ever: `next()` -> what `collate(rows, epochs)` makes, for one process's rows.

    `rows` (B,) int64 are numbers of examples, 0 to n_examples − 1; `epochs` (B,) int64 say for each in which epoch it
    is met, from 0, which augmentation draws from. A batch may begin in one epoch and end in the next. `batch_size` is
    per process: of each global batch of world_size · batch_size rows, process `rank` gets its own stretch; stacked in
    rank order they are the batch that one process would get. `lengths` (n_examples,) and `bucket`: see the top of this
    file; without `lengths` the order is plain. `data` names what the rows stand for (`fingerprint`), so that a run
    isn't resumed on other examples.

    Raises ValueError for no examples, and where sizes don't fit.
    """

    ahead = True

    def __init__(
        self,
        n_examples: int,
        batch_size: int,
        collate: Collate,
        *,
        seed: int,
        data: str = "",
        lengths: Sequence[int] | np.ndarray | None = None,
        bucket: int = 16,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value in (("n_examples", n_examples), ("batch_size", batch_size), ("bucket", bucket)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, not {value!r}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, not {rank}.")
        if lengths is not None and np.shape(lengths) != (n_examples,):
            raise ValueError(
                f"lengths must be one for each of {n_examples} examples, not of shape {np.shape(lengths)}."
            )
        self.n_examples = int(n_examples)
        self.batch_size = int(batch_size)
        self.collate = collate
        self.seed = seed
        self.data = data
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.bucket = int(bucket)
        self.rank = rank
        self.world_size = world_size
        self.examples_used = 0  # by all processes together
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def next(self) -> tuple[np.ndarray, ...]:
        """The next batch of this process."""
        rows, epochs = self.rows_at(self.first_row + np.arange(self.batch_size))
        self.examples_used += self.world_size * self.batch_size
        return self.collate(rows, epochs)

    @property
    def first_row(self) -> int:
        """Which example of the endless order the first row of this process's next batch is."""
        return self.examples_used + share_of_rank(self.world_size * self.batch_size, self.rank, self.world_size).start

    @property
    def row_tokens(self) -> float:
        """Tokens of a row, on average over the examples; 1 without lengths."""
        return 1.0 if self.lengths is None else float(self.lengths.mean())

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every example has been met once (the last one may reach into the next epoch)."""
        return -(-self.n_examples // (self.world_size * self.batch_size))

    def rows_at(self, positions: Ids) -> tuple[Ids, Ids]:
        """(examples, epochs), each (n,) int64, at these positions of the endless order."""
        epochs, places = np.divmod(positions, self.n_examples)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self.order(int(epoch))[places[here]]
        return rows, epochs

    def order(self, epoch: int) -> Ids:
        """All examples in the order of this epoch: (n_examples,) int64."""
        if epoch != self._epoch:
            key = epoch_key(self.seed, epoch)
            order = permute(np.arange(self.n_examples), self.n_examples, key)
            self._epoch, self._order = epoch, order if self.lengths is None else self.bucketed(order, epoch, key)
        return self._order

    def bucketed(self, order: Ids, epoch: int, key: int) -> Ids:
        """The same examples, those of like length together, in batches that are cut where `next` cuts them."""
        assert self.lengths is not None
        size = self.world_size * self.batch_size
        first = epoch * self.n_examples  # batches and stretches are counted from the very first example, not from here
        stretches = []
        for start, rows in zip(*cut(order, first, size * self.bucket)):
            alike = rows[np.argsort(self.lengths[rows], kind="stable")]
            _, batches = cut(alike, start, size)
            whole = [i for i, batch in enumerate(batches) if len(batch) == size]  # an epoch's ends have parts of one
            shuffled = permute(np.arange(len(whole)), len(whole), key ^ start)
            mixed = list(batches)
            for i, j in zip(whole, shuffled):
                mixed[i] = batches[whole[j]]
            stretches += mixed
        return np.concatenate(stretches)

    def state_dict(self) -> dict[str, Any]:
        """The exact position as JSON values. Without `lengths` it depends on neither batch size nor processes."""
        size = self.world_size * self.batch_size
        return {
            "examples_used": self.examples_used,
            "seed": self.seed,
            "n_examples": self.n_examples,
            "data": self.data,
            "bucketed": None if self.lengths is None else [size, size * self.bucket],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Raises ValueError where the seed, the examples or the buckets are not the saved."""
        mine, saved = self.state_dict()["bucketed"], state.get("bucketed")
        if isinstance(mine, list) and isinstance(saved, list) and len(saved) == 2 and mine != saved:
            raise ValueError(
                f"cannot resume the data where it stopped: it came in batches of {saved[0]!r:.50} examples, by length, "
                f"and now would in batches of {mine[0]}. Resume with the batch size and the number of processes that "
                "it had, or start a new run from the saved weights."
            )
        self.examples_used = saved_position("an ExampleBatcher", "examples_used", self.state_dict(), state)


def cut(rows: Ids, first: int, size: int) -> tuple[list[int], list[Ids]]:
    """Cut rows, of which the first has the number `first`, at multiples of `size`: (number of each part's first row,
    parts)."""
    edges = np.arange(-first % size or size, len(rows), size)
    return [first, *(first + edges).tolist()], np.split(rows, edges)


def pad(rows: Iterable[np.ndarray], value: int, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(ids (B, T) int64, mask (B, T) bool, True where a row is) of rows of any lengths; T is the longest."""
    rows = list(rows)
    longest = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), longest), value, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(len(row))
        ids[i, place] = row
        mask[i, place] = True
    return ids, mask


def fingerprint(examples: Iterable[Any]) -> str:
    """16 hex digits of the sha256 of examples (dataclasses, or tuples of arrays), where each stood in a file aside."""
    digest = hashlib.sha256()
    for example in examples:
        parts = example if isinstance(example, tuple) else [v for k, v in vars(example).items() if k != "where"]
        for part in parts:
            data = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode("utf-8", "backslashreplace")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
