"""Which configurations are worth timing on a card: all are compiled by all cores, without a GPU, and rated.

    python -m minillm.kernels.preselect --out candidates.json     # 8 for each kernel, head sizes 64 and 128, for Hopper
    python -m minillm.kernels.tune --candidates candidates.json   # on the card: times these and no others

The tuner's candidates are some 40 for each kernel and head size, and minutes of a card would go into compiling them.
Here each is compiled beforehand (`offline.py`) and rated by the estimate of `occupancy.py`. The estimate is no better
than 10% and knows nothing of how long a load takes, which is what `num_stages` is about: so of each tile two depths are
kept, and the configuration that is shipped is always among those kept. What spills many registers is out, and so is
what loads nothing ahead (one stage).

`compile_beforehand` does the same on the machine with the card, to fill Triton's cache by all cores.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from tqdm import tqdm

from ..disk import write_text
from ..disk.processes import in_order
from .configs import HEAD_SIZES, Config, is_config, key_of, shipped
from .occupancy import GPUS, PRODUCTS, Rated, rate
from .offline import SHARED_LIMIT

HEADS = 16  # of the tensors that kernels are compiled and timed for
MOST = 8
DEPTHS = 2  # numbers of stages that are kept of one tile
STACK = 96  # bytes of spilled registers that a thread may have
DTYPES = ("bfloat16", "float16", "float32")


def candidates(kernel: str, head_size: int, element_size: int, arch: int, shared: int) -> list[Config]:
    """The configurations worth a try for a kernel: those whose tiles fit `shared` bytes and use the registers well.

    Accumulators and scores may take 48 to 192 of a thread's 255 registers: with fewer the matrix units wait for loads,
    with more the rest spills. Exact float32 products are made of multiply-adds, whose operands take registers too:
    there it is 8 to 48. Hopper's matrix unit (arch 90) takes 16-bit tiles of 64 rows, and it and later ones can load by
    descriptors. Decoding reads the cache once and multiplies little: only the loads in flight count.
    """
    found = []
    if kernel == "decode":
        for block_n, warps, stages in product((16, 32, 64, 128, 256), (2, 4, 8), (2, 3, 4)):
            if block_n * head_size >= 512 and 2 * stages * block_n * head_size * element_size <= shared:
                found.append(Config(16, block_n, warps, stages))
        return found
    least_rows = 64 if element_size == 2 and arch == 90 else 16
    fewest, most = (48, 192) if element_size == 2 else (8, 48)
    for block_m, block_n, warps, stages in product((16, 32, 64, 128), (16, 32, 64, 128), (4, 8), (1, 2, 3)):
        rows, walked = (block_n, block_m) if kernel == "dkdv" else (block_m, block_n)
        accumulators = rows * head_size * (2 if kernel == "dkdv" else 1)  # dk and dv; out; dq
        scores = block_m * block_n * (1 if kernel == "forward" else 2)  # S; S and dP
        tiles = rows * (1 if kernel == "forward" else 2) + walked * 2 * stages  # the rows' own, and those on their way
        fits = tiles * head_size * element_size <= shared
        if rows >= least_rows and fits and fewest <= (accumulators + scores) / (32 * warps) <= most:
            found.append(Config(block_m, block_n, warps, stages))
    if kernel == "forward" and element_size == 2 and arch >= 90:
        found += [replace(config, descriptors=1) for config in found if config.num_stages > 1]
    return found


class Job(NamedTuple):
    """One configuration to compile: for `arch` (90 = Hopper), a kernel of configs.KERNELS, a dtype by its name."""

    arch: int
    kernel: str
    dtype: str
    head_size: int
    config: Config


def compile_job(shared: None, job: Job) -> Rated | str:
    """What the compiler made of it, or why it did not."""
    try:
        return rate(job.arch, job.kernel, job.head_size, job.config, dtype=getattr(torch, job.dtype), heads=HEADS,
                    kv_heads=HEADS)  # fmt: skip
    except Exception as error:  # too large, or a fault of the compiler: the others are still compiled
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def compile_beforehand(jobs: Iterable[Job], processes: int | None = None) -> Iterator[tuple[Job, Rated | str]]:
    """Compile all, several at a time, into Triton's cache, as the tuner and causal attention of 16 heads ask for them:
    each with its rating, or the reason why there is none. Not in the interpreter."""
    return in_order(compile_job, None, jobs, alone=0, processes=processes)


def select(rated: Iterable[Rated], most: int, now: Config) -> list[Rated]:
    """The best `most` by their estimate, of each tile DEPTHS at most (of equal ones the deeper first), `now` among
    them wherever it was rated; the best first."""
    order = sorted(rated, key=lambda r: (-(r.teraflops or 0), -r.config.num_stages))
    kept: list[Rated] = []
    tiles: Counter[tuple[int, ...]] = Counter()
    for r in order:
        tile = (r.config.block_m, r.config.block_n, r.config.num_warps, r.config.descriptors)
        if r.config == now or (r.got.stack <= STACK and tiles[tile] < DEPTHS):
            tiles[tile] += 1
            kept.append(r)
    ours = [r for r in kept if r.config == now]
    best = [r for r in kept if r.config != now][: most - len(ours)]
    return [r for r in kept if r in best or r in ours]


def read_candidates(path: Path) -> dict[str, list[Config]]:
    """{key: configurations} of a file that `main` wrote. Raises ValueError where it is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["candidates"]
        for key, rows in found.items():
            if not all(is_config(row) for row in rows):
                raise ValueError(f"{key!r:.50} has a row that is not four numbers from 1 to 1024 (or a 1 as a fifth).")
        return {key: [Config(*row) for row in rows] for key, rows in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{path} holds no candidates ({why}); make it by minillm.kernels.preselect.") from None


def as_text(title: str, found: dict[str, list[list[int]]]) -> str:
    """The file, JSON with a line for each kernel."""
    lines = [f"  {json.dumps(key)}: {json.dumps(rows)}" for key, rows in found.items()]
    return f'{{"made with": {json.dumps(title)}, "candidates": {{\n' + ",\n".join(lines) + "\n}}\n"


def main(arguments: list[str] | None = None) -> None:
    """Compile, print a table, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.preselect", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the file to write, for tune --candidates")
    parser.add_argument("--arch", type=int, default=90, choices=sorted(SHARED_LIMIT), help="90 is Hopper (H100, H200)")
    parser.add_argument("--kernel", action="append", choices=list(PRODUCTS), help="may be repeated; all if left out")
    parser.add_argument("--head-size", action="append", type=int, choices=HEAD_SIZES, help="64 and 128 if left out")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--most", type=int, default=MOST, help=f"to keep of each kernel and head size ({MOST})")
    parser.add_argument("--of", type=int, default=0, help="look at so many candidates only, to try the command out")
    parser.add_argument("--processes", type=int, help="that compile; as many as there are cores if left out")
    options = parser.parse_args(arguments)

    bytes_each = getattr(torch, options.dtype).itemsize
    found: dict[str, list[list[int]]] = {}
    title = f"triton {triton.__version__}, sm_{options.arch} ({GPUS[options.arch].card}), {options.dtype}, causal"
    print(f"{title}. Rates are ESTIMATES.")
    for kernel, head_size in product(options.kernel or PRODUCTS, options.head_size or (64, 128)):
        now = shipped(options.arch, kernel, bytes_each, head_size)
        tried = candidates(kernel, head_size, bytes_each, options.arch, SHARED_LIMIT[options.arch])
        tried = [now, *(c for c in tried if c.num_stages > 1 and c != now)][: options.of or None]
        jobs = [Job(options.arch, kernel, options.dtype, head_size, config) for config in tried]
        key = key_of(kernel, bytes_each, head_size)
        done = list(tqdm(compile_beforehand(jobs, options.processes), key, len(jobs), leave=False, disable=None))
        rated = [r for _, r in done if isinstance(r, Rated)]
        kept = select(rated, options.most, now)
        found[key] = [r.config.numbers() for r in kept]
        print(f"{key}: {len(kept)} of {len(jobs)}, {len(jobs) - len(rated)} did not compile")
        for r in kept:
            got, mark = r.got, " (shipped)" if r.config == now else ""
            print(f"    {tuple(r.config.numbers())!s:21}{got.registers:4} registers{got.stack:5} stack", end="")
            print(f"{r.programs:3} programs  ~{r.teraflops or 0:4.0f} TFLOP/s{mark}", flush=True)
        write_text(options.out, as_text(title, found))


if __name__ == "__main__":
    main()
