"""Cleaning: named rules, each a function from text to (text, how often it applied), so that a report can count them.

The rules change only what no reader would miss: how characters are encoded, invisible characters, white space at line
ends, licence headers, and notices that stand in many documents. They are applied in the order of `RULES`; applying
them again changes nothing.
"""

from __future__ import annotations

import hashlib
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import regex

from .licences import cut_headers
from .sentences import wordy_lines
from .shingles import Hashes, distinct

Normalization = Literal["NFC", "NFKC", "none"]
Places = tuple[Hashes, Hashes]  # counters of RepeatedLines: of its two rows

# Control characters but tab and newline; zero-width space, direction marks, byte order mark, soft hyphen; the direction
# overrides that make code read differently from what it says (Boucher & Anderson 2021, "Trojan Source"); interlinear
# marks; half surrogate pairs and non-characters. Zero-width joiners stay: emoji and Persian need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_SEEN = bytes(i for i in range(128) if not _INVISIBLE.match(chr(i)))  # the others of ASCII
_LINE_ENDING = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# 30 marks in a row with another one behind them; U+034F, which is put between, is a mark itself.
_MARKS = regex.compile("(?:(?!\u034f)\\p{M}){30}(?=(?!\u034f)\\p{M})")
_MANY_BLANKS = re.compile("\n{4,}")


def clean_text(
    text: str,
    *,
    normalization: Normalization = "NFC",
    licences: bool = True,
    counts: Counter[str] | None = None,
    headers: list[str] | None = None,
) -> str:
    """Apply the rules to one text; add to `counts[rule]` how often each applied, to `headers` the licence headers that
    were removed.

    The rules: "line_endings", "invisible", "unicode" (NFC writes é as one character and keeps ², ﬁ and full-width forms
    apart from their plain twins; NFKC merges those, which suits search and spoils formulas and Chinese punctuation),
    "trailing_space", "blank_lines" (at most two in a row, none at the ends; the text ends with one
    newline), and "licence" unless `licences` is False.

    >>> clean_text("Cafe\u0301  \\r\\n\\r\\n\\r\\n\\r\\n\ufeffmore")
    'Café\\n\\n\\nmore\\n'
    """
    if normalization not in ("NFC", "NFKC", "none"):
        raise ValueError(f"normalization must be NFC, NFKC or none, not {normalization!r}.")
    for name, rule in RULES.items():
        if name == "licence" and not licences:
            continue
        if name == "licence":
            text, found = without_licence_headers(text)
            n = len(found)
            if headers is not None:
                headers += found
        else:
            text, n = normalize_unicode(text, normalization) if name == "unicode" else rule(text)
        if n and counts is not None:
            counts[name] += n
    return text


def unify_line_endings(text: str) -> tuple[str, int]:
    r"""Write every line ending (\r\n, \r, form feed, U+0085, U+2028, U+2029) as \n."""
    if not any(end in text for end in "\r\x0b\x0c\x85\u2028\u2029"):  # as most texts: found 50 times as quickly
        return text, 0
    return _LINE_ENDING.subn("\n", text)


def normalize_unicode(text: str, form: Normalization = "NFC") -> tuple[str, int]:
    """Bring `text` to a Unicode normalization form (UAX #15); counts 1 where that changed it.

    Normalizing takes time with the square of the number of combining marks in a row: a megabyte of them would take 13
    minutes. So the text is made stream-safe first (UAX #15, section 13): after every 30 marks in a row goes U+034F,
    which is invisible and ends the row. No language writes such rows.
    """
    if form == "none" or text.isascii():
        return text, 0
    safe = _MARKS.sub("\\g<0>\u034f", text)
    if not unicodedata.is_normalized(form, safe):
        safe = _MARKS.sub("\\g<0>\u034f", unicodedata.normalize(form, safe))  # it may have made two marks of one
    return safe, int(safe != text)


def remove_invisible(text: str) -> tuple[str, int]:
    """Remove control characters and other characters that nobody sees; tab and newline stay."""
    if text.isascii() and not text.encode().translate(None, _SEEN):
        return text, 0
    return _INVISIBLE.subn("", text)


def strip_trailing_space(text: str) -> tuple[str, int]:
    """Remove spaces and tabs at the ends of lines."""
    lines = text.split("\n")
    shorter = [line.rstrip(" \t") for line in lines]
    n = sum(map(operator.ne, lines, shorter))
    return ("\n".join(shorter), n) if n else (text, 0)


