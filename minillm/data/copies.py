"""Copies among short texts: which examples are the same text, or nearly so.

Deduplication (dedup.py) compares documents by runs of five words. A review or a sentence has few of those: one word
changed in ten leaves a third of the runs. So texts are compared here by their letters: small, without punctuation, as
the set of all runs of three characters. Two texts are near copies when the Jaccard similarity of these sets is at least
the threshold (0.8): a word changed in a sentence of fifteen, a character in one of thirty Chinese ones. Below
`FEWEST_CHARS` letters a single one makes another text ("page 12", "page 13"), and only the same letters are a copy.

Pairs are found by MinHash and banding as there (its docstring derives both), for 100,000 texts without comparing all,
and then decided on the exact similarity. Of pairs at the threshold one in some hundred is missed (its estimate is too
low, `MARGIN`), of those a little above hardly any. Where very many texts share a band, each is compared with the
`NEIGHBOURS` next to it, and not with those that it already hangs together with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import regex

from .clean import normalize_unicode
from .dedup import MinHash, Signature
from .shingles import Hashes, distinct, mix, ngram_hashes

RUN = 3  # characters
FEWEST_CHARS = 20
NEIGHBOURS = 10
MARGIN = 0.1  # of an estimate: about three standard deviations, √(0.8 · 0.2 / 128)
ROWS = 5  # of a band: with 128 permutations there are 25, and 1 − (1 − 0.8⁵)²⁵ = 0.99995
_LETTERS = regex.compile(r"[\p{L}\p{M}\p{N}]+")


def same_text(text: str) -> str:
    """What two texts have in common that differ in capitals, white space and the encoding of characters only."""
    return " ".join(normalize_unicode(text, "NFKC")[0].casefold().split())


def letters_of(text: str) -> str:
    """The words of a text without punctuation and capitals; the text itself where it has none ("👍")."""
    same = same_text(text)
    return " ".join(_LETTERS.findall(same)) or same


def copies(texts: Sequence[str], near: float | None = 0.8) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, similarity) for pairs of copies, i < j places in `texts`; not all of a group,
    but enough to connect it.

    With `near` None only the same text counts (similarity 1), white space and capitals aside. Raises ValueError for a
    threshold that is none.
    """
    if near is not None and not 0 < near <= 1:
        raise ValueError(f"near must be a similarity above 0, at most 1 (0.8 is usual), or None, not {near}.")
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        key = same_text(text) if near is None else letters_of(text)
        if key in first:
            yield first[key], i, 1.0
        else:
            first[key] = i
    if near is None:
        return
    keys = sorted(key for key in first if len(key) >= FEWEST_CHARS)  # so that the order of the file doesn't matter
    for a, b, similarity in near_pairs([character_runs(key) for key in keys], near):
        i, j = sorted((first[keys[a]], first[keys[b]]))
        yield i, j, similarity


def character_runs(text: str) -> Hashes:
    """The set of runs of RUN characters, sorted: (n_distinct,) uint64."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return distinct(ngram_hashes(points.astype(np.uint64), RUN))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def near_pairs(runs: list[Hashes], near: float) -> Iterator[tuple[int, int, float]]:
    """Yield (a, b, similarity) of near copies: enough pairs to connect each group of them, no more."""
    if len(runs) < 2:
        return
    minhash = MinHash()
    signatures = np.stack([minhash.of_shingles(x) for x in runs])  # (n, K)
    parent = np.arange(len(runs))  # a forest: copies have one root
    too_far: set[tuple[int, int]] = set()
    for start in range(0, minhash.n_permutations - ROWS + 1, ROWS):
        band = band_keys(signatures[:, start : start + ROWS])  # (n,)
        order = np.argsort(band, kind="stable")
        for apart in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(band[order[:-apart]] == band[order[apart:]])
            a, b = order[same], order[same + apart]
            parent = roots(parent)
            a, b = alike(a[parent[a] != parent[b]], b[parent[a] != parent[b]], signatures, near)
            for pair in zip(a.tolist(), b.tolist()):
                top, other = (root_of(parent, i) for i in pair)
                if top == other or pair in too_far:
                    continue
                similarity = jaccard(runs[pair[0]], runs[pair[1]])
                if similarity >= near:
                    parent[other] = top
                    yield *pair, similarity
                else:
                    too_far.add(pair)


def roots(parent: np.ndarray) -> np.ndarray:
    """The root of every element of a forest: (n,) -> (n,)."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return above
        parent = above


def root_of(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def band_keys(band: Signature) -> Hashes:
    """Each row of a band as one number: (n, ROWS) -> (n,)."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = mix(keys + column)
    return keys


def alike(a: np.ndarray, b: np.ndarray, signatures: Signature, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Those pairs whose estimated similarity is at least `near` − MARGIN."""
    kept = [np.zeros(0, dtype=bool)]
    for start in range(0, len(a), 10_000):
        part = slice(start, start + 10_000)
        kept.append(np.mean(signatures[a[part]] == signatures[b[part]], axis=1) >= near - MARGIN)
    keep = np.concatenate(kept)
    return a[keep], b[keep]
