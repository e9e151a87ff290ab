"""More rows, or fewer, in a model's token tables, in place."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..assistant.vocabulary import with_rows
from ..tensor import Parameter, Tensor

TABLES = ("token_embedding", "source_embedding", "target_embedding", "head")  # layers whose weight is (V, D)


def embeddings(model: Any) -> tuple[Any, Any]:
    """The layer that turns ids into vectors, and that whose weight (V, D) gives logits: the same one if tied."""
    inner: Any = getattr(model, "decoder", None)
    body = inner if hasattr(inner, "token_embedding") else model  # a classifier's decoder
    table = getattr(body, "token_embedding", None) or body.source_embedding
    return table, getattr(body, "head", None) or table


def resize(model: Any, n: int, seed: int) -> None:
    """Rows for n ids: those of new ids drawn about the mean of the others, as new chat tokens' are.

    Raises ValueError for a number below 1, and for a model whose source and target have vocabularies of their own.
    """
    old = int(model.config.vocab_size)
    if n < 1:
        raise ValueError(f"resize_token_embeddings: {n} ids: a vocabulary has at least 1.")
    if getattr(model.config, "source_vocab_size", None) not in (None, old):
        raise ValueError("resize_token_embeddings: this model's source and target have vocabularies of their own.")
    if n == old:
        return
    rng = np.random.default_rng(seed)
    done = set()
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in TABLES and id(module) not in done:
            done.add(id(module))
            module.weight = resized(module.weight, n, rng)
        elif name == "mlm":
            module.bias = resized(module.bias, n, rng)
        elif getattr(module, "logits_bias", None) is not None:
            module.logits_bias = with_columns(module.logits_bias, n)
    for _, module in model.named_modules():
        config = getattr(module, "config", None)
        if config is not None:
            module.config = with_vocabulary(config, n)


def with_vocabulary(config: Any, n: int) -> Any:
    """The config for n ids; that of a classifier's decoder is inside it."""
    if hasattr(config, "decoder"):
        return dataclasses.replace(config, decoder=with_vocabulary(config.decoder, n))
    source = {"source_vocab_size": n} if getattr(config, "source_vocab_size", None) is not None else {}
    return dataclasses.replace(config, vocab_size=n, **source)


def resized(parameter: Any, n: int, rng: np.random.Generator) -> Any:
    """A parameter of n rows, of either engine: the first of the old ones, and, if they don't suffice, new ones."""
    on_numpy = isinstance(parameter, Tensor)
    if not on_numpy:
        from ..port import array_of
    old = parameter.data if on_numpy else array_of(parameter)  # (V, D) or (V,)
    rows = old.reshape(len(old), -1)
    drawn = with_rows(rows, len(rows), n, rng) if n > len(rows) else rows[:n]
    new = np.ascontiguousarray(drawn.reshape(n, *old.shape[1:]))
    if on_numpy:
        return Parameter(new, requires_grad=parameter.requires_grad)
    values = parameter.new_empty(new.shape)
    values.copy_(values.new_tensor(new))
    return type(parameter)(values, requires_grad=parameter.requires_grad)


def with_columns(bias: Any, n: int) -> Any:
    """Constants (1, V) for n ids, of either engine: 0 for new ones."""
    kept = min(n, bias.shape[1])
    if isinstance(bias, Tensor):
        values = np.zeros((1, n), bias.dtype)
        values[:, :kept] = bias.data[:, :kept]
        return Parameter(values, requires_grad=bias.requires_grad)
    new = bias.new_zeros(1, n)
    new[:, :kept] = bias.detach()[:, :kept]
    return type(bias)(new, requires_grad=bias.requires_grad)
