"""A reward model: a number for an answer, learned from pairs of which people preferred one.

It is the language model with another head, one number read off the last token that is no padding (`Classifier` in
models/, made by `with_classifier(model, "regression", (), pad_id, rng)`): the end of the answer, or where that is the
padding, too, the token before, which is the same in training and later. What it says is then a reward for GRPO, or
chooses among drawn answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..data import Preference
from ..data.example_batches import ExampleBatcher, pad
from ..data.fields import Message
from ..engines.choose import outputs_of
from ..engines.protocol import Engine
from ..finetune.data import TaskEvaluation
from ..finetune.objectives import Row
from ..finetune.predict import in_batches
from ..ops import AnyTensor
from ..settings import TrainConfig
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate
from .pairs import PairData, answer_row, stacked
from .preferences import figures

# Bradley & Terry 1952: y⁺ beats y⁻ with the probability σ(r(y⁺) − r(y⁻)). Ouyang et al. 2022, arXiv 2203.02155,
# equation 1. That fixes differences only: a c > 0 draws the rewards of each pair to both sides of 0 (Eisenstein et al.
# 2023, arXiv 2312.09244, section 2).
#   ℓ = −ln σ(r(y⁺) − r(y⁻)) + c (r(y⁺) + r(y⁻))²


def bradley_terry(chosen: AnyTensor, rejected: AnyTensor, center: float = 0.0) -> AnyTensor:
    """One loss for each pair (B,), from the rewards (B,) of the chosen and the rejected answers."""
    losses = -ops.log_sigmoid(chosen - rejected)
    return losses + (chosen + rejected) * (chosen + rejected) * center if center else losses


class RewardLoss:
    """What an engine trains with (`Loss` in engines/protocol.py): ids (B, 2, T), the chosen answer and the rejected
    one, each behind its prompt -> (sum of losses, figures). The figures are those of PreferenceLoss, but for the
    log-probabilities."""

    def __init__(self, center: float = 0.0) -> None:
        if center < 0:
            raise ValueError(f"center = {center} must be 0 or more: how strongly rewards are drawn around 0.")
        self.center = center

    def count(self, ids: Any) -> float:
        """Pairs."""
        return len(ids)

    def __call__(self, model: Any, ids: Any) -> tuple[AnyTensor, dict[str, AnyTensor]]:
        B, _, T = ids.shape
        rewards = model(ids.reshape(2 * B, T)).reshape(B, 2)
        return bradley_terry(rewards[:, 0], rewards[:, 1], self.center).sum(), figures(rewards.detach())


class RewardData(PairData):
    """What `train` takes for a RewardLoss: see PairData. `pad_id` is the model's."""

    def __init__(
        self,
        template: ChatTemplate,
        train: Sequence[Preference],
        val: Sequence[Preference],
        context: int,
        pad_id: int,
        metric: str = "loss",
    ) -> None:
        super().__init__(template, train, val, context - 1, metric)  # whose last token is read, too
        self.pad_id = pad_id

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        super().check(model_config, tokenizer)
        check_reward_model(model_config)
        if model_config.pad_id != self.pad_id:
            raise ValueError(f"pad_id = {self.pad_id} must be the model's, {model_config.pad_id}.")

    def batches(self, run: Engine, config: TrainConfig, context: int) -> ExampleBatcher:
        return self.batcher(run, config, self.training_batch)

    def training_batch(self, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.collate([self.rows[i] for i in places])

    def validation_batch(self, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.collate([self.val_rows[i] for i in places])

    def collate(self, rows: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        return (stacked([(row[0], row[2]) for row in rows], self.pad_id),)

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        return self.measure(run, config.batch_size, self.validation_batch)


def check_reward_model(config: Any) -> None:
    """Raise ValueError unless a model of this config gives one number."""
    if getattr(config, "problem_type", "") != "regression" or config.n_labels != 1:
        raise ValueError(
            f"a model of type {config.model_type!r} with this head gives no reward: it must be a classifier for "
            "'regression' with one number, as a reward run makes it."
        )


def rewards_of(
    model: Any,
    template: ChatTemplate,
    conversations: Sequence[tuple[Sequence[Message], str]],
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> np.ndarray:
    """What a trained reward model, of either engine, thinks of answers: (N,), of (messages before it, answer) each.

    Raises ValueError for a model without such a head, and for a conversation that is longer than the model's context.
    """
    config = model.config
    check_reward_model(config)
    rows: list[Row] = []
    for number, (messages, answer) in enumerate(conversations, 1):
        ids, _ = answer_row(messages, answer, template)
        if len(ids) > config.context:
            raise ValueError(
                f"conversation {number} of {len(conversations)} has {len(ids):,} tokens, and the reward model takes "
                f"{config.context:,}: limit the answers' length, or train it on a model with a larger context."
            )
        rows.append((ids,))
    ask = outputs_of(model)
    pad_id = 0 if config.pad_id is None else config.pad_id

    def batch(part: list[Row]) -> list[float]:
        ids, _ = pad([ids for (ids,) in part], pad_id)
        return list(ask(ids)[:, 0])

    if config.pad_id is None:
        batch_size = 1  # rows of one length only: it could not be told what padding is
    return np.array(in_batches(rows, batch_size, batch, progress))
