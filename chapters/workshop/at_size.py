"""Chapter 17's bookkeeping: memory that is counted, processes that are started and ended, runs of many sizes.

What the processes do stands in at_size_jobs.py, the pictures in at_size_pictures.py.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from minillm.costs.scaling import ScalingLaw
from minillm.costs.sizes import n_parameters
from minillm.data import corpus_text
from minillm.disk import write_json
from minillm.disk.processes import in_order
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.recompute import recomputing
from minillm.models import GPT, GPTConfig
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.settings import TrainConfig
from minillm.training.schedules import lr_factor
from tqdm import tqdm

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


def run_ranks(folder: Path, n_ranks: int = 2, seconds: float = 300) -> list[int]:
    """Start the ranks of a job and wait until all have ended; the exit code of each. What torchrun does for this on one
    machine is to set RANK and WORLD_SIZE, say where to meet, and look after the processes. Raises JobFailed where they
    take longer than `seconds`."""
    environments = [{"RANK": str(rank), "WORLD_SIZE": str(n_ranks)} for rank in range(n_ranks)]
    with started([job("ranks", folder)] * n_ranks, folder, environments) as running:
        wait_for(lambda: all(process.poll() is not None for process in running), seconds, folder, "the ranks")
        return [process.returncode for process in running]


def kill_in_save(folder: Path, where: str, seconds: float = 120) -> int:
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


def said_of_the_loss(folder: Path) -> str:
    """What the first rank said when the other had died. Raises JobFailed where it said nothing."""
    path = folder / "lost-0.json"
    if not path.exists():
        raise JobFailed(f"rank 0 has not noticed that another rank has died. {last_words(folder)}")
    return str(json.loads(path.read_text(encoding="utf-8"))["said"])


def arrays(folder: Path, name: str) -> Array:
    """All arrays of a file in one row, in the order of their names."""
    with np.load(folder / f"{name}.npz") as file:
        return flat({key: file[key] for key in file.files})


def flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.ravel(arrays[name]) for name in sorted(arrays)])


def off(found: Array, right: Array) -> float:
    """The length of the difference, as a share of the length of `right`."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))

# --- memory and time ----------------------------------------------------------------------------------------------


