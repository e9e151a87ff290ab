"""The decoders that a classifier can be made of: GPT and its relatives, which read a text from left to right."""

from __future__ import annotations

from .gpt import GPT, GPTConfig
from .llama import Llama, LlamaConfig

DECODERS = {"gpt": (GPTConfig, GPT), "llama": (LlamaConfig, Llama)}  # model_type -> (config class, model class)
