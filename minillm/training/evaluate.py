"""Evaluation: how well a model predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..data import TokenDataset, count_targets, iter_eval_batches
from ..metrics import perplexity
from .objectives import NextToken, Objective, PackedNextToken, prepare

Window = tuple[np.ndarray, np.ndarray]  # ids and targets (B, T), the next tokens


class Measured(Protocol):
    """An evaluation, of whatever: what the training loop asks of it."""

    @property
    def loss(self) -> float:
        """Nats per target."""

    @property
    def score(self) -> float:
        """What decides which checkpoint is the best, and when to stop: the lower, the better."""

    def figures(self) -> dict[str, float]:
        """What metrics.jsonl keeps, as val_loss and so on."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. `loss` is nats per token: comparable only between models with the same tokenizer.

    `perplexity` is e^loss: as if the model chose among that many equally likely tokens. `bits_per_byte` is what a
    compressor built from the model would need for a byte of the text: comparable between all models and tokenizers. It
    is nan for a model that is not asked for the whole text: one that fills in hidden tokens. `apart`: each document was
    measured by itself; else a window's tokens see the end of the document before theirs, too, which makes the figures
    others.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    n_tokens: int
    apart: bool = False

    @property
    def score(self) -> float:
        return self.loss

    def figures(self) -> dict[str, float]:
        figures = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return figures | ({"documents_apart": True} if self.apart else {})

    def __str__(self) -> str:
        bits = "" if math.isnan(self.bits_per_byte) else f", {self.bits_per_byte:.4f} bits per byte"
        how = "each document by itself" if self.apart else "documents one after another"
        return (
            f"loss {self.loss:.4f} nats/token, perplexity {self.perplexity:.2f}{bits} ({self.n_tokens:,} tokens, {how})"
        )


def evaluate(
    batch_loss: Callable[..., float],
    dataset: TokenDataset,
    *,
    batch_size: int,
    context: int,
    objective: Objective | None = None,
    max_tokens: int = 0,
) -> Evaluation:
    """The mean loss over `dataset`, each token predicted once, in windows of `context` tokens.

    `batch_loss(*batch)` gives the sum of a batch's token losses in nats (an engine has that method). `objective` says
    what to predict: the next token if None; what it chooses at random it chooses alike each time. With `max_tokens`
    > 0 it stops after the batch that reaches that many tokens of text; bits per byte then assumes that the part has as
    many bytes per token as the whole. The first tokens of each window see little text before them, so that the figures
    are a little worse than with a sliding window. Raises ValueError for a dataset of fewer than two tokens, or without
    a token to predict, and for max_tokens below 0.
    """
    if max_tokens < 0:
        raise ValueError(f"max_tokens = {max_tokens} must be 0 (all) or more.")
    objective = objective or NextToken(dataset.vocab_size)
    windows = until(iter_eval_batches(dataset, batch_size, context), max_tokens)
    total, n_tokens = 0.0, 0
    for batch in prepare(windows, objective):
        total += batch_loss(*batch)
        n_tokens += count_targets(batch[-1])
    if n_tokens == 0:
        raise ValueError(f"{dataset!r} holds nothing that {type(objective).__name__} predicts: give more text.")
    loss = total / n_tokens
    n_predictable = len(dataset) - (dataset.info.eos_id is not None)  # the separator that comes first is given
    bits_per_byte = loss / math.log(2) * n_predictable / dataset.n_bytes if objective.whole_text else math.nan
    apart = isinstance(objective, PackedNextToken)
    return Evaluation(loss, perplexity(loss), bits_per_byte, n_tokens, apart)


def until(batches: Iterable[Window], max_tokens: int) -> Iterator[Window]:
    """The batches up to the one with which they have `max_tokens` targets; all of them for 0."""
    n_tokens = 0
    for ids, targets in batches:
        yield ids, targets
        n_tokens += count_targets(targets)
        if 0 < max_tokens <= n_tokens:
            return
