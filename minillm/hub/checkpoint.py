"""The front door: a folder, or a name on the hub, with a model in it, of either format, opened for use.

`open_checkpoint` reads headers only, so that a model of any size opens at once; what comes back gives the model on
either engine, its tokenizer and its config. (What a run needs to go on, training/checkpoint.py reads.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from ..disk import read_json
from ..finetune.lora import LoraConfig
from ..models import ModelConfig, config_from_dict, with_attention
from ..settings import ATTENTION, NEEDS_TORCH
from ..tokenizers import Tokenizer
from ..tokenizers.json_parts import TOKENIZER_JSON
from ..training.checkpoint import STATE_FILE, CheckpointError, check_tokenizer, check_undamaged, weight_files
from .adapters import Adapter, fit, is_adapter, read_adapter
from .architecture import ConfigurationError, Values
from .configs import (
    architecture_of,
    from_hf,
    head_in,
    is_native,
    named_architecture,
    read_config,
    setting_names,
    with_settings,
)
from .dtypes import dtype_name
from .experts import split_experts
from .loading import Plan, check_engine, load_numpy, load_torch, make_plan, report_plan
from .names import canonical_names
from .places import CONFIG, find_folder
from .sizes import check_sizes
from .tokenizer_files import read_tokenizer_folder
from .weights import Stored, WeightsError, common_dtype, fingerprint, read_folder, shorten

ORIGINAL = "hf_config.json"  # in minillm's own format: the config.json of the checkpoint that it was converted from


@dataclass(frozen=True)
class Checkpoint:
    """A folder as it lies there: what its config.json says, and where its tensors are. No weights are read."""

    folder: Path
    values: Values  # config.json
    native: bool  # in minillm's own format
    config: ModelConfig
    head: str  # what the model is for: "base" (features), "causal", "mlm", "classification" or "seq2seq"
    stored: dict[str, Stored]
    plan: Plan
    adapter: Adapter | None = None  # that is applied to it, from a folder of its own
    lora: LoraConfig | None = None  # which layers it adapts, and how

    @property
    def dtype(self) -> str:
        """That of most of the weights: "bfloat16"."""
        return common_dtype({name: tensor for name, (tensor, _) in self.plan.tensors.items()})

    @property
    def fingerprint(self) -> str:
        """By which its weights are known again, an adapter's among them."""
        return fingerprint({name: tensor for name, (tensor, _) in self.plan.tensors.items()})

    @property
    def state(self) -> Values:
        """What a run's state.json says; {} where there is none."""
        state = read_json(self.folder / STATE_FILE) if (self.folder / STATE_FILE).exists() else {}
        if not isinstance(state, dict):
            raise CheckpointError(f"{self.folder / STATE_FILE} must hold a JSON object, not a {type(state).__name__}.")
        return state

    @property
    def original(self) -> Values:
        """Its config.json in transformers' words; {} for a model that was made here."""
        if not self.native:
            return self.values
        return read_config(self.folder, ORIGINAL) if (self.folder / ORIGINAL).exists() else {}

    def model(
        self,
        *,
        engine: str = "numpy",
        dtype: Any = None,
        device: Any = None,
        attention: str = "auto",
        seed: int = 0,
        verify: bool = True,
    ) -> Any:
        """The model with its weights, in evaluation mode; the arguments are those of `AutoModel.from_pretrained`.
        `attention`: see `ops.attention`; what the model was trained with may not be here. `verify`: compare a run's
        weights with their checksum."""
        check_engine(engine, device)
        check_attention(self.config, attention, engine)
        if verify and self.native and (self.folder / STATE_FILE).exists():
            check_undamaged(self.folder, self.state, *weight_files(self.folder))
        config = with_attention(self.config, attention)
        if engine == "torch":
            model = load_torch(config, self.plan, dtype_name(dtype or self.dtype), device, seed, self.lora)
        else:
            default = "float64" if self.dtype == "float64" else "float32"
            model = load_numpy(config, self.plan, dtype_name(dtype or default), seed, self.lora)
        report_plan(self.plan, self.folder)
        return model.eval()

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer lies: beside the weights, or the adapter's own."""
        own = self.adapter is not None and (self.adapter.folder / TOKENIZER_JSON).exists()
        return self.adapter.folder if self.adapter is not None and own else self.folder

    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights. Raises CheckpointError if there is none, if it cannot be read, if it has
        ids that the model has not, or if the model was trained with another."""
        folder = self.tokenizer_folder
        try:
            read = read_tokenizer_folder(folder, {})
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} has no {TOKENIZER_JSON}: copy the training data's there.") from error
        except ValueError as error:
            raise CheckpointError(f"{folder / TOKENIZER_JSON} cannot be read: {error}") from error
        tokenizer, eos = read.core, read.config.get("eos_token")
        tokenizer.end_of_text = str(eos["content"] if isinstance(eos, dict) else eos or tokenizer.end_of_text)
        trained_with = self.state.get("tokenizer") if self.native else None
        check_tokenizer(tokenizer, self.config.vocab_size, trained_with, str(self.folder))
        return tokenizer

    def model_and_tokenizer(self, **how: Any) -> tuple[Any, Tokenizer]:
        """Both, `how` as for `model`. Raises what the two raise, and ValueError for a model without a head."""
        if self.head == "base":
            raise ValueError(f"{self.folder} is a model without a head: it gives features and predicts nothing.")
        tokenizer = self.tokenizer()
        return self.model(**how), tokenizer


def open_checkpoint(
    name_or_folder: str | os.PathLike[str],
    head: str | None = None,
    settings: Values | None = None,
    *,
    ignore_mismatched_sizes: bool = False,
    **hub: Any,
) -> Checkpoint:
    """Read the headers of a checkpoint.

    `name_or_folder`: a folder in Hugging Face's or minillm's format, a run of `minillm pretrain` (its best checkpoint),
    or a name on the hub, to which `hub` belongs (see places.py); or a LoRA adapter (adapters.py), which is opened as
    the model that it names with the adapter in it. `head`: what the model is to be for; None: what it was
    saved for. `settings`: entries of config.json to change. `ignore_mismatched_sizes`: tensors of another shape than
    the model's are left out, and those parameters drawn anew. Raises NotFound, ConfigurationError or WeightsError, each
    saying what to do, and TypeError for a setting that config.json does not have; without a `head` WeightsError too for
    tensors that are missing or that the model has no place for.
    """
    folder = find_folder(name_or_folder, only=CONFIG, **hub)  # what cannot be, is refused before weights are fetched
    if is_adapter(folder):
        folder = find_folder(name_or_folder, **hub)
        return open_adapter(folder, head, settings or {}, hub, ignore_mismatched_sizes)
    values = read_config(folder)
    native = is_native(values)
    if not native:
        named_architecture(values)
    check_settings(settings or {}, values)
    values = with_settings(values, settings or {})
    asked, architecture = head is not None, None
    if native:
        try:
            config = config_from_dict(values)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{folder / 'config.json'} describes no model of minillm: {error}") from error
        if head not in (None, config.task):
            made = f"a {config.model_type!r} model made for {config.task!r}, in minillm's own format"
            raise WeightsError(f"{folder} holds {made}, not for {head!r}: convert it first (minillm convert).")
        head = config.task
    else:
        head = head or head_in(values)
        config = from_hf(values, head)
        architecture = architecture_of(config)
    stored = read_folder(folder := find_folder(name_or_folder, **hub))
    if architecture is not None and architecture.fused:
        body: Any = getattr(config, "decoder", config)
        stored = split_experts(stored, architecture.fused, body.n_experts)
    if architecture is not None:
        config = architecture.as_stored(config, set(canonical_names(stored, architecture).values()), asked)
    if native and any(name.endswith(".lora_A") for name in stored):
        raise WeightsError(
            f"{folder} holds the adapters of a run alone, without the model that they change: write the whole model "
            f"first, with minillm convert {quote(str(folder.parent))} FOLDER --to minillm (or --to hf)."
        )
    check_sizes(config, stored, folder)
    plan = make_plan(config, stored, architecture, head, folder, ignore_mismatched_sizes=ignore_mismatched_sizes)
    if plan.fresh and not asked:
        raise WeightsError(f"{folder} has no weights for {shorten(plan.fresh)}, which its config.json promises.")
    if plan.unused and not asked:
        raise WeightsError(
            f"{folder}: a {head!r} model has no place for {shorten(plan.unused)}, which would be lost: see config.json."
        )
    return Checkpoint(folder, values, native, config, head, stored, plan)


def open_adapter(folder: Path, head: str | None, settings: Values, hub: Values, ignore: bool) -> Checkpoint:
    """The base model of an adapter as `open_checkpoint` gives it, and what the adapter changes."""
    adapter = read_adapter(folder)
    values = read_config(adapter.find_base(only=CONFIG, **hub))
    if not is_native(values):
        named_architecture(values)
    base = adapter.find_base(**hub)
    labels = {} if is_native(values) else adapter.settings()
    checkpoint = open_checkpoint(base, head or adapter.head, {**labels, **settings}, ignore_mismatched_sizes=ignore)
    try:
        architecture = architecture_of(checkpoint.config)
    except ConfigurationError:
        architecture = None
    lora, plan = fit(adapter, checkpoint.plan, checkpoint.config, architecture)
    return replace(checkpoint, plan=plan, adapter=adapter, lora=lora)


def load_model_and_tokenizer(
    name_or_folder: str | os.PathLike[str],
    *,
    engine: str = "numpy",
    dtype: Any = None,
    device: Any = None,
    verify: bool = True,
) -> tuple[Any, Tokenizer]:
    """The model of a checkpoint, on either engine, and the tokenizer beside it, after a check that they belong
    together. Raises what `open_checkpoint` and the two methods raise, and ValueError for a model without a head."""
    check_engine(engine, device)  # before anything is downloaded
    checkpoint = open_checkpoint(name_or_folder)
    return checkpoint.model_and_tokenizer(engine=engine, dtype=dtype, device=device, verify=verify)


def check_settings(settings: Values, values: Values) -> None:
    """Raise TypeError for an argument that is no entry of config.json: saved there, it might give away a secret."""
    if "attention" in settings:
        raise TypeError(f"from_pretrained: attention = {settings['attention']!r} is called attn_implementation here.")
    if unknown := [name for name in settings if name not in setting_names(values)]:
        name = unknown[0]
        hint = "Use device='cuda'." if name == "device_map" else "See from_pretrained's docstring for what it takes."
        raise TypeError(f"from_pretrained: {name} = {settings[name]!r} is no entry of this config.json. {hint}")


def check_attention(config: ModelConfig, attention: str, engine: str) -> None:
    """Raise ValueError where this model or engine does not have this way to compute attention."""
    if attention not in ATTENTION:
        known = ", ".join(ATTENTION)
        raise ValueError(f"attention = {attention!r} must be one of {known}; our flash attention is 'triton'.")
    if attention in NEEDS_TORCH and engine == "numpy":
        raise ValueError(f"attention = {attention!r} runs on PyTorch. Use engine='torch'.")
    if attention != "auto" and with_attention(config, attention) == config:
        raise ValueError(f"attention = {attention!r}: a model of type {config.model_type!r} has no attention.")
