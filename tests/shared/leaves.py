"""Tensors to differentiate by."""

from __future__ import annotations

import numpy as np

from minillm.tensor import Tensor


def leaf(*shape, dtype=np.float64, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype), requires_grad=True)
