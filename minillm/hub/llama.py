"""The checkpoints of Llama (Touvron et al. 2023, arXiv 2302.13971), of Mistral and Ministral, which let tokens see a
window of the last keys only, and of Qwen2 and Qwen3, which differ in the biases and norms of their attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..models import LlamaConfig
from .architecture import Architecture, ConfigurationError, Values, own_or_shared

MAX_LAYERS = 1 << 16  # whose types are listed; sizes.py refuses more layers than the weights have

# --- config.json to ours ----------------------------------------------------------------------------------------------


LAYERS = ("full_attention", "sliding_attention")  # what layer_types are made of


def read(values: Values, ours: Values, head: str) -> Values:
    """What all of the family say; a window only of its own in each."""
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


def read_mistral(values: Values, ours: Values, head: str) -> Values:
    window = values.get("sliding_window", 4096)
    found = read({**values, "layer_types": None, "attention_bias": False}, ours, head)
    layers = layer_types(values, ours, window=window is not None)
    if values["model_type"] == "mistral" and window is not None and "full_attention" in layers:
        raise ConfigurationError("config.json: a mistral whose layer_types differ is called 'ministral' in model_type.")
    return {**found, **window_of(window, layers)}


def read_qwen2(values: Values, ours: Values, head: str) -> Values:
    return {**read_qwen3(values, ours, head), "qkv_bias": True, "out_bias": False, "qk_norm": False}


def read_qwen3(values: Values, ours: Values, head: str) -> Values:
    window = values.get("sliding_window", 4096) if values.get("use_sliding_window") else None
    first = values.get("max_window_layers", 28)
    if type(first) is not int:
        raise ConfigurationError(f"config.json: max_window_layers = {first!r:.50} must be a whole number.")
    layers = layer_types(values, ours, window=window is not None, first=first)
    if window is None and "sliding_attention" in layers:
        raise ConfigurationError("config.json: layer_types with 'sliding_attention' need use_sliding_window = true.")
    return {**read({**values, "layer_types": None}, ours, head), "qk_norm": True, **window_of(window, layers)}


def layer_types(values: Values, ours: Values, *, window: bool, first: int = 0) -> list[str]:
    """Which layers see everything; where config.json does not say it, those below `first`, all without a window."""
    n = ours["n_layers"]
    if (layers := values.get("layer_types")) is None:
        layers = ["sliding_attention" if window and i >= first else "full_attention" for i in range(min(n, MAX_LAYERS))]
    good = isinstance(layers, list) and all(isinstance(layer, str) and layer in LAYERS for layer in layers)
    if not good or ("sliding_attention" in layers and len(layers) != min(n, MAX_LAYERS)):
        rule = f"must be a list of {n:,} of {' and '.join(map(repr, LAYERS))}, one for each layer"
        raise ConfigurationError(f"config.json: layer_types = {layers!r:.50} {rule}.")
    return layers


def window_of(window: Any, layers: list[str]) -> Values:
    """Our settings for a window (None: none) in the layers that have one."""
    if window is not None and (type(window) is not int or window < 1):
        raise ConfigurationError(f"config.json: sliding_window = {window!r:.50} must be a whole number, or null.")
    if window is None or "sliding_attention" not in layers:
        return {}
    return {"window": window, "full_layers": [i for i, layer in enumerate(layers) if layer == "full_attention"]}


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
        "attention_dropout": own_or_shared(config.attention_dropout, config.dropout),
        "rope_parameters": {**scaling, "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,  # for readers from before rope_parameters
    }
    if head == "base" and "tie_word_embeddings" in original:  # without a head, nothing to say about it
        values["tie_word_embeddings"] = original["tie_word_embeddings"]
    if config.rope_scaling is not None:
        values["rope_scaling"] = config.rope_scaling
        values["max_position_embeddings"] = unstretched(config, scaling, original.get("max_position_embeddings"))
    return values


def write_mistral(config: LlamaConfig, original: Values, head: str) -> Values:
    values = write(config, original, head)
    del values["attention_bias"]  # which it does not know
    listed = "layer_types" in original or config.full_layers
    layers = {"layer_types": written_layers(config)} if listed else {}
    unused = original.get("sliding_window") if listed else None  # of a model whose layers all see everything
    return {**values, **layers, "sliding_window": config.window or unused}


def write_qwen(config: LlamaConfig, original: Values, head: str) -> Values:
    values = write(config, original, head)
    if config.window:
        values |= {"use_sliding_window": True, "sliding_window": config.window, "layer_types": written_layers(config)}
    return values


def written_layers(config: Any) -> list[str]:
    full = range(config.n_layers) if not config.window else config.full_layers
    return ["full_attention" if i in full else "sliding_attention" for i in range(config.n_layers)]


def unstretched(config: LlamaConfig, scaling: dict[str, Any], given: int | None) -> int:
    """max_position_embeddings for a config whose context is `stretched`: as `given`, if that leads to this context."""
    if given is not None and stretched(given, scaling) == config.context:
        return given
    if scaling["rope_type"] == "dynamic":
        return int(scaling["original_max_position_embeddings"])
    return math.ceil(config.context / scaling["factor"]) if scaling["rope_type"] == "linear" else config.context


def variant(config: LlamaConfig) -> str | None:
    """Llama, Mistral, Ministral, Qwen2 or Qwen3: whose layers have these biases and norms, and a window or none; None:
    nobody's."""
    c = config
    if c.attention_sinks:  # which only gpt-oss has, beside experts
        return None
    if c.qkv_bias == c.out_bias and not c.qk_norm and not c.window:
        return "llama"
    if c.qkv_bias == c.out_bias and c.qk_norm and not c.mlp_bias:
        return "qwen3"
    if not (c.qkv_bias or c.out_bias or c.qk_norm or c.mlp_bias):
        return "ministral" if c.full_layers else "mistral"
    if c.qkv_bias and not (c.out_bias or c.qk_norm or c.mlp_bias):
        return "qwen2"
    raise ConfigurationError(
        f"transformers has no architecture with qkv_bias = {c.qkv_bias}, out_bias = {c.out_bias}, qk_norm = "
        f"{c.qk_norm}, mlp_bias = {c.mlp_bias} and window = {c.window}: Llama has both of the first or none, and no "
        "window; Mistral a window and no biases; Qwen2 only the first; Qwen3 the norms and both or none; mlp_bias is "
        "Llama's."
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
        "tie_word_embeddings": ("tie_embeddings", False), "attention_dropout": ("attention_dropout", 0.0),
        "mlp_bias": ("mlp_bias", False),
    },
    fixed={
        "hidden_act": ("silu", "swish"), "use_sliding_window": (False, None), "partial_rotary_factor": (1.0, None),
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
OTHERS = {name: ours for name, ours in LLAMA.settings.items() if name != "mlp_bias"}
FIXED = {"hidden_act": ("silu", "swish"), "mlp_bias": (False,), "partial_rotary_factor": (1.0, None)}
MISTRAL = replace(
    LLAMA, model_type="mistral", also=("llama",), family="Mistral", read=read_mistral, write=write_mistral,
    settings={
        **OTHERS, "max_position_embeddings": ("context", 131072), "intermediate_size": ("d_ff", 14336),
        "num_key_value_heads": ("n_kv_heads", 8),
    },
    fixed=FIXED, further=(*LLAMA.further, "sliding_window"),
)  # fmt: skip
MINISTRAL = replace(MISTRAL, model_type="ministral", also=("llama", "mistral"), family="Ministral")
QWEN2 = replace(
    LLAMA, model_type="qwen2", family="Qwen2", read=read_qwen2, write=write_qwen, tokenizer_class="Qwen2Tokenizer",
    fixed=FIXED, further=(*LLAMA.further, "use_sliding_window", "sliding_window", "max_window_layers"),
    settings={
        **OTHERS, "vocab_size": ("vocab_size", 151936), "max_position_embeddings": ("context", 32768),
        "intermediate_size": ("d_ff", 22016), "num_key_value_heads": ("n_kv_heads", 32),
    },
)  # fmt: skip
QWEN3 = replace(
    QWEN2, model_type="qwen3", family="Qwen3", read=read_qwen3,
    settings={**QWEN2.settings, "head_dim": ("head_dim", 128)},
)  # fmt: skip
