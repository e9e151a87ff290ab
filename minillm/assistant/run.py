"""A run: conversations, a model to begin with and a way to learn become a folder with an assistant.

    splits = read_splits(config.chat)
    start = ChatStart(model, template)             # any decoder of ours on NumPy, from hub.assistants.open_chat_start
    train_assistant(config, splits, start, "runs/assistant")

The folder is a run's as pretraining leaves it (best/, last/, metrics.jsonl), with assistant.toml and report.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.tasks import verifiable
from ..engines.choose import process_rank
from ..engines.protocol import Loss, PackedLoss
from ..finetune.freeze import count_line, trainable_parameters
from ..finetune.heads import with_classifier
from ..finetune.run import (
    apply_method,
    describe,
    drop_misfits,
    engine_for,
    padding,
    reshaped,
    steps_for,
    take_best,
    with_weights,
)
from ..generate import Sampling
from ..models import model_from_config
from ..tokenizers import BPETokenizer, CharTokenizer, Tokenizer
from ..tokenizers.base import END_OF_TEXT
from ..tokenizers.extend import with_special_tokens
from ..training.config_file import ConfigError, build
from ..training.pretrain import model_config_class
from ..training.protocol import TrainResult
from ..training.train import train
from .config import CONFIG_FILE, AssistantConfig
from .conversations import CHATML_TOKENS, ChatTemplate
from .data import ChatData, Packs
from .distill import DistillLoss, check_teacher
from .distill_data import OnPolicyData, write_chats
from .grpo import GRPOLoss
from .pairs import Pairs, PreferenceData
from .preferences import PreferenceLoss
from .reward import RewardData, RewardLoss, ScoredPairs
from .rewards import Reward, Rewards, load_reward
from .rollouts import Prompts, RolloutData
from .rows import Conversations
from .splits import DIALOGUE, Splits, dialogue_reward

CONTEXT = 512  # tokens, of a new model whose [model] does not say; no more than its teacher's
NEW_ROWS = ("token_embedding", "head")  # what learns whole where tokens were added
REFERENCE_FILE = "reference.safetensors"


@dataclass
class ChatStart:
    """A NumPy model to begin with, and the template that its conversations are written by. `name`: where they came
    from; `merged`: from adapters, so that no file has these weights; `added`: whether tokens of the template are new to
    it; `system`: what it was told when it was trained. What it learns from, besides: `teacher`, of distill, and
    `rewards`, of grpo, if not those that [grpo] names."""

    model: Any
    template: ChatTemplate
    name: str = ""
    merged: bool = False
    added: bool = False
    weights: str = ""  # their fingerprint
    system: str = ""
    teacher: ChatStart | None = None
    rewards: Rewards | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    @property
    def kept(self) -> Any:
        """What is saved beside the weights, as a tokenizer is: one with its template."""
        return self.template


@dataclass
class Prepared:
    """What `train` is given: a model, examples, and a loss if it is not the model's own."""

    model: Any
    data: Any  # what `train` takes, with the examples to train on as `train`
    loss: Loss | None = None


def fresh(config: AssistantConfig, splits: Splits, teacher: ChatStart | None = None) -> ChatStart:
    """A new model of the shape in [model] for its teacher's tokenizer, or one made from the training conversations,
    with ChatML. Raises ConfigError."""
    if teacher is not None and config.distill.layers:
        if config.model:
            raise ConfigError(
                f"[distill]: layers = {config.distill.layers!r} gives a student its teacher's shape: leave [model] "
                "out, or give --set distill.layers= for a new one."
            )
        return ChatStart(some_layers(teacher.model, config.distill.layers), teacher.template)
    if teacher is not None:
        longest = min(CONTEXT, teacher.model.config.context)  # what the teacher, too, can read
        return ChatStart(new_model(config, teacher.tokenizer, longest), teacher.template)
    said = [turn["content"] for chat in splits.examples["train"] for turn in chat.messages]
    words = [*said, "system\nuser\nassistant\n", config.chat.system]
    if config.start.tokenizer == "char":
        made: Tokenizer = CharTokenizer.train(words, unk_token="<unk>")
    elif config.start.tokenizer == "bpe":
        made = BPETokenizer.train(words, config.start.vocab_size)
    else:
        raise ConfigError("[start]: tokenizer = 'wordpiece' is BERT's: an assistant takes 'char' or 'bpe'.")
    made = with_special_tokens(made, [END_OF_TEXT, *CHATML_TOKENS])
    return ChatStart(new_model(config, made), ChatTemplate.chatml(made))


