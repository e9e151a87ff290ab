"""What a task asks of a model: how an example becomes numbers, a batch, and an answer again.

| objective  | example                | model                      | batch: the model's arguments, targets last        |
| ---------- | ---------------------- | -------------------------- | ------------------------------------------------- |
| `Classify` | `Labelled` text, label | with a head for classes    | ids (B, T), classes (B,) or numbers (B, n_labels) |
| `Write`    | `Pair` source, target  | encoder–decoder            | source (B, S), ids (B, T), targets (B, T)         |
| `Continue` | `Pair` source, target  | decoder (GPT, Llama, LSTM) | ids (B, T), targets (B, T), −100 over the source  |

All train by maximum likelihood of the answer given the text, and never ask for the text itself: `Write` since the
source goes into the encoder ("teacher forcing": while it learns, the decoder reads the true answer so far, not its
own), `Continue` since the loss is masked there. Padding stands on the right and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Labelled, Pair
from ..data.example_batches import pad
from ..generate import known_ids
from ..settings import IGNORE
from ..tokenizers import Tokenizer
from ..tokenizers.extend import with_special_tokens
from ..training.objectives import SPAN_TOKENS

Array = np.ndarray
Row = tuple[Array, ...]  # one example as arrays


class Misfit(ValueError):
    """An example that the model cannot be given: the message says where it stands, why, and what to do."""


@contextmanager
def about(example: Any) -> Iterator[None]:
    """A ValueError inside of it says which example it is about."""
    try:
        yield
    except Misfit:
        raise  # it says so already
    except ValueError as error:
        raise Misfit(f"{example.where or 'an example'}: {error}") from error


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which nothing has a special meaning, whatever its author wrote."""
    return tokenizer.encode(text, disallowed_special=())


@dataclass(frozen=True)
class Classify:
    """A class, several, or numbers for a text. `labels` are the classes' names in the order of their ids; () for
    regression, where the model's numbers are (number − center) / scale, so that prices are as easy as stars. A text of
    more than `context` tokens is a `Misfit`, unless `cut` takes its end off."""

    tokenizer: Tokenizer
    problem_type: str
    labels: tuple[str, ...]
    pad_id: int
    context: int
    cut: bool = False
    center: float = 0.0
    scale: float = 1.0

    def encode(self, example: Labelled) -> Row:
        """(ids (T,), target () or (n_labels,)): special tokens as the tokenizer's model was pretrained with them."""
        with about(example):
            return self.inputs(example)[0], self.target(example.label)

    def inputs(self, example: Any) -> Row:
        """(ids (T,),) of a text, labelled or not."""
        with about(example):
            ids = tokens(self.tokenizer, example.text)
            whole, _ = self.tokenizer.template.apply(ids)
            if not whole:
                raise ValueError("the text has no token. Write one, or leave such examples out (--skip-bad).")
            if len(whole) > self.context:
                if not self.cut:
                    raise ValueError(
                        f"{len(whole):,} tokens do not fit into the model's {self.context:,}. Shorten the text, cut "
                        "the ends of long ones (--cut), or leave such examples out (--skip-bad)."
                    )
                whole, _ = self.tokenizer.template.apply(ids[: len(ids) - (len(whole) - self.context)])
            return (np.array(whole, dtype=np.int64),)

    def target(self, label: Any) -> Array:
        """The label as numbers: a class's id, 0 or 1 for each class, or the number itself."""
        if self.problem_type == "regression":
            return np.array([(label - self.center) / self.scale], dtype=np.float32)
        names = (label,) if isinstance(label, str) else label
        for name in names:
            if name not in self.labels:
                known = ", ".join(map(repr, self.labels[:10]))
                raise ValueError(f"the label {name!r} is none of those that the model knows: {known}.")
        places = [self.labels.index(name) for name in names]
        if self.problem_type == "single_label_classification":
            return np.array(places[0], dtype=np.int64)
        hot = np.zeros(len(self.labels), dtype=np.float32)
        hot[places] = 1
        return hot

    def collate(self, rows: Sequence[Row]) -> tuple[Array, ...]:
        """ids (B, T), padded; then, if the rows have them, the targets."""
        ids, _ = pad([row[0] for row in rows], self.pad_id)
        return (ids, *(np.stack(targets) for targets in list(zip(*rows))[1:]))

    def size(self, row: Row) -> int:
        """Tokens that the model reads."""
        return len(row[0])


