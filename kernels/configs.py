"""Tile sizes, warps and pipeline depth for each GPU architecture, kernel, element size and head size.

The numbers below compile without spilling registers for causal attention over whole blocks, but for dK/dV at head size
256. What other options spill is listed in tests/kernels/test_offline.py, which compiles them all. The command
`python -m minillm.kernels.tune` times others on the card at hand and writes a file that is read before this table;
where there is none, the file of that name in kernels/tuned/ is, if somebody has tuned on such a card for all.

Bigger tiles reuse what they load more often and take more registers and shared memory. BLOCK_M counts queries, BLOCK_N
keys. Where two programs fit on a multiprocessor, one computes its softmax while the other multiplies: `occupancy.py`
counts them, and its estimates chose most numbers for head sizes 64 and 128. `num_stages` is how many blocks of the loop
are being loaded while one is computed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import triton
from torch import Tensor

from .call import interpreted

KERNELS = ("forward", "dkdv", "dq", "decode")
HEAD_SIZES = (16, 32, 64, 128, 256)  # others are padded to the next of these
FOR_ALL = Path(__file__).parent / "tuned"  # files of the tuner for cards by their names, which come along


@dataclass(frozen=True)
class Config:
    """How one kernel is tiled and launched."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    descriptors: int = 0  # 1: the forward kernel loads keys and values by tensor descriptors, where it can

    def numbers(self) -> list[int]:
        """As it stands in a file: four numbers, and a 1 behind them for descriptors."""
        return [self.block_m, self.block_n, self.num_warps, self.num_stages, *[1] * self.descriptors]

    def launch_arguments(self) -> dict[str, int]:
        tile = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n}
        return {**tile, "num_warps": self.num_warps, "num_stages": self.num_stages}


# (kernel, bytes per element) -> one Config for each of HEAD_SIZES. decode ignores block_m: its rows are query heads.
Table = dict[tuple[str, int], tuple[Config, Config, Config, Config, Config]]


def table_rows(*numbers: tuple[int, int, int, int]) -> tuple[Config, ...]:
    return tuple(Config(*four) for four in numbers)


# fmt: off
HOPPER: Table = {  # 228 KB of shared memory a multiprocessor, asynchronous matrix units that take 64-row tiles
    #                    16                32                64                 128                256
    ("forward", 2): table_rows((128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 3), (64, 64, 4, 3), (128, 32, 8, 3)),
    ("dkdv", 2):    table_rows((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2), (32, 64, 4, 2), (16, 64, 8, 2)),
    ("dq", 2):      table_rows((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2), (64, 64, 4, 2), (64, 32, 8, 2)),
    ("decode", 2):  table_rows((16, 128, 4, 3), (16, 128, 4, 3), (16, 64, 4, 3), (16, 64, 4, 3), (16, 32, 4, 3)),
    ("forward", 4): table_rows((32, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 2), (16, 16, 4, 2), (16, 16, 8, 2)),
    ("dkdv", 4):    table_rows((32, 16, 4, 2), (32, 16, 4, 2), (32, 16, 4, 2), (16, 16, 8, 2), (16, 16, 8, 1)),
    ("dq", 4):      table_rows((32, 16, 4, 2), (32, 16, 4, 2), (32, 16, 4, 2), (16, 16, 8, 2), (16, 16, 8, 1)),
    ("decode", 4):  table_rows((16, 32, 4, 2), (16, 32, 4, 2), (16, 32, 4, 2), (16, 16, 4, 2), (16, 16, 8, 2)),
}
AMPERE: Table = HOPPER | {  # 163 KB a program; each warp multiplies for itself, out of registers
    ("forward", 2): table_rows((128, 64, 4, 3), (128, 64, 4, 3), (128, 32, 4, 3), (64, 64, 4, 2), (64, 32, 8, 2)),
    ("dkdv", 2):    table_rows((64, 64, 4, 2), (64, 64, 4, 2), (64, 128, 8, 2), (32, 64, 4, 2), (32, 32, 8, 2)),
    ("dq", 2):      table_rows((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2), (64, 32, 8, 2)),
}
SMALL: Table = AMPERE | {  # the 99 KB of consumer cards
    ("forward", 2): table_rows((128, 64, 4, 3), (128, 64, 4, 3), (128, 32, 4, 3), (128, 32, 8, 3), (64, 32, 8, 2)),
    ("dkdv", 2):    table_rows((64, 64, 4, 2), (64, 64, 4, 2), (64, 128, 8, 2), (64, 64, 8, 2), (32, 32, 8, 2)),
    ("dq", 2):      table_rows((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 8, 2), (32, 32, 8, 2)),
}
# The interpreter runs one program after another, each on NumPy arrays. Small and unequal tiles take the kernels through
# all their edges at lengths that it can do in a second.
INTERPRETER: Table = {
    (kernel, size): table_rows(*[(32, 64, 4, 1) if kernel == "dkdv" else (64, 32, 4, 1)] * 5)
    for kernel in KERNELS for size in (2, 4, 8)
}
# fmt: on

