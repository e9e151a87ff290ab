"""How fast a training step is, beside PyTorch and beside what matrix products allow: see cpu.py.

    python tests/bench/cpu.py --only train       # GPTs, beside PyTorch as it is
    python tests/bench/cpu.py --only families    # BERT, Llama, encoder–decoder, LSTM
    python tests/bench/cpu.py --only compile     # GPTs, beside torch.compile
    python tests/bench/cpu.py --only memory      # the largest memory of a step, with each `engine.recompute`
    python tests/bench/cpu.py --only recompute   # and what that costs, in CPU time

A step is forward, backward, clipping and AdamW, in float32, without dropout, on random tokens. Ours is what `minillm
pretrain` runs: the batch shared among as many threads as matrix products would use.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cpu import Row, interleave
from memory import batch_for, peak_bytes

from minillm.costs.sizes import training_flops
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models import BertConfig, EncoderDecoderConfig, GPTConfig, LlamaConfig, LSTMConfig, model_from_config
from minillm.settings import IGNORE, TrainConfig


@dataclass(frozen=True)
class Work:
    """A step of a model with `config` on `batch` rows, and what it is to reach."""

    config: Any
    batch: int
    goal: float  # beside PyTorch as it is
    share: float = 0.0  # of the rate of a large product; 0: not asked

    def __str__(self) -> str:
        c = self.config
        return f"{c.model_type} V{c.vocab_size} T{c.context} L{c.n_layers} D{c.d_model} B{self.batch}"


def gpt(vocab_size: int, context: int, n_layers: int, n_heads: int, d_model: int) -> GPTConfig:
    return GPTConfig(vocab_size=vocab_size, context=context, n_layers=n_layers, n_heads=n_heads, d_model=d_model)


GPTS = [
    Work(gpt(65, 64, 4, 4, 128), 12, 1.3),
    Work(gpt(1024, 128, 4, 4, 128), 16, 1.3, 0.7),
    Work(gpt(1024, 256, 6, 6, 384), 8, 1.3, 0.88),
    Work(gpt(4096, 256, 6, 8, 256), 8, 1.3),
]
MIDDLE: dict[str, Any] = {"vocab_size": 2048, "context": 128, "d_model": 256, "dropout": 0.0}
FAMILIES = [
    Work(BertConfig(**MIDDLE, n_layers=4, n_heads=4, d_ff=1024), 8, 1.3),
    Work(LlamaConfig(**MIDDLE, n_layers=4, n_heads=4, d_ff=704), 8, 1.4),
    Work(EncoderDecoderConfig(**MIDDLE, n_layers=3, n_heads=4, d_ff=1024), 8, 1.3),
    Work(LSTMConfig(**MIDDLE, n_layers=2), 8, 1.0),
]
RECOMPUTE = ("none", "selective", "layers")
COMPILED = (1, 3)  # and which beside torch.compile, which takes a minute or more to compile each
GPTS_TOGETHER, COMPILED_TOGETHER, MEMORY = 1.45, 1.2, 1 / 0.6  # goals: geometric means, and PyTorch's memory by ours


# --- the peers: each a torch module that is called with a batch and gives the loss ------------------------------------


def torch_gpt(config: GPTConfig) -> Any:
    """GPT-2 in plain PyTorch, as one would write it: F.scaled_dot_product_attention, tied head."""
    import torch.nn.functional as F
    from torch import nn

    d_model, n_heads = config.d_model, config.n_heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
            self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
            self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

        def forward(self, x: Any) -> Any:
            B, T, D = x.shape
            q, k, v = self.qkv(self.ln_1(x)).view(B, T, 3, n_heads, D // n_heads).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(a.transpose(1, 2).reshape(B, T, D))
            return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(config.vocab_size, d_model), nn.Embedding(config.context, d_model)
            nn.init.normal_(self.wte.weight, std=0.02)
            self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
            self.ln_f = nn.LayerNorm(d_model)

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy((self.ln_f(x) @ self.wte.weight.T).flatten(0, 1), targets.flatten())

    return Model()


def torch_bert(config: BertConfig) -> Callable[..., Any]:
    from transformers import BertConfig as TheirConfig
    from transformers import BertForMaskedLM

    model = BertForMaskedLM(TheirConfig(**their_shape(config), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0))
    return labelled(model)


def torch_llama(config: LlamaConfig) -> Callable[..., Any]:
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    return labelled(LlamaForCausalLM(TheirConfig(**their_shape(config), num_key_value_heads=config.n_kv_heads)))


def their_shape(config: BertConfig | LlamaConfig) -> dict[str, Any]:
    """The shape by the names of transformers."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
    }


def labelled(model: Any) -> Any:
    """A model of transformers as one that is called with ids and targets; the loss is of the targets as they are."""
    import torch.nn.functional as F
    from torch import nn

    class Labelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.train()

        def forward(self, ids: Any, targets: Any) -> Any:
            logits = self.model(ids).logits
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    return Labelled()


