"""GPT-2's checkpoints (Radford et al. 2019).

Its four matrices per layer stand on their side: its "Conv1D" computes y = x W + b with W (in, out), a Linear
y = x Wᵀ + b with W (out, in). Everything else only has another name.
"""

from __future__ import annotations

from ..models import GPTConfig
from .architecture import Architecture, ConfigurationError, Values


def read(values: Values, ours: Values, head: str) -> Values:
    if values.get("n_inner") not in (None, 4 * ours["d_model"]):
        raise ConfigurationError(f"config.json: n_inner = {values['n_inner']} must be 4 · n_embd or null.")
    return {}


def write(config: GPTConfig, original: Values, head: str) -> Values:
    return {name: original.get(name, config.dropout) for name in ("attn_pdrop", "embd_pdrop")}


GPT2 = Architecture(
    model_type="gpt2",
    config_class=GPTConfig,
    family="GPT2",
    heads={"LMHeadModel": "causal", "ForSequenceClassification": "classification", "Model": "base"},
    settings={
        "vocab_size": ("vocab_size", 50257), "n_positions": ("context", 1024), "n_layer": ("n_layers", 12),
        "n_head": ("n_heads", 12), "n_embd": ("d_model", 768), "resid_pdrop": ("dropout", 0.1),
    },
    fixed={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    further=("n_inner",),
    read=read,
    write=write,
    tokenizer_class="GPT2Tokenizer",
    names={
        "token_embedding": "transformer.wte", "position_embedding": "transformer.wpe", "norm": "transformer.ln_f",
        "blocks.*.norm_1": "transformer.h.*.ln_1", "blocks.*.norm_2": "transformer.h.*.ln_2",
        "blocks.*.attn.qkv": "transformer.h.*.attn.c_attn", "blocks.*.attn.proj": "transformer.h.*.attn.c_proj",
        "blocks.*.mlp.fc": "transformer.h.*.mlp.c_fc", "blocks.*.mlp.proj": "transformer.h.*.mlp.c_proj",
    },
    prefix="transformer.",
    head_names=("lm_head.", "score.", "classifier.", "qa_outputs.", "multiple_choice_head."),
    transposed=("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight"),
    constants=(r"h\.\d+\.attn\.(masked_)?bias$",),
    twins={"lm_head.weight": "transformer.wte.weight"},
)  # fmt: skip
