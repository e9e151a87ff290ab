"""Preferences as rows and batches: what `train` takes to learn from pairs of answers (`PreferenceData`).

A `Preference` becomes a row of arrays, two for each answer: the ids of the whole conversation up to the answer's end,
(T + 1,), and the targets (T,), each the token after the one at its place, −100 where the answer doesn't stand. For KTO
there is a third answer, one to another prompt, by which is measured how far the model has moved (`kto` in
preferences.py). The paper pairs each prompt with the next answer of the batch; here it is the next one of the data, so
that its log-probability under the reference, too, can be computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Preference
from ..data.example_batches import Collate, ExampleBatcher, fingerprint, pad
from ..data.fields import Message
from ..engines.protocol import Batches, Engine
from ..finetune.data import TaskEvaluation
from ..finetune.objectives import Row, about, check_length
from ..finetune.predict import chunks
from ..settings import IGNORE, TrainConfig
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate
from .preferences import PreferenceConfig
from .reference import log_probs_of, reference_log_probs

METRICS = ("loss", "accuracy", "margin")  # what can decide which checkpoint is the best


def pair_rows(
    examples: Sequence[Preference], template: ChatTemplate, context: int, *, mismatched: bool = False
) -> list[Row]:
    """A row for each pair: (chosen ids, chosen targets, rejected ids, rejected targets), with `mismatched` also the ids
    and targets of the next pair's answer, chosen and rejected ones in turn. A model reads at most `context` tokens.

    Raises Misfit, which says where the example stands, for an empty answer, for one that does not fit, and where the
    template makes the same of both answers.
    """
    if mismatched and len(examples) < 2:
        raise ValueError("kto needs at least two pairs: it looks at an answer behind the prompt of another pair.")
    rows = [pair_row(example, template, context) for example in examples]
    if not mismatched:
        return rows
    for i, example in enumerate(examples):
        other = examples[(i + 1) % len(examples)]
        with about(example):
            answer = other.rejected if i % 2 else other.chosen
            ids, targets = answer_row(prompt_messages(example.prompt), answer, template)
        rows[i] += (ids[: context + 1], targets[:context])  # an estimate, to which the end of a long one is no matter
    return rows


def pair_row(example: Preference, template: ChatTemplate, context: int) -> Row:
    with about(example):
        row: Row = ()
        for name in ("chosen", "rejected"):
            answer = getattr(example, name)
            if not answer.strip():
                raise ValueError(f"the {name} answer is empty. Write a text, or leave such pairs out (--skip-bad).")
            ids, targets = answer_row(prompt_messages(example.prompt), answer, template)
            check_length(f"the {name} answer and its prompt have", len(targets), context)
            row += (ids, targets)
        if np.array_equal(row[0], row[2]):
            raise ValueError(
                "chosen and rejected are the same to the model, at least after the chat template. Make them differ, or "
                "leave such pairs out (--skip-bad)."
            )
        return row


def answer_row(messages: Sequence[Message], answer: str, template: ChatTemplate) -> Row:
    """(ids (T + 1,), targets (T,)) of messages and an answer to them, up to where that ends: what a template writes
    behind it is nothing to be learned."""
    whole, mask = template.encode([*messages, {"role": "assistant", "content": answer}], "last")
    end = len(mask) - mask[::-1].index(True)
    ids = np.array(whole[:end], dtype=np.int64)
    return ids, np.where(mask[1:end], ids[1:], IGNORE)


def prompt_messages(prompt: str | Sequence[Message]) -> list[Message]:
    """The messages of a prompt; a text is the user's one."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def stacked(rows: Sequence[Sequence[np.ndarray]], value: int) -> np.ndarray:
    """B rows of n arrays each, filled up to the longest of all with `value`: (B, n, T)."""
    ids, _ = pad([part for row in rows for part in row], value)
    return ids.reshape(len(rows), len(rows[0]), -1)


