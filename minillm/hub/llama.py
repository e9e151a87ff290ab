"""The checkpoints of Llama (Touvron et al. 2023, arXiv 2302.13971) and of Qwen2 and Qwen3, which differ in the biases
and norms of their attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..models import LlamaConfig
from .architecture import Architecture, ConfigurationError, Values

# --- config.json to ours ----------------------------------------------------------------------------------------------


def read(values: Values, ours: Values, head: str) -> Values:
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise ConfigurationError(f"config.json: layer_types = {layers!r:.50} must be a list of only 'full_attention'.")
    bias = bool(values.get("attention_bias", False))
    theta, scaling = rope_settings(values, ours["context"])
    more = {"qkv_bias": bias, "out_bias": bias, "qk_norm": False, "rope_theta": theta, "rope_scaling": scaling}
    more["context"] = stretched(ours["context"], scaling)
    if head in ("base", "classification"):
        more["tie_embeddings"] = True  # no head, so no matrix of its own
    return more


def read_qwen2(values: Values, ours: Values, head: str) -> Values:
    return {**read(values, ours, head), "qkv_bias": True, "out_bias": False}


def read_qwen3(values: Values, ours: Values, head: str) -> Values:
    return {**read(values, ours, head), "qk_norm": True}


def rope_settings(values: Values, context: int) -> tuple[float, dict[str, Any] | None]:
    """(base, scaling) of rotary positions, from `rope_parameters` (since 2025) or `rope_theta` and `rope_scaling`."""
    scaling = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ConfigurationError(f"config.json: rope_parameters (or rope_scaling) = {scaling!r} must be an object.")
    scaling = dict(scaling)
    theta = scaling.pop("rope_theta", None) or values.get("rope_theta") or 10000.0
    old_name = scaling.pop("type", None)
    kind = scaling.get("rope_type", old_name)
    lowest = 1 if kind == "yarn" else 0  # whose formula divides by the logarithm
    if not isinstance(theta, (int, float)) or theta <= lowest:
        raise ConfigurationError(f"config.json: rope_theta = {theta!r} must be a number above {lowest}.")
    if kind in (None, "default"):
        return float(theta), None
    scaling.pop("finetuned", None)  # says where the weights come from
    if scaling.get("partial_rotary_factor") in (1.0, None):
        scaling.pop("partial_rotary_factor", None)
    original = values.get("original_max_position_embeddings", context)
    if kind == "linear":
        scaling.pop("original_max_position_embeddings", None)
    elif kind == "dynamic":
        scaling["original_max_position_embeddings"] = context
    elif kind in ("yarn", "llama3"):
        scaling.setdefault("original_max_position_embeddings", original)
    if kind == "yarn" and scaling.get("factor") is None:
        trained = scaling["original_max_position_embeddings"]
        if not isinstance(trained, (int, float)) or trained <= 0:
            found = f"original_max_position_embeddings = {trained!r:.50}, not a number above 0"
            raise ConfigurationError(f"config.json: 'yarn' without a factor, which cannot follow from {found}.")
        scaling["factor"] = context / trained
    return float(theta), {**scaling, "rope_type": kind}


def stretched(context: int, scaling: dict[str, Any] | None) -> int:
    """How long texts may be: in config.json, `context` may be the length before or after stretching."""
    if scaling is None or not isinstance(scaling.get("factor"), (int, float)):
        return context
    linear = scaling["rope_type"] in ("linear", "dynamic")
    original = context if linear else scaling.get("original_max_position_embeddings", 0)
    if not isinstance(original, (int, float)) or not original * scaling["factor"] < 2**62:
        raise ConfigurationError(f"config.json: rope_scaling = {scaling!r} makes no length out of {context}.")
    return int(original * scaling["factor"]) if linear else max(context, int(original * scaling["factor"]))


# --- and back ---------------------------------------------------------------------------------------------------------


def write(config: LlamaConfig, original: Values, head: str) -> Values:
    scaling = config.rope_scaling or {"rope_type": "default"}
    values = {
        "attention_bias": config.out_bias,
        "rope_parameters": {**scaling, "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,  # for readers from before rope_parameters
    }
    if head == "base" and "tie_word_embeddings" in original:  # without a head, nothing to say about it
        values["tie_word_embeddings"] = original["tie_word_embeddings"]
    if config.rope_scaling is not None:
        values["rope_scaling"] = config.rope_scaling
        values["max_position_embeddings"] = unstretched(config, scaling, original.get("max_position_embeddings"))
    return values


def unstretched(config: LlamaConfig, scaling: dict[str, Any], given: int | None) -> int:
    """max_position_embeddings for a config whose context is `stretched`: as `given`, if that leads to this context."""
    if given is not None and stretched(given, scaling) == config.context:
        return given
    if scaling["rope_type"] == "dynamic":
        return int(scaling["original_max_position_embeddings"])
    return math.ceil(config.context / scaling["factor"]) if scaling["rope_type"] == "linear" else config.context


def variant(config: LlamaConfig) -> str:
    """Llama, Qwen2 or Qwen3: whose attention has these biases and norms."""
    if config.qkv_bias == config.out_bias:
        return "qwen3" if config.qk_norm else "llama"
    if config.qkv_bias and not config.qk_norm:
        return "qwen2"
    raise ConfigurationError(
        f"transformers has no architecture with qkv_bias = {config.qkv_bias}, out_bias = {config.out_bias} and qk_norm "
        f"= {config.qk_norm}: Llama has both biases or none, Qwen2 only the first, Qwen3 the norms and both or none."
    )


LLAMA = Architecture(
    model_type="llama",
    config_class=LlamaConfig,
    variant=variant,
    family="Llama",
    heads={"ForCausalLM": "causal", "ForSequenceClassification": "classification", "Model": "base"},
    settings={
        "vocab_size": ("vocab_size", 32000), "max_position_embeddings": ("context", 2048),
        "num_hidden_layers": ("n_layers", 32), "num_attention_heads": ("n_heads", 32),
        "num_key_value_heads": ("n_kv_heads", 0), "hidden_size": ("d_model", 4096), "head_dim": ("head_dim", 0),
        "intermediate_size": ("d_ff", 11008), "rms_norm_eps": ("norm_eps", 1e-6),
        "tie_word_embeddings": ("tie_embeddings", False), "attention_dropout": ("dropout", 0.0),
    },
    fixed={
        "hidden_act": ("silu", "swish"), "mlp_bias": (False,), "use_sliding_window": (False, None),
        "partial_rotary_factor": (1.0, None),
    },
    further=("attention_bias", "rope_theta", "rope_scaling", "rope_parameters", "layer_types"),
    read=read,
    write=write,
    names={
        "token_embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head",
        "blocks.*.norm_1": "model.layers.*.input_layernorm",
        "blocks.*.norm_2": "model.layers.*.post_attention_layernorm",
        **{f"blocks.*.attn.{name}": f"model.layers.*.self_attn.{name}"
           for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
        **{f"blocks.*.mlp.{name}": f"model.layers.*.mlp.{name}_proj" for name in ("gate", "up", "down")},
    },
    prefix="model.",
    head_names=("lm_head.", "score.", "qa_outputs."),
    constants=(r"rotary_emb\.inv_freq$",),
    twins={"lm_head.weight": "model.embed_tokens.weight"},
)  # fmt: skip
QWEN2 = replace(
    LLAMA, model_type="qwen2", family="Qwen2", read=read_qwen2, tokenizer_class="Qwen2Tokenizer",
    settings={
        **LLAMA.settings, "vocab_size": ("vocab_size", 151936), "max_position_embeddings": ("context", 32768),
        "intermediate_size": ("d_ff", 22016), "num_key_value_heads": ("n_kv_heads", 32),
    },
)  # fmt: skip
QWEN3 = replace(
    QWEN2, model_type="qwen3", family="Qwen3", read=read_qwen3,
    settings={**QWEN2.settings, "head_dim": ("head_dim", 128)},
)  # fmt: skip
