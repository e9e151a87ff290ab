"""Each op of a language model on NumPy: forward and backward side by side, the derivation above them.

Read in this order: linear.py (matrix product and table look-up), activations.py, normalization.py, losses.py,
attention.py, dropout.py, recurrent.py, joining.py. Every backward has the signature
`backward(grad, needs, *saved) -> one gradient per input`, where grad = dL/d(output) and `needs[i]` says whether input i
wants a gradient at all. The functions are called through `minillm.ops`, which documents shapes.
"""

from .activations import gelu, silu, swiglu
from .attention import attention, rope
from .dropout import dropout
from .joining import cat, stack, where
from .linear import embedding, linear
from .losses import binary_cross_entropy_with_logits, cross_entropy, linear_cross_entropy, mse_loss
from .normalization import layer_norm, log_softmax, rms_norm, softmax
from .recurrent import lstm, lstm_cell

__all__ = [
    "attention", "binary_cross_entropy_with_logits", "cat", "cross_entropy", "dropout", "embedding", "gelu",
    "layer_norm", "linear", "linear_cross_entropy", "log_softmax", "lstm", "lstm_cell", "mse_loss", "rms_norm", "rope",
    "silu", "softmax", "stack", "swiglu", "where",
]  # fmt: skip
