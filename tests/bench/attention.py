"""Our flash attention against PyTorch's, on one GPU: speed interleaved in one run, and error against float64.

    python tests/bench/attention.py --out OUT            # some minutes on an H100 or H200
    python tests/bench/attention.py --out OUT --smoke    # the same code at toy sizes, on a CPU too; times mean nothing

Peers: `scaled_dot_product_attention` pinned to FLASH and to CUDNN, and the composed reference. A batch holds 16,384
tokens of model width 2,048 in bfloat16, as in the FlashAttention papers. Forward counts 4·B·H·T²·D operations,
backward 2.5 times as many, causal half of either. Each round times every implementation once, in turn; medians over
rounds are compared, and a ratio is the peer's time divided by ours: above 1 means that we are faster. An implementation
that fails, as the reference does where its table of scores does not fit into memory, is named with its error; the
others are measured. Writes attention.json and attention.md to OUT after every row, and adds the row to the file of
--rows: an interruption loses nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import result_rows
import torch
from attention_table import HEAD, goals, line
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

PEERS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
IMPLEMENTATIONS = ("fast", "simple", *PEERS, "reference")


def attention(name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """One implementation by name."""
    if name in PEERS:
        with sdpa_kernel(PEERS[name]):
            return scaled_dot_product_attention(q, k, v, is_causal=causal)
    if name == "reference":
        from minillm import ops

        return ops.attention(q, k, v, causal=causal, impl="reference")
    from minillm.kernels import flash_attention

    return flash_attention(q, k, v, causal=causal, impl=name)


def prepare(
    name: str, direction: str, tensors: list[torch.Tensor], do: torch.Tensor, causal: bool
) -> Callable[[], object]:
    """A call that does the work to be timed; it has run once. Raises what the implementation raises."""
    if direction == "forward":
        with torch.no_grad():
            attention(name, *tensors, causal)
        return partial(torch.no_grad()(attention), name, *tensors, causal)
    out = attention(name, *tensors, causal)
    run = partial(torch.autograd.grad, out, tensors, do, retain_graph=True)
    run()
    return run


def milliseconds(run: Callable[[], object], calls: int, device: str) -> float:
    """The time of one call, the mean over `calls` of them."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return 1000 * (time.perf_counter() - start) / calls
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / calls


