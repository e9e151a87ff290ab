"""Several cores for one step: each thread computes the loss and the gradients of some rows of the batch.

NumPy uses one core for everything but matrix products, and shares out those, even when they are so small that its
threads mostly wait for each other: on a machine that has something else to do as well, a step then takes ten times as
long. Here each product has one thread, and the batch is shared out instead. Every thread has a replica of the model:
the same weights, the very arrays, but gradients and random generator of its own. (Threads in Python do run side by
side here: NumPy lets go of the interpreter's lock while it computes.)
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue as Queue
from typing import Any

import numpy as np

from ..data import require_targets
from ..numpy_ops.cores import blas_threads, carried, limit_blas_threads
from ..optim import param_groups
from ..settings import TrainConfig
from ..tensor import Parameter
from .numpy_engine import NumpyEngine, batch_loss, batch_sums, numbers, outputs
from .protocol import Batch, Groups, Loss, Model
from .recompute import recomputing


class Replicas:
    """`threads` threads (0: as many as matrix products would use), each with a replica of `model`; the first has the
    model itself. Where the threads of products cannot be limited (see numpy_ops/cores.py), 0 means 1."""

    def __init__(self, model: Model, threads: int = 0):
        n = threads or blas_threads() or 1
        self.models: list[Model] = [model, *(replica(model) for _ in range(n - 1))]
        self.queues: list[Queue] = [Queue() for _ in range(n)]
        for queue in self.queues:
            # A daemon: at a second Ctrl-C the process ends in the middle of a step, which may take minutes. (A
            # ThreadPoolExecutor would wait for its end.)
            threading.Thread(target=work, args=(queue,), name="rows", daemon=True).start()
            weakref.finalize(self, queue.put, None)

    def on_rows(self, function: Callable[..., Any], batch: Batch, /, **options: Any) -> list[Any]:
        """`function(replica, *rows, **options)` of all threads, each with its share of the rows, in their order."""
        shares = zip(self.models, zip(*(np.array_split(array, len(self.models)) for array in batch)))
        return self.on_all([partial(function, model, *rows, **options) for model, rows in shares if len(rows[0])])

    def on_all(self, functions: list[Callable[[], Any]]) -> list[Any]:
        """What the functions give, each called by a thread of its own."""
        with limit_blas_threads(1):
            tasks: list[Future] = []
            for queue, function in zip(self.queues, functions):
                tasks.append(Future())
                queue.put((tasks[-1], carried(function)))
            # For all, also where one raises: nothing may go on computing. By and by: a signal that the system gives to
            # another thread does not wake this one, which has the handler, and Ctrl-C would wait for the step's end.
            while wait(tasks, timeout=0.1).not_done:
                pass
            return [task.result() for task in tasks]

    def each(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> None:
        """`function(*item)` for all items, each thread taking the next when it is free: give the largest first."""
        rest = iter(list(items))

        def take(_: Model) -> None:
            for item in rest:
                function(*item)

        self.on_all([partial(take, model) for model in self.models])

    def batch_loss(self, *batch: np.ndarray, loss: Loss | None = None) -> float:
        """The sum of a batch's token losses in nats; no gradient, no dropout."""
        return sum(self.on_rows(batch_loss, batch, loss=loss))

    def outputs(self, *batch: np.ndarray, function: Callable[..., Any] | None = None) -> np.ndarray:
        """What the model, or `function(model, ...)`, gives for a batch, a row for each of its rows."""
        return np.concatenate(self.on_rows(outputs, batch, function=function))


def work(queue: Queue) -> None:
    """The life of a thread: it does what comes out of the queue, until that is None."""
    while (item := queue.get()) is not None:
        future, run = item
        try:
            future.set_result(run())
        except BaseException as error:
            future.set_exception(error)
        del item, future, run  # or they would live until the next


class ThreadedNumpyEngine(NumpyEngine):
    """A NumpyEngine that shares every batch among threads, at most one for each sequence of a batch.

    Results are those of NumpyEngine but for the order in which sums are taken, and the dropout drawn; with one number
    of threads they are the same every time.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        threads: int = 0,
        groups: Groups = param_groups,
        loss: Loss | None = None,
        recompute: str = "none",
    ) -> None:
        super().__init__(model, config, groups, loss, recompute)
        self.replicas = Replicas(model, min(threads or blas_threads() or 1, config.batch_size))

    def forward_backward(self, micro_batches: list[Batch]) -> float:
        models = self.replicas.models
        for own, *others in zip(*(model.parameters() for model in models)):
            for other in others:
                other.requires_grad = own.requires_grad  # which may have been frozen, or not, since the last step
        for model in models:
            model.train()
            model.zero_grad()
        n_tokens = require_targets(sum(self.loss.count(*batch) for batch in micro_batches))
        total, sums = 0.0, Counter[str]()
        for batch in micro_batches:
            # The model's generator, which checkpoints save, starts those of the replicas anew: a resumed run draws
            # the same dropout.
            for model, seed in zip(models[1:], self.model.rng.integers(2**63, size=len(models) - 1)):
                model.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
            how: dict[str, Any] = {"scale": 1 / n_tokens, "loss": self.loss, "recompute": self.recompute}
            for loss, figures in self.replicas.on_rows(add_gradients, batch, **how):
                total += loss
                sums.update(figures)
        self.replicas.each(add_up, zip(*(model.parameters() for model in models)))
        self.figures = {name: value / n_tokens for name, value in sums.items()}
        return total

    def move(self) -> None:
        moves = sorted(self.optimizer.to_move(), key=lambda move: -move[1].data.size)
        self.replicas.each(self.optimizer.move, moves)

    def batch_sums(self, *batch: np.ndarray) -> dict[str, float]:
        sums = Counter[str]()
        for part in self.replicas.on_rows(batch_sums, batch, loss=self.loss):
            sums.update(part)
        return dict(sums)

    def outputs(self, function: Callable[..., Any]) -> Callable[..., np.ndarray]:
        replicas = Replicas(self.model, len(self.replicas.models))  # of its layers as they are now
        return partial(replicas.outputs, function=function)


def add_gradients(
    model: Model, *rows: np.ndarray, scale: float, loss: Loss, recompute: str = "none"
) -> tuple[float, dict[str, float]]:
    """What a thread does in a training step: add the gradients of the rows' losses times `scale`; their sum, and those
    of their figures."""
    with recomputing(recompute, model):
        total, figures = loss(model, *rows)
    total = total * scale
    total.backward()
    return total.item(), numbers(figures)


def add_up(parameter: Parameter, *others: Parameter) -> None:
    """The sum of a parameter's gradients in all replicas, which then have none."""
    for other in others:
        if other.grad is not None:
            parameter.grad = other.grad if parameter.grad is None else parameter.grad + other.grad
            other.grad = None


def replica(model: Model) -> Model:
    """A copy of a model that shares its weights' arrays, with gradients and a random generator of its own."""
    memo: dict[int, Any] = {id(p): Parameter(p.data) for p in model.parameters()}
    memo[id(model.rng)] = np.random.default_rng()
    return copy.deepcopy(model, memo)
