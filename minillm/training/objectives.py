"""What a model is asked to do with a text: how a batch of tokens becomes its inputs and targets.

A decoder predicts the next token: its batches are used as they come (`NextToken`), or so that no document sees the one
before it (`PackedNextToken`). An encoder fills in hidden tokens (`MaskedLM`). An encoder–decoder writes one text after
reading another (`SpanCorruption`, `Copy`). An objective is called with

    objective(ids, targets, first) -> the model's positional arguments, the targets last: loss = model(*batch)

where ids and targets (B, T) int64 are a next-token batch (targets are −100 where ids are padding) and `first` is the
number of the batch's first row in the endless order of training windows. The random choices for a row follow from the
objective's seed and the row's number alone. So nothing has to be saved to resume a run, the choices do not depend on
batch size or number of processes, an evaluation hides the same tokens each time, and training hides others each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engines.protocol import ModelLoss, PackedLoss
from ..models.segments import starts_of
from ..settings import HIDDEN_SHARE, IGNORE, MEAN_SPAN

Array = np.ndarray
MASKING_TOKENS = ("[MASK]", "[PAD]")
PACK = "pack_documents"  # the setting, as configurations and saved positions call it
SPAN_TOKENS = ("<pad>", "<s>", "</s>")


class Objective(Protocol):
    """See the top of this file. `vocab_size` is what the model's must be: the tokenizer's and the ids added to it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def whole_text(self) -> bool:
        """Whether each token of a text is predicted, from those before it: then the loss is the text's information."""

    @property
    def model_settings(self) -> dict[str, Any]:
        """What the model's config must say, so that it can be trained so; its vocab_size may also be larger."""

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, ...]:
        """A next-token batch -> the model's arguments."""


class ObjectiveBatcher:
    """A Batcher whose batches an objective has prepared. Position, saving and loading are the Batcher's own."""

    ahead = True

    def __init__(self, batcher: Any, objective: Objective) -> None:
        self.batcher = batcher
        self.objective = objective

    def next(self) -> tuple[Array, ...]:
        first = self.batcher.first_row
        ids, targets = self.batcher.next()
        return self.objective(ids, targets, first)

    @property
    def row_tokens(self) -> int:
        return self.batcher.context

    def state_dict(self) -> dict[str, Any]:
        return self.batcher.state_dict() | ({PACK: True} if self.packs else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get(PACK, False) != self.packs:
            was, now = str(not self.packs).lower(), str(self.packs).lower()
            raise ValueError(
                f"cannot resume the data where it stopped: {PACK} was {was} and is {now} now, and what the model sees "
                f"before a token would be another thing. Resume with data.{PACK} = {was}, or start a new run from the "
                "saved weights."
            )
        self.batcher.load_state_dict(state)

    @property
    def packs(self) -> bool:
        return isinstance(self.objective, PackedNextToken)


def prepare(batches: Iterable[tuple[Array, Array]], objective: Objective) -> Iterator[tuple[Array, ...]]:
    """The same for evaluation batches: rows are numbered from 0, so that each pass makes the same choices."""
    first = 0
    for ids, targets in batches:
        yield objective(ids, targets, first)
        first += len(ids)


@dataclass(frozen=True)
class NextToken:
    """A language model's task: each token from those before it. The batches are this already."""

    vocab_size: int
    whole_text = True

    @classmethod
    def for_tokenizer(cls, vocab_size: int, special_tokens: dict[str, int], context: int) -> NextToken:
        """Every tokenizer will do."""
        return cls(vocab_size)

    @staticmethod
    def special_tokens(context: int) -> list[str]:
        """Those that a tokenizer needs for training on texts of `context` tokens."""
        return []

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, Array]:
        return ids, targets


