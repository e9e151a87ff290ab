"""Pretraining from files: a corpus, a tokenizer and a configuration become a run folder with a trained model."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..costs.sizes import duration, n_parameters, training_flops
from ..data import TokenDataset, corpus_folder, load_report, pack_split, split_file
from ..disk import check_free, remove_folder, write_text
from ..engines.choose import engine_class, process_rank
from ..engines.limits import products_per_second
from ..engines.profile import Profile, check_profile
from ..engines.protocol import Engine, Model
from ..models import DECODERS, GPTConfig, ModelConfig, config_class, config_to_dict, model_from_config
from ..models.sketch import sketch
from ..settings import NEEDS_TORCH, EngineConfig, TrainConfig
from ..tokenizers import load_tokenizer
from ..tokenizers.base import Tokenizer
from ..tokenizers.extend import with_special_tokens
from .checkpoint import CheckpointError
from .config_file import ConfigError, Sections, build, nearest, read_toml, to_toml
from .log_sinks import check_sinks
from .memory import check_memory
from .objectives import PACK, Objective, PackedNextToken, loss_for, objective_for
from .protocol import TrainResult
from .run_folder import MAY_CHANGE, check_no_run, check_saves, run_in
from .shapes import same_size, sections_of_size
from .text import TextData
from .train import train

CONFIG_FILE = "config.toml"
PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    corpus: str = ""  # folder made by `minillm corpus`
    tokenizer: str = ""  # tokenizer.json made by `minillm tokenizer train`
    tokens: str = ""  # folder for the token files, where the corpus folder can't be written; empty: the corpus folder
    start: str = ""  # weights to begin with: a run, a checkpoint folder or a name on the hub; empty: new ones
    verify: bool = True  # compare token files and corpus with their checksums, at some GB/s; false: sizes only
    pack_documents: bool = False  # true: of the documents in a row, none sees another; false: each sees those before it


SECTIONS: dict[str, Any] = {"data": DataConfig, "model": GPTConfig, "train": TrainConfig, "engine": EngineConfig}
REACHED = 0.4  # of the speed of large matrix products, by a whole training step on NumPy
LARGE = 100_000_000  # parameters from which on a model's first weights are drawn on the device that will train them


@dataclass(frozen=True)
class PretrainConfig:
    """The four sections of a config file. What [model] leaves out is the default of its kind; the tokenizer gives the
    vocab_size."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    engine: EngineConfig

    def save(self, path: str | Path) -> None:
        """Write a TOML file that makes this run again."""
        sections = {"data": self.data, "model": self.model, "train": self.train, "engine": self.engine}
        kinds = {"model": {"model_type": self.model.model_type}}
        write_text(path, to_toml("The configuration of this run, defaults included.", sections, kinds))


def read_config(name: str | Path) -> Sections:
    """The sections of a TOML file, given by its path or, for one that comes with minillm, by its name."""
    preset = PRESETS / f"{name}.toml"
    if not Path(name).exists() and preset.exists():
        return read_toml(preset, SECTIONS)
    if not Path(name).exists() and Path(name).suffix != ".toml":
        suggestion = nearest(str(name), preset_names())
        raise ConfigError(f"no config file {name}, and none of that name comes along. {suggestion}")
    return read_toml(name, SECTIONS)


