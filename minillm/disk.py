"""Files and folders that are there whole or not at all, and JSON in and out: the only place that knows how.

Whoever writes a file in place can be killed halfway, or fill the disk, and then neither the old file nor the new one is
there. So everything is written beside its place first, in a folder named `.NAME.1f09ab3c.minillm-tmp`, flushed to the
disk, and moved into place by one rename, which happens or doesn't. An error removes that folder and leaves what was
there untouched. A killed process can't remove its folder: the next one that writes the same name does. It knows it by
the mark in its name, and that nobody writes there by a lock, which dies with its process (Windows and some network
disks have no such lock: there the folder stays).

    write_json(path, content), write_text(path, text), write_bytes(path, data)     a small file at once

    with whole_file(path) as temporary:             a file of any size; written to `temporary`, which has its name
        save_file(arrays, temporary)

    with ExitStack() as stack:                      several files: none takes its name before all are written
        temporary = [stack.enter_context(whole_file(path)) for path in paths]

    with whole_folder(path, replace=True) as temporary:
        ...                                         any files, written without ado: all are flushed at the end
    find_whole_folder(path)                         for its readers

A folder can't replace another in one step. So the old one is renamed to `.NAME.1f09ab3c.minillm-old`, the new one takes
its place, and the old one is removed. A kill at the one instant when neither has the name leaves the old one, complete:
`find_whole_folder` finds it, and the next `whole_folder` puts it back first. Names without these marks are the user's.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

AnyPath = str | os.PathLike[str]
TEMPORARY, OLD = "minillm-tmp", "minillm-old"


# ---- JSON, text, bytes


def read_json(path: AnyPath) -> Any:
    """The contents of a JSON file. Raises FileNotFoundError, or ValueError if it is cut off or no JSON."""
    path = Path(path)
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else None
        raise FileNotFoundError(
            f"there is no file {path}; " + ("nor its folder." if beside is None else f"its folder holds {beside[:20]}.")
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read: no such file should be.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, or was cut off ({path.stat().st_size} bytes): {error}.") from None


def write_json(path: AnyPath, content: Any) -> None:
    """Write JSON with real characters in it (中, not an escape), whole or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_text(path: AnyPath, text: str) -> None:
    """Write a UTF-8 file with the line ends that `text` has, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


# ---- a file, a folder


@contextmanager
def whole_file(path: AnyPath) -> Iterator[Path]:
    """Give the place to write a file to, one of the same name in a folder beside `path`; then move it to `path`.

    The folder that `path` lies in is made if need be. A link is replaced, not followed. Whatever is raised inside
    leaves `path` as it was. Raises IsADirectoryError for a folder, FileNotFoundError if nothing was written.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of the file to write.")
    with folder_beside(path) as beside:
        temporary = beside / path.name
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)


@contextmanager
def whole_folder(path: AnyPath, *, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to write to; then flush all that is in it and move it to `path`.

    replace: an older folder at `path`, with all that is in it, gives way when the new one is complete. Otherwise only
    an empty one may be there. A link to a folder is followed. Whatever is raised inside leaves `path` as it was.
    Raises FileExistsError if `path` is taken, before anything is written and again before the move.
    """
    path = Path(os.path.realpath(path))
    old = find_whole_folder(path)
    if old not in (None, path):
        with suppress(OSError):  # another process may be putting its own there
            os.rename(old, path)
    check_free(path, replace)
    with folder_beside(path) as beside:
        temporary = beside / path.name
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                flush_to_disk(Path(folder, name))
            flush_to_disk(Path(folder))
        check_free(path, replace)
        if replace:
            take_place(temporary, path, beside)
        else:
            with suppress(OSError):
                path.rmdir()  # an empty one
            os.rename(temporary, path)
        flush_to_disk(path.parent)


def find_whole_folder(path: AnyPath) -> Path | None:
    """The complete folder of this name: `path`, or after a kill between two renames the older one; None if neither."""
    path = Path(os.path.realpath(path))
    if path.is_dir():
        return path
    older = marked(path, OLD)
    return older[-1] if older else None


def check_free(path: Path, replace: bool) -> None:
    """Raise FileExistsError unless a folder may be put at `path`."""
    if path.is_file():
        raise FileExistsError(f"{path} is a file: give another name for the folder to write.")
    if not replace and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"{path} is there already and not empty: choose another folder, or remove it first.")


def take_place(new: Path, path: Path, attic: Path) -> None:
    """Rename `new` to `path`, and into `attic` the folder that was there before."""
    outdated = marked(path, OLD)  # of no use as soon as `path` is there
    while new.exists():
        outdated.append(unused_name(path, OLD))
        try:
            with suppress(FileNotFoundError):
                os.rename(path, outdated[-1])
            os.rename(new, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue  # another process put its own there between the two renames
            with suppress(OSError):
                os.rename(outdated[-1], path)
            raise
    for folder in outdated:
        with suppress(OSError):
            os.rename(folder, attic / folder.name)  # to be removed there: one marked as OLD is always whole


def flush_to_disk(path: Path) -> None:
    """fsync a file, or the names in a folder, so that a power cut after a rename can't leave an empty file behind."""
    is_folder, on_windows = path.is_dir(), sys.platform == "win32"
    if is_folder and on_windows:  # which can't open a folder
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not is_folder:  # not every disk can flush a folder
            raise
    finally:
        os.close(descriptor)


# ---- the folder beside


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, removed at the end; those that killed processes left there are removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in marked(path, TEMPORARY):
        with suppress(OSError):  # somebody writes there, or it can't be known
            descriptor = lock(left_behind)
            shutil.rmtree(left_behind, ignore_errors=True)
            os.close(descriptor)
    folder, lock_held = locked_folder(path)
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            if lock_held is not None:
                os.close(lock_held)


def locked_folder(path: Path) -> tuple[Path, int | None]:
    """A new folder beside `path` and the lock on it, None on a disk without locks."""
    while True:
        folder = unused_name(path, TEMPORARY)
        folder.mkdir()
        try:
            return folder, lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for one left behind, just before it was locked
        except OSError:
            return folder, None


def lock(folder: Path) -> int:
    """Lock a folder until the descriptor that this returns is closed, or the process ends. Raises OSError if it can't,
    BlockingIOError if another holds the lock."""
    if sys.platform == "win32":
        raise OSError("Windows has no lock for a folder.")
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            raise FileNotFoundError(f"{folder} is another folder by now.")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def unused_name(path: Path, mark: str) -> Path:
    """A name beside `path` that nobody has, marked as ours."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{mark}")


def marked(path: Path, mark: str) -> list[Path]:
    """The folders beside `path` whose names `unused_name` gave, the last one renamed at the end."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.{mark}")
    found = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    found.append((entry.stat().st_ctime, entry.path))
    return [Path(name) for _, name in sorted(found)]
