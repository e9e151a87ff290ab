"""Where the heads of a model look. The weights to draw: minillm.interpret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensor import Array
from .style import WIDTH, drawable, readable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
