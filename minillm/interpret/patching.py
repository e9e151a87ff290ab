"""Activation patching: where in a model, and at which position, is the thing that decides?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Array, Tensor
from .activations import recording, replacing, run


def activation_patching(
    model: Any,
    clean: Array,
    corrupted: Array,
    measure: Callable[[Array], float],
    names: Iterable[str] = (),
    **options: Any,
) -> Array:
    """What a run on `corrupted` ids (B, T) wins back with one activation of the run on `clean` ones (B, T), module by
    module and position by position: (names, T), 0 nothing, 1 all of it.

        (m(corrupted, patched) − m(corrupted)) / (m(clean) − m(corrupted))

    `measure` makes a number of the logits (B, T, V), usually the difference of two ids' logits; `names` are all blocks
    by default. Meng et al. 2022, arXiv 2202.05262, section 2; how much hangs on the choice of the corruption and of the
    measure: Zhang & Nanda 2023, arXiv 2309.16042. Raises ValueError where the two runs measure the same.
    """
    if np.shape(clean) != np.shape(corrupted):
        raise ValueError(f"activation_patching: clean {np.shape(clean)} and corrupted {np.shape(corrupted)} differ.")
    names = list(names) or [name for name, _ in model.named_modules() if re.fullmatch(r"(.*\.)?blocks\.\d+", name)]
    with recording(model, names) as calls:
        good = measure(run(model, clean, **options))
    bad = measure(run(model, corrupted, **options))
    if good == bad:
        raise ValueError(f"activation_patching: both runs measure {good}: there is nothing to win back.")
    found = np.empty((len(names), np.shape(clean)[1]))
    for i, name in enumerate(names):
        for t in range(found.shape[1]):
            with replacing(model, {name: partial(put, calls[name].out, t)}):
                found[i, t] = measure(run(model, corrupted, **options))
    return (found - bad) / (good - bad)


def put(source: Any, t: int, x: Any) -> Any:
    """x (B, T, D) with position t of `source`."""
    here = np.zeros((1, x.shape[1], 1))
    here[:, t] = 1
    return ops.where(here > 0 if isinstance(x, Tensor) else x.new_tensor(here) > 0, source, x)
