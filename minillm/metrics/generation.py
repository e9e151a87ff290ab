"""Scores of generated text: ROUGE, exact match, distinct n-grams, pass@k, perplexity and bits per byte."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import regex

from .translation import References, ngrams, paired

Array = np.ndarray
CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
WORDS = {
    "rouge": regex.compile("[a-z0-9]+"),
    "cjk": regex.compile(rf"{CJK}|(?:(?!{CJK})[\p{{L}}\p{{M}}\p{{N}}])+"),
}


def rouge(
    hypotheses: Sequence[str],
    references: References,
    kinds: Sequence[str] = ("rouge1", "rouge2", "rougeL"),
    tokenize: str = "rouge",
) -> dict[str, Array]:
    """{kind: (N, 3)}: precision, recall and F1, 0 to 1, of each text (Lin 2004); of several references the one with the
    best F1. For a corpus take the mean over N. The numbers are those of rouge-score 0.1.2 without its stemmer.

    kinds: "rouge1" to "rouge9", n-grams in both texts; "rougeL", the longest common subsequence of words; "rougeLsum",
    the same by lines: a word of a reference's line counts if it is in that of some line of the hypothesis. tokenize:
    "rouge", lower-cased runs of a-z and 0-9, which is rouge-score's: **it drops every other letter**, so that of a
    Chinese text nothing is left and all scores are 0 (it says nothing; here you are warned); "cjk", runs of letters and
    digits of any script, each Chinese or Japanese character alone: not comparable with the other.

    >>> rouge(["the cat sat"], ["the cat lay"], ["rougeL"])["rougeL"][0].round(3).tolist()
    [0.667, 0.667, 0.667]
    """
    if tokenize not in WORDS or not all(kind in ROUGE for kind in kinds):
        raise ValueError(f"rouge: tokenize = {tokenize!r}, kinds = {kinds}: known are {[*WORDS]} and {[*ROUGE]}.")
    pairs = paired(hypotheses, references)
    if tokenize == "rouge" and (n := sum(any(map(CJK_TEXT, [text, *others])) for text, others in pairs)):
        warnings.warn(f"rouge drops the Chinese or Japanese of {n} of {len(pairs)} texts: use 'cjk'.", stacklevel=2)
    table: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for text, others in pairs:
        ours, theirs = lines_of(text, tokenize), [lines_of(other, tokenize) for other in others]
        for kind, rows in table.items():
            rows.append(max((ROUGE[kind](ours, other, kind) for other in theirs), key=f1_of))
    return {kind: np.array(rows, dtype=np.float64) for kind, rows in table.items()}


CJK_TEXT = regex.compile(CJK).search


def lines_of(text: str, tokenize: str) -> list[list[str]]:
    """The words of each line that is not empty."""
    return [WORDS[tokenize].findall(line.lower()) for line in text.split("\n") if line]


def joined(lines: list[list[str]]) -> list[str]:
    return [word for line in lines for word in line]


def f1_of(row: tuple[float, float, float]) -> float:
    return row[2]


def shares(hits: int, n_ours: int, n_theirs: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    p, r = hits / max(n_ours, 1), hits / max(n_theirs, 1)
    return p, r, 2 * p * r / (p + r) if hits else 0.0


def rouge_n(ours: list[list[str]], theirs: list[list[str]], kind: str) -> tuple[float, float, float]:
    """N-grams in common, each as often as in the text that has it less often. They run on over lines."""
    a, b = (ngrams(joined(lines), int(kind[5:])) for lines in (ours, theirs))
    return shares((a & b).total(), a.total(), b.total())


def rouge_l(ours: list[list[str]], theirs: list[list[str]], kind: str) -> tuple[float, float, float]:
    a, b = joined(ours), joined(theirs)
    return shares(len(common_subsequence(b, a)), len(a), len(b))


def rouge_lsum(ours: list[list[str]], theirs: list[list[str]], kind: str) -> tuple[float, float, float]:
    """Section 3.2 of the paper, and as its program does it: no word counts more often than each text has it."""
    a, b = (Counter(joined(lines)) for lines in (ours, theirs))
    found: Counter = Counter()
    for line in theirs:
        found += Counter(line[i] for i in set().union(*(common_subsequence(line, other) for other in ours)))
    return shares((found & a & b).total(), a.total(), b.total())


ROUGE = {**{f"rouge{n}": rouge_n for n in range(1, 10)}, "rougeL": rouge_l, "rougeLsum": rouge_lsum}


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> list[int]:
    """The places in `a` of one longest common subsequence of a and b, from the last to the first.

    The table L[i, j] = length for a[:i] and b[:j] grows by 0 or 1 along a row, so a row is one long integer: bit j is 0
    where L[i, j+1] = L[i, j] + 1. With M the places in b of the next word of a, the next row is
    (row + (row & M)) | (row & ~M): all columns at once (Crochemore et al. 2001, "A fast and practical bit-vector
    algorithm for the longest common subsequence problem").
    """
    places: dict[str, int] = {}
    for j, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << j
    full = (1 << len(b)) - 1
    rows = [full]
    for word in a:
        mask = places.get(word, 0)
        rows.append(((rows[-1] + (rows[-1] & mask)) | (rows[-1] & ~mask)) & full)
    i, j, found = len(a), len(b), []
    while i > 0 and j > 0:  # back from the end; which of several ways is taken matters to rougeLsum
        before_j = (1 << j) - 1
        if a[i - 1] == b[j - 1]:
            found.append(i - 1)
            i, j = i - 1, j - 1
        elif (rows[i] & before_j).bit_count() < (rows[i - 1] & before_j).bit_count():  # L[i, j] > L[i-1, j]
            j -= 1
        else:
            i -= 1
    return found


def normalized(text: str) -> str:
    """Case, width (NFKC), runs of white space, and punctuation at both ends taken away. What stands inside stays: other
    rules, such as SQuAD's, make 35 of 3.5.

    >>> normalized('  "The  answer：42。"')
    'the answer:42'
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return regex.sub(r"^[\p{P}\s]+|[\p{P}\s]+$", "", text)


def exact_match(hypotheses: Sequence[str], references: References, normalize: bool = False) -> Array:
    """(N,) 1.0 where a text equals one of its references, else 0.0; with `normalize`, after `normalized`."""
    change = normalized if normalize else str
    return np.array([float(change(a) in map(change, others)) for a, others in paired(hypotheses, references)])


def distinct_n(texts: Sequence[Sequence[Any]], n: int) -> float:
    """Different n-grams / all n-grams of texts given as tokens (words, ids, or a string's characters): how little they
    repeat, within one and among them (Li et al. 2016, arXiv 1510.03055); 0 without an n-gram. It falls with the amount
    of text: compare equal amounts.

    >>> distinct_n(["a b a b".split()], 2)
    0.6666666666666666
    """
    if n < 1:
        raise ValueError(f"distinct_n: n = {n} must be at least 1.")
    counts: Counter = Counter()
    for text in texts:
        counts.update(ngrams(text, n))
    return len(counts) / max(counts.total(), 1)


def pass_at_k(n: Any, c: Any, k: int) -> Array:
    """For each problem (P,), of n programs that were drawn and c that passed: how likely one of k passes,

        1 − C(n − c, k) / C(n, k) = 1 − Π_{i = n−c+1 … n} (1 − k / i)

    without bias, unlike 1 − (1 − c/n)ᵏ (Chen et al. 2021, arXiv 2107.03374, section 2.1; derived, with its
    biased twin, in chapters/14_writing_code.ipynb). Report the mean.

    >>> pass_at_k([10, 10], [1, 10], 5).tolist()
    [0.5, 1.0]
    """
    drawn, passed = np.broadcast_arrays(np.atleast_1d(n), np.atleast_1d(c))
    if k < 1 or (drawn < k).any() or (passed < 0).any() or (passed > drawn).any():
        raise ValueError(
            f"pass_at_k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, not k = {k}, n from {drawn.min()}, c to {passed.max()}."
        )
    failed = [np.prod(1 - k / np.arange(a - b + 1, a + 1)) if a - b >= k else 0.0 for a, b in zip(drawn, passed)]
    return 1 - np.array(failed)


def perplexity(loss: float) -> float:
    """e^loss, of the mean loss in nats per token: as if the model chose among that many equally likely tokens. Infinity
    where that is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """What a compressor built from the model needs for a byte of text, whatever its tokenizer: the summed loss in nats,
    / ln 2 / bytes of UTF-8. Why not per token: chapters/01_what_is_a_language_model.ipynb.

    >>> bits_per_byte(8 * math.log(256), 8)
    8.0
    """
    if n_bytes < 1:
        raise ValueError(f"bits_per_byte: n_bytes = {n_bytes} must be at least 1, an empty text has no rate.")
    return nats / math.log(2) / n_bytes
