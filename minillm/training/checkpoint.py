"""Checkpoints: folders of safetensors and JSON, written so that a kill at any instant leaves a loadable one.

    last/
      model.safetensors        the weights, by parameter name
      config.json              the model's config: what rebuilds the model
      optimizer.safetensors    the optimizer's state, "<parameter>.<state>"
      state.json               step, data position, random states, best loss, ...
      tokenizer.json           the tokenizer the model was trained with

A checkpoint is written to `last.new`, flushed to the disk, and then moved into place: `last` becomes `last.old`,
`last.new` becomes `last`, `last.old` is removed. A folder cannot replace another in one step, so there is one
instant at which no `last` exists; `find_checkpoint` then takes `last.old`, which is complete. Nothing is pickled:
loading a checkpoint from a stranger runs no code.

Here a run reads back what it needs to go on. To use a model, of this format or Hugging Face's, see hub/checkpoint.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

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
    model: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
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
    folder = Path(folder)
    new, old = sibling(folder, ".new"), sibling(folder, ".old")
    if new.exists():  # left behind by a run that was killed while writing
        shutil.rmtree(new)
    new.mkdir(parents=True)
    try:
        save_file({name: np.asarray(a, order="C") for name, a in model.items()}, new / MODEL_FILE)
        save_file({name: np.asarray(a, order="C") for name, a in optimizer.items()}, new / OPTIMIZER_FILE)
        write_json(new / CONFIG_FILE, config)
        write_json(new / STATE_FILE, {"format": FORMAT, "version": VERSION, **state})
        if tokenizer is not None:
            tokenizer.save(new)
        for path in [*new.iterdir(), new]:
            flush_to_disk(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise

    if folder.exists():
        if old.exists():  # a kill came between the two renames below, and `folder` is the newer one
            shutil.rmtree(old)
        os.rename(folder, old)
    os.rename(new, folder)
    flush_to_disk(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def find_checkpoint(folder: str | Path) -> Path | None:
    """The complete checkpoint of this name: `folder`, or `folder.old` after a kill between two renames; else None."""
    folder = Path(folder)
    for candidate in (folder, sibling(folder, ".old")):
        if candidate.is_dir():
            return candidate
    return None


def read_checkpoint(folder: str | Path) -> ResumePoint:
    """Read everything in a checkpoint that resuming needs. Raises CheckpointError, naming the file, if it cannot."""
    path = existing(folder)
    state = read_json(path / STATE_FILE)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path / STATE_FILE} was not written by minillm: its format is {state.get('format')!r}.")
    if state.get("version") != VERSION:
        raise CheckpointError(f"{path} has checkpoint version {state.get('version')!r}; this minillm reads {VERSION}.")
    config = read_json(path / CONFIG_FILE)
    return ResumePoint(path, config, read_arrays(path / MODEL_FILE), read_arrays(path / OPTIMIZER_FILE), state)


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


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a complete minillm checkpoint: it has no {path.name}.") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise CheckpointError(f"{path} is damaged (truncated or not JSON): {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise CheckpointError(f"{path.parent} is not a complete minillm checkpoint: it has no {path.name}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged (truncated or not safetensors): {error}.") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder, so that a power cut after the rename cannot leave an empty file behind the new name."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)
