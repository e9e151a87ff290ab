"""Configuration: dataclasses read from TOML files and `--set` options, with every key and type checked.

    [train]            # a section is a dataclass, here TrainConfig
    lr = 3e-4          # a key is one of its fields; what is left out keeps its default

`describe` reads the comments that stand behind a dataclass's fields, so that --help and the config file echoed into a
run folder say what each key means, and there is one place to write it.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..disk.records import fits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EARLIER = {("recompute", False): "none", ("recompute", True): "layers"}  # what runs' config files said before

T = TypeVar("T")
Sections = dict[str, dict[str, Any]]  # section -> key -> value, as in a TOML file


class ConfigError(ValueError):
    """A configuration that cannot be used: the message names file or option, key, value and what would be right."""


def read_toml(path: str | Path, known_sections: Mapping[str, Any]) -> Sections:
    """The sections of a config file. Raises ConfigError for bad TOML, keys outside sections and unknown sections."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # with or without a byte order mark
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        backslash = "hex value" in str(error) or "\\" in str(error)
        hint = (
            " In double quotes a backslash has a meaning: write paths with / or in single quotes." if backslash else ""
        )
        raise ConfigError(f"{path} is not valid TOML: {error}.{hint}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be read: no config file should be.") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{path} holds what can't be read: {error}.") from None
    for name, section in content.items():
        if name not in known_sections:
            raise ConfigError(f"{path}: unknown section [{name}]. {nearest(name, known_sections)}")
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: {name} must be a section, [{name}], with keys below it, not {section!r}.")
    return content


def read_recipe(name: str | Path, folder: Path, known_sections: Mapping[str, Any]) -> Sections:
    """The sections of a TOML file, given by its path or, for one in `folder`, by its name. Raises ConfigError."""
    recipe = folder / f"{name}.toml"
    if not Path(name).exists() and recipe.exists():
        return read_toml(recipe, known_sections)
    if not Path(name).exists() and Path(name).suffix != ".toml":
        known = sorted(path.stem for path in folder.glob("*.toml"))
        raise ConfigError(f"no config file {name}, and no recipe of that name. {nearest(str(name), known)}")
    return read_toml(name, known_sections)


def override(sections: Sections, option: str, known_sections: Mapping[str, Any]) -> None:
    """Apply one "section.key=value" (the argument of --set) to `sections`, in place.

    The value is read as TOML where it can be (1e-3, true, ["en"]), else as a text. Raises ConfigError.
    """
    name, equals, text = option.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot or not key:
        raise ConfigError(f"--set must be section.key=value, as in --set train.lr=1e-3, not {option!r}.")
    if section not in known_sections:
        raise ConfigError(f"--set {option}: unknown section {section!r}. {nearest(section, known_sections)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, a number of thousands of digits, a list as deep
        value = text.strip()
    sections.setdefault(section, {})[key] = value


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """A `cls` from `values`. Raises ConfigError for an unknown key (naming the nearest one), a wrong type, or a value
    that the dataclass itself refuses. `where` begins the message: "[train]".

    >>> from minillm.settings import TrainConfig
    >>> build(TrainConfig, {"lrr": 0.1}, "[train]")
    Traceback (most recent call last):
    minillm.training.config_file.ConfigError: [train]: unknown key 'lrr'. Did you mean 'lr'?
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r}. {nearest(key, names)}")
        value = EARLIER.get((key, value), value) if isinstance(value, bool) else value
        checked[key] = checked_value(value, hints[key], f"{where}: {key}")
    try:
        return cls(**checked)
    except ValueError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{cls.__name__}: ')}") from None


def nearest(name: str, known: Any) -> str:
    """A sentence that suggests the nearest of the known names, or lists them."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def describe(cls: type) -> list[tuple[str, Any, str]]:
    """(name, default, comment) of each field of a dataclass; the comment is what stands behind it in the source."""
    try:
        source = inspect.getsource(cls)
    except OSError:  # installed without sources
        source = ""
    comments = dict(re.findall(r"^    (\w+): [^#\n]*  # (.*)$", source, re.MULTILINE))
    return [(field.name, field.default, comments.get(field.name, "")) for field in dataclasses.fields(cls)]


def to_toml(title: str, sections: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A TOML file of dataclasses by section, each key with its comment. None has no form in TOML and is left out.

    `kinds`: keys that stand first in a section and say which dataclass it is, where there are several.
    """
    lines = [f"# {title}"]
    for name, section in sections.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in (kinds or {}).get(name, {}).items()]
        for key, _, comment in describe(type(section)):
            value = getattr(section, key)
            if value is not None:
                lines.append(f"{key} = {toml_value(value)}" + (f"  # {comment}" if comment else ""))
    return "\n".join(lines) + "\n"


def checked_value(value: Any, hint: Any, where: str) -> Any:
    """`value` if it is of the type that `hint` names; a whole number passes for a float, a list for a tuple."""
    if type(value) is int and not fits(value, float):  # nor could an error print it
        raise ConfigError(f"{where} must be a number below 1e308, not one of {value.bit_length():,} bits.")
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:  # int | None
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return value if value is None else checked_value(value, options[0], where)
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, such as [{value!r}], not {value!r}.")
        return tuple(checked_value(item, typing.get_args(hint)[0], where) for item in value)
    kind = typing.get_origin(hint) or hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {KINDS[kind]}, not {value!r}.")
    return value


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes", dict: "a table"}


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON, but for that, is TOML
    return repr(value)
