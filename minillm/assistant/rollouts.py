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
from ..data import ExampleBatcher, Prompt, fingerprint, pad
from ..data.batches import epoch_key, permute
from ..disk.records import fits
from ..engines.blas import limit_blas_threads
from ..engines.protocol import Batch, Engine
from ..finetune.data import TaskEvaluation
from ..finetune.lora import adapters, without_adapters
from ..finetune.objectives import Row, about, check_length
from ..finetune.predict import in_batches
from ..generate import Sampling, generate, known_ids
from ..ops import AnyTensor
from ..settings import IGNORE, TrainConfig
from ..tokenizers import Tokenizer
from .conversations import ChatTemplate
from .grpo import GRPOConfig, advantages, features, token_log_probs
from .rewards import Rewards

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


class RolloutData:
    """Prompts to answer, and the rewards for it: `train` to learn from, `val` to choose the checkpoint with. Goes with
    `GRPOLoss`, in one process, on either engine.

    Raises `Misfit` for a prompt that the template cannot take.
    """

    def __init__(
        self,
        template: ChatTemplate,
        train: Sequence[Prompt],
        val: Sequence[Prompt],
        rewards: Rewards,
        settings: GRPOConfig,
    ) -> None:
        if not train or not val:
            raise ValueError(
                f"there must be prompts to train on and to validate with, not {len(train)} and {len(val)}."
            )
        self.template, self.rewards, self.settings = template, rewards, settings
        self.train, self.val = list(train), list(val)
        self.prompts = [prompt_ids(template, prompt) for prompt in train]
        self.val_prompts = [prompt_ids(template, prompt) for prompt in val]
        self.drawn: dict[str, float] = {}  # gauges of the last batch of rollouts

    def check(self, model_config: Any, tokenizer: Tokenizer | None) -> None:
        """Raise ValueError unless the model can be given these prompts, with room for the longest answer."""
        ours = self.template.tokenizer
        if ours.vocab_size > model_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {ours.vocab_size} ids, the model {model_config.vocab_size}: they do not belong "
                "together."
            )
        longest = self.settings.max_new_tokens
        for prompt, ids in zip([*self.train, *self.val], [*self.prompts, *self.val_prompts]):
            with about(prompt):
                what = f"the prompt and an answer of up to {longest} tokens (max_new_tokens) have"
                check_length(what, len(ids) + longest - 1, model_config.context)  # of the last id nothing is asked

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
        rows = [(np.array(ids),) for ids in self.val_prompts]
        work = partial(greedy_answers, run.model, self.template, self.settings.max_new_tokens)
        answers = in_batches(rows, self.settings.rows, work, False)
        reward = float(self.rewards([text_of(self.template, ids) for ids in answers], self.val).mean())
        figures = {"reward": reward, **self.shape(answers)}
        return TaskEvaluation(-reward, figures, "reward")

    def shape(self, answers: Sequence[list[int]]) -> dict[str, float]:
        ended = [has_ended(self.template, ids) for ids in answers]
        return {"response_length": float(np.mean([len(ids) for ids in answers])), "ended": float(np.mean(ended))}


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
        answers = write(self.run.model, data.template, prompts, settings.max_new_tokens, sampling, seeds)
        texts = [text_of(data.template, ids) for ids in answers]
        parts = data.rewards.each(texts, [data.train[i] for i in numbers])  # (P · G, functions)
        rewards = (parts @ np.array(data.rewards.weights)).reshape(-1, settings.group)  # (P, G)
        worth = advantages(rewards, settings.divide_by_std).reshape(-1)
        rows = [row_of(prompt, answer) for prompt, answer in zip(prompts, answers)]
        found = self.ask(self.run.outputs(partial(drawn_log_probs, temperature=settings.temperature)), rows)
        old, entropies = [pair[0] for pair in found], [pair[1] for pair in found]
        references = self.reference(rows) if settings.kl else [np.empty(0)] * len(rows)
        self.dtype, self.used = old[0].dtype.name, 0
        self.rollouts = [
            Rollout(number, answer, has_ended(data.template, answer), *map(plain, (advantage, before, reference)))
            for number, answer, advantage, before, reference in zip(numbers, answers, worth, old, references)
        ]
        data.drawn = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(axis=1).mean()),
            "equal_groups": float((np.ptp(rewards, axis=1) == 0).mean()),
            "entropy": float(np.concatenate(entropies).mean()),
            **data.shape(answers),
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
            ids, targets = padded(part)
            found += [array[..., goal != IGNORE] for array, goal in zip(forward(ids, targets), targets)]
        return found

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        rows = [row_of(self.data.prompts[r.prompt], r.answer) for r in rollouts]
        ids, targets = padded(rows)
        worth = np.array([r.advantage for r in rollouts], dtype=self.dtype)
        batch = [ids, targets, worth, self.at_answers(targets, [r.old for r in rollouts])]
        if self.settings.kl:
            batch.append(self.at_answers(targets, [r.reference for r in rollouts]))
        if self.settings.mask_cut:
            targets[[not r.ended for r in rollouts]] = IGNORE
        return tuple(batch)

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


# --- answers and rows -------------------------------------------------------------------------------------------------


def prompt_ids(template: ChatTemplate, prompt: Prompt) -> list[int]:
    with about(prompt):
        return template.prompt(prompt.messages)


def write(
    model: Any,
    template: ChatTemplate,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seeds: Sequence[tuple[int, ...]] | None,
) -> list[list[int]]:
    """The ids of an answer to each prompt, with the one that ends it if it came to one, all drawn together."""
    with limit_blas_threads(1):  # a step's products are so small that more threads would wait for each other
        return generate(
            model,
            prompts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop_ids=template.stop_ids,
            keep_stop_id=True,
            seed=seeds,
            allowed=known_ids(template.tokenizer),
        )


def greedy_answers(model: Any, template: ChatTemplate, max_new_tokens: int, rows: list[Row]) -> list[list[int]]:
    return write(model, template, [row[0].tolist() for row in rows], max_new_tokens, Sampling(temperature=0), None)


def has_ended(template: ChatTemplate, answer: Sequence[int]) -> bool:
    return answer[-1] in template.stop_ids


def text_of(template: ChatTemplate, answer: Sequence[int]) -> str:
    """What an answer says, without what ends it and other special tokens."""
    return template.tokenizer.decode(answer, skip_special_tokens=True)


def row_of(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """(ids (T,), targets (T,)): the answer's ids are the targets, nothing is asked of the prompt's."""
    ids = np.array([*prompt, *answer], dtype=np.int64)
    return ids[:-1], np.where(np.arange(1, len(ids)) < len(prompt), IGNORE, ids[1:])


def padded(rows: Sequence[Row]) -> tuple[Array, Array]:
    """ids (B, T), targets (B, T), filled up on the right, where no token that counts looks."""
    return pad([ids for ids, _ in rows], 0)[0], pad([targets for _, targets in rows], IGNORE)[0]


def plain(value: Any) -> Any:
    """A number or an array as JSON has them."""
    return value.tolist()
