"""Learning from preferences: of two answers to a prompt, make the one that people chose likelier than the other.

A pair is a prompt x, a chosen answer y⁺ and a rejected one y⁻. π(y|x) is the probability that the model gives a whole
answer, the product of its tokens'; πᵣ(y|x) that of the reference, which is the model as it was at the start and stays
so. What follows works on their logarithms, a number for each answer: every loss is a few lines, its paper's formula
above it. All share one idea: r(x, y) = β ln π(y|x)/πᵣ(y|x), how much likelier an answer has become, is a reward without
a reward model; a larger β holds the model nearer to its reference.

    DPO     the difference of the two rewards, as Bradley and Terry's chance that y⁺ wins
    IPO     the same difference should be a fixed number, so that it cannot grow for ever
    KTO     each answer for itself, against what an average answer gains: people feel losses more than gains
    SimPO   no reference; the rewards are per token, and y⁺ should lead by γ
    ORPO    no reference; supervised learning of y⁺, and a term that compares odds

How an example becomes a batch, and where πᵣ comes from: pairs.py, reference.py. chapters/13_dialogue.ipynb derives DPO
in three steps and checks where it starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from .. import ops
from ..ops import AnyTensor
from ..settings import IGNORE
from ..tensor import Tensor

LOSSES = ("dpo", "ipo", "kto", "orpo", "simpo")
WITH_REFERENCE = ("dpo", "ipo", "kto")


# --- the formulas: tensors (B,) of either engine in, one loss for each pair (B,) out ----------------------------------

# DPO, Rafailov et al. 2023, arXiv 2305.18290, equation 7, with the labels smoothed as in Mitchell 2023, "A note on DPO
# with noisy preferences": a share ε of the choices is taken to be wrong.
#   h = ln π(y⁺|x)/πᵣ(y⁺|x) − ln π(y⁻|x)/πᵣ(y⁻|x)
#   ℓ = −(1 − ε) ln σ(βh) − ε ln σ(−βh)


def dpo(
    chosen: AnyTensor,
    rejected: AnyTensor,
    ref_chosen: AnyTensor,
    ref_rejected: AnyTensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> AnyTensor:
    """From log-probabilities of whole answers."""
    h = (chosen - ref_chosen) - (rejected - ref_rejected)
    right, wrong = ops.log_sigmoid(h * beta), ops.log_sigmoid(h * -beta)
    return right * (label_smoothing - 1) - wrong * label_smoothing


# IPO, Azar et al. 2023, arXiv 2310.12036, equation 17, whose τ is β here; h as above.
#   ℓ = (h − 1/(2β))²
# The paper's π is of a whole answer. Long answers then differ by hundreds of nats for small changes of the model, and
# 1/(2β) would be nothing to them: as TRL does, on the authors' advice, the caller gives means per token.


def ipo(
    chosen: AnyTensor, rejected: AnyTensor, ref_chosen: AnyTensor, ref_rejected: AnyTensor, beta: float
) -> AnyTensor:
    """From log-probabilities per token, the mean of each answer's."""
    h = (chosen - ref_chosen) - (rejected - ref_rejected)
    miss = h - 1 / (2 * beta)
    return miss * miss


# KTO, Ethayarajh et al. 2024, arXiv 2402.01306, equation 8. z is what the model has moved away from the reference,
# E[KL(π‖πᵣ)], estimated as max(0, mean of ln π(y′|x)/πᵣ(y′|x)) over prompts with answers y′ to others (section 4.1); it
# gets no gradient.
#   r(y) = ln π(y|x)/πᵣ(y|x)
#   ℓ(y⁺) = λ⁺ − λ⁺ σ(β (r(y⁺) − z)),   ℓ(y⁻) = λ⁻ − λ⁻ σ(β (z − r(y⁻)))
# The loss of a pair is the mean of the two. It needs no pairs: a good answer here, a bad one there would do.


