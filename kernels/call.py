"""What one attention call asks for beyond q, k and v, and what the kernels need to know about the machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import LOG2E, load_tile

UNLIMITED = 1 << 30  # a window side that hides nothing; 2^30 + T still fits an int32

TRITON_DTYPES = {getattr(torch, name): getattr(tl, name) for name in ("float16", "bfloat16", "float32", "float64")}


def interpreted() -> bool:
    """Do the kernels run in Triton's interpreter, on CPU tensors? (TRITON_INTERPRET=1 when triton was imported)"""
    return not isinstance(load_tile, triton.runtime.JITFunction)


def storage_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that the kernels compute in and write for tensors of `dtype`.

    The same one on a GPU. Triton's interpreter has no bf16 arithmetic (it multiplies the raw bits and says nothing)
    and truncates instead of rounding, so there bf16 tiles are computed and written in float32 and rounded by torch.
    """
    return torch.float32 if interpreted() and dtype == torch.bfloat16 else dtype


def float32_is_exact() -> bool:
    """Whether the user wants float32 products computed as such, and not in the matrix units' faster tf32."""
    setting = getattr(torch.backends.cuda.matmul, "fp32_precision", None)  # torch 2.9 and later
    if setting is None:
        return torch.get_float32_matmul_precision() == "highest"
    return setting != "tf32"


@dataclass(frozen=True)
class Call:
    """The options of one attention call, in the form that the kernels take.

    left, right: how many keys before and after its own position a query sees (UNLIMITED for all; causal: right = 0).
    mask: bool (B, H, Tq, Tk), True = keep, usually an expanded view with zero strides; or None.
    cu_q, cu_k: int32 (n+1,) offsets of packed sequences, with batch size 1; or None. max_q, max_k: longest of them.
    seed: int64 (1,) on the device, read only where dropout_p > 0.
    softcap: scores are softcap · tanh(score / softcap); 0 for none. sinks: (H,), see `tiles.start_softmax`; or None.
    key_lengths: int32 (B,), how many of the places of a cache hold keys; or None. block_table: int32 (B, n), and k, v
        are then pages (P, Hkv, page size, D), see `tiles.load_keys`; or None. Forward only, both.
    """

    scale: float
    left: int = UNLIMITED
    right: int = UNLIMITED
    dropout_p: float = 0.0
    mask: Tensor | None = None
    cu_q: Tensor | None = None
    cu_k: Tensor | None = None
    max_q: int = 0
    max_k: int = 0
    seed: Tensor | None = None
    softcap: float = 0.0
    sinks: Tensor | None = None
    key_lengths: Tensor | None = None
    block_table: Tensor | None = None

    def sequences(self, q: Tensor) -> int:
        """How many sequences: the batch size, or the number that cu_q delimits."""
        return q.shape[0] if self.cu_q is None else self.cu_q.numel() - 1

    def longest_q(self, q: Tensor) -> int:
        return q.shape[2] if self.cu_q is None else self.max_q

    def longest_k(self, k: Tensor) -> int:
        return k.shape[2] if self.cu_q is None else self.max_k

    def places(self, k: Tensor) -> int:
        """How many keys a sequence may have: the tokens of k, or those of all the pages that it may have."""
        return k.shape[2] if self.block_table is None else k.shape[2] * self.block_table.shape[1]

    def kernel_arguments(self, q: Tensor, k: Tensor) -> dict[str, object]:
        """The keyword arguments that every attention kernel shares."""
        head_size = q.shape[-1]
        return {
            "mask": None if self.mask is None else self.mask.view(torch.uint8),
            "cu_q": self.cu_q,
            "cu_k": self.cu_k,
            "seed": self.seed if self.dropout_p > 0 else None,
            "mask_strides": (0, 0, 0, 0) if self.mask is None else self.mask.stride(),
            "Tq": q.shape[2],
            "Tk": self.places(k),
            "left": self.left,
            "right": self.right,
            "H": q.shape[1],
            "GROUP": q.shape[1] // k.shape[1],
            "SCALE": self.scale,
            "SOFTCAP": self.softcap,
            "DROPOUT": self.dropout_p,
            "D": head_size,
            "BLOCK_D": max(16, triton.next_power_of_2(head_size)),
            "COMPUTE": TRITON_DTYPES[storage_dtype(q.dtype)],
            "ACC": TRITON_DTYPES[accumulator_dtype(q)],
            "PRECISION": "ieee" if float32_is_exact() else "tf32",
            "enable_fp_fusion": True,  # a · b + c in one rounding; Triton 3.10 turns its default off
        }

    def forward_arguments(self, k: Tensor) -> dict[str, object]:
        """What the forward kernels take besides."""
        table = self.block_table
        return {
            "sinks": self.sinks,
            "lengths": self.key_lengths,
            "table": table,
            "table_stride": 0 if table is None else table.stride(0),
            "PAGE": 0 if table is None else k.shape[2],
        }

    def fast_arguments(self, *read: Tensor) -> dict[str, bool]:
        """What the fast kernels, which read these tensors, are compiled for: code that nothing needs is left out.

        EXACT scores are scaled, and rounded, before anything is subtracted from them: those that are capped, and those
        of float32, which can be so large that their rounding is.
        """
        return {
            "HAS_LEFT": self.left < UNLIMITED,
            "HAS_RIGHT": self.right < UNLIMITED,
            "MASK_PER_KEY": self.mask is not None and self.mask.stride(2) == 0,
            "ALIGNED": rows_are_aligned(*read),
            "EXACT": self.softcap > 0 or storage_dtype(read[0].dtype).itemsize > 2,
        }


