"""How large a model is and what it costs to run, from its config alone: parameters, operations, memory.

Everything follows from one table per model: its parts, with the number of weights that are multiplied with each token's
features (matrices) and the number of other parameters (embedding tables, biases, gains). A matrix product takes two
operations per weight and token, a multiplication and an addition; the attention scores come on top, since they grow
with the length of the text. Everything smaller (norms, activations, softmax) is left out, as is usual (Kaplan et al.
2020, arXiv 2001.08361, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..models import BertConfig, ClassifierConfig, EncoderDecoderConfig, GPTConfig, LlamaConfig, LSTMConfig, ModelConfig

HIDDEN_SHARE = 0.15  # of the tokens, BERT's head is trained on these only


@dataclass(frozen=True)
class Part:
    """A part of a model: `matrix` weights, multiplied with every token, and `other` parameters."""

    name: str
    matrix: int = 0
    other: int = 0
    shared: bool = False  # the matrix is a table counted elsewhere: it costs operations, but no memory of its own


def parts(config: ModelConfig) -> list[Part]:
    """The parts of a model, every layer's together."""
    if isinstance(config, GPTConfig):
        return gpt_parts(config)
    if isinstance(config, LlamaConfig):
        return llama_parts(config)
    if isinstance(config, BertConfig):
        return bert_parts(config)
    if isinstance(config, EncoderDecoderConfig):
        return encoder_decoder_parts(config)
    if isinstance(config, LSTMConfig):
        return lstm_parts(config)
    if isinstance(config, ClassifierConfig):
        body = [part for part in parts(config.decoder) if part.name != "head"]
        return [*body, Part("classifier", other=config.n_labels * config.decoder.d_model)]  # for one position only
    raise TypeError(f"sizes: {type(config).__name__} is not a config of this library.")


