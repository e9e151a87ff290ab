"""Is attention the same to the last bit, a thousand times, forward and backward?

    tests/bench/gpu.sh first OUT repeats

The kernels add in a fixed order, so equal inputs give equal bits, unless a kernel reads what is not there yet. One such
race is to be feared: Triton 3.9 puts a memory fence before each of Hopper's matrix instructions where 3.6 has none. The
first result is compared with PyTorch's, all others with the first, on the card. In every second hundred another stream
keeps the card busy, which shifts when programs run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import result_rows

# (name, batch, heads, key heads, tokens, head size, window): the card is full, the programs are many
SHAPES = (
    ("D64", 4, 16, 16, 2048, 64, None),
    ("D128", 4, 16, 16, 2048, 128, None),
    ("D64, ragged, grouped, window 300", 4, 16, 4, 1999, 64, 300),
    ("D128, ragged, grouped", 4, 16, 4, 1999, 128, None),
)
TOLERANCE = 0.03  # of the largest magnitude, for the first result beside PyTorch's


def repeat(options: argparse.Namespace, device: str) -> int:
    """Every shape so many times; returns how many shapes were not the same, or wrong."""
    import torch
    from minillm.kernels import flash_attention
    from torch.nn.functional import scaled_dot_product_attention

    dtype, side, wrong = torch.float32 if device == "cpu" else torch.bfloat16, None, 0
    if device == "cuda":
        side, noise = torch.cuda.Stream(), torch.randn(4096, 4096, device=device, dtype=dtype)
    for name, batch, heads, kv_heads, tokens, size, window in SHAPES:
        if options.smoke:
            batch, heads, kv_heads, tokens, window = 1, 4, 4 * kv_heads // heads, tokens // 64, window and 9
        torch.manual_seed(0)
        q, k, v = (torch.randn(batch, tokens, h, size, device=device, dtype=dtype).transpose(1, 2).requires_grad_()
                   for h in (heads, kv_heads, kv_heads))  # fmt: skip
        do = torch.randn(batch, tokens, heads, size, device=device, dtype=dtype).transpose(1, 2)
        ours = partial(results, partial(flash_attention, causal=True, window=window), (q, k, v), do)
        first = ours()
        back = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)[None, :]
        seen = (back >= 0) & (back < (window or tokens))
        sdpa = partial(scaled_dot_product_attention, attn_mask=seen, enable_gqa=heads != kv_heads)
        plain = results(sdpa, (q, k, v), do)
        errors = [((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in zip(first, plain)]
        right = all(error <= TOLERANCE for error in errors)
        differing = torch.zeros(len(first), dtype=torch.int64, device=device)
        began, done = time.perf_counter(), 0
        while done < options.times:
            block = min(100, options.times - done)
            busy = side is not None and done // 100 % 2 == 1
            for _ in range(block):
                with torch.cuda.stream(side) if busy else nullcontext():
                    if busy:
                        torch.mm(noise, noise)
                for i, (a, b) in enumerate(zip(ours(), first)):
                    differing[i] += (a.view(torch.uint8) != b.view(torch.uint8)).any()
            done += block
            counts = dict(zip(("out", "dq", "dk", "dv"), differing.tolist()))  # waits for the card
            row = {"shape": name, "repeats": done, "differing": counts, "error of the first": max(errors)}
            seconds = round(time.perf_counter() - began, 1)
            same = not any(counts.values())
            result_rows.append(options.rows, stage=options.stage, **row, ok=same and right, seconds=seconds)
        print(f"{name}: {row}", flush=True)
        wrong += not (same and right)
    return wrong


def results(function: Callable[..., Any], tensors: tuple[Any, ...], do: Any) -> list[Any]:
    """The output and the gradients."""
    import torch

    out = function(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, do)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, help="file to add each hundred to, as a line of JSON")
    parser.add_argument("--stage", default="repeats", help="what the rows are called there")
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--smoke", action="store_true", help="toy sizes, in the interpreter")
    options = parser.parse_args()
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
        options.times = 2
    import torch

    return min(1, repeat(options, "cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    sys.exit(main())
