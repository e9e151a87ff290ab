"""Saving a run: what a checkpoint holds of it, and who writes that when.

By the first process, in whole arrays; or by each process its own part of every array (engines/torch_shards.py). While
the training waits; or, with engine.checkpoint = "async", from a copy of everything while it goes on: then what goes
wrong is said at the end of the step in which it is noticed, and the next save waits for the one before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import checksum, whole_folder
from ..engines.protocol import Batches, Engine
from ..models import config_to_dict
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .checkpoint import finish_checkpoint, save_checkpoint
from .run_folder import RunState, TrainingDiverged


class Saver:
    """Writes the checkpoints of a run; of the weights those named in `only`, if it is not None. Every rank has one, and
    they are asked together. On leaving its `with`, all that was begun is on the disk, or is given up."""

    def __init__(
        self,
        run: Engine,
        batcher: Batches,
        config: TrainConfig,
        tokenizer: Tokenizer | None,
        only: Collection[str] | None = None,
    ) -> None:
        self.run, self.batcher, self.config, self.tokenizer, self.only = run, batcher, config, tokenizer, only
        self.pending: Future[None] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if run.background else None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:  # of two, the first is the one to tell
                raise
        finally:
            if self.thread is not None:
                self.thread.shutdown()

    def save(self, folder: Path, state: RunState) -> None:
        """Write a checkpoint of the run as it is now. Raises OSError, with the one that was there untouched, and
        TrainingDiverged for a weight that is not finite; in the background both come later, by `wait`."""
        self.wait()
        content = {"config": config_to_dict(self.run.model.config), "state": self.content(state)}
        begin = self.begin_whole if self.run.shards is None else self.begin_shards
        finish = begin(folder, state, content)
        if self.thread is None:
            finish()
        else:
            self.pending = self.thread.submit(finish)

    def failed(self) -> bool:
        """Whether the save that was begun last has ended badly: `wait` says how."""
        return self.pending is not None and self.pending.done() and self.pending.exception() is not None

    def wait(self) -> None:
        """Wait until what was begun is on the disk. Raises what went wrong."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def content(self, state: RunState) -> dict[str, Any]:
        """What state.json keeps."""
        return {
            "run": asdict(state),
            "data": self.batcher.state_dict(),
            "engine": self.run.name,
            "random": self.run.random_state(),
            "tokenizer": self.tokenizer.fingerprint() if self.tokenizer is not None else None,
            "train_config": asdict(self.config),
        }

    def begin_whole(self, folder: Path, state: RunState, content: dict[str, Any]) -> Callable[[], None]:
        """Gather whole arrays, of which the first process has copies then; what is left to do is for it to write."""
        model, optimizer = self.run.model_arrays(), self.run.optimizer_arrays()
        if self.run.rank != 0:
            return nothing
        model = {name: array for name, array in model.items() if self.only is None or name in self.only}
        for name, array in {**model, **optimizer}.items():
            if not np.isfinite(array).all():
                raise not_finite(f"{name} {array.shape}", folder, state)
        return partial(save_checkpoint, folder, model=model, optimizer=optimizer, tokenizer=self.tokenizer, **content)

    def begin_shards(self, folder: Path, state: RunState, content: dict[str, Any]) -> Callable[[], None]:
        """Begin to write each process's part, in a folder that the first has made."""
        shards: Any = self.run.shards
        weights, optimizer = shards.tensors()
        weights = {name: tensor for name, tensor in weights.items() if self.only is None or name in self.only}
        name = shards.first_not_finite({**weights, **optimizer})
        if name:
            raise not_finite(name, folder, state)
        with ExitStack() as stack:
            new = shards.together(partial(self.make_folder, stack, folder))[0]
            written = shards.write(new, weights, optimizer)
            return partial(self.finish_shards, stack.pop_all(), new, folder, written, content)

    def make_folder(self, stack: ExitStack, folder: Path) -> Path | None:
        if self.run.rank != 0:
            return None
        return stack.enter_context(whole_folder(folder, kind="checkpoint", replace=True))

    def finish_shards(
        self, stack: ExitStack, new: Path, folder: Path, written: Future[Any], content: dict[str, Any]
    ) -> None:
        """Wait for all parts, and move the folder to its place; the first process does, when it has all checksums."""
        shards: Any = self.run.shards
        with stack:  # where something is raised, the folder that was begun goes
            files = shards.wait(written, new, folder)
            sums: dict[str, str] = {}
            for of_one in shards.together(partial(checksums, files)):
                sums |= of_one
            shards.together(partial(self.put_in_place, stack, new, sums, content))

    def put_in_place(self, stack: ExitStack, new: Path, sums: dict[str, str], content: dict[str, Any]) -> None:
        if self.run.rank != 0:
            return
        if absent := sums.keys() - set(os.listdir(new)):
            raise OSError(
                f"{sorted(absent)[0]} was written by another process, and is not here: with shards, the run folder "
                "must be on a disk that all machines of the job share."
            )
        finish_checkpoint(new, tokenizer=self.tokenizer, sums=sums, **content)
        stack.close()


def checksums(files: list[Path]) -> dict[str, str]:
    return {path.name: checksum(path) for path in files}


def nothing() -> None:
    """What is left to do where another process writes."""


def not_finite(what: str, folder: Path, state: RunState) -> TrainingDiverged:
    return TrainingDiverged(
        f"step {state.step}: {what} holds nan or infinity, though the loss did not show it yet. {folder} stays as it "
        "was at the last save. Try a lower learning rate, a longer warmup or grad_clip."
    )
