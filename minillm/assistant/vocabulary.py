"""The tokens that a base model lacks: who speaks, and where a turn ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..models import model_from_config
from ..tokenizers import Tokenizer
from ..tokenizers.extend import with_special_tokens
from .conversations import CHATML_TOKENS

T = TypeVar("T", bound=Tokenizer)

SPREAD = 1e-5  # variance of a new row, as a part of the old rows'
TABLES = ("token_embedding.weight", "head.weight")  # (V, D)


def with_chat_tokens(model: Any, tokenizer: T, texts: Sequence[str] = CHATML_TOKENS, *, seed: int = 0) -> tuple[Any, T]:
    """A NumPy model and its tokenizer with the special tokens `texts`; both are as they were where none is missing.

    The rows of new tokens, in the token table and in an output layer of its own, are the mean of the old ones, with a
    little noise (`seed`) that tells them apart. The logit of a new token is then the mean of the n old ones, and since
    exp is convex, its probability at most the mean of theirs: all that the model knew to expect stays (Hewitt 2021,
    "Initializing new word embeddings for pretrained language models"). A model with more rows than its tokenizer has
    tokens keeps its size while they last. Raises ValueError for a model that does not continue texts.
    """
    extended = with_special_tokens(tokenizer, texts)
    n_old, n_new = tokenizer.vocab_size, extended.vocab_size
    config = model.config
    if config.task != "causal":
        raise ValueError(f"a {config.model_type} for {config.task!r} holds no conversation: take a gpt, llama or lstm.")
    if n_old > config.vocab_size:
        raise ValueError(f"the tokenizer has {n_old:,} tokens and the model {config.vocab_size:,}: they don't belong.")
    if n_new == n_old:
        return model, tokenizer
    new = model_from_config(replace(config, vocab_size=max(config.vocab_size, n_new)), np.random.default_rng(seed))
    new.rng.bit_generator.state = model.rng.bit_generator.state
    rng = np.random.default_rng(seed)
    state = dict(model.state_dict())
    for name in TABLES:
        if name in state:
            state[name] = with_rows(state[name], n_old, n_new, rng)
    new.load_state_dict(state)
    return new, extended


def with_rows(table: np.ndarray, n_old: int, n_new: int, rng: np.random.Generator) -> np.ndarray:
    """(V, D) with the rows from n_old to n_new drawn about the mean of the n_old before them; V grows if need be."""
    old = table[:n_old].astype(np.float64)
    mean, std = old.mean(axis=0), old.std(axis=0)  # (D,)
    drawn = mean + rng.normal(size=(n_new - n_old, table.shape[1])) * std * SPREAD**0.5
    return np.concatenate([table[:n_old], drawn.astype(table.dtype), table[n_new:]])
