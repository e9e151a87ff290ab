"""config.json: from Hugging Face's settings to ours and back.

Each architecture has a table of the settings that both know. A setting that only they know must have the value that our
model computes with (`FIXED`); any other is refused by name, since the model would load and be silently wrong.
"""

from __future__ import annotations

import math
from typing import Any

from ..models import BertConfig, ClassifierConfig, GPTConfig, LlamaConfig, ModelConfig, config_from_dict

Settings = dict[str, tuple[str, Any]]  # theirs -> (ours, default where config.json says nothing)

GPT2_SETTINGS: Settings = {
    "vocab_size": ("vocab_size", 50257),
    "n_positions": ("context", 1024),
    "n_layer": ("n_layers", 12),
    "n_head": ("n_heads", 12),
    "n_embd": ("d_model", 768),
    "resid_pdrop": ("dropout", 0.1),
}
LLAMA_SETTINGS: Settings = {
    "vocab_size": ("vocab_size", 32000),
    "max_position_embeddings": ("context", 2048),
    "num_hidden_layers": ("n_layers", 32),
    "num_attention_heads": ("n_heads", 32),
    "num_key_value_heads": ("n_kv_heads", 0),
    "hidden_size": ("d_model", 4096),
    "head_dim": ("head_dim", 0),
    "intermediate_size": ("d_ff", 11008),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "tie_word_embeddings": ("tie_embeddings", False),
    "attention_dropout": ("dropout", 0.0),
}
BERT_SETTINGS: Settings = {
    "vocab_size": ("vocab_size", 30522),
    "max_position_embeddings": ("context", 512),
    "num_hidden_layers": ("n_layers", 12),
    "num_attention_heads": ("n_heads", 12),
    "hidden_size": ("d_model", 768),
    "intermediate_size": ("d_ff", 3072),
    "type_vocab_size": ("token_types", 2),
    "layer_norm_eps": ("norm_eps", 1e-12),
    "hidden_dropout_prob": ("dropout", 0.1),
}
QWEN2_DEFAULTS = {  # where they differ from Llama's
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
}
QWEN_DEFAULTS: dict[str, dict[str, Any]] = {"qwen2": QWEN2_DEFAULTS, "qwen3": {**QWEN2_DEFAULTS, "head_dim": 128}}

# Theirs -> the values that mean what our model computes; the first is their default.
GPT2_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
LLAMA_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, None),
}
BERT_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
HEAD_OF_CLASS = {  # how the names of transformers' classes end
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "mlm",
    "ForPreTraining": "mlm",
    "ForSequenceClassification": "classification",
    "Model": "base",
}
KNOWN = ("gpt2", "llama", "qwen2", "qwen3", "bert")


class ConfigurationError(ValueError):
    """A config.json that does not describe a model of this library: the message names the setting."""


def is_native(values: dict[str, Any]) -> bool:
    """Whether a config.json was written by minillm, not by transformers: the setting names differ."""
    return ("n_layers" in values and "d_model" in values) or values.get("model_type") in (
        "encoder-decoder", "lstm", "classifier"
    )  # fmt: skip


def from_hf(values: dict[str, Any], head: str) -> ModelConfig:
    """Our config for a transformers config.json, with the head "base", "causal", "mlm" or "classification".

    Raises ConfigurationError for an architecture or a setting that would compute something else.
    """
    kind = values.get("model_type")
    if kind == "gpt2":
        ours = translate(values, GPT2_SETTINGS, GPT2_FIXED)
        inner = values.get("n_inner")
        if inner not in (None, 4 * ours["d_model"]):
            raise ConfigurationError(
                f"config.json: n_inner = {inner} is not supported; a GPT-2 has 4 · n_embd or null."
            )
        ours["model_type"] = "gpt"
    elif kind in ("llama", "qwen2", "qwen3"):
        values = {**QWEN_DEFAULTS.get(kind, {}), **values}
        ours = {**translate(values, LLAMA_SETTINGS, LLAMA_FIXED), **llama_biases(values), "model_type": "llama"}
        ours["rope_theta"], ours["rope_scaling"] = rope_settings(values)
        ours["context"] = stretched(ours["context"], ours["rope_scaling"])
        if any(layer != "full_attention" for layer in values.get("layer_types") or []):
            raise ConfigurationError("config.json: layer_types other than full_attention are not supported.")
        if head in ("base", "classification"):
            ours["tie_embeddings"] = True  # no head, so no matrix of its own
    elif kind == "bert":
        ours = {**translate(values, BERT_SETTINGS, BERT_FIXED), "model_type": "bert"}
        ours["head"] = {"base": "none"}.get(head, head)
        ours["pooler"] = head == "base"
        if head == "classification":
            ours |= labels_and_loss(values)
    else:
        raise ConfigurationError(
            f"config.json: model_type = {kind!r} is not an architecture that minillm has. It reads {', '.join(KNOWN)}."
        )
    if head == "classification" and kind != "bert":
        pad_id = values.get("pad_token_id")
        ours = {"decoder": ours, **labels_and_loss(values), "pad_id": pad_id, "model_type": "classifier"}
    try:
        return config_from_dict(ours)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"config.json does not describe a {kind} that can be built: {error}") from None


