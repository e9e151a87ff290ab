"""What a task's data consists of: labelled texts, pairs and chats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelled:
    """A text and what it is: a class, a number, or several classes at once."""

    text: str
    label: str | float | tuple[str, ...]
    where: str = ""


@dataclass(frozen=True)
class Pair:
    """What is given and what is wanted for it."""

    source: str
    target: str
    where: str = ""


@dataclass(frozen=True)
class Chat:
    """A conversation: {"role": ..., "content": ...} in turn."""

    messages: tuple[dict[str, str], ...]
    where: str = ""
