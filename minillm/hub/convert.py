"""From one checkpoint folder to another: format, dtype, tied or not, one file or several. One tensor at a time, so
that a model of any size converts on any machine."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..models import BertConfig, LlamaConfig, LSTMConfig, ModelConfig, config_from_dict, config_to_dict
from ..tokenizers import CharTokenizer, WordPieceTokenizer, load_tokenizer
from ..tokenizers.files import TOKENIZER_JSON, read_json, write_json
from . import configs
from .auto import ORIGINAL, read_config
from .dtypes import dtype_name
from .loading import Plan, make_plan, sketched_model
from .names import canonical_names, is_transposed, layout_of
from .places import find_folder
from .pretrained import file_name, head_of, hf_config, size_in_bytes
from .tokenizer import CONFIG_FILE, TEMPLATE_FILE, PretrainedTokenizer
from .weights import Source, Stored, WeightsError, common_dtype, read_folder, shorten, write_folder

BESIDE = (
    TOKENIZER_JSON, CONFIG_FILE, TEMPLATE_FILE, "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "generation_config.json", "added_tokens.json",
)  # fmt: skip
Tied = LlamaConfig | LSTMConfig  # the models whose head may be tied or not


@dataclasses.dataclass
class Checkpoint:
    """A folder as it lies there: what its config.json says, and where its tensors are. No weights are read."""

    folder: Path
    values: dict[str, Any]  # config.json
    native: bool  # in minillm's own format
    config: ModelConfig
    head: str
    stored: dict[str, Stored]
    plan: Plan

    @property
    def dtype(self) -> str:
        return common_dtype(self.stored if self.native else {n: t for n, (t, _) in self.plan.tensors.items()})


def open_checkpoint(name_or_folder: str | os.PathLike[str]) -> Checkpoint:
    """Read the headers of a checkpoint of either format, with the head that it was saved with.

    Raises what AutoModel.from_pretrained raises, and WeightsError for tensors that the model has no place for.
    """
    folder = find_folder(name_or_folder)
    values = read_config(folder)
    stored = read_folder(folder)
    native = configs.is_native(values)
    if native:
        config = config_from_dict(values)
        head = head_of(config)
    else:
        head = configs.head_in(values)
        config = with_what_is_stored(configs.from_hf(values, head), stored)
    shapes = {name: parameter.shape for name, parameter in sketched_model(config).named_parameters()}
    layout = None if native else layout_of(config)
    plan = make_plan(shapes, stored, layout, folder, predicts_tokens=head in ("causal", "mlm"))
    if plan.fresh:
        raise WeightsError(f"{folder} has no weights for {shorten(plan.fresh)}, which its config.json promises.")
    if plan.unused:
        raise WeightsError(f"{folder}: a {head!r} model has no place for {shorten(plan.unused)}, which would be lost.")
    return Checkpoint(folder, values, native, config, head, stored, plan)


def with_what_is_stored(config: ModelConfig, stored: dict[str, Stored]) -> ModelConfig:
    """A BERT with the pooler and the next-sentence head that its files hold, or without."""
    layout = layout_of(config)
    if not isinstance(config, BertConfig) or layout is None or config.head == "classification":
        return config
    names = set(canonical_names(stored, layout).values())
    next_sentence = config.head == "mlm" and "cls.seq_relationship.weight" in names
    pooler = "bert.pooler.dense.weight" in names and not next_sentence  # which brings it along
    return dataclasses.replace(config, pooler=pooler, next_sentence=next_sentence)


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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already and not empty: convert into a new folder, or remove it first.")
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
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        files = write_folder(Path(folder), dict(sorted(sources.items())), written, shard_bytes)
        write_json(Path(folder) / "config.json", values)
        if to == "minillm" and not checkpoint.native:
            write_json(Path(folder) / ORIGINAL, checkpoint.values)
        copy_beside(checkpoint, Path(folder), to)
        out.mkdir(exist_ok=True)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, out / path.name)
    return [out / path.name for path in files]


def target_config(checkpoint: Checkpoint, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json for transformers. A model trained here names the ids that its tokenizer ends texts with."""
    original = {} if checkpoint.native else checkpoint.values
    if checkpoint.native and (checkpoint.folder / ORIGINAL).exists():
        original = read_json(checkpoint.folder / ORIGINAL)
    elif checkpoint.native and (checkpoint.folder / TOKENIZER_JSON).exists():
        eos = load_tokenizer(checkpoint.folder).eos_id
        original = {"bos_token_id": eos, "eos_token_id": eos}
    if layout_of(config) is None:
        raise configs.ConfigurationError(
            f"transformers has no architecture for a model of type {config.model_type!r}: only to='minillm' is "
            "possible."
        )
    return dict(sorted({**hf_config(config, original, checkpoint.head), "dtype": dtype}.items()))


def target_sources(checkpoint: Checkpoint, config: ModelConfig, to: str) -> dict[str, Source]:
    """Every tensor of the new checkpoint, by its name there, and where it comes from."""
    layout = layout_of(config) if to == "hf" else None
    sources = {}
    for name, parameter in sketched_model(config).named_parameters():
        stored, stands = checkpoint.plan.tensors[name if name in checkpoint.plan.tensors else table_name(config)]
        transposed = layout is not None and is_transposed(name, layout)
        shape = parameter.shape[::-1] if transposed else parameter.shape
        source = Source(shape, Reader(stored, stands != transposed))
        sources[file_name(name, config, checkpoint.head) if to == "hf" else name] = source
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
    config = checkpoint.config
    if not isinstance(config, (LlamaConfig, LSTMConfig)) or checkpoint.head == "base":
        raise ValueError(f"the head of a {type(config).__name__.removesuffix('Config')} is not one to tie or untie.")
    if tied and not config.tie_embeddings:
        table, head = [checkpoint.plan.tensors[name][0] for name in (table_name(config), "head.weight")]
        gap = max((float(np.abs(a - b).max()) for (_, a), (_, b) in zip(table.blocks(), head.blocks())), default=0.0)
        if table.shape != head.shape or gap > 0:
            raise ValueError(
                f"the head differs from the token table by up to {gap:g}: tying them would change the model."
            )
    return dataclasses.replace(config, tie_embeddings=tied)


def table_name(config: ModelConfig) -> str:
    """Our name of the token table that a tied head shares."""
    return "token_embedding.weight"


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
