"""What a chapter leaves behind and a later one uses: made once, kept in the folder `made/` beside the notebooks.

A chapter that comes later asks for it by the same function that the earlier one ended with. So it works for a reader
who has skipped the earlier one as well: it is made there and then.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import minillm
from minillm.data import (
    CorpusConfig,
    Document,
    build_corpus,
    corpus_text,
    cut_document,
    stdlib_documents,
)
from minillm.disk import find_whole_folder, holding, whole_folder, write_text
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models.llama import LlamaConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer, load_tokenizer
from minillm.training.baselines import NGramModel, xz_bits_per_byte
from minillm.training.config_file import Sections
from minillm.training.pretrain import pretrain, read_config
from tqdm import tqdm

Kind = Literal["prose", "code"]

# Bytes of text that the corpora are made of; None: all that there is.
CORPUS_BYTES: dict[str, int | None] = {"smoke": 300_000, "cpu": 1_500_000, "gpu": None}
PART = 10_000  # characters: longer prose is cut, so that no single document decides how much is held out
LONGEST_NGRAM = 6  # bytes
VOCABULARY = {"smoke": 400, "cpu": 2000, "gpu": 8000}  # tokens


def made(name: str, recipe: dict[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder of a deliverable: as it was made before from the same recipe, or filled by `make(folder)` now.

    `recipe` holds all that the result depends on, as JSON. The folder is `made/NAME-XXXXXXXX` where the notebook runs
    (or in the folder that MINILLM_MADE names), XXXXXXXX being the recipe's fingerprint: another recipe, another folder.
    It is there whole or not at all.
    """
    recipe = {**recipe, "minillm": minillm.__version__}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(os.environ.get("MINILLM_MADE", "made")) / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with holding(folder, f"making {name}", wait=600):
        found = find_whole_folder(folder)
        if found is None:
            with whole_folder(folder, kind="made") as work:
                make(work)
            found = folder
    return found


def corpus(scale: str, kind: Kind = "prose") -> Path:
    """Chapter 04's corpus: Python's help pages and docstrings ("prose"), or its standard library's source ("code").

    Cleaned, deduplicated, split into train (9/10) and val (1/10) by document, with near copies of training text
    taken out of val. Read it by `corpus_text(folder, "train")` or `corpus_documents`.
    """
    config = corpus_config(kind)
    recipe = {
        "kind": kind,
        "bytes": CORPUS_BYTES[scale],
        "part": PART,
        "config": repr(config),
        "python": sys.version,
    }
    return (
        made(f"corpus-{kind}", recipe, lambda folder: fill_corpus(folder, scale, kind)) / "corpus"
    )


def corpus_config(kind: Kind) -> CorpusConfig:
    """How chapter 04's corpus is built; the chapter's end gives a reason for each value."""
    return CorpusConfig(min_chars=200, paragraphs=kind == "prose", val_fraction=0.1)


def raw_documents(scale: str, kind: Kind) -> list[Document]:
    """What the corpus of that kind is built from."""
    most = CORPUS_BYTES[scale]
    if kind == "code":
        return list(stdlib_documents("source", max_bytes=most))
    half = None if most is None else most // 2
    whole = [d for part in ("topics", "docstrings") for d in stdlib_documents(part, max_bytes=half)]
    return [part for document in whole for part in cut_document(document, PART)]


def fill_corpus(folder: Path, scale: str, kind: Kind) -> None:
    build_corpus(raw_documents(scale, kind), folder / "corpus", corpus_config(kind))


def tokenizer(scale: str, kind: Kind = "prose") -> BPETokenizer:
    """A byte-level BPE tokenizer as chapter 03 ends with, trained on the corpus' training split only."""
    return load_tokenizer(tokenizer_folder(scale, kind))


def tokenizer_folder(scale: str, kind: Kind = "prose") -> Path:
    """Where that tokenizer lies."""
    text = corpus(scale, kind)
    recipe = {"corpus": text.parent.name, "vocabulary": VOCABULARY[scale], "pattern": "gpt4"}

    def make(folder: Path) -> None:
        BPETokenizer.train([corpus_text(text)], VOCABULARY[scale], pattern="gpt4").save(
            folder / "tokenizer"
        )

    return made(f"tokenizer-{kind}", recipe, make) / "tokenizer"


def baselines(scale: str, kind: Kind = "prose") -> dict[str, float]:
    """Chapter 01's baselines: bits per UTF-8 byte of the corpus' val split, for what was given its train split.

    Keys: "1-gram" … "6-gram" (interpolated Witten-Bell over bytes) and "xz". A model with any tokenizer stands in the
    same table: its bits for all of val, divided by `len(corpus_text(corpus(scale, kind), "val").encode())`.
    """
    text = corpus(scale, kind)
    recipe = {"corpus": text.parent.name, "longest": LONGEST_NGRAM}
    folder = made(f"baselines-{kind}", recipe, lambda folder: measure_baselines(folder, text))
    found: dict[str, float] = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    return found


