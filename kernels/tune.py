"""Find the fastest configurations of the attention kernels on the card at hand.

    python -m minillm.kernels.tune                       # head sizes 64 and 128 in bfloat16: some minutes
    python -m minillm.kernels.tune --head-size 256 --dtype float32 --out tuned.json

Times every candidate for every kernel, causal, at 1024 and at 4096 tokens, checks that it computes what the shipped
configuration does, and writes the winners to the file that `configs.lookup` reads first. It prints each winner beside
the shipped configuration; a row worth keeping for everybody goes into the table in `configs.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch
import triton

from . import flash_decode, flash_fast, flash_fast_backward
from .call import Call, interpreted
from .configs import KERNELS, Config, key_of, lookup, read_tuned, tuned_file

_LENGTHS = (1024, 4096)
_TOKENS = 16384  # in a batch, whatever the length
_HEADS = 16


def candidates(kernel: str) -> Iterator[Config]:
    """The configurations that are tried for a kernel; those that do not fit the card are passed over."""
    if kernel == "decode":
        for block_n, warps, stages in product((16, 32, 64, 128, 256), (2, 4, 8), (1, 2, 3, 4)):
            yield Config(16, block_n, warps, stages)
        return
    for block_m, block_n, warps, stages in product((16, 32, 64, 128), (16, 32, 64, 128), (4, 8), (1, 2, 3, 4)):
        if 1024 <= block_m * block_n <= 16384 and block_m * block_n // warps <= 2048:
            yield Config(block_m, block_n, warps, stages)


def problem(
    kernel: str, batch: int, tokens: int, head_size: int, dtype: torch.dtype, device: str
) -> Callable[[Config], torch.Tensor | tuple[torch.Tensor, ...]]:
    """A function that runs one kernel with a given configuration, on random tensors that it keeps."""
    torch.manual_seed(0)
    shape = (batch, tokens, _HEADS if device == "cuda" else 2, head_size)
    q, k, v, do = (torch.randn(shape, device=device).to(dtype).transpose(1, 2) for _ in range(4))
    call = Call(scale=head_size**-0.5, right=0)
    if kernel == "decode":
        return partial(flash_decode.launch, q[:, :, -1:], k, v, call)
    if kernel == "forward":
        return partial(flash_fast.launch_forward, q, k, v, call)
    out, lse = flash_fast.forward(q, k, v, call)
    delta = flash_fast_backward.launch_delta(do, out, lse, call)
    launch = flash_fast_backward.launch_dkdv if kernel == "dkdv" else flash_fast_backward.launch_dq
    return partial(launch, do, q, k, v, lse, delta, call)


def milliseconds(run: Callable[[], object], device: str) -> float:
    """The median time of one run, after a warm-up that also compiles."""
    if device == "cuda":
        return triton.testing.do_bench(run, warmup=25, rep=100, return_mode="median")
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def tune(
    kernel: str, head_size: int, dtype: torch.dtype, device: str, lengths: tuple[int, ...], tried: list[Config]
) -> tuple[Config, float, float]:
    """The best of `tried`, its time and the time of the configuration in use now, in milliseconds over all lengths.

    Raises RuntimeError if a candidate computes something else: a compiler's bug that nobody should tune into.
    """
    runs = [
        problem(kernel, max(1, _TOKENS // t if device == "cuda" else 1), t, head_size, dtype, device) for t in lengths
    ]
    now = lookup(kernel, torch.empty(1, 1, 1, head_size, dtype=dtype, device=device))
    expected = [run(now) for run in runs]
    now_time = sum(milliseconds(partial(run, now), device) for run in runs)
    best, best_time = now, now_time
    for config in tried:
        try:
            got = [run(config) for run in runs]
        except triton.OutOfResources:
            continue
        for a, b in zip(got, expected):
            pairs = zip(a, b) if isinstance(a, tuple) else [(a, b)]
            if not all(torch.allclose(x.float(), y.float(), rtol=0.05, atol=0.05) for x, y in pairs):
                raise RuntimeError(f"{kernel} at head size {head_size}: {config} and {now} disagree; not tuning")
        elapsed = sum(milliseconds(partial(run, config), device) for run in runs)
        if elapsed < best_time:
            best, best_time = config, elapsed
    return best, best_time, now_time


def main(arguments: list[str] | None = None) -> None:
    """Tune, print, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.tune", description=__doc__.split("\n")[0])
    parser.add_argument("--head-size", action="append", type=int, help="may be repeated; 64 and 128 if left out")
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all if left out")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--out", type=Path, help="the file to write; the one that configs.lookup reads if left out")
    parser.add_argument("--smoke", action="store_true", help="two candidates on tiny tensors, to try the command out")
    options = parser.parse_args(arguments)
    device = "cpu" if interpreted() else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device to tune for; with TRITON_INTERPRET=1 and --smoke the command can be tried out")
    if device == "cpu" and (not options.smoke or options.out is None):
        parser.error("in Triton's interpreter times mean nothing: only --smoke with --out is possible")

    out = options.out or tuned_file(torch.device("cuda"))
    dtype = getattr(torch, options.dtype)
    found = {key: list(vars(c).values()) for key, c in read_tuned(out).items()} if out.exists() else {}
    for kernel in options.kernel or KERNELS:
        for head_size in options.head_size or (64, 128):
            tried = [Config(32, 32, 4, 1), Config(16, 64, 4, 1)] if options.smoke else list(candidates(kernel))
            lengths = (40,) if options.smoke else _LENGTHS
            best, best_time, now_time = tune(kernel, head_size, dtype, device, lengths, tried)
            key = key_of(kernel, dtype.itemsize, max(16, triton.next_power_of_2(head_size)))
            print(f"{key:26} {best} {best_time:.3f} ms, now {now_time:.3f} ms", flush=True)
            found[key] = [best.block_m, best.block_n, best.num_warps, best.num_stages]
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
