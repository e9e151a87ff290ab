"""What tests/finetune/test_freeze.py starts under torchrun: layers begin to learn during a run of two processes.

torchrun --nproc-per-node 2 freezing_worker.py FOLDER    # ddp and fsdp; FOLDER/ddp.npz: losses, weights, optimizer
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

from minillm.engines.torch_engine import TorchEngine
from minillm.finetune.freeze import GradualUnfreezing, freeze
from minillm.models import GPT, GPTConfig
from minillm.settings import EngineConfig, TrainConfig

IDS = np.random.default_rng(0).integers(0, 50, (4, 9))


def unfreezing_run(make, rank: int = 0, world_size: int = 1) -> dict[str, np.ndarray]:
    """Ten steps, in which one more layer learns every two: losses, weights and the optimizer's arrays."""
    config = GPTConfig(vocab_size=50, context=8, n_layers=3, n_heads=2, d_model=16)
    model = GPT(config, np.random.default_rng(0)).to(np.float64)
    freeze(model, "position_embedding")
    plan = GradualUnfreezing(model, every=2)
    rows = np.array_split(IDS, world_size)[rank]
    run = make(model, TrainConfig(batch_size=len(rows)))
    losses = []
    for n in range(10):
        plan.at_step(n, run.model)
        losses.append(float(run.forward_backward([(rows[:, :-1], rows[:, 1:])])))
        run.clip_gradients(1.0)
        run.step(0.001)
    return {"losses": np.array(losses), **run.model_arrays(), **run.optimizer_arrays()}


def main() -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for parallel in ("ddp", "fsdp"):
        make = partial(TorchEngine, settings=EngineConfig(parallel=parallel, device="cpu"))
        arrays = unfreezing_run(make, rank, world_size)
        if rank == 0:
            np.savez(Path(sys.argv[1]) / f"{parallel}.npz", **arrays)


if __name__ == "__main__":
    main()
