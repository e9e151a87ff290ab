"""Examples: what a model is fine-tuned on, read from a user's own file: labelled texts, pairs, chats, preferences,
prompts.

A file is a .csv, .tsv, .jsonl or .json (records.py says how each is read). Which columns hold what is found by their
usual names, or named by the caller; what was taken is in the result's `columns`, so that a command can print it.
Whatever is wrong with a record is said with its file, its line and its remedy. Without `skip_bad` the first is raised,
with the number of others; with it they are left out and counted in the result's `skipped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..disk.names import AnyPath
from .fields import (
    CHAT_NAMES,
    KINDS,
    LABEL_NAMES,
    PAIR_NAMES,
    PROMPT_NAMES,
    TEXT_NAMES,
    Kind,
    Label,
    Message,
    answer_of,
    chat_of,
    label_of,
    pair_columns,
    prompt_of,
    single_column,
    text_of,
)
from .folders import extension_of
from .records import TABLES, Table, first_row, plain, read_table
from .rows import BadRecord

T = TypeVar("T")
LINES_NAMED = 5  # of each kind of fault, in a report


@dataclass(frozen=True)
class Labelled:
    """A text and its label: a class's name, a number (regression), or any number of names (multi-label)."""

    text: str
    label: Label
    where: str = ""  # "reviews.csv, line 7", on which the record begins


@dataclass(frozen=True)
class Pair:
    """A text and what is to be written when it is read: a translation, a summary, an answer, code."""

    source: str
    target: str
    where: str = ""


@dataclass(frozen=True)
class Chat:
    """Messages {"role": "system" | "user" | "assistant", "content": ...}: maybe a system's, then user and assistant in
    turn; the assistant's is the last."""

    messages: tuple[Message, ...]
    where: str = ""


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, one better than the other. The prompt is a text, or, where it is more than one user's
    message, the messages that come before the answer."""

    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str
    where: str = ""


@dataclass(frozen=True)
class Prompt:
    """Messages to be answered, the user's the last, and all that the record says: what a reward judges an answer by."""

    messages: tuple[Message, ...]
    record: dict[str, Any]
    where: str = ""


@dataclass
class Skipped:
    """Which records of a file were left out: how many of each kind of fault, and the first lines of each."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, line: int) -> None:
        self.counts[kind] += 1
        if len(self.lines.setdefault(kind, [])) < LINES_NAMED:
            self.lines[kind].append(line)

    def __str__(self) -> str:
        """ "3 empty text (lines 7, 9, 12), 1 broken JSON (line 20)", the commonest first; "nothing"."""
        parts = []
        for kind, n in self.counts.most_common():
            lines = ", ".join(map(str, self.lines[kind])) + (", ..." if n > LINES_NAMED else "")
            parts.append(f"{n:,} {kind} (line{'s' if n > 1 else ''} {lines})")
        return ", ".join(parts) or "nothing"


class Examples(list[T], Generic[T]):
    """A list of examples that knows how it was read.

    `columns` says which column of the file became what ({"text": "review", "label": "stars"}), `header` whether the
    file's first line names its columns, `skipped` what was left out. `str` of it is the sentence to print.
    """

    def __init__(
        self, examples: Iterable[T], path: str, columns: dict[str, str], skipped: Skipped, header: bool = True
    ) -> None:
        super().__init__(examples)
        self.path = path
        self.columns = columns
        self.skipped = skipped
        self.header = header

    def __str__(self) -> str:
        taken = ", ".join(f"{what} from {column!r}" for what, column in self.columns.items())
        if not self.header:
            taken = "no header, so the first column is the source and the second the target"
        left_out = f"; {self.skipped.counts.total():,} skipped: {self.skipped}" if self.skipped.counts else ""
        return f"{self.path}: {len(self):,} example{'s' if len(self) != 1 else ''} ({taken}){left_out}."


def read_labelled(
    path: AnyPath,
    *,
    text: str | None = None,
    label: str | None = None,
    kind: Kind = "classification",
    separator: str = ",",
    skip_bad: bool = False,
    encoding: str = "utf-8",
) -> Examples[Labelled]:
    """The labelled texts of a file, from the columns `text` and `label` (None: found by their usual names).

    Labels stay what the file calls them, as strings: 1 is "1", JSON's true is "true". For `kind` "regression" they are
    finite floats; for "multi-label" a tuple of names, from a JSON list or from a string cut at `separator` (an empty
    one: no label applies).

    Raises FileNotFoundError, or ValueError with file, line and remedy.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    if not separator:
        raise ValueError("separator must be what stands between two labels, as ',' does, not ''.")
    table = read_table(path, encoding=encoding)
    columns = {
        "text": single_column(table, text, TEXT_NAMES, "text", taken=label),
        "label": single_column(table, label, LABEL_NAMES, "label", taken=text),
    }
    if columns["text"] == columns["label"]:
        raise ValueError(f"{table.path}: text and label are both the column {columns['text']!r}: name two.")

    def labelled(record: dict[str, Any], where: str) -> Labelled:
        read = text_of(record, columns["text"])
        return Labelled(read, label_of(record, columns["label"], kind, separator), where)

    return collect(table, labelled, columns, skip_bad)


