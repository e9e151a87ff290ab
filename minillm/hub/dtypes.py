"""The number formats of checkpoint files, and how NumPy reads and writes them.

NumPy has no bfloat16, the format of most checkpoints today. It is the upper half of a float32: one sign bit, the same
eight bits of exponent, and 7 instead of 23 bits of fraction. So reading it means to put sixteen zero bits behind it,
which loses nothing; writing it means to round the lower half away. What training
loses in float16 and in bfloat16 is measured in chapters/08_pretraining.ipynb.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

# Names in safetensors files -> names everywhere else.
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CODES = {name: code for code, name in NAMES.items()}
STORED = {code: np.dtype(kind) for code, kind in {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}.items()}
# Every dtype of the format, and its bits: to read where tensors lie that cannot be read here.
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def dtype_name(dtype: Any) -> str:
    """ "float32" for "float32", np.float32, np.dtype("<f4") and torch.float32. ValueError for what is no float."""
    name = str(dtype).removeprefix("torch.")
    if name not in CODES and not isinstance(dtype, str):
        with contextlib.suppress(TypeError):  # the error below shows what was given
            name = np.dtype(dtype).name
    if name not in CODES:
        raise ValueError(f"dtype = {dtype!r} is not supported: choose one of {', '.join(CODES)}.")
    return name


def decode(stored: np.ndarray, code: str) -> np.ndarray:
    """Numbers as they lie in a file -> float32, or float64 where the file has those. Exact."""
    if code == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64 if code == "F64" else np.float32, copy=False)


def encode(array: np.ndarray, code: str) -> np.ndarray:
    """float32 or float64 -> the numbers that go into a file, rounded to the nearest, ties to even.

    Raises ValueError where float16, which ends at 65504, would turn a finite number into infinity.
    """
    if code != "BF16":
        with np.errstate(over="ignore"):
            stored = array.astype(STORED[code], copy=False)
        if np.isinf(stored).any() and not np.isinf(array).any():
            largest = float(np.abs(array).max())
            raise ValueError(f"{NAMES[code]} cannot hold {largest:g}, the largest weight. Use bfloat16, which can.")
        return stored
    bits = array.astype(np.float32, copy=False).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # half a unit up, except to an odd number
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype(np.uint16)  # NaN must not round to infinity
