"""Which engine trains, and how PyTorch is used: the [engine] section of a config file. Imports nothing of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal


@dataclass(frozen=True)
class EngineConfig:
    """What runs the training loop. All keys but the first two are PyTorch's."""

    name: Literal["numpy", "torch"] = "numpy"  # or torch
    threads: int = 0  # numpy: threads that share each batch; 0: one for each core; 1: none, for stepping through
    device: str = "auto"  # "cuda", "mps" or "cpu"; auto: the first of these that is there
    precision: Literal["auto", "full", "bf16", "fp16"] = "auto"  # full: the weights' own; auto: bf16 or fp16 on a GPU
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a CUDA device
    parallel: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: each process holds the whole model, or a part of it
    recompute: bool = False  # run each block's forward again in backward: less memory, a third more work

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads must be 0 or more, got {self.threads}")


def engine_class(config: EngineConfig) -> Any:
    """What `train` takes as its engine. Raises ImportError where PyTorch is asked for and not installed, and ValueError
    where NumPy is to train in several processes."""
    if config.name == "numpy":
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError(
                f"engine 'numpy' trains in one process, and torchrun started {os.environ['WORLD_SIZE']}: give --engine "
                "torch, or start it without torchrun"
            )
        if config.threads == 1:
            from .engine import NumpyEngine

            return NumpyEngine
        from .threads import ThreadedNumpyEngine

        return partial(ThreadedNumpyEngine, threads=config.threads)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(f"engine 'torch' needs PyTorch, which cannot be imported here: {error}") from error
    from .torch_engine import TorchEngine

    return partial(TorchEngine, settings=config)


def process_rank() -> int:
    """The number of this process among those that torchrun started; 0 if it is alone."""
    return int(os.environ.get("RANK", 0))