def interleave(runs: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median milliseconds of each, timed in turn, round after round."""
    calls = {name: max(1, min(50, int(4 / milliseconds(run, 1, device)))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(milliseconds(run, calls[name], device))
    return {name: statistics.median(values) for name, values in times.items()}


def errors(names: list[str], tensors: list[torch.Tensor], do: torch.Tensor, direction: str, causal: bool) -> dict:
    """Largest absolute error of each against float64, on one head of one sequence: of the output, or of a gradient.

    Without those for which the card's memory is too small.
    """
    few = [t[:1, :1].detach().clone().requires_grad_() for t in tensors]
    wide = [t.detach().double().requires_grad_() for t in few]
    found = {}
    try:
        exact = results("reference", wide, do[:1, :1].double(), direction, causal)
        for name in names:
            got = results(name, few, do[:1, :1], direction, causal)
            found[name] = max((a.double() - b).abs().max().item() for a, b in zip(got, exact))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    return found


def results(name: str, tensors: list[torch.Tensor], do: torch.Tensor, direction: str, causal: bool) -> list:
    out = attention(name, *tensors, causal)
    return [out.detach()] if direction == "forward" else list(torch.autograd.grad(out, tensors, do))


def matmul_rate(device: str, size: int, dtype: torch.dtype, rounds: int) -> float:
    """TFLOP/s of a square matrix product on random data: the ceiling that the kernels are compared with."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    run = partial(torch.mm, a, b)
    milliseconds(run, 3, device)
    return 2 * size**3 / statistics.median(milliseconds(run, 3, device) for _ in range(rounds)) / 1e9


def measure(options: argparse.Namespace, device: str) -> dict:
    """Run everything and write it, row by row; returns what went into attention.json."""
    dtype = torch.float32 if options.smoke else torch.bfloat16
    tokens, width, rounds = (32, 16, 2) if options.smoke else (16384, 2048, options.rounds)
    lengths = [16, 32] if options.smoke else options.lengths
    head_sizes = [16] if options.smoke else options.head_sizes
    rate = matmul_rate(device, 64 if options.smoke else 8192, dtype, rounds)
    print(f"matrix product: {rate:.0f} TFLOP/s", flush=True)
    result = {"setting": setting(device, dtype), "smoke": options.smoke, "matmul_tflops": rate, "rows": []}
    masks = (True,) if options.causal_only else (True, False)
    for direction, head_size, causal, length in product(("forward", "backward"), head_sizes, masks, lengths):
        shape = (direction, head_size, causal, length, tokens, width)
        row = measure_one(*shape, dtype, rounds, device, options.only)
        row["matmul_share"] = row["tflops"].get("fast", 0.0) / rate
        result["rows"].append(row)
        result_rows.append(options.rows, stage=options.stage, **row)
        print(line(row), flush=True)
        write(result, options.out)
    return result


def write(result: dict, out: Path | None) -> None:
    """attention.json and attention.md, each whole or not at all."""
    if out is None:
        return
    rate = f"TFLOP/s, larger is better; {result['matmul_tflops']:.0f} for a matrix product"
    lines = [json.dumps(result["setting"]), "", rate, "", HEAD, *(line(row) for row in result["rows"])]
    table = "\n".join(lines) + "\n\n" + goals(result["rows"]) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    result_rows.replace(out / "attention.json", json.dumps(result, indent=1) + "\n")
    result_rows.replace(out / "attention.md", table)


def measure_one(
    direction: str,
    head_size: int,
    causal: bool,
    length: int,
    tokens: int,
    width: int,
    dtype: torch.dtype,
    rounds: int,
    device: str,
    only: Sequence[str] = IMPLEMENTATIONS,
) -> dict:
    torch.manual_seed(0)
    shape = (max(1, tokens // length), length, width // head_size, head_size)
    tensors = [torch.randn(shape, device=device, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    do = torch.randn(shape, device=device, dtype=dtype).transpose(1, 2)
    runs, refused = {}, {}
    for name in only:
        try:
            runs[name] = prepare(name, direction, tensors, do, causal)
        except Exception as problem:  # no kernel, out of memory, a compiler's error: the others are still measured
            refused[name] = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        if device == "cuda" and name in refused:
            torch.cuda.empty_cache()
    times = interleave(runs, rounds, device)
    work = (
        4
        * shape[0]
        * shape[2]
        * length**2
        * head_size
        * (0.5 if causal else 1)
        * (1 if direction == "forward" else 2.5)
    )
    return {
        "direction": direction,
        "head_size": head_size,
        "causal": causal,
        "length": length,
        "ms": times,
        "tflops": {name: work / ms / 1e9 for name, ms in times.items()},
        "ratio": {name: ms / times["fast"] for name, ms in times.items() if "fast" in times and name != "fast"},
        "error": errors(list(runs), tensors, do, direction, causal),
        "refused": refused,
    }


def setting(device: str, dtype: torch.dtype) -> dict:
    import triton

    return {
        "card": torch.cuda.get_device_name() if device == "cuda" else f"none ({platform.processor() or 'CPU'})",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "dtype": str(dtype),
        "date": datetime.date.today().isoformat(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for attention.json and attention.md")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--head-sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--causal-only", action="store_true", help="leave attention without a mask out")
    parser.add_argument("--only", nargs="+", choices=IMPLEMENTATIONS, default=IMPLEMENTATIONS)
    parser.add_argument("--rows", type=Path, help="file to add each row to, as a line of JSON")
    parser.add_argument("--stage", default="attention", help="what the rows are called there")
    toy = "toy sizes; on a machine without a GPU, in the interpreter"
    parser.add_argument("--smoke", action="store_true", help=toy)
    options = parser.parse_args(arguments)
    if options.out is None and options.rows is None:
        parser.error("nothing says where the results go: give --out FOLDER or --rows FILE")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        if not options.smoke:
            parser.error("no CUDA device: nothing can be measured here (--smoke tries the code out)")
        os.environ["TRITON_INTERPRET"] = "1"  # read when minillm.kernels imports triton, below
    result = measure(options, device)
    print(f"\n{json.dumps(result['setting'])}\n{goals(result['rows'])}")
    if options.smoke:
        print("smoke run: these times mean nothing")


if __name__ == "__main__":
    main()
