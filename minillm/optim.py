"""Optimizers: AdamW with torch's argument names, the decay rule, gradient clipping. (SGD and Muon: engines/.)

Read `AdamW._update` first: it is the formula of the paper, one line of arithmetic per line of code. Everything
works in place and block by block: a step does little arithmetic on much memory, so what a block computes should
still be in the processor's cache when the next line of the formula needs it.

No optimizer ever writes to `.grad`: two parameters may share one gradient array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, cast

import numpy as np

from .nn import Embedding, Module, check_fits, shapes
from .numpy_ops.blocks import blocks
from .tensor import Parameter, Tensor


class Optimizer:
    """What every optimizer does besides its formula: parameter groups, and a state that can be saved by name.

    `params` is an iterable of Parameters, or of groups `{"params": [...], "lr": ..., "weight_decay": ...}`, in which
    what a group leaves out takes its default. Schedules write `group["lr"]` before each step; the engines make it
    smaller by the group's "lr_scale", if it has one. A frozen parameter (`requires_grad` False) may be among them: it
    has no state until it learns, and then begins as a new one.
    Raises ValueError for no parameters at all, for one that appears twice, for an unknown key in a group and for a
    setting that cannot be, TypeError for what is no list of Parameters or of groups.
    """

    def __init__(self, params: Iterable[Parameter] | Iterable[dict[str, Any]], defaults: dict[str, Any]):
        if isinstance(params, (Tensor, dict)):
            raise TypeError("params must be a list of Parameters or of groups, not one of them: write [p].")
        given: list[Any] = list(params)
        self.check(defaults)
        groups: list[dict[str, Any]] = given if given and isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = []
        for group in groups:
            if not isinstance(group, dict) or "params" not in group:
                raise TypeError(f'each parameter group must be a dictionary with "params", not {group!r:.80}.')
            unknown = set(group) - set(defaults) - {"params", "lr_scale"}
            if unknown:
                known = ", ".join(defaults)
                raise ValueError(f"unknown key {min(unknown)!r} in a parameter group; known: params, {known}")
            members = group["params"]
            group = {**defaults, **group, "params": [members] if isinstance(members, Tensor) else list(members)}
            self.check(group)
            self.param_groups.append(group)
        self.params: list[Parameter] = [p for group in self.param_groups for p in group["params"]]
        for p in self.params:
            if not isinstance(p, Tensor) or p.node is not None:
                raise TypeError(f"params must be Parameters, which a step may change, not {p!r:.80}.")
        if not self.params:
            raise ValueError("the optimizer got no parameters: pass model.parameters() or param_groups(model, ...)")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError("a parameter appears twice in the optimizer: it would be stepped twice (tied weights?).")
        self.steps: dict[int, int] = {id(p): 0 for p in self.params}  # updates made so far; a schedule counts its own
        self.state: dict[int, dict[str, np.ndarray]] = {id(p): {} for p in self.params}  # id(parameter) -> its arrays
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    self.state_of(p, group)

    def check(self, settings: dict[str, Any]) -> None:
        """Raise ValueError for a setting that cannot be: of the defaults and of each group."""
        raise NotImplementedError

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The arrays kept for each parameter of a group, by torch's names."""
        raise NotImplementedError

    def state_of(self, p: Parameter, group: dict[str, Any]) -> list[np.ndarray]:
        """A parameter's arrays, of its shape and dtype: made where there are none yet, converted where `model.to()`
        has converted the parameter."""
        arrays = self.state[id(p)]
        for name in self.state_names(group):
            if name not in arrays:
                arrays[name] = np.zeros_like(p.data)
            elif arrays[name].dtype != p.dtype:
                arrays[name] = arrays[name].astype(p.dtype)
        return [arrays[name] for name in self.state_names(group)]

    def zero_grad(self) -> None:
        """Forget all gradients, so that the next backward starts new sums."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient and is not frozen by one update. `.grad` is read, never written."""
        for group, p in self.to_move():
            self.move(group, p)

    def to_move(self) -> list[tuple[dict[str, Any], Parameter]]:
        """What a step moves. Each may be moved by a thread of its own."""
        return [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None and p.requires_grad]

    def move(self, group: dict[str, Any], p: Parameter) -> None:
        if not p.data.flags.c_contiguous:
            raise ValueError(f"a parameter of shape {p.shape} is not contiguous: make it with np.ascontiguousarray.")
        self.steps[id(p)] += 1
        for block in blocks(p.data, cast(np.ndarray, p.grad), *self.state_of(p, group)):
            self._update(group, self.steps[id(p)], *block)

    def _update(self, group: dict[str, Any], step: int, p: np.ndarray, g: np.ndarray, *state: np.ndarray) -> None:
        raise NotImplementedError

    def state_dict(self, names: dict[int, str]) -> dict[str, np.ndarray]:
        """The state as `{"norm.weight.exp_avg": array, ..., "norm.weight.step": array}`, the live arrays, not copies.

        `names` maps id(parameter) to the parameter's name in the model, so that a checkpoint does not depend on the
        order of the groups and another engine can read it. A frozen parameter that never learned is not in it.
        """
        arrays = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad or self.steps[id(p)]:
                    for key, array in zip(self.state_names(group), self.state_of(p, group)):
                        arrays[f"{names[id(p)]}.{key}"] = array
                    arrays[f"{names[id(p)]}.step"] = np.array(self.steps[id(p)], dtype=np.int64)
        return arrays

    def check_state_dict(self, names: dict[int, str], arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError, with all differences, unless `arrays` is a state of exactly these parameters. A frozen one
        may have learned before, and have a state there, or not."""
        expected: dict[str, tuple[int, ...]] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad or f"{names[id(p)]}.step" in arrays:
                    expected |= {f"{names[id(p)]}.{key}": p.shape for key in self.state_names(group)}
                    expected[f"{names[id(p)]}.step"] = ()
        check_fits(f"the arrays of this {type(self).__name__}", expected, shapes(arrays))

    def load_state_dict(self, names: dict[int, str], arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `state_dict` gave. Raises ValueError, changing nothing, if names or shapes differ."""
        self.check_state_dict(names, arrays)
        for group in self.param_groups:
            for p in group["params"]:
                if f"{names[id(p)]}.step" not in arrays:
                    self.steps[id(p)], self.state[id(p)] = 0, {}
                    continue
                for key, own in zip(self.state_names(group), self.state_of(p, group)):
                    own[...] = arrays[f"{names[id(p)]}.{key}"]
                self.steps[id(p)] = int(arrays[f"{names[id(p)]}.step"])


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2; Kingma & Ba 2015, algorithm 1).

        p ← p − lr·λ·p                          decay, apart from the gradient
        m ← β₁·m + (1 − β₁)·g                   running mean of the gradient
        v ← β₂·v + (1 − β₂)·g²                  running mean of its square
        p ← p − lr · m̂ / (√v̂ + ε)               with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ), t = 1, 2, ...

    The divisions by 1 − βᵗ undo the bias towards the zeros that m and v start from. Derived line by line, and watched
    in a run, in chapters/08_pretraining.ipynb.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check(self, settings: dict[str, Any]) -> None:
        betas = settings["betas"]
        if len(betas) != 2 or not all(isinstance(beta, Real) and 0.0 <= float(beta) < 1.0 for beta in betas):
            raise ValueError(f"betas must be at least 0 and below 1, two of them, not {tuple(betas)}.")
        require_not_negative(settings, "lr", "eps", "weight_decay")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _update(self, group: dict[str, Any], step: int, p: np.ndarray, g: np.ndarray, *state: np.ndarray) -> None:
        m, v = state
        lr, (beta1, beta2) = group["lr"], group["betas"]
        step_size = lr / (1 - beta1**step)
        sqrt_correction2 = math.sqrt(1 - beta2**step)
        tmp = np.empty_like(p)

        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        np.subtract(g, m, out=tmp)  # the same sum with one rounding less:
        if beta1 > 0.5:
            tmp *= 1 - beta1  # m ← m + (1 − β₁)(g − m)
            m += tmp
        else:  # from the nearer end: for β₁ = 0 it must be g, however small beside m
            tmp *= beta1  # m ← g − β₁(g − m)
            np.subtract(g, tmp, out=m)
        np.multiply(g, g, out=tmp)
        tmp *= 1 - beta2
        v *= beta2
        v += tmp
        np.sqrt(v, out=tmp)
        tmp *= 1 / sqrt_correction2
        tmp += group["eps"]
        np.divide(m, tmp, out=tmp)
        tmp *= step_size
        p -= tmp


