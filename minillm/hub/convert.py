"""From one checkpoint folder to another: format, dtype, tied or not, one file or several. One tensor at a time, so
that a model of any size converts on any machine."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import read_json, whole_folder, write_json
from ..models import ModelConfig, config_to_dict
from ..tokenizers import CharTokenizer, WordPieceTokenizer, load_tokenizer
from ..tokenizers.json_parts import TOKENIZER_JSON
from .architecture import ConfigurationError
from .checkpoint import ORIGINAL, Checkpoint, open_checkpoint
from .configs import architecture_of, to_hf
from .dtypes import dtype_name
from .loading import sketched_model
from .names import file_name, is_transposed
from .pretrained import size_in_bytes
from .tokenizer import CONFIG_FILE, TEMPLATE_FILE, PretrainedTokenizer
from .weights import Source, Stored, write_folder

BESIDE = (
    TOKENIZER_JSON, CONFIG_FILE, TEMPLATE_FILE, "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "generation_config.json", "added_tokens.json",
)  # fmt: skip
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
    float64). `dtype`: as stored by default. `tied`: True drops a head that equals the token table, False writes the
    table out a second time as the head (Llama, Qwen, LSTM). Tokenizer, chat template and generation settings come
    along. The folder is there whole or not at all: everything is written beside it first. Raises ValueError for what
    cannot be done and FileExistsError for a folder with something in it, with nothing written.
    """
    if to not in ("hf", "minillm"):
        raise ValueError(f"to = {to!r} must be 'hf' or 'minillm'.")
    checkpoint = open_checkpoint(name_or_folder)
    if os.fspath(out) == "":
        raise ValueError("out is empty: give the folder to write.")
    out = Path(out)
    if out.resolve() == checkpoint.folder.resolve():
        raise ValueError(f"{out} is the folder to convert: write to another one.")
    if to == "minillm" and checkpoint.head == "base":
        raise ValueError(
            f"{checkpoint.folder} holds a model without a head, and one in minillm's own format has its head: load it "
            "with AutoModel, or convert a checkpoint with a head."
        )
    config = checkpoint.config if tied is None else retied(checkpoint, tied)
    written = dtype_name(dtype or checkpoint.dtype)
    if to == "minillm" and written not in ("float32", "float64"):
        if dtype is not None:
            raise ValueError(f"dtype = {written}: minillm's own format holds float32 or float64.")
        written = "float32"
    values = config_to_dict(config) if to == "minillm" else target_config(checkpoint, config, written)
    sources = target_sources(checkpoint, config, to)
    shard_bytes = size_in_bytes(max_shard_size) if to == "hf" else max(1, sum_bytes(sources))
    with whole_folder(out) as folder:
        files = write_folder(folder, dict(sorted(sources.items())), written, shard_bytes)
        write_json(folder / "config.json", values)
        if to == "minillm" and not checkpoint.native:
            write_json(folder / ORIGINAL, checkpoint.values)
        copy_beside(checkpoint, folder, to)
    return [out / path.name for path in files]


def target_config(checkpoint: Checkpoint, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json for transformers. A model trained here names the ids that its tokenizer ends texts with."""
    original = checkpoint.original
    if not original and (checkpoint.folder / TOKENIZER_JSON).exists():
        eos = load_tokenizer(checkpoint.folder).eos_id
        original = {"bos_token_id": eos, "eos_token_id": eos}
    if architecture_of(config) is None:
        raise ConfigurationError(
            f"transformers has no architecture for a model of type {config.model_type!r}: only to='minillm' is "
            "possible."
        )
    return dict(sorted({**to_hf(config, original, checkpoint.head), "dtype": dtype}.items()))


def target_sources(checkpoint: Checkpoint, config: ModelConfig, to: str) -> dict[str, Source]:
    """Every tensor of the new checkpoint, by its name there, and where it comes from."""
    architecture = architecture_of(config) if to == "hf" else None
    sources = {}
    for name, parameter in sketched_model(config).named_parameters():
        stored, stands = checkpoint.plan.tensors[name if name in checkpoint.plan.tensors else TABLE]
        transposed = architecture is not None and is_transposed(name, architecture)
        shape = parameter.shape[::-1] if transposed else parameter.shape
        source = Source(shape, Reader(stored, stands != transposed))
        sources[name if architecture is None else file_name(name, architecture, checkpoint.head)] = source
    return sources


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads a stored tensor when called, turned on its side if need be."""

    stored: Stored
    turned: bool

    def __call__(self) -> np.ndarray:
        array = self.stored.read()
        return array.T if self.turned else array


def retied(checkpoint: Checkpoint, tied: bool) -> ModelConfig:
    """The config with its head tied or not. Tying takes a head that equals the token table."""
    config: Any = checkpoint.config
    if not hasattr(config, "tie_embeddings") or checkpoint.head == "base":
        raise ValueError(f"the head of a {type(config).__name__.removesuffix('Config')} is not one to tie or untie.")
    if tied and not config.tie_embeddings:
        table, head = [checkpoint.plan.tensors[name][0] for name in (TABLE, "head.weight")]
        gap = max((float(np.abs(a - b).max()) for (_, a), (_, b) in zip(table.blocks(), head.blocks())), default=0.0)
        if table.shape != head.shape or gap > 0:
            raise ValueError(
                f"the head differs from the token table by up to {gap:g}: tying them would change the model."
            )
    return dataclasses.replace(config, tie_embeddings=tied)


def copy_beside(checkpoint: Checkpoint, out: Path, to: str) -> None:
    """The files beside the weights: copied as they are, and for transformers completed by what a tokenizer made here
    needs."""
    for name in BESIDE:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, out / name)
    made_here = (out / TOKENIZER_JSON).exists() and not (out / CONFIG_FILE).exists()
    if to != "hf" or not checkpoint.native or not made_here:
        return
    core = load_tokenizer(out)
    if isinstance(core, CharTokenizer):  # transformers knows none such: leave the file for minillm
        return
    settings: dict[str, Any] = {}
    if isinstance(core, WordPieceTokenizer) and core.is_bert:
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": core.normalizer.lowercase,
            "tokenize_chinese_chars": core.normalizer.handle_chinese_chars,
            "strip_accents": core.normalizer.strip_accents,
        }
    tokenizer = PretrainedTokenizer(core, settings, tokenizer_json=read_json(out / TOKENIZER_JSON))
    tokenizer.save_pretrained(out)


def sum_bytes(sources: dict[str, Source]) -> int:
    return sum(8 * int(np.prod(source.shape)) for source in sources.values())
