"""What is done to a model's layers one by one before it trains on PyTorch: recomputed, and cut up among processes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint


def blocks(model: Any) -> list[Any]:
    """A model's layers: the items of its outermost lists of modules."""
    found: list[Any] = []
    for child in model.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else blocks(child)
    return found


def recompute_blocks(model: Any) -> None:
    """Have each layer keep its input only, and run its forward again in the backward pass."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def shard(model: Any, device: torch.device, world_size: int, low: torch.dtype | None, compiled: bool) -> None:
    """Cut every weight up among the processes (FSDP2), gathered layer by layer, in `low` precision if that is one.

    `compiled` layer by layer, too: between them, FSDP gathers and frees weights.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Weights travel in low precision, gradients are added up in float32.
    policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()
    mesh = dist.init_device_mesh(device.type, (world_size,))
    for block in blocks(model):
        if compiled:
            block.forward = torch.compile(block.forward, fullgraph=True)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