@dataclass(frozen=True)
class PackedNextToken:
    """The same, each token from those before it in its own document: as if each document had a row for itself.

    A token file is E document E document ... E (data/packing.py), E the token that ends a text, `eos_id`. In a row, a
    document begins with the E before it and is asked for everything up to its own E; nothing is asked across, and no
    target is left out:

        ids       a b E c d e E f        the row begins and ends within a document, as windows do
        segments  0 0 1 1 1 1 2 2
        targets   b E c d e E f g        c from the E before it alone, the second E from E c d e

    Returns (ids, segments, starts, targets), (B, T) each but starts (B, K): where in its row each document begins, then
    T (see models/segments.py). K is a power of two and one, so that a compiled model meets few shapes.
    """

    vocab_size: int
    eos_id: int
    whole_text = True

    def __post_init__(self) -> None:
        check_special("PackedNextToken", self.vocab_size, eos_id=self.eos_id)

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, Array, Array, Array]:
        begins = ids == self.eos_id
        begins[:, 0] = True
        segments = begins.cumsum(axis=1) - 1  # (B, T)
        return ids, segments, starts_of(segments), targets


@dataclass(frozen=True)
class MaskedLM:
    """BERT's task (Devlin et al. 2018, arXiv 1810.04805, section 3.1): predict 15% of the tokens from all the others.

    Of those, 80% (`masked`) are replaced by [MASK], 10% (`replaced`) by a random token and 10%, the rest, left as they
    are: in use there is no [MASK], and a model that can trust every token it sees to be right would compute nothing for
    them (derived and measured in chapters/10_bert.ipynb). Returns (inputs, targets), both (B, T), targets −100 where
    nothing is asked. The number of hidden tokens is the same for rows of the same length; the shares hold on average,
    also in rows so short that no whole token is a tenth of them.
    """

    mask_id: int
    vocab_size: int
    random_below: int  # random tokens are drawn from 0 to random_below − 1: the tokenizer's ordinary ids
    never_hidden: tuple[int, ...] = ()  # [CLS], [SEP] and their like
    rate: float = HIDDEN_SHARE
    masked: float = 0.8
    replaced: float = 0.1
    pad_id: int | None = None  # what padding becomes; None: what it was
    seed: int = 0
    whole_text = False

    def __post_init__(self) -> None:
        check_rate("MaskedLM", self.rate)
        if min(self.masked, self.replaced) < 0 or self.masked + self.replaced > 1 + 1e-9:
            raise ValueError(
                f"MaskedLM: masked = {self.masked} and replaced = {self.replaced} are shares of the hidden tokens: "
                "neither below 0, together at most 1."
            )
        check_special("MaskedLM", self.vocab_size, mask_id=self.mask_id, pad_id=self.pad_id)
        if not 0 < self.random_below <= self.vocab_size:
            raise ValueError(f"MaskedLM: random_below = {self.random_below} must be from 1 to {self.vocab_size}.")

    @property
    def model_settings(self) -> dict[str, Any]:
        # One loss, on the hidden tokens: other heads would be left as they began.
        heads = {"head": "mlm", "pooler": False, "next_sentence": False}
        return {"vocab_size": self.vocab_size, "pad_id": self.pad_id, **heads}

    @classmethod
    def for_tokenizer(cls, vocab_size: int, special_tokens: dict[str, int], context: int) -> MaskedLM:
        """Masking for a tokenizer with `vocab_size` ids. Its own [MASK], [PAD], [CLS] and [SEP] are used if it has
        them (WordPiece); otherwise the ids after its last become mask and padding, and the model's vocabulary is that
        much larger."""
        special = add_special(vocab_size, special_tokens, *MASKING_TOKENS)
        ordinary = set(range(vocab_size)) - set(special_tokens.values())
        return cls(
            mask_id=special["[MASK]"],
            vocab_size=max(vocab_size, *(i + 1 for i in special.values())),
            random_below=max(ordinary) + 1,
            never_hidden=tuple(sorted(special_tokens.values())),
            pad_id=special["[PAD]"],
        )

    @staticmethod
    def special_tokens(context: int) -> list[str]:
        return list(MASKING_TOKENS)

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, Array]:
        inputs, wanted = ids.copy(), np.full_like(ids, IGNORE)
        if self.pad_id is not None:
            inputs[targets == IGNORE] = self.pad_id
        candidates = (targets != IGNORE) & ~np.isin(ids, self.never_hidden)
        for row in range(len(ids)):
            rng = np.random.default_rng((self.seed, first + row))
            places = np.flatnonzero(candidates[row])
            n_hidden = max(1, round(self.rate * len(places))) if len(places) else 0
            hidden = rng.permutation(places)[:n_hidden]
            up = rng.random()  # rounds both borders up or down at random, so that a share of 1.5 tokens is 1 or 2
            first_border = math.floor(self.masked * n_hidden + up)
            second_border = math.floor((self.masked + self.replaced) * n_hidden + up)
            wanted[row, hidden] = ids[row, hidden]
            inputs[row, hidden[:first_border]] = self.mask_id
            replaced = hidden[first_border:second_border]
            inputs[row, replaced] = rng.integers(0, self.random_below, len(replaced))
        return inputs, wanted


