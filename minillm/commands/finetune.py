"""`minillm finetune`: train a model for a task, or to be an assistant (assistant.py), from a pretrained one or a new
one, and measure it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from ..assistant.config import SECTIONS as ASSISTANT
from ..assistant.config import STAGES, is_recipe
from ..assistant.config import recipe_names as assistant_recipes
from ..data import Labelled, Pair, back_translate
from ..engines.choose import process_rank
from ..finetune.config import (
    CONFIG_FILE,
    KINDS,
    SECTIONS,
    FinetuneConfig,
    build_config,
    read_recipe,
    recipe_names,
)
from ..finetune.objectives import Misfit
from ..finetune.predict import predict
from ..finetune.report import REPORT_FILE, Report, baseline_lines, make_report
from ..finetune.run import Start, finetune, fresh
from ..finetune.splits import Splits, read_splits
from ..hub.adapters import save_adapter
from ..hub.configs import is_native, read_config
from ..hub.finetuned import open_finetuned, open_start
from ..hub.places import CONFIG, find_folder
from ..settings import EngineConfig
from ..training.checkpoint import CheckpointError
from ..training.config_file import ConfigError, Sections, describe, read_toml
from ..training.protocol import TrainResult
from ..training.run_folder import check_no_run
from . import assistant
from .options import changed_by, choices, program, typed_text

SHORT = {  # options that set one key of the configuration -> its section and name
    "model": ("start", "model"), "data": ("task", "data"), "val": ("task", "val"), "test": ("task", "test"),
    "text": ("task", "text"), "label": ("task", "label"), "source": ("task", "source"), "target": ("task", "target"),
    "metric": ("task", "metric"), "epochs": ("task", "epochs"), "method": ("method", "name"),
    "engine": ("engine", "name"), "skip_bad": ("task", "skip_bad"), "cut": ("task", "cut"),
    "multi_label": ("task", "multi_label"),
}  # fmt: skip


OF_ASSISTANTS = ("teacher", "reward", "loss", "template", "system", "pack")  # options that only assistants have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    introduction = "The configuration is read from --config, then changed by the options. Sections, keys and defaults:"
    parser.epilog = f"{introduction}\n\n{all_keys()}"
    kinds = f"the task: {', '.join(KINDS)}; or a step to an assistant: {', '.join(STAGES)}"
    parser.add_argument("kind", choices=(*KINDS, *STAGES), metavar="KIND", nargs="?", help=kinds)
    parser.add_argument(
        "--model", metavar="MODEL", help="folder of a run or checkpoint, or hub name; default: a new one"
    )
    parser.add_argument("--data", metavar="FILE", help=".csv, .tsv, .jsonl or .json; default: the built-in task")
    parser.add_argument("--teacher", metavar="MODEL", help="of distill: the model to learn from")
    parser.add_argument("--reward", metavar="FILE.py:NAME", help="of grpo: the function that rewards, or a reward run")
    parser.add_argument("--loss", choices=choices(ASSISTANT["preference"], "loss"), help="of dpo: which loss of pairs")
    parser.add_argument("--template", metavar="FILE", help="of chats: chatml, or a file in Jinja; default: the model's")
    system = "of chats: what the assistant is told before each"
    parser.add_argument("--system", metavar="TEXT", type=typed_text, help=system)
    parser.add_argument("--pack", action="store_true", help="of sft: several chats in a row, apart from each other")
    parser.add_argument("--val", metavar="FILE", help="validation examples; default: a tenth of the data")
    parser.add_argument("--test", metavar="FILE", help="test examples; default: a tenth of the data")
    for name in ("text", "label", "source", "target"):
        column = f"column with the {name}, if it has an unusual name"
        parser.add_argument(f"--{name}", metavar="COLUMN", type=typed_text, help=column)
    parser.add_argument("--multi-label", action="store_true", help="an example may have several labels")
    parser.add_argument("--method", choices=choices(SECTIONS["method"], "name"), help="which weights learn")
    parser.add_argument("--metric", help="that decides which checkpoint is the best: loss, accuracy, f1_macro, ...")
    parser.add_argument("--epochs", type=float, help="passes over the training examples")
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad examples, and count them")
    parser.add_argument("--cut", action="store_true", help="cut the ends of texts that are too long to be classified")
    parser.add_argument("--engine", choices=choices(EngineConfig, "name"), help="what computes")
    recipes = ", ".join([*recipe_names(), *assistant_recipes()])
    parser.add_argument("--config", metavar="FILE", help=f"TOML file, or a recipe that comes with minillm: {recipes}")
    parser.add_argument("--out", default="runs/finetune", metavar="FOLDER", help="run folder to make, or to resume")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder, as it was configured")
    key = "change one key; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=key)


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if makes_assistant(arguments):
        return assistant.run(arguments)
    for option in OF_ASSISTANTS:
        if getattr(arguments, option):
            raise ConfigError(f"--{option} belongs to {', '.join(STAGES)}: leave it out.")
    if not arguments.resume:
        check_no_run(out)  # before anything takes time
    config = build_config(sections_of(arguments))
    speaks = process_rank() == 0  # under torchrun the first process speaks for all
    result, report = run_once(config, out, resume=arguments.resume, progress=speaks)
    if not speaks:
        return 0
    print(f"{result.reason} at step {result.state.step:,} after {result.state.seconds:,.0f} s")
    if report is None:
        print(f"to go on: {program()} finetune --resume --out {quote(str(out))}")
        return 128 + (result.signal or 0)
    adapter = ", adapter" if (out / "adapter").exists() else ""
    print(f"\n{report}\n\nwrote {out}: best, last{adapter}, {CONFIG_FILE}, {REPORT_FILE}, metrics.jsonl")
    print(f"to use it: {program()} predict {quote(str(out))} --data FILE --out FILE")
    return 0


def makes_assistant(arguments: argparse.Namespace) -> bool:
    """Whether it is a step to an assistant that is asked for: by its name, by a recipe, or by the run to resume."""
    if arguments.kind:
        return arguments.kind in STAGES
    if arguments.resume:
        return (Path(arguments.out) / assistant.CONFIG_FILE).exists()
    return bool(arguments.config) and is_recipe(arguments.config)


def run_once(
    config: FinetuneConfig, out: Path, *, resume: bool = False, progress: bool = True
) -> tuple[TrainResult, Report | None]:
    """One run, from the examples to its report, which is written beside it; no report if it was interrupted."""
    splits = read_splits(config.task, config.train.seed)
    if config.task.back_translate:
        add_back_translations(splits, config.task.back_translate, progress)
    if progress:
        print(splits)
        print(baseline_lines(splits))
    start = open_start(config.start.model) if config.start.model else fresh(config, splits)
    result, objective = finetune(
        config, splits, start, out, resume=resume, on_best=partial(export, config, out, start), progress=progress
    )
    if result.signal is not None or process_rank() > 0:
        return result, None
    if config.task.keep == "last":
        export(config, out, start, result.engine)
    answers = {
        split: predict(result.engine.model, objective, examples, n_beams=config.task.beams, progress=progress)
        for split, examples in splits.tests.items()
    }
    report = make_report(splits, answers, run=out)
    report.save(out / REPORT_FILE)
    return result, report


def add_back_translations(splits: Splits, runs: str, progress: bool) -> None:
    """A second example beside each to train on: its text, or its source, translated by one run and back by the other,
    where that comes back as another text."""
    names = [name.strip() for name in runs.split(",")]
    if len(names) != 2:
        raise ConfigError(f"[task]: back_translate = {runs!r} must be two runs, one there and one back: RUN,RUN.")
    train = splits.examples["train"]
    part = "text" if isinstance(train[0], Labelled) else "source"
    translators = []
    for name in names:
        model, objective, _ = open_finetuned(name)
        translators.append(partial(translated, model, objective, progress))
    texts = [getattr(example, part) for example in train]
    new = back_translate(texts, *translators)
    added = [replace(e, **{part: text}) for e, old, text in zip(train, texts, new) if text != old]
    splits.examples["train"] = [*train, *added]
    splits.notes.append(f"{len(added):,} of {len(train):,} training texts came back from {runs} in other words: added.")


def translated(model: Any, objective: Any, progress: bool, texts: Sequence[str]) -> list[str]:
    """A translation of each text; "" of one that does not fit into the translator, which then stays as it is."""
    fitting = {}
    for place, text in enumerate(texts):
        with contextlib.suppress(Misfit):
            objective.inputs(Pair(text, ""))
            fitting[place] = Pair(text, "")
    answers = iter(predict(model, objective, list(fitting.values()), progress=progress))
    return [next(answers).value if place in fitting else "" for place in range(len(texts))]


def export(config: FinetuneConfig, out: Path, start: Start, engine: Any) -> None:
    """The adapter in PEFT's format, beside the new best checkpoint; none where the model got another head than the one
    it began with, and is in minillm's own format, in which PEFT could not open it, or where it began with adapters."""
    if config.method.name in ("lora", "qlora") and not start.merged:
        own = is_native(read_config(find_folder(start.name, only=CONFIG)))
        if not own or engine.model.config.task == start.model.config.task:
            save_adapter(engine.model, out / "adapter", start.name, tokenizer=start.tokenizer)


