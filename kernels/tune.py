"""Find the fastest configurations of the attention kernels on the card at hand.

    python -m minillm.kernels.tune                       # head sizes 64 and 128 in bfloat16
    python -m minillm.kernels.tune --head-size 256 --dtype float32 --out tuned.json
    python -m minillm.kernels.tune --candidates FILE     # only what minillm.kernels.preselect chose: a minute or two

All candidates are compiled first, by all cores. Then it times them for every kernel, causal, at 1024 and at 4096
tokens, the fastest once more in turn with the one in use, which must be beaten by GAIN, and writes the winners to the
file that `configs.lookup` reads first. A candidate that fails, or that does not compute what the shipped configuration
does, is named and passed over; a bar shows how much is left. Each winner is kept at once, so that an interrupted run
goes on where it was; --again tunes anew. It prints each winner beside the shipped configuration. To give them to
everybody with such a card, copy the file, with its name, into kernels/tuned/; what is better on any card of the
architecture goes into the table in `configs.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

try:
    import torch
    import triton
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f'the kernels cannot be tuned: {error}. pip install -e ".[triton]" brings it, on Linux.')
from torch import Tensor
from tqdm import tqdm

from ..disk import write_json
from . import flash_fast, flash_fast_backward
from .attention import BACKWARD, FORWARD
from .call import Call, interpreted
from .configs import KERNELS, Config, key_of, lookup, read_tuned, tuned_file
from .offline import SHARED_LIMIT
from .preselect import DTYPES, HEADS, Job, candidates, compile_beforehand, read_candidates

LENGTHS = (1024, 4096)
TOKENS = 16384  # in a batch, whatever the length
GAIN = 0.01  # of the time, by which a winner must beat the configuration in use
TURNS = 3  # in which the two are compared

Note = Callable[[Config, list[float]], object]  # is told of each candidate and its milliseconds, one for each length


def problem(
    kernel: str, batch: int, tokens: int, head_size: int, dtype: torch.dtype, device: str
) -> Callable[[Config], Tensor | tuple[Tensor, ...]]:
    """A function that runs one kernel with a given configuration, on random tensors that it keeps."""
    torch.manual_seed(0)
    shape = (batch, tokens, HEADS if device == "cuda" else 2, head_size)
    q, k, v, do = (torch.randn(shape, device=device).to(dtype).transpose(1, 2) for _ in range(4))
    call = Call(scale=1 / math.sqrt(head_size), right=0)
    if kernel in FORWARD:
        return partial(FORWARD[kernel], q[:, :, -1:] if kernel == "decode" else q, k, v, call)
    out, lse = flash_fast.forward(q, k, v, call)
    delta = flash_fast_backward.launch_delta(do, out, lse, call)
    return partial(BACKWARD[kernel], do, q, k, v, lse, delta, call)


def milliseconds(run: Callable[[], object], device: str) -> float:
    """The median time of one run, after a warm-up that also compiles."""
    if device == "cuda":
        return triton.testing.do_bench(run, warmup=25, rep=100, return_mode="median")
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def tune(
    kernel: str,
    head_size: int,
    dtype: torch.dtype,
    device: str,
    lengths: tuple[int, ...],
    tried: list[Config],
    note: Note | None = None,
) -> tuple[Config, float, float, dict[Config, str]]:
    """The best of `tried`, its time and that of the configuration in use now, in milliseconds over all lengths.

    And the candidates that failed or, by a compiler's bug, computed something else, with the reason.
    """
    batches = [max(1, TOKENS // t) if device == "cuda" else 1 for t in lengths]
    runs = [problem(kernel, batch, t, head_size, dtype, device) for batch, t in zip(batches, lengths)]
    now = lookup(kernel, torch.empty(1, 1, 1, head_size, dtype=dtype, device=device))
    expected = [run(now) for run in runs]

    def time_of(config: Config) -> float:
        times = [milliseconds(partial(run, config), device) for run in runs]
        if note is not None:
            note(config, times)
        return sum(times)

    now_time = time_of(now)
    best, best_time, passed_over = now, now_time, {}
    for config in tqdm(tried, f"{kernel} D{head_size}", leave=False, disable=None):
        if config == now:
            continue
        try:
            for run, right in zip(runs, expected):
                check_close(run(config), right)
            elapsed = time_of(config)
        except Exception as error:  # whatever the compiler, the driver or the check says: the others are still tried
            passed_over[config] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            if device == "cuda":
                check_context(config, passed_over[config])
            continue
        if elapsed < best_time:
            best, best_time = config, elapsed
    if best != now:  # the least of many times is partly luck
        turns = [(time_of(now), time_of(best)) for _ in range(TURNS)]
        now_time, best_time = (statistics.median(times) for times in zip(*turns))
        if best_time > (1 - GAIN) * now_time:
            best, best_time = now, now_time
    return best, best_time, now_time, passed_over


def check_context(config: Config, why: str) -> None:
    """Raise RuntimeError if the failure broke the CUDA context: then nothing can be timed in this process any more."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        ways = "choose others with --kernel and --head-size"
        raise RuntimeError(f"{config} broke the CUDA context ({why}); {ways}") from error