def translate(values: dict[str, Any], settings: Settings, fixed: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The settings that both know, by our names, after a check of those that only they know."""
    for name, allowed in fixed.items():
        if name in values and values[name] not in allowed:
            raise ConfigurationError(
                f"config.json: {name} = {values[name]!r} is not supported: the model here computes with "
                f"{' or '.join(repr(value) for value in allowed)}, and would give other numbers than were trained."
            )
    return {ours: values.get(theirs, default) for theirs, (ours, default) in settings.items()}


def llama_biases(values: dict[str, Any]) -> dict[str, bool]:
    """Which projections of attention have biases, and whether queries and keys are normed."""
    if values["model_type"] == "qwen2":
        return {"qkv_bias": True, "out_bias": False, "qk_norm": False}
    bias = bool(values.get("attention_bias", False))
    return {"qkv_bias": bias, "out_bias": bias, "qk_norm": values["model_type"] == "qwen3"}


def rope_settings(values: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(base, scaling) of rotary positions, from `rope_parameters` (2025 and later) or `rope_theta` and
    `rope_scaling`."""
    scaling = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ConfigurationError(
            f"config.json: rope_parameters (or rope_scaling) = {scaling!r} must be an object such as "
            '{"rope_type": "linear", "factor": 2.0}.'
        )
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
    context = values.get("max_position_embeddings", 2048)
    original = values.get("original_max_position_embeddings", context)
    if kind == "linear":
        scaling.pop("original_max_position_embeddings", None)
    elif kind == "dynamic":
        scaling["original_max_position_embeddings"] = context
    elif kind in ("yarn", "llama3"):
        scaling.setdefault("original_max_position_embeddings", original)
    if kind == "yarn" and scaling.get("factor") is None:
        scaling["factor"] = context / scaling["original_max_position_embeddings"]
    return float(theta), {**scaling, "rope_type": kind}


def stretched(context: int, scaling: dict[str, Any] | None) -> int:
    """How long texts may be: in config.json, `context` may be the length before or after stretching."""
    if scaling is None or not isinstance(scaling.get("factor"), (int, float)):
        return context
    if scaling["rope_type"] in ("linear", "dynamic"):
        return int(context * scaling["factor"])
    return max(context, int(scaling.get("original_max_position_embeddings", 0) * scaling["factor"]))


def setting_names(model_type: Any) -> set[str]:
    """The entries of config.json that mean something for an architecture."""
    names = {"num_labels", "id2label", "label2id", "problem_type", "bos_token_id", "eos_token_id", "pad_token_id"}
    if model_type == "gpt2":
        return names | set(GPT2_SETTINGS) | set(GPT2_FIXED) | {"n_inner"}
    if model_type == "bert":
        return names | set(BERT_SETTINGS) | set(BERT_FIXED)
    llama = {"attention_bias", "rope_theta", "rope_scaling", "rope_parameters", "layer_types"}
    return names | set(LLAMA_SETTINGS) | set(LLAMA_FIXED) | llama


def labels_and_loss(values: dict[str, Any]) -> dict[str, Any]:
    """How many labels a classifier has, and which loss it is trained with."""
    n = n_labels(values)
    problem_type = values.get("problem_type") or ("regression" if n == 1 else "single_label_classification")
    return {"n_labels": n, "problem_type": problem_type}


def n_labels(values: dict[str, Any]) -> int:
    """Number of classes: that of `id2label`, or `num_labels`, or 2 as everywhere in transformers."""
    labels, number = values.get("id2label") or {}, values.get("num_labels", 2)
    if not isinstance(labels, dict) or not isinstance(number, int) or number < 1:
        raise ConfigurationError(
            f"config.json: id2label = {labels!r} must be an object of names by number, num_labels = {number!r} a whole "
            "number."
        )
    return len(labels) or number


# --- and back ---------------------------------------------------------------------------------------------------------


def to_hf(config: ModelConfig, original: dict[str, Any], head: str) -> dict[str, Any]:
    """The transformers config.json of a model of ours.

    `original` is the config.json that the model came from ({} for a model made here): what is in it and has nothing to
    do with the shape (token ids, labels, comments) is kept. Raises ConfigurationError where no architecture fits.
    """
    if isinstance(config, ClassifierConfig):
        values = to_hf(config.decoder, original, "base")
        if config.pad_id is not None:
            values["pad_token_id"] = config.pad_id
        return {**values, **label_settings(config, original)}
    if isinstance(config, GPTConfig):
        kind, settings, fixed = "gpt2", GPT2_SETTINGS, GPT2_FIXED
    elif isinstance(config, LlamaConfig):
        kind, settings, fixed = llama_kind(config), LLAMA_SETTINGS, LLAMA_FIXED
    elif isinstance(config, BertConfig):
        kind, settings, fixed = "bert", BERT_SETTINGS, BERT_FIXED
    else:
        raise ConfigurationError(
            f"transformers has no architecture for a model of type {config.model_type!r}: save it in minillm's own "
            "format."
        )
    values = {name: allowed[0] for name, allowed in fixed.items()}
    values.update({key: value for key, value in original.items() if key not in ("torch_dtype", "_name_or_path")})
    values.update({theirs: getattr(config, ours) for theirs, (ours, _) in settings.items()})
    values["model_type"] = kind
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.setdefault(name, None)  # without a word, transformers takes ids that a small vocabulary does not have
    if isinstance(config, GPTConfig):
        for name in ("attn_pdrop", "embd_pdrop"):
            values.setdefault(name, config.dropout)
    if isinstance(config, LlamaConfig):
        values["num_key_value_heads"], values["head_dim"] = config.n_kv_heads, config.head_dim
        values["attention_bias"] = config.out_bias
        scaling = config.rope_scaling or {"rope_type": "default"}
        values["rope_parameters"] = {**scaling, "rope_theta": config.rope_theta}
        values.pop("rope_scaling", None)
        values["rope_theta"] = config.rope_theta  # for readers from before rope_parameters
        if head == "base" and "tie_word_embeddings" in original:  # without a head, nothing to say about it
            values["tie_word_embeddings"] = original["tie_word_embeddings"]
        if config.rope_scaling is not None:
            values["rope_scaling"] = config.rope_scaling
            values["max_position_embeddings"] = unstretched(config, original.get("max_position_embeddings"))
    if isinstance(config, BertConfig):
        if config.pad_id is not None:
            values["pad_token_id"] = config.pad_id
        values.setdefault("attention_probs_dropout_prob", config.dropout)
        if config.head == "classification":
            values |= label_settings(config, original)
    return values


def label_settings(config: BertConfig | ClassifierConfig, original: dict[str, Any]) -> dict[str, Any]:
    """A classifier's problem type and, unless `original` names as many as it has, labels."""
    values: dict[str, Any] = {"problem_type": original.get("problem_type") or config.problem_type}
    if len(original.get("id2label") or ()) != config.n_labels:
        values["id2label"] = {str(i): f"LABEL_{i}" for i in range(config.n_labels)}
        values["label2id"] = {label: int(i) for i, label in values["id2label"].items()}
    return values


def unstretched(config: LlamaConfig, given: int | None) -> int:
    """max_position_embeddings for a config whose context is `stretched`: as `given`, if that leads to this context."""
    if given is not None and stretched(given, config.rope_scaling) == config.context:
        return given
    if config.rope_scaling is not None and config.rope_scaling["rope_type"] == "dynamic":
        return int(config.rope_scaling["original_max_position_embeddings"])
    if config.rope_scaling is not None and config.rope_scaling["rope_type"] == "linear":
        return math.ceil(config.context / config.rope_scaling["factor"])
    return config.context


def llama_kind(config: LlamaConfig) -> str:
    """Llama, Qwen2 or Qwen3: whose attention has these biases and norms."""
    if config.qk_norm and config.qkv_bias == config.out_bias:
        return "qwen3"
    if not config.qk_norm and config.qkv_bias and not config.out_bias:
        return "qwen2"
    if not config.qk_norm and config.qkv_bias == config.out_bias:
        return "llama"
    raise ConfigurationError(
        f"transformers has no architecture with qkv_bias = {config.qkv_bias}, out_bias = {config.out_bias} and "
        f"qk_norm = {config.qk_norm}: Llama has both biases or none, Qwen2 only the first, Qwen3 the norms and both "
        "or none."
    )


def head_in(values: dict[str, Any]) -> str:
    """The head that a transformers config.json says its weights have; that of pretraining where it says nothing."""
    names = values.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"config.json: architectures = {names!r} must be a list of names of classes.")
    kind = values.get("model_type")
    if not names:
        return "mlm" if kind == "bert" else "causal"
    for ending, head in HEAD_OF_CLASS.items():
        if names[0].endswith(ending):
            return head
    raise ConfigurationError(f"config.json: architectures = {names} is not supported: {', '.join(HEAD_OF_CLASS)} are.")


def architecture(config: ModelConfig, kind: str, head: str) -> str:
    """The class that transformers loads it with."""
    family = {"gpt2": "GPT2", "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "bert": "Bert"}[kind]
    if isinstance(config, BertConfig) and config.next_sentence:
        return "BertForPreTraining"
    if kind == "gpt2" and head == "causal":
        return "GPT2LMHeadModel"
    suffix = {
        "base": "Model",
        "causal": "ForCausalLM",
        "mlm": "ForMaskedLM",
        "classification": "ForSequenceClassification",
    }
    return family + suffix[head]
