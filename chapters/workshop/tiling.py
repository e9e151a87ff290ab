"""Chapter 16's pictures and bookkeeping: where numbers lie on a GPU, a roofline, what the estimator and a card say."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from minillm import plot
from minillm.costs.cards import CARDS

from .boxes import GREY, PALE_BLUE, PALE_GREEN, PALE_ORANGE, Box, draw_boxes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def why_not() -> str | None:
    """Why the kernels cannot run in this notebook, and what to do; None where they can, in the interpreter."""
    if find_spec("torch") is None or find_spec("triton") is None:
        return 'torch or triton is not installed. Do: pip install -e ".[triton]" (Linux), then restart the kernel.'
    import torch
    from minillm.kernels.availability import flash_unavailable_reason

    nothing = torch.zeros(1, 1, 1, 16)
    return flash_unavailable_reason(nothing, nothing, nothing)


def draw_memory() -> Figure:
    """Two kinds of memory and what plain and tiled attention carry between them."""
    boxes = {
        "main": Box(0.0, 1.0, 0.95, "main memory\n$Q, K, V, O$   $(T, d)$\nlarge, far away", PALE_BLUE),
        "chip": Box(3.05, 1.0, 1.2, "a multiprocessor's memory\none tile each of $Q, K, V$\nsmall, close", PALE_GREEN),
        "units": Box(6.2, 1.0, 1.05, "registers, products\na tile of scores $(M, N)$\n$m$, $l$, sum $(M, d)$", GREY),
        "table": Box(0.0, 0.0, 0.95, "only if attention is plain:\n$S, P$   $(T, T)$", PALE_ORANGE),
    }
    figure = draw_boxes(boxes, [("main", "chip"), ("chip", "units")], height=2.3)
    ax = figure.axes[0]
    style = {"arrowstyle": "->", "color": plot.BLACK}
    ax.annotate("", (0.98, 0.72), (5.6, 0.62), arrowprops=style | {"connectionstyle": "arc3,rad=-0.1"})
    ax.text(3.2, 0.27, "$O$, once", ha="center", fontsize=8)
    ax.plot([6.2, 6.2, 1.1], [0.6, 0.0, 0.0], "--", color=plot.BLACK, linewidth=1)
    for tip, tail in (((6.2, 0.62), (6.2, 0.4)), ((0.98, 0.0), (1.3, 0.0))):
        ax.annotate("", tip, tail, arrowprops=style)
    ax.text(3.2, -0.2, "$S$ out and in, $P$ out and in", ha="center", fontsize=8)
    return figure


def draw_roofline(points: Mapping[str, tuple[float, Sequence[float]]], cards: Sequence[str]) -> Figure:
    """The roof of each card: the lower of its peak and its bandwidth × intensity. points: name -> (operations for each
    byte, TFLOP/s that the roof of each card allows)."""
    figure, ax = plot.subplots(height=3.4)
    x = np.geomspace(4, 8192, 200)
    for card, color in zip(cards, (plot.BLUE, plot.GREEN)):
        peak, speed = CARDS[card].flops / 1e12, CARDS[card].bandwidth_gb / 1e3
        ax.plot(x, np.minimum(peak, speed * x), color=color, label=f"{card}: {peak:.0f} TFLOP/s, {speed:.1f} TB/s")
    for (name, (intensity, rates)), marker in zip(points.items(), "osD^"):
        look = {"color": plot.BLACK, "markersize": 6}
        if name == "plain":  # a ring, since others may lie on it
            look = {"color": plot.VERMILION, "markersize": 12, "fillstyle": "none", "markeredgewidth": 2}
        ax.plot([intensity] * len(rates), rates, marker, linestyle="", label=name, **look)
    ax.set(xscale="log", yscale="log", xlabel="operations for each byte of main memory", ylabel="at most, TFLOP/s")
    ax.legend(fontsize=8, loc="lower right")
    return figure


def draw_running(scores: np.ndarray, m: np.ndarray, l: np.ndarray) -> Figure:
    """One row's scores as they come, and the running maximum and sum after each of them."""
    figure, (left, right) = plot.subplots(1, 2, height=2.9)
    at = np.arange(1, len(scores) + 1)
    left.plot(at, scores, "o", markersize=3, color=plot.SKY, label="score $s_j$")
    left.step(at, m, where="post", color=plot.BLUE, label="running maximum $m$")
    left.legend(fontsize=8, loc="lower right")
    right.step(at, l, where="post", color=plot.VERMILION, label="running sum $l$, relative to $m$")
    whole = np.exp(scores - scores.max()).cumsum()
    right.plot(at, whole, "--", color=plot.BLACK, label="the same sum, relative to the last $m$")
    for jump in at[1:][np.diff(m) > 0]:
        right.axvline(jump, color="#BBBBBB", linewidth=0.8, zorder=0)
    right.legend(fontsize=8, loc="upper left")
    right.set_ylim(0, 1.45 * max(l.max(), whole.max()))
    for ax in (left, right):
        ax.set_xlabel("keys seen")
    return figure


