"""BERT (Devlin et al. 2018, arXiv 1810.04805): an encoder. Every position sees the whole text, left and right, so it
cannot be trained to predict the next token; instead some are hidden and it fills them in (chapters/10_bert.ipynb).

    ids (B, T) → token + position + type embedding → layer norm → n_layers × Block → (B, T, D)
    then, as `head` says: logits (B, T, V) for the hidden tokens, or (B, n_labels) for the text from its first position

What differs from GPT: no causal mask, the norm after each sum ("post-norm"), the exact GELU, and the loss.

Its relatives (`family`) differ in details. RoBERTa (Liu et al. 2019, arXiv 1907.11692; XLM-R is the same) counts
positions from pad_id + 1 on, padding left out, and has no pooler beneath its classifier, but a layer of the
classifier's own. DistilBERT (Sanh et al. 2019, arXiv 1910.01108) has no types, and such a layer too, with ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import ATTENTION, IGNORE
from ..tensor import Parameter
from .attention import MultiHeadAttention
from .checks import (
    check_choice,
    check_dropout,
    check_heads,
    check_ids,
    check_labels,
    check_pad_id,
    check_positive,
    check_whole,
)
from .classifier import PROBLEM_TYPES, classification_loss

HEADS = ("none", "mlm", "classification")
FAMILIES = ("bert", "roberta", "distilbert")


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT. Defaults are BERT base, 110M parameters, with the head it is pretrained with."""

    model_type: ClassVar[str] = "bert"

    vocab_size: int = 30522
    context: int = 512  # longest sequence, in tokens
    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768
    d_ff: int = 3072  # features inside the feed-forward network
    token_types: int = 2  # kinds of segment: 0 for the first text of a pair, 1 for the second; DistilBERT has none: 0
    norm_eps: float = 1e-12
    dropout: float = 0.1
    head: str = "mlm"  # "mlm" predicts hidden tokens, "classification" labels the text, "none" gives the features
    pooler: bool = False  # a layer on the first position's features; classification and next_sentence bring it along
    next_sentence: bool = False  # with "mlm": also tell whether the second text followed the first
    n_labels: int = 2  # of "classification"
    labels: tuple[str, ...] | list[str] = ()  # the classes' names; (): they have none
    problem_type: str = "single_label_classification"  # or "multi_label_classification", "regression": chooses the loss
    pad_id: int | None = None  # positions with this id are hidden when no mask is given; None: none are
    attention: str = "auto"  # "auto", "reference", "sdpa" or "triton": see ops.attention
    family: str = "bert"  # or "roberta", "distilbert": whose details
    attention_dropout: float | None = None  # of the attention weights; None: dropout
    classifier_dropout: float | None = None  # of what the classifier is given; None: dropout

    def __post_init__(self) -> None:
        check_choice(self, "family", FAMILIES)
        check_whole(self, "vocab_size", "context", "n_layers", "n_heads", "d_model", "d_ff", "n_labels")
        if self.family == "distilbert":
            object.__setattr__(self, "token_types", 0)
        else:
            check_whole(self, "token_types")
        check_heads(self)
        check_dropout(self)
        check_positive(self, "norm_eps")
        check_choice(self, "head", HEADS)
        check_choice(self, "problem_type", PROBLEM_TYPES)
        check_choice(self, "attention", ATTENTION)
        check_pad_id(self, self.vocab_size)
        check_labels(self)
        if self.next_sentence and self.head != "mlm":
            raise ValueError(f"BertConfig: next_sentence is learned together with head = 'mlm', not {self.head!r}.")
        if self.next_sentence and self.family != "bert":
            raise ValueError(f"BertConfig: next_sentence is BERT's; a {self.family} is not trained with it.")
        if self.family == "roberta" and self.pad_id is None:
            raise ValueError("BertConfig: a roberta needs a pad_id: its positions are counted from there on.")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def task(self) -> str:
        """What the head is for: "base" for features without one."""
        return "base" if self.head == "none" else self.head

    @property
    def has_pooler(self) -> bool:
        if self.head == "classification":
            return self.family == "bert"
        return self.family != "distilbert" and (self.pooler or self.next_sentence)

    @property
    def first_position(self) -> int:
        """The row of the position table for a text's first token."""
        return self.pad_id + 1 if self.family == "roberta" and self.pad_id is not None else 0


