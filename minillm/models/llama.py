"""Llama (Touvron et al. 2023, arXiv 2307.09288) and its relatives Mistral, Qwen2 and Qwen3: GPT with four parts
exchanged.

RMS norm for layer norm; rotary positions, turned into queries and keys, for an added table; SwiGLU for GELU in the
feed-forward network; and fewer key/value heads than query heads, which shrinks the cache. Each of the four is derived
and measured by itself in chapters/07_the_transformer.ipynb. Qwen2 (arXiv 2407.10671) adds biases to queries, keys and
values (`qkv_bias`), Qwen3 (arXiv 2505.09388) a norm on each head's queries and keys (`qk_norm`). Mistral (arXiv
2310.06825) lets each token see a `window` of the last keys only; through the layers below, what lies further back still
reaches it. With `attention_sinks`, as in gpt-oss, each head has a score that takes part in the softmax and has no
value, so that it may look at nothing (see ops.attention).

    ids (B, T) → token embedding (B, T, D) → n_layers × Block → RMS norm → logits (B, T, V)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import ATTENTION
from .attention import MultiHeadAttention
from .causal import CausalLM
from .checks import check_choice, check_dropout, check_ids, check_positive, check_whole, check_window
from .rope import check_rope_scaling, rope_rows, rope_tables, table_length
from .segments import packed_positions


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama. Defaults are Llama 2 with 7B parameters."""

    model_type: ClassVar[str] = "llama"
    task: ClassVar[str] = "causal"

    vocab_size: int = 32000
    context: int = 4096  # longest sequence, in tokens
    n_layers: int = 32
    n_heads: int = 32  # query heads
    n_kv_heads: int = 0  # key/value heads, shared by groups of query heads; 0: n_heads, filled in at once
    d_model: int = 4096  # features of the residual stream
    head_dim: int = 0  # features per head; 0: d_model / n_heads, filled in at once
    d_ff: int = 11008  # features inside the feed-forward network
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0  # the base of the rotary frequencies
    rope_scaling: dict[str, Any] | None = None  # see rope.py: {"rope_type": "llama3", "factor": 8.0, ...}
    qkv_bias: bool = False  # Qwen2: True
    out_bias: bool = False  # on the projection after attention
    qk_norm: bool = False  # Qwen3: True
    tie_embeddings: bool = False  # the output layer is the token table again
    dropout: float = 0.0
    attention: str = "auto"  # "auto", "reference", "sdpa" or "triton": see ops.attention
    attention_dropout: float | None = None  # of the attention weights; None: dropout
    mlp_bias: bool = False  # in the feed-forward network
    window: int = 0  # how many keys a token sees, its own the last; 0: all
    full_layers: tuple[int, ...] | list[int] = ()  # numbers of layers that see all keys beside others with a window
    attention_sinks: bool = False  # gpt-oss: True

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "context", "n_layers", "n_heads", "d_model", "d_ff")
        if not self.head_dim and self.d_model % self.n_heads:
            raise ValueError(
                f"{type(self).__name__}: d_model = {self.d_model} must be divisible by n_heads = {self.n_heads}, or "
                "head_dim must be given."
            )
        object.__setattr__(self, "head_dim", self.head_dim or self.d_model // self.n_heads)
        object.__setattr__(self, "n_kv_heads", self.n_kv_heads or self.n_heads)
        check_whole(self, "n_kv_heads", "head_dim")
        check_positive(self, "norm_eps", "rope_theta")
        check_dropout(self)
        check_window(self)
        check_choice(self, "attention", ATTENTION)
        if self.head_dim % 2:
            raise ValueError(
                f"{type(self).__name__}: head_dim = {self.head_dim} must be even: rotary positions turn pairs."
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"{type(self).__name__}: n_heads = {self.n_heads} must be divisible by n_kv_heads = {self.n_kv_heads}: "
                "each key/value head serves an equal group."
            )
        if self.rope_scaling is not None:
            check_rope_scaling(self.rope_scaling, self.head_dim, self.rope_theta)


class MLP(nn.Module):
    """The feed-forward network with a gate: one projection decides how much of the other passes."""

    def __init__(self, config: LlamaConfig, out_std: float, rng: np.random.Generator) -> None:
        bias = config.mlp_bias
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=bias, rng=rng)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=bias, rng=rng)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=bias, std=out_std, rng=rng)

    def forward(self, x: AnyTensor) -> AnyTensor:
        return self.down(ops.swiglu(self.gate(x), self.up(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), as in GPT."""

    def __init__(self, config: LlamaConfig, layer: int, rng: np.random.Generator) -> None:
        out_std = 0.02 / math.sqrt(2 * config.n_layers)  # as in GPT-2: depth must not make the stream's variance grow
        self.norm_1 = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attn = MultiHeadAttention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
            causal=True,
            window=None if layer in config.full_layers else config.window or None,
            sinks=config.attention_sinks,
            dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
            impl=config.attention,
            layer=layer,
            out_std=out_std,
            rng=rng,
        )
        self.norm_2 = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = self.feed_forward(config, layer, out_std, rng)
        self.dropout = nn.Dropout(config.dropout, rng)

    def feed_forward(self, config: Any, layer: int, out_std: float, rng: np.random.Generator) -> nn.Module:
        return MLP(config, out_std, rng)

    def forward(
        self, x: AnyTensor, rope: tuple[Any, Any], cache: nn.KVCache | None = None, segments: Any = None
    ) -> AnyTensor:
        x = x + self.dropout(self.attn(self.norm_1(x), rope=rope, cache=cache, segments=segments))
        x = x + self.dropout(self.mlp(self.norm_2(x)))
        return x


class Llama(CausalLM):
    """A decoder-only language model. `rng` draws the initial weights and, while training, dropout."""

    block: type[Block] = Block

    def __init__(self, config: LlamaConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, rng=rng)
        self.blocks = [self.block(config, layer, rng) for layer in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False, rng=rng)
        self.make_rope(np.float32)

    def hidden(self, ids: Any, cache: nn.KVCache | None = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D): what the head turns into logits."""
        x, rope = self.start(ids, cache, segments)
        for block in self.blocks:
            x = block(x, rope, cache, segments)
        return self.norm(x)

    def start(self, ids: Any, cache: nn.KVCache | None, segments: Any) -> tuple[AnyTensor, tuple[Any, Any]]:
        """What the first block gets: the embeddings (B, T, D), and the cosines and sines of their positions."""
        past = 0 if cache is None else cache.length
        length = past + check_ids(self, ids, past=past)
        places = packed_positions(self, ids, segments, cache)  # (B, T), None: one behind the other
        if places is None:
            rope = self.rope(past, length)  # (T, head_dim/2) each
        else:
            rope = self.packed_rope(self.rope(0, length), places)  # (B, 1, T, head_dim/2) each
        return self.token_embedding(ids), rope

    def make_rope(self, dtype: Any) -> None:
        """Fill the tables of cosines and sines (positions, head_dim/2), computed in float64 and kept in `dtype`."""
        config = self.config
        length, theta, scaling = table_length(config), config.rope_theta, config.rope_scaling
        self.cos, self.sin = rope_tables(length, config.head_dim, theta, scaling, dtype)

    def rope(self, start: int, end: int) -> tuple[Any, Any]:
        """Cosines and sines (end − start, head_dim/2) for the last positions of a sequence of `end`.

        Those beyond the table are made here. Dynamic scaling has other angles for each length beyond the original one.
        What a cache holds was computed with the angles of its time, so that beyond the original length cached decoding
        is not the same as uncached (in transformers neither).
        """
        config = self.config
        return rope_rows(self.cos, self.sin, start, end, config.head_dim, config.rope_theta, config.rope_scaling)

    def packed_rope(self, rope: tuple[Any, Any], positions: Any) -> tuple[Any, Any]:
        """Cosines and sines (B, 1, T, head_dim/2) of positions (B, T), taken from the tables `rope` of 0, 1, 2, ..."""
        scaling, length = self.config.rope_scaling, positions.shape[1]
        if scaling is not None and scaling["rope_type"] == "dynamic" and length > len(self.cos):
            raise ValueError(
                f"{type(self).__name__}: rows of {length} tokens cannot hold several texts: the angles of a 'dynamic' "
                f"rope_scaling depend on a text's length beyond {len(self.cos)}. Pack rows of at most {len(self.cos)} "
                "tokens."
            )
        cos, sin = rope
        return cos[positions][:, None], sin[positions][:, None]
