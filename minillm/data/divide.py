"""Dividing few documents: which go to validation and test, and what is done where there are too few of them.

A split by hash (split.py) gives each side its share on average. Twenty documents may leave validation empty, and of two
long ones it may take half of all text. Then the next in line is taken, or the documents are cut into parts that can be
divided. Both are said in the report.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..disk import whole_file
from .corpus import CorpusConfig, CorpusReport
from .dedup import text_digest
from .documents import Document, as_line, cut_document, read_jsonl
from .split import SPLITS, digest_place

PARTS = 20  # what few documents are cut into, about
LARGE_SHARE = 0.25  # of the text: held out unasked, it is too much


class Kept:
    """What is known of each document that is left: its place on the hash line (0 to 1), and its characters."""

    def __init__(self) -> None:
        self.places = array("d")
        self.sizes = array("q")

    def add(self, digest: bytes, n_chars: int, seed: int) -> None:
        """A document by its `text_digest`."""
        self.places.append(digest_place(digest, seed))
        self.sizes.append(n_chars)

    def add_parts(self, document: Document, limit: int, config: CorpusConfig) -> Iterator[Document]:
        """Yield the parts of a document, of about `limit` characters, none far shorter or below the config's
        min_chars."""
        least = max(config.min_chars, limit // 4)
        parts: list[Document] = []
        for part in cut_document(document, limit):
            if parts and min(len(parts[-1].text.strip()), len(part.text.strip())) < least:
                parts[-1] = replace(parts[-1], text=parts[-1].text + part.text)
            else:
                parts.append(part)
        for part in parts if len(parts) > 1 else [document]:
            self.add(text_digest(part.text), len(part.text), config.seed)
            yield part


def too_few(kept: Kept, config: CorpusConfig) -> bool:
    """Whether documents are too few to be divided: a side gets none, or far more is held out than was asked for."""
    asked = config.val_fraction + config.test_fraction
    if asked == 0:
        return False
    chosen, _ = choose_splits(kept.places, config)
    held_out = sum(size for size, name in zip(kept.sizes, chosen) if name != "train") / sum(kept.sizes)
    return set(chosen) != set(wanted_splits(config)) or held_out > max(LARGE_SHARE, 2 * asked)


def cut_pass(path: Path, kept: Kept, config: CorpusConfig, report: CorpusReport) -> Kept:
    """Cut the documents of a file so that they are about twenty, or longer ones gone. Raises ValueError where that
    leaves a single one."""
    limit = max(sum(kept.sizes) // PARTS, 4 * config.min_chars)
    parts = Kept()
    if max(kept.sizes) > limit:
        cut = (part for document in read_jsonl(path) for part in parts.add_parts(document, limit, config))
        rewrite(path, map(as_line, cut))
        report.notes.append(
            f"{plural(len(kept.sizes), 'document')} could not be divided as asked, so those longer than {limit:,} "
            f"characters were cut, which gave {len(parts.sizes)} parts. Parts of one document may stand on both sides: "
            "the held-out text is easier than new text"
        )
    parts = parts if parts.sizes else kept
    if len(parts.sizes) == 1:
        raise ValueError(
            f"only one document is left, of {kept.sizes[0]:,} characters, which is too short to be cut in two (parts "
            f"have {limit:,} or less, none below {config.min_chars}), so that nothing can be held out (of "
            f"{report.documents_in:,} read; dropped: {in_words(report.dropped)}). Give more text, or --val-fraction 0 "
            "to train on all of it, without an evaluation."
        )
    return parts


def choose_splits(places: array[float], config: CorpusConfig) -> tuple[list[str], list[str]]:
    """(the split of each document, by its place on the hash line; the splits that got one which is next in line, since
    the hash left them empty). No split loses its only document by that."""
    val, test = config.val_fraction, config.test_fraction
    chosen = ["val" if p < val else "test" if p >= 1 - test else "train" for p in places]
    filled = []
    for name in wanted_splits(config):
        if name in chosen:
            continue
        line = sorted(range(len(places)), key=places.__getitem__, reverse=name != "val")
        spare = next((i for i in line if chosen.count(chosen[i]) > 1), None)
        if spare is not None:
            chosen[spare] = name
            filled.append(name)
    return chosen, filled


def wanted_splits(config: CorpusConfig) -> list[str]:
    return [name for name in SPLITS if name == "train" or getattr(config, f"{name}_fraction") > 0]


def rewrite(path: Path, lines: Iterator[bytes]) -> None:
    """Replace a JSONL file by lines that may be read from the file itself."""
    with whole_file(path) as new, open(new, "wb") as stream:
        stream.writelines(lines)


def in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{stage} {n:,}" for stage, n in counts.items()) or "none"


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
