"""From one checkpoint folder to another: format, dtype, tied or not, one file or several. One tensor at a time, so
that a model of any size converts on any machine."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import read_json, whole_folder, write_json
from ..models import ModelConfig, config_to_dict, model_from_config
from ..models.sketch import sketch
from ..tokenizers import CharTokenizer, SentencePieceTokenizer, WordPieceTokenizer, load_tokenizer
from ..tokenizers.json_parts import TOKENIZER_JSON
from ..tokenizers.sentencepiece_tokenizer import FILES, MODEL_FILE
from .adapters import merged_reader
from .checkpoint import ORIGINAL, Checkpoint, open_checkpoint
from .configs import architecture_of, to_hf
from .dtypes import dtype_name
from .experts import join_experts
from .gguf import write_gguf
from .gguf_reader import unpack_gguf
from .keras_folder import is_keras, unpack_keras, write_keras
from .keras_models import check_config
from .names import in_file
from .pretrained import size_in_bytes
from .tokenizer import TEMPLATE_FILE, AutoTokenizer, PretrainedTokenizer
from .tokenizer_files import CONFIG_FILE
from .weights import Source, write_folder

BESIDE = (
    TOKENIZER_JSON, CONFIG_FILE, TEMPLATE_FILE, "special_tokens_map.json", "merges.txt", "vocab.txt",
    "generation_config.json", "added_tokens.json", *FILES.values(), MODEL_FILE,
)  # fmt: skip
FORMS = ("hf", "minillm", "gguf", "keras")
TABLE = "token_embedding.weight"  # our name of the token table, which a tied head shares


def convert(
    name_or_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str = "hf",
    dtype: Any = None,
    tied: bool | None = None,
    max_shard_size: str | int = "5GB",
) -> list[Path]:
    """Write a checkpoint to the new or empty folder `out` in another form; returns the weight files.

    `to`: "hf", what transformers reads, or "minillm", what `minillm generate` and `evaluate` read (one file, float32 or
    float64), or "gguf", one file for llama.cpp (gguf.py: GPT-2, Llama and Qwen with their byte-level tokenizers, as
    float32, float16 or q8_0), or "keras", a model of Keras's own layers (keras_models.py: GPT-2 and BERT, in float32).
    A GGUF file or a Keras folder of these kinds may be what is converted. `dtype`: as stored by default (in GGUF and
    Keras float32). `tied`: True drops a head that equals the token table, False writes the table out a second time as
    the head (Llama, Qwen, LSTM). Tokenizer, chat template and generation settings come
    along. Of an adapter, the whole model is written, with the adapter merged into it. The folder is there whole or not
    at all: everything is written beside it first. Raises ValueError for what cannot be done and FileExistsError for a
    folder with something in it, with nothing written.
    """
    if to not in FORMS:
        raise ValueError(f"to = {to!r} must be one of {', '.join(FORMS)}.")
    if os.fspath(out) == "":
        raise ValueError("out is empty: give the folder to write.")
    if Path(name_or_folder).suffix == ".gguf" and Path(name_or_folder).is_file():
        with tempfile.TemporaryDirectory() as folder:
            unpack_gguf(Path(name_or_folder), Path(folder))
            return convert(folder, out, to=to, dtype=dtype, tied=tied, max_shard_size=max_shard_size)
    if is_keras(Path(name_or_folder)):
        with tempfile.TemporaryDirectory() as folder:
            unpack_keras(Path(name_or_folder), Path(folder), (*BESIDE, ORIGINAL))
            return convert(folder, out, to=to, dtype=dtype, tied=tied, max_shard_size=max_shard_size)
    checkpoint = open_checkpoint(name_or_folder)
    out = Path(out)
    if to == "gguf":
        return [write_gguf(checkpoint, out, str(dtype or "float32"))]
    if out.resolve() == checkpoint.folder.resolve():
        raise ValueError(f"{out} is the folder to convert: write to another one.")
    if to == "minillm" and checkpoint.head == "base":
        raise ValueError(f"{checkpoint.folder} is a model without a head: to='minillm' needs one. Use AutoModel.")
    if to == "keras":
        check_config(checkpoint.config, checkpoint.head)
        if dtype not in (None, "float32"):
            raise ValueError(f"dtype = {dtype}: a Keras model is written in float32.")
    config = checkpoint.config if tied is None else retied(checkpoint, tied)
    written = dtype_name(dtype or checkpoint.dtype)
    if to == "minillm" and written not in ("float32", "float64"):
        if dtype is not None:
            raise ValueError(f"dtype = {written}: minillm's own format holds float32 or float64.")
        written = "float32"
    values = target_config(checkpoint, config, written) if to == "hf" else config_to_dict(config)
    sources = target_sources(checkpoint, config, to)
    shard_bytes = size_in_bytes(max_shard_size) if to == "hf" else sys.maxsize  # one file
    with whole_folder(out) as folder:
        if to == "keras":
            files = [write_keras(folder, config, sources)]
        else:
            files = write_folder(folder, dict(sorted(sources.items())), written, shard_bytes)
        write_json(folder / "config.json", values)
        if to != "hf" and checkpoint.original:
            write_json(folder / ORIGINAL, checkpoint.original)
        copy_beside(checkpoint, folder, to)
    return [out / path.name for path in files]


def target_config(checkpoint: Checkpoint, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json for transformers. A model trained here names the ids that its tokenizer ends texts with; one that
    chats ends at its turn's end, which tokenizer_config.json names."""
    original = checkpoint.original
    if not original and (checkpoint.folder / TOKENIZER_JSON).exists():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
        bos = tokenizer.core.eos_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        original = {"bos_token_id": bos, "eos_token_id": tokenizer.eos_token_id}
    return dict(sorted({**to_hf(config, original, checkpoint.head), "dtype": dtype}.items()))


