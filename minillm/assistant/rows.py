"""Conversations as rows of ids and targets, which the training loop makes batches of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Chat, Prompt
from ..data.example_batches import pad
from ..finetune.objectives import Row, about
from ..settings import IGNORE
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate


def shifted(ids: Sequence[int], mask: Sequence[bool]) -> Row:
    """(ids (T,), targets (T,)): the next id of each where `mask` is True for that, −100 elsewhere."""
    whole = np.array(ids, dtype=np.int64)
    return whole[:-1], np.where(mask[1:], whole[1:], IGNORE)


def collate(rows: Sequence[Row], pad_id: int) -> tuple[np.ndarray, ...]:
    """ids (B, T), filled up with `pad_id`, at which no token that counts looks, and targets (B, T)."""
    return pad([row[0] for row in rows], pad_id)[0], pad([row[1] for row in rows], IGNORE)[0]


def check_room(n_tokens: int, context: int, what: str = "the conversation has") -> None:
    """Raise ValueError for a row that is longer than the model's context."""
    if n_tokens > context:
        raise ValueError(
            f"{what} {n_tokens:,} tokens, and the model takes {context:,}. Cut its first turns, use a model with a "
            "larger context, or leave such examples out (--skip-bad)."
        )


@dataclass(frozen=True)
class Conversations:
    """What SFT asks of a model: of each conversation what the assistant says, the ends of its turns included
    (`train_on`: see `ChatTemplate.encode`)."""

    template: ChatTemplate
    context: int
    train_on: str = "assistant"
    system: str = ""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    def encode(self, example: Chat) -> Row:
        """(ids (T,), targets (T,)). Raises Misfit for a conversation that the template or the model cannot take."""
        with about(example):
            ids, mask = self.template.encode(with_system(example.messages, self.system), self.train_on)
            row = shifted(ids, mask)
            check_room(len(row[0]), self.context)
            if not (row[1] != IGNORE).any():
                raise ValueError("the assistant says nothing in it that could be learned: remove it.")
            return row

    def collate(self, rows: Sequence[Row]) -> tuple[np.ndarray, ...]:
        return collate(rows, self.template.stop_ids[0])

    def size(self, row: Row) -> int:
        return len(row[0])


def with_system(messages: Sequence[dict[str, str]], system: str) -> tuple[dict[str, str], ...]:
    """The messages with this system message before them, unless they have one or it is empty."""
    if not system or messages[0]["role"] == "system":
        return tuple(messages)
    return ({"role": "system", "content": system}, *messages)


def prompt_of(template: ChatTemplate, example: Chat | Prompt, context: int, system: str = "") -> list[int]:
    """The ids of a prompt, or of a chat up to where its last answer begins. Raises Misfit where that leaves no room for
    an answer."""
    messages = example.messages if isinstance(example, Prompt) else example.messages[:-1]
    with about(example):
        ids = template.prompt(with_system(messages, system))
        check_room(len(ids) + 1, context, "the messages before the answer, and a token of it, have")
        return ids
