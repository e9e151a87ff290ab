"""Layers: a Module owns Parameters and other Modules, and says in `forward` what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import ops
from .ops import AnyTensor
from .tensor import FLOATS, Parameter, Tensor


class Module:
    """The base of every layer and model, with PyTorch's method names. Parameters, Modules, lists of Modules and
    ndarrays (constants) found among the attributes belong to it; nothing happens behind an assignment."""

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} defines no forward().")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, with their dotted names ("" for itself), outermost first."""
        yield prefix, self
        for name, value in vars(self).items():
            for key, child in (
                ((name, value),) if not isinstance(value, list) else ((f"{name}.{i}", v) for i, v in enumerate(value))
            ):
                if isinstance(child, Module):
                    yield from child.named_modules(f"{prefix}.{key}" if prefix else key)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every Parameter once, under the first name it is reached by: a tied weight is stepped once, not twice."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def state_dict(self) -> dict[str, np.ndarray]:
        """Name -> array, no copies: save it, or copy it, before training goes on."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy arrays into the parameters of the same names. Everything is checked before anything is changed: missing
        or unexpected names and shapes that differ raise ValueError with the full list."""
        mine = dict(self.named_parameters())
        check_fits(
            f"{type(self).__name__}.load_state_dict: nothing was loaded, the weights", shapes(mine), shapes(state)
        )
        for name, parameter in mine.items():
            parameter.data[...] = state[name]

    def train(self, mode: bool = True) -> Module:
        """Training mode: dropout on (mode=False: off, what eval() does)."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: Any) -> Module:
        """Convert parameters, their gradients and constants to float32 or float64, in place."""
        dtype = np.dtype(dtype)
        if dtype not in FLOATS:
            raise TypeError(f"{type(self).__name__}.to: the dtype must be float32 or float64, not {dtype}.")
        for _, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    value.data = value.data.astype(dtype)
                    value.grad = None if value.grad is None else value.grad.astype(dtype)
                elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
                    setattr(module, name, value.astype(dtype))
        return self


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each array, parameter or tensor, by name. What is on the disk (engines/shards.py) is not read."""
    return getattr(arrays, "shapes", None) or {name: tuple(array.shape) for name, array in arrays.items()}


def differences(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How the names and shapes that are given differ from those expected, a line for each.

    >>> differences({"weight": (3, 2), "bias": (3,)}, {"weight": (2, 3), "scale": (3,)})
    ['missing: bias (3,)', 'unexpected: scale (3,)', 'wrong shape: weight is (2, 3), not (3, 2)']
    """
    lines = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in given]
    lines += [f"unexpected: {name} {shape}" for name, shape in given.items() if name not in expected]
    lines += [
        f"wrong shape: {name} is {given[name]}, not {shape}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    return lines


def check_fits(what: str, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError, with the first of the `differences`, unless names and shapes are those expected."""
    if problems := differences(expected, given):
        more = [f"and {len(problems) - 8} more"] if len(problems) > 8 else []
        raise ValueError(f"{what} do not fit this model:\n  " + "\n  ".join([*problems[:8], *more]))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Inside, the model (of either engine) is in evaluation mode: dropout off. Afterwards, an exception or not, it is
    in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> Parameter:
    """A float32 Parameter with values from a normal distribution of mean 0."""
    return Parameter(rng.standard_normal(shape, dtype=np.float32) * np.float32(std))


class Linear(Module):
    """y = x Wᵀ + b: (..., in_features) -> (..., out_features)."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, std: float = 0.02, rng: np.random.Generator
    ) -> None:
        self.weight = normal(rng, (out_features, in_features), std)
        self.bias = Parameter(np.zeros(out_features, dtype=np.float32)) if bias else None

    def forward(self, x: AnyTensor) -> AnyTensor:
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of vectors: integer ids (...) -> (..., d_model)."""

    def __init__(self, num_embeddings: int, d_model: int, *, std: float = 0.02, rng: np.random.Generator) -> None:
        self.weight = normal(rng, (num_embeddings, d_model), std)

    def forward(self, ids: Any) -> AnyTensor:
        return ops.embedding(ids, self.weight)


class LayerNorm(Module):
    """Each vector to mean 0 and variance 1, then a learned scale and shift."""

    def __init__(self, d_model: int, *, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(d_model, dtype=np.float32))
        self.bias = Parameter(np.zeros(d_model, dtype=np.float32))
        self.eps = eps

    def forward(self, x: AnyTensor) -> AnyTensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Each vector to a root mean square of 1, then a learned scale: a layer norm without the mean and the shift."""

    def __init__(self, d_model: int, *, eps: float = 1e-6) -> None:
        self.weight = Parameter(np.ones(d_model, dtype=np.float32))
        self.eps = eps

    def forward(self, x: AnyTensor) -> AnyTensor:
        return ops.rms_norm(x, self.weight, self.eps)


class Dropout(Module):
    """Zero a share p of the elements while training. `rng` is the model's generator, shared by all its dropouts."""

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        self.p = p
        self.rng = rng

    def forward(self, x: AnyTensor) -> AnyTensor:
        return ops.dropout(x, self.p, training=self.training, rng=self.rng)


class KVCache:
    """The keys and values of the positions that a decoder has seen, one pair of buffers per layer.

    Causal attention never changes the past, so a new token needs only its own query, key and value: one step costs O(T)
    instead of O(T²) (shown in chapters/09_generating_text.ipynb). `capacity` is the largest number of positions; the
    buffers are made at the first `update`. To forget the last positions, set `length` back.
    """

    places = mask = None  # where the new tokens stand, and what they see, if not all alike: models/static_cache.py

    def __init__(self, n_layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0  # positions that every layer has stored
        self.keys: list[Any] = [None] * n_layers
        self.values: list[Any] = [None] * n_layers

    def update(self, layer: int, k: AnyTensor, v: AnyTensor) -> tuple[AnyTensor, AnyTensor]:
        """Store the new k, v (B, Hkv, T, D) of one layer; returns those of all positions so far (B, Hkv, length + T,
        D)."""
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ValueError(f"KVCache: {end} positions do not fit into a cache of {self.capacity}.")
        if self.keys[layer] is None:
            shape = (*k.shape[:2], self.capacity, k.shape[3])
            self.keys[layer] = np.empty(shape, k.dtype) if isinstance(k, Tensor) else k.new_empty(shape)
            self.values[layer] = np.empty(shape, v.dtype) if isinstance(v, Tensor) else v.new_empty(shape)
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : end] = k.data
        values[:, :, self.length : end] = v.data
        if layer == len(self.keys) - 1:
            self.length = end  # the last layer has stored its part: the step is complete
        if isinstance(k, Tensor):
            return Tensor(keys[:, :, :end]), Tensor(values[:, :, :end])
        return keys[:, :, :end], values[:, :, :end]

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i of the batch what row rows[i] was. A row may be taken twice or left out: see beam.py."""
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                if old is not None:
                    shape = (len(rows), *old.shape[1:])
                    new = np.empty(shape, old.dtype) if isinstance(old, np.ndarray) else old.new_empty(shape)
                    new[:, :, : self.length] = old[:, :, : self.length][rows]  # what lies beyond is not yet written
                    buffers[layer] = new
