"""Our attention inside any Hugging Face model: `model.set_attn_implementation("minillm")`.

transformers asks two things of an attention implementation: the attention itself, and a function that turns the
padding of a batch into the mask that the attention then receives. Registering the first alone *works*, and is
silently wrong: for a name without a mask function, every mask arrives as None and padding is attended to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .attention import flash_attention

NOT_SUPPORTED = ("position_bias", "cache")


def register_with_transformers(name: str = "minillm") -> None:
    """Make our attention selectable by `name` in transformers' models: attention and mask function, both.

    Then `model.set_attn_implementation(name)`, or `from_pretrained(..., attn_implementation=name)`. Grouped-query
    heads, padding on either side, sliding windows, capped scores (Gemma 2), sinks (gpt-oss), cross-attention and
    generation with a cache work; models that bias scores raise a ValueError when they run. Needs transformers 5 or
    later.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)


def attention_mask(batch_size: int, q_length: int, kv_length: int, q_offset: int | Tensor = 0, kv_offset: int = 0,
                   mask_function: Callable | None = None, attention_mask: Tensor | None = None,
                   **options: object) -> Tensor | None:  # fmt: skip
    """The mask for `attention_forward`: None (plain causal or full), (B, kv) bool for a causal model with padding, or
    (B, 1, q, kv) bool for everything else, as transformers' own `sdpa_mask` makes it.

    The two-dimensional form lets the kernels skip what causality hides, and takes T bytes a sequence in place of T².
    """
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    mask_function = causal_mask_function if mask_function is None else mask_function
    mask = sdpa_mask(
        batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
        mask_function=mask_function, attention_mask=attention_mask, **options,
    )  # fmt: skip
    plain_causal = mask_function is causal_mask_function and isinstance(q_offset, int)
    aligned = plain_causal and q_offset + q_length == kv_offset + kv_length  # the last query stands at the last key
    covers = attention_mask is not None and attention_mask.shape[-1] == kv_offset + kv_length
    if mask is not None and aligned and covers:
        return attention_mask[:, kv_offset:].to(torch.bool)
    return mask


def attention_forward(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor,
                      attention_mask: Tensor | None, dropout: float = 0.0, scaling: float | None = None,
                      is_causal: bool | None = None, softcap: float | None = None, s_aux: Tensor | None = None,
                      **options: object) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention signature: q (B, H, Tq, D), k and v (B, Hkv, Tk, D) to ((B, Tq, H, D), None).

    softcap and s_aux are `flash_attention`'s softcap and sinks.
    """
    for option in NOT_SUPPORTED:
        if options.get(option) is not None:
            raise ValueError(f"minillm attention does not support {option}; use another attn_implementation.")
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(
            f"minillm attention takes boolean masks (True = keep), not {attention_mask.dtype} ones that are added to "
            "the scores; pass a 2D padding mask, or a 4D boolean one."
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    queries, keys = query.shape[2], key.shape[2]
    if attention_mask is None:
        causal = causal and queries > 1
        if causal and keys > queries:  # the first tokens into a preallocated cache, whose other slots are still empty
            key, value = key[:, :, :queries], value[:, :, :queries]
        masks = {}
    elif attention_mask.ndim == 2:
        masks = {"key_padding_mask": attention_mask}
    else:  # it says everything, causality included
        causal, masks = False, {"mask": attention_mask[..., :keys]}
    masks |= {"softcap": softcap, "sinks": s_aux}
    out = flash_attention(query, key, value, causal=causal, scale=scaling, dropout_p=dropout, **masks)
    return out.transpose(1, 2), None
