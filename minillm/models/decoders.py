"""The decoders that a classifier can be made of: GPT and its relatives, which read a text from left to right."""

from __future__ import annotations

from .gemma import Gemma, GemmaConfig
from .gpt import GPT, GPTConfig
from .llama import Llama, LlamaConfig
from .moe import Moe, MoeConfig

DECODERS = {  # model_type -> (config class, model class)
    "gpt": (GPTConfig, GPT), "llama": (LlamaConfig, Llama), "gemma": (GemmaConfig, Gemma),
    "moe": (MoeConfig, Moe),
}  # fmt: skip
