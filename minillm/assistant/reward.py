"""A reward model: a number for an answer, learned from pairs of which people preferred one.

It is the language model with another head, one number read off the last token that is no padding (`Classifier` in
models/, made by `with_classifier(model, "regression", (), pad_id, rng)`): the end of the answer, or where that is the
padding, too, the token before, which is the same in training and later. What it says is then a reward for GRPO, or
chooses among drawn answers: chapters/13_dialogue.ipynb does that until the people like it less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..data import Preference, pad
from ..data.fields import Message
from ..engines.choose import outputs_of
from ..finetune.objectives import Row, tokens
from ..finetune.predict import in_batches
from ..ops import AnyTensor
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate
from .data import ChatData
from .pairs import Pairs, answer_row, check_pair_metric, prompt_messages, stacked
from .preferences import figures

# Bradley & Terry 1952: y⁺ beats y⁻ with the probability σ(r(y⁺) − r(y⁻)). Ouyang et al. 2022, arXiv 2203.02155,
# equation 1. That fixes differences only: a c > 0 draws the rewards of each pair to both sides of 0 (Eisenstein et al.
# 2023, arXiv 2312.09244).
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
        if not 0 <= center < math.inf:
            raise ValueError(f"center = {center} must be 0 or more: how strongly rewards are drawn around 0.")
        self.center = center

    def count(self, *batch: Any) -> float:
        """Pairs."""
        return len(batch[0])

    def __call__(self, model: Any, *batch: Any) -> tuple[AnyTensor, dict[str, AnyTensor]]:
        (ids,) = batch
        B, _, T = ids.shape
        rewards = model(ids.reshape(2 * B, T)).reshape(B, 2)
        return bradley_terry(rewards[:, 0], rewards[:, 1], self.center).sum(), figures(rewards.detach())


@dataclass
class ScoredPairs(Pairs):
    """Pairs whose answers are read whole, their ends included. `pad_id` is the model's."""

    pad_id: int = 0

    def read_of(self, ids: np.ndarray) -> int:
        return len(ids)

    def collate(self, rows: Sequence[Row]) -> tuple[np.ndarray, ...]:
        """ids (B, 2, T)."""
        return (stacked([(row[0], row[2]) for row in rows], self.pad_id),)


class RewardData(ChatData):
    """What `train` takes for a RewardLoss. `pad_id` is the model's; `metric`: one of METRICS (pairs.py). Raises
    `Misfit` for a pair that the model cannot be given."""

    objective: ScoredPairs

    def __init__(
        self,
        template: ChatTemplate,
        train: Sequence[Preference],
        val: Sequence[Preference],
        context: int,
        pad_id: int,
        metric: str = "loss",
        tests: Mapping[str, Sequence[Preference]] | None = None,
        *,
        system: str = "",
    ) -> None:
        check_pair_metric(metric)
        super().__init__(ScoredPairs(template, context, system, pad_id=pad_id), train, val, metric, tests)

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        super().check(model_config, tokenizer)
        check_reward_model(model_config)
        if model_config.pad_id != self.objective.pad_id:
            raise ValueError(f"pad_id = {self.objective.pad_id} must be the model's, which is {model_config.pad_id}.")


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
        ids = ids_to_score(messages, answer, template)
        if len(ids) > config.context:
            raise ValueError(
                f"conversation {number} of {len(conversations)} has {len(ids):,} tokens, and the reward model takes "
                f"{config.context:,}: limit the answers' length, or train it on a model with a larger context."
            )
        rows.append((ids,))
    if config.pad_id is None:
        batch_size = 1  # rows of one length only: it could not be told what padding is
    ask, pad_id = outputs_of(model), config.pad_id or 0

    def batch(part: list[Row]) -> list[float]:
        ids, _ = pad([ids for (ids,) in part], pad_id)
        return list(ask(ids)[:, 0])

    return np.array(in_batches(rows, batch_size, batch, progress))


def ids_to_score(messages: Sequence[Message], answer: str, template: ChatTemplate) -> np.ndarray:
    """The ids that a reward model reads. A template takes neither an empty answer nor one that spells a control token;
    a model may write both, and they have to be judged: as plain text, ended as any other."""
    plain = answer.strip() and not any(text in answer for text in template.tokenizer.special_tokens)
    if plain:
        return answer_row(messages, answer, template)[0]
    end = template.end_of_turn
    ids = [*template.prompt(messages), *tokens(template.tokenizer, answer), *([] if end is None else [end])]
    return np.array(ids, dtype=np.int64)


class RewardModel:
    """A trained reward model as a reward for GRPO (rewards.py): of answers and records, which hold the `messages` that
    were answered, or a `prompt`."""

    batched = True

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: int = 32, name: str = "reward_model") -> None:
        check_reward_model(model.config)
        self.model, self.template, self.batch_size, self.__name__ = model, template, batch_size, name

    def __call__(self, answers: Sequence[str], records: Sequence[dict[str, Any]]) -> np.ndarray:
        asked = [prompt_messages(record.get("messages") or record["prompt"]) for record in records]
        return rewards_of(self.model, self.template, list(zip(asked, answers)), batch_size=self.batch_size)
