"""One function over many items by all cores, results in order: for packing a corpus and for learning from one."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import current_process, get_context
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

START = "fork" if sys.platform == "linux" else "spawn"  # how a process begins: spawn imports the user's script anew


def in_order(
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[Item],
    *,
    alone: int,
    processes: int | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with work(shared, item), in the order of the items.

    The first `alone` are done right here, since processes take a while to start; if more come, `processes` do those,
    two items each on their way, so that memory stays flat however many there are. By default there is one a core, but
    only where they are forked: a script that spawns processes must have its work under `if __name__ == "__main__"`.
    Raises what `work` raises, for the first item for which it does, and OSError if a process is killed.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if START == "fork" and not current_process().daemon else 1
    items = iter(items)
    for item in islice(items, alone if processes > 1 else None):
        yield item, work(shared, item)
    sent: deque[tuple[Item, Future[Result]]] = deque()
    pool = None
    try:
        while True:
            for item in islice(items, 2 * processes - len(sent)):
                pool = pool or ProcessPoolExecutor(processes, get_context(START), start_worker, (work, shared))
                with warnings.catch_warnings():  # of forking beside threads: those of BLAS, which the workers don't use
                    warnings.simplefilter("ignore", DeprecationWarning)
                    sent.append((item, pool.submit(work_on, item)))
            if not sent:
                return
            item, result = sent.popleft()
            yield item, result.result()
    except BrokenProcessPool as error:
        raise OSError("one of the processes at work was killed, perhaps for want of memory.") from error
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


worker: tuple[Callable[[Any, Any], Any], Any]  # in a worker: what it was started with


def start_worker(work: Callable[[Any, Any], Any], shared: Any) -> None:
    """What each process begins with. Ctrl-C is for the process that gathers the results; it ends the others."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = work, shared


def work_on(item: Any) -> Any:
    work, shared = worker
    return work(shared, item)
