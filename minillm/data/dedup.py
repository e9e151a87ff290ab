"""Deduplication: exact copies, near copies, and repeated paragraphs.

Repeated text wastes training, is memorised word for word (Lee et al. 2022, "Deduplicating Training Data Makes Language
Models Better", arXiv 2107.06499), and makes a held-out score a lie when its copy stands in the training text. Both
formulas below are derived step by step, and measured, in chapters/04_collecting_and_cleaning_text.ipynb.

**MinHash** (Broder 1997, "On the resemblance and containment of documents"). Let A and B be the sets of 5-word runs
(shingles) of two documents. Their likeness is the Jaccard similarity J = |A ∩ B| / |A ∪ B|. Take a random permutation π
of all shingles: the smallest element of π(A ∪ B) is equally likely to be any member, and it is the smallest of both
π(A) and π(B) exactly when it lies in A ∩ B. Hence P(min π(A) = min π(B)) = J. With K permutations (here: multiply,
add, keep the upper 32 bits) a document of any length becomes K numbers, its signature, and the share of equal places
in two signatures estimates J with standard deviation √(J(1−J)/K).

**LSH banding** (Indyk & Motwani 1998; Leskovec et al., "Mining of Massive Datasets", section 3.4) finds the similar
ones without comparing all pairs. Cut the K numbers into b bands of r. Two documents meet when all r numbers of some
band agree, which happens with probability 1 − (1 − Jʳ)ᵇ: an S-shaped curve in J that is steep near (1/b)^(1/r).
Documents that meet are candidates only; whether they are near copies is decided on their whole signatures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .documents import Document, Dropped, as_document
from .scripts import count_words
from .shingles import Hashes, shingles

Signature = npt.NDArray[np.uint32]

# Blank lines, or, as Chinese and Japanese books have it, a line that begins with a wide space.
_GAP = re.compile(r"(\n[ \t]*\n\s*|\n(?=\u3000))")
_CHUNK = 4096  # shingles hashed at once: 128 × 4096 × 8 bytes = 4 MB, about a core's cache


class MinHash:
    """Makes signatures: (n_permutations,) uint32 for a text. The same seed gives the same signatures everywhere.

    >>> m = MinHash()
    >>> round(m.similarity(m.signature("a b c d e f"), m.signature("A b, c d e f!")), 2)
    1.0
    """

    def __init__(self, n_permutations: int = 128, seed: int = 1) -> None:
        if n_permutations < 1:
            raise ValueError(f"n_permutations must be at least 1, not {n_permutations}.")
        rng = np.random.default_rng(seed)
        self.n_permutations = n_permutations
        self._a = rng.integers(0, 2**64, n_permutations, dtype=np.uint64) | np.uint64(1)  # odd: a permutation
        self._b = rng.integers(0, 2**64, n_permutations, dtype=np.uint64)

    def signature(self, text: str) -> Signature | None:
        """The signature of `text`, or None where it has no words."""
        x = shingles(text)  # (m,)
        return self.of_shingles(x) if len(x) else None

    def of_shingles(self, x: Hashes) -> Signature:
        """The signature of a set of shingles (m,), at least one."""
        smallest = np.full(self.n_permutations, 2**64 - 1, dtype=np.uint64)
        for start in range(0, len(x), _CHUNK):
            permuted = np.multiply.outer(self._a, x[start : start + _CHUNK])  # (K, chunk), wraps around at 2⁶⁴
            permuted += self._b[:, None]
            np.minimum(smallest, permuted.min(axis=1), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)

    @staticmethod
    def similarity(a: Signature, b: Signature) -> float:
        """The estimated Jaccard similarity of two signatures: the share of places where they agree."""
        return float(np.mean(a == b))


def choose_bands(n_permutations: int, threshold: float) -> tuple[int, int]:
    """(bands, rows): the most rows a band for which a pair at `threshold` still meets with probability ≥ 0.99.

    More rows mean fewer false candidates to verify; fewer rows mean fewer near copies missed.

    >>> choose_bands(128, 0.8)
    (21, 6)
    """
    for rows in range(n_permutations, 1, -1):
        bands = n_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= 0.99:
            return bands, rows
    return n_permutations, 1


class NearDuplicates:
    """Remembers documents by signature and finds an earlier one that is nearly the same.

    Memory: about 3 KB for each document kept (its signature and an entry in each band), whatever its length.
    """

    def __init__(self, threshold: float = 0.8, minhash: MinHash | None = None) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"the similarity threshold must be above 0, at most 1 (0.8 is usual), not {threshold}.")
        self.threshold = threshold
        self.minhash = minhash if minhash is not None else MinHash()
        self.bands, self.rows = choose_bands(self.minhash.n_permutations, threshold)
        self._buckets: list[dict[bytes, int]] = [{} for _ in range(self.bands)]  # band's numbers -> first document
        self._others: dict[tuple[int, bytes], list[int]] = {}  # further documents of the same bucket (rare)
        self._signatures = np.empty((64, self.minhash.n_permutations), dtype=np.uint32)
        self._sources: list[str] = []

    def check_and_add(self, document: Document) -> tuple[str, float] | None:
        """(source, similarity) of the likest earlier document at or above the threshold; None, and it is remembered.

        Documents without words are never duplicates.
        """
        return self.check_signature(document.source, self.minhash.signature(document.text))

    def check_signature(self, source: str, signature: Signature | None) -> tuple[str, float] | None:
        """`check_and_add` for a document by its signature."""
        if signature is None:
            return None
        keys = [signature[i * self.rows : (i + 1) * self.rows].tobytes() for i in range(self.bands)]
        candidates: set[int] = set()
        for band, key in enumerate(keys):
            if key in self._buckets[band]:
                candidates.add(self._buckets[band][key])
                candidates.update(self._others.get((band, key), ()))
        if candidates:
            rows = np.array(sorted(candidates))
            similarity = np.mean(self._signatures[rows] == signature, axis=1)  # (n_candidates,)
            best = int(np.argmax(similarity))
            if similarity[best] >= self.threshold:
                return self._sources[rows[best]], float(similarity[best])
        self._remember(source, signature, keys)
        return None

    def _remember(self, source: str, signature: Signature, keys: list[bytes]) -> None:
        number = len(self._sources)
        if number == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[number] = signature
        self._sources.append(source)
        for band, key in enumerate(keys):
            if self._buckets[band].setdefault(key, number) != number:
                self._others.setdefault((band, key), []).append(number)


class ExactDuplicates:
    """Remembers documents by the sha256 of their text with white space evened out, and finds an earlier equal one."""

    def __init__(self) -> None:
        self._sources: dict[bytes, str] = {}

    def check_and_add(self, document: Document) -> str | None:
        """The source of an earlier document with the same text up to white space; None, and it is remembered."""
        return self.check_digest(document.source, text_digest(document.text))

    def check_digest(self, source: str, digest: bytes) -> str | None:
        """`check_and_add` for a document by its `text_digest`."""
        if digest in self._sources:
            return self._sources[digest]
        self._sources[digest] = source
        return None


def text_digest(text: str) -> bytes:
    """16 bytes of the sha256 of `text` with every run of white space made one space."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).digest()[:16]


