"""How a tokenizer.json cuts a text into pieces: its `pre_tokenizer`, a step or a Sequence of steps.

A step takes pieces and gives pieces, maybe smaller ones, maybe with a character put before them. A piece is its text,
where in the normalised text it begins, and how many characters at its head do not come from there:

>>> step = Metaspace("▁", "always", split=True)
>>> step([("Hi you", 0, 0)], at_start=None)
[('▁Hi', 0, 1), ('▁you', 2, 0)]

The last step may be ByteLevel, by which the model sees bytes, written in GPT-2's alphabet (byte_spelling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import regex

from .added import WHITE_SPACE
from .bert_text import words_apart
from .json_parts import refuse, short, steps_of
from .patterns import pattern_in
from .split import UNICODE_PATTERNS

Piece = tuple[str, int, int]
Range = tuple[int, int, bool]  # from, to, and whether it is a match
AtStart = Callable[[int], bool]  # whether that place of the normalised text is the first of the original

BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
GPT2 = regex.compile(UNICODE_PATTERNS["gpt2"])
WORDS = regex.compile(
    r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\s]+"
)
NUMBER = regex.compile(r"\p{N}")
SPACE = regex.compile("[" + "".join(sorted(WHITE_SPACE)) + "]")


class PreTokenizer(Protocol):
    """One way to cut. at_start: known only where a step asks for it (`Metaspace.first_only`)."""

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        """The pieces cut further."""
        ...


def ranges_of(pattern: regex.Pattern[str], text: str, invert: bool = False) -> list[Range]:
    """What matches and what lies between, in order: together all of the text."""
    ranges, at = [], 0
    for match in pattern.finditer(text):
        start, end = match.span()
        if at < start:
            ranges.append((at, start, invert))
        ranges.append((start, end, not invert))
        at = end
    if at < len(text):
        ranges.append((at, len(text), invert))
    return ranges


def behave(ranges: list[Range], behavior: str) -> Iterable[tuple[int, int]]:
    """What becomes of matches: thrown away, pieces by themselves, joined to the piece before or behind them, or to
    each other."""
    if behavior == "Removed":
        return [(start, end) for start, end, matched in ranges if not matched]
    if behavior == "Isolated":
        return [(start, end) for start, end, _ in ranges]
    joined: list[tuple[int, int]] = []
    before = None if behavior == "Contiguous" else False  # whether the range before was a match
    backwards = behavior == "MergedWithNext"
    for start, end, matched in reversed(ranges) if backwards else ranges:
        join = matched == before if behavior == "Contiguous" else matched and not before
        if join and joined:
            joined[-1] = (start, joined[-1][1]) if backwards else (joined[-1][0], end)
        else:
            joined.append((start, end))
        before = matched
    return reversed(joined) if backwards else joined


def cut(pieces: Iterable[Piece], places: Callable[[str], Iterable[tuple[int, int]]]) -> Iterator[Piece]:
    """The parts of each piece that `places` gives, without empty ones."""
    for text, begin, added in pieces:
        for start, end in places(text):
            if start < end:
                yield text[start:end], begin + max(start - added, 0), min(max(added - start, 0), end - start)


@dataclass(frozen=True)
class Split:
    """Cut at the matches of a pattern."""

    pattern: regex.Pattern[str]
    behavior: str = "Isolated"
    invert: bool = False

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        return list(cut(pieces, self.places))

    def places(self, text: str) -> Iterable[tuple[int, int]]:
        return behave(ranges_of(self.pattern, text, self.invert), self.behavior)


@dataclass(frozen=True)
class Each:
    """Cut at characters of a kind."""

    is_one: Callable[[str], bool]
    behavior: str

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        return list(cut(pieces, self.places))

    def places(self, text: str) -> Iterable[tuple[int, int]]:
        ranges, at = [], 0
        for i, character in enumerate(text):
            if self.is_one(character):
                ranges += [(at, i, False)] * (at < i) + [(i, i + 1, True)]
                at = i + 1
        return behave(ranges + [(at, len(text), False)] * (at < len(text)), self.behavior)


@dataclass(frozen=True)
class FixedLength:
    """Pieces of so many characters."""

    length: int

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        return list(cut(pieces, lambda text: ((i, i + self.length) for i in range(0, len(text), self.length))))


@dataclass(frozen=True)
class Metaspace:
    """SentencePiece's: a space is written "▁", and stands at the head of its word.

    scheme: which pieces get a "▁" before them: "always" each, "never" none, "first" the one at the text's beginning.
    split: cut before every "▁".
    """

    mark: str
    scheme: str
    split: bool

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        marked = []
        for text, begin, added in pieces:
            text = text.replace(" ", self.mark)
            here = self.scheme == "always" or (self.scheme == "first" and at_start is not None and at_start(begin))
            if here and not text.startswith(self.mark):
                text, added = self.mark + text, added + 1
            marked.append((text, begin, added))
        return list(cut(marked, self.places)) if self.split else marked

    def places(self, text: str) -> Iterable[tuple[int, int]]:
        """Every mark joined to what follows it; marks that follow each other are pieces."""
        starts = [i for i, character in enumerate(text) if character == self.mark]
        return zip([0, *starts], [*starts, len(text)])


@dataclass(frozen=True)
class ByteLevel:
    """GPT-2's: maybe a space before each piece, maybe cut by GPT-2's pattern (split.py)."""

    add_prefix_space: bool
    use_regex: bool

    def __call__(self, pieces: list[Piece], at_start: AtStart | None) -> list[Piece]:
        if self.add_prefix_space:
            pieces = [
                piece if piece[0].startswith(" ") else (" " + piece[0], piece[1], piece[2] + 1) for piece in pieces
            ]
        return Split(GPT2)(pieces, at_start) if self.use_regex else pieces


def is_space(character: str) -> bool:
    return character in WHITE_SPACE


def is_punctuation(character: str) -> bool:
    """As BERT has it: "$" and "^", too."""
    return character not in WHITE_SPACE and words_apart(ord(character)) != character


def is_digit(character: str) -> bool:
    """A number in any script, ½ and Ⅻ among them."""
    return NUMBER.match(character) is not None


def read_pre_tokenizer(part: Any, path: Path) -> tuple[PreTokenizer, ...]:
    """The steps of a file's `pre_tokenizer`. Raises ValueError that names the part for what is not known."""
    steps = steps_of(part, "pretokenizers", path, "pre_tokenizer")
    if early := [step for step in steps[:-1] if step["type"] == "ByteLevel"]:
        shown = " + ".join(step["type"] for step in steps)
        raise ValueError(f"{path}: the pre_tokenizer is {shown}, but nothing can follow {early[0]['type']}.")
    return tuple(made for step in steps for made in steps_from_json(step, path))