def kept_bytes(model: Any, batch: tuple[Array, Array], how: str = "none") -> int:
    """The memory that stands when the forward pass of a NumPy model is done and the backward pass has not begun, beyond
    what stood before: what the graph keeps. `how`: what is computed again, as in EngineConfig.recompute."""
    model.train()
    with traced() as now:
        before = now()
        with recomputing(how, model):
            loss = model(*batch)
        found = now() - before
    del loss
    return found


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Inside, a function tells how many bytes Python and NumPy have asked for and not given back."""
    gc.collect()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def most_bytes(engine: Any, micro_batches: list[tuple[Array, Array]]) -> int:
    """The most memory that gradients and activations take at any moment of `forward_backward`."""
    with traced():
        tracemalloc.reset_peak()
        engine.forward_backward(micro_batches)
        return tracemalloc.get_traced_memory()[1]


def seconds_for(runs: Sequence[Callable[[], Any]], times: int) -> list[float]:
    """For each of some functions the median processor time of a few calls, taken in turn, after one that is not
    counted. It is that of all threads together: let there be one."""
    found = np.empty((times, len(runs)))
    for i in range(-1, times):
        for j, run in enumerate(runs):
            began = time.process_time()
            run()
            if i >= 0:
                found[i, j] = time.process_time() - began
    return [float(seconds) for seconds in np.median(found, axis=0)]


def product_speed(size: int = 512, times: int = 15) -> float:
    """Floating-point operations per second of a large float32 matrix product, the fastest of a few."""
    a = np.ones((size, size), np.float32)
    best = np.inf
    for _ in range(times):
        began = time.process_time()
        a @ a
        best = min(best, time.process_time() - began)
    return 2.0 * size**3 / best


# --- runs of many sizes -------------------------------------------------------------------------------------------

CONTEXT = 32
ROWS = 8
CHARACTERS = 64  # the commonest, and one id for all others
EVALUATED = {"smoke": 64, "cpu": 1024, "gpu": 2048}  # held-out windows
SEEDS = {"smoke": 2, "cpu": 3, "gpu": 5}
Sweep = dict[float, tuple[int, ...]]
# For each compute (6 N D operations), the widths that are tried; the last compute is kept out of all fits.
SWEEPS: dict[str, Sweep] = {
    "smoke": {5e7: (4, 8, 16), 1e8: (4, 8, 16)},
    "cpu": {5e8: (4, 6, 8, 12, 16), 15e8: (6, 8, 12, 16, 24), 45e8: (8, 12, 16, 24, 32)},
    "gpu": {5e8: (4, 6, 8, 12, 16), 15e8: (6, 8, 12, 16, 24), 45e8: (8, 12, 16, 24, 32), 135e8: (12, 16, 24, 32, 48)},
}
PLANTED = ScalingLaw(E=1.2, A=30.0, B=33.0, alpha=0.5, beta=0.5)  # where runs are too short to show one
BEYOND = {"smoke": 2e8, "cpu": 135e8, "gpu": 405e8}  # the compute that the fits are asked about
WIDTHS = (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128)


def shape(width: int) -> GPTConfig:
    """A GPT of that many features: one layer, heads of at least 16 features, or one."""
    return GPTConfig(CHARACTERS, CONTEXT, n_layers=1, n_heads=max(1, width // 16), d_model=width)


def characters(text: Path) -> tuple[Array, Array]:
    """The ids of all characters of a corpus, train and val: the commonest by their rank in train, 0 for the others."""
    train, val = (corpus_text(text, split) for split in ("train", "val"))
    common = [c for c, _ in Counter(train).most_common(CHARACTERS - 1)]
    table = {c: i for i, c in enumerate(common, start=1)}
    first, second = (np.array([table.get(c, 0) for c in part], dtype=np.int64) for part in (train, val))
    return first, second


def one_run(ids: tuple[Array, Array], task: tuple[float, int, int, int]) -> dict[str, Any]:
    """A GPT trained for a compute, a width, a seed, and judged on held-out windows: what is known of it then.

    The rate falls with the width, and the schedule ends with the run, whatever its length.
    """
    compute, width, seed, evaluated = task
    train, val = ids
    config, rng = shape(width), np.random.default_rng(seed)
    model = GPT(config, rng)
    for p in model.parameters():
        if p.data.ndim == 2:  # GPT-2's 0.02 suits 768 features, and is small for ours: see chapter 07
            p.data[...] = rng.standard_normal(p.data.shape) * 0.5 / np.sqrt(p.data.shape[1])
    n = n_parameters(config)
    steps = max(4, round(compute / 6 / n / (ROWS * CONTEXT)))
    rate = 0.16 / width
    settings = TrainConfig(max_steps=steps, lr=rate, warmup_steps=max(1, steps // 10), beta2=0.98)
    engine = NumpyEngine(model, settings)
    for step in range(steps):
        windows = train[rng.integers(0, len(train) - CONTEXT, ROWS)[:, None] + np.arange(CONTEXT + 1)]
        engine.forward_backward([(windows[:, :-1], windows[:, 1:])])
        engine.clip_gradients(1.0)
        engine.step(rate * lr_factor("cosine", step, steps, settings.warmup_steps, 0.1))
    places = np.random.default_rng(99).integers(0, len(val) - CONTEXT, evaluated)
    windows = val[places[:, None] + np.arange(CONTEXT + 1)]
    loss = engine.batch_loss(windows[:, :-1], windows[:, 1:]) / (evaluated * CONTEXT)
    short = engine.batch_loss(windows[:, :-1].reshape(-1, 1), windows[:, 1:].reshape(-1, 1)) / (evaluated * CONTEXT)
    found = {"compute": compute, "width": width, "seed": seed, "n": n, "tokens": steps * ROWS * CONTEXT, "steps": steps}
    return {**found, "loss": loss, "last_only": short}  # of the same characters, with the last one before them in view


def train_all(scale: str, text: Path, sweep: Sweep, title: str) -> list[dict[str, Any]]:
    """A run for each compute, width and seed, by all cores, each on one thread: the losses depend on neither."""
    ids = characters(text)
    tasks = [(c, w, s, EVALUATED[scale]) for c, widths in sweep.items() for w in widths for s in range(SEEDS[scale])]
    tasks.sort(key=lambda task: task[1])  # the slow ones first
    with limit_blas_threads(1):
        done = in_order(one_run, ids, tasks, alone=0)
        found = [run for _, run in tqdm(done, desc=title, total=len(tasks), leave=False)]
    return sorted(found, key=lambda run: (run["compute"], run["width"], run["seed"]))


def fill_runs(folder: Path, scale: str, text: Path, sweep: Sweep) -> None:
    """Train them and write the table."""
    write_json(folder / "runs.json", train_all(scale, text, sweep, "runs of many sizes"))


def pairs_loss(ids: tuple[Array, Array], evaluated: int) -> float:
    """The loss on the same windows of a table of pairs, counted in train, each pair once more than it occurs."""
    train, val = ids
    counts = np.ones((CHARACTERS, CHARACTERS))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    places = np.random.default_rng(99).integers(0, len(val) - CONTEXT, evaluated)
    windows = val[places[:, None] + np.arange(CONTEXT + 1)]
    return float(-np.log(counts / counts.sum(axis=1, keepdims=True))[windows[:, :-1], windows[:, 1:]].mean())


def columns(runs: list[dict[str, Any]], *names: str) -> list[Array]:
    """Columns of the table of runs."""
    return [np.array([run[name] for run in runs], dtype=np.float64) for name in names]


def nearest_width(n: float) -> int:
    """The width, of those that we make, whose GPT is nearest in size to `n` parameters."""
    return min(WIDTHS, key=lambda width: abs(np.log(n_parameters(shape(width)) / n)))


# --- an exercise's disk -------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process has been killed, so to speak, at the operation that raises this."""


class Disk:
    """Files by name. At its operation number `kill_at` (the first is 1) the process dies: a write has then written half
    of its data, a rename and a removal have not happened."""

    def __init__(self, files: Mapping[str, str], kill_at: int | None = None) -> None:
        self.files, self.kill_at, self.operations = dict(files), kill_at, 0

    def write(self, name: str, data: str) -> None:
        """Write over what is there."""
        self.files[name] = data[: len(data) // 2]
        self.count()
        self.files[name] = data

    def rename(self, old: str, new: str) -> None:
        """`new` is replaced if it is there. Raises KeyError where there is no `old`."""
        data = self.files[old]
        self.count()
        del self.files[old]
        self.files[new] = data

    def remove(self, name: str) -> None:
        """Raises KeyError where there is no such file."""
        self.files[name]
        self.count()
        del self.files[name]

    def count(self) -> None:
        self.operations += 1
        if self.operations == self.kill_at:
            raise Killed
