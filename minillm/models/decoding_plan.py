"""How a batch of texts is written with a plan: which ids each text reads next, and when it is done.

What computes the logits is a `DecodingPlan` of its own for NumPy (decoding.py) and for PyTorch (decoding_torch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


class DecodingPlan:
    """How to run a model that only writes. A cache of its own has `lengths`, what it holds of each text, and
    `take(rows)`, after which text i is what text rows[i] was."""

    model: Any

    def new_cache(self, rows: int, capacity: int, most: int = 0) -> Any:
        """An empty cache for `rows` texts of up to `capacity` ids each, of which `take` makes `most` rows at most."""
        raise TypeError(f"{type(self).__name__} defines no new_cache().")

    def logits(self, cache: Any, pieces: Sequence[Sequence[int]], every: bool = False) -> Array:
        """Read for each row of the cache the ids that come next, at least one each -> logits (rows, V) for the token
        after the last of each; with `every` for those after all, (N, V), row by row."""
        raise TypeError(f"{type(self).__name__} defines no logits().")

    def steps(
        self,
        ids: Array,
        lengths: Sequence[int],
        n_new: int,
        choose: Callable[[int, int, Array], int],
        stopped: Sequence[bool],
    ) -> Iterator[dict[int, int]]:
        """Yields {row: new id} `n_new` times, or until all have `stopped`: ids (rows, T) hold prompts of these
        `lengths` and receive what `choose(row, position, logits (V,))` gives. Each text has its own place and its own
        window, one that has stopped is left out, and a prompt that several rows have is read once."""
        context, rows, ends = self.model.config.context, list(range(len(ids))), list(lengths)
        starts = [window_start(end, context) for end in ends]
        kinds: dict[tuple[int, ...], int] = {}
        prompts = [tuple(own[start:end].tolist()) for own, start, end in zip(ids, starts, ends)]
        first = [kinds.setdefault(prompt, len(kinds)) for prompt in prompts]
        cache = self.new_cache(len(kinds), min(context, max(lengths) + n_new), len(ids))
        logits = self.logits(cache, list(kinds))
        if first != rows:
            cache.take(first)
            logits = logits[first]
        for step in range(n_new):
            chosen = {row: choose(row, ends[row], logits[i]) for i, row in enumerate(rows)}
            for row, token in chosen.items():
                ids[row, ends[row]] = token
                ends[row] += 1
            yield chosen
            going = [i for i, row in enumerate(rows) if not (stopped and stopped[row])]
            if not going or step == n_new - 1:
                return
            if len(going) < len(rows):
                rows = [rows[i] for i in going]
                cache.take(going)
            for i, row in enumerate(rows):
                start = window_start(ends[row], context)
                if start != starts[row]:  # the window has moved, and with it every position
                    starts[row], cache.lengths[i] = start, 0
            begin = [starts[row] + length for row, length in zip(rows, cache.lengths)]
            logits = self.logits(cache, [ids[row, at : ends[row]].tolist() for row, at in zip(rows, begin)])


def window_start(length: int, context: int) -> int:
    """The first of `length` ids that the model sees. Beyond the context, the window jumps ahead by half of it, rather
    than creeping by one: each jump costs the cache a fresh start, since learned positions count from the window's
    first token."""
    if length <= context:
        return 0
    jump = max(context // 2, 1)
    return -(-(length - context) // jump) * jump
