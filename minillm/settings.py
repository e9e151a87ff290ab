"""What is said once, for every room above this one: constants that several rooms share, how to train, and on which
engine.

Each class is a section of a config file, its fields the keys; the comment behind a field is what --help and the config
file of a run say about it (see training/config_file.py). Nothing of this library is imported here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_type_hints

IGNORE = -100  # a target that the loss leaves out (torch's ignore_index)
ATTENTION = ("auto", "reference", "sdpa", "triton")  # how attention is computed: see ops.attention
NEEDS_TORCH = ("sdpa", "triton")  # those of them that only PyTorch has
HIDDEN_SHARE = 0.15  # of a text's tokens, which BERT and T5 learn to find again
MEAN_SPAN = 3.0  # tokens in a row that T5 hides, on average


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Where 0 means "off", the comment says so."""

    seed: int = 1337  # of the initial weights, the order of the data and dropout
    max_steps: int = 1000  # updates of the weights; 0: as many as max_seconds allows
    max_seconds: float = 0.0  # time budget, evaluations included, that the schedule is fitted to; 0: none
    batch_size: int = 16  # sequences per micro-batch and process
    grad_accumulation: int = 1  # micro-batches per step

    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"  # or sgd, muon (hidden matrices by Muon, the rest by AdamW)
    lr: float = 1e-3  # at the schedule's peak
    muon_lr: float = 0.02  # muon: of the hidden matrices, while lr is of the rest
    muon_momentum: float = 0.95  # muon
    weight_decay: float = 0.1  # of weight matrices only
    beta1: float = 0.9  # adamw
    beta2: float = 0.95  # adamw
    eps: float = 1e-8  # adamw
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    grad_clip: float = 1.0  # largest norm of all gradients together; 0: no clipping
    label_smoothing: float = 0.0  # part of each target that is spread over the whole vocabulary

    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"  # or linear, wsd, constant
    warmup_steps: int = 100  # under a time budget, at most a tenth of the steps that fit into it
    final_lr: float = 0.1  # where the schedule ends, as a part of the peak

    eval_every: int = 250  # steps
    eval_tokens: int = 100_000  # of the validation data, each time; 0: all
    patience: int = 0  # stop after this many evaluations in a row without a new best; 0: never
    save_every: int = 250  # steps

    def __post_init__(self) -> None:
        check_types(self)
        if self.max_steps == 0 and self.max_seconds == 0:
            raise ValueError("training has no end: set max_steps or max_seconds above 0.")
        for name in ("batch_size", "grad_accumulation", "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.optimizer == "muon" and not self.lr > 0:
            raise ValueError(f"lr must be above 0 with muon, not {self.lr}: muon_lr is kept in proportion to it.")
        not_negative = (
            "seed",
            "max_steps",
            "max_seconds",
            "lr",
            "muon_lr",
            "weight_decay",
            "eps",
            "grad_clip",
            "warmup_steps",
        )
        for name in (*not_negative, "eval_tokens", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        for name in ("beta1", "beta2", "momentum", "muon_momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        if not 0 <= self.final_lr <= 1:
            raise ValueError(f"final_lr must be from 0 to 1, a part of the peak learning rate, not {self.final_lr}.")


@dataclass(frozen=True)
class EngineConfig:
    """What runs the training loop. `name`, `threads` and `recompute` are NumPy's; all but `threads` are PyTorch's."""

    name: Literal["numpy", "torch"] = "numpy"  # or torch
    threads: int = 0  # numpy: threads that share each batch; 0: one for each core; 1: none, for stepping through
    device: str = "auto"  # "cuda", "mps" or "cpu"; auto: the first of these that is there
    precision: Literal["auto", "full", "bf16", "fp16"] = "auto"  # full: the weights' own; auto: bf16 or fp16 on a GPU
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a CUDA device
    parallel: Literal["ddp", "fsdp", "hsdp"] = "ddp"  # under torchrun: each process holds the whole model, or a part
    shard_group: int = 0  # hsdp: processes that hold one copy of the model together; 0: those of a machine
    checkpoint: Literal["whole", "sharded", "async"] = "whole"  # sharded: each process its part; async: while training
    recompute: Literal["none", "layers", "selective"] = "none"  # less memory: layers run twice; selective: cheap parts

    def __post_init__(self) -> None:
        check_types(self)
        if self.threads < 0:
            raise ValueError(f"threads must be 0 or more, not {self.threads}.")
        if self.shard_group < 0 or (self.shard_group and self.parallel != "hsdp"):
            raise ValueError(
                f"shard_group = {self.shard_group} must be a number of processes that hold one copy of the model, "
                "with parallel = 'hsdp' only; 0: those of a machine."
            )
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:0' and so on, not {self.device!r}.")


def check_types(settings: Any) -> None:
    """Raise ValueError unless each setting is what its type says: a whole number, a finite number, yes or no, one of
    a list."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if kind is int:
            good, wanted = isinstance(value, Integral) and not isinstance(value, bool), "a whole number"
        elif kind is float:
            good = isinstance(value, Real) and not isinstance(value, bool) and not math.isinf(value)
            wanted = "a finite number"  # (NaN is outside of every range)
        elif kind in (bool, str):
            good, wanted = isinstance(value, kind), "True or False" if kind is bool else "a text"
        else:
            choices = get_args(kind)
            good, wanted = value in choices, f"one of {', '.join(map(repr, choices))}"
        if not good:
            raise ValueError(f"{name} must be {wanted}, not {value!r}.")
