"""The engine: everything in a training step that differs between NumPy, a GPU and many GPUs.

The training loop is one (training/train.py). What it calls on an engine is listed in `Engine`; `NumpyEngine`
(numpy_engine.py) is the whole of it for NumPy, a few lines a method, and shows what each call means. Another engine
implements the same calls on its own arrays, and may keep losses and norms on its device until `read` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ..data import count_targets
from ..models.segments import check_starts, with_offsets

Model = Any  # a Module with `config` (a dataclass) and, on NumPy, `rng` (the generator of its dropout)
Groups = Callable[[Any, float], list[dict[str, Any]]]  # model and weight decay -> the optimizer's: see param_groups
Batch = tuple[np.ndarray, ...]  # what the model is called with, int64: its inputs (B, T), the targets last


class ProcessLost(RuntimeError):
    """Another process of the job has died, and this one cannot go on without it."""


class Loss(Protocol):
    """What training makes small, where that is not the model's own loss (`ModelLoss`): of preferences, rewards, ...

    The first axis of every array of a batch is the examples: threads and processes share them out.
    """

    def __call__(self, model: Model, *batch: Any) -> tuple[Any, dict[str, Any]]:
        """(loss, figures), scalars of the model's engine: the sum over the batch, and sums of what else the log should
        show, detached. The batch's arrays are the engine's, too: ndarrays, or tensors on its device."""

    def count(self, first: Any, /, *rest: Any) -> float:
        """What the sums of this batch are to be divided by: its targets, its pairs, ..."""


class ModelLoss:
    """The model's own loss of the targets, which stand last in a batch: cross-entropy, for most."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: Model, *batch: Any) -> tuple[Any, dict[str, Any]]:
        smoothing = self.label_smoothing if model.training else 0.0
        return model(*batch, reduction="sum", label_smoothing=smoothing), {}

    def count(self, *batch: Any) -> float:
        return count_targets(batch[-1])


class PackedLoss(ModelLoss):
    """The same of rows in which several texts stand that do not see each other, for a decoder that takes `segments`.

    A batch is ids (B, T), segments (B, T), maybe starts (B, K), and targets (B, T): see models/segments.py. The starts
    save our kernels work.
    """

    def __call__(self, model: Model, *batch: Any) -> tuple[Any, dict[str, Any]]:
        ids, *packed, targets = batch
        smoothing = self.label_smoothing if model.training else 0.0
        return model(ids, targets, segments=with_offsets(*packed), reduction="sum", label_smoothing=smoothing), {}

    def count(self, *batch: Any) -> float:
        """As ever. Raises ValueError for starts that are not those of the segments."""
        _, segments, *starts, targets = batch
        if starts:
            check_starts(segments, starts[0])
        return count_targets(targets)


class Batches(Protocol):
    """Training batches for ever, from a position that can be saved: a Batcher, or one around another."""

    ahead: bool  # whether a batch may be made before the step that it is for; not if the model writes it itself

    @property
    def row_tokens(self) -> float:
        """Tokens of a row, on average."""

    def next(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Engine(Protocol):
    """What the training loop asks of an engine. A loss or a norm may still be on its way: `read` waits for it."""

    name: str
    model: Model  # the one being trained
    loss: Loss
    rank: int  # of this process, 0 to world_size - 1; rank 0 writes the files
    world_size: int
    shards: Any  # by what each rank writes its part of a checkpoint (torch_shards.py); None: rank 0 writes all
    background: bool  # whether checkpoints are written while the training goes on

    def forward_backward(self, micro_batches: list[Batch]) -> Any:
        """Set the gradients of the mean loss over every token of every micro-batch of every rank (or what else the loss
        counts); return that loss."""

    def clip_gradients(self, max_norm: float) -> Any:
        """Scale the gradients to a norm of at most `max_norm` (0: leave them); return the norm before."""

    def step(self, lr: float) -> None:
        """One update of the weights with the learning rate `lr`; none if a gradient is not finite."""

    def read(self, *scalars: Any) -> tuple[float, ...]:
        """Python floats, the same on every rank, of what the methods above returned."""

    def batch_loss(self, *batch: np.ndarray) -> float:
        """The sum of a batch's losses, of tokens in nats; no gradient, dropout or label smoothing. Ranks share the
        rows."""

    def batch_sums(self, *batch: np.ndarray) -> dict[str, float]:
        """The same as "loss", and beside it the loss's figures."""

    def outputs(self, function: Callable[..., Any]) -> Callable[..., np.ndarray]:
        """What gives `function(model, *batch)`, a row for each of the batch's rows, as an array, computed as in a step
        but without dropout and gradients. The function gets the batch's arrays as a Loss does. Every rank asks for
        itself. The layers may change (adapters be switched off, ...) before `outputs` is called, but not after."""

    def rerun(self, micro_batches: list[Batch]) -> None:
        """The forward passes of a step once more, through `model` itself, whose layers somebody is looking at."""

    def agree(self, value: float) -> float:
        """The largest `value` of any rank, so that all stop, and decay their learning rate, together."""

    def batches(self, batcher: Batches) -> Batches:
        """The batcher itself, or something that makes its batches ahead of time and has its methods."""

    def gauges(self, tokens_per_second: float) -> dict[str, float]:
        """What the log should show of the last step: the loss's figures, "memory_gb", the most memory used so far in
        10⁹ bytes (of the device, where there is one), and "mfu", the share of its peak arithmetic rate that is used,
        where known."""

    def model_arrays(self) -> dict[str, np.ndarray]:
        """The weights by name, on rank 0; copies, where `background`. All must ask for them: each may hold a part."""

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """The same of the optimizer's state, "<parameter>.<state>"."""

    def random_state(self) -> dict[str, Any]:
        """The state of every random generator that a step draws from, as JSON."""

    def load(
        self, model: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray], random: dict[str, Any] | None
    ) -> None:
        """Take over a checkpoint's state; weights that are frozen may be left out, and stay as they are. Raises
        ValueError if anything does not fit, before anything is changed.
        `random` is None for a checkpoint that another engine wrote: its generators are not ours."""
