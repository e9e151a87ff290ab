"""A new head on a pretrained body: what a model knew stays, what it is asked changes.

    GPT, Llama                    → Classifier: the decoder, and a matrix on the features of the last token
    BERT, whatever its head       → BERT with a classifier on its pooled first position
    a classifier of other labels  → the same with a new last layer

The body's weights are the pretrained model's, the head's are drawn anew: they are what fine-tuning begins with. Whole
layers may be drawn anew, too, or added on top: `with_layers`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..models import DECODERS, BertConfig, ClassifierConfig, ModelConfig, model_from_config
from ..models.checks import DROPOUTS


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
        own_pad = config.pad_id if pad_id is None or config.family == "roberta" else pad_id
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


def with_layers(model: Any, added: int, renewed: int, rng: np.random.Generator) -> Any:
    """A NumPy model like `model` with `added` layers on top, and its own `renewed` top layers drawn anew by `rng`.

    An added layer begins by changing nothing: what it would add to the stream is 0, since the matrices that write into
    it are. That asks for norms before the sums (GPT, Llama). The top layers of a pretrained model are the most bent on
    what it was pretrained for, so that small tasks may do better without them (Zhang et al. 2021, "Revisiting
    few-sample BERT fine-tuning", arXiv 2006.05987, section 5). Raises ValueError for more layers than there are.
    """
    config, n = model.config, model.config.n_layers
    if config.model_type not in (*DECODERS, "bert") or (added and config.model_type == "bert"):
        able = ", ".join(DECODERS)
        raise ValueError(f"a {config.model_type} gets no new layers: {able} can (bert can have layers renewed).")
    if not 0 <= renewed <= n or added < 0:
        raise ValueError(
            f"new_layers = {added} and renew_layers = {renewed} must be 0 or more, the latter at most {n}."
        )
    new, old = model_from_config(replace(config, n_layers=n + added), rng), dict(model.named_parameters())
    for name, p in new.named_parameters():
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else -1
        if layer < n - renewed:
            p.data = old[name].data.copy()
        elif layer >= n and name.endswith(".weight") and name.split(".")[-2] in WRITES:
            p.data[...] = 0
    return new


WRITES = ("proj", "o_proj", "down")  # what a block's two halves add to the stream


def with_dropout(model: Any, dropout: float) -> Any:
    """A NumPy model like `model`, with the same weights and another dropout, in all its parts."""
    config = model.config
    if isinstance(config, ClassifierConfig):
        config = replace(config, decoder=replace(config.decoder, **shared_dropout(config.decoder, dropout)))
    else:
        config = replace(config, **shared_dropout(config, dropout))
    new = model_from_config(config, np.random.default_rng(0))
    new.rng.bit_generator.state = model.rng.bit_generator.state
    new.load_state_dict(model.state_dict())
    return new


def shared_dropout(config: Any, dropout: float) -> dict[str, Any]:
    """The settings for one dropout in all parts of a model."""
    return {name: dropout if name == "dropout" else None for name in DROPOUTS if hasattr(config, name)}


def is_classifier(config: ModelConfig) -> bool:
    return isinstance(config, ClassifierConfig)