def squeeze_blank_lines(text: str) -> tuple[str, int]:
    """Keep at most two blank lines in a row and none at the ends; end with one newline. Counts runs shortened."""
    shorter, n = _MANY_BLANKS.subn("\n\n\n", text) if "\n\n\n\n" in text else (text, 0)
    shorter = shorter.strip("\n")
    return (shorter + "\n" if shorter else ""), n


def strip_licence_header(text: str) -> tuple[str, int]:
    """Remove the licence headers at the top (licences.py says what is one); counts the comments they stood in."""
    text, headers = without_licence_headers(text)
    return text, len(headers)


def without_licence_headers(text: str) -> tuple[str, list[str]]:
    """(text without the licence headers at the top, what was taken of each comment)."""
    headers: list[str] = []
    while True:  # until nothing changes: the comments around what is gone are one now
        rest, found = cut_headers(text)
        if not found:
            return text, headers
        headers += found
        text = squeeze_blank_lines(rest)[0]  # the gaps around it are one gap


RULES: dict[str, Callable[[str], tuple[str, int]]] = {
    "line_endings": unify_line_endings,
    "invisible": remove_invisible,
    "unicode": normalize_unicode,
    "trailing_space": strip_trailing_space,
    "blank_lines": squeeze_blank_lines,
    "licence": strip_licence_header,
}


class RepeatedLines:
    """Finds lines that stand in many documents (notices, navigation, page footers) and removes them.

    Count the lines of every document with `count`, then call `remove` on each. Only lines that read like a sentence
    count, so that code, which repeats lines by nature, is left alone. A line is boilerplate when it stands in at least
    `min_documents` documents and in at least `min_share` of all.

    The counts are a count-min sketch (Cormode & Muthukrishnan 2005): two hash functions, two rows of 2²⁰ counters,
    the smaller of a line's two counters bounds its count from above. 8 MB, however many lines there are.
    """

    def __init__(self, min_documents: int = 10, min_share: float = 0.02) -> None:
        if min_documents < 2 or not 0 <= min_share <= 1:
            raise ValueError(
                "min_documents must be at least 2 (a line of one document is not repeated) and min_share from 0 to 1, "
                f"not {min_documents} and {min_share}."
            )
        self.min_documents = min_documents
        self.min_share = min_share
        self.n_documents = 0
        self.removed: Counter[str] = Counter()  # how often `remove` took which line
        self._counts = np.zeros((2, 1 << 20), dtype=np.uint32)
        self._most = 0  # the largest of them

    def count(self, text: str) -> None:
        """Count each long line of one document once."""
        self.add(line_places(text))

    def add(self, places: Places) -> None:
        """`count` for one document by the places of its lines."""
        self.n_documents += 1
        for counts, at in zip(self._counts, places):
            counts[at] += 1
            self._most = max(self._most, int(counts[at].max(initial=0)))

    def remove(self, text: str) -> tuple[str, int]:
        """(text without boilerplate lines, how many were removed)."""
        text, taken = self.without(text)
        self.removed.update(taken)
        return text, len(taken)

    def without(self, text: str) -> tuple[str, list[str]]:
        """(text without boilerplate lines, those lines)."""
        least = max(self.min_documents, self.min_share * self.n_documents)
        if self._most < least:
            return text, []
        lines = list(wordy_lines(text))
        first, second = two_places(lines)
        counts = np.minimum(self._counts[0][first], self._counts[1][second])
        boilerplate = {line for line, count in zip(lines, counts) if count >= least}
        if not boilerplate:
            return text, []
        both = [(line, line.strip()) for line in text.split("\n")]
        kept = "\n".join(line for line, stripped in both if stripped not in boilerplate)
        return squeeze_blank_lines(kept)[0], [stripped for _, stripped in both if stripped in boilerplate]


def line_places(text: str) -> Places:
    """The counters of a text's long lines: those of the first row and those of the second, each once, so that two lines
    that share one still count once for this text."""
    first, second = two_places(wordy_lines(text))
    return distinct(first), distinct(second)


def two_places(lines: Iterable[str]) -> Places:
    """Two independent counters for each line, below 2²⁰: (n_lines,) uint64 each."""
    digests = (hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest() for line in lines)
    numbers = np.frombuffer(b"".join(digests), dtype="<u8")
    return numbers & np.uint64(0xFFFFF), numbers >> np.uint64(20) & np.uint64(0xFFFFF)