TABLES = {80: AMPERE, 86: SMALL, 89: SMALL, 90: HOPPER, 100: HOPPER, 120: SMALL}


def lookup(kernel: str, q: Tensor) -> Config:
    """The configuration of `kernel` (one of KERNELS) for tensors like q (B, H, T, D), on q's device."""
    padded = max(16, triton.next_power_of_2(q.shape[-1]))
    if interpreted():
        return INTERPRETER[kernel, q.element_size()][HEAD_SIZES.index(padded)]
    if q.device.type == "cuda":
        return on_device(kernel, q.element_size(), padded, q.device)
    return shipped(target(), kernel, q.element_size(), padded)  # compiling for a GPU that is not here


@lru_cache(maxsize=256)
def on_device(kernel: str, element_size: int, padded_head: int, device: torch.device) -> Config:
    own, key = tuned_file(device), key_of(kernel, element_size, padded_head)
    for tuned in (own, FOR_ALL / own.name):
        found = read_tuned(tuned) if tuned.exists() else {}
        if key in found:
            return found[key]
    return shipped(target(), kernel, element_size, padded_head)


def target() -> int:
    """Compute capability as one number (90 for 9.0) of the GPU that Triton compiles for now."""
    arch = triton.runtime.driver.active.get_current_target().arch
    return arch if isinstance(arch, int) else 80  # AMD's architectures have names; the middle table suits them best


def shipped(arch: int, kernel: str, element_size: int, padded_head: int) -> Config:
    """The table's configuration; an architecture that is not in it takes that of the nearest one below."""
    known = max((a for a in TABLES if a <= arch), default=min(TABLES))
    return TABLES[known][kernel, element_size][HEAD_SIZES.index(padded_head)]


def key_of(kernel: str, element_size: int, padded_head: int) -> str:
    """The name of a shape class in a file of tuned configurations."""
    return f"{kernel} {8 * element_size}-bit head {padded_head}"


def tuned_file(device: torch.device) -> Path:
    """Where the tuner writes what it found for this kind of card, and where it is looked for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    card = torch.cuda.get_device_name(device).replace(" ", "-").replace("/", "-")
    return cache / "minillm" / "kernels" / f"{card}-triton-{triton.__version__}.json"


def read_tuned(path: Path) -> dict[str, Config]:
    """What the tuner wrote: {key: numbers}, see `Config.numbers`; raises ValueError where it is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for key, four in found.items():
            if not is_config(four):
                raise ValueError(f"{key!r:.50} has {four!r:.50}, not four numbers from 1 to 1024 (or a 1 as a fifth).")
        return {key: Config(*four) for key, four in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{path} holds no tuned configurations ({why}); delete it or tune again.") from None


def is_config(row: object) -> bool:
    """Whether a row of a file is one that `Config.numbers` writes."""
    if not isinstance(row, list) or not all(type(n) is int and 0 < n <= 1024 for n in row):
        return False
    return len(row) == 4 or (len(row) == 5 and row[4] == 1)
