"""Chapter 17's bookkeeping: memory that is counted, processes that are started and ended, runs of many sizes.

What the processes do stands in at_size_jobs.py, the pictures in at_size_pictures.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray

# --- processes ----------------------------------------------------------------------------------------------------


class JobFailed(RuntimeError):
    """A process that chapter 17 started has not done what it was started for; the message has its last words."""


@contextmanager
def started(commands: Sequence[Sequence[str]], folder: Path, environments: Sequence[Mapping[str, str]]) -> Iterator:
    """The processes of these commands, with what they print in `folder`. However the block ends, none of them is left:
    those that still run are killed, and all are waited for."""
    running: list[subprocess.Popen] = []
    try:
        for i, (command, extra) in enumerate(zip(commands, environments)):
            with (folder / f"out-{i}.txt").open("wb") as out:
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **extra}
                running.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def job(*arguments: str | Path) -> list[str]:
    """The command that starts a job of at_size_jobs.py."""
    return [sys.executable, "-m", "minillm.workshop.at_size_jobs", *map(str, arguments)]


def run_ranks(folder: Path, n_ranks: int = 2, seconds: float = 120) -> list[int]:
    """Start the ranks of a job and wait until all have ended; the exit code of each. What torchrun does for this on one
    machine is to set RANK and WORLD_SIZE, say where to meet, and look after the processes. Raises JobFailed where they
    take longer than `seconds`."""
    environments = [{"RANK": str(rank), "WORLD_SIZE": str(n_ranks)} for rank in range(n_ranks)]
    with started([job("ranks", folder)] * n_ranks, folder, environments) as running:
        wait_for(lambda: all(process.poll() is not None for process in running), seconds, folder, "the ranks")
        return [process.returncode for process in running]


def kill_in_save(folder: Path, where: str, seconds: float = 60) -> int:
    """Start a run that stops in its second save, kill it there, and give its exit code. Raises JobFailed where it never
    comes to that place."""
    with started([job("save", folder, where)], folder, [{}]) as (process,):
        arrived = folder / "here"
        wait_for(lambda: arrived.exists() or process.poll() is not None, seconds, folder, f"a run until {where!r}")
        if process.poll() is not None:
            raise JobFailed(f"the run ended before {where!r}, with code {process.returncode}: {last_words(folder)}")
        process.kill()
        return process.wait()


def wait_for(done: Callable[[], bool], seconds: float, folder: Path, what: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise JobFailed(f"{what}: not done after {seconds:g} seconds; they are ended. {last_words(folder)}")
        time.sleep(0.02)


def last_words(folder: Path, n_lines: int = 5) -> str:
    """The last lines that the processes of a folder printed."""
    said = []
    for path in sorted(folder.glob("out-*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-n_lines:]
        said.append(f"{path.stem}: " + (" / ".join(lines) or "nothing"))
    return "It printed " + "; ".join(said) + "."


def notes(folder: Path, parallel: str, n_ranks: int = 2) -> list[dict[str, Any]]:
    """What each rank noted of its step. Raises JobFailed where one has noted nothing."""
    paths = [folder / f"{parallel}-{rank}.json" for rank in range(n_ranks)]
    absent = [path.name for path in paths if not path.exists()]
    if absent:
        raise JobFailed(f"{absent[0]} is not there. {last_words(folder)}")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def arrays(folder: Path, name: str) -> Array:
    """All arrays of a file in one row, in the order of their names."""
    with np.load(folder / f"{name}.npz") as file:
        return flat({key: file[key] for key in file.files})


def flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.ravel(arrays[name]) for name in sorted(arrays)])


def off(found: Array, right: Array) -> float:
    """The length of the difference, as a share of the length of `right`."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))