def torch_encoder_decoder(config: EncoderDecoderConfig) -> Any:
    """torch.nn.Transformer between one embedding and its transpose."""
    import torch.nn.functional as F
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            n, d_model = config.n_layers, config.d_model
            self.table, self.places = nn.Embedding(config.vocab_size, d_model), nn.Embedding(config.context, d_model)
            nn.init.normal_(self.table.weight, std=0.02)
            shape = (d_model, config.n_heads, n, n, config.d_ff, config.dropout)
            self.transformer = nn.Transformer(*shape, batch_first=True)

        def forward(self, source: Any, ids: Any, targets: Any) -> Any:
            places = self.places.weight[: ids.shape[1]]
            hidden = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
            x = self.transformer(
                self.table(source) + places, self.table(ids) + places, tgt_mask=hidden, tgt_is_causal=True
            )
            return F.cross_entropy((x @ self.table.weight.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    return Model()


def torch_lstm(config: LSTMConfig) -> Any:
    import torch.nn.functional as F
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(config.vocab_size, config.d_model)
            self.lstm = nn.LSTM(config.d_model, config.hidden_features, config.n_layers, batch_first=True)
            self.head = nn.Linear(config.hidden_features, config.vocab_size, bias=False)

        def forward(self, ids: Any, targets: Any) -> Any:
            logits = self.head(self.lstm(self.table(ids))[0])
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Model()


PEERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "gpt": ("torch eager", torch_gpt),
    "bert": ("transformers", torch_bert),
    "llama": ("transformers", torch_llama),
    "encoder-decoder": ("nn.Transformer", torch_encoder_decoder),
    "lstm": ("nn.LSTM", torch_lstm),
}


# --- steps ------------------------------------------------------------------------------------------------------------


def our_step(work: Work, recompute: str = "none") -> Callable[[], None]:
    config = TrainConfig(lr=3e-4, batch_size=work.batch)
    engine = ThreadedNumpyEngine(model_from_config(work.config), config, recompute=recompute)
    batch = batch_for(work.config, work.batch)

    def step() -> None:
        engine.forward_backward([batch])
        engine.clip_gradients(1.0)
        engine.step(3e-4)

    return step


def their_step(work: Work, compiled: bool = False) -> Callable[[], None]:
    import torch

    model = PEERS[work.config.model_type][1](work.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    batch = [torch.from_numpy(array) for array in batch_for(work.config, work.batch)]
    loss = torch.compile(model) if compiled else model

    def step() -> None:
        loss(*batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(work: Work, repeats: int, peer_name: str, theirs: Callable[[], None], goal: float) -> Row:
    ours, peer = interleave(our_step(work), theirs, repeats)
    return Row(str(work), ours, peer, peer_name, "tok/s", work.batch * work.config.context, goal)


def together(what: str, rows: list[Row], goal: float) -> Row:
    """The geometric mean of the rows' ratios."""
    ratio = float(np.exp(np.mean([np.log(row.peer / row.ours) for row in rows])))
    return Row(what, 1.0, ratio, rows[0].peer_name, "", 1.0, goal)


def product_seconds(n: int = 2048) -> float:
    """Seconds per operation of a large product of matrices."""
    a, b = np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds) / (2 * n**3)


def bench_train(repeats: int) -> Iterator[Row]:
    """The peer's time, and as a share of ours what the operations would take at the rate of one large product."""
    rows = []
    for work in GPTS:
        row = compare(work, repeats, "torch eager", their_step(work), work.goal)
        rows.append(row)
        yield row
        flops = training_flops(work.config, work.config.context) * row.amount
        least = flops * product_seconds()
        yield Row(
            f"  its {flops / 1e9:.0f} GFLOP", row.ours, least, "large product", "GFLOP/s", flops / 1e9, work.share
        )
    yield together("all four", rows, GPTS_TOGETHER)


def bench_families(repeats: int) -> Iterator[Row]:
    for work in FAMILIES:
        yield compare(work, repeats, PEERS[work.config.model_type][0], their_step(work), work.goal)


def bench_compile(repeats: int) -> Iterator[Row]:
    rows = []
    for work in (GPTS[index] for index in COMPILED):
        rows.append(compare(work, repeats, "torch.compile", their_step(work, compiled=True), 0.0))
        yield rows[-1]
    yield together("both", rows, COMPILED_TOGETHER)


def bench_memory(repeats: int) -> Iterator[Row]:
    """The largest memory of three steps, over what importing takes, as tokens of a step by a gigabyte."""
    for index, work in enumerate(GPTS):
        peer = gigabytes("theirs", index)
        for how in RECOMPUTE:
            ours, tokens = gigabytes("ours", index, how), work.batch * work.config.context
            yield Row(f"memory {work} {how}", ours, peer, "torch eager", "tok/GB", tokens, MEMORY)


def bench_recompute(repeats: int) -> Iterator[Row]:
    """What it costs to compute a part twice: the CPU time of a step beside that of one that keeps everything."""
    for work in GPTS:
        for how in RECOMPUTE[1:]:
            ours, plain = interleave(our_step(work, how), our_step(work), repeats, time.process_time)
            yield Row(f"{work} {how}", ours, plain, "none", "tok/s", work.batch * work.config.context)


def gigabytes(side: str, index: int, recompute: str = "none") -> float:
    """`measure` in a process of its own, in 10⁹ bytes."""
    command = [sys.executable, __file__, side, str(index), recompute]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e9


def measure(side: str, index: int, recompute: str = "none") -> int:
    """Bytes that three steps took at most, in this process, which must be a fresh one."""
    if side == "theirs":
        import torch
        import torch._dynamo  # which the first optimizer imports

        torch.ones(1).sum()
    before = peak_bytes()
    step = our_step(GPTS[index], recompute) if side == "ours" else their_step(GPTS[index])
    for _ in range(3):
        step()
    return peak_bytes() - before


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
