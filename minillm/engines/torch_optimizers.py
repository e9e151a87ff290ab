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
    """Whether a step follows `optimizer.found_inf`, a float32 on the device: 1 makes it none at all. Torch's fused
    kernels do, and Muon with them."""
    return optimizer.defaults["fused"]


class Muon(torch.optim.AdamW):
    """As muon.Muon, over torch's parameters. Under torchrun the n processes take n matrices at a time, the largest
    first: each orthogonalizes one of them, all at once, and sends it to the others. So all take the same step, whether
    they hold whole matrices ("ddp") or slices ("fsdp"), of which no more than n are ever put together.

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
        learning = sorted((m for m in matrices if m[1].grad is not None), key=lambda m: -m[1].numel())
        found_inf = getattr(self, "found_inf", None)  # see `can_skip`
        skip = None if found_inf is None else found_inf > 0
        for start in range(0, len(learning), processes):
            together = learning[start : start + processes]
            changes = [self.ahead(group, p, skip) for group, p in together]
            if here < len(together):
                ahead = changes[here]
                low = ahead.is_cuda and ahead.dtype != torch.float64
                changes[here] = self.orthogonalize(ahead.bfloat16() if low else ahead).to(ahead.dtype).contiguous()
            for owner, ((group, p), change) in enumerate(zip(together, changes)):
                if processes > 1:
                    dist.broadcast(change, owner)
                decayed = local(p) * (1 - group["lr"] * group["weight_decay"])
                moved = decayed.sub_(local(sliced(change, p)), alpha=step_size(group["lr"], p.shape))
                local(p).copy_(moved if skip is None else torch.where(skip, local(p), moved))

    def ahead(self, group: dict[str, Any], p: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Move the running mean of a matrix's gradients, and look one step ahead of it; whole."""
        if "momentum_buffer" not in self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        mean, grad = self.state[p]["momentum_buffer"], p.grad
        assert grad is not None
        moved = local(mean).lerp(local(grad), 1 - group["momentum"])
        local(mean).copy_(moved if skip is None else torch.where(skip, local(mean), moved))
        return whole(grad.lerp(mean, group["momentum"])).contiguous()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's own part of a tensor, in its place; all of it where nothing is cut up."""
    return tensor.to_local() if isinstance(tensor, dist.tensor.DTensor) else tensor


def sliced(change: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """`change` as `p` is: whole, or each process with its slice."""
    if not isinstance(p, dist.tensor.DTensor):
        return change
    like = torch.empty_like(p)
    assign(like, change)
    return like