def check_close(got: Tensor | tuple[Tensor, ...], right: Tensor | tuple[Tensor, ...]) -> None:
    """Raise ArithmeticError if two configurations do not compute the same."""
    for a, b in zip(got, right) if isinstance(got, tuple) else [(got, right)]:
        gap = (a.float() - b.float()).abs()
        if not (gap <= 0.05 + 0.05 * b.float().abs()).all():
            raise ArithmeticError(f"differs from the shipped configuration by up to {gap.max():.2g}")


def compile_all(tasks: list[tuple[str, int, list[Config]]], dtype: str, arch: int) -> None:
    """Fill Triton's cache with all candidates of (kernel, head size, candidates), by all cores."""
    jobs = [Job(arch, kernel, dtype, size, config) for kernel, size, tried in tasks for config in tried]
    try:
        for _ in tqdm(compile_beforehand(jobs), "compiling", len(jobs), leave=False, disable=None):
            pass
    except OSError as error:  # what is not compiled yet will be when it is timed
        print(f"compiling by several processes ended early: {error}", flush=True)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add a line of JSON, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def main(arguments: list[str] | None = None) -> int:
    """Tune, print, and write the file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.tune", description=__doc__.split("\n")[0])
    sizes = "may be repeated; 64 and 128 if left out. Those with the same next power of 2 share one entry"
    parser.add_argument("--head-size", action="append", type=int, help=sizes)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all if left out")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    few = "file of minillm.kernels.preselect: time what it names and no others"
    parser.add_argument("--candidates", type=Path, metavar="FILE", help=few)
    parser.add_argument("--out", type=Path, help="the file to write; the one that configs.lookup reads if left out")
    parser.add_argument("--times", type=Path, metavar="FILE", help="also add every time to a file, a line of JSON each")
    parser.add_argument("--again", action="store_true", help="also tune what is in the file already")
    parser.add_argument("--smoke", action="store_true", help="two candidates on tiny tensors, to try the command out")
    options = parser.parse_args(arguments)
    device = "cpu" if interpreted() else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device to tune for; with TRITON_INTERPRET=1 and --smoke the command can be tried out")
    if device == "cpu" and (not options.smoke or options.out is None):
        parser.error("in Triton's interpreter times mean nothing: only --smoke with --out is possible")

    out = options.out or tuned_file(torch.device("cuda"))
    dtype = getattr(torch, options.dtype)
    try:
        found = {key: c.numbers() for key, c in read_tuned(out).items()} if out.exists() else {}
        chosen = read_candidates(options.candidates) if options.candidates else {}
    except (ValueError, OSError) as error:
        parser.error(str(error))

    tasks = []
    for kernel, head_size in product(options.kernel or KERNELS, options.head_size or (64, 128)):
        padded = max(16, triton.next_power_of_2(head_size))
        key = key_of(kernel, dtype.itemsize, padded)
        if key in found and not options.again:
            print(f"{key:26} {Config(*found[key])} is in the file already (--again tunes it anew)", flush=True)
            continue
        if options.candidates and key not in chosen:
            parser.error(f"--candidates {options.candidates} has none for {key!r}; leave it out, or that kernel.")
        tried = [Config(32, 32, 4, 1), Config(16, 64, 4, 1)]
        if options.candidates:
            tried = chosen[key][:2] if options.smoke else chosen[key]
        elif not options.smoke:
            limits = triton.runtime.driver.active.utils.get_device_properties(torch.cuda.current_device())
            tried = candidates(kernel, padded, dtype.itemsize, arch_of_device(), limits["max_shared_mem"])
        tasks.append((kernel, head_size, tried))
    if device == "cuda" and tasks and arch_of_device() in SHARED_LIMIT:
        compile_all(tasks, options.dtype, arch_of_device())

    for kernel, head_size, tried in tasks:
        key = key_of(kernel, dtype.itemsize, max(16, triton.next_power_of_2(head_size)))
        note = None if options.times is None else partial(note_times, options.times, key)
        try:
            lengths = (40,) if options.smoke else LENGTHS
            best, best_time, now_time, passed_over = tune(kernel, head_size, dtype, device, lengths, tried, note)
        except (RuntimeError, triton.OutOfResources) as error:
            print(f"{key:26} not tuned: {' '.join(str(error).split())[:400]}", flush=True)
            return 1
        except KeyboardInterrupt:
            print(f"{key:26} interrupted; {out if found else 'nothing'} keeps what was tuned before", flush=True)
            return 130
        for config, why in passed_over.items():
            print(f"{key:26} {config} passed over: {why}", flush=True)
        print(f"{key:26} {best} {best_time:.3f} ms, now {now_time:.3f} ms, of {len(tried)} tried", flush=True)
        found[key] = best.numbers()
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, found)
        if options.times is not None:
            winner = {"tuned": key, "winner": found[key], "ms": best_time, "ms before": now_time}
            append_line(options.times, {**winner, "passed over": [f"{c}: {why}" for c, why in passed_over.items()]})
    print(f"wrote {out}")
    return 0


def arch_of_device() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def note_times(path: Path, key: str, config: Config, times: list[float]) -> None:
    append_line(path, {"tuned": key, "config": config.numbers(), "ms of lengths": times})


if __name__ == "__main__":
    sys.exit(main())
