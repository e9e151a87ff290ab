"""Rollouts: answers that the model draws itself, has rewarded, and learns from (grpo.py says what).

    prompts -> group answers each, drawn together -> rewards -> advantages -> steps over all of them, inner_epochs times
    -> the next prompts

Every answer has a seed of its own, made of the run's seed, the prompt's number, the epoch and the answer's number in
its group, so that it does not depend on which others it was drawn with (up to rounding: see generate.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..data import ExampleBatcher, Prompt, fingerprint
from ..data.batches import epoch_key, permute
from ..disk.records import fits
from ..engines.protocol import Batch, Engine
from ..finetune.data import TaskEvaluation
from ..finetune.lora import adapters, without_adapters
from ..finetune.objectives import Row, about
from ..generate import Sampling
from ..ops import AnyTensor
from ..settings import IGNORE, TrainConfig
from ..tokenizers import Tokenizer
from .answers import Answer, write_answers
from .conversations import ChatTemplate
from .grpo import GRPOConfig, advantages, features, token_log_probs
from .rewards import Rewards
from .rows import check_room, collate, shifted, with_system

Array = np.ndarray


@dataclass
class Rollout:
    """An answer, what it was worth, and what the model thought of its tokens when it drew them."""

    prompt: int  # its number among the training prompts
    answer: list[int]  # ids, with what ended it
    ended: bool  # by itself, and not cut off
    advantage: float
    old: list[float]  # log-probability of each id under the model that drew it
    reference: list[float]  # the same under the model at the start; [] without `kl`


@dataclass(frozen=True)
class Prompts:
    """What is asked of a model: to answer in up to `max_new_tokens` tokens."""

    template: ChatTemplate
    context: int
    max_new_tokens: int
    system: str = ""

    def encode(self, example: Prompt) -> list[int]:
        """The ids up to where the answer begins. Raises Misfit for a prompt that the template cannot take, or that
        leaves no room for the longest answer."""
        with about(example):
            ids = self.template.prompt(with_system(example.messages, self.system))
            what = f"the prompt and an answer of up to {self.max_new_tokens} tokens (max_new_tokens) have"
            check_room(len(ids) + self.max_new_tokens - 1, self.context, what)  # of the last id nothing is asked
            return ids


class RolloutData:
    """Prompts to answer, and the rewards for it: `train` to learn from, `val` to choose the checkpoint with. Goes with
    `GRPOLoss`, in one process, on either engine. Raises `Misfit` for a prompt that the model cannot be given.
    """

    def __init__(
        self,
        objective: Prompts,
        train: Sequence[Prompt],
        val: Sequence[Prompt],
        rewards: Rewards,
        settings: GRPOConfig,
    ) -> None:
        if not train or not val:
            raise ValueError(
                f"there must be prompts to train on and to validate with, not {len(train)} and {len(val)}."
            )
        self.template, self.rewards, self.settings = objective.template, rewards, settings
        self.train, self.val = list(train), list(val)
        self.prompts = [objective.encode(prompt) for prompt in train]
        self.val_prompts = [objective.encode(prompt) for prompt in val]
        self.drawn: dict[str, float] = {}  # gauges of the last batch of rollouts

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model has all of the tokenizer's ids."""
        n_ids = self.template.tokenizer.vocab_size
        if n_ids > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {n_ids} ids, the model {model_config.vocab_size}: they do not belong together."
            )

    def batches(self, run: Engine, config: TrainConfig, context: int) -> RolloutBatches:
        return RolloutBatches(self, run, config)

    def gauges(self) -> dict[str, float]:
        """Of the answers drawn last: their mean `reward`, of several functions also `reward_NAME`; `reward_std`, the
        mean of the groups' standard deviations; `equal_groups`, the share of groups whose rewards are all equal, from
        which nothing is learned; `response_length` in tokens; `entropy` of the next token in nats; `ended`, the share
        that was not cut off."""
        return self.drawn

    def evaluate(self, run: Engine, config: TrainConfig, context: int) -> TaskEvaluation:
        """The mean reward of greedy answers to all of `val`, how long they are, and how many end. The loss, what is to
        be made small, is minus the reward."""
        answers = self.write(run.model, self.val_prompts)
        reward = float(self.rewards([answer.text for answer in answers], self.val).mean())
        return TaskEvaluation(0.0 - reward, {"reward": reward, **shape(answers)}, "reward")

    def write(self, model: Any, prompts: Sequence[list[int]], **options: Any) -> list[Answer]:
        n, rows = self.settings.max_new_tokens, self.settings.rows
        return write_answers(model, self.template, prompts, max_new_tokens=n, batch_size=rows, **options)


def shape(answers: Sequence[Answer]) -> dict[str, float]:
    """How long answers are on average, and which share of them ended by itself."""
    lengths, ended = [len(answer.ids) for answer in answers], [answer.ended for answer in answers]
    return {"response_length": float(np.mean(lengths)), "ended": float(np.mean(ended))}


