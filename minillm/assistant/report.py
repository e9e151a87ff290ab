"""What a run came to: a table of what its answers are worth, with the model it began with and simple baselines beside
it, and report.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..data import Chat, Prompt
from ..data.tasks import dialogue, verifiable
from ..finetune.report import MODEL, Report, learning_curve
from ..training.run_log import read_metrics
from .answers import Answer, write_answers
from .config import AssistantConfig
from .conversations import ChatTemplate
from .rewards import Rewards
from .rows import prompt_of
from .splits import DIALOGUE, Splits

CURES = "Fewer epochs, lora, weight decay or more conversations may help."
MAIN = {DIALOGUE: "slots", "": "chrf"}  # built-in task -> what counts in the end; of the others: reward


def answer_all(
    model: Any, template: ChatTemplate, examples: Sequence[Chat | Prompt], config: AssistantConfig, progress: bool
) -> list[Answer]:
    """The model's greedy answer to each chat, in the place of its last turn, or prompt."""
    context, system = model.config.context, config.chat.system
    prompts = [prompt_of(template, example, context, system) for example in examples]
    return write_answers(model, template, prompts, max_new_tokens=config.chat.max_new_tokens, progress=progress)


def score(task: str, examples: Sequence[Any], texts: Sequence[str], rewards: Rewards | None = None) -> dict[str, float]:
    """What answers are worth: the mean of `rewards`, if there are some; of dialogues the share of slots that are right,
    and of answers in which all are; of the verifiable tasks the reward; of the user's own chats their likeness to the
    answers that stand there."""
    if rewards is not None:
        return {"reward": float(rewards(texts, examples).mean())}
    pairs = list(zip(texts, examples))
    if task == DIALOGUE:
        slots = [dialogue.slot_accuracy(text, chat) for text, chat in pairs]
        return {"slots": float(np.mean(slots)), "success": float(np.mean([value == 1 for value in slots]))}
    if task:
        return {"reward": float(np.mean([verifiable.reward(text, record_of(example)) for text, example in pairs]))}
    truth = [example.messages[-1]["content"] for example in examples]
    exact = float(np.mean(metrics.exact_match(texts, truth)))
    return {"chrf": metrics.chrf(texts, truth), "exact_match": exact}


def record_of(example: Chat | Prompt) -> dict[str, Any]:
    """What a verifiable task is judged by; of a chat, whose last turn is the right answer, made anew."""
    if isinstance(example, Prompt):
        return example.record
    asked, answer = (example.messages[i]["content"] for i in (-2, -1))
    return {"kind": example.where, "prompt": asked, "answer": answer}


def measured(
    task: str, examples: Sequence[Any], answers: Sequence[Answer], rewards: Rewards | None = None
) -> dict[str, float]:
    """`score`, and how many answers ended by themselves, after how many tokens on average."""
    shape = {
        "ended": float(np.mean([answer.ended for answer in answers])),
        "tokens": float(np.mean([len(answer.ids) for answer in answers])),
    }
    return {**score(task, examples, [answer.text for answer in answers], rewards), **shape}


def make_report(
    splits: Splits,
    answers: dict[str, dict[str, list[Answer]]],
    more: dict[str, dict[str, float]],
    run: Path,
    rewards: Rewards | None = None,
) -> Report:
    """`answers`: who (MODEL, the start, the teacher) -> split -> answers. `more`: split -> further figures of the
    model, as of preferences. `rewards`: of grpo."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    simple = splits.baselines()
    for split, examples in splits.answered.items():
        found = {who: measured(splits.task, examples, given[split], rewards) for who, given in answers.items()}
        found[MODEL] |= more.get(split, {})
        by = {who: given[split] for who, given in simple.items() if split in given}
        found |= {who: score(splits.task, examples, texts, rewards) for who, texts in by.items()}
        scores[split] = found
    main = "reward" if rewards is not None else MAIN.get(splits.task, "reward")
    intervals = {}
    for split, examples in splits.answered.items():
        texts = [answer.text for answer in answers[MODEL][split]]
        if main != "chrf":  # which is no mean over answers
            each = [score(splits.task, [e], [text], rewards)[main] for e, text in zip(examples, texts)]
            interval = metrics.bootstrap(each)
            intervals[split] = [interval.low, interval.high]
    sizes = {split: len(examples) for split, examples in splits.answered.items()}
    learning = learning_curve(run, CURES) if rewards is None else reward_curve(run)
    return Report(splits.task or "chat", main, sizes, scores, intervals, [], {}, learning)


def reward_curve(run: Path) -> str:
    """What became of the rewards of a grpo run, whose loss says nothing: a sentence with what to do."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if isinstance(row.get("val_reward"), float)]
    if len(rows) < 2:
        return ""
    first, end, best = rows[0], rows[-1], max(rows, key=lambda row: row["val_reward"])
    seen = f"{first['val_reward']:.3f} at step {first['step']:,}, {end['val_reward']:.3f} at step {end['step']:,}"
    if best is first:
        idle = "if groups in metrics.jsonl have equal_groups near 1, their prompts are too easy or too hard"
        return f"The reward on the validation prompts did not rise ({seen}): {idle}; else try another learning rate."
    if best is end:
        return f"The reward on the validation prompts was still rising ({seen}): more steps may help."
    top = f"best {best['val_reward']:.3f} at step {best['step']:,}"
    return f"The reward on the validation prompts rose and came to rest ({seen}, {top}): the best checkpoint is kept."


def pairs_report(splits: Splits, figures: dict[str, dict[str, float]], run: Path) -> Report:
    """The report of a reward model, which answers nothing: what it thinks of pairs of answers."""
    sizes = {split: len(splits.examples[split]) for split in figures}
    scores = {split: {MODEL: found} for split, found in figures.items()}
    return Report(splits.task or "chat", "accuracy", sizes, scores, {}, [], {}, learning_curve(run, CURES))
