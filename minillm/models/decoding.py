"""A decoder that only writes: the forward of a GPT or Llama in plain NumPy, for generation alone.

The models' own forward serves training too: it checks shapes at every op, wraps every array in a Tensor, and gives a
row of the batch one place for each position of the longest text. Where a step reads one token that bookkeeping takes
longer than the arithmetic. A `Plan` has none of it, and gives the same numbers (tests/models/test_decoding.py holds it
to the model, in float64 to 1e-10). What it leaves out, and why it may:

- the graph: nothing is learned here. Arrays are overwritten as soon as they have been used;
- checks: prompts are checked when they are read, and what the plan computes itself fits;
- padding: the tokens of all texts stand below each other, x (N, D), whatever each text has of them, so that a layer is
  one product for all of them, whether they are prompts or one token each. Only attention goes text by text, or, where
  each has one new token, over the longest cache with the others' ends hidden;
- queries that nobody asks for: in the last layer only those of each text's last token go on;
- idle cores: of long prompts, what NumPy would do on one is shared out, by tokens, texts and heads.

Weights are the model's own arrays, not copies: a plan is made anew for each call of `generate`, in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from .. import nn
from ..numpy_ops.cores import blas_threads, limit_blas_threads, shares, side_by_side
from ..settings import NEEDS_TORCH
from ..tensor import Tensor, no_grad
from . import gpt, llama
from .attention import MultiHeadAttention
from .decoding_ops import Array, Cache, Layer, Matrix, New, attend, attend_last, feed_forward, norm, turn
from .decoding_plan import DecodingPlan
from .int8 import Int8Embedding, Int8GPT, Int8Linear, Int8Llama, Int8Matrix, int8_product

FEW = 32  # rows up to which W xᵀ is faster than x Wᵀ, for which BLAS would first rearrange all of W
CHUNK = 256  # tokens that go through the feed-forward network at once: what is between its two products fits a cache
MANY = 128  # tokens of each core that shares prompts: with fewer, cores wait for each other, and each reads all weights


class Plan(DecodingPlan):
    """How to run a model on NumPy, made by `plan_for`."""

    def __init__(self, model: Any) -> None:
        self.model, self.dtype = model, model.norm.weight.data.dtype
        self.layers = [layer_of(block, model.config) for block in model.blocks]
        head = getattr(model, "head", None)
        self.head = matrix(model.token_embedding if head is None else head)
        self.table = None if isinstance(model.token_embedding, Int8Embedding) else model.token_embedding.weight.data
        self.positions = model.position_embedding.weight.data if isinstance(model, gpt.GPT) else None

    def new_cache(self, rows: int, capacity: int, most: int = 0) -> Cache:
        return Cache(self.layers, rows, capacity, self.dtype)

    def logits(self, cache: Cache, pieces: Sequence[Sequence[int]], every: bool = False) -> Array:
        return self.head(self.features(cache, pieces, every))

    def features(self, cache: Cache, pieces: Sequence[Sequence[int]], every: bool = False) -> Array:
        """The last layer's features (rows, D), or with `every` (N, D): see `logits`."""
        new = New(cache.lengths, [len(piece) for piece in pieces])
        ids = np.array([token for piece in pieces for token in piece])  # (N,)
        with no_grad(), np.errstate(over="ignore"):  # e^x may be infinite where it is divided by
            # (N, D); prompts go through the module, which checks ids
            x = self.table[ids] if self.table is not None and min(new.lengths) else self.model.token_embedding(ids).data
            rope = () if self.positions is not None else self.angles(new)
            if self.positions is not None:
                x += self.positions[new.places]
            cores = 1 if new.one_each else max(1, min(blas_threads() or 1, len(x) // MANY))
            with limit_blas_threads(1) if cores > 1 else nullcontext():
                x = self.through_layers(cache, new, x, rope, cores, every)
            cache.lengths = new.ends
            return norm(x, self.model.norm)

    def through_layers(
        self, cache: Cache, new: New, x: Array, rope: tuple[Array, ...], cores: int, every: bool
    ) -> Array:
        """x (N, d_model) behind all layers, of each text's last token only unless `every` is asked for."""
        for number, layer in enumerate(self.layers):
            keys, values = cache.keys[number], cache.values[number]
            q, k, v = by_tokens(cores, partial(self.heads, layer), x, *rope)  # (N, H, D) each
            new.store(keys, k)
            new.store(values, v)
            if not (new.one_each or every) and number == len(self.layers) - 1:
                x, q, cores = x[new.last], q[new.last], 1  # keys and values are there: of the rest nothing is asked
            if len(q) == len(new.ends):
                mixed = attend_last(layer, q, keys, values, new)
            else:
                mixed = attend(layer, q, keys, values, new, cores)
            by_tokens(cores, partial(go_on, layer), x, mixed)
        return x

    def heads(self, layer: Layer, x: Array, *rope: Array) -> list[Array]:
        """Queries (N, H, D), keys and values (N, Hkv, D) of x (N, d_model), as they enter attention."""
        h, (n_q, n_kv, d) = norm(x, layer.norm_1), layer.heads
        parts = [matrix(h) for matrix in layer.qkv]
        if len(parts) == 1:
            q, k, v = parts[0].reshape(len(x), 3, n_q, d).swapaxes(0, 1)
        else:
            q, k, v = (part.reshape(len(x), n, d) for part, n in zip(parts, (n_q, n_kv, n_kv)))
        if layer.head_norms is not None:
            q, k = norm(q, layer.head_norms[0]), norm(k, layer.head_norms[1])
        if rope:
            q, k = turn(q, *rope), turn(k, *rope)
        return [q, k, v]

    def angles(self, new: New) -> tuple[Array, Array]:
        """Cosines (N, 1, D/2) and sines of the places that the new tokens have in their texts."""
        rows = [self.model.rope(past, end) for past, end in zip(new.lengths, new.ends)]
        cos, sin = rows[0] if len(rows) == 1 else map(np.concatenate, zip(*rows))
        return cos[:, None], sin[:, None]


def go_on(layer: Layer, x: Array, mixed: Array) -> list[Array]:
    """Add to x (N, d_model), in place, what attention has `mixed`, projected, and then the feed-forward network's."""
    x += layer.out(mixed)
    for start in range(0, len(x), CHUNK):
        x[start : start + CHUNK] += feed_forward(layer, x[start : start + CHUNK])
    return []


def by_tokens(cores: int, function: Callable[..., list[Array]], *arrays: Array) -> list[Array]:
    """`function(*arrays)`, arrays that have a row for each token, of which each core has a share."""
    if cores == 1:
        return function(*arrays)
    own = shares(len(arrays[0]), cores)
    parts = side_by_side([partial(function, *(array[rows] for array in arrays)) for rows in own])
    return [np.concatenate(part) for part in zip(*parts)]


# --- which models -----------------------------------------------------------------------------------------------------


KNOWN = {gpt.GPT, gpt.Block, gpt.CausalSelfAttention, gpt.MLP, llama.Llama, llama.Block, llama.MLP, MultiHeadAttention,
         nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Dropout,
         Int8GPT, Int8Llama, Int8Linear, Int8Embedding}  # fmt: skip


def plan_for(model: Any) -> DecodingPlan | None:
    """A plan for a GPT or a Llama of this library on NumPy; None for any other, and for one with a part that is not
    what it was built with, such as an adapter: its own forward says what that does. Of a model on PyTorch its own plan
    (decoding_torch.py)."""
    if hasattr(model, "decoding_plan"):  # a CompiledDecoder
        return model.decoding_plan
    if not isinstance(next(iter(model.parameters())), Tensor):
        from .decoding_torch import torch_plan

        return torch_plan(model)
    config = model.config
    if type(model) not in KNOWN or config.attention in NEEDS_TORCH or getattr(config, "attention_sinks", False):
        return None
    return Plan(model) if all(type(module) in KNOWN for _, module in model.named_modules()) else None


def matrix(module: Any) -> Matrix:
    """x (N, in) -> x Wᵀ + b (N, out)."""
    if isinstance(module, Int8Matrix):
        return int8_product(module)
    weight, bias = module.weight.data, getattr(module, "bias", None)
    bias = None if bias is None else bias.data

    def product(x: Array) -> Array:
        y = np.ascontiguousarray((weight @ x.T).T) if 1 < len(x) <= FEW else x @ weight.T
        if bias is not None:
            y += bias
        return y

    return product


def layer_of(block: Any, config: Any) -> Layer:
    attn, mlp, d = block.attn, block.mlp, config.head_dim
    parts: dict[str, Any] = {"norm_1": block.norm_1, "norm_2": block.norm_2}
    if isinstance(block, gpt.Block):
        parts |= {"qkv": [matrix(attn.qkv)], "heads": (attn.n_heads, attn.n_heads, d), "out": matrix(attn.proj)}
        return Layer(**parts, head_norms=None, up=[matrix(mlp.fc)], down=matrix(mlp.proj), window=None)
    parts |= {"qkv": [matrix(part) for part in (attn.q_proj, attn.k_proj, attn.v_proj)], "out": matrix(attn.o_proj)}
    parts |= {"heads": (attn.n_heads, attn.n_kv_heads, d), "up": [matrix(mlp.gate), matrix(mlp.up)]}
    norms = None if attn.q_norm is None else (attn.q_norm, attn.k_norm)
    return Layer(**parts, head_norms=norms, down=matrix(mlp.down), window=attn.window)
