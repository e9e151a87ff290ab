"""What chapter 17 starts as processes of their own: two ranks of one job, and a run that is killed in the midst of a
save. at_size.py starts them, waits, and ends what is left.

    python -m minillm.workshop.at_size_jobs ranks FOLDER     RANK and WORLD_SIZE are set, as torchrun would
    python -m minillm.workshop.at_size_jobs save FOLDER WHERE
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from minillm.data import Document, TokenDataset, pack
from minillm.disk import whole, write_bytes, write_json
from minillm.models import GPT, GPTConfig
from minillm.numpy_ops.cores import limit_blas_threads
from minillm.settings import EngineConfig, TrainConfig
from minillm.training import checkpoint
from minillm.training.text import TextData
from minillm.training.train import train

TEXT = "".join(f"{i} times {i} is {i * i}. " for i in range(300))
SHAPE = GPTConfig(vocab_size=257, context=16, n_layers=3, n_heads=2, d_model=32)
ROWS = 8  # of a step, by all processes together
SAVE_EVERY = 4
LAST_STEP = 12
DIES_AT = 6  # the step in which one of the two ranks is killed, after the checkpoint of the fourth


class Bytes:
    """The smallest tokenizer: a token is a byte, and 256 ends a text."""

    vocab_size = 257
    eos_id = 256

    def encode(self, text: str, disallowed_special: Any = ()) -> list[int]:
        return list(text.encode())

    def fingerprint(self) -> str:
        return "bytes"


def new_model(seed: int = 0) -> GPT:
    """In float64: what differs then is not rounding."""
    return GPT(SHAPE, np.random.default_rng(seed)).to(np.float64)


def text_in(folder: Path) -> TextData:
    """The same text for all processes, packed by the first that asks."""
    path = folder / "text.bin"
    return TextData(TokenDataset(path) if path.exists() else pack([Document(TEXT, "squares")], Bytes(), path), None)


def settings(n_processes: int = 1) -> TrainConfig:
    """Of a run of twelve steps. The rows of a step are shared out."""
    return TrainConfig(max_steps=LAST_STEP, save_every=SAVE_EVERY, warmup_steps=2, batch_size=ROWS // n_processes)


def uneven_batch() -> tuple[np.ndarray, np.ndarray]:
    """ids and targets (ROWS, T): most rows of the second half are padding (-100), as where texts are short."""
    draw = np.random.default_rng(1).integers(0, 256, (ROWS, SHAPE.context + 1))
    ids, targets = draw[:, :-1].copy(), draw[:, 1:].copy()
    targets[ROWS // 2 :, 3:] = -100
    return ids, targets


# --- two ranks ----------------------------------------------------------------------------------------------------


def ranks(folder: Path) -> None:
    """The part of one of several processes: the same step in two ways, then a run in which the last rank dies."""
    import torch
    import torch.distributed as dist
    from minillm.engines.torch_engine import TorchEngine

    torch.set_num_threads(1)
    rank, n_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = {"rank": rank, "world_size": n_ranks, "timeout": timedelta(seconds=200)}
    dist.init_process_group("gloo", init_method=(folder / "meeting").resolve().as_uri(), **meeting)
    for parallel in ("ddp", "fsdp"):
        engine = TorchEngine(new_model(), settings(n_ranks), EngineConfig(device="cpu", parallel=parallel))
        one_step(engine, folder / parallel)

    class Dying(TorchEngine):
        def forward_backward(self, micro_batches: list[Any]) -> Any:
            if self.rank == n_ranks - 1 and self.steps == DIES_AT:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            return super().forward_backward(micro_batches)

    engine_settings = EngineConfig(device="cpu", parallel="fsdp", checkpoint="sharded")
    made = partial(Dying, settings=engine_settings)
    train(new_model(), text_in(folder), settings(n_ranks), folder / "run", engine=made, progress=False)


def one_step(engine: Any, folder: Path) -> None:
    """The gradients of this rank's rows, one update, and what this rank holds and sends for it."""
    from minillm.data.batches import share_of_rank
    from minillm.port import array_of

    mine = share_of_rank(ROWS, engine.rank, engine.world_size)
    batch = tuple(np.ascontiguousarray(array[mine]) for array in uneven_batch())
    with counting() as sent:
        loss = engine.forward_backward([batch])
    engine.clip_gradients(0.0)
    engine.step(1e-3)
    gradients = {name: array_of(p.grad) for name, p in engine.parameters.items()}  # all ranks put them together
    weights = engine.model_arrays()
    state = [value for of_one in engine.optimizer.state.values() for value in of_one.values() if value.ndim]
    held = {
        "weights": numbers_in(engine.parameters.values()),
        "gradients": numbers_in(p.grad for p in engine.parameters.values()),
        "moments": numbers_in(state),
    }
    found = {"rank": engine.rank, "process": os.getpid(), "loss": float(loss), "held": held, "sent": dict(sent)}
    write_json(folder.with_name(f"{folder.name}-{engine.rank}.json"), found)
    if engine.rank == 0:
        np.savez(folder.with_name(f"{folder.name}-gradients.npz"), **gradients)
        np.savez(folder.with_name(f"{folder.name}-weights.npz"), **weights)