def measure_baselines(folder: Path, text: Path) -> None:
    train, val = corpus_text(text, "train"), corpus_text(text, "val")
    bits = NGramModel.fit(train, order=LONGEST_NGRAM).total_bits(val) / len(val.encode())  # (orders,)
    found = {f"{n}-gram": float(value) for n, value in enumerate(bits, start=1)}
    found["xz"] = xz_bits_per_byte(val, given=train)
    write_text(folder / "baselines.json", json.dumps(found, indent=1) + "\n")


# Chapter 07's choice: a Llama of a size that trains in seconds, in about a minute, or in minutes.
ARCHITECTURES = {
    "smoke": {"context": 128, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_ff": 88},
    "cpu": {"context": 128, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_model": 128, "d_ff": 336},
    "gpu": {"context": 256, "n_layers": 6, "n_heads": 8, "n_kv_heads": 4, "d_model": 384, "d_ff": 1024},
}


def architecture(scale: str, vocab_size: int) -> LlamaConfig:
    """The config of the Llama that chapter 07 chooses, for a tokenizer of that size."""
    return LlamaConfig(vocab_size, tie_embeddings=True, **ARCHITECTURES[scale])


# How chapter 08's Python model is trained in another way than the preset "laptop".
PYTHON_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"max_steps": 24, "batch_size": 4, "warmup_steps": 4, "eval_every": 12, "eval_tokens": 4000},
    "cpu": {"max_steps": 500, "eval_every": 100, "eval_tokens": 20_000, "save_every": 500},
    "gpu": {"max_steps": 6000},
}


def python_sections(scale: str) -> Sections:
    """What chapter 08 trains its Python model by: chapter 07's architecture, and the preset "laptop" with other steps.

    The paths of corpus and tokenizer, section [data], come from the chapters that made them.
    """
    model = {"model_type": "llama", "tie_embeddings": True, **ARCHITECTURES[scale]}
    return {"model": model, "train": {**read_config("laptop")["train"], **PYTHON_TRAINING[scale]}}


def python_model(scale: str) -> Path:
    """Chapter 08's model that completes Python: the run folder of its training, tokenizer included.

    `load_model_and_tokenizer(folder)` and `AutoModelForCausalLM.from_pretrained(folder)` read its best checkpoint.
    """
    text, tokens = corpus(scale, "code"), tokenizer_folder(scale, "code")
    sections = python_sections(scale)
    recipe = {"corpus": text.parent.name, "tokenizer": tokens.parent.name, **sections}

    def make(folder: Path) -> None:
        sections["data"] = {"corpus": str(text.resolve()), "tokenizer": str(tokens.resolve())}
        with tqdm(total=sections["train"]["max_steps"], desc="training the Python model", leave=False) as bar:
            pretrain(sections, folder / "run", engine=partial(CountedSteps, bar=bar), progress=False)

    return made("python-model", recipe, make) / "run"


class CountedSteps(ThreadedNumpyEngine):
    """Two threads whatever the machine, so that the weights are the same on each; every step is counted in a bar."""

    def __init__(self, model: Any, config: TrainConfig, bar: tqdm) -> None:
        super().__init__(model, config, threads=2)
        self.bar = bar

    def step(self, lr: float) -> None:
        super().step(lr)
        self.bar.update()


def recurrent_baseline(scale: str) -> dict[str, Any]:
    """What chapter 05 measures and chapter 07 comes back to, on chapter 04's prose: an LSTM, a GPT of as many weights,
    and n-grams.

    Keys: "models" (for each kind: "parameters", "lr", and for each seed "bits_per_byte" and "losses"),
    "ngrams" (bits per byte by order), and the recipe: "steps", "batch", "context", "seeds", "tokens". Trained at the
    first call (about a minute at cpu scale), read from the disk later.
    """
    from .recurrence import LANGUAGE_MODELS, RATES, TABLE, write_comparison

    encoder, text = tokenizer(scale), corpus(scale)
    recipe = {"tokenizer": encoder.fingerprint(), **LANGUAGE_MODELS[scale], "rates": RATES, "table": TABLE}
    folder = made("recurrent-baseline", recipe, lambda folder: write_comparison(folder, scale, text, encoder))
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def wordpiece(scale: str) -> WordPieceTokenizer:
    """A WordPiece tokenizer as BERT's, with [MASK], [CLS] and [SEP], trained on the prose's training split only."""
    text = corpus(scale, "prose")
    recipe = {"corpus": text.parent.name, "vocabulary": VOCABULARY[scale]}

    def make(folder: Path) -> None:
        WordPieceTokenizer.train([corpus_text(text)], VOCABULARY[scale]).save(folder / "tokenizer")

    return load_tokenizer(made("wordpiece", recipe, make) / "tokenizer")


def first_models(scale: str) -> Path:
    """Chapter 10's first models: folders bert-0, masks-0 (all gaps are [MASK]), gpt-0, bert-1 ..., a number for a
    seed, trained on the prose."""
    from . import bert

    tokens, text = wordpiece(scale), corpus(scale, "prose")
    recipe = {"tokenizer": tokens.fingerprint(), "corpus": text.parent.name}
    recipe |= {"steps": bert.STEPS[scale], "seeds": bert.SEEDS[scale], "rate": bert.RATE, "shape": bert.SHAPE}
    return made("first-berts", recipe, lambda folder: bert.fill_first_models(folder, scale, tokens, text))


