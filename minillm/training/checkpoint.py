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

from ..models import Model, config_from_dict, model_from_config, with_attention
from ..tokenizers import load_tokenizer
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
class Checkpoint:
    """What a checkpoint holds, read and checked but not yet given to anything."""

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


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read everything in a checkpoint that resuming needs. Raises CheckpointError, naming the file, if it cannot."""
    path = existing_checkpoint(folder)
    state = read_json(path / STATE_FILE)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path / STATE_FILE} was not written by minillm: its format is {state.get('format')!r}.")
    if state.get("version") != VERSION:
        raise CheckpointError(f"{path} has checkpoint version {state.get('version')!r}; this minillm reads {VERSION}.")
    config = read_json(path / CONFIG_FILE)
    return Checkpoint(path, config, read_arrays(path / MODEL_FILE), read_arrays(path / OPTIMIZER_FILE), state)


def load_model(folder: str | Path) -> Model:
    """Build the model that `folder`'s config.json describes and give it the weights of model.safetensors.

    `folder` is a checkpoint, or a run folder, from which its `best` checkpoint is taken (else `last`). It may have been
    trained with an attention that only a GPU has: the model gets `attention = "auto"`, which runs anywhere.
    Raises CheckpointError for anything missing, truncated or not fitting; nothing is half-loaded.
    """
    path = checkpoint_in(folder)
    config = read_json(path / CONFIG_FILE)
    arrays = read_arrays(path / MODEL_FILE)
    try:
        model = model_from_config(with_attention(config_from_dict(config), "auto"))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path / CONFIG_FILE} does not describe a model that minillm knows: {error}") from error
    if all(a.dtype == np.float64 for a in arrays.values()):
        model.to(np.float64)
    try:
        model.load_state_dict(arrays)
    except ValueError as error:
        raise CheckpointError(f"{path / MODEL_FILE} does not fit {path / CONFIG_FILE}: {error}") from error
    return model


def load_model_and_tokenizer(folder: str | Path) -> tuple[Model, Tokenizer]:
    """`load_model` and the tokenizer saved beside it. Raises CheckpointError if the two do not fit each other."""
    path = checkpoint_in(folder)
    if not (path / "tokenizer.json").exists():
        raise CheckpointError(f"{path} has no tokenizer.json: copy the one that the training data was made with there.")
    try:
        tokenizer = load_tokenizer(path)
    except ValueError as error:
        raise CheckpointError(f"{path / 'tokenizer.json'} cannot be read: {error}") from error
    model = load_model(path)
    trained_with = read_json(path / STATE_FILE).get("tokenizer") if (path / STATE_FILE).exists() else None
    check_tokenizer(tokenizer, model.config.vocab_size, trained_with, str(path))
    return model, tokenizer


def checkpoint_in(folder: str | Path) -> Path:
    """`folder` itself if it is a checkpoint, else the `best` or `last` one of the run folder `folder`."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).exists():
        for name in ("best", "last"):
            inside = find_checkpoint(folder / name)
            if inside is not None:
                return inside
        if folder.is_dir() and not (folder / MODEL_FILE).exists():
            raise CheckpointError(
                f"no checkpoint in {folder}: neither {MODEL_FILE} and {CONFIG_FILE}, nor a folder best or last with "
                "them. A run that has just begun writes its first at train.eval_every or train.save_every steps."
            )
    return existing_checkpoint(folder)


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


def existing_checkpoint(folder: str | Path) -> Path:
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
