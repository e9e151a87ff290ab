"""How large a model is and what it costs to run, from its config alone: parameters, operations, memory.

Everything follows from the model's `Costs` (architectures.py): its parts, each with the number of weights that are
multiplied with every token. The attention scores come on top, since they grow with the length of the text. Everything
smaller (norms, activations, softmax) is left out, as is usual (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
Counted by hand in chapters/07_the_transformer.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from ..models import ModelConfig
from .architectures import Attention, costs_of


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Number of parameters of each part; a tied head has none of its own."""
    return {part.name: part.other + (0 if part.shared else part.matrix) for part in costs_of(config).parts}


def n_parameters(config: ModelConfig) -> int:
    """Number of parameters of the whole model."""
    return sum(parameters_by_part(config).values())


def active_parameters(config: ModelConfig) -> int:
    """Number of parameters that a token meets: of experts, those that it takes, on average with their biases."""
    parts = costs_of(config).parts
    return sum(round(part.used * (part.other + (0 if part.shared else part.matrix))) for part in parts)


def forward_flops(config: ModelConfig, length: int) -> dict[str, float]:
    """Floating-point operations per token, part by part, in a text of `length` tokens, all logits computed.

    An encoder–decoder is counted per target token, with a source as long as the target. A causal position needs
    (length + 1)/2 keys on average, which is what is counted; kernels that compute the hidden half too do twice that.
    """
    found = {part.name: 2.0 * part.matrix * part.used for part in costs_of(config).parts if part.matrix}
    scores = attention_flops(config, length)
    return {**found, "attention scores": scores} if scores else found


def attention_flops(config: ModelConfig, length: int) -> float:
    """Operations per token for QKᵀ and PV: 4 per key and feature, in each head."""
    return sum(4.0 * kind.heads * kind.head_dim * keys_seen(kind, length) for kind in costs_of(config).attention)


def keys_seen(kind: Attention, length: int) -> float:
    """How many keys a position looks at, on average over a text."""
    if not kind.causal:
        return length
    window = min(kind.window or length, length)
    return (window * (window + 1) / 2 + (length - window) * window) / length


def training_flops(config: ModelConfig, length: int) -> float:
    """Operations per token of a training step: for each product of the forward pass, two of the backward pass."""
    forward = sum(2.0 * part.matrix * part.used * part.trained_share for part in costs_of(config).parts)
    return 3 * (forward + attention_flops(config, length))


# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes. What the allocator wastes, and arrays that live only for a moment, are not in it."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments, float32
    activations: int  # what the backward pass needs, with fused norms and attention, without dropout
    attention_weights: int  # in addition, where attention keeps them: "reference", and on NumPy

    @property
    def total(self) -> int:
        """With fused attention."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        rows = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:<18} {in_bytes(n):>14}" for name, n in [*rows, ("total, fused", self.total)])


def in_bytes(n: float) -> str:
    """A number of bytes to read, with three decimals: 12.3 million are "12.300 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n >= size / 10:
            return f"{n / size:,.3f} {unit}"
    return f"{n / 1e3:,.3f} kB"


def duration(hours: float) -> str:
    """A time in the unit that suits it: "3.2 minutes", "2.0 days"."""
    for unit, size in (("years", 365.25 * 24), ("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= size * 1.5:
            return f"{hours / size:,.1f} {unit}"
    return f"{math.ceil(hours * 3600):,} seconds"


def training_memory(
    config: ModelConfig, batch_size: int, length: int, activation_bytes: int = 4, recompute: str = "none"
) -> Memory:
    """Memory to train with float32 weights; `activation_bytes` per value is 2 under autocast to bfloat16. What layers
    compute again (`recompute`, see EngineConfig) is there for one layer at a time."""
    n, costs = n_parameters(config), costs_of(config)
    values, heads = costs.activations, sum(kind.heads for kind in costs.attention)
    if recompute != "none":
        stays = costs.layer_inputs + (costs.products if recompute == "selective" else 0)
        values = stays + math.ceil((costs.activations - stays) / config.n_layers)
        heads = math.ceil(heads / config.n_layers)
    kept = activation_bytes * batch_size * length
    return Memory(4 * n, 4 * n, 8 * n, activations=kept * values, attention_weights=kept * length * heads)


def less_memory(needed: Callable[[str], float], recompute: str, free: float) -> str:
    """A sentence that says which `recompute` would take less memory than this one, the cheapest that fits into what is
    `free`; nothing where none does better. `needed` gives the bytes with each."""
    savers = ("none", "selective", "layers")  # ever less memory, ever more time
    less = [(how, needed(how)) for how in savers[savers.index(recompute) + 1 :] if needed(how) < needed(recompute)]
    if not less:
        return ""
    how, n = next(((how, n) for how, n in less if n <= free), less[-1])
    return f"With engine.recompute={how} (--set) it takes about {in_bytes(n)}, and more time. "


# What a step takes on NumPy beyond what the backward pass needs, as measured by tests/bench/memory.py:
NUMPY_ACTIVATIONS = 1.1  # gradients on their way, and gaps between arrays that were freed
NUMPY_LOGITS = 512  # rows of logits that the fused loss of a thread has at a time
NUMPY_SCORES = 32  # keys more than a causal query sees, on average: queries are taken in blocks
NUMPY_PROCESS = 25_000_000  # what matrix products set aside, and Python's own objects


def numpy_training_bytes(
    config: ModelConfig, batch_size: int, length: int, threads: int = 1, recompute: str = "none"
) -> int:
    """About the most memory that training on NumPy takes, beside what the process had before: from 0.9 to 1.4 times
    what was measured (tests/bench/RESULTS.md). Each thread has gradients of its own, of which most are there when most
    activations are gone."""
    need, tokens = training_memory(config, batch_size, length, recompute=recompute), batch_size * length
    layers = 1 if recompute == "none" else config.n_layers
    scores = sum(k.heads * min(length, keys_seen(k, length) + NUMPY_SCORES) for k in costs_of(config).attention)
    kept = NUMPY_ACTIVATIONS * (need.activations + 4 * tokens * scores / layers)
    logits = 4 * min(tokens, NUMPY_LOGITS * threads) * config.vocab_size
    tables = 2 * 4 * sum(part.matrix for part in costs_of(config).parts if part.name == "head")  # gradients, added up
    standing = need.weights + need.optimizer + logits + tables + NUMPY_PROCESS
    return standing + round(max(kept, threads * need.gradients))


def cache_bytes(config: ModelConfig, batch_size: int, length: int, bytes_per_value: int = 4) -> int:
    """Memory that decoding keeps between steps: keys and values of `length` tokens, an LSTM's state, or nothing."""
    costs = costs_of(config)
    return batch_size * (length * costs.cache_per_token + costs.cache_per_text) * bytes_per_value
