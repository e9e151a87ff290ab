"""Where the heads of a model look, and what flows between its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from ..models.attention import MultiHeadAttention
from ..models.gpt import CausalSelfAttention
from ..nn import Module, evaluating
from ..tensor import Array, Tensor, no_grad
from .style import WIDTH, drawable, readable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    """Run a model (NumPy engine) in evaluation mode on ids (B, T), an encoder–decoder on its source (B, S) and ids;
    keep the attention weights and the stream between blocks.

    `options` are those of the model's `hidden`: BERT's mask and token_types, a classifier's mask. Raises TypeError for
    a model without attention, or on PyTorch.
    """
    modules = dict(model.named_modules()) if isinstance(model, Module) else {}
    attentions = {name: m for name, m in modules.items() if isinstance(m, (CausalSelfAttention, MultiHeadAttention))}
    if not attentions:
        raise TypeError(f"look_inside: a {type(model).__name__} has no attention to look at.")
    if not isinstance(next(iter(model.parameters())), Tensor):
        raise TypeError("look_inside: this model runs on PyTorch. Make it a NumPy one with minillm.port.to_numpy.")
    blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in attentions))  # "blocks.0" of "blocks.0.attn"
    with evaluating(model), no_grad(), watching({name: modules[name] for name in (*attentions, *blocks)}) as calls:
        model.hidden(*ids, **options)
    weights = {name: attention_weights(module, calls[name]) for name, module in attentions.items()}
    inside = None
    for stack in dict.fromkeys(name.rpartition(".")[0] for name in blocks):  # an encoder stands before its decoder
        names = [name for name in blocks if name.startswith(f"{stack}.")]
        inside = Inside(
            attention=np.stack([weights[f"{name}.attn"] for name in names]),
            residual=np.stack([calls[names[0]].x.data, *(calls[name].out.data for name in names)]),
            stack=stack,
            cross=np.stack([weights[f"{name}.cross"] for name in names]) if inside else None,
            encoder=inside,
        )
    assert inside is not None
    return inside


@dataclass(frozen=True)
class Call:
    """One call of a module: what it was given, and what came out."""

    x: Tensor
    options: dict[str, Any]
    out: Tensor


@contextmanager
def watching(modules: dict[str, Module]) -> Iterator[dict[str, Call]]:
    """Inside, the last call of each module is written down under the module's name."""
    calls: dict[str, Call] = {}
    for name, module in modules.items():
        vars(module)["forward"] = partial(write_down, calls, name, module.forward)
    try:
        yield calls
    finally:
        for module in modules.values():
            del vars(module)["forward"]


def write_down(calls: dict[str, Call], name: str, forward: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
    out = forward(x, *args, **options)
    calls[name] = Call(x, options, out[0] if isinstance(out, tuple) else out)  # a block may say more (models/moe.py)
    return out


@no_grad()
def attention_weights(module: CausalSelfAttention | MultiHeadAttention, call: Call) -> Array:
    """Who looked at whom (B, H, T, S) in a call of an attention layer of the NumPy engine."""
    return attention_shares(module, call).data


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


def attention_grid(
    weights: Array,
    tokens: Sequence[str | bytes] | None = None,
    *,
    titles: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """A picture for each head, a row of pictures for each layer: who looks (down) at whom (across), dark 0 to bright 1.

    `weights` (layers, heads, T, T) or (heads, T, T) or (T, T); `tokens`, T of them, label the axes where there is room;
    `titles[layer][head]` replaces "layer 0, head 1". Where nobody may look (above the diagonal, all zero) stays white.
    Raises ValueError if shapes do not fit.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim not in (2, 3, 4) or weights.shape[-1] != weights.shape[-2]:
        shape = weights.shape
        raise ValueError(f"attention_grid: weights {shape} must be (layers, heads, T, T): choose one sequence, [:, 0].")
    weights = weights.reshape((1,) * (4 - weights.ndim) + weights.shape)
    layers, heads, T, _ = weights.shape
    if tokens is not None and len(tokens) != T:
        raise ValueError(f"attention_grid: {len(tokens)} tokens for {T} positions: one label for each.")
    if not np.triu(weights, 1).any():
        weights = np.where(np.tri(T, dtype=bool), weights, np.nan)  # causal: the future stays white

    side = min((WIDTH - 0.9) / heads, 4.2)  # inches that one picture gets
    height, width = layers * (side + 0.25) + 0.5, min(WIDTH, heads * side + 1.9)
    shared: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = subplots(layers, heads, height=height, width=width, title=title, **shared)
    labels = None if tokens is None else [readable(token, longest=8) for token in tokens]
    font = 72 * 0.8 * side / T if labels else 0  # points between neighbours, a little less
    size = min(10, 5 + 3 * side)
    for layer in range(layers):
        for head in range(heads):
            ax = axes[layer, head]
            image = ax.imshow(weights[layer, head], vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            ax.grid(visible=False)
            if titles:
                ax.set_title(drawable(titles[layer][head]), fontsize=size)
            elif side >= 1.1:  # room for both
                ax.set_title(f"layer {layer}, head {head}", fontsize=size)
            else:
                ax.set_title(f"head {head}" if layer == 0 else "", fontsize=size)
                ax.set_ylabel(f"layer {layer}" if head == 0 else "", fontsize=size)
            if labels and font >= 4:
                ax.set_xticks(range(T), labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=min(font, 10))
                ax.set_yticks(range(T), labels, fontsize=min(font, 10))
                ax.tick_params(length=0)
    one = layers * heads == 1
    (axes[0, 0].set_xlabel if one else figure.supxlabel)("looks at", fontsize=10)
    (axes[0, 0].set_ylabel if one else figure.supylabel)("position that looks", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, label="weight")
    return figure
