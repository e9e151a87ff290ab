"""What this machine has to give: free memory, and how fast its matrix products are."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import numpy as np


def free_memory() -> int | None:
    """Bytes that a process can still get without swapping; None where the system does not tell."""
    if sys.platform.startswith("linux"):
        found = [line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line]
        free = int(found[0]) * 1024 if found else None
        return min(filter(None, (free, container_limit())), default=None)
    if sys.platform == "darwin":
        size, length = ctypes.c_uint64(), ctypes.c_size_t(8)
        ctypes.CDLL(None).sysctlbyname(b"hw.memsize", ctypes.byref(size), ctypes.byref(length), None, 0)
        return size.value or None  # all of it: macOS takes back what it keeps of files
    return None


def container_limit() -> int | None:
    """Bytes left of what a container (cgroup v2) may use; None without such a limit."""
    try:
        most, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if most == "max" else max(int(most) - int(used), 0)


def products_per_second(size: int = 512, seconds: float = 0.1) -> float:
    """Floating-point operations per second of float32 matrix products, as fast as they are just now."""
    a = np.ones((size, size), np.float32)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
