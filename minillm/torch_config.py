"""How to run on PyTorch: the [torch] section of a config file. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TorchConfig:
    """What the torch engine may choose by itself ("auto") and what is chosen for it."""

    device: str = "auto"  # "cuda", "mps", "cpu"; auto: the first of these that is there
    precision: Literal["auto", "full", "bf16", "fp16"] = "auto"  # full: the weights' own; auto: bf16 or fp16 on a GPU
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a CUDA device
    parallel: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: each process holds the whole model, or a part of it
    recompute: bool = False  # run each block's forward again in backward: less memory, a third more work
