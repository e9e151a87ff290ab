"""What Llama and the LSTM do with their last layer's features, as GPT does in a file that shows the whole (gpt.py)."""

from __future__ import annotations

from typing import Any

from .. import nn, ops
from ..ops import AnyTensor


class CausalLM(nn.Module):
    """A model that predicts the next token. Its own `hidden(ids, cache, segments)` gives the features (B, T, D)."""

    config: Any
    token_embedding: nn.Embedding
    head: nn.Linear | None  # the output layer; None: it is the token table again ("tied")

    def forward(
        self,
        ids: Any,
        targets: Any = None,
        *,
        cache: Any = None,
        segments: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> AnyTensor:
        """ids (B, T) integers -> logits (B, T, V); with targets (B, T), −100 = ignored, the cross-entropy as a scalar.

        With a cache from `new_cache`, ids are the tokens after those that it has seen, and it is brought up to date.
        With `segments` (B, T), a row holds several texts (see segments.py), which an LSTM refuses.
        """
        h = self.hidden(ids, cache, segments)  # (B, T, D)
        if targets is None:
            return self.logits(h)
        return self.loss(h, targets, reduction=reduction, label_smoothing=label_smoothing)

    def hidden(self, ids: Any, cache: Any = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D): what the head turns into logits."""
        raise TypeError(f"{type(self).__name__} defines no hidden().")

    def logits(self, h: AnyTensor) -> AnyTensor:
        """Features (..., D) -> logits (..., V)."""
        return ops.linear(h, self.head_weight())

    def loss(self, h: AnyTensor, targets: Any, *, reduction: str = "mean", label_smoothing: float = 0.0) -> AnyTensor:
        """The cross-entropy as a scalar, from features (B, T, D) and targets (B, T), −100 = ignored."""
        weight = self.head_weight()
        return ops.linear_cross_entropy(h, weight, targets, reduction=reduction, label_smoothing=label_smoothing)

    def head_weight(self) -> AnyTensor:
        """The output layer's matrix (V, D): its own, or the token table's."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def new_cache(self, capacity: int | None = None) -> Any:
        """An empty cache for decoding up to `capacity` positions (the whole context by default)."""
        return nn.KVCache(self.config.n_layers, capacity or self.config.context)
