"""What is done to a model's layers one by one before it trains on PyTorch: recomputed, and cut up among processes."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ..models import lstm
from ..settings import EngineConfig

# What "selective" does not compute twice: matrix products, and attention by PyTorch's kernels or ours.
PRODUCTS = ("aten::mm", "aten::addmm")
ATTENTION = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "minillm::flash_forward",
)


def blocks(model: Any) -> list[Any]:
    """A model's layers: the items of its outermost lists of modules."""
    found: list[Any] = []
    for child in model.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else blocks(child)
    return found


def recompute_blocks(model: Any, how: str) -> None:
    """Have each layer run its forward again in the backward pass and keep its input only ("layers"), or that and the
    results of matrix products and attention ("selective"; recompute.py says why). An LSTM's is run again whole:
    PyTorch's writes over the products of its steps."""
    keep: dict[str, Any] = {"context_fn": partial(create_selective_checkpoint_contexts, keep_or_recompute)}
    for block in blocks(model):
        options = keep if how == "selective" and not isinstance(block, lstm.Layer) else {}
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, **options)


def keep_or_recompute(_: Any, op: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    """What becomes of the result of an operation. Of attention, its logarithms of sums are part of it; where it draws
    dropout it is computed again, or all that is drawn after it would be other numbers the second time."""
    name = op.name() if isinstance(op, torch._ops.OpOverload) else ""
    if name in ATTENTION:
        given = {**dict(zip((argument.name for argument in op._schema.arguments), args)), **options}
        return CheckpointPolicy.PREFER_RECOMPUTE if given.get("dropout_p") else CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.MUST_SAVE if name in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


def mesh_of(settings: EngineConfig, device: torch.device, world_size: int) -> dist.DeviceMesh:
    """The processes as a line, among which weights are cut up; with "hsdp" as (copies of the model, processes of a
    copy): weights travel inside a copy only, which should be a machine. Raises ValueError for groups that do not fit.
    """
    if settings.parallel != "hsdp":
        return dist.init_device_mesh(device.type, (world_size,))
    group = settings.shard_group or int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if world_size % group:
        raise ValueError(
            f"[engine]: shard_group = {group}: {world_size} processes cannot be divided into groups of {group}. "
            "Give a divisor with --set engine.shard_group."
        )
    return dist.init_device_mesh(device.type, (world_size // group, group), mesh_dim_names=("copy", "part"))


def shard(model: Any, mesh: dist.DeviceMesh, low: torch.dtype | None, compiled: bool) -> None:
    """Cut every weight up among the processes (FSDP2), gathered layer by layer, in `low` precision if that is one.

    `compiled` layer by layer, too: between them, FSDP gathers and frees weights.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Weights travel in low precision, gradients are added up in float32.
    policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()
    for block in blocks(model):
        if compiled:
            block.forward = torch.compile(block.forward, fullgraph=True)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
