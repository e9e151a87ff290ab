"""LoRA (Hu et al. 2021, arXiv 2106.09685): leave a pretrained matrix alone, and learn a change of low rank beside it.

    y = x Wᵀ + b + s · (dropout(x) Aᵀ) Bᵀ      W (out, in) frozen, A (r, in) and B (out, r) learn

With r of 8 that is 8·(in + out) numbers in place of in·out. B begins as 0, so that a new adapter changes nothing. s is
α/r, or α/√r ("rank-stabilized", Kalajdzievski 2023, arXiv 2312.03732), which keeps the change as large at high ranks.
After training, W + s·BA may take W's place: `merge`. Compared with the other ways to fine-tune, at 16 to 256 examples,
in chapters/11_fine_tuning_a_classifier.ipynb.

Both engines: `add_lora` takes a NumPy model, which `to_torch` and the engines then port, or one that is ported already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from .. import ops
from ..nn import Linear
from ..ops import AnyTensor
from ..tensor import Parameter, Tensor
from .freeze import freeze, matching, unfreeze

ALL_LINEAR = "all-linear"
# model_type -> what is adapted by default, which are PEFT's choices too: in GPT-2 query, key and value are one matrix.
TARGETS = {"gpt": ("qkv",), **dict.fromkeys(("llama", "gemma", "moe", "bert", "encoder-decoder"), ("q_proj", "v_proj"))}
HEADS = ("score", "classifier", "classifier_dense")  # new at fine-tuning, so that they learn whole
BARE = ("head",)  # output layers of which the models take the weight alone, past whatever stands beside it


@dataclass(frozen=True)
class LoraConfig:
    """`targets` are names of Linears or their endings ("q_proj", "attn.proj"), patterns of whole names (`fnmatch`,
    "blocks.[0-3].*"), or "all-linear", which is every Linear but the heads and, as in PEFT, routers and experts; ():
    those of the architecture. `train_also` names modules that learn whole; None: the classifier's head."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0  # of the adapter's input
    targets: tuple[str, ...] | str = ()
    rslora: bool = False
    train_also: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"LoraConfig: rank = {self.rank!r} must be a whole number of at least 1.")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"LoraConfig: alpha = {self.alpha} must be above 0: it is how much the adapter counts.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoraConfig: dropout = {self.dropout} must be at least 0 and below 1.")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoRALinear(Linear):
    """A Linear with an adapter: (..., in_features) -> (..., out_features). `adapt` makes it of one that is there."""

    lora_A: Parameter  # (r, in)
    lora_B: Parameter  # (out, r)
    lora: LoraConfig
    original: Any  # the weight before it was merged; None: the adapter stands beside it
    bypassed: bool  # inside of `without_adapters`
    rng: np.random.Generator | None  # the model's, which draws dropout on NumPy

    def forward(self, x: AnyTensor) -> AnyTensor:
        y = self.base(x)  # (..., out)
        if self.original is not None or self.bypassed:
            return y
        x = ops.dropout(x, self.lora.dropout, training=self.training, rng=self.rng)
        h = ops.linear(x, self.lora_A)  # (..., r)
        return y + ops.linear(h, self.lora_B) * self.lora.scale

    def base(self, x: AnyTensor) -> AnyTensor:
        """The layer without its adapter."""
        return ops.linear(x, self.weight, self.bias)


def add_lora(model: Any, config: LoraConfig, rng: np.random.Generator) -> list[str]:
    """Give an adapter to every Linear that `config.targets` names; everything else is frozen but what
    `config.train_also` names. Returns the names of the adapted layers. `rng` draws each A, uniform between ±1/√in (He
    et al. 2015 with a = √5, as PEFT does); on NumPy dropout is drawn from `model.rng`.

    Raises ValueError, with nothing changed, for a target that names no Linear or an output layer, and for a model that
    has adapters already.
    """
    if adapters(model):
        raise ValueError("add_lora: this model has adapters already: merge(model), or remove_lora(model), comes first.")
    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    also = config.train_also
    if also is None:
        also = tuple(name for name in HEADS if name in linears)
    learns_whole = matching(model, *also) if also else []
    names = [name for name in targeted(model, config.targets, list(linears)) if f"{name}.weight" not in learns_whole]
    freeze(model)
    for name in names:
        adapt(linears[name], config, getattr(model, "rng", None), rng)
    if learns_whole:
        unfreeze(model, *learns_whole)
    return names


def targeted(model: Any, targets: tuple[str, ...] | str, linears: list[str]) -> list[str]:
    """The names among `linears` that the targets of a LoraConfig mean."""
    kind = getattr(model.config, "decoder", model.config).model_type
    targets = (targets,) if isinstance(targets, str) else tuple(targets) or TARGETS.get(kind, ())
    if not targets:
        raise ValueError(f"add_lora: a model of type {kind!r} has no attention to adapt: give targets, or freeze().")
    free = [name for name in linears if name not in (*BARE, *HEADS) and not re.search(r"\.router$|\.experts\.", name)]
    found: set[str] = set()
    for target in targets:
        hits = [name for name in linears if means(target, name)] if target != ALL_LINEAR else free
        if not hits:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in free}))
            raise ValueError(f"add_lora: the target {target!r} names no Linear. There are: {known or 'none'}.")
        if bare := [name for name in hits if name in BARE]:
            raise ValueError(f"add_lora: {bare[0]!r} cannot have an adapter: of an output layer only W is used.")
        found.update(hits)
    return [name for name in linears if name in found]


