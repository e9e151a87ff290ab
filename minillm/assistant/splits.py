"""The conversations of a run: the user's own files or a built-in task, in splits that share no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import Chat, Preference, read_chats, read_preferences
from ..data.example_split import check_leak, split_examples
from ..data.examples import Prompt, read_prompts
from ..data.tasks import dialogue, verifiable
from .config import ChatConfig
from .pairs import prompt_messages

DIALOGUE = "dialogue"


@dataclass
class Splits:
    """Examples by split ("train", "val", and further ones to measure the result on), with notes to be printed.

    `chats`: of preferences, conversations to measure whole answers on. `task`: the built-in task, "" for the user's own
    files. `baselines`: name -> split -> the answers of something simple that learned from "train".
    """

    examples: dict[str, list[Any]]
    task: str = ""
    notes: list[str] = field(default_factory=list)
    chats: dict[str, list[Chat]] = field(default_factory=dict)
    baselines: Callable[[], dict[str, dict[str, list[str]]]] = dict

    @property
    def tests(self) -> dict[str, list[Any]]:
        """The splits that a result is measured on; validation, where there is no other."""
        found = {name: examples for name, examples in self.examples.items() if name not in ("train", "val")}
        return found or {"val": self.examples["val"]}

    @property
    def answered(self) -> dict[str, list[Any]]:
        """Chats, or prompts, to be answered when the result is measured; of preferences the chosen answers."""
        if self.chats:
            return self.chats
        return {name: [chosen(example) for example in examples] for name, examples in self.tests.items()}

    def __str__(self) -> str:
        """What is to be printed before a run."""
        sizes = ", ".join(f"{name} {len(examples):,}" for name, examples in self.examples.items())
        return "\n".join([f"examples   {sizes}", *(f"note       {note}" for note in self.notes)])


def chosen(example: Any) -> Any:
    """A preference as the chat with the better answer; others as they are."""
    if not isinstance(example, Preference):
        return example
    answer = {"role": "assistant", "content": example.chosen}
    return Chat((*prompt_messages(example.prompt), answer), example.where)


def read_splits(chat: ChatConfig, draw: int = 0) -> Splits:
    """The examples that [chat] names; `draw`: the seed of the choice, where only some are trained on. Raises
    FileNotFoundError, or ValueError that names file, line and remedy."""
    splits = own_splits(chat) if chat.data else built_in_splits(chat)
    if chat.limit:
        splits.examples["train"] = splits.examples["train"][: chat.limit]
    if chat.val_limit:
        splits.examples["val"] = splits.examples["val"][: chat.val_limit]
    return splits


def read_examples(chat: ChatConfig, path: str | Path) -> Any:
    """The examples of one file of the user's, as this kind of training reads it."""
    readers: dict[str, Any] = {"dpo": read_preferences, "reward": read_preferences, "grpo": read_prompts}
    return readers.get(chat.kind, read_chats)(path, skip_bad=chat.skip_bad)


def own_splits(chat: ChatConfig) -> Splits:
    """The user's files. Without one for validation, a tenth of the first is."""
    examples = read_examples(chat, chat.data)
    given = {name: read_examples(chat, path) for name, path in (("val", chat.val), ("test", chat.test)) if path}
    notes = [str(examples), *map(str, given.values())]
    if "val" in given:
        found = {"train": list(examples), **given}
    else:
        parts = split_examples(list(examples), (0.9, 0.1), seed=chat.seed, stratify=False)
        notes += parts.notes
        found = {**parts, **given}
    check_leak(found)
    return Splits(found, notes=notes)


def built_in_splits(chat: ChatConfig) -> Splits:
    """A task that comes with minillm."""
    if chat.builtin == DIALOGUE:
        chats = dialogue.make(chat.seed)
        tests = {name: rows for name, rows in chats.items() if name not in ("train", "val")}

        def answers() -> dict[str, dict[str, list[str]]]:
            return dialogue.baselines(chats)

        if chat.kind in ("dpo", "reward"):
            pairs: dict[str, list[Preference]] = dialogue.preferences(chats, chat.seed)
            return Splits(pairs, DIALOGUE, chats=tests, baselines=answers)
        if chat.kind == "grpo":
            return Splits({name: [dialogue_prompt(c) for c in rows] for name, rows in chats.items()}, DIALOGUE)
        return Splits(chats, DIALOGUE, baselines=answers)
    kinds = verifiable.KINDS if chat.builtin == "verifiable" else (chat.builtin,)
    prompts = verifiable.make(chat.seed, kinds=kinds)
    if chat.kind == "grpo":
        return Splits(prompts, chat.builtin)

    def simple() -> dict[str, dict[str, list[str]]]:
        return verifiable.baselines(prompts)

    return Splits({name: verifiable.chats(rows) for name, rows in prompts.items()}, chat.builtin, baselines=simple)


def dialogue_reward(answer: str, record: dict[str, Any]) -> float:
    """The share of slots that an answer in a dialogue fills rightly."""
    return dialogue.slot_accuracy(answer, record["chat"])


def dialogue_prompt(chat: Chat) -> Prompt:
    """What is asked in a dialogue, with the whole of it for the reward."""
    asked = chat.messages[:-1]
    return Prompt(asked, {"messages": asked, "chat": chat}, chat.where)
