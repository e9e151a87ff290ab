"""What tests/engines/test_distributed.py starts under torchrun: trains the test's small model on every process.

torchrun --nproc-per-node 2 distributed_worker.py FOLDER train    # ddp and fsdp: new runs, and runs to resume
torchrun --nproc-per-node 2 distributed_worker.py FOLDER compile  # ddp and fsdp: compiled and recomputed
torchrun --nproc-per-node 2 distributed_worker.py FOLDER muon     # ddp and fsdp: matrices shared among the processes
torchrun --nproc-per-node 2 distributed_worker.py FOLDER triton   # ddp and fsdp: our attention, interpreted
torchrun --nproc-per-node 2 distributed_worker.py FOLDER hsdp     # one copy of the model, and two
torchrun --nproc-per-node 4 distributed_worker.py FOLDER copies   # hsdp: two copies, each on two processes
torchrun --nproc-per-node 2 distributed_worker.py FOLDER overlap  # ddp: when gradients are ready to be exchanged
torchrun --nproc-per-node 2 distributed_worker.py FOLDER die-fsdp # or die-ddp: until rank 1 is killed
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from minillm.data import Document, TokenDataset, pack
from minillm.engines import torch_engine
from minillm.engines.torch_engine import TorchEngine
from minillm.models import GPT, GPTConfig
from minillm.settings import EngineConfig, TrainConfig
from minillm.training.text import TextData
from minillm.training.train import train

TEXT = "".join(f"{i} times {i} is {i * i}. " for i in range(300))
GLOBAL_BATCH = 4
PARALLEL = ("ddp", "fsdp")
RECOMPUTED = {"ddp": "layers", "fsdp": "selective"}


class Bytes:
    """The smallest tokenizer: a token is a byte, and 256 ends a text."""

    vocab_size = 257
    eos_id = 256

    def encode(self, text, disallowed_special=()):
        return list(text.encode())

    def fingerprint(self):
        return "bytes"

    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def make_data(folder: Path) -> tuple[TokenDataset, TokenDataset]:
    pack([Document(TEXT, "a")], Bytes(), folder / "train.bin")
    pack([Document(TEXT[1000:2000], "b")], Bytes(), folder / "val.bin")
    return data(folder)


def data(folder: Path) -> tuple[TokenDataset, TokenDataset]:
    return TokenDataset(folder / "train.bin"), TokenDataset(folder / "val.bin")


def make_model(attention: str = "auto") -> GPT:
    config = GPTConfig(vocab_size=257, context=16, n_layers=2, n_heads=2, d_model=16, attention=attention)
    return GPT(config, np.random.default_rng(0)).to(np.float64)


def make_config(processes: int, **changes) -> TrainConfig:
    settings = {"max_steps": 8, "eval_every": 4, "save_every": 4, "warmup_steps": 2, "eval_tokens": 300}
    settings |= {"batch_size": GLOBAL_BATCH // processes, "grad_accumulation": 2, "optimizer": "adamw"}
    return TrainConfig(**{**settings, **changes})


class Dying(TorchEngine):
    """Rank 1 is killed at its sixth step: after the first checkpoint."""

    def forward_backward(self, micro_batches):
        if self.rank == 1 and self.steps == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward_backward(micro_batches)


def run(folder, out, parallel, engine=TorchEngine, resume=False, attention="auto", changes=None, **settings) -> None:
    made = partial(engine, settings=EngineConfig(parallel=parallel, device="cpu", **settings))
    config = make_config(int(os.environ["WORLD_SIZE"]), **(changes or {}))
    train(
        make_model(attention), TextData(*data(folder)), config, folder / out, engine=made, resume=resume, progress=False
    )


class SmallBuckets(DistributedDataParallel):
    """Exchanges gradients in parts that are small beside the test's small model."""

    def __init__(self, module, **settings) -> None:
        super().__init__(module, bucket_cap_mb=0.01, **settings)


def products_after_the_first_bucket(**settings) -> dict[str, int]:
    """Buckets of gradients in a step, and the matrix products that the backward pass still has to compute when the
    first of them is ready."""
    engine = TorchEngine(make_model(), make_config(2), EngineConfig(device="cpu", **settings))

    def ready(process_group, bucket):
        with torch.profiler.record_function("bucket"):
            return allreduce_hook(process_group, bucket)

    engine.module.register_comm_hook(None, ready)
    ids = np.random.default_rng(engine.rank).integers(0, 257, (2, 16))
    for _ in range(2):  # DDP fills its buckets in the order of the first step's gradients from the second on
        engine.forward_backward([(ids, ids)])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        engine.forward_backward([(ids, ids)])
    began = {name: [e.time_range.start for e in profile.events() if e.name == name] for name in ("bucket", "aten::mm")}
    return {"buckets": len(began["bucket"]), "after": sum(t > min(began["bucket"]) for t in began["aten::mm"])}


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2]
    if what.startswith("die-"):
        parallel = what.removeprefix("die-")
        run(folder, f"killed-{parallel}", parallel, Dying)
        return
    torch.compile = partial(torch.compile, backend="aot_eager")  # inductor would take a minute
    if what == "overlap":
        torch_engine.DistributedDataParallel = SmallBuckets
        dist._DEFAULT_FIRST_BUCKET_BYTES = 10_000  # which torch.compile asks for, too
        found = {"plain": products_after_the_first_bucket(compile="off")}
        found["compiled"] = products_after_the_first_bucket(compile="on")
        found["recomputed"] = products_after_the_first_bucket(compile="on", recompute="layers")
        torch._dynamo.reset()
        torch._dynamo.config.optimize_ddp = False  # what torch.compile does by itself
        found["uncut"] = products_after_the_first_bucket(compile="on")
        if os.environ["RANK"] == "0":
            (folder / "overlap.json").write_text(json.dumps(found))
        return
    for parallel in PARALLEL:
        if what == "compile":
            run(folder, f"compiled-{parallel}", parallel, compile="on", recompute=RECOMPUTED[parallel])
        elif what == "hsdp":
            for group in (0, 1):  # one copy of the model on both processes, or one on each
                run(folder, f"hsdp-{group}", "hsdp", shard_group=group)
            try:
                run(folder, "hsdp-3", "hsdp", shard_group=3)
            except ValueError as error:
                print(error)
            return
        elif what == "copies":
            # (320 tokens are what rows of 16 come to for 300 in batches of 2 and 4, but not of 1)
            run(folder, "hsdp-copies", "hsdp", shard_group=2, changes={"eval_tokens": 320})
            return
        elif what == "muon":
            run(folder, f"muon-{parallel}", parallel, changes={"optimizer": "muon"})
        elif what == "triton":
            run(folder, f"triton-{parallel}", parallel, attention="triton")
        else:
            run(folder, f"new-{parallel}", parallel)
            run(folder, f"resumed-{parallel}", parallel, resume=True)


if __name__ == "__main__":
    main()