@dataclass(frozen=True)
class SpanCorruption:
    """T5's task (Raffel et al. 2019, arXiv 1910.10683, sections 3.1.4 and 3.3.4): short spans of the text, 15% of it,
    are each replaced by a sentinel; the target is every sentinel followed by what it stands for.

        Thank you for inviting me to your party last week
        source  Thank you <X> me to your party <Y> week        target  <X> for inviting <Y> last </s>

    Returns (source, ids, targets): ids are the targets shifted right, from `start_id` on. Rows of the same length give
    sources and targets of the same length.
    """

    sentinel_ids: tuple[int, ...]
    start_id: int
    end_id: int
    pad_id: int
    vocab_size: int
    rate: float = HIDDEN_SHARE
    mean_span: float = MEAN_SPAN  # tokens
    seed: int = 0
    whole_text = False

    def __post_init__(self) -> None:
        check_rate("SpanCorruption", self.rate)
        if not self.mean_span >= 1:
            raise ValueError(f"SpanCorruption: mean_span = {self.mean_span} must be at least 1, in tokens.")
        special = {f"sentinel {i}": sentinel for i, sentinel in enumerate(self.sentinel_ids)}
        check_special(
            "SpanCorruption", self.vocab_size, start_id=self.start_id, end_id=self.end_id, pad_id=self.pad_id, **special
        )

    @classmethod
    def for_tokenizer(cls, vocab_size: int, special_tokens: dict[str, int], context: int) -> SpanCorruption:
        """Span corruption for a tokenizer with `vocab_size` ids and texts of up to `context` tokens. Padding, start,
        end and as many sentinels as such texts need become the ids after the tokenizer's last, where it has none of
        these names."""
        names = sentinels(context)
        special = add_special(vocab_size, special_tokens, *SPAN_TOKENS, *names)
        return cls(
            sentinel_ids=tuple(special[name] for name in names),
            start_id=special["<s>"],
            end_id=special["</s>"],
            pad_id=special["<pad>"],
            vocab_size=max(vocab_size, *(i + 1 for i in special.values())),
        )

    @staticmethod
    def special_tokens(context: int) -> list[str]:
        return [*SPAN_TOKENS, *sentinels(context)]

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "pad_id": self.pad_id}

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, Array, Array]:
        rows = []
        for row, (tokens, kept) in enumerate(zip(ids, targets != IGNORE)):
            rng = np.random.default_rng((self.seed, first + row))
            rows.append(self.corrupt(tokens[kept], rng))
        source = padded([source for source, _ in rows], self.pad_id)
        return source, *shifted([target for _, target in rows], self.start_id, self.pad_id)

    def corrupt(self, tokens: Array, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """One text -> source and target ids. A text of fewer than two tokens has nothing to hide."""
        if len(tokens) < 2:
            return tokens.tolist(), []
        n_hidden = min(max(round(self.rate * len(tokens)), 1), len(tokens) - 1)
        n_spans = min(max(round(n_hidden / self.mean_span), 1), len(tokens) - n_hidden)
        if n_spans > len(self.sentinel_ids):
            raise ValueError(
                f"SpanCorruption: {len(tokens)} tokens need {n_spans} sentinels, but there are "
                f"{len(self.sentinel_ids)}. Give more sentinel_ids, or a larger mean_span."
            )
        source: list[int] = []
        target: list[int] = []
        position = 0
        shown, hidden = lengths(len(tokens) - n_hidden, n_spans, rng), lengths(n_hidden, n_spans, rng)
        for sentinel, n_shown, n_span in zip(self.sentinel_ids, shown, hidden):
            middle, end = position + n_shown, position + n_shown + n_span
            source += [*tokens[position:middle].tolist(), sentinel]
            target += [sentinel, *tokens[middle:end].tolist()]
            position = end
        return source, [*target, self.end_id]


@dataclass(frozen=True)
class Copy:
    """Write the source down again: learned quickly, and only through cross-attention, so a good first test of a model.

    Returns (source, ids, targets) as SpanCorruption does.
    """

    start_id: int
    end_id: int
    pad_id: int
    vocab_size: int
    whole_text = False

    def __post_init__(self) -> None:
        check_special("Copy", self.vocab_size, start_id=self.start_id, end_id=self.end_id, pad_id=self.pad_id)

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "pad_id": self.pad_id}

    def __call__(self, ids: Array, targets: Array, first: int) -> tuple[Array, Array, Array]:
        texts = [tokens[kept].tolist() for tokens, kept in zip(ids, targets != IGNORE)]
        source = padded(texts, self.pad_id)
        return source, *shifted([[*text, self.end_id] for text in texts], self.start_id, self.pad_id)


