"""Distillation: a small model, the student, learns from what a larger one, its teacher, says of each next token.

| method      | whose answers                     | what is learned at each token                                     |
| ----------- | --------------------------------- | ----------------------------------------------------------------- |
| `logits`    | those of the examples             | the teacher's distribution (Hinton et al. 2015, arXiv 1503.02531) |
| `on-policy` | the student's own, written anew   | the teacher's distribution (GKD, Agarwal et al. 2023, 2306.13649) |
| `sequence`  | the teacher's, written beforehand | the answer's token, as in SFT (Kim & Rush 2016, arXiv 1606.07947) |

A distribution says more than one right token does: which others would have been nearly as good. The first two methods
compare it id by id, and need one tokenizer for both models; the third needs the teacher's text only. The answers that
`on-policy` and `sequence` need are written in distill_data.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import ops
from ..data import count_targets
from ..models.segments import with_offsets
from ..ops import AnyTensor
from ..settings import IGNORE
from ..tensor import Tensor, no_grad
from ..tokenizers import Tokenizer

LARGEST = 1e30  # a logit below −1e30 is as good as −∞, but can be multiplied by a probability of 0


@dataclass(frozen=True)
class DistillConfig:
    """What is learned from the teacher, and from whose answers."""

    teacher: str = ""  # folder (a run, a checkpoint of either format) or hub name of the model to learn from
    layers: str = ""  # a new student begins as these layers of its teacher, "0,1,3", and has its shape; "": as [model]
    method: Literal["logits", "on-policy", "sequence"] = (
        "logits"  # answers of the examples, of the student, of the teacher
    )
    divergence: Literal["forward", "reverse", "js"] = (
        "forward"  # KL(teacher, student), KL(student, teacher), or between them
    )
    beta: float = 0.5  # of js: near 0 it is like forward, near 1 like reverse
    temperature: float = 1.0  # both models' logits are divided by it; above 1, unlikely tokens count for more
    hard: float = 0.0  # share of the examples' own tokens in the loss, beside the teacher's distributions
    on_policy_share: float = 1.0  # of on-policy: share of the batches that the student writes itself
    max_new_tokens: int = 128  # of on-policy and sequence: longest answer
    sampling_temperature: float = 1.0  # of on-policy and sequence: at which answers are drawn; 0: the likeliest token

    def __post_init__(self) -> None:
        if self.layers and not re.fullmatch(r"\d+( *, *\d+)*", self.layers):
            raise ValueError(f"layers = {self.layers!r} must be numbers of the teacher's layers, from 0 on: '0,1,3'.")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta = {self.beta} must lie between 0 and 1: its limits are 'forward' and 'reverse'.")
        for name, value, lowest in (
            ("temperature", self.temperature, 0.01),
            ("sampling_temperature", self.sampling_temperature, 0),
        ):
            if not lowest <= value < math.inf:
                raise ValueError(f"{name} = {value} must be a finite number, at least {lowest}.")
        for name, value in (("hard", self.hard), ("on_policy_share", self.on_policy_share)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} must be from 0 to 1: it is a share.")
        if self.method == "on-policy" and self.hard and self.on_policy_share:
            raise ValueError(
                f"hard = {self.hard} would teach the student its own tokens where it writes the answers itself: with "
                "method = 'on-policy' it must be 0."
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens = {self.max_new_tokens} must be at least 1.")


# --- the formulas -----------------------------------------------------------------------------------------------------

# Teacher P = softmax(z/τ) and student Q = softmax(x/τ), over the V ids that may come next:
#   forward   KL(P‖Q) = Σᵢ Pᵢ ln (Pᵢ/Qᵢ)      large where Q lacks what P has: the student covers all that P may say
#   reverse   KL(Q‖P)                         large where Q has what P lacks: it keeps to what P says often
#   js        β KL(P‖M) + (1 − β) KL(Q‖M),  M = βP + (1 − β)Q     for β → 0 it is β forward, for β → 1 (1 − β) reverse
# (GKD, equation 1) with 0 ln 0 = 0. The forward one's gradient is (Q − P)/τ, and for large τ  Q − P ≈ (x − z)/(Vτ)  of
# centred logits (Hinton, section 2.1): it shrinks like 1/τ², as do the others' near P. So the loss takes τ² times the
# divergence: a sum with the hard targets' cross-entropy, whose τ is 1, keeps its proportions when τ changes, and so
# does the learning rate. At τ = 1 the factor is 1.


def divergence(
    teacher: AnyTensor, student: AnyTensor, kind: str = "forward", *, beta: float = 0.5, temperature: float = 1.0
) -> AnyTensor:
    """The divergence in nats for each row of logits (..., V) -> (...), without the factor τ². −∞ is a probability of 0;
    where a divergence would be infinite it is as large as 1e30 · Qᵢ (or Pᵢ). Raises ValueError for another `kind`."""
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)  # (..., V)
    if kind == "forward":
        return kl(log_p, log_q)
    if kind == "reverse":
        return kl(log_q, log_p)
    if kind == "js":
        log_m = log_mixture(log_p, log_q, beta)
        return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    raise ValueError(f"divergence: kind must be 'forward', 'reverse' or 'js', not {kind!r}.")


def log_probabilities(logits: AnyTensor, temperature: float = 1.0) -> AnyTensor:
    """ln softmax(logits/τ), finite: an impossible id has −1e30."""
    if logits.dtype.itemsize < 4:
        logits = logits.float()  # torch's 16-bit floats
    if temperature != 1:
        logits = logits * (1 / temperature)
    return ops.log_softmax(logits.clip(min=-LARGEST))


def kl(log_p: AnyTensor, log_q: AnyTensor) -> AnyTensor:
    """KL(P‖Q) of finite log-probabilities (..., V) -> (...)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def log_mixture(log_p: AnyTensor, log_q: AnyTensor, beta: float) -> AnyTensor:
    """ln (βP + (1 − β)Q), by the larger of the two: both may be too small for a float."""
    larger = ops.where(log_p > log_q, log_p, log_q).detach()  # it cancels, and so does its gradient
    return larger + (beta * (log_p - larger).exp() + (1 - beta) * (log_q - larger).exp()).log()


