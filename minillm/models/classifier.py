"""A label for a whole text: the losses that classifiers are trained with, and a decoder turned into a classifier.

A decoder's last position is the only one that has seen the whole text, so its features are what is classified
(Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.2). BERT, whose every
position sees everything, takes its first: see bert.py.

    ids (B, T) → decoder (B, T, D) → features of the last token (B, D) → logits (B, n_labels)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..tensor import Tensor
from .checks import check_choice, check_labels, check_whole
from .decoders import DECODERS

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
CONFIGS = tuple(config_class for config_class, _ in DECODERS.values())


def classification_loss(
    logits: AnyTensor, targets: Any, problem_type: str, reduction: str = "mean", label_smoothing: float = 0.0
) -> AnyTensor:
    """The loss of logits (B, n_labels) that the problem type asks for: cross-entropy with labels (B,), binary
    cross-entropy with (B, n_labels) of 0 and 1, or mean squared error with (B, n_labels), (B,) if n_labels is 1."""
    if problem_type == "single_label_classification":
        return ops.cross_entropy(logits, targets, reduction=reduction, label_smoothing=label_smoothing)
    if isinstance(targets, np.ndarray):  # numbers, in the precision of the logits
        targets = targets.astype(logits.dtype)
    elif not isinstance(targets, Tensor):
        targets = targets.to(logits.dtype)
    if problem_type == "multi_label_classification":
        return ops.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)
    return ops.mse_loss(logits, targets.reshape(logits.shape), reduction=reduction)


@dataclass(frozen=True)
class ClassifierConfig:
    """A decoder and the labels that it chooses from."""

    model_type: ClassVar[str] = "classifier"
    task: ClassVar[str] = "classification"

    decoder: Any  # the config of one of DECODERS
    n_labels: int = 2
    labels: tuple[str, ...] | list[str] = ()  # the classes' names; (): they have none
    problem_type: str = "single_label_classification"  # or "multi_label_classification", "regression": chooses the loss
    pad_id: int | None = None  # what stands behind shorter texts; None: a mask says it, or all are equally long

    def __post_init__(self) -> None:
        if not isinstance(self.decoder, CONFIGS):
            names = " or a ".join(cls.__name__ for cls in CONFIGS)
            raise ValueError(f"ClassifierConfig: decoder = {self.decoder!r} must be a {names}.")
        if not getattr(self.decoder, "tie_embeddings", True):
            raise ValueError("ClassifierConfig: decoder.tie_embeddings must be True: no tokens are predicted.")
        check_whole(self, "n_labels")
        check_labels(self)
        check_choice(self, "problem_type", PROBLEM_TYPES)
        if self.pad_id is not None and (not isinstance(self.pad_id, int) or isinstance(self.pad_id, bool)):
            raise ValueError(f"ClassifierConfig: pad_id = {self.pad_id!r} must be a whole number or None.")

    @property
    def vocab_size(self) -> int:
        return self.decoder.vocab_size

    @property
    def context(self) -> int:
        return self.decoder.context

    @property
    def n_layers(self) -> int:
        return self.decoder.n_layers


class Classifier(nn.Module):
    """A GPT or a Llama with a matrix that scores the labels, without a bias, as in transformers. `rng` as in GPT."""

    def __init__(self, config: ClassifierConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        _, decoder_class = DECODERS[config.decoder.model_type]
        self.decoder = decoder_class(config.decoder, rng)
        self.score = nn.Linear(config.decoder.d_model, config.n_labels, bias=False, rng=rng)

    def forward(
        self, ids: Any, targets: Any = None, *, mask: Any = None, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> AnyTensor:
        """ids (B, T) integers -> logits (B, n_labels); with targets, the loss as a scalar (see classification_loss).

        Texts shorter than T are padded on the right, where causal attention never looks: with `config.pad_id`, or
        else with anything, under a `mask` (B, T), 1 or True = a token, 0 = padding.
        """
        h = self.hidden(ids, mask=mask)  # (B, D)
        if targets is None:
            return self.logits(h)
        return self.loss(h, targets, reduction=reduction, label_smoothing=label_smoothing)

    def hidden(self, ids: Any, *, mask: Any = None) -> AnyTensor:
        """The features (B, D) of each text's last token: what the head turns into logits."""
        return self.pool(self.decoder.hidden(ids), ids, mask)

    def pool(self, h: AnyTensor, ids: Any, mask: Any = None) -> AnyTensor:
        """The features (B, D) of each text's last token, from those of all positions (B, T, D)."""
        B, T = ids.shape
        if self.config.pad_id is not None:
            kept = ids != self.config.pad_id  # (B, T)
        elif mask is not None:
            kept = mask != 0
        elif B == 1:
            return h[:, T - 1]
        else:
            raise ValueError(f"Classifier: which tokens of {B} texts are padding? Give a mask, or set pad_id.")
        seen = kept.cumsum(1)  # (B, T): how many tokens up to here
        last = kept & (seen == seen[:, -1:])  # (B, T): one True in each row; none, and features of 0, for no token
        return (h * last.reshape(B, T, 1)).sum(1)

    def logits(self, h: AnyTensor) -> AnyTensor:
        """Pooled features (B, D) -> logits (B, n_labels)."""
        return self.score(h)

    def loss(self, h: AnyTensor, targets: Any, *, reduction: str = "mean", label_smoothing: float = 0.0) -> AnyTensor:
        """The loss as a scalar, from pooled features (B, D)."""
        return classification_loss(self.logits(h), targets, self.config.problem_type, reduction, label_smoothing)
