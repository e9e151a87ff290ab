"""Examples to train on: what `train` takes for a task, as it takes `TextData` for pretraining."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data import Labelled
from ..data.augment import Augmentation
from ..data.batches import count_targets
from ..data.example_batches import ExampleBatcher, fingerprint
from ..engines.protocol import Engine
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .objectives import Classify, Row, TaskObjective
from .predict import predict
from .scores import LOWER_IS_BETTER, Score


@dataclass(frozen=True)
class TaskEvaluation:
    """One evaluation on a task. `loss` is nats per target (per token for texts, an example for classes; the squared
    error for numbers, in units of their scale). `metrics` are what was measured beside it; `metric` decides which
    checkpoint is the best."""

    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    metric: str = "loss"

    @property
    def score(self) -> float:
        """The lower, the better."""
        value = self.figures()[self.metric]
        return value if self.metric in LOWER_IS_BETTER else -value

    def figures(self) -> dict[str, float]:
        first = {} if self.metric == "loss" else {self.metric: self.metrics[self.metric]}
        return {"loss": self.loss, **first, **self.metrics}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.figures().items())


class TaskData:
    """Examples to train on (`train`) and to choose the checkpoint with (`val`), and what is asked of a model.

    `metric`: what the best checkpoint is the best in, "loss" or one that `score` gives; then the model answers every
    validation example at each evaluation, with `answering` for `predict`. `augment` changes an example each time that
    it is met (data/augment.py). Raises `Misfit` for an example that the model cannot be given.
    """

    def __init__(
        self,
        objective: TaskObjective,
        train: Sequence[Any],
        val: Sequence[Any],
        *,
        score: Score | None = None,
        metric: str = "loss",
        augment: Augmentation | None = None,
        answering: dict[str, Any] | None = None,
    ) -> None:
        if not train or not val:
            raise ValueError(
                f"there must be examples to train on and to validate with, not {len(train)} and {len(val)}."
            )
        if metric != "loss" and score is None:
            raise ValueError(f"metric = {metric!r} needs a score, which measures it; without one there is the loss.")
        self.objective = objective
        self.train, self.val = list(train), list(val)
        self.rows = [objective.encode(example) for example in train]
        self.val_rows = [objective.encode(example) for example in val]
        self.score, self.metric, self.augment = score, metric, augment
        self.answering = answering or {}

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model can be given these examples, and asked for these classes."""
        ours = self.objective.tokenizer
        if ours.vocab_size > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {ours.vocab_size} ids, the model {model_config.vocab_size}: they do not belong "
                "together."
            )
        if isinstance(self.objective, Classify):
            wanted, n = self.objective.problem_type, max(len(self.objective.labels), 1)
            if (model_config.n_labels, model_config.problem_type) != (n, wanted):
                raise ValueError(
                    f"the examples are {wanted} with {n} labels, the model's head is {model_config.problem_type} with "
                    f"{model_config.n_labels}: open it with n_labels = {n} and problem_type = {wanted!r}."
                )

    def batches(self, run: Engine, config: TrainConfig, context: int) -> ExampleBatcher:
        """Rows of like length together, so that little is padding."""
        return ExampleBatcher(
            len(self.rows),
            config.batch_size,
            self.batch,
            seed=config.seed,
            data=fingerprint(self.train),
            lengths=[self.objective.size(row) for row in self.rows],
            rank=run.rank,
            world_size=run.world_size,
        )

    def gauges(self) -> dict[str, float]:
        return {}

    def batch(self, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The batch of these examples, each changed by augmentation as this epoch wants it."""
        if self.augment is None:
            return self.objective.collate([self.rows[i] for i in places])
        return self.objective.collate([self.changed(int(i), int(epoch)) for i, epoch in zip(places, epochs)])

    def changed(self, place: int, epoch: int) -> Row:
        """The row of an example with its text, or its source, changed; the row as it was, where the change does not
        fit."""
        assert self.augment is not None
        example = self.train[place]
        part = "text" if isinstance(example, Labelled) else "source"
        changed = self.augment(getattr(example, part), epoch, place)
        try:
            return self.objective.encode(replace(example, **{part: changed}))
        except ValueError:
            return self.rows[place]

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        """The loss over all of `val`, and the metrics if one of them decides."""
        loss = mean_loss(run.batch_loss, self.objective, self.val_rows, config.batch_size)
        if self.score is None or self.metric == "loss":
            return TaskEvaluation(loss)
        answers = predict(run.model, self.objective, self.val, batch_size=config.batch_size, **self.answering)
        return TaskEvaluation(loss, self.score(self.val, answers), self.metric)


def mean_loss(
    batch_loss: Callable[..., float], objective: TaskObjective, rows: Sequence[Row], batch_size: int
) -> float:
    """The mean loss over all targets of these rows; nan if there is none."""
    order = sorted(range(len(rows)), key=lambda i: objective.size(rows[i]))
    total, n_targets = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = objective.collate([rows[i] for i in order[start : start + batch_size]])
        total += batch_loss(*batch)
        n_targets += count_targets(batch[-1])
    return total / n_targets if n_targets else math.nan
