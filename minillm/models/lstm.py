"""A language model of long short-term memories (Hochreiter & Schmidhuber 1997), as they were before Transformers: the
layout of Zaremba et al. 2014, "Recurrent Neural Network Regularization", arXiv 1409.2329.

    ids (B, T) → token embedding (B, T, D) → n_layers × LSTM (B, T, H) → logits (B, T, V)

Where attention looks back at every past token, an LSTM keeps one state (h, c) per layer, of the same size however long
the text. It is exact, not a cache, and can be carried from one stretch of text to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn, ops
from ..ops import AnyTensor
from ..tensor import Parameter, Tensor
from .causal import CausalLM
from .checks import check_dropout, check_whole


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of an LSTM language model. Defaults are Zaremba's medium model with the vocabulary of GPT-2."""

    model_type: ClassVar[str] = "lstm"
    task: ClassVar[str] = "causal"

    vocab_size: int = 50257
    context: int = 256  # tokens per training sequence: gradients reach back at most this far
    n_layers: int = 2
    d_model: int = 650  # features of the token embedding
    d_hidden: int | None = None  # features of each layer's state; None: d_model
    tie_embeddings: bool = False  # the output layer is the token table again (Press & Wolf 2016, arXiv 1608.05859)
    dropout: float = 0.0  # on what goes into each layer and into the output; never between steps

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "context", "n_layers", "d_model", optional=("d_hidden",))
        check_dropout(self)
        if self.tie_embeddings and self.d_hidden not in (None, self.d_model):
            both = f"{self.d_hidden} and {self.d_model}: the same table reads and writes"
            raise ValueError(f"LSTMConfig: tie_embeddings needs d_hidden = d_model, not {both}.")

    @property
    def hidden_features(self) -> int:
        return self.d_hidden or self.d_model


class LSTMState:
    """What the layers remember of the tokens so far: h and c (B, H) each, None at first; cut off from the graph."""

    def __init__(self, n_layers: int) -> None:
        self.length = 0  # tokens seen
        self.layers: list[tuple[AnyTensor, AnyTensor] | None] = [None] * n_layers

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i of the batch what row rows[i] was. A row may be taken twice or left out: see beam.py."""
        self.layers = [None if state is None else (state[0][rows], state[1][rows]) for state in self.layers]


class Layer(nn.Module):
    """One LSTM over a sequence; parameters named and shaped as in torch.nn.LSTM, the four gates one below the other."""

    def __init__(self, n_in: int, n_hidden: int, rng: np.random.Generator) -> None:
        std = 1 / math.sqrt(3 * n_hidden)  # the variance of PyTorch's uniform numbers between ±1/√H
        self.weight_ih = nn.normal(rng, (4 * n_hidden, n_in), std)
        self.weight_hh = nn.normal(rng, (4 * n_hidden, n_hidden), std)
        bias = np.zeros(4 * n_hidden, dtype=np.float32)
        bias[n_hidden : 2 * n_hidden] = 1  # forget gates begin open, so that gradients flow (Jozefowicz et al. 2015)
        self.bias_ih = Parameter(bias)
        self.bias_hh = Parameter(np.zeros(4 * n_hidden, dtype=np.float32))

    def forward(
        self, x: AnyTensor, state: tuple[AnyTensor, AnyTensor] | None
    ) -> tuple[AnyTensor, AnyTensor, AnyTensor]:
        """x (B, T, in) and (h, c), each (B, H), None = zeros -> h at each step (B, T, H), the last h and c."""
        h, c = self.zeros(x.shape[0]) if state is None else state
        return ops.lstm(x, h, c, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def zeros(self, batch: int) -> tuple[AnyTensor, AnyTensor]:
        shape = (batch, self.weight_hh.shape[1])
        if isinstance(self.weight_hh, Tensor):
            zero: AnyTensor = Tensor(np.zeros(shape, self.weight_hh.dtype))
        else:
            zero = self.weight_hh.new_zeros(shape)
        return zero, zero


class LSTM(CausalLM):
    """A recurrent language model. `rng` draws the initial weights and, while training, dropout.

    Truncated backpropagation through time carries the state from one stretch of a text to the next, while gradients
    stop between them:

        state = model.new_cache()
        for ids, targets in stretches:  # consecutive in the text
            loss = model(ids, targets, cache=state)
    """

    def __init__(self, config: LSTMConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.config = config
        self.rng = rng
        hidden = config.hidden_features
        # Five times GPT's 0.02: no norm makes small features large again, and the gates would hardly see the token.
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, std=0.1, rng=rng)
        self.layers = [Layer(config.d_model if layer == 0 else hidden, hidden, rng) for layer in range(config.n_layers)]
        self.dropout = nn.Dropout(config.dropout, rng)
        self.head = None
        if not config.tie_embeddings:
            self.head = nn.Linear(hidden, config.vocab_size, bias=False, std=0.1, rng=rng)

    def hidden(self, ids: Any, cache: LSTMState | None = None, segments: Any = None) -> AnyTensor:
        """The last layer's features (B, T, H): what the head turns into logits."""
        if segments is not None:
            raise ValueError(
                "LSTM: segments cannot be kept apart: the state runs on from one text into the next. Give each text a "
                "row of its own."
            )
        x = self.dropout(self.token_embedding(ids))  # (B, T, D)
        for i, layer in enumerate(self.layers):
            x, h, c = layer(x, None if cache is None else cache.layers[i])
            x = self.dropout(x)
            if cache is not None:
                cache.layers[i] = h.detach(), c.detach()
        if cache is not None:
            cache.length += ids.shape[1]
        return x

    def new_cache(self, capacity: int | None = None) -> LSTMState:
        """The state before the first token. It has one size for any number of tokens: `capacity` limits nothing."""
        return LSTMState(self.config.n_layers)
