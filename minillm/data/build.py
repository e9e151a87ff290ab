"""The pipeline: documents in, a folder with train.jsonl and val.jsonl out, and a report of everything that was done.

    clean each document -> remove lines repeated across documents -> drop copies and near copies -> split by hash
    -> measure (and by default remove) what the held-out part shares with the training part

Documents stream from disk to disk, pass by pass, one at a time. What stays in memory is a few kilobytes for each
document (its digests and MinHash signature), never its text.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from tqdm import tqdm

from ..disk import find_whole_folder, holding, read_marker, whole_file, whole_folder, write_json
from .clean import RepeatedLines, clean_text
from .corpus import REPORT, CorpusConfig, CorpusReport
from .dedup import deduplicate
from .documents import Document, Dropped, cut_document, open_jsonl, read_jsonl, write_jsonl
from .folders import kinds_skipped
from .split import SPLITS, Contamination, split_place
from .stopwords import remove_stop_words


def build_corpus(
    documents: Iterable[Document],
    out_dir: str | os.PathLike[str],
    config: CorpusConfig | None = None,
    *,
    skipped: list[Dropped] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> CorpusReport:
    """Build a corpus in the folder `out_dir` and return the report.

    The folder holds train.jsonl, val.jsonl and test.jsonl (where asked for), report.json, and dropped.jsonl with a line
    for each document or paragraph that was left out: source, stage, reason, duplicate_of, similarity. `skipped`, the
    list given to `read_documents` or `stdlib_documents`, is added to it.

    The folder appears only when it is complete (disk/). Raises FileExistsError where `out_dir` exists already (with
    `overwrite`, an earlier corpus is replaced, unless something else lies in its folder; a folder that minillm did not
    make as a corpus never is), BlockingIOError where another process builds it, ValueError where no documents are left,
    or none for validation. A single document is cut into parts, some of which can be held out.
    """
    config = config if config is not None else CorpusConfig()
    with holding(out_dir, "building a corpus"):
        out = find_whole_folder(out_dir)
        if out is not None and not overwrite and (read_marker(out) or ("", ()))[0] == "corpus":
            raise FileExistsError(f"{str(out)!r} holds a corpus already: choose another, or give --overwrite.")
        with whole_folder(out_dir, kind="corpus", replace=overwrite) as work:
            return build_in(documents, work, config, skipped if skipped is not None else [], progress)


def build_in(
    documents: Iterable[Document], work: Path, config: CorpusConfig, skipped: list[Dropped], progress: bool
) -> CorpusReport:
    report = CorpusReport(config)
    dropped: list[Dropped] = []
    lines = clean_pass(documents, work / "cleaned", config, report, dropped, progress)
    report.notes += kinds_skipped((one.source, one.reason) for one in skipped if one.stage == "read")
    if report.documents_in - len(dropped) == 1 and config.val_fraction + config.test_fraction > 0:
        cut_only_document(work / "cleaned", config, report, dropped)
    with open_jsonl(work / "dropped.jsonl") as log:
        log_dropped(log, [*skipped, *dropped], report)
        places = dedup_pass(work / "cleaned", work / "kept", config, lines, report, log, progress)
        split_pass(work / "kept", work, places, config, report)
        contamination_pass(work, config, report, log, progress)
    (work / "cleaned").unlink()
    (work / "kept").unlink()
    digest = hashlib.sha256()
    for name in report.splits:
        n_documents = n_bytes = 0
        for document in read_jsonl(work / f"{name}.jsonl"):
            data = document.text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
            n_documents, n_bytes = n_documents + 1, n_bytes + len(data)
        digest.update(name.encode())
        report.splits[name] = {"documents": n_documents, "bytes": n_bytes}
        if n_documents == 0 and name != "test":
            raise ValueError(
                f"no document is left for {name!r} (of {report.documents_in:,} read; dropped: {report.dropped}): give "
                "more documents, cut long files into more parts, or relax the config "
                f"({name}: val_fraction={config.val_fraction}, contamination_limit={config.contamination_limit})."
            )
    report.fingerprint = digest.hexdigest()[:16]
    write_json(work / REPORT, asdict(report))
    return report


def clean_pass(
    documents: Iterable[Document],
    to: Path,
    config: CorpusConfig,
    report: CorpusReport,
    dropped: list[Dropped],
    progress: bool,
) -> RepeatedLines:
    """Clean every document on its way to disk; count the lines that many documents share."""
    lines = RepeatedLines()
    counts: Counter[str] = Counter()
    with (
        open_jsonl(to) as stream,
        tqdm(desc="clean", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for document in documents:
            size = len(document.text.encode("utf-8", "surrogatepass"))
            bar.update(size)
            report.documents_in += 1
            report.bytes_in += size
            text = clean_text(
                document.text, normalization=config.normalization, licences=config.licences, counts=counts
            )
            if config.stop_words:
                text, n = remove_stop_words(text, config.stop_words)
                counts["stop_words"] += n
            if len(text.strip()) < config.min_chars:
                reason = f"{len(text.strip())} characters after cleaning, fewer than {config.min_chars}"
                dropped.append(Dropped(document.source, "clean", reason))
                continue
            lines.count(text)
            write_jsonl(stream, Document(text, document.source))
    if report.documents_in == 0:
        raise ValueError("there are no documents to build a corpus from: the stream of documents is empty.")
    report.rules = dict(counts)
    return lines


def cut_only_document(cleaned: Path, config: CorpusConfig, report: CorpusReport, dropped: list[Dropped]) -> None:
    """Cut the only document into about twenty parts, so that some can be held out; unless it is too short for two."""
    (document,) = read_jsonl(cleaned)
    limit = max(len(document.text) // 20, 4 * config.min_chars)
    parts = list(cut_document(document, limit))
    short = [part for part in parts if len(part.text.strip()) < config.min_chars]
    if len(parts) - len(short) > 1:
        dropped += [
            Dropped(part.source, "clean", f"a part of fewer than {config.min_chars} characters") for part in short
        ]
        rewrite(cleaned, (part for part in parts if part not in short))
        report.notes.append(
            f"the only document, {document.source!r} with {len(document.text):,} characters, was cut into {len(parts)} "
            "parts: without that nothing could be held out"
        )


def dedup_pass(
    cleaned: Path,
    to: Path,
    config: CorpusConfig,
    lines: RepeatedLines,
    report: CorpusReport,
    log: IO[str],
    progress: bool,
) -> array[float]:
    """Remove repeated lines and copies; return the place of each document kept on the hash line (0 to 1)."""
    places = array("d")
    dropped: list[Dropped] = []
    documents = read_with_progress(cleaned, "deduplicate", progress)
    if config.repeated_lines:
        documents = without_repeated_lines(documents, lines, report, dropped)
    threshold = config.near_threshold or None
    with open_jsonl(to) as stream:
        for document in deduplicate(documents, near_threshold=threshold, paragraphs=config.paragraphs, dropped=dropped):
            write_jsonl(stream, document)
            places.append(split_place(document.text, config.seed))
            log_dropped(log, dropped, report)
            dropped.clear()
    log_dropped(log, dropped, report)
    return places


def without_repeated_lines(
    documents: Iterable[Document], lines: RepeatedLines, report: CorpusReport, dropped: list[Dropped]
) -> Iterator[Document]:
    for document in documents:
        text, n = lines.remove(document.text)
        report.rules["repeated_lines"] = report.rules.get("repeated_lines", 0) + n
        if text.strip():
            yield replace(document, text=text)
        else:
            dropped.append(Dropped(document.source, "clean", "nothing but lines that stand in many documents"))


def read_with_progress(path: Path, what: str, progress: bool) -> Iterator[Document]:
    """Read a JSONL file behind a progress bar in bytes."""
    total = path.stat().st_size
    with tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        for document in read_jsonl(path):
            bar.update(len(document.text.encode()))
            yield document
        bar.update(total - bar.n)  # the JSON around the texts


def split_pass(kept: Path, work: Path, places: array[float], config: CorpusConfig, report: CorpusReport) -> None:
    """Write one file a split. Where the hash leaves validation empty, the document that is next in line goes there."""
    chosen = [
        "val" if p < config.val_fraction else "test" if p >= 1 - config.test_fraction else "train" for p in places
    ]
    if config.val_fraction > 0 and "val" not in chosen and len(places) > 1:
        chosen[min(range(len(places)), key=places.__getitem__)] = "val"
        report.notes.append(
            f"{len(places)} documents at val_fraction {config.val_fraction} left none for validation, so one was "
            "taken: its score will be noisy"
        )
    wanted = [n for n in SPLITS if n == "train" or getattr(config, f"{n}_fraction") > 0]
    streams = {n: open_jsonl(work / f"{n}.jsonl") for n in wanted}
    try:
        for name, document in zip(chosen, read_jsonl(kept)):
            write_jsonl(streams[name], document)
    finally:
        for stream in streams.values():
            stream.close()
    report.splits = {name: {} for name in wanted}


def contamination_pass(work: Path, config: CorpusConfig, report: CorpusReport, log: IO[str], progress: bool) -> None:
    """Measure what the held-out documents share with the training text, and drop by the rule of the config."""
    held_out = [name for name in report.splits if name != "train"]
    if not held_out:
        return
    check = Contamination()
    for name in held_out:
        for document in read_jsonl(work / f"{name}.jsonl"):
            check.add_held_out(document.text)
    dropped: list[Dropped] = []
    limit = config.contamination_limit if config.contamination == "drop_train" else math.inf
    train = read_with_progress(work / "train.jsonl", "contamination", progress)
    shares = ((document, check.train_overlap(document.text, limit)) for document in train)
    rewrite(work / "train.jsonl", below_limit(limit, shares, "its 13-word runs stand in the held-out text", dropped))

    limit = config.contamination_limit if config.contamination == "drop_held_out" else math.inf
    overlaps: list[float] = []
    for name in held_out:
        path = work / f"{name}.jsonl"
        shares = ((document, check.held_out_overlap(document.text)) for document in read_jsonl(path))
        rewrite(path, below_limit(limit, shares, "its 13-word runs stand in the training text", dropped, overlaps))
    log_dropped(log, dropped, report)
    if overlaps:
        report.overlap = {"mean": sum(overlaps) / len(overlaps), "max": max(overlaps)}


def below_limit(
    limit: float,
    shares: Iterable[tuple[Document, float]],
    reason: str,
    dropped: list[Dropped],
    kept_shares: list[float] | None = None,
) -> Iterator[Document]:
    """Pass on the documents whose share is below the limit, and note the others and their shares."""
    for document, share in shares:
        if share >= limit:
            dropped.append(Dropped(document.source, "contamination", reason, similarity=round(share, 4)))
            continue
        if kept_shares is not None:
            kept_shares.append(share)
        yield document


def rewrite(path: Path, documents: Iterator[Document]) -> None:
    """Replace a JSONL file by documents that may be read from the file itself."""
    with whole_file(path) as new, open_jsonl(new) as stream:
        for document in documents:
            write_jsonl(stream, document)


def log_dropped(log: IO[str], dropped: list[Dropped], report: CorpusReport) -> None:
    for one in dropped:
        report.dropped[one.stage] = report.dropped.get(one.stage, 0) + 1
        log.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
