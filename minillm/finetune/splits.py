"""The examples of a run: the user's own files or a built-in task, in splits that share no text, with baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Labelled, Pair, check_labels, label_names, read_labelled, read_pairs
from ..data.example_split import check_leak, split_examples
from ..data.labels import count_labels
from ..data.tasks import TASKS, code, summarization
from ..data.tasks.baselines import NaiveBayes, Nearest, most_frequent
from .config import TaskConfig
from .predict import Answer
from .scores import Measures

DOCSTRINGS = "docstrings"  # real summaries: the standard library's docstrings, and their first lines
BUILT_IN = {"classify": "sentiment", "translate": "translation", "summarize": "summarization", "code": "code"}


@dataclass
class Splits:
    """Examples by split ("train", "val", "test", and of built-in tasks further ones), and what there is to say of them.

    `labels`: the classes in the order of their ids. `baselines`: name -> split -> the answers of something simple that
    learned from "train". `measures`: what the task can measure itself, such as whether code does what is asked.
    """

    examples: dict[str, list[Any]]
    kind: str  # a classifier's problem_type, or "translate", "summarize", "code"
    labels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    measures: Measures = field(default_factory=dict)
    baselines: Callable[[], dict[str, dict[str, list[Answer]]]] = dict
    answered: dict[str, int] = field(default_factory=dict)
    answers: dict[str, dict[str, list[Answer]]] = field(default_factory=dict)

    @property
    def tests(self) -> dict[str, list[Any]]:
        """The splits that a result is measured on."""
        return {name: examples for name, examples in self.examples.items() if name not in ("train", "val")}

    def simple_answers(self) -> dict[str, dict[str, list[Answer]]]:
        """What the baselines answer, found once for the examples as they are."""
        sizes = {name: len(examples) for name, examples in self.examples.items()}
        if sizes != self.answered:
            self.answered, self.answers = sizes, self.baselines()
        return self.answers

    def measured_on(self, tests: dict[str, list[Any]]) -> Splits:
        """The same training examples with other tests, and what is simple to learn from them as baselines."""
        examples = {"train": self.examples["train"], "val": self.examples["val"], **tests}
        return replace(self, examples=examples, baselines=partial(simple_answers, examples, self.kind), measures={})

    def __str__(self) -> str:
        """What is to be printed before a run."""
        sizes = ", ".join(f"{name} {len(examples):,}" for name, examples in self.examples.items())
        lines = [f"examples   {sizes}"]
        if self.labels:
            counts = count_labels(self.examples["train"])
            shown = ", ".join(f"{label} {counts[label]:,}" for label in self.labels[:12])
            more = f", and {len(self.labels) - 12} more" if len(self.labels) > 12 else ""
            lines.append(f"classes    {shown}{more} (in train)")
        return "\n".join([*lines, *(f"note       {note}" for note in self.notes)])


def read_splits(task: TaskConfig, draw: int = 0) -> Splits:
    """The examples that [task] names; `draw`: the seed of the choice, where only some are trained on. Raises
    FileNotFoundError, or ValueError that names file, line and remedy."""
    kind = kind_of(task)
    if task.data:
        splits = own_splits(task, kind)
    else:
        splits = built_in_splits(task, kind)
    if task.limit:
        splits.examples["train"] = some_of(splits.examples["train"], task.limit, draw)
    if kind.endswith("classification"):
        splits.labels = tuple(label_names(splits.examples["train"]))
        others = {name: examples for name, examples in splits.examples.items() if name != "train"}
        splits.notes += check_labels(splits.examples["train"], others)
    return splits


def kind_of(task: TaskConfig) -> str:
    """What is asked for, as models and scores call it."""
    if task.kind == "classify":
        return "multi_label_classification" if task.multi_label else "single_label_classification"
    return "regression" if task.kind == "regress" else task.kind


def read_examples(task: TaskConfig, path: str | Path) -> Any:
    """The examples of one file of the user's, as the kind of task reads it."""
    if task.kind in ("classify", "regress"):
        several = "multi-label" if task.multi_label else "classification"
        return read_labelled(
            path,
            text=task.text or None,
            label=task.label or None,
            kind="regression" if task.kind == "regress" else several,  # type: ignore[arg-type]
            separator=task.separator,
            skip_bad=task.skip_bad,
        )
    return read_pairs(path, source=task.source or None, target=task.target or None, skip_bad=task.skip_bad)


