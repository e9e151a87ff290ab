"""config.json: from Hugging Face's settings to ours and back, for every architecture in the table below.

A setting that only they know must have the value that our model computes with; any other is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..disk import about, check_values, read_json
from ..models import MODELS, ClassifierConfig, ModelConfig
from .architecture import Architecture, ConfigurationError, Values, translate
from .bart import BART, MARIAN
from .bert import BERT, DISTILBERT, ROBERTA, XLM_ROBERTA
from .gemma import GEMMA3
from .gpt2 import GPT2
from .llama import LLAMA, MINISTRAL, MISTRAL, QWEN2, QWEN3
from .moe import GPT_OSS, QWEN3_MOE

ALL = (
    GPT2, LLAMA, MISTRAL, MINISTRAL, QWEN2, QWEN3, QWEN3_MOE, GPT_OSS, GEMMA3, BERT, ROBERTA, XLM_ROBERTA, DISTILBERT,
    BART, MARIAN,
)  # fmt: skip
ARCHITECTURES = {architecture.model_type: architecture for architecture in ALL}
GENERAL = ("num_labels", "id2label", "label2id", "problem_type", "bos_token_id", "eos_token_id", "pad_token_id")
MAX_LABELS = 1 << 20  # names are made up for labels that have none


def architecture_of(config: ModelConfig) -> Architecture | None:
    """How a model's checkpoints are written; None where transformers has no such architecture (LSTM, and the
    encoder–decoder of 2017). Raises ConfigurationError for a shape that none of a family has."""
    if isinstance(config, ClassifierConfig):
        body = architecture_of(config.decoder)
        assert body is not None
        names = {f"decoder.{ours}": theirs for ours, theirs in body.names.items()}
        return replace(body, names={**names, "score": "score"})
    for architecture in ARCHITECTURES.values():
        if type(config) is architecture.config_class:
            kind = architecture.model_type if architecture.variant is None else architecture.variant(config)
            return None if kind is None else ARCHITECTURES[kind]
    return None


def read_config(folder: Path, name: str = "config.json") -> Values:
    """config.json of a folder."""
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(
            f"no checkpoint in {folder}: it has no config.json, nor a folder best or last with one; it holds "
            f"{sorted(path.name for path in folder.iterdir())[:20]}. A run that has just begun writes its first at "
            "train.eval_every or train.save_every steps."
        )
    values = read_object(path)
    if not isinstance(values.get("model_type", ""), str):
        raise ConfigurationError(f"{path}: model_type must be a text, not {values['model_type']!r:.50}.")
    with about(path):
        check_values(GenerationSettings, {"eos_token_id": values.get("eos_token_id")})
    return values


def read_object(path: Path) -> Values:
    """The object in a JSON file."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must hold an object, not a {type(content).__name__}.")
    return content


@dataclass
class GenerationSettings:
    """The entries of generation_config.json that are followed here, by their types; `generate` checks what they say."""

    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    decoder_start_token_id: int | None
    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    bad_words_ids: list[list[int]] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    stop_strings: str | list[str] | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    num_return_sequences: int | None
    use_cache: bool | None


def read_generation_config(folder: Path) -> Values | None:
    """generation_config.json of a folder, None if it has none. Raises ValueError for what is no such file."""
    path = folder / "generation_config.json"
    if not path.exists():
        return None
    values = read_object(path)
    with about(path):
        check_values(GenerationSettings, values)
    return values


def is_native(values: Values) -> bool:
    """Whether a config.json was written by minillm, not by transformers: the setting names differ."""
    kind = values.get("model_type")
    return ("n_layers" in values and "d_model" in values) or (kind in list(MODELS) and kind not in list(ARCHITECTURES))


def setting_names(values: Values) -> set[str]:
    """The entries of a config.json that mean something."""
    architecture = ARCHITECTURES.get(values.get("model_type", ""))
    if is_native(values) or architecture is None:
        return set(values)
    return {*values, *GENERAL, *architecture.settings, *architecture.fixed, *architecture.further}


def from_hf(values: Values, head: str) -> ModelConfig:
    """Our config for a transformers config.json, with the head "base", "causal", "mlm" or "classification".

    Raises ConfigurationError for an architecture or a setting that would compute something else.
    """
    architecture = named_architecture(values)
    kind = architecture.model_type
    if head not in architecture.heads.values():
        able = [name for name, other in ARCHITECTURES.items() if head in other.heads.values()]
        able_text = ", ".join(able) or "only models made by minillm"
        raise ConfigurationError(f"config.json: a {kind} has no {head!r} head; {able_text} have one.")
    ours = translate(values, architecture)
    ours |= architecture.read(values, ours, head)
    labels: Values = {}
    if head == "classification":
        n = n_labels(values)
        loss = values.get("problem_type") or ("regression" if n == 1 else "single_label_classification")
        labels = {"n_labels": n, "problem_type": loss, "labels": label_names(values, n)}
    try:
        if architecture.is_decoder and labels:
            decoder = architecture.config_class(**ours)
            return ClassifierConfig(decoder, **labels, pad_id=values.get("pad_token_id"))
        return architecture.config_class(**ours, **labels)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"config.json does not describe a {kind} that can be built: {error}") from None