class ParagraphDuplicates:
    """Removes paragraphs that stood in an earlier document or earlier in the same one; the first stays.

    A paragraph is what blank lines separate, or begins with a wide space. Those with fewer than `MIN_WORDS` words
    (headings, "Example:") may repeat, where a script without spaces has its words by scripts.py. Right for prose, wrong
    for code, whose functions would lose statements.
    """

    MIN_WORDS = 8

    def __init__(self) -> None:
        self._sources: dict[bytes, str] = {}

    def check_and_add(self, source: str, digests: list[bytes | None]) -> dict[int, str]:
        """{place among the paragraphs: source of the first occurrence} of those that repeat; the others are
        remembered. `digests` is what `paragraph_digests` gives for the document."""
        first_in = {}
        for i, digest in enumerate(digests):
            if digest in self._sources:
                first_in[i] = self._sources[digest]
            elif digest is not None:
                self._sources[digest] = source
        return first_in


def paragraph_digests(text: str) -> list[bytes | None]:
    """The digest of each paragraph; None for one of few words."""
    paragraphs = _GAP.split(text)[::2]  # paragraph, gap, paragraph, gap, ...
    return [text_digest(p) if count_words(p) >= ParagraphDuplicates.MIN_WORDS else None for p in paragraphs]


def without_paragraphs(document: Document, places: Iterable[int]) -> Document:
    """The document without these of its paragraphs, and the gaps behind them."""
    pieces = _GAP.split(document.text)
    for i in places:
        pieces[2 * i : 2 * i + 2] = [""] * len(pieces[2 * i : 2 * i + 2])
    return Document("".join(pieces).rstrip() + "\n", document.source)


