"""Which engine trains: the one that the [engine] section of a config file names. Imports torch only if asked to."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..settings import EngineConfig
from ..tensor import Tensor
from .protocol import Loss, ModelLoss


def engine_class(config: EngineConfig) -> Any:
    """What `train` takes as its engine. Raises ImportError where PyTorch is asked for and not installed, and ValueError
    where NumPy is to train in several processes."""
    if config.name == "numpy":
        check_plain(config)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            n = os.environ["WORLD_SIZE"]
            raise ValueError(f"engine 'numpy' trains in one process, and torchrun started {n}: give --engine torch.")
        if config.threads == 1:
            from .numpy_engine import NumpyEngine

            return partial(NumpyEngine, recompute=config.recompute)
        from .threads import ThreadedNumpyEngine

        return partial(ThreadedNumpyEngine, threads=config.threads, recompute=config.recompute)
    require_torch()
    from .torch_engine import TorchEngine

    return partial(TorchEngine, settings=config)


def require_torch() -> None:
    """Raise ImportError, saying how to get it, where PyTorch cannot be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"engine 'torch' needs PyTorch, which cannot be imported here: {error}. Install "
            "minillm-from-scratch[torch] (in a checkout: pip install -e '.[torch]'), or leave --engine out for NumPy."
        ) from error


def check_plain(config: EngineConfig) -> None:
    """Raise ValueError for a setting that NumPy could only ignore."""
    plain: dict[str, tuple[Any, ...]] = {"device": ("auto", "cpu"), "precision": ("auto", "full")}
    plain |= {"compile": ("auto", "off"), "parallel": ("ddp",), "shard_group": (0,), "checkpoint": ("whole",)}
    for key, values in plain.items():
        if getattr(config, key) not in values:
            raise ValueError(
                f"[engine]: {key} = {getattr(config, key)!r} is PyTorch's: the NumPy engine computes on the processor, "
                "in the weights' own precision. Give --engine torch, or leave it out."
            )


def batch_loss_of(model: Any, loss: Loss | None = None) -> Callable[..., float]:
    """How to measure a model of either engine: a function that gives the sum of a batch's token losses in nats, with
    dropout off and without gradients. `loss`: of what, if not the model's own (protocol.py)."""
    loss = loss or ModelLoss()
    if isinstance(next(iter(model.parameters())), Tensor):
        from .threads import Replicas

        return partial(Replicas(model).batch_loss, loss=loss)
    from .torch_engine import batch_loss

    return partial(batch_loss, model, loss=loss)


def outputs_of(model: Any) -> Callable[..., np.ndarray]:
    """How to ask a model of either engine: a function that gives what `model(*batch)` does as an array, with dropout
    off and without gradients."""
    if isinstance(next(iter(model.parameters())), Tensor):
        from .threads import Replicas

        return Replicas(model).outputs
    from .torch_engine import outputs as torch_outputs

    return partial(torch_outputs, model)


def ids_for(model: Any, ids: np.ndarray) -> Any:
    """Token ids as the model's engine takes them: the array itself, or a tensor on the model's device."""
    parameter = next(iter(model.parameters()))
    if isinstance(parameter, Tensor):
        return ids
    import torch

    return torch.from_numpy(ids).to(parameter.device)


def process_rank() -> int:
    """The number of this process among those that torchrun started; 0 if it is alone."""
    return int(os.environ.get("RANK", 0))
