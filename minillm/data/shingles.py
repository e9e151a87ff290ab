"""Shingles: the words of a text as 64-bit hashes, and the runs of n words, made by NumPy for a whole text at once.

Deduplication asks how many 5-word runs two documents share, contamination how many 13-word runs. Python strings would
be slow and large for both, so a text becomes an array of code points, its words become numbers, and a run of n words
becomes one number made of n.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from .scripts import word_starts

Hashes = npt.NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴/φ, odd: multiplying by it permutes the 64-bit numbers
_MAX_WORD = 256  # a power of two


def word_hashes(text: str) -> Hashes:
    """The words of `text` in order, each as a 64-bit hash: (n_words,) uint64.

    A word is a run of letters and digits, lower-cased, so that layout and punctuation do not matter; where a script
    puts no spaces between words, each character or syllable is one (scripts.py). A word's hash is the
    polynomial Σ cᵢ·bⁱ mod 2⁶⁴ of its code points, mixed: the same on every machine (beyond 256 letters i starts
    again, so that two such monsters may share one).
    """
    points = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    starts, in_word = word_starts(points)  # (n_chars,)
    inside = np.flatnonzero(in_word)
    letters = points[inside].astype(np.uint64)  # (n_letters,), the separators gone
    first = np.flatnonzero(starts[inside])  # (n_words,), where each word begins among them
    if len(first) == 0:
        return np.empty(0, dtype=np.uint64)
    lengths = np.diff(first, append=len(letters))
    place = np.arange(len(letters)) - np.repeat(first, lengths)  # each letter's place in its word
    hashes = np.add.reduceat(letters * powers_of_base()[place & (_MAX_WORD - 1)], first)
    return mix(hashes + lengths.astype(np.uint64))


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """Every run of `n` words as one hash: (n_words − n + 1,) uint64, empty where there are fewer than n words."""
    if n < 1:
        raise ValueError(f"n must be at least 1 (the words of a run), not {n}.")
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    runs = np.zeros(count, dtype=np.uint64)
    for i in range(n):
        runs = runs * _BASE + words[i : i + count]
    return mix(runs)


def shingles(text: str, n: int = 5) -> Hashes:
    """The set of runs of `n` words in `text`, sorted: (n_distinct,) uint64. A text of 1 to n−1 words is one run."""
    words = word_hashes(text)
    return distinct(ngram_hashes(words, min(n, len(words)))) if len(words) else words


def distinct(runs: Hashes) -> Hashes:
    """The set of some hashes, sorted: what `np.unique` gives, which takes several times as long."""
    runs = np.sort(runs)
    return runs[np.append(True, runs[1:] != runs[:-1])] if len(runs) else runs


def mix(x: Hashes) -> Hashes:
    """Scramble 64-bit numbers so that near ones come out far apart (splitmix64's finaliser, Steele et al. 2014)."""
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


@functools.cache
def powers_of_base() -> Hashes:
    """b⁰ … b²⁵⁵ mod 2⁶⁴ for an odd b."""
    return np.cumprod(np.concatenate(([np.uint64(1)], np.full(_MAX_WORD - 1, _BASE))), dtype=np.uint64)