def new_model(config: AssistantConfig, tokenizer: Tokenizer, context: int = CONTEXT) -> Any:
    """A model of the shape in [model] for this tokenizer; `context`: where [model] does not say."""
    section = {"context": context, **config.model}
    cls = model_config_class(section.pop("model_type", "llama"))
    if cls.task != "causal":
        raise ConfigError(
            f"[model]: model_type = {cls.model_type!r} cannot hold a conversation: take llama, gpt, lstm."
        )
    shape = build(cls, {"vocab_size": tokenizer.vocab_size, **section}, "[model]")
    return model_from_config(shape, np.random.default_rng(config.train.seed))


def some_layers(teacher: Any, layers: str) -> Any:
    """A new model of these layers of a teacher ("0,1,3"), with their weights and those around them: what DistilBERT
    began as (Sanh et al. 2019, arXiv 1910.01108, section 3). Raises ConfigError for layers that are not there."""
    config, kept = teacher.config, [int(number) for number in layers.split(",")]
    if max(kept) >= config.n_layers or sorted(set(kept)) != kept:
        raise ConfigError(
            f"[distill]: layers = {layers!r} must be some of the teacher's {config.n_layers} layers, 0 to "
            f"{config.n_layers - 1}, in their order. Give others with --set distill.layers=, or none for a new student."
        )
    changes: dict[str, Any] = {"n_layers": len(kept)}
    if getattr(config, "full_layers", ()):  # where others have a window
        changes["full_layers"] = tuple(new for new, old in enumerate(kept) if old in config.full_layers)
    student = model_from_config(replace(config, **changes), np.random.default_rng(0))
    weights = teacher.state_dict()
    own = {
        name: weights[re.sub(r"(?<=\.)\d+(?=\.)", lambda number: str(kept[int(number[0])]), name, count=1)]
        for name in student.state_dict()
    }
    student.load_state_dict(own)
    return student


# --- what each way to learn makes of model and examples ---------------------------------------------------------------


def fitting(config: AssistantConfig, splits: Splits, objective: Any) -> dict[str, Any]:
    """The examples as ChatData takes them, without those that do not fit into the model, if these may be left out.
    Raises ValueError where that leaves none."""
    if config.chat.skip_bad:
        left_out = drop_misfits(splits.examples, objective.encode)
        splits.notes += left_out
        for name in ("train", "val"):
            if not splits.examples[name]:
                raise ValueError(
                    f"nothing is left for {name}: {next(note for note in left_out if f'in {name} ' in note)}"
                )
    examples = splits.examples
    tests = {name: rows for name, rows in examples.items() if name not in ("train", "val")}
    return {"train": examples["train"], "val": examples["val"], "metric": config.chat.metric, "tests": tests}


def prepare_sft(config: AssistantConfig, splits: Splits, start: ChatStart, out_dir: Path) -> Prepared:
    objective = Conversations(start.template, start.model.config.context, config.chat.train_on, config.chat.system)
    given = fitting(config, splits, objective)
    if not config.chat.pack:
        return Prepared(start.model, ChatData(objective, **given))
    packs = Packs(objective)
    n_chats = len(given["train"])
    given |= {name: packs.packed(given[name]) for name in ("train", "val")}
    given["tests"] = {name: packs.packed(chats) for name, chats in given["tests"].items()}
    splits.notes.append(f"{n_chats:,} conversations to train on, packed into {len(given['train']):,} rows.")
    return Prepared(start.model, ChatData(packs, **given), PackedLoss(config.train.label_smoothing))


def prepare_reward(config: AssistantConfig, splits: Splits, start: ChatStart, out_dir: Path) -> Prepared:
    model, context, system = start.model, start.model.config.context, config.chat.system
    model = with_reward_head(model, start.tokenizer, config.train.seed)
    given = fitting(config, splits, ScoredPairs(start.template, context, system, pad_id=model.config.pad_id))
    data = RewardData(template=start.template, context=context, pad_id=model.config.pad_id, system=system, **given)
    return Prepared(model, data, RewardLoss(config.preference.center))


def with_reward_head(model: Any, tokenizer: Tokenizer, seed: int) -> Any:
    """The model with a head of one number in the place of that for tokens, drawn by the seed."""
    return with_classifier(model, "regression", (), padding(model, tokenizer), np.random.default_rng([seed, 1]))


def prepare_dpo(config: AssistantConfig, splits: Splits, start: ChatStart, out_dir: Path) -> Prepared:
    context, system = start.model.config.context, config.chat.system
    data = PreferenceData(
        config.preference,
        start.template,
        context=context,
        reference_file=out_dir / REFERENCE_FILE,
        system=system,
        **fitting(config, splits, Pairs(start.template, context, system)),
    )
    return Prepared(start.model, data, PreferenceLoss(config.preference))


def prepare_grpo(config: AssistantConfig, splits: Splits, start: ChatStart, out_dir: Path) -> Prepared:
    rewards = start.rewards or rewards_for(config, splits.task)
    objective = Prompts(start.template, start.model.config.context, config.grpo.max_new_tokens, config.chat.system)
    given = fitting(config, splits, objective)
    data = RolloutData(objective, given["train"], given["val"], rewards, config.grpo)
    return Prepared(start.model, data, GRPOLoss(config.grpo))


