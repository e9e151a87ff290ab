"""How many threads NumPy's matrix products use: read it, and change it for a while.

NumPy leaves products to a BLAS library, in most installations OpenBLAS, whose functions for this are found in the
library that is loaded already. With another BLAS (MKL, Apple's Accelerate) nothing is found and nothing is changed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
