"""Models and tokenizers in Hugging Face's format, in and out. chapters/20_the_ecosystem.ipynb reads a folder byte by
byte.

Read in this order: architecture.py (what must be known of an architecture) and gpt2.py, llama.py, gemma.py, moe.py,
bert.py, bart.py (what is); places.py (a folder, or a name on the hub), configs.py and names.py (settings and tensors,
translated by those tables), weights.py and dtypes.py (safetensors), experts.py (those of a layer in one tensor),
loading.py (into a model), adapters.py (LoRA beside one), and checkpoint.py, the door through which all come in;
pretrained.py and auto.py (the classes to use) with config_view.py, output.py, inside.py, vocabulary.py and options.py
(what their users know from transformers), rules.py and generation.py (what generation_config.json asks for);
convert.py, gguf.py, gguf_reader.py, keras_models.py, keras_folder.py and hdf5.py (one form into another); tokenizer.py,
tokenizer_files.py, sentencepiece_folder.py, special_tokens.py and padding.py (text to inputs), conversation.py (a talk
with a model); lm_eval.py, which nothing here imports (a model for the lm-eval harness).

A new decoder: a file beside gpt2.py, and its row in configs.ARCHITECTURES.
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
from .output import Output
from .places import NotFound
from .pretrained import PretrainedModel
from .tokenizer import AutoTokenizer, PretrainedTokenizer
from .weights import WeightsError

__all__ = [
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification", "AutoTokenizer", "ConfigurationError", "NotFound", "Output",
    "PretrainedModel", "PretrainedTokenizer", "WeightsError",
]  # fmt: skip