def steps_from_json(step: Mapping[str, Any], path: Path) -> list[PreTokenizer]:
    """One step of the file, two of ours for BERT's."""
    kind = step["type"]
    if kind == "ByteLevel":
        return [ByteLevel(bool(step.get("add_prefix_space", True)), bool(step.get("use_regex", True)))]
    if kind == "Metaspace":
        return [metaspace_of(step, path, "the pre_tokenizer")]
    if kind == "Digits":
        return [Each(is_digit, "Isolated" if step.get("individual_digits") else "Contiguous")]
    if kind == "WhitespaceSplit":
        return [Each(is_space, "Removed")]
    if kind == "Whitespace":
        return [Split(WORDS, "Removed", invert=True)]
    if kind == "BertPreTokenizer":
        return [Each(is_space, "Removed"), Each(is_punctuation, "Isolated")]
    if kind == "Punctuation":
        return [Each(is_punctuation, behavior_of(step, path, "Isolated"))]
    if kind == "CharDelimiterSplit" and isinstance(step.get("delimiter"), str) and step["delimiter"]:
        return [Each(partial(str.__eq__, step["delimiter"]), "Removed")]
    if kind == "FixedLength" and type(step.get("length")) is int and step["length"] > 0:
        return [FixedLength(step["length"])]
    if kind == "Split":
        behavior = behavior_of(step, path, None)
        found = pattern_in(step, path, "the pre_tokenizer's Split")
        return [] if found is None else [Split(found, behavior, bool(step.get("invert")))]
    known = (
        "ByteLevel, Metaspace, Split, Digits, Whitespace, WhitespaceSplit, Punctuation, BertPreTokenizer, "
        "CharDelimiterSplit and FixedLength can be read"
    )
    raise refuse(path, "the pre_tokenizer", step, known)


def behavior_of(step: Mapping[str, Any], path: Path, default: str | None) -> str:
    """What a step does with its matches."""
    behavior = step.get("behavior", default)
    if behavior not in BEHAVIORS:
        raise ValueError(
            f"{path}: the pre_tokenizer's {step['type']} has the behavior {short(behavior)}, which must be one of "
            f"{', '.join(BEHAVIORS)}."
        )
    return behavior


def metaspace_of(step: Mapping[str, Any], path: Path, where: str) -> Metaspace:
    """Metaspace, of older files, too, which say add_prefix_space in place of a scheme."""
    mark = step.get("replacement", "▁")
    scheme = step.get("prepend_scheme", "always")
    if step.get("add_prefix_space") is False:
        scheme = "never"
    if not isinstance(mark, str) or len(mark) != 1 or scheme not in ("always", "first", "never"):
        raise ValueError(
            f"{path}: {where} is a Metaspace with replacement {short(mark)} and prepend_scheme {short(scheme)}; one "
            "character, and always, first or never can be read."
        )
    return Metaspace(mark, scheme, bool(step.get("split", True)))
