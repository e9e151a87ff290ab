"""Where a nan or an infinity came from: run the step again and look at every layer's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.protocol import Batch, Engine
from .checkpoint import find_checkpoint
from .run_folder import RunState, TrainingDiverged


def first_non_finite(model: Any, rerun: Callable[[], Any]) -> str:
    """A sentence that names the first parameter, layer or gradient of `model` holding a nan or an infinity.

    Weights are looked at first, then each layer's output while `rerun()` runs the forward pass again, then the
    gradients that the model still holds, from the last layer back, as the backward pass fills them. Works on a model
    of either engine: all it needs are `named_modules`, `named_parameters` and a product with 0, which is 0 only
    for finite numbers.
    """
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"the weights themselves: {name} {tuple(parameter.shape)} holds nan or inf"

    found: list[str] = []
    modules = [(name, module) for name, module in model.named_modules() if name]
    try:
        for name, module in modules:
            module.forward = Watched(name, module, module.forward, found)  # on the object, over its class's method
        with np.errstate(all="ignore"):
            rerun()
    finally:
        for _, module in modules:
            vars(module).pop("forward", None)
    if found:
        return found[0]

    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not is_finite(parameter.grad):
            return f"the backward pass: the gradient of {name} {tuple(parameter.shape)} is the first that is not finite"
    return "the loss itself: every layer's output was finite when the step was run again without dropout"


def is_finite(x: Any) -> bool:
    """Whether an array or tensor of any engine holds neither nan nor infinity."""
    if hasattr(x, "full_tensor"):  # under FSDP this process holds a part, and all must come to the same answer
        x = x.full_tensor()
    with np.errstate(all="ignore"):
        return float((x * 0.0).sum()) == 0.0 if isinstance(x, np.ndarray) else (x.detach() * 0.0).sum().item() == 0.0


class Watched:
    """A layer's forward that notes, in `found`, the first output that is not finite."""

    def __init__(self, name: str, module: Any, forward: Callable[..., Any], found: list[str]):
        self.name, self.module, self.forward, self.found = name, module, forward, found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.forward(*args, **kwargs)
        if not self.found and hasattr(out, "detach") and not is_finite(out):
            floats = [x for x in args if hasattr(x, "detach") and "float" in str(x.dtype)]
            spoilt = any(not is_finite(x) for x in floats)
            came = "its input was already spoilt, by the operation before it" if spoilt else "its input was finite"
            self.found.append(f"the output of {self.name} ({type(self.module).__name__}); {came}")
        return out


def diverged(
    run: Engine, micro_batches: list[Batch], state: RunState, loss: float, grad_norm: float, lr: float, out_dir: Path
) -> TrainingDiverged:
    """The error for a step whose loss or gradient is not finite, with the layer where it began."""
    where = first_non_finite(run.model, lambda: run.rerun(micro_batches))
    last = find_checkpoint(out_dir / "last")
    kept = f"the last good checkpoint is {last}" if last is not None else "no checkpoint had been saved yet"
    return TrainingDiverged(
        f"step {state.step + 1}: the loss is {loss}, the gradient norm {grad_norm}. First in {where}. "
        f"The step was not taken; {kept}. Try a lower learning rate (it was {lr:.3g}), a longer warmup or grad_clip."
    )
