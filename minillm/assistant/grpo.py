"""GRPO: earn rewards that a program gives (Shao et al. 2024, arXiv 2402.03300, section 4.1), with what later papers
changed as switches.

Draw a group of G answers o₁ … o_G to a prompt q, reward each, r_i, and compare each with its group: no model has to
learn what an answer is worth. Answers better than their group become likelier, the others less likely:

    A_i = (r_i − mean r) / std r                                                      advantage, of all tokens of o_i
    ρ_t = π(o_t | q, o_<t) / π_old(o_t | q, o_<t)                                     π_old drew the answers
    L_t = −min(ρ_t A, clip(ρ_t, 1 − ε_low, 1 + ε_high) A) + β D_t

| switch          | values     | from                                                                              |
| --------------- | ---------- | --------------------------------------------------------------------------------- |
| `divide_by_std` | true       | GRPO. Groups that are nearly all right or all wrong weigh more                    |
|                 | false      | Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, section 3.2)                         |
| `length`        | "sequence" | GRPO: the mean over an answer's tokens, then over answers                         |
|                 | "token"    | DAPO (Yu et al. 2025, arXiv 2503.14476, section 3.3): over all tokens of a step   |
|                 | "constant" | Dr. GRPO: the sum over an answer's tokens, divided by the longest that is allowed |
| `clip_high`     | = clip_low | GRPO                                                                              |
|                 | > clip_low | DAPO's "clip-higher" (section 3.1): unlikely tokens have more room to grow        |
| `mask_cut`      | true       | DAPO's overlong filtering (section 3.4): answers that were cut off teach nothing  |
| `kl`            | β          | GRPO's pull back to the model at the start; DAPO and Dr. GRPO: 0, no reference    |
| `inner_epochs`  | μ          | steps are taken μ times over the same answers (GRPO, algorithm 1)                 |

Why the loss starts at 0 and the gradient does not
--------------------------------------------------
At the first step π is π_old, so every ρ_t is 1 and nothing is clipped. The loss is then −mean A, and the advantages of
a group sum to 0: the loss is 0 (each answer counting alike, as in "sequence"; with the two others −Σ |o_i| A_i over a
constant, which is 0 up to how length and reward go together). But 1 is only the ratio's value. Its derivative is

    ∂ρ/∂θ = ρ ∂ ln π/∂θ = ∂ ln π/∂θ   at ρ = 1,      so      ∂L_t/∂θ = −A ∂ ln π(o_t | q, o_<t)/∂θ,

the policy gradient (REINFORCE, Williams 1992, Machine Learning 8, with the group's mean as its baseline). Tokens of
good answers are pushed up, of bad ones down; these do not cancel, for they are derivatives of different things. With
one step for each batch of answers the loss is the same 0 at every step, however well the run goes: it is no measure of
anything (chapters/13_dialogue.ipynb shows both). With several it goes below 0, which says how far π has moved on these
answers, not whether it has got better. What to watch instead:

- `reward`: should rise; on validation prompts, answered greedily, above all
- `equal_groups`: groups in which all rewards are equal have no advantage and teach nothing. Near 1: the prompts are
  too easy or too hard
- `entropy` of the next token: falls as the model makes up its mind. Near 0 early: all answers are the same
- `response_length` and `ended`: answers that grow until they are cut off
- `ratio`: 1 at the first step (but for rounding, and for dropout, which is best left off)
- `clip_share`: 0 with one step a batch; above some 0.2, smaller steps or fewer `inner_epochs`
- `kl`: how far the model has gone from where it began; a jump comes before nonsense that happens to be rewarded
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import ops
from ..data import count_targets
from ..ops import AnyTensor
from ..settings import IGNORE, check_types

Array = np.ndarray
STD_EPS = 1e-4  # added to a group's standard deviation: rewards that differ by rounding make no advantage of 1
NOTHING = 1e-30  # what no token at all counts as: the sum of none, 0, may then be divided by it


@dataclass(frozen=True)
class GRPOConfig:
    """How answers are drawn and what is learned from them: see the top of grpo.py."""

    reward: str = ""  # FILE.py:function, several with commas, or a reward run; empty: the built-in task's
    group: int = 8  # answers to each prompt, which are compared with each other
    prompts_per_step: int = 8  # prompts answered at a time; times group: the rows of a batch of rollouts
    inner_epochs: int = 1  # passes over each batch of rollouts
    max_new_tokens: int = 64  # of an answer, its end included
    temperature: float = 1.0  # of the draw; it is this distribution that learns
    clip_low: float = 0.2  # a token that became less likely than 1 - clip_low times is pushed down no further
    clip_high: float = 0.2  # a token that became likelier than 1 + clip_high times is pushed up no further; DAPO: 0.28
    divide_by_std: bool = True  # advantages in units of their group's standard deviation; Dr. GRPO: false
    length: Literal["sequence", "token", "constant"] = "token"  # what is averaged: GRPO's, DAPO's, Dr. GRPO's way
    kl: float = 0.0  # weight of the divergence from the model at the start; 0: none
    mask_cut: bool = False  # leave out of the loss answers that were cut off at max_new_tokens

    def __post_init__(self) -> None:
        check_types(self)
        if self.group < 2:
            raise ValueError(f"group must be at least 2, not {self.group}: answers are compared with their group.")
        for name in ("prompts_per_step", "inner_epochs", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, not {self.temperature}: greedy answers are all the same, and a group of "
                "equals teaches nothing."
            )
        if not 0 <= self.clip_low < 1:
            raise ValueError(f"clip_low must be at least 0 and below 1, not {self.clip_low}.")
        for name in ("clip_high", "kl"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")

    @property
    def rows(self) -> int:
        """Answers in a batch of rollouts."""
        return self.prompts_per_step * self.group


# --- the formulas -----------------------------------------------------------------------------------------------------


def advantages(rewards: Array, divide_by_std: bool = True) -> Array:
    """A_i = r_i − mean r, divided by std r (+ 1e-4) or not; exactly 0 where all rewards of a group are equal.

    rewards (P, G), a row for each group -> (P, G) float64. std is that of the group itself, divided by G. Shao et al.
    2024, arXiv 2402.03300, section 4.1.2; without the division Liu et al. 2025, arXiv 2503.20783, section 3.2.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)  # (P, G)
    if divide_by_std:
        centred = centred / (rewards.std(axis=1, keepdims=True) + STD_EPS)
    return np.where(np.ptp(rewards, axis=1, keepdims=True) == 0, 0.0, centred)


