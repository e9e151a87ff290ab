"""From a base model to an assistant, measured: SFT on the built-in dialogues, then DPO; GRPO on a verifiable task;
distillation into a small student. Three seeds each.

    .venv-dev/bin/python tests/bench/assistant.py FOLDER [sft dpo grpo distill ...]

The base model is pretrained in FOLDER once, on stories (minillm/data/tasks/stories.py); the seeds are of what follows.
Everything is on NumPy, by the recipes that come with minillm. The same command goes on where it was stopped.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from minillm.commands.cli import main
from minillm.data import Document, pack
from minillm.data.tasks import dialogue, verifiable
from minillm.data.tasks.stories import stories
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.report import MODEL
from minillm.models import Llama, LlamaConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer
from minillm.training.text import TextData
from minillm.training.train import train

SEEDS = (1, 2, 3)
CONTEXT, VOCABULARY, STEPS = 256, 400, 2500


def base(folder):
    """A model that has read stories: its run folder, made unless it is there."""
    made = folder / "base"
    if (made / "best").exists():
        return made
    texts = stories()
    said = [turn["content"] for chat in dialogue.make()["train"] for turn in chat.messages]
    asked = [prompt.record["prompt"] for prompt in verifiable.make()["train"]]
    tokenizer = BPETokenizer.train([*said, *asked, *texts[:2000]], VOCABULARY)
    shape = LlamaConfig(tokenizer.vocab_size, CONTEXT, 4, 4, d_model=128, d_ff=352)
    data = []
    for name, part in (("train", texts[:-200]), ("val", texts[-200:])):
        documents = [Document(text, f"story {i}") for i, text in enumerate(part)]
        data.append(pack(documents, tokenizer, folder / f"{name}.bin"))
    model = wider(Llama(shape, np.random.default_rng(1)))
    config = TrainConfig(seed=1, max_steps=STEPS, batch_size=16, lr=3e-3, beta2=0.98, weight_decay=0.01,
                         eval_every=250, save_every=STEPS, eval_tokens=0)  # fmt: skip
    train(model, TextData(*data), config, made, engine=ThreadedNumpyEngine, tokenizer=tokenizer)
    return made


def wider(model):
    """With matrices drawn at 1/sqrt(d_model), at which a narrow Llama begins to learn sooner than at 0.02."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            parameter.data *= 1 / (0.02 * model.config.d_model**0.5)
    return model


def stage(out, *words):
    """`minillm finetune` with these words, unless its report is there; the report's scores."""
    report = out / "report.json"
    if not report.exists():
        began = time.perf_counter()
        resume = (out / "last").exists()
        status = main(["finetune", *(["--resume"] if resume else map(str, words)), "--out", str(out)])
        if status:
            sys.exit(status)
        print(f"{out.name}: {time.perf_counter() - began:,.0f} s", flush=True)
    return json.loads(report.read_text(encoding="utf-8"))["scores"]


def sft(folder, seed):
    return stage(folder / f"sft-{seed}", "sft", "--model", base(folder), *seeded(seed))


def dpo(folder, seed):
    sft(folder, seed)
    return stage(folder / f"dpo-{seed}", "dpo", "--model", folder / f"sft-{seed}", *seeded(seed))


def seeded(seed):
    return ["--set", f"train.seed={seed}"]


def grpo(folder, seed):
    """A start that has seen some of the right answers, and the same model after rewards."""
    warm = ("sft", "--model", base(folder), "--set", "chat.builtin=sorting", "--set", "train.max_steps=150")
    stage(folder / f"warm-{seed}", *warm, *seeded(seed))
    return stage(folder / f"grpo-{seed}", "grpo", "--model", folder / f"warm-{seed}", *seeded(seed))


def distill(folder, seed):
    """The teacher is the assistant of `sft`. The student begins as three of its four layers and learns from it; beside
    it, in as many steps, the same layers from the dialogues alone, and a new model of that shape from the dialogues."""
    sft(folder, seed)
    hard = ("--set", "distill.hard=1")
    sizes = (f"model.{size}" for size in ("n_layers=3", "n_heads=4", "d_model=128", "d_ff=352"))
    new = ("--set", "distill.layers=", *(word for size in sizes for word in ("--set", size)))
    ways = {"distill": (), "layers": hard, "student": (*hard, *new)}
    found = {}
    for name, words in ways.items():
        words = ("distill", "--teacher", folder / f"sft-{seed}", *words, *seeded(seed))
        found[name] = stage(folder / f"{name}-{seed}", *words)
    return {
        split: {
            **scores,
            "layers alone": found["layers"][split][MODEL],
            "student alone": found["student"][split][MODEL],
        }
        for split, scores in found["distill"].items()
    }


STAGES = {"sft": sft, "dpo": dpo, "grpo": grpo, "distill": distill}


def table(name, found):
    """The figures of each split and of each who answered, mean and standard deviation over the seeds."""
    for split, by_who in found[0].items():
        print(f"\n{name}, {split}")
        for who, figures in by_who.items():
            cells = []
            for figure in figures:
                values = [scores[split][who][figure] for scores in found]
                cells.append(f"{figure} {statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}")
            print(f"  {who:14} {'  '.join(cells)}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or STAGES:
        table(name, [STAGES[name](folder, seed) for seed in SEEDS])