def line_of(module: Any, text: str) -> str:
    """FILE:LINE, as a debugger's `break` takes it, of the first line of a module that begins with `text`."""
    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    return f"{module.__file__}:{1 + next(i for i, line in enumerate(lines) if line.strip().startswith(text))}"


# What the estimator compiles: (kernel, head size).
ESTIMATED = {
    "smoke": [("forward", 64)],
    "cpu": [("forward", 64), ("forward", 128), ("dkdv", 64), ("dq", 64)],
}
ROW = re.compile(
    r"(?P<kernel>\w+) +D(?P<size>\d+) .* (?P<programs>\d+) programs +(?P<tensor>\d+) / *(?P<issue>\d+)"
    r" / *(?P<special>\d+) / *(?P<loads>\d+) +~ *(?P<all>\d+) cycles +~ *(?P<rate>\d+)"
)


def estimates(scale: str) -> tuple[str, list[dict[str, Any]]]:
    """What `python -m minillm.kernels.occupancy` prints for these kernels, and its rows as numbers.

    In a process of its own: in this one the kernels are interpreted and cannot be compiled.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    printed: list[str] = []
    for kernel, size in ESTIMATED.get(scale, ESTIMATED["cpu"]):
        command = [sys.executable, "-m", "minillm.kernels.occupancy", "--kernel", kernel, "--head-size", str(size)]
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        printed += [line for line in run.stdout.splitlines() if line not in printed]
    rows = [match.groupdict() for line in printed if (match := ROW.search(line))]
    numbers = [{k: v if k == "kernel" else int(v) for k, v in row.items()} for row in rows]
    return "\n".join(printed), numbers


def draw_estimates(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The cycles that one block takes each unit of a multiprocessor, by the estimator."""
    figure, ax = plot.subplots(height=2.9)
    units = {"tensor": "matrix products", "issue": "instructions", "special": "exp2", "loads": "loads"}
    at = np.arange(len(rows))
    for n, ((unit, name), color) in enumerate(zip(units.items(), (plot.BLUE, plot.ORANGE, plot.GREEN, plot.PURPLE))):
        ax.bar(at + (n - 1.5) * 0.2, [row[unit] for row in rows], 0.2, color=color, label=name)
    together = [row["all"] for row in rows]
    ax.hlines(together, at - 0.42, at + 0.42, color=plot.BLACK, label="all together")
    ax.set_xticks(at, [f"{row['kernel']} D{row['size']}\n{row['programs']} at once" for row in rows])
    ax.set(ylabel="cycles for a block (ESTIMATE)", xlim=(-0.7, len(rows) - 0.3), ylim=(0, 1.35 * max(together)))
    ax.legend(fontsize=8, ncols=5, loc="upper center", columnspacing=1.0, handlelength=1.2)
    ax.grid(visible=False, axis="x")
    return figure


def time_on_gpu() -> list[dict[str, Any]] | None:
    """Milliseconds of causal attention on the first GPU, forward and backward, by number of tokens; None without one.

    In a process of its own, where Triton compiles.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "minillm.workshop.tiling"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    rows: list[dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return rows


def measure_on_gpu(lengths: Sequence[int] = (1024, 4096, 8192)) -> list[dict[str, Any]]:
    """A row for each number of tokens: the median of interleaved rounds, 16 heads of 64 in bfloat16."""
    import torch
    from minillm.kernels import flash_attention
    from torch.nn.functional import scaled_dot_product_attention

    def plain(q: Any, k: Any, v: Any) -> Any:
        hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(hidden, float("-inf"))
        return scores.softmax(-1) @ v

    ways = {
        "plain": plain,
        "PyTorch's": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True),
        "simple kernel": lambda q, k, v: flash_attention(q, k, v, causal=True, impl="simple"),
        "fast kernel": lambda q, k, v: flash_attention(q, k, v, causal=True),
    }
    rows = []
    for tokens in lengths:
        options: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": True}
        q, k, v = (torch.randn(1, 16, tokens, 64, **options) for _ in "qkv")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(13):
            for name, way in ways.items():
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                out = way(q, k, v)
                out.backward(out.detach())
                end.record()
                torch.cuda.synchronize()
                if turn >= 3:  # the first turns compile
                    times[name].append(start.elapsed_time(end))
        rows.append({"tokens": tokens, **{name: float(np.median(t)) for name, t in times.items()}})
    return rows


if __name__ == "__main__":
    with redirect_stdout(io.StringIO()):
        measured = measure_on_gpu()
    print(json.dumps(measured))
