r"""The regular expressions that stand in tokenizer.json, for the package `regex`.

They are written for Oniguruma, whose Ruby dialect differs in places: ^ and $ are the ends of a line there, not of the
text, which a flag sets right; \h is a hexadecimal digit, && cuts two sets, and brackets stand inside brackets, which
`regex` reads in another way. To be almost right would be worse than to refuse, so those are named and refused.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import regex

from .json_parts import short

# An escape, or a set's own brackets are skipped; what is left over may be one of these.
WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
OUTSIDE = "²³¹¼½¾"  # which Oniguruma counts to words besides, but in no set
FOREIGN = re.compile(r"\\[hHGKRXyYOkg]|\(\?~|\(\?[a-z]*m[a-z]*[:)]")


def pattern_in(step: Mapping[str, Any], path: Path, where: str) -> regex.Pattern[str] | None:
    """The pattern of a Split or Replace, {"String": text} or {"Regex": text}; None for an empty one, which finds
    nothing. Raises ValueError that begins with the file and names `where` it stands."""
    value = step.get("pattern")
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), str):
        raise ValueError(f"{path}: {where} has no 'pattern' object with a text: {short(step)}.")
    ((kind, text),) = value.items()
    if kind == "String":
        return regex.compile(regex.escape(text, special_only=True)) if text else None
    if kind != "Regex":
        raise ValueError(f"{path}: {where} has a pattern of the kind {kind!r}, but String and Regex can be read.")
    try:
        return compiled(text) if text else None
    except (regex.error, ValueError) as error:
        raise ValueError(
            f"{path}: {where} has the pattern {short(text)}, which cannot be read: {str(error).rstrip('.')}."
        ) from None


@lru_cache(maxsize=64)
def compiled(text: str) -> regex.Pattern[str]:
    """An Oniguruma pattern for `regex`. Raises ValueError for what the two read differently."""
    without_sets, sets = outside_of_sets(text)
    if found := FOREIGN.search(without_sets):
        raise ValueError(f"{found.group()} means something else in Python.")
    for inside in (text.replace("\\\\", "") for text in sets):
        if "&&" in inside or re.search(r"\\[hHRX]", inside) or "[" in re.sub(r"\\.|\[:\^?[a-z]+:\]", "", inside):
            raise ValueError(f"the set [{inside}] means something else in Python.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what later versions of `regex` may take for nested sets
        return regex.compile(with_words(text), regex.MULTILINE | regex.VERSION0)


def with_words(text: str) -> str:
    r"""The pattern with \\w and \\W spelled out: `regex` counts ², Ⅷ and so on to words, Oniguruma in a set none, and
    outside of one only those in OUTSIDE."""
    in_set = False

    def spelled(match: re.Match[str]) -> str:
        nonlocal in_set
        found = match.group()
        if found in "[]":
            in_set = found == "["
            return found
        if found == r"\w":
            return WORD if in_set else f"[{WORD}{OUTSIDE}]"
        if found == r"\W":
            return no_words() if in_set else f"[^{WORD}{OUTSIDE}]"
        return found

    return re.sub(r"\\.|[\[\]]", spelled, text, flags=re.DOTALL)


@cache
def no_words() -> str:
    """What is not in WORD, as ranges for a set, in which nothing can be taken away from something."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    found = regex.finditer(f"[^{WORD}]+", everything)
    return "".join(f"\\U{match.start():08x}-\\U{match.end() - 1:08x}" for match in found)


def outside_of_sets(text: str) -> tuple[str, list[str]]:
    """The pattern without its sets [...], and what stands in each of them."""
    outside, sets, at = [], [], 0
    while at < len(text):
        if text[at] == "\\":
            outside.append(text[at : at + 2] * (text[at + 1 : at + 2] != "\\"))  # a backslash itself means nothing
            at += 2
        elif text[at] == "[":
            end = end_of_set(text, at)
            sets.append(text[at + 1 : end - 1])
            at = end
        else:
            outside.append(text[at])
            at += 1
    return "".join(outside), sets


def end_of_set(text: str, start: int) -> int:
    """The place behind the bracket that closes the set which begins at `start`."""
    at = start + 1
    if text[at : at + 1] == "^":
        at += 1
    if text[at : at + 1] == "]":
        at += 1
    while at < len(text) and text[at] != "]":
        posix = re.compile(r"\[:\^?[a-z]+:\]").match(text, at)
        at = posix.end() if posix else at + (2 if text[at] == "\\" else 1)
    return at + 1
