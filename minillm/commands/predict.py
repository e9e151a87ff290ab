"""`minillm predict`: a fine-tuned model's answer to every row of a file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Labelled, Pair
from ..data.examples import column_beside, names_if_missing, source_of
from ..data.fields import PAIR_NAMES, TEXT_NAMES, single_column
from ..data.records import BadRecord, Table, read_table
from ..disk import write_text
from ..finetune.objectives import Classify, Misfit, TaskObjective
from ..finetune.predict import Answer, predict
from ..hub.assistants import refuse_assistant
from ..hub.finetuned import open_finetuned
from ..settings import EngineConfig
from .options import add_option, choices, keywords, typed_text, whole

OUTPUTS = (".csv", ".tsv", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder of minillm finetune")
    parser.add_argument("--data", metavar="FILE", required=True, help=".csv, .tsv, .jsonl or .json with a row for each")
    parser.add_argument("--out", metavar="FILE", required=True, help=f"to write, one of {' '.join(OUTPUTS)}")
    parser.add_argument("--text", metavar="COLUMN", type=typed_text, help="column to read, if it has an unusual name")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave the prediction of bad rows empty, and count them"
    )
    add_option(parser, predict, "batch_size", "rows at a time", type=whole(1))
    add_option(parser, open_finetuned, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, open_finetuned, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, open_finetuned, "verify", "compare the run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    if Path(arguments.out).suffix not in OUTPUTS:
        raise ValueError(f"--out {arguments.out}: the ending says what to write, one of {' '.join(OUTPUTS)}.")
    if Path(arguments.out).exists() and Path(arguments.out).samefile(arguments.data):
        raise ValueError(f"--out {arguments.out} is the file to read: write to another one.")
    refuse_assistant(arguments.run, "writes no column of answers")
    model, objective, config = open_finetuned(**keywords(open_finetuned, arguments))
    classify = isinstance(objective, Classify)
    wanted = arguments.text or config.task.text or config.task.source or None
    table = read_table(arguments.data, names=() if classify or wanted else names_if_missing(arguments.data))
    known = TEXT_NAMES if classify else tuple(dict.fromkeys(source for source, _ in PAIR_NAMES))
    column = single_column(table, wanted, known, "text")
    extra = None if classify or wanted else column_beside(table, column)
    examples, bad = readable(table, column, extra, objective, arguments.skip_bad)
    answers = predict(
        model,
        objective,
        list(examples.values()),
        batch_size=arguments.batch_size,
        n_beams=config.task.beams,
        progress=True,
    )
    by_line = dict(zip(examples, answers))
    rows = [
        {**(record if isinstance(record, dict) else {}), **columns_of(by_line.get(line), objective)}
        for line, record in table.records
    ]
    write_rows(arguments.out, rows, config.task.separator)
    for reason in bad[:5]:
        print(f"no prediction: {reason}", file=sys.stderr)
    left = f", {len(bad):,} of them without a prediction" if bad else ""
    read = f"the column {column!r}" if extra is None else f"the columns {column!r} and {extra!r}"
    print(f"wrote {arguments.out}: {len(rows):,} rows{left}, read from {read}")
    return 0


def readable(
    table: Table, column: str, extra: str | None, objective: TaskObjective, skip_bad: bool
) -> tuple[dict[int, Labelled | Pair], list[str]]:
    """Line -> the example in it, and what is wrong with the others. Raises ValueError for the first of them, unless
    `skip_bad`."""
    examples: dict[int, Labelled | Pair] = {}
    bad = []
    for line, record in table.records:
        where = f"{table.path}, line {line}"
        try:
            if isinstance(record, BadRecord):
                raise record
            text = source_of(record, column, extra)
            example = Labelled(text, "", where) if isinstance(objective, Classify) else Pair(text, "", where)
            objective.inputs(example)
            examples[line] = example
        except (BadRecord, Misfit) as error:
            reason = str(error) if isinstance(error, Misfit) else f"{where}: {error}."
            if not skip_bad:
                raise ValueError(f"{reason} Or give --skip-bad.") from None
            bad.append(reason)
    if not examples:
        raise ValueError(f"{table.path} holds no row that can be answered.")
    return examples, bad


def columns_of(answer: Answer | None, objective: TaskObjective) -> dict[str, Any]:
    """The columns to add to a row: the prediction, and of classes how likely it, and each of them, is."""
    labels = objective.labels if isinstance(objective, Classify) else ()
    value = None if answer is None else list(answer.value) if isinstance(answer.value, tuple) else answer.value
    columns: dict[str, Any] = {"prediction": value}
    if labels:
        p: Any = np.full(len(labels), np.nan) if answer is None else answer.probabilities
        if not isinstance(value, list):
            columns["probability"] = None if answer is None else round(float(p.max()), 6)
        columns |= {f"p_{label}": None if answer is None else round(float(x), 6) for label, x in zip(labels, p)}
    return columns


def write_rows(path: str, rows: list[dict[str, Any]], separator: str = ",") -> None:
    """Write a .csv, .tsv or .jsonl, whole or not at all; several labels stand in a cell with `separator` between. A
    .tsv, in which each line is a record and nothing is quoted, has spaces where texts have line breaks or tabs."""
    if path.endswith(".jsonl"):
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO(newline="")
    table = [names, *([cell(row.get(name), separator) for name in names] for row in rows)]
    if path.endswith(".tsv"):
        stream.writelines("\t".join(re.sub(r"[\t\r\n]+", " ", text) for text in row) + "\n" for row in table)
    else:
        csv.writer(stream, lineterminator="\n").writerows(table)
    write_text(path, stream.getvalue())


def cell(value: Any, separator: str) -> str:
    if isinstance(value, list):
        return separator.join(map(str, value))
    return "" if value is None else str(value)
