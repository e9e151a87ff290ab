"""Scripts that a signal ends while processes of theirs are at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path


def end_script(script: str, folder: Path, number: int, *, first_only: bool = False) -> tuple[str, str, int]:
    """Run a script until it prints "going", then send the signal to all of its processes, as a terminal does, or to the
    first one only. Returns what it wrote after that to its output and as errors, and its status. Fails where a process
    is left."""
    (folder / "script.py").write_text(textwrap.dedent(script))
    process = subprocess.Popen(
        [sys.executable, str(folder / "script.py")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "going\n"
        (os.kill if first_only else os.killpg)(process.pid, number)
        out, err = process.communicate(timeout=60)
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        raise AssertionError("a process is left.")
    except ProcessLookupError:
        return out, err, process.returncode
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # or they would go on for days
        process.communicate()
        raise
