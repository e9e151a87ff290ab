"""Gemma 3 (Gemma Team 2025, arXiv 2503.19786), its text part: a Llama most of whose layers see near keys only.

Five of six layers have a `window`, and angles with a base of their own, which tell near positions apart; the others
see everything. The sum of what a layer adds is normed too, before it joins the stream, and a norm's gain is 1 + w, so
that decay of w draws it to 1. GELU gates the feed-forward network, and the embeddings are scaled by √D.

    ids (B, T) → √D · token embedding (B, T, D) → n_layers × Block → RMS norm → logits (B, T, V)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import ATTENTION
from ..tensor import Parameter
from .attention import MultiHeadAttention
from .causal import CausalLM
from .checks import check_choice, check_dropout, check_ids, check_positive, check_whole, check_window
from .rope import check_rope_scaling, rope_rows, rope_tables, table_length
from .segments import packed_positions


@dataclass(frozen=True)
class GemmaConfig:
    """The shape of a Gemma 3. Defaults are those of its smallest, 270M parameters."""

    model_type: ClassVar[str] = "gemma"
    task: ClassVar[str] = "causal"

    vocab_size: int = 262144
    context: int = 32768  # longest sequence, in tokens
    n_layers: int = 18
    n_heads: int = 4  # query heads
    n_kv_heads: int = 1  # key/value heads, shared by groups of query heads
    d_model: int = 640  # features of the residual stream
    head_dim: int = 256  # features per head
    d_ff: int = 2048  # features inside the feed-forward network
    norm_eps: float = 1e-6
    query_scalar: int = 256  # scores are divided by its root
    window: int = 512  # how many keys a token sees in a layer with a window, its own the last
    full_layers: tuple[int, ...] | list[int] = (5, 11, 17)  # numbers of the layers that see all keys
    rope_theta: float = 1e6  # the base of the rotary frequencies in these layers
    rope_scaling: dict[str, Any] | None = None  # there, see rope.py: {"rope_type": "linear", "factor": 8.0}
    local_rope_theta: float = 1e4  # the base in layers with a window
    attention_bias: bool = False
    tie_embeddings: bool = True  # the output layer is the token table again
    dropout: float = 0.0
    attention_dropout: float | None = None  # of the attention weights; None: dropout
    attention: str = "auto"  # "auto", "reference", "sdpa" or "triton": see ops.attention

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "context", "n_layers", "n_heads", "n_kv_heads", "d_model", "head_dim", "d_ff")
        check_whole(self, "query_scalar", "window")
        check_window(self)
        check_positive(self, "norm_eps", "rope_theta", "local_rope_theta")
        check_dropout(self)
        check_choice(self, "attention", ATTENTION)
        if self.head_dim % 2 or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"GemmaConfig: head_dim = {self.head_dim} must be even, and n_heads = {self.n_heads} divisible by "
                f"n_kv_heads = {self.n_kv_heads}."
            )
        if self.rope_scaling is not None:
            check_rope_scaling(self.rope_scaling, self.head_dim, self.rope_theta)


class Norm(nn.Module):
    """An RMS norm with a gain of 1 + w."""

    def __init__(self, d_model: int, eps: float) -> None:
        self.weight = Parameter(np.zeros(d_model, dtype=np.float32))
        self.eps = eps

    def forward(self, x: AnyTensor) -> AnyTensor:
        return ops.rms_norm(x, self.weight + 1.0, self.eps)


class MLP(nn.Module):
    """The feed-forward network with a gate, as Llama's, with GELU in place of SiLU."""

    def __init__(self, config: GemmaConfig, out_std: float, rng: np.random.Generator) -> None:
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False, rng=rng)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False, rng=rng)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False, std=out_std, rng=rng)

    def forward(self, x: AnyTensor) -> AnyTensor:
        return self.down(ops.gelu(self.gate(x), approximate="tanh") * self.up(x))


class Block(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))): what is added is normed as well."""

    def __init__(self, config: GemmaConfig, layer: int, rng: np.random.Generator) -> None:
        out_std = 0.02 / math.sqrt(2 * config.n_layers)
        self.is_local = layer not in config.full_layers
        self.norm_1 = Norm(config.d_model, config.norm_eps)
        self.attn = MultiHeadAttention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            causal=True,
            window=config.window if self.is_local else None,
            scale=config.query_scalar**-0.5,
            dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
            impl=config.attention,
            layer=layer,
            out_std=out_std,
            rng=rng,
        )
        self.attn.q_norm, self.attn.k_norm = [Norm(config.head_dim, config.norm_eps) for _ in range(2)]
        self.attn_norm = Norm(config.d_model, config.norm_eps)
        self.norm_2 = Norm(config.d_model, config.norm_eps)
        self.mlp = MLP(config, out_std, rng)
        self.mlp_norm = Norm(config.d_model, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout, rng)

    def forward(self, x: AnyTensor, ropes: tuple[Any, Any], cache: Any = None, segments: Any = None) -> AnyTensor:
        rope = ropes[self.is_local]
        x = x + self.dropout(self.attn_norm(self.attn(self.norm_1(x), rope=rope, cache=cache, segments=segments)))
        x = x + self.dropout(self.mlp_norm(self.mlp(self.norm_2(x))))
        return x


class Gemma(CausalLM):
    """A decoder-only language model. `rng` draws the initial weights and, while training, dropout."""

    def __init__(self, config: GemmaConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, rng=rng)
        self.blocks = [Block(config, layer, rng) for layer in range(config.n_layers)]
        self.norm = Norm(config.d_model, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False, rng=rng)
        self.make_rope(np.float32)

    def hidden(self, ids: Any, cache: nn.KVCache | None = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D): what the head turns into logits."""
        past = 0 if cache is None else cache.length
        length = past + check_ids(self, ids, past=past)
        places = packed_positions(self, ids, segments, cache)  # (B, T), None: one behind the other
        ropes = self.ropes(past if places is None else 0, length)  # (T, head_dim/2) each
        if places is not None:
            ropes = tuple((cos[places][:, None], sin[places][:, None]) for cos, sin in ropes)  # (B, 1, T, head_dim/2)
        x = self.token_embedding(ids) * self.scale  # (B, T, D)
        for block in self.blocks:
            x = block(x, ropes, cache, segments)
        return self.norm(x)

    def make_rope(self, dtype: Any) -> None:
        """Fill the tables of angles, of the layers that see everything and of those that do not, and √D, in `dtype`: a
        half-precision model multiplies with a rounded √D, as it was trained."""
        c = self.config
        self.cos, self.sin = rope_tables(table_length(c), c.head_dim, c.rope_theta, c.rope_scaling, dtype)
        self.local_cos, self.local_sin = rope_tables(table_length(c), c.head_dim, c.local_rope_theta, None, dtype)
        self.scale = np.array(math.sqrt(c.d_model), dtype)

    def ropes(self, start: int, end: int) -> tuple[Any, ...]:
        """(cosines, sines) of positions for the layers that see everything, and for those with a window."""
        c = self.config
        tables = (self.cos, self.sin), (self.local_cos, self.local_sin)
        settings = (c.rope_theta, c.rope_scaling), (c.local_rope_theta, None)
        return tuple(rope_rows(*table, start, end, c.head_dim, *how) for table, how in zip(tables, settings))
