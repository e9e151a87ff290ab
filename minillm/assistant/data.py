"""Conversations to train on: what `train` takes for SFT, and for the distillation of logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..data import Chat
from ..data.example_batches import ExampleBatcher, fingerprint
from ..engines.protocol import Engine
from ..finetune.data import TaskEvaluation
from ..finetune.objectives import Row
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .packing import collate_packed, pack
from .rows import Conversations


class Asked(Protocol):
    """What a model is asked to learn of an example: `Conversations`, or `Packs` of them."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, example: Any) -> Any: ...

    def collate(self, rows: Sequence[Any]) -> tuple[np.ndarray, ...]: ...

    def size(self, row: Any) -> int: ...


@dataclass(frozen=True)
class Packs:
    """Several conversations in a row, which do not see each other (packing.py): with `PackedLoss`."""

    objective: Conversations

    @property
    def tokenizer(self) -> Tokenizer:
        return self.objective.tokenizer

    def encode(self, example: tuple[Chat, ...]) -> tuple[Row, ...]:
        return tuple(self.objective.encode(chat) for chat in example)

    def collate(self, rows: Sequence[tuple[Row, ...]]) -> tuple[np.ndarray, ...]:
        return collate_packed(rows, self.objective.template.stop_ids[0])

    def size(self, row: tuple[Row, ...]) -> int:
        return sum(map(self.objective.size, row))

    def packed(self, chats: Sequence[Chat]) -> list[tuple[Chat, ...]]:
        """The chats, as many together as the model's context takes."""
        lengths = [self.objective.size(self.objective.encode(chat)) for chat in chats]
        return [tuple(chats[i] for i in places) for places in pack(lengths, self.objective.context)]


class ChatData:
    """Examples to train on (`train`) and to choose the checkpoint with (`val`): by the loss, or another figure of the
    run's loss, `metric`. `tests` are further ones by name, to measure the result on (`figures`). Raises `Misfit` for an
    example that the model cannot be given."""

    def __init__(
        self,
        objective: Asked,
        train: Sequence[Any],
        val: Sequence[Any],
        metric: str = "loss",
        tests: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        if not train or not val:
            raise ValueError(
                f"there must be examples to train on and to validate with, not {len(train)} and {len(val)}."
            )
        self.objective, self.metric = objective, metric
        self.train = list(train)
        self.rows: list[Any] = [objective.encode(example) for example in train]
        self.val_rows: list[Any] = [objective.encode(example) for example in val]
        self.test_rows = {name: [objective.encode(e) for e in examples] for name, examples in (tests or {}).items()}

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model has all of the tokenizer's ids."""
        n_ids = self.objective.tokenizer.vocab_size
        if n_ids > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {n_ids} ids, the model {model_config.vocab_size}: they do not belong together."
            )

    def batches(self, run: Engine, config: TrainConfig, context: int) -> ExampleBatcher:
        """Rows of like length together, so that little is padding."""
        return ExampleBatcher(
            len(self.rows),
            config.batch_size,
            lambda places, epochs: self.objective.collate([self.rows[i] for i in places]),
            seed=config.seed,
            data=fingerprint(self.train),
            lengths=[self.objective.size(row) for row in self.rows],
            rank=run.rank,
            world_size=run.world_size,
        )

    def gauges(self) -> dict[str, float]:
        return {}

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        """The loss over all of `val`, and its figures, each for a target that counts."""
        means = self.means(run, self.val_rows, config.batch_size)
        return TaskEvaluation(means.pop("loss"), means, self.metric)

    def figures(self, run: Engine, batch_size: int) -> dict[str, dict[str, float]]:
        """The same of all tests, by their names; of `val`, where there are none."""
        parts = self.test_rows or {"val": self.val_rows}
        return {name: self.means(run, rows, batch_size) for name, rows in parts.items()}

    def means(self, run: Engine, rows: Sequence[Any], batch_size: int) -> dict[str, float]:
        order = sorted(rows, key=self.objective.size)
        sums, n = Counter[str](), 0.0
        for start in range(0, len(order), batch_size):
            batch = self.objective.collate(order[start : start + batch_size])
            sums.update(run.batch_sums(*batch))
            n += run.loss.count(*batch)
        return {name: value / n for name, value in sums.items()}
