"""The logit lens: what a model would say if it ended after each of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tensor import Array
from .activations import as_array, like, only_asking
from .looking import look_inside


@dataclass(frozen=True)
class Lens:
    """What the model would say if it ended after each block: `log_probs` (layers + 1, B, T, V), the first before any
    block, the last the model's own answer."""

    log_probs: Array

    def kl(self) -> Array:
        """KL(own answer ‖ each layer's) (layers + 1, B, T) in nats: how much the layer's reader is surprised by it."""
        last = self.log_probs[-1]
        return (np.exp(last) * (last - self.log_probs)).sum(-1)

    def top(self, k: int = 1) -> Array:
        """The k likeliest ids after each layer, the likeliest first (layers + 1, B, T, k)."""
        return np.argsort(-self.log_probs, axis=-1, kind="stable")[..., :k]


def logit_lens(model: Any, ids: Array, **options: Any) -> Lens:
    """The stream after each block, read by the model's last norm and head (nostalgebraist 2020, "interpreting GPT: the
    logit lens"). It can be read so because every block adds to one stream; nobody trained the early layers for it, and
    where they use another basis the lens shows nothing (the tuned lens, arXiv 2303.08112, learns one for each layer).

    BERT's blocks end with a norm of their own, its head follows at once. Raises ValueError for a model that does not
    give logits over the vocabulary at each position.
    """
    if model.config.task not in ("causal", "mlm"):
        raise ValueError(f"logit_lens: a {type(model).__name__} for {model.config.task!r} predicts no tokens in place.")
    streams = look_inside(model, ids, **options).residual  # (layers + 1, B, T, D)
    post_norm = model.config.task == "mlm"
    parameter = next(iter(model.parameters()))
    found = []
    with only_asking(model):
        for stream in streams:
            h = like(stream, parameter)
            logits = as_array(model.logits(h if post_norm else model.norm(h)))  # (B, T, V)
            shifted = logits - logits.max(-1, keepdims=True)
            found.append(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
    return Lens(np.stack(found))
