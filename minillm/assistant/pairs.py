"""Preferences as rows and batches: what `train` takes to learn from pairs of answers.

A `Preference` becomes a row of arrays, two for each answer: the ids of prompt and answer up to the answer's end,
(T + 1,), and the targets (T,), each the token after the one at its place, −100 where the answer doesn't stand. For KTO
there is a third answer, one to another prompt, by which is measured how far the model has moved (`kto` in
preferences.py). The paper pairs each prompt with the next answer of the batch; here it is the next one of the data, so
that its log-probability under the reference, too, can be computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..data import ExampleBatcher, Preference, pad
from ..data.fields import Message
from ..engines.protocol import Engine
from ..finetune.objectives import Row, about
from ..settings import IGNORE, TrainConfig
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate
from .data import ChatData
from .preferences import PreferenceConfig
from .reference import log_probs_of, reference_log_probs
from .rows import check_room, shifted, with_system

METRICS = ("loss", "accuracy", "margin")  # what can decide which checkpoint is the best


@dataclass
class Pairs:
    """What learning from preferences asks of a model: two answers to a prompt, each as a row of its own.

    `kl`: KTO's z at this moment, which goes into its batches.
    """

    template: ChatTemplate
    context: int
    system: str = ""
    kl: float | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    def encode(self, example: Preference) -> Row:
        """(chosen ids, chosen targets, rejected ids, rejected targets). Raises Misfit, which says where the example
        stands, for an empty answer, for one that does not fit into the model, and where both are the same to it."""
        with about(example):
            row: Row = ()
            for name in ("chosen", "rejected"):
                answer = getattr(example, name)
                if not answer.strip():
                    raise ValueError(f"the {name} answer is empty: write a text, or leave such pairs out (--skip-bad).")
                ids, targets = answer_row(self.messages(example), answer, self.template)
                check_room(self.read_of(ids), self.context, f"the {name} answer with its prompt has")
                row += (ids, targets)
            if np.array_equal(row[0], row[2]):
                raise ValueError(
                    "chosen and rejected are the same, as the chat template writes them: make them differ, or leave "
                    "such pairs out (--skip-bad)."
                )
            return row

    def messages(self, example: Preference) -> tuple[Message, ...]:
        """Those before the answers; a prompt that is a text is the user's one."""
        return with_system(prompt_messages(example.prompt), self.system)

    def read_of(self, ids: np.ndarray) -> int:
        """How many of these ids the model reads: the last one is a target only."""
        return len(ids) - 1

    def size(self, row: Row) -> int:
        """Tokens that the model reads: both answers are filled up to the longer one."""
        return 2 * max(len(row[1]), len(row[3]))

    def collate(self, rows: Sequence[Row]) -> tuple[np.ndarray, ...]:
        """ids (B, 2, T) and targets (B, 2, T), and what the loss needs besides: the reference's log-probabilities
        (B, 2), if the rows have them, and kl (B,)."""
        ids = stacked([(row[0][:-1], row[2][:-1]) for row in rows], self.template.stop_ids[0])
        batch: tuple[np.ndarray, ...] = (ids, stacked([(row[1], row[3]) for row in rows], IGNORE))
        if len(rows[0]) % 2:
            batch += (np.stack([row[-1][:2] for row in rows]),)
        return batch if self.kl is None else (*batch, np.full(len(rows), self.kl))


def answer_row(messages: Sequence[Message], answer: str, template: ChatTemplate) -> Row:
    """(ids (T + 1,), targets (T,)) of messages and an answer to them, up to where that ends: what a template writes
    behind it is nothing to be learned."""
    ids, mask = template.encode([*messages, {"role": "assistant", "content": answer}], "last")
    end = len(mask) - mask[::-1].index(True)
    return np.array(ids[:end], dtype=np.int64), shifted(ids[:end], mask[:end])[1]


