"""Large models without their weights: every name and shape, and what each weight would be drawn with."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from ..nn import Module


class Draw(np.ndarray):
    """What a `Sketcher` draws: an array of ones that takes the memory of one. Times a deviation, it is that number
    everywhere, still in the memory of one."""

    def __mul__(self, deviation: Any) -> np.ndarray:
        return np.broadcast_to(np.float32(deviation), self.shape)


class Sketcher(np.random.Generator):
    """A generator whose normal draws are not made but written down, for `sketch`. Anything else is drawn as usual."""

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return np.broadcast_to(np.float32(1), size).view(Draw)


def sketch(seed: int = 0) -> np.random.Generator:
    """A generator to build a large model with: `model_from_config(config, rng=sketch())`.

    The model has every name and shape, but its weight matrices hold one number each, the standard deviation that they
    will be drawn with, so that a model of any size is built at once and in no memory. `to_torch` draws the weights
    where they are to live, hub/loading.py reads them from a checkpoint, and `draw` draws them here; until then such a
    model cannot run.
    """
    return Sketcher(np.random.PCG64(seed))


def is_sketched(array: np.ndarray) -> bool:
    return array.size > 1 and not any(array.strides)


def draw(model: Module, rng: np.random.Generator, *, but: Container[str] = ()) -> None:
    """Give a sketched model the weights that it only has noted down, except those named in `but`, which come from
    elsewhere; and the generator, so that dropout and layers added later draw from a real one."""
    for name, parameter in model.named_parameters():
        if is_sketched(parameter.data) and name not in but:
            parameter.data = rng.standard_normal(parameter.shape) * float(parameter.data.flat[0])
    for _, module in model.named_modules():
        if isinstance(getattr(module, "rng", None), Sketcher):
            setattr(module, "rng", rng)  # noqa: B010  # not every module has one