def rows_are_aligned(*tensors: Tensor) -> bool:
    """Whether to promise the compiler that the rows of all these (B, H, T, D) tensors begin at multiples of 16 bytes.

    Then a thread loads 16 bytes at once, and asynchronously. Where strides are multiples of 16 elements, as they are
    for most head sizes, Triton sees that by itself; for head sizes like 40 and 72 it would load element by element.
    """
    return tensors[0].shape[-1] % 16 != 0 and all(
        t.data_ptr() % 16 == 0 and all(stride * t.element_size() % 16 == 0 for stride in t.stride()[:-1])
        for t in tensors
    )


def accumulator_dtype(q: Tensor) -> torch.dtype:
    """Sums are kept in float32, or in float64 for float64 tensors (in the interpreter)."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def empty_token_major(batch: int, heads: int, tokens: int, width: int, like: Tensor, call: Call) -> Tensor:
    """A (B, H, T, D) tensor to write to, that lies in memory as (B, T, H, D), so that merging the heads later is free.

    Packed sequences need not cover every token, and what they leave out must read as zero.
    """
    make = torch.empty if call.cu_q is None else torch.zeros
    return make(batch, tokens, heads, width, dtype=storage_dtype(like.dtype), device=like.device).transpose(1, 2)


def empty_rows(batch: int, heads: int, tokens: int, like: Tensor, call: Call) -> Tensor:
    """The log-sum-exp (B, H, Tq) to write to; what packed sequences leave out has +inf, as if it saw no key."""
    sums = {"dtype": accumulator_dtype(like), "device": like.device}
    if call.cu_q is None:
        return torch.empty(batch, heads, tokens, **sums)
    return torch.full((batch, heads, tokens), float("inf"), **sums)


def sink_gradient(lse: Tensor, delta: Tensor, call: Call) -> Tensor:
    """dσ = -Σ p₀ D over all queries, (H,) in the sinks' dtype (see `flash_simple.py`); empty without sinks."""
    if call.sinks is None:
        return lse.new_empty(0)
    p0 = torch.exp2(call.sinks.to(lse.dtype)[None, :, None] * LOG2E.value - lse)
    return -(p0 * delta).sum((0, 2)).to(call.sinks.dtype)
