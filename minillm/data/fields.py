"""Fields: which column of a user's file holds what, and the text, label or messages that one record gives.

Columns are looked for by the names that data sets usually give them. Each function for a value raises BadRecord: what
is wrong with it, and what to do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from .records import BadRecord, Table, plain

Kind = Literal["classification", "regression", "multi-label"]
KINDS = ("classification", "regression", "multi-label")
Label = str | float | tuple[str, ...]
Message = dict[str, str]

TEXT_NAMES = (
    "text", "sentence", "content", "review", "comment", "tweet", "body", "document", "question", "utterance", "title",
    "文本", "句子", "内容", "评论",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "sentiment", "score", "rating", "stars", "polarity",
    "emotion", "intent", "topic", "tags", "target", "value", "标签", "类别", "情感", "评分",
)  # fmt: skip
PAIR_NAMES = (
    ("source", "target"), ("src", "tgt"), ("instruction", "output"), ("instruction", "response"), ("input", "output"),
    ("input", "target"), ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("question", "answer"),
    ("en", "zh"), ("english", "chinese"), ("document", "summary"), ("article", "summary"), ("article", "highlights"),
    ("text", "summary"), ("英文", "中文"), ("原文", "译文"), ("指令", "回答"),
)  # fmt: skip
PROMPT_NAMES = ("prompt", "messages", "question", "instruction", "input", "source", "提示", "问题", "指令")
CHAT_NAMES = ("messages", "conversations")
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def single_column(table: Table, wanted: str | None, known: Sequence[str], what: str, taken: str | None = None) -> str:
    """The column that is `wanted`, or else, of those with a `known` name, the one that most records have, earlier names
    first. Raises ValueError, with the file's columns, where there is none."""
    if wanted is not None:
        return table.column(wanted, what)
    found = [name for name in table.columns if plain(name) in known and (taken is None or plain(name) != plain(taken))]
    if not found:
        require_records(table)
        name_it = "Name it so" if what in ("messages", "chosen", "rejected", "prompt") else f"Name it (--{what} COLUMN)"
        raise ValueError(
            f"{table.path}: which column is the {what}? None has a usual name ({', '.join(known[:6])}). "
            f"{table.named()} {name_it}, or add the first line, which names the columns."
        )
    return min(found, key=lambda name: (-table.columns[name], known.index(plain(name))))


def pair_columns(table: Table) -> dict[str, str]:
    """{"source": column, "target": column}: of the known pairs of names the one that most records have."""
    by_name = {plain(name): name for name in table.columns}
    found = [(by_name[a], by_name[b]) for a, b in PAIR_NAMES if a in by_name and b in by_name]
    if not found:
        require_records(table)
        raise ValueError(
            f"{table.path}: which columns are the source and the target? There is no usual pair of names "
            f"({', '.join('/'.join(pair) for pair in PAIR_NAMES[:5])}, ...). {table.named()} Name both (--source "
            "COLUMN --target COLUMN), or give a .tsv of two columns."
        )
    n_records = [min(table.columns[a], table.columns[b]) for a, b in found]
    source, target = found[n_records.index(max(n_records))]
    return {"source": source, "target": target}


def require_records(table: Table) -> None:
    """Raise ValueError where no record could be read: then a column that is missing is not what to complain of."""
    if table.columns:
        return
    for line, record in table.records:
        raise ValueError(f"{table.path}, line {line}: {record}. No record of the file can be read.")
    raise ValueError(f"{table.path} holds no example: there is nothing in it but a header at most.")


def text_of(record: dict[str, Any], column: str) -> str:
    """The text in a column, as it stands there; at least one character is no white space."""
    return checked_text(record.get(column), f"{column!r}")


def checked_text(value: Any, place: str) -> str:
    if value is None:
        raise BadRecord("missing field", f"there is no {place}: add it, or remove the record")
    if not isinstance(value, str):
        raise BadRecord("no text", f"{place} is {shown(value)}, which is no text: put it in quotes")
    if not value.strip():
        raise BadRecord("empty text", f"{place} is empty: write a text, or remove the record")
    half = _HALF_PAIR.search(value)
    if half:
        raise BadRecord("no text", f"{place} holds half of a surrogate pair at character {half.start()}: remove it")
    return value


