"""Multi-head attention for every model but GPT, which shows its own, shorter one (gpt.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..nn import KVCache, Linear, Module, RMSNorm
from ..ops import AnyTensor
from ..tensor import Parameter


class MultiHeadAttention(Module):
    """Every position gathers values from those it may look at, in `n_heads` independent ways of `head_dim` features.

    What the models of this library differ in: fewer key/value heads than query heads (`n_kv_heads`, grouped-query
    attention), biases, RMS norms on the queries and keys of each head (`qk_norm_eps`, their eps), rotary positions
    (`rope` in forward), keys and values from another sequence (`kv` in forward, cross-attention) and a `window` of the
    last keys beyond which a causal query sees nothing, and `sinks`, a learned score for each head (see ops.attention).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        qk_norm_eps: float | None = None,
        causal: bool = False,
        window: int | None = None,
        sinks: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
        impl: str = "auto",
        layer: int = 0,
        std: float = 0.02,
        out_std: float = 0.02,
        rng: np.random.Generator,
    ) -> None:
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads or n_heads
        head_dim = head_dim or d_model // n_heads
        self.q_proj = Linear(d_model, n_heads * head_dim, bias=qkv_bias, std=std, rng=rng)
        self.k_proj = Linear(d_model, self.n_kv_heads * head_dim, bias=qkv_bias, std=std, rng=rng)
        self.v_proj = Linear(d_model, self.n_kv_heads * head_dim, bias=qkv_bias, std=std, rng=rng)
        self.o_proj = Linear(n_heads * head_dim, d_model, bias=out_bias, std=out_std, rng=rng)
        self.q_norm: Module | None = None if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)
        self.k_norm: Module | None = None if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)
        self.causal = causal
        self.window = window
        self.sinks = Parameter(np.zeros(n_heads, dtype=np.float32)) if sinks else None
        self.scale = scale  # of the scores; None: 1/√head_dim
        self.dropout_p = dropout  # of the attention weights
        self.impl = impl
        self.layer = layer  # which of the cache's buffers are ours
        self.rng = rng

    def forward(
        self,
        x: AnyTensor,
        *,
        kv: tuple[AnyTensor, AnyTensor] | None = None,
        mask: Any = None,
        segments: Any = None,
        rope: tuple[Any, Any] | None = None,
        cache: KVCache | None = None,
    ) -> AnyTensor:
        """x (B, T, d_model) -> (B, T, d_model).

        `kv`: keys and values of another sequence, from `keys_values`; by default x's own. `mask`: boolean, True = may
        look, broadcastable to (B, H, T, keys). `segments` (B, T): several texts in a row, see ops.attention. `rope`:
        cosines and sines (T, head_dim/2) of x's positions, or (B, 1, T, head_dim/2), each row's own.
        """
        B, T, _ = x.shape
        q, k, v = self.heads(x, kv=kv, rope=rope)  # (B, H, T, hd) and (B, Hkv, T, hd)
        settings = self.settings()
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, Hkv, past + T, hd)
            if cache.mask is not None:  # it knows what each query sees
                mask, settings = cache.visible(self.window), {**settings, "causal": False, "window": None}
        dropout_p = self.dropout_p if self.training else 0.0
        how: dict[str, Any] = {"dropout_p": dropout_p, "rng": self.rng, "impl": self.impl}
        out = ops.attention(q, k, v, mask=mask, segments=segments, **settings, **how)  # (B, H, T, hd)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))  # heads side by side again

    def settings(self) -> dict[str, Any]:
        """What the layer's attention has of its own, by the names of ops.attention."""
        return {"causal": self.causal, "window": self.window, "scale": self.scale, "sinks": self.sinks}

    def heads(
        self, x: AnyTensor, *, kv: tuple[AnyTensor, AnyTensor] | None = None, rope: tuple[Any, Any] | None = None
    ) -> tuple[AnyTensor, AnyTensor, AnyTensor]:
        """Queries (B, H, T, hd), keys and values (B, Hkv, T, hd) of x (B, T, d_model) as they enter attention, the
        rotary positions in them; `kv` and `rope` as in forward."""
        B, T, _ = x.shape
        q = self.q_proj(x).reshape(B, T, self.n_heads, -1)  # (B, T, H, hd)
        if self.q_norm is not None:
            q = self.q_norm(q)
        q = q.transpose(1, 2)  # (B, H, T, hd)
        k, v = self.keys_values(x) if kv is None else kv
        if rope is not None:
            q, k = ops.rope(q, *rope), ops.rope(k, *rope)
        return q, k, v

    def keys_values(self, x: AnyTensor) -> tuple[AnyTensor, AnyTensor]:
        """The keys and values (B, Hkv, T, hd) that x (B, T, d_model) offers to whoever attends to it."""
        B, T, _ = x.shape
        k = self.k_proj(x).reshape(B, T, self.n_kv_heads, -1)  # (B, T, Hkv, hd)
        v = self.v_proj(x).reshape(B, T, self.n_kv_heads, -1)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return k.transpose(1, 2), v.transpose(1, 2)
