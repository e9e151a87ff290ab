"""GPT-2's checkpoints (Radford et al. 2019).

Its four matrices per layer stand on their side: its "Conv1D" computes y = x W + b with W (in, out), a Linear
y = x Wᵀ + b with W (out, in). Everything else only has another name.
"""

from __future__ import annotations

from ..models import GPTConfig
from .architecture import Architecture, Values, own_or_shared


def write(config: GPTConfig, original: Values, head: str) -> Values:
    return {
        "attn_pdrop": own_or_shared(config.attention_dropout, config.dropout),
        "embd_pdrop": own_or_shared(config.embedding_dropout, config.dropout),
        "n_inner": config.d_ff or None,
    }


GPT2 = Architecture(
    model_type="gpt2",
    config_class=GPTConfig,
    family="GPT2",
    heads={"LMHeadModel": "causal", "ForSequenceClassification": "classification", "Model": "base"},
    settings={
        "vocab_size": ("vocab_size", 50257), "n_positions": ("context", 1024), "n_layer": ("n_layers", 12),
        "n_head": ("n_heads", 12), "n_embd": ("d_model", 768), "resid_pdrop": ("dropout", 0.1),
        "attn_pdrop": ("attention_dropout", 0.1), "embd_pdrop": ("embedding_dropout", 0.1), "n_inner": ("d_ff", 0),
        "layer_norm_epsilon": ("norm_eps", 1e-5),
    },
    fixed={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,), "tie_word_embeddings": (True,),
    },
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
