"""Checkpoints: folders of safetensors and JSON, written so that a kill at any instant leaves a loadable one.

    last/
      model.safetensors        the weights, by parameter name
      config.json              the model's config: what rebuilds the model
      optimizer.safetensors    the optimizer's state, "<parameter>.<state>"
      state.json               step, data position, random states, best loss, the other files' checksums ...
      tokenizer.json           the tokenizer the model was trained with

Several processes may write shards in place of the two files of arrays, each its part: see engines/shards.py.
It is written beside its place and moved there when it is complete on the disk (see disk/). Nothing is pickled:
loading a checkpoint from a stranger runs no code.

Here a run reads back what it needs to go on. To use a model, of this format or Hugging Face's, see hub/checkpoint.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..disk import checksum, find_whole_folder, read_json, whole_folder, write_json
from ..engines.shards import OPTIMIZER, WEIGHTS, Shards, shard_files
from ..tokenizers.base import Tokenizer

FORMAT = "minillm checkpoint"
VERSION = 1

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, foreign, or does not fit: the message says which and what to do."""


@dataclasses.dataclass
class ResumePoint:
    """What a run needs to go on, read from a checkpoint and checked, but not yet given to anything."""

    folder: Path
    config: dict[str, Any]
    model: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    state: dict[str, Any]


