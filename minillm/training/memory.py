"""Whether a run fits into the memory of the machine: asked before it begins."""

from __future__ import annotations

from functools import partial

from ..costs.sizes import in_bytes, less_memory, numpy_training_bytes, training_memory
from ..engines.limits import free_memory
from ..models import ModelConfig
from ..numpy_ops.cores import blas_threads
from ..settings import EngineConfig, TrainConfig
from .config_file import ConfigError


def check_memory(model: ModelConfig, train: TrainConfig, engine: EngineConfig) -> None:
    """Raise ConfigError, with numbers, for a training run that this machine has no memory for."""
    free, tokens = free_bytes(engine), f"{train.batch_size} × {model.context} tokens"
    needed = partial(needed_bytes, model, train, engine)
    total = needed(engine.recompute)
    if free is not None and total > free:
        need = training_memory(model, train.batch_size, model.context)
        standing = need.total - need.activations
        raise ConfigError(
            f"training needs about {in_bytes(total)}, and {in_bytes(free)} are free: weights, gradients and optimizer "
            f"{in_bytes(standing)}, activations and the like {in_bytes(total - standing)} for {tokens}. "
            f"{less_memory(needed, engine.recompute, free)}Make the model or train.batch_size smaller, or give --force."
        )


def needed_bytes(model: ModelConfig, train: TrainConfig, engine: EngineConfig, recompute: str) -> int:
    """About the memory that a run takes on its engine, if it computes that much again."""
    if engine.name == "numpy":
        threads = min(engine.threads or blas_threads() or 1, train.batch_size)
        return numpy_training_bytes(model, train.batch_size, model.context, threads, recompute)
    return training_memory(model, train.batch_size, model.context, recompute=recompute).total


def free_bytes(engine: EngineConfig) -> int | None:
    """What is free where the model would be trained; None where that is not known."""
    if engine.name == "torch":
        from ..engines.torch_machine import choose_device, free_memory_of

        return free_memory_of(choose_device(engine.device))
    return free_memory()
