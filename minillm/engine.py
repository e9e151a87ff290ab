"""The engine: everything in a training step that differs between NumPy, a GPU and many GPUs.

`train.py` has one loop. What it calls on an engine is listed in `Engine`; `NumpyEngine` below is the whole of it for
NumPy, a few lines a method, and shows what each call means. Another engine implements the same calls on its own
arrays, and may keep losses and norms on its device until `read` asks for them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .data import IGNORE
from .memory import keep_freed_memory
from .nn import Module
from .optim import SGD, AdamW, Optimizer, clip_grad_norm_, param_groups
from .tensor import no_grad

if TYPE_CHECKING:
    from .train import TrainConfig

Model = Any  # a Module with `config` (a dataclass) and, on NumPy, `rng` (the generator of its dropout)
Batch = tuple[np.ndarray, ...]  # what the model is called with, int64: its inputs (B, T), the targets last


class ProcessLost(RuntimeError):
    """Another process of the job has died, and this one cannot go on without it."""


class Batches(Protocol):
    """Training batches for ever, from a position that can be saved: a Batcher, or one around another."""

    def next(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Engine(Protocol):
    """What the training loop asks of an engine. A `Scalar` is a number that may still be on its way (see `read`)."""

    name: str
    model: Model  # the one being trained
    rank: int  # of this process, 0 to world_size - 1; rank 0 writes the files
    world_size: int

    def forward_backward(self, micro_batches: list[Batch]) -> Any:
        """Set the gradients of the mean loss over every token of every micro-batch of every rank; return that loss."""

    def clip_gradients(self, max_norm: float) -> Any:
        """Scale the gradients to a norm of at most `max_norm` (0: leave them); return the norm before."""

    def step(self, lr: float) -> None:
        """One update of the weights with peak learning rate `lr`; none if a gradient is not finite."""

    def read(self, *scalars: Any) -> tuple[float, ...]:
        """Python floats, the same on every rank, of what the methods above returned."""

    def batch_loss(self, *batch: np.ndarray) -> float:
        """The sum of a batch's token losses in nats; no gradient, dropout or label smoothing. Ranks share the rows."""

    def rerun(self, micro_batches: list[Batch]) -> None:
        """The forward passes of a step once more, through `model` itself, whose layers somebody is looking at."""

    def agree(self, value: float) -> float:
        """The largest `value` of any rank, so that all stop, and decay their learning rate, together."""

    def batches(self, batcher: Batches) -> Batches:
        """The batcher itself, or something that makes its batches ahead of time and has its methods."""

    def gauges(self, tokens_per_second: float) -> dict[str, float]:
        """What the log should show of the machine: "memory_gb", the most memory used so far in 10⁹ bytes (of the
        device, where there is one), and "mfu", the share of its peak arithmetic rate that is used, where known."""

    def model_arrays(self) -> dict[str, np.ndarray]:
        """The weights by name, complete on every rank that writes."""

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """The optimizer's state, "<parameter>.<state>"."""

    def random_state(self) -> dict[str, Any]:
        """The state of every random generator that a step draws from, as JSON."""

    def load(
        self, model: dict[str, np.ndarray], optimizer: dict[str, np.ndarray], random: dict[str, Any] | None
    ) -> None:
        """Take over a checkpoint's state. Raises ValueError if anything does not fit, before anything is changed.

        `random` is None for a checkpoint that another engine wrote: its generators are not ours.
        """


class NumpyEngine:
    """Training on this machine's processor, with our own autograd."""

    name = "numpy"
    rank = 0
    world_size = 1

    def __init__(self, model: Model, config: TrainConfig):
        keep_freed_memory()
        self.model = model
        self.label_smoothing = config.label_smoothing
        self.optimizer = make_optimizer(model, config)
        self._names = {id(p): name for name, p in model.named_parameters()}

    def forward_backward(self, micro_batches: list[Batch]) -> float:
        self.model.train()
        self.model.zero_grad()
        # The mean over all tokens of the step. A mean of the micro-batches' means would be another number as soon as
        # one holds more padding than another: so each adds its sum of losses, divided by the count of all.
        n_tokens = sum(count_targets(targets) for *_, targets in micro_batches)
        total = 0.0
        for batch in micro_batches:
            loss = self.model(*batch, reduction="sum", label_smoothing=self.label_smoothing) * (1 / n_tokens)
            loss.backward()  # gradients of several calls add up
            total += loss.item()
        return total

    def clip_gradients(self, max_norm: float) -> float:
        self.grad_norm = clip_grad_norm_(self.model.parameters(), max_norm or math.inf)
        return self.grad_norm

    def step(self, lr: float) -> None:
        if not math.isfinite(self.grad_norm):
            return
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def read(self, *scalars: float) -> tuple[float, ...]:
        return scalars

    def batch_loss(self, *batch: np.ndarray) -> float:
        return batch_loss(self.model, *batch)

    def rerun(self, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            batch_loss(self.model, *batch)

    def agree(self, value: float) -> float:
        return value

    def batches(self, batcher: Batches) -> Batches:
        return batcher

    def gauges(self, tokens_per_second: float) -> dict[str, float]:
        return {"memory_gb": peak_memory_gb()}

    def model_arrays(self) -> dict[str, np.ndarray]:
        return self.model.state_dict()

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return self.optimizer.state_dict(self._names)

    def random_state(self) -> dict[str, Any]:
        return self.model.rng.bit_generator.state

    def load(
        self, model: dict[str, np.ndarray], optimizer: dict[str, np.ndarray], random: dict[str, Any] | None
    ) -> None:
        if random is not None:
            np.random.default_rng().bit_generator.state = random  # on a generator to throw away: raises if it cannot be
        self.optimizer.check_state_dict(self._names, optimizer)
        self.model.load_state_dict(model)  # checks for itself, before it changes anything
        self.optimizer.load_state_dict(self._names, optimizer)
        if random is not None:
            self.model.rng.bit_generator.state = random


def make_optimizer(model: Module, config: TrainConfig) -> Optimizer:
    """AdamW or SGD over the model's two parameter groups (with and without decay), as the config says."""
    groups: Iterable[dict[str, Any]] = param_groups(model, config.weight_decay)
    if config.optimizer == "sgd":
        return SGD(groups, config.lr, momentum=config.momentum, nesterov=config.nesterov)
    return AdamW(groups, config.lr, betas=(config.beta1, config.beta2), eps=config.eps)


def batch_loss(model: Model, *batch: np.ndarray) -> float:
    """The sum of a NumPy model's token losses over a batch in nats, dropout off, no gradients kept."""
    was_training = model.training
    model.eval()
    with no_grad():
        total = model(*batch, reduction="sum").item()
    model.train(was_training)
    return total


def count_targets(targets: np.ndarray) -> int:
    """How many positions count, that is, are not IGNORE."""
    return int(np.count_nonzero(targets != IGNORE))


def peak_memory_gb() -> float:
    """The largest resident size this process has had, in 10⁹ bytes; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9  # macOS counts bytes, Linux KiB
