"""Muon: for hidden matrices, a step in which every direction counts alike (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks", kellerjordan.github.io/posts/muon).

A gradient of a matrix is a sum of a few strong directions and many weak ones: its singular values differ by orders of
magnitude, and a step along it, or along a running mean of it, learns the strong ones only. Muon keeps the directions
and makes all singular values 1: of the mean M = UΣVᵀ it takes UVᵀ, the step that lowers the loss most among those
that change no activation by more than a given amount (Bernstein & Newhouse 2024, arXiv 2409.20325, "Story II").

UVᵀ needs no singular value decomposition. An odd polynomial of a matrix works on its singular values alone:
X·Xᵀ = UΣ²Uᵀ, so

    a·X + b·(XXᵀ)X + c·(XXᵀ)²X = U(aΣ + bΣ³ + cΣ⁵)Vᵀ

and a polynomial that pulls every number of (0, 1] towards 1, used a few times in a row, leaves UVᵀ, about. Products of
matrices are what a processor does best. The classic choice is Newton's and Schulz's (15, −10, 3)/8, which converges to
1 but takes a small σ only 1.875 times higher each time. Jordan's a = 3.4445 lifts it 3.4 times, at the price of ending
anywhere between 0.7 and 1.2, which training does not notice.

Embeddings, the head, gains and biases are no such maps between activations: AdamW moves them, in the same optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..optim import AdamW, Optimizer
from ..tensor import Parameter

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalize(matrix: Any, steps: int = STEPS) -> Any:
    """About UVᵀ of a matrix UΣVᵀ, an array or a torch tensor (rows, columns): singular values from 0.7 to 1.2, but for
    those below a thousandth of the largest, which stay smaller."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # the products below have as many rows as x: the fewer, the cheaper
    x = x / ((x * x).sum() ** 0.5 + 1e-7)  # no singular value is above the Frobenius norm
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if tall else x


def step_size(lr: float, shape: tuple[int, ...]) -> float:
    """Of a matrix (outputs, inputs): more for more outputs than inputs, since UVᵀ then changes each output less."""
    return lr * max(1.0, shape[0] / shape[1]) ** 0.5


class Muon(AdamW):
    """Muon for the groups with `"use_muon": True`, whose parameters are matrices, AdamW for the others.

    M ← M + (1 − μ)·(G − M)                  running mean of the gradient
    N ← G + μ·(M − G)                        one step ahead of it (Nesterov)
    W ← W − lr·λ·W − lr·√max(1, rows/columns) · UVᵀ      where N = UΣVᵀ
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        Optimizer.__init__(self, params, {**settings, "momentum": momentum, "use_muon": False})

    def check(self, settings: dict[str, Any]) -> None:
        super().check(settings)
        if not 0.0 <= settings["momentum"] < 1.0:
            raise ValueError(f"momentum must be at least 0 and below 1, not {settings['momentum']}.")
        for p in settings["params"] if settings["use_muon"] and "params" in settings else ():
            if p.ndim != 2:
                raise ValueError(
                    f"Muon moves matrices, not a parameter of shape {p.shape}: leave it to AdamW's groups."
                )

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["use_muon"] else super().state_names(group)

    def move(self, group: dict[str, Any], p: Parameter) -> None:
        if not group["use_muon"]:
            super().move(group, p)
            return
        self.steps[id(p)] += 1
        (mean,) = self.state_of(p, group)
        mean += (1 - group["momentum"]) * (p.grad - mean)
        ahead = p.grad + group["momentum"] * (mean - p.grad)
        p.data *= 1 - group["lr"] * group["weight_decay"]
        p.data -= step_size(group["lr"], p.shape) * orthogonalize(ahead)


def split_hidden(model: Any, groups: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """The optimizer's groups for Muon, of either engine: from each, the hidden matrices apart, at `factor` times its
    learning rate. Hidden are the matrices inside a model's layers ("blocks.0.attn.qkv.weight"): lists of modules."""
    hidden = {id(p) for name, p in model.named_parameters() if p.ndim == 2 and re.search(r"\.\d+\.", name)}
    split: list[dict[str, Any]] = []
    for group in groups:
        inside = [p for p in group["params"] if id(p) in hidden]
        lr_scale = group.get("lr_scale", 1.0)
        split.append({**group, "params": inside, "use_muon": True, "lr_scale": factor * lr_scale})
        split.append({**group, "params": [p for p in group["params"] if id(p) not in hidden]})
    return [group for group in split if group["params"]]
