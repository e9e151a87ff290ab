"""What `flash_attention` refuses, and in which words; what it makes of a mask, a seed and offsets.

Values that lie on the device are looked at without waiting for it: `torch._assert_async` lets the device itself stop
at a wrong one. Whatever they are, the kernels touch no memory but their tensors' own (`tiles.locate`).
"""

from __future__ import annotations

import math
from operator import index

import torch
from torch import Tensor

ELSEWHERE = "use PyTorch's attention, or impl='reference' of minillm's, there"


def check_shapes(q: Tensor, k: Tensor, v: Tensor, one_batch: bool) -> None:
    """Shapes that go with each other; with `one_batch` the first axis of q and that of k and v are the same."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not (q.ndim == k.ndim == v.ndim == 4):
        raise ValueError(f"flash_attention: q, k, v must be (batch, heads, tokens, features), not {shapes}.")
    if k.shape != v.shape or (q.shape[0] != k.shape[0] and one_batch) or q.shape[3] != k.shape[3]:
        raise ValueError(f"flash_attention: k and v must have one shape and q their batch and head size, not {shapes}.")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1] != 0:
        raise ValueError(f"flash_attention: the query heads must be a multiple of the key heads, not {shapes}.")
    if q.shape[3] == 0:
        raise ValueError(f"flash_attention: the heads have no features: {shapes}.")


def check_numbers(scale: float, dropout_p: float, softcap: float | None, window: int | None) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"flash_attention: scale is {scale}; it must be above 0 and finite.")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"flash_attention: dropout_p is {dropout_p}; it must be at least 0 and below 1.")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"flash_attention: softcap is {softcap}; it must be above 0 and finite, or None for no cap.")
    if window is not None and (whole_number(window) is None or window < 1):
        given = f"window is {window}; it counts the keys that a query sees"
        raise ValueError(f"flash_attention: {given}: a whole number, at least 1, or None for all.")


def whole_number(n: object) -> int | None:
    """n as an int; None of what is no whole number, True and 2.0 among it."""
    try:
        return None if isinstance(n, bool) else index(n)
    except TypeError:
        return None


def refuse_transforms(tensors: list[Tensor]) -> None:
    """Derivatives that the kernels do not have would come out as zeros or None, or fail in PyTorch's words."""
    from torch.autograd import forward_ad

    if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise RuntimeError(f"flash_attention has no forward-mode derivative (jvp); {ELSEWHERE}.")
    transforms = torch._C._functorch
    stack = transforms.get_interpreter_stack() or []
    if any(level.key() != transforms.TransformType.Vmap for level in stack):
        ways = "call loss.backward() or torch.autograd.grad"
        raise RuntimeError(f"flash_attention does not run inside torch.func.grad, vjp or jvp; {ways}, or {ELSEWHERE}.")


def as_seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    if seed is None:  # a tensor, not an int: no synchronisation, and torch.compile does not bake its value in
        return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            given = f"{seed.dtype} {tuple(seed.shape)}"
            raise ValueError(f"flash_attention: a seed on the device is one int64, not {given}.")
        return seed.to(device=device).reshape(1)
    if whole_number(seed) is None or not -(2**63) <= seed < 2**63:
        raise ValueError(f"flash_attention: seed is {seed}; it must be a whole number of 64 bits, -2^63 to 2^63 - 1.")
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def check_packing(
    q: Tensor, k: Tensor, cu_seqlens: Tensor | tuple[Tensor, Tensor] | None, max_seqlen: int | None, masked: bool,
    cached: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """(cu_q, cu_k) as int32 or int64 on q's device; their values are `check_offsets`'s."""
    if cu_seqlens is None:
        if max_seqlen is not None:
            raise ValueError("flash_attention: max_seqlen says how long packed sequences are: give cu_seqlens too.")
        return None, None
    one = isinstance(cu_seqlens, Tensor)
    cu_q, cu_k = (cu_seqlens, cu_seqlens) if one else cu_seqlens
    if max_seqlen is not None and (whole_number(max_seqlen) is None or max_seqlen < 0):
        raise ValueError(f"flash_attention: max_seqlen is {max_seqlen}; it must be a whole number, at least 0.")
    if q.shape[0] != 1:
        raise ValueError(f"flash_attention: cu_seqlens needs sequences packed in a batch of 1, not q {tuple(q.shape)}.")
    if masked:
        raise ValueError("flash_attention: cu_seqlens and masks do not go together; packed sequences have no padding.")
    if cached and not one:
        raise ValueError("flash_attention: with key_lengths, cu_seqlens is one tensor, for q.")
    if one and not cached and q.shape[2] != k.shape[2]:
        tokens = f"q has {q.shape[2]} tokens and k {k.shape[2]}"
        raise ValueError(f"flash_attention: {tokens}; give cu_seqlens as a pair (for q, for k).")
    for cu in (cu_q, cu_k):
        check_integers("cu_seqlens", cu)
    if cu_q.ndim != 1 or cu_q.shape != cu_k.shape or cu_q.numel() == 0:
        raise ValueError(f"flash_attention: cu_seqlens must be (n+1,), not {tuple(cu_q.shape)}, {tuple(cu_k.shape)}.")
    return cu_q.to(q.device), None if cached else cu_k.to(q.device)


def check_cache(
    q: Tensor, k: Tensor, key_lengths: Tensor | None, block_table: Tensor | None, cu_q: Tensor | None, masked: bool
) -> None:
    """Shapes and dtypes of key_lengths and block_table; their values are `check_offsets`'s."""
    sequences = q.shape[0] if cu_q is None else cu_q.numel() - 1
    if block_table is not None:
        if key_lengths is None:
            raise ValueError("flash_attention: block_table says where keys lie: give key_lengths, how many, too.")
        check_integers("block_table", block_table)
        if block_table.ndim != 2 or block_table.shape[0] != sequences:
            shape = tuple(block_table.shape)
            raise ValueError(f"flash_attention: block_table {shape} must be (B, pages) with B = {sequences}.")
    if key_lengths is not None:
        check_integers("key_lengths", key_lengths)
        if key_lengths.shape != (sequences,):
            raise ValueError(f"flash_attention: key_lengths {tuple(key_lengths.shape)} must be (B,) = {(sequences,)}.")
        if masked:
            raise ValueError("flash_attention: key_lengths and masks do not go together.")
        if block_table is None and k.shape[0] != sequences:
            raise ValueError(f"flash_attention: k {tuple(k.shape)} must hold a row for each of {sequences} sequences.")


def check_integers(name: str, t: Tensor) -> None:
    if t.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"flash_attention: {name} must be int32 or int64, not {t.dtype}.")


