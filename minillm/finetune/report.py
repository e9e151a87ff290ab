"""What a run came to: a table of scores with the baselines beside them, and report.json.

The answers on the test splits are asked for once, after training, from the weights of the best evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..disk import write_json
from ..metrics import confusion_matrix
from ..training.run_log import read_metrics
from .predict import Answer
from .scores import MAIN, interval, score_for
from .splits import Splits

REPORT_FILE = "report.json"
SHOWN = 12  # classes, in a confusion matrix that is printed
MODEL = "model"  # the row of the model itself, among those of the baselines


@dataclass(frozen=True)
class Report:
    """`scores`: split -> who (the model, each baseline) -> figures by name. `intervals`: split -> [low, high] of the
    model's main metric. `learning`: what the learning curve says."""

    kind: str
    main: str
    sizes: dict[str, int]
    scores: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, list[float]]
    labels: list[str]
    confusion: dict[str, list[list[int]]]  # of one label each: split -> a row for each class, a column for each answer
    learning: str = ""

    def __str__(self) -> str:
        parts = []
        for split, by_who in self.scores.items():
            names = list(by_who[MODEL])
            width = max(map(len, by_who))
            lines = [f"{split} ({self.sizes[split]:,} examples)"]
            lines.append(" " * width + "  " + "  ".join(f"{name:>{max(len(name), 7)}}" for name in names))
            for who, figures in by_who.items():
                cells = [f"{figures[n]:>{max(len(n), 7)}.3f}" if n in figures else " " * max(len(n), 7) for n in names]
                lines.append(f"{who:<{width}}  {'  '.join(cells)}".rstrip())
            if split in self.intervals:
                low, high = self.intervals[split]
                lines.append(f"{self.main}, 95% interval over examples: {low:.3f} to {high:.3f}")
            if split in self.confusion and len(self.labels) <= SHOWN:
                lines.append(confusion_table(self.labels, self.confusion[split]))
            parts.append("\n".join(lines))
        return "\n\n".join([*parts, *([self.learning] if self.learning else [])])

    def save(self, path: str | Path) -> None:
        write_json(path, vars(self))


def make_report(
    splits: Splits, answers: Mapping[str, Sequence[Answer]], *, baselines: bool = True, run: str | Path | None = None
) -> Report:
    """The report on the model's `answers` by split; `run`: the folder whose learning curve is looked at."""
    score = score_for(splits.kind, splits.labels, splits.measures)
    simple = splits.simple_answers() if baselines else {}
    main = MAIN[splits.kind]
    scores: dict[str, dict[str, dict[str, float]]] = {}
    intervals = {}
    for split, given in answers.items():
        examples = splits.examples[split]
        scores[split] = {MODEL: score(examples, given)}
        scores[split] |= {
            who: score(examples, by_split[split]) for who, by_split in simple.items() if split in by_split
        }
        found = interval(splits.kind, score, examples, given)
        if found is not None:
            intervals[split] = [found.low, found.high]
    if not all(main in by_who[MODEL] for by_who in scores.values()):
        main = next(iter(next(iter(scores.values()))[MODEL]))  # such as R², of one number alone
    sizes = {split: len(splits.examples[split]) for split in answers}
    confusion = {}
    if splits.kind == "single_label_classification":
        for split, given in answers.items():
            truth, guess = [e.label for e in splits.examples[split]], [a.value for a in given]
            confusion[split] = confusion_matrix(truth, guess, splits.labels).tolist()
    learning = "" if run is None else learning_curve(run)
    return Report(splits.kind, main, sizes, scores, intervals, list(splits.labels), confusion, learning)


def confusion_table(labels: list[str], rows: list[list[int]]) -> str:
    """Rows are the classes, columns what the model took them for."""
    width = max(map(len, labels), default=0)
    head = " " * width + "  " + "  ".join(f"{label:>{max(len(label), 4)}}" for label in labels) + "  <- answered"
    lines = [
        f"{label:<{width}}  " + "  ".join(f"{n:>{max(len(other), 4)}}" for n, other in zip(row, labels))
        for label, row in zip(labels, rows)
    ]
    return "\n".join([head, *lines])


def baseline_lines(splits: Splits) -> str:
    """The main metric of each baseline on each test split: what is printed before a run."""
    score, main = score_for(splits.kind, splits.labels, splits.measures), MAIN[splits.kind]
    lines = []
    for who, by_split in splits.simple_answers().items():
        figures = {split: score(splits.examples[split], given) for split, given in by_split.items()}
        shown = ", ".join(f"{split} {found[main]:.3f}" for split, found in figures.items() if main in found)
        lines.append(f"baseline   {who}: {main} {shown}" if shown else f"baseline   {who}")
    return "\n".join(lines)


CURES = "Fewer epochs, dropout, weight decay, label smoothing, augmentation or more data may help: see minillm ablate."


def learning_curve(run: str | Path, cures: str = CURES) -> str:
    """Whether a run learned too little or too much, by the losses in its metrics.jsonl: a sentence with what to do,
    against too much the `cures`."""
    rows = read_metrics(Path(run) / "metrics.jsonl")
    steps = [row for row in rows if isinstance(row.get("loss"), float)]
    values = [row for row in rows if isinstance(row.get("val_loss"), float)]
    if len(steps) < 2 or len(values) < 2:
        return ""
    tail = steps[-max(len(steps) // 10, 1) :]
    train_loss, first_loss = (sum(row["loss"] for row in part) / len(part) for part in (tail, steps[: len(tail)]))
    end, best = values[-1], min(values, key=lambda row: row["val_loss"])
    seen = (
        f"training loss {train_loss:.3f} at the end, validation {end['val_loss']:.3f}, best {best['val_loss']:.3f} at "
    )
    seen += f"step {best['step']:,} of {end['step']:,}"
    if end["val_loss"] > 1.05 * best["val_loss"] and train_loss < best["val_loss"]:
        return f"It overfits ({seen}): the best checkpoint is kept. {cures}"
    falling = values[-2]["val_loss"] - end["val_loss"]
    if best is end and falling > max(0.02 * end["val_loss"], 0.005):
        return f"It was still learning ({seen}): more epochs, or a higher learning rate, would help."
    if math.isfinite(train_loss) and train_loss > 0.95 * first_loss:
        return f"It hardly learned ({seen}): a higher learning rate, more epochs or more layers that learn may help."
    return f"It neither over- nor underfits by its losses ({seen})."
