"""Weights from a folder into a model: names matched and checked first, then read block by block to where they belong.

The model is built without weights, so that memory holds each weight once and, for a moment, one block of a file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.choose import require_torch
from ..finetune.lora import LoraConfig, add_lora
from ..models import Model, ModelConfig, model_from_config
from ..models.sketch import draw, sketch
from ..nn import differences, shapes
from .architecture import Architecture
from .names import canonical_names, hf_name
from .weights import Stored, WeightsError, common_dtype, shorten


@dataclass
class Plan:
    """Which stored tensor goes to which parameter, and what is left over on either side."""

    tensors: dict[str, tuple[Stored, bool]]  # our name -> where it lies, and whether it stands on its side there
    fresh: list[str] = field(default_factory=list)  # parameters of a new head, which the checkpoint has no weights for
    unused: list[str] = field(default_factory=list)  # tensors of another task's head
    resized: list[str] = field(default_factory=list)  # parameters whose tensors have another shape, and are not taken


def make_plan(
    config: ModelConfig,
    stored: dict[str, Stored],
    architecture: Architecture | None,
    head: str,
    where: Path | str,
    *,
    ignore_mismatched_sizes: bool = False,
) -> Plan:
    """Match the parameters of a model with stored tensors (`architecture` None: the names are ours). Nothing is read
    yet.

    Raises WeightsError with the whole list of what is missing, unexpected or of another shape. What belongs to a head
    is not an error but goes into `fresh` and `unused`: other heads on a pretrained body are what fine-tuning is about.
    With `ignore_mismatched_sizes` nor is another shape: what has one goes into `resized`.
    """
    ours = shapes(dict(model_from_config(config, sketch()).named_parameters()))
    if architecture is None:
        places, found, turned = {name: name for name in ours}, stored, set[str]()
        heads: tuple[str, ...] = ()
    else:
        places = {hf_name(name, architecture): name for name in ours}  # their name -> ours
        found = {today: stored[name] for name, today in canonical_names(stored, architecture).items()}
        turned = {name for name in ours if name.endswith(architecture.transposed)}
        heads = architecture.head_names
        if head in (
            "causal",
            "mlm",
            "seq2seq",
        ):  # any other model leaves the head that predicts tokens out, a twin or not
            drop_twins(found, places, architecture.twins, where)
    fresh = [theirs for theirs in places if theirs not in found and theirs.startswith(heads)]
    unused = [theirs for theirs in found if theirs not in places and theirs.startswith(heads)]
    needed = {theirs: name for theirs, name in places.items() if theirs not in fresh}
    expected = {theirs: ours[name][::-1] if name in turned else ours[name] for theirs, name in needed.items()}
    given = {theirs: tensor.shape for theirs, tensor in found.items() if theirs not in unused}
    others = [theirs for theirs, shape in expected.items() if given.get(theirs, shape) != shape]
    if ignore_mismatched_sizes:
        needed = {theirs: name for theirs, name in needed.items() if theirs not in others}
        expected = {theirs: shape for theirs, shape in expected.items() if theirs not in others}
        given = {theirs: shape for theirs, shape in given.items() if theirs not in others}
    if problems := differences(expected, given):
        shown = "\n  ".join([*problems[:40], "..."] if len(problems) > 40 else problems)
        count = f"{len(problems)} differences"
        hint = "\nWith ignore_mismatched_sizes=True, tensors of a wrong shape are drawn anew." if others else ""
        raise WeightsError(
            f"{where}: nothing was loaded, the weights do not fit config.json ({count}):\n  {shown}{hint}"
        )
    tensors = {name: (found[theirs], name in turned) for theirs, name in needed.items()}
    common_dtype({name: tensor for name, (tensor, _) in tensors.items()})  # refuses integers
    resized = [places[theirs] for theirs in others] if ignore_mismatched_sizes else []
    return Plan(tensors, [places[theirs] for theirs in fresh], unused, resized)


def drop_twins(found: dict[str, Stored], places: dict[str, str], twins: dict[str, str], where: Path | str) -> None:
    """Leave out the second copy of a tied matrix, which must equal the first, or stands in for it."""
    for twin, first in twins.items():
        if twin not in found or twin in places:
            continue
        if first in found and not equal(found[twin], found[first]):
            raise WeightsError(
                f"{where}: {twin} differs from {first}, though config.json ties them. Set tie_word_embeddings to false "
                "there for Llama and Qwen; GPT-2 and BERT have no head of their own here."
            )
        found.setdefault(first, found.pop(twin))


def equal(a: Stored, b: Stored) -> bool:
    """Whether two stored tensors hold the same numbers."""
    return a.shape == b.shape and all(np.array_equal(x, y) for (_, x), (_, y) in zip(a.blocks(), b.blocks()))


def report_plan(plan: Plan, where: Path | str) -> None:
    """Warn, with names, about a head without weights and weights without a head."""
    if plan.fresh:
        drawn = f"{where} has no weights for {shorten(plan.fresh)}: they were drawn at random. Train the model."
        warnings.warn(drawn, stacklevel=4)
    if plan.resized:
        other = f"{where} has {shorten(plan.resized)} in another shape: drawn at random instead. Train the model."
        warnings.warn(other, stacklevel=4)
    if plan.unused:
        warnings.warn(f"{where}: not used, as this model has no such head: {shorten(plan.unused)}.", stacklevel=4)


# --- NumPy and PyTorch ------------------------------------------------------------------------------------------------


def load_numpy(config: ModelConfig, plan: Plan, dtype: str, seed: int, lora: LoraConfig | None = None) -> Model:
    """The model with its weights as float32 or float64; a new head is drawn with `seed`. `lora`: with these adapters,
    which the plan has, too."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"the NumPy engine computes in float32 or float64, not {dtype}: use engine='torch'.")
    model = sketched_model(config, lora)
    draw(model, np.random.default_rng(seed), but=plan.tensors)
    model.to(dtype)
    exact_rope(model, dtype)
    for name, parameter in model.named_parameters():
        if name in plan.tensors:
            read_into(parameter.data, *plan.tensors[name])
    return model


