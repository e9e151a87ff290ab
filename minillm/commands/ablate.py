"""`minillm ablate`: the same fine-tuning run with one thing changed at a time, several seeds each, as a table.

Without --vary it asks which cure against overfitting helps: dropout, weight decay, label smoothing, early stopping,
augmentation, each alone and all together. With --vary it compares the values of any settings, all combinations.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
from dataclasses import is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..disk import read_json
from ..finetune.config import CONFIG_FILE, SECTIONS, FinetuneConfig, build_config
from ..finetune.report import MODEL, REPORT_FILE
from ..training.config_file import ConfigError, Sections, override, read_toml
from ..training.run_folder import run_in
from .finetune import add_arguments as add_finetune_arguments
from .finetune import run_once, sections_of
from .options import whole
from .table import table

NOTHING = (
    "method.model_dropout=0.0", "train.weight_decay=0.0", "train.label_smoothing=0.0", "task.keep=last",
    "task.drop_words=0.0", "task.swap_words=0.0", "train.patience=0",
)  # fmt: skip
CURES = {
    "nothing": (),
    "dropout 0.2": ("method.model_dropout=0.2",),
    "weight decay 0.1": ("train.weight_decay=0.1",),
    "label smoothing 0.1": ("train.label_smoothing=0.1",),
    "early stopping": ("task.keep=best", "train.patience=4"),
    "augmentation": ("task.drop_words=0.1", "task.swap_words=0.05"),
    "all of them": (
        "method.model_dropout=0.2", "train.weight_decay=0.1", "train.label_smoothing=0.1", "task.keep=best",
        "train.patience=4", "task.drop_words=0.1", "task.swap_words=0.05",
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_finetune_arguments(parser)
    parser.set_defaults(out="runs/ablation")
    text = "compare these values of a setting; repeatable: all combinations; nothing: the run as it is. Default: the "
    text += "cures against overfitting"
    parser.add_argument("--vary", action="append", default=[], metavar="SECTION.KEY=V1,V2", help=text)
    parser.add_argument("--seeds", type=whole(1), default=3, help="runs of each, with train.seed 1, 2, ...")


def run(arguments: argparse.Namespace) -> int:
    if arguments.resume:
        raise ConfigError("ablate goes on by itself: give the same command again, and runs that have ended stay.")
    base, out = sections_of(arguments), Path(arguments.out)
    if arguments.vary == ["nothing"]:
        variants: dict[str, list[str]] = {"the run": []}
    else:
        variants = combinations(arguments.vary) if arguments.vary else cures()
    for changes in variants.values():
        configured(base, changes)  # before the first of them takes time
    found: dict[str, list[dict[str, Any]]] = {}
    for name, changes in variants.items():
        for seed in range(1, arguments.seeds + 1):
            folder = out / f"{folder_name(name)}-{seed}"
            report = finished(base, [*changes, f"train.seed={seed}"], folder, arguments.seeds * len(variants))
            found.setdefault(name, []).append(report)
            print_table(found)
    return 0


def configured(base: Sections, changes: list[str]) -> FinetuneConfig:
    sections = copy.deepcopy(base)
    for change in changes:
        override(sections, change, SECTIONS)
    return build_config(sections)


def finished(base: Sections, changes: list[str], folder: Path, n_runs: int) -> dict[str, Any]:
    """The report of one run, made now unless it is there; one that was interrupted goes on."""
    config = configured(base, changes)
    if (folder / CONFIG_FILE).exists():
        check_same(config, build_config(read_toml(folder / CONFIG_FILE, SECTIONS)), folder)
    if not (folder / REPORT_FILE).exists():
        print(f"{folder} (one of {n_runs} runs)")
        _, report = run_once(config, folder, resume=run_in(folder) is not None)
        if report is None:
            raise KeyboardInterrupt
    report = read_json(folder / REPORT_FILE)
    if not isinstance(report, dict) or not isinstance(report.get("scores"), dict):
        raise ValueError(f"{folder / REPORT_FILE} is no report of a run: remove {folder}, and it is made again.")
    return report


def check_same(asked: FinetuneConfig, done: FinetuneConfig, folder: Path) -> None:
    """Raise ConfigError if the run in a folder is another than the one that is asked for."""
    for section in ("task", "start", "method", "train", "model"):
        new, old = (vars(one) if is_dataclass(one) else one for one in map(attrgetter(section), (asked, done)))
        for key, value in new.items():
            found = old.get(key, value)
            if found != value and not (key in ("center", "scale", "weights") and not value):  # which a run finds out
                raise ConfigError(
                    f"{folder} was run with {section}.{key} = {found!r}, not {value!r}: give another --out, or remove "
                    "it."
                )


def cures() -> dict[str, list[str]]:
    return {name: [*NOTHING, *changes] for name, changes in CURES.items()}


def combinations(options: list[str]) -> dict[str, list[str]]:
    """{"full, 16": ["method.name=full", "task.limit=16"], ...} of several "section.key=a,b"."""
    choices = []
    for option in options:
        key, equals, values = option.partition("=")
        if not equals or not values or "." not in key:
            raise ConfigError(
                f"--vary must be section.key=value,value, as in --vary train.lr=1e-3,3e-4, not {option!r}."
            )
        choices.append([f"{key}={value.strip()}" for value in values.split(",")])
    return {", ".join(c.partition("=")[2] for c in picked): list(picked) for picked in itertools.product(*choices)}


def folder_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    """The mean and the standard deviation over seeds of the main metric, for each test split; baselines below."""
    first = next(iter(found.values()))[0]
    splits, main = list(first["scores"]), first["main"]
    rows = []
    for name, reports in found.items():
        cells = [spread([r["scores"][split][MODEL][main] for r in reports]) for split in splits]
        rows.append([name, str(len(reports)), *cells])
    for who in first["scores"][splits[0]]:
        if who != MODEL:
            cells = [
                spread([r["scores"][s][who].get(main, math.nan) for r in next(iter(found.values()))]) for s in splits
            ]
            rows.append([f"({who})", "", *cells])
    columns = ["runs", *splits]
    print("\n" + table(f"{main}, mean ± standard deviation over seeds", rows, columns) + "\n")


def spread(values: list[float]) -> str:
    """ "0.912 ± 0.004", the standard deviation being the sample's."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"
