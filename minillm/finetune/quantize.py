"""Frozen matrices in 4 or 8 bits, on PyTorch: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), the way to fine-tune a
model of which the GPU's memory holds only the quantized form. Adapters beside them learn in full precision.

NF4: blocks of 64 weights, each divided by the largest of its block, so that all lie in −1 to 1, and rounded to the
nearest of 16 values, the quantiles of a normal distribution, which is how weights are distributed. A block's largest is
quantized too ("double quantization"): less their mean, in blocks of 256, to 8-bit numbers: 4 + 8/64 + 32/(64·256) =
4.127 bits for a weight, and 1,092 bytes for a matrix's tables and mean. Values, codes and places are those of the
library bitsandbytes.
int8: each row divided by its largest, times 127, rounded: 8 bits for a weight, and 32 for each row.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from ..nn import Linear
from ..port import torch_class, unwrap
from .lora import BARE, LoRALinear

KINDS = ("nf4", "int8")
BLOCK, SCALE_BLOCK = 64, 256  # weights with one scale, scales with one scale


def quantize_base(model: Any, kind: str = "nf4") -> list[str]:
    """Quantize the frozen matrices of a model on PyTorch in place, and return the names of their layers: every Linear,
    with an adapter or without, but those that learn, output layers and routers. Call `add_lora`, which freezes, before.
    The model then has no such weights any more: adapters are what is saved.

    Raises ValueError for another kind and for a model with no frozen Linear, TypeError for one that is not on PyTorch.
    """
    if kind not in KINDS:
        raise ValueError(f"quantize_base: kind = {kind!r} must be one of {', '.join(KINDS)}.")
    model = unwrap(model)
    if not isinstance(model, torch.nn.Module):
        raise TypeError("quantize_base: this model is on NumPy: to_torch(model) comes first (minillm.port).")
    frozen = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and not (name in BARE or name.endswith(".router") or is_quantized(module))
        if not module.weight.requires_grad and getattr(module, "original", None) is None
    }
    if not frozen:
        raise ValueError("quantize_base: no Linear is frozen (or it is merged): add_lora or freeze comes first.")
    for module in frozen.values():
        pack(module, kind)
    return list(frozen)


def is_quantized(module: Any) -> bool:
    return hasattr(module, "packed_shape")


@torch.no_grad()
def pack(linear: Any, kind: str) -> None:
    """Put codes and scales in the place of a Linear's weight; from then on its class computes with these."""
    weight = linear.weight.detach()
    linear.packed_shape = tuple(weight.shape)
    packed = quantize_nf4(weight) if kind == "nf4" else quantize_int8(weight)
    del linear.weight
    for name, tensor in packed.items():
        linear.register_buffer(name, tensor, persistent=False)
    linear.__class__ = quantized_class(type(linear).numpy_class)


@cache
def quantized_class(cls: Any) -> Any:
    """The torch class of a Linear, or LoRALinear, whose product with the weight is `packed_linear`."""
    product = "base" if issubclass(cls, LoRALinear) else "forward"
    return type(f"Quantized{cls.__name__}", (torch_class(cls),), {product: packed_linear})


