"""What a parameter is called here and in Hugging Face's checkpoints: one table per architecture, layer numbers as `*`.

GPT-2's four matrices per layer stand on their side in its files: its "Conv1D" computes y = x W + b with W (in, out), a
Linear y = x Wᵀ + b with W (out, in). Everything else only has another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..models import BertConfig, ClassifierConfig, GPTConfig, LlamaConfig, ModelConfig

GPT2 = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "blocks.*.norm_1": "transformer.h.*.ln_1",
    "blocks.*.attn.qkv": "transformer.h.*.attn.c_attn",
    "blocks.*.attn.proj": "transformer.h.*.attn.c_proj",
    "blocks.*.norm_2": "transformer.h.*.ln_2",
    "blocks.*.mlp.fc": "transformer.h.*.mlp.c_fc",
    "blocks.*.mlp.proj": "transformer.h.*.mlp.c_proj",
    "norm": "transformer.ln_f",
}
GPT2_TRANSPOSED = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight")

LLAMA = {  # Qwen2 and Qwen3 too
    "token_embedding": "model.embed_tokens",
    "blocks.*.norm_1": "model.layers.*.input_layernorm",
    "blocks.*.attn.q_proj": "model.layers.*.self_attn.q_proj",
    "blocks.*.attn.k_proj": "model.layers.*.self_attn.k_proj",
    "blocks.*.attn.v_proj": "model.layers.*.self_attn.v_proj",
    "blocks.*.attn.o_proj": "model.layers.*.self_attn.o_proj",
    "blocks.*.attn.q_norm": "model.layers.*.self_attn.q_norm",
    "blocks.*.attn.k_norm": "model.layers.*.self_attn.k_norm",
    "blocks.*.norm_2": "model.layers.*.post_attention_layernorm",
    "blocks.*.mlp.gate": "model.layers.*.mlp.gate_proj",
    "blocks.*.mlp.up": "model.layers.*.mlp.up_proj",
    "blocks.*.mlp.down": "model.layers.*.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}

BERT = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "token_type_embedding": "bert.embeddings.token_type_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "blocks.*.attn.q_proj": "bert.encoder.layer.*.attention.self.query",
    "blocks.*.attn.k_proj": "bert.encoder.layer.*.attention.self.key",
    "blocks.*.attn.v_proj": "bert.encoder.layer.*.attention.self.value",
    "blocks.*.attn.o_proj": "bert.encoder.layer.*.attention.output.dense",
    "blocks.*.norm_1": "bert.encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.fc": "bert.encoder.layer.*.intermediate.dense",
    "blocks.*.proj": "bert.encoder.layer.*.output.dense",
    "blocks.*.norm_2": "bert.encoder.layer.*.output.LayerNorm",
    "pooler": "bert.pooler.dense",
    "mlm.transform": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm": "cls.predictions",
    "next_sentence": "cls.seq_relationship",
    "classifier": "classifier",
}


@dataclass(frozen=True)
class Layout:
    """How the checkpoints of one architecture are written."""

    table: dict[str, str]
    prefix: str  # of every tensor that is not a head's; a checkpoint without any head may leave it out
    heads: tuple[str, ...]  # how the names of heads begin: what one task's checkpoint has and another's has not
    constants: tuple[str, ...]  # patterns of what old files hold besides weights, computed here
    transposed: tuple[str, ...] = ()  # endings of our names whose matrix stands on its side in the file


GPT2_HEADS = ("lm_head.", "score.", "classifier.", "qa_outputs.", "multiple_choice_head.")
BERT_HEADS = ("bert.pooler.", "cls.", "classifier.", "qa_outputs.")
GPT2_LAYOUT = Layout(GPT2, "transformer.", GPT2_HEADS, (r"h\.\d+\.attn\.(masked_)?bias$",), GPT2_TRANSPOSED)
LLAMA_LAYOUT = Layout(LLAMA, "model.", ("lm_head.", "score.", "qa_outputs."), (r"rotary_emb\.inv_freq$",))
BERT_LAYOUT = Layout(BERT, "bert.", BERT_HEADS, (r"embeddings\.position_ids$",))


def layout_of(config: ModelConfig) -> Layout | None:
    """The layout of a model's Hugging Face checkpoint; None where there is no such architecture (LSTM, and the
    encoder–decoder of 2017)."""
    if isinstance(config, GPTConfig):
        return GPT2_LAYOUT
    if isinstance(config, LlamaConfig):
        return LLAMA_LAYOUT
    if isinstance(config, BertConfig):
        return BERT_LAYOUT
    if isinstance(config, ClassifierConfig):
        layout = layout_of(config.decoder)
        assert layout is not None
        table = {f"decoder.{ours}": theirs for ours, theirs in layout.table.items()}
        return replace(layout, table={**table, "score": "score"})
    return None


def hf_name(name: str, layout: Layout) -> str:
    """The Hugging Face name of a parameter of ours.

    >>> hf_name("blocks.3.attn.qkv.weight", GPT2_LAYOUT)
    'transformer.h.3.attn.c_attn.weight'
    """
    path, _, kind = name.rpartition(".")
    number = re.search(r"(?<=\.)\d+(?=\.)", path)
    if number is None:
        return f"{layout.table[path]}.{kind}"
    theirs = layout.table[path.replace(f".{number.group()}.", ".*.", 1)]
    return f"{theirs.replace('*', number.group())}.{kind}"


def is_transposed(name: str, layout: Layout) -> bool:
    return name.endswith(layout.transposed) if layout.transposed else False


def canonical_names(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Names in a file -> the names of the table: the prefix added where a checkpoint was saved without, the names that
    BERT's norms had in 2018 (gamma, beta) made today's. Constants are left out."""
    found = {}
    names = list(names)
    bare = not any(name.startswith(layout.prefix) for name in names)
    for name in names:
        if any(re.search(pattern, name) for pattern in layout.constants):
            continue
        today = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        if bare and not today.startswith(layout.heads):
            today = layout.prefix + today
        found[name] = today
    return found
