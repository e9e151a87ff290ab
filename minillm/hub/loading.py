"""Weights from a folder into a model: names matched and checked first, then read block by block to where they belong.

The model is built without weights, so that memory holds each weight once and, for a moment, one block of a file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..models import Llama, Model, ModelConfig, model_from_config
from ..models.rope import rope_tables
from ..models.sketch import is_sketched, sketch
from .names import Layout, canonical_names, hf_name, is_transposed
from .weights import Stored, WeightsError, common_dtype, shorten

TIED_TWINS = {  # in old files a tied matrix stands twice
    "lm_head.weight": ("transformer.wte.weight", "model.embed_tokens.weight"),
    "cls.predictions.decoder.weight": ("bert.embeddings.word_embeddings.weight",),
    "cls.predictions.decoder.bias": ("cls.predictions.bias",),
}


@dataclass
class Plan:
    """Which stored tensor goes to which parameter, and what is left over on either side."""

    tensors: dict[str, tuple[Stored, bool]]  # our name -> where it lies, and whether it stands on its side there
    fresh: list[str] = field(default_factory=list)  # parameters of a new head, which the checkpoint has no weights for
    unused: list[str] = field(default_factory=list)  # tensors of another task's head


def make_plan(
    shapes: dict[str, tuple[int, ...]],
    stored: dict[str, Stored],
    layout: Layout | None,
    where: Path | str,
    *,
    predicts_tokens: bool = True,
) -> Plan:
    """Match parameters with stored tensors (`layout` None: the names are ours). Nothing is read
    yet. `predicts_tokens`: whether the model has the head that may be a second copy of the token table.

    Raises WeightsError with the whole list of what is missing, unexpected or of another shape. What belongs to a head
    is not an error but goes into `fresh` and `unused`: other heads on a pretrained body are what fine-tuning is about.
    """
    if layout is None:
        canonical = {name: name for name in stored}
        expected = {name: name for name in shapes}
        heads: tuple[str, ...] = ()
    else:
        canonical = canonical_names(stored, layout)
        expected = {hf_name(name, layout): name for name in shapes}
        heads = layout.heads
    found = {name: stored[file_name] for file_name, name in canonical.items()}
    if predicts_tokens:  # otherwise the head that does is left out, a twin or not
        drop_twins(found, expected, where)
    problems, plan = [], Plan({})
    for theirs, ours in expected.items():
        if theirs in found:
            tensor = found.pop(theirs)
            transposed = layout is not None and is_transposed(ours, layout)
            shape = tensor.shape[::-1] if transposed else tensor.shape
            if shape != shapes[ours]:
                problems.append(f"wrong shape: {theirs} is {tensor.shape}, config.json asks for {shapes[ours]}")
            plan.tensors[ours] = tensor, transposed
        elif theirs.startswith(heads) if heads else False:
            plan.fresh.append(ours)
        else:
            problems.append(f"missing: {theirs} {shapes[ours]}")
    for theirs in found:
        if heads and theirs.startswith(heads):
            plan.unused.append(theirs)
        else:
            problems.append(f"unexpected: {theirs} {found[theirs].shape}")
    if problems:
        raise WeightsError(
            f"{where}: nothing was loaded, the weights do not fit config.json ({len(problems)} differences):\n  "
            + "\n  ".join(problems[:40])
            + ("\n  ..." if len(problems) > 40 else "")
        )
    common_dtype({name: tensor for name, (tensor, _) in plan.tensors.items()})  # refuses integers
    return plan


def drop_twins(found: dict[str, Stored], expected: dict[str, str], where: Path | str) -> None:
    """Leave out the second copy of a tied matrix, which must equal the first."""
    for twin, firsts in TIED_TWINS.items():
        if twin not in found or twin in expected:
            continue
        first = next((name for name in firsts if name in found), None)
        if first is None:
            if twin.endswith("bias"):
                found[firsts[0]] = found.pop(twin)
            continue
        if not equal(found[twin], found[first]):
            raise WeightsError(
                f"{where}: {twin} differs from {first}, though config.json ties them (tie_word_embeddings). For Llama "
                "and Qwen set tie_word_embeddings to false there; GPT-2 and BERT have no head of their own here."
            )
        del found[twin]


def equal(a: Stored, b: Stored) -> bool:
    """Whether two stored tensors hold the same numbers."""
    return a.shape == b.shape and all(np.array_equal(x, y) for (_, x), (_, y) in zip(a.blocks(), b.blocks()))


def report_plan(plan: Plan, where: Path | str) -> None:
    """Warn, with names, about a head without weights and weights without a head."""
    if plan.fresh:
        warnings.warn(
            f"{where} has no weights for {shorten(plan.fresh)}: they were drawn at random. Train the model before you "
            "rely on what it says.",
            stacklevel=4,
        )
    if plan.unused:
        warnings.warn(f"{where}: not used, as this model has no such head: {shorten(plan.unused)}.", stacklevel=4)


# --- NumPy and PyTorch ------------------------------------------------------------------------------------------------


def sketched_model(config: ModelConfig) -> Model:
    """A model with every name and shape and, but for norms and biases, no weights."""
    return model_from_config(config, sketch())


def fill_numpy(model: Model, plan: Plan, dtype: str, seed: int) -> Model:
    """Give a sketched model its weights, float32 or float64."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"the NumPy engine computes in float32 or float64, not {dtype}: use engine='torch'.")
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        initial = parameter.data
        parameter.data = np.empty(initial.shape, dtype)
        if name in plan.tensors:
            fill(parameter.data, *plan.tensors[name])
        elif is_sketched(initial):
            parameter.data[...] = rng.standard_normal(initial.shape) * float(initial.flat[0])
        else:
            parameter.data[...] = initial
    for _, module in model.named_modules():
        module_rng(module, rng)
        for name, value in list(vars(module).items()):
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                setattr(module, name, value.astype(dtype))
    if dtype == "float64":
        exact_rope(model)
    return model


