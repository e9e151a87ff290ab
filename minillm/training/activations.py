"""Units of the feed-forward networks that are never active: the last checkpoint run on a piece of the validation text.

A unit of a ReLU network that is 0 for every token gets no gradient any more: it is dead, and stays so (Maas et al.
2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", section 2). GELU's and SwiGLU's are never
exactly 0: there a unit counts that stays as good as 0. What a unit gives is what goes into the network's output
matrix, so a `Watching` is put before each of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..costs.sizes import forward_flops, n_parameters
from ..data import TokenDataset, iter_eval_batches
from ..engines.numpy_engine import batch_loss
from ..models import ModelConfig, config_from_dict, model_from_config
from ..nn import Linear, Module
from ..tokenizers import load_tokenizer
from .config_file import build
from .objectives import loss_for, prepare
from .pretrain import DataConfig, model_objective, resumed_sections, token_file

Quiet = tuple[int, dict[str, tuple[int, int]]]
QUIET = 1e-3  # the largest activation, in size, of a unit that does nothing; 0 where ReLU makes it exactly that
TOKENS = 4096  # at most
OPERATIONS = 3e10  # at most: a few seconds of one slow core


class Watching(Module):
    """A linear layer that notes how large each of its inputs has been, (in_features,)."""

    def __init__(self, layer: Linear) -> None:
        self.layer = layer
        self.largest = np.zeros(layer.weight.shape[1], np.float32)

    def forward(self, x: Any) -> Any:
        np.maximum(self.largest, np.abs(x.data).reshape(-1, len(self.largest)).max(axis=0), out=self.largest)
        return self.layer(x)


def watch(model: Module) -> dict[str, Watching]:
    """Put a Watching before the output matrix of each feed-forward network of a model; they by the networks' names."""
    found = {}
    for name, module in list(model.named_modules()):
        parts = vars(module)
        for inner, output in (("fc", "proj"), ("gate", "down")):
            if isinstance(parts.get(inner), Linear) and isinstance(parts.get(output), Linear):
                found[f"{name}.{inner}"] = Watching(parts[output])
                setattr(module, output, found[f"{name}.{inner}"])
    return found


def tokens_to_run(config: ModelConfig) -> tuple[int, int]:
    """(texts, tokens of each) that the model can be run on in a few seconds. Raises ValueError where it can't."""
    fit = int(min(TOKENS, OPERATIONS / sum(forward_flops(config, config.context).values())))
    length = min(config.context, fit)
    if length < min(config.context, 64):
        raise ValueError("the model is too large to be run here in a few seconds.")
    return max(1, fit // length), length


def quiet_units(out_dir: Path, folder: Path, weights: Mapping[str, np.ndarray], values: dict[str, Any]) -> Quiet:
    """(the number of tokens looked at, the units that were never active: {"blocks.0.mlp.fc": (of these, of how many)});
    the second is empty for a model without such networks.

    `weights` and `values` (its config) are those of the checkpoint `folder` of the run in `out_dir`, whose config.toml
    says where the text is. Raises OSError or ValueError where the text is not there, or the model is too large.
    """
    config = config_from_dict(values)
    n, length = tokens_to_run(config)
    if n_parameters(config) != sum(array.size for array in weights.values()):  # before a model of any size is made
        raise ValueError(f"{folder}: its config.json is not that of its weights.")
    model = model_from_config(config)
    model.load_state_dict(weights)
    watched = watch(model)
    if not watched:
        return 0, {}
    tokenizer = load_tokenizer(folder)
    data = build(DataConfig, resumed_sections(out_dir).get("data", {}), "[data]")
    dataset = TokenDataset(token_file(data, "val", tokenizer), verify=False)
    dataset.check_tokenizer(tokenizer)
    n = max(1, min(n, (len(dataset) - 1) // length))
    objective = model_objective(config, tokenizer, data.pack_documents)
    batch = next(prepare(iter_eval_batches(dataset, n, length), objective))
    batch_loss(model, *batch, loss=loss_for(objective))
    quiet = 0.0 if config.model_type == "encoder-decoder" else QUIET
    counts = {name: (int((one.largest <= quiet).sum()), len(one.largest)) for name, one in watched.items()}
    return n * length, counts