def clipped_objective(
    log_probs: AnyTensor, old: AnyTensor, advantage: AnyTensor, low: float, high: float
) -> tuple[AnyTensor, AnyTensor, Any]:
    """min(ρA, clip(ρ, 1 − low, 1 + high) A) with ρ = e^(log_probs − old), each (B, T); advantage (B, 1).

    Returns it, ρ, and where the clip binds, booleans: there the objective is constant and its gradient 0. Schulman et
    al. 2017, arXiv 1707.06347, equation 7; two bounds: Yu et al. 2025, arXiv 2503.14476, equation 10.
    """
    ratio = (log_probs - old).exp()  # (B, T)
    free, clipped = ratio * advantage, ratio.clip(1 - low, 1 + high) * advantage  # (B, T)
    binds = clipped < free
    return ops.where(binds, clipped, free), ratio, binds


def kl_estimate(log_probs: AnyTensor, reference: AnyTensor) -> AnyTensor:
    """D = π_ref/π − ln(π_ref/π) − 1 for each token drawn from π: never negative, its mean is KL(π ‖ π_ref).

    Both (B, T). Schulman 2020, "Approximating KL divergence", the estimator k3; Shao et al. 2024, equation 4.
    """
    log_ratio = reference - log_probs
    return log_ratio.exp() - log_ratio - 1


def over_rows(values: AnyTensor, counts: Any, length: str, longest: int) -> AnyTensor:
    """The sum over rows of what each row adds: values (B, T) of tokens, of which those with True in `counts` (B, T)
    count -> a scalar. `count_rows` is what it is to be divided by.

        "sequence"   1/N Σ_i 1/|o_i| Σ_t L_it      Shao et al. 2024, equation 3
        "token"      1/(Σ_i |o_i|) Σ_i Σ_t L_it    Yu et al. 2025, equation 8
        "constant"   1/N Σ_i 1/longest Σ_t L_it    Liu et al. 2025, section 3.2
    """
    sums = (values * counts).sum(1)  # (B,)
    if length == "sequence":
        sums = sums / counts.sum(1).clip(min=1)
    total = sums.sum()
    return total * (1 / longest) if length == "constant" else total


def count_rows(targets: Array, length: str) -> float:
    """What the sums of `over_rows` are divided by: rows (N), or for "token" their tokens."""
    return float(count_targets(targets) or NOTHING) if length == "token" else float(len(targets))


# --- the loss of a model ----------------------------------------------------------------------------------------------


def features(model: Any, ids: Any, temperature: float = 1.0) -> AnyTensor:
    """The last features (B, T, D) of ids (B, T), divided by the temperature: logits are linear in them, so that these
    are divided by it, too."""
    h = model.hidden(ids)
    return h if temperature == 1 else h * (1 / temperature)


def token_log_probs(model: Any, ids: Any, targets: Any, temperature: float = 1.0) -> AnyTensor:
    """ln π(target) for each place, (B, T), 0 where it is −100: ids and targets (B, T)."""
    return -model.loss(features(model, ids, temperature), targets, reduction="none")


@dataclass(frozen=True)
class GRPOLoss:
    """The loss of a model on answers, for an engine. A batch, a row for each answer (RolloutBatches makes it):

    ids (B, T), targets (B, T) int64     prompt and answer; the next token of each place, −100 outside of the answer
    advantages (B,)                      of the answers
    old (B, T)                           log-probabilities of the targets under the model that drew them
    reference (B, T)                     the same under the model at the start; only with `kl`

    Floats have the weights' dtype. Figures, over the same tokens as the loss: `ratio`, `clip_share` (of tokens, where
    the clip binds), and with `kl` the estimate `kl`.
    """

    config: GRPOConfig

    def __call__(self, model: Any, *batch: Any) -> tuple[AnyTensor, dict[str, AnyTensor]]:
        c = self.config
        ids, targets, advantage, old, *rest = batch
        log_probs = token_log_probs(model, ids, targets, c.temperature)  # (B, T)
        objective, ratio, binds = clipped_objective(log_probs, old, advantage[:, None], c.clip_low, c.clip_high)
        loss, counts = -objective, targets != IGNORE
        figure = "sequence" if c.length == "constant" else c.length  # a share is one of tokens, not of the longest
        shares = ops.where(binds, 1.0, log_probs.detach() * 0)  # (B, T), of the losses' dtype
        figures = {
            "ratio": over_rows(ratio.detach(), counts, figure, c.max_new_tokens),
            "clip_share": over_rows(shares, counts, figure, c.max_new_tokens),
        }
        if c.kl:
            divergence = kl_estimate(log_probs, rest[0])  # (B, T)
            figures["kl"] = over_rows(divergence.detach(), counts, figure, c.max_new_tokens)
            loss = loss + divergence * c.kl
        return over_rows(loss, counts, c.length, c.max_new_tokens), figures

    def count(self, *batch: Array) -> float:
        return count_rows(batch[1], self.config.length)