def rewards_for(config: AssistantConfig, task: str, opened: Callable[[str], Reward] = load_reward) -> Rewards:
    """The functions that [grpo] names, each as `opened` gives it, or that of the built-in task. Raises ValueError."""
    places = [place.strip() for place in config.grpo.reward.split(",") if place.strip()]
    if places:
        return Rewards([opened(place) for place in places])
    if not task:
        raise ConfigError("grpo needs a reward for prompts of your own: --reward FILE.py:function, or a reward run.")
    return Rewards([dialogue_reward if task == DIALOGUE else verifiable.reward])


def prepare_distill(config: AssistantConfig, splits: Splits, start: ChatStart, out_dir: Path) -> Prepared:
    """The teacher speaks of each token, or writes the answers that are learned from then."""
    teacher, distill, chat = start.teacher, config.distill, config.chat
    assert teacher is not None
    if distill.method == "sequence":
        train_chats, left_out = write_chats(
            teacher.model, teacher.template, splits.examples["train"], max_new_tokens=distill.max_new_tokens,
            sampling=Sampling(temperature=distill.sampling_temperature), seed=config.train.seed, system=chat.system,
        )  # fmt: skip
        splits.notes.append(f"the teacher answered {len(train_chats):,} chats, and {left_out:,} not to the end.")
        splits.examples["train"] = train_chats
        return prepare_sft(config, splits, start, out_dir)
    models = (teacher.model.config, teacher.tokenizer, start.model.config, start.tokenizer)
    check_teacher(*models, distill.method)
    loss = DistillLoss(teacher.model, distill)
    objective = Conversations(start.template, start.model.config.context, chat.train_on, chat.system)
    given = fitting(config, splits, objective)
    if distill.method == "on-policy":
        return Prepared(start.model, OnPolicyData(objective, settings=distill, **given), loss)
    return Prepared(start.model, ChatData(objective, **given), loss)


PREPARE: dict[str, Callable[[AssistantConfig, Splits, ChatStart, Path], Prepared]] = {
    "sft": prepare_sft, "reward": prepare_reward, "dpo": prepare_dpo, "grpo": prepare_grpo, "distill": prepare_distill,
}  # fmt: skip


def check_speaks(model: Any, name: str = "") -> None:
    """Raise ValueError for a model that cannot answer: one that labels or fills in, a reward model among them."""
    config = model.config
    if config.task != "causal":
        what = f"a {config.model_type} for {config.task!r}"
        if getattr(config, "problem_type", "") == "regression":
            what = "a model that judges texts by a number, as a reward run does,"
        raise ValueError(
            f"{name or 'this model'} is {what} and holds no conversation: take a gpt, llama or lstm that writes."
        )


def train_assistant(
    config: AssistantConfig,
    splits: Splits,
    start: ChatStart,
    out_dir: str | Path,
    *,
    resume: bool = False,
    on_best: Callable[[Any], None] | None = None,
    progress: bool = True,
) -> tuple[TrainResult, dict[str, dict[str, float]]]:
    """Train the model that `start` holds on `splits`, in the run folder `out_dir`; afterwards `result.engine.model` has
    the weights of the best evaluation. Also gives what the loss and its figures are on each test split, where it has
    some. Raises as `train` does, and ValueError for what does not go together."""
    out_dir, progress = Path(out_dir), progress and process_rank() == 0
    check_speaks(start.model, start.name)
    config = with_weights(config, start, out_dir)
    shape = start.model.config if not config.start.model else None
    start = replace(start, model=reshaped(start.model, config.method, config.train.seed))
    n_notes = len(splits.notes)
    prepared = PREPARE[config.chat.kind](config, splits, start, out_dir)
    model = prepared.model
    apply_method(model, config.method, config.train.seed, NEW_ROWS if start.added else ())
    settings = steps_for(config.train, config.chat.epochs, len(prepared.data.train))
    if progress:
        for note in splits.notes[n_notes:]:
            print(f"note       {note}")
        print(f"model      {describe(model, start.name)}; {count_line(model)}")
    only = set(trainable_parameters(model)) if config.method.name in ("lora", "qlora") else None
    result = train(
        model,
        prepared.data,
        settings,
        out_dir,
        engine=engine_for(config.method, config.engine, prepared.loss),
        tokenizer=start.kept,
        resume=resume,
        before_first_step=partial(config.save, out_dir / CONFIG_FILE, shape),
        on_best=on_best,
        only=only,
        progress=progress,
    )
    take_best(result, out_dir)
    measured = isinstance(prepared.data, ChatData) and result.reason != "interrupted"
    return result, prepared.data.figures(result.engine, settings.batch_size) if measured else {}
