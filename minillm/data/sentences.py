"""Sentences: which lines of a text read like one. Only those may be boilerplate: code repeats lines by nature.

A line reads like a sentence if it has six words or more, and at most one in four of its pieces is something else.
"""

from __future__ import annotations

import re

import numpy as np
import regex

from .scripts import OWN_WORD, SPACED_LETTER

# A word of a sentence: letters alone between spaces (so `encode(self,` is none); a Korean one may have a single letter.
_WORD = re.compile("(?<!\\S)[A-Za-z]{2,}[.,;:!?]?(?!\\S)")
# The same in any script, and the words of those that put no spaces between them.
_WORD_OF_ANY = regex.compile(
    rf"{OWN_WORD}|(?<!\S)(?:{SPACED_LETTER}{{2,}}|\p{{Hangul}})[.,;:!?…।॥؟،؛۔։]?(?!\S)", regex.V1
)
SPACE, LETTER, END, OTHER = range(4)  # what may end a word: .,;:!?

_ASCII = [chr(i) for i in range(128)]
_KINDS = bytes(SPACE if c.isspace() else LETTER if c.isalpha() else END if c in ".,;:!?" else OTHER for c in _ASCII)


def wordy_lines(text: str) -> set[str]:
    """The lines that read like a sentence, without the white space around them."""
    if text.isascii():
        return ascii_wordy_lines(text)
    lines = text.split("\n")
    others = {line.strip() for line in lines if not line.isascii()}
    return ascii_wordy_lines("\n".join(filter(str.isascii, lines))) | set(filter(is_wordy, others))


def is_wordy(line: str) -> bool:
    """Whether a line reads like a sentence."""
    is_ascii = line.isascii()
    if len(line) < 6 or (is_ascii and len(line.split(None, 5)) < 6):
        return False  # most lines, and quickly
    n_words = len((_WORD if is_ascii else _WORD_OF_ANY).findall(line))
    return n_words >= 6 and 4 * n_words >= 3 * len(line.split())


def ascii_wordy_lines(text: str) -> set[str]:
    """`wordy_lines` for a text of ASCII, in NumPy for all lines at once: in half the time."""
    data = f"\n{text}\n".encode()
    kinds = np.frombuffer(data.translate(_KINDS.ljust(256)), dtype=np.uint8)  # (n_chars,)
    space = kinds == SPACE
    edges = np.flatnonzero(space[1:] != space[:-1]) + 1
    first, end = edges[::2], edges[1::2]  # (n_pieces,) each: what stands between white space
    letters = np.cumsum(kinds == LETTER, dtype=np.int32)  # up to each character, (n_chars,)
    n_letters = letters[end - 1] - letters[first - 1]
    n_others = end - first - n_letters
    is_word = (n_letters >= 2) & ((n_others == 0) | ((n_others == 1) & (kinds[end - 1] == END)))
    breaks = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))  # (n_lines + 1,)
    before = np.searchsorted(first, breaks)  # pieces before each of them
    n_words = np.diff(np.append(0, np.cumsum(is_word))[before])  # (n_lines,)
    wordy = np.flatnonzero((n_words >= 6) & (4 * n_words >= 3 * np.diff(before)))
    spans = zip(breaks[wordy].tolist(), breaks[wordy + 1].tolist())  # in `data`, which has a line end more in front
    return {text[start:stop].strip() for start, stop in spans}
