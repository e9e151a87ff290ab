"""Random small mixtures of experts of transformers."""

import numpy as np
from hf_models import torch, transformers


def decoder(rng):
    """The shape of a Llama."""
    n_kv_heads = int(rng.integers(1, 4))
    n_heads = n_kv_heads * int(rng.integers(1, 4))
    return {
        "vocab_size": int(rng.integers(20, 70)), "hidden_size": n_heads * 2 * int(rng.integers(1, 5)),
        "intermediate_size": int(rng.integers(5, 40)), "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "head_dim": 2 * int(rng.integers(1, 5)),
        "max_position_embeddings": int(rng.integers(16, 40)), "tie_word_embeddings": bool(rng.integers(2)),
        "rms_norm_eps": float(10.0 ** -rng.integers(3, 8)), "attention_bias": bool(rng.integers(2)),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(rng.integers(50, 20000))},
    }  # fmt: skip


def experts(rng, name):
    n = int(rng.integers(2, 6))
    return {name: n, "num_experts_per_tok": int(rng.integers(1, n + 1)), "output_router_logits": bool(rng.integers(2)),
            "router_aux_loss_coef": float(rng.random())}  # fmt: skip


def qwen3_moe(rng):
    values = {**decoder(rng), **experts(rng, "num_experts"), "norm_topk_prob": bool(rng.integers(2))}
    values["moe_intermediate_size"] = int(rng.integers(3, 20))
    values["num_hidden_layers"] += 1  # one of which has experts
    if rng.integers(2):
        values |= {"use_sliding_window": True, "sliding_window": int(rng.integers(1, 14))}
    if rng.integers(2):
        values["decoder_sparse_step"] = int(rng.integers(1, 3))
    return {**values, "mlp_only_layers": [0]} if rng.integers(2) else values


def gpt_oss(rng):
    values = {**decoder(rng), **experts(rng, "num_local_experts"), "sliding_window": int(rng.integers(1, 14))}
    values |= {"swiglu_limit": (0.5, 7.0)[rng.integers(2)], "swiglu_alpha": float(rng.random())}
    if rng.integers(2):
        kinds = ("full_attention", "sliding_attention")
        values["layer_types"] = [kinds[rng.integers(2)] for _ in range(values["num_hidden_layers"])]
    if rng.integers(2):
        values["rope_parameters"] |= {"rope_type": "yarn", "factor": 4.0, "truncate": bool(rng.integers(2)),
                                      "original_max_position_embeddings": 8}  # fmt: skip
    return values


SHAPES = {"Qwen3Moe": qwen3_moe, "GptOss": gpt_oss}


def moe_model(name, seed):
    """A causal model in which every parameter is random."""
    config = getattr(transformers, f"{name}Config")(**SHAPES[name](np.random.default_rng(seed)))
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape) + (parameter.ndim == 1))
    return model
