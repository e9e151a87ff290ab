"""Attention written with whole matrices, in PyTorch: what the kernels are checked against, in float64, and how.

Takes the arguments of `flash_attention` and stores the (Tq, Tk) table of scores that the kernels avoid.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from minillm.kernels import flash_attention
from minillm.kernels.tiles import dropout_keep
from torch import Tensor


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    window: int | None = None,
    dropout_p: float = 0.0,
    dropout_mask: Tensor | None = None,
    cu_seqlens: Tensor | tuple[Tensor, Tensor] | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The same as `flash_attention`, computed in the inputs' own dtype; dropout keeps what `dropout_mask` keeps.

    dropout_mask: bool (B, H, Tq, Tk), True = keep (see `dropout_mask_of`).
    """
    batch, heads, tq, head_size = q.shape
    tk = k.shape[2]
    k = k.repeat_interleave(heads // k.shape[1], dim=1)
    v = v.repeat_interleave(heads // v.shape[1], dim=1)
    scale = 1.0 / math.sqrt(head_size) if scale is None else scale

    i = torch.arange(tq, device=q.device)[:, None]
    j = torch.arange(tk, device=q.device)[None, :]
    keep = torch.ones(batch, 1, tq, tk, dtype=torch.bool, device=q.device)
    if cu_seqlens is not None:
        cu_q, cu_k = (cu_seqlens, cu_seqlens) if isinstance(cu_seqlens, Tensor) else cu_seqlens
        sequence_q = torch.searchsorted(cu_q.long(), i[:, 0], right=True) - 1  # which sequence a token belongs to
        sequence_k = torch.searchsorted(cu_k.long(), j[0], right=True) - 1
        keep = keep & (sequence_q[:, None] == sequence_k[None, :])
        ends_q, ends_k = cu_q.long()[sequence_q + 1][:, None], cu_k.long()[sequence_q + 1][:, None]
        distance = (j - ends_k) - (i - ends_q)  # both counted from the end of their sequence: bottom right
    else:
        distance = j - (i + tk - tq)
    if causal:
        keep = keep & (distance <= 0)
    if window is not None:
        keep = keep & (distance.abs() < window)
    if mask is not None:
        keep = keep & mask
    if key_padding_mask is not None:
        keep = keep & key_padding_mask[:, None, None, :]

    scores = (q @ k.transpose(-1, -2)) * scale  # (B, H, Tq, Tk)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~keep, float("-inf"))
    sees_something = keep.any(-1, keepdim=True)
    if sinks is not None:  # one column more, and nothing is gathered from it
        scores = torch.cat([scores, sinks.to(scores.dtype)[None, :, None, None].expand(batch, heads, tq, 1)], -1)
        p = torch.softmax(scores, dim=-1)[..., :-1]
    else:
        p = torch.softmax(scores.masked_fill(~sees_something, 0.0), dim=-1).masked_fill(~sees_something, 0.0)
    if dropout_mask is not None:
        p = p * dropout_mask / (1.0 - dropout_p)
    return p @ v


@triton.jit
def dropout_mask_kernel(out, seed, Tq, Tk, P: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first_j = tl.program_id(1) * BLOCK
    j = first_j + tl.arange(0, BLOCK)
    head = tl.program_id(2)
    keep = dropout_keep(tl.load(seed), head, i, first_j, BLOCK, P)
    at = out + head.to(tl.int64) * Tq * Tk + i[:, None].to(tl.int64) * Tk + j[None, :]
    tl.store(at, keep.to(tl.uint8), mask=(i < Tq)[:, None] & (j < Tk)[None, :])


def dropout_mask_of(
    seed: int, p: float, shape: tuple[int, int, int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """The (B, H, Tq, Tk) bool mask (True = keep) that `flash_attention(dropout_p=p, seed=seed)` applies."""
    batch, heads, tq, tk = shape
    out = torch.empty(shape, dtype=torch.uint8, device=device)
    seed_tensor = torch.full((1,), seed, dtype=torch.int64, device=device)
    grid = (triton.cdiv(tq, 32), triton.cdiv(tk, 32), batch * heads)
    with torch.cuda.device_of(out):
        dropout_mask_kernel[grid](out, seed_tensor, tq, tk, P=p, BLOCK=32, enable_fp_fusion=True)
    return out.bool()


def draw(device, dtype, batch=1, heads=2, kv_heads=None, tq=64, tk=None, size=32, seed=0) -> list[Tensor]:
    """Random q, k, v that lie in memory as (B, T, H, D), as a model's projections do."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(tq, heads), (tk or tq, kv_heads or heads), (tk or tq, kv_heads or heads)]
    tensors = [torch.randn(batch, t, h, size, generator=generator).to(device, dtype) for t, h in shapes]
    return [t.transpose(1, 2).requires_grad_() for t in tensors]


def run(function, tensors, do, **options) -> list[Tensor]:
    """The output and the gradients of q, k, v and, where there are some, of the sinks."""
    out = function(*tensors, **options)
    sinks = options.get("sinks")
    leaves = tensors if sinks is None else [*tensors, sinks]
    return [out, *torch.autograd.grad(out, leaves, do.to(out.dtype))]


def check(impl, tensors, do=None, dropout_mask=None, cancels=False, **options) -> list[Tensor]:
    """Hold the output and the gradients of `flash_attention` to flash-attention's rule: see `errors`."""
    ours, found = errors(impl, tensors, do, dropout_mask, cancels, **options)
    for name, error, allowed in found:
        assert error <= allowed, f"{name}: error {error:.2e}, allowed {allowed:.2e}"
    return ours


def errors(
    impl, tensors, do=None, dropout_mask=None, cancels=False, **options
) -> tuple[list[Tensor], list[tuple[str, float, float]]]:
    """What `flash_attention` gives, the output and the gradients, and for each (name, its error, the error allowed by
    flash-attention's rule): at most twice that of PyTorch with whole matrices in the same dtype.

    cancels: gradients of q and k cancel, exactly in PyTorch, for queries that see one key or heads of one feature: then
    they may also be off by what rounding O leaves of D (see `kernels/flash_simple.py`). Beside that rule, all may be
    off by what rounding the scores in float32 does, which for one or two queries PyTorch may be spared by chance.
    """
    dtype = tensors[0].dtype
    if do is None:
        do = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1)).to(tensors[0])
    ours = run(flash_attention, tensors, do, impl=impl, **options)
    options = {name: option for name, option in options.items() if name not in ("seed", "max_seqlen")}
    wide = [t.detach().double().requires_grad_() for t in tensors]
    wide_options = options
    if options.get("sinks") is not None:
        wide_options = options | {"sinks": options["sinks"].detach().double().requires_grad_()}
    exact = run(reference_attention, wide, do, dropout_mask=dropout_mask, **wide_options)
    torch_lowp = run(reference_attention, tensors, do, dropout_mask=dropout_mask, **options)
    u = torch.finfo(dtype).eps / 2
    slack = rounding_of_scores(wide, exact[0], do.double(), u, dropout_mask, **wide_options)
    if cancels:
        of_d = rounding_of_d(wide, exact[0], do.double(), u, **wide_options)
        slack[1:3] = [a + b for a, b in zip(slack[1:3], of_d)]
    floor = 4e-6  # some float32 roundings, for cases where torch happens to be exact (a softmax over one key)
    found = []
    for name, a, b, c, more in zip(["out", "dq", "dk", "dv", "dsinks"], ours, exact, torch_lowp, slack):
        assert cancels or name == "dsinks" or more <= 1e-4 * largest(b) + floor  # no hole for a wrong kernel
        assert a.dtype == (torch.float32 if name == "dsinks" else dtype) and a.shape == b.shape
        found.append((name, largest(a.double() - b), 2 * largest(c.double() - b) + floor + more))
    return ours, found


def largest(difference: Tensor) -> float:
    """The largest of its magnitudes; infinity where one is no number."""
    worst = difference.abs().max().item()
    return worst if worst == worst else math.inf


def rounding_of_d(wide, out, do, u, **options) -> tuple[float, float]:
    """How far dq and dk may be off because D = rowsum(O ∘ dO) is made of an O rounded by up to u of itself, and because
    D and dP, which cancel, are float32 sums in two orders."""
    q, k, _ = wide
    options.pop("dropout_p", None)
    scale = options.get("scale") or q.shape[-1] ** -0.5
    e = (u + 2 * 2.0**-24) * (out.abs() * do.abs()).sum(-1, keepdim=True)  # of D, (B, H, Tq, 1)
    values = k.detach().abs().requires_grad_()
    seen = reference_attention(q, k, values, **options)  # P |k|
    dk = torch.autograd.grad(seen, values, e * q.abs())[0]  # Pᵀ (e |q|)
    return scale * (e * seen).max().item(), scale * dk.max().item()


@torch.no_grad()
def rounding_of_scores(wide, out, do, u, dropout_mask, **options) -> list[float]:
    """How far (out, dq, dk, dv, dsinks) may be off because scores are float32: some roundings of s, of s · log2(e) and
    of what is subtracted from it, each by 2^-24 of the row's largest score, and P is off by that much of itself.

    dsinks = -Σ p₀ D, besides, is made of D = rowsum(O ∘ dO) with O rounded by up to u of itself, each time another way:
    four times the root of the sum of their squares. (In 16 bits that is up to a twentieth of dsinks: it is float32's
    cases that hold the sinks' gradient to account.)
    """
    q, k, v = wide
    dropout_p, scale = options.pop("dropout_p", 0.0), options.get("scale") or q.shape[-1] ** -0.5
    tk, group = k.shape[2], q.shape[1] // k.shape[1]
    p = reference_attention(q, k, torch.eye(tk, dtype=q.dtype, device=q.device).expand(*k.shape[:2], tk, tk), **options)
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    s = (scale * q @ k.mT).abs().clamp(max=options.get("softcap") or math.inf)
    largest_s = torch.where(p > 0, s, 0).amax(-1, keepdim=True) if tk else s.new_zeros(*s.shape[:-1], 1)
    off = 4 * 2.0**-24 * largest_s * p  # of P
    kept = 1.0 if dropout_mask is None else dropout_mask / (1.0 - dropout_p)
    d = (out * do).sum(-1, keepdim=True)
    ds = off * ((do @ v.mT) * kept - d).abs()
    of_keys = (t.unflatten(1, (-1, group)).sum(2) for t in (scale * ds.mT @ q.abs(), (off * kept).mT @ do.abs()))
    dk, dv = (t.max().item() if t.numel() else 0.0 for t in of_keys)
    p0 = 1 - p.sum(-1, keepdim=True)
    of_d = (p0 * out * do).square().sum((0, 2, 3)).sqrt().max().item() if out.numel() else 0.0
    of_p0 = (4 * 2.0**-24 * largest_s * p0 * d.abs()).sum((0, 2, 3)).max().item()
    first = ((off * kept @ v.abs()).max().item(), (scale * ds @ k.abs()).max().item())
    return [*first, dk, dv, of_p0 + 4 * u * of_d]
