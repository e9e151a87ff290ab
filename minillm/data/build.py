"""The pipeline: documents in, a folder with train.jsonl and val.jsonl out, and a report of everything that was done.

    clean each document -> remove lines repeated across documents -> drop copies and near copies -> split by hash,
    documents cut into parts where they are too few -> measure (and by default remove) what the held-out part shares
    with the training part

Documents stream from disk to disk, pass by pass, some megabytes at a time. What stays in memory is a few kilobytes for
each document (its digests and MinHash signature), never its text. All cores work on what concerns a document alone
(per_document.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tqdm import tqdm

from ..disk import find_whole_folder, holding, read_marker, whole_folder, write_json
from ..disk.processes import how_many
from .clean import RepeatedLines
from .corpus import REPORT, CorpusConfig, CorpusReport
from .dedup import Identity, MinHash, originals
from .divide import Kept, choose_splits, cut_pass, in_words, rewrite, too_few, wanted_splits
from .documents import Document, Dropped, as_document, as_line, open_jsonl, read_jsonl
from .folders import kinds_skipped
from .per_document import Identified, cleaned, each, identified, lines_of, overlap
from .split import Contamination, Places

MOST_OFTEN = 10  # of the texts that a rule took, the report names as many


def build_corpus(
    documents: Iterable[Document],
    out_dir: str | os.PathLike[str],
    config: CorpusConfig | None = None,
    *,
    skipped: list[Dropped] | None = None,
    notes: list[str] | None = None,
    overwrite: bool = False,
    processes: int | None = None,
    progress: bool = False,
) -> CorpusReport:
    """Build a corpus in the folder `out_dir` and return the report.

    The folder holds train.jsonl, val.jsonl and test.jsonl (where asked for), report.json, and dropped.jsonl with a line
    for each document or paragraph that was left out: source, stage, reason, duplicate_of, similarity. `skipped`, the
    list given to `read_documents` or `stdlib_documents`, is added to it, and `notes`, what they told, to the report.
    processes: how many work where there is much text, by default one a core where they can be forked (Linux). The
    corpus is the same for any number.

    The folder appears only when it is complete (disk/). Raises FileExistsError where `out_dir` exists already (with
    `overwrite`, an earlier corpus is replaced, unless something else lies in its folder; a folder that minillm did not
    make as a corpus never is), BlockingIOError where another process builds it, ValueError where no documents are left,
    or one that is too short for something to be held out. Where documents are too few to be divided, they are cut into
    parts; with a `val_fraction` of 0 all is for training. What is wrong with one document is a ValueError that names
    it, a process that was killed a ProcessKilled, which is an OSError.
    """
    config = config if config is not None else CorpusConfig()
    processes = how_many(processes)
    with holding(out_dir, "building a corpus"):
        out = find_whole_folder(out_dir)
        if out is not None and not overwrite and (read_marker(out) or ("", ()))[0] == "corpus":
            raise FileExistsError(f"{str(out)!r} holds a corpus already: choose another, or give --overwrite.")
        with whole_folder(out_dir, kind="corpus", replace=overwrite) as work:
            met = (skipped if skipped is not None else [], notes if notes is not None else [])  # while reading
            return build_in(documents, work, config, *met, processes, progress)


def build_in(
    documents: Iterable[Document],
    work: Path,
    config: CorpusConfig,
    skipped: list[Dropped],
    notes: list[str],
    processes: int,
    progress: bool,
) -> CorpusReport:
    report = CorpusReport(config)
    dropped: list[Dropped] = []
    lines = clean_pass(documents, work / "cleaned", config, report, dropped, processes, progress)
    report.notes += notes
    report.notes += kinds_skipped((one.source, one.reason) for one in skipped if one.stage == "read")
    with open_jsonl(work / "dropped.jsonl") as log:
        log_dropped(log, [*skipped, *dropped], report)
        kept = dedup_pass(work / "cleaned", work / "kept", config, lines, report, log, processes, progress)
        if too_few(kept, config):
            kept = cut_pass(work / "kept", kept, config, report)
        split_pass(work / "kept", work, kept, config, report)
        contamination_pass(work, config, report, log, processes, progress)
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
        if n_documents == 0 and name == "train":
            raise ValueError(
                "nothing is left to train on: every document shares a fifth of its 13-word runs, or what "
                f"contamination_limit = {config.contamination_limit} says, with the held-out text, and contamination = "
                "drop_train took them all. Give other text, or --contamination drop_held_out."
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
    processes: int,
    progress: bool,
) -> RepeatedLines:
    """Clean every document on its way to disk; count the lines that many documents share."""
    lines = RepeatedLines()
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()  # of personal information, by kind
    notices: Counter[str] = Counter()  # the first line of each licence header
    with (
        open(to, "wb") as stream,
        tqdm(desc="clean", unit="B", unit_scale=True, disable=not progress) as bar,
        each(cleaned, config, documents, processes) as results,
    ):
        for _, one in results:
            bar.update(one.n_bytes)
            report.documents_in += 1
            report.bytes_in += one.n_bytes
            counts.update(one.rules)
            found.update(one.scrubbed)
            for header in one.headers:
                report.removed_chars["licence"] = report.removed_chars.get("licence", 0) + len(header)
                notices[first_words(header)] += 1
            if len(notices) > 100_000:
                notices = Counter(dict(notices.most_common(1000)))
            if one.dropped is not None:
                dropped.append(one.dropped)
                continue
            lines.add(one.places)
            stream.write(one.line)
    if report.documents_in == 0:
        raise ValueError("there are no documents to build a corpus from: the stream of documents is empty.")
    report.rules = {**counts, **{f"scrub_{kind}": found[kind] for kind in config.scrub}}
    if notices:
        report.removed["licence"] = dict(notices.most_common(MOST_OFTEN))
    return lines


def first_words(text: str) -> str:
    """The beginning of the first line in which something stands."""
    return next(line for line in map(str.strip, text.split("\n")) if any(map(str.isalnum, line)))[:100]


def dedup_pass(
    path: Path,
    to: Path,
    config: CorpusConfig,
    lines: RepeatedLines,
    report: CorpusReport,
    log: IO[str],
    processes: int,
    progress: bool,
) -> Kept:
    """Remove repeated lines and copies."""
    kept = Kept()
    dropped: list[Dropped] = []
    threshold = config.near_threshold or None
    how = (lines if config.repeated_lines else None, None if threshold is None else MinHash(), config.paragraphs)
    with (
        open(to, "wb") as stream,
        each(identified, how, lines_of(path, "deduplicate", progress), processes) as results,
    ):
        left = without_repeated_lines(results, how[0], report, dropped)
        for item, identity in originals(left, threshold, dropped):
            stream.write(item if isinstance(item, bytes) else as_line(item))
            kept.add(identity.digest, identity.n_chars, config.seed)
            log_dropped(log, dropped, report)
            dropped.clear()
    log_dropped(log, dropped, report)
    if lines.removed:
        most = lines.removed.most_common(MOST_OFTEN)
        report.removed["repeated_lines"] = {line[:100]: n for line, n in most}
        report.removed_chars["repeated_lines"] = sum(len(line) * n for line, n in lines.removed.items())
    if not kept.places:
        raise ValueError(
            f"nothing is left of the {report.documents_in:,} documents read (dropped: {in_words(report.dropped)}): "
            "give more or longer text, or a smaller --min-chars."
        )
    return kept


def without_repeated_lines(
    results: Iterable[tuple[bytes, Identified]],
    lines: RepeatedLines | None,
    report: CorpusReport,
    dropped: list[Dropped],
) -> Iterator[tuple[bytes, Identity]]:
    """Yield the documents of which something is left, as lines of JSON; count what was removed, where asked."""
    for line, one in results:
        if lines is not None:
            report.rules["repeated_lines"] = report.rules.get("repeated_lines", 0) + len(one.taken)
            lines.removed.update(one.taken)
        if one.identity is not None:
            yield one.line or line, one.identity
        else:
            dropped.append(Dropped(one.source, "clean", "nothing but lines that stand in many documents"))


def split_pass(path: Path, work: Path, kept: Kept, config: CorpusConfig, report: CorpusReport) -> None:
    """Write one file a split. Where the hash leaves one empty, the document that is next in line goes there."""
    chosen, filled = choose_splits(kept.places, config)
    shares = f"shares of {config.val_fraction:g} for val and {config.test_fraction:g} for test"
    for name in filled:
        noisy = "a score on it" if name != "train" else "what it teaches"
        report.notes.append(
            f"{len(chosen)} documents at {shares} left none for {name}, so one was taken: {noisy} will be noisy"
        )
    wanted = wanted_splits(config)
    with ExitStack() as opened:
        streams = {n: opened.enter_context(open(work / f"{n}.jsonl", "wb")) for n in wanted}
        for name, line in zip(chosen, opened.enter_context(open(path, "rb"))):
            streams[name].write(line)
    report.splits = {name: {} for name in wanted}


def contamination_pass(
    work: Path, config: CorpusConfig, report: CorpusReport, log: IO[str], processes: int, progress: bool
) -> None:
    """Measure what the held-out documents share with the training text, and drop by the rule of the config."""
    held_out = [name for name in report.splits if name != "train"]
    if not held_out:
        return
    check = Contamination()
    for name in held_out:
        for document in read_jsonl(work / f"{name}.jsonl"):
            check.add_held_out(document.text)
    check.begin_training()
    dropped: list[Dropped] = []
    limit = config.contamination_limit if config.contamination == "drop_train" else math.inf
    train = work / "train.jsonl"
    with each(overlap, check, lines_of(train, "contamination", progress), processes) as results:
        shares = marked(results, check, limit)
        rewrite(train, below_limit(limit, shares, "its 13-word runs stand in the held-out text", dropped))

    limit = config.contamination_limit if config.contamination == "drop_held_out" else math.inf
    overlaps: list[float] = []
    for name in held_out:
        path = work / f"{name}.jsonl"
        found = [check.held_out_overlap(document.text) for document in read_jsonl(path)]
        if found and min(found) >= limit:  # better one that flatters, and is said to, than none
            least = found.index(min(found))
            report.notes.append(
                f"all {len(found)} documents of {name} share {limit:.0%} or more of their 13-word runs with the "
                f"training text; the one that shares least, {found[least]:.0%}, was kept: a score on it flatters"
            )
            overlaps.append(found[least])
            found[least] = -1.0
        measured = zip(lines_of(path, name, False), found)
        rewrite(path, below_limit(limit, measured, "its 13-word runs stand in the training text", dropped, overlaps))
    log_dropped(log, dropped, report)
    if overlaps:
        report.overlap = {"mean": sum(overlaps) / len(overlaps), "max": max(overlaps)}


def marked(
    results: Iterable[tuple[bytes, tuple[float, Places]]], check: Contamination, limit: float
) -> Iterator[tuple[bytes, float]]:
    """Each training document with its share, the runs of those that are going to stay marked as seen."""
    for line, (share, places) in results:
        if share < limit:
            check.mark(places)
        yield line, share


def below_limit(
    limit: float,
    shares: Iterable[tuple[bytes, float]],
    reason: str,
    dropped: list[Dropped],
    kept_shares: list[float] | None = None,
) -> Iterator[bytes]:
    """Pass on the documents, as lines of JSON, whose share is below the limit, and note the others and their shares."""
    for line, share in shares:
        if share >= limit:
            source = as_document(line).source
            dropped.append(Dropped(source, "contamination", reason, similarity=round(share, 4)))
            continue
        if kept_shares is not None and share >= 0:
            kept_shares.append(share)
        yield line


def log_dropped(log: IO[str], dropped: list[Dropped], report: CorpusReport) -> None:
    for one in dropped:
        report.dropped[one.stage] = report.dropped.get(one.stage, 0) + 1
        log.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
