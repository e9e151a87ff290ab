"""Where the time of the forward and dK/dV kernels goes: hardware counters, by NVIDIA's profiler `ncu`.

    tests/bench/gpu.sh first OUT profile

Causal, 4,096 tokens, head sizes 64 and 128, in the configuration in use: time, how busy the units are, why warps wait.
Where there is no ncu, or it may not read counters, the times alone are taken, by events. `--target` is what ncu runs.
The clocks are left as they are (ncu would lock them).
"""

from __future__ import annotations

import argparse
import csv
import glob
import io
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import result_rows

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats",
            "SchedulerStats", "WarpStateStats", "InstructionStats")  # fmt: skip
# What the rows keep of the hundreds of metrics, by the names that ncu prints; all are in log.txt.
KEPT = ("Duration", "Compute (SM) Throughput", "Memory Throughput", "DRAM Throughput", "L2 Hit Rate",
        "L1/TEX Hit Rate", "Registers Per Thread", "Theoretical Occupancy", "Achieved Occupancy", "Executed Ipc Active",
        "Issue Slots Busy", "SM Busy", "Eligible Warps Per Scheduler", "No Eligible",
        "Warp Cycles Per Issued Instruction")  # fmt: skip
ALL_OF = ("tensor", "stall")  # and whatever has these words in its name
PLACES = ("/usr/local/cuda*/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")  # where it may lie beside the PATH
SIZES = (64, 128)


def launches(device: str, smoke: bool) -> Iterator[tuple[str, int, float, Callable[[], object]]]:
    """(kernel, head size, operations, a function that launches it) of what is looked at, all tensors made."""
    import torch
    from minillm.kernels import flash_fast, flash_fast_backward
    from minillm.kernels.attention import BACKWARD, FORWARD
    from minillm.kernels.call import Call
    from minillm.kernels.configs import lookup

    for size in SIZES:
        batch, tokens, heads = (1, 32, 1) if smoke else (4, 4096, 2048 // size)
        dtype = torch.float32 if smoke else torch.bfloat16
        shape = (batch, tokens, heads, size)
        q, k, v, do = (torch.randn(shape, device=device, dtype=dtype).transpose(1, 2) for _ in range(4))
        call = Call(scale=1 / math.sqrt(size), right=0)
        out, lse = flash_fast.forward(q, k, v, call)
        delta = flash_fast_backward.launch_delta(do, out, lse, call)
        pairs = batch * heads * tokens**2 / 2 * 2 * size  # operations of one product
        forward, dkdv = (lookup(kernel, q) for kernel in ("forward", "dkdv"))
        yield "forward", size, 2 * pairs, partial(FORWARD["forward"], q, k, v, call, forward)
        yield "dkdv", size, 4 * pairs, partial(BACKWARD["dkdv"], do, q, k, v, lse, delta, call, dkdv)


def target(device: str, smoke: bool) -> None:
    """Each kernel once between the profiler's start and stop, compiled and warm. Under ncu, where only that is seen."""
    import torch

    for _, _, _, launch in launches(device, smoke):
        launch(), launch()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
        launch()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()


def find_ncu() -> str | None:
    found = shutil.which("ncu")
    return found or next((place for pattern in PLACES for place in sorted(glob.glob(pattern), reverse=True)), None)


def counters(ncu: str, options: argparse.Namespace) -> list[dict[str, str]]:
    """{metric: value with its unit} of each kernel that ncu saw, its name as "kernel". Raises RuntimeError with ncu's
    own words where it saw none."""
    command = [ncu, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--print-details", "all"]
    command += [word for section in SECTIONS for word in ("--section", section)]
    command += ["--kernel-name", "regex:fast_(forward|dkdv)_kernel", sys.executable, __file__, "--target"]
    command += ["--smoke"] * options.smoke
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(done.stdout[-200_000:], done.stderr[-5_000:], flush=True)
    found = read_csv(done.stdout)
    if not found:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("==")]
        raise RuntimeError(f"ncu, exit status {done.returncode}, saw no kernel: {' '.join(said[-4:])[:400]}")
    return found


def read_csv(text: str) -> list[dict[str, str]]:
    """What ncu prints with --csv, a line for each kernel and metric, after lines of its own."""
    lines = text.splitlines()
    head = next((n for n, line in enumerate(lines) if line.startswith('"ID",')), None)
    kernels: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[head:]))) if head is not None else []:
        if row.get("Metric Name") and row.get("Kernel Name"):
            one = kernels.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
            one[row["Metric Name"]] = f"{row['Metric Value']} {row.get('Metric Unit') or ''}".strip()
    return list(kernels.values())


def by_events(options: argparse.Namespace, device: str) -> list[tuple[str, int]]:
    """A row for each kernel with its time; their order."""
    from minillm.kernels.tune import milliseconds

    order = []
    for kernel, size, work, launch in launches(device, options.smoke):
        launch()
        ms = milliseconds(launch, device)
        note(options, kernel, size, {"ms": ms, "tflops": work / ms / 1e9})
        order.append((kernel, size))
    return order


def note(options: argparse.Namespace, kernel: str, size: int, found: dict[str, Any]) -> None:
    result_rows.append(options.rows, stage=options.stage, kernel=kernel, head_size=size, **found)
    print(kernel, size, found, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, help="file to add each kernel to, as a line of JSON")
    parser.add_argument("--stage", default="profile", help="what the rows are called there")
    parser.add_argument("--target", action="store_true", help="launch the kernels, for ncu")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, in the interpreter")
    options = parser.parse_args()
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.target:
        target(device, options.smoke)
        return 0
    order, ncu = by_events(options, device), find_ncu()
    try:
        if ncu is None:
            raise RuntimeError("ncu is not on this machine")
        for (kernel, size), metrics in zip(order, counters(ncu, options)):
            kept = {name: metrics[name] for name in KEPT if name in metrics}
            more = {part: {name: value for name, value in metrics.items() if part in name.lower()} for part in ALL_OF}
            note(options, kernel, size, {"counters": {**kept, **more}})
    except (RuntimeError, OSError) as error:  # the times are there
        result_rows.append(options.rows, stage=options.stage, without_counters=str(error))
        print(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