def named_architecture(values: Values) -> Architecture:
    """The architecture that a transformers config.json names. Raises ConfigurationError for one that minillm has not,
    and for weights that are no floats."""
    kind = values.get("model_type")
    architecture = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise ConfigurationError(f"config.json: {kind!r} is not an architecture that minillm has: they are {known}.")
    if quantized := values.get("quantization_config"):
        how = quantized.get("quant_method", "of a kind that it does not name") if isinstance(quantized, dict) else "?"
        raise ConfigurationError(
            f"config.json: a {kind} with quantized weights ({how!s:.40}): minillm reads floats. Take the model that it "
            "was made from."
        )
    return architecture


def head_in(values: Values) -> str:
    """The head that a transformers config.json says its weights have; that of pretraining where it says nothing."""
    architecture = named_architecture(values)
    names, kind = values.get("architectures") or [], architecture.model_type
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"config.json: architectures = {names!r} must be a list of names of classes.")
    for ending, head in architecture.heads.items():
        if not names or names[0].endswith(ending):
            return head
    able = ", ".join(architecture.family + ending for ending in architecture.heads)
    raise ConfigurationError(f"config.json: a {kind} with architectures = {names} is not supported: {able} are.")


def n_labels(values: Values) -> int:
    """Number of classes: that of `id2label`, or `num_labels`, or 2 as everywhere in transformers."""
    labels, number = values.get("id2label") or {}, values.get("num_labels", 2)
    if not isinstance(labels, dict) or type(number) is not int or not 1 <= number <= MAX_LABELS:
        found = f"id2label = {labels!r} must be an object of number -> name, num_labels = {number!r} a whole number"
        raise ConfigurationError(f"config.json: {found} up to {MAX_LABELS:,}.")
    return len(labels) or number


def label_names(values: Values, n: int) -> tuple[str, ...]:
    """The names of n classes by their numbers; () where config.json has none but LABEL_0 and so on."""
    labels = values.get("id2label") or {}
    names = tuple(str(labels[str(i)]) for i in range(n) if str(i) in labels)
    default = tuple(f"LABEL_{i}" for i in range(n))
    return names if names != default and len(set(names)) == n else ()


def with_settings(values: Values, settings: Values) -> Values:
    """config.json with some entries changed; another num_labels takes away labels that do not fit it."""
    changed = {**values, **settings}
    renamed = "num_labels" in settings and "id2label" not in settings
    if renamed and (labels := labels_for(n_labels({"num_labels": changed["num_labels"]}), values)):
        del changed["num_labels"]
        changed |= labels
    return changed


def labels_for(n: int, values: Values) -> Values:
    """Names for n classes; nothing where `values` has as many."""
    if len(values.get("id2label") or ()) == n:
        return {}
    return {"id2label": {str(i): f"LABEL_{i}" for i in range(n)}, "label2id": {f"LABEL_{i}": i for i in range(n)}}


# --- and back ---------------------------------------------------------------------------------------------------------


def to_hf(config: Any, original: Values, head: str) -> Values:
    """The transformers config.json of a model of ours, with the class to load it with.

    `original` is the config.json that the model came from ({} for a model made here): what is in it and has nothing to
    do with the shape (token ids, labels, comments) is kept. Raises ConfigurationError where no architecture fits.
    """
    architecture = architecture_of(config)
    if architecture is None:
        kind = f"a model of type {config.model_type!r}"
        raise ConfigurationError(f"transformers has no architecture for {kind}: write minillm's own format.")
    given = ARCHITECTURES.get(original.get("model_type", ""))
    if given is not None and architecture.model_type in given.also:
        architecture = given
    values = {name: allowed[0] for name, allowed in architecture.fixed.items()}
    values |= {key: value for key, value in original.items() if key not in ("torch_dtype", "_name_or_path")}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.setdefault(name, None)  # without a word, transformers takes ids that a small vocabulary does not have
    ending = next(ending for ending, its in architecture.heads.items() if its == head)
    values |= {"model_type": architecture.model_type, "architectures": [architecture.family + ending]}
    body: Any = config
    if isinstance(config, ClassifierConfig):
        body, head = config.decoder, "base"
        if config.pad_id is not None:
            values["pad_token_id"] = config.pad_id
    values |= {theirs: getattr(body, ours) for theirs, (ours, _) in architecture.settings.items()}
    values |= architecture.write(body, original, head)
    if config.task == "classification":
        values["problem_type"] = original.get("problem_type") or config.problem_type
        values |= labels_for(config.n_labels, original)
        if config.labels:
            values["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
            values["label2id"] = {label: i for i, label in enumerate(config.labels)}
    return values
