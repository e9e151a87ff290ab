"""Answers that a model writes to learn from: the student's, while it is trained, or its teacher's, before it is.

A model that has only read right answers does not know what to do after a mistake of its own. In on-policy distillation
the student writes, and its teacher says of each token what it would have said there (GKD, Agarwal et al. 2023, arXiv
2306.13649, algorithm 1); through the drawing of the tokens itself no gradient flows. In sequence-level distillation the
teacher's text takes the place of the examples' (Kim & Rush 2016, arXiv 1606.07947, section 3.2), and SFT follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..data import Chat, count_targets
from ..data.example_batches import ExampleBatcher, fingerprint, pad
from ..engines.protocol import Engine
from ..finetune.data import TaskEvaluation
from ..finetune.objectives import Row, about, check_length
from ..generate import Sampling, generate, known_ids
from ..settings import IGNORE, TrainConfig
from ..tokenizers import Tokenizer
from .distill import DistillConfig
from .conversations import ChatTemplate


class OnPolicyData:
    """Chats to train on, whose last answers the student writes anew in the share `on_policy_share` of the batches
    (GKD's λ); in the others they are the chats' own. `val` is measured on its own answers. Goes with `DistillLoss`.

    What is written follows from the weights, the seed and the example alone. Raises `Misfit` for a chat that the
    template or the model cannot take.
    """

    def __init__(
        self, template: ChatTemplate, train: Sequence[Chat], val: Sequence[Chat], settings: DistillConfig
    ) -> None:
        if not train or not val:
            raise ValueError(f"there must be chats to train on and to validate with, not {len(train)} and {len(val)}.")
        self.template, self.settings = template, settings
        self.train, self.val = list(train), list(val)
        self.rows = [answer_row(template, chat) for chat in train]
        self.val_rows = [answer_row(template, chat) for chat in val]
        self.prompts = [prompt_ids(template, chat) for chat in train]
        self.made: dict[str, float] = {}

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model can be given these chats, and has room to answer."""
        ours = self.template.tokenizer
        if ours.vocab_size > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {ours.vocab_size} ids, the model {model_config.vocab_size}: they do not belong "
                "together."
            )
        for chat, row in zip([*self.train, *self.val], [*self.rows, *self.val_rows]):
            with about(chat):
                check_length("the chat has", len(row[0]), model_config.context)

    def batches(self, run: Engine, config: TrainConfig, context: int) -> OnPolicyBatches:
        return OnPolicyBatches(self, run, config)

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        return mean_figures(run, self.val_rows, config.batch_size, self.template.stop_ids[0])

    def gauges(self) -> dict[str, float]:
        """Of the last batch: "on_policy", 1 if the student wrote it, and "answer_tokens", how long its answers are."""
        return self.made


