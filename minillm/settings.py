"""What is said once: the constants that several rooms share, and (to come) the settings of training and engines."""

from __future__ import annotations

IGNORE = -100  # a target that the loss leaves out (torch's ignore_index)
ATTENTION = ("auto", "reference", "sdpa", "triton")  # how attention is computed: see ops.attention
NEEDS_TORCH = ("sdpa", "triton")  # those of them that only PyTorch has
