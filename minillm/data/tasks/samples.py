"""The beginning of each task's training data as files, in the formats in which users bring their own:

    python -m minillm.data.tasks.samples data/tasks

writes those that lie there. A test holds them to what the generators give.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ...disk import whole_file
from . import code, dialogue, sentiment, summarization, transfer, translation, verifiable

ROWS = 100


def sample_files() -> dict[str, str]:
    """File name -> content: the first 100 training examples of each task, seed 0."""
    labelled = {
        "sentiment.sample.csv": sentiment.make(),
        "sentiment.zh.sample.csv": sentiment.make(language="zh"),
        "transfer.sample.csv": transfer.make(),
    }
    files = {name: table(("text", "label"), [(e.text, e.label) for e in made["train"][:ROWS]], ",")
             for name, made in labelled.items()}  # fmt: skip
    pairs = translation.make(train=ROWS)["train"]  # the same as the first of more
    files["translation.sample.tsv"] = table(("source", "target"), [(p.source, p.target) for p in pairs], "\t")
    requests, reports = code.make(train=ROWS)["train"], summarization.make(train=ROWS)["train"]
    files["code.sample.jsonl"] = lines({"instruction": p.source, "response": p.target} for p in requests)
    files["summarization.sample.jsonl"] = lines({"document": p.source, "summary": p.target} for p in reports)
    files["dialogue.sample.jsonl"] = lines({"messages": c.messages} for c in dialogue.make(train=ROWS)["train"])
    files["verifiable.sample.jsonl"] = lines(p.record for p in verifiable.make(train=ROWS)["train"])
    return files


def table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]], delimiter: str) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def lines(records: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_samples(folder: str | os.PathLike[str]) -> list[Path]:
    """Write all of `sample_files` into the folder; returns their paths."""
    paths = []
    for name, text in sample_files().items():
        paths.append(Path(folder) / name)
        with whole_file(paths[-1]) as file:
            file.write_bytes(text.encode())
    return paths


if __name__ == "__main__":
    for path in write_samples(sys.argv[1]):
        print(path)
