"""Keep freed memory for the next array, instead of giving it back to the operating system at once.

A training step makes and drops the same large arrays again and again. The C library returns every large block that is
freed and asks for a new one a moment later, and the system then fills each fresh page with zeros when it is first
touched: about a quarter of the processor time of a small model's step. Settings of GNU's malloc (mallopt(3)) change
that; other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # from <malloc.h>


def keep_freed_memory() -> bool:
    """Apply the settings to this process, for good; False where the C library has none. The process then keeps the
    most memory that it ever used until it ends, which is what a training run does anyway."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return (
        mallopt(M_MMAP_THRESHOLD, 32 << 20) == 1  # take blocks up to 32 MiB, its largest value, from the heap
        and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1  # do not shrink the heap when its end is free
        and mallopt(M_TOP_PAD, 64 << 20) == 1  # grow it in steps of 64 MiB
        and mallopt(M_ARENA_MAX, 1) == 1  # one heap for all threads: what one has freed, another may take
    )


def peak_memory_gb() -> float:
    """The largest resident size this process has had, in 10⁹ bytes; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9  # macOS counts bytes, Linux KiB