def exact_rope(model: Model) -> None:
    """Give a Llama, or a classifier that is one, its rotary tables as they were before they were rounded to float32."""
    for _, module in model.named_modules():
        if isinstance(module, Llama):
            config, length = module.config, len(module.cos)
            module.cos, module.sin = rope_tables(length, config.head_dim, config.rope_theta, config.rope_scaling)


def module_rng(module: Any, rng: np.random.Generator) -> None:
    """Dropout must draw from a real generator, not from the one that only wrote down what it should have drawn."""
    if isinstance(getattr(module, "rng", None), np.random.Generator):
        module.rng = rng


def fill(target: Any, stored: Stored, transposed: bool) -> None:
    """Read a stored tensor into an array or a torch tensor of the parameter's shape."""
    rows = target.T if transposed else target
    for start, block in stored.blocks():
        if isinstance(rows, np.ndarray):
            if rows.ndim == 0:
                rows[...] = block[0]
            else:
                rows[start : start + len(block)] = block
        else:
            import torch

            rows[start : start + len(block)].copy_(torch.from_numpy(np.ascontiguousarray(block)))


def fill_torch(model: Model, plan: Plan, dtype: str, device: Any, seed: int) -> Any:
    """A port to PyTorch of a sketched model, with its weights read straight to `device` in `dtype`."""
    import torch

    from ..port import allocate, to_torch

    rng = np.random.default_rng(seed)
    for _, module in model.named_modules():
        module_rng(module, rng)
    constants = {name: module for name, module in model.named_modules()}
    if dtype == "float64":
        exact_rope(model)
    ported = to_torch(model, device="meta", dtype=getattr(torch, dtype))
    allocate(ported, device or "cpu")
    initial = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in ported.named_parameters():
            if name in plan.tensors:
                fill(parameter, *plan.tensors[name])
            elif is_sketched(initial[name].data):
                drawn = rng.standard_normal(parameter.shape) * float(initial[name].data.flat[0])
                parameter.copy_(torch.from_numpy(drawn))
            else:
                parameter.copy_(torch.from_numpy(initial[name].data))
        for name, module in ported.named_modules():
            for key, buffer in module._buffers.items():
                buffer.copy_(torch.from_numpy(np.ascontiguousarray(getattr(constants[name], key))))
    return ported