def numbers_in(tensors: Any) -> int:
    """How many numbers of these tensors this process holds."""
    from torch.distributed.tensor import DTensor

    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(tensor.numel() for tensor in local)


class counting:
    """Inside `with counting() as calls:` the collective calls that carry arrays, each with the numbers it is about:
    the whole of what is summed, gathered or cut up."""

    def __enter__(self) -> dict[str, int]:
        from torch.utils._python_dispatch import TorchDispatchMode

        calls: dict[str, int] = {}

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                name = func.overloadpacket.__name__
                if str(func).startswith("c10d.") and name in WHOLE:
                    calls[WHOLE[name][0]] = calls.get(WHOLE[name][0], 0) + size_of(args[WHOLE[name][1]])
                return func(*args, **(kwargs or {}))

        self.watch = Watch()
        self.watch.__enter__()
        return calls

    def __exit__(self, *error: Any) -> None:
        self.watch.__exit__(*error)


# PyTorch's calls that carry arrays: what they are called here, and which argument is the whole array.
WHOLE = {
    "allreduce_": ("all-reduce", 0),
    "_allgather_base_": ("all-gather", 0),
    "allgather_into_tensor_coalesced_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce-scatter", 1),
}


def size_of(tensors: Any) -> int:
    many = tensors if isinstance(tensors, list | tuple) else [tensors]
    return sum(tensor.numel() for tensor in many if tensor.numel() > 1)  # a loss or a count is no array


# --- a run that is killed while it saves ----------------------------------------------------------------------------


def save(folder: Path, where: str) -> None:
    """Train up to the second checkpoint, and stop in the midst of it, at the place called `where`, until killed."""
    if where == "in place":
        save_in_place(folder / "weights.npz")
    INSTANTS[where](partial(wait_to_be_killed, folder))
    with limit_blas_threads(1):
        train(new_model(), text_in(folder), settings(), folder / "run", progress=False)


def wait_to_be_killed(folder: Path) -> None:
    write_bytes(folder / "here", b"")
    time.sleep(120)
    sys.exit("nobody has killed this process within two minutes.")


def after_the_weights(stop: Callable[[], None]) -> None:
    """Of the two files of arrays, the first is on the disk."""
    write, calls = checkpoint.save_file, []

    def save_file(arrays: Any, path: Path) -> None:
        write(arrays, path)
        calls.append(path)
        if len(calls) == 3:  # weights and optimizer of the first checkpoint, weights of the second
            stop()

    setattr(checkpoint, "save_file", save_file)  # noqa: B010


def before_the_renames(stop: Callable[[], None]) -> None:
    """All files are there and flushed; the folder has not its name yet."""
    move = whole.take_place

    def take_place(new: Path, path: Path, attic: Path) -> None:
        if path.exists():
            stop()
        move(new, path, attic)

    setattr(whole, "take_place", take_place)  # noqa: B010


def between_the_renames(stop: Callable[[], None]) -> None:
    """The older folder has given up its name, and the new one has not taken it."""
    rename = os.rename

    def renamed(old: Any, new: Any) -> None:
        rename(old, new)
        if Path(old).name == "last" and str(new).endswith("minillm-old"):
            stop()

    setattr(os, "rename", renamed)  # noqa: B010


INSTANTS = {
    "the weights are written, the moments are not": after_the_weights,
    "all is written, nothing has its name": before_the_renames,
    "the old folder has lost its name": between_the_renames,
}


def save_in_place(path: Path) -> None:
    """What many a script does: over the old file, in one go. It stops halfway."""
    np.savez(path, **new_model(0).state_dict())
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        wait_to_be_killed(path.parent)


def main() -> None:
    job, folder, *rest = sys.argv[1:]
    if job == "save":
        save(Path(folder), *rest)
        return
    from minillm.engines.protocol import ProcessLost

    try:
        ranks(Path(folder))
    except ProcessLost as error:
        write_json(Path(folder) / f"lost-{os.environ['RANK']}.json", {"said": str(error)})
        sys.stdout.flush()
        os._exit(3)  # the others are gone: there is nobody to take leave of


if __name__ == "__main__":
    main()
