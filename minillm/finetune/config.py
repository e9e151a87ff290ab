"""What a fine-tuning run is told: the sections of its TOML file.

[task]      which examples, and what is asked of the model
[start]     the model to begin with: one that is pretrained, or a new one with a tokenizer of its own
[model]     the shape of a new one
[method]    which of its weights learn, and how
[train]     as in pretraining
[engine]    as in pretraining
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..disk import write_text
from ..models import EncoderDecoderConfig, ModelConfig
from ..settings import EngineConfig, TrainConfig
from ..training import config_file
from ..training.config_file import ConfigError, Sections, build, to_toml

CONFIG_FILE = "finetune.toml"
RECIPES = Path(__file__).parent / "recipes"
KINDS = ("classify", "regress", "translate", "summarize", "code")


@dataclass(frozen=True)
class TaskConfig:
    """The examples. Without `data` they are the built-in ones of this kind of task."""

    kind: Literal["classify", "regress", "translate", "summarize", "code"] = "classify"
    data: str = ""  # file to train on: .csv, .tsv, .jsonl or .json; empty: the built-in task
    val: str = ""  # file to choose the checkpoint with; empty: a part of data
    test: str = ""  # file to measure the result on; empty: a part of data
    builtin: str = ""  # sentiment, transfer, translation, code, summarization or docstrings; empty: the kind's own
    language: str = "en"  # of built-in sentiment: en or zh
    text: str = ""  # column; empty: found by its usual names, as the three below
    label: str = ""  # column
    source: str = ""  # column
    target: str = ""  # column
    multi_label: bool = False  # an example may have several labels, or none
    separator: str = ","  # between several labels in a column
    prompt: str = "{source}\n"  # what a decoder is asked
    center: float = 0.0  # of regress: a number y is learned as (y - center) / scale, and given back as y
    scale: float = 0.0  # 0: center and scale are the training numbers' mean and standard deviation, or the model's own
    metric: str = "loss"  # that decides which checkpoint is the best, on the validation examples
    epochs: float = 0.0  # passes over the training examples, each followed by an evaluation; 0: train.max_steps instead
    keep: Literal["best", "last"] = "best"  # the weights that a run ends with: of the best evaluation, or the last step
    limit: int = 0  # train on this many examples only; 0: all
    skip_bad: bool = False  # leave out examples that cannot be read or do not fit, and count them
    cut: bool = False  # cut off the ends of texts that are too long to be classified
    beams: int = 1  # hypotheses kept while writing; 1: greedy
    seed: int = 0  # of the split, and of built-in examples
    drop_words: float = 0.0  # augmentation: the share of words that is left out, anew in each epoch
    swap_words: float = 0.0  # augmentation: the share of words that changes places with the next
    back_translate: str = ""  # augmentation: two translation runs, RUN,RUN: each text there and back, beside itself
    synonyms: str = ""  # augmentation: a .tsv file of words that may stand for each other

    def __post_init__(self) -> None:
        for name in ("drop_words", "swap_words"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1: a share of the words.")
        if not (math.isfinite(self.center) and 0 <= self.scale < math.inf):
            raise ValueError(f"center = {self.center} and scale = {self.scale} must be finite, scale 0 or more.")
        for name in ("epochs", "limit", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more.")
        if self.beams < 1:
            raise ValueError(f"beams = {self.beams} must be at least 1.")
        if (self.val or self.test) and not self.data:
            raise ValueError("--val and --test go with --data: the built-in task has examples of its own for both.")
        if "{source}" not in self.prompt:
            raise ValueError(f"prompt = {self.prompt!r} must hold {{source}}, where the source goes.")


@dataclass(frozen=True)
class StartConfig:
    """The model to begin with."""

    model: str = (
        ""  # folder (a run, a checkpoint of either format, an adapter) or hub name; empty: a new one, as [model]
    )
    tokenizer: Literal["char", "bpe", "wordpiece"] = "char"  # of a new one, trained on the examples
    vocab_size: int = 1000  # of a bpe or wordpiece tokenizer
    weights: str = ""  # fingerprint of its weights, noted by a run of lora, whose adapters fit no others


@dataclass(frozen=True)
class MethodConfig:
    """Which weights learn."""

    name: Literal["full", "head", "lora", "qlora"] = (
        "full"  # all; a new head alone; adapters; adapters on 4-bit weights
    )
    rank: int = 8  # of lora
    alpha: float = 16.0  # of lora: how much an adapter counts
    dropout: float = 0.0  # of lora, on the adapters' input
    targets: str = ""  # of lora: layers to adapt, by name or pattern, with commas, or all-linear; empty: attention's
    rslora: bool = False  # lora's scale alpha / √rank in place of alpha / rank
    quantize: Literal["nf4", "int8"] = "nf4"  # of qlora: the frozen weights
    model_dropout: float = -1.0  # dropout in the model; -1: as it was made
    new_layers: int = 0  # layers added on top, which begin by changing nothing
    renew_layers: int = 0  # top layers drawn anew
    layer_decay: float = 1.0  # learning rate of each layer as a part of that above; 1: all alike
    unfreeze_every: int = 0  # steps after which one more layer learns, from the head down; 0: all from the start

    def __post_init__(self) -> None:
        if self.model_dropout != -1 and not 0 <= self.model_dropout < 1:
            raise ValueError(f"model_dropout = {self.model_dropout} must be -1, or at least 0 and below 1.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay = {self.layer_decay} must be above 0 and at most 1.")
        if self.unfreeze_every < 0:
            raise ValueError(f"unfreeze_every = {self.unfreeze_every} must be 0 or more steps.")


SECTIONS: dict[str, Any] = {
    "task": TaskConfig, "start": StartConfig, "model": EncoderDecoderConfig, "method": MethodConfig,
    "train": TrainConfig, "engine": EngineConfig,
}  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig:
    """All sections. `model` is a dictionary still: what it leaves out depends on the kind of model and tokenizer."""

    task: TaskConfig
    start: StartConfig
    method: MethodConfig
    train: TrainConfig
    engine: EngineConfig
    model: dict[str, Any]

    def save(self, path: str | Path, shape: ModelConfig | None = None) -> None:
        """Write a TOML file that makes this run again; `shape`: of the new model."""
        sections: dict[str, Any] = {"task": self.task, "start": self.start, "method": self.method}
        kinds = {}
        if shape is not None:
            sections["model"], kinds["model"] = shape, {"model_type": shape.model_type}
        sections |= {"train": self.train, "engine": self.engine}
        write_text(path, to_toml("The configuration of this run, defaults included.", sections, kinds))


def build_config(sections: Sections) -> FinetuneConfig:
    """Check all sections and make their dataclasses. Paths become absolute, so that a run may be resumed from
    elsewhere. Raises ConfigError, naming section, key and value."""
    made = {name: build(cls, sections.get(name, {}), f"[{name}]") for name, cls in SECTIONS.items() if name != "model"}
    config = FinetuneConfig(**made, model=dict(sections.get("model", {})))
    task = config.task
    paths: dict[str, Any] = {
        n: str(Path(getattr(task, n)).resolve()) for n in ("data", "val", "test", "synonyms") if getattr(task, n)
    }
    start = config.start
    if start.model and Path(start.model).exists():
        start = replace(start, model=str(Path(start.model).resolve()))
    config = replace(config, task=replace(task, **paths), start=start)
    check_method(config)
    return config


def check_method(config: FinetuneConfig) -> None:
    """Raise ConfigError for sections that do not go together."""
    method, start, task = config.method, config.start, config.task
    classes = task.kind in ("classify", "regress")
    for key in ("source", "target") if classes else ("text", "label", "multi_label"):
        if getattr(task, key):
            raise ConfigError(f"[task]: {key} = {getattr(task, key)!r} has no meaning for {task.kind}: leave it out.")
    if not start.model and method.name != "full":
        raise ConfigError(f"method {method.name!r} changes a pretrained model: give its folder or name with --model.")
    if start.model and config.model:
        raise ConfigError(f"[model] is the shape of a new model, and {start.model} is one that is there: keep one.")
    if method.name == "qlora" and config.engine.name != "torch":
        raise ConfigError("[method]: qlora's 4-bit weights are PyTorch's: give --engine torch, or --method lora.")
    if method.name == "head" and not classes:
        raise ConfigError(f"[method]: head trains a classifier's new head; {task.kind} has none: use full or lora.")
    if method.unfreeze_every and method.name != "full":
        raise ConfigError(
            f"[method]: unfreeze_every goes with name = 'full', not {method.name!r}, which freezes for good."
        )


def recipe_names() -> list[str]:
    """The names of the recipes that come with minillm."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_recipe(name: str | Path) -> Sections:
    """The sections of a TOML file, given by its path or, for one that comes with minillm, by its name."""
    return config_file.read_recipe(name, RECIPES, SECTIONS)