def read_pairs(
    path: AnyPath,
    *,
    source: str | None = None,
    target: str | None = None,
    skip_bad: bool = False,
    encoding: str = "utf-8",
) -> Examples[Pair]:
    """The pairs of a file, from the columns `source` and `target` (None: found by their usual names).

    Known are source/target, input/output, instruction/response or output, prompt/completion, question/answer, en/zh,
    document/summary and a few like them. Alpaca's `input`, where there is one, follows the instruction after a blank
    line. A .tsv of two columns whose first line has no known name is taken as one without a header; `str` of the result
    says so.

    Raises FileNotFoundError, or ValueError with file, line and remedy.
    """
    if (source is None) != (target is None):
        raise ValueError("name both the source's and the target's column, or neither (--source, --target).")
    names = names_if_missing(path, encoding) if source is None else ()
    table = read_table(path, encoding=encoding, names=names)
    if source is not None and target is not None:
        columns = {"source": table.column(source, "the source"), "target": table.column(target, "the target")}
        if columns["source"] == columns["target"]:
            raise ValueError(f"{table.path}: source and target are both the column {columns['source']!r}: name two.")
    else:
        columns = pair_columns(table)
    extra = None if source is not None else column_beside(table, columns["source"])

    def pair(record: dict[str, Any], where: str) -> Pair:
        return Pair(source_of(record, columns["source"], extra), text_of(record, columns["target"]), where)

    shown = {**columns, "source": columns["source"] + (f" + {extra}" if extra is not None else "")}
    return collect(table, pair, shown, skip_bad, header=not names)


def names_if_missing(path: AnyPath, encoding: str = "utf-8") -> tuple[str, ...]:
    """The names of a .tsv's two columns, if its first line has none that is known: then it is a pair itself."""
    if extension_of(str(path)) != ".tsv":
        return ()
    cells, known = first_row(path, encoding), {name for pair in PAIR_NAMES for name in pair}
    return ("source", "target") if len(cells) == 2 and not any(plain(cell) in known for cell in cells) else ()


def column_beside(table: Table, source: str) -> str | None:
    """Alpaca's `input`, which belongs to its instruction."""
    if plain(source) != "instruction":
        return None
    return next((name for name in table.columns if plain(name) == "input"), None)


def source_of(record: dict[str, Any], column: str, extra: str | None) -> str:
    """The source in a column, and behind a blank line what stands in the column `extra`, if there is something."""
    asked = text_of(record, column)
    if extra is not None and record.get(extra) not in (None, ""):
        asked += "\n\n" + text_of(record, extra)
    return asked


def read_chats(path: AnyPath, *, skip_bad: bool = False, encoding: str = "utf-8") -> Examples[Chat]:
    """The chats of a .jsonl or .json file: OpenAI's `messages` (role, content) or ShareGPT's `conversations` (from,
    value), an object a chat. Other keys are left aside.

    Raises FileNotFoundError, or ValueError with file, line and remedy: for an unknown role, two messages of one role in
    a row, or a chat that does not begin with the user (after the system) or does not end with the assistant.
    """
    if extension_of(str(path)) in TABLES:
        raise ValueError(
            f"{path}: a chat doesn't fit into a table: write it as .jsonl, an object a line, "
            'as {"messages": [{"role": "user", "content": "..."}, ...]}.'
        )
    table = read_table(path, encoding=encoding)
    column = single_column(table, None, CHAT_NAMES, "messages")

    def chat(record: dict[str, Any], where: str) -> Chat:
        return Chat(chat_of(record.get(column), column), where)

    return collect(table, chat, {"messages": column}, skip_bad)