# --- the loss ---------------------------------------------------------------------------------------------------------


class DistillLoss:
    """The loss of a student's batch: ids (B, T), of packed rows (packing.py) then segments (B, T) and starts (B, K),
    and targets (B, T), −100 where a token does not count:

        (1 − hard) τ² divergence(teacher, student) + hard · cross-entropy(targets)

    summed over the targets that count. `teacher` is a causal model on NumPy, which is put into evaluation mode, and of
    which a port is made for a student on torch, once; or one on torch. It must not be the student itself. Both models
    read the same ids (`check_teacher`); if one has more rows than the other, as padding, the divergence is over the ids
    that both have. Any number of threads may call it.

    Figures: "kl", KL(teacher‖student) at τ = 1 whatever is trained, "cross_entropy" of the targets, and "agreement",
    how often both models find the same token the likeliest.
    """

    def __init__(self, teacher: Any, config: DistillConfig) -> None:
        self.config = config
        self.teacher = teacher.eval()
        self.ported: Any = None  # the teacher on torch

    def __call__(self, model: Any, *batch: Any) -> tuple[AnyTensor, dict[str, AnyTensor]]:
        config = self.config
        targets = batch[-1]
        soft = self.teacher_logits(model, *batch)  # (N, V of the teacher)
        logits = counted_logits(model, *batch)  # (N, V)
        common = min(logits.shape[-1], soft.shape[-1])
        student, soft = logits[:, :common], soft[:, :common].to(logits.dtype)
        targets = counted(targets, targets)  # (N,)
        kept = targets != IGNORE

        distance = divergence(soft, student, config.divergence, beta=config.beta, temperature=config.temperature)
        hard = ops.cross_entropy(logits if config.hard else logits.detach(), targets, reduction="sum")
        loss = (1 - config.hard) * config.temperature**2 * ops.where(kept, distance, 0.0).sum()
        if config.hard:
            loss = loss + config.hard * hard
        if (config.divergence, config.temperature) != ("forward", 1):
            distance = divergence(soft, student.detach())
        agree = (student.detach().max(-1)[1] == soft.max(-1)[1]) & kept
        figures = {"kl": ops.where(kept, distance.detach(), 0.0).sum(), "cross_entropy": hard.detach()}
        return loss, figures | {"agreement": agree.sum() * 1.0}

    def count(self, *batch: np.ndarray) -> float:
        """Targets that count."""
        return count_targets(batch[-1])

    def teacher_logits(self, model: Any, *batch: Any) -> AnyTensor:
        """What the teacher says at the counted places, on the student's engine and without a graph."""
        if isinstance(next(iter(model.parameters())), Tensor):
            with no_grad():
                return counted_logits(self.teacher, *batch)
        if self.ported is None:
            self.prepare(model)
        return counted_logits(self.ported, *batch)

    def prepare(self, model: Any) -> None:
        """Port the teacher to the device and the dtype of `model`, if that is on torch, and freeze the port. To be
        called before a step is compiled; one that is not does it by itself."""
        first = next(iter(model.parameters()))
        if isinstance(first, Tensor) or self.ported is not None:
            return
        if isinstance(next(iter(self.teacher.parameters())), Tensor):
            from ..port import to_torch

            ported = to_torch(self.teacher, device=first.device, dtype=first.dtype)
        else:
            ported = self.teacher.to(first.device)
        self.ported = ported.eval().requires_grad_(False)