# What a model is trained to do, by its task (see models/__init__.py). The random choices of an objective made
# `for_tokenizer` are the same in every run: the seed of a run decides which text they fall on, and evaluations of
# different runs ask for the same tokens.
OBJECTIVES: dict[str, type[NextToken] | type[MaskedLM] | type[SpanCorruption]] = {
    "causal": NextToken,
    "mlm": MaskedLM,
    "seq2seq": SpanCorruption,
}


def objective_for(task: str) -> type[NextToken] | type[MaskedLM] | type[SpanCorruption]:
    """The class of the objective of models for `task`. Raises ValueError for a task that texts alone do not set."""
    if task not in OBJECTIVES:
        raise ValueError(
            f"a model for {task!r} has no head that predicts tokens (a classifier labels texts, a base model gives "
            "features): how well it predicts a text cannot be measured."
        )
    return OBJECTIVES[task]


def loss_for(objective: Objective, label_smoothing: float = 0.0) -> ModelLoss:
    """The loss of the batches that an objective makes, as an engine takes it."""
    return (PackedLoss if isinstance(objective, PackedNextToken) else ModelLoss)(label_smoothing)


def sentinels(context: int) -> list[str]:
    """T5's names of the sentinels that SpanCorruption needs for a text of up to `context` tokens."""
    return [f"<extra_id_{i}>" for i in range(max(1, round(round(HIDDEN_SHARE * context) / MEAN_SPAN)))]


def add_special(vocab_size: int, special_tokens: dict[str, int], *names: str) -> dict[str, int]:
    """An id for each name: the tokenizer's own, or the next one after its last."""
    ids: dict[str, int] = {}
    for name in names:
        ids[name] = special_tokens.get(name, vocab_size)
        vocab_size += name not in special_tokens
    return ids


def lengths(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`total` cut at random into `parts` whole numbers of at least 1, each way of cutting equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff([0, *cuts, total]).tolist()


def shifted(rows: list[list[int]], start_id: int, pad_id: int) -> tuple[Array, Array]:
    """What a decoder reads and what it should answer, (B, T) each: the rows behind a start id, and the rows."""
    ids = padded([[start_id, *row[:-1]] for row in rows], pad_id)
    return ids, padded(rows, IGNORE, ids.shape[1])


def padded(rows: list[list[int]], fill: int, width: int = 0) -> Array:
    """Rows of any length as one array (B, T) int64, filled up at the end."""
    out = np.full((len(rows), max(width, *(len(row) for row in rows))), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def check_rate(name: str, rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"{name}: rate = {rate} must be above 0 and below 1: the share of tokens to hide.")


def check_special(name: str, vocab_size: int, **ids: int | None) -> None:
    """Special ids must lie in the vocabulary and differ."""
    given = {key: value for key, value in ids.items() if value is not None}
    for key, value in given.items():
        if not 0 <= value < vocab_size:
            raise ValueError(f"{name}: {key} = {value} is outside the vocabulary of {vocab_size}.")
    if len(set(given.values())) < len(given):
        raise ValueError(f"{name}: the special ids must differ, not {given}.")
