"""What flows through a model's blocks, and where its heads look: transformers' hidden_states and attentions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..interpret import Call, attention_shares, watching

STACKS = {"blocks": "", "encoder": "encoder_", "decoder": "decoder_"}  # our list of blocks -> how their names begin
LAST = {"blocks": "norm", "encoder": "encoder_norm", "decoder": "decoder_norm"}  # the norm behind the last block


@contextmanager
def looking_inside(model: Any, hidden_states: bool, attentions: bool) -> Iterator[dict[str, tuple[Any, ...]]]:
    """Inside, a call of the model (either engine) is watched. Afterwards what comes has, by transformers' names, as
    they are wanted: `hidden_states`, the stream (B, T, D) before the first block, between blocks and, normed if the
    model does that, after the last; `attentions`, each layer's weights (B, H, T, S), without dropout. An
    encoder–decoder has both of each, `encoder_` and `decoder_`, and `cross_attentions`. Raises ValueError for a model
    without blocks.
    """
    found: dict[str, tuple[Any, ...]] = {}
    if not hidden_states and not attentions:
        yield found
        return
    stacks = {}
    for _, module in model.named_modules():
        for stack in STACKS:
            blocks = getattr(module, stack, ())
            if hasattr(blocks, "__len__") and len(blocks):  # a classifier's `decoder` is no list
                stacks[stack] = (module, list(blocks))
    if not stacks:
        raise ValueError(f"a {type(model).__name__} has no blocks: it gives no hidden_states and no attentions.")
    watched = {}
    for stack, (owner, blocks) in stacks.items():
        for i, block in enumerate(blocks):
            watched[f"{stack}.{i}"], watched[f"{stack}.{i}.attn"] = block, block.attn
            if hasattr(block, "cross"):
                watched[f"{stack}.{i}.cross"] = block.cross
        norm = getattr(owner, LAST[stack], None)
        if norm is not None and not hasattr(owner, "token_type_embedding"):  # BERT's stands before its blocks
            watched[f"{stack}.norm"] = norm
    with watching(watched) as calls:
        yield found
    for stack, (_, blocks) in stacks.items():
        outs = [calls[f"{stack}.{i}"].out for i in range(len(blocks))]
        last = calls[f"{stack}.norm"].out if f"{stack}.norm" in calls else outs[-1]
        if hidden_states:
            found[f"{STACKS[stack]}hidden_states"] = (calls[f"{stack}.0"].x, *outs[:-1], last)
        if attentions:
            found[f"{STACKS[stack]}attentions"] = shares(watched, calls, stack, "attn", len(blocks))
            if f"{stack}.0.cross" in calls:
                found["cross_attentions"] = shares(watched, calls, stack, "cross", len(blocks))


def shares(watched: dict[str, Any], calls: dict[str, Call], stack: str, kind: str, n: int) -> tuple[Any, ...]:
    """The attention weights of n layers."""
    names = [f"{stack}.{i}.{kind}" for i in range(n)]
    return tuple(attention_shares(watched[name], calls[name]) for name in names)
