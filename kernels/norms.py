"""RMSNorm and LayerNorm with their backward passes, one kernel launch each where composed operations take several.

Over the D features of each row, with mean μ and variance σ² (LayerNorm, Ba et al. 2016, arXiv:1607.06450), or with μ
= 0 and σ² the mean square (RMSNorm, Zhang and Sennrich 2019, arXiv:1910.07467):

    x̂ = (x - μ) · r        r = 1 / √(σ² + ε)        y = w ∘ x̂ + b

**Backward.** Let g = w ∘ dy. Moving x moves x̂ directly and through r and μ, which take one direction each out of g:

    dx = r · (g - x̂ · mean(x̂ ∘ g) - mean(g))        (RMSNorm: without mean(g))
    dw = Σ_rows dy ∘ x̂        db = Σ_rows dy

Every program handles a run of rows and adds up its own share of dw and db; the shares are then summed, in a fixed
order. torch.compile fuses the composed operations by itself: what there is to gain is in eager code.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .call import TRITON_DTYPES, accumulator_dtype, interpreted, storage_dtype

LARGEST = 65536  # features: a row is held in registers


@triton.jit
def norm_forward_kernel(x, weight, bias, y, mean, rstd, x_stride, y_stride, D: tl.constexpr, EPS: tl.constexpr,
                        CENTER: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One program: one row. Stores μ (if CENTER) and r for the backward pass."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < D
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(ACC)
    if CENTER:
        mu = tl.sum(value, 0) / D
        value = tl.where(inside, value - mu, 0.0)
        tl.store(mean + row, mu)
    r = 1.0 / tl.sqrt(tl.sum(value * value, 0) / D + EPS)
    tl.store(rstd + row, r)
    out = value * r * tl.load(weight + column, mask=inside, other=0.0).to(ACC)
    if bias is not None:
        out += tl.load(bias + column, mask=inside, other=0.0).to(ACC)
    tl.store(y + row * y_stride + column, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def norm_backward_kernel(dy, x, weight, mean, rstd, dx, dw_shares, db_shares, dy_stride, x_stride, n_rows,
                         D: tl.constexpr, CENTER: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One program: every num_programs-th row; its shares of dw and db are rows of (programs, D)."""
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < D
    w = tl.load(weight + column, mask=inside, other=0.0).to(ACC)
    dw = tl.zeros((BLOCK,), dtype=ACC)
    db = tl.zeros((BLOCK,), dtype=ACC)
    for i in range(program, n_rows, tl.num_programs(0)):
        row = tl.cast(i, tl.int64)
        value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(ACC)
        gradient = tl.load(dy + row * dy_stride + column, mask=inside, other=0.0).to(ACC)
        r = tl.load(rstd + row)
        if CENTER:
            value = tl.where(inside, value - tl.load(mean + row), 0.0)
        hat = value * r
        g = gradient * w
        change = g - hat * (tl.sum(hat * g, 0) / D)
        if CENTER:
            change -= tl.sum(g, 0) / D
        tl.store(dx + row * D + column, (change * r).to(dx.dtype.element_ty), mask=inside)
        dw += gradient * hat
        db += gradient
    tl.store(dw_shares + program * D + column, dw, mask=inside)
    if db_shares is not None:
        tl.store(db_shares + program * D + column, db, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """weight ∘ x / √(mean(x²) + eps) over the last axis: x (..., D), weight (D,).

    Computed in float32, in x's dtype out. Raises ValueError where the shapes do not fit, or D is above 65536.
    """
    return normalize(x, weight, None, eps, center=False)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """weight ∘ (x - mean) / √(variance + eps) + bias over the last axis: x (..., D), weight and bias (D,).

    Computed in float32, in x's dtype out. Raises ValueError where the shapes do not fit, or D is above 65536.
    """
    return normalize(x, weight, bias, eps, center=True)


def normalize(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, center: bool) -> Tensor:
    size = x.shape[-1]
    if weight.shape != (size,) or (bias is not None and bias.shape != (size,)):
        given = f"weight {tuple(weight.shape)}" + (f", bias {tuple(bias.shape)}" if bias is not None else "")
        raise ValueError(f"norm over the last axis of x {tuple(x.shape)}: weights must be ({size},), not {given}.")
    if size > LARGEST:
        raise ValueError(f"norm over {size} features: the kernel holds a row in registers, at most {LARGEST}")
    y, _, _ = norm_forward(x.reshape(-1, size), weight, bias, eps, center)
    return y.view(x.shape)


@torch.library.custom_op("minillm::norm_forward", mutates_args=())
def norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, center: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, 1/√variance) for the rows of x (N, D). Use `rms_norm` or `layer_norm`."""
    rows, size = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    y = torch.empty(rows, size, dtype=storage_dtype(x.dtype), device=x.device)
    sums = {"dtype": accumulator_dtype(x), "device": x.device}
    mean, rstd = torch.empty(rows if center else 0, **sums), torch.empty(rows, **sums)
    with torch.cuda.device_of(x):
        norm_forward_kernel[rows,](
            x, weight, bias, y, mean, rstd, x.stride(0), y.stride(0), EPS=eps, **launch_options(size, center, x)
        )
    return y.to(x.dtype), mean, rstd


@norm_forward.register_fake
def _(x, weight, bias, eps, center):
    rows = x.shape[0]
    sums = accumulator_dtype(x)
    return x.new_empty(x.shape), x.new_empty(rows if center else 0, dtype=sums), x.new_empty(rows, dtype=sums)


@torch.library.custom_op("minillm::norm_backward", mutates_args=())
def norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, has_bias: bool, center: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dw, db) for the rows of dy (N, D); db is empty without a bias."""
    rows, size = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    dy = dy if dy.stride(1) == 1 else dy.contiguous()
    programs = min(rows, 4 if interpreted() else 2 * torch.cuda.get_device_properties(x.device).multi_processor_count)
    dx = torch.empty(rows, size, dtype=storage_dtype(x.dtype), device=x.device)
    dw_shares = torch.empty(programs, size, dtype=accumulator_dtype(x), device=x.device)
    db_shares = torch.empty_like(dw_shares) if has_bias else None
    with torch.cuda.device_of(x):
        norm_backward_kernel[programs,](
            dy, x, weight, mean, rstd, dx, dw_shares, db_shares, dy.stride(0), x.stride(0), rows,
            **launch_options(size, center, x),
        )  # fmt: skip
    db = db_shares.sum(0).to(weight.dtype) if has_bias else weight.new_empty(0)
    return dx.to(x.dtype), dw_shares.sum(0).to(weight.dtype), db


@norm_backward.register_fake
def _(dy, x, weight, mean, rstd, has_bias, center):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape if has_bias else (0,))


def save_for_backward(ctx, inputs, output):
    x, weight, bias, _, ctx.center = inputs
    _, mean, rstd = output
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)


def norm_backward_rule(ctx, dy, *_):
    dx, dw, db = norm_backward(dy, *ctx.saved_tensors, ctx.has_bias, ctx.center)
    return dx, dw, db if ctx.has_bias else None, None, None


norm_forward.register_autograd(norm_backward_rule, setup_context=save_for_backward)


def launch_options(size: int, center: bool, x: Tensor) -> dict[str, object]:
    block = triton.next_power_of_2(size)
    return {
        "D": size,
        "CENTER": center,
        "ACC": TRITON_DTYPES[accumulator_dtype(x)],
        "BLOCK": block,
        "num_warps": min(16, max(1, block // 256)),
        "enable_fp_fusion": True,
    }
