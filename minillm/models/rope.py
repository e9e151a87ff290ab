"""The angles of rotary position embeddings, and the ways to stretch them over texts longer than those trained on.

Features are turned in pairs (see ops.rope). Pair i of a head with d features turns by θᵢ = base^(−2i/d) per position
(Su et al. 2021, arXiv 2104.09864): the first pairs make a turn every few tokens and tell neighbours apart, the last
turn so slowly that they tell regions of the text apart. Beyond the trained length, slow pairs reach angles never seen
before. Each `rope_type` below keeps them from that in another way; checkpoints name theirs in config.json.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray
BLOCK = 4096  # positions whose angles are computed at a time
MAX_POSITIONS, MAX_TABLE = 1 << 17, 1 << 25  # whose cosines and sines are kept, and how many numbers these may be

# Each scaling variant with the settings that it must have and those that it may have, named as in config.json.
ROPE_TYPES: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor", "original_max_position_embeddings"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
}


def rope_tables(
    length: int,
    head_dim: int,
    base: float,
    scaling: dict[str, Any] | None = None,
    dtype: Any = np.float64,
    first: int = 0,
) -> tuple[Array, Array]:
    """cos and sin (length − first, head_dim/2) of the angles of a text's positions from `first` on, computed in float64
    and kept in `dtype`; `scaling` as in config.json, or None."""
    frequencies, amplitude = rope_frequencies(length, head_dim, base, scaling or {"rope_type": "default"})
    cos, sin = (np.empty((length - first, len(frequencies)), dtype) for _ in range(2))
    for start in range(
        first, length, BLOCK
    ):  # the tables of a long context are large: no second copy of them in float64
        rows = slice(start - first, start - first + BLOCK)
        angles = np.arange(start, min(start + BLOCK, length))[:, None] * frequencies  # (rows, head_dim/2)
        cos[rows], sin[rows] = np.cos(angles) * amplitude, np.sin(angles) * amplitude
    return cos, sin


def table_length(config: Any) -> int:
    """How many positions have their angles in a table: the context, or the length before dynamic scaling begins, up to
    MAX_POSITIONS. A context may be any number, and most of a long one is never used."""
    length, scaling = min(config.context, MAX_POSITIONS, MAX_TABLE // config.head_dim), config.rope_scaling
    if scaling is not None and scaling["rope_type"] == "dynamic":
        return min(length, int(scaling["original_max_position_embeddings"]))
    return length


def rope_rows(
    cos: Any, sin: Any, start: int, end: int, head_dim: int, base: float, scaling: dict[str, Any] | None
) -> tuple[Any, Any]:
    """Cosines and sines (end − start, head_dim/2) for the last positions of a sequence of `end`: rows of the tables
    `cos` and `sin`, of either engine, or made here where these are too short."""
    if end <= len(cos):
        return cos[start:end], sin[start:end]
    more = rope_tables(end, head_dim, base, scaling, first=start)
    if isinstance(cos, np.ndarray):
        return more[0].astype(cos.dtype), more[1].astype(sin.dtype)
    return cos.new_tensor(more[0]), sin.new_tensor(more[1])


def rope_frequencies(length: int, head_dim: int, base: float, scaling: dict[str, Any]) -> tuple[Array, float]:
    """Angle per position of each pair (head_dim/2,), and the factor on cos and sin (1 except for yarn)."""
    kind = scaling["rope_type"]
    exponents = np.arange(0, head_dim, 2) / head_dim  # 2i/d
    if kind == "dynamic":
        base = dynamic_base(length, head_dim, base, scaling["factor"], scaling["original_max_position_embeddings"])
    frequencies = base**-exponents
    if kind == "linear":  # "position interpolation", Chen et al. 2023, arXiv 2306.15595: all positions closer together
        return frequencies / scaling["factor"], 1.0
    if kind == "llama3":
        return llama3_frequencies(frequencies, scaling), 1.0
    if kind == "yarn":
        return yarn_frequencies(frequencies, head_dim, base, scaling), yarn_amplitude(scaling)
    return frequencies, 1.0


def dynamic_base(length: int, head_dim: int, base: float, factor: float, original: int) -> float:
    """ "NTK-aware" scaling, refitted to the length at hand (bloc97 and emozilla 2023): a larger base slows the slow
    pairs down by about length/original and leaves the fast ones alone. Up to the original length nothing changes."""
    stretch = factor * max(length, original) / original - (factor - 1)
    return base * stretch ** (head_dim / (head_dim - 2))


def llama3_frequencies(frequencies: Array, scaling: dict[str, Any]) -> Array:
    """Llama 3.1 (2024, arXiv 2407.21783): pairs that make fewer than `low_freq_factor` turns within the original length
    are slowed by `factor`, those that make more than `high_freq_factor` left alone, those between a mixture."""
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)  # 1 for fast pairs, 0 for slow ones
    return keep * frequencies + (1 - keep) * frequencies / scaling["factor"]


def yarn_frequencies(frequencies: Array, head_dim: int, base: float, scaling: dict[str, Any]) -> Array:
    """YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): the same idea, with a mixture linear in the pair's index
    between the pairs that make `beta_fast` and `beta_slow` turns within the original length."""

    def pair_with(turns: float) -> float:  # solves original · base^(−2i/d) / 2π = turns for i
        original = scaling["original_max_position_embeddings"]
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair_with(scaling.get("beta_fast") or 32), pair_with(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # the ramp becomes a step, without a division by zero
    slow = np.clip((np.arange(head_dim // 2) - first) / (last - first), 0, 1)  # 0 for fast pairs, 1 for slow ones
    return (1 - slow) * frequencies + slow * frequencies / scaling["factor"]


def yarn_amplitude(scaling: dict[str, Any]) -> float:
    """YaRN: a longer context spreads attention thinner; queries and keys grow by this to sharpen it."""
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])

    def growth(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling["factor"]) + 1 if scaling["factor"] > 1 else 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return growth(scaling["mscale"]) / growth(scaling["mscale_all_dim"])
    return growth(1)


def check_rope_scaling(scaling: dict[str, Any], head_dim: int, base: float) -> None:
    """Raise ValueError, with the reason, if `scaling` is not one of ROPE_TYPES with settings that give angles."""
    kind = scaling.get("rope_type")
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        raise ValueError(f"rope_scaling: rope_type = {kind!r} is not supported. Known: {', '.join(ROPE_TYPES)}.")
    required, optional = ROPE_TYPES[kind]
    for name in sorted(required - set(scaling)):
        raise ValueError(f"rope_scaling: {kind!r} needs {name!r}, which is missing from {scaling}.")
    for name in sorted(set(scaling) - required - optional - {"rope_type"}):
        known = ", ".join(sorted(required | optional)) or "none"
        raise ValueError(f"rope_scaling: {kind!r} has no setting {name!r}. Known: {known}.")
    for name in sorted((required | optional) & set(scaling) - {"truncate"}):
        value = scaling[name]
        if value is None and name in optional:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            raise ValueError(f"rope_scaling: {name} = {value!r} must be a number above 0.")
    if kind != "default" and scaling["factor"] < 1:
        raise ValueError(f"rope_scaling: factor = {scaling['factor']} must be at least 1: texts get that much longer.")
    if kind == "llama3" and scaling["low_freq_factor"] >= scaling["high_freq_factor"]:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        raise ValueError(f"rope_scaling: low_freq_factor = {low} must be below high_freq_factor = {high}.")
    if kind == "dynamic" and head_dim == 2:
        raise ValueError("rope_scaling: 'dynamic' needs heads of more than 2 features: it divides by head_dim − 2.")
    try:
        with np.errstate(all="raise"):
            rope_frequencies(1, min(head_dim, 1024), base, scaling)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"rope_scaling: {scaling} with the base {base:g} gives no angles: {error}.") from None
