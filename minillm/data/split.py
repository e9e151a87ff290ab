"""Splitting into train, validation and test, and measuring how much of one leaks into another.

A document's split is decided by a hash of its own text. So the split needs no list to be kept, does not depend on the
order of the documents, and stays the same for every document when others are added later: what was held out once is
held out for ever. Copies always fall on the same side.

A split by document still leaks when documents share passages. Contamination is measured as GPT-3 did it (Brown et al.
2020, arXiv 2005.14165, appendix C): by runs of 13 words that stand in both. What a leak does to a score is measured in
chapters/04_collecting_and_cleaning_text.ipynb.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .dedup import text_digest
from .documents import Document
from .shingles import Hashes, distinct, ngram_hashes, word_hashes

SPLITS = ("train", "val", "test")

Places = npt.NDArray[np.intp]  # of runs among those of the held-out text


def split_of(text: str, val_fraction: float = 0.05, test_fraction: float = 0.0, *, seed: int = 0) -> str:
    """ "train", "val" or "test" for a document, by a hash of its text (white space aside).

    The fractions are of documents, met on average. Growing `val_fraction` only moves documents from train (the hash
    line is cut as val | train | test). Another `seed` gives another split.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            "val_fraction and test_fraction must be shares from 0 to 1 that leave something to train on, not "
            f"{val_fraction} and {test_fraction}."
        )
    place = split_place(text, seed)
    if place < val_fraction:
        return "val"
    return "test" if place >= 1 - test_fraction else "train"


def split_place(text: str, seed: int = 0) -> float:
    """Where a document stands on the line from 0 (held out first) to 1, by a hash of its text and the seed."""
    return digest_place(text_digest(text), seed)


def digest_place(digest: bytes, seed: int) -> float:
    """`split_place` for whoever has the text's digest already."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + digest).digest()
    return int.from_bytes(digest[:6], "little") / 2**48


class Contamination:
    """Finds runs of `n` words (13) that stand both in held-out documents and in training documents.

    Give it every held-out document with `add_held_out`, then every training document with `train_overlap`, then ask
    `held_out_overlap` for each held-out document. Memory: about 9 bytes for each word of the held-out text; the
    training text streams past. Texts shorter than n words have no runs and overlap 0.
    """

    def __init__(self, n: int = 13) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1 (the words of a run; 13 is usual), not {n}.")
        self.n = n
        self._pending: list[Hashes] = []
        self._runs: Hashes = np.empty(0, dtype=np.uint64)  # sorted, distinct
        self._seen = np.empty(0, dtype=bool)  # which of them stood in the training text
        self._training_begun = False

    def add_held_out(self, text: str) -> None:
        """Remember the runs of one held-out document. Raises RuntimeError after the first training document."""
        if self._training_begun:
            raise RuntimeError("add every held-out document before the first training document.")
        self._pending.append(distinct(ngram_hashes(word_hashes(text), self.n)))

    def begin_training(self) -> None:
        """From here on no held-out document can be added: what stood in the training documents before it would not be
        found."""
        self._training_begun = True
        self._gather()

    def train_overlap(self, text: str, limit: float = math.inf) -> float:
        """The share of this training document's runs that stand in the held-out text; those are marked as seen.

        At or above `limit` nothing is marked: the caller is going to drop that document from the training text.
        """
        self.begin_training()
        share, places = self.find(text)
        if share < limit:
            self.mark(places)
        return share

    def find(self, text: str) -> tuple[float, Places]:
        """(the share of this training document's runs that stand in the held-out text, the places of those). It changes
        nothing, so that several processes may look at once, between `begin_training` and `mark`."""
        runs = ngram_hashes(word_hashes(text), self.n)
        if len(runs) == 0:
            return 0.0, np.empty(0, dtype=np.intp)
        place, found = self._look_up(runs)
        return float(found.mean()), place[found]

    def mark(self, places: Places) -> None:
        """Remember that these runs of the held-out text were seen in the training text."""
        self._seen[places] = True

    def held_out_overlap(self, text: str) -> float:
        """The share of this held-out document's runs that stand in the training text seen so far."""
        self._gather()
        runs = ngram_hashes(word_hashes(text), self.n)
        if len(runs) == 0:
            return 0.0
        place, found = self._look_up(runs)
        if not found.all():
            raise ValueError("this document was not added with add_held_out, so its runs were not looked for.")
        return float(self._seen[place].mean())

    def _gather(self) -> None:
        if self._pending:
            self._runs = distinct(np.concatenate([self._runs, *self._pending]))
            self._pending = []
            self._seen = np.zeros(len(self._runs), dtype=bool)

    def _look_up(self, runs: Hashes) -> tuple[Places, npt.NDArray[np.bool_]]:
        """(where each run would stand among the held-out runs, whether it is there), the smallest run first, since
        neighbours in memory are found twice as quickly."""
        runs = np.sort(runs)
        place = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        return place, self._runs[place] == runs if len(self._runs) else np.zeros(len(runs), dtype=bool)


def contamination(train: Iterable[Document], held_out: Iterable[Document], n: int = 13) -> dict[str, float]:
    """{held-out source: share of its 13-word runs that also stand in `train`}, the most contaminated first."""
    kept = list(held_out)
    check = Contamination(n)
    for document in kept:
        check.add_held_out(document.text)
    for document in train:
        check.train_overlap(document.text)
    overlap = {document.source: check.held_out_overlap(document.text) for document in kept}
    return dict(sorted(overlap.items(), key=by_share))


def by_share(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]
