"""The checkpoints of BERT (Devlin et al. 2018, arXiv 1810.04805), of RoBERTa (Liu et al. 2019, arXiv 1907.11692) and
XLM-R (Conneau et al. 2019, arXiv 1911.02116), which is the same by another name, and of DistilBERT (Sanh et al. 2019,
arXiv 1910.01108)."""

from __future__ import annotations

from dataclasses import replace

from ..models import BertConfig
from .architecture import Architecture, ConfigurationError, Values, own_or_shared

POOLERS, NEXT_SENTENCE = ("bert.pooler.dense.weight", "roberta.pooler.dense.weight"), "cls.seq_relationship.weight"


def read(values: Values, ours: Values, head: str) -> Values:
    return {"head": "none" if head == "base" else head, "pooler": head == "base"}


def read_roberta(values: Values, ours: Values, head: str) -> Values:
    """Its table of positions begins with rows for padding and for what comes before it, which no text has."""
    pad_id = values.get("pad_token_id", 1)
    if type(pad_id) is not int or not 0 <= pad_id < ours["context"] - 1:
        rule = f"must be an id below max_position_embeddings = {ours['context']} - 1: positions are counted from it on"
        raise ConfigurationError(f"config.json: pad_token_id = {pad_id!r:.50} {rule}.")
    context = ours["context"] - pad_id - 1
    return {**read(values, ours, head), "family": "roberta", "pad_id": pad_id, "context": context}


def read_distilbert(values: Values, ours: Values, head: str) -> Values:
    return {**read(values, ours, head), "family": "distilbert", "pooler": False}


def variant(config: BertConfig) -> str:
    """BERT, RoBERTa or DistilBERT."""
    if config.family == "distilbert" and config.norm_eps != 1e-12:
        raise ConfigurationError(f"a DistilBERT has norm_eps = 1e-12 in transformers, not {config.norm_eps:g}.")
    return config.family


def write(config: BertConfig, original: Values, head: str) -> Values:
    values: Values = {
        "attention_probs_dropout_prob": own_or_shared(config.attention_dropout, config.dropout),
        "max_position_embeddings": config.first_position + config.context,
    }
    if config.pad_id is not None:
        values["pad_token_id"] = config.pad_id
    if config.next_sentence:
        values["architectures"] = ["BertForPreTraining"]
    return values


def write_distilbert(config: BertConfig, original: Values, head: str) -> Values:
    return {
        "attention_dropout": own_or_shared(config.attention_dropout, config.dropout),
        "seq_classif_dropout": own_or_shared(config.classifier_dropout, config.dropout),
        **({} if config.pad_id is None else {"pad_token_id": config.pad_id}),
    }


def as_stored(config: BertConfig, names: set[str], asked: bool) -> BertConfig:
    """The config with the pooler and the next-sentence head that the files hold, or without. A masked language model
    that somebody asked for has neither: no loss of its would reach them."""
    if config.head == "classification" or (config.head == "mlm" and asked):
        return config
    next_sentence = config.head == "mlm" and NEXT_SENTENCE in names
    pooler = not names.isdisjoint(POOLERS) and not next_sentence  # which brings it along
    return replace(config, pooler=pooler, next_sentence=next_sentence)


BERT = Architecture(
    model_type="bert",
    config_class=BertConfig,
    variant=variant,
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
        "attention_probs_dropout_prob": ("attention_dropout", 0.1), "classifier_dropout": ("classifier_dropout", None),
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

BODY = {ours: theirs.removeprefix("bert.") for ours, theirs in BERT.names.items() if theirs.startswith("bert.")}
ROBERTA = replace(
    BERT, model_type="roberta", family="Roberta", tokenizer_class="RobertaTokenizer", read=read_roberta,
    heads={"ForMaskedLM": "mlm", "ForSequenceClassification": "classification", "Model": "base"},
    settings={**BERT.settings, "vocab_size": ("vocab_size", 50265)}, further=("pad_token_id",),
    names={
        **{ours: f"roberta.{theirs}" for ours, theirs in BODY.items()},
        "classifier_dense": "classifier.dense", "classifier": "classifier.out_proj",
        "mlm.transform": "lm_head.dense", "mlm.norm": "lm_head.layer_norm", "mlm": "lm_head",
    },
    prefix="roberta.",
    head_names=("roberta.pooler.", "lm_head.", "classifier.", "qa_outputs."),
    twins={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.bias": "lm_head.bias",
    },
)  # fmt: skip
XLM_ROBERTA = replace(
    ROBERTA, model_type="xlm-roberta", also=("roberta",), family="XLMRoberta", tokenizer_class="XLMRobertaTokenizer",
    settings={**ROBERTA.settings, "vocab_size": ("vocab_size", 30522)},
)  # fmt: skip
LAYER = "distilbert.transformer.layer.*"
DISTILBERT = replace(
    BERT, model_type="distilbert", family="DistilBert", tokenizer_class="DistilBertTokenizer",
    read=read_distilbert, write=write_distilbert,
    heads={"ForMaskedLM": "mlm", "ForSequenceClassification": "classification", "Model": "base"},
    settings={
        "vocab_size": ("vocab_size", 30522), "max_position_embeddings": ("context", 512), "n_layers": ("n_layers", 6),
        "n_heads": ("n_heads", 12), "dim": ("d_model", 768), "hidden_dim": ("d_ff", 3072), "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.1), "seq_classif_dropout": ("classifier_dropout", 0.2),
    },
    fixed={"activation": ("gelu",), "tie_word_embeddings": (True,)},
    names={
        "token_embedding": "distilbert.embeddings.word_embeddings",
        "position_embedding": "distilbert.embeddings.position_embeddings", "norm": "distilbert.embeddings.LayerNorm",
        **{f"blocks.*.attn.{ours}_proj": f"{LAYER}.attention.{theirs}_lin"
           for ours, theirs in {"q": "q", "k": "k", "v": "v", "o": "out"}.items()},
        "blocks.*.norm_1": f"{LAYER}.sa_layer_norm", "blocks.*.norm_2": f"{LAYER}.output_layer_norm",
        "blocks.*.fc": f"{LAYER}.ffn.lin1", "blocks.*.proj": f"{LAYER}.ffn.lin2",
        "classifier_dense": "pre_classifier", "classifier": "classifier",
        "mlm.transform": "vocab_transform", "mlm.norm": "vocab_layer_norm", "mlm": "vocab_projector",
    },
    prefix="distilbert.",
    head_names=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pre_classifier.", "classifier.",
                "qa_outputs."),
    twins={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
)  # fmt: skip