def kto(
    chosen: AnyTensor,
    rejected: AnyTensor,
    ref_chosen: AnyTensor,
    ref_rejected: AnyTensor,
    kl: AnyTensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> AnyTensor:
    """From log-probabilities of whole answers, and z (`kl`), a number or (B,)."""
    desirable = ((kl - (chosen - ref_chosen)) * beta).sigmoid()  # 1 − σ(β (r − z)) = σ(β (z − r))
    undesirable = (((rejected - ref_rejected) - kl) * beta).sigmoid()
    return desirable * (desirable_weight / 2) + undesirable * (undesirable_weight / 2)


# SimPO, Meng et al. 2024, arXiv 2405.14734, equation 6, with the mean per token m(y) = ln π(y|x) / |y|:
#   ℓ = −ln σ(β m(y⁺) − β m(y⁻) − γ)


def simpo(chosen: AnyTensor, rejected: AnyTensor, beta: float, gamma: float) -> AnyTensor:
    """From log-probabilities per token, the mean of each answer's."""
    return -ops.log_sigmoid((chosen - rejected) * beta - gamma)


# ORPO, Hong et al. 2024, arXiv 2403.07691, equations 4 to 7, with P(y|x) = e^m(y), the geometric mean of the tokens':
#   odds(y) = P / (1 − P),   ℓ = −m(y⁺) − λ ln σ(ln odds(y⁺)/odds(y⁻))


def orpo(chosen: AnyTensor, rejected: AnyTensor, odds_weight: float) -> AnyTensor:
    """From log-probabilities per token, the mean of each answer's; `odds_weight` is λ."""
    return -chosen - ops.log_sigmoid(log_odds(chosen) - log_odds(rejected)) * odds_weight


def log_odds(x: AnyTensor) -> AnyTensor:
    """ln e^x / (1 − e^x) of log-probabilities x < 0. With t = tanh(−x/2), 1 − e^x = 2t / (1 + t), where nothing is
    lost near 0. A probability that is rounded to 1 has no odds: it counts as one of 1 − 10⁻⁷, and learns no more."""
    x = x.clip(max=-1e-7)
    t = (x * -0.5).tanh()
    return x - (t.log() - (t + 1).log() + math.log(2))


# --- the loss of a batch ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreferenceConfig:
    """Which loss, and its constants."""

    loss: Literal["dpo", "ipo", "kto", "orpo", "simpo"] = "dpo"  # the last two need no reference model
    beta: float = 0.0  # how near to the reference the model is held (IPO's tau); 0: 0.1, for simpo 2; orpo has none
    label_smoothing: float = 0.0  # of dpo: the share of choices that is taken to be wrong
    gamma: float = 1.0  # of simpo: by how much the chosen answer should lead, in units of its reward
    odds_weight: float = 0.1  # of orpo: its lambda, how much the odds count beside the likelihood of the chosen answer
    desirable_weight: float = 1.0  # of kto: how much chosen answers count
    undesirable_weight: float = 1.0  # of kto: how much rejected answers count
    center: float = 0.0  # of a reward model: how strongly the rewards of a pair are drawn to both sides of 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss = {self.loss!r} must be one of {', '.join(LOSSES)}.")
        for name in ("beta", "gamma", "odds_weight", "desirable_weight", "undesirable_weight", "center"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more, and finite.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing = {self.label_smoothing} must be at least 0 and below 0.5: from a half on the other "
                "answer would be the better one."
            )
        if self.beta and self.loss == "orpo":
            raise ValueError(f"beta = {self.beta} has no meaning for orpo: leave it out, or set odds_weight.")
        if self.label_smoothing and self.loss != "dpo":
            raise ValueError(f"label_smoothing is for dpo, and has no meaning for {self.loss}: leave it out.")

    @property
    def strength(self) -> float:
        """β, as the loss takes it: what a reward is multiplied by."""
        return {"orpo": 1.0}.get(self.loss) or self.beta or {"simpo": 2.0}.get(self.loss, 0.1)

    @property
    def per_token(self) -> bool:
        """Whether an answer counts by the mean of its tokens' log-probabilities, not by their sum."""
        return self.loss in ("ipo", "simpo", "orpo")

    @property
    def has_reference(self) -> bool:
        return self.loss in WITH_REFERENCE


class PreferenceLoss:
    """What an engine trains with (`Loss` in engines/protocol.py): a batch of pairs -> (sum of losses, figures).

    A batch is ids (B, 2, T) and targets (B, 2, T), −100 where no answer stands: first the chosen answer, then the
    rejected one, each behind its prompt; for a loss with a reference, its log-probabilities (B, 2) of the two; for KTO
    kl (B,), z in every row: it is of the batch, and must not depend on which thread has which rows.

    Both answers go through the model in one forward pass, of 2B rows. Figures are sums over the pairs: `margin`, the
    reward of the chosen answer less that of the rejected one, `accuracy`, 1 where that is above 0, the two rewards, and
    the two log-probabilities. Where there is no reference, a reward is β ln π(y|x) / |y|.
    """

    def __init__(self, config: PreferenceConfig) -> None:
        self.config = config

    def count(self, *batch: Any) -> float:
        """Pairs."""
        return len(batch[0])

    def __call__(self, model: Any, *batch: Any) -> tuple[AnyTensor, dict[str, AnyTensor]]:
        config = self.config
        ids, targets, *given = batch
        log_probs = answer_log_probs(model, ids, targets)  # (B, 2)
        scale = 1 / constant((targets != IGNORE).sum(-1), log_probs) if config.per_token else 1.0
        policy = log_probs * scale
        chosen, rejected = policy[:, 0], policy[:, 1]  # (B,)
        if not config.has_reference:
            gains = policy
            losses = (
                simpo(chosen, rejected, config.strength, config.gamma)
                if config.loss == "simpo"
                else orpo(chosen, rejected, config.odds_weight)
            )
        else:
            before = constant(given[0], log_probs) * scale  # (B, 2)
            gains = policy - before
            pair = (chosen, rejected, before[:, 0], before[:, 1])
            if config.loss == "dpo":
                losses = dpo(*pair, config.strength, config.label_smoothing)
            elif config.loss == "ipo":
                losses = ipo(*pair, config.strength)
            else:
                weights = (config.desirable_weight, config.undesirable_weight)
                losses = kto(*pair, constant(given[1], log_probs), config.strength, *weights)
        rewards = gains.detach() * config.strength  # (B, 2)
        return losses.sum(), figures(rewards, log_probs.detach())


def figures(rewards: AnyTensor, log_probs: AnyTensor | None = None) -> dict[str, AnyTensor]:
    """What is looked at in rewards (B, 2), as sums over the pairs: see PreferenceLoss."""
    margin = rewards[:, 0] - rewards[:, 1]  # (B,)
    found = {
        "margin": margin.sum(),
        "accuracy": (margin > 0).sum(),
        "chosen_reward": rewards[:, 0].sum(),
        "rejected_reward": rewards[:, 1].sum(),
    }
    if log_probs is not None:
        found |= {"chosen_log_prob": log_probs[:, 0].sum(), "rejected_log_prob": log_probs[:, 1].sum()}
    return found


def answer_log_probs(model: Any, ids: Any, targets: Any) -> AnyTensor:
    """ln π(y|x) (...), the sum over an answer's tokens, of ids and targets (..., T), −100 where no answer stands."""
    *rows, T = ids.shape
    ids, targets = ids.reshape(-1, T), targets.reshape(-1, T)
    losses = model.loss(model.hidden(ids), targets, reduction="none")  # (rows, T)
    return -losses.sum(1).reshape(*rows)


def constant(array: Any, like: AnyTensor) -> AnyTensor:
    """A batch's numbers as a tensor of the engine and the precision of `like`."""
    return Tensor(array.astype(like.dtype)) if isinstance(like, Tensor) else array.to(like.dtype)
