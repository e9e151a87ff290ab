"""Files and folders that are there whole or not at all, and what may be put into their place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .locks import holding, lock
from .markers import foreign_files, marker_text, read_marker
from .names import MARKER, OLD, TEMPORARY, AnyPath, marked, unused_name


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


@contextmanager
def whole_file(path: AnyPath) -> Iterator[Path]:
    """Give the place to write a file to, one of the same name in a folder beside `path`; then move it to `path`.

    The folder that `path` lies in is made if need be. A link is replaced, not followed. The file gets the mode that the
    umask gives, whatever wrote it. Whatever is raised inside leaves `path` as it was; an OSError names it.
    Raises IsADirectoryError for a folder, FileNotFoundError if nothing was written.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of the file to write.")
    with naming(path), folder_beside(path) as beside:
        temporary = beside / path.name
        yield temporary
        give_mode(temporary, beside)
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)


@contextmanager
def whole_folder(path: AnyPath, *, kind: str | None = None, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to write to; then flush all that is in it and move it to `path`.

    kind: what sort of folder this is ("corpus"); it gets a marker that says so and lists its files.
    replace: an older folder of this kind at `path`, in which there is nothing but files of ours, gives way when the new
    one is complete. Otherwise only an empty one may be there. A link to a folder is followed. Whatever is raised inside
    leaves `path` as it was. Raises FileExistsError if `path` is taken, before anything is written and again before the
    move.
    """
    if replace and kind is None:
        raise ValueError("whole_folder must be given the kind of folder that it may replace.")
    path = Path(os.path.realpath(path))
    old = find_whole_folder(path)
    if old not in (None, path):
        with suppress(OSError):  # another process may be putting its own there
            os.rename(old, path)
    check_free(path, kind if replace else None)
    with naming(path), folder_beside(path) as beside:
        temporary = beside / path.name
        temporary.mkdir()
        yield temporary
        files = [Path(folder, name) for folder, _, names in os.walk(temporary) for name in names]
        for file in files:
            give_mode(file, beside)
        if kind is not None:
            files.append(temporary / MARKER)
            names = sorted(file.relative_to(temporary).as_posix() for file in files)
            files[-1].write_text(marker_text(kind, names), encoding="utf-8")
        for file in files:
            flush_to_disk(file)
        for folder, _, _ in os.walk(temporary):
            flush_to_disk(Path(folder))
        check_free(path, kind if replace else None)
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


def remove_folder(path: AnyPath, kind: str) -> None:
    """Remove a folder of this kind, in one step, and then what was in it. Raises FileExistsError if it isn't ours."""
    path = Path(os.path.realpath(path))
    check_free(path, kind)
    with naming(path), folder_beside(path) as attic:
        os.rename(path, attic / path.name)


def claim(folder: AnyPath, kind: str, names: Iterable[str]) -> None:
    """Before writing `names` (of files, or of folders with a marker of their own) into a folder that grows: list them
    in its marker. The folder is made if need be; files of the user may lie in it, but not under these names.

    A kind may be narrower: "run of quickstart" is a "run" too. Raises FileExistsError if one of the names is taken by a
    file that isn't ours, or if the folder is one of another kind.
    """
    folder = Path(os.path.realpath(folder))
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file: give another name for the folder to write.")
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / MARKER, "noting what it writes", wait=60):
        made, ours = read_marker(folder) or (kind, set())
        if made != kind and not made.startswith(f"{kind} of "):
            raise FileExistsError(f"{folder} is a {made} (says its {MARKER}), not a {kind}: choose another folder.")
        for name in set(names) - ours:
            if os.path.lexists(folder / name) and read_marker(folder / name) is None:
                raise FileExistsError(
                    f"{folder / name} was not made by minillm, and is not overwritten: move it elsewhere, or choose "
                    "another folder."
                )
        if not ours.issuperset(names) or not ours:
            write_text(folder / MARKER, marker_text(made, {MARKER, *ours, *names}))


def check_free(path: Path, kind: str | None) -> None:
    """Raise FileExistsError unless a folder may be put at `path`: an empty one may give way, and one of this `kind`."""
    while True:
        with suppress(FileNotFoundError):  # another process may be replacing it: then look at what is there now
            there = os.stat(path) if path.exists() else None
            reason = reason_to_keep(path, kind) if there else None
            if there and reason and os.path.samestat(there, os.stat(path)):
                raise FileExistsError(reason)
            if not reason:
                return


def reason_to_keep(path: Path, kind: str | None) -> str | None:
    """Why no folder of this kind may replace what is at `path`, in a sentence; None if one may."""
    if path.is_file():
        return f"{path} is a file: give another name for the folder to write."
    if not any(path.iterdir()):
        return None
    if kind is None:
        return f"{path} is there already and not empty: choose another folder, or remove it first."
    marker = read_marker(path)
    if marker is None or marker[0] != kind:
        what = "was not made by minillm" if marker is None else f"is a {marker[0]}"
        return f"{path} {what}, so no {kind} may replace it: choose another folder, or remove it first."
    foreign = foreign_files(path)
    more = f" and {len(foreign) - 5:,} more" if len(foreign) > 5 else ""
    if foreign:
        return (
            f"{path} holds what minillm did not put there ({', '.join(foreign[:5])}{more}), so it is not replaced: "
            "move that elsewhere, or choose another folder."
        )
    return None


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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """See to it that an OSError of the system names `path`: a full disk names nothing, other faults our temporaries."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or TEMPORARY in str(error.filename)):
            error.filename = str(path)
            if error.filename2 is not None:
                del error.filename2  # of a rename
        raise


def give_mode(file: Path, folder: Path) -> None:
    """Give `file` the mode that the umask gives, as `folder` has it: safetensors, for one, writes 0600."""
    with suppress(OSError):  # a disk without modes
        os.chmod(file, folder.stat().st_mode & 0o666)


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
