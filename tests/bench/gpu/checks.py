"""25 checks of compiled kernels: each against float64, several processes at a time, since most of it is compiling.

    tests/bench/gpu.sh first OUT checks

The rule is flash-attention's: an error at most twice that of PyTorch in the same dtype (attention_reference.py). A row
says how near the worst of output and gradients came to it. The kernels' own tests are hundreds; these few take every
kernel, head sizes, ragged ends, groups and each option through the compiler once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import result_rows
import stages

Check = Callable[[str, int], tuple[float, str]]  # (device, a divisor of lengths) -> error / allowed, of what


def attention(
    device: str, shrink: int, impl: str = "fast", dtype: str = "bfloat16", do: str = "", tq: int = 1024, tk: int = 0,
    heads: int = 4, kv_heads: int = 0, size: int = 64, **asked: Any,
) -> tuple[float, str]:  # fmt: skip
    """Forward and backward of one call on a batch of 2, whose options are in `asked`."""
    import torch
    from attention_reference import draw, dropout_mask_of, errors

    tq, tk = (t // shrink | t % 2 for t in (tq, tk or tq))  # an odd length stays odd
    options, mask, batch = dict(asked), None, 1 if "packed" in asked else 2
    packed = options.pop("packed", False)
    sizes = dict(batch=batch, heads=heads, kv_heads=kv_heads or heads, size=size)
    q, k, v = draw(device, getattr(torch, dtype), tq=tq, tk=tk, **sizes)
    generator = torch.Generator().manual_seed(2)
    if packed:
        cut = [0, 1, tq // 3, tq // 3, tq]
        options["cu_seqlens"] = torch.tensor(cut, device=device, dtype=torch.int32)
    if options.pop("padded", False):
        options["key_padding_mask"] = (torch.rand(batch, tk, generator=generator) < 0.7).to(device)
    if options.pop("masked", False):
        options["mask"] = (torch.rand(batch, 1, tq, tk, generator=generator) < 0.7).to(device)
    if options.pop("sunk", False):
        options["sinks"] = torch.randn(heads, generator=generator).to(device).requires_grad_()
    if "window" in options:
        options["window"] = options["window"] // shrink
    if "dropout_p" in options:
        options["seed"] = 5
        mask = dropout_mask_of(5, options["dropout_p"], (batch, heads, tq, tk), device)
    gradient = None
    if do == "expanded":
        gradient = torch.ones((), device=device, dtype=q.dtype).expand(q.shape)
    elif do == "transposed":
        gradient = torch.randn(batch, heads, size, tq, generator=generator).to(q).transpose(2, 3)
    _, found = errors(impl, [q, k, v], gradient, mask, bool(packed), **options)
    ratio, name = max((error / allowed, name) for name, error, allowed in found)
    return ratio, name


def cache(device: str, shrink: int, paged: bool = False, queries: int = 1) -> tuple[float, str]:
    """Some queries against caches filled to different lengths, in pages or not: each row as if alone."""
    import torch
    from attention_reference import largest, reference_attention
    from minillm.kernels import flash_attention

    page, pages, size = 16, max(2, 16 // shrink), 64
    lengths = [page * pages, page * pages // 2 + 3, 1]
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(3, 8, queries, size, generator=generator).to(device, torch.float16)
    k, v = (torch.randn(3, 2, page * pages, size, generator=generator).to(device, torch.float16) for _ in "kv")
    options: dict[str, Any] = {"key_lengths": torch.tensor(lengths, device=device, dtype=torch.int32)}
    stored = [k, v]
    if paged:
        order = torch.randperm(3 * pages, generator=generator).to(device)
        stored = [torch.empty(3 * pages, 2, page, size, device=device, dtype=torch.float16) for _ in "kv"]
        for to, t in zip(stored, (k, v)):
            to[order] = t.view(3, 2, pages, page, size).transpose(1, 2).flatten(0, 1)
        options["block_table"] = order.view(3, pages).to(torch.int32)
    out = flash_attention(q, *stored, causal=True, **options)
    worst = 0.0
    for row, length in enumerate(lengths):
        alone = [q[row : row + 1], k[row : row + 1, :, :length], v[row : row + 1, :, :length]]
        exact = reference_attention(*(t.double() for t in alone), causal=True)
        rounded = reference_attention(*alone, causal=True)
        worst = max(worst, largest(out[row : row + 1] - exact) / (2 * largest(rounded - exact) + 4e-6))
    return worst, "out"


def norm(device: str, shrink: int, name: str = "layer_norm") -> tuple[float, str]:
    """A norm and its gradients in bfloat16, beside PyTorch's."""
    import torch
    import torch.nn.functional as F

    from minillm import kernels

    size, plain = 768 // shrink, F.layer_norm if name == "layer_norm" else F.rms_norm
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(64, size, generator=generator).to(device, torch.bfloat16)
    w = torch.randn(size, generator=generator).to(device)
    do = torch.randn(64, size, generator=generator).to(device, torch.bfloat16)

    def reference(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return plain(x, (size,), w.to(x.dtype), eps=1e-5)

    return beside(partial(getattr(kernels, name), eps=1e-5), reference, {"dx": x, "dw": w}, do)


def cross_entropy(device: str, shrink: int) -> tuple[float, str]:
    """The fused linear cross-entropy in bfloat16, loss and gradients, beside PyTorch's over all logits."""
    import torch
    import torch.nn.functional as F
    from minillm.kernels import linear_cross_entropy

    tokens, width, vocabulary = 512 // shrink, 256 // shrink, 8192 // shrink
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(tokens, width, generator=generator).to(device, torch.bfloat16)
    w = (torch.randn(vocabulary, width, generator=generator) / 8).to(device, torch.bfloat16)
    targets = torch.randint(vocabulary, (tokens,), generator=generator).to(device)

    def ours(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(h, w, targets)

    def reference(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        logits = h @ w.T
        return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets)

    return beside(ours, reference, {"dh": h, "dw": w}, None)


def beside(ours: Any, reference: Any, tensors: dict[str, Any], do: Any) -> tuple[float, str]:
    """(error / allowed, of what) for the output and the gradients of `tensors`: at most twice the error of `reference`
    in the same dtypes, both beside it in float64."""
    import torch
    from attention_reference import largest

    def results(function: Any, wide: bool) -> list[torch.Tensor]:
        leaves = [(t.double() if wide else t).detach().requires_grad_() for t in tensors.values()]
        out = function(*leaves)
        return [out, *torch.autograd.grad(out, leaves, None if do is None else do.to(out.dtype))]

    found = zip(("out", *tensors), results(ours, False), results(reference, True), results(reference, False))
    return max((largest(a.double() - b) / (2 * largest(c.double() - b) + 4e-6), name) for name, a, b, c in found)


CHECKS: dict[str, Check] = {
    "D64 causal": partial(attention, causal=True),
    "D128 causal": partial(attention, size=128, causal=True),
    "D64 all pairs": partial(attention),
    "D128 ragged, T 1025": partial(attention, size=128, tq=1025, causal=True),
    "D64 ragged, T 97": partial(attention, tq=97, causal=True),
    "D64 Tq 200 of Tk 1025": partial(attention, tq=200, tk=1025, causal=True),
    "D32 float16": partial(attention, size=32, dtype="float16", causal=True),
    "D40 float16": partial(attention, size=40, dtype="float16", causal=True),
    "D72": partial(attention, size=72, causal=True),
    "D256": partial(attention, size=256, tq=512, causal=True),
    "D64 four heads share a key": partial(attention, heads=8, kv_heads=2, causal=True),
    "D128 eight share, T 1000": partial(attention, size=128, heads=8, kv_heads=1, tq=1000, causal=True),
    "D64 window 128": partial(attention, causal=True, window=128),
    "D128 softcap": partial(attention, size=128, causal=True, softcap=50.0),
    "D64 sinks": partial(attention, causal=True, sunk=True),
    "D64 dropout": partial(attention, causal=True, dropout_p=0.1),
    "D64 packed": partial(attention, causal=True, packed=True),
    "D64 padded keys": partial(attention, padded=True),
    "D64 mask, dO expanded": partial(attention, masked=True, do="expanded"),
    "D64 float32, dO transposed": partial(attention, dtype="float32", tq=512, causal=True, do="transposed"),
    "D64 simple kernel": partial(attention, impl="simple", causal=True),
    "cache, one query": cache,
    "cache in pages, 20 queries": partial(cache, paged=True, queries=20),
    "norms": lambda device, shrink: max(norm(device, shrink, name) for name in ("layer_norm", "rms_norm")),
    "linear cross-entropy": cross_entropy,
}


def check_some(names: list[str], options: argparse.Namespace) -> int:
    """Run these checks in this process; returns how many failed."""
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    import torch

    device, shrink, wrong = "cuda" if torch.cuda.is_available() else "cpu", 16 if options.smoke else 1, 0
    for name in names:
        began = time.perf_counter()
        try:
            ratio, what = CHECKS[name](device, shrink)
            row: dict[str, Any] = {"ok": ratio <= 1, "of the error allowed": ratio, "worst": what}
        except Exception as error:  # whatever the compiler or the card says: the others are still run
            row = {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        seconds = round(time.perf_counter() - began, 1)
        result_rows.append(options.rows, stage=options.stage, check=name, **row, seconds=seconds)
        print(f"{name}: {row}", flush=True)
        wrong += not row["ok"]
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, help="file to add each result to, as a line of JSON")
    parser.add_argument("--stage", default="checks", help="what the rows are called there")
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--share", type=int, help="run only what is this process's, of --processes")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, in the interpreter")
    options = parser.parse_args(arguments)
    if options.share is not None or options.processes == 1:
        return min(1, check_some(options.only[options.share or 0 :: options.processes], options))
    again = [sys.executable, *sys.argv] if arguments is None else [sys.executable, __file__, *arguments]
    workers = [
        subprocess.Popen([*again, "--share", str(share)], preexec_fn=stages.dies_with_parent)
        for share in range(options.processes)
    ]
    return max([worker.wait() for worker in workers])


if __name__ == "__main__":
    sys.exit(main())