def preset_names() -> list[str]:
    """The names of the config files that come with minillm."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def sections_for(name: str | Path, asked: Sections) -> Sections:
    """The sections of a config file, its model turned into one of the kind that is asked for, where that is another:
    with about as many parameters (shapes.py)."""
    sections = read_config(name)
    model, changes = dict(sections.get("model", {})), dict(asked.get("model", {}))
    own = model.pop("model_type", "gpt")
    kind = changes.pop("model_type", own)
    if kind == own:
        return sections
    known = model_config_class(own).__dataclass_fields__.keys() & model_config_class(kind).__dataclass_fields__.keys()
    model |= {key: value for key, value in changes.items() if key in known}
    vocab_size = vocabulary_of({**sections.get("data", {}), **asked.get("data", {})})
    reference = build(model_config_class(own), {"vocab_size": vocab_size, **model}, "[model]")
    sections["model"] = same_size(kind, reference, changes)
    return sections


def sized_sections(parameters: int, asked: Sections) -> Sections:
    """Sections for a model of about so many parameters, of the kind that is asked for, trained as suits its size
    (shapes.py). Raises ConfigError where that cannot be."""
    changes = dict(asked.get("model", {}))
    kind = changes.pop("model_type", "gpt")
    vocab_size = changes.get("vocab_size") or vocabulary_of(asked.get("data", {}))
    sections = sections_of_size(parameters, vocab_size, changes)
    if kind != "gpt":
        model_config_class(kind)
        sections["model"] = same_size(kind, GPTConfig(**sections["model"], vocab_size=vocab_size), changes)
    return sections


def vocabulary_of(data: dict[str, Any]) -> int:
    """How many tokens the tokenizer of a [data] section has. Raises ConfigError where it names none, and as
    `load_tokenizer`."""
    return load_tokenizer(required(data.get("tokenizer", ""), "tokenizer")).vocab_size


def required(path: str, key: str) -> str:
    """The path that [data] must name. Raises ConfigError where it does not."""
    if not path:
        raise ConfigError(f'[data]: {key} is not set: give --{key} PATH, or {key} = "PATH" in the config file.')
    return path


def build_config(sections: Sections, tokenizer: Tokenizer | None = None) -> tuple[PretrainConfig, Tokenizer]:
    """Check all sections and make their dataclasses; the tokenizer is loaded, since the model needs its vocab_size,
    unless it is given.

    It gets the special tokens that the model's training needs and it lacks ([MASK] and [PAD] for BERT). Raises
    ConfigError, naming section, key and value, and what `load_tokenizer` raises.
    """
    data = build(DataConfig, sections.get("data", {}), "[data]")
    required(data.corpus, "corpus")
    train_config = build(TrainConfig, sections.get("train", {}), "[train]")
    tokenizer = tokenizer or load_tokenizer(required(data.tokenizer, "tokenizer"))
    engine = build(EngineConfig, sections.get("engine", {}), "[engine]")
    section = dict(sections.get("model", {}))
    cls = model_config_class(section.pop("model_type", "gpt"))
    context = build(cls, {"vocab_size": tokenizer.vocab_size, **section}, "[model]").context
    kind = objective_for(cls().task)  # a kind of model is pretrained to do what it does unless told otherwise
    tokenizer = with_special_tokens(tokenizer, kind.special_tokens(context))
    objective = kind.for_tokenizer(tokenizer.vocab_size, tokenizer.special_tokens, context)
    check_settings(section, objective)
    model = build(cls, {**objective.model_settings, **section}, "[model]")
    if data.pack_documents:
        check_packing(model, tokenizer)
    return PretrainConfig(data, model, train_config, engine), tokenizer


def model_config_class(model_type: Any) -> Any:
    """The config class for the model_type of a [model] section."""
    try:
        cls = config_class(model_type)
    except ValueError as error:
        raise ConfigError(f"[model]: {error}") from None
    if cls.task == "classification":
        names = " or ".join(DECODERS)
        raise ConfigError(f"[model]: a {model_type} is made of a pretrained decoder; pretrain that: {names}.")
    return cls


def check_settings(section: dict[str, Any], objective: Objective) -> None:
    """Raise ConfigError for a [model] section that cannot be trained to do what the objective asks."""
    for key, needed in objective.model_settings.items():
        given = section.get(key, needed)
        if key == "vocab_size" and given < needed:
            raise ConfigError(
                f"[model]: vocab_size = {given} is too small for the tokenizer and the special tokens that this "
                f"training needs: leave it out, or set it to {needed} or more."
            )
        if key != "vocab_size" and given != needed:
            raise ConfigError(f"[model]: {key} must be {needed!r} for pretraining, not {given!r}: leave it out.")


def check_packing(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where documents cannot be kept apart: the tokenizer or the model does not tell them apart."""
    setting = f"[data]: {PACK} = true keeps the documents of a row apart"
    if config.task != "causal" or config.model_type == "lstm":
        why = "reads its text as one" if config.task != "causal" else "hands its state from one document to the next"
        raise ConfigError(
            f"{setting}, and a model of model_type = {config.model_type!r} {why}: leave {PACK} out, or take gpt or "
            "llama."
        )
    if tokenizer.eos_id is None:
        raise ConfigError(
            f"{setting}, and this tokenizer has no {tokenizer.end_of_text} to end one with, so that nobody can see "
            f"where the next begins: train a tokenizer that has it (minillm tokenizer train, without --special), or "
            f"leave {PACK} out."
        )


def model_objective(config: ModelConfig, tokenizer: Tokenizer, pack_documents: bool = False) -> Objective:
    """What `pretrain` trains a model of this config to do. The tokenizer is the one saved with it. Raises as
    `check_packing`."""
    if pack_documents:
        check_packing(config, tokenizer)
        assert tokenizer.eos_id is not None
        return PackedNextToken(tokenizer.vocab_size, tokenizer.eos_id)
    kind = objective_for(config.task)
    return kind.for_tokenizer(tokenizer.vocab_size, tokenizer.special_tokens, config.context)