def means(target: str, name: str) -> bool:
    """Whether a target means the layer of this name.

    >>> means("attn.proj", "blocks.0.attn.proj"), means("proj", "blocks.0.attn.q_proj"), means("*.q_proj", "a.q_proj")
    (True, False, True)
    """
    return f".{name}".endswith(f".{target}") or fnmatchcase(name, target)


def adapt(linear: Any, config: LoraConfig, dropout_rng: Any, rng: np.random.Generator) -> None:
    """Make a Linear of either engine a LoRALinear: the same object, its weight untouched, with A and B beside it."""
    n_out, n_in = linear.weight.shape
    bound = 1 / math.sqrt(n_in)
    a, b = rng.uniform(-bound, bound, (config.rank, n_in)), np.zeros((n_out, config.rank))
    linear.lora_A, linear.lora_B = parameter_like(linear.weight, a), parameter_like(linear.weight, b)
    linear.lora, linear.original, linear.bypassed, linear.rng = config, None, False, dropout_rng
    change_class(linear, LoRALinear)


def change_class(module: Any, cls: Any) -> None:
    """Let a module compute what `cls`, of ours, computes, on the engine that it is on."""
    if hasattr(module, "numpy_class"):
        from ..port import torch_class

        cls = torch_class(cls)
    module.__class__ = cls


def parameter_like(weight: Any, array: np.ndarray) -> Any:
    """A new Parameter of the engine, dtype and device of `weight`."""
    if isinstance(weight, Tensor):
        return Parameter(array.astype(weight.dtype))
    return type(weight)(weight.data.new_tensor(array))


def adapters(model: Any) -> dict[str, Any]:
    """Name -> layer, of those that have an adapter."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapters_in(model: Any, what: str) -> dict[str, Any]:
    """The same. Raises ValueError if there is none."""
    if not (found := adapters(model)):
        raise ValueError(f"{what}: this {type(model).__name__} has no LoRA adapters: add_lora gives it some.")
    return found


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Inside, the model computes what it did before it had adapters; one that has none is left as it is. Copies of it,
    such as the replicas that threads have, must be made inside. Raises ValueError if they are merged into its weights.
    """
    layers = adapters(model)
    if merged := [name for name, layer in layers.items() if layer.original is not None]:
        raise ValueError(f"without_adapters: that of {merged[0]} is merged into its weight: unmerge(model) first.")
    for layer in layers.values():
        layer.bypassed = True
    try:
        yield
    finally:
        for layer in layers.values():
            layer.bypassed = False


# --- merging ----------------------------------------------------------------------------------------------------------


def merge(model: Any) -> list[str]:
    """Put W + s·BA in the place of every adapted W: the model computes the same as fast as without adapters. The sum is
    taken in float32 (or the weights' own float64) and rounded once; the old weights are kept for `unmerge`. Layers that
    are merged already stay so. Returns the names of those that were not."""
    merged = []
    for name, layer in adapters_in(model, "merge").items():
        if not hasattr(layer, "weight"):
            raise ValueError(f"merge: {name} is quantized, its weights known roughly only: merge into the float model.")
        if layer.original is None:
            # A new array, and the old one kept as it is: a thread's replica of the model has that, and is not merged.
            layer.original, layer.weight.data = layer.weight.data, merged_weight(layer)
            merged.append(name)
    return merged


def merged_weight(layer: Any) -> Any:
    """W + s·BA as an array, or a tensor, of W's dtype."""
    w, a, b = layer.weight.data, layer.lora_A.data, layer.lora_B.data
    if isinstance(w, np.ndarray) or w.element_size() >= 4:
        return w + (b @ a) * layer.lora.scale
    return (w.float() + (b.float() @ a.float()) * layer.lora.scale).to(w.dtype)


def unmerge(model: Any) -> list[str]:
    """Give merged layers their old weights back, to the last bit, with the adapters beside them. Returns their names;
    raises ValueError if none is merged."""
    merged = {name: layer for name, layer in adapters_in(model, "unmerge").items() if layer.original is not None}
    if not merged:
        raise ValueError("unmerge: no layer of this model is merged.")
    for layer in merged.values():
        layer.weight.data, layer.original = layer.original, None
    return list(merged)


def remove_lora(model: Any) -> list[str]:
    """Make every adapted layer a plain Linear again, with the weights that it has now: after `merge` the changed ones,
    else the old ones. What is frozen stays frozen. Returns the names of the layers."""
    found = adapters_in(model, "remove_lora")
    for layer in found.values():
        for name in ("lora_A", "lora_B", "lora", "original", "bypassed", "rng"):
            delattr(layer, name)
        change_class(layer, Linear)
    return list(found)
