"""BERT's checkpoints (Devlin et al. 2018, arXiv 1810.04805)."""

from __future__ import annotations

from dataclasses import replace

from ..models import BertConfig
from .architecture import Architecture, Values

POOLER, NEXT_SENTENCE = "bert.pooler.dense.weight", "cls.seq_relationship.weight"


def read(values: Values, ours: Values, head: str) -> Values:
    return {"head": "none" if head == "base" else head, "pooler": head == "base"}


def write(config: BertConfig, original: Values, head: str) -> Values:
    values: Values = {"attention_probs_dropout_prob": original.get("attention_probs_dropout_prob", config.dropout)}
    if config.pad_id is not None:
        values["pad_token_id"] = config.pad_id
    if config.next_sentence:
        values["architectures"] = ["BertForPreTraining"]
    return values


def as_stored(config: BertConfig, names: set[str], asked: bool) -> BertConfig:
    """The config with the pooler and the next-sentence head that the files hold, or without. A masked language model
    that somebody asked for has neither: no loss of its would reach them."""
    if config.head == "classification" or (config.head == "mlm" and asked):
        return config
    next_sentence = config.head == "mlm" and NEXT_SENTENCE in names
    pooler = POOLER in names and not next_sentence  # which brings it along
    return replace(config, pooler=pooler, next_sentence=next_sentence)


BERT = Architecture(
    model_type="bert",
    config_class=BertConfig,
    is_decoder=False,
    family="Bert",
    heads={
        "ForMaskedLM": "mlm", "ForPreTraining": "mlm", "ForSequenceClassification": "classification", "Model": "base",
    },
    settings={
        "vocab_size": ("vocab_size", 30522), "max_position_embeddings": ("context", 512),
        "num_hidden_layers": ("n_layers", 12), "num_attention_heads": ("n_heads", 12),
        "hidden_size": ("d_model", 768), "intermediate_size": ("d_ff", 3072), "type_vocab_size": ("token_types", 2),
        "layer_norm_eps": ("norm_eps", 1e-12), "hidden_dropout_prob": ("dropout", 0.1),
    },
    fixed={
        "hidden_act": ("gelu",), "position_embedding_type": ("absolute", None), "is_decoder": (False,),
        "add_cross_attention": (False,), "tie_word_embeddings": (True,),
    },
    read=read,
    write=write,
    tokenizer_class="BertTokenizer",
    names={
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
        "pooler": "bert.pooler.dense", "classifier": "classifier", "next_sentence": "cls.seq_relationship",
        "mlm.transform": "cls.predictions.transform.dense", "mlm.norm": "cls.predictions.transform.LayerNorm",
        "mlm": "cls.predictions",
    },
    prefix="bert.",
    head_names=("bert.pooler.", "cls.", "classifier.", "qa_outputs."),
    constants=(r"embeddings\.position_ids$",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},  # in 2018
    twins={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    as_stored=as_stored,
)  # fmt: skip
