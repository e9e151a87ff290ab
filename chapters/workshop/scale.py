"""How much a chapter computes, what its numbers depend on, and how far a long cell is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import TypeVar

import minillm
import numpy as np
from tqdm import tqdm

Item = TypeVar("Item")

SCALES = ("smoke", "cpu", "gpu")


def read_scale() -> str:
    """How much a chapter computes, from the environment variable MINILLM_SCALE: "smoke" (seconds, for tests), "cpu"
    (the default: minutes on a laptop) or "gpu" (as much as is worth it on a large machine)."""
    scale = os.environ.get("MINILLM_SCALE", "cpu")
    if scale not in SCALES:
        raise ValueError(
            f"MINILLM_SCALE = {scale!r}: choose one of {', '.join(SCALES)}, or leave it unset for 'cpu'."
        )
    return scale


def show_versions(scale: str) -> None:
    """Print what the numbers of a chapter depend on."""
    numpy, python = np.__version__, platform.python_version()
    print(f"minillm {minillm.__version__}, NumPy {numpy}, Python {python}, scale: {scale}")


def progress(items: Iterable[Item], title: str) -> Iterable[Item]:
    """The items, with a bar that tells how many are done, the rate and the time left, and that goes when all are.

    The build turns it off (by TQDM_DISABLE): a committed notebook shows results only.
    """
    return tqdm(items, title, leave=False)
