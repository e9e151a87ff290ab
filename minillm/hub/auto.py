"""The Auto classes: a model or its configuration from a name or a folder, for one task each."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from .adapters import is_adapter, read_adapter
from .checkpoint import check_engine, open_checkpoint
from .config_view import ConfigView
from .configs import read_config, read_generation_config
from .options import drop_meaningless
from .places import CONFIG, HUB_OPTIONS, find_folder
from .pretrained import PretrainedModel

CALLS = ("output_hidden_states", "output_attentions", "return_dict")  # what a model's calls give, kept in its config


class AutoConfig:
    """`AutoConfig.from_pretrained(name_or_folder)`: the settings in config.json, as attributes."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **hub: Any) -> ConfigView:
        """`hub`: revision, token, cache_dir, local_files_only, for a name on the hub (see places.py)."""
        drop_meaningless("from_pretrained", hub)
        folder = find_folder(name_or_folder, only=CONFIG, **hub)
        if is_adapter(folder):
            adapter = read_adapter(find_folder(name_or_folder, **hub))
            return ConfigView({**read_config(adapter.find_base(only=CONFIG, **hub)), **adapter.settings()})
        return ConfigView(read_config(folder))


class AutoModel:
    """A model without a head: features for each token.

    The other Auto classes are this one with another head; what `from_pretrained` returns is a `PretrainedModel`.
    """

    head: ClassVar[str] = "base"

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
        config: ConfigView | None = None,
        ignore_mismatched_sizes: bool = False,
        **settings: Any,
    ) -> PretrainedModel:
        """Build the model that config.json describes, with this class's head, and read its weights.

        `name_or_folder`: a folder in Hugging Face's or minillm's format, a run of `minillm pretrain`, or a name on the
        hub. `engine`: "numpy" or "torch". `dtype`: "float32" or "float64" on NumPy (default: the file's if it is
        float64, else float32); on PyTorch "float16" and "bfloat16" too (default: the file's). `device`: PyTorch's.
        `attn_implementation`: how attention is computed, "auto" (the default), "reference" (transformers' "eager"),
        "sdpa" or "triton", our kernels (see `ops.attention`). `seed`: of a head that the checkpoint has no weights for,
        which a warning then names. `settings`: entries of config.json to change, such as num_labels=3 (transformers'
        `torch_dtype` is `dtype`), and for a name on the hub `revision`, `token`, `cache_dir`, `local_files_only` (see
        places.py). `config`: what `AutoConfig` gave, with changes; `settings` come after it. `ignore_mismatched_sizes`:
        weights of another shape than the model's, as of a head with another num_labels, are drawn anew, with a warning.
        Of transformers' other arguments those that ask for what is so anyway are accepted (see options.py). Raises
        TypeError for a setting that config.json does not have, NotFound, ConfigurationError or WeightsError, each
        saying what to do; a model is returned whole or not at all.
        """
        check_engine(engine, device)  # before anything is downloaded
        dtype = settings.pop("torch_dtype", None) if dtype is None else dtype
        drop_meaningless("from_pretrained", settings)
        hub = {name: settings.pop(name) for name in HUB_OPTIONS if name in settings}
        calls = {name: settings.pop(name) for name in CALLS if name in settings}
        if config is not None:
            settings = {**config.to_dict(), **settings}
            calls = {name: settings.pop(name) for name in CALLS if name in settings and name not in calls} | calls
        checkpoint = open_checkpoint(
            name_or_folder, cls.head, settings=settings, ignore_mismatched_sizes=ignore_mismatched_sizes, **hub
        )
        model = checkpoint.model(
            engine=engine,
            dtype=None if dtype == "auto" else dtype,  # transformers' word for what is the default here
            device=device,
            attention="reference" if attn_implementation == "eager" else attn_implementation or "auto",
            seed=seed,
        )
        generation = read_generation_config(checkpoint.folder)
        made = PretrainedModel(model, cls.head, config=checkpoint.original, generation_config=generation)
        made.config.update(calls)
        return made


class AutoModelForCausalLM(AutoModel):
    """A decoder that predicts the next token."""

    head = "causal"


class AutoModelForMaskedLM(AutoModel):
    """An encoder that fills in hidden tokens."""

    head = "mlm"


class AutoModelForSequenceClassification(AutoModel):
    """A model that labels a whole text: an encoder from its first position, a decoder from its last."""

    head = "classification"


class AutoModelForSeq2SeqLM(AutoModel):
    """An encoder–decoder: BART, Marian, or one that minillm has trained, in its own format."""

    head = "seq2seq"