def label_of(record: dict[str, Any], column: str, kind: Kind, separator: str) -> Label:
    """The label in a column: see `read_labelled`."""
    value = record.get(column)
    if kind == "multi-label":
        names = value.split(separator) if isinstance(value, str) else value
        if value is None:
            raise BadRecord("missing label", f"there is no {column!r}: write '' (or []) where no label applies")
        if isinstance(names, (int, float)):
            names = [names]
        if not isinstance(names, list):
            raise BadRecord("wrong label", f"{column!r} is {shown(value)}: it must be a list of names, or a text")
        if isinstance(value, str):
            names = [name for name in names if name.strip()]
        return tuple(dict.fromkeys(label_name(name, column) for name in names))
    return number_of(value, column) if kind == "regression" else label_name(value, column)


def label_name(value: Any, column: str) -> str:
    """A class's name: a text without the white space around it, or a number or a truth value as JSON writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRecord("missing label", f"{column!r} is empty: write the label, or remove the record")
    if not isinstance(value, str) or _HALF_PAIR.search(value):
        several = " (several labels are kind 'multi-label')" if isinstance(value, list) else ""
        raise BadRecord("wrong label", f"{column!r} is {shown(value)}, which is no name of a class{several}")
    return value.strip()


def number_of(value: Any, column: str) -> float:
    """A finite number, for regression."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRecord("missing label", f"{column!r} is empty: write the number, or remove the record")
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)) or "_" in str(value):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        hint = "a point, not a comma, stands before decimals" if "," in str(value) else "names need 'classification'"
        raise BadRecord(
            "label is no number", f"{column!r} is {shown(value)}, but regression needs a number: {hint}"
        ) from None
    if not math.isfinite(number):
        raise BadRecord("label is no number", f"{column!r} is {number}: regression needs a finite number")
    return number


def messages_of(value: Any, column: str) -> tuple[Message, ...]:
    """Messages as {"role", "content"}, in either spelling, their order checked: after at most one system message, the
    user and the assistant speak in turn. The user begins, except where the assistant's message is the only one."""
    if value is None:
        raise BadRecord("missing field", f"there is no {column!r}: add it, or remove the record")
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise BadRecord(
            "no messages", f"{column!r} is {shown(value)}: it must be a list of objects with role and content"
        )
    messages: list[Message] = []
    for number, message in enumerate(value, 1):
        place = f"message {number} of {column!r}"
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or role not in ROLES:
            raise BadRecord("unknown role", f"{place} has the role {shown(role)}: it must be {', '.join(ROLES)}")
        key = "content" if "content" in message else "value" if "value" in message else "content"
        messages.append({"role": ROLES[role], "content": checked_text(message.get(key), f"{key} in {place}")})
    roles = [message["role"] for message in messages]
    first = 1 if roles[0] == "system" else 0
    if roles[first:] == ["assistant"] and first == 0:
        return tuple(messages)
    for number, role in enumerate(roles[first:]):
        expected = "assistant" if number % 2 else "user"
        if role != expected:
            what = f"begins with the {role}" if number == 0 else f"has two messages of the {role} in a row"
            if role == "system":
                what = f"has a system message as number {number + first + 1}"
            raise BadRecord("wrong order", f"{column!r} {what}: user and assistant must speak in turn, the user first")
    return tuple(messages)


def chat_of(value: Any, column: str) -> tuple[Message, ...]:
    """The messages of a chat to learn from: the user's comes first (after the system's), the assistant's last."""
    messages = messages_of(value, column)
    if messages[0]["role"] == "assistant":
        raise BadRecord("wrong order", "the chat begins with the assistant: the user's message must come first")
    if messages[-1]["role"] != "assistant":
        raise BadRecord("wrong order", "the chat ends without an answer: add the assistant's, or cut the last one")
    return messages


def prompt_of(record: dict[str, Any], column: str) -> tuple[Message, ...]:
    """A prompt's messages; a text is the user's one."""
    value = record.get(column)
    if not isinstance(value, list):
        return ({"role": "user", "content": text_of(record, column)},)
    messages = messages_of(value, column)
    if messages[-1]["role"] != "user":
        raise BadRecord("wrong order", f"{column!r} ends with the {messages[-1]['role']}: it must end with the user")
    return messages


def answer_of(record: dict[str, Any], column: str) -> tuple[tuple[Message, ...], str]:
    """(the messages before an answer, the answer). For a text, and for the assistant's message alone: none before."""
    value = record.get(column)
    if not isinstance(value, list):
        return (), text_of(record, column)
    messages = messages_of(value, column)
    if messages[-1]["role"] != "assistant":
        raise BadRecord("wrong order", f"{column!r} ends with the {messages[-1]['role']}: the answer must be the last")
    return messages[:-1], messages[-1]["content"]


def shown(value: Any) -> str:
    """The beginning of a value, as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