def param_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's parameters into those that decay and those that do not, for AdamW of either engine.

    Weight matrices decay. Gains and biases (fewer than two axes) do not: they are few and pulling them to zero
    switches a normalisation off. Embeddings do not: a row is touched only when its token occurs, decay would act on
    it at every step. A head tied to an embedding counts as that embedding. (GPT-3 and Llama decay matrices only, too.)
    """
    tables = [module for _, module in model.named_modules() if isinstance(module, Embedding)]
    embeddings = {id(p) for table in tables for p in table.parameters()}
    decay: list[Parameter] = []
    no_decay: list[Parameter] = []
    for _, p in model.named_parameters():
        (no_decay if p.ndim < 2 or id(p) in embeddings else decay).append(p)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def clip_grad_norm_(params: Iterable[Parameter] | Parameter, max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint L2 norm is at most `max_norm`; returns the norm before.

    Pascanu et al. 2013, section 3.2 (what it prevents is measured in chapters/08_pretraining.ipynb); the 1e-6 is
    torch's, so that both engines scale alike. A norm that is not finite leaves the gradients alone, so that the caller
    can look at them. The scaled gradients are new arrays: the old ones may be shared (see the top of this file).
    """
    if not max_norm >= 0.0:
        raise ValueError(f"clip_grad_norm_: max_norm must be 0 or more, not {max_norm}.")
    learned = [p for p in ([params] if isinstance(params, Tensor) else params) if p.grad is not None]
    total = 0.0
    for p in learned:
        flat = cast(np.ndarray, p.grad).reshape(-1)
        total += float(np.dot(flat, flat))
    norm = math.sqrt(total)
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1.0:
        for p in learned:  # one after the other: each old gradient goes before the next new one comes
            p.grad = np.asarray(cast(np.ndarray, p.grad) * scale)
    return norm


def require_not_negative(settings: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(settings[name], Real) or not 0.0 <= settings[name] < math.inf:  # nan neither
            raise ValueError(f"{name} must be 0 or more, not {settings[name]}.")
