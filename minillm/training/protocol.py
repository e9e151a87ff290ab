"""What the training loop asks of data, whatever is learned, and what it says at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..engines.protocol import Batches, Engine
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .evaluate import Measured
from .run_folder import RunState


class TrainingData(Protocol):
    """What there is to learn, and how it is measured: `TextData` (text.py), or the examples of a task (finetune/)."""

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the data, the model and the tokenizer belong together."""

    def batches(self, run: Engine, config: TrainConfig, context: int) -> Batches:
        """The training batches of the process of `run`, for ever."""

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> Measured | None:
        """How well the model does on what it is not trained on; None where there is no such text."""

    def gauges(self) -> dict[str, float]:
        """What the log should show of the last batch that was made; {} if there is nothing to say of it."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: "finished", "early stopping", or "interrupted" (then `signal` says by which)."""

    reason: str
    state: RunState
    engine: Engine  # with the model as it is after the last step
    evaluation: Measured | None  # the last one; None if the run came to none
    signal: int | None = None
