"""Runs stages one after another, each under its own time limit, and keeps what they found, whatever happens to them.

A stage is a command that adds rows to a file as soon as it has them (`tests/bench/result_rows.py`). What it prints goes
to a log. A summary is made of the rows and written again, whole, whenever there is a new one. So a call that is cut off
in the middle, even by kill -9, leaves all that was measured until then. A stage that hangs is ended with all its
processes, and one that fails does not stop the next.

Needs only Python: it runs where torch cannot be imported, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import result_rows

LEAST = 10.0  # seconds that must be left for a stage to begin
POLL = 0.2  # seconds between two looks at a stage
GRACE = 3.0  # seconds between SIGTERM and SIGKILL
SHOWN = 12  # lines of a failed stage's output that its row keeps
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Summarize = Callable[[list[dict[str, Any]]], str]


@dataclass(frozen=True)
class Stage:
    """A command, the seconds that it may take, and what its environment has besides."""

    name: str
    command: Sequence[str]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)
    afterwards: Callable[[], object] | None = None  # called when it has ended, however it has


def run_stages(stages: Sequence[Stage], out: Path, seconds: float, summarize: Summarize) -> list[str]:
    """Run them in at most so many seconds together; returns the names of those that did not end well."""
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    deadline = time.monotonic() + seconds
    results = out / "rows.jsonl"
    wrong = []
    for stage in stages:
        began, left = time.monotonic(), deadline - time.monotonic()
        if left < LEAST:
            how, note = "left out: no time", ""
        else:
            print(f"=== {stage.name}, at most {min(stage.limit, left):.0f} s", flush=True)
            how, note = run_stage(stage, out, min(stage.limit, left), summarize)
            if stage.afterwards is not None:
                stage.afterwards()
        took = time.monotonic() - began
        result_rows.append(results, stage=stage.name, ended=how, seconds=round(took, 1), note=note)
        result_rows.replace(out / "summary.md", summarize(result_rows.read(results)))
        print(f"    {how}, {took:.0f} s\n{note}".rstrip(), flush=True)
        if how != "done":
            wrong.append(stage.name)
    return wrong


def run_stage(stage: Stage, out: Path, limit: float, summarize: Summarize) -> tuple[str, str]:
    """How a stage ended ("done", or what went wrong), and the end of its output: a line, or more if it went wrong."""
    results, log = out / "rows.jsonl", out / "log.txt"
    environment = {**os.environ, **stage.environment}
    with log.open("ab") as stream:
        stream.write(f"=== {stage.name}: {' '.join(stage.command)}\n".encode())
        stream.flush()
        began = stream.tell()
        end, seen = time.monotonic() + limit, -1
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(stage.command, env=environment, preexec_fn=own_group, **pipes)
        how = ""
        try:
            while not how:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(POLL)
                    how = "done" if code == 0 else f"FAILED, exit status {code}"
                if not how and time.monotonic() > end:
                    how = f"ENDED at its limit of {limit:.0f} s"
                size = results.stat().st_size if results.exists() else 0
                if size != seen:
                    seen = size
                    result_rows.replace(out / "summary.md", summarize(result_rows.read(results)))
        finally:
            end_group(process)
    with log.open("rb") as stream:
        stream.seek(began)
        printed = stream.read().decode(errors="replace").splitlines()
    return how, "\n".join(line[:300] for line in printed[-(1 if how == "done" else SHOWN) :])


def own_group() -> None:
    """In a new process: a group of its own, to be ended as one (not a session: what runs in one survives the call on
    some machines), and a signal when the process that started it is gone."""
    os.setpgrp()
    dies_with_parent()


def dies_with_parent() -> None:
    """SIGKILL for this process when its parent has ended, even by kill -9 (Linux: prctl, PR_SET_PDEATHSIG)."""
    if LIBC is not None:
        LIBC.prctl(1, signal.SIGKILL)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a stage and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stop(signum: int, frame: object) -> None:
    """SIGTERM ends this program as Ctrl-C does: the stage is ended first."""
    raise KeyboardInterrupt
