"""Mutated files for readers: whatever is in a file, a reader returns, or raises an error that it documents and that
names the file, in bounded time and memory.

    counts = fuzz(reader, {"report.json": b"...", "train.jsonl": b"..."}, folder, cases=2000)

A reader is a function of the folder that holds these files. For each case one of them is changed: bits, bytes and
stretches, or, where it is JSON (or lines of JSON), a value, a key or the nesting. A case is its number: the same one
gives the same files (`mutated_files`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SECONDS = 10.0  # for one case
MEGABYTES = 500  # that the process may grow by

WORDS = (
    b"\0", b"\xff", b"\xff\xfe", b"\xff\xfe\0\0", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r\n", b'"', b"\\",
    b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1",
    b"0" * 30, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"a" * 70_000, "\u0301".encode() * 200, b"../../etc/passwd",
    b"%s%n", b"#", b"=",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.5, 1e308, float("nan"), float("inf"),
    "", "a", "\ud800", "中", "9" * 400, "../x", [], [[]], {}, {"a": {}}, [1, "a", None], {"": 0}, "x" * 10_000,
    [0] * 1000,
)  # fmt: skip
DEEP = "[" * 500 + "]" * 500


class TooLong(BaseException):
    """A case that took longer than SECONDS. No Exception, so that no reader catches it."""


def fuzz(
    reader: Callable[[Path], Any],
    files: dict[str, bytes],
    folder: Path,
    cases: int,
    *,
    allowed: tuple[type[Exception], ...] = (ValueError, OSError),
    first: int = 0,
) -> Counter[str]:
    """Read `cases` mutations of `files` and count what came of it: "read", or the type of an allowed error. Raises
    AssertionError, with the numbers of the cases, for any other error, one that names no file, and one that takes too
    long or too much memory."""
    counts: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert reader(folder) is not Ellipsis  # as they are, they can be read
    before = peak_memory_mb()
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    for number in range(first, first + cases):
        changed = mutated_files(files, number)
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        try:
            counts[outcome(reader, folder, allowed, names)] += 1
        except Fault as fault:
            faults.setdefault(str(fault), []).append(number)
        for name in changed:
            (folder / name).write_bytes(files[name])
    if peak_memory_mb() - before > MEGABYTES:
        faults[f"grew by {peak_memory_mb() - before:,.0f} MB"] = []
    lines = [f"{len(numbers)} cases ({numbers[:5]}): {fault}" for fault, numbers in faults.items()]
    assert not faults, f"{sum(map(len, faults.values()))} of {cases} ended badly\n" + "\n".join(lines[:20])
    return counts


class Fault(Exception):
    """What must not be."""


def outcome(reader: Callable[[Path], Any], folder: Path, allowed: tuple[type[Exception], ...], names: list[str]) -> str:
    def too_long(*_: object) -> None:
        raise TooLong

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader(folder)
    except TooLong:
        raise Fault(f"took longer than {SECONDS} s") from None
    except allowed as error:
        if not any(name in str(error) for name in names):
            raise Fault(f"names no file: {type(error).__name__}: {str(error)[:150]}") from error
        return next(kind.__name__ for kind in allowed if isinstance(error, kind))
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {str(error)[:150]}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return "read"


def mutated_files(files: dict[str, bytes], number: int) -> dict[str, bytes]:
    """The files that case `number` changes, with their new contents."""
    rng = random.Random(number)
    name = rng.choice(sorted(files))
    data = files[name]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = (mutated_json(data, rng) if rng.random() < 0.5 else None) or mutated_bytes(data, rng)
    return {name: data}


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(8):
        case 0 if data:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:a]  # cut off
        case 2:
            return data[:a] + data[b:]
        case 3:
            return data[:b] + data[a:]  # a stretch twice
        case 4:
            return data[:a] + rng.randbytes(rng.randrange(1, 9)) + data[a:]
        case 5:
            return data[:a] + rng.randbytes(b - a) + data[b:]
        case 6:
            return data[:a] + bytes(b - a) + data[b:]
    return data[:a] + rng.choice(WORDS) + data[a:]


def mutated_json(data: bytes, rng: random.Random) -> bytes | None:
    """JSON, or one of several lines of JSON, with one part changed; None for what is no JSON."""
    lines, at = [data], 0
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        try:
            content = json.loads(lines[at])
        except (ValueError, RecursionError):
            return None
    places = list(places_in(content))
    if not places or rng.random() < 0.05:
        content = rng.choice(VALUES)
    else:
        within, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del within[key]
            case 1 if isinstance(within, dict):
                within[rng.choice(("", "x", "text", "\ud800", str(key) + "s"))] = within.pop(key)
            case 2:
                within[key] = "DEEP"
            case 3:
                within[key] = [within[key]]
            case _:
                within[key] = rng.choice(VALUES)
    try:
        text = json.dumps(content, ensure_ascii=rng.random() < 0.8).replace('"DEEP"', DEEP)
    except RecursionError:  # what could still be read
        return None
    lines[at] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def places_in(content: Any) -> Any:
    """Yield (container, key) of everything inside a JSON value."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys)[:50]:
        yield content, key
        yield from places_in(content[key])


def peak_memory_mb() -> float:
    import resource  # which Windows hasn't

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that no disk slows down: most of a case's time is opening files."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def report(name: str, counts: Counter[str], began: float) -> None:
    """A line for tests/README.md."""
    total = sum(counts.values())
    found = ", ".join(f"{kind} {n:,}" for kind, n in counts.most_common())
    print(f"\n{name}: {total:,} cases in {time.monotonic() - began:,.0f} s: {found}")
