"""The first Transformer (Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762), made for translation.

An encoder reads the source text, every position seeing all of it. A decoder writes the target text from left to right;
in each of its blocks, between self-attention and the feed-forward network, it looks at the encoder's features
("cross-attention").

    source (B, S) → embedding + positions → n_layers × EncoderBlock → memory (B, S, D)
    ids (B, T)    → embedding + positions → n_layers × DecoderBlock, each looking at the memory → logits (B, T, V)

BART (Lewis et al. 2019, arXiv 1910.13461) and Marian (Junczys-Dowmunt et al. 2018, arXiv 1804.00344) are this model
with other settings: see hub/bart.py. chapters/12_translation_and_summarization.ipynb builds cross-attention and looks
at what it sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import ATTENTION
from ..tensor import Parameter
from .attention import MultiHeadAttention
from .checks import check_choice, check_dropout, check_heads, check_ids, check_pad_id, check_positive, check_whole


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """The shape of an encoder–decoder. Defaults are the paper's base model, 63M parameters."""

    model_type: ClassVar[str] = "encoder-decoder"
    task: ClassVar[str] = "seq2seq"

    vocab_size: int = 37000  # of the target, and of the source too unless source_vocab_size is given
    source_vocab_size: int | None = None
    context: int = 512  # longest source and longest target, in tokens
    n_layers: int = 6  # of the encoder, and as many of the decoder unless n_decoder_layers is given
    n_heads: int = 8
    d_model: int = 512
    d_ff: int = 2048  # features inside the feed-forward network
    dropout: float = 0.1
    positions: str = "sinusoidal"  # a fixed table of waves, "halves", its sines before its cosines, or "learned"
    norm: str = "post"  # after each sum, as in the paper, or "pre": steadier when deep (arXiv 2002.04745)
    norm_eps: float = 1e-5
    shared_embeddings: bool = True  # one table for source, target and output layer (section 3.4)
    pad_id: int | None = None  # source positions with this id are hidden
    attention: str = "auto"  # "auto", "reference", "sdpa" or "triton": see ops.attention
    # What BART and Marian have of their own.
    n_decoder_layers: int | None = None  # None: as n_layers
    attention_dropout: float | None = None  # of the attention weights; None: as dropout
    activation_dropout: float = 0.0  # inside the feed-forward network
    activation: str = "relu"  # of the feed-forward network; or "gelu" (BART), "silu" (Marian)
    first_position: int = 0  # row of a learned table that the first token has: BART's is 2
    scaled_embeddings: bool = True  # entries times √d_model (section 3.4)
    embedding_norm: bool = False  # a norm on embedding + positions, as in BERT
    logits_bias: bool = False  # constants added to the logits, which no training changes
    start_id: int | None = None  # what begins each target, where a pretrained model has an id of its own for it

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "context", "n_layers", "n_heads", "d_model", "d_ff")
        check_whole(self, optional=("source_vocab_size", "n_decoder_layers"))
        check_heads(self)
        check_dropout(self)
        check_positive(self, "norm_eps")
        check_choice(self, "positions", ("sinusoidal", "halves", "learned"))
        check_choice(self, "activation", tuple(ACTIVATIONS))
        for name in ("attention_dropout", "activation_dropout"):
            share = getattr(self, name)
            if share is not None and (not isinstance(share, (int, float)) or not 0 <= share < 1):
                raise ValueError(f"EncoderDecoderConfig: {name} = {share!r} must be at least 0 and below 1.")
        if type(self.first_position) is not int or not 0 <= self.first_position <= 8:
            raise ValueError(f"EncoderDecoderConfig: first_position = {self.first_position!r} must be 0 to 8.")
        check_choice(self, "norm", ("pre", "post"))
        check_choice(self, "attention", ATTENTION)
        if self.positions != "learned" and self.d_model % 2:
            raise ValueError(f"EncoderDecoderConfig: d_model = {self.d_model} must be even: sinusoids come in pairs.")
        if self.shared_embeddings and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                "EncoderDecoderConfig: shared_embeddings need one vocabulary, but source_vocab_size = "
                f"{self.source_vocab_size} and vocab_size = {self.vocab_size}. Set shared_embeddings = False."
            )
        check_pad_id(self, self.source_vocab_size or self.vocab_size)
        if self.start_id is not None and not 0 <= self.start_id < self.vocab_size:
            raise ValueError(
                f"EncoderDecoderConfig: start_id = {self.start_id} is outside the vocabulary of {self.vocab_size}."
            )

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def decoder_layers(self) -> int:
        return self.n_decoder_layers or self.n_layers


