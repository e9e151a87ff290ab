"""What healthy runs of the presets had: measures the reference bands that `minillm check` compares runs with.

    python tests/bench/bands.py FOLDER                         # all, half an hour of one core; what is done is kept
    python tests/bench/bands.py FOLDER --preset debug --write  # and writes minillm/training/presets/bands.json

Each run is the preset as it is (its schedule too), on one text and vocabulary, stopped after a few hundred steps. What
is measured, and what a band is, stands in minillm/training/bands.py.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from minillm.data import build_corpus, corpus_documents, stdlib_documents
from minillm.disk import read_json, write_json
from minillm.engines.numpy_engine import NumpyEngine
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer
from minillm.training.bands import BANDS, WORDS, band, measures_at, update_at_peak
from minillm.training.health import examine
from minillm.training.pretrain import pretrain, read_config
from minillm.training.run_log import read_metrics

SHORT = {"max_seconds": 0.0, "max_steps": 400, "warmup_steps": 40}  # quickstart on a slow machine
LONG = {"max_seconds": 0.0, "max_steps": 2500}  # on a fast one
# preset -> steps at which to look, and runs: text, vocabulary, changes to [train], seeds
PLAN = {
    "debug": ([25, 50], [(kind, vocab, {}, 3) for kind in ("source", "docstrings") for vocab in (512, 2048, 8192)]),
    "laptop": (
        [100, 200, 300],
        [
            ("source", 2048, {}, 4),
            ("docstrings", 4096, {}, 2),
            ("source", 4096, {"max_steps": 300}, 1),
            ("source", 512, {}, 1),
            ("docstrings", 8192, {}, 1),
        ],
    ),
    "quickstart": (
        [100, 200, 300],
        [("source", 2048, LONG, 3), ("source", 2048, SHORT, 2), ("docstrings", 4096, LONG, 1)],
    ),
}


class Stopping(NumpyEngine):
    """Asks for the end of the run after so many steps of it, as SIGTERM does."""

    steps = 0

    def step(self, lr: float) -> None:
        super().step(lr)
        self.steps -= 1
        if self.steps == 0:
            signal.raise_signal(signal.SIGTERM)


def text(folder: Path, kind: str, vocab_size: int) -> dict[str, str]:
    """The [data] section: a corpus and a tokenizer, made now unless they are there."""
    corpus, tokenizer = folder / kind, folder / f"{kind}-{vocab_size}.json"
    if not corpus.exists():
        build_corpus(stdlib_documents(kind, max_bytes=6_000_000), corpus)
    if not tokenizer.exists():
        BPETokenizer.train((document.text for document in corpus_documents(corpus)), vocab_size).save(tokenizer)
    return {"corpus": str(corpus.resolve()), "tokenizer": str(tokenizer.resolve())}


def shown(name: str, measures: dict) -> str:
    """A line for a run: loss / ln V, gradient norm and update / weight at each step."""
    columns = [f"{step:>5} {m['loss']:.4f} {m['grad_norm']:.3f} {m['update']:.4f}" for step, m in measures.items()]
    return f"{name:38s}{''.join(columns)}"


def measured(folder: Path, preset: str, points: list[int], kind: str, vocab: int, changes: dict, seed: int) -> dict:
    """The measures of one run by step; they are kept in the folder."""
    name = "-".join([preset, kind, str(vocab), *map(str, changes.values()), str(seed)])
    kept = folder / f"{name}.json"
    if kept.exists():
        print(shown(name, read_json(kept)), flush=True)
        return read_json(kept)
    sections = read_config(preset)
    sections["data"] = text(folder, kind, vocab)
    sections["train"] |= {**changes, "seed": seed, "eval_every": 10_000}
    found, at = {}, 0
    for step in points:

        def engine(model, config, more=step - at):
            run = Stopping(model, config)
            run.steps = more
            return run

        pretrain(sections, folder / name, engine=engine, resume=at > 0, progress=False)
        at = step
        health = examine(folder / name)
        ratios = [layer.update_ratio for layer in health.layers if "embedding" not in layer.name]
        rows = read_metrics(folder / name / "metrics.jsonl")
        peak = update_at_peak(ratios, rows, sections["train"].get("lr", TrainConfig().lr))
        found[str(step)] = {**measures_at(step, rows, vocab), **peak}
    print(shown(name, found), flush=True)
    write_json(kept, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=PLAN, action="append")
    parser.add_argument("--write", action="store_true", help="write presets/bands.json")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    bands = read_json(BANDS) if BANDS.exists() else {}
    for preset in arguments.preset or PLAN:
        points, plan = PLAN[preset]
        groups = [
            [measured(arguments.folder, preset, points, kind, vocab, changes, seed) for seed in range(seeds)]
            for kind, vocab, changes, seeds in plan
        ]
        bands[preset] = {
            "runs": sum(map(len, groups)),
            "vocab_size": [min(vocab for _, vocab, *_ in plan), max(vocab for _, vocab, *_ in plan)],
            "at": {
                str(step): {
                    name: [round(end, 4) for end in band([[run[str(step)][name] for run in group] for group in groups])]
                    for name in WORDS
                }
                for step in points
            },
        }
        for step, found in bands[preset]["at"].items():
            print(f"band {step:>5}   " + "   ".join(f"{name} {low} to {high}" for name, (low, high) in found.items()))
    if arguments.write:
        write_json(BANDS, bands)


if __name__ == "__main__":
    main()
