"""Training on this machine's processor, with our own autograd: each call of `Engine` (protocol.py) in a few lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..data import require_targets
from ..nn import Module, evaluating
from ..optim import AdamW, Optimizer, clip_grad_norm_, param_groups
from ..settings import TrainConfig
from ..tensor import Tensor, no_grad
from .memory import keep_freed_memory, peak_memory_gb
from .muon import Muon, split_hidden
from .protocol import Batch, Batches, Groups, Loss, Model, ModelLoss
from .recompute import recomputing
from .sgd import SGD


class NumpyEngine:
    name = "numpy"
    rank = 0
    world_size = 1
    shards = None
    background = False

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        groups: Groups = param_groups,
        loss: Loss | None = None,
        recompute: str = "none",
    ) -> None:
        keep_freed_memory()
        self.model = model
        self.recompute = recompute  # see EngineConfig
        self.loss = loss or ModelLoss(config.label_smoothing)
        self.figures: dict[str, float] = {}  # of the last step
        self.optimizer = make_optimizer(model, config, groups)
        self._names = {id(p): name for name, p in model.named_parameters()}

    def forward_backward(self, micro_batches: list[Batch]) -> float:
        self.model.train()
        self.model.zero_grad()
        # The mean over all tokens of the step. A mean of the micro-batches' means would be another number as soon as
        # one holds more padding than another: so each adds its sum of losses, divided by the count of all. (What the
        # other number does to the gradient is measured in chapters/08_pretraining.ipynb.)
        n_tokens = require_targets(sum(self.loss.count(*batch) for batch in micro_batches))
        total, sums = 0.0, Counter[str]()
        for batch in micro_batches:
            with recomputing(self.recompute, self.model):
                loss, figures = self.loss(self.model, *batch)
            loss = loss * (1 / n_tokens)
            loss.backward()  # gradients of several calls add up
            total += loss.item()
            sums.update(numbers(figures))
        self.figures = {name: value / n_tokens for name, value in sums.items()}
        return total

    def clip_gradients(self, max_norm: float) -> float:
        self.grad_norm = clip_grad_norm_(self.model.parameters(), max_norm or math.inf)
        return self.grad_norm

    def step(self, lr: float) -> None:
        if not math.isfinite(self.grad_norm):
            return
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.move()

    def move(self) -> None:
        self.optimizer.step()

    def read(self, *scalars: float) -> tuple[float, ...]:
        return scalars

    def batch_loss(self, *batch: np.ndarray) -> float:
        return self.batch_sums(*batch)["loss"]

    def batch_sums(self, *batch: np.ndarray) -> dict[str, float]:
        return batch_sums(self.model, *batch, loss=self.loss)

    def outputs(self, function: Callable[..., Any]) -> Callable[..., np.ndarray]:
        return partial(outputs, self.model, function=function)

    def rerun(self, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            batch_sums(self.model, *batch, loss=self.loss)

    def agree(self, value: float) -> float:
        return value

    def batches(self, batcher: Batches) -> Batches:
        return batcher

    def gauges(self, tokens_per_second: float) -> dict[str, float]:
        return {**self.figures, "memory_gb": peak_memory_gb()}

    def model_arrays(self) -> dict[str, np.ndarray]:
        return self.model.state_dict()

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return self.optimizer.state_dict(self._names)

    def random_state(self) -> dict[str, Any]:
        return self.model.rng.bit_generator.state

    def load(
        self, model: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray], random: dict[str, Any] | None
    ) -> None:
        if random is not None:
            np.random.default_rng().bit_generator.state = random  # on a generator to throw away: raises if it cannot be
        self.optimizer.check_state_dict(self._names, optimizer)
        frozen = {name: p.data for name, p in self.model.named_parameters() if not p.requires_grad}
        self.model.load_state_dict({**frozen, **model})  # checks for itself, before it changes anything
        self.optimizer.load_state_dict(self._names, optimizer)
        if random is not None:
            self.model.rng.bit_generator.state = random


def make_optimizer(model: Module, config: TrainConfig, groups: Groups = param_groups) -> Optimizer:
    """The one that the config names, over the model's parameter groups: those with and without decay."""
    members = groups(model, config.weight_decay)
    if config.optimizer == "sgd":
        return SGD(members, config.lr, momentum=config.momentum, nesterov=config.nesterov)
    adamw: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    if config.optimizer == "muon":
        return Muon(split_hidden(model, members, config.muon_lr / config.lr), config.lr, config.muon_momentum, **adamw)
    return AdamW(members, config.lr, **adamw)


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(value.data if isinstance(value, Tensor) else value) for name, value in figures.items()}


def batch_sums(model: Model, *batch: np.ndarray, loss: Loss) -> dict[str, float]:
    """The sums of a NumPy model's losses ("loss") and of their figures over a batch, dropout off, no gradients kept."""
    with evaluating(model), no_grad():
        total, figures = loss(model, *batch)
        return {"loss": total.item(), **numbers(figures)}


def batch_loss(model: Model, *batch: np.ndarray, loss: Loss | None = None) -> float:
    """The sum of a NumPy model's token losses over a batch in nats, dropout off, no gradients kept."""
    return batch_sums(model, *batch, loss=loss or ModelLoss())["loss"]


def outputs(model: Model, *batch: np.ndarray, function: Callable[..., Any] | None = None) -> np.ndarray:
    """What a NumPy model, or `function(model, ...)`, gives for a batch, dropout off, no gradients kept."""
    with evaluating(model), no_grad():
        return (model(*batch) if function is None else function(model, *batch)).data
