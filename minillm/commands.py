"""What each subcommand of `minillm` does: check the arguments, call the library, say which files were written."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .data import CorpusConfig, Document, build_corpus, corpus_documents, environment_documents, pack, read_documents
from .data import stdlib_documents as stdlib
from .engines.choose import process_rank
from .training.config_file import ConfigError, build, override
from .training.pretrain import CONFIG_FILE, SECTIONS, model_objective, packed, pretrain, read_config, resumed_sections

STDLIB_SOURCES = ("stdlib", "docstrings", "topics")
PATTERNS = {"gpt2": "gpt2", "gpt4": "gpt4", "llama3": "gpt4", "qwen2": "qwen2"}  # --pattern -> split.py's name
FITTING = {"bpe": ("vocab_size", "pattern"), "wordpiece": ("vocab_size", "cased"), "char": ()}  # beside --special


def quickstart(arguments: argparse.Namespace) -> int:
    from .quickstart import quickstart

    return quickstart(arguments.out, seconds=arguments.seconds, seed=arguments.seed, overwrite=arguments.overwrite)


def corpus(arguments: argparse.Namespace) -> int:
    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(CorpusConfig)}
    config = build(CorpusConfig, settings, "corpus")
    skipped: list[Any] = []
    max_bytes = int(arguments.max_mb * 1e6) or None
    documents = source_documents(arguments.sources, max_bytes, skipped)
    report = build_corpus(
        documents, arguments.out, config, skipped=skipped, overwrite=arguments.overwrite, progress=sys.stderr.isatty()
    )
    print(report.summary())
    print(f"wrote {arguments.out}: train.jsonl, val.jsonl, report.json, dropped.jsonl")
    return 0


def source_documents(sources: list[str], max_bytes: int | None, skipped: list[Any]) -> Iterator[Document]:
    """The documents of --from: names of built-in sources, files and folders."""
    for source in sources:
        if source in STDLIB_SOURCES:
            yield from stdlib("source" if source == "stdlib" else source, max_bytes=max_bytes, skipped=skipped)
        elif source == "environment":
            yield from environment_documents(max_bytes=max_bytes, skipped=skipped)
        else:
            yield from read_documents(source, skipped=skipped)


def tokenizer_train(arguments: argparse.Namespace) -> int:
    from .tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer
    from .tokenizers.bert_text import CASED, UNCASED

    kind, given = arguments.kind, vars(arguments)
    for name in ("vocab_size", "pattern", "cased"):
        if name in given and name not in FITTING[kind]:
            kinds = " or ".join(other for other, names in FITTING.items() if name in names)
            raise ConfigError(f"--{name.replace('_', '-')} is for --kind {kinds}, not {kind}: leave it out")
    specials = {"special_tokens": given["special"]} if "special" in given else {}
    vocab_size, progress = given.get("vocab_size", 4096), sys.stderr.isatty()
    texts = (document.text for source in arguments.sources for document in training_documents(source))
    tokenizer: Any
    if kind == "char":
        tokenizer = CharTokenizer.train(texts, unk_token="<unk>", **specials)
    elif kind == "wordpiece":
        form = CASED if "cased" in given else UNCASED
        tokenizer = WordPieceTokenizer.train(texts, vocab_size, normalizer=form, progress=progress, **specials)
    else:
        pattern = PATTERNS[given.get("pattern", "gpt4")]
        nfc = pattern == "qwen2"
        tokenizer = BPETokenizer.train(texts, vocab_size, pattern=pattern, nfc=nfc, progress=progress, **specials)
    tokenizer.save(arguments.out)
    print(f"wrote {arguments.out}: {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint()}")
    return 0


def training_documents(source: str) -> Iterator[Document]:
    """The training split of a corpus folder, or the documents of any file or folder."""
    if (Path(source) / "report.json").exists():
        return corpus_documents(source, "train")
    return read_documents(source)


def tokenizer_encode(arguments: argparse.Namespace) -> int:
    from .tokenizers import load_tokenizer

    tokenizer = load_tokenizer(arguments.tokenizer)
    if (arguments.text is None) == (arguments.file is None):
        raise ConfigError("give either a text or --file FILE")
    if arguments.text is not None:
        allowed = "all" if arguments.special else ()
        print(*tokenizer.encode(arguments.text, allowed_special=allowed, disallowed_special=()))
        return 0
    separator = ""
    for ids in tokenizer.encode_file(arguments.file, disallowed_special=()):
        print(separator, " ".join(map(str, ids.tolist())), sep="", end="")
        separator = " "
    print()
    return 0


def tokenizer_show(arguments: argparse.Namespace) -> int:
    from .tokenizers import BPETokenizer, load_tokenizer
    from .tokenizers.show import replay_encoding, show, show_merges

    tokenizer = load_tokenizer(arguments.tokenizer)
    if (arguments.steps or "merges" in arguments) and not isinstance(tokenizer, BPETokenizer):
        option = "--steps" if arguments.steps else "--merges"
        raise ConfigError(f"{option} is for byte-level BPE, and this is a {type(tokenizer).__name__}: leave it out")
    print(tokenizer)
    if arguments.text is not None:
        print(show(tokenizer, arguments.text))
    if not isinstance(tokenizer, BPETokenizer):
        return 0
    if arguments.text is None:
        print(show_merges(tokenizer, 0, vars(arguments).get("merges", 50)))
    elif arguments.steps:
        print(replay_encoding(tokenizer, arguments.text))
    return 0


def pretrain_run(arguments: argparse.Namespace) -> int:
    if arguments.resume:
        sections = resumed_sections(arguments.out)
    else:
        sections = read_config(arguments.config) if arguments.config else {}
    for key in ("corpus", "tokenizer"):
        if getattr(arguments, key):
            sections.setdefault("data", {})[key] = str(Path(getattr(arguments, key)).resolve())
    if arguments.engine:
        sections.setdefault("engine", {})["name"] = arguments.engine
    if arguments.attention:
        sections.setdefault("model", {})["attention"] = arguments.attention
    for option in arguments.set:
        override(sections, option, SECTIONS)
    result = pretrain(sections, arguments.out, resume=arguments.resume)
    if process_rank() > 0:  # under torchrun the first process speaks for all
        return 0
    print(f"{result.reason} at step {result.state.step:,} after {result.state.seconds:,.0f} s")
    if result.state.best_loss is not None:
        print(f"best validation loss {result.state.best_loss:.4f} nats/token, step {result.state.best_step:,}")
    print(f"wrote {arguments.out}: best, last, metrics.jsonl, config.toml")
    if result.signal is not None:
        print(f"to go on: minillm pretrain --resume --out {arguments.out}")
        return 128 + result.signal
    return 0


def evaluate_run(arguments: argparse.Namespace) -> int:
    from .engines.threads import Replicas
    from .hub.checkpoint import load_model_and_tokenizer
    from .training.checkpoint import checkpoint_in
    from .training.evaluate import evaluate

    model, tokenizer = load_model_and_tokenizer(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            data = pack(read_documents(arguments.data), tokenizer, Path(folder) / "tokens.bin")
        else:
            data = packed(corpus_of(arguments.run), arguments.split, tokenizer)
        context = arguments.context or model.config.context
        result = evaluate(
            Replicas(model).batch_loss,
            data,
            batch_size=arguments.batch_size,
            context=context,
            objective=model_objective(model.config, tokenizer),
            max_tokens=arguments.max_tokens,
        )
        print(f"{checkpoint_in(arguments.run)} on {' '.join(arguments.data) or arguments.split}: {result}")
        del data  # unmap the file before its folder goes (Windows)
    return 0


def corpus_of(run: str) -> str:
    """The corpus folder that the run of a run folder or checkpoint was trained on, from its config.toml."""
    for folder in (Path(run), Path(run).parent):
        if (folder / CONFIG_FILE).exists():
            return str(resumed_sections(folder).get("data", {}).get("corpus", ""))
    raise ConfigError(f"{run} does not say what it was trained on (no {CONFIG_FILE}): give --data FILE")


def generate_text(arguments: argparse.Namespace) -> int:
    from .generate import Sampling, check_continues, stream_text
    from .hub.checkpoint import load_model_and_tokenizer

    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
    )
    model, tokenizer = load_model_and_tokenizer(arguments.run)
    check_continues(model)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    for sample in range(arguments.samples):
        seed = None if arguments.seed is None else arguments.seed + sample
        print(prompt, end="", flush=True)
        pieces = stream_text(
            model,
            tokenizer,
            prompt,
            max_new_tokens=arguments.max_new_tokens,
            sampling=sampling,
            seed=seed,
            use_cache=not arguments.no_cache,
        )
        for piece in pieces:
            print(piece, end="", flush=True)
        print("\n" + "-" * 40 if sample + 1 < arguments.samples else "")
    return 0


def convert_checkpoint(arguments: argparse.Namespace) -> int:
    from .hub.convert import convert

    files = convert(
        arguments.model,
        arguments.out,
        to=arguments.to,
        dtype=arguments.dtype,
        tied=arguments.tied,
        max_shard_size=arguments.max_shard_size,
    )
    print(f"wrote {arguments.out}: {', '.join(path.name for path in files)}, config.json")
    return 0


def inspect_checkpoint(arguments: argparse.Namespace) -> int:
    from .report import inspect

    text = inspect(
        arguments.model,
        batch_size=arguments.batch_size,
        length=arguments.context or None,
        card=arguments.card,
        mfu=arguments.mfu,
        tokens=arguments.tokens,
        price=arguments.price,
    )
    print(text)
    return 0


def compare_models(arguments: argparse.Namespace) -> int:
    from .compare import compare

    text = compare(
        arguments.models,
        data=arguments.data,
        batch_size=arguments.batch_size,
        length=arguments.context,
        max_bytes=arguments.max_bytes,
        engine=arguments.engine,
    )
    print(text)
    return 0
