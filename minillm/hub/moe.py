"""The checkpoints of mixtures of experts: Qwen3-MoE (arXiv 2505.09388), whose files have tensors for each expert or one
for all of a layer, and gpt-oss (OpenAI 2025), whose files have one for all. (Its published weights are quantized: see
configs.named_architecture.)"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..models import MoeConfig
from .architecture import ConfigurationError, Values
from .llama import LLAMA, MAX_LAYERS, QWEN3, layer_types, read, window_of, write, written_layers

YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip  # where a gpt_oss says nothing of its positions


def read_qwen3_moe(values: Values, ours: Values, head: str) -> Values:
    window = values.get("sliding_window", 4096) if values.get("use_sliding_window") else None
    step, dense = values.get("decoder_sparse_step", 1), values.get("mlp_only_layers") or []
    if type(step) is not int or step < 1:
        raise ConfigurationError(f"config.json: decoder_sparse_step = {step!r:.50} must be a whole number above 0.")
    if not isinstance(dense, list) or not all(type(layer) is int for layer in dense):
        raise ConfigurationError(f"config.json: mlp_only_layers = {dense!r:.80} must be a list of numbers of layers.")
    layers = [i for i in range(min(ours["n_layers"], MAX_LAYERS)) if i in dense or (i + 1) % step]
    found = {**read({**values, "layer_types": None}, ours, head), "qk_norm": True, "dense_layers": layers}
    return {**found, **window_of(window, ["sliding_attention"]), **router(values, ours)}


def read_gpt_oss(values: Values, ours: Values, head: str) -> Values:
    if values.get("layer_types") is None:
        layers = ["full_attention" if i % 2 else "sliding_attention" for i in range(min(ours["n_layers"], MAX_LAYERS))]
    else:
        layers = layer_types(values, ours, window=True)
    window = values.get("sliding_window", 128)
    if window is None and "sliding_attention" in layers:
        raise ConfigurationError("config.json: sliding_window of a gpt_oss must be a whole number, not null.")
    scaling = values.get("rope_parameters") or values.get("rope_scaling") or YARN
    given = {"rope_theta": 150000.0, "attention_bias": True, **values, "rope_parameters": scaling, "layer_types": None}
    more = {"qk_norm": False, "attention_sinks": True, "router_bias": True, "d_ff": ours["d_expert"]}
    return {**read(given, ours, head), **more, **window_of(window, layers), **router(values, ours)}


def router(values: Values, ours: Values) -> Values:
    """What both say of the router: `output_router_logits` adds a loss on it, and old files call the experts' number
    otherwise."""
    n, share = values.get("num_local_experts", ours["n_experts"]), values.get("router_aux_loss_coef", 0.001)
    if type(n) is not int:
        raise ConfigurationError(f"config.json: num_local_experts = {n!r:.50} must be a whole number.")
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share < float("inf"):
        raise ConfigurationError(f"config.json: router_aux_loss_coef = {share!r:.50} must be a number, 0 or more.")
    return {"n_experts": n, "balance": float(share) if values.get("output_router_logits") else 0.0}


def write_router(config: MoeConfig, original: Values) -> Values:
    share = config.balance or original.get("router_aux_loss_coef", 0.001)
    return {
        "num_local_experts": config.n_experts,  # the newer name, in every file
        "output_router_logits": config.balance > 0,
        "router_aux_loss_coef": share,
    }


def write_qwen3_moe(config: MoeConfig, original: Values, head: str) -> Values:
    window: Values = {"use_sliding_window": True, "sliding_window": config.window} if config.window else {}
    dense: Values = {"decoder_sparse_step": 1, "mlp_only_layers": list(config.dense_layers)}
    return {**write(config, original, head), **write_router(config, original), **dense, **window}


def write_gpt_oss(config: MoeConfig, original: Values, head: str) -> Values:
    layers = {"layer_types": written_layers(config), "sliding_window": config.window or original.get("sliding_window")}
    return {**write(config, original, head), **write_router(config, original), **layers}


def variant(config: MoeConfig) -> str | None:
    """Qwen3-MoE or gpt-oss: whose layers have these biases, norms and experts; None: nobody's."""
    c = config
    if c.qkv_bias != c.out_bias or c.mlp_bias:
        return None
    if c.qk_norm and not (c.attention_sinks or c.swiglu_limit or c.router_bias or c.full_layers):
        return "qwen3_moe"
    own = c.attention_sinks and c.swiglu_limit and c.router_bias and c.norm_weights
    return "gpt_oss" if own and not (c.qk_norm or c.dense_layers) else None