def check_sinks(q: Tensor, sinks: Tensor | None) -> None:
    if sinks is None:
        return
    if sinks.shape != q.shape[1:2] or not sinks.is_floating_point():
        given = f"sinks {tuple(sinks.shape)}, {sinks.dtype}"
        raise ValueError(f"flash_attention: {given}, must be one floating number for each head of q {tuple(q.shape)}.")


def check_devices(q: Tensor, **others: Tensor | None) -> None:
    for name, t in others.items():
        if t is not None and t.device != q.device:
            raise ValueError(f"flash_attention: {name} is on {t.device} and q on {q.device}; move it there.")


def refuse_if(wrong: Tensor, name: str, why: str, shown: Tensor) -> None:
    """Raise ValueError where `wrong` (a bool) is true; on a GPU the device stops by itself, and later."""
    if wrong.device.type == "cuda":
        torch._assert_async(~wrong, f"flash_attention: {name} {why}.")
    elif wrong:
        values = ", ".join(str(n) for n in shown.flatten()[:8].tolist()) + ", ..." * (shown.numel() > 8)
        raise ValueError(f"flash_attention: {name} [{values}] {why}.")


def check_offsets(cu: Tensor | None, tokens: int, longest: int | None, name: str) -> None:
    """Offsets of packed sequences begin at 0, never fall, stay within the tokens; max_seqlen is not below the truth."""
    if cu is None:
        return
    wrong = (cu[0] != 0) | (cu[1:] < cu[:-1]).any() | (cu[-1] > tokens)
    refuse_if(wrong, name, f"must begin at 0, never fall, and end at most at {tokens}, the number of tokens", cu)
    if longest is not None and cu.numel() > 1:
        refuse_if(cu.diff().max() > longest, name, f"has a longer sequence than max_seqlen = {longest}", cu)


def check_pages(lengths: Tensor | None, table: Tensor | None, k: Tensor) -> None:
    """Lengths fit into the cache; the pages that they reach exist."""
    if lengths is None or lengths.numel() == 0:
        return
    page = k.shape[2]
    places = page if table is None else page * table.shape[1]
    refuse_if(((lengths < 0) | (lengths > places)).any(), "key_lengths", f"must be 0 to {places}", lengths)
    if table is not None and table.numel() > 0:
        reached = torch.arange(table.shape[1], device=table.device) * page < lengths[:, None]
        wrong = (((table < 0) | (table >= k.shape[0])) & reached).any()
        refuse_if(wrong, "block_table", f"must hold page numbers, 0 to {k.shape[0] - 1}", table)


def without_filling(tokens: int, cu_q: Tensor | None, cu_k: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """cu_seqlens without the empty sequences at their end, of which each would be launched; looked for, which waits for
    the device, only where there are as many sequences as tokens."""
    if cu_q is None or cu_k is None or cu_q.shape[0] <= tokens:
        return cu_q, cu_k
    n = max(1, int(((cu_q < cu_q[-1]) | (cu_k < cu_k[-1])).sum()))
    return cu_q[: n + 1], cu_k[: n + 1]


def merge_masks(q: Tensor, k: Tensor, mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
    """One bool view of shape (B, H, Tq, Tk); a padding mask costs no memory: its query and head strides are 0."""
    shape = (*q.shape[:3], k.shape[2])
    for given in (mask, key_padding_mask):
        if given is not None and given.dtype != torch.bool:
            raise ValueError(f"flash_attention: a mask must be bool, True = keep, not {given.dtype} (use mask.bool()).")
    merged = mask
    if mask is not None:
        fits = mask.ndim <= 4 and all(a in (1, b) for a, b in zip(mask.shape[::-1], shape[::-1]))
        if not fits:
            wanted = f"(B, H, Tq, Tk) = {shape}, or 1 where it is the same along an axis"
            raise ValueError(f"flash_attention: mask {tuple(mask.shape)} must be {wanted}.")
    if key_padding_mask is not None:
        if tuple(key_padding_mask.shape) != (shape[0], shape[3]):
            given, wanted = tuple(key_padding_mask.shape), (shape[0], shape[3])
            raise ValueError(f"flash_attention: key_padding_mask {given} must be (B, Tk) = {wanted}.")
        per_key = key_padding_mask[:, None, None, :]
        merged = per_key if mask is None else mask & per_key
    return None if merged is None else merged.expand(shape)