ACTIVATIONS = {"relu": ops.relu, "gelu": ops.gelu, "silu": ops.silu}


class DecoderCache:
    """What a decoder keeps: the keys and values of the target so far, and the source's, made at the first step."""

    def __init__(self, n_layers: int, capacity: int) -> None:
        self.target = nn.KVCache(n_layers, capacity)
        self.source: list[tuple[AnyTensor, AnyTensor] | None] = [None] * n_layers

    @property
    def length(self) -> int:
        """Target positions stored so far."""
        return self.target.length

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i of the batch what row rows[i] was, its source included."""
        self.target.reorder(rows)
        self.source = [None if kv is None else (kv[0][rows], kv[1][rows]) for kv in self.source]


class Residual(nn.Module):
    """How a sublayer f is added to the stream: norm(x + f(x)) with the norm after ("post"), x + f(norm(x)) before
    ("pre"). Call `enter` on the way into the sublayer, and the module itself on the way out."""

    def __init__(self, config: EncoderDecoderConfig, rng: np.random.Generator) -> None:
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout, rng)
        self.pre = config.norm == "pre"

    def enter(self, x: AnyTensor) -> AnyTensor:
        return self.norm(x) if self.pre else x

    def forward(self, x: AnyTensor, f: AnyTensor) -> AnyTensor:
        x = x + self.dropout(f)
        return x if self.pre else self.norm(x)


class MLP(nn.Module):
    """The feed-forward network, max(0, x W₁ + b₁) W₂ + b₂ (section 3.3), or with another activation."""

    def __init__(self, config: EncoderDecoderConfig, rng: np.random.Generator) -> None:
        self.fc = nn.Linear(config.d_model, config.d_ff, std=xavier(config.d_model, config.d_ff), rng=rng)
        self.proj = nn.Linear(config.d_ff, config.d_model, std=xavier(config.d_model, config.d_ff), rng=rng)
        self.activation = config.activation
        self.dropout = nn.Dropout(config.activation_dropout, rng)

    def forward(self, x: AnyTensor) -> AnyTensor:
        h = ACTIVATIONS[self.activation](self.fc(x))  # (B, T, d_ff)
        return self.proj(self.dropout(h))  # (B, T, D)


class EncoderBlock(nn.Module):
    """Self-attention over the whole source, then the feed-forward network."""

    def __init__(self, config: EncoderDecoderConfig, rng: np.random.Generator) -> None:
        self.attn = attention(config, rng)
        self.add_attn = Residual(config, rng)
        self.mlp = MLP(config, rng)
        self.add_mlp = Residual(config, rng)

    def forward(self, x: AnyTensor, mask: Any = None) -> AnyTensor:
        x = self.add_attn(x, self.attn(self.add_attn.enter(x), mask=mask))
        x = self.add_mlp(x, self.mlp(self.add_mlp.enter(x)))
        return x


class DecoderBlock(nn.Module):
    """Causal self-attention over the target so far, cross-attention to the source, then the feed-forward network."""

    def __init__(self, config: EncoderDecoderConfig, layer: int, rng: np.random.Generator) -> None:
        self.layer = layer
        self.attn = attention(config, rng, causal=True, layer=layer)
        self.add_attn = Residual(config, rng)
        self.cross = attention(config, rng)
        self.add_cross = Residual(config, rng)
        self.mlp = MLP(config, rng)
        self.add_mlp = Residual(config, rng)

    def forward(
        self, x: AnyTensor, memory: AnyTensor, mask: Any = None, cache: DecoderCache | None = None
    ) -> AnyTensor:
        target_cache = None if cache is None else cache.target
        x = self.add_attn(x, self.attn(self.add_attn.enter(x), cache=target_cache))
        kv = self.source_keys_values(memory, cache)  # each (B, H, S, D/H)
        x = self.add_cross(x, self.cross(self.add_cross.enter(x), kv=kv, mask=mask))
        x = self.add_mlp(x, self.mlp(self.add_mlp.enter(x)))
        return x

    def source_keys_values(self, memory: AnyTensor, cache: DecoderCache | None) -> tuple[AnyTensor, AnyTensor]:
        """The source's keys and values: from the cache, or computed, and stored if there is a cache."""
        kv = None if cache is None else cache.source[self.layer]
        if kv is None:
            kv = self.cross.keys_values(memory)
            if cache is not None:
                cache.source[self.layer] = kv
        return kv