def counted_logits(model: Any, ids: Any, *packed_targets: Any) -> AnyTensor:
    """The logits (N, V) at the counted places of a batch: ids, maybe segments and starts, targets."""
    *packed, targets = packed_targets
    segments = with_offsets(*packed) if packed else None
    return model.logits(counted(model.hidden(ids, None, segments), targets))


def counted(x: Any, targets: Any) -> Any:
    """The rows (N, ...) of x (B, T, ...) whose targets count: the head has nothing to do for others. On torch it is all
    rows, N = B · T: a compiled step must know its shapes beforehand."""
    if isinstance(targets, np.ndarray):
        return x[targets != IGNORE]
    return x.flatten(0, 1)


def check_teacher(teacher: Any, tokenizer: Tokenizer, student: Any, student_tokenizer: Tokenizer, method: str) -> None:
    """Raise ValueError unless a model of the config `teacher`, with its tokenizer, can teach one of the config
    `student` by this method."""
    if teacher.task != "causal":
        raise ValueError(f"the teacher must be a model that continues a text, as a gpt or llama, not a {teacher.task}.")
    if method == "sequence":
        return  # the student reads the text alone
    if tokenizer.fingerprint() != student_tokenizer.fingerprint():
        raise ValueError(
            f"method = {method!r} compares the two models id by id, but the teacher's tokenizer "
            f"({tokenizer.fingerprint()}, {tokenizer.vocab_size:,} ids) is another than the student's "
            f"({student_tokenizer.fingerprint()}, {student_tokenizer.vocab_size:,} ids). Begin with a student that has "
            "the teacher's tokenizer, or learn from its text, with method = 'sequence'."
        )
    if teacher.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"the teacher has {teacher.vocab_size:,} ids, its tokenizer {tokenizer.vocab_size:,}: they do not belong "
            "together."
        )
    if teacher.context < student.context:
        raise ValueError(
            f"the teacher takes {teacher.context:,} tokens, the student {student.context:,}: it could not read the "
            "longest rows. Take a student with a context no longer than the teacher's, or method = 'sequence'."
        )
