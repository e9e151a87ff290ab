"""`minillm finetune sft|reward|dpo|grpo|distill`: from a base model to an assistant, and measure it."""

from __future__ import annotations

import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from ..assistant.answers import Answer
from ..assistant.config import CONFIG_FILE, SECTIONS, AssistantConfig, build_config, read_recipe
from ..assistant.report import answer_all, make_report, pairs_report, score
from ..assistant.run import ChatStart, check_speaks, fresh, rewards_for, train_assistant
from ..assistant.splits import Splits, read_splits
from ..engines.choose import process_rank
from ..finetune.report import MODEL, REPORT_FILE, Report
from ..hub.adapters import save_adapter
from ..hub.assistants import kept_template, open_chat_start, open_reward, read_assistant_config
from ..hub.configs import is_native, read_config
from ..hub.places import CONFIG, find_folder
from ..training.checkpoint import CheckpointError, find_checkpoint
from ..training.config_file import ConfigError, Sections, read_toml
from ..training.protocol import TrainResult
from ..training.run_folder import check_no_run
from .options import changed_by, program

SHORT = {  # options that set one key of the configuration -> its section and name
    "model": ("start", "model"), "data": ("chat", "data"), "val": ("chat", "val"), "test": ("chat", "test"),
    "metric": ("chat", "metric"), "epochs": ("chat", "epochs"), "method": ("method", "name"),
    "engine": ("engine", "name"), "skip_bad": ("chat", "skip_bad"), "template": ("chat", "template"),
    "system": ("chat", "system"), "pack": ("chat", "pack"), "loss": ("preference", "loss"),
    "reward": ("grpo", "reward"), "teacher": ("distill", "teacher"),
}  # fmt: skip
OF_TASKS = ("text", "label", "source", "target", "multi_label", "cut")  # options that only tasks have


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if not arguments.resume:
        check_no_run(out)  # before anything takes time
    config = build_config(sections_of(arguments))
    if arguments.resume and (changes := changed_settings(read_assistant_config(out), config)):
        print(f"note       the run goes on with other settings than it had: {'; '.join(changes)}.")
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
    if config.chat.kind == "reward":
        print(f"to use it: {program()} finetune grpo --model MODEL --data FILE --reward {quote(str(out))}")
    else:
        print(f"to use it: {program()} chat {quote(str(out))}")
    return 0


def run_once(
    config: AssistantConfig, out: Path, *, resume: bool = False, progress: bool = True
) -> tuple[TrainResult, Report | None]:
    """One run, from the conversations to its report, which is written beside it; no report if it was interrupted."""
    splits = read_splits(config.chat)
    if progress:
        print(splits)
        for line in baseline_lines(splits):
            print(line)
    start = opened(config, splits, out if resume else None)
    check_speaks(start.model, start.name)
    if progress and start.system and not config.chat.system:
        print(f"note       {start.name} was trained with the system message {start.system!r}, which --system can give.")
    if config.chat.kind == "distill":
        start.teacher = open_chat_start(config.distill.teacher)
        check_speaks(start.teacher.model, start.teacher.name)
    if config.chat.kind == "grpo":
        start.rewards = rewards_for(config, splits.task, open_reward)
    beside: dict[str, ChatStart] = {}
    if config.chat.kind in ("dpo", "grpo"):
        beside["start"] = start
    if start.teacher is not None:
        beside["teacher"] = start.teacher
    before = {who: answers_of(other.model, other, splits, config, progress) for who, other in beside.items()}
    result, figures = train_assistant(
        config, splits, start, out, resume=resume, on_best=partial(export, config, out, start), progress=progress
    )
    if result.signal is not None or process_rank() > 0:
        return result, None
    if config.chat.kind == "reward":
        report = pairs_report(splits, figures, out)
    else:
        answers = {MODEL: answers_of(result.engine.model, start, splits, config, progress), **before}
        report = make_report(splits, answers, figures, out, start.rewards)
    report.save(out / REPORT_FILE)
    return result, report


