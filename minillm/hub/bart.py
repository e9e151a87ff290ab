"""Checkpoints of BART (Lewis et al. 2019, arXiv 1910.13461) and of Marian, the translators opus-mt (Junczys-Dowmunt et
al. 2018, arXiv 1804.00344): the encoder–decoder of models/encoder_decoder.py.

BART has learned positions, a norm on the embeddings and the exact GELU. Marian has waves, whose sines stand before
their cosines, and no such norm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..models import EncoderDecoderConfig
from .architecture import Architecture, ConfigurationError, Values

COMMON = {"norm": "post", "norm_eps": 1e-5, "shared_embeddings": True}
BART_ONLY = {**COMMON, "positions": "learned", "first_position": 2, "embedding_norm": True}
MARIAN_ONLY = {**COMMON, "positions": "halves", "first_position": 0, "embedding_norm": False}


def read_bart(values: Values, ours: Values, head: str) -> Values:
    return BART_ONLY | common(values, ours, head)


def read_marian(values: Values, ours: Values, head: str) -> Values:
    own = values.get("decoder_vocab_size")
    if own not in (None, ours["vocab_size"]):
        raise ConfigurationError(f"config.json: decoder_vocab_size = {own!r} must be vocab_size, {ours['vocab_size']}.")
    return MARIAN_ONLY | common(values, ours, head)


def common(values: Values, ours: Values, head: str) -> Values:
    """What both have. Raises ConfigurationError for a decoder of another width than the encoder, and for another
    activation."""
    for theirs in ("attention_heads", "ffn_dim"):
        encoder, decoder = (values.get(f"{side}_{theirs}") for side in ("encoder", "decoder"))
        if encoder != decoder:
            raise ConfigurationError(
                f"config.json: decoder_{theirs} = {decoder!r} must be encoder_{theirs}, {encoder!r}: minillm has no "
                "encoder-decoder of two widths."
            )
    activation = {"swish": "silu"}.get(ours["activation"], ours["activation"])
    if activation not in ("relu", "gelu", "silu"):
        raise ConfigurationError(
            f"config.json: activation_function = {activation!r:.50} must be gelu, relu, silu or swish."
        )
    return {"activation": activation, "logits_bias": head == "seq2seq"}


def write(config: EncoderDecoderConfig, original: Values, head: str) -> Values:
    values: Values = {"decoder_layers": config.decoder_layers, "is_encoder_decoder": True}
    values |= {"decoder_attention_heads": config.n_heads, "decoder_ffn_dim": config.d_ff}
    values["attention_dropout"] = config.dropout if config.attention_dropout is None else config.attention_dropout
    if config.activation == "silu":
        values["activation_function"] = original.get("activation_function", "silu")
    return values


def write_marian(config: EncoderDecoderConfig, original: Values, head: str) -> Values:
    return {**write(config, original, head), "decoder_vocab_size": config.vocab_size}


def variant(config: EncoderDecoderConfig) -> str | None:
    """BART or Marian, or None, as for the model of 2017."""
    kinds: dict[str, dict[str, Any]] = {"bart": BART_ONLY, "marian": MARIAN_ONLY}
    return next((k for k, own in kinds.items() if all(getattr(config, n) == v for n, v in own.items())), None)


BLOCK = {
    "attn.q_proj": "self_attn.q_proj", "attn.k_proj": "self_attn.k_proj", "attn.v_proj": "self_attn.v_proj",
    "attn.o_proj": "self_attn.out_proj", "add_attn.norm": "self_attn_layer_norm", "mlp.fc": "fc1", "mlp.proj": "fc2",
    "add_mlp.norm": "final_layer_norm",
}  # fmt: skip
CROSS = {
    "cross.q_proj": "encoder_attn.q_proj", "cross.k_proj": "encoder_attn.k_proj",
    "cross.v_proj": "encoder_attn.v_proj", "cross.o_proj": "encoder_attn.out_proj",
    "add_cross.norm": "encoder_attn_layer_norm",
}  # fmt: skip
BART = Architecture(
    model_type="bart",
    config_class=EncoderDecoderConfig,
    variant=variant,
    is_decoder=False,
    family="Bart",
    heads={"ForConditionalGeneration": "seq2seq", "ForSequenceClassification": "classification", "Model": "base"},
    settings={
        "vocab_size": ("vocab_size", 50265), "max_position_embeddings": ("context", 1024),
        "encoder_layers": ("n_layers", 12), "decoder_layers": ("n_decoder_layers", 12),
        "encoder_attention_heads": ("n_heads", 16), "encoder_ffn_dim": ("d_ff", 4096), "d_model": ("d_model", 1024),
        "dropout": ("dropout", 0.1), "attention_dropout": ("attention_dropout", 0.0),
        "activation_dropout": ("activation_dropout", 0.0), "activation_function": ("activation", "gelu"),
        "scale_embedding": ("scaled_embeddings", False), "pad_token_id": ("pad_id", 1),
        "decoder_start_token_id": ("start_id", 2),
    },
    fixed={
        "tie_word_embeddings": (True,), "is_decoder": (False,), "normalize_before": (False,),
        "add_final_layer_norm": (False,), "normalize_embedding": (True,), "static_position_embeddings": (False,),
        "encoder_layerdrop": (0.0, 0), "decoder_layerdrop": (0.0, 0),
    },
    further=("decoder_attention_heads", "decoder_ffn_dim", "classifier_dropout"),
    read=read_bart,
    write=write,
    tokenizer_class="BartTokenizer",
    names={
        "target_embedding": "model.shared", "logits_bias": "final_logits_bias",
        "source_position_embedding": "model.encoder.embed_positions",
        "target_position_embedding": "model.decoder.embed_positions",
        "source_norm": "model.encoder.layernorm_embedding", "target_norm": "model.decoder.layernorm_embedding",
        **{f"encoder.*.{ours}": f"model.encoder.layers.*.{theirs}" for ours, theirs in BLOCK.items()},
        **{f"decoder.*.{ours}": f"model.decoder.layers.*.{theirs}" for ours, theirs in {**BLOCK, **CROSS}.items()},
    },
    prefix="model.",
    classifier={"dense": "classification_head.dense", "score": "classification_head.out_proj"},
    head_names=("final_logits_bias", "lm_head.", "classification_head."),
    constants=(r"(en|de)coder\.version$",),
    twins=dict.fromkeys(
        ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
        "model.shared.weight",
    ),
)  # fmt: skip
MARIAN = replace(
    BART, model_type="marian", family="Marian", heads={"MTModel": "seq2seq"}, read=read_marian, write=write_marian,
    tokenizer_class="MarianTokenizer",
    settings={
        **BART.settings, "vocab_size": ("vocab_size", 58101), "pad_token_id": ("pad_id", 58100),
        "decoder_start_token_id": ("start_id", 58100),
    },
    fixed={
        **BART.fixed, "normalize_embedding": (False,), "static_position_embeddings": (True,),
        "share_encoder_decoder_embeddings": (True,),
    },
    further=(*BART.further, "decoder_vocab_size"),
    constants=(*BART.constants, r"(en|de)coder\.embed_positions\.weight$"),
)  # fmt: skip