def read_preferences(path: AnyPath, *, skip_bad: bool = False, encoding: str = "utf-8") -> Examples[Preference]:
    """The preferences of a file: `prompt`, `chosen` and `rejected`, each a text or, in .jsonl and .json, messages.

    Without a prompt, `chosen` and `rejected` are whole chats that differ in the last message; what comes before is the
    prompt. Raises FileNotFoundError, or ValueError with file, line and remedy.
    """
    table = read_table(path, encoding=encoding)
    columns = {name: single_column(table, None, (name,), name) for name in ("chosen", "rejected")}
    prompts = [name for name in table.columns if plain(name) == "prompt"]
    if prompts:
        columns = {"prompt": prompts[0], **columns}

    def preference(record: dict[str, Any], where: str) -> Preference:
        chosen, rejected = (answer_of(record, columns[name]) for name in ("chosen", "rejected"))
        before = prompt_of(record, prompts[0]) if prompts and record.get(prompts[0]) is not None else ()
        if chosen[0] != rejected[0]:
            raise BadRecord("different prompts", "chosen and rejected don't answer the same messages: they must")
        if before and chosen[0] and chosen[0] != before:
            raise BadRecord("different prompts", "chosen holds other messages than the prompt's before its answer")
        before = before or chosen[0]
        if not before:
            raise BadRecord("missing field", "there is no prompt: add the key 'prompt', or write whole chats")
        if chosen[1] == rejected[1]:
            raise BadRecord("no preference", "chosen and rejected are the same answer: remove the record")
        alone = len(before) == 1 and before[0]["role"] == "user"
        return Preference(before[0]["content"] if alone else before, chosen[1], rejected[1], where)

    return collect(table, preference, columns, skip_bad)


def read_prompts(
    path: AnyPath, *, prompt: str | None = None, skip_bad: bool = False, encoding: str = "utf-8"
) -> Examples[Prompt]:
    """The prompts of a file, from the column `prompt` (None: found by its usual names): each a text, the user's one
    message, or in .jsonl and .json messages that end with the user's. `record` of each holds every field of its record,
    as the file calls it, and the "messages".

    Raises FileNotFoundError, or ValueError with file, line and remedy.
    """
    table = read_table(path, encoding=encoding)
    column = single_column(table, prompt, PROMPT_NAMES, "prompt")

    def asked(record: dict[str, Any], where: str) -> Prompt:
        messages = prompt_of(record, column)
        return Prompt(messages, {**record, "messages": [dict(message) for message in messages]}, where)

    return collect(table, asked, {"prompt": column}, skip_bad)


def collect(
    table: Table,
    make: Callable[[dict[str, Any], str], T],
    columns: dict[str, str],
    skip_bad: bool,
    header: bool = True,
) -> Examples[T]:
    """Make an example of each record. Raises ValueError for the first bad one, unless `skip_bad`; and for none."""
    examples: list[T] = []
    skipped, first = Skipped(), ""
    for line, record in table.records:
        where = f"{table.path}, line {line}"
        try:
            if isinstance(record, BadRecord):
                raise record
            examples.append(make(record, where))
        except BadRecord as bad:
            skipped.add(bad.kind, line)
            first = first or f"{where}: {bad}"
    n_more = skipped.counts.total() - 1
    if first and not skip_bad:
        more = f" {n_more:,} more {'is' if n_more == 1 else 'are'} bad; in all: {skipped}." if n_more else ""
        raise ValueError(f"{first}.{more} Mend the file, or leave such records out with skip_bad (--skip-bad).")
    if not examples:
        why = f"all {n_more + 1:,} records are bad. The first: {first}" if first else "no record stands in it"
        raise ValueError(f"{table.path} holds no example: {why}.")
    return Examples(examples, table.path, columns, skipped, header)
