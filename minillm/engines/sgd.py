"""Stochastic gradient descent with momentum: the plainest optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..optim import Optimizer, require_not_negative
from ..tensor import Parameter


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, in the form that torch uses).

    g ← g + λ·p                  L2 decay, added to the gradient
    b ← μ·b + g                  momentum, from b = 0
    p ← p − lr·b                 or, with nesterov, p ← p − lr·(g + μ·b)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, defaults)

    def check(self, settings: dict[str, Any]) -> None:
        require_not_negative(settings, "lr", "momentum", "weight_decay")
        if settings["nesterov"] and settings["momentum"] == 0.0:
            raise ValueError("nesterov looks ahead along the momentum, which must be above 0, not 0.")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _update(self, group: dict[str, Any], step: int, p: np.ndarray, g: np.ndarray, *state: np.ndarray) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if state:
            (b,) = state
            b *= group["momentum"]
            b += g
            g = g + group["momentum"] * b if group["nesterov"] else b
        p -= group["lr"] * g