EXPERTS: dict[str, Any] = {
    "num_experts": ("n_experts", 128), "num_experts_per_tok": ("top_k", 8),
    "moe_intermediate_size": ("d_expert", 768), "norm_topk_prob": ("norm_weights", False),
}  # fmt: skip
ROUTER = ("num_local_experts", "router_aux_loss_coef", "output_router_logits")
QWEN3_MOE = replace(
    QWEN3, model_type="qwen3_moe", config_class=MoeConfig, variant=variant, family="Qwen3Moe",
    read=read_qwen3_moe, write=write_qwen3_moe,
    settings={
        **QWEN3.settings, **EXPERTS, "max_position_embeddings": ("context", 32768), "head_dim": ("head_dim", 0),
        "num_hidden_layers": ("n_layers", 24), "num_key_value_heads": ("n_kv_heads", 4),
        "hidden_size": ("d_model", 2048), "intermediate_size": ("d_ff", 6144),
    },
    further=(*QWEN3.further, *ROUTER, "decoder_sparse_step", "mlp_only_layers"),
    names={
        **QWEN3.names, "blocks.*.mlp.router": "model.layers.*.mlp.gate",
        **{f"blocks.*.mlp.experts.*.{name}": f"model.layers.*.mlp.experts.*.{name}_proj"
           for name in ("gate", "up", "down")},
    },
    fused={
        "experts.gate_up_proj": ("gate_proj.weight", "up_proj.weight"), "experts.down_proj": ("down_proj.weight",),
    },
)  # fmt: skip
GPT_OSS = replace(
    LLAMA, model_type="gpt_oss", config_class=MoeConfig, variant=variant, family="GptOss",
    read=read_gpt_oss, write=write_gpt_oss,
    settings={
        "vocab_size": ("vocab_size", 201088), "max_position_embeddings": ("context", 131072),
        "num_hidden_layers": ("n_layers", 36), "num_attention_heads": ("n_heads", 64),
        "num_key_value_heads": ("n_kv_heads", 8), "hidden_size": ("d_model", 2880), "head_dim": ("head_dim", 64),
        "intermediate_size": ("d_expert", 2880), "rms_norm_eps": ("norm_eps", 1e-5),
        "tie_word_embeddings": ("tie_embeddings", False), "attention_dropout": ("attention_dropout", 0.0),
        "num_local_experts": ("n_experts", 128), "num_experts_per_tok": ("top_k", 4),
        "swiglu_limit": ("swiglu_limit", 7.0), "swiglu_alpha": ("swiglu_alpha", 1.702),
    },
    fixed={"hidden_act": ("silu", "swish"), "partial_rotary_factor": (1.0, None)},
    further=(*LLAMA.further, *ROUTER, "sliding_window"),
    names={
        **LLAMA.names, "blocks.*.attn": "model.layers.*.self_attn", "blocks.*.mlp.router": "model.layers.*.mlp.router",
        **{f"blocks.*.mlp.experts.*.{name}": f"model.layers.*.mlp.experts.*.{name}_proj"
           for name in ("gate_up", "down")},
    },
    transposed=(".gate_up.weight", ".down.weight"),
    fused={
        f"experts.{name}_proj{ending}": (f"{name}_proj.{kind}",)
        for name in ("gate_up", "down") for ending, kind in (("", "weight"), ("_bias", "bias"))
    },
    writes_fused=True,
)  # fmt: skip
