"""Chapter 08's bookkeeping: what a run noted, number formats, a mistake to be found, fits with their scatter.

Its pictures are in pretraining_pictures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from minillm.hub.dtypes import decode, encode
from minillm.training.run_log import read_metrics


@dataclass
class Run:
    """What one training run leaves: the model, the optimizer, and what was noted at each step."""

    model: Any
    optimizer: Any
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)  # of the gradients, before clipping
    moved: list[float] = field(default_factory=list)  # size of the update over size of the weights, one matrix
    val: list[tuple[int, float]] = field(default_factory=list)  # (steps made, held-out loss)
    _before: Any = None

    def before_step(self) -> None:
        """Keep the matrix whose movement is measured: the first layer's first feed-forward matrix."""
        self._before = watched(self.model).copy()

    def after_step(self, loss: float, norm: float) -> None:
        """Note a step."""
        self.loss.append(loss)
        self.norm.append(norm)
        self.moved.append(movement(self._before, watched(self.model)))

    @property
    def final(self) -> float:
        """The last held-out loss."""
        return self.val[-1][1]


def watched(model: Any) -> np.ndarray:
    return model.blocks[0].mlp.fc.weight.data


def movement(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square of the update over that of the weights."""
    return float(np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2)))


def rms(array: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array))))


def smooth(values: Sequence[float], width: int = 10) -> np.ndarray:
    """The mean of each value and up to `width` − 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def mean_sd(values: Iterable[float], digits: int = 3) -> str:
    """ "4.638 ± 0.021", the standard deviation being the sample's; without it for a single value."""
    values = list(values)
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def through(array: np.ndarray, code: str) -> np.ndarray:
    """The array as it comes back from a smaller format: "BF16", or "F16", which turns what is too large into ∞."""
    if code == "F16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)
    return decode(encode(array, code), code)


def share_changed(model: Any, optimizer: Any) -> float:
    """The share of a model's weights that one step changes if they are kept in bf16, from the gradients it holds. The
    weights are as before when this returns."""
    parameters = list(model.parameters())
    kept = [p.data.copy() for p in parameters]
    for p in parameters:
        p.data[...] = through(p.data, "BF16")
    before = [p.data.copy() for p in parameters]
    optimizer.step()
    changed = sum(int((through(p.data, "BF16") != w).sum()) for p, w in zip(parameters, before))
    for p, w in zip(parameters, kept):
        p.data[...] = w
    return changed / sum(w.size for w in kept)


@dataclass(frozen=True)
class NotShifted:
    """A mistake as an objective: each token is asked for where it stands, instead of the next one."""

    vocab_size: int
    whole_text = True

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    def __call__(self, ids: np.ndarray, targets: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        return ids, ids


class Movement:
    """Given to `train` as before_step: notes by how much each step moved a matrix."""

    def __init__(self) -> None:
        self.moved: list[float] = []
        self.before: np.ndarray | None = None

    def __call__(self, step: int, model: Any) -> None:
        if self.before is not None:
            self.moved.append(movement(self.before, watched(model)))
        self.before = watched(model).copy()


def fit_power_law(sizes: np.ndarray, losses: np.ndarray, floors: np.ndarray) -> tuple[float, float, float]:
    """E, A and α of L = E + A·N^−α: for each E in `floors` a straight line through log(L − E), the best E is kept."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for floor in floors[floors < losses.min()]:
        slope, intercept = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
        fitted = floor + np.exp(intercept) * sizes**slope
        error = float(np.sum((fitted - losses) ** 2))
        if error < best[0]:
            best = (error, float(floor), float(np.exp(intercept)), -float(slope))
    return best[1:]


def bootstrap(
    losses: np.ndarray, fit: Callable[[np.ndarray], Any], rng: np.random.Generator, times: int = 200
) -> np.ndarray:
    """`fit` on as many resamples of the seeds: losses (sizes, seeds), in each row seeds drawn with replacement."""
    n_sizes, n_seeds = losses.shape
    found = []
    for _ in range(times):
        picked = rng.integers(0, n_seeds, (n_sizes, n_seeds))
        found.append(fit(np.take_along_axis(losses, picked, axis=1).mean(axis=1)))
    return np.array(found)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What a run folder's log holds: a row for each step and for each evaluation."""
    return read_metrics(folder / "metrics.jsonl")


def clinic_runs(vocab_size: int) -> dict[str, tuple[dict[str, Any], NotShifted | None]]:
    """What differs in the clinic's three runs: settings, and the objective. Read this after you have judged."""
    return {"A": ({"lr": 0.2}, None), "B": ({}, None), "C": ({}, NotShifted(vocab_size))}


def patients(train_ids: np.ndarray) -> dict[str, dict[str, Any]]:
    """How the four runs of exercise 4 are trained. Read this after you have answered."""

    def not_shifted(step: int, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return inputs, inputs

    return {"1": {"ids": train_ids[:5000]}, "2": {"change_batch": not_shifted}, "3": {"lr": 6e-2}, "4": {}}
