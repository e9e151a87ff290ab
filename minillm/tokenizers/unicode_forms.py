"""Unicode's four normal forms, with the way that each character took (Unicode Standard Annex 15).

é can be one character or two, e and an accent. NFD takes characters apart, NFC puts them together again; NFKD and NFKC
also replace what only looks different: ﬁ by fi, Ａ by A, ① by 1. Python's unicodedata does all of it to a text; what it
does not say is where each character came from, so `aligned_form` goes step by step.
"""

from __future__ import annotations

import unicodedata
from operator import itemgetter
from typing import Literal

from .aligned import Aligned, Change

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def aligned_form(text: Aligned, form: Form) -> Aligned:
    """The text in that form. Raises nothing; a text that is in the form already comes back as it is."""
    if unicodedata.is_normalized(form, text.text):
        return text
    changes = decomposed(text.text, "NFKD" if "K" in form else "NFD")
    return text.changed(composed(changes) if form.endswith("C") else changes)


def decomposed(text: str, form: Form) -> list[Change]:
    """Every character taken apart, and the marks after each in the order of their classes."""
    changes: list[Change] = []
    marks: list[tuple[int, Change]] = []
    for character in text:
        for i, part in enumerate(unicodedata.normalize(form, character)):
            mark_class = unicodedata.combining(part)
            if mark_class == 0:
                changes += [mark for _, mark in sorted(marks, key=itemgetter(0))]
                marks = []
                changes.append((part, int(i > 0)))
            else:
                marks.append((mark_class, (part, int(i > 0))))
    return changes + [mark for _, mark in sorted(marks, key=itemgetter(0))]


def composed(changes: list[Change]) -> list[Change]:
    """Each base joined with the marks after it, as far as no mark of the same or a higher class stands between."""
    result: list[Change] = []
    base = -1  # where in `result` the last base stands
    last_class = -1  # of the mark before, if it did not join; -1: nothing stands between
    for character, change in changes:
        mark_class = unicodedata.combining(character)
        if base >= 0 and (last_class < 0 or last_class < mark_class):
            joined = unicodedata.normalize("NFC", result[base][0] + character)
            if len(joined) == 1:
                result[base] = (joined, result[base][1] + change - 1)
                continue
        if mark_class == 0:
            base, last_class = len(result), -1
        else:
            last_class = mark_class
        result.append((character, change))
    return result
