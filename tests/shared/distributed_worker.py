"""What tests/engines/test_distributed.py starts under torchrun: trains the test's small model on every process.

torchrun --nproc-per-node 2 distributed_worker.py FOLDER train    # ddp and fsdp: new runs, and runs to resume
torchrun --nproc-per-node 2 distributed_worker.py FOLDER compile  # ddp and fsdp: compiled and recomputed
torchrun --nproc-per-node 2 distributed_worker.py FOLDER muon     # ddp and fsdp: matrices shared among the processes
torchrun --nproc-per-node 2 distributed_worker.py FOLDER triton   # ddp and fsdp: our attention, interpreted
torchrun --nproc-per-node 2 distributed_worker.py FOLDER hsdp     # one copy of the model, and two
torchrun --nproc-per-node 4 distributed_worker.py FOLDER copies   # hsdp: two copies, each on two processes
torchrun --nproc-per-node 2 distributed_worker.py FOLDER overlap  # ddp: when gradients are ready to be exchanged
torchrun --nproc-per-node 2 distributed_worker.py FOLDER die-fsdp # or die-ddp: until rank 1 is killed
torchrun --nproc-per-node 2 distributed_worker.py FOLDER shards   # ddp and fsdp: checkpoints in shards, and behind
torchrun --nproc-per-node 2 distributed_worker.py FOLDER begin    # fsdp: up to the fifth step of twelve, in shards
torchrun --nproc-per-node 2 distributed_worker.py FOLDER end      # fsdp: goes on with these runs, to the end
torchrun --nproc-per-node 2 distributed_worker.py FOLDER kill-0   # fsdp: rank 0, or 1, is killed in its second save
torchrun --nproc-per-node 2 distributed_worker.py FOLDER full     # fsdp: rank 1 cannot write in its second save
torchrun --nproc-per-node 2 distributed_worker.py FOLDER packed   # ddp and fsdp: documents apart
torchrun --nproc-per-node 2 distributed_worker.py FOLDER memory   # fsdp: what each rank takes while it saves
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from minillm.data import Document, TokenDataset, pack
from minillm.engines import torch_engine, torch_optimizers
from minillm.engines.protocol import PackedLoss
from minillm.engines.shards import Shards
from minillm.engines.torch_engine import TorchEngine
from minillm.engines.torch_machine import join_processes
from minillm.models import GPT, GPTConfig
from minillm.settings import EngineConfig, TrainConfig
from minillm.training.checkpoint import read_checkpoint
from minillm.training.objectives import PackedNextToken
from minillm.training.run_folder import RunState
from minillm.training.saving import Saver
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


def run(
    folder, out, parallel, engine=TorchEngine, resume=False, attention="auto", changes=None, text=None, loss=None,
    before_step=None, **settings,
) -> None:  # fmt: skip
    made = partial(engine, settings=EngineConfig(parallel=parallel, device="cpu", **settings), loss=loss)
    config = make_config(int(os.environ["WORLD_SIZE"]), **(changes or {}))
    options = {"engine": made, "resume": resume, "before_step": before_step, "progress": False}
    train(make_model(attention), text or TextData(*data(folder)), config, folder / out, **options)


def packed_text(folder: Path) -> TextData:
    """Documents of some hundred tokens, kept apart in their rows."""
    path = folder / "documents.bin"
    if not path.exists():
        pack([Document(TEXT[i * 37 : i * 37 + 5 + i % 29], str(i)) for i in range(60)], Bytes(), path)
    return TextData(TokenDataset(path), TokenDataset(path), PackedNextToken(257, 256))


class Stopped(Exception):
    pass


def stop_in_the_fifth(step, model) -> None:
    if step == 4:
        raise Stopped


def spoil_second_save(how) -> None:
    """Have this rank call `how` when it writes its shards for the second time ("best", then "last": the fourth)."""
    write, calls = dcp.HuggingFaceStorageWriter.write_data, []

    def write_data(self, plan, planner):
        done = write(self, plan, planner)
        calls.append(self)
        if len(calls) == 4:
            how()
        return done

    dcp.HuggingFaceStorageWriter.write_data = write_data


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_room() -> None:
    raise OSError(28, "No space left on device")


def saves_in_vain(folder: Path, kind: str) -> None:
    """What each rank is told, in a file."""
    try:
        run(folder, f"full-{kind}", "fsdp", checkpoint=kind)
    except OSError as error:
        (folder / f"full-{kind}-{os.environ['RANK']}.txt").write_text(str(error))


def risen(work) -> int:
    """The most bytes of memory that this process has had during `work` beyond what it had before. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is freed goes back, so that it counts when it is taken again
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident size begins anew
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def memory(folder: Path) -> None:
    """kind of checkpoint -> what it takes each rank to save, and the bytes of the whole state, into memory.json."""
    config = GPTConfig(vocab_size=512, context=16, n_layers=8, n_heads=4, d_model=384)
    found = {}
    for kind in ("whole", "sharded", "async"):
        settings = EngineConfig(parallel="fsdp", device="cpu", checkpoint=kind)
        engine = TorchEngine(GPT(config, np.random.default_rng(0)), make_config(2), settings)
        batcher = TextData(*data(folder)).batches(engine, make_config(2), 16)
        engine.forward_backward([batcher.next()])
        engine.clip_gradients(1.0)
        engine.step(1e-3)
        saver = Saver(engine, batcher, make_config(2), None)

        def save(saver=saver, folder=folder / kind):
            saver.save(folder, RunState())
            saver.wait()

        save()  # what is made once: threads, connections
        took = [None] * 2
        dist.all_gather_object(took, risen(save))
        arrays = read_checkpoint(folder / kind)
        whole = sum(array.nbytes for part in (arrays.model, arrays.optimizer) for array in part.values())
        found[kind] = {"ranks": took, "whole": whole}
        del engine, saver, save, batcher, arrays
    if os.environ["RANK"] == "0":
        (folder / "memory.json").write_text(json.dumps(found))


