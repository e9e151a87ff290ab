"""Graphics cards by name: what their data sheets promise."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """One card. No price is here: they change by the month."""

    flops: float  # operations per second, dense bfloat16 (float16 where the card has no bfloat16) with float32 sums
    memory_gb: float  # 10⁹ bytes
    bandwidth_gb: float  # 10⁹ bytes per second, between the card's memory and its processors


CARDS = {
    "B200": Card(2250e12, 180, 8000), "GH200": Card(989e12, 96, 4000), "H200": Card(989e12, 141, 4800),
    "H800": Card(989e12, 80, 3350), "H100": Card(989e12, 80, 3350), "H100 PCIe": Card(756e12, 80, 2000),
    "A100": Card(312e12, 80, 2039), "A800": Card(312e12, 80, 2039), "A30": Card(165e12, 24, 933),
    "A10": Card(125e12, 24, 600), "A10G": Card(70e12, 24, 600), "A6000": Card(155e12, 48, 768),
    "L40S": Card(362e12, 48, 864), "L40": Card(181e12, 48, 864), "L4": Card(121e12, 24, 300),
    "V100": Card(125e12, 32, 900), "T4": Card(65e12, 16, 320), "RTX 3090": Card(71e12, 24, 936),
    "RTX 4090": Card(165e12, 24, 1008), "RTX 5090": Card(209e12, 32, 1792),
}  # fmt: skip


def find_card(name: str) -> tuple[str, Card]:
    """(its name here, the card) for "h100", "RTX 4090" or "rtx4090". Raises ValueError that lists the known ones."""
    plain = {known.lower().replace(" ", ""): known for known in CARDS}
    wanted = name.lower().replace(" ", "").removeprefix("nvidia")
    for spelling in (wanted, "rtx" + wanted):
        if spelling in plain:
            return plain[spelling], CARDS[plain[spelling]]
    near = difflib.get_close_matches(wanted, plain, n=1)
    hint = f"Did you mean {plain[near[0]]!r}? " if near else ""
    raise ValueError(f"no card {name!r} is known. {hint}Known: {', '.join(CARDS)}.")