def save_checkpoint(
    folder: str | Path,
    *,
    config: Mapping[str, Any],
    model: Mapping[str, np.ndarray],
    optimizer: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write a checkpoint to `folder`, replacing the one that is there only when the new one is complete on the disk.

    `config` is the model's config with its "model_type"; `model` and `optimizer` are arrays by name; `state` is
    anything JSON can hold. Raises OSError (a full disk, no permission) with the previous checkpoint untouched.
    """
    arrays = {MODEL_FILE: model, OPTIMIZER_FILE: optimizer}
    with whole_folder(folder, kind="checkpoint", replace=True) as new:
        for name, named in arrays.items():
            try:
                save_file({key: np.asarray(a, order="C") for key, a in named.items()}, new / name)
            except SafetensorError as error:  # how the library says that the disk is full
                raise OSError(f"{Path(folder) / name} cannot be written, and stays as it was: {error}.") from error
            (new / name).chmod(0o666 & ~umask())  # safetensors would let nobody else read it
        finish_checkpoint(new, config=config, state=state, tokenizer=tokenizer)


def finish_checkpoint(
    new: Path,
    *,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    sums: Mapping[str, str] | None = None,
) -> None:
    """Write what stands beside the arrays into the folder of a new checkpoint. `sums`: checksums of files that their
    writers have computed."""
    write_json(new / CONFIG_FILE, config)
    if tokenizer is not None:
        tokenizer.save(new)
    known = sums or {}
    sums = {path.name: known.get(path.name) or checksum(path) for path in sorted(new.iterdir())}
    write_json(new / STATE_FILE, {"format": FORMAT, "version": VERSION, "crc32": sums, **state})


def find_checkpoint(folder: str | Path) -> Path | None:
    """The complete checkpoint of this name: `folder`, or what stood there before a kill between two renames; else
    None."""
    return Path(folder) if Path(folder).is_dir() else find_whole_folder(folder)


def check_undamaged(folder: Path, state: Mapping[str, Any], *names: str) -> None:
    """Raise CheckpointError for a file of a checkpoint (all of them, or `names`) that is not as it was written: one
    flipped bit in weights is noticed by nothing else. Reading 4 GB takes about a second."""
    sums = state.get("crc32")
    if not isinstance(sums, dict):
        raise CheckpointError(f"{folder / STATE_FILE} is damaged: it has no checksums of the other files (crc32).")
    beside = os.listdir(folder)
    for name, wanted in sums.items():
        if names and name not in names:
            continue
        if name not in beside:  # so that no path, nor a name too long to be one, is looked up
            what = f"it has no {name:.50}, which its {STATE_FILE} names"
            raise CheckpointError(f"{folder} is not a complete minillm checkpoint: {what}.")
        if checksum(folder / name) != wanted:
            raise CheckpointError(
                f"{folder / name} is damaged: its checksum is not the one that {STATE_FILE} has for it. Take another "
                "checkpoint, or give --no-verify to read it all the same."
            )


def read_checkpoint(folder: str | Path, *, verify: bool = True, lazily: bool = False) -> ResumePoint:
    """Read everything in a checkpoint that resuming needs, after a look at the checksums unless `verify` is False.
    `lazily`: of the arrays only names and shapes, and each array whenever it is asked for, of which processes that are
    sent their part by another ask for none. Nobody may write the folder anew meanwhile.

    Raises CheckpointError, naming the file, if it cannot."""
    path = existing(folder)
    state = read_object(path / STATE_FILE)
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / STATE_FILE} was not written by minillm: its format is {state.get('format')!r:.50}."
        )
    if state.get("version") != VERSION:
        version = f"{state.get('version')!r:.50}"
        raise CheckpointError(f"{path / STATE_FILE} has checkpoint version {version}; this minillm reads {VERSION}.")
    if verify:
        check_undamaged(path, state)
    config = read_object(path / CONFIG_FILE)
    model, optimizer = (
        arrays_of(path, name, kind, lazily) for name, kind in ((MODEL_FILE, WEIGHTS), (OPTIMIZER_FILE, OPTIMIZER))
    )
    return ResumePoint(path, config, model, optimizer, state)


def checkpoint_in(folder: str | Path) -> Path:
    """`folder` itself, or of a run folder the `best` checkpoint, or else the `last`."""
    path = find_checkpoint(folder) or Path(folder)
    if not (path / CONFIG_FILE).exists():
        for name in ("best", "last"):
            inside = find_checkpoint(path / name)
            if inside is not None:
                return inside
    return path


def check_tokenizer(tokenizer: Tokenizer, vocab_size: int, trained_with: str | None, where: str) -> None:
    """Raise CheckpointError unless the tokenizer's ids fit the model and it is the one the model was trained with.

    `trained_with` is the fingerprint stored in the checkpoint, None if there is none to compare with.
    """
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} ids but the model in {where} only {vocab_size}: "
            "the tokenizer and the model do not belong together."
        )
    if trained_with is not None and tokenizer.fingerprint() != trained_with:
        raise CheckpointError(
            f"the model in {where} was trained with tokenizer {trained_with}, this one is {tokenizer.fingerprint()}: "
            "its ids mean other pieces of text; use the tokenizer.json of the checkpoint."
        )


def existing(folder: str | Path) -> Path:
    path = find_checkpoint(folder)
    if path is None:
        raise CheckpointError(f"no checkpoint at {folder}: it is a folder with {MODEL_FILE} and {CONFIG_FILE} in it.")
    return path


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a complete minillm checkpoint: it has no {path.name}.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


def arrays_of(folder: Path, name: str, kind: int, lazily: bool) -> Mapping[str, np.ndarray]:
    """The arrays of the file `name` of a checkpoint, or of the shards of this `kind` that stand in its place, which are
    not read before they are asked for; of the one file neither, if `lazily`."""
    whole = (folder / name).exists()
    files = [folder / name] if whole else shard_files(folder, kind)
    if not files or (whole and not lazily):
        return read_arrays(folder / name)
    try:
        return Shards(files, whole=whole)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def weight_files(folder: Path) -> list[str]:
    """The names of the files that hold a checkpoint's weights."""
    return [path.name for path in shard_files(folder, WEIGHTS)] or [MODEL_FILE]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise CheckpointError(f"{path.parent} is not a complete minillm checkpoint: it has no {path.name}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged (truncated or not safetensors): {error}.") from error


def umask() -> int:
    """What this process takes away from the permissions of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
