"""Compile the kernels for a GPU that is not here, and report what the compiler made of them.

Triton compiles for a target by name, so a machine without a GPU can still see registers, spills (values that did not
fit into registers and went to slow memory), shared memory, and whether the tensor cores' instructions are used. The
functions that launch kernels run unchanged, on `meta` tensors (shapes without data), under a driver that loads nothing.

    python -m minillm.kernels.offline    # every shipped configuration, for the GPUs of compute capability 9.0
    python -m minillm.kernels.offline --arch 80 --kernel forward --head-size 64

It cannot say how fast they are. TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

from .attention import BACKWARD, FORWARD
from .call import Call, interpreted
from .configs import HEAD_SIZES, KERNELS, Config, key_of, shipped

# Shared memory that one program may take, in bytes (CUDA programming guide, table of compute capabilities).
SHARED_LIMIT = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}


@dataclass(frozen=True)
class Compiled:
    """One compiled kernel: registers per thread, bytes of stack per thread (0 = no spills), shared memory in bytes,
    and how many matrix instructions of Hopper (wgmma) and of earlier chips (mma) its machine code holds; that code."""

    name: str
    num_warps: int
    num_stages: int
    registers: int
    stack: int
    shared: int
    wgmma: int
    mma: int
    code: str = field(repr=False)


class NoDevice:
    """The part of Triton's driver interface that compiling and "launching" need; loading and launching do nothing."""

    def __init__(self, arch: int, compiled: list[Compiled]) -> None:
        self.arch = arch
        self.compiled = compiled
        self.utils = self
        self.metadata = None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # one cache of kernels for each architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_LIMIT[self.arch], "multiprocessor_count": 132}

    def launcher_cls(self, source: object, metadata: object) -> Callable[..., None]:
        self.metadata = metadata
        return launch_nothing

    def load_binary(self, name: str, cubin: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        result = inspect_binary(cubin, name, self.metadata, shared)
        self.compiled.append(result)
        return 1, 1, result.registers, result.stack // 4, 1024

    def unload_module(self, module: int) -> None:
        pass


def launch_nothing(*args: object) -> None:
    pass


def inspect_binary(cubin: bytes, name: str, metadata: object, shared: int) -> Compiled:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        code = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    wgmma, mma = len(re.findall(r"\bHGMMA\b", code)), len(re.findall(r"\bHMMA\b", code))
    launch = (name, metadata.num_warps, metadata.num_stages)
    return Compiled(*launch, int(found[1]), int(found[2]), shared, wgmma, mma, code)


@contextmanager
def compiling_for(arch: int) -> Iterator[list[Compiled]]:
    """Inside the block, kernels launched on meta tensors are compiled for `arch` (90 = Hopper) and not run.

    Yields the list that fills up with what was compiled, one entry for each distinct kernel.
    Raises RuntimeError in the interpreter, triton.OutOfResources where a kernel needs more shared memory than exists.
    """
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET is set, so there is no compiler; start Python without it.")
    compiled: list[Compiled] = []
    driver = triton.runtime.driver
    driver.set_active(NoDevice(arch, compiled))
    try:
        yield compiled
    finally:
        driver.set_active(None)  # back to looking for a real device when one is needed


def compile_config(arch: int, kernel: str, dtype: torch.dtype, head_size: int, config: Config, call: Call, *,
                   tokens: int = 4096, heads: int = 8, kv_heads: int = 8, decoded: int = 1) -> Compiled:  # fmt: skip
    """Compile one attention kernel (a name in configs.KERNELS) for `arch` with `config`, for `heads` heads of queries;
    decoding has `decoded` queries."""
    queries = decoded if kernel == "decode" else tokens
    q = torch.empty(2, queries, heads, head_size, dtype=dtype, device="meta").transpose(1, 2)
    k = torch.empty(2, tokens, kv_heads, head_size, dtype=dtype, device="meta").transpose(1, 2)
    lse = torch.empty(2, heads, queries, dtype=torch.float32, device="meta")
    with compiling_for(arch) as compiled:
        if kernel in BACKWARD:
            BACKWARD[kernel](q, q, k, k, lse, lse, call, config)
        else:
            FORWARD[kernel](q, k, k, call, config)
    return compiled[0]


def main() -> None:
    """Print one line for each shipped configuration."""
    parser = argparse.ArgumentParser(prog="python -m minillm.kernels.offline", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", type=int, default=90, choices=sorted(SHARED_LIMIT), help="90 is Hopper (H100, H200)")
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="only this one; may be repeated")
    parser.add_argument("--head-size", action="append", type=int, choices=HEAD_SIZES)
    parser.add_argument("--bits", action="append", type=int, choices=[16, 32])
    arguments = parser.parse_args()
    shared = SHARED_LIMIT[arguments.arch]
    print(f"triton {triton.__version__}, sm_{arguments.arch}, causal; {shared} bytes of shared memory for a program")
    for kernel in arguments.kernel or KERNELS:
        for bits in arguments.bits or (16, 32):
            for head_size in arguments.head_size or HEAD_SIZES:
                dtype = torch.bfloat16 if bits == 16 else torch.float32
                config = shipped(arguments.arch, kernel, bits // 8, head_size)
                row = f"{key_of(kernel, bits // 8, head_size):26} {tuple(config.numbers())!s:20}"
                try:
                    got = compile_config(arguments.arch, kernel, dtype, head_size, config, Call(scale=0.125, right=0))
                except triton.OutOfResources as problem:
                    print(f"{row} does not fit: {problem}", flush=True)
                    continue
                print(f"{row} {got.registers:3} registers {got.stack:5} stack", end=" ")
                print(f"{got.shared:6} shared {got.wgmma:3} wgmma {got.mma:3} mma", flush=True)


if __name__ == "__main__":
    main()