def packed(data: DataConfig, split: str, tokenizer: Tokenizer, *, progress: bool = False) -> TokenDataset:
    """The token file of one split of a corpus; made now, unless this tokenizer has packed this very text before.

    It lies in the corpus folder or in `data.tokens`, under the tokenizer's fingerprint. Several processes may ask for
    it at once: one packs, the others wait. Raises FileNotFoundError for no corpus there, ValueError for a split that
    it doesn't have, and as `pack_split` does.
    """
    folder = token_file(data, split, tokenizer).parent
    return pack_split(split_file(data.corpus, split), tokenizer, folder, verify=data.verify, progress=progress)


def token_file(data: DataConfig, split: str, tokenizer: Tokenizer) -> Path:
    """Where `packed` keeps the tokens of a split. Raises FileNotFoundError where there is no corpus."""
    report, corpus = load_report(data.corpus), corpus_folder(data.corpus)
    name = f"tokens-{tokenizer.fingerprint()}"
    folder = Path(data.tokens, f"{name}-{report.fingerprint}") if data.tokens else corpus / name
    return folder / f"{split_file(data.corpus, split).stem}.bin"


def pretrain(
    sections: Sections,
    out_dir: str | Path,
    *,
    engine: Callable[..., Engine] | None = None,
    start: tuple[Model, Tokenizer] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    profile: bool = False,
    log_to: Collection[str] = (),
    progress: bool = True,
) -> TrainResult:
    """Train the model that `sections` describe in the run folder `out_dir`, in which the configuration is echoed.

    `start`: a model to take the weights of, and its tokenizer; the sections then describe that model (`begin_with`).
    `overwrite`: an earlier run in the folder gives way, as soon as all that can be wrong has been looked at.
    `engine` is that of section [engine] if None. Under torchrun every process calls this with the same arguments.
    With `resume`, `out_dir` holds an interrupted run: see `resumed_sections`. What does not fit into the memory is
    refused, unless `force`. `profile`: a few steps are watched (engines/profile.py); `log_to`: what shows the log
    besides (log_sinks.py). Raises as `build_config` and `train` do.
    """
    out_dir = Path(out_dir)
    progress = progress and process_rank() == 0
    check_folder(out_dir, resume, overwrite)  # before anything takes time
    check_sinks(log_to)
    config, tokenizer = build_config(sections, None if start is None else start[1])
    if config.data.start and start is None and not resume:
        raise ConfigError(
            f"[data]: start = {config.data.start!r} names weights to begin with, which only `minillm pretrain` opens."
        )
    if profile:
        check_profile(config.engine)
    if engine is None:
        engine = engine_class(config.engine)
        check_attention(config)
    train_data = packed(config.data, "train", tokenizer, progress=progress)
    val_data = packed(config.data, "val", tokenizer, progress=progress) if holds_out(config) else None
    if not force:
        check_memory(config.model, config.train, config.engine)
    if start is None:
        model = model_from_config(config.model, initial_weights(config))
    else:
        model = model_from_config(config.model, np.random.default_rng(config.train.seed))
        model.load_state_dict(start[0].state_dict())
    if progress:
        print(summary(config, train_data, val_data))
    if overwrite and not resume:
        make_room(out_dir)
    objective = model_objective(config.model, tokenizer, config.data.pack_documents)
    if config.data.pack_documents:
        engine = partial(engine, loss=loss_for(objective, config.train.label_smoothing))
    watch = Profile(out_dir, config.engine) if profile and process_rank() == 0 else None
    try:
        return train(
            model,
            TextData(train_data, val_data, objective),
            config.train,
            out_dir,
            engine=engine,
            tokenizer=tokenizer,
            resume=resume,
            verify=config.data.verify,
            before_first_step=partial(config.save, out_dir / CONFIG_FILE),
            before_step=None if watch is None else watch.before_step,
            log_to=log_to,
            progress=progress,
        )
    finally:
        if watch is not None:
            watch.close()


def holds_out(config: PretrainConfig) -> bool:
    """Whether the corpus has text to evaluate on. Raises ConfigError where it has none and the run would stop by it."""
    if "val" in load_report(config.data.corpus).splits:
        return True
    if config.train.patience:
        raise ConfigError(
            f"[train]: patience = {config.train.patience} stops the run by its evaluations, and {config.data.corpus} "
            "holds no text out to evaluate on: set train.patience=0, or build the corpus with --val-fraction above 0."
        )
    return False


