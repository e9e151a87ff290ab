"""A training run of GPT-2 124M as `minillm pretrain` makes it, on tokens that were prepared elsewhere (`prepare.py`).

    tests/bench/gpu.sh second OUT run

The corpus itself need not travel, so the loop is called here rather than the command, which asks for it. Every line of
the run's metrics.jsonl becomes a row at once. At the end the run folder is opened and writes some text. Where the
card's memory is too small, the batch is halved and its parts doubled until it fits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import result_rows

ROOM = 8e9  # bytes for two checkpoints, beyond which memory serves as a disk
ROWS = 64  # sequences of a step
MEMORY = Path("/dev/shm")


def settings_of(options: argparse.Namespace, batch_size: int) -> tuple[Any, Any, Any]:
    """(model config, train config, engine config)."""
    from minillm.models import GPTConfig
    from minillm.settings import EngineConfig, TrainConfig

    if options.smoke:
        model = GPTConfig(vocab_size=512, context=8, n_layers=1, n_heads=1, d_model=16, attention="triton")
        train = TrainConfig(max_steps=4, batch_size=2, eval_every=2, eval_tokens=16, save_every=100)
        return model, train, EngineConfig(name="torch", compile="off")
    model = GPTConfig(vocab_size=50304, attention="triton")
    lengths = {"max_steps": 0, "max_seconds": options.seconds, "eval_every": 200, "save_every": 100_000}
    parts = {"batch_size": batch_size, "grad_accumulation": ROWS // batch_size}
    train = TrainConfig(**lengths, **parts, lr=6e-4, warmup_steps=700, eval_tokens=250_000)
    return model, train, EngineConfig(name="torch")


class Follow:
    """Makes rows of what is new in a file of metrics."""

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        self.options, self.path, self.done = options, path, 0

    def __call__(self, *_: object) -> None:
        found = result_rows.read(self.path)
        for row in found[self.done :]:
            result_rows.append(self.options.rows, stage=self.options.stage, **row)
        self.done = len(found)


def train_once(options: argparse.Namespace, out: Path, batch_size: int) -> None:
    """Train in the folder `out`. Raises torch.OutOfMemoryError."""
    from minillm.data import TokenDataset
    from minillm.engines.torch_engine import TorchEngine
    from minillm.models import GPT
    from minillm.models.sketch import sketch
    from minillm.tokenizers import load_tokenizer
    from minillm.training.text import TextData
    from minillm.training.train import train

    model, settings, engine = settings_of(options, batch_size)
    data = TextData(TokenDataset(options.tokens / "train.bin"), TokenDataset(options.tokens / "val.bin"))
    follow = Follow(options, out / "metrics.jsonl")
    how = {"tokenizer": load_tokenizer(options.tokens / "tokenizer.json"), "before_step": follow}
    make = partial(TorchEngine, settings=engine)
    try:
        train(GPT(model, sketch(settings.seed)), data, settings, out, engine=make, **how)
    finally:
        follow()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, help="file to add the run's metrics to, as lines of JSON")
    parser.add_argument("--stage", default="run", help="what the rows are called there")
    parser.add_argument("--tokens", type=Path, required=True, help="folder that prepare.py made")
    parser.add_argument("--seconds", type=float, default=90, help="of training, compilation and evaluations included")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, in the interpreter")
    options = parser.parse_args()
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    import torch

    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else None) as folder:
        batch_size, run = options.batch_size, Path(folder, "run")
        while True:
            try:
                train_once(options, run, batch_size)
                break
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
            batch_size //= 2
            print(f"out of memory: {batch_size} sequences at a time", flush=True)
            torch.cuda.empty_cache()
            shutil.rmtree(run)
        words = ["generate", run, "--prompt", "def ", "--max-new-tokens", "8" if options.smoke else "60", "--seed", "1"]
        done = subprocess.run([sys.executable, "-m", "minillm", *words], capture_output=True, text=True)
        print(done.stdout, done.stderr, flush=True)
        result_rows.append(options.rows, stage=options.stage, sample=done.stdout[:1000], batch_size=batch_size)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
