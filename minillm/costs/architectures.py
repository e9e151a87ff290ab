"""What each architecture is made of, as far as its cost goes: a function for each, and `COSTS`, which lists them.

A matrix product takes two operations per weight and token, a multiplication and an addition, so a part is the number of
its weights that are multiplied with each token's features, and of its other parameters (embedding tables, biases,
gains). The letters are the field's: D features, V vocabulary, L layers, F features inside the feed-forward network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..models import (
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    ModelConfig,
    MoeConfig,
)
from ..settings import HIDDEN_SHARE


@dataclass(frozen=True)
class Part:
    """A part of a model: `matrix` weights, multiplied with every token, and `other` parameters."""

    name: str
    matrix: int = 0
    other: int = 0
    used: float = 1.0  # the share of `matrix` that a token is multiplied with: of experts, those that it takes
    shared: bool = False  # the matrix is a table counted elsewhere: it costs operations, but no memory of its own
    trained_share: float = 1.0  # of the tokens, on which training uses this part


@dataclass(frozen=True)
class Attention:
    """Attention of one kind, all layers together."""

    heads: int
    head_dim: int
    causal: bool = False  # each position looks at those up to itself; else at all
    window: int = 0  # and of those at so many of the last only; 0: at all


@dataclass(frozen=True)
class Costs:
    """All that sizes.py needs to know of a model."""

    parts: list[Part]
    activations: int  # values that PyTorch keeps for the backward pass, per token (of source and target)
    layer_inputs: int  # of these the inputs of the layers: all that is kept where each is computed again
    products: int  # per token, in all layers, the results of matrix products and attention
    attention: tuple[Attention, ...] = ()
    cache_per_token: int = 0  # values that decoding keeps for each token
    cache_per_text: int = 0  # and for each text, however long


def costs_of(config: ModelConfig) -> Costs:
    """The costs of a model with this config."""
    if getattr(config, "model_type", None) not in COSTS:
        raise TypeError(f"costs: {type(config).__name__} is not a config of this library.")
    return COSTS[config.model_type](config)


# Activations: a linear layer and a norm keep their input, fused attention its inputs and its output, an activation its
# input; an array that several keep is counted once.


def gpt_costs(c: GPTConfig) -> Costs:
    D, V, L, F = c.d_model, c.vocab_size, c.n_layers, c.ff_features
    return Costs(
        parts=[
            Part("token embedding", other=V * D),
            Part("position embedding", other=c.context * D),
            Part("attention", matrix=L * 4 * D * D, other=L * 4 * D),
            Part("feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
            Part("norms", other=(2 * L + 1) * 2 * D),
            Part("head", matrix=V * D, shared=True),
        ],
        # norm D, qkv's input D, q k v 3D, attention's output D; norm D, fc's input D, gelu's input F and output F
        activations=L * (8 * D + 2 * F) + 2 * D,
        layer_inputs=L * D,
        products=L * (6 * D + F),  # q k v 3D, attention D, proj D; fc F, proj D
        attention=(Attention(L * c.n_heads, c.head_dim, causal=True),),
        cache_per_token=L * 2 * D,
    )


def llama_costs(c: LlamaConfig) -> Costs:
    D, V, L = c.d_model, c.vocab_size, c.n_layers
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    biases = c.qkv_bias * (q + 2 * kv) + c.out_bias * D
    attention = 2 * q + 2 * kv + c.qk_norm * (q + kv)
    swiglu = 4 * c.d_ff  # the gate, silu of the gate, what it gates, their product
    return Costs(
        parts=[
            Part("token embedding", other=V * D),
            Part("attention", matrix=L * (2 * D * q + 2 * D * kv), other=L * biases),
            Part("feed-forward", matrix=L * 3 * D * c.d_ff, other=c.mlp_bias * L * (2 * c.d_ff + D)),
            Part("attention sinks", other=c.attention_sinks * L * c.n_heads),
            Part("norms", other=(2 * L + 1) * D + c.qk_norm * L * 2 * c.head_dim),
            Part("head", matrix=V * D, shared=c.tie_embeddings),
        ],
        activations=L * (4 * D + attention + swiglu) + 2 * D,
        layer_inputs=L * D,
        products=L * (2 * q + 2 * kv + 2 * D + 2 * c.d_ff),
        attention=windowed(c, L),
        cache_per_token=L * 2 * kv,
    )


def moe_costs(c: MoeConfig) -> Costs:
    llama, dense, D = llama_costs(c), len(c.dense_layers), c.d_model
    E, F, k, L = c.n_experts, c.d_expert, c.top_k, c.n_layers - len(c.dense_layers)
    biases = 2 * F + D if c.swiglu_limit or c.mlp_bias else 0
    inner = 7 * F if c.swiglu_limit else 4 * F  # clamping keeps more
    experts = [
        Part("feed-forward", matrix=dense * 3 * D * c.d_ff, other=c.mlp_bias * dense * (2 * c.d_ff + D)),
        Part("router", matrix=L * D * E, other=c.router_bias * L * E),
        Part("experts", matrix=L * E * 3 * D * F, other=L * E * biases, used=k / E),
    ]
    parts = [own for part in llama.parts for own in (experts if part.name == "feed-forward" else [part])]
    # of a token's k: what is gathered, each expert's inner values, the outputs and these in the tokens' order
    activations = llama.activations - L * 4 * c.d_ff + L * (k * (3 * D + inner) + 2 * E)
    products = llama.products - L * (D + 2 * c.d_ff) + L * (k * (2 * F + D) + E)
    return replace(llama, parts=parts, activations=activations, products=products)


def gemma_costs(c: GemmaConfig) -> Costs:
    D, V, L = c.d_model, c.vocab_size, c.n_layers
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    return Costs(
        parts=[
            Part("token embedding", other=V * D),
            Part("attention", matrix=L * (2 * D * q + 2 * D * kv), other=c.attention_bias * L * (q + 2 * kv + D)),
            Part("feed-forward", matrix=L * 3 * D * c.d_ff),
            Part("norms", other=(4 * L + 1) * D + L * 2 * c.head_dim),
            Part("head", matrix=V * D, shared=c.tie_embeddings),
        ],
        # as Llama with norms on queries and keys, and two norms more in each layer
        activations=L * (6 * D + 3 * q + 3 * kv + 4 * c.d_ff) + 2 * D,
        layer_inputs=L * D,
        products=L * (2 * q + 2 * kv + 2 * D + 2 * c.d_ff),
        attention=windowed(c, L),
        cache_per_token=L * 2 * kv,
    )


def windowed(c: LlamaConfig | GemmaConfig, n_layers: int) -> tuple[Attention, ...]:
    """Attention in the layers with a window and in those without."""
    full = len(c.full_layers) if c.window else n_layers
    kinds = (Attention(full * c.n_heads, c.head_dim, causal=True),
             Attention((n_layers - full) * c.n_heads, c.head_dim, causal=True, window=c.window))  # fmt: skip
    return tuple(kind for kind in kinds if kind.heads)


def bert_costs(c: BertConfig) -> Costs:
    D, V, L, F = c.d_model, c.vocab_size, c.n_layers, c.d_ff
    parts = [
        Part("token embedding", other=V * D),
        Part("position embedding", other=(c.first_position + c.context + c.token_types) * D),
        Part("attention", matrix=L * 4 * D * D, other=L * 4 * D),
        Part("feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
        Part("norms", other=(2 * L + 1) * 2 * D),
    ]
    if c.head == "mlm":  # trained on the hidden tokens only
        parts.append(Part("head transform", matrix=D * D, other=3 * D + V, trained_share=HIDDEN_SHARE))
        parts.append(Part("head", matrix=V * D, shared=True, trained_share=HIDDEN_SHARE))
    # What works on the first position only costs next to nothing per token: its weights are listed as "other".
    if c.has_pooler:
        parts.append(Part("pooler", other=D * D + D))
    if c.next_sentence:
        parts.append(Part("next sentence", other=2 * D + 2))
    if c.head == "classification":
        if c.family != "bert":
            parts.append(Part("classifier's own layer", other=D * D + D))
        parts.append(Part("classifier", other=c.n_labels * (D + 1)))
    activations, products = L * (8 * D + 2 * F) + D, L * (6 * D + F)  # as GPT's
    return Costs(parts, activations, L * D, products, (Attention(L * c.n_heads, c.head_dim),))


def encoder_decoder_costs(c: EncoderDecoderConfig) -> Costs:
    D, V, F, E, L = c.d_model, c.vocab_size, c.d_ff, c.n_layers, c.decoder_layers  # E layers encode, L decode
    source_table = 0 if c.shared_embeddings else (c.source_vocab_size or V) * D
    norms = E * 2 + L * 3 + (2 if c.norm == "pre" else 0) + (2 if c.embedding_norm else 0)
    inner = F if c.activation == "relu" else 2 * F  # relu's output also tells where it let something through
    encoder, decoder = Attention(E * c.n_heads, c.head_dim), Attention(L * c.n_heads, c.head_dim)
    return Costs(
        parts=[
            Part("token embedding", other=V * D + source_table),
            Part(
                "position embedding",
                other=2 * (c.first_position + c.context) * D if c.positions == "learned" else 0,
            ),
            Part("encoder attention", matrix=E * 4 * D * D, other=E * 4 * D),
            Part("encoder feed-forward", matrix=E * 2 * D * F, other=E * (F + D)),
            Part("decoder attention", matrix=L * 4 * D * D, other=L * 4 * D),
            Part("cross-attention", matrix=L * 4 * D * D, other=L * 4 * D),
            Part("decoder feed-forward", matrix=L * 2 * D * F, other=L * (F + D)),
            Part("norms", other=norms * 2 * D),
            Part("head", matrix=V * D, other=V if c.logits_bias else 0, shared=c.shared_embeddings),
        ],
        activations=E * (8 * D + inner) + L * (14 * D + inner) + 3 * D,  # encoder and decoder
        layer_inputs=(E + L) * D,
        products=E * (6 * D + F) + L * (11 * D + F),
        attention=(encoder, replace(decoder, causal=True), decoder),  # encoder, decoder, cross
        cache_per_token=L * 4 * D,  # of the target and, as long, of the source
    )


def lstm_costs(c: LSTMConfig) -> Costs:
    D, V, L, H = c.d_model, c.vocab_size, c.n_layers, c.hidden_features
    return Costs(
        parts=[
            Part("token embedding", other=V * D),
            Part("layers", matrix=4 * H * (D + H) + (L - 1) * 4 * H * 2 * H, other=L * 8 * H),
            Part("head", matrix=V * H, shared=c.tie_embeddings),
        ],
        activations=D + L * 7 * H + (L - 1) * H,  # each layer's input; of each step four gates, c, tanh c and h
        layer_inputs=D + (L - 1) * H,
        products=0,  # those of a step wait for the step before: nothing is gained by keeping them
        cache_per_text=L * 2 * H,
    )


def classifier_costs(c: ClassifierConfig) -> Costs:
    decoder = costs_of(c.decoder)
    body = [part for part in decoder.parts if part.name != "head"]
    D, twice = c.decoder.d_model, c.end_id is not None
    own = D * D + D if twice else 0  # a layer of an encoder–decoder's own
    score = Part("classifier", other=own + c.n_labels * (D + twice))  # for one position only
    return replace(decoder, parts=[*body, score], cache_per_token=0, cache_per_text=0)


COSTS: dict[str, Any] = {  # by model_type
    "gpt": gpt_costs, "llama": llama_costs, "gemma": gemma_costs, "moe": moe_costs,
    "bert": bert_costs, "encoder-decoder": encoder_decoder_costs, "lstm": lstm_costs, "classifier": classifier_costs,
}  # fmt: skip
