"""One function over many items by all cores, results in order: for building a corpus, packing it, learning from it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import current_process, get_context, parent_process
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

START = "fork" if sys.platform == "linux" else "spawn"  # how a process begins: spawn imports the user's script anew


class ProcessKilled(OSError):
    """One of the processes of `in_order` was killed."""


def in_order(
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[Item],
    *,
    alone: int,
    processes: int | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with work(shared, item), in the order of the items.

    The first `alone` are done right here, since processes take a while to start; if more come, `processes` do those,
    two items each on their way, so that memory stays flat however many there are. By default there is one a core, but
    only where they are forked: a script that spawns processes must have its work under `if __name__ == "__main__"`.
    Raises what `work` raises, for the first item for which it does, ProcessKilled, and ValueError for a number of
    processes below 1.
    """
    processes = how_many(processes)
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
        raise ProcessKilled("one of the processes at work was killed, perhaps for want of memory.") from error
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def how_many(processes: int | None) -> int:
    """The number of processes that work where `processes` is asked for, None being the default of `in_order`."""
    if processes is None:
        return len(os.sched_getaffinity(0)) if START == "fork" and not current_process().daemon else 1
    if processes < 1:
        raise ValueError(f"processes must be at least 1, not {processes}.")
    return processes


worker: tuple[Callable[[Any, Any], Any], Any]  # in a worker: what it was started with


def start_worker(work: Callable[[Any, Any], Any], shared: Any) -> None:
    """What each process begins with. Ctrl-C is for the process that gathers the results; it ends the others, also where
    it is killed itself."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker = work, shared


def end_with_parent() -> None:
    """Wait until the process that began this one is gone: nobody would gather the results."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def work_on(item: Any) -> Any:
    work, shared = worker
    return work(shared, item)