class RolloutBatches:
    """Batches for `GRPOLoss` for ever: micro-batches of `batch_size` of the answers drawn last, in another order in
    each pass. The position holds the answers that are still to be learned from, so that a run goes on from it exactly.
    """

    ahead = False  # the next answers are drawn by the weights after this step

    def __init__(self, data: RolloutData, run: Engine, config: TrainConfig) -> None:
        settings, step_rows = data.settings, config.batch_size * config.grad_accumulation
        if run.world_size > 1:
            raise ValueError(f"rollouts are drawn in one process, not in {run.world_size}: start it without torchrun.")
        if settings.rows % step_rows:
            raise ValueError(
                f"group * prompts_per_step = {settings.group} * {settings.prompts_per_step} = {settings.rows} answers "
                f"must be whole steps of batch_size * grad_accumulation = {config.batch_size} * "
                f"{config.grad_accumulation} = {step_rows}: change one of them."
            )
        self.data, self.run, self.settings = data, run, settings
        self.seed, self.batch_size = config.seed, config.batch_size
        self.prompts = ExampleBatcher(
            len(data.train),
            settings.prompts_per_step,
            lambda rows, epochs: (rows, epochs),
            seed=config.seed,
            data=fingerprint(data.train),
        )
        self.rollouts: list[Rollout] = []
        self.used = 0  # rows given out of them, in all passes together
        self.dtype = "float32"  # of the log-probabilities, which is the weights'
        self.frozen = frozen_copy(run.model) if settings.kl and not adapters(run.model) else None

    @property
    def row_tokens(self) -> float:
        """Tokens of a row if every answer is as long as it may be: how long they will be is not known before."""
        return float(np.mean([len(ids) for ids in self.data.prompts])) + self.settings.max_new_tokens

    def next(self) -> Batch:
        """ids, targets, advantages, old log-probabilities, and with `kl` those of the reference: see GRPOLoss."""
        if self.used == len(self.rollouts) * self.settings.inner_epochs:
            self.draw()
        number, place = divmod(self.used, len(self.rollouts))
        key = epoch_key(self.seed, self.prompts.examples_used * self.settings.inner_epochs + number)
        order = permute(np.arange(place, place + self.batch_size), len(self.rollouts), key)
        self.used += self.batch_size
        return self.collate([self.rollouts[i] for i in order])

    def draw(self) -> None:
        """New answers of the model as it is now, in the place of the old ones."""
        settings, data = self.settings, self.data
        places, epochs = self.prompts.next()
        group = range(settings.group)
        numbers = [int(i) for i in places for _ in group]  # (P · G,)
        seeds = [(self.seed, int(i), int(epoch), sample) for i, epoch in zip(places, epochs) for sample in group]
        sampling = Sampling(temperature=settings.temperature)
        prompts = [data.prompts[i] for i in numbers]
        answers = data.write(self.run.model, prompts, sampling=sampling, seeds=seeds)
        parts = data.rewards.each(
            [answer.text for answer in answers], [data.train[i] for i in numbers]
        )  # (P · G, functions)
        rewards = (parts @ np.array(data.rewards.weights)).reshape(-1, settings.group)  # (P, G)
        worth = advantages(rewards, settings.divide_by_std).reshape(-1)
        rows = [row_of(prompt, answer.ids) for prompt, answer in zip(prompts, answers)]
        found = self.ask(self.run.outputs(partial(drawn_log_probs, temperature=settings.temperature)), rows)
        old, entropies = [pair[0] for pair in found], [pair[1] for pair in found]
        references = self.reference(rows) if settings.kl else [np.empty(0)] * len(rows)
        self.dtype, self.used = old[0].dtype.name, 0
        self.rollouts = [
            Rollout(number, answer.ids, answer.ended, *(part.tolist() for part in of_tokens))
            for number, answer, *of_tokens in zip(numbers, answers, worth, old, references)
        ]
        data.drawn = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(axis=1).mean()),
            "equal_groups": float((np.ptp(rewards, axis=1) == 0).mean()),
            "entropy": float(np.concatenate(entropies).mean()),
            **shape(answers),
        }
        if len(data.rewards.functions) > 1:
            names = [f"reward_{name}" for name in data.rewards.names]
            data.drawn |= dict(zip(names, parts.mean(axis=0).tolist()))

    def reference(self, rows: list[Row]) -> list[Array]:
        """ln π_ref of each answer's ids: of a copy of the model as it was at the start, or, where adapters are what
        learns, of the model without them."""
        options = {"temperature": self.settings.temperature}
        if self.frozen is not None:
            return self.ask(self.run.outputs(partial(frozen_log_probs, frozen=self.frozen, **options)), rows)
        with without_adapters(self.run.model):
            return self.ask(self.run.outputs(partial(token_log_probs, **options)), rows)

    def ask(self, forward: Callable[..., Array], rows: list[Row]) -> list[Any]:
        """What `forward(ids, targets)` (B, ..., T) gives at the places of each answer, `batch_size` rows at a time."""
        found = []
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            ids, targets = self.padded(part)
            found += [array[..., goal != IGNORE] for array, goal in zip(forward(ids, targets), targets)]
        return found

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        rows = [row_of(self.data.prompts[r.prompt], r.answer) for r in rollouts]
        ids, targets = self.padded(rows)
        worth = np.array([r.advantage for r in rollouts], dtype=self.dtype)
        batch = [ids, targets, worth, self.at_answers(targets, [r.old for r in rollouts])]
        if self.settings.kl:
            batch.append(self.at_answers(targets, [r.reference for r in rollouts]))
        if self.settings.mask_cut:
            targets[[not r.ended for r in rollouts]] = IGNORE
        return tuple(batch)

    def padded(self, rows: Sequence[Row]) -> tuple[Array, ...]:
        return collate(rows, self.data.template.stop_ids[0])

    def at_answers(self, targets: Array, values: Sequence[list[float]]) -> Array:
        """(B, T), with the values of each row where its targets are, 0 elsewhere."""
        found = np.zeros(targets.shape, dtype=self.dtype)
        for row, goal, own in zip(found, targets, values):
            row[goal != IGNORE] = own
        return found

    def state_dict(self) -> dict[str, Any]:
        """The exact position as JSON values: which prompts come next, and the answers not yet learned from."""
        done = self.used == len(self.rollouts) * self.settings.inner_epochs
        return {
            "prompts": self.prompts.state_dict(),
            "grpo": asdict(self.settings),
            "used": 0 if done else self.used,
            "dtype": self.dtype,
            "rollouts": [] if done else [asdict(rollout) for rollout in self.rollouts],
            "drawn": dict(self.data.drawn),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Raises ValueError where the seed, the prompts or the settings are not the saved."""
        mine = self.state_dict()
        if missing := sorted(mine.keys() - state.keys()):
            raise ValueError(f"the saved data position lacks {', '.join(missing)}: it was not saved by a GRPO run.")
        for name, value in mine["grpo"].items():
            if state["grpo"].get(name) != value:
                raise ValueError(
                    f"cannot resume the run where it stopped: {name} was {state['grpo'].get(name)!r} and is {value!r} "
                    "now. Resume with the same settings, or start a new run from the saved weights."
                )
        rollouts, used, dtype = state["rollouts"], state["used"], state["dtype"]
        last = self.settings.rows * self.settings.inner_epochs if rollouts else 0
        good = fits(rollouts, list[dict[str, Any]]) and len(rollouts) in (0, self.settings.rows)
        good = good and all(self.is_rollout(rollout) for rollout in rollouts) and dtype in ("float32", "float64")
        if not (good and fits(used, int) and 0 <= used <= last and fits(state["drawn"], dict[str, float])):
            raise ValueError("the saved answers are damaged: start a new run from the saved weights.")
        if used % self.batch_size:
            raise ValueError(
                f"the run stopped after {used} of {last} answers, which are no whole batches of batch_size = "
                f"{self.batch_size}: resume with the batch_size that it had."
            )
        self.prompts.load_state_dict(state["prompts"])
        self.rollouts, self.used, self.dtype = [Rollout(**r) for r in rollouts], used, dtype
        self.data.drawn = dict(state["drawn"])

    def is_rollout(self, saved: dict[str, Any]) -> bool:
        """Whether a saved object is an answer to one of these prompts."""
        kinds = {"prompt": int, "answer": list[int], "ended": bool, "advantage": float, "old": list[float],
                 "reference": list[float]}  # fmt: skip
        if saved.keys() != kinds.keys() or not all(fits(saved[name], kind) for name, kind in kinds.items()):
            return False
        answer, n_ids = saved["answer"], self.run.model.config.vocab_size
        lengths = (len(saved["old"]), len(saved["reference"]))
        known = 0 <= saved["prompt"] < len(self.data.train) and all(0 <= token < n_ids for token in answer)
        return known and len(answer) > 0 and lengths == (len(answer), len(answer) if self.settings.kl else 0)


# --- what is asked of a model -----------------------------------------------------------------------------------------


def frozen_copy(model: Any) -> Any:
    """The model as it is now, which learns no more."""
    frozen = copy.deepcopy(model)
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    frozen.eval()
    return frozen


def frozen_log_probs(model: Any, ids: Any, targets: Any, frozen: Any, temperature: float) -> AnyTensor:
    """`token_log_probs` of the frozen model in the place of the one that an engine brings."""
    return token_log_probs(frozen, ids, targets, temperature)


def drawn_log_probs(model: Any, ids: Any, targets: Any, temperature: float) -> AnyTensor:
    """(B, 2, T): the log-probability of each target, and the entropy −Σ p ln p of all ids that might have stood there,
    in nats."""
    h = features(model, ids, temperature)  # (B, T, D)
    log_probs = -model.loss(h, targets, reduction="none")  # (B, T)
    every = ops.log_softmax(model.logits(h))  # (B, T, V)
    return ops.stack([log_probs, -(every.exp() * every).sum(-1)], dim=1)


def row_of(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """(ids (T,), targets (T,)): the answer's ids are the targets, nothing is asked of the prompt's."""
    return shifted([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))
