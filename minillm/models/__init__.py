"""Models: one file each, a config dataclass and a Module. Read gpt.py first, then llama.py (with rope.py), bert.py,
encoder_decoder.py, lstm.py and classifier.py: each says what differs from GPT."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from .bert import Bert, BertConfig
from .classifier import Classifier, ClassifierConfig
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from .gpt import GPT, GPTConfig
from .llama import Llama, LlamaConfig
from .lstm import LSTM, LSTMConfig

__all__ = [
    "GPT", "LSTM", "Bert", "BertConfig", "Classifier", "ClassifierConfig", "EncoderDecoder", "EncoderDecoderConfig",
    "GPTConfig", "LSTMConfig", "Llama", "LlamaConfig", "Model", "ModelConfig", "config_from_dict", "config_to_dict",
    "model_from_config", "with_attention",
]  # fmt: skip

Model = GPT | Llama | Bert | EncoderDecoder | LSTM | Classifier
ModelConfig = GPTConfig | LlamaConfig | BertConfig | EncoderDecoderConfig | LSTMConfig | ClassifierConfig


def config_class(model_type: Any) -> type[ModelConfig]:
    """The config class for a `model_type`."""
    if model_type == "gpt":
        return GPTConfig
    if model_type == "llama":
        return LlamaConfig
    if model_type == "bert":
        return BertConfig
    if model_type == "encoder-decoder":
        return EncoderDecoderConfig
    if model_type == "lstm":
        return LSTMConfig
    if model_type == "classifier":
        return ClassifierConfig
    raise ValueError(
        f"model_type = {model_type!r} is not a model of this library. Known: 'gpt', 'llama', 'bert', "
        "'encoder-decoder', 'lstm', 'classifier'."
    )


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """A config dataclass from a dictionary with a `model_type` ("gpt"), such as a checkpoint's config.json.

    An unknown model type or key raises ValueError that names the nearest known one.
    """
    cls = config_class(values.get("model_type"))
    known = [field.name for field in fields(cls)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ValueError(f"{cls.__name__} has no setting {key!r}. {hint}")
    if cls is ClassifierConfig and isinstance(values.get("decoder"), dict):
        values = {**values, "decoder": config_from_dict(values["decoder"])}
    return cls(**values)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """A config as what JSON can hold, with its `model_type`: what `config_from_dict` reads."""
    return asdict(config)


def with_attention(config: ModelConfig, attention: str) -> ModelConfig:
    """The config with another way to compute attention (see `ops.attention`); an LSTM has none and stays as it is."""
    if isinstance(config, LSTMConfig):
        return config
    if isinstance(config, ClassifierConfig):
        return replace(config, decoder=replace(config.decoder, attention=attention))
    return replace(config, attention=attention)


def model_from_config(config: ModelConfig, rng: np.random.Generator | None = None) -> Model:
    """A new model of the kind that `config` describes; `rng` draws its initial weights."""
    if isinstance(config, GPTConfig):
        return GPT(config, rng)
    if isinstance(config, LlamaConfig):
        return Llama(config, rng)
    if isinstance(config, BertConfig):
        return Bert(config, rng)
    if isinstance(config, EncoderDecoderConfig):
        return EncoderDecoder(config, rng)
    if isinstance(config, LSTMConfig):
        return LSTM(config, rng)
    if isinstance(config, ClassifierConfig):
        return Classifier(config, rng)
    raise TypeError(f"model_from_config: {type(config).__name__} is not a config of this library.")
