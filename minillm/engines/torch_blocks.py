"""What is done to a model's layers one by one before it trains on PyTorch: recomputed, compiled, cut up among processes.

Why one by one: a compiled model has one node in autograd's graph, and none of its gradients is there before that node
has run. Averaging them over the processes would begin when there is nothing left to compute beside it. Of a layer
compiled by itself the gradients are there when its own backward has run, and travel while the layers below compute.
"""

from __future__ import annotations

from collections.abc import Callable
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


def compile_blocks(model: Any) -> None:
    """Have torch.compile make a graph of each layer, for training: in evaluation, shapes may change at every call."""
    for block in blocks(model):
        compiled = torch.compile(block.forward, fullgraph=True)
        block.forward = partial(forward_by_mode, block, compiled, block.forward)


def forward_by_mode(block: Any, compiled: Callable[..., Any], plain: Callable[..., Any], *args: Any, **more: Any) -> Any:
    return (compiled if block.training else plain)(*args, **more)


def shard(model: Any, device: torch.device, world_size: int, low: torch.dtype | None) -> None:
    """Cut every weight up among the processes (FSDP2), gathered layer by layer, in `low` precision if that is one."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Weights travel in low precision, gradients are added up in float32.
    policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()
    mesh = dist.init_device_mesh(device.type, (world_size,))
    for module in (*blocks(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