def prompt_messages(prompt: str | Sequence[Message]) -> tuple[Message, ...]:
    """The messages of a prompt; a text is the user's one."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)


def stacked(rows: Sequence[Sequence[np.ndarray]], value: int) -> np.ndarray:
    """B rows of n arrays each, filled up to the longest of all with `value`: (B, n, T)."""
    ids, _ = pad([part for row in rows for part in row], value)
    return ids.reshape(len(rows), len(rows[0]), -1)


def check_pair_metric(metric: str) -> None:
    """Raise ValueError for a metric that pairs do not have."""
    if metric not in METRICS:
        raise ValueError(f"metric = {metric!r} is none that pairs of answers have: they are {', '.join(METRICS)}.")


class PreferenceData(ChatData):
    """What `train` takes for a PreferenceLoss of the same config. `reference_file`: where the reference's
    log-probabilities are kept, for a loss that has one; it belongs into the run's folder. `metric`: one of METRICS.

    Raises `Misfit` for a pair that the model cannot be given.
    """

    objective: Pairs

    def __init__(
        self,
        config: PreferenceConfig,
        template: ChatTemplate,
        train: Sequence[Preference],
        val: Sequence[Preference],
        context: int,
        reference_file: str | Path,
        metric: str = "loss",
        tests: Mapping[str, Sequence[Preference]] | None = None,
        *,
        system: str = "",
        progress: bool = True,
    ) -> None:
        check_pair_metric(metric)
        super().__init__(Pairs(template, context, system), train, val, metric, tests)
        self.config, self.reference_file, self.progress = config, Path(reference_file), progress
        self.bare = {"train": self.rows, "val": self.val_rows, **self.test_rows}
        if config.loss == "kto":
            parts = {"train": train, "val": val, **(tests or {})}.items()
            self.bare = {name: with_mismatched(self.objective, self.bare[name], part) for name, part in parts}

    def batches(self, run: Engine, config: TrainConfig, context: int) -> ExampleBatcher:
        """To be called while the run's model is the one to begin with: that is the reference."""
        if self.config.has_reference:
            size = 2 * config.batch_size
            found = reference_log_probs(run, self.bare, self.reference_file, size, progress=self.progress)
            both = {name: [(*row, r) for row, r in zip(self.bare[name], found[name])] for name in self.bare}
            self.rows, self.val_rows = both.pop("train"), both.pop("val")
            self.test_rows = both
        batcher = super().batches(run, config, context)
        if self.config.loss == "kto":
            batcher.ahead, batcher.collate = False, partial(self.kto_batch, run)
        return batcher

    def kto_batch(self, run: Engine, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        """A batch with z as it is now, before the step."""
        rows = [self.rows[i] for i in places]
        self.objective.kl = moved(run, rows, len(rows))
        return self.objective.collate(rows)

    def means(self, run: Engine, rows: Sequence[Row], batch_size: int) -> dict[str, float]:
        """The loss and the figures of PreferenceLoss, means over the pairs; KTO's z is of all of them."""
        if self.config.loss == "kto":
            self.objective.kl = moved(run, rows, 2 * batch_size)
        return super().means(run, rows, batch_size)


def with_mismatched(objective: Pairs, rows: Sequence[Row], examples: Sequence[Preference]) -> list[Row]:
    """The rows with the ids and targets of the next pair's answer behind each prompt, chosen and rejected ones in turn,
    and as much of it as the model takes."""
    if len(examples) < 2:
        raise ValueError("kto looks at answers behind the prompts of other pairs: there must be at least two pairs.")
    found = []
    for i, (row, example) in enumerate(zip(rows, examples)):
        other = examples[(i + 1) % len(examples)]
        with about(example):
            answer = other.rejected if i % 2 else other.chosen
            ids, targets = answer_row(objective.messages(example), answer, objective.template)
        found.append((*row, ids[: objective.context + 1], targets[: objective.context]))
    return found


def moved(run: Engine, rows: Sequence[Row], batch_size: int) -> float:
    """KTO's z, max(0, mean of ln π(y′|x)/πᵣ(y′|x)), from the mismatched answers of rows."""
    now = log_probs_of(run, [row[4:6] for row in rows], batch_size)[:, 0]
    return max(0.0, float((now - [row[-1][2] for row in rows]).mean()))
