"""The training engine on PyTorch: one GPU, a CPU, or several processes under torchrun.

    torchrun --nproc-per-node 8 -m minillm pretrain ... --engine torch

Read `TorchEngine.forward_backward` first. What the methods promise is said once, in protocol.py. Each process ("rank")
has its own part of every batch. With "ddp" each holds the whole model and the gradients are averaged; with "fsdp" each
holds a slice of every weight, gradient and optimizer state, and weights are put together block by block when they are
needed (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054; PyTorch's FSDP2); with "hsdp" a group of processes does so
together, and the groups average their gradients (hybrid sharding: Zhao et al. 2023, arXiv 2304.11277). Checkpoints hold
whole arrays by name, or, by `checkpoint`, each process's part of them (torch_shards.py), so that a run may go on with
another number of processes, or on NumPy.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..costs.sizes import training_flops
from ..data import require_targets
from ..data.batches import share_of_rank
from ..models.segments import text_lengths
from ..nn import check_fits, evaluating, shapes
from ..optim import param_groups
from ..port import allocate, array_of, assign, fill, to_torch, whole
from ..settings import IGNORE, EngineConfig, TrainConfig
from .memory import peak_memory_gb
from .protocol import Batch, Batches, Groups, Loss, Model, ModelLoss, PackedLoss, ProcessLost
from .read_ahead import ReadAhead
from .torch_blocks import mesh_of, recompute_blocks, shard
from .torch_machine import LOW_PRECISION, choose_device, choose_precision, join_processes, peak_flops
from .torch_optimizers import Muon, can_skip, make_optimizer

FIRST_LOSS_SCALE = 2.0**16  # of fp16; halved by every overflow, doubled after so many steps without one:
STEPS_TO_GROW = 2000
SIGNS_OF_A_LOST_PEER = ("Connection", "connection", "Broken pipe", "Timed out", "timed out")  # gloo's RuntimeErrors


class TorchEngine:
    """Training with PyTorch's autograd, optimizers and distribution.

    `model` is a NumPy model, which is ported and left as it was (take the trained one from the run folder), or a ported
    one, which is trained in place. Other settings than the default: `partial(TorchEngine, settings=EngineConfig(...))`.
    Raises ValueError for settings that this machine cannot follow.
    """

    name = "torch"

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        settings: EngineConfig | None = None,
        groups: Groups = param_groups,
        loss: Loss | None = None,
    ) -> None:
        self.settings = settings = settings or EngineConfig()
        self.device = choose_device(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        self.rank, self.world_size = join_processes(self.device)
        # What the processors tell each other, in a step too: through NCCL they would wait for their GPUs.
        self.host_group = dist.new_group(backend="gloo") if self.world_size > 1 else None
        self.config = config
        self.sharded = settings.parallel in ("fsdp", "hsdp") and self.world_size > 1
        if self.sharded and not isinstance(loss or ModelLoss(), ModelLoss):
            raise ValueError(
                f"parallel = {settings.parallel!r} cuts up models for their own loss only: give parallel = 'ddp'."
            )
        self.loss = loss or ModelLoss(config.label_smoothing)
        self.figures: dict[str, torch.Tensor] = {}  # of the last step
        self.text_lengths = np.zeros(0, dtype=np.int64)  # of the texts in its packed rows; none: rows of one text
        self.model = self.place(model, settings)
        if hasattr(self.loss, "prepare"):  # one with a model of its own, which must be here before a step is compiled
            self.loss.prepare(self.model)
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = make_optimizer(self.model, config, self.device, groups, self.compiles(settings))
        self.loss_scale = FIRST_LOSS_SCALE if self.precision == "fp16" else 1.0
        self.steps = 0  # updates made
        self.steps_since_overflow = 0
        self.peak_flops = peak_flops(self.device, self.precision)
        self.background = settings.checkpoint == "async"
        self.shards: Any = None  # of one process, the whole is its part
        if settings.checkpoint != "whole" and self.world_size > 1:
            from .torch_shards import ShardWriter  # which takes a moment to import

            self.shards = ShardWriter(settings, self.rank, self.tensors, self.lost_peer)
        self.module = self.wrap(settings)  # what a training step calls; evaluation calls the model itself

    def place(self, model: Model, settings: EngineConfig) -> Any:
        """The model on its device: a port of a NumPy model, cut up for FSDP if that is asked for."""
        ported = model
        if not isinstance(model, torch.nn.Module):
            ported = to_torch(model, device="meta" if self.sharded else self.device, seed=self.config.seed)
        elif not self.sharded:
            ported = model.to(self.device)
        if settings.recompute != "none":
            recompute_blocks(ported, settings.recompute)
        if self.sharded:
            low = LOW_PRECISION.get(self.precision)
            shard(ported, mesh_of(settings, self.device, self.world_size), low, self.compiles(settings))
            if ported is not model:
                allocate(ported, self.device)
                fill(ported, model, self.config.seed)
        return ported

    def wrap(self, settings: EngineConfig) -> Any:
        """The model compiled and, among several processes, with its gradients averaged.

        The averaging should begin while the backward pass still computes, and of a compiled graph all gradients are
        there at once, at its end. But torch.compile knows when it is called inside DistributedDataParallel, and cuts
        the graph where a bucket of gradients is full.
        """
        if self.sharded:
            return self.model
        under_loss = self.model if isinstance(self.loss, ModelLoss) else UnderLoss(self.model, self.loss)
        module = torch.compile(under_loss, fullgraph=True) if self.compiles(settings) else under_loss
        if self.world_size > 1:
            self.averaged = [p.requires_grad for p in self.parameters.values()]
            devices = [self.device] if self.device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)
        return module

    def compiles(self, settings: EngineConfig) -> bool:
        return settings.compile == "on" or (settings.compile == "auto" and self.device.type == "cuda")

    # --- a step -------------------------------------------------------------------------------------------------------

    def batches(self, batcher: Batches) -> Batches:
        if not batcher.ahead:
            return batcher
        return ReadAhead(batcher, self.config.grad_accumulation, pin=self.device.type == "cuda")

    def forward_backward(self, micro_batches: list[Batch]) -> torch.Tensor:
        learns = [p.requires_grad for p in self.parameters.values()]
        if isinstance(self.module, DistributedDataParallel) and self.averaged != learns:
            self.module = self.wrap(self.settings)  # somebody has frozen or unfrozen parameters since the last step
        self.model.train()
        loss = self.accumulate(micro_batches)
        self.grad_norm = self.total_norm()
        if self.precision == "fp16":
            # Small gradients would be zero in fp16: the loss is scaled up. If that was too much, once more with less.
            # (To know, the processor waits for the GPU, which bf16 spares it.)
            while not math.isfinite(self.grad_norm) and math.isfinite(loss) and self.loss_scale > 1:
                self.loss_scale, self.steps_since_overflow = self.loss_scale / 2, 0
                loss = self.accumulate(micro_batches)
                self.grad_norm = self.total_norm()
            self.scale_gradients(1 / self.loss_scale)
            self.grad_norm /= self.loss_scale
            self.steps_since_overflow += 1
            if self.steps_since_overflow % STEPS_TO_GROW == 0:
                self.loss_scale *= 2
        return loss

    def accumulate(self, micro_batches: list[Batch]) -> torch.Tensor:
        """The gradients of the mean loss over all tokens of all ranks (times the loss scale), and that loss."""
        # Dropout depends on seed, step and rank alone: a resumed run draws what an uninterrupted one would have drawn.
        seed = np.random.SeedSequence([self.config.seed, self.steps, self.rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed) >> 1)
        self.optimizer.zero_grad(set_to_none=True)
        n_tokens = require_targets(self.total(sum(self.loss.count(*batch) for batch in micro_batches)))
        factor = self.loss_scale * self.world_size / n_tokens  # DDP and FSDP divide the sum over ranks by their number
        losses = []
        self.figures = {}
        if isinstance(self.loss, PackedLoss):
            self.text_lengths = np.concatenate([text_lengths(batch[1]) for batch in micro_batches])
        for i, batch in enumerate(micro_batches):
            with self.lost_peer(), self.averaging(last=i == len(micro_batches) - 1):
                loss, figures = self.sums(self.module, batch)
                (loss * factor).backward()
            losses.append(loss.detach())
            for name, value in figures.items():
                mine = torch.as_tensor(value, device=self.device)
                self.figures[name] = self.figures.get(name, 0.0) + self.total_tensor(mine) / n_tokens
        return self.total_tensor(torch.stack(losses).sum() / n_tokens)

    def sums(self, module: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the loss gives for a batch, under the precision of the run."""
        with self.autocast():
            arguments = [self.to_device(array) for array in batch]
            loss, figures = module(*arguments) if is_under_loss(module) else self.loss(module, *arguments)
        return loss.float() if loss.dtype in LOW_PRECISION.values() else loss, figures

    def autocast(self) -> torch.autocast:
        dtype = LOW_PRECISION.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None and not self.sharded)

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """The copy runs beside the computation where the array lies in pinned memory."""
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @contextlib.contextmanager
    def averaging(self, last: bool) -> Iterator[None]:
        """Inside, a backward pass averages gradients over the ranks only if it is the step's last: once is enough."""
        if self.sharded:
            self.model.set_requires_gradient_sync(last)
        if isinstance(self.module, DistributedDataParallel) and not last:
            with self.module.no_sync():
                yield
        else:
            yield

    def total_norm(self) -> torch.Tensor:
        with self.lost_peer():
            return whole(torch.nn.utils.get_total_norm(self.gradients()))

    def gradients(self) -> list[torch.Tensor]:
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def scale_gradients(self, factor: float | torch.Tensor) -> None:
        torch._foreach_mul_(self.gradients(), factor)

    def clip_gradients(self, max_norm: float) -> torch.Tensor:
        # Nobody here asks what the norm is: the processor would wait for the whole backward pass. (The fused optimizers
        # take a factor, too, but in float32 only.)
        if max_norm:
            scale = (max_norm / (self.grad_norm + 1e-6)).clamp(max=1.0)
            self.scale_gradients(torch.where(self.grad_norm.isfinite(), scale, 1.0))
        return self.grad_norm

    def step(self, lr: float) -> None:
        if can_skip(self.optimizer):
            skip = (~self.grad_norm.isfinite()).float()  # 1: the kernel leaves everything as it is
            setattr(self.optimizer, "found_inf", skip)  # noqa: B010 (an attribute that torch looks for)
        elif not math.isfinite(self.grad_norm):
            return
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        for p in self.parameters.values() if self.config.optimizer == "sgd" and self.config.momentum else ():
            if p.grad is not None and not self.optimizer.state[p]:  # torch's fused step wants all or none of a group
                self.optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.optimizer.step()
        self.steps += 1  # one that the kernel skips, too: it ends the run

    def read(self, *scalars: Any) -> tuple[float, ...]:
        there = [torch.as_tensor(x, device=self.device) for x in scalars]
        return tuple(torch.stack(there).tolist())  # the step's one wait for the device

    # --- beside the steps ---------------------------------------------------------------------------------------------

    def batch_loss(self, *batch: np.ndarray) -> float:
        return self.batch_sums(*batch)["loss"]

    @torch.no_grad()
    def batch_sums(self, *batch: np.ndarray) -> dict[str, float]:
        # Numbers to predict have no IGNORE to fill up with: every rank takes all rows then.
        alone = batch[-1].dtype.kind == "f" or not isinstance(self.loss, ModelLoss)
        n_rows, n_ranks = len(batch[0]), 1 if alone else self.world_size
        mine = share_of_rank(n_rows, self.rank, n_ranks) if n_ranks > 1 else slice(None)
        missing = share_of_rank(n_rows, 0, n_ranks).stop - len(batch[0][mine])  # the last ranks' are filled up
        filled = [np.pad(a[mine], [(0, missing)] + [(0, 0)] * (a.ndim - 1)) for a in batch]
        if missing:
            filled[-1][-missing:] = IGNORE
        with evaluating(self.model), self.lost_peer():
            loss, figures = self.sums(self.model, tuple(filled))
        if self.sharded:
            self.model.reshard()  # after a forward without a backward, the outermost weights are still whole
        total = loss.item() if n_ranks < self.world_size else self.total_tensor(loss).item()
        return {"loss": total, **{name: float(value) for name, value in figures.items()}}

    def outputs(self, function: Callable[..., Any]) -> Callable[..., np.ndarray]:
        return partial(self.answers, function)

    @torch.no_grad()
    def answers(self, function: Callable[..., Any], *batch: np.ndarray) -> np.ndarray:
        with evaluating(self.model), self.autocast():
            found = function(self.model, *(self.to_device(array) for array in batch))
        return (found.float() if found.dtype in LOW_PRECISION.values() else found).cpu().numpy()

    def rerun(self, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            self.batch_loss(*batch)

    def agree(self, value: float) -> float:
        return self.total(value, dist.ReduceOp.MAX)

    def total(self, value: float, op: Any = dist.ReduceOp.SUM) -> float:
        """The sum, or another reduction, of a number over the ranks."""
        if self.world_size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        with self.lost_peer():
            dist.all_reduce(number, op, self.host_group)  # from processor to processor: nobody waits for a GPU
        return number.item()

    def total_tensor(self, tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM) -> torch.Tensor:
        if self.world_size > 1:
            with self.lost_peer():
                dist.all_reduce(tensor, op)
        return tensor

    @contextlib.contextmanager
    def lost_peer(self) -> Iterator[None]:
        """Say in plain words what a broken connection to another rank means."""
        try:
            yield
        except RuntimeError as error:
            broken = isinstance(error, dist.DistError) or any(sign in str(error) for sign in SIGNS_OF_A_LOST_PEER)
            if self.world_size == 1 or not broken:
                raise
            cause = " ".join(str(error).split())[:300]
            raise ProcessLost(
                f"rank {self.rank} of {self.world_size}: another process of this job has died, or cannot be spoken to "
                f"({cause}). Find out what ended it (its own message, the system's out-of-memory log), then go on from "
                "the last checkpoint with --resume."
            ) from error

    def gauges(self, tokens_per_second: float) -> dict[str, float]:
        measured = {name: float(value) for name, value in self.figures.items()} | {"memory_gb": self.memory_gb()}
        if self.peak_flops:
            config, n = self.model.config, self.text_lengths
            lengths, counts = np.unique(n if len(n) else config.context, return_counts=True)
            operations = [training_flops(config, int(length)) for length in lengths]  # of a token of each
            flops = float(np.average(operations, weights=lengths * counts)) * tokens_per_second
            measured["mfu"] = flops / (self.peak_flops * self.world_size)  # causal attention counted as half
        return measured

    def memory_gb(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory() / 1e9
        return peak_memory_gb()

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def model_arrays(self) -> dict[str, np.ndarray]:
        return self.gathered(self.model_tensors())

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return self.gathered(self.optimizer_tensors())

    def gathered(self, tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Whole arrays on rank 0, which writes. Others help to put each together, where it is cut up, and let it go."""
        arrays = {}
        with self.lost_peer():
            for name, tensor in tensors.items():
                if self.rank == 0:
                    arrays[name] = array_of(tensor)
                elif self.sharded:
                    whole(tensor)
        return arrays

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return self.model_tensors(), self.optimizer_tensors()

    def model_tensors(self) -> dict[str, torch.Tensor]:
        """The weights as this process holds them, not copied."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, p in self.parameters.items():
            state = self.optimizer.state.get(p, {})
            if not state and not p.requires_grad:
                continue
            for key in self.state_names(name):
                tensors[f"{name}.{key}"] = (state[key] if key in state else torch.zeros_like(p)).detach()
            steps = state.get("step", 0 if self.config.optimizer == "adamw" else self.steps)  # SGD, Muon count none
            tensors[f"{name}.step"] = torch.tensor(int(steps), dtype=torch.int64)
        return tensors

    def state_names(self, name: str) -> tuple[str, ...]:
        """The optimizer's arrays for a parameter, by the names that torch and our NumPy optimizers share."""
        if self.config.optimizer == "sgd":
            return ("momentum_buffer",) if self.config.momentum else ()
        by_muon = isinstance(self.optimizer, Muon) and self.optimizer.moves(self.parameters[name])
        return ("momentum_buffer",) if by_muon else ("exp_avg", "exp_avg_sq")

    def random_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "loss_scale": self.loss_scale, "steps_since_overflow": self.steps_since_overflow}

    def load(
        self, model: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray], random: dict[str, Any] | None
    ) -> None:
        mine = dict(self.model.named_parameters())
        frozen = {name: p for name, p in mine.items() if not p.requires_grad}
        check_fits("the saved weights", shapes(mine), {**shapes(frozen), **shapes(model)})
        learned = {n: p for n, p in self.parameters.items() if p.requires_grad or f"{n}.step" in optimizer}
        expected = {f"{name}.{key}": tuple(p.shape) for name, p in learned.items() for key in self.state_names(name)}
        expected |= {f"{name}.step": () for name in learned}
        check_fits("the saved arrays of the optimizer", expected, shapes(optimizer))
        if random is not None:
            self.steps, self.loss_scale = int(random["steps"]), float(random["loss_scale"])
            self.steps_since_overflow = int(random["steps_since_overflow"])
        with self.lost_peer():
            self.load_arrays(model, optimizer)

    def load_arrays(self, model: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        self.optimizer.state.clear()
        fused = self.optimizer.defaults["fused"]
        for name, p in self.parameters.items():
            if name in model:
                assign(p, self.saved(model, name, p))
            if f"{name}.step" not in optimizer:  # frozen, and never learned
                continue
            state = {key: torch.zeros_like(p) for key in self.state_names(name)}
            for key, tensor in state.items():
                assign(tensor, self.saved(optimizer, f"{name}.{key}", p))
            if "exp_avg" in state:
                step = float(optimizer[f"{name}.step"])
                state["step"] = torch.tensor(step, device=p.device if fused else "cpu")
            self.optimizer.state[p] = state

    def saved(self, arrays: Mapping[str, np.ndarray], name: str, p: torch.Tensor) -> torch.Tensor:
        """An array of a checkpoint, to assign. Where tensors are cut up, rank 0 sends all others their part of what it
        has read, and they read nothing."""
        if self.sharded and self.rank != 0:
            return torch.empty(p.shape, dtype=p.dtype)
        return torch.from_numpy(arrays[name])


class UnderLoss(torch.nn.Module):
    """A model with a loss around it, as one module: what is compiled, and whose gradients are averaged."""

    def __init__(self, model: Any, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.loss(self.model, *batch)


def is_under_loss(module: Any) -> bool:
    """Whether it is an UnderLoss, compiled or averaged or as it is."""
    inner = getattr(module, "module", module)  # of DistributedDataParallel
    return isinstance(getattr(inner, "_orig_mod", inner), UnderLoss)


@torch.no_grad()
def batch_loss(model: Any, *batch: np.ndarray, loss: Loss | None = None) -> float:
    """The sum of a ported model's token losses over a batch in nats, dropout off, on the model's own device."""
    device = next(model.parameters()).device
    with evaluating(model):
        return float((loss or ModelLoss())(model, *(torch.from_numpy(array).to(device) for array in batch))[0])


@torch.no_grad()
def outputs(model: Any, *batch: np.ndarray) -> np.ndarray:
    """What a ported model gives for a batch as float32, dropout off, on the model's own device."""
    device = next(model.parameters()).device
    with evaluating(model):
        return model(*(torch.from_numpy(array).to(device) for array in batch)).float().cpu().numpy()