@dataclass(frozen=True)
class Write:
    """A text for a text, by an encoder–decoder: `start_id` begins each answer, `end_id` ends it. With `dressed`, texts
    stand between the tokens that the tokenizer's template puts around one, as a pretrained model has seen them."""

    tokenizer: Tokenizer
    start_id: int
    end_id: int
    pad_id: int
    context: int
    dressed: bool = False

    @classmethod
    def for_tokenizer(cls, tokenizer: Tokenizer, context: int) -> Write:
        """With <s>, </s> and <pad>, which `prepared` gives to a tokenizer that lacks them."""
        pad_id, start_id, end_id = (tokenizer.special_tokens[name] for name in SPAN_TOKENS)
        return cls(tokenizer, start_id, end_id, pad_id, context)

    @classmethod
    def for_model(cls, tokenizer: Tokenizer, config: Any) -> Write:
        """As the model with this config wants it: one that came with a start_id of its own was pretrained with it.
        Raises ValueError if its tokenizer has no </s>."""
        if config.start_id is None:
            return cls.for_tokenizer(cls.prepared(tokenizer), config.context)
        end_id = tokenizer.special_tokens.get(SPAN_TOKENS[2])
        if end_id is None or config.pad_id is None:
            raise ValueError(
                f"{tokenizer!r} has no {SPAN_TOKENS[2]}, or the model no pad_id: where do its answers end?"
            )
        return cls(tokenizer, config.start_id, end_id, config.pad_id, config.context, dressed=True)

    @staticmethod
    def prepared(tokenizer: Tokenizer) -> Tokenizer:
        return with_special_tokens(tokenizer, SPAN_TOKENS)

    def encode(self, example: Pair) -> Row:
        """(source ids (S,), target ids (T,) with the end)."""
        with about(example):
            target = self.ids(example.target, self.tokenizer.target_side)
            if not self.dressed or target[-1:] != [self.end_id]:
                target.append(self.end_id)
            check_length("the target has", len(target), self.context)
            return (*self.inputs(example), np.array(target, dtype=np.int64))

    def ids(self, text: str, tokenizer: Tokenizer | None = None) -> list[int]:
        """A text's ids, as the model has seen texts; `tokenizer`: of targets, where that is another."""
        tokenizer = tokenizer or self.tokenizer
        return tokenizer.encode_pair(text, disallowed_special=())[0] if self.dressed else tokens(tokenizer, text)

    @property
    def allowed(self) -> Array:
        """For each id whether an answer may hold it: what stands for something, but not Marian's padding, which begins
        its answers, too, and which its own settings forbid."""
        known = known_ids(self.tokenizer)
        if self.dressed and self.start_id == self.pad_id:
            known[self.pad_id] = False
        return known

    def inputs(self, example: Any) -> Row:
        with about(example):
            source = self.ids(example.source)
            check_length("the source has", len(source), self.context)
            return (np.array(source, dtype=np.int64),)

    def collate(self, rows: Sequence[Row]) -> tuple[Array, ...]:
        """source (B, S); then, if the rows have targets, ids (B, T), the targets shifted right behind the start, and
        targets (B, T)."""
        source, _ = pad([row[0] for row in rows], self.pad_id)
        if len(rows[0]) == 1:
            return (source,)
        ids, _ = pad([np.concatenate([[self.start_id], row[1][:-1]]) for row in rows], self.pad_id)
        targets, _ = pad([row[1] for row in rows], IGNORE)
        return source, ids, targets

    def size(self, row: Row) -> int:
        return sum(len(part) for part in row)


@dataclass(frozen=True)
class Continue:
    """A text for a text, by a decoder: it reads `prompt` with the source in the place of {source}, and is trained on
    what follows: the target and the end of text."""

    tokenizer: Tokenizer
    end_id: int
    context: int
    prompt: str = "{source}\n"

    @property
    def allowed(self) -> Array:
        """For each id whether an answer may hold it."""
        return known_ids(self.tokenizer)

    def encode(self, example: Pair) -> Row:
        """(ids (T,), targets (T,)): the next token of each, −100 where that belongs to the prompt. The prompt is
        encoded for itself, as it will be when the answer is to be found."""
        with about(example):
            prompt = self.inputs(example)[0]
            answer = np.array([*tokens(self.tokenizer, example.target), self.end_id], dtype=np.int64)
            check_length("prompt and answer have", len(prompt) + len(answer) - 1, self.context)
            ids = np.concatenate([prompt, answer])
            targets = np.concatenate([np.full(len(prompt) - 1, IGNORE), answer])
            return ids[:-1], targets

    def inputs(self, example: Any) -> Row:
        with about(example):
            text = self.prompt.replace("{source}", example.source)
            ids, _ = self.tokenizer.encode_pair(text, disallowed_special=())
            check_length("the prompt has", len(ids) + 1, self.context)  # and one for an answer
            return (np.array(ids, dtype=np.int64),)

    def collate(self, rows: Sequence[Row]) -> tuple[Array, ...]:
        """ids (B, T), filled up with the end, at which no token that counts looks, and targets (B, T)."""
        ids, _ = pad([row[0] for row in rows], self.end_id)
        return (ids, *(pad(targets, IGNORE)[0] for targets in list(zip(*rows))[1:]))

    def size(self, row: Row) -> int:
        return len(row[0])


TaskObjective = Classify | Write | Continue


def check_length(what: str, n_tokens: int, context: int) -> None:
    if n_tokens > context:
        raise ValueError(
            f"{what} {n_tokens:,} tokens, and the model takes {context:,}. Shorten it, use a model with a larger "
            "context, or leave such examples out (--skip-bad)."
        )
    if n_tokens == 0:
        raise ValueError(f"{what} no token. Write a text, or leave such examples out (--skip-bad).")
