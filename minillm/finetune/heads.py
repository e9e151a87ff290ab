"""A new head on a pretrained body: what a model knew stays, what it is asked changes.

    GPT, Llama                    → Classifier: the decoder, and a matrix on the features of the last token
    BERT, whatever its head       → BERT with a classifier on its pooled first position
    a classifier of other labels  → the same with a new last layer

The body's weights are the pretrained model's, the head's are drawn anew: they are what fine-tuning begins with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..models import DECODERS, BertConfig, ClassifierConfig, ModelConfig, model_from_config


def with_classifier(
    model: Any, problem_type: str, labels: tuple[str, ...], pad_id: int | None, rng: np.random.Generator
) -> Any:
    """A NumPy model for these labels (none for regression, one number) with the body of `model`, which is left alone;
    `model` itself where its head is for just that. `pad_id`: what stands behind shorter texts. `rng` draws the new
    head. Raises ValueError for a model that cannot be given such a head."""
    config = classifier_config(model.config, problem_type, labels, pad_id)
    if config == model.config:
        return model
    new = model_from_config(config, rng)
    rename = "decoder." if isinstance(config, ClassifierConfig) and not is_classifier(model.config) else ""
    old = {rename + name: p for name, p in model.named_parameters()}
    for name, p in new.named_parameters():
        if name in old and not name.startswith(("score.", "classifier.")):
            p.data = old[name].data.astype(p.data.dtype)
    return new


def classifier_config(
    config: Any, problem_type: str, labels: tuple[str, ...], pad_id: int | None
) -> BertConfig | ClassifierConfig:
    """The config of a model with a head for these labels on the body that `config` describes."""
    head: dict[str, Any] = {"n_labels": max(len(labels), 1), "labels": labels, "problem_type": problem_type}
    if isinstance(config, BertConfig):
        own_pad = config.pad_id if pad_id is None else pad_id
        return replace(config, **head, head="classification", next_sentence=False, pooler=True, pad_id=own_pad)
    if isinstance(config, ClassifierConfig):
        return replace(config, **head, pad_id=config.pad_id if pad_id is None else pad_id)
    if config.model_type not in DECODERS:
        able = ", ".join((*DECODERS, "bert"))
        raise ValueError(
            f"a model of type {config.model_type!r} has no head for classes: those of {able} can have one."
        )
    untied = {"tie_embeddings": True} if hasattr(config, "tie_embeddings") else {}
    return ClassifierConfig(replace(config, **untied), **head, pad_id=pad_id)


def with_dropout(model: Any, dropout: float) -> Any:
    """A NumPy model like `model`, with the same weights and another dropout."""
    config = model.config
    if isinstance(config, ClassifierConfig):
        config = replace(config, decoder=replace(config.decoder, dropout=dropout))
    else:
        config = replace(config, dropout=dropout)
    new = model_from_config(config, np.random.default_rng(0))
    new.rng.bit_generator.state = model.rng.bit_generator.state
    new.load_state_dict(model.state_dict())
    return new


def is_classifier(config: ModelConfig) -> bool:
    return isinstance(config, ClassifierConfig)
