"""Tasks that a small model can really learn, made on your machine: five applications, a test of transfer,
and prompts with rewards.

Read in this order: draw.py (the same drawings everywhere, no copies between splits), baselines.py (what every model has
to beat), sentiment.py (the shortest grammar), transfer.py, translation.py, code.py with execution/ (how an answer is
run), names.py, summarization.py, dialogue.py and verifiable.py; samples.py writes data/tasks/.

Each task has `make(seed)`, which gives {"train", "val", "test", ...} with further held-out splits by name, and
`baselines(splits)`, which gives {baseline: {split: predictions}} for all splits but "train" and "val". The data card
is data/README.md.
"""

from types import ModuleType

from . import code, dialogue, sentiment, summarization, transfer, translation, verifiable

TASKS: dict[str, ModuleType] = {
    "sentiment": sentiment,
    "transfer": transfer,
    "translation": translation,
    "code": code,
    "summarization": summarization,
    "dialogue": dialogue,
    "verifiable": verifiable,
}

__all__ = ["TASKS"]