class EncoderDecoder(nn.Module):
    """A sequence-to-sequence model. `rng` draws the initial weights and, while training, dropout."""

    def __init__(self, config: EncoderDecoderConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        std = config.d_model**-0.5  # times √D in `embed`: entries of about 1
        self.target_embedding = nn.Embedding(config.vocab_size, config.d_model, std=std, rng=rng)
        if config.shared_embeddings:
            self.source_embedding = self.target_embedding
            self.head: nn.Embedding | nn.Linear = self.target_embedding  # of either, only the weight (V, D) is used
        else:
            source_size = config.source_vocab_size or config.vocab_size
            self.source_embedding = nn.Embedding(source_size, config.d_model, std=std, rng=rng)
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False, std=std, rng=rng)
        if config.positions == "learned":
            rows = config.first_position + config.context
            self.source_position_embedding = nn.Embedding(rows, config.d_model, rng=rng)
            self.target_position_embedding = nn.Embedding(rows, config.d_model, rng=rng)
        else:
            self.waves = sinusoids(config.context, config.d_model, halves=config.positions == "halves")
        self.source_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.embedding_norm else None
        self.target_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.embedding_norm else None
        zeros = np.zeros((1, config.vocab_size), dtype=np.float32)
        self.logits_bias = Parameter(zeros, requires_grad=False) if config.logits_bias else None
        self.dropout = nn.Dropout(config.dropout, rng)
        self.encoder = [EncoderBlock(config, rng) for _ in range(config.n_layers)]
        self.decoder = [DecoderBlock(config, layer, rng) for layer in range(config.decoder_layers)]
        # Pre-norm blocks leave their sum as it is, so that it needs a norm at the end; post-norm blocks end with one.
        self.encoder_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.norm == "pre" else None
        self.decoder_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.norm == "pre" else None

    def forward(
        self, source: Any, ids: Any, targets: Any = None, *, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> AnyTensor:
        """source (B, S) and ids (B, T), the target text from its start id on -> logits (B, T, V) for the id that comes
        next; with targets (B, T), the ids that come next, −100 = ignored, the cross-entropy as a scalar. The paper
        trains with label_smoothing 0.1. Padding at the end of ids needs no mask: no position looks to its right. To
        write a target token by token, see `given`.
        """
        h = self.hidden(source, ids)  # (B, T, D)
        if targets is None:
            return self.logits(h)
        return self.loss(h, targets, reduction=reduction, label_smoothing=label_smoothing)

    def hidden(self, source: Any, ids: Any, mask: Any = None) -> AnyTensor:
        """The decoder's features (B, T, D): what the head turns into logits. `mask` (B, S): 1 or True = a token of the
        source, 0 = padding; by default what isn't pad_id is a token."""
        return self.decode(ids, self.encode(source, mask), self.source_mask(source, mask))

    def encode(self, source: Any, mask: Any = None) -> AnyTensor:
        """What the decoder looks at: source ids (B, S) -> features (B, S, D); `mask` as in hidden."""
        mask = self.source_mask(source, mask)
        x = self.embed(source, 0, self.source_embedding, "source")
        for block in self.encoder:
            x = block(x, mask)
        return x if self.encoder_norm is None else self.encoder_norm(x)

    def decode(self, ids: Any, memory: AnyTensor, mask: Any = None, cache: DecoderCache | None = None) -> AnyTensor:
        """Target ids (B, T), those after the cache's if there is one, and memory (B, S, D) -> features (B, T, D)."""
        x = self.embed(ids, 0 if cache is None else cache.length, self.target_embedding, "ids")
        for block in self.decoder:
            x = block(x, memory, mask, cache)
        return x if self.decoder_norm is None else self.decoder_norm(x)

    def embed(self, ids: Any, past: int, table: nn.Embedding, side: str) -> AnyTensor:
        """Token and position embeddings (B, T, D) for the ids at positions `past` and on."""
        end = past + check_ids(self, ids, side, past)
        positions: AnyTensor
        first = self.config.first_position
        if self.config.positions != "learned":
            positions = self.waves[past:end]  # (T, D)
        elif side == "source":
            positions = self.source_position_embedding.weight[first + past : first + end]
        else:
            positions = self.target_position_embedding.weight[first + past : first + end]
        x = table(ids) * math.sqrt(self.config.d_model) if self.config.scaled_embeddings else table(ids)
        x = x + positions  # (B, T, D)
        norm = self.source_norm if side == "source" else self.target_norm
        return self.dropout(x if norm is None else norm(x))

    def source_mask(self, source: Any, mask: Any = None) -> Any:
        """True where the source (B, S) holds a token, as attention wants it (B, 1, 1, S); None if nothing is hidden."""
        if mask is None and self.config.pad_id is None:
            return None
        kept = source != self.config.pad_id if mask is None else mask != 0
        return kept.reshape(source.shape[0], 1, 1, source.shape[1])

    def logits(self, h: AnyTensor) -> AnyTensor:
        """Features (..., D) -> logits (..., V)."""
        logits = ops.linear(h, self.head.weight)
        return logits if self.logits_bias is None else logits + self.logits_bias

    def loss(self, h: AnyTensor, targets: Any, *, reduction: str = "mean", label_smoothing: float = 0.0) -> AnyTensor:
        """The cross-entropy as a scalar, from features (B, T, D) and targets (B, T), −100 = ignored."""
        if self.logits_bias is not None:
            return ops.cross_entropy(self.logits(h), targets, reduction=reduction, label_smoothing=label_smoothing)
        weight = self.head.weight
        return ops.linear_cross_entropy(h, weight, targets, reduction=reduction, label_smoothing=label_smoothing)

    def new_cache(self, capacity: int | None = None) -> DecoderCache:
        """An empty cache for decoding up to `capacity` target positions (the whole context by default)."""
        return DecoderCache(self.config.decoder_layers, capacity or self.config.context)

    def given(self, source: Any, mask: Any = None) -> Decoder:
        """This model with a fixed source (B, S), and its mask as in hidden: a model of the target alone, for
        `minillm.generate`."""
        return Decoder(self, source, mask)


class Decoder:
    """An encoder–decoder that has been given its source (B, S): it continues B target texts as a GPT its prompts.

    >>> config = EncoderDecoderConfig(vocab_size=10, context=8, n_layers=1, n_heads=2, d_model=8, d_ff=16)
    >>> model = EncoderDecoder(config)
    >>> from minillm.generate import generate
    >>> new = generate(model.given(np.array([[3, 4, 5]])), [[1]], max_new_tokens=4, seed=0)  # id 1 starts the target
    >>> len(new[0])
    4
    """

    task = "causal"  # now that it has its source

    def __init__(self, model: EncoderDecoder, source: Any, mask: Any = None) -> None:
        self.model = model
        self.config = model.config
        self.source = source
        self.mask = mask
        self.memory: AnyTensor | None = None  # the source's features, made when first needed, in the caller's mode

    def hidden(self, ids: Any, cache: DecoderCache | None = None) -> AnyTensor:
        if self.memory is None:
            self.memory = self.model.encode(self.source, self.mask)
        return self.model.decode(ids, self.memory, self.model.source_mask(self.source, self.mask), cache)

    def select(self, rows: Sequence[int]) -> Decoder:
        """The same for other targets: the source of target i is what that of target rows[i] was. It isn't encoded again
        if it has been already."""
        selected = Decoder(self.model, self.source[rows], None if self.mask is None else self.mask[rows])
        selected.memory = None if self.memory is None else self.memory[rows]
        return selected

    def logits(self, h: AnyTensor) -> AnyTensor:
        return self.model.logits(h)

    def new_cache(self, capacity: int | None = None) -> DecoderCache:
        return self.model.new_cache(capacity)

    def parameters(self) -> Any:
        return self.model.parameters()

    @property
    def training(self) -> bool:
        return self.model.training

    def train(self, mode: bool = True) -> Decoder:
        self.model.train(mode)
        return self

    def eval(self) -> Decoder:
        return self.train(False)


def attention(
    config: EncoderDecoderConfig, rng: np.random.Generator, *, causal: bool = False, layer: int = 0
) -> MultiHeadAttention:
    std = xavier(config.d_model, config.d_model)
    return MultiHeadAttention(
        config.d_model,
        config.n_heads,
        causal=causal,
        dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
        impl=config.attention,
        layer=layer,
        std=std,
        out_std=std,
        rng=rng,
    )


def xavier(fan_in: int, fan_out: int) -> float:
    """The deviation that keeps variances alike forward and backward (Glorot & Bengio 2010), as in the paper's code."""
    return math.sqrt(2 / (fan_in + fan_out))


def sinusoids(context: int, d_model: int, *, halves: bool = False) -> np.ndarray:
    """Position t as waves of lengths 2π to 10000·2π: sin(t/10000^(2i/D)) at feature 2i, cos at 2i + 1 (section 3.5);
    with `halves` all sines before all cosines. float32 (context, D)."""
    angles = np.arange(context)[:, None] / 10000 ** (np.arange(0, d_model, 2) / d_model)  # (context, D/2)
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=1 if halves else -1)
    return waves.reshape(context, d_model).astype(np.float32)
