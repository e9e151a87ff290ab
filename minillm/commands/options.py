"""Options made from what they feed, the parameters of a function or the fields of a config dataclass, and handed back
to it by their names: nothing is copied by hand on the way from the command line to the call.

    add_option(parser, convert, "tied", "leave out a head ...")  # --tied and --no-tied, None if neither is given
    convert(**keywords(convert, arguments))
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import dataclasses
import inspect
import os
import re
import shlex
import shutil
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..generate import Sampling
from ..training.config_file import Sections, describe, override

MODULES = ("__main__.py", "cli.py")  # what `python -m minillm` and `python -m minillm.commands.cli` run


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the default of each option that has one, and leaves the line breaks of descriptions alone."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ("", [], ()):
            return action.help  # what happens then is said in words, where it is not plain
        return super()._get_help_string(action)


def add_option(
    parser: argparse.ArgumentParser, function: Callable[..., Any], name: str, text: str, **settings: Any
) -> None:
    """The option for the parameter `name` of `function` (a dataclass is one too), with the help `text`. Type, choices
    and default are the parameter's; `settings` are argparse's own, such as `metavar`, and go before."""
    default = inspect.signature(function).parameters[name].default
    derived = {"default": None if default is inspect.Parameter.empty else default, "help": text.replace("%", "%%")}
    derived |= settings_for(typing.get_type_hints(function)[name])
    parser.add_argument(as_option(name), **{**derived, **settings})


def settings_for(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of the type that `hint` names.

    >>> settings_for(int | None)
    {'type': <class 'int'>}
    """
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:  # the first one says how
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (int, float):
        return {"type": hint}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) in (tuple, collections.abc.Sequence):
        return {"nargs": "*"}
    return {}  # a text, as argparse has it


def add_fields(parser: argparse.ArgumentParser, cls: type) -> None:
    """An option for every field of a config dataclass, with its default and the comment behind it."""
    for name, _, comment in describe(cls):
        add_option(parser, cls, name, comment)


def add_sampling(parser: argparse.ArgumentParser, temperature: float | str) -> None:
    """The options for how a token is drawn, one for each field of `Sampling`; `temperature` is what is said to be the
    default. Their own default is None, so that `sampling_settings` gives what was asked for and nothing else."""
    for name, text in {
        "temperature": f"0: always the likeliest token (default: {temperature})",
        "top_k": "choose among the k likeliest tokens",
        "top_p": "choose among the likeliest tokens that together reach probability p",
        "min_p": "leave out tokens less likely than min_p times the likeliest",
        "repetition_penalty": "above 1: repeat less",
    }.items():
        add_option(parser, Sampling, name, text, default=None)


def sampling_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Sampling` that the command line sets."""
    return {name: value for name, value in keywords(Sampling, arguments).items() if value is not None}


def program() -> str:
    """How this program was called, for commands that are printed to be typed next: "minillm" where that is what the
    shell finds, the path that was typed where the environment isn't activated, or `python -m minillm`."""
    called = Path(sys.argv[0])
    if called.stem != "minillm":
        return f"{shlex.quote(sys.executable)} -m minillm" if called.name in MODULES else "minillm"
    found = shutil.which("minillm")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "minillm"
    return shlex.quote(str(called))


def typed_text(word: str) -> str:
    """How argparse reads a text that is no path: where the locale knows ASCII only, Python keeps the bytes of other
    characters aside, as paths need them; here they are UTF-8."""
    try:
        return os.fsencode(word).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # characters already
        return word


@contextlib.contextmanager
def by_options(cls: type) -> Iterator[None]:
    """Within it, errors call the fields of a config dataclass as the command line does, which has an option for each
    (see `add_fields`): "val_fraction and test_fraction must ..." is "--val-fraction and --test-fraction must ..."."""
    names = "|".join(field.name for field in dataclasses.fields(cls) if "_" in field.name)
    try:
        yield
    except ValueError as error:
        told = re.sub(rf"(?<![\w.-])({names})\b( = )?", lambda m: as_option(m[1]) + (" " if m[2] else ""), str(error))
        if told == str(error):
            raise
        raise ValueError(told) from error


def as_option(name: str) -> str:
    """The option for an argument or a field: "--val-fraction"."""
    return f"--{name.replace('_', '-')}"


def whole(least: int) -> Callable[[str], int]:
    """How argparse reads a whole number that must be at least `least`."""

    def read(text: str) -> int:
        try:
            value = int(text.replace("_", "").replace(",", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {value}")
        return value

    return read


def keywords(function: Callable[..., Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the arguments that `function` has parameters for, by name."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in vars(arguments).items() if name in parameters}


def choices(cls: type, field: str) -> tuple[Any, ...]:
    """The values that a field of a dataclass, a Literal, may have."""
    return typing.get_args(typing.get_type_hints(cls)[field])


def changed_by(
    arguments: argparse.Namespace,
    sections: Sections,
    examples: str,
    short: Mapping[str, tuple[str, str]],
    known: Mapping[str, Any],
) -> Sections:
    """The sections of a run's file or a recipe, changed by what the command line of `minillm finetune` asks for: its
    kind, the options in `short` (option -> section and key) and --set. `examples`: the section of the examples, which
    has kind and epochs. Raises ConfigError for a --set of a section that is not `known`."""
    asked: Sections = {examples: {"kind": arguments.kind}} if arguments.kind else {}
    for option, (section, key) in short.items():
        value = getattr(arguments, option)
        if value not in (None, False):
            asked.setdefault(section, {})[key] = value
    for option in arguments.set:
        override(asked, option, known)
    if "max_steps" in asked.get("train", {}):  # rather than a recipe's epochs
        asked.setdefault(examples, {}).setdefault("epochs", 0.0)
    if asked.get("start", {}).get("model"):
        sections = {name: section for name, section in sections.items() if name != "model"}  # the shape of a new one
    return {name: {**sections.get(name, {}), **asked.get(name, {})} for name in {**sections, **asked}}
