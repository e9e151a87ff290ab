"""Find the fastest configurations of the attention kernels on the card at hand.

    python -m minillm.kernels.tune                       # head sizes 64 and 128 in bfloat16
    python -m minillm.kernels.tune --head-size 256 --dtype float32 --out tuned.json

Times candidates for every kernel, causal, at 1024 and at 4096 tokens, and writes the winners to the file that
`configs.lookup` reads first. A candidate that fails, or that does not compute what the shipped configuration does, is
named and passed over. Compiling takes most of the time: a bar shows how much is left. Each winner is kept at once, so
that an interrupted run goes on where it was; --again tunes anew. It prints each winner beside the shipped
configuration; a row worth keeping for everybody goes into the table in `configs.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

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

LENGTHS = (1024, 4096)
TOKENS = 16384  # in a batch, whatever the length
HEADS = 16


def candidates(kernel: str, head_size: int, element_size: int, arch: int, shared: int) -> list[Config]:
    """The configurations worth a try for a kernel: those whose tiles fit `shared` bytes and use the registers well.

    Accumulators and scores may take 48 to 192 of a thread's 255 registers: with fewer the matrix units wait for loads,
    with more the rest spills. Exact float32 products are made of multiply-adds, whose operands take registers too:
    there it is 8 to 48. Hopper's matrix unit (arch 90) takes 16-bit tiles of 64 rows. Decoding reads the cache once
    and multiplies little: only the loads in flight count.
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
    return found


def problem(
    kernel: str, batch: int, tokens: int, head_size: int, dtype: torch.dtype, device: str
) -> Callable[[Config], Tensor | tuple[Tensor, ...]]:
    """A function that runs one kernel with a given configuration, on random tensors that it keeps."""
    torch.manual_seed(0)
    shape = (batch, tokens, HEADS if device == "cuda" else 2, head_size)
    q, k, v, do = (torch.randn(shape, device=device).to(dtype).transpose(1, 2) for _ in range(4))
    call = Call(scale=head_size**-0.5, right=0)
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
    kernel: str, head_size: int, dtype: torch.dtype, device: str, lengths: tuple[int, ...], tried: list[Config]
) -> tuple[Config, float, float, dict[Config, str]]:
    """The best of `tried`, its time and that of the configuration in use now, in milliseconds over all lengths.

    And the candidates that failed or, by a compiler's bug, computed something else, with the reason.
    """
    batches = [max(1, TOKENS // t) if device == "cuda" else 1 for t in lengths]
    runs = [problem(kernel, batch, t, head_size, dtype, device) for batch, t in zip(batches, lengths)]
    now = lookup(kernel, torch.empty(1, 1, 1, head_size, dtype=dtype, device=device))
    expected = [run(now) for run in runs]
    now_time = sum(milliseconds(partial(run, now), device) for run in runs)
    best, best_time, passed_over = now, now_time, {}
    for config in tqdm(tried, f"{kernel} D{head_size}", leave=False, disable=None):
        try:
            for run, right in zip(runs, expected):
                check_close(run(config), right)
            elapsed = sum(milliseconds(partial(run, config), device) for run in runs)
        except Exception as error:  # whatever the compiler, the driver or the check says: the others are still tried
            passed_over[config] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            if device == "cuda":
                check_context(config, passed_over[config])
            continue
        if elapsed < best_time:
            best, best_time = config, elapsed
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


def main(arguments: list[str] | None = None) -> int:
    """Tune, print, and write the file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.tune", description=__doc__.split("\n")[0])
    sizes = "may be repeated; 64 and 128 if left out. Those with the same next power of 2 share one entry"
    parser.add_argument("--head-size", action="append", type=int, help=sizes)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all if left out")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--out", type=Path, help="the file to write; the one that configs.lookup reads if left out")
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
        found = {key: list(vars(c).values()) for key, c in read_tuned(out).items()} if out.exists() else {}
    except ValueError as error:
        parser.error(str(error))
    for kernel, head_size in product(options.kernel or KERNELS, options.head_size or (64, 128)):
        padded = max(16, triton.next_power_of_2(head_size))
        key = key_of(kernel, dtype.itemsize, padded)
        if key in found and not options.again:
            print(f"{key:26} {Config(*found[key])} is in the file already (--again tunes it anew)", flush=True)
            continue
        lengths, tried = (40,), [Config(32, 32, 4, 1), Config(16, 64, 4, 1)]
        if not options.smoke:
            major, minor = torch.cuda.get_device_capability()
            limits = triton.runtime.driver.active.utils.get_device_properties(torch.cuda.current_device())
            lengths = LENGTHS
            tried = candidates(kernel, padded, dtype.itemsize, 10 * major + minor, limits["max_shared_mem"])
        try:
            best, best_time, now_time, passed_over = tune(kernel, head_size, dtype, device, lengths, tried)
        except (RuntimeError, triton.OutOfResources) as error:
            print(f"{key:26} not tuned: {' '.join(str(error).split())[:400]}", flush=True)
            return 1
        except KeyboardInterrupt:
            print(f"{key:26} interrupted; {out if found else 'nothing'} keeps what was tuned before", flush=True)
            return 130
        for config, why in passed_over.items():
            print(f"{key:26} {config} passed over: {why}", flush=True)
        print(f"{key:26} {best} {best_time:.3f} ms, now {now_time:.3f} ms, of {len(tried)} tried", flush=True)
        found[key] = list(vars(best).values())
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, found)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
