"""Training GPT-2 124M on one GPU: our step against a plain PyTorch loop, interleaved in one run; and a loss overlay.

    python tests/bench/train_gpu.py --out OUT                      # a few minutes on an H100 or H200
    python tests/bench/train_gpu.py --out OUT --overlay 2000       # and losses: Triton attention against SDPA
    python tests/bench/train_gpu.py --out OUT --smoke              # the same code at toy size, on a CPU too

Rows: "pytorch", a GPT-2 as a PyTorch user writes it (nn.Linear, scaled_dot_product_attention, cross_entropy over all
logits, torch.compile, autocast to bfloat16, fused AdamW); "minillm triton", a step of our TorchEngine with our
attention; "minillm sdpa", the same with PyTorch's attention, so that the kernel's share is seen. Same shapes, batch,
precision, optimizer and clipping for all. A block of steps of each row is timed in turn, round after round, and medians
over rounds are compared. Peak memory is measured for each row while it is the only one that runs, without what the
others hold. MFU counts causal attention as half (minillm/costs/sizes.py) and takes the card's data-sheet rate.

The overlay trains one model three times from the same weights on the same batches: with Triton's attention, with
PyTorch's, and with PyTorch's again, since its backward pass is not deterministic: the gap between the last two is what
the gap between the first two has to be compared with. Writes train.json and train.md to OUT when the rows are measured,
and again with the overlay. A row that fails is named with its error; the others are measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import result_rows
import torch
import torch.nn.functional as F
from torch import nn

from minillm.costs.sizes import n_parameters, training_flops
from minillm.data import Batcher, TokenDataset
from minillm.engines.torch_engine import TorchEngine
from minillm.engines.torch_machine import choose_device, choose_precision, peak_flops
from minillm.models import GPT, GPTConfig
from minillm.models.sketch import sketch
from minillm.settings import EngineConfig, TrainConfig

Batch = tuple[np.ndarray, np.ndarray]
GOALS = "at least 1.08, at most 0.60"


# --- the peer ---------------------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.proj = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.fc, self.out = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D/H)
        x = x + self.proj(attended.transpose(1, 2).reshape(b, t, d))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 in plain PyTorch: what most loops on the web look like."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.wpe = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(PlainBlock(config.d_model, config.n_heads) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def plain_step(config: GPTConfig, device: torch.device, precision: str, compiled: bool) -> Callable[[Batch], float]:
    """One training step of the plain loop: batch -> loss."""
    torch.manual_seed(0)
    model: Any = PlainGPT(config).to(device)
    decay = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=device.type == "cuda")
    run = torch.compile(model) if compiled else model
    low = torch.float16 if precision == "fp16" else torch.bfloat16

    def step(batch: Batch) -> float:
        ids, targets = (torch.from_numpy(a).to(device, non_blocking=True) for a in batch)
        with torch.autocast(device.type, dtype=low, enabled=precision != "full"):
            loss = run(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def our_step(config: GPTConfig, settings: EngineConfig, batch_size: int) -> Callable[[Batch], float]:
    """One training step as `minillm.training.train.train` takes it: batch -> loss."""
    engine = TorchEngine(GPT(config, sketch()), TrainConfig(seed=0, batch_size=batch_size, lr=6e-4), settings)

    def step(batch: Batch) -> float:
        loss = engine.forward_backward([batch])
        norm = engine.clip_gradients(1.0)
        engine.step(6e-4)
        return engine.read(loss, norm)[0]

    return step


# --- speed and memory -------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, config: GPTConfig, device: torch.device, precision: str) -> dict[str, Any]:
    """Build each row, note its peak memory, then time blocks of steps of all rows in turn."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, config.vocab_size, (options.batch_size, config.context + 1))
    batch: Batch = tuple(pin(np.ascontiguousarray(a), device) for a in (tokens[:, :-1], tokens[:, 1:]))
    settings = EngineConfig(name="torch", device=device.type, precision=precision, compile=options.compile)
    makers: dict[str, Callable[[], Callable[[Batch], float]]] = {
        "pytorch": partial(plain_step, config, device, precision, options.compile == "on")
    }
    for attention in ("triton", "sdpa"):
        ours = replace(config, attention=attention)
        makers[f"minillm {attention}"] = partial(our_step, ours, settings, options.batch_size)
    makers = {name: makers[name] for name in options.only or makers}

    steps: dict[str, Callable[[Batch], float]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, make in makers.items():
        held, began = allocated(device), time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            step = make()
            losses = [step(batch) for _ in range(options.warmup)]
        except Exception as error:  # out of memory, a compiler's error: the others are still measured
            rows[name] = {"refused": reason(error)}
            result_rows.append(options.rows, stage=options.stage, name=name, **rows[name])
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        peak = torch.cuda.max_memory_allocated() - held if device.type == "cuda" else 0
        prepared = time.perf_counter() - began
        steps[name] = step
        rows[name] = {"first_losses": losses, "peak_memory_gb": peak / 1e9, "seconds_per_step": []}
        if device.type == "cuda":
            torch.cuda.empty_cache()
        note = {key: rows[name][key] for key in ("first_losses", "peak_memory_gb")}
        result_rows.append(options.rows, stage=options.stage, name=name, **note, prepared_seconds=prepared)
        print(f"{name}: ready, losses {losses[0]:.3f} -> {losses[-1]:.3f}", flush=True)
    n_tokens = options.batch_size * config.context
    for _ in range(options.rounds):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(options.steps):
                step(batch)
            synchronize(device)
            seconds = (time.perf_counter() - start) / options.steps
            rows[name]["seconds_per_step"].append(seconds)
            rate = n_tokens / seconds
            result_rows.append(options.rows, stage=options.stage, name=name, step=seconds, tokens_per_second=rate)

    flops = training_flops(config, config.context)
    peak_rate = peak_flops(device, precision)
    for row in rows.values():
        if "refused" not in row:
            row["tokens_per_second"] = n_tokens / statistics.median(row["seconds_per_step"])
            row["mfu"] = flops * row["tokens_per_second"] / peak_rate if peak_rate else None
    return rows


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def pin(array: np.ndarray, device: torch.device) -> np.ndarray:
    return torch.from_numpy(array).pin_memory().numpy() if device.type == "cuda" else array


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# --- the loss overlay -------------------------------------------------------------------------------------------------


def overlay(options: argparse.Namespace, config: GPTConfig, device: torch.device, precision: str) -> dict[str, Any]:
    """Losses of the three runs, step by step, and their gaps over the last tenth."""
    dataset = TokenDataset(options.data) if options.data else None
    names = {"triton": "triton", "sdpa": "sdpa", "sdpa again": "sdpa"}
    settings = EngineConfig(name="torch", device=device.type, precision=precision, compile=options.compile)
    losses: dict[str, list[float]] = {}
    tokens = source_bytes()
    for name, attention in names.items():
        batches: Any = Windows(tokens, options.overlay_batch, config.context)
        if dataset is not None:
            batches = Batcher(dataset, options.overlay_batch, config.context, seed=1)
        try:
            step = our_step(replace(config, attention=attention), settings, options.overlay_batch)
            losses[name] = [step(batches.next()) for _ in range(options.overlay)]
        except Exception as error:
            return {"refused": f"{name}: {reason(error)}"}
        print(f"overlay, {name}: {losses[name][0]:.4f} -> {losses[name][-1]:.4f}", flush=True)
    last = slice(-max(1, options.overlay // 10), None)

    def gap(a: str, b: str) -> dict[str, float]:
        difference = np.array(losses[a]) - np.array(losses[b])
        return {"mean_last_tenth": float(difference[last].mean()), "largest": float(np.abs(difference).max())}

    return {
        "steps": options.overlay,
        "data": str(options.data or "this project's source, as bytes"),
        "losses": losses,
        "triton - sdpa": gap("triton", "sdpa"),
        "sdpa again - sdpa": gap("sdpa again", "sdpa"),
    }


def source_bytes() -> np.ndarray:
    """This project's own source code, a byte a token: data that is always there."""
    files = sorted(Path(__file__).resolve().parents[2].glob("minillm/**/*.py"))
    return np.frombuffer(b"".join(file.read_bytes() for file in files), dtype=np.uint8).astype(np.int64)


class Windows:
    """Batches of random stretches of some tokens, the same ones for each object."""

    def __init__(self, tokens: np.ndarray, batch_size: int, context: int):
        self.tokens = tokens
        self.draw = np.random.default_rng(1)
        self.shape = batch_size, context

    def next(self) -> Batch:
        starts = self.draw.integers(0, len(self.tokens) - self.shape[1] - 1, self.shape[0])
        rows = self.tokens[starts[:, None] + np.arange(self.shape[1] + 1)]
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


# --- the report -------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """The tables, short enough to stand at the end of a log."""
    lines = [json.dumps(result["setting"]), ""]
    lines += ["| row | tokens/s | MFU | peak memory, GB |", "| --- | ---: | ---: | ---: |"]
    rows = result["rows"]
    for name, row in rows.items():
        if "refused" in row:
            lines.append(f"| {name} | did not run: {row['refused']} | | |")
            continue
        mfu = f"{row['mfu']:.1%}" if row["mfu"] else "-"
        lines.append(f"| {name} | {row['tokens_per_second']:,.0f} | {mfu} | {row['peak_memory_gb']:.2f} |")
    ran = [name for name, row in rows.items() if "refused" not in row]
    lines += ["", "| against pytorch | tokens/s | peak memory | goals |", "| --- | ---: | ---: | --- |"]
    for name in ran[1:] if ran[:1] == ["pytorch"] else []:
        speed = rows[name]["tokens_per_second"] / rows["pytorch"]["tokens_per_second"]
        plain_memory = rows["pytorch"]["peak_memory_gb"] or math.inf
        memory = rows[name]["peak_memory_gb"] / plain_memory
        lines.append(f"| {name} | {speed:.3f} | {memory:.3f} | {GOALS} |")
    found = result.get("overlay")
    if found and "refused" in found:
        lines += ["", f"overlay did not run: {found['refused']}"]
    elif found:
        lines += ["", f"overlay of {found['steps']} steps: mean gap over the last tenth (largest gap of any step)"]
        for key in ("triton - sdpa", "sdpa again - sdpa"):
            lines.append(f"    {key}: {found[key]['mean_last_tenth']:+.5f} ({found[key]['largest']:.5f})")
    return "\n".join(lines)


def write(result: dict[str, Any], out: Path | None) -> None:
    """train.json and train.md, each whole or not at all."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result_rows.replace(out / "train.json", json.dumps(result) + "\n")
        result_rows.replace(out / "train.md", report(result) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for train.json and train.md")
    parser.add_argument("--batch-size", type=int, default=32, help="sequences of 1,024 tokens")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the clock starts, compilation included")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of each row in a round")
    parser.add_argument("--compile", choices=["on", "off"], default="on")
    names = ("pytorch", "minillm triton", "minillm sdpa")
    parser.add_argument("--only", nargs="+", choices=names, help="these rows; all if left out")
    parser.add_argument("--rows", type=Path, help="file to add each round of each row to, as a line of JSON")
    parser.add_argument("--stage", default="step", help="what the rows are called there")
    parser.add_argument("--overlay", type=int, default=0, help="steps of the loss overlay; 0: none")
    parser.add_argument("--overlay-batch", type=int, default=16)
    parser.add_argument("--data", type=Path, help="token file for the overlay (tokens.bin with its .json)")
    parser.add_argument("--smoke", action="store_true", help="toy size, on a CPU too")
    options = parser.parse_args(arguments)
    if options.out is None and options.rows is None:
        parser.error("nothing says where the results go: give --out FOLDER or --rows FILE")
    device = choose_device("auto" if not options.smoke else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not options.smoke:
        parser.error("no CUDA device: nothing can be measured here (--smoke tries the code out)")
    config = GPTConfig(vocab_size=50304)
    if options.smoke:
        config = GPTConfig(vocab_size=256, context=16, n_layers=1, n_heads=2, d_model=32)
        options.batch_size, options.warmup, options.rounds, options.steps, options.overlay_batch = 2, 2, 1, 1, 2
        options.compile = "off"
        if device.type == "cpu":
            os.environ["TRITON_INTERPRET"] = "1"  # read when minillm.kernels imports triton
    precision = choose_precision("auto", device)
    setting = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "precision": precision,
        "batch_size": options.batch_size,
        "context": config.context,
        "parameters": n_parameters(config),
        "compile": options.compile,
        "smoke": options.smoke,
    }
    result: dict[str, Any] = {"setting": setting, "rows": measure(options, config, device, precision)}
    write(result, options.out)
    if options.overlay:
        result["overlay"] = overlay(options, config, device, precision)
        gaps = {key: value for key, value in result["overlay"].items() if key != "losses"}
        result_rows.append(options.rows, stage=options.stage, overlay=gaps)
        write(result, options.out)
    print("\n" + report(result))
    if options.smoke:
        print("smoke run: these times mean nothing")


if __name__ == "__main__":
    main()
