"""Models: one file each, a config dataclass and a Module. Read gpt.py first."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

import numpy as np

from .gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig", "config_from_dict", "model_from_config"]


def config_from_dict(values: dict[str, Any]) -> GPTConfig:
    """A config dataclass from a dictionary with a `model_type` ("gpt"), such as a checkpoint's config.json.

    An unknown model type or key raises ValueError that names the nearest known one.
    """
    kind = values.get("model_type")
    if kind != "gpt":
        raise ValueError(f"model_type = {kind!r} is not a model of this library. Known: 'gpt'.")
    known = [field.name for field in fields(GPTConfig)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ValueError(f"GPTConfig has no setting {key!r}. {hint}")
    return GPTConfig(**values)


def model_from_config(config: GPTConfig, rng: np.random.Generator | None = None) -> GPT:
    """A new model of the kind that `config` describes; `rng` draws its initial weights."""
    if isinstance(config, GPTConfig):
        return GPT(config, rng)
    raise TypeError(f"model_from_config: {type(config).__name__} is not a config of this library. Known: GPTConfig.")