def own_splits(task: TaskConfig, kind: str) -> Splits:
    """The user's files, of which those for validation and test may be missing: then they are parts of the first."""
    examples = read_examples(task, task.data)
    given = {name: read_examples(task, path) for name, path in (("val", task.val), ("test", task.test)) if path}
    notes = [str(examples), *map(str, given.values())]
    if len(given) == 2:
        found = {"train": list(examples), **given}
    else:
        fractions = (0.8, 0.1, 0.1) if not given else (0.9, 0.1)
        parts = split_examples(list(examples), fractions, seed=task.seed)
        notes += parts.notes
        found = (
            dict(parts) if not given else {"train": parts["train"], "val": parts["val"], "test": given.get("test", [])}
        )
        if "val" in given:
            found = {"train": parts["train"], "val": given["val"], "test": parts["val"]}
    check_leak(found)
    empty = [name for name, rows in found.items() if not rows]
    if empty:
        raise ValueError(
            f"{task.data} holds {len(examples):,} examples, which leaves none for {' and '.join(empty)}: give more, or "
            "files of their own (--val FILE --test FILE)."
        )
    return Splits(found, kind, notes=notes, baselines=partial(simple_answers, found, kind))


def built_in_splits(task: TaskConfig, kind: str) -> Splits:
    """A task that comes with minillm."""
    name = task.builtin or BUILT_IN.get(task.kind)
    name = "summarization" if name == DOCSTRINGS else name
    if name is None or name not in TASKS:
        known = ", ".join((*TASKS, DOCSTRINGS))
        raise ValueError(
            f"there is no built-in task for {task.builtin or task.kind!r}: give --data FILE (built in: {known})."
        )
    module = TASKS[name]
    options = {"language": task.language} if name == "sentiment" else {}
    examples = module.docstrings(task.seed) if task.builtin == DOCSTRINGS else module.make(task.seed, **options)

    def answers() -> dict[str, dict[str, list[Answer]]]:
        found = module.baselines(examples)
        return {who: {split: [Answer(a) for a in given] for split, given in by.items()} for who, by in found.items()}

    own: dict[str, Measures] = {"code": {"pass@1": passes}, "summarization": {"facts": facts_said}}
    measures = {} if task.builtin == DOCSTRINGS else own.get(name, {})
    return Splits(examples, kind, measures=measures, baselines=answers)


def passes(pair: Pair, answer: str) -> bool:
    """Whether an expression, executed, gives what the one in `pair` does."""
    return code.passes(answer, code.tests_of(pair))


def facts_said(pair: Pair, answer: str) -> float:
    """The share of a report's facts that a summary says."""
    return summarization.fact_accuracy(answer, pair)


def some_of(examples: list[Any], n: int, seed: int) -> list[Any]:
    """`n` of the examples, drawn by the seed; of labelled ones as many of each class as there are, in turn."""
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    if not isinstance(examples[0], Labelled):
        return [examples[i] for i in sorted(order[:n])]
    by_class: dict[Any, list[int]] = {}
    for i in order:
        by_class.setdefault(examples[i].label, []).append(i)
    rounds = max(map(len, by_class.values()))
    taken = [members[r] for r in range(rounds) for members in by_class.values() if r < len(members)]
    return [examples[i] for i in sorted(taken[:n])]


def simple_answers(examples: dict[str, list[Any]], kind: str) -> dict[str, dict[str, list[Answer]]]:
    """The baselines of the user's own data: what needs no model of language."""
    train, tests = examples["train"], {k: v for k, v in examples.items() if k not in ("train", "val")}
    if kind == "regression":
        mean = float(np.mean([e.label for e in train]))
        return {"the mean": {name: [Answer(mean)] * len(rows) for name, rows in tests.items()}}
    if kind == "multi_label_classification":
        common = tuple(name for name, n in count_labels(train).items() if n > len(train) / 2)
        return {"labels of most": {name: [Answer(common)] * len(rows) for name, rows in tests.items()}}
    if kind == "single_label_classification":
        most, bag = most_frequent(e.label for e in train), NaiveBayes([e.text for e in train], [e.label for e in train])
        return {
            "majority": {name: [Answer(most)] * len(rows) for name, rows in tests.items()},
            "bag of words": {
                name: [Answer(a) for a in bag.predict([e.text for e in rows])] for name, rows in tests.items()
            },
        }
    return {"nearest example": {name: nearest_targets(train, rows) for name, rows in tests.items()}}


def nearest_targets(train: Sequence[Pair], asked: Sequence[Pair]) -> list[Answer]:
    """For each source the target of the training example that is most like it."""
    places = Nearest([e.source for e in train]).find([e.source for e in asked])
    return [Answer(train[i].target) for i in places]
