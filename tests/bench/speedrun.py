"""What `minillm quickstart` reaches in its time, and what each of its choices brings: ablations at equal time.

    python tests/bench/speedrun.py FOLDER                              # the quickstart as it is, three seeds
    python tests/bench/speedrun.py FOLDER --only "AdamW" "GPT" --seeds 1
    python tests/bench/speedrun.py FOLDER --seconds 60                 # is so little enough for a given figure?
    python tests/bench/speedrun.py FOLDER --tokens 1800000 --threads 1 # at equal tokens, whatever the machine does

Prints bits per byte of the held-out modules, the tokens read and the seconds it took, for each variant and seed; what
is done is kept in FOLDER. Where time counts, leave the machine alone; at equal tokens it doesn't, but then a choice
that makes steps slower looks better than it is. Records, and what each choice brought, stand in speedrun.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from pathlib import Path
from typing import Any

from minillm.commands.quickstart import BYTES_PER_SECOND, VOCAB_SIZE
from minillm.data import build_corpus, corpus_documents, stdlib_documents
from minillm.disk import read_json, write_json
from minillm.tokenizers import BPETokenizer
from minillm.training.pretrain import pretrain, read_config
from minillm.training.run_log import read_metrics

Sections = dict[str, dict[str, Any]]

GPT = {"context": 128, "n_layers": 4, "n_heads": 4, "d_model": 128}
ADAMW = {"optimizer": "adamw", "lr": 4e-3}
OLD = {**ADAMW, "schedule": "cosine", "final_lr": 0.05, "batch_size": 8, "warmup_steps": 100}
VARIANTS: dict[str, Sections] = {  # what differs from the quickstart; a section with "only" replaces its own
    "quickstart": {},
    "AdamW": {"train": ADAMW},
    "AdamW, lr 0.006": {"train": {"optimizer": "adamw"}},
    "GPT": {"model": {"only": True, **GPT, "context": 256}},
    "GPT, AdamW": {"model": {"only": True, **GPT, "context": 256}, "train": ADAMW},
    "the quickstart until 2026-11-28": {"model": {"only": True, **GPT}, "train": OLD},
    "128 tokens": {"model": {"context": 128}, "train": {"batch_size": 12}},
    "512 tokens": {"model": {"context": 512}, "train": {"batch_size": 3}},
    "untied": {"model": {"tie_embeddings": False}},
    "qk_norm": {"model": {"qk_norm": True}},
    "two heads": {"model": {"n_heads": 2}},
    "half the key heads": {"model": {"n_kv_heads": 2}},
    "three layers of 152": {"model": {"n_layers": 3, "d_model": 152, "d_ff": 408}},
    "six layers of 104": {"model": {"n_layers": 6, "d_model": 104, "d_ff": 280}},
    "muon_lr 0.03": {"train": {"muon_lr": 0.03}},
    "muon_lr 0.014": {"train": {"muon_lr": 0.014}},
    "lr 0.004": {"train": {"lr": 4e-3}},
    "lr 0.009": {"train": {"lr": 9e-3}},
    "lr 0.0075": {"train": {"lr": 7.5e-3}},
    "momentum 0.9": {"train": {"muon_momentum": 0.9}},
    "momentum 0.97": {"train": {"muon_momentum": 0.97}},
    "no decay": {"train": {"weight_decay": 0.0}},
    "beta2 0.95": {"train": {"beta2": 0.95}},
    "warmup 40": {"train": {"warmup_steps": 40}},
    "batches of 4": {"train": {"batch_size": 4}},
    "batches of 8": {"train": {"batch_size": 8}},
    "cosine": {"train": {"schedule": "cosine"}},
    "wsd": {"train": {"schedule": "wsd"}},
}  # fmt: skip


def text(folder: Path, seconds: float) -> Sections:
    """The [data] section of a quickstart of so many seconds: its corpus and its tokenizer."""
    corpus, tokenizer = folder / f"corpus-{seconds:g}", folder / f"tokenizer-{seconds:g}.json"
    if not tokenizer.exists():
        build_corpus(stdlib_documents(max_bytes=int(seconds * BYTES_PER_SECOND)), corpus)
        texts = (document.text for document in corpus_documents(corpus))
        BPETokenizer.train(texts, VOCAB_SIZE).save(tokenizer)
    return {"data": {"corpus": str(corpus.resolve()), "tokenizer": str(tokenizer.resolve())}}


def run(folder: Path, data: Sections, name: str, length: str, limits: dict[str, Any], seed: int) -> dict[str, float]:
    """One run's last evaluation, on all that is held out. `length` is how long it was, in words, `limits` says it."""
    kept = folder / "results" / f"{name}, {length}, seed {seed}.json"
    if not kept.exists():
        sections = read_config("quickstart") | data
        for section, changes in VARIANTS[name].items():
            own = {} if "only" in changes else sections[section]
            sections[section] = own | {key: value for key, value in changes.items() if key != "only"}
        never = 10**9
        sections["train"] |= {"seed": seed, "eval_tokens": 0, "eval_every": never, "save_every": never}
        if tokens := limits["tokens"]:
            rows = sections["train"]["batch_size"] * sections["train"].get("grad_accumulation", 1)
            steps = tokens // (rows * sections["model"]["context"])
            sections["train"] |= {"max_seconds": 0.0, "max_steps": steps}
        else:
            sections["train"] |= {"max_seconds": limits["seconds"]}
        sections["engine"] = {**sections.get("engine", {}), "threads": limits["threads"]}
        out = folder / "runs" / kept.stem
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            pretrain(sections, out, overwrite=out.exists())
        kept.parent.mkdir(exist_ok=True)
        took = time.perf_counter() - start
        row = [row for row in read_metrics(out / "metrics.jsonl") if "val_bits_per_byte" in row][-1]
        write_json(kept, {"bits": row["val_bits_per_byte"], "tokens": row["tokens"], "seconds": round(took, 1)})
    return read_json(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the quickstart reaches in its time, by its choices.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=["quickstart"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=190.0)
    parser.add_argument("--tokens", type=int, default=0, help="read so many, in place of --seconds")
    parser.add_argument("--threads", type=int, default=0, help="as engine.threads (0: one for each core)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data = text(arguments.folder, arguments.seconds)
    limits = {"tokens": arguments.tokens, "seconds": arguments.seconds, "threads": arguments.threads}
    length = f"{arguments.tokens} tokens" if arguments.tokens else f"{arguments.seconds:g} s"
    if arguments.threads:
        length += f", {arguments.threads} threads"
    for name in arguments.only:
        runs = []
        for seed in range(arguments.seeds):
            found = run(arguments.folder, data, name, length, limits, seed)
            runs.append(found["bits"])
            took = f", {found['seconds']:.0f} s" if "seconds" in found else ""
            print(f"  {name}, seed {seed}: {found['bits']:.4f}, {found['tokens']:,} tokens{took}", flush=True)
        spread = f" ± {statistics.stdev(runs):.4f}" if len(runs) > 1 else ""
        print(f"{name:32s} {statistics.mean(runs):.4f}{spread} bits per byte, {length}", flush=True)


if __name__ == "__main__":
    main()
