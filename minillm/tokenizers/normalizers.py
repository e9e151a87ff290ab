"""What a tokenizer.json does to a text before it is cut: its `normalizer`, a step or a Sequence of steps.

Each step is one small class: `apply` changes a text, `align` a text that knows where its characters came from
(aligned.py), and both are made of the same idea. Read `read_normalizer` last: from JSON to steps.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import regex

from ..disk import check_fields
from .added import WHITE_SPACE
from .aligned import Aligned
from .bert_text import UNCASED, BertNormalizer, chinese_apart, cleaned, without_marks
from .charsmap import CharsMap
from .json_parts import is_kind, refuse, short, steps_of
from .patterns import pattern_in
from .unicode_forms import FORMS, Form, aligned_form


class Step(Protocol):
    """One change to a text."""

    def apply(self, text: str) -> str:
        """The changed text."""
        ...

    def align(self, text: Aligned) -> Aligned:
        """The changed text with the places in the original."""
        ...


@dataclass(frozen=True)
class UnicodeForm:
    """NFC, NFD, NFKC or NFKD."""

    form: Form

    def apply(self, text: str) -> str:
        return unicodedata.normalize(self.form, text)

    def align(self, text: Aligned) -> Aligned:
        return aligned_form(text, self.form)


@dataclass(frozen=True)
class Each:
    """Every character by itself: what `replace` makes of it, "" for nothing."""

    replace: Callable[[str], str]

    def apply(self, text: str) -> str:
        return "".join(map(self.replace, text))

    def align(self, text: Aligned) -> Aligned:
        return text.kept(lambda c: self.replace(c) != "").each(self.replace)


@dataclass(frozen=True)
class Strip:
    """White space at the ends goes away."""

    left: bool
    right: bool

    def apply(self, text: str) -> str:
        return text[self.from_to(text)]

    def align(self, text: Aligned) -> Aligned:
        kept = self.from_to(text.text)
        return text.slice(kept.start, kept.stop)

    def from_to(self, text: str) -> slice:
        start, end = 0, len(text)
        while self.left and start < end and text[start] in WHITE_SPACE:
            start += 1
        while self.right and end > start and text[end - 1] in WHITE_SPACE:
            end -= 1
        return slice(start, end)


@dataclass(frozen=True)
class Prepend:
    """A text at the head of each that is not empty."""

    prefix: str

    def apply(self, text: str) -> str:
        return self.prefix + text if text else text

    def align(self, text: Aligned) -> Aligned:
        if not text.text:
            return text
        return Aligned(self.prefix + text.text, text.spans[:1] * len(self.prefix) + text.spans)


@dataclass(frozen=True)
class Replace:
    """Each match of a pattern by a text, as it stands (no groups)."""

    pattern: regex.Pattern[str]
    content: str

    def apply(self, text: str) -> str:
        return self.pattern.sub(lambda _: self.content, text)

    def align(self, text: Aligned) -> Aligned:
        made, spans, at = "", [], 0
        for match in self.pattern.finditer(text.text):
            start, end = match.span()
            made += text.text[at:start] + self.content
            spans += text.spans[at:start] + [text.spans[end - 1] if end else (0, 0)] * len(self.content)
            at = end
        return Aligned(made + text.text[at:], spans + text.spans[at:])


@dataclass(frozen=True)
class Bert:
    """BERT's four steps (bert_text.py)."""

    steps: BertNormalizer

    def apply(self, text: str) -> str:
        return self.steps.normalize(text)

    def align(self, text: Aligned) -> Aligned:
        if self.steps.clean_text:
            text = Each(by_code(cleaned)).align(text)
        if self.steps.handle_chinese_chars:
            apart = [(c, chinese_apart(ord(c)) != c) for c in text.text]
            text = text.changed(
                new for c, is_one in apart for new in ([(" ", 0), (c, 1), (" ", 1)] if is_one else [(c, 0)])
            )
        if self.steps.lowercase if self.steps.strip_accents is None else self.steps.strip_accents:
            text = Each(by_code(without_marks)).align(aligned_form(text, "NFD"))
        return Each(lowered).align(text) if self.steps.lowercase else text


def by_code(replace: Callable[[int], str]) -> Callable[[str], str]:
    """The same for a character in place of its number."""
    return lambda character: replace(ord(character))


def lowered(character: str) -> str:
    """Lower case, whatever stands around it: Σ is σ at the end of a word, too."""
    return character.lower()


def without_any_mark(character: str) -> str:
    """Marks of every kind go away."""
    return "" if unicodedata.category(character) in ("Mn", "Mc", "Me") else character


def nmt(character: str) -> str:
    """SentencePiece's cleaning for translation: control characters go, separators and invisible ones are spaces."""
    code = ord(character)
    if 1 <= code <= 8 or code == 0xB or 0xE <= code <= 0x1F or code in (0x7F, 0x8F, 0x9F):
        return ""
    spaces = (0x9, 0xA, 0xC, 0xD, 0x1680, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD)
    return " " if code in spaces or 0x200B <= code <= 0x200F else character


@dataclass(frozen=True)
class Normalizer:
    """All steps, one after the other."""

    steps: tuple[Step, ...] = ()

    def apply(self, text: str) -> str:
        """The text in the form that the vocabulary was made for."""
        for step in self.steps:
            text = step.apply(text)
        return text

    def align(self, text: Aligned) -> Aligned:
        """The same with the places in the original."""
        for step in self.steps:
            text = step.align(text)
        return text


EACH = {"Lowercase": lowered, "StripAccents": without_any_mark, "Nmt": nmt}


def read_normalizer(part: Any, path: Path) -> Normalizer:
    """The steps of a file's `normalizer`. Raises ValueError that names the part for what is not known."""
    steps = steps_of(part, "normalizers", path, "normalizer")
    return Normalizer(tuple(step for step in map(partial(step_of, path=path), steps) if step is not None))


def step_of(step: Mapping[str, Any], path: Path) -> Step | None:
    """One step from its JSON; None for one that does nothing."""
    kind = step["type"]
    if kind in FORMS:
        return UnicodeForm(kind)
    if kind in EACH:
        return Each(EACH[kind])
    if kind == "Strip":
        return Strip(bool(step.get("strip_left", True)), bool(step.get("strip_right", True)))
    if kind == "Prepend" and isinstance(step.get("prepend"), str):
        return Prepend(step["prepend"])
    if kind == "Replace" and isinstance(step.get("content"), str):
        found = pattern_in(step, path, "the normalizer's Replace")
        return None if found is None else Replace(found, step["content"])
    if is_kind(step, "BertNormalizer"):
        made = BertNormalizer(**{name: step[name] for name in asdict(UNCASED) if name in step})
        check_fields(made)
        return Bert(made)
    if kind == "Precompiled":
        packed = step.get("precompiled_charsmap")
        if not packed:
            return None
        try:
            return CharsMap(packed)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: the normalizer's precompiled_charsmap cannot be read: {error}") from None
    if kind in ("Prepend", "Replace"):
        raise ValueError(f"{path}: the normalizer's {kind} lacks a text: {short(step)}.")
    known = ", ".join([*FORMS, *EACH, "Strip, Prepend, Replace, BertNormalizer and Precompiled can be read"])
    raise refuse(path, "the normalizer", step, known)