def gpt_parts(c: GPTConfig) -> list[Part]:
    D, V, L = c.d_model, c.vocab_size, c.n_layers
    return [
        Part("token embedding", other=V * D),
        Part("position embedding", other=c.context * D),
        Part("attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("feed-forward", matrix=L * 8 * D * D, other=L * 5 * D),
        Part("norms", other=(2 * L + 1) * 2 * D),
        Part("head", matrix=V * D, shared=True),
    ]


def llama_parts(c: LlamaConfig) -> list[Part]:
    D, V, L = c.d_model, c.vocab_size, c.n_layers
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    biases = c.qkv_bias * (q + 2 * kv) + c.out_bias * D
    return [
        Part("token embedding", other=V * D),
        Part("attention", matrix=L * (2 * D * q + 2 * D * kv), other=L * biases),
        Part("feed-forward", matrix=L * 3 * D * c.d_ff),
        Part("norms", other=(2 * L + 1) * D + c.qk_norm * L * 2 * c.head_dim),
        Part("head", matrix=V * D, shared=c.tie_embeddings),
    ]


def bert_parts(c: BertConfig) -> list[Part]:
    D, V, L, F = c.d_model, c.vocab_size, c.n_layers, c.d_ff
    found = [
        Part("token embedding", other=V * D),
        Part("position embedding", other=(c.context + c.token_types) * D),
        Part("attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
        Part("norms", other=(2 * L + 1) * 2 * D),
    ]
    if c.head == "mlm":
        found.append(Part("head transform", matrix=D * D, other=3 * D + V))
        found.append(Part("head", matrix=V * D, shared=True))
    # What works on the first position only costs next to nothing per token: its weights are listed as "other".
    if c.has_pooler:
        found.append(Part("pooler", other=D * D + D))
    if c.next_sentence:
        found.append(Part("next sentence", other=2 * D + 2))
    if c.head == "classification":
        found.append(Part("classifier", other=c.n_labels * (D + 1)))
    return found


def encoder_decoder_parts(c: EncoderDecoderConfig) -> list[Part]:
    D, V, L, F = c.d_model, c.vocab_size, c.n_layers, c.d_ff
    source_table = 0 if c.shared_embeddings else (c.source_vocab_size or V) * D
    last_norms = 4 * D if c.norm == "pre" else 0
    return [
        Part("token embedding", other=V * D + source_table),
        Part("position embedding", other=2 * c.context * D if c.positions == "learned" else 0),
        Part("encoder attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("encoder feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
        Part("decoder attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("cross-attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("decoder feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
        Part("norms", other=L * 5 * 2 * D + last_norms),
        Part("head", matrix=V * D, shared=c.shared_embeddings),
    ]


def lstm_parts(c: LSTMConfig) -> list[Part]:
    D, V, H = c.d_model, c.vocab_size, c.hidden_features
    weights = 4 * H * (D + H) + (c.n_layers - 1) * 4 * H * 2 * H
    return [
        Part("token embedding", other=V * D),
        Part("layers", matrix=weights, other=c.n_layers * 8 * H),
        Part("head", matrix=V * H, shared=c.tie_embeddings),
    ]


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Number of parameters of each part; a tied head has none of its own."""
    return {part.name: part.other + (0 if part.shared else part.matrix) for part in parts(config)}


def n_parameters(config: ModelConfig) -> int:
    """Number of parameters of the whole model."""
    return sum(parameters_by_part(config).values())


def forward_flops(config: ModelConfig, length: int) -> dict[str, float]:
    """Floating-point operations per token, part by part, in a text of `length` tokens, all logits computed.

    An encoder–decoder is counted per target token, with a source as long as the target. A causal position needs
    (length + 1)/2 keys on average, which is what is counted; kernels that compute the hidden half too do twice that.
    """
    found = {part.name: 2.0 * part.matrix for part in parts(config) if part.matrix}
    scores = attention_flops(config, length)
    return {**found, "attention scores": scores} if scores else found


def attention_flops(config: ModelConfig, length: int) -> float:
    """Operations per token for QKᵀ and PV: 4 per key and feature, in each layer."""
    causal = (length + 1) / 2
    if isinstance(config, ClassifierConfig):
        return attention_flops(config.decoder, length)
    if isinstance(config, LSTMConfig):
        return 0.0
    if isinstance(config, LlamaConfig):
        return 4.0 * config.n_layers * config.n_heads * config.head_dim * causal
    per_key = 4.0 * config.n_layers * config.d_model
    if isinstance(config, BertConfig):
        return per_key * length
    if isinstance(config, EncoderDecoderConfig):
        return per_key * (length + causal + length)  # encoder, decoder, cross
    return per_key * causal


def training_flops(config: ModelConfig, length: int) -> float:
    """Operations per token of a training step: the backward pass takes two products for each one of the forward
    pass."""
    found = forward_flops(config, length)
    if isinstance(config, BertConfig) and config.head == "mlm":
        for name in ("head", "head transform"):
            found[name] *= HIDDEN_SHARE
    return 3 * sum(found.values())


# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes. What the allocator wastes, and arrays that live only for a moment, are not in it."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments, float32
    activations: int  # what the backward pass needs, with fused norms and attention, without dropout
    attention_weights: int  # in addition, where attention keeps them: "reference", and on NumPy

    @property
    def total(self) -> int:
        """With fused attention."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        rows = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:<18} {in_bytes(n):>14}" for name, n in [*rows, ("total, fused", self.total)])


def in_bytes(n: float) -> str:
    """A number of bytes to read, with three decimals: 12.3 million are "12.300 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n >= size / 10:
            return f"{n / size:,.3f} {unit}"
    return f"{n / 1e3:,.3f} kB"


def training_memory(config: ModelConfig, batch_size: int, length: int, activation_bytes: int = 4) -> Memory:
    """Memory to train with float32 weights; `activation_bytes` per value is 2 under autocast to bfloat16."""
    n = n_parameters(config)
    tokens = batch_size * length
    shape = config.decoder if isinstance(config, ClassifierConfig) else config
    heads = 0 if isinstance(shape, LSTMConfig) else shape.n_heads * shape.n_layers
    if isinstance(config, EncoderDecoderConfig):
        heads *= 3
    return Memory(
        weights=4 * n,
        gradients=4 * n,
        optimizer=8 * n,
        activations=activation_bytes * tokens * activations_per_token(config),
        attention_weights=activation_bytes * tokens * length * heads,
    )


def activations_per_token(config: ModelConfig) -> int:
    """How many values PyTorch keeps for the backward pass, per token (of the source and the target, if there are two).

    A linear layer and a norm keep their input, fused attention its inputs and its output, an activation its input; an
    array that several keep is counted once.
    """
    if isinstance(config, ClassifierConfig):
        return activations_per_token(config.decoder)
    D, L = config.d_model, config.n_layers
    if isinstance(config, GPTConfig):
        # norm D, qkv's input D, q k v 3D, attention's output D; norm D, fc's input D, gelu's input 4D and output 4D
        return L * 16 * D + 2 * D
    if isinstance(config, LlamaConfig):
        q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        attention = 2 * q + 2 * kv + config.qk_norm * (q + kv)
        swiglu = 4 * config.d_ff  # the gate, silu of the gate, what it gates, their product
        return L * (4 * D + attention + swiglu) + 2 * D
    if isinstance(config, BertConfig):
        return L * (8 * D + 2 * config.d_ff) + D
    if isinstance(config, EncoderDecoderConfig):
        relu = config.d_ff  # its output, which also tells where it let something through
        return L * (8 * D + relu + 14 * D + relu) + 3 * D  # encoder and decoder
    H = config.hidden_features
    return D + L * 7 * H + (L - 1) * H  # each layer's input, and of each step four gates, c, tanh c and h


def cache_bytes(config: ModelConfig, batch_size: int, length: int, bytes_per_value: int = 4) -> int:
    """Memory that decoding keeps between steps: keys and values of `length` tokens, an LSTM's state, nothing for
    BERT and classifiers."""
    if isinstance(config, (BertConfig, ClassifierConfig)):
        return 0
    if isinstance(config, LSTMConfig):
        return batch_size * config.n_layers * 2 * config.hidden_features * bytes_per_value
    if isinstance(config, LlamaConfig):
        values = 2 * config.n_kv_heads * config.head_dim
    elif isinstance(config, EncoderDecoderConfig):
        values = 4 * config.d_model  # of the target and, as long, of the source
    else:
        values = 2 * config.d_model
    return batch_size * length * config.n_layers * values * bytes_per_value