def target_sources(checkpoint: Checkpoint, config: ModelConfig, to: str) -> dict[str, Source]:
    """Every tensor of the new checkpoint, by its name there, and where it comes from."""
    architecture = architecture_of(config) if to == "hf" else None
    sources = {}
    for name, parameter in model_from_config(config, sketch()).named_parameters():
        name_there = name if name in checkpoint.plan.tensors else TABLE
        _, stands = checkpoint.plan.tensors[name_there]
        read = merged_reader(checkpoint.plan, name_there, checkpoint.lora)
        theirs, shape, turned = in_file(name, parameter.shape, architecture, checkpoint.head)
        sources[theirs] = Source(shape, read, turned=stands != turned)
    return join_experts(sources, architecture.fused) if architecture and architecture.writes_fused else sources


def retied(checkpoint: Checkpoint, tied: bool) -> ModelConfig:
    """The config with its head tied or not. Tying takes a head that equals the token table."""
    config: Any = checkpoint.config
    if not hasattr(config, "tie_embeddings") or checkpoint.head == "base":
        raise ValueError(f"the head of a {type(config).__name__.removesuffix('Config')} is not one to tie or untie.")
    if tied and not config.tie_embeddings:
        table, head = [checkpoint.plan.tensors[name][0] for name in (TABLE, "head.weight")]
        gap = max((float(np.abs(a - b).max()) for (_, a), (_, b) in zip(table.blocks(), head.blocks())), default=0.0)
        if table.shape != head.shape or gap > 0:
            differs = f"differs from the token table by up to {gap:g}"
            raise ValueError(f"the head {differs}: tying them would change the model.")
    return dataclasses.replace(config, tie_embeddings=tied)


def copy_beside(checkpoint: Checkpoint, out: Path, to: str) -> None:
    """The files beside the weights: as they are, and for transformers with what a tokenizer made here needs."""
    for name in BESIDE:
        tokenizer_file = name != "generation_config.json"
        beside = (checkpoint.tokenizer_folder if tokenizer_file else checkpoint.folder) / name
        if beside.is_file():
            shutil.copyfile(beside, out / name)
    made_here = (out / TOKENIZER_JSON).exists() and not (out / CONFIG_FILE).exists()
    if to != "hf" or not checkpoint.native or not made_here:
        return
    core = load_tokenizer(out)
    if isinstance(core, CharTokenizer):  # whose own format only minillm reads
        write_json(out / TOKENIZER_JSON, core.hf_json())
    settings: dict[str, Any] = {}
    if isinstance(core, WordPieceTokenizer) and core.is_bert:
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": core.normalizer.lowercase,
            "tokenize_chinese_chars": core.normalizer.handle_chinese_chars,
            "strip_accents": core.normalizer.strip_accents,
        }
    content = read_json(out / TOKENIZER_JSON)
    if isinstance(core, SentencePieceTokenizer):  # saved as its model files
        (out / TOKENIZER_JSON).unlink()
        settings = {"tokenizer_class": "MarianTokenizer", "model_max_length": 512} if core.is_marian else {}
    PretrainedTokenizer(core, settings, tokenizer_json=content).save_pretrained(out)
