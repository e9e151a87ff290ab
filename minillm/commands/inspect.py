"""`minillm inspect`: what a checkpoint is and what it costs, from its headers alone, before anything is run."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict

from ..costs import sizes
from ..costs.cards import Card, find_card
from ..costs.scaling import CHINCHILLA
from ..costs.sizes import duration, in_bytes, n_parameters
from ..hub.checkpoint import Checkpoint, open_checkpoint
from ..models import ModelConfig
from .options import add_option, keywords, whole
from .table import table

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
TOKENS_PER_PARAMETER = 20  # compute-optimal pretraining, Hoffmann et al. 2022, arXiv 2203.15556, table 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    add_option(parser, inspect, "batch_size", "texts at a time", type=whole(1))
    add_option(parser, inspect, "context", "tokens of each; 0: the model's context", type=whole(0))
    card = "a graphics card, such as h100 or 'RTX 4090': time and cost there"
    add_option(parser, inspect, "card", card, metavar="NAME")
    add_option(parser, inspect, "mfu", "share of the card's peak that training reaches")
    add_option(parser, inspect, "tokens", "tokens to train on; default: 20 per parameter")
    add_option(parser, inspect, "price", "dollars per hour of the card")


def run(arguments: argparse.Namespace) -> int:
    print(inspect(**keywords(inspect, arguments)))
    return 0


def inspect(
    model: str,
    *,
    batch_size: int = 8,
    context: int = 0,
    card: str | None = None,
    mfu: float = 0.4,
    tokens: float | None = None,
    price: float | None = None,
) -> str:
    """The report on a checkpoint, a folder or a name on the hub, as text.

    `batch_size` texts of `context` tokens (0: the model's context) decide the memory of activations and cache.
    With a `card`: the time to train on `tokens` tokens (20 per parameter by default) where a share `mfu` of the card's
    peak is reached, its cost at `price` dollars per hour, for a causal model what Chinchilla's law would spend the same
    operations on (costs/scaling.py), and how fast it could decode at best. Raises what reading the folder raises.
    """
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    length = context or config.context
    if not 1 <= length <= config.context:
        raise ValueError(f"context = {length} must be from 1 to the model's, {config.context}.")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1.")
    if card is None and (tokens is not None or price is not None):
        raise ValueError(
            "tokens and price are of training on a card: without a card there is no time or cost. Name one."
        )
    sections = [about(checkpoint), parameters(config), memory(config, checkpoint.dtype, batch_size, length)]
    sections.append(operations(config, length))
    if card is not None:
        name, found = find_card(card)
        time = training_time(config, length, name, found, mfu, tokens, price)
        sections.append(time + fit(config, batch_size, length, found))
        sections.append(decoding_speed(config, checkpoint.dtype, batch_size, length, name, found))
    return "\n\n".join(section for section in sections if section)


def about(checkpoint: Checkpoint) -> str:
    """Architecture, shape and files."""
    files = {file for tensor in checkpoint.stored.values() for file in tensor.files}
    size = sum(file.stat().st_size for file in files)
    kind = "minillm's own format" if checkpoint.native else "Hugging Face's format"
    names = checkpoint.values.get("architectures") or [type(checkpoint.config).__name__.removesuffix("Config")]
    settings = asdict(checkpoint.config)
    settings = {**settings.pop("decoder", {}), **settings}  # a classifier's
    shape = {k: v for k, v in settings.items() if v is not None and k != "attention"}
    in_files = f"{len(files)} {'file' if len(files) == 1 else 'files'}"
    return (
        f"{checkpoint.folder}: {names[0]} ({checkpoint.values.get('model_type')}), {kind}\n"
        f"{len(checkpoint.stored)} tensors, {checkpoint.dtype}, {size / 1e6:,.1f} MB in {in_files}\n"
        + ", ".join(f"{key} {value}" for key, value in shape.items())
    )


def parameters(config: ModelConfig) -> str:
    total = n_parameters(config)
    rows = [(name, f"{n:,}", f"{n / total:.1%}") for name, n in sizes.parameters_by_part(config).items() if n]
    rows.append(("total", f"{total:,}", ""))
    if (active := sizes.active_parameters(config)) < total:
        rows.append(("active for each token", f"{active:,}", f"{active / total:.1%}"))
    return table("parameters", rows)


def memory(config: ModelConfig, dtype: str, batch_size: int, length: int) -> str:
    """Training in float32 and under autocast to bfloat16; and running it in the dtype that it is stored in."""
    full = sizes.training_memory(config, batch_size, length)
    mixed = sizes.training_memory(config, batch_size, length, activation_bytes=2)
    names = {name: name for name in ("weights", "gradients", "optimizer", "activations", "total")}
    names["attention_weights"] = "more without fused attention"
    rows = [(text, in_bytes(getattr(full, name)), in_bytes(getattr(mixed, name))) for name, text in names.items()]
    title = f"memory to train, batch {batch_size} × {length} tokens"
    text = table(title, rows, ("float32", "bf16 autocast"))
    weights = n_parameters(config) * BYTES[dtype]
    cache = sizes.cache_bytes(config, batch_size, length, BYTES[dtype])
    running = [("weights", in_bytes(weights)), ("cache", in_bytes(cache)), ("total", in_bytes(weights + cache))]
    return text + "\n\n" + table(f"memory to run in {dtype}, batch {batch_size} × {length} tokens", running)


def operations(config: ModelConfig, length: int) -> str:
    """Floating-point operations per token, in millions."""
    forward = sizes.forward_flops(config, length)
    rows = [(name, millions(n)) for name, n in forward.items()]
    rows.append(("forward", millions(sum(forward.values()))))
    rows.append(("training step", millions(sizes.training_flops(config, length))))
    return table(f"million operations per token, in a text of {length}", rows)


def training_time(
    config: ModelConfig, length: int, name: str, card: Card, mfu: float, tokens: float | None, price: float | None
) -> str:
    """Operations divided by what the card does per second, at a share `mfu` ("model FLOPs utilization") of its peak."""
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu = {mfu} must be above 0 and at most 1: a share of the card's peak.")
    if tokens is not None and not 0 < tokens < math.inf:
        raise ValueError(f"tokens = {tokens} must be a number above 0.")
    if price is not None and not 0 <= price < math.inf:
        raise ValueError(f"price = {price} must be a number of dollars per hour, 0 or more.")
    n_tokens = tokens or TOKENS_PER_PARAMETER * n_parameters(config)
    per_second = card.flops * mfu / sizes.training_flops(config, length)
    hours = n_tokens / per_second / 3600
    rows = [("tokens", f"{n_tokens:,.0f}"), ("tokens per second", f"{per_second:,.0f}"), ("time", duration(hours))]
    rows.append(("cost", f"${hours * price:,.2f}" if price is not None else "give --price, dollars per hour"))
    if config.task == "causal":
        best = CHINCHILLA.optimum(n_tokens * sizes.training_flops(config, length))
        rows += [(f"Chinchilla's {what}", f"{x:,.0f}") for what, x in zip(("parameters", "tokens"), best)]
    return table(f"training on one {name} ({card.flops / 1e12:,.0f} TFLOP/s peak, {mfu:.0%} of it reached)", rows)


def fit(config: ModelConfig, batch_size: int, length: int, card: Card) -> str:
    """Whether training fits into the card's memory, and what would make it fit."""

    def needed(recompute: str) -> int:
        return sizes.training_memory(config, batch_size, length, activation_bytes=2, recompute=recompute).total

    free = card.memory_gb * 1e9
    answer = "fits"
    if needed("none") > free:
        answer = f"does not fit. {sizes.less_memory(needed, 'none', free)}A smaller batch takes less, too."
    return f"\n  {in_bytes(needed('none'))} of {card.memory_gb:g} GB under bf16 autocast: {answer}"


def decoding_speed(config: ModelConfig, dtype: str, batch_size: int, length: int, name: str, card: Card) -> str:
    """The bound that memory sets: for each new token of the batch, all weights and the cache are read once."""
    if config.task not in ("causal", "seq2seq"):
        return ""
    size = n_parameters(config) * BYTES[dtype] + sizes.cache_bytes(config, batch_size, length, BYTES[dtype])
    if size > card.memory_gb * 1e9:
        return f"decoding on one {name}: {in_bytes(size)} do not fit into its {card.memory_gb:g} GB"
    per_second = batch_size * card.bandwidth_gb * 1e9 / size
    rows = [("tokens per second, at most", f"{per_second:,.0f}"), ("each text", f"{per_second / batch_size:,.0f}")]
    return table(f"decoding on one {name} ({card.bandwidth_gb:,.0f} GB/s), {batch_size} texts, {dtype}", rows)


# --- text -------------------------------------------------------------------------------------------------------------


def millions(n: float) -> str:
    return f"{n / 1e6:,.3f}"
