"""Whether a config can be that of the weights beside it, by the headers alone: before anything is made of a size that
a stranger's config.json gives.

make_plan (loading.py) compares every shape exactly. For that it builds the model without its weights, whose norms and
biases alone, at 10⁹ layers or features, would fill any memory.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models import ModelConfig, MoeConfig
from ..models.encoder_decoder import EncoderDecoderConfig
from .configs import MAX_LABELS
from .weights import Stored, WeightsError

MAX_WAVES = 1 << 28  # numbers in the encoder-decoder's table of positions, which no file holds
NO_SIZES = ("context", "n_labels", "pad_id", "n_layers")  # fields with limits of their own, or that allocate nothing


def check_sizes(config: ModelConfig, stored: Mapping[str, Stored], folder: Path) -> None:
    """Raise WeightsError for a config with layers or sizes far beyond what the stored tensors have."""
    refused = f"{folder}: the weights do not fit config.json"
    if config.n_layers > len(stored):
        raise WeightsError(
            f"{refused}: it has {config.n_layers:,} layers, the weights hold {layers_in(stored)}, and "
            f"{len(stored):,} tensors in all."
        )
    largest = max((n for tensor in stored.values() if tensor.size for n in tensor.shape), default=0)
    sizes = sizes_of(config)
    for name, size in sizes.items():
        if size > 4 * largest + 4096:  # a difference smaller than this is shown tensor by tensor
            raise WeightsError(f"{refused}: it has {name} = {size:,}, and no tensor is larger than {largest:,}.")
    body: Any = getattr(config, "decoder", config)
    n_experts = (body.n_layers - len(body.dense_layers)) * body.n_experts if isinstance(body, MoeConfig) else 0
    if n_experts > len(stored):
        raise WeightsError(
            f"{refused}: its layers have {n_experts:,} experts, and the weights {len(stored):,} tensors."
        )
    n_labels = getattr(config, "n_labels", 0)
    if n_labels > max(MAX_LABELS, largest):
        raise WeightsError(f"{refused}: {n_labels:,} labels are more than a new head may have, {MAX_LABELS:,}.")
    if isinstance(config, EncoderDecoderConfig) and config.context * config.d_model > MAX_WAVES:
        raise WeightsError(
            f"{refused}: a context of {config.context:,} takes a table of more than {MAX_WAVES:,} numbers."
        )


def sizes_of(config: ModelConfig) -> dict[str, int]:
    """The settings that are numbers of rows or columns, and those of a classifier's decoder."""
    sizes: dict[str, int] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            sizes |= sizes_of(value)  # type: ignore[arg-type]
        elif type(value) is int and field.name not in NO_SIZES:
            sizes[field.name] = value
    if "n_heads" in sizes:
        sizes["n_heads · head_dim"] = sizes["n_heads"] * getattr(config, "head_dim", 1)
    if config.model_type in ("gpt", "bert") or getattr(config, "positions", "") == "learned":
        sizes["context"] = config.context  # a row for each position
    return sizes


def layers_in(stored: Mapping[str, Stored]) -> int:
    """How many layers the tensors' names count: 3 with "h.0.ln_1.weight", "h.1.ln_1.weight" and "h.2.ln_1.weight"."""
    numbers = [re.search(r"(?<=[._])\d{1,9}(?=[._])", name) for name in stored]
    return 1 + max((int(number.group()) for number in numbers if number), default=-1)