def packed_linear(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = PackedProduct.apply(x, self)
    return y if self.bias is None else y + self.bias.to(y.dtype)


class PackedProduct(torch.autograd.Function):
    """y = x Wᵀ with W unpacked for the moment, and again for dL/dx = dL/dy W: kept between the two, it would be the
    memory that is to be saved. W gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Any) -> torch.Tensor:
        ctx.linear, ctx.dtype = linear, x.dtype
        return F.linear(x, unpack(linear, x.dtype))  # under autocast in its dtype

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return (grad @ unpack(ctx.linear, grad.dtype)).to(ctx.dtype), None


def unpack(linear: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The matrix (out, in) that a quantized Linear computes with."""
    return (dequantize_int8(linear) if hasattr(linear, "row_scale") else dequantize_nf4(linear)).to(dtype)


def memory_bytes(model: Any) -> int:
    """Bytes of all parameters and of what they are packed into, each tensor once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.numel() * t.element_size() for t in tensors.values())


# --- NF4 --------------------------------------------------------------------------------------------------------------


# Appendix E of the paper. They are quantiles of the normal distribution, scaled to −1 to 1: for 8 probabilities evenly
# from a half to 1 − (1/30 + 1/32)/2, 7 below a half down to as far, and 0, which must be exact: padding is made of it.
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], dtype=torch.float32)  # fmt: skip


def scale_values() -> torch.Tensor:
    """The 256 values of an 8-bit number with a dynamic exponent (Dettmers et al. 2021, arXiv 2110.02861, section 2):
    for each power of ten from 10⁻⁶ to 1 twice as many steps as for the one below; both signs; 0 and 1. Rising."""
    values = [0.0, 1.0]
    for exponent in range(-6, 1):
        edges = torch.linspace(0.1, 1.0, 2 ** (exponent + 6) + 1, dtype=torch.float32)
        steps = ((edges[:-1] + edges[1:]) / 2 * 10.0**exponent).tolist()
        values += steps + [-step for step in steps]
    return torch.tensor(sorted(values), dtype=torch.float32)


def quantize_nf4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """weight (out, in) -> codes, two in a byte, the first in its upper half; and the blocks' scales, quantized."""
    blocks = padded(weight.float(), BLOCK)  # (blocks, 64)
    scale = blocks.abs().amax(1)  # (blocks,)
    codes = nearest(blocks / nonzero(scale)[:, None], NF4)  # (blocks, 64)
    pairs = codes.reshape(-1, 2)
    mean = scale.mean()
    groups = padded(scale - mean, SCALE_BLOCK)  # (groups, 256)
    group_scale = groups.abs().amax(1)
    values = scale_values()
    scale_codes = nearest(groups / nonzero(group_scale)[:, None], values)  # (groups, 256)
    return {
        "codes": (pairs[:, 0] << 4) | pairs[:, 1],  # (ceil(weights / 64) · 32,) uint8
        "scale_codes": scale_codes.reshape(-1)[: len(scale)],  # (blocks,) uint8
        "group_scale": group_scale,  # (groups,) float32
        "scale_mean": mean,
        "values": NF4.to(weight.device, copy=True),  # beside the codes, on whichever device these go to
        "scale_values": values.to(weight.device),
    }


def dequantize_nf4(packed: Any) -> torch.Tensor:
    """What `quantize_nf4` packed, float32 (out, in)."""
    divided = packed.scale_values[packed.scale_codes.long()]  # (blocks,)
    groups = packed.group_scale.repeat_interleave(SCALE_BLOCK)[: len(divided)]
    scale = divided * groups + packed.scale_mean  # (blocks,)
    pairs = torch.stack([packed.codes >> 4, packed.codes & 15], 1).reshape(-1, BLOCK)  # (blocks, 64)
    weight = packed.values[pairs.long()] * scale[:, None]
    return weight.reshape(-1)[: math.prod(packed.packed_shape)].reshape(packed.packed_shape)


def padded(values: torch.Tensor, size: int) -> torch.Tensor:
    """Values in rows of `size`, the last one filled up with zeros."""
    flat = values.reshape(-1)
    return F.pad(flat, (0, -len(flat) % size)).reshape(-1, size)


def nonzero(scale: torch.Tensor) -> torch.Tensor:
    """Scales to divide by: where all is 0, any number will do."""
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)


def nearest(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The number of the nearest of some rising values, uint8; halfway between two, of the lower one."""
    values = values.to(x.device)
    return torch.bucketize(x, (values[:-1] + values[1:]) / 2).to(torch.uint8)


# --- int8 -------------------------------------------------------------------------------------------------------------


def quantize_int8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """weight (out, in) -> whole numbers from −127 to 127, and what a 1 means in each row."""
    weight = weight.float()
    scale = weight.abs().amax(1) / 127  # (out,)
    codes = (weight / nonzero(scale)[:, None]).round()
    return {"codes": codes.to(torch.int8), "row_scale": scale}


def dequantize_int8(packed: Any) -> torch.Tensor:
    """What `quantize_int8` packed, float32 (out, in)."""
    return packed.codes * packed.row_scale[:, None]