def small_bert(scale: str) -> Path:
    """Chapter 10's small BERT with its tokenizer, in a folder that `minillm finetune --model` and
    `minillm.AutoModelForMaskedLM` open: pretrained on the prose by the 80/10/10 rule, on rows of 16 tokens (it has 32
    positions)."""
    from . import bert

    first, tokens, text = first_models(scale), wordpiece(scale), corpus(scale, "prose")
    recipe = {"first": first.name, "steps": bert.MORE_STEPS[scale], "masked": 0.8, "replaced": 0.1}
    return made("small-bert", recipe, lambda folder: bert.fill_small_bert(folder, scale, tokens, text, first))


def review_reader(scale: str, seed: int = 0) -> Path:
    """Chapter 11's small GPT with its tokenizer, in a folder that `minillm finetune --model` and
    `minillm.AutoModelForCausalLM` open: pretrained on reviews without labels (minillm/data/tasks/transfer.py), from
    first weights and in an order drawn by `seed`."""
    from . import finetuning

    recipe: dict[str, Any] = {"steps": finetuning.READING_STEPS[scale], "reviews": finetuning.REVIEWS[scale]}
    recipe |= {"shape": finetuning.SHAPE, "words": finetuning.WORDS, "batch": finetuning.BATCH, "seed": seed}
    return made("review-reader", recipe, lambda folder: finetuning.read_reviews(folder, scale, seed))


def translators(scale: str) -> Path:
    """Chapter 12's translators of "There were ..." sentences into Chinese: folders 0, 1, ... (a number for a seed) and
    half-0, ..., the same halfway. `minillm.workshop.translating.load_writer(folder / "0")` opens one."""
    from . import translating

    recipe = {"steps": translating.STEPS[scale], "seeds": translating.SEEDS[scale], "rate": translating.RATE}
    recipe |= {"shape": translating.SHAPE, "batch": translating.BATCH}
    return made("translators", recipe, lambda folder: translating.fill_translators(folder, scale))


def summarizers(scale: str) -> Path:
    """Chapter 12's summarizers of reports about few people and towns: folders as those of `translators`."""
    from . import translating

    recipe = {"steps": translating.REPORT_STEPS[scale], "seeds": translating.SEEDS[scale], "rate": translating.RATE}
    recipe |= {"shape": translating.SHAPE, "batch": translating.BATCH}
    return made("summarizers", recipe, lambda folder: translating.fill_summarizers(folder, scale))


def small_talker(scale: str) -> Path:
    """Chapter 13's base model with its tokenizer, in a folder that `minillm finetune sft --model` and
    `minillm.AutoModelForCausalLM` open: pretrained on statements and on sheets of questions, and on no answer."""
    from . import conversing

    recipe: dict[str, Any] = {"steps": conversing.STEPS[scale], "shape": conversing.SHAPE}
    recipe |= {"words": conversing.WORDS, "context": conversing.CONTEXT, "batch": conversing.BATCH}
    return made("small-talker", recipe, lambda folder: conversing.fill_base(folder, scale))


def small_insides(scale: str) -> Path:
    """Chapter 18's small models that recall and copy: folders recall-0, "two layers-0", ..., a number for a seed, which
    `minillm.AutoModelForCausalLM` opens. `inside.load_models` reads all of a kind."""
    from . import inside

    shapes = {kind: [*given[:4]] for kind, given in inside.KINDS.items()}
    recipe = {"kinds": shapes, "steps": inside.STEPS[scale], "seeds": inside.SEEDS[scale], "rows": inside.BATCH}
    recipe |= {"rate": inside.RATE, "period": inside.PERIOD}
    return made("small-insides", recipe, lambda folder: inside.fill_models(folder, scale))


def runs_of_many_sizes(scale: str) -> list[dict[str, Any]]:
    """Chapter 17's table of runs, GPTs of many sizes on the prose: "compute" (6 N D operations), "width", "seed", "n"
    (parameters), "tokens", "steps" and "loss" (held out, nats for each character), which minillm.costs.scaling fits;
    and "last_only", the loss of the same model where it sees one character instead of up to 32."""
    from . import at_size

    return runs_of_sweep(scale, at_size.SWEEPS[scale])


def runs_of_sweep(scale: str, sweep: dict[float, tuple[int, ...]]) -> list[dict[str, Any]]:
    """The same for other computes, each with the widths to try."""
    from . import at_size

    text = corpus(scale, "prose")
    recipe = {"corpus": text.parent.name, "sweep": [[c, *widths] for c, widths in sweep.items()]}
    recipe |= {"seeds": at_size.SEEDS[scale], "context": at_size.CONTEXT, "rows": at_size.ROWS}
    recipe |= {"evaluated": at_size.EVALUATED[scale]}
    folder = made("scaling-runs", recipe, lambda folder: at_size.fill_runs(folder, scale, text, sweep))
    runs: list[dict[str, Any]] = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    return runs
