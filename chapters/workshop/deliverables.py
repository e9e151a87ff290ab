"""What a chapter leaves behind and a later one uses: made once, kept in the folder `made/` beside the notebooks.

A chapter that comes later asks for it by the same function that the earlier one ended with. So it works for a reader
who has skipped the earlier one as well: it is made there and then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import minillm
from minillm.data import CorpusConfig, Document, build_corpus, corpus_text, stdlib_documents
from minillm.data.stdlib import documents_fingerprint
from minillm.disk import find_whole_folder, holding, whole_folder
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer, load_tokenizer

Kind = Literal["prose", "code"]

# Bytes of text that the corpora are made of; None: all that there is.
CORPUS_BYTES: dict[str, int | None] = {"smoke": 300_000, "cpu": 1_500_000, "gpu": None}
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
    documents = raw_documents(scale, kind)
    config = CorpusConfig(paragraphs=kind == "prose", val_fraction=0.1)
    recipe = {"kind": kind, "documents": documents_fingerprint(documents), "config": repr(config)}
    return made(f"corpus-{kind}", recipe, lambda folder: fill_corpus(folder, documents, config)) / "corpus"


@cache  # reading them takes seconds, and each deliverable that is made from the corpus asks for it
def raw_documents(scale: str, kind: Kind) -> list[Document]:
    """What the corpus of that kind is built from."""
    most = CORPUS_BYTES[scale]
    if kind == "code":
        return list(stdlib_documents("source", max_bytes=most))
    half = None if most is None else most // 2
    return [d for part in ("topics", "docstrings") for d in stdlib_documents(part, max_bytes=half)]


def fill_corpus(folder: Path, documents: list[Document], config: CorpusConfig) -> None:
    build_corpus(documents, folder / "corpus", config)


def tokenizer(scale: str, kind: Kind = "prose") -> BPETokenizer:
    """A byte-level BPE tokenizer as chapter 03 ends with, trained on the corpus' training split only."""
    text = corpus(scale, kind)
    recipe = {"corpus": text.parent.name, "vocabulary": VOCABULARY[scale], "pattern": "gpt4"}

    def make(folder: Path) -> None:
        BPETokenizer.train([corpus_text(text)], VOCABULARY[scale], pattern="gpt4").save(folder / "tokenizer")

    return load_tokenizer(made(f"tokenizer-{kind}", recipe, make) / "tokenizer")


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

    tokens = wordpiece(scale)
    recipe = {"tokenizer": tokens.fingerprint(), "corpus": corpus(scale, "prose").parent.name}
    recipe |= {"steps": bert.STEPS[scale], "seeds": bert.SEEDS[scale], "rate": bert.RATE, "shape": bert.SHAPE}
    return made("first-berts", recipe, lambda folder: bert.fill_first_models(folder, scale, tokens))


def small_bert(scale: str) -> Path:
    """Chapter 10's small BERT with its tokenizer, in a folder that `minillm finetune --model` and
    `minillm.AutoModelForMaskedLM` open: pretrained on the prose by the 80/10/10 rule, on rows of 16 tokens (it has 32
    positions)."""
    from . import bert

    first = first_models(scale)
    recipe = {"first": first.name, "steps": bert.MORE_STEPS[scale], "masked": 0.8, "replaced": 0.1}
    return made("small-bert", recipe, lambda folder: bert.fill_small_bert(folder, scale, wordpiece(scale), first))
