"""GPT, Llama-style and LSTM language models at equal parameters and tokens, on the standard library's source.

    python tests/bench/architectures.py FOLDER              # a quarter of an hour on two cores; what is done is kept
    python tests/bench/architectures.py FOLDER --table      # print the table of what is done
    python tests/bench/architectures.py FOLDER --speed 7    # tokens per second, in turn; leave the machine alone

Every model has about 1.07 million parameters, reads the same batches of the same text in the same order, and is
trained by `minillm pretrain`'s own loop with AdamW and a cosine schedule. What suits one architecture need not suit
another: each gets the learning rate that is best for seed 0, among rates a factor of two apart, of which worse ones lie
on both sides. Then three seeds, which change the weights' start and the order of the text. Bits per byte are those of
the last step, on all validation modules; "±" is the standard deviation over the seeds. No model carries anything from
one window to the next, the LSTM's state included: that keeps the text that each prediction can see equal.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from minillm.costs.sizes import n_parameters, training_flops
from minillm.data import build_corpus, corpus_documents, stdlib_documents
from minillm.engines.threads import Replicas, ThreadedNumpyEngine
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.models import config_from_dict, model_from_config
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer, load_tokenizer
from minillm.training.checkpoint import find_checkpoint
from minillm.training.evaluate import evaluate
from minillm.training.pretrain import DataConfig, packed, pretrain

VOCAB_SIZE = 2048
CONTEXT, BATCH_SIZE = 128, 16
MODELS: dict[str, dict[str, Any]] = {
    "GPT": {"model_type": "gpt", "n_layers": 4, "n_heads": 4, "d_model": 128},
    "Llama-style": {
        "model_type": "llama", "n_layers": 4, "n_heads": 4, "d_model": 128, "d_ff": 352, "tie_embeddings": True,
    },
    "LSTM": {"model_type": "lstm", "n_layers": 2, "d_model": 202, "tie_embeddings": True},
}  # fmt: skip
FIRST_RATE = 4e-3
SEEDS = (0, 1, 2)


def prepare(folder: Path) -> None:
    """The corpus and the tokenizer, unless they are there."""
    if not (folder / "tokenizer.json").exists():
        shutil.rmtree(folder / "corpus", ignore_errors=True)
        print(build_corpus(stdlib_documents(), folder / "corpus").summary())
        texts = (document.text for document in corpus_documents(folder / "corpus"))
        BPETokenizer.train(texts, VOCAB_SIZE).save(folder / "tokenizer.json")


def run(folder: Path, name: str, *, lr: float, seed: int, tokens: int) -> float:
    """Train one model and return its bits per byte on the validation modules; read from the folder if done before."""
    out = folder / f"{MODELS[name]['model_type']}-{tokens}-{lr:g}-{seed}"
    result = out / "bits_per_byte.json"
    if not result.exists():
        steps = tokens // (BATCH_SIZE * CONTEXT)
        sections = {
            "data": {"corpus": str(folder / "corpus"), "tokenizer": str(folder / "tokenizer.json")},
            "model": {**MODELS[name], "context": CONTEXT},
            "train": {
                "max_steps": steps, "batch_size": BATCH_SIZE, "lr": lr, "warmup_steps": steps // 20, "beta2": 0.99,
                "final_lr": 0.05, "eval_every": steps // 4, "eval_tokens": 30_000, "save_every": steps, "seed": seed,
            },
        }  # fmt: skip
        resume = find_checkpoint(out / "last") is not None
        if not resume:
            shutil.rmtree(out, ignore_errors=True)
        trained = pretrain(sections, out, resume=resume)
        if trained.signal is not None:
            sys.exit(128 + trained.signal)
        model, tokenizer = load_model_and_tokenizer(out / "last")
        data = packed(DataConfig(str(folder / "corpus")), "val", tokenizer)
        evaluation = evaluate(Replicas(model).batch_loss, data, batch_size=32, context=CONTEXT)
        result.write_text(json.dumps(evaluation.bits_per_byte), encoding="utf-8")
    return float(json.loads(result.read_text(encoding="utf-8")))


def compare(folder: Path, tokens: int) -> dict[str, Any]:
    """Choose each model's learning rate and train it from every seed."""
    rows = {}
    for name in MODELS:
        tried = {FIRST_RATE: run(folder, name, lr=FIRST_RATE, seed=0, tokens=tokens)}
        while (untried := {best(tried) / 2, best(tried) * 2} - set(tried)) != set():
            for lr in sorted(untried, reverse=True):
                tried[lr] = run(folder, name, lr=lr, seed=0, tokens=tokens)
        bits = [run(folder, name, lr=best(tried), seed=seed, tokens=tokens) for seed in SEEDS]
        rows[name] = {"tried": sorted(tried.items()), "lr": best(tried), "bits_per_byte": bits}
    return rows


