"""One run of a model in which everybody looks: who attends to whom, and what flows between the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..models.attention import MultiHeadAttention
from ..models.gpt import CausalSelfAttention
from ..tensor import Array, Tensor
from .activations import Call, as_array, only_asking, to_engine, watching


@dataclass(frozen=True)
class Inside:
    """What `look_inside` saw of a stack of blocks. `attention` (layers, B, heads, T, T): each row a distribution over
    the positions looked at. `residual` (layers + 1, B, T, D): the stream before the first block and after each one. A
    decoder that looks at a source has `cross` too (layers, B, heads, T, S), and in `encoder` what was seen of that.
    """

    attention: Array
    residual: Array
    stack: str = "blocks"  # the model's name for the list of blocks
    cross: Array | None = None
    encoder: Inside | None = None

    def activation_sizes(self) -> dict[str, float]:
        """Root mean square of the residual stream after each step, for `norms_per_layer`."""
        names = ["embedding"] + [f"{self.stack}.{i}" for i in range(len(self.residual) - 1)]
        return {name: float(np.sqrt(np.mean(np.square(x)))) for name, x in zip(names, self.residual)}


def look_inside(model: Any, *ids: Array, **options: Any) -> Inside:
    """Run a model in evaluation mode on ids (B, T), an encoder–decoder on its source (B, S) and ids; keep the attention
    weights and the stream between blocks.

    `options` are those of the model's `hidden`: BERT's mask and token_types, a classifier's mask. Raises TypeError for
    a model without attention.
    """
    modules = dict(model.named_modules()) if hasattr(model, "named_modules") else {}
    attentions = {name: m for name, m in modules.items() if isinstance(m, (CausalSelfAttention, MultiHeadAttention))}
    if not attentions:
        raise TypeError(f"look_inside: a {type(model).__name__} has no attention to look at.")
    blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in attentions))  # "blocks.0" of "blocks.0.attn"
    given = [to_engine(model, one) for one in ids]
    options = {name: to_engine(model, value) for name, value in options.items()}
    watched = {name: modules[name] for name in (*attentions, *blocks)}
    with only_asking(model):
        with watching(watched) as calls:
            model.hidden(*given, **options)
        weights = {name: as_array(attention_shares(module, calls[name])) for name, module in attentions.items()}
    inside = None
    for stack in dict.fromkeys(name.rpartition(".")[0] for name in blocks):  # an encoder stands before its decoder
        names = [name for name in blocks if name.startswith(f"{stack}.")]
        inside = Inside(
            attention=np.stack([weights[f"{name}.attn"] for name in names]),
            residual=np.stack([as_array(x) for x in (calls[names[0]].x, *(calls[name].out for name in names))]),
            stack=stack,
            cross=np.stack([weights[f"{name}.cross"] for name in names]) if inside else None,
            encoder=inside,
        )
    assert inside is not None
    return inside


def attention_shares(module: CausalSelfAttention | MultiHeadAttention, call: Call) -> Any:
    """The attention weights (B, H, T, S) of a call, on either engine. They are the layer's own: attention over values
    that are one-hot vectors returns, in place of a mixture of values, the shares of the mixture."""
    where = {name: given for name, given in call.options.items() if name in ("kv", "rope")}
    q, k, _ = module.heads(call.x, **where)  # (B, H, T, hd), (B, Hkv, S, hd)
    S = k.shape[2]
    values: Any  # (B, Hkv, S, S)
    if isinstance(k, Tensor):
        values = Tensor(np.broadcast_to(np.eye(S, dtype=k.dtype), (*k.shape[:3], S)))
    else:
        values = k.new_zeros(S, S).fill_diagonal_(1).expand(*k.shape[:3], S)
    own = {"causal": True} if isinstance(module, CausalSelfAttention) else module.settings()
    mask, segments = call.options.get("mask"), call.options.get("segments")
    return ops.attention(q, k, values, mask=mask, segments=segments, **own)
