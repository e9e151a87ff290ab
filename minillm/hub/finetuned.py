"""A fine-tuned run, opened for use: its model on either engine, and the objective that asks it.

A run whose method trained all weights, or a head, holds a whole model. One with adapters holds those alone: they are
put on the model that it began with, which must still lie where it lay.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from ..finetune.config import CONFIG_FILE, SECTIONS, FinetuneConfig, MethodConfig, build_config
from ..finetune.freeze import unfreeze
from ..finetune.lora import adapters, merge, remove_lora
from ..finetune.objectives import TaskObjective
from ..finetune.run import Start, apply_method, load_weights, prepare, with_weights
from ..training.checkpoint import CheckpointError, existing, read_checkpoint
from ..training.config_file import read_toml
from .checkpoint import check_engine, open_checkpoint
from .places import NotFound
from .weights import fingerprint, read_folder


def is_finetuned(run: str | Path) -> bool:
    """Whether a folder is a run of `minillm finetune`."""
    return (Path(run) / CONFIG_FILE).exists()


def read_run_config(run: str | Path) -> FinetuneConfig:
    """The configuration of a run, as its finetune.toml says."""
    return build_config(read_toml(Path(run) / CONFIG_FILE, SECTIONS))


def open_start(name_or_folder: str) -> Start:
    """The model that a run begins with, on NumPy, with the head that it has, and its tokenizer. Adapters, of a folder
    or a run, are merged into it."""
    if is_finetuned(name_or_folder):
        model, objective, config = open_finetuned(name_or_folder)
        start = Start(model, objective.tokenizer, name_or_folder, config.task.center, config.task.scale or 1.0)
        start.weights = fingerprint(read_folder(existing(Path(name_or_folder, config.task.keep))))
    else:
        checkpoint = open_checkpoint(name_or_folder)
        start = Start(checkpoint.model(), checkpoint.tokenizer(), name_or_folder, weights=checkpoint.fingerprint)
    if adapters(start.model):
        merge(start.model)
        remove_lora(start.model)
        unfreeze(start.model, "*")
        start.merged = True
    return start


def open_finetuned(
    run: str | Path, *, engine: str = "numpy", device: Any = None, verify: bool = True
) -> tuple[Any, TaskObjective, FinetuneConfig]:
    """(model, objective, config) of a run, with the weights that its task.keep says: of the best evaluation, or the
    last step. Raises CheckpointError for a folder that is none or has no checkpoint yet, and as `open_checkpoint`
    does."""
    run = Path(run)
    check_engine(engine, device)
    if not is_finetuned(run):
        raise CheckpointError(f"{run} is no run of minillm finetune for a task: it has no {CONFIG_FILE}.")
    config = read_run_config(run)
    kept = run / config.task.keep
    if not kept.exists():
        raise CheckpointError(
            f"{run} has no {config.task.keep} checkpoint yet: go on with it (minillm finetune --resume --out "
            f"{quote(str(run))})."
        )
    point = read_checkpoint(kept, verify=verify)
    labels = tuple(point.config.get("labels") or ())
    if config.method.name not in ("lora", "qlora"):
        checkpoint = open_checkpoint(kept)
        model = checkpoint.model(engine=engine, device=device, dtype="float32", verify=False)
        _, objective = prepare(config, labels, Start(model, checkpoint.tokenizer()))
        return model, objective, config
    try:
        start = open_start(config.start.model)
    except NotFound as error:
        raise CheckpointError(
            f"{run} holds adapters alone, and the model that they change is not where it was: {error} Its place stands "
            f"in {run / CONFIG_FILE}, [start]."
        ) from error
    with_weights(config, start, run)
    model, objective = prepare(config, labels, start)
    apply_method(model, config.method, config.train.seed)
    load_weights(model, point.model)
    return on_engine(model, config.method, run, engine, device), objective, config


def on_engine(model: Any, method: MethodConfig, run: Path, engine: str, device: Any) -> Any:
    """A run's model with its adapters, on NumPy as it is, or ported."""
    if engine == "numpy":
        if method.name == "qlora":
            raise CheckpointError(
                f"{run} was trained on weights of few bits, which are PyTorch's: give --engine torch, "
                f"or begin with {run / 'adapter'}."
            )
        return model.eval()
    from ..port import to_torch

    ported = to_torch(model)
    if method.name == "qlora":
        from ..finetune.quantize import quantize_base

        quantize_base(ported, method.quantize)
    return ported.to(device or "cpu").eval()
