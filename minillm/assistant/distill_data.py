"""What a student learns from beside the examples' own answers: what it writes itself, or what its teacher has written.

A model that has only read right answers does not know what to do after a mistake of its own. In on-policy distillation
the student writes, and its teacher says of each token what it would have said there (GKD, Agarwal et al. 2023, arXiv
2306.13649, algorithm 1); through the drawing of the tokens itself no gradient flows. In sequence-level distillation the
teacher's text takes the place of the examples' (Kim & Rush 2016, arXiv 1606.07947, section 3.2), and SFT follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..data import Chat, ExampleBatcher, count_targets
from ..engines.protocol import Batch, Engine
from ..finetune.objectives import Row
from ..generate import Sampling
from ..settings import TrainConfig
from .answers import write_answers
from .conversations import ChatTemplate
from .data import ChatData
from .distill import DistillConfig
from .rows import Conversations, prompt_of, shifted


class OnPolicyData(ChatData):
    """Chats to train on, whose last answers the student writes anew in the share `on_policy_share` of the batches
    (GKD's λ); in the others they are the chats' own. Of either, the last answer counts. `val` is measured on its own
    answers. Goes with `DistillLoss`.

    What is written follows from the weights, the seed and the example alone. Raises `Misfit` for a chat that the
    template or the model cannot take.
    """

    def __init__(
        self,
        objective: Conversations,
        train: Sequence[Chat],
        val: Sequence[Chat],
        settings: DistillConfig,
        metric: str = "loss",
        tests: Mapping[str, Sequence[Chat]] | None = None,
    ) -> None:
        asked = replace(objective, train_on="last")
        super().__init__(asked, train, val, metric, tests)
        self.template, self.settings = asked.template, settings
        self.prompts = [prompt_of(asked.template, chat, asked.context, asked.system) for chat in train]
        self.made: dict[str, float] = {}

    def batches(self, run: Engine, config: TrainConfig, context: int) -> OnPolicyBatches:  # type: ignore[override]
        return OnPolicyBatches(self, super().batches(run, config, context), run, config.seed)

    def gauges(self) -> dict[str, float]:
        """Of the last batch: "on_policy", 1 if the student wrote it, and "answer_tokens", how long its answers are."""
        return self.made


class OnPolicyBatches:
    """Batches (ids (B, T), targets (B, T)) for ever, written by the model of `run` as it is when they are asked for.
    The position is that of the batcher, whose `collate` gives way to ours."""

    ahead = False  # the next batch needs the weights after this one's step

    def __init__(self, data: OnPolicyData, batcher: ExampleBatcher, run: Engine, seed: int) -> None:
        self.data, self.batcher, self.run, self.seed = data, batcher, run, seed
        self.row_tokens = batcher.row_tokens
        batcher.collate = self.batch

    def next(self) -> Batch:
        drawn = np.random.default_rng([self.seed, self.batcher.examples_used]).random()  # the same on every rank
        self.student_writes = drawn < self.data.settings.on_policy_share
        return self.batcher.next()

    def batch(self, places: np.ndarray, epochs: np.ndarray) -> Batch:
        if self.student_writes:
            rows = self.written(places, [(self.seed, int(epoch), int(place)) for epoch, place in zip(epochs, places)])
        else:
            rows = [self.data.rows[place] for place in places]
        n_tokens = sum(count_targets(targets) for _, targets in rows)
        self.data.made = {"on_policy": float(self.student_writes), "answer_tokens": n_tokens / len(rows)}
        return self.data.objective.collate(rows)

    def written(self, places: np.ndarray, seeds: Sequence[Any]) -> list[Row]:
        """The rows of these chats with answers of the student."""
        settings = self.data.settings
        prompts = [self.data.prompts[place] for place in places]
        answers = write_answers(
            self.run.model,
            self.data.template,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            sampling=Sampling(temperature=settings.sampling_temperature),
            seeds=seeds,
            batch_size=len(prompts),
        )
        return [
            shifted(prompt + answer.ids, [False] * len(prompt) + [True] * len(answer.ids))
            for prompt, answer in zip(prompts, answers)
        ]

    def state_dict(self) -> dict[str, Any]:
        return self.batcher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batcher.load_state_dict(state)


def write_chats(
    teacher: Any,
    template: ChatTemplate,
    chats: Sequence[Chat],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    system: str = "",
    batch_size: int = 32,
    progress: bool = False,
) -> tuple[list[Chat], int]:
    """(the chats with the teacher's answers in the place of their last turns, how many were left out). `template` is
    the teacher's, with its tokenizer; `sampling` None: the likeliest token at each place; `system`: what it is told
    where a chat has no such message.

    Left out are chats whose answer was empty, held a control token, or was not at its end after `max_new_tokens` or
    where the teacher's context ends: cut off, it would teach to stop anywhere. An answer depends on the chat, its place
    and the seed, not on the batch that it was written in. Raises `Misfit` for a chat that leaves the teacher no room,
    and ValueError if every answer was left out.
    """
    prompts = [prompt_of(template, chat, teacher.config.context, system) for chat in chats]
    answers = write_answers(
        teacher,
        template,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seeds=[(seed, place) for place in range(len(chats))],
        batch_size=batch_size,
        progress=progress,
    )
    control = set(template.tokenizer.special_tokens.values())
    written = []
    for chat, answer in zip(chats, answers):
        text = answer.text.strip()
        if answer.ended and text and not control.intersection(answer.ids[:-1]):
            turn = {"role": "assistant", "content": text}
            written.append(replace(chat, messages=(*chat.messages[:-1], turn)))
    if not written:
        raise ValueError(
            f"none of the teacher's {len(chats)} answers was a text that ends within {max_new_tokens} tokens. Is it a "
            "chat model, and the template its own? Else let it write longer ones (max_new_tokens)."
        )
    return written, len(chats) - len(written)
