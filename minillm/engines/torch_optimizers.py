"""The optimizers of a run on PyTorch: torch's AdamW and SGD, and Muon with the arithmetic of muon.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ..port import assign, whole
from ..settings import TrainConfig
from .muon import orthogonalize, split_hidden, step_size
from .protocol import Groups


def make_optimizer(
    model: Any, config: TrainConfig, device: torch.device, groups: Groups, compiled: bool
) -> torch.optim.Optimizer:
    """The one that the config names, over the groups that our own would get. What is frozen has no state until it
    learns."""
    fused = device.type in ("cuda", "cpu")  # one kernel for all parameters
    members = groups(model, config.weight_decay)
    if config.optimizer == "sgd":
        momentum, nesterov = config.momentum, config.nesterov
        return torch.optim.SGD(members, config.lr, momentum=momentum, nesterov=nesterov, fused=fused)
    adamw: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": config.eps, "fused": fused}
    if config.optimizer == "muon":
        members = split_hidden(model, members, config.muon_lr / config.lr)
        return Muon(members, config.lr, config.muon_momentum, compiled=compiled, **adamw)
    return torch.optim.AdamW(members, config.lr, **adamw)


def can_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step follows `optimizer.found_inf`, a float32 on the device: 1 makes it none at all. Only torch's fused
    kernels do."""
    return optimizer.defaults["fused"] and not isinstance(optimizer, Muon)


class Muon(torch.optim.AdamW):
    """As muon.Muon, over torch's parameters. Under torchrun each process orthogonalizes every n-th matrix and sends it
    to the others: all of them take the same step, whether they hold whole matrices ("ddp") or slices ("fsdp").

    On a GPU the products are in bfloat16 (but for float64), as in Jordan's own: errors of a hundredth do not matter
    where singular values may end between 0.7 and 1.2. `compiled` has torch.compile fuse what is between the products.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.95, *, compiled: bool = False, **adamw: Any
    ) -> None:
        groups = [{"use_muon": False, "momentum": momentum, **group} for group in params]
        super().__init__(groups, lr, **adamw)
        self.orthogonalize: Callable[[torch.Tensor], torch.Tensor] = orthogonalize
        if compiled:
            self.orthogonalize = torch.compile(orthogonalize, dynamic=False)

    def moves(self, p: torch.Tensor) -> bool:
        """Whether this parameter is orthogonalized, not AdamW's."""
        return any(p is member for group in self.param_groups if group["use_muon"] for member in group["params"])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        groups = self.param_groups
        self.move([(group, p) for group in groups if group["use_muon"] for p in group["params"]])
        try:
            self.param_groups = [group for group in groups if not group["use_muon"]]
            super().step()
        finally:
            self.param_groups = groups

    def move(self, matrices: list[tuple[dict[str, Any], torch.Tensor]]) -> None:
        here, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for i, (group, p) in enumerate(matrices):
            if p.grad is None:
                continue
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            mean = self.state[p]["momentum_buffer"]
            mean.lerp_(p.grad, 1 - group["momentum"])
            ahead = whole(p.grad.lerp(mean, group["momentum"]))
            change = torch.empty_like(ahead)
            if i % processes == here:
                low = p.is_cuda and p.dtype != torch.float64
                change = self.orthogonalize(ahead.bfloat16() if low else ahead).to(ahead.dtype).contiguous()
            if processes > 1:
                dist.broadcast(change, i % processes)
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(sliced(change, p), alpha=step_size(group["lr"], p.shape))


def sliced(change: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """`change` as `p` is: whole, or each process with its slice."""
    if not isinstance(p, dist.tensor.DTensor):
        return change
    like = torch.empty_like(p)
    assign(like, change)
    return like
