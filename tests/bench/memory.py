"""How much memory a training step takes on NumPy, beside what `pretrain` reckons before it lets a run begin.

    python tests/bench/memory.py                # a table of all shapes; a minute or two, and up to 3 GB
    python tests/bench/memory.py one 'gpt small'    # one of them, in this process: what the table is made of

Each shape is measured in a process of its own: the largest resident size after three steps, less what it was when all
had been imported. (Linux only. getrusage would do but for a parent: a child begins with its parent's largest size.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minillm.costs.sizes import numpy_training_bytes
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models import BertConfig, EncoderDecoderConfig, GPTConfig, LlamaConfig, LSTMConfig, model_from_config
from minillm.settings import IGNORE, TrainConfig

MIDDLE = {"vocab_size": 4096, "context": 128, "n_heads": 4, "d_model": 256}
LAPTOP = GPTConfig(vocab_size=2048, context=128, n_layers=4, n_heads=4, d_model=128)
LARGE_BATCH = GPTConfig(vocab_size=1024, context=64, n_layers=4, n_heads=4, d_model=128)
LLAMA = LlamaConfig(**{**MIDDLE, "context": 256}, n_layers=4, n_kv_heads=2, d_ff=704)
SHAPES: dict[str, tuple[Any, ...]] = {  # name -> config, batch size, threads, what is computed again (none of it)
    "gpt laptop": (LAPTOP, 8, 1),
    "gpt laptop, 2 threads": (LAPTOP, 8, 2),
    "gpt wide": (GPTConfig(vocab_size=8192, context=128, n_layers=2, n_heads=8, d_model=768), 2, 1),
    "gpt long": (GPTConfig(vocab_size=512, context=1024, n_layers=2, n_heads=4, d_model=64), 2, 1),
    "gpt large batch": (LARGE_BATCH, 64, 1),
    "gpt large batch, layers": (LARGE_BATCH, 64, 1, "layers"),
    "gpt large batch, selective": (LARGE_BATCH, 64, 1, "selective"),
    "gpt large vocabulary": (GPTConfig(vocab_size=50257, context=128, n_layers=1, n_heads=4, d_model=128), 8, 1),
    "llama": (LLAMA, 8, 1),
    "llama, layers": (LLAMA, 8, 1, "layers"),
    "llama, selective": (LLAMA, 8, 1, "selective"),
    "bert": (BertConfig(**MIDDLE, n_layers=4, d_ff=1024), 16, 1),
    "encoder-decoder": (EncoderDecoderConfig(**MIDDLE, n_layers=2, d_ff=1024), 16, 1),
    "lstm": (LSTMConfig(vocab_size=4096, context=128, n_layers=2, d_model=256), 16, 1),
}


def peak_bytes():
    """The largest resident size that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def batch_for(config, batch_size):
    """A batch of random tokens, as training has them."""
    draw = np.random.default_rng(0)
    ids, targets = draw.integers(0, config.vocab_size - 1, (2, batch_size, config.context))
    if isinstance(config, EncoderDecoderConfig):
        return ids, ids, targets
    if isinstance(config, BertConfig):
        return ids, np.where(draw.random(ids.shape) < 0.15, targets, IGNORE)
    return ids, targets


def measure(name):
    """(bytes that three steps took at most, bytes reckoned) in this process, which must be a fresh one."""
    config, batch_size, threads, *how = SHAPES[name]
    before = peak_bytes()
    settings = TrainConfig(batch_size=batch_size)
    model = model_from_config(config)
    options: dict[str, Any] = {"recompute": how[0]} if how else {}
    if threads == 1:
        engine = NumpyEngine(model, settings, **options)
    else:
        engine = ThreadedNumpyEngine(model, settings, threads, **options)
    for _ in range(3):
        engine.forward_backward([batch_for(config, batch_size)])
        engine.clip_gradients(1.0)
        engine.step(1e-3)
    return peak_bytes() - before, numpy_training_bytes(config, batch_size, config.context, threads, *how)


def in_a_process(name):
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "one", name]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    words = parser.parse_args().words
    if words:
        print(json.dumps(measure(words[1])))
        return
    print(f"{'shape':28s}{'measured':>10s}{'reckoned':>10s}  reckoned / measured")
    for name in SHAPES:
        measured, reckoned = in_a_process(name)
        print(f"{name:28s}{measured / 1e6:>7,.0f} MB{reckoned / 1e6:>7,.0f} MB  {reckoned / measured:.2f}", flush=True)


if __name__ == "__main__":
    main()
