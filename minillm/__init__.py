"""minillm: learn how a language model works in NumPy, then train one for real with the same code.

Flat is the book. Read in this order: tensor.py (the graph and backward), tensor_methods.py and tensor_functions.py
(each method beside its derivative), numpy_ops (the ops, forward beside backward), ops.py (the ops by name, for every
engine; torch_ops.py has PyTorch's), nn.py (layers), models/gpt.py (the model), tokenizers/bpe.py, optim.py,
training/train.py, generate.py, beam.py; then port.py (the same model on PyTorch) and debug.py. On the ground lie
settings.py and disk/, on top commands/cli.py.

Folders are the workshop, each imported only by those after it: metrics, tokenizers, data, numpy_ops, models, costs,
interpret, responsible, engines, plot, training, finetune, assistant, hub, commands. What each holds, and in what order
to read it, its own __init__.py says.

The Auto classes of hub/, which read Hugging Face checkpoints, can be imported from here: `from minillm import
AutoModel`.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

HUB = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
)


def __getattr__(name: str) -> Any:
    """The Auto classes, imported when first asked for: `import minillm` alone loads nothing."""
    if name in HUB:
        from . import hub

        return getattr(hub, name)
    raise AttributeError(f"module 'minillm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HUB])
