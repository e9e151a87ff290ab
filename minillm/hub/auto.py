"""The Auto classes: a model or its configuration from a name or a folder, for one task each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ..models import BertConfig, LSTMConfig, ModelConfig, config_from_dict, with_attention
from ..models.checks import ATTENTION
from ..tokenizers.files import read_json
from . import configs
from .dtypes import dtype_name
from .loading import fill_numpy, fill_torch, make_plan, report_plan, sketched_model
from .names import canonical_names, layout_of
from .places import find_folder
from .pretrained import ConfigView, PretrainedModel, head_of
from .weights import Stored, WeightsError, common_dtype, read_folder

ORIGINAL = "hf_config.json"  # in minillm's own format: the config.json of the checkpoint that it was converted from


class AutoConfig:
    """`AutoConfig.from_pretrained(name_or_folder)`: the settings in config.json, as attributes."""

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, revision: str | None = None, **hub: Any
    ) -> ConfigView:
        """`hub`: token, cache_dir, local_files_only, for a name on the hub (see places.py)."""
        return ConfigView(read_config(find_folder(name_or_folder, revision, **hub)))


class AutoModel:
    """A model without a head: features for each token.

    The other Auto classes are this one with another head; what `from_pretrained` returns is a `PretrainedModel`.
    """

    head: ClassVar[str] = "base"
    architectures: ClassVar[tuple[str, ...]] = ("gpt2", "llama", "qwen2", "qwen3", "bert")

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str],
        *,
        engine: str = "numpy",
        dtype: Any = None,
        device: Any = None,
        attn_implementation: str | None = None,
        seed: int = 0,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> PretrainedModel:
        """Build the model that config.json describes, with this class's head, and read its weights.

        `name_or_folder`: a folder in Hugging Face's or minillm's format, a run of `minillm pretrain`, or a name on the
        hub. `engine`: "numpy" or "torch". `dtype`: "float32" or "float64" on NumPy (default: the file's if it is
        float64, else float32); on PyTorch "float16" and "bfloat16" too (default: the file's). `device`: PyTorch's.
        `attn_implementation`: how attention is computed, "auto" (the default), "reference" (transformers' "eager"),
        "sdpa" or "triton", our kernels (see `ops.attention`). `seed`: of a head that the checkpoint has no weights for,
        which a warning then names. `revision`, `token`, `cache_dir`, `local_files_only`: for a name on the hub, see
        places.py. `settings`: entries of config.json to change, such as num_labels=3; transformers' `torch_dtype` is
        `dtype`. Raises TypeError for a setting that config.json does not have, NotFound, ConfigurationError or
        WeightsError, each saying what to do; a model is returned whole or not at all.
        """
        if engine not in ("numpy", "torch"):
            raise ValueError(f"engine = {engine!r} must be 'numpy' or 'torch'.")
        if engine == "numpy" and device not in (None, "cpu"):
            raise ValueError(f"device = {device!r}: the NumPy engine runs on the CPU only. Use engine='torch'.")
        dtype = settings.pop("torch_dtype", None) if dtype is None else dtype
        if dtype == "auto":  # transformers' word for what is the default here
            dtype = None
        folder = find_folder(
            name_or_folder, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        values = read_config(folder)
        check_settings(settings, values)
        values = with_settings(values, settings)
        stored = read_folder(folder)
        config, native = cls.model_config(values, stored, folder)
        config = with_attention(config, checked_attention(config, attn_implementation, engine))
        model = sketched_model(config)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        layout = None if native else layout_of(config)
        plan = make_plan(shapes, stored, layout, folder, predicts_tokens=cls.head in ("causal", "mlm"))
        files_dtype = common_dtype({name: tensor for name, (tensor, _) in plan.tensors.items()})
        if engine == "numpy":
            default = "float64" if files_dtype == "float64" else "float32"
            fill_numpy(model, plan, dtype_name(dtype or default), seed)
        else:
            model = fill_torch(model, plan, dtype_name(dtype or files_dtype), device, seed)
        report_plan(plan, folder)
        generation = folder / "generation_config.json"
        head = head_of(config) if native else cls.head
        if native:
            values = read_json(folder / ORIGINAL) if (folder / ORIGINAL).exists() else {}
        return PretrainedModel(
            model.eval(),
            head,
            config=values,
            generation_config=read_json(generation) if generation.exists() else None,
        )

    @classmethod
    def model_config(cls, values: dict[str, Any], stored: dict[str, Stored], folder: Path) -> tuple[ModelConfig, bool]:
        """Our config for the model, and whether the folder is in minillm's own format."""
        if configs.is_native(values):
            config = config_from_dict(values)
            if cls.head != head_of(config):
                raise WeightsError(
                    f"{folder} holds a {config.model_type!r} model made for {head_of(config)!r}, in minillm's own "
                    f"format; {cls.__name__} is for {cls.head!r}. For another head convert it first (minillm convert)."
                )
            return config, True
        if values.get("model_type") not in cls.architectures and values.get("model_type") in configs.KNOWN:
            raise configs.ConfigurationError(
                f"{folder}: {cls.__name__} is for {', '.join(cls.architectures) or 'models made by minillm'}, and "
                f"this is a {values['model_type']}."
            )

        config = configs.from_hf(values, cls.head)
        layout = layout_of(config)
        assert layout is not None
        names = set(canonical_names(stored, layout).values())
        if isinstance(config, BertConfig) and cls.head == "base" and "bert.pooler.dense.weight" not in names:
            config = replace(config, pooler=False)  # a masked language model's body has none
        return config, False


class AutoModelForCausalLM(AutoModel):
    """A decoder that predicts the next token."""

    head = "causal"
    architectures = ("gpt2", "llama", "qwen2", "qwen3")


class AutoModelForMaskedLM(AutoModel):
    """An encoder that fills in hidden tokens."""

    head = "mlm"
    architectures = ("bert",)


class AutoModelForSequenceClassification(AutoModel):
    """A model that labels a whole text: an encoder from its first position, a decoder from its last."""

    head = "classification"
    architectures = ("gpt2", "llama", "qwen2", "qwen3", "bert")


class AutoModelForSeq2SeqLM(AutoModel):
    """An encoder–decoder, which minillm trains and reads in its own format."""

    head = "seq2seq"
    architectures = ()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder."""
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise configs.ConfigurationError(
            f"{folder / 'config.json'} must hold an object, not a {type(values).__name__}."
        )
    return values


def check_settings(settings: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise TypeError for an argument that is no entry of config.json: ignored, it would not do what it promises, and
    saved, it might give away a secret."""
    known = set(values) if configs.is_native(values) else {*values, *configs.setting_names(values.get("model_type"))}
    for name in settings:
        if name == "attention":
            raise TypeError(f"from_pretrained: attention = {settings[name]!r} is called attn_implementation here.")
        if name not in known:
            hint = "See from_pretrained's docstring for what it takes."
            if name == "device_map":
                hint = "Use device='cuda'."
            raise TypeError(f"from_pretrained: {name} = {settings[name]!r} is no entry of this config.json. {hint}")


def checked_attention(config: ModelConfig, implementation: str | None, engine: str) -> str:
    """Our name for a way to compute attention. Raises ValueError where this model or engine does not have it."""
    wanted = "reference" if implementation == "eager" else implementation or "auto"
    if wanted not in ATTENTION:
        raise ValueError(
            f"attn_implementation = {implementation!r} must be one of {', '.join(map(repr, ATTENTION))}; minillm's own "
            "flash attention is 'triton'."
        )
    if wanted in ("sdpa", "triton") and engine == "numpy":
        raise ValueError(f"attn_implementation = {implementation!r} runs on PyTorch. Use engine='torch'.")
    if isinstance(config, LSTMConfig) and wanted != "auto":
        raise ValueError(f"attn_implementation = {implementation!r}: an LSTM has no attention.")
    return wanted


def with_settings(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """config.json with some entries changed; another num_labels takes away labels that do not fit it."""
    changed = {**values, **settings}
    if (
        "num_labels" in settings
        and "id2label" not in settings
        and len(values.get("id2label") or ()) != settings["num_labels"]
    ):
        labels = {str(i): f"LABEL_{i}" for i in range(settings["num_labels"])}
        changed["id2label"] = labels
        changed["label2id"] = {label: int(i) for i, label in labels.items()}
        del changed["num_labels"]
    return changed