class OnPolicyBatches:
    """Batches (ids (B, T), targets (B, T)) for ever, written by the model of `run` as it is when they are asked for.
    The position is that of an `ExampleBatcher`."""

    ahead = False  # the next batch needs the weights after this one's step

    def __init__(self, data: OnPolicyData, run: Engine, config: TrainConfig) -> None:
        self.data, self.run, self.seed = data, run, config.seed
        self.batcher = ExampleBatcher(
            len(data.rows),
            config.batch_size,
            self.batch,
            seed=config.seed,
            data=fingerprint(data.train),
            lengths=[len(row[0]) for row in data.rows],
            rank=run.rank,
            world_size=run.world_size,
        )
        self.row_tokens = self.batcher.row_tokens

    def next(self) -> tuple[np.ndarray, ...]:
        drawn = np.random.default_rng([self.seed, self.batcher.examples_used]).random()  # the same on every rank
        self.student_writes = drawn < self.data.settings.on_policy_share
        return self.batcher.next()

    def batch(self, places: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = [self.data.rows[place] for place in places]
        if self.student_writes:
            rows = self.written([self.data.prompts[place] for place in places], places, epochs)
        n_tokens = sum(count_targets(row[1]) for row in rows)
        self.data.made = {"on_policy": float(self.student_writes), "answer_tokens": n_tokens / len(rows)}
        return collate(rows, self.data.template.stop_ids[0])

    def written(self, prompts: list[list[int]], places: np.ndarray, epochs: np.ndarray) -> list[Row]:
        """The rows of these prompts with answers of the student."""
        settings, template = self.data.settings, self.data.template
        sampling = Sampling(temperature=settings.sampling_temperature)
        seeds = [(self.seed, int(epoch), int(place)) for epoch, place in zip(epochs, places)]
        answers = write(self.run.model, template, prompts, settings.max_new_tokens, sampling, seeds)
        return [
            shifted(prompt + answer, [False] * len(prompt) + [True] * len(answer))
            for prompt, answer in zip(prompts, answers)
        ]

    def state_dict(self) -> dict[str, Any]:
        return self.batcher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batcher.load_state_dict(state)


def write_answers(
    teacher: Any,
    template: ChatTemplate,
    chats: Sequence[Chat],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> tuple[list[Chat], int]:
    """(the chats with the teacher's answers in the place of their last turns, how many were left out). `template` is
    the teacher's, with its tokenizer; `sampling` None: the likeliest token at each place.

    Left out are chats whose answer was empty, held a control token, or was not at its end after `max_new_tokens` or
    where the teacher's context ends: cut off, it would teach to stop anywhere. An answer depends on the chat, its place
    and the seed, not on the batch that it was written in. Raises `Misfit` for a chat that leaves the teacher no room,
    and ValueError if every answer was left out.
    """
    prompts = [prompt_ids(template, chat) for chat in chats]
    for chat, prompt in zip(chats, prompts):
        with about(chat):
            check_length("the messages before the answer have", len(prompt), teacher.config.context)
    order = sorted(range(len(chats)), key=lambda i: len(prompts[i]))  # the shorter of a batch wait for the longest
    control = set(template.tokenizer.special_tokens.values())
    sampling = sampling or Sampling(temperature=0)
    written: dict[int, Chat] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        seeds = [(seed, i) for i in places]
        answers = write(teacher, template, [prompts[i] for i in places], max_new_tokens, sampling, seeds)
        for i, (*answer, last) in zip(places, answers):
            text = template.tokenizer.decode(answer).strip()
            if last in template.stop_ids and text and not control.intersection(answer):
                turn = {"role": "assistant", "content": text}
                written[i] = replace(chats[i], messages=(*chats[i].messages[:-1], turn))
    if not written:
        raise ValueError(
            f"none of the teacher's {len(chats)} answers was a text that ends within {max_new_tokens} tokens. Is it a "
            "chat model, and the template its own? Else let it write longer ones (max_new_tokens)."
        )
    return [written[i] for i in sorted(written)], len(chats) - len(written)


def write(
    model: Any,
    template: ChatTemplate,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seeds: Sequence[tuple[int, ...]],
) -> list[list[int]]:
    """The ids of an answer to each prompt, at least one, with the stop id if it came to one: no longer than
    `max_new_tokens`, nor than the model's context, into which all but the last must fit."""
    room = model.config.context + 1
    answers = generate(
        model,
        prompts,
        max_new_tokens=min(max_new_tokens, room - min(map(len, prompts))),
        sampling=sampling,
        stop_ids=template.stop_ids,
        keep_stop_id=True,
        seed=seeds,
        allowed=known_ids(template.tokenizer),
    )
    return [answer[: room - len(prompt)] for prompt, answer in zip(prompts, answers)]


# --- rows -------------------------------------------------------------------------------------------------------------


def prompt_ids(template: ChatTemplate, chat: Chat) -> list[int]:
    """The ids of a chat up to where its last answer begins."""
    with about(chat):
        return template.prompt(chat.messages[:-1])


def answer_row(template: ChatTemplate, chat: Chat) -> Row:
    """(ids (T,), targets (T,)) of a chat, of which the last answer counts."""
    with about(chat):
        ids, mask = template.encode(chat.messages, train_on="last")
        return shifted(ids, mask)


def shifted(ids: Sequence[int], mask: Sequence[bool]) -> Row:
    """(ids (T,), targets (T,)): the next id of each where `mask` is True for that, −100 elsewhere."""
    whole = np.array(ids, dtype=np.int64)
    return whole[:-1], np.where(mask[1:], whole[1:], IGNORE)


def collate(rows: Sequence[Row], pad_id: int) -> tuple[np.ndarray, ...]:
    """ids (B, T), filled up with `pad_id`, at which no token that counts looks, and targets (B, T)."""
    return pad([row[0] for row in rows], pad_id)[0], pad([row[1] for row in rows], IGNORE)[0]


def mean_figures(run: Engine, rows: Sequence[Row], batch_size: int, pad_id: int) -> TaskEvaluation:
    """The loss and its figures over all rows, per target that counts."""
    order = sorted(rows, key=lambda row: len(row[0]))
    totals, n_targets = Counter[str](), 0
    for start in range(0, len(order), batch_size):
        batch = collate(order[start : start + batch_size], pad_id)
        totals.update(run.batch_sums(*batch))
        n_targets += count_targets(batch[1])
    means = {name: total / n_targets for name, total in totals.items()}
    return TaskEvaluation(means.pop("loss"), means)
