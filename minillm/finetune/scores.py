"""How good a task's answers are: the metrics that its command prints, by name, each with what makes it comparable.

The baselines stand beside the model in the same table, measured on the same examples: a score alone says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import metrics
from ..data import Labelled, Pair
from ..metrics.intervals import Interval
from .predict import Answer

LOWER_IS_BETTER = ("loss", "mse", "mae", "calibration_error", "kl", "cross_entropy")
CHINESE = re.compile("[\u3400-\u9fff]")
Score = Callable[[Sequence[Any], Sequence[Answer]], dict[str, float]]
Measures = dict[str, Callable[[Pair, str], float]]  # further figures by name: the mean over (example, answer)

# The metric that is the reason for a task, for which an interval is given.
MAIN = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "f1_micro",
    "regression": "r2",
    "translate": "exact_match",
    "summarize": "rougeL",
    "code": "pass@1",
}


# What can decide which checkpoint is the best, besides the loss and a task's own measures.
METRICS = {
    "single_label_classification": (
        "accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "mcc", "calibration_error", "roc_auc",
    ),
    "multi_label_classification": ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "accuracy"),
    "regression": ("mse", "mae", "r2"),
    "translate": ("exact_match", "chrf", "bleu"),
    "summarize": ("exact_match", "rouge1", "rouge2", "rougeL"),
    "code": ("exact_match",),
}  # fmt: skip


def check_metric(metric: str, kind: str, measures: Measures) -> None:
    """Raise ValueError for a metric that this kind of task does not have, with those that it has."""
    known = ("loss", *METRICS[kind], *measures)
    if metric not in known:
        raise ValueError(f"metric = {metric!r} is none of this task's: they are {', '.join(known)}.")


def score_for(kind: str, labels: Sequence[str] = (), measures: Measures | None = None) -> Score:
    """The function that measures answers: `kind` is a classifier's problem_type, "translate", "summarize" or "code"."""
    if kind in ("single_label_classification", "multi_label_classification"):
        several = kind == "multi_label_classification"
        return partial(multi_label_scores if several else class_scores, labels=tuple(labels))
    if kind == "regression":
        return number_scores
    return partial(text_scores, kind=kind, measures=measures or {})


def class_scores(examples: Sequence[Labelled], answers: Sequence[Answer], labels: tuple[str, ...]) -> dict[str, float]:
    truth, guess = [e.label for e in examples], [a.value for a in answers]
    macro = metrics.precision_recall_f1(truth, guess, "macro", labels)
    found = {
        "accuracy": metrics.accuracy(truth, guess),
        "precision_macro": macro.precision,
        "recall_macro": macro.recall,
        "f1_macro": macro.f1,
        "f1_weighted": metrics.precision_recall_f1(truth, guess, "weighted", labels).f1,
        "mcc": metrics.matthews(truth, guess),
    }
    likely = [a.probabilities for a in answers if a.probabilities is not None]
    if len(likely) == len(answers):  # a baseline may have none
        p = np.stack(likely)  # (N, C)
        right = np.array([t == g for t, g in zip(truth, guess)])
        found["calibration_error"] = metrics.calibration_error(p.max(axis=1), right)
        if set(truth) == set(labels):  # the area needs items of each class
            two = len(labels) == 2
            area = metrics.roc_auc([t == labels[1] for t in truth], p[:, 1]) if two else None
            found["roc_auc"] = metrics.roc_auc_macro(truth, p, labels) if area is None else area
    return found


def multi_label_scores(
    examples: Sequence[Labelled], answers: Sequence[Answer], labels: tuple[str, ...]
) -> dict[str, float]:
    def table(sets: list[Any]) -> np.ndarray:
        return np.array([[label in names for label in labels] for names in sets])  # (N, C)

    truth, guess = table([e.label for e in examples]), table([a.value for a in answers])
    micro, macro = (metrics.precision_recall_f1(truth, guess, average) for average in ("micro", "macro"))
    exact = metrics.accuracy(truth, guess)
    return {"f1_micro": micro.f1, "f1_macro": macro.f1, "precision_micro": micro.precision,
            "recall_micro": micro.recall, "accuracy": exact}  # fmt: skip


def number_scores(examples: Sequence[Labelled], answers: Sequence[Answer]) -> dict[str, float]:
    truth, guess = [e.label for e in examples], [a.value for a in answers]
    found = {"mse": metrics.mse(truth, guess), "mae": metrics.mae(truth, guess)}
    return {**found, "r2": metrics.r2(truth, guess)} if len(set(truth)) > 1 else found


def text_scores(examples: Sequence[Pair], answers: Sequence[Answer], kind: str, measures: Measures) -> dict[str, float]:
    """Exact match, chrF and BLEU of translations, ROUGE of summaries, and what the task brings itself: pass@1 of code
    that can be executed. Texts in Chinese are cut into characters."""
    truth, written = [e.target for e in examples], [a.value for a in answers]
    chinese = any(CHINESE.search(text) for text in truth)
    found = {"exact_match": float(np.mean(metrics.exact_match(written, truth)))}
    if kind == "translate":
        found["chrf"] = metrics.chrf(written, truth)
        found["bleu"] = metrics.bleu(written, truth, "zh" if chinese else "13a").score
    elif kind == "summarize":
        rouge = metrics.rouge(written, truth, tokenize="cjk" if chinese else "rouge")
        found |= {name: float(rows[:, 2].mean()) for name, rows in rouge.items()}  # (N, 3): the F1
    for name, measure in measures.items():
        found[name] = float(np.mean([measure(example, text) for example, text in zip(examples, written)]))
    return found


def interval(kind: str, score: Score, examples: Sequence[Any], answers: Sequence[Answer]) -> Interval | None:
    """The 95% bootstrap interval of the task's main metric where that is a mean over examples, else None."""
    name = MAIN[kind]
    if name not in ("accuracy", "exact_match", "rougeL", "pass@1"):
        return None
    each = [score([example], [answer]).get(name) for example, answer in zip(examples, answers)]
    return None if None in each else metrics.bootstrap(each)
