"""Text to train on: token files in windows of the model's context, and what the model is asked to do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data import Batcher, TokenDataset
from ..engines.protocol import Engine, PackedLoss
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .evaluate import Evaluation, evaluate
from .objectives import NextToken, Objective, ObjectiveBatcher, PackedNextToken


@dataclass(frozen=True)
class TextData:
    """What `train` takes for pretraining: two token files, and an objective that makes their windows into batches (see
    objectives.py), to predict the next token if None. Without `val` nothing is evaluated."""

    train: TokenDataset
    val: TokenDataset | None
    objective: Objective | None = None

    @property
    def asked(self) -> Objective:
        return self.objective or NextToken(self.train.vocab_size)

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless text, tokenizer and model speak of the same token ids."""
        for name, data in (("training", self.train), ("validation", self.val)):
            if data is None:
                return
            if data.vocab_size > model_config.vocab_size:
                raise ValueError(
                    f"the {name} data has token ids up to {data.vocab_size - 1}, the model's vocab_size is "
                    f"{model_config.vocab_size}: set the model's vocab_size to {data.vocab_size}."
                )
            if isinstance(self.asked, PackedNextToken) and data.info.eos_id != self.asked.eos_id:
                raise ValueError(
                    f"the {name} data was packed with {data.info.eos_id} between its documents, and PackedNextToken "
                    f"looks for {self.asked.eos_id}: give it the eos_id of the tokenizer that packed the data."
                )
            if tokenizer is not None:
                data.check_tokenizer(tokenizer)
            if data.info.tokenizer != self.train.info.tokenizer:
                raise ValueError(
                    f"the training data was packed with tokenizer {self.train.info.tokenizer}, the {name} data with "
                    f"{data.info.tokenizer}: pack both with the same one."
                )

    def batches(self, run: Engine, config: TrainConfig, context: int) -> ObjectiveBatcher:
        if isinstance(self.asked, PackedNextToken) and not isinstance(run.loss, PackedLoss):
            raise ValueError(
                f"documents are kept apart by PackedLoss, not by {type(run.loss).__name__}: give the engine "
                "loss=PackedLoss(config.label_smoothing)."
            )
        share = {"rank": run.rank, "world_size": run.world_size}
        return ObjectiveBatcher(Batcher(self.train, config.batch_size, context, seed=config.seed, **share), self.asked)

    def gauges(self) -> dict[str, float]:
        return {}

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> Evaluation | None:
        if self.val is None:
            return None
        return evaluate(
            run.batch_loss,
            self.val,
            batch_size=config.batch_size,
            context=context,
            objective=self.asked,
            max_tokens=config.eval_tokens,
        )
