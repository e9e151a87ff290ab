"""Models and tokenizers in Hugging Face's format, in and out.

Read in this order: places.py (a folder, or a name on the hub), weights.py and dtypes.py (safetensors), names.py and
configs.py (what is called what), loading.py (into a model), pretrained.py and auto.py (the classes to use),
tokenizer.py, tokenizer_files.py, special_tokens.py, padding.py and chat.py (text to inputs), convert.py.
"""

from __future__ import annotations

from .architecture import ConfigurationError
from .auto import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)
from .places import NotFound
from .pretrained import Output, PretrainedModel
from .tokenizer import AutoTokenizer, PretrainedTokenizer
from .weights import WeightsError

__all__ = [
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification", "AutoTokenizer", "ConfigurationError", "NotFound", "Output",
    "PretrainedModel", "PretrainedTokenizer", "WeightsError",
]  # fmt: skip
