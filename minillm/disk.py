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

    with whole_folder(path, kind="corpus", replace=True) as temporary:
        ...                                         any files, written without ado: all are flushed at the end
    find_whole_folder(path)                         for its readers

    claim(folder, "run", names)                     before files are written into a folder that grows
    remove_folder(folder, "run")                    with all that is in it

    with holding(path, "training"):                 one writer at a time; others are told who it is, or wait

A folder can't replace another in one step. So the old one is renamed to `.NAME.1f09ab3c.minillm-old`, the new one takes
its place, and the old one is removed. A kill at the one instant when neither has the name leaves the old one, complete:
`find_whole_folder` finds it, and the next `whole_folder` puts it back first. Names without these marks are the user's.

So is every folder without a marker. Those that minillm made hold a file `.minillm.json`, which says of what kind they
are and which files in them are ours. Only a folder of the same kind that holds nothing else is ever replaced or
removed; a file that isn't listed (the user's thesis.tex) is named, and all stays as it is.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
import types
import typing
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

AnyPath = str | os.PathLike[str]
TEMPORARY, OLD, LOCK = "minillm-tmp", "minillm-old", "minillm-lock"
OURS = re.compile(rf"\..+\.({TEMPORARY}|{OLD}|{LOCK})")  # names that nobody else gives
MARKER = ".minillm.json"
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers drop into every folder


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
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise ValueError(f"{path} is not JSON, or was cut off ({path.stat().st_size} bytes): {error}.") from None


def check_fields(record: Any) -> None:
    """Raise ValueError, naming the field, unless every field of a dataclass made from JSON has the type of its hint.
    Numbers must be finite, whole ones within 64 bits."""
    for name, hint in typing.get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not fits(value, hint):
            raise ValueError(f"{name} is {str(value)[:50]!r} and no {getattr(hint, '__name__', hint)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a hint names, down to what is in it.

    >>> fits({"a": [1, 2]}, dict[str, list[int]]), fits({"a": [1, True]}, dict[str, list[int]])
    (True, False)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin in (list, tuple):
        return isinstance(value, origin) and all(fits(item, inner[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and -1e308 < value < 1e308
    if hint is int:
        return type(value) is int and -(2**63) <= value < 2**63
    return isinstance(value, hint)


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


def checksum(path: AnyPath) -> str:
    """The CRC-32 of a file, 8 hexadecimal digits: it differs for certain after any one flipped bit or damaged stretch
    of 32, and in all but one of 2^32 cases otherwise. It is no guard against somebody who forges a file.

    It reads 4.1 GB/s of cached file on one core, where SHA-256 does 1.8 with the CPU's help and about 0.4 without.
    """
    crc = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


# ---- a file, a folder


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


# ---- whose folder it is


def marker_text(kind: str, names: Iterable[str]) -> str:
    return json.dumps({"made_by": "minillm", "kind": kind, "files": sorted(names)}, ensure_ascii=False, indent=2) + "\n"


def read_marker(folder: Path) -> tuple[str, set[str]] | None:
    """(kind, names of what is ours in it) of a folder that minillm made; None for any other."""
    try:
        marker = read_json(folder / MARKER)
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or marker.get("made_by") != "minillm":
        return None
    kind, files = marker.get("kind"), marker.get("files")
    if not isinstance(kind, str) or len(kind) > 50 or not isinstance(files, list) or not fits(files, list[str]):
        return None
    if any("\ud800" <= letter <= "\udfff" for letter in "".join([kind, *files])):  # it could not be written again
        return None
    return kind, set(files)


def claim(folder: AnyPath, kind: str, names: Iterable[str]) -> None:
    """Before writing `names` (of files, or of folders with a marker of their own) into a folder that grows: list them
    in its marker. The folder is made if need be; files of the user may lie in it, but not under these names.

    A kind may be narrower: "run of quickstart" is a "run" too. Raises FileExistsError if one of the names is taken by a
    file that isn't ours, or if the folder is one of another kind.
    """
    folder = Path(os.path.realpath(folder))
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


def foreign_files(folder: Path) -> list[str]:
    """What in a folder that minillm made is not ours, by name: what its marker, and those of folders listed in it,
    don't list. Empty folders, and what file managers drop, don't count."""
    _, ours = read_marker(folder) or ("", set())
    foreign = []
    for where, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            path = Path(where, name)
            relative = path.relative_to(folder).as_posix()
            if name in folders and not path.is_symlink():
                if OURS.fullmatch(name):
                    folders.remove(name)
                elif relative in ours and read_marker(path):
                    folders.remove(name)
                    foreign += [f"{relative}/{inside}" for inside in foreign_files(path)]
            elif relative not in ours and name not in LITTER and not OURS.fullmatch(name):
                foreign.append(relative)
    return sorted(foreign)


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


# ---- one writer at a time


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
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
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


def lock(path: Path, flags: int = os.O_RDONLY) -> int:
    """Lock a file or folder until the descriptor that this returns is closed, or the process ends. Raises OSError if it
    can't, BlockingIOError if another holds the lock, FileNotFoundError if another file has the name by now."""
    if sys.platform == "win32" and path.is_dir():
        raise OSError("Windows has no lock for a folder.")
    descriptor = os.open(path, flags, 0o666)
    try:
        lock_descriptor(descriptor)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(f"{path} is another one by now.")
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