class Identity(NamedTuple):
    """What copies of a document are told by; `identify` makes it. The document itself is needed no more."""

    source: str
    n_chars: int
    digest: bytes
    signature: Signature | None  # None: without words, or near copies are not looked for
    paragraphs: list[bytes | None]  # empty where repeated ones are not looked for


def identify(document: Document, minhash: MinHash | None, paragraphs: bool) -> Identity:
    """The identity of a document. It asks for nothing but the document, so that any process can do it."""
    text = document.text
    signature = None if minhash is None else minhash.signature(text)
    digests = paragraph_digests(text) if paragraphs else []
    return Identity(document.source, len(text), text_digest(text), signature, digests)


def deduplicate(
    documents: Iterable[Document],
    *,
    near_threshold: float | None = 0.8,
    paragraphs: bool = False,
    dropped: list[Dropped] | None = None,
) -> Iterator[Document]:
    """Yield the documents that are not copies of earlier ones; append the others to `dropped`, with the reason.

    In this order: exact copies (up to white space); near copies, at or above `near_threshold` estimated Jaccard
    similarity of 5-word runs (None: not looked for); repeated paragraphs, where asked. The first of each group stays.
    """
    minhash = None if near_threshold is None else MinHash()
    identified = ((document, identify(document, minhash, paragraphs)) for document in documents)
    for document, _ in originals(identified, near_threshold, dropped if dropped is not None else []):
        yield as_document(document)


Item = TypeVar("Item", bound="Document | bytes")


def originals(
    identified: Iterable[tuple[Item, Identity]], near_threshold: float | None, dropped: list[Dropped]
) -> Iterator[tuple[Item | Document, Identity]]:
    """`deduplicate` for documents, or lines of a JSONL file, whose identities are known: the item as it came, or the
    document that is left of it, with its identity."""
    exact, paragraph = ExactDuplicates(), ParagraphDuplicates()
    near = None if near_threshold is None else NearDuplicates(near_threshold)
    for item, identity in identified:
        source = identity.source
        same = exact.check_digest(source, identity.digest)
        if same is not None:
            dropped.append(Dropped(source, "exact", "same text, up to white space", same, 1.0))
            continue
        found = None if near is None else near.check_signature(source, identity.signature)
        if found is not None:
            dropped.append(Dropped(source, "near", "nearly the same text", found[0], round(found[1], 4)))
            continue
        repeated = paragraph.check_and_add(source, identity.paragraphs)
        if not repeated:
            yield item, identity
            continue
        for first in repeated.values():
            dropped.append(Dropped(source, "paragraph", "a paragraph seen before", first, 1.0))
        document = without_paragraphs(as_document(item), repeated)
        if document.text.strip():
            yield document, identify(document, None, False)
        else:
            dropped.append(Dropped(source, "paragraph", "no paragraph left", next(iter(repeated.values()))))
