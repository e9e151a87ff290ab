"""How quickly a corpus is built of source code, by one process and by all cores, and how much memory that takes.

    python tests/bench/corpus_speed.py              # 30 and 227 MB, by one process and by all cores; some minutes
    python tests/bench/corpus_speed.py 5 --cores 1 2    # other sizes in MB, other numbers of processes

The source is that of Python's standard library and of the installed packages, or a sample of it. Memory is that of all
processes together, each page that they share counted once (PSS, ten times a second; Linux only). CPU time is that of
all processes, which other work on the machine disturbs less than a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cpu import Row

from minillm.data import build_corpus, environment_documents

SMALL, LARGE = 30, 227  # MB
GOAL = 5e6  # bytes a second, on two cores


@dataclass
class Build:
    megabytes: float
    processes: int
    n_bytes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int = 0

    def __str__(self) -> str:
        rates = f"{self.n_bytes / self.seconds / 1e6:5.2f} MB/s  {self.n_bytes / self.cpu_seconds / 1e6:5.2f} MB/CPU s"
        who = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return f"{self.n_bytes / 1e6:7.1f} MB  {who:12s} {rates}  {self.peak_bytes / 1e6:5.0f} MB of memory"


def bench_corpus(repeats: int) -> list[Row]:
    """Building by all cores, beside one process and beside the goal; memory for much text beside that for little."""
    cores = os.cpu_count() or 1
    pairs = [(in_a_process(SMALL, cores), in_a_process(SMALL, 1)) for _ in range(max(repeats // 7, 1))]
    ours, alone = (sorted(side, key=lambda one: one.seconds)[len(pairs) // 2] for side in zip(*pairs))
    large = in_a_process(LARGE, cores)
    name, memory = f"{large.n_bytes / 1e6:.0f} MB", f"{large.peak_bytes / 1e6:.0f} and {ours.peak_bytes / 1e6:.0f} MB"
    return [
        Row(f"{SMALL} MB of source into a corpus", ours.seconds, alone.seconds, "1 process", "B/s", ours.n_bytes),
        Row(f"{name} of source", large.seconds, large.n_bytes / GOAL, "the goal", "B/s", large.n_bytes, 1.0),
        Row(f"{name} beside {SMALL} MB: memory {memory}", large.peak_bytes, ours.peak_bytes, "", "", 0, 0.9),
    ]


def in_a_process(megabytes: float, processes: int) -> Build:
    """`build` in a process of its own, whose memory is watched, that of its workers included."""
    command = [sys.executable, __file__, str(megabytes), "--cores", str(processes), "--here"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    peak = 0
    while running.poll() is None:
        peak = max(peak, group_bytes(running.pid))
        time.sleep(0.1)
    assert running.stdout is not None and running.returncode == 0
    return Build(**{**json.loads(running.stdout.read()), "peak_bytes": peak})


def group_bytes(group: int) -> int:
    """The memory of a group of processes, what they share counted once."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and os.getpgid(int(folder.name)) == group:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass  # it has ended
    return total


def build(megabytes: float, processes: int) -> Build:
    """Build a corpus of so much source in this process."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        documents = environment_documents(max_bytes=int(megabytes * 1e6))
        report = build_corpus(documents, Path(folder) / "corpus", processes=processes)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Build(megabytes, processes, report.bytes_in, seconds, sum(one.ru_utime + one.ru_stime for one in used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megabytes", type=float, nargs="*", default=[SMALL, LARGE])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--here", action="store_true", help="one build in this process; its figures as JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(asdict(build(arguments.megabytes[0], arguments.cores[0]))))
        return
    for megabytes in arguments.megabytes:
        for processes in arguments.cores:
            print(in_a_process(megabytes, processes), flush=True)


if __name__ == "__main__":
    main()
