"""A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): Qwen3-MoE (arXiv 2505.09388), and gpt-oss (2025).

A Llama in most of whose layers the feed-forward network is one of many, its experts, of which each token takes the
`top_k` that a router scores highest for it. Parameters grow with the experts, work with `top_k` only.

    x (N, D) → router's scores (N, E) → the k largest → Σₖ weightₖ · expertₖ(x)

The router learns from the tokens it sends. With y = Σⱼ wⱼ fⱼ(x) over the chosen experts, and g = dL/dy,

    dL/dwⱼ = g · fⱼ(x)      w = softmax of the chosen scores l:   dL/dlⱼ = wⱼ (g · fⱼ(x) − g · y)

so the score of an expert rises where its answer serves the loss better than the mixture did. What was not chosen gets
no gradient: which are the k largest is a step function, flat wherever it has a slope (with `norm_weights` off, the
others' scores move too, but only since the softmax makes room). So nothing keeps the router from sending all tokens to
a few experts, which learn the more for it. `load_balance` does; while training, `balance` times it joins the loss.

gpt-oss has biases everywhere, attention sinks (llama.py), and a SwiGLU of its own (`ClampedMLP`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..settings import IGNORE
from .checks import check_positive, check_whole
from .llama import MLP, Block, Llama, LlamaConfig

Route = tuple[AnyTensor, Any]  # a layer's probabilities of the experts (N, E), and which were chosen (N, E), boolean


@dataclass(frozen=True)
class MoeConfig(LlamaConfig):
    """The shape of a mixture of experts: a Llama's, whose `d_ff` is that of layers without experts, and these. By
    default a token takes 2 of 8, as in Mixtral (arXiv 2401.04088), which together are as wide as `d_ff`."""

    model_type: ClassVar[str] = "moe"

    qk_norm: bool = True
    n_experts: int = 8
    top_k: int = 2  # experts that a token takes
    d_expert: int = 0  # features inside of an expert; 0: d_ff / top_k, filled in at once
    dense_layers: tuple[int, ...] | list[int] = ()  # numbers of layers that have one feed-forward network, as a Llama
    norm_weights: bool = True  # the chosen experts' weights sum to 1; False: they are their shares of all experts
    balance: float = 0.001  # how much `load_balance` counts in training
    router_bias: bool = False  # gpt-oss: True
    swiglu_limit: float = 0.0  # gpt-oss: 7.0, and its experts (ClampedMLP); 0: Llama's
    swiglu_alpha: float = 1.702  # of gpt-oss's experts

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "top_k")
        object.__setattr__(self, "d_expert", self.d_expert or max(1, self.d_ff // self.top_k))
        check_whole(self, "n_experts", "d_expert")
        check_positive(self, "swiglu_alpha")
        if self.top_k > self.n_experts:
            raise ValueError(f"MoeConfig: top_k = {self.top_k} must be at most n_experts = {self.n_experts}.")
        for name in ("balance", "swiglu_limit"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"MoeConfig: {name} = {getattr(self, name)} must be a number of at least 0.")
        layers = self.dense_layers
        good = isinstance(layers, (list, tuple)) and all(type(layer) is int for layer in layers)
        if not good or sorted(set(layers)) != list(layers) or not all(0 <= i < self.n_layers for i in layers):
            rule = f"must be numbers of layers below {self.n_layers}, in order"
            raise ValueError(f"MoeConfig: dense_layers = {layers!r:.80} {rule}.")
        object.__setattr__(self, "dense_layers", tuple(layers))


class ClampedMLP(nn.Module):
    """gpt-oss's expert: a SwiGLU whose gate has a gain α in its sigmoid and whose values are kept within ±limit, the
    second factor about 1. Gates and values stand in turn in one matrix."""

    def __init__(self, config: MoeConfig, out_std: float, rng: np.random.Generator) -> None:
        self.gate_up = nn.Linear(config.d_model, 2 * config.d_expert, rng=rng)
        self.down = nn.Linear(config.d_expert, config.d_model, std=out_std, rng=rng)
        self.limit, self.alpha = config.swiglu_limit, config.swiglu_alpha

    def forward(self, x: AnyTensor) -> AnyTensor:
        both = self.gate_up(x)  # (..., 2F)
        gate, up = both[..., ::2].clip(max=self.limit), both[..., 1::2].clip(-self.limit, self.limit)
        return self.down((up + 1.0) * gate * (gate * self.alpha).sigmoid())


class Mixture(nn.Module):
    """The feed-forward network of a layer with experts."""

    def __init__(self, config: MoeConfig, out_std: float, rng: np.random.Generator) -> None:
        own: Any = ClampedMLP if config.swiglu_limit else MLP
        shape = replace(config, d_ff=config.d_expert)
        self.router = nn.Linear(config.d_model, config.n_experts, bias=config.router_bias, rng=rng)
        self.experts = [own(shape, out_std, rng) for _ in range(config.n_experts)]
        self.numbers = np.arange(config.n_experts)
        self.top_k = config.top_k
        self.norm_weights = config.norm_weights

    def forward(self, x: AnyTensor) -> tuple[AnyTensor, Route]:
        """x (B, T, D) -> the mixture's (B, T, D), and how the tokens were sent."""
        tokens = x.reshape(-1, x.shape[-1])  # (N, D)
        scores = self.router(tokens)  # (N, E)
        p = ops.softmax(scores)
        if self.norm_weights:
            top, chosen = scores.topk(self.top_k)  # (N, k)
            weights = ops.softmax(top)  # which is p of the chosen, divided by its sum
        else:
            weights, chosen = p.topk(self.top_k)
        hits = (chosen[..., None] == self.numbers).any(1)  # (N, E)
        weights = weights.to(x.dtype)
        if ops.backend(x).is_compiling():
            y = self.all_take_all(tokens, weights, chosen)
        else:
            y = self.each_takes_its_own(tokens, weights, chosen, hits.sum(0).tolist())
        return y.reshape(*x.shape), (p, hits)

    def each_takes_its_own(self, tokens: AnyTensor, weights: AnyTensor, chosen: Any, counts: list[int]) -> AnyTensor:
        """Σₖ weightₖ · expertₖ(token) (N, D), each expert on the tokens sent to it: they are brought together, expert
        by expert, and the results back into the old order. `counts`: how many tokens each has. An expert without any
        runs in training all the same, on nothing, so that its gradient is 0 and not missing, which DDP would wait for.
        """
        N, k = chosen.shape
        order = chosen.reshape(-1).argsort()  # of the N·k choices, those of expert 0, of expert 1, ...
        gathered = ops.embedding(order // k, tokens)  # (N·k, D): a look-up of rows
        outs, start = [], 0
        for expert, n in zip(self.experts, counts):
            if n or self.training:
                outs.append(expert(gathered[start : start + n]))  # (n, D)
            start += n
        y = ops.embedding(order.argsort(), ops.cat(outs))  # (N·k, D), token by token
        return (y.reshape(N, k, -1) * weights[..., None]).sum(1)

    def all_take_all(self, tokens: AnyTensor, weights: AnyTensor, chosen: Any) -> AnyTensor:
        """The same for torch.compile, whose shapes must not depend on what the router says: every expert computes every
        token, and counts with its weight or 0. That is E/k times the work."""
        y = 0.0
        for number, expert in enumerate(self.experts):
            weight = (weights * (chosen == number)).sum(-1, keepdim=True)  # (N, 1)
            y = expert(tokens) * weight + y
        return y


class MoeBlock(Block):
    """Llama's block, with experts in the place of its feed-forward network; it says where the tokens went, too."""

    def feed_forward(self, config: Any, layer: int, out_std: float, rng: np.random.Generator) -> nn.Module:
        if layer in config.dense_layers:
            return MLP(config, out_std, rng)
        return Mixture(config, out_std, rng)

    def forward(self, x: AnyTensor, rope: Any, cache: Any = None, segments: Any = None) -> Any:
        x = x + self.dropout(self.attn(self.norm_1(x), rope=rope, cache=cache, segments=segments))
        out = self.mlp(self.norm_2(x))
        y, route = out if isinstance(out, tuple) else (out, None)
        return x + self.dropout(y), route


class Moe(Llama):
    """A decoder-only language model with experts. `rng` draws the initial weights and, while training, dropout."""

    config: MoeConfig
    block = MoeBlock

    def forward(
        self,
        ids: Any,
        targets: Any = None,
        *,
        cache: Any = None,
        segments: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> AnyTensor:
        """As every decoder's (causal.py). In training the loss has `balance` times `load_balance` in it, for each token
        that counts where they are summed up; it is left out where each has a loss of its own (`reduction` "none")."""
        h, routes = self.routed(ids, cache, segments)
        if targets is None:
            return self.logits(h)
        loss = self.loss(h, targets, reduction=reduction, label_smoothing=label_smoothing)
        if not (self.training and self.config.balance and routes) or reduction == "none":
            return loss
        extra = load_balance(routes) * self.config.balance
        return loss + (extra * (targets != IGNORE).sum() if reduction == "sum" else extra)

    def hidden(self, ids: Any, cache: Any = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, D): what the head turns into logits."""
        return self.routed(ids, cache, segments)[0]

    def routed(self, ids: Any, cache: Any = None, segments: Any = None) -> tuple[AnyTensor, list[Route]]:
        """The last layer's features (B, T, D), and of each layer with experts where the tokens went."""
        x, rope = self.start(ids, cache, segments)
        routes = []
        for block in self.blocks:
            x, route = block(x, rope, cache, segments)
            routes += [route] if route is not None else []
        return self.norm(x), routes


def load_balance(routes: Sequence[Route], counted: Any = None) -> AnyTensor:
    """E · Σₑ fₑ Pₑ over the experts, a scalar: k where all are used alike, up to E where k are.

    fₑ is how often a token chose expert e, Pₑ the mean of its probability, over the tokens of all layers: Fedus et al.
    2021, arXiv 2101.03961, equations 4 to 6, for k choices in the place of one, summed over the layers as transformers
    does it. f is counted, so that the gradient goes through P: dL/dpₙₑ = E fₑ / (tokens · layers), which pushes down
    what is chosen often. The tokens are those of one call: each micro-batch, thread and process balances its own.
    `counted` (N, 1), boolean: the tokens that count, the others being padding.
    """
    f: Any = 0
    P: Any = 0.0
    for p, hits in routes:
        if counted is not None:
            p, hits = p * counted, hits * counted
        f, P = f + hits.sum(0), p.sum(0) + P  # (E,)
    n_tokens, n_experts = routes[0][1].shape
    n = len(routes) * (n_tokens if counted is None else counted.sum())
    return (P * f).sum() * (n_experts / n**2)
