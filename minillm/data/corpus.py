"""A corpus on disk: how it is to be built, what was done, and how to read it back. build.py makes one."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..disk import check_fields, find_whole_folder, read_json
from .clean import Normalization
from .documents import Document, read_jsonl
from .pii import check_kinds
from .split import SPLITS, split_of
from .stopwords import LANGUAGES

REPORT = "report.json"  # in a corpus folder; a folder that has none is no corpus


@dataclass(frozen=True)
class CorpusConfig:
    """How `build_corpus` works. Refuses impossible values with ValueError."""

    normalization: Normalization = "NFC"  # NFC: accents join their letters; NFKC: look-alikes become one, too; none
    licences: bool = True  # strip licence headers, at the top of a document
    repeated_lines: bool = True  # strip sentences that stand in many documents (2% of them, at least 10)
    stop_words: tuple[str, ...] = ()  # languages whose stop words are removed: en, zh
    scrub: tuple[str, ...] = ()  # kinds replaced by their name: email, phone, card, resident_id, ipv4, ipv6, name
    min_chars: int = 20  # shorter documents are dropped
    near_threshold: float = 0.8  # MinHash similarity from which a document is a near copy; 0 turns the search off
    paragraphs: bool = False  # drop repeated paragraphs: for prose, not for code
    val_fraction: float = 0.05  # share of documents held out for validation; 0: none, and pretrain evaluates nothing
    test_fraction: float = 0.0  # share held out for the final test
    seed: int = 0  # another seed gives another split
    contamination: Literal["report", "drop_held_out", "drop_train"] = "drop_held_out"  # what is done about overlaps
    contamination_limit: float = 0.2  # share of a document's 13-word runs on the other side from which it is dropped

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_words", tuple(self.stop_words))
        object.__setattr__(self, "scrub", tuple(self.scrub))
        check_kinds(self.scrub)
        if self.normalization not in ("NFC", "NFKC", "none"):
            raise ValueError(f"normalization must be NFC, NFKC or none, not {self.normalization!r}.")
        for language in self.stop_words:
            if language not in LANGUAGES:
                raise ValueError(f"stop_words must be of {', '.join(LANGUAGES)}, not {language!r}.")
        if self.min_chars < 1:
            raise ValueError(f"min_chars must be at least 1 (an empty document teaches nothing), not {self.min_chars}.")
        if not 0 <= self.near_threshold <= 1:
            raise ValueError(f"near_threshold must be a similarity from 0 (off) to 1, not {self.near_threshold}.")
        if self.contamination not in ("report", "drop_held_out", "drop_train"):
            raise ValueError(f"contamination must be report, drop_held_out or drop_train, not {self.contamination!r}.")
        if not 0 < self.contamination_limit <= 1:
            raise ValueError(f"contamination_limit must be a share above 0, at most 1, not {self.contamination_limit}.")
        split_of("", self.val_fraction, self.test_fraction)  # raises for impossible fractions


@dataclass
class CorpusReport:
    """What `build_corpus` did: counts of documents and UTF-8 bytes by stage, and what each rule did."""

    config: CorpusConfig
    python: str = platform.python_version()
    fingerprint: str = ""  # 16 hexadecimal digits of the sha256 over the texts of all splits, in order
    documents_in: int = 0
    bytes_in: int = 0
    rules: dict[str, int] = field(default_factory=dict)  # cleaning rule -> how often it changed something
    dropped: dict[str, int] = field(default_factory=dict)  # stage -> documents dropped (paragraphs: "paragraph")
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> {"documents": n, "bytes": n}
    overlap: dict[str, float] = field(default_factory=dict)  # held-out documents: mean and max shared 13-word runs
    notes: list[str] = field(default_factory=list)
    removed: dict[str, dict[str, int]] = field(default_factory=dict)  # rule -> {text that it took most often: times}
    removed_chars: dict[str, int] = field(default_factory=dict)  # rule -> characters that it took

    def summary(self) -> str:
        """A few lines for a terminal."""
        lines = [f"read     {self.documents_in:7,} documents  {self.bytes_in / 1e6:9.3f} MB"]
        for name, n in self.rules.items():
            lines.append(f"  rule    {name:16} {n:9,} times{self.what_went(name)}")
        lines += [f"  dropped {name:16} {n:9,}" for name, n in self.dropped.items()]
        lines += [
            f"{name:8} {s['documents']:7,} documents  {s['bytes'] / 1e6:9.3f} MB" for name, s in self.splits.items()
        ]
        if self.overlap:
            lines.append(
                "held-out 13-word runs found in train: " + ", ".join(f"{k} {v:.1%}" for k, v in self.overlap.items())
            )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"fingerprint {self.fingerprint} (Python {self.python})"])

    def what_went(self, rule: str) -> str:
        """How much a rule took, and what most often; empty for one that takes single characters."""
        if rule not in self.removed_chars:
            return ""
        most = [f"{n:,} times {text!r}" for text, n in self.removed.get(rule, {}).items()]
        return f", {self.removed_chars[rule]:,} characters: {', '.join(most[:2])}{', ...' if len(most) > 2 else ''}"


def load_report(folder: str | os.PathLike[str]) -> CorpusReport:
    """The report of a corpus. Raises FileNotFoundError where `folder` is no finished corpus, ValueError where its
    report is damaged or another program's."""
    path = corpus_folder(folder) / REPORT
    try:
        values = read_json(path)
        report = CorpusReport(config=CorpusConfig(**values.pop("config")), **values)
        check_fields(report.config)
        check_fields(report)
        check_splits(report.splits)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the report of a corpus, or is damaged ({error}): build it again.") from error
    return report


def check_splits(splits: dict[str, dict[str, int]]) -> None:
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise ValueError(f"its splits are {', '.join(splits)[:100]}, not of {', '.join(SPLITS)}")
    for name, counts in splits.items():
        if counts.keys() != {"documents", "bytes"} or min(counts.values()) < 0:
            raise ValueError(f"the split {name} has no counts of documents and bytes.")


def corpus_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the corpus lies. Raises FileNotFoundError where `folder` is no finished corpus."""
    found = find_whole_folder(folder)
    if found is None or not (found / REPORT).is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is not a corpus: it has no {REPORT}. Build one with build_corpus (minillm corpus)."
        )
    return found


def corpus_documents(folder: str | os.PathLike[str], split: str = "train") -> Iterator[Document]:
    """Yield the documents of one split of a corpus. Raises ValueError for a split that it doesn't have."""
    yield from read_jsonl(split_file(folder, split))


def split_file(folder: str | os.PathLike[str], split: str) -> Path:
    """The file of one split of a corpus. Raises ValueError for a split that it doesn't have."""
    report = load_report(folder)
    if split not in report.splits:
        raise ValueError(
            f"the corpus {str(folder)!r} has no split {split!r}; its {REPORT} has {', '.join(report.splits)}."
        )
    return corpus_folder(folder) / f"{split}.jsonl"


def corpus_text(folder: str | os.PathLike[str], split: str = "train", max_chars: int | None = None) -> str:
    """The first `max_chars` characters (None: all) of a split as one string, documents joined: for baselines."""
    texts: list[str] = []
    n = 0
    for document in corpus_documents(folder, split):
        texts.append(document.text)
        n += len(document.text)
        if max_chars is not None and n >= max_chars:
            break
    return "".join(texts)[:max_chars]
