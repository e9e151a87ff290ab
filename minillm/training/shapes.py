"""Shapes of models: one of any kind that is as large as another, and one dial that derives all that a run needs.

The dial is the number of parameters, as nanochat's is the depth. From it follow depth and width, and from the size the
learning rate, the tokens of a step and of the run. The rules are fits through what is known to work: the presets here
for a million parameters, GPT-3's table 2.1 (Brown et al. 2020, arXiv 2005.14165) for 125 million and more.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from ..costs.sizes import n_parameters
from ..models import GPTConfig, ModelConfig, config_class
from .config_file import ConfigError, Sections

SIZES = {"tiny": 300_000, "small": 1_000_000, "medium": 10_000_000, "large": 100_000_000}  # parameters
UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
ENOUGH = 20  # tokens per parameter (Hoffmann et al. 2022, arXiv 2203.15556, table 3)
LSTM_LAYERS = 2  # at most: without residual connections more hardly train (Zaremba's models have two)

Settings = dict[str, Any]


# --- another kind of the same size ------------------------------------------------------------------------------------


def same_size(kind: str, model: ModelConfig, fixed: Settings | None = None) -> Settings:
    """The settings of a model of another `kind` with about as many parameters as `model`, as a [model] section without
    its vocab_size; `fixed`: those that are not to be chosen.

    Width, depth and heads stay, and the width inside the feed-forward network gives way: a Llama's has three matrices
    instead of two. A GPT, whose is four times its own width, has more or fewer layers; an LSTM is as wide as it takes;
    an encoder-decoder, which has two stacks, has each half as deep. Tables are tied, as a GPT's is.
    """
    cls, fixed = config_class(kind), fixed or {}
    known = {field.name for field in fields(cls)}
    given: Any = model
    shape: Settings = {"context": model.context, "n_layers": model.n_layers, "d_model": given.d_model}
    if given.dropout:
        shape["dropout"] = given.dropout
    shape |= {"n_heads": getattr(model, "n_heads", 1), "tie_embeddings": "d_hidden" not in fixed}
    knob, step = ("d_ff", 8) if "d_ff" in known else ("n_layers", 1)
    if kind == "lstm":
        shape["n_layers"], knob, step = min(LSTM_LAYERS, model.n_layers), "d_model", 4
    elif "d_expert" in fixed:  # and so no longer follows from d_ff
        knob, step = "n_layers", 1
    elif kind == "encoder-decoder":
        shape["n_layers"] = max(1, model.n_layers // 2)
    shape = {name: value for name, value in {**shape, **fixed}.items() if name in known}
    if knob not in fixed:
        shape[knob] = step * nearest_count(cls, {**shape, "vocab_size": model.vocab_size}, knob, step, model)
    return shape


def nearest_count(cls: Any, settings: Settings, knob: str, step: int, model: ModelConfig) -> int:
    """How many steps of a setting come nearest to the model's number of parameters, which grows with it."""
    wanted = n_parameters(model)

    def miss(count: int) -> int:
        return n_parameters(cls(**{**settings, knob: step * count})) - wanted

    high = 1
    while miss(high) < 0:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if miss(middle) < 0 else (low, middle)
    return high if low == 0 or miss(high) <= -miss(low) else low


# --- one dial ---------------------------------------------------------------------------------------------------------


def parse_count(text: str) -> int:
    """A number of parameters as people write it.

    >>> parse_count("1M"), parse_count("1.5e6"), parse_count("350k")
    (1000000, 1500000, 350000)
    """
    digits = text.strip().lower().replace("_", "").replace(",", "")
    unit = digits[-1:] if digits[-1:].isalpha() else ""
    try:
        count = float(digits.removesuffix(unit)) * UNITS[unit]
    except (ValueError, KeyError):
        raise ConfigError(f"--parameters takes a number such as 1M, 350k or 124M, not {text!r}.") from None
    if not 1 <= count < 1e13:
        raise ConfigError(f"--parameters {text} must be a number of parameters above 0, such as 1M.")
    return round(count)


def sections_of_size(wanted: int, vocab_size: int, fixed: Settings | None = None) -> Sections:
    """The sections [model] and [train] for a GPT of about `wanted` parameters, its table of `vocab_size` tokens
    included; `fixed`: settings of the model that are given. Raises ConfigError where the table alone is too large."""
    fixed = {name: value for name, value in (fixed or {}).items() if name in GPTConfig.__dataclass_fields__}
    model = shape_of_size(wanted, vocab_size, fixed)
    n = n_parameters(GPTConfig(**{**model, "vocab_size": vocab_size}))
    return {"model": model, "train": training_for(n, model["context"])}


def shape_of_size(wanted: int, vocab_size: int, fixed: Settings) -> Settings:
    """Of the shapes that are about as deep as such models are, the one whose size is nearest.

    Width over depth is 32 at a million parameters and 64 from a hundred million on (GPT-2's smallest), and a head has
    as many features.
    """
    scale = min(1.0, max(0.0, math.log10(wanted / 1e6) / 2))
    head = 32 if wanted < 20_000_000 else 64
    context = fixed.get("context", 128 if wanted < 4e6 else 256 if wanted < 20e6 else 512 if wanted < 60e6 else 1024)
    found: list[tuple[float, Settings]] = []
    smallest = math.inf
    for n_heads in [fixed["n_heads"]] if "n_heads" in fixed else range(1, 257):
        d_model = fixed.get("d_model", n_heads * head)
        for n_layers in [fixed["n_layers"]] if "n_layers" in fixed else range(1, 161):
            if d_model % n_heads:
                continue
            shape = {"context": context, "n_layers": n_layers, "n_heads": n_heads, "d_model": d_model}
            n = n_parameters(GPTConfig(**shape, vocab_size=vocab_size))
            smallest = min(smallest, n)
            off = abs(math.log(n / wanted))
            slender = abs(math.log(d_model / n_layers / (32 * 2**scale)))
            found.append((off + 0.1 * slender + (10 if off > 0.2 else 0), shape))
            if n > 2 * wanted:
                break
    if not found or smallest > 1.3 * wanted:
        raise ConfigError(
            f"no model of {wanted:,} parameters has a vocabulary of {vocab_size:,} tokens: the smallest has "
            f"{smallest:,.0f}. Ask for more, or train a smaller tokenizer."
        )
    return min(found, key=lambda one: one[0])[1]


def training_for(n: int, context: int) -> Settings:
    """[train] for a model of `n` parameters: the learning rate falls with the size, the tokens of a step grow."""
    tokens = min(524_288, max(1024, 1024 * (n / 1e6) ** 1.3))  # 1,024 at 1M, half a million at 124M, as GPT-3's
    rows = 2 ** round(math.log2(max(1.0, tokens / context)))
    batch_size = min(rows, 32)
    steps = max(200, math.ceil(ENOUGH * n / (rows * context)))
    every = max(50, min(500, steps // 10))
    return {
        "max_steps": steps,
        "batch_size": batch_size,
        "grad_accumulation": rows // batch_size,
        "lr": learning_rate(n),
        "warmup_steps": min(700, max(10, steps // 20)),
        "beta2": 0.99 if n < 20_000_000 else 0.95,  # small steps are noisier
        "eval_every": every,
        "eval_tokens": 30_000 if n < 20_000_000 else 1_000_000,
        "save_every": every,
    }


def learning_rate(n: int) -> float:
    """6e-4 at 124 million parameters and less for more, as GPT-3's; 4e-3 at a million, where the presets have it."""
    exact = min(4e-3, 6e-4 * (124e6 / n) ** 0.4)
    return float(f"{exact:.1e}")
