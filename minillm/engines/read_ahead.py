"""Batches made ahead of time, so that a GPU never waits for them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from .protocol import Batch, Batches


class ReadAhead:
    """A Batcher whose next `depth` batches are made by a thread while the GPU computes, in pinned memory if asked.

    Its position is that of the batches handed out, as if nothing had been read ahead.
    """

    ahead = True

    def __init__(self, batcher: Batches, depth: int, *, pin: bool):
        self.batcher = batcher
        self.depth = depth
        self.pin = pin
        self.position = batcher.state_dict()
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self.waiting: deque[Future[tuple[Batch, dict[str, Any]]]] = deque()

    @property
    def row_tokens(self) -> float:
        return self.batcher.row_tokens

    def next(self) -> Batch:
        while len(self.waiting) <= self.depth:
            self.waiting.append(self.thread.submit(self.draw))
        batch, self.position = self.waiting.popleft().result()
        return batch

    def draw(self) -> tuple[Batch, dict[str, Any]]:
        """The next batch, and the batcher's position after it."""
        batch = self.batcher.next()
        if self.pin:
            batch = tuple(pinned(array) for array in batch)
        return batch, self.batcher.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return self.position

    def load_state_dict(self, state: dict[str, Any]) -> None:
        while self.waiting:
            self.waiting.popleft().result()
        self.batcher.load_state_dict(state)
        self.position = self.batcher.state_dict()


def pinned(array: np.ndarray) -> np.ndarray:
    """A copy in page-locked memory, which a GPU can fetch by itself."""
    return torch.from_numpy(array).pin_memory().numpy()
