"""What a model thinks of a text: the number that canaries and measures of bias are made of."""

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
    check_continues(model)
    context = model.config.context
    for before, ids in rows:
        if not len(before) or not len(ids) or len(before) + len(ids) > context + 1:
            raise ValueError(
                f"log_likelihoods: {len(before)} ids before and {len(ids)} asked about: each must be at least 1, and "
                f"both together at most the context and one, {context + 1}."
            )
    found = np.empty(len(rows))
    lengths = [len(before) + len(ids) for before, ids in rows]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])  # like lengths side by side
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            batch = np.zeros((len(part), lengths[part[-1]]), dtype=np.int64)  # filled up where causal models don't look
            for row, i in zip(batch, part):
                row[: lengths[i]] = [*rows[i][0], *rows[i][1]]
            logits = next_logits(model, batch[:, :-1], None, slice(None)).astype(np.float64)  # (B, T − 1, V)
            logits -= logits.max(axis=-1, keepdims=True)
            chosen = np.take_along_axis(logits, batch[:, 1:, None], axis=-1)[..., 0]  # (B, T − 1)
            log_p = chosen - np.log(np.exp(logits).sum(axis=-1))
            for row, i in zip(log_p, part):
                found[i] = row[len(rows[i][0]) - 1 : lengths[i] - 1].sum()
    return found
