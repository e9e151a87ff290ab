"""`minillm pretrain`: train a model on a corpus, as a config file and --set say."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engines.choose import process_rank
from ..settings import ATTENTION, EngineConfig
from ..training.config_file import ConfigError, Sections, describe, override
from ..training.health import examine
from ..training.pretrain import SECTIONS, preset_names, pretrain, resumed_sections, sections_for
from ..training.run_folder import RUN_FILES
from .options import choices

SHORT = {  # options that set one key of the configuration -> its section and name
    "corpus": ("data", "corpus"), "tokenizer": ("data", "tokenizer"), "tokens": ("data", "tokens"),
    "engine": ("engine", "name"),
    "attention": ("model", "attention"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    introduction = "The configuration is read from --config, then changed by --set. Sections, keys and defaults:"
    parser.epilog = f"{introduction}\n\n{all_keys()}"
    presets = ", ".join(preset_names())
    files = f"TOML file, or one that comes with minillm: {presets}; default: laptop"
    parser.add_argument("--config", metavar="FILE", help=files)
    parser.add_argument("--corpus", metavar="FOLDER", help="corpus folder; sets data.corpus")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json; sets data.tokenizer")
    parser.add_argument(
        "--tokens", metavar="FOLDER", help="where token files go, if not to the corpus; sets data.tokens"
    )
    parser.add_argument("--no-verify", action="store_true", help="compare no checksums; sets data.verify = false")
    parser.add_argument("--engine", choices=choices(EngineConfig, "name"), help="what computes; sets engine.name")
    parser.add_argument("--attention", choices=ATTENTION, help="which attention; sets model.attention")
    parser.add_argument("--out", default="runs/pretrain", metavar="FOLDER", help="run folder to make, or to resume")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder, as it was configured")
    key = "change one key; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=key)
    parser.add_argument("--force", action="store_true", help="train even what seems not to fit into the memory")


def run(arguments: argparse.Namespace) -> int:
    result = pretrain(sections_of(arguments), arguments.out, resume=arguments.resume, force=arguments.force)
    if process_rank() > 0:  # under torchrun the first process speaks for all
        return 0
    print(f"{result.reason} at step {result.state.step:,} after {result.state.seconds:,.0f} s")
    if result.state.best_score is not None:
        print(f"best validation loss {result.state.best_score:.4f} nats/token, step {result.state.best_step:,}")
    for finding in examine(arguments.out).findings:
        print(f"look at this: {finding}")
    files = ", ".join(name for name in RUN_FILES if Path(arguments.out, name).exists())
    print(f"wrote {arguments.out}: {files} (health: minillm check {arguments.out})")
    if result.signal is not None:
        print(f"to go on: minillm pretrain --resume --out {arguments.out}")
        return 128 + result.signal
    return 0


def sections_of(arguments: argparse.Namespace) -> Sections:
    """The configuration that the command line asks for: the run's own or --config's, changed by the options."""
    if arguments.resume and arguments.config:
        raise ConfigError(
            f"--resume goes on with the configuration of the run, {arguments.out}/config.toml: leave --config "
            f"{arguments.config} out, or change single keys with --set."
        )
    sections = resumed_sections(arguments.out) if arguments.resume else {}
    asked: Sections = {}
    for option, (section, key) in SHORT.items():
        value = getattr(arguments, option)
        if value:
            value = str(Path(value).resolve()) if section == "data" else value  # a run may be resumed from elsewhere
            asked.setdefault(section, {})[key] = value
    if arguments.no_verify:
        asked.setdefault("data", {})["verify"] = False
    for option in arguments.set:
        override(asked, option, SECTIONS)
    if not arguments.resume:
        sections = sections_for(arguments.config or "laptop", asked)
    return {name: {**sections.get(name, {}), **asked.get(name, {})} for name in {**sections, **asked}}


def all_keys() -> str:
    """Every section and key of a pretraining configuration, with defaults and comments."""
    lines = []
    for section, cls in SECTIONS.items():
        for name, default, comment in describe(cls):
            lines.append(f"  {f'{section}.{name} = {default!r}':38} {comment}".rstrip())
    note = "model.vocab_size is the tokenizer's unless it is set. The models llama, bert, lstm and encoder-decoder\n"
    note += "have keys of their own, and are chosen with model.model_type."
    return "\n".join([*lines, "", note])
