"""`minillm pretrain`: train a model on a corpus, as a config file, or one dial, and --set say."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any

from ..costs.sizes import n_parameters
from ..engines.choose import process_rank
from ..engines.profile import FILES, FIRST
from ..models import MODELS
from ..settings import ATTENTION, EngineConfig
from ..tokenizers import load_tokenizer
from ..training.checkpoint import check_tokenizer
from ..training.config_file import ConfigError, Sections, describe, override
from ..training.health import examine
from ..training.log_sinks import SINKS
from ..training.pretrain import (
    CONFIG_FILE,
    PRESETS,
    SECTIONS,
    begin_with,
    preset_names,
    pretrain,
    read_config,
    resumed_sections,
    sections_for,
    sized_sections,
)
from ..training.run_folder import RUN_FILES
from ..training.shapes import SIZES, parse_count, training_for
from .options import choices, program
from .table import table

SHORT = {  # options that set one key of the configuration -> its section and name
    "corpus": ("data", "corpus"), "tokenizer": ("data", "tokenizer"), "tokens": ("data", "tokens"),
    "engine": ("engine", "name"),
    "attention": ("model", "attention"),
}  # fmt: skip
PRETRAINED = [kind for kind in MODELS if kind != "classifier"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    introduction = "The configuration is read from --config, or made by --size, then changed by --set. Sections, keys "
    parser.epilog = f"{introduction}and defaults:\n\n{all_keys()}"
    presets = ", ".join(preset_names())
    which = parser.add_mutually_exclusive_group()
    files = f"TOML file, or one that comes with minillm: {presets}; default: laptop"
    which.add_argument("--config", metavar="FILE", help=files)
    sizes = ", ".join(f"{name} ({count_in_words(n)})" for name, n in SIZES.items())
    dial = f"one dial for width, depth, heads, batch, learning rate and steps: {sizes} parameters"
    which.add_argument("--size", choices=list(SIZES), help=dial)
    which.add_argument("--parameters", metavar="N", help="the same dial as a number of parameters, such as 1M or 124M")
    parser.add_argument("--list-presets", action="store_true", help="list what --config and --size can name, and leave")
    start = "begin with the weights of a run, a checkpoint folder or a name on the hub, with a new schedule"
    parser.add_argument("--from", dest="start", metavar="MODEL", help=start)
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
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    key = "change one key; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=key)
    shown = "show the rows of metrics.jsonl there, too; repeatable"
    parser.add_argument("--log", action="append", default=[], choices=list(SINKS), help=shown)
    watched = f"watch three steps: {' or '.join(FILES.values())} in the run folder says where their time went"
    parser.add_argument("--profile", action="store_true", help=watched)
    parser.add_argument("--force", action="store_true", help="train even what seems not to fit into the memory")


def run(arguments: argparse.Namespace) -> int:
    if arguments.list_presets:
        print(presets_and_sizes())
        return 0
    sections, start = sections_and_start(arguments)
    how: dict[str, Any] = {name: getattr(arguments, name) for name in ("resume", "overwrite", "force")}
    more: dict[str, Any] = {"profile": arguments.profile, "log_to": sorted(set(arguments.log))}
    result = pretrain(sections, arguments.out, start=start, **how, **more)
    if process_rank() > 0:  # under torchrun the first process speaks for all
        return 0
    print(f"{result.reason} at step {result.state.step:,} after {result.state.seconds:,.0f} s")
    if result.state.best_score is not None:
        print(f"best validation loss {result.state.best_score:.4f} nats/token, step {result.state.best_step:,}")
    for finding in examine(arguments.out).findings:
        print(f"look at this: {finding}")
    if arguments.profile:
        print(profile_note(Path(arguments.out)))
    files = ", ".join(name for name in RUN_FILES if Path(arguments.out, name).exists())
    out = shlex.quote(str(arguments.out))
    print(f"wrote {arguments.out}: {files} (health: {program()} check {out})")
    if result.signal is not None:
        print(f"to go on: {program()} pretrain --resume --out {out}")
        return 128 + result.signal
    print(f"to see its loss: {program()} plot {out}")
    return 0


def profile_note(out_dir: Path) -> str:
    """What to do with the profile of a run; that there is none, if the run was too short."""
    if (out_dir / FILES["torch"]).exists():
        return f"profile: open {out_dir / FILES['torch']} in ui.perfetto.dev"
    if (out_dir / FILES["numpy"]).exists():
        return f"profile: python -m pstats {shlex.quote(str(out_dir / FILES['numpy']))}, then: sort cumtime, stats 20"
    return f"no profile: the run ended before step {FIRST + 1}, where --profile begins to watch"


def sections_of(arguments: argparse.Namespace) -> Sections:
    """The configuration that the command line asks for."""
    return sections_and_start(arguments)[0]


def sections_and_start(arguments: argparse.Namespace) -> tuple[Sections, tuple[Any, Any] | None]:
    """The configuration that the command line asks for, the run's own, --config's or the dial's, changed by the
    options; and the model and tokenizer of --from."""
    check_options(arguments)
    asked = asked_sections(arguments)
    if arguments.resume:
        return merged(resumed_sections(arguments.out), asked), None
    dial = arguments.parameters or arguments.size
    if dial:
        count = SIZES[dial] if dial in SIZES else parse_count(dial)
        return merged(sized_sections(count, asked), asked), None
    file = read_config(arguments.config) if arguments.config else {}
    name = asked.get("data", {}).get("start") or file.get("data", {}).get("start")
    if not name:
        return merged(sections_for(arguments.config or "laptop", asked), asked), None
    model, tokenizer = open_start(name, asked.get("data", {}).get("tokenizer"))
    context = model.config.context
    train = file["train"] if "train" in file else training_of(name) or training_for(n_parameters(model.config), context)
    rest: Sections = {section: file[section] for section in ("data", "engine") if section in file}
    return begin_with(merged(rest, asked), train, name, model.config), (model, tokenizer)


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go together."""
    given = {f"--{name}": getattr(arguments, name) for name in ("config", "size", "parameters", "overwrite")}
    given["--from"] = arguments.start
    for option, value in given.items():
        if arguments.resume and value:
            raise ConfigError(
                f"--resume goes on with the configuration of the run, {arguments.out}/{CONFIG_FILE}: leave {option} "
                "out, or change single keys with --set."
            )
    if arguments.start and (arguments.size or arguments.parameters):
        raise ConfigError("--from takes a model of the size that it has: leave --size and --parameters out.")


