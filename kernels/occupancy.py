"""How full a compiled kernel leaves a GPU, and roughly how fast it can be: estimates, made without one.

    python -m minillm.kernels.occupancy                            # what is shipped for Hopper, head sizes 64 and 128
    python -m minillm.kernels.occupancy --arch 80 --kernel dq --head-size 128 --config 64 64 4 2

For each kernel it compiles (`offline.py`), it prints registers and stack of a thread and shared memory of a program;
from these, how many programs a multiprocessor holds at once; and from the machine code of the loop over whole blocks,
the cycles that one block takes four units of a multiprocessor:

- *tensor*: its matrix products, at the matrix units' peak;
- *issue*: its instructions, of which each of 4 schedulers starts one a cycle (a warp's instruction counts once);
- *special*: its exp2, of which a multiprocessor does 16 a cycle;
- *loads*: its tiles, at 40 bytes a cycle (an A100's L2 cache gives 5,120 to 108 multiprocessors, NVIDIA's white paper;
  the same is taken for all).

**The estimate.** A program does one after another: products, softmax, products. If nothing overlapped, a block would
take the sum of the first three; with many programs at once, whose phases interleave, the largest of them. In between,
cycles = largest + (sum - largest) / programs, but no fewer than the loads', which run meanwhile. EFFICIENCY stands for
everything else (edges, launches, a clock below its boost): one number, such that the two forward kernels with which
this project began, (128,64,4,3) at head size 64 and (128,64,8,3) at 128, come within 10% of what the FlashAttention-3
paper measured for a Triton kernel (363 and 378 TFLOP/s, causal, 16k tokens). So differences below 10% mean nothing, and
only a card can say more. A backward pass is rated as is usual, by five products a pair, where these kernels do seven.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass, replace

import torch
import triton

from .call import Call
from .configs import KERNELS, Config, shipped
from .offline import SHARED_LIMIT, Compiled, compile_config

EFFICIENCY = 0.78
REGISTERS = 16384  # of each of the 4 parts of a multiprocessor, which hold warps of their own
LOADED = 40  # bytes of the L2 cache that a multiprocessor takes in a cycle
PRODUCTS = {"forward": 2, "dkdv": 4, "dq": 3}  # matrix products a pair of query and key
MATRIX = re.compile(r"(HGMMA|HMMA|UTC\w*MMA)\b")

# Read from charts of the FlashAttention-3 paper (Shah et al. 2024, arXiv:2407.08608, figures 5 and 6): TFLOP/s of an
# H100 at 16k tokens, forward causal, backward without a mask.
PUBLISHED = {
    ("forward", 64): "FlashAttention-2 299, cuDNN 388, FlashAttention-3 473",
    ("forward", 128): "FlashAttention-2 335, cuDNN 539, FlashAttention-3 616",
    ("backward", 64): "FlashAttention-2 291, cuDNN 433, FlashAttention-3 474",
    ("backward", 128): "FlashAttention-2 322, cuDNN 516, FlashAttention-3 561",
}


@dataclass(frozen=True)
class Gpu:
    """A card of an architecture (NVIDIA's white papers and programming guide); tensor counts dense 16-bit operations,
    summed in float32, of a multiprocessor a cycle."""

    card: str
    multiprocessors: int
    boost_ghz: float
    shared_kb: int  # of a multiprocessor
    warps: int
    programs: int
    tensor: int


GPUS = {
    80: Gpu("A100", 108, 1.41, 164, 64, 32, 2048),
    86: Gpu("RTX 3090", 82, 1.70, 100, 48, 16, 512),
    89: Gpu("RTX 4090", 128, 2.52, 100, 48, 24, 512),
    90: Gpu("H100", 132, 1.83, 228, 64, 32, 4096),
    100: Gpu("B200", 148, 1.85, 228, 64, 32, 8192),
    120: Gpu("RTX 5090", 170, 2.41, 100, 48, 24, 512),
}


def programs_at_once(gpu: Gpu, got: Compiled) -> int:
    """How many programs a multiprocessor holds: limited by registers, shared memory, warps, or their number."""
    registers = -(-got.registers // 8) * 8 * 32  # of a warp: a thread's are given out in eights
    warps = min(4 * (REGISTERS // registers), gpu.warps)
    return min(warps // got.num_warps, gpu.shared_kb * 1024 // (got.shared + 1024), gpu.programs)


@dataclass(frozen=True)
class Cycles:
    """What one block takes each unit of a multiprocessor."""

    tensor: float
    issue: float
    special: float
    loads: float

    def estimate(self, programs: int) -> float:
        units = (self.tensor, self.issue, self.special)
        return max(self.loads, max(units) + (sum(units) - max(units)) / programs)


def cycles_of_a_block(gpu: Gpu, got: Compiled, kernel: str, config: Config, head_size: int) -> Cycles | None:
    """From the loop over whole blocks; None where no loop with matrix products is found."""
    body = whole_loop(got.code)
    if body is None:
        return None
    pairs, per_scheduler = config.block_m * config.block_n, config.num_warps / 4
    exp2 = sum("MUFU.EX2" in line for line in body)
    turns = max(1, round(exp2 / (pairs / (32 * config.num_warps))))  # blocks in one turn of the loop
    tensor = PRODUCTS[kernel] * 2 * pairs * head_size / gpu.tensor
    loads = 2 * (config.block_m if kernel == "dkdv" else config.block_n) * head_size * 2 / LOADED
    return Cycles(tensor, len(body) * per_scheduler / turns, exp2 * 8 * per_scheduler / turns, loads)


def whole_loop(code: str) -> list[str] | None:
    """The instructions of the shortest innermost loop that multiplies matrices: that of the blocks without a mask."""
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.MULTILINE)
    at = {int(address, 16): n for n, (address, _) in enumerate(lines)}
    loops = []
    for n, (_, text) in enumerate(lines):
        target = re.search(r"\bBRA\S* .*?(0x[0-9a-f]+)", text)
        first = at.get(int(target[1], 16), n) if target else n
        if first < n and any(MATRIX.search(text) for _, text in lines[first:n]):
            loops.append((first, n))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    first, last = min(inner, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    return [text for _, text in lines[first : last + 1]] if last else None


def teraflops(gpu: Gpu, products: int, config: Config, head_size: int, cycles: float) -> float:
    """The rate of `products` a pair, if a block takes so many cycles."""
    work = products * 2 * config.block_m * config.block_n * head_size
    return EFFICIENCY * work / cycles * gpu.multiprocessors * gpu.boost_ghz / 1000


@dataclass(frozen=True)
class Rated:
    """A compiled configuration, how many programs of it a multiprocessor holds, and what is reckoned from its machine
    code: `cycles` of a block and the estimated `teraflops`, None for decoding and where no loop was found."""

    config: Config
    got: Compiled
    programs: int
    cycles: Cycles | None
    teraflops: float | None


def rate(
    arch: int, kernel: str, head_size: int, config: Config, *, dtype: torch.dtype = torch.bfloat16, kv_heads: int = 8,
    heads: int = 8,
) -> Rated:  # fmt: skip
    """Compile a configuration for causal attention and rate it. Raises triton.OutOfResources where it does not fit, and
    what else the compiler raises."""
    gpu, call = GPUS[arch], Call(scale=1 / math.sqrt(head_size), right=0)
    got = compile_config(arch, kernel, dtype, head_size, config, call, heads=heads, kv_heads=kv_heads)
    programs = programs_at_once(gpu, got)
    cycles = cycles_of_a_block(gpu, got, kernel, config, head_size) if kernel in PRODUCTS else None
    if cycles is None:
        return Rated(config, got, programs, None, None)
    estimate = teraflops(gpu, PRODUCTS[kernel], config, head_size, cycles.estimate(programs))
    return Rated(config, got, programs, cycles, estimate)


def report(arch: int, kernel: str, head_size: int, config: Config, kv_heads: int = 8) -> tuple[str, float | None]:
    """A line of the table, and the estimated seconds of one pair and feature, for a sum over kernels."""
    row = f"{kernel:8} D{head_size:<4}{tuple(config.numbers())!s:21}"
    try:
        rated = rate(arch, kernel, head_size, config, kv_heads=kv_heads)
    except triton.OutOfResources as problem:
        return f"{row} does not fit: {problem}", None
    got, cycles = rated.got, rated.cycles
    row += f"{got.registers:4} registers{got.stack:5} stack{got.shared:7} shared{rated.programs:3} programs"
    if kernel not in PRODUCTS:
        return row, None
    if cycles is None or rated.teraflops is None:
        return f"{row}  (no loop found)", None
    row += f"  {cycles.tensor:5.0f} /{cycles.issue:5.0f} /{cycles.special:4.0f} /{cycles.loads:4.0f}"
    row += f"  ~{cycles.estimate(rated.programs):5.0f} cycles  ~{rated.teraflops:4.0f} TFLOP/s"
    return row, PRODUCTS[kernel] / rated.teraflops


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.occupancy", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", action="append", type=int, choices=sorted(SHARED_LIMIT), help="90 if left out")
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all if left out")
    parser.add_argument("--head-size", action="append", type=int, choices=[16, 32, 64, 128, 256])
    parser.add_argument("--kv-heads", type=int, default=8, choices=[1, 2, 4, 8], help="key heads for 8 query heads")
    numbers = ("QUERIES", "KEYS", "WARPS", "STAGES")
    by = "the forward kernel loads keys and values by tensor descriptors, which no shipped configuration does"
    parser.add_argument("--descriptors", action="store_true", help=by)
    parser.add_argument("--config", nargs=4, type=int, metavar=numbers, help="instead of the shipped one")
    options = parser.parse_args()
    for arch in options.arch or (90,):
        print(f"triton {triton.__version__}, sm_{arch} ({GPUS[arch].card}), bf16, causal. Rates are ESTIMATES.")
        print("cycles a block: tensor / issue / special functions / loads  ~ all, with so many programs")
        for head_size in options.head_size or (64, 128):
            seconds = {}
            for kernel in options.kernel or KERNELS:
                config = Config(*options.config) if options.config else shipped(arch, kernel, 2, head_size)
                if options.descriptors and kernel == "forward":
                    config = replace(config, descriptors=1)
                row, seconds[kernel] = report(arch, kernel, head_size, config, options.kv_heads)
                print(row, flush=True)
                if arch == 90 and ("forward", head_size) in PUBLISHED and kernel == "forward":
                    print(f"{'':14}published, H100: {PUBLISHED['forward', head_size]}")
            if seconds.get("dkdv") and seconds.get("dq"):
                rate = 5 / (seconds["dkdv"] + seconds["dq"])
                beside = PUBLISHED.get(("backward", head_size)) if arch == 90 else None
                print(
                    f"backward D{head_size}: ~{rate:.0f} TFLOP/s" + (f"; published, H100: {beside}" if beside else "")
                )


if __name__ == "__main__":
    main()
