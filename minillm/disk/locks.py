"""One writer at a time: locks of the system's, which are gone as soon as their process is, however it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .names import LOCK, TEMPORARY, AnyPath, marked


@contextmanager
def holding(path: AnyPath, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Be the only process, and the only thread, that writes `path`, a file or a folder that is there or will be.

    The lock is one of the system's on a file beside `path`, `.NAME.minillm-lock`, which says who holds it: it is gone
    as soon as that process is, however it ends. `doing` is what others are told ("training"). Not to be nested.
    wait: for so many seconds without that anything is written to `path` (0: not at all) another holder is waited for,
    and named on standard error. Raises BlockingIOError that names the holder, TimeoutError after waiting in vain.
    On a disk that has no locks (some network disks) it warns and goes on: there it is the user who must see to it.
    """
    path = Path(os.path.realpath(path))
    lock_file = path.with_name(f".{path.name}.{LOCK}")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = wait_for_lock(path, lock_file, wait)
    try:
        if descriptor is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since, "doing": doing}
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode())
        yield
    finally:
        with suppress(OSError):  # Windows can't remove an open file: there it stays, unlocked
            if descriptor is not None:
                os.unlink(lock_file)
        if descriptor is not None:
            os.close(descriptor)


def wait_for_lock(path: Path, lock_file: Path, wait: float) -> int | None:
    """The descriptor that holds the lock, None on a disk without locks. Raises as `holding` does."""
    began = progress_at = time.monotonic()
    size, say_at = 0, began + 1  # whoever waits less is not told
    while True:
        try:
            return lock(lock_file, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError as error:
            if error.errno is not None:
                raise  # the system's: the folder is gone, or nothing can be made in it (/proc)
            continue  # the holder removed it, as it was done, between our opening and locking it
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise  # no permission, no space: the path is named
            warnings.warn(f"the disk of {path} has no locks: see to it that no other process writes it.", stacklevel=4)
            return None
        holder, now, written = holder_of(lock_file), time.monotonic(), bytes_being_written(path)
        if written != size:
            size, progress_at = written, now
        if wait <= 0:
            raise BlockingIOError(f"{path} is in use by {holder}: wait until that is done, or choose another place.")
        if now - progress_at > wait:
            raise TimeoutError(
                f"{path} is in use by {holder}: waited {now - began:,.0f} s, and in the last {wait:,.0f} nothing was "
                "written to it. End that process if it hangs, or choose another place."
            )
        if now >= say_at:
            so_far = f", {size / 1e6:,.1f} MB written so far" if size else ""
            print(f"waiting for {path}: in use by {holder}{so_far}", file=sys.stderr, flush=True)
            say_at = now + 30
        time.sleep(0.05)


def holder_of(lock_file: Path) -> str:
    """Who holds a lock, in words."""
    try:
        holder = json.loads(lock_file.read_text(encoding="utf-8"))
        return "process {process} on {host} ({doing} since {since})".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not written its name yet


def bytes_being_written(path: Path) -> int:
    """The size of what is on its way to `path`, or was written beside it."""
    total = 0
    for folder in marked(path, TEMPORARY):
        for where, _, files in os.walk(folder):
            for name in files:
                with suppress(OSError):
                    total += os.path.getsize(os.path.join(where, name))
    return total


def lock(path: Path, flags: int = os.O_RDONLY) -> int:
    """Lock a file or folder until the descriptor that this returns is closed, or the process ends. Raises OSError if it
    can't, BlockingIOError if another holds the lock, FileNotFoundError if another file has the name by now."""
    if sys.platform == "win32" and path.is_dir():
        raise OSError("Windows has no lock for a folder.")
    descriptor = os.open(path, flags, 0o666)
    try:
        lock_descriptor(descriptor)
        still_there = False
        with suppress(FileNotFoundError):
            still_there = os.path.samestat(os.fstat(descriptor), os.stat(path))
        if not still_there:
            raise FileNotFoundError(f"{path} is another one by now, or gone.")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_descriptor(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a byte that nobody reads
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