def asked_sections(arguments: argparse.Namespace) -> Sections:
    """What the options set, by section and key."""
    asked: Sections = {}
    for option, (section, key) in SHORT.items():
        value = getattr(arguments, option)
        if value:
            value = str(Path(value).resolve()) if section == "data" else value  # a run may be resumed from elsewhere
            asked.setdefault(section, {})[key] = value
    if arguments.start:
        is_folder = Path(arguments.start).exists()
        start = str(Path(arguments.start).resolve()) if is_folder else arguments.start
        asked.setdefault("data", {})["start"] = start
    if arguments.no_verify:
        asked.setdefault("data", {})["verify"] = False
    for option in arguments.set:
        override(asked, option, SECTIONS)
    return asked


def merged(sections: Sections, asked: Sections) -> Sections:
    """Sections, changed by what is asked for."""
    return {name: {**sections.get(name, {}), **asked.get(name, {})} for name in {**sections, **asked}}


def open_start(name: str, tokenizer: str | None) -> tuple[Any, Any]:
    """The model to begin with, and its tokenizer; another tokenizer would give its ids other meanings."""
    from ..hub.checkpoint import open_checkpoint  # what takes time to import is not needed by other runs

    checkpoint = open_checkpoint(name)
    if checkpoint.config.task == "classification":
        raise ConfigError(
            f"--from {name} is a classifier, which learns from labelled examples: see minillm finetune classify."
        )
    model, own = checkpoint.model_and_tokenizer(dtype="float32")
    if tokenizer:
        check_tokenizer(load_tokenizer(tokenizer), model.config.vocab_size, own.fingerprint(), str(checkpoint.folder))
    return model, own


def training_of(name: str) -> dict[str, Any]:
    """[train] of the run that a model comes from, itself or of the folder that it lies in; {} where there is none."""
    for folder in (Path(name), Path(name).parent):
        if (folder / CONFIG_FILE).is_file():
            return resumed_sections(folder).get("train", {})
    return {}


# --- what there is ----------------------------------------------------------------------------------------------------


def all_keys() -> str:
    """Every section and key of a pretraining configuration, with defaults and comments; of the model, those of each
    architecture."""
    lines = []
    for section, cls in SECTIONS.items():
        if section != "model":
            lines += ["", *keys_of(section, cls)]
    lines += ["", "  model.model_type = 'gpt'".ljust(41) + f"one of: {', '.join(PRETRAINED)}"]
    lines.append("  model.vocab_size".ljust(41) + "the tokenizer's, unless it is set")
    for kind in PRETRAINED:
        lines += ["", f"  of {kind} (what a config file or --size leaves out):"]
        lines += [line for line in keys_of("model", MODELS[kind][0]) if "model.vocab_size" not in line]
    return "\n".join(lines[1:])


def keys_of(section: str, cls: type) -> list[str]:
    """A line for each field of a dataclass."""
    return [
        f"  {f'{section}.{name} = {default!r}':38} {comment}".rstrip()
        for name, default, comment in describe(cls)
        if default is not dataclasses.MISSING
    ]


def presets_and_sizes() -> str:
    """What --config and --size can name, a line each."""
    rows = []
    for name in preset_names():
        sections = read_config(name)
        model, train = sections["model"], sections["train"]
        tokens = train["batch_size"] * train.get("grad_accumulation", 1) * model["context"]
        length = f"{train['max_steps']:,} steps" if train["max_steps"] else f"{train['max_seconds']:,.0f} s"
        kind, engine = model.get("model_type", "gpt"), sections.get("engine", {}).get("name", "numpy")
        shape = f"{model['n_layers']} × {model['d_model']}"
        rows.append((name, kind, shape, f"{model['context']:,}", f"{tokens:,}", length, engine))
    columns = ("model", "layers × width", "context", "tokens a step", "length", "engine")
    sizes = [(name, count_in_words(n)) for name, n in SIZES.items()]
    note = f"The files are in {PRESETS}; all that a run was told is in its {CONFIG_FILE}."
    return "\n\n".join([table("--config", rows, columns), table("--size, in parameters", sizes), note])


def count_in_words(n: int) -> str:
    """ "1M" of 1,000,000."""
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}k"
