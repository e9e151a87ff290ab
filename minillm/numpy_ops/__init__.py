"""Each op of a language model on NumPy: forward and backward side by side, the derivation above them.

Read in this order what a GPT runs: linear.py (matrix product and table look-up), gelu.py, layer_norm.py, dropout.py,
attention.py, cross_entropy.py. The rest belongs to other models: erf.py (the exact GELU), activations.py, softmax.py,
rms_norm.py, rope.py, recurrent.py, losses.py, joining.py; and cores.py shares work among cores. Every backward has the
signature `backward(grad, needs, *saved) -> one gradient per input`, where grad = dL/d(output) and `needs[i]` says
whether input i wants a gradient at all. The functions are called through `minillm.ops`, which documents shapes, checks
them, and says what is the default.
"""

import numpy as np

from .activations import log_sigmoid, relu, silu, swiglu
from .attention import attention
from .cross_entropy import linear_cross_entropy
from .dropout import dropout
from .gelu import gelu
from .joining import cat, stack, where
from .layer_norm import layer_norm
from .linear import embedding, linear
from .losses import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from .recurrent import lstm, lstm_cell
from .rms_norm import rms_norm
from .rope import rope
from .row_losses import linear_row_losses as linear_row_losses  # what ops.linear_cross_entropy calls for "none"
from .softmax import log_softmax, softmax

__all__ = [
    "attention", "binary_cross_entropy_with_logits", "cat", "cross_entropy", "dropout", "embedding", "gelu",
    "layer_norm", "linear", "linear_cross_entropy", "log_sigmoid", "log_softmax", "lstm", "lstm_cell", "mse_loss",
    "relu", "rms_norm", "rope", "silu", "softmax", "stack", "swiglu", "where",
]  # fmt: skip

BOOL = np.dtype(bool)  # the type of a mask
INTEGERS = (np.dtype(np.int64), np.dtype(np.int32))  # and of segments


def is_compiling() -> bool:
    """Whether torch.compile is looking, to which no size may depend on numbers."""
    return False
