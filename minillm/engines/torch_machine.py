"""What PyTorch finds on this machine: the device, its precision, the other processes, and how fast it could be."""

from __future__ import annotations

import atexit
import os
from typing import Any

import torch
import torch.distributed as dist

from ..costs.cards import CARDS
from ..settings import EngineConfig
from .limits import free_memory

LOW_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """The device called `wanted`, or the best there is. Under torchrun, each process of a machine gets its own GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device 'cuda': PyTorch sees no CUDA device here. Use 'cpu', or install a CUDA build.")
        local = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        if local >= torch.cuda.device_count():
            n = torch.cuda.device_count()
            raise ValueError(f"device 'cuda:{local}': there are {n} CUDA devices. Start as many processes (torchrun).")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps': this PyTorch sees no Apple GPU. Use device 'cpu'.")
    return device


def free_memory_of(device: torch.device) -> int | None:
    """Free bytes on a CUDA device, of the machine for the CPU; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory() if device.type == "cpu" else None


def choose_precision(wanted: str, device: torch.device) -> str:
    """ "full", "bf16" or "fp16"; by itself bf16 where the GPU computes in it, fp16 on older ones, full elsewhere."""
    if device.type != "cuda":
        return "full" if wanted == "auto" else wanted
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and not bf16:
        card = torch.cuda.get_device_name(device)
        raise ValueError(f"precision 'bf16': {card} does not compute in bfloat16. Use 'fp16'.")
    return wanted if wanted != "auto" else "bf16" if bf16 else "fp16"


def attention_unavailable_reason(model: Any, engine: EngineConfig) -> str | None:
    """Why our Triton attention cannot run a model of this config with these settings on this machine, or None."""
    from ..kernels.availability import flash_unavailable_reason

    device = choose_device(engine.device)
    dtype = LOW_PRECISION.get(choose_precision(engine.precision, device), torch.float32)
    q = torch.empty(1, model.n_heads, 1, model.head_dim, dtype=dtype, device=device)
    return flash_unavailable_reason(q, q, q)


def join_processes(device: torch.device) -> tuple[int, int]:
    """(rank, number of processes): joins the others if torchrun started this one, else (0, 1)."""
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return 0, 1
        if device.type == "mps":
            raise ValueError("several processes need device 'cuda' or 'cpu': PyTorch does not connect MPS devices.")
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, device_id=device if device.type == "cuda" else None)
        atexit.register(dist.destroy_process_group)
    dist.barrier()  # nobody goes on before everybody is here
    return dist.get_rank(), dist.get_world_size()


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What the card could do in `precision`; None where that is not known, so that no MFU is made up."""
    if device.type != "cuda" or precision not in LOW_PRECISION:
        return None
    name = torch.cuda.get_device_name(device)
    fits = [card for card in CARDS if card in name]  # "A10" is in "NVIDIA A100" too: the longest is meant
    return CARDS[max(fits, key=len)].flops if fits else None