def opened(config: AssistantConfig, splits: Splits, resumed: Path | None = None) -> ChatStart:
    """The model to begin with: that of [start], or a new one, of a student with its teacher's tokenizer. Of the run
    that is `resumed` the template is the copy in it, if it is not to have another from here on."""
    if config.start.model:
        asked = config.chat.template
        last = find_checkpoint(resumed / "last") if resumed is not None else None
        if last is not None and resumed is not None and asked == read_assistant_config(resumed).chat.template:
            asked = kept_template(asked, last)
        return open_chat_start(config.start.model, asked, config.train.seed)
    if config.chat.template not in ("", "chatml"):
        raise ConfigError("[chat]: template goes with a model that is there: a new one is made for chatml.")
    return fresh(config, splits, open_chat_start(config.distill.teacher) if config.chat.kind == "distill" else None)


def answers_of(
    model: Any, start: ChatStart, splits: Splits, config: AssistantConfig, progress: bool
) -> dict[str, list[Answer]]:
    return {
        split: answer_all(model, start.template, examples, config, progress)
        for split, examples in splits.answered.items()
    }


def baseline_lines(splits: Splits) -> list[str]:
    """What is simple to answer, and how far that comes: what is printed before a run."""
    lines = []
    for who, by_split in splits.baselines().items():
        shown = []
        for split, texts in by_split.items():
            if split in splits.answered:
                name, value = next(iter(score(splits.task, splits.answered[split], texts).items()))
                shown.append(f"{split} {name} {value:.3f}")
        lines.append(f"baseline   {who}: {', '.join(shown)}")
    return lines


def export(config: AssistantConfig, out: Path, start: ChatStart, engine: Any) -> None:
    """The adapter in PEFT's format, beside the new best checkpoint; none where tokens were added, or where the head is
    new to a model in minillm's own format, which PEFT could not open, or where it began with adapters."""
    if config.method.name in ("lora", "qlora") and not start.merged and not start.added:
        own = is_native(read_config(find_folder(start.name, only=CONFIG)))
        if not own or engine.model.config.task == start.model.config.task:
            save_adapter(engine.model, out / "adapter", start.name, tokenizer=start.kept)


def changed_settings(before: AssistantConfig, now: AssistantConfig) -> list[str]:
    """What a resumed run is told otherwise than before: "chat.system was '', is 'Be brief.'"; of [train] `train` says
    it, and going on for longer is what a run is resumed for."""
    changes = []
    for section in SECTIONS:
        old, new = getattr(before, section), getattr(now, section)
        if section not in ("train", "model"):
            names = [field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)]
            told = [f"{section}.{n} was {getattr(old, n)!r}, is {getattr(new, n)!r}" for n in names if n != "epochs"]
            changes += told
    return changes


def sections_of(arguments: argparse.Namespace) -> Sections:
    """The configuration that the command line asks for: the run's own or a recipe's, changed by the options."""
    for option in OF_TASKS:
        if getattr(arguments, option):
            raise ConfigError(f"--{option.replace('_', '-')} belongs to tasks such as classify: leave it out.")
    if arguments.resume:
        if arguments.config or arguments.kind or arguments.model or arguments.data:
            raise ConfigError(
                f"--resume goes on with the configuration of the run, {arguments.out}/{CONFIG_FILE}: leave the kind, "
                "--config, --model and --data out, or change single keys with --set."
            )
        path = Path(arguments.out) / CONFIG_FILE
        if not path.exists():
            raise CheckpointError(f"there is no run to resume in {arguments.out}: it has no {CONFIG_FILE}.")
        sections = read_toml(path, SECTIONS)
    else:
        built_in = "" if arguments.data else "-dialogue"
        sections = read_recipe(arguments.config or f"{arguments.kind}{built_in}")
    return changed_by(arguments, sections, "chat", SHORT, SECTIONS)