def check_folder(out_dir: Path, resume: bool, overwrite: bool) -> None:
    """Raise FileExistsError for a folder that a run may not be written to."""
    if resume:
        check_saves(out_dir)
    elif overwrite:
        check_free(out_dir, "run")
    else:
        check_no_run(out_dir, " or replace it (--overwrite),")


def make_room(out_dir: Path) -> None:
    """Remove an earlier run. Under torchrun the first process does, and the others wait."""
    if process_rank() == 0 and out_dir.exists():
        remove_folder(out_dir, "run")
    deadline = time.monotonic() + 60
    while run_in(out_dir) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def check_attention(config: PretrainConfig) -> None:
    """Raise ConfigError, before anything is written, for an attention that cannot run on this engine and machine."""
    wanted = getattr(config.model, "attention", "auto")
    if config.engine.name == "numpy" and wanted in NEEDS_TORCH:
        raise ConfigError(f"[model]: attention = {wanted!r} runs on PyTorch: give --engine torch, or --attention auto.")
    if wanted == "triton":
        from ..engines.torch_machine import attention_unavailable_reason

        reason = attention_unavailable_reason(config.model, config.engine)
        if reason is not None:
            raise ConfigError(
                f"[model]: attention = 'triton' cannot run here: {reason.replace('impl=', 'attention=')}."
            )


def initial_weights(config: PretrainConfig) -> np.random.Generator:
    """The generator to build the model with: the seed's; for a large model on torch a sketch (see port.py)."""
    if config.engine.name == "torch" and n_parameters(config.model) >= LARGE:
        return sketch(config.train.seed)
    return np.random.default_rng(config.train.seed)


def resumed_sections(out_dir: str | Path) -> Sections:
    """The sections of the run in `out_dir`, as it was configured. Raises CheckpointError where there is none."""
    path = Path(out_dir) / CONFIG_FILE
    if not path.exists():
        raise CheckpointError(f"there is no run to resume in {out_dir}: it has no {CONFIG_FILE}.")
    sections = read_toml(path, SECTIONS)
    if sections.get("data", {}).get("start"):  # whose tokenizer may be elsewhere by now: the checkpoint has it, too
        sections["data"]["tokenizer"] = str((run_in(Path(out_dir)) or Path(out_dir)).resolve())
    return sections


def begin_with(asked: Sections, train: dict[str, Any], name: str, config: ModelConfig) -> Sections:
    """The sections of a run that goes on from the weights of a model of this `config`, by its `name`, with the
    settings `train` and what else is asked for. Raises ConfigError for settings that would make it another model."""
    model, changes = config_to_dict(config), dict(asked.get("model", {}))
    for key, value in changes.items():
        if key not in MAY_CHANGE and model.get(key) != value:
            raise ConfigError(
                f"[model]: {key} = {value!r} is not as {name} has it ({model.get(key, 'no such setting')!r}): its "
                f"weights need the model as it is, but for {' and '.join(MAY_CHANGE)}."
            )
    kept = {key: value for key, value in model.items() if value is not None and key != "attention"}
    data = {**asked.get("data", {}), "start": name}
    return {
        **asked,
        "data": data,
        "model": {**kept, **changes},
        "train": {**train, **asked.get("train", {})},
    }


def summary(config: PretrainConfig, train_data: TokenDataset, val_data: TokenDataset | None) -> str:
    """What is about to be trained, in four lines."""
    t = config.train
    n_tokens = t.batch_size * t.grad_accumulation * config.model.context
    length = f"{t.max_steps:,} steps" if t.max_steps else f"{t.max_seconds:,.0f} seconds"
    if t.max_steps and not t.max_seconds and config.engine.name == "numpy":
        operations = training_flops(config.model, config.model.context) * n_tokens * t.max_steps
        hours = operations / (REACHED * products_per_second()) / 3600
        length += f", about {duration(hours)} at the speed that this machine has now"
    apart = ", each document by itself" if config.data.pack_documents else ""
    validation = "none: the corpus holds no text out, so nothing is evaluated, and there is no best checkpoint"
    if val_data is not None:
        validation = f"{len(val_data):,} tokens ({val_data.n_bytes / 1e6:.2f} MB)"
    return (
        f"model      {config.model.model_type} with {n_parameters(config.model):,} parameters, "
        f"{config.model.n_layers} layers, context {config.model.context}\n"
        f"train      {len(train_data):,} tokens ({train_data.n_bytes / 1e6:.2f} MB of text){apart}\n"
        f"validation {validation}\n"
        f"run        {n_tokens:,} tokens in each step and process; {length}"
    )
