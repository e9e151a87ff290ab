"""How the NumPy side compares with its peers on this machine's CPU: one run, interleaved, as ratios.

    python tests/bench/cpu.py                 # everything, ten minutes; needs the dev extra; leave the machine alone
    meanwhile python tests/bench/cpu.py --only train    # one group: see GROUPS

The groups' rows stand beside this file: training_speed.py, memory.py, decode_speed.py, tokenizer_speed.py,
corpus_speed.py.

A ratio is the peer's time divided by ours: above 1 means that we are faster. Each pair is timed turn by turn, A B A B,
and the medians are compared, so that a change in the machine's speed hits both alike.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass
class Row:
    what: str
    ours: float  # seconds
    peer: float
    peer_name: str
    unit: str  # what `amount` counts
    amount: float  # work done per call
    goal: float = 0.0  # the ratio that is to be reached; 0: none is set

    def __str__(self) -> str:
        goal = f"  goal {self.goal:.2f}" if self.goal else ""
        return (
            f"{self.what:44s} {self.amount / self.ours:12,.0f} {self.unit:8s} {self.peer_name:14s}"
            f" {self.amount / self.peer:12,.0f} {self.unit:8s} ratio {self.peer / self.ours:5.2f}{goal}"
        )


def interleave(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median seconds of each, by the clock, called in turn, after one warm-up call of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, call in enumerate((ours, peer)):
            start = clock()
            call()
            if turn:
                times[side].append(clock() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


GROUPS = (
    "train", "families", "compile", "memory", "recompute", "decode", "encode", "wordpiece", "cores", "bpe", "corpus",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, help="one group instead of all")
    parser.add_argument("--repeats", type=int, default=20, help="timed turns of each side (default: 20)")
    arguments = parser.parse_args()

    import corpus_speed  # beside this file
    import decode_speed
    import tokenizer_speed
    import training_speed

    benches = (
        training_speed.bench_train,
        training_speed.bench_families,
        training_speed.bench_compile,
        training_speed.bench_memory,
        training_speed.bench_recompute,
        decode_speed.bench_decode,
        tokenizer_speed.bench_one_thread,
        tokenizer_speed.bench_wordpiece,
        tokenizer_speed.bench_cores,
        tokenizer_speed.bench_training,
        corpus_speed.bench_corpus,
    )
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.processor() or platform.machine()}")
    for name, bench in zip(GROUPS, benches):
        if arguments.only in (None, name):
            start = time.perf_counter()
            for row in bench(arguments.repeats):
                print(row, flush=True)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