def sections_of(arguments: argparse.Namespace) -> Sections:
    """The configuration that the command line asks for: the run's own or a recipe's, changed by the options."""
    if arguments.resume:
        if arguments.config or arguments.kind or arguments.model or arguments.data:
            raise ConfigError(
                f"--resume goes on with the configuration of the run, {arguments.out}/{CONFIG_FILE}: leave the task, "
                "--config, --model and --data out, or change single keys with --set."
            )
        path = Path(arguments.out) / CONFIG_FILE
        if not path.exists():
            raise CheckpointError(
                f"there is no run to resume in {arguments.out}: it has neither {CONFIG_FILE} nor "
                f"{assistant.CONFIG_FILE}."
            )
        sections = read_toml(path, SECTIONS)
    else:
        if not arguments.kind and not arguments.config:
            known = ", ".join((*KINDS, *STAGES))
            raise ConfigError(f"which task? One of {known}, as in: minillm finetune classify --data FILE.")
        pretrained = "-pretrained" if arguments.model else ""
        sections = read_recipe(arguments.config or f"{arguments.kind}{pretrained}")
    return changed_by(arguments, sections, "task", SHORT, SECTIONS)


def all_keys() -> str:
    """Every section and key of a fine-tuning configuration, with defaults and comments."""
    lines = []
    for section, cls in {**SECTIONS, **ASSISTANT}.items():
        if section == "model":
            lines.append("  [model]: the shape of a new model, as in `minillm pretrain --help`")
            continue
        if section == "chat":
            lines.append(f"\n  in the place of [task], for {', '.join(STAGES)}:\n")
        for name, default, comment in describe(cls):
            lines.append(f"  {f'{section}.{name} = {default!r}':38} {comment}".rstrip())
    return "\n".join(lines)
