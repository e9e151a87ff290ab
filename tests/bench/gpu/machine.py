"""What the machine is, and the two rates that everything else is held against: a matrix product's and a copy's.

tests/bench/gpu.sh first OUT machine
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import result_rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, help="file to add the rows to, as lines of JSON")
    parser.add_argument("--stage", default="machine", help="what the rows are called there")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, on a CPU")
    options = parser.parse_args()
    note = partial(result_rows.append, options.rows, stage=options.stage)
    import numpy
    import torch
    import triton

    found = {
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9),
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory_gb": round(card.total_memory / 1e9), "cuda": torch.version.cuda}
        found |= {"multiprocessors": card.multi_processor_count, "driver": driver()}
    note(**found)
    print(found, flush=True)

    from attention import matmul_rate, milliseconds

    size, elements = (64, 1 << 16) if options.smoke else (8192, 1 << 31)
    rate = matmul_rate(device, size, torch.float32 if options.smoke else torch.bfloat16, 10)
    note(matmul_tflops=rate)
    source = torch.randint(100, (elements,), dtype=torch.int16, device=device)
    copy = partial(torch.empty_like(source).copy_, source)
    milliseconds(copy, 3, device)
    tb_per_second = 2 * source.nbytes / milliseconds(copy, 10, device) / 1e9  # read and written
    note(copy_tb_per_second=tb_per_second)
    print(f"matrix product {rate:.0f} TFLOP/s, copy {tb_per_second:.2f} TB/s", flush=True)
    return 0


def driver() -> str:
    """The driver's version and the clock of the card now, as nvidia-smi says; "" without it."""
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    sys.exit(main())
