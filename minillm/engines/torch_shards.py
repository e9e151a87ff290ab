"""Checkpoints in shards, written: each process its own part of every tensor, if asked for while training goes on.

torch.distributed.checkpoint agrees among the processes who writes what (of a part that several hold, one of them), and
writes safetensors; engines/shards.py reads them. Its messages travel on a group of their own, on processors, beside
those of the training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import staging
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from ..settings import EngineConfig
from .shards import OPTIMIZER, SHARD, WEIGHTS
from .torch_machine import LOW_PRECISION

T = TypeVar("T")
Tensors = dict[str, torch.Tensor]


class ShardWriter:
    """What the processes of a job write a checkpoint with. `tensors` gives those of the weights and of the optimizer's
    state, by name, as this process holds them; `guard` says in plain words what a broken connection means.

    Raises ValueError for a PyTorch that cannot.
    """

    def __init__(
        self,
        settings: EngineConfig,
        rank: int,
        tensors: Callable[[], tuple[Tensors, Tensors]],
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        writer = getattr(dcp, "HuggingFaceStorageWriter", None)
        if writer is None or "save_distributed" not in inspect.signature(writer).parameters:
            raise ValueError(
                f"[engine]: checkpoint = {settings.checkpoint!r}: PyTorch {torch.__version__} cannot write safetensors "
                "in parts yet. Take a newer one, or checkpoint = 'whole'."
            )
        self.asynchronous = settings.checkpoint == "async"
        self.rank = rank
        self.tensors = tensors
        self.guard = guard
        self.group = dist.new_group(backend="gloo")

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each process, in their order. Where it raises on one, OSError is raised on all."""
        mine: tuple[Any, str] = (None, "")
        try:
            mine = work(), ""
        except Exception as error:
            mine = None, f"{type(error).__name__}: {error}"
        found: list[Any] = [None] * dist.get_world_size(self.group)
        with self.guard():
            dist.all_gather_object(found, mine, self.group)
        for rank, (_, wrong) in enumerate(found):
            if wrong:
                raise OSError(f"process {rank} of {len(found)} could not save: {wrong}")
        return [value for value, _ in found]

    def write(self, folder: Path, weights: Tensors, optimizer: Tensors) -> Future[Any]:
        """Begin to write the shards of this process into `folder`, which every process sees. The tensors may change as
        soon as this returns; the result raises OSError on all processes where one of them cannot write."""
        places = dict.fromkeys(weights, WEIGHTS) | dict.fromkeys(optimizer, OPTIMIZER)
        tensors = self.share(weights) | self.share(optimizer)
        writer = dcp.HuggingFaceStorageWriter(str(folder), places, save_distributed=True)
        if self.asynchronous:
            # Left to itself, async_save takes a writer of files for what copies, which does so by deepcopy, drops that
            # and copies again: half as much more at the peak. This copies each tensor once, before it returns.
            stager = staging.DefaultStager(staging.StagingOptions(False, False, False, False))
            try:
                begun = dcp.async_save(tensors, storage_writer=writer, process_group=self.group, async_stager=stager)
            finally:
                stager.close()  # what writes the copies holds them
            return begun  # type: ignore[return-value]
        written: Future[Any] = Future()
        try:
            written.set_result(dcp.save(tensors, storage_writer=writer, process_group=self.group))
        except BaseException as error:
            written.set_exception(error)
        return written

    def share(self, tensors: Tensors) -> Tensors:
        """What this process has a part in: of tensors that are cut up, all; of those that every process holds whole,
        its own stretch, so that none copies what another writes. In float32 what NumPy has no numbers for."""
        mine, n_ranks = {}, dist.get_world_size(self.group)
        n_bytes = sum(tensor.nbytes for tensor in tensors.values() if not isinstance(tensor, DTensor))
        before = 0
        for name, tensor in tensors.items():
            if not isinstance(tensor, DTensor):
                owner = min(before * n_ranks // max(n_bytes, 1), n_ranks - 1)
                before += tensor.nbytes
                if owner != self.rank:
                    continue
            mine[name] = tensor.float() if tensor.dtype in LOW_PRECISION.values() else tensor
        return mine

    def wait(self, written: Future[Any], folder: Path, place: Path) -> list[Path]:
        """The shards that this process has written into `folder`, which is to be moved to `place`. Raises OSError, on
        all processes, where one of them could not."""
        try:
            with self.guard():
                written.result()
        except CheckpointException as error:
            rank, (cause, _) = next(iter(error.failures.items()))
            why = f"{place} stays as it was: {type(cause).__name__}: {cause}"
            raise OSError(f"process {rank} could not write its part, and {why}") from cause
        mine = f"shard-{self.rank + 1:05d}-"
        return [path for path in folder.iterdir() if path.name.startswith(mine) and SHARD.fullmatch(path.name)]

    def first_not_finite(self, tensors: Tensors) -> str:
        """The name of the first tensor, of any process's part, that holds nan or infinity; "" where none does."""
        parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors.values()]
        fine = torch.stack([part.isfinite().all().to(parts[0].device) for part in parts]).tolist()
        mine = [name for name, good in zip(tensors, fine) if not good]
        return next((names[0] for names in self.together(mine.copy) if names), "")