def best(tried: dict[float, float]) -> float:
    return min(tried, key=lambda lr: tried[lr])


def speeds(folder: Path, repeats: int) -> dict[str, float]:
    """Tokens per second of a whole training step, the models in turn, medians of `repeats`."""
    vocab_size = load_tokenizer(folder / "tokenizer.json").vocab_size
    ids = np.random.default_rng(0).integers(0, vocab_size, (BATCH_SIZE, CONTEXT + 1))
    batch = (ids[:, :-1], ids[:, 1:])
    engines = {
        name: ThreadedNumpyEngine(model_from_config(model_config(settings, vocab_size)), TrainConfig())
        for name, settings in MODELS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in MODELS}
    for turn in range(repeats + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            for _ in range(10):
                engine.forward_backward([batch])
                engine.clip_gradients(1.0)
                engine.step(1e-3)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: 10 * ids[:, 1:].size / float(np.median(times)) for name, times in seconds.items()}


def model_config(settings: dict[str, Any], vocab_size: int) -> Any:
    return config_from_dict({**settings, "vocab_size": vocab_size, "context": CONTEXT})


def table(folder: Path, rows: dict[str, Any], tokens: int) -> str:
    vocab_size = load_tokenizer(folder / "tokenizer.json").vocab_size
    lines = [
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}; {tokens:,} tokens, context "
        f"{CONTEXT}, batches of {BATCH_SIZE}, seeds {', '.join(map(str, SEEDS))}",
        f"{'model':12} {'parameters':>10} {'MFLOP/token':>11} {'lr':>6}  bits per byte",
    ]
    for name, row in rows.items():
        config = model_config(MODELS[name], vocab_size)
        bits = np.array(row["bits_per_byte"])
        each = " ".join(f"{b:.3f}" for b in bits)
        lines.append(
            f"{name:12} {n_parameters(config):>10,} {training_flops(config, CONTEXT) / 1e6:>11.2f} {row['lr']:>6g}  "
            f"{bits.mean():.3f} ± {bits.std(ddof=1):.3f} ({each})"
        )
    for name, row in rows.items():
        tried = ", ".join(f"{lr:g}: {bits:.3f}" for lr, bits in row["tried"])
        lines.append(f"{name:12} bits per byte by learning rate, seed 0: {tried}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the corpus and the runs lie")
    parser.add_argument("--tokens", type=int, default=512_000, help="to train on (default: 512,000)")
    parser.add_argument("--table", action="store_true", help="only print the table of finished runs")
    parser.add_argument("--speed", type=int, metavar="TURNS", help="only measure tokens per second")
    arguments = parser.parse_args()
    folder, tokens = arguments.folder, arguments.tokens
    done = folder / f"results-{tokens}.json"
    if arguments.table:
        print(table(folder, json.loads(done.read_text(encoding="utf-8")), tokens))
        return
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    if arguments.speed:
        for name, rate in speeds(folder, arguments.speed).items():
            print(f"{name:12} {rate:>10,.0f} tokens/s")
        return
    rows = compare(folder, tokens)
    done.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(folder, rows, tokens))


if __name__ == "__main__":
    main()
