"""A folder whose tokenizer is SentencePiece's own model files: Marian's, and those with a tokenizer.model alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..tokenizers import SentencePieceTokenizer
from ..tokenizers.json_parts import TOKENIZER_JSON
from ..tokenizers.sentencepiece_tokenizer import FILES, MODEL_FILE, read_model
from ..tokenizers.template import PLAIN, Template
from .configs import read_object

CONFIG_FILE = "tokenizer_config.json"
ASSUMED = {  # class -> its tokens where nothing is said; all put the first before a text, none anything behind it
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GemmaTokenizer": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
}
OF_MODELS = {"llama": "LlamaTokenizer", "mistral": "LlamaTokenizer", "gemma3_text": "GemmaTokenizer"}


def load_marian(folder: Path, config: Mapping[str, Any]) -> SentencePieceTokenizer:
    """Marian's tokenizer. Raises FileNotFoundError for a file that is missing, ValueError, naming the setting or the
    file, for what is not read here."""
    where = folder / CONFIG_FILE
    if config.get("separate_vocabs"):
        raise ValueError(f"{where}: separate_vocabs is true: a Marian with one vocabulary for both languages is read.")
    if drawing := {name: value for name, value in (config.get("sp_model_kwargs") or {}).items() if value}:
        raise ValueError(f"{where}: sp_model_kwargs = {drawing!r:.80}: a text is cut in one way here, none is drawn.")
    for name in FILES.values():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: a Marian's tokenizer is {', '.join(FILES.values())}.")
    return SentencePieceTokenizer.load_marian(folder)


def load_model_file(
    folder: Path, config: dict[str, Any], name: str, texts: Mapping[str, str | None]
) -> tuple[SentencePieceTokenizer, dict[str, Any]]:
    """tokenizer.model, and the config completed by what its class, `name`, assumes; `texts`: role -> token. Raises
    ValueError for a class of which it is not known what it puts around a text."""
    if not name and (folder / "config.json").exists():
        kind = str(read_object(folder / "config.json").get("model_type"))
        name = OF_MODELS.get(kind, f"the tokenizer of model_type {kind!r}")
    if name and name not in ASSUMED:
        raise ValueError(
            f"{folder} has only a {MODEL_FILE}, which {name} surrounds in its own way; only {' and '.join(ASSUMED)} "
            f"are known. In transformers, load and save it once: {TOKENIZER_JSON} says it all."
        )
    core = SentencePieceTokenizer(read_model(folder / MODEL_FILE))
    if not name:
        return core, config
    config = {"tokenizer_class": name, **ASSUMED[name], **config}
    texts = {**ASSUMED[name], **texts}
    around = [str(texts[role]) if config.get(f"add_{role}", role == "bos_token") else ""
              for role in ("bos_token", "eos_token")]  # fmt: skip
    if absent := [text for text in filter(None, around) if text not in core.special_tokens]:
        raise ValueError(f"{folder / MODEL_FILE} has no piece {absent[0]!r}, which {name} puts around a text.")
    before, behind = ([(text, 0)] * bool(text) for text in around)
    ids = {text: (core.special_tokens[text],) for text in filter(None, around)}
    single = (*before, ("$A", 0), *behind)
    if ids:
        core.template = Template(single, (*single, *before, ("$B", 0), *behind), ids)
    else:
        core.template = PLAIN
    return core, config
