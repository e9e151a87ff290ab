"""Probing: what a linear classifier can read from a model's features, beside what it could have learned by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import ops
from ..nn import Linear
from ..optim import AdamW
from ..tensor import Array, Tensor, no_grad


@dataclass(frozen=True)
class Probe:
    """`accuracy` of a linear classifier on positions that it was not trained on, and that of a like one on the
    control task."""

    accuracy: float
    control: float

    @property
    def selectivity(self) -> float:
        return self.accuracy - self.control


def probe(features: Array, labels: Array, ids: Array, *, train: Array | None = None, seed: int = 0) -> Probe:
    """Whether a property can be read linearly from features (N, D): labels (N,) from 0 on, `ids` (N,) the token at each
    position, `train` (N,) True where the probe may learn (by default 70% at random).

    Hewitt & Liang 2019, arXiv 1909.03368: a probe may learn the task by itself, from the token's identity alone. So
    another learns labels that are drawn at random for each id: it can only memorize. What counts is the difference,
    `selectivity`.
    """
    features, labels, ids = np.asarray(features), np.asarray(labels), np.asarray(ids)
    if not len(features) == len(labels) == len(ids):
        raise ValueError(f"probe: {len(features)} features, {len(labels)} labels and {len(ids)} ids must be as many.")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"probe: labels {labels.dtype} from {labels.min()} must be whole numbers from 0 on.")
    rng = np.random.default_rng(seed)
    train = rng.random(len(labels)) < 0.7 if train is None else np.asarray(train, dtype=bool)
    if not train.any() or train.all():
        raise ValueError(f"probe: {train.sum()} of {len(train)} positions are for training: both sides need some.")
    control = control_labels(ids, labels, rng)
    return Probe(*(linear_accuracy(features, wanted, train) for wanted in (labels, control)))


def control_labels(ids: Array, labels: Array, rng: np.random.Generator) -> Array:
    """A label for each id, drawn as often as the true labels occur, and given to all its positions."""
    kinds, places = np.unique(ids, return_inverse=True)
    return rng.choice(labels, len(kinds))[places.reshape(-1)]


def linear_accuracy(features: Array, labels: Array, train: Array, steps: int = 300) -> float:
    """The share of the other positions that softmax regression on the `train` ones gets right. Its loss is convex: what
    it finds does not depend on where it starts."""
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    x = ((features - mean) / (std + 1e-6)).astype(np.float64)  # (N, D)
    layer = Linear(x.shape[1], int(labels.max()) + 1, std=0.0, rng=np.random.default_rng(0)).to(np.float64)
    optimizer = AdamW(layer.parameters(), lr=0.05, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        ops.cross_entropy(layer(Tensor(x[train])), labels[train]).backward()
        optimizer.step()
    with no_grad():
        return float((layer(Tensor(x[~train])).data.argmax(axis=1) == labels[~train]).mean())
