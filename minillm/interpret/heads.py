"""What heads do, from their attention weights: rollout through all layers, previous-token and induction heads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Array
from .looking import look_inside


def attention_rollout(attention: Array) -> Array:
    """How much of each input position is in each position after each layer, if attention were all that mixes them.

    `attention` (layers, ..., heads, T, T) -> (layers, ..., T, T). Abnar & Zuidema 2020, arXiv 2005.00928, section 3:
    half of what a position has is its own (the residual), half comes by the mean head; layers are multiplied.

        Ãₗ = ½ I + ½ meanₕ Aₗₕ     Rₗ = Ãₗ Rₗ₋₁     R₀ = I

    Values, feed-forward networks and the true sizes of the two halves are left out, so it may point at what the model
    ignores. Rows that attend less than fully (sinks) are scaled to 1.
    """
    T = attention.shape[-1]
    mixed = 0.5 * np.eye(T) + 0.5 * attention.mean(axis=-3)  # (layers, ..., T, T)
    mixed /= mixed.sum(axis=-1, keepdims=True)
    rolled = [mixed[0]]
    for layer in mixed[1:]:
        rolled.append(layer @ rolled[-1])
    return np.stack(rolled)


def attended_share(attention: Array, wanted: Array) -> Array:
    """How much of its attention each head gives to what is `wanted` (B, T, T), booleans: attention (layers, B, heads,
    T, T) -> (layers, heads), the mean over the positions that want something. With np.eye(T, k=-1) > 0 for each row:
    previous-token heads."""
    shares = (attention * wanted[:, None]).sum(axis=-1)  # (layers, B, heads, T)
    return shares.swapaxes(1, 2)[:, :, wanted.any(axis=-1)].mean(axis=-1)


def what_followed(ids: Array) -> Array:
    """(B, T, T), True where position t looks at one that stood behind an earlier occurrence of t's own id."""
    B, T = ids.shape
    before = np.concatenate([np.full((B, 1), -1), ids[:, :-1]], axis=1)
    return (before[:, None, :] == ids[:, :, None]) & np.tri(T, dtype=bool)


def repeated_rows(rng: np.random.Generator, n_rows: int, length: int, vocab_size: int) -> tuple[Array, Array]:
    """Rows of random ids, each repeating a beginning of its own length: ids (n_rows, length) and their periods, from 3
    to half the length. Periods vary, else a head that always looks so far back would pass for an induction head."""
    if length < 6:
        raise ValueError(f"repeated_rows: length = {length} must be at least 6: a period of 3, twice.")
    periods = rng.integers(3, length // 2 + 1, n_rows)
    rows = [np.resize(rng.choice(vocab_size, period, replace=period > vocab_size), length) for period in periods]
    return np.array(rows), periods


def induction_scores(model: Any, *, n_rows: int = 32, length: int | None = None, seed: int = 0) -> Array:
    """How much each head looks at what followed the last times: (layers, heads), from 0 to 1.

    Olsson et al. 2022, arXiv 2209.11895, "prefix matching": on random ids that repeat, the share of attention that goes
    to the positions behind earlier occurrences of the id here. A head that does this and copies what it finds continues
    any repetition. `length` is at most the model's context, which is the default.
    """
    length = length or model.config.context
    ids, _ = repeated_rows(np.random.default_rng(seed), n_rows, length, model.config.vocab_size)
    return attended_share(look_inside(model, ids).attention, what_followed(ids))