class Block(nn.Module):
    """Norms after sums ("post-norm"), as in the first Transformer: norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        self.attn = MultiHeadAttention(
            config.d_model,
            config.n_heads,
            dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
            impl=config.attention,
            rng=rng,
        )
        self.norm_1 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.fc = nn.Linear(config.d_model, config.d_ff, rng=rng)
        self.proj = nn.Linear(config.d_ff, config.d_model, rng=rng)
        self.norm_2 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.attn_dropout = nn.Dropout(config.dropout if config.family != "distilbert" else 0.0, rng)
        self.dropout = nn.Dropout(config.dropout, rng)

    def forward(self, x: AnyTensor, mask: Any = None) -> AnyTensor:
        x = self.norm_1(x + self.attn_dropout(self.attn(x, mask=mask)))
        x = self.norm_2(x + self.dropout(self.proj(ops.gelu(self.fc(x)))))
        return x


class MaskedLMHead(nn.Module):
    """Features of hidden tokens (..., D) -> logits (..., V), by one more layer and then the token table ("tied")."""

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        self.transform = nn.Linear(config.d_model, config.d_model, rng=rng)
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.bias = Parameter(np.zeros(config.vocab_size, dtype=np.float32))

    def forward(self, h: AnyTensor, token_table: AnyTensor) -> AnyTensor:
        h = self.norm(ops.gelu(self.transform(h)))
        return ops.linear(h, token_table, self.bias)


class Bert(nn.Module):
    """An encoder with the head that `config.head` names. `rng` draws the initial weights and, in training, dropout."""

    def __init__(self, config: BertConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, rng=rng)
        self.position_embedding = nn.Embedding(config.first_position + config.context, config.d_model, rng=rng)
        types = config.token_types
        self.token_type_embedding = nn.Embedding(types, config.d_model, rng=rng) if types else None
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout, rng)
        self.blocks = [Block(config, rng) for _ in range(config.n_layers)]
        # A layer that no loss reaches would train nothing, and DDP would wait for its gradients: build what is needed.
        self.pooler = nn.Linear(config.d_model, config.d_model, rng=rng) if config.has_pooler else None
        self.mlm = MaskedLMHead(config, rng) if config.head == "mlm" else None
        self.next_sentence = nn.Linear(config.d_model, 2, rng=rng) if config.next_sentence else None
        labels = config.head == "classification"
        own = labels and config.family != "bert"
        self.classifier_dense = nn.Linear(config.d_model, config.d_model, rng=rng) if own else None
        p = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        self.classifier_dropout = nn.Dropout(p, rng)
        self.classifier = nn.Linear(config.d_model, config.n_labels, rng=rng) if labels else None

    def forward(
        self,
        ids: Any,
        targets: Any = None,
        *,
        token_types: Any = None,
        mask: Any = None,
        next_sentence: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> AnyTensor:
        """ids (B, T) integers -> what the head gives: features (B, T, D), logits (B, T, V) or (B, n_labels).

        With `targets`, the loss as a scalar: for "mlm", targets (B, T) hold the ids of the hidden tokens and −100
        elsewhere; for "classification", labels (B,), or (B, n_labels) of 0 and 1 (multi-label) or numbers (regression,
        (B,) if n_labels is 1). `token_types` (B, T): which text of a pair, 0 by default. `mask` (B, T): 1 or True = a
        token, 0 = padding. `next_sentence` (B,): 0 where the second text followed, 1 where it was drawn; adds its loss.
        """
        h = self.hidden(ids, token_types=token_types, mask=mask)
        if targets is None:
            return h if self.config.task == "base" else self.logits(h)
        return self.loss(h, targets, next_sentence=next_sentence, reduction=reduction, label_smoothing=label_smoothing)

    def hidden(self, ids: Any, *, token_types: Any = None, mask: Any = None) -> AnyTensor:
        """What the head turns into logits: the last layer's features (B, T, D), for "classification" pooled (B, D)."""
        h = self.encode(ids, token_types=token_types, mask=mask)
        if self.classifier is None:
            return h
        if self.classifier_dense is None:
            return self.classifier_dropout(self.pool(h))
        if self.config.family == "distilbert":
            return self.classifier_dropout(ops.relu(self.classifier_dense(h[:, 0])))
        first = self.classifier_dropout(h[:, 0])
        return self.classifier_dropout(self.classifier_dense(first).tanh())

    def encode(self, ids: Any, *, token_types: Any = None, mask: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D)."""
        B, T = ids.shape[0], check_ids(self, ids)
        if mask is None and self.config.pad_id is not None:
            mask = ids != self.config.pad_id
        if mask is not None:
            mask = (mask != 0).reshape(B, 1, 1, T)  # nobody looks at padding
        x = self.token_embedding(ids) + self.positions(ids, T)  # (B, T, D)
        if self.token_type_embedding is not None:
            types = self.token_type_embedding
            x = x + (types.weight[:1] if token_types is None else types(token_types))  # (1, D) or (B, T, D)
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, mask)
        return x

    def positions(self, ids: Any, length: int) -> AnyTensor:
        """The rows of the position table for ids: (T, D), or (B, T, D) where padding has none of its own."""
        table, pad_id = self.position_embedding, self.config.pad_id
        if self.config.family != "roberta":
            return table.weight[:length]
        real = (ids != pad_id) * 1  # (B, T)
        return table(real.cumsum(1) * real + pad_id)

    def pool(self, h: AnyTensor) -> AnyTensor:
        """A vector for the whole text (B, D), from the features (B, T, D) of its first position, [CLS]."""
        if self.pooler is None:
            raise ValueError("Bert: built without a pooler. Build the model with pooler = True.")
        return self.pooler(h[:, 0]).tanh()

    def logits(self, h: AnyTensor) -> AnyTensor:
        """The head on features: (..., D) -> (..., V) for "mlm", (B, D) -> (B, n_labels) for "classification"."""
        if self.mlm is not None:
            return self.mlm(h, self.token_embedding.weight)
        if self.classifier is not None:
            return self.classifier(h)
        raise ValueError("Bert: head = 'none' gives features, no logits.")

    def loss(
        self,
        h: AnyTensor,
        targets: Any,
        *,
        next_sentence: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> AnyTensor:
        """The loss as a scalar, from features as `hidden` gives them; targets as in forward."""
        if self.classifier is not None:
            return classification_loss(self.logits(h), targets, self.config.problem_type, reduction, label_smoothing)
        if self.mlm is None:
            raise ValueError("Bert: head = 'none' has no loss. Build the model with head = 'mlm' or 'classification'.")
        kept = targets != IGNORE  # the head is as costly as several blocks: give it the hidden tokens only
        logits, targets = self.logits(h[kept]), targets[kept]
        loss = ops.cross_entropy(logits, targets, reduction=reduction, label_smoothing=label_smoothing)
        if next_sentence is not None:
            loss = loss + ops.cross_entropy(self.next_sentence_logits(h), next_sentence, reduction=reduction)
        return loss

    def next_sentence_logits(self, h: AnyTensor) -> AnyTensor:
        """Logits (B, 2), "it followed" and "it was drawn at random", from features (B, T, D)."""
        if self.next_sentence is None:
            raise ValueError("Bert: built without a next-sentence head. Build the model with next_sentence = True.")
        return self.next_sentence(self.pool(h))
