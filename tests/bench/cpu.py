"""How the NumPy side compares with its peers on this machine's CPU: one run, interleaved, as ratios.

    python tests/bench/cpu.py                 # everything, a few minutes; needs the dev extra; leave the machine alone
    meanwhile python tests/bench/cpu.py --only train    # train | decode | encode | wordpiece | cores | bpe

A ratio is the peer's time divided by ours: above 1 means that we are faster. Each pair is timed turn by turn, A B A B,
and the medians are compared, so that a change in the machine's speed hits both alike.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass
class Row:
    what: str
    ours: float  # seconds
    peer: float
    peer_name: str
    unit: str  # what `amount` counts
    amount: float  # work done per call
    goal: float = 0.0  # the ratio that is to be reached; 0: none is set

    def __str__(self) -> str:
        return (
            f"{self.what:44s} {self.amount / self.ours:12,.0f} {self.unit:8s} {self.peer_name:14s}"
            f" {self.amount / self.peer:12,.0f} {self.unit:8s} ratio {self.peer / self.ours:5.2f}"
            + (f"  goal {self.goal:.2f}" if self.goal else "")
        )


def interleave(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median seconds of each, by the clock, called in turn, after one warm-up call of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, call in enumerate((ours, peer)):
            start = clock()
            call()
            if turn:
                times[side].append(clock() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def torch_gpt(vocab_size: int, context: int, n_layers: int, n_heads: int, d_model: int):
    """GPT-2 in plain PyTorch, as one would write it: F.scaled_dot_product_attention, tied head, eager."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
            self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
            self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            B, T, D = x.shape
            q, k, v = self.qkv(self.ln_1(x)).view(B, T, 3, n_heads, D // n_heads).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(a.transpose(1, 2).reshape(B, T, D))
            return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocab_size, d_model), nn.Embedding(context, d_model)
            nn.init.normal_(self.wte.weight, std=0.02)
            self.blocks = nn.ModuleList(Block() for _ in range(n_layers))
            self.ln_f = nn.LayerNorm(d_model)

        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
            logits = self.ln_f(x) @ self.wte.weight.T
            return F.cross_entropy(logits.view(-1, vocab_size), targets.view(-1))

    return Model()


def bench_train(repeats: int) -> list[Row]:
    """A whole step: forward, backward, clipping, AdamW. At the size of the quickstart and at two larger ones."""
    import torch

    from minillm.engines.threads import ThreadedNumpyEngine
    from minillm.models import GPT, GPTConfig
    from minillm.settings import TrainConfig

    rows = []
    for vocab_size, context, n_layers, n_heads, d_model, batch in (
        (1024, 128, 4, 4, 128, 16),
        (4096, 256, 6, 8, 256, 8),
        (1024, 256, 6, 6, 384, 8),
    ):
        ids = np.random.default_rng(0).integers(0, vocab_size, (batch, context + 1))
        x, y = ids[:, :-1], ids[:, 1:]
        model = GPT(
            GPTConfig(vocab_size=vocab_size, context=context, n_layers=n_layers, n_heads=n_heads, d_model=d_model)
        )
        engine = ThreadedNumpyEngine(model, TrainConfig(lr=3e-4, batch_size=batch))  # what `minillm pretrain` uses

        def our_step(engine=engine, x=x, y=y) -> None:
            engine.forward_backward([(x, y)])
            engine.clip_gradients(1.0)
            engine.step(3e-4)

        theirs = torch_gpt(vocab_size, context, n_layers, n_heads, d_model)
        their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-4)
        tx, ty = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))

        def their_step(theirs=theirs, their_optimizer=their_optimizer, tx=tx, ty=ty) -> None:
            theirs(tx, ty).backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            their_optimizer.step()
            their_optimizer.zero_grad(set_to_none=True)

        ours, peer = interleave(our_step, their_step, repeats)
        name = f"train V{vocab_size} T{context} L{n_layers} D{d_model} B{batch}"
        rows.append(Row(name, ours, peer, "torch eager", "tok/s", x.size))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=("train", "decode", "encode", "wordpiece", "cores", "bpe"), help="one group instead of all"
    )
    parser.add_argument("--repeats", type=int, default=20, help="timed turns of each side (default: 20)")
    arguments = parser.parse_args()

    import decode_speed  # beside this file
    import tokenizer_speed

    groups = {
        "train": bench_train,
        "decode": decode_speed.bench_decode,
        "encode": tokenizer_speed.bench_one_thread,
        "wordpiece": tokenizer_speed.bench_wordpiece,
        "cores": tokenizer_speed.bench_cores,
        "bpe": tokenizer_speed.bench_training,
    }
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.processor() or platform.machine()}")
    for name, bench in groups.items():
        if arguments.only in (None, name):
            for row in bench(arguments.repeats):
                print(row, flush=True)


if __name__ == "__main__":
    main()
