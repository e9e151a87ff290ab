"""The machine's cores, as NumPy uses them: how many threads a matrix product has, and work side by side.

NumPy leaves products to a BLAS library, in most installations OpenBLAS, whose functions for this are found in the
library that is loaded already. With another BLAS (MKL, Apple's Accelerate) nothing is found and nothing is changed. All
else NumPy does on one core; it lets go of the interpreter's lock meanwhile, so that `side_by_side` can share it out.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np


def blas_threads() -> int | None:
    """The number of threads of a large product: as many as cores, or as OPENBLAS_NUM_THREADS says; None if unknown."""
    functions = openblas_functions()
    return functions[0]() if functions is not None else None


@contextmanager
def limit_blas_threads(n: int) -> Iterator[None]:
    """Inside, products of the whole process use at most `n` threads, where the BLAS library is OpenBLAS. Where limits
    overlap, in one thread or in several, the lowest of those in force counts."""
    functions = openblas_functions()
    if functions is None:
        yield
        return
    get, set_to = functions
    with lock:
        if not limits:
            limits.append(get())
        limits.append(n)
        set_to(min(limits))
    try:
        yield
    finally:
        with lock:
            limits.remove(n)
            set_to(min(limits))
            if len(limits) == 1:
                limits.clear()


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the tasks give, computed by as many threads, the first by this one; each of their products has one thread.
    Where one raises, the others are waited for: nothing goes on computing."""
    if len(tasks) == 1:
        return [tasks[0]()]
    with limit_blas_threads(1):
        others = [begin(task) for task in tasks[1:]]
        try:
            first = tasks[0]()
        finally:
            while wait(others, timeout=0.1).not_done:  # by and by, so that Ctrl-C wakes it: see engines/threads.py
                pass
        return [first, *(other.result() for other in others)]


def begin(task: Callable[[], Any]) -> Future[Any]:
    """Have a thread of the pool do it; at the end of Python, when there is none any more, this one."""
    run = carried(task)
    try:
        return pool().submit(run)
    except RuntimeError:
        done: Future[Any] = Future()
        try:
            done.set_result(run())
        except BaseException as error:
            done.set_exception(error)
        return done


def carried(task: Callable[[], Any]) -> Callable[[], Any]:
    """The task for another thread, with what holds in this one: no_grad, debug mode and NumPy's settings for warnings
    (which belong to the context from NumPy 2 on)."""
    context, warned = contextvars.copy_context(), np.geterr()

    def run() -> Any:
        with np.errstate(**warned):
            return context.run(task)

    return run


def shares(n: int, parts: int) -> list[slice]:
    """`n` things cut into so many parts, or `n`, as equal as they can be."""
    parts = max(1, min(parts, n))
    return [slice(*edges) for edges in pairwise(n * i // parts for i in range(parts + 1))]


@functools.cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="side-by-side")


def forget() -> None:
    """In a forked process: the pool's threads stayed behind, and perhaps one that held the lock. Limits stay."""
    global lock
    lock = threading.Lock()
    pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)

lock = threading.Lock()
limits: list[int] = []  # the number before there was a limit, and the limits in force; empty when there are none


@functools.cache
def openblas_functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's functions to get and to set the number of threads, in the library that NumPy uses."""
    for path in openblas_files():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads64_",
                     "openblas_{}_num_threads"):  # fmt: skip
            if hasattr(library, name.format("get")):
                get, set_to = getattr(library, name.format("get")), getattr(library, name.format("set"))
                get.restype, set_to.argtypes, set_to.restype = ctypes.c_int, [ctypes.c_int], None
                return get, set_to
    return None


def openblas_files() -> list[Path]:
    """Files that may be NumPy's OpenBLAS: what its wheel brings along, then what this process has loaded."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    found = [path for folder in folders for path in sorted(folder.glob("*openblas*"))]
    if sys.platform.startswith("linux"):
        lines = os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines()  # names in any encoding
        found += [Path(line.split(maxsplit=5)[5]) for line in lines if "openblas" in line]
    return found
