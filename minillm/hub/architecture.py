"""What must be known of one of transformers' architectures to read and write its checkpoints: what its settings and its
tensors are called there and here, and where the two ways to say it differ. gpt2.py,
llama.py, bert.py and bart.py say it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from ..disk.records import fits

Values = dict[str, Any]  # the entries of a config.json


class ConfigurationError(ValueError):
    """A config.json that does not describe a model of this library: the message names the setting."""


def nothing_more(*_: Any) -> Values:
    """Of an architecture whose tables say it all."""
    return {}


def as_it_is(config: Any, *_: Any) -> Any:
    """Of an architecture whose parameters do not depend on what its files hold besides."""
    return config


def own_or_shared(own: float | None, shared: float) -> float:
    """The dropout of a part: its own, or what all of a model share."""
    return shared if own is None else own


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture of transformers. Which model of ours computes it, config.json, then the tensors."""

    model_type: str  # as config.json names it
    config_class: type[Any]  # ours
    # model_type for a config, where several share one config class; None: no architecture of transformers
    variant: Callable[[Any], str | None] | None = None
    also: tuple[str, ...] = ()  # those whose configs it can say as well: what came in by its name goes out by it
    is_decoder: bool = True  # each token sees those before it; a classifier on it is models/classifier.py's

    family: str  # how the names of its classes begin
    heads: dict[str, str]  # how they end -> what the head is for; the first where config.json names no class
    settings: dict[str, tuple[str, Any]]  # theirs -> (ours, default where config.json says nothing)
    fixed: dict[str, tuple[Any, ...]]  # theirs -> values that mean what our model computes, their default first
    further: tuple[str, ...] = ()  # settings beside these two that `read` knows
    read: Callable[[Values, Values, str], Values] = nothing_more  # theirs, ours so far, head -> more of ours
    write: Callable[[Any, Values, str], Values] = nothing_more  # our config, original, head -> more of theirs
    tokenizer_class: str | None = None  # where tokenizer_config.json names none

    names: dict[str, str]  # our module -> theirs, layer numbers as `*`
    prefix: str  # of every tensor that is not a head's; a checkpoint without any head may leave it out
    head_names: tuple[str, ...]  # how the names of heads begin: what one task's checkpoint has and another's has not
    transposed: tuple[str, ...] = ()  # endings of our names whose matrix stands on its side in the file
    constants: tuple[str, ...] = ()  # patterns of what old files hold besides weights, computed here
    renamed: dict[str, str] = field(default_factory=dict)  # endings in old files -> today's
    # of experts, ending of the tensor that holds a part of all of them -> what of each stands in it, one behind another
    fused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    writes_fused: bool = False  # else each expert has tensors of its own in the files
    twins: dict[str, str]  # in old files a tied matrix stands twice: the second -> the first
    as_stored: Callable[[Any, set[str], bool], Any] = as_it_is  # config, tensors, head was asked for -> config


def translate(values: Values, architecture: Architecture) -> Values:
    """The settings that both know, by our names, after a check of those that only they know: one with another value
    than our model computes with would load and be silently wrong."""
    for name, allowed in architecture.fixed.items():
        if name in values and values[name] not in allowed:
            known, kind = " or ".join(map(repr, allowed)), architecture.model_type
            wrong = f"a {kind} with {name} = {values[name]!r:.80}, which must be {known}"
            raise ConfigurationError(f"config.json: {wrong}: minillm has no other.")
    hints, found = get_type_hints(architecture.config_class), {}
    for theirs, (ours, default) in architecture.settings.items():
        value = values.get(theirs, default)
        value = 0 if value is None and default == 0 else value  # null, where 0 says to follow from the others
        if not fits(value, hint := hints[ours]):
            kinds = f"{getattr(hint, '__name__', hint)}, not {type(value).__name__} ({value!r:.50})"
            raise ConfigurationError(f"config.json: {theirs} of a {architecture.model_type} must be of type {kinds}.")
        found[ours] = value
    return found