def load_torch(
    config: ModelConfig, plan: Plan, dtype: str, device: Any, seed: int, lora: LoraConfig | None = None
) -> Any:
    """The model on PyTorch, its weights read straight to `device` in `dtype`; a new head is that of `load_numpy`."""
    import torch

    from ..engines.torch_machine import choose_device
    from ..port import allocate, fill, to_torch

    model = sketched_model(config, lora)
    draw(model, np.random.default_rng(seed), but=plan.tensors)
    exact_rope(model, dtype)
    ported = to_torch(model, device="meta", dtype=getattr(torch, dtype))
    wanted = "cpu" if device is None else f"cuda:{device}" if isinstance(device, int) else str(device)
    allocate(ported, choose_device(wanted))
    fill(ported, model, but=plan.tensors)
    with torch.no_grad():
        for name, parameter in ported.named_parameters():
            if name in plan.tensors:
                read_into(parameter, *plan.tensors[name])
    return ported


def sketched_model(config: ModelConfig, lora: LoraConfig | None) -> Model:
    """The model without weights, with adapters if it is to have some."""
    model = model_from_config(config, sketch())
    if lora is not None:
        add_lora(model, lora, np.random.default_rng(0))  # to be read over
    return model


def exact_rope(model: Model, dtype: str) -> None:
    """For float64, rotary tables as they are before they are rounded to float32."""
    for _, module in model.named_modules():
        if dtype == "float64" and hasattr(module, "make_rope"):
            module.make_rope(np.float64)


def read_into(target: Any, stored: Stored, transposed: bool) -> None:
    """Read a stored tensor into an array or a torch tensor of the parameter's shape."""
    rows = target.T if transposed else target
    for start, block in stored.blocks():
        if rows.ndim == 0:
            rows[...] = float(block[0])
        elif isinstance(rows, np.ndarray):
            rows[start : start + len(block)] = block
        else:
            import torch

            rows[start : start + len(block)].copy_(torch.from_numpy(np.ascontiguousarray(block)))


def check_engine(engine: str, device: Any) -> None:
    """Raise ValueError for an engine that there is not, or a device that it does not run on."""
    if engine not in ("numpy", "torch"):
        raise ValueError(f"engine = {engine!r} must be 'numpy' or 'torch'.")
    if engine == "numpy" and device not in (None, "cpu"):
        raise ValueError(f"device = {device!r}: the NumPy engine runs on the CPU only. Use engine='torch'.")
    if engine == "torch":
        require_torch()