class PairData:
    """Pairs to train on and to choose the checkpoint with: what a preference loss and a reward model share. `metric` is
    one of METRICS. Raises Misfit for an example that the model cannot be given."""

    def __init__(
        self,
        template: ChatTemplate,
        train: Sequence[Preference],
        val: Sequence[Preference],
        context: int,
        metric: str = "loss",
        mismatched: bool = False,
    ) -> None:
        if not train or not val:
            raise ValueError(f"there must be pairs to train on and to validate with, not {len(train)} and {len(val)}.")
        if metric not in METRICS:
            raise ValueError(f"metric = {metric!r} is none that pairs have: they are {', '.join(METRICS)}.")
        self.template, self.metric = template, metric
        self.train, self.val = list(train), list(val)
        self.rows = pair_rows(train, template, context, mismatched=mismatched)
        self.val_rows = pair_rows(val, template, context, mismatched=mismatched)

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model can be given these rows."""
        n_ids = self.template.tokenizer.vocab_size
        if n_ids > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {n_ids} ids, the model {model_config.vocab_size}: they do not belong together."
            )

    def gauges(self) -> dict[str, float]:
        return {}

    def batcher(self, run: Engine, config: TrainConfig, collate: Collate) -> ExampleBatcher:
        """Pairs of like length together: both answers of all pairs are filled up to the longest."""
        return ExampleBatcher(
            len(self.rows),
            config.batch_size,
            collate,
            seed=config.seed,
            data=fingerprint(self.rows),
            lengths=[2 * size(row) for row in self.rows],
            rank=run.rank,
            world_size=run.world_size,
        )

    def measure(self, run: Engine, batch_size: int, collate: Collate) -> TaskEvaluation:
        """The loss and the figures of the validation pairs, each a mean over them."""
        sums: Counter[str] = Counter()
        for places in chunks(sorted(range(len(self.val_rows)), key=lambda i: size(self.val_rows[i])), batch_size):
            rows = np.array(places)
            sums.update(run.batch_sums(*collate(rows, np.zeros_like(rows))))
        means = {name: value / len(self.val_rows) for name, value in sums.items()}
        return TaskEvaluation(means.pop("loss"), means, self.metric)


def size(row: Row) -> int:
    """Tokens of the longer answer with its prompt."""
    return max(len(row[0]), len(row[2]))


class PreferenceData(PairData):
    """What `train` takes for a PreferenceLoss of the same config: see PairData. `reference_file`: where the reference's
    log-probabilities are kept, for a loss that has one; it belongs into the run's folder."""

    def __init__(
        self,
        config: PreferenceConfig,
        template: ChatTemplate,
        train: Sequence[Preference],
        val: Sequence[Preference],
        context: int,
        reference_file: str | Path,
        metric: str = "loss",
        progress: bool = True,
    ) -> None:
        super().__init__(template, train, val, context, metric, mismatched=config.loss == "kto")
        self.config, self.reference_file, self.progress = config, Path(reference_file), progress
        self.reference: dict[str, np.ndarray] = {}

    def batches(self, run: Engine, config: TrainConfig, context: int) -> Batches:
        """To be called while the run's model is the one to begin with: that is the reference."""
        if self.config.has_reference:
            rows = {"train": self.rows, "val": self.val_rows}
            size = config.batch_size * 2
            self.reference = reference_log_probs(run, rows, self.reference_file, size, progress=self.progress)
        batcher = self.batcher(run, config, partial(self.training_batch, run))
        batcher.ahead = self.config.loss != "kto"  # whose batches ask the model how far it has moved
        return batcher

    def training_batch(self, run: Engine, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        kl = None
        if self.config.loss == "kto":
            kl = moved(run, [self.rows[i] for i in places], self.reference["train"][places], len(places))
        return self.collate("train", places, kl)

    def collate(self, part: str, places: np.ndarray, kl: float | None = None) -> tuple[np.ndarray, ...]:
        """ids (B, 2, T), targets (B, 2, T), and what the loss needs besides: reference (B, 2), kl (B,)."""
        rows = [(self.rows if part == "train" else self.val_rows)[i] for i in places]
        ids = stacked([(row[0][:-1], row[2][:-1]) for row in rows], 0)
        batch: tuple[np.ndarray, ...] = (ids, stacked([(row[1], row[3]) for row in rows], IGNORE))
        if self.config.has_reference:
            batch += (self.reference[part][places, :2],)
        return batch if kl is None else (*batch, np.full(len(places), kl))

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        """The loss and the figures of PreferenceLoss on the validation pairs; KTO's z is of all of them together."""
        kl = None
        if self.config.loss == "kto":
            kl = moved(run, self.val_rows, self.reference["val"], 2 * config.batch_size)
        return self.measure(run, config.batch_size, lambda places, epochs: self.collate("val", places, kl))


def moved(run: Engine, rows: Sequence[Row], reference: np.ndarray, batch_size: int) -> float:
    """KTO's z, max(0, mean of ln π(y′|x)/πᵣ(y′|x)), from the mismatched answers of rows; reference (n, 3)."""
    now = log_probs_of(run, [row[4:] for row in rows], batch_size)  # (n, 1)
    return max(0.0, float((now[:, 0] - reference[:, 2]).mean()))
