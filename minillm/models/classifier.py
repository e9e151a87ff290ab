"""A label for a whole text: the losses that classifiers are trained with, and a decoder turned into a classifier.

A decoder's last position is the only one that has seen the whole text, so its features are what is classified
(Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.2). BERT, whose every
position sees everything, takes its first: see bert.py. The losses are derived, from what each takes to be likely, in
chapters/11_fine_tuning_a_classifier.ipynb.

    ids (B, T) → decoder (B, T, D) → features of the last token (B, D) → logits (B, n_labels)

An encoder–decoder (BART: Lewis et al. 2019, arXiv 1910.13461, section 3.1) reads the text twice: as its source, and
again as the target, whose end-of-text token has seen both; behind it stands one more layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..tensor import Tensor
from .checks import check_choice, check_dropout, check_labels, check_whole
from .decoders import DECODERS
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
BODIES = {**DECODERS, "encoder-decoder": (EncoderDecoderConfig, EncoderDecoder)}
CONFIGS = tuple(config_class for config_class, _ in BODIES.values())


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
    """A decoder, or an encoder–decoder, and the labels that it chooses from."""

    model_type: ClassVar[str] = "classifier"
    task: ClassVar[str] = "classification"

    decoder: Any  # the config of one of BODIES
    n_labels: int = 2
    labels: tuple[str, ...] | list[str] = ()  # the classes' names; (): they have none
    problem_type: str = "single_label_classification"  # or "multi_label_classification", "regression": chooses the loss
    pad_id: int | None = None  # what stands behind shorter texts; None: a mask says it, or all are equally long
    end_id: int | None = None  # of an encoder–decoder: what ends each text, whose features are classified
    dropout: float = 0.0  # of an encoder–decoder: before each of its head's two layers

    def __post_init__(self) -> None:
        if not isinstance(self.decoder, CONFIGS):
            names = " or a ".join(cls.__name__ for cls in CONFIGS)
            raise ValueError(f"ClassifierConfig: decoder = {self.decoder!r} must be a {names}.")
        if not getattr(self.decoder, "tie_embeddings", True):
            raise ValueError("ClassifierConfig: decoder.tie_embeddings must be True: no tokens are predicted.")
        check_whole(self, "n_labels")
        check_labels(self)
        check_choice(self, "problem_type", PROBLEM_TYPES)
        if isinstance(self.decoder, EncoderDecoderConfig):
            if type(self.end_id) is not int or self.decoder.start_id is None:
                raise ValueError(
                    f"ClassifierConfig: end_id = {self.end_id!r} and decoder.start_id = {self.decoder.start_id!r} must "
                    "be ids: an encoder-decoder is given a text behind its start, and classified where it ends."
                )
            check_dropout(self)
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
    """A GPT or a Llama with a matrix that scores the labels, without a bias, as in transformers; or a BART with two
    layers, both with. `rng` as in GPT."""

    def __init__(self, config: ClassifierConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        _, decoder_class = BODIES[config.decoder.model_type]
        self.decoder: Any = decoder_class(config.decoder, rng)
        D, twice = config.decoder.d_model, config.end_id is not None
        self.dense = nn.Linear(D, D, rng=rng) if twice else None
        self.dropout = nn.Dropout(config.dropout, rng) if twice else None
        self.score = nn.Linear(D, config.n_labels, bias=twice, rng=rng)

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
        if self.dense is None or self.dropout is None:
            return self.pool(self.decoder.hidden(ids), ids, mask)
        again = ids * 1  # (B, T): the text behind its start, as it is learned to be written
        again[:, 1:] = ids[:, :-1]
        again[:, 0] = self.config.decoder.start_id
        h = last_of(self.decoder.hidden(ids, again, mask), ids == self.config.end_id)  # (B, D)
        return self.dropout(self.dense(self.dropout(h)).tanh())

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
        return last_of(h, kept)

    def logits(self, h: AnyTensor) -> AnyTensor:
        """Pooled features (B, D) -> logits (B, n_labels)."""
        return self.score(h)

    def loss(self, h: AnyTensor, targets: Any, *, reduction: str = "mean", label_smoothing: float = 0.0) -> AnyTensor:
        """The loss as a scalar, from pooled features (B, D)."""
        return classification_loss(self.logits(h), targets, self.config.problem_type, reduction, label_smoothing)


def last_of(h: AnyTensor, kept: Any) -> AnyTensor:
    """The features (B, D) of the last position that is kept (B, T) in each row, from those of all, (B, T, D)."""
    seen = kept.cumsum(1)  # (B, T): how many up to here
    last = kept & (seen == seen[:, -1:])  # (B, T): one True in each row; none, and features of 0, where none is kept
    return (h * last.reshape(*last.shape, 1)).sum(1)
