"""Can our attention kernels run here? The answer is a sentence that says why not and what to do.

Imports neither torch nor triton at the top: the first question is whether they are there.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGEST_HEAD = 256
OLDEST_TRITON = (3, 4)  # the oldest that was tried and works; 3.2 does not take strides as a tuple


def flash_unavailable_reason(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str | None:
    """Why `flash_attention(q, k, v)` cannot run on these tensors, and what to do about it; None where it can.

    Looks at what is installed in which version, the device, the dtype and the head size. Shapes that contradict each
    other are a mistake rather than a lack of support: those raise ValueError in `flash_attention` itself.
    """
    for package in ("torch", "triton"):
        if find_spec(package) is None:
            return f"{package} is not installed; install the 'triton' extra (Linux only), or use impl='reference'"
    return wrong_version() or wrong_tensors(q, k, v)


@lru_cache(maxsize=1)
def wrong_version() -> str | None:
    import numpy
    import triton

    from .call import interpreted

    version = first_two(triton.__version__)
    if version < OLDEST_TRITON:
        needed = f"{'.'.join(map(str, OLDEST_TRITON))} or later, which comes with torch 2.8"
        return f"triton {triton.__version__} is installed and the kernels need {needed}; update torch, or use 'sdpa'"
    if interpreted() and version < (3, 7) and first_two(numpy.__version__) >= (2, 4):
        return (
            f"the interpreter of triton {triton.__version__} does not work with NumPy {numpy.__version__}; update "
            "triton to 3.7 or later, or install 'numpy<2.4'"
        )
    return None


def first_two(version: str) -> tuple[int, int]:
    """(3, 9) of "3.9.0"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def wrong_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str | None:
    import torch

    from .call import interpreted

    dtypes, devices = {q.dtype, k.dtype, v.dtype}, {q.device, k.device, v.device}
    if len(dtypes) > 1:
        return f"q, k, v have different dtypes: {q.dtype}, {k.dtype}, {v.dtype}; cast them to one, or use autocast"
    if len(devices) > 1:
        return f"q, k, v are on different devices: {q.device}, {k.device}, {v.device}; move them to one"
    supported = (torch.float16, torch.bfloat16, torch.float32) + ((torch.float64,) if interpreted() else ())
    if q.dtype not in supported:
        return f"dtype {q.dtype} is not supported; use float16, bfloat16 or float32, or impl='reference'"
    if q.shape[-1] > LARGEST_HEAD:
        return f"head size {q.shape[-1]} is above {LARGEST_HEAD}; use more heads, or impl='sdpa'"
    if q.device.type == "cpu":
        if interpreted():
            return None
        return (
            "the tensors are on the CPU, where Triton does not compile; move them to a CUDA device, or use "
            "impl='sdpa'; to step through the kernels slowly, set TRITON_INTERPRET=1 before Python starts"
        )
    if q.device.type != "cuda":
        return f"device {q.device} is not supported; Triton needs a CUDA device (impl='sdpa' runs anywhere)"
    if interpreted():
        return "TRITON_INTERPRET is set, so kernels run on the CPU; unset it, or move the tensors to the CPU"
    if torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(q.device)
        if major < 8:
            name = torch.cuda.get_device_name(q.device)
            return f"{name} has compute capability {major}.{minor} and the kernels need 8.0 (Ampere); use impl='sdpa'"
    return None
