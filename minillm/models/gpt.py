"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): a stack of blocks, each
attention and then a feed-forward network, each behind a layer norm and added to what flows past.

    ids (B, T) → token + position embedding (B, T, D) → n_layers × Block → layer norm → logits (B, T, V)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import ATTENTION
from .checks import check_choice, check_dropout, check_heads, check_ids, check_positive, check_whole
from .segments import packed_positions


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. Defaults are GPT-2's smallest model, 124M parameters."""

    model_type: ClassVar[str] = "gpt"
    task: ClassVar[str] = "causal"  # to predict the next token

    vocab_size: int = 50257
    context: int = 1024  # longest sequence, in tokens
    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768  # features of the residual stream
    dropout: float = 0.0  # GPT-2 was trained with 0.1
    attention: str = "auto"  # "auto", "reference", "sdpa" or "triton": see ops.attention
    attention_dropout: float | None = None  # of the attention weights; None: dropout
    embedding_dropout: float | None = None  # of the embeddings' sum; None: dropout
    d_ff: int = 0  # features inside the feed-forward network; 0: 4 · d_model
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "context", "n_layers", "n_heads", "d_model", "ff_features")
        check_heads(self)
        check_dropout(self)
        check_positive(self, "norm_eps")
        check_choice(self, "attention", ATTENTION)

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def ff_features(self) -> int:
        return self.d_ff or 4 * self.d_model


class CausalSelfAttention(nn.Module):
    """Every position gathers from itself and the positions before it, in n_heads independent ways."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator) -> None:
        d_model = config.d_model
        self.n_heads = config.n_heads
        self.layer = layer  # which of the cache's buffers are ours
        self.qkv = nn.Linear(d_model, 3 * d_model, rng=rng)  # query, key and value of every head in one product
        self.proj = nn.Linear(d_model, d_model, std=residual_std(config), rng=rng)
        self.dropout_p = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.resid_dropout = nn.Dropout(config.dropout, rng)
        self.impl = config.attention
        self.rng = rng

    def forward(self, x: AnyTensor, cache: nn.KVCache | None = None, segments: Any = None) -> AnyTensor:
        B, T, D = x.shape
        q, k, v = self.heads(x)  # each (B, H, T, D/H)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, H, past + T, D/H)
        dropout_p = self.dropout_p if self.training else 0.0
        mask = None if cache is None else cache.mask
        how: dict[str, Any] = {"dropout_p": dropout_p, "rng": self.rng, "impl": self.impl}
        out = ops.attention(q, k, v, causal=mask is None, mask=mask, segments=segments, **how)  # (B, H, T, D/H)
        out = out.transpose(1, 2).reshape(B, T, D)  # heads side by side again
        return self.resid_dropout(self.proj(out))

    def heads(self, x: AnyTensor) -> tuple[AnyTensor, AnyTensor, AnyTensor]:
        """Queries, keys and values (B, H, T, D/H) for x (B, T, D)."""
        B, T, D = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.n_heads, D // self.n_heads)
        qkv = qkv.transpose(1, 3)  # (B, H, 3, T, D/H)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class MLP(nn.Module):
    """The feed-forward network: four times wider inside in GPT-2, applied to each position alone."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator) -> None:
        self.fc = nn.Linear(config.d_model, config.ff_features, rng=rng)
        self.proj = nn.Linear(config.ff_features, config.d_model, std=residual_std(config), rng=rng)
        self.dropout = nn.Dropout(config.dropout, rng)

    def forward(self, x: AnyTensor) -> AnyTensor:
        h = ops.gelu(self.fc(x), approximate="tanh")  # (B, T, F), 4D wide in GPT-2
        return self.dropout(self.proj(h))  # (B, T, D)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the norm stands before ("pre-norm"), the sum is left alone."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator) -> None:
        self.norm_1 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.attn = CausalSelfAttention(config, layer, rng)
        self.norm_2 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.mlp = MLP(config, rng)

    def forward(self, x: AnyTensor, cache: nn.KVCache | None = None, segments: Any = None) -> AnyTensor:
        x = x + self.attn(self.norm_1(x), cache, segments=segments)
        x = x + self.mlp(self.norm_2(x))
        return x


class GPT(nn.Module):
    """A decoder-only language model. `rng` draws the initial weights and, while training, dropout."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, rng=rng)  # tokens
        self.position_embedding = nn.Embedding(config.context, config.d_model, std=0.01, rng=rng)  # positions
        self.dropout = nn.Dropout(config.dropout if config.embedding_dropout is None else config.embedding_dropout, rng)
        self.blocks = [Block(config, layer, rng) for layer in range(config.n_layers)]
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    def forward(
        self,
        ids: Any,
        targets: Any = None,
        *,
        cache: nn.KVCache | None = None,
        segments: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> AnyTensor:
        """ids (B, T) integers -> logits (B, T, V); with targets (B, T), −100 = ignored, the cross-entropy as a scalar.

        With a cache, ids are the tokens after those that the cache holds already. With `segments` (B, T), a row holds
        several texts, each a stretch of equal numbers, and each has the features that it has alone (see segments.py).
        """
        h = self.hidden(ids, cache, segments)  # (B, T, D)
        if targets is None:
            return self.logits(h)
        return self.loss(h, targets, reduction=reduction, label_smoothing=label_smoothing)

    def hidden(self, ids: Any, cache: nn.KVCache | None = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D): what the head turns into logits."""
        past = 0 if cache is None else cache.length
        T = check_ids(self, ids, past=past)
        places = packed_positions(self, ids, segments, cache)  # (B, T), None: one behind the other
        if places is None:
            positions = self.position_embedding.weight[past : past + T]  # (T, D)
        else:
            positions = self.position_embedding(places)  # (B, T, D)
        x = self.dropout(self.token_embedding(ids) + positions)  # (B, T, D)
        for block in self.blocks:
            x = block(x, cache, segments)
        return self.norm(x)

    def logits(self, h: AnyTensor) -> AnyTensor:
        """Features (..., D) -> logits (..., V). The head is the token table again ("tied"): no weights of its own."""
        return ops.linear(h, self.token_embedding.weight)

    def loss(self, h: AnyTensor, targets: Any, *, reduction: str = "mean", label_smoothing: float = 0.0) -> AnyTensor:
        """The cross-entropy as a scalar, from features (B, T, D) and targets (B, T), −100 = ignored."""
        weight = self.token_embedding.weight
        return ops.linear_cross_entropy(h, weight, targets, reduction=reduction, label_smoothing=label_smoothing)

    def new_cache(self, capacity: int | None = None) -> nn.KVCache:
        """An empty cache for decoding up to `capacity` positions (the whole context by default)."""
        return nn.KVCache(self.config.n_layers, capacity or self.config.context)


def residual_std(config: GPTConfig) -> float:
    """Two projections per block write to the residual stream; with each scaled by 1/√(2 n_layers), its variance does
    not grow with depth (GPT-2, section 2.3; measured in chapters/07_the_transformer.ipynb)."""
    return 0.02 / math.sqrt(2 * config.n_layers)
