"""Models: one file each, a config dataclass and a Module; `MODELS` lists them.

Read gpt.py first, then llama.py (with rope.py), gemma.py, moe.py (a mixture of experts), bert.py, encoder_decoder.py,
lstm.py and classifier.py: each says what differs from GPT. causal.py is what Llama, Gemma and the LSTM share,
attention.py what all but GPT and the LSTM compute attention with, checks.py what configs ask of their settings,
segments.py how several texts share a row, sketch.py a large model before it has weights. decoding_plan.py says how a
batch of texts is written: decoding.py (with decoding_ops.py and int8.py) does it for GPT and Llama on NumPy,
decoding_torch.py (with static_cache.py) for decoders on PyTorch, compiled if wanted. A new decoder has its row in
decoders.py, from where it comes into `MODELS`.

Every config says its `model_type` and its `task`, what its model is for: "causal" (the next token), "mlm" (hidden
tokens), "seq2seq" (a text for a text), "classification" (a label for a text) or "base" (features). Every model has
`hidden(ids, ...)`, which gives features, and, unless it is for "base", `logits(h)` and `loss(h, targets)`, both from
these features; `model(ids)` and `model(ids, targets)` are one after the other. `model.rng` draws dropout, and its
state is kept in checkpoints. A decoder also has `new_cache(capacity)`.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from ..disk import check_values
from .bert import Bert, BertConfig
from .classifier import Classifier, ClassifierConfig
from .decoders import DECODERS
from .encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from .gemma import Gemma, GemmaConfig
from .gpt import GPT, GPTConfig
from .llama import Llama, LlamaConfig
from .lstm import LSTM, LSTMConfig
from .moe import Moe, MoeConfig

__all__ = [
    "DECODERS", "GPT", "LSTM", "MODELS", "Bert", "BertConfig", "Classifier", "ClassifierConfig", "EncoderDecoder",
    "EncoderDecoderConfig", "GPTConfig", "Gemma", "GemmaConfig", "LSTMConfig", "Llama", "LlamaConfig", "Model",
    "ModelConfig", "Moe", "MoeConfig", "config_class", "config_from_dict", "config_to_dict", "model_from_config",
    "with_attention",
]  # fmt: skip


class ModelConfig(Protocol):
    """What every config has, besides the settings of its own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    model_type: ClassVar[str]

    @property
    def task(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def n_layers(self) -> int: ...


Model = Any  # a Module with `config` and what the top of this file says
AnyConfig = TypeVar("AnyConfig", bound=ModelConfig)

# model_type -> (config class, model class). A model called with its config, and a generator for its weights, is new.
MODELS: dict[str, tuple[Any, Any]] = {
    **DECODERS,
    "bert": (BertConfig, Bert),
    "encoder-decoder": (EncoderDecoderConfig, EncoderDecoder),
    "lstm": (LSTMConfig, LSTM),
    "classifier": (ClassifierConfig, Classifier),
}


def config_class(model_type: Any) -> Any:
    """The config class for a `model_type`."""
    if model_type not in list(MODELS):  # a list, since what a file says may be anything
        raise ValueError(
            f"model_type = {model_type!r} is not a model of this library. Known: {', '.join(map(repr, MODELS))}."
        )
    return MODELS[model_type][0]


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """A config from a dictionary with its `model_type` ("gpt"), such as a checkpoint's config.json.

    An unknown model type or key raises ValueError that names the nearest known one.
    """
    cls = config_class(values.get("model_type"))
    known = [field.name for field in fields(cls)]
    settings = {}
    for key, value in values.items():
        if key == "model_type":
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ValueError(f"{cls.__name__} has no setting {key!r}. {hint}")
        is_config = isinstance(value, dict) and "model_type" in value  # a classifier's decoder
        settings[key] = config_from_dict(value) if is_config else value
    check_values(cls, settings)
    return cls(**settings)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The dictionary that `config_from_dict` makes the config of again: its `model_type` and its settings."""
    values = {"model_type": config.model_type, **asdict(config)}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}  # as in JSON
    for name, inner in inner_configs(config).items():
        values[name] = config_to_dict(inner)
    return values


def with_attention(config: AnyConfig, attention: str) -> AnyConfig:
    """The config with another way to compute attention (see `ops.attention`); one without attention stays as it is."""
    changes: dict[str, Any] = {name: with_attention(inner, attention) for name, inner in inner_configs(config).items()}
    if "attention" in [field.name for field in fields(config)]:
        changes["attention"] = attention
    return replace(config, **changes)


def inner_configs(config: ModelConfig) -> dict[str, ModelConfig]:
    """The settings that are configs themselves: a classifier's decoder."""
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: value for name, value in settings.items() if hasattr(value, "model_type")}


def model_from_config(config: ModelConfig, rng: np.random.Generator | None = None) -> Model:
    """A new model of the kind that `config` describes; `rng` draws its initial weights."""
    if not isinstance(config, tuple(cls for cls, _ in MODELS.values())):
        raise TypeError(f"model_from_config: {type(config).__name__} is not a config of this library.")
    _, cls = MODELS[config.model_type]
    return cls(config, rng)