@contextlib.contextmanager
def what_muon_does():
    """Inside, the list of what Muon does on this process: computes, sends or receives."""
    done, compute, send = [], torch_optimizers.orthogonalize, dist.broadcast
    torch_optimizers.orthogonalize = lambda matrix: done.append("compute") or compute(matrix)
    dist.broadcast = lambda change, owner: done.append("send") or send(change, owner)
    try:
        yield done
    finally:
        torch_optimizers.orthogonalize, dist.broadcast = compute, send


@contextlib.contextmanager
def arrays_asked_for():
    """The names of a checkpoint's arrays that are read from the disk inside the block."""
    names, read = [], Shards.__getitem__
    Shards.__getitem__ = lambda self, name: names.append(name) or read(self, name)
    try:
        yield names
    finally:
        Shards.__getitem__ = read


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
    if what == "memory":
        join_processes(torch.device("cpu"))
        return memory(folder)
    if what == "full":
        if os.environ["RANK"] == "1":
            spoil_second_save(no_room)
        return saves_in_vain(folder, "async")
    if what.startswith("kill-"):
        if os.environ["RANK"] == what[-1]:
            spoil_second_save(kill)
        return run(folder, f"killed-{what}", "fsdp", checkpoint="async")
    if what in ("begin", "end"):
        for kind in ("sharded", "async"):
            with contextlib.suppress(Stopped):
                stop = stop_in_the_fifth if what == "begin" else None
                how = {"resume": what == "end", "changes": {"max_steps": 12}, "before_step": stop}
                run(folder, f"there-and-back-{kind}", "fsdp", checkpoint=kind, **how)
        return
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
        elif what == "shards":
            for kind in ("sharded", "async"):
                run(folder, f"{kind}-{parallel}", parallel, checkpoint=kind)
        elif what == "packed":
            run(folder, f"packed-{parallel}", parallel, text=packed_text(folder), loss=PackedLoss())
        elif what == "muon":
            with what_muon_does() as done:
                run(folder, f"muon-{parallel}", parallel, changes={"optimizer": "muon"})
            (folder / f"did-{parallel}-{os.environ['RANK']}.txt").write_text(" ".join(done))
        elif what == "triton":
            seldom = {"eval_every": 8}  # the interpreter is slow
            run(folder, f"triton-{parallel}", parallel, attention="triton", changes=seldom)
        else:
            run(folder, f"new-{parallel}", parallel)
            with arrays_asked_for() as asked:
                run(folder, f"resumed-{parallel}", parallel, resume=True)
            (folder / f"asked-{parallel}-{os.environ['RANK']}.json").write_text(json.dumps(asked))


if __name__ == "__main__":
    main()
