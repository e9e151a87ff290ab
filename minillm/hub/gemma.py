"""The checkpoints of Gemma 3's text models (Gemma Team 2025, arXiv 2503.19786): most layers see near keys only, with
rotary positions of their own."""

from __future__ import annotations

from typing import Any

from ..models import GemmaConfig
from .architecture import Architecture, ConfigurationError, Values, own_or_shared
from .llama import LLAMA, layer_types, rope_settings, window_of, written_layers


def read(values: Values, ours: Values, head: str) -> Values:
    every = values.get("sliding_window_pattern", 6)  # of so many layers, the last sees everything
    if type(every) is not int or every < 1:
        raise ConfigurationError(f"config.json: sliding_window_pattern = {every!r:.50} must be a whole number above 0.")
    window = values.get("sliding_window", 4096)
    layers = layer_types(values, ours, window=True)
    if values.get("layer_types") is None:
        layers = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(len(layers))]
    if window is None:
        raise ConfigurationError("config.json: sliding_window of a gemma3_text must be a whole number, not null.")
    theta, scaling = rope_settings(rope_of(values, "full_attention", "rope_theta", 1e6), ours["context"])
    local, stretched = rope_settings(rope_of(values, "sliding_attention", "rope_local_base_freq", 1e4), ours["context"])
    if stretched is not None:
        raise ConfigurationError(
            f"config.json: rope_parameters of sliding_attention = {stretched!r:.80} are not plain."
        )
    full = [i for i, layer in enumerate(layers) if layer == "full_attention"]
    more: Values = {"rope_theta": theta, "rope_scaling": scaling, "local_rope_theta": local}
    more |= {**window_of(window, ["sliding_attention"]), "full_layers": full}
    if head in ("base", "classification"):
        more["tie_embeddings"] = True  # no head, so no matrix of its own
    return more


def rope_of(values: Values, layer: str, old_name: str, theta: float) -> Values:
    """What says how positions are turned in one kind of layer, since 2025 or before, as a Llama says it."""
    parameters = values.get("rope_parameters") or {}
    if not isinstance(parameters, dict) or not isinstance(parameters.get(layer) or {}, dict):
        raise ConfigurationError(f"config.json: rope_parameters = {parameters!r:.80} must be an object for each layer.")
    old = values.get("rope_scaling") if layer == "full_attention" else None
    if old is not None and not isinstance(old, dict):
        raise ConfigurationError(f"config.json: rope_scaling = {old!r:.80} must be an object.")
    base = theta if values.get(old_name) is None else values[old_name]
    return {"rope_parameters": {"rope_theta": base, **(parameters.get(layer) or {}), **(old or {})}}


def write(config: GemmaConfig, original: Values, head: str) -> Values:
    full: dict[str, Any] = {**(config.rope_scaling or {"rope_type": "default"}), "rope_theta": config.rope_theta}
    values = {
        "attention_dropout": own_or_shared(config.attention_dropout, config.dropout),
        "sliding_window": config.window,
        "layer_types": written_layers(config),
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_theta},
        },
    }
    if head == "base" and "tie_word_embeddings" in original:  # without a head, nothing to say about it
        values["tie_word_embeddings"] = original["tie_word_embeddings"]
    return values


GEMMA3 = Architecture(
    model_type="gemma3_text",
    config_class=GemmaConfig,
    family="Gemma3",
    heads={"ForCausalLM": "causal", "TextForSequenceClassification": "classification", "TextModel": "base"},
    settings={
        "vocab_size": ("vocab_size", 262208), "max_position_embeddings": ("context", 131072),
        "num_hidden_layers": ("n_layers", 26), "num_attention_heads": ("n_heads", 8),
        "num_key_value_heads": ("n_kv_heads", 4), "hidden_size": ("d_model", 2304), "head_dim": ("head_dim", 256),
        "intermediate_size": ("d_ff", 9216), "rms_norm_eps": ("norm_eps", 1e-6),
        "query_pre_attn_scalar": ("query_scalar", 256), "tie_word_embeddings": ("tie_embeddings", True),
        "attention_bias": ("attention_bias", False), "attention_dropout": ("attention_dropout", 0.0),
    },
    fixed={
        "hidden_activation": ("gelu_pytorch_tanh",), "final_logit_softcapping": (None,),
        "attn_logit_softcapping": (None,), "use_bidirectional_attention": (False, None),
    },
    further=(
        "layer_types", "sliding_window", "sliding_window_pattern", "rope_parameters", "rope_scaling", "rope_theta",
        "rope_local_base_freq",
    ),
    read=read,
    write=write,
    tokenizer_class="GemmaTokenizer",
    names={
        **LLAMA.names, "blocks.*.attn_norm": "model.layers.*.post_attention_layernorm",
        "blocks.*.norm_2": "model.layers.*.pre_feedforward_layernorm",
        "blocks.*.mlp_norm": "model.layers.*.post_feedforward_layernorm",
    },
    prefix="model.",
    head_names=LLAMA.head_names,
    twins=LLAMA.twins,
)  # fmt: skip
