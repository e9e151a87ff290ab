"""`minillm quickstart`: from raw text to a language model that you trained yourself, in about four minutes.

Everything happens in this process, in NumPy, without a network. Each step below calls one part of the library and
prints what it did, which file holds the code, and what it wrote: read along.
"""

from __future__ import annotations

import argparse
import shlex
import time
from operator import itemgetter
from pathlib import Path

from ..data import build_corpus, corpus_documents, corpus_text, stdlib_documents
from ..disk import claim, remove_folder, write_json, write_text
from ..engines.memory import peak_memory_gb
from ..engines.threads import Replicas
from ..generate import Sampling, stream_text
from ..hub.checkpoint import load_model_and_tokenizer
from ..tokenizers import BPETokenizer
from ..tokenizers.show import render
from ..training.baselines import NGramModel, xz_bits_per_byte
from ..training.evaluate import Evaluation, evaluate
from ..training.pretrain import DataConfig, packed, pretrain, read_config
from ..training.protocol import TrainResult
from .options import add_option, keywords, program, whole
from .plot import PICTURE, check_matplotlib, draw, how_to_draw, rows_of
from .table import table

VOCAB_SIZE = 2048
BYTES_PER_SECOND = 100_000  # of training time: more text than can be read in it, so that no text is seen twice
KIND = "run of quickstart"  # of folder
FILES = (
    *("corpus", "tokenizer.json", "best", "last", "config.toml", "metrics.jsonl"),
    *("samples.txt", "results.json", PICTURE),
)
PROMPTS = ("def read", "class Queue", "import")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_option(parser, quickstart, "out", "run folder to make", metavar="FOLDER")
    add_option(parser, quickstart, "seconds", "time to train for; a few are enough to see the road")
    add_option(parser, quickstart, "seed", "of the initial weights and the order of the data", type=whole(0))
    add_option(parser, quickstart, "overwrite", "replace an earlier quickstart in the folder", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    return quickstart(**keywords(quickstart, arguments))


def quickstart(
    out: str | Path = "runs/quickstart", *, seconds: float = 190.0, seed: int = 1337, overwrite: bool = False
) -> int:
    """Make the run folder `out`, training for `seconds`; returns the exit status (130 if stopped by Ctrl-C).

    Raises FileExistsError if the folder holds something already and `overwrite` is False, or is no quickstart's.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds {seconds:g} must be above 0: it is the time to train for.")
    began = time.perf_counter()
    out = Path(out)
    make_folder(out, overwrite)

    say(1, "Collect text: the source of Python's standard library, which is on this machine already")
    print("  read minillm/data/: clean.py, dedup.py and split.py, put together in build.py")
    report = build_corpus(stdlib_documents(max_bytes=int(seconds * BYTES_PER_SECOND)), out / "corpus")
    print(indent(report.summary()))
    print(f"  wrote {out / 'corpus'}: train.jsonl, val.jsonl, report.json, dropped.jsonl")

    say(2, "Train a tokenizer: byte-pair encoding learns which pieces of text stand together often")
    print("  read minillm/tokenizers/bpe.py")
    tokenizer = BPETokenizer.train((document.text for document in corpus_documents(out / "corpus")), VOCAB_SIZE)
    tokenizer.save(out / "tokenizer.json")
    example = "    return self._data[index]"
    pieces = " ".join(render(tokenizer.token_bytes(id)) for id in tokenizer.encode(example))
    print(f"  {tokenizer.vocab_size:,} tokens; the line {example!r} becomes {pieces}")
    print(f"  wrote {out / 'tokenizer.json'}")

    say(3, "Encode the text: every document becomes token ids in one long file")
    print("  read minillm/data/packing.py and batches.py")
    train_data, val_data = (packed(DataConfig(str(out / "corpus")), split, tokenizer) for split in ("train", "val"))
    print(f"  training   {len(train_data):>9,} tokens, {train_data.n_bytes / len(train_data):.2f} bytes each")
    print(f"  validation {len(val_data):>9,} tokens, from modules that the model never sees")
    print(f"  wrote {train_data.path.parent}")

    say(4, f"Train a model for {seconds:,.0f} seconds to predict the next token")
    print("  a Llama: GPT (minillm/models/gpt.py: read it first) with rotary positions, RMS norm and a gate")
    print("  read minillm/models/llama.py (the model), training/train.py (the loop), tensor.py (gradients),")
    print("  engines/muon.py (the optimizer, beside AdamW in optim.py)")
    result = train_model(out, seconds, seed)
    if result.signal is not None:
        print(f"stopped; to go on: {program()} pretrain --resume --out {shlex.quote(str(out))}")
        return 128 + result.signal

    say(5, "Evaluate on the held-out modules, beside models that only count, and a compressor")
    print("  read minillm/training/evaluate.py and baselines.py")
    model, _ = load_model_and_tokenizer(out / "best")
    evaluation = evaluate(Replicas(model).batch_loss, val_data, batch_size=16, context=model.config.context)
    bits = compare(out / "corpus", evaluation)
    rows = [(name, f"{value:.3f}") for name, value in sorted(bits.items(), key=itemgetter(1), reverse=True)]
    print(indent(table("bits per byte (fewer is better; random bytes need 8)", rows)))
    print(f"  the model has read {result.state.tokens:,} tokens, the others all {len(train_data):,} of its text")

    say(6, "Generate: sample one token after another")
    print("  read minillm/generate.py")
    samples = []
    sampling = Sampling(temperature=0.8)
    for i, prompt in enumerate(PROMPTS):
        continuation = stream_text(model, tokenizer, prompt, max_new_tokens=100, sampling=sampling, seed=seed + i)
        samples.append(prompt + "".join(continuation))
    print(indent("\n\n".join(samples), "  | "))
    write_text(out / "samples.txt", "\n\n".join(samples) + "\n")

    total = time.perf_counter() - began
    say(7, f"Done in {total:,.0f} s, with at most {peak_memory_gb():.2f} GB of memory. The run folder:")
    results = {"bits_per_byte": bits, "tokens_seen": result.state.tokens, "seconds": total}
    write_json(out / "results.json", results)
    folder, picture = shlex.quote(str(out)), "the loss of training and validation"
    if not plot(out):
        picture = f"not drawn, since matplotlib is missing. To get it: {how_to_draw(folder)}"
    print(
        f"  {out}\n"
        f"    best, last       checkpoints: weights, optimizer, tokenizer (read minillm/training/checkpoint.py)\n"
        f"    metrics.jsonl    one line per step and evaluation\n"
        f"    config.toml      every setting of this run\n"
        f"    results.json     the table above; samples.txt: the samples\n"
        f"    {PICTURE}         {picture}\n"
        f"Next:\n"
        f"  {program()} generate {folder} --prompt 'class Queue'\n"
        f"  {program()} finetune sft --model {folder} --data CHATS.jsonl --out runs/mine\n"
        f"  {program()} tokenizer show {shlex.quote(str(out / 'tokenizer.json'))} 'any text'\n"
        f"  {program()} pretrain --help"
    )
    return 0


def say(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def indent(text: str, by: str = "  ") -> str:
    return "\n".join(by + line for line in text.splitlines())


def make_folder(out: Path, overwrite: bool) -> None:
    """An empty folder `out`, marked as a quickstart's. Only an earlier one is ever removed, wherever it stopped, and
    only if nothing else lies in it."""
    if out.is_file():
        raise FileExistsError(f"--out {out} is a file: give another name for the folder to make.")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{out} is not empty: give --out, or --overwrite to replace an earlier quickstart.")
        remove_folder(out, KIND)
    claim(out, KIND, FILES)


def train_model(out: Path, seconds: float, seed: int) -> TrainResult:
    """Train what training/presets/quickstart.toml describes on the corpus and tokenizer in `out`."""
    sections = read_config("quickstart")
    sections["data"] = {"corpus": str((out / "corpus").resolve()), "tokenizer": str((out / "tokenizer.json").resolve())}
    sections["train"] |= {"max_seconds": seconds, "seed": seed}
    return pretrain(sections, out)


def compare(corpus: Path, evaluation: Evaluation) -> dict[str, float]:
    """Bits per byte of the validation text: what n-grams and xz need after the training text, and the model."""
    train_text, val_text = corpus_text(corpus, "train"), corpus_text(corpus, "val")
    n_bytes = len(val_text.encode())
    counts = NGramModel.fit(train_text, order=5).total_bits(val_text) / n_bytes
    return {
        "unigram (how often each byte occurs)": float(counts[0]),
        "5-gram (the byte after the last four)": float(counts[4]),
        "xz, alone": xz_bits_per_byte(val_text),
        "xz, after the training text": xz_bits_per_byte(val_text, train_text),
        "Llama, this run": evaluation.bits_per_byte,
    }


def plot(out: Path) -> bool:
    """Draw the loss of training and validation over the steps; False where matplotlib is missing."""
    try:
        check_matplotlib()
    except ImportError:
        return False
    draw({out.name: rows_of(out)}, out / PICTURE)
    return True
