"""Debug mode: whoever writes into an array that a backward pass still needs is told at once.

An in-place change between forward and backward gives wrong gradients in silence. In debug mode every node makes the
arrays that it saves read-only, and what they are views of, until backward has been through it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

# What is called with every node of a graph that is made: debug_mode() adds `guard`, engines/recompute.py a list.
watching: ContextVar[tuple[Callable[[Any], None], ...]] = ContextVar("watching", default=())


@contextmanager
def debug_mode() -> Iterator[None]:
    """Inside, in this thread (other threads have their own, or a copy of this context), arrays that a backward pass
    will need are read-only until it has run: NumPy raises ValueError where they are written to."""
    before = watching.get()
    watching.set(before if guard in before else (guard, *before))
    try:
        yield
    finally:
        watching.set(before)


def guard(node: Any) -> None:
    """Make the arrays that a node saves read-only, as long as it has them."""
    node.frozen = Frozen(node.saved)


class Frozen:
    """Makes the arrays of a node's `saved` read-only. They become writeable again when the last node that needs their
    memory has been through backward, or was dropped."""

    __slots__ = ("chains",)

    def __init__(self, saved: tuple) -> None:
        self.chains: list[list[np.ndarray]] = []  # each array, what it is a view of, and so on to the memory's owner
        waiting: list[Any] = [saved]
        while waiting:
            item = waiting.pop()
            if isinstance(item, (tuple, list)):
                waiting.extend(item)
            elif isinstance(item, np.ndarray):
                self.chains.append([item])
                while isinstance(self.chains[-1][-1].base, np.ndarray):
                    self.chains[-1].append(self.chains[-1][-1].base)
        changes.append((freeze, self.chains))
        settle()

    def __del__(self) -> None:
        changes.append((release, self.chains))
        settle()


uses: dict[int, int] = {}  # id of an array that owns memory -> how many saved arrays in it wait for backward
frozen: dict[int, list[np.ndarray]] = {}  # the same id -> its arrays that are read-only because of us
changes: deque[tuple[Any, list[list[np.ndarray]]]] = deque()  # not yet done: freeze or release, and for which arrays
lock = threading.RLock()
settling = False


def settle() -> None:
    """Do all `changes`. One thread at a time, since threads share memory (a model's weights); and one call at a time in
    a thread: the garbage collector may drop a Frozen in the middle of this very loop, which then does it as well."""
    global settling
    with lock:
        while changes and not settling:
            settling = True
            try:
                change, chains = changes.popleft()
                for chain in chains:
                    change(chain)
            finally:
                settling = False


def freeze(chain: list[np.ndarray]) -> None:
    owner = id(chain[-1])
    uses[owner] = uses.get(owner, 0) + 1
    for array in reversed(chain):  # the owner first: later it is released first, as NumPy demands
        if array.flags.writeable:
            array.flags.writeable = False
            frozen.setdefault(owner, []).append(array)


def release(chain: list[np.ndarray]) -> None:
    owner = id(chain[-1])
    uses[owner] -= 1
    if not uses[owner]:
        del uses[owner]
        for array in frozen.pop(owner, []):
            array.flags.writeable = True
