"""What the training of an assistant is told: the sections of its TOML file.

[chat]         which conversations, and how they are written out
[start]        the model to begin with: one that is pretrained, or a new one with a tokenizer of its own
[model]        the shape of a new one
[method]       which of its weights learn, and how
[preference]   of dpo and reward: the loss of two answers, one better than the other
[grpo]         of grpo: what is rewarded, and how
[distill]      of distill: the teacher, and what is learned from it
[train]        as in pretraining
[engine]       as in pretraining
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..disk import write_text
from ..finetune.config import MethodConfig, StartConfig
from ..models import LlamaConfig, ModelConfig
from ..settings import EngineConfig, TrainConfig
from ..training import config_file
from ..training.config_file import ConfigError, Sections, build, to_toml
from .distill import DistillConfig
from .grpo import GRPOConfig
from .preferences import PreferenceConfig

CONFIG_FILE = "assistant.toml"
RECIPES = Path(__file__).parent / "recipes"
STAGES = ("sft", "reward", "dpo", "grpo", "distill")


@dataclass(frozen=True)
class ChatConfig:
    """The conversations. Without `data` they are the built-in ones."""

    kind: Literal["sft", "reward", "dpo", "grpo", "distill"] = "sft"  # what is done with them
    data: str = ""  # file to train on: chats, preferences (reward, dpo) or prompts (grpo); empty: the built-in task
    val: str = ""  # file to choose the checkpoint with; empty: a part of data
    test: str = ""  # file to measure the result on; empty: a part of data
    builtin: Literal["dialogue", "verifiable", "arithmetic", "sorting", "slots", "code"] = "dialogue"  # the task
    template: str = ""  # chatml, or a file in Jinja; empty: the model's own, and chatml for one that has none
    system: str = ""  # what the assistant is told before each conversation that has no system message
    train_on: Literal["assistant", "last", "all"] = "assistant"  # whose words are learned; last: the last answer alone
    pack: bool = False  # several conversations in a row, which do not see each other (sft)
    epochs: float = 0.0  # passes over the training examples; 0: train.max_steps instead
    metric: str = "loss"  # that decides which checkpoint is the best: loss; accuracy, margin; reward; kl, agreement
    limit: int = 0  # train on this many examples only; 0: all
    val_limit: int = 0  # look at this many validation examples only; 0: all
    skip_bad: bool = False  # leave out examples that cannot be read or do not fit, and count them
    max_new_tokens: int = 200  # the longest answer that is written when the result is measured
    seed: int = 0  # of the split, and of built-in examples

    def __post_init__(self) -> None:
        for name in ("epochs", "limit", "val_limit", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more.")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens = {self.max_new_tokens} must be at least 1.")
        if (self.val or self.test) and not self.data:
            raise ValueError("--val and --test go with --data: the built-in task has examples of its own for both.")
        if self.pack and self.kind != "sft":
            raise ValueError(f"pack = true puts conversations of sft into one row: {self.kind} has none of its own.")


SECTIONS: dict[str, Any] = {
    "chat": ChatConfig, "start": StartConfig, "model": LlamaConfig, "method": MethodConfig,
    "preference": PreferenceConfig, "grpo": GRPOConfig, "distill": DistillConfig, "train": TrainConfig,
    "engine": EngineConfig,
}  # fmt: skip
METRICS = {  # kind -> what can decide which checkpoint is the best; of grpo the loss is minus the reward
    "sft": ("loss",), "reward": ("loss", "accuracy", "margin"), "dpo": ("loss", "accuracy", "margin"),
    "grpo": ("loss", "reward"), "distill": ("loss", "kl", "cross_entropy", "agreement"),
}  # fmt: skip
OF_STAGE = {"preference": ("reward", "dpo"), "grpo": ("grpo",), "distill": ("distill",)}  # section -> whose it is


@dataclass(frozen=True)
class AssistantConfig:
    """All sections. `model` is a dictionary still: what it leaves out depends on the kind of model and tokenizer."""

    chat: ChatConfig
    start: StartConfig
    method: MethodConfig
    preference: PreferenceConfig
    grpo: GRPOConfig
    distill: DistillConfig
    train: TrainConfig
    engine: EngineConfig
    model: dict[str, Any]

    def save(self, path: str | Path, shape: ModelConfig | None = None) -> None:
        """Write a TOML file that makes this run again; `shape`: of the new model."""
        sections: dict[str, Any] = {"chat": self.chat, "start": self.start, "method": self.method}
        kinds = {}
        if shape is not None:
            sections["model"], kinds["model"] = shape, {"model_type": shape.model_type}
        for name, stages in OF_STAGE.items():
            if self.chat.kind in stages:
                sections[name] = getattr(self, name)
        sections |= {"train": self.train, "engine": self.engine}
        write_text(path, to_toml("The configuration of this run, defaults included.", sections, kinds))


def build_config(sections: Sections) -> AssistantConfig:
    """Check all sections and make their dataclasses. Paths become absolute, so that a run may be resumed from
    elsewhere. Raises ConfigError, naming section, key and value."""
    made = {name: build(cls, sections.get(name, {}), f"[{name}]") for name, cls in SECTIONS.items() if name != "model"}
    config = AssistantConfig(**made, model=dict(sections.get("model", {})))
    chat = config.chat
    for section, stages in OF_STAGE.items():
        if sections.get(section) and chat.kind not in stages:
            raise ConfigError(f"[{section}] is for {' and '.join(stages)}, not for {chat.kind}: leave it out.")
    paths: dict[str, Any] = {
        name: str(Path(getattr(chat, name)).resolve()) for name in ("data", "val", "test") if getattr(chat, name)
    }
    if chat.template not in ("", "chatml"):
        paths["template"] = str(Path(chat.template).resolve())
    config = replace(config, chat=replace(chat, **paths), start=resolved(config.start, "model"))
    config = replace(config, distill=resolved(config.distill, "teacher"))
    check_sections(config)
    return config


def resolved(section: Any, key: str) -> Any:
    """The section with the folder that `key` names as an absolute path, where there is one of that name."""
    name = getattr(section, key)
    return replace(section, **{key: str(Path(name).resolve())}) if name and Path(name).exists() else section


def check_sections(config: AssistantConfig) -> None:
    """Raise ConfigError for sections that do not go together."""
    kind, start, method = config.chat.kind, config.start, config.method
    known = METRICS["sft" if kind == "distill" and config.distill.method == "sequence" else kind]
    if config.chat.metric not in known:
        raise ConfigError(f"[chat]: metric = {config.chat.metric!r} is none of {kind}: it has {', '.join(known)}.")
    if not start.model and kind not in ("sft", "distill"):
        raise ConfigError(f"{kind} goes on with a model that answers already: give its folder or name with --model.")
    if start.model and config.model:
        raise ConfigError(f"[model] is the shape of a new model, and {start.model} is one that is there: keep one.")
    if not start.model and method.name != "full":
        raise ConfigError(f"method {method.name!r} changes a pretrained model: give its folder or name with --model.")
    if method.name == "head":
        raise ConfigError("[method]: name = 'head' trains a classifier's head: an assistant learns by full or lora.")
    if method.name == "qlora" and config.engine.name != "torch":
        raise ConfigError("[method]: qlora's 4-bit weights are PyTorch's: give --engine torch, or --method lora.")
    if kind == "reward" and config.preference.loss != PreferenceConfig.loss:
        raise ConfigError(f"[preference]: loss = {config.preference.loss!r} is of dpo; reward has Bradley and Terry's.")
    if kind == "distill" and start.model and config.distill.layers:
        raise ConfigError(
            f"[distill]: layers = {config.distill.layers!r} is how a new student begins, and --model {start.model} is "
            "there already: give --set distill.layers= with it."
        )
    if kind == "distill" and not config.distill.teacher:
        raise ConfigError("distill learns from a teacher: give its folder or name with --teacher.")
    if kind != "grpo" and not config.chat.data and config.chat.builtin != "dialogue" and kind != "sft":
        raise ConfigError(
            f"[chat]: builtin = {config.chat.builtin!r} is a task of sft and grpo; {kind} has 'dialogue'."
        )


def recipe_names() -> list[str]:
    """The names of the recipes that come with minillm."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def is_recipe(name: str | Path) -> bool:
    """Whether it is one of these recipes, or a file with a [chat] section."""
    path = Path(name) if Path(name).exists() else RECIPES / f"{name}.toml"
    return (
        path.is_file()
        and re.search(r"^\s*\[chat\]", path.read_text(encoding="utf-8", errors="replace"), re.M) is not None
    )


def read_recipe(name: str | Path) -> Sections:
    """The sections of a TOML file, given by its path or, for one that comes with minillm, by its name."""
    return config_file.read_recipe(name, RECIPES, SECTIONS)
