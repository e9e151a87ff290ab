"""Record what a model's modules give, and put something else in its place: everything else here is made of these two.

Both wrap the modules' `forward` and leave nothing behind. Names are those of `model.named_modules()`: "blocks.0",
"blocks.0.attn.proj". What is read from a weight without a call (GPT's position table) can't be seen, nor what
models/decoding.py does: give `generate` plain=True.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..nn import evaluating
from ..tensor import Array, Tensor, no_grad

Change = Callable[[Any], Any]  # a tensor of the model's engine -> another of its shape


@dataclass(frozen=True)
class Call:
    """One call of a module: what it was given, and what came out."""

    x: Any
    options: dict[str, Any]
    out: Any


@contextmanager
def wrapping(modules: Mapping[str, Any], wrap: Callable[..., Any]) -> Iterator[None]:
    """Inside, a call of each module is `wrap(name, forward, *what it is given)`. Afterwards, an exception or not, each
    has the forward that it had."""
    before: list[tuple[Any, Any]] = []
    try:
        for name, module in modules.items():
            before.append((module, vars(module).get("forward")))
            vars(module)["forward"] = partial(wrap, name, module.forward)
        yield
    finally:
        for module, own in reversed(before):
            vars(module).pop("forward", None)
            if own is not None:
                vars(module)["forward"] = own


@contextmanager
def watching(modules: Mapping[str, Any]) -> Iterator[dict[str, Call]]:
    """Inside, the last call of each module is written down under the name that it has here."""
    calls: dict[str, Call] = {}
    with wrapping(modules, partial(write_down, calls)):
        yield calls


def write_down(calls: dict[str, Call], name: str, forward: Any, x: Any, *args: Any, **options: Any) -> Any:
    out = forward(x, *args, **options)
    calls[name] = Call(x, options, first_of(out))
    return out


def first_of(out: Any) -> Any:
    """A block may say more than the stream (models/moe.py)."""
    return out[0] if isinstance(out, tuple) else out


@contextmanager
def recording(model: Any, names: Iterable[str]) -> Iterator[dict[str, Call]]:
    """Inside, the last call of each named module is in the dictionary: `calls["blocks.0"].out`.

    Raises ValueError for a name that the model has not, and at the end for a module that was never called.
    """
    modules = find_modules(model, names)
    with watching(modules) as calls:
        yield calls
    check_called(modules, calls)


@contextmanager
def replacing(
    model: Any, outputs: Mapping[str, Change] | None = None, *, inputs: Mapping[str, Change] | None = None
) -> Iterator[None]:
    """Inside, what a named module gives, or is given, is first changed by a function: `outputs={"blocks.0.mlp": f}`.

    Raises ValueError as `recording` does, and for a change that gives another shape.
    """
    outputs, inputs = outputs or {}, inputs or {}
    modules, called = find_modules(model, [*outputs, *inputs]), dict[str, bool]()

    def wrap(name: str, forward: Any, x: Any, *args: Any, **options: Any) -> Any:
        called[name] = True
        out = forward(changed(name, inputs.get(name), x), *args, **options)
        first = changed(name, outputs.get(name), first_of(out))
        return (first, *out[1:]) if isinstance(out, tuple) else first

    with wrapping(modules, wrap):
        yield
    check_called(modules, called)


def changed(name: str, change: Change | None, x: Any) -> Any:
    if change is None:
        return x
    new = change(x)
    if tuple(new.shape) != tuple(x.shape):
        raise ValueError(f"replacing: {name} has {tuple(x.shape)}, its change gave {tuple(new.shape)}: keep the shape.")
    return new


def find_modules(model: Any, names: Iterable[str]) -> dict[str, Any]:
    modules = dict(model.named_modules())
    for name in (names := list(dict.fromkeys(names))):
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See model.named_modules()."
            raise ValueError(f"{type(model).__name__} has no module {name!r}. {hint}")
    return {name: modules[name] for name in names}


def check_called(modules: Mapping[str, Any], called: Mapping[str, Any]) -> None:
    if missing := [name for name in modules if name not in called]:
        raise ValueError(
            f"{', '.join(missing)}: never called, so nothing was recorded or replaced. Either the model was not run, "
            "or it reads the weights without a call; generate calls its modules only with plain=True."
        )


# --- arrays in, arrays out --------------------------------------------------------------------------------------------


def to_engine(model: Any, given: Any) -> Any:
    """Ids, masks or segments as the model's engine wants them."""
    parameter = next(iter(model.parameters()))
    if isinstance(parameter, Tensor) or given is None:
        return given
    return parameter.new_zeros(()).long().new_tensor(np.asarray(given))


def like(array: Array, x: Any) -> Any:
    """An array as a tensor of the engine and dtype of `x`."""
    return Tensor(array.astype(x.dtype)) if isinstance(x, Tensor) else x.new_tensor(array)


def as_array(x: Any) -> Array:
    """A tensor of either engine as an array, float32 where NumPy lacks its dtype."""
    if isinstance(x, Tensor):
        return x.data
    x = x.detach().cpu()
    return (x.float() if x.dtype.itemsize == 2 else x).numpy()


@contextmanager
def only_asking(model: Any) -> Iterator[None]:
    """Inside, the model (of either engine) is in evaluation mode, and no graph is recorded."""
    on_torch = not isinstance(next(iter(model.parameters())), Tensor)
    if on_torch:
        from .. import torch_ops
    with evaluating(model), torch_ops.no_grad() if on_torch else no_grad():
        yield


def run(model: Any, ids: Array, **options: Any) -> Array:
    """What the model gives for ids (B, T), in evaluation mode."""
    with only_asking(model):
        given = {name: to_engine(model, value) for name, value in options.items()}
        return as_array(model(to_engine(model, ids), **given))
