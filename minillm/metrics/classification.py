"""Scores of labels, numbers and probabilities.

N items, C classes. Labels may be integers or strings. An argument that cannot be scored (no items, shapes that differ,
a label that is not among `labels`) raises ValueError; what is 0 divided by 0 counts as 0, as in scikit-learn.
chapters/11_fine_tuning_a_classifier.ipynb builds them from the confusion matrix up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Array = np.ndarray


class Scores(NamedTuple):
    """Precision, recall and F1, each a float, or (C,) one for each class; `support`: how many items are of it."""

    precision: Any
    recall: Any
    f1: Any
    support: Any


class Bins(NamedTuple):
    """What a reliability diagram shows, for each bin of confidence: (n_bins,) each, 0 where a bin is empty."""

    counts: Array
    confidence: Array  # the mean in the bin
    accuracy: Array


def same_shape(truth: Any, predicted: Any, ndim: tuple[int, ...] = (1,)) -> tuple[Array, Array]:
    """Both as arrays, after a check that they are of one shape, with at least one item."""
    a, b = np.asarray(truth), np.asarray(predicted)
    if a.shape != b.shape or a.ndim not in ndim or a.size == 0:
        raise ValueError(f"truth {a.shape} and predicted {b.shape} must have one shape, with at least one item.")
    if (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        raise ValueError(f"truth holds {a.dtype} and predicted {b.dtype}: both must be strings, or both numbers.")
    return a, b


def accuracy(truth: Any, predicted: Any) -> float:
    """The share of items that are right: of labels (N,), or, for multi-label (N, C), of rows that are right as a whole.

    >>> accuracy(["cat", "dog", "dog"], ["cat", "dog", "cat"])
    0.6666666666666666
    """
    a, b = same_shape(truth, predicted, (1, 2))
    return float((a == b).reshape(len(a), -1).all(axis=1).mean())


def confusion_matrix(truth: Any, predicted: Any, labels: Sequence[Any] | None = None) -> Array:
    """(C, C) counts: row i, column j: items of class i that were taken for j. `labels`: the classes in their order;
    None: all that occur, sorted.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1]).tolist()
    [[1, 1], [0, 1]]
    """
    a, b = same_shape(truth, predicted)
    known = np.unique(np.concatenate([a, b])) if labels is None else np.asarray(labels)
    rows, columns = class_indices(a, known), class_indices(b, known)
    return np.bincount(rows * len(known) + columns, minlength=len(known) ** 2).reshape(len(known), len(known))


def class_indices(values: Array, labels: Array) -> Array:
    """(N,) the place of each value in `labels`."""
    order = np.argsort(labels, kind="stable")
    place = order[np.minimum(np.searchsorted(labels, values, sorter=order), len(labels) - 1)]
    if (unknown := labels[place] != values).any() or len(np.unique(labels)) < len(labels):
        wrong = f"{values[unknown][0]} is not among them" if unknown.any() else "one stands there twice"
        raise ValueError(f"labels must name every class once: {wrong} ({', '.join(map(str, labels[:20]))}).")
    return place


def precision_recall_f1(
    truth: Any,
    predicted: Any,
    average: Literal["macro", "micro", "weighted"] | None = "macro",
    labels: Sequence[Any] | None = None,
) -> Scores:
    """From the true positives TP, false positives FP and false negatives FN of each class:

        precision = TP / (TP + FP),    recall = TP / (TP + FN),    F1 = 2 TP / (2 TP + FP + FN)

    truth and predicted: labels (N,), or 0 and 1 (N, C) where an item may have several classes. average: "macro", the
    mean over classes; "weighted", by how often each class occurs; "micro", TP, FP and FN summed over classes first (of
    single labels: the accuracy); None, each class by itself. F1 is averaged as such: the macro F1 isn't made of the
    macro precision and recall. A class of `labels` that never occurs scores 0.

    >>> precision_recall_f1([0, 0, 1, 1], [0, 0, 0, 1])
    Scores(precision=0.8333333333333333, recall=0.75, f1=0.7333333333333334, support=4)
    """
    if average not in ("macro", "micro", "weighted", None):
        raise ValueError(f"average = {average!r} must be 'macro', 'micro', 'weighted' or None.")
    a, b = same_shape(truth, predicted, (1, 2))
    if a.ndim == 2:
        a, b = as_booleans(a), as_booleans(b)
        hits, guessed, support = (a & b).sum(axis=0), b.sum(axis=0), a.sum(axis=0)  # (C,): TP, TP + FP, TP + FN
    else:
        matrix = confusion_matrix(a, b, labels)
        hits, guessed, support = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    if average == "micro":
        hits, guessed, support = hits.sum(), guessed.sum(), support.sum()
    each = (ratio(hits, guessed), ratio(hits, support), ratio(2 * hits, guessed + support))
    if average is None:
        return Scores(*each, support)
    weights = support if average == "weighted" else np.ones(np.shape(support))
    p, r, f1 = (float(ratio((x * weights).sum(), weights.sum())) for x in each)
    return Scores(p, r, f1, int(support.sum()))


def ratio(a: Any, b: Any) -> Array:
    """a / b, and 0 where b is 0."""
    return np.where(b == 0, 0.0, a / np.where(b == 0, 1, b))


def as_booleans(values: Any) -> Array:
    """0 and 1 as False and True."""
    x = np.asarray(values)
    if x.dtype != bool and not np.isin(x, (0, 1)).all():
        raise ValueError("what says whether an item is of a class must be 0 or 1 (False or True).")
    return x.astype(bool)


def matthews(truth: Any, predicted: Any) -> float:
    """Matthews' correlation coefficient, −1 to 1, of labels (N,); 0 is chance, and what is said of one class only.

    For C classes (Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient"): with
    c items right of n, tₖ of class k and pₖ taken for it,  (c n − Σ tₖ pₖ) / √((n² − Σ pₖ²) (n² − Σ tₖ²)).

    >>> matthews([1, 1, 0, 0], [1, 0, 0, 0])
    0.5773502691896258
    """
    matrix = confusion_matrix(truth, predicted).astype(np.float64)
    n, t, p = matrix.sum(), matrix.sum(axis=1), matrix.sum(axis=0)
    return float(ratio(matrix.trace() * n - t @ p, np.sqrt(n * n - p @ p) * np.sqrt(n * n - t @ t)))


def roc_auc(truth: Any, scores: Any) -> float:
    """The area under the ROC curve: how likely a positive item scores above a negative one, a tie counting half.

    truth (N,) 0 or 1, scores (N,), higher for 1. The same as Mann and Whitney's U (1947): with the positives' ranks
    among all items (equal scores share their mean rank),  (Σ rank − P (P + 1) / 2) / (P · (N − P)).

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    y, s = same_shape(truth, scores)
    y = as_booleans(y)
    if np.isnan(s).any() or y.all() or not y.any():
        raise ValueError("roc_auc needs an item of each kind, and no score that is NaN.")
    _, place, counts = np.unique(s, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # (N,), from 1; of equal scores the mean
    n_positive = int(y.sum())
    return float((ranks[y].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * (len(y) - n_positive)))


def roc_auc_macro(truth: Any, scores: Any, labels: Sequence[Any] | None = None) -> float:
    """The mean over classes of the area for "this class against the rest". scores (N, C); truth: labels (N,), column c
    being for the c-th of `labels` (None: of those that occur, sorted), or 0 and 1 (N, C)."""
    y, s = np.asarray(truth), np.asarray(scores)
    if y.ndim == 1:
        known = np.unique(y) if labels is None else np.asarray(labels)
        y = class_indices(y, known)[:, None] == np.arange(len(known))  # (N, C)
    same_shape(y, s, (2,))
    return float(np.mean([roc_auc(y[:, c], s[:, c]) for c in range(s.shape[1])]))


def mse(truth: Any, predicted: Any) -> float:
    """The mean squared error, of arrays of any one shape."""
    a, b = same_shape(truth, predicted, (1, 2))
    return float(np.square(np.subtract(a, b, dtype=np.float64)).mean())


def mae(truth: Any, predicted: Any) -> float:
    """The mean absolute error, of arrays of any one shape."""
    a, b = same_shape(truth, predicted, (1, 2))
    return float(np.abs(np.subtract(a, b, dtype=np.float64)).mean())


def r2(truth: Any, predicted: Any) -> float:
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)², of numbers (N,): 1 is perfect, 0 no better than the mean ȳ. Where all y are equal:
    1 if all are met, else 0.

    >>> r2([1, 2, 3], [1, 2, 4])
    0.5
    """
    a, b = same_shape(truth, predicted)
    if len(a) < 2:
        raise ValueError("r2 needs at least two items: one has no variance to explain.")
    error, spread = np.square(a - b, dtype=np.float64).sum(), np.square(a - a.mean()).sum()
    return float(1 - error / spread) if spread > 0 else float(error == 0)


def calibration_bins(confidence: Any, correct: Any, n_bins: int = 15) -> Bins:
    """Items by their confidence (N,) from 0 to 1, in bins of equal width (i / n_bins, (i + 1) / n_bins], 0 in the
    first; `correct` (N,) 0 or 1."""
    p, right = same_shape(confidence, correct)
    if n_bins < 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"confidence must be probabilities, from 0 to 1, and n_bins = {n_bins} at least 1.")
    place = np.maximum(np.searchsorted(np.linspace(0, 1, n_bins + 1), p, side="left") - 1, 0)  # (N,)
    counts = np.bincount(place, minlength=n_bins)
    sums = (np.bincount(place, weights=x, minlength=n_bins) for x in (p, as_booleans(right)))
    return Bins(counts, *(ratio(x, counts) for x in sums))


def calibration_error(confidence: Any, correct: Any, n_bins: int = 15) -> float:
    """The expected calibration error Σ (items in bin / N) · |accuracy − mean confidence| over the bins above (Guo et
    al. 2017, arXiv 1706.04599, section 2). It depends on the bins: report their number.

    >>> round(calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]), 6)
    0.15
    """
    bins = calibration_bins(confidence, correct, n_bins)
    return float(bins.counts @ np.abs(bins.accuracy - bins.confidence) / bins.counts.sum())
