"""What a model thinks of a text: the number that canaries, measures of bias and many benchmarks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..generate import check_continues, next_logits
from ..nn import evaluating
from ..tensor import Array

Row = tuple[Sequence[int], Sequence[int]]  # (the ids before, the ids that are asked about)


def log_likelihoods(model: Any, rows: Sequence[Row], batch_size: int = 64) -> Array:
    """ln P(ids | the ids before) for each row, in nats, under a causal model of either engine: (rows,) float64.

    Each row needs at least one id before: the end-of-text id, where a text begins. Raises ValueError for a row without,
    or longer than the model's context.
    """
    return continuations(model, rows, batch_size)[0]


def continuations(model: Any, rows: Sequence[Row], batch_size: int) -> tuple[Array, Array]:
    """As `log_likelihoods`, and for each row whether its ids are those of greedy decoding: (rows,) bool."""
    check_continues(model)
    context = model.config.context
    for before, ids in rows:
        if not len(before) or not len(ids) or len(before) + len(ids) > context + 1:
            raise ValueError(
                f"log_likelihoods: {len(before)} ids before and {len(ids)} asked about: each must be at least 1, and "
                f"both together at most the context and one, {context + 1}."
            )
    found, greedy = np.empty(len(rows)), np.empty(len(rows), dtype=bool)
    lengths = [len(before) + len(ids) for before, ids in rows]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])  # like lengths side by side
    with evaluating(model):
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            batch = np.zeros((len(part), lengths[part[-1]]), dtype=np.int64)  # filled up where causal models don't look
            for row, i in zip(batch, part):
                row[: lengths[i]] = [*rows[i][0], *rows[i][1]]
            start = min(len(rows[i][0]) for i in part) - 1  # logits take memory for the whole vocabulary: none before
            logits = next_logits(model, batch[:, :-1], None, slice(start, None))  # (B, T − 1 − start, V)
            for asked, i in zip(logits, part):
                n_before, n = len(rows[i][0]), len(rows[i][1])
                asked = asked[n_before - 1 - start :][:n].astype(np.float64)  # (n, V)
                shifted = asked - asked.max(axis=-1, keepdims=True)
                log_p = shifted[np.arange(n), rows[i][1]] - np.log(np.exp(shifted).sum(axis=-1))
                found[i], greedy[i] = log_p.sum(), (asked.argmax(axis=-1) == rows[i][1]).all()
    return found, greedy
