"""A model together with what its checkpoint folder says about it, called as transformers' models are called."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import write_json
from ..finetune.lora import adapters
from ..models import config_to_dict
from ..tensor import Tensor, no_grad
from .architecture import Values
from .configs import architecture_of, n_labels, to_hf
from .dtypes import dtype_name
from .generation import in_one_block, new_ids, settings_of
from .names import in_file
from .weights import Source, write_folder


class ConfigView:
    """A config.json, its settings as attributes: `config.hidden_size`, `config.id2label`."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    @property
    def num_labels(self) -> int:
        return n_labels(self.values)

    @property
    def id2label(self) -> dict[int, str]:
        """Class number -> its name; LABEL_0 and so on where the checkpoint has none."""
        labels = self.values.get("id2label") or {i: f"LABEL_{i}" for i in range(self.num_labels)}
        return {int(number): label for number, label in labels.items()}

    @property
    def label2id(self) -> dict[str, int]:
        return {label: number for number, label in self.id2label.items()}

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"this config.json has no {name!r}; it has {', '.join(sorted(values))}.")

    def __repr__(self) -> str:
        return f"ConfigView({self.values})"


@dataclasses.dataclass
class Output:
    """What a model says. What its head does not give is None.

    On NumPy the arrays are ndarrays without a graph; to train with gradients, call the model inside (`.model`), or pass
    `labels` and take the loss. On PyTorch they are tensors with theirs.
    """

    loss: Any = None
    logits: Any = None
    last_hidden_state: Any = None
    pooler_output: Any = None

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return [value for value in values if value is not None][key]


class PretrainedModel:
    """A model of either engine, `model`, with its checkpoint's `config` and `generation_config`.

    `head`: what it is for, "base" (features), "causal", "mlm", "classification" or "seq2seq".
    """

    def __init__(
        self,
        model: Any,
        head: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        generation_config: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.head = head or model.config.task
        self.original = {} if config is None else config  # as it was read
        self.generation_config = generation_config
        self.architecture = architecture_of(model.config)  # None: not one of transformers'
        self.config = ConfigView(self.config_json())

    @property
    def on_torch(self) -> bool:
        return not isinstance(next(iter(self.model.parameters())), Tensor)

    @property
    def device(self) -> Any:
        """Where the weights are: "cpu" on NumPy, a torch.device on PyTorch."""
        return next(iter(self.model.parameters())).device if self.on_torch else "cpu"

    def parameters(self) -> Iterator[Any]:
        yield from self.model.parameters()

    def num_parameters(self) -> int:
        return sum(int(np.prod(parameter.shape)) for parameter in self.model.parameters())

    def train(self, mode: bool = True) -> PretrainedModel:
        self.model.train(mode)
        return self

    def eval(self) -> PretrainedModel:
        return self.train(False)

    def to(self, *args: Any) -> PretrainedModel:
        """Another dtype (NumPy), or device or dtype (PyTorch)."""
        self.model.to(*args)
        return self

    # --- calling it

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        decoder_input_ids: Any = None,
    ) -> Output:
        """input_ids (B, T), and as the tokenizer made them attention_mask (B, T), 1 = a token, 0 = padding, and
        token_type_ids (B, T), which text of a pair -> an `Output`.

        `labels` adds the loss: (B, T) for "mlm" and "causal" (shifted here: labels may be the input_ids), (B,) or
        (B, n_labels) for "classification"; −100 is ignored. "seq2seq" takes the target so far as `decoder_input_ids`,
        and `labels` not shifted. Decoders need no mask for padding on the right, which no token looks at, and refuse
        padding on the left, which would move the positions.
        """
        ids, mask = self.array(input_ids), self.array(attention_mask)
        types, targets = self.array(token_type_ids), self.array(labels)
        with contextlib.nullcontext() if self.on_torch or targets is not None else no_grad():
            output = self.forward(ids, mask, types, targets, self.array(decoder_input_ids))
        if not self.on_torch:
            for name in ("logits", "last_hidden_state", "pooler_output"):
                value = getattr(output, name)
                setattr(output, name, value.data if isinstance(value, Tensor) else value)
        return output

    def forward(self, ids: Any, mask: Any, types: Any, targets: Any, decoder_ids: Any) -> Output:
        h = self.features(ids, mask, types, decoder_ids)
        if self.head == "base":
            has_pooler = getattr(self.model, "pooler", None) is not None
            return Output(last_hidden_state=h, pooler_output=self.model.pool(h) if has_pooler else None)
        logits = self.model.logits(h)
        if self.head == "causal" and targets is not None:
            h, targets = h[:, :-1], targets[:, 1:]  # each token is predicted from those before it
        return Output(loss=None if targets is None else self.model.loss(h, targets), logits=logits)

    def features(self, ids: Any, mask: Any, types: Any, decoder_ids: Any) -> Any:
        """What the head turns into logits: computed once, so that loss and logits come from one draw of dropout."""
        if self.head == "seq2seq":
            if decoder_ids is None:
                raise ValueError("an encoder-decoder needs decoder_input_ids (B, T), the target so far.")
            return self.model.hidden(ids, decoder_ids)  # (B, T, D)
        is_decoder = self.architecture is None or self.architecture.is_decoder
        if mask is not None and self.head == "classification":  # no position is looked for: padding may move
            ids, mask, types = padded_right(ids, mask, types)
        if mask is not None and is_decoder:
            check_right_padding(mask)
        if not is_decoder:
            return self.model.hidden(ids, token_types=types, mask=mask)  # (B, T, D)
        if self.head == "classification":
            return self.model.hidden(ids, mask=mask)  # (B, D)
        return self.model.hidden(ids)  # (B, T, D)

    def array(self, values: Any) -> Any:
        """Ids, masks or labels as this engine wants them."""
        if values is None:
            return None
        if not self.on_torch:
            if hasattr(values, "detach"):
                raise TypeError("this model runs on NumPy, the inputs on torch: tokenize with return_tensors='np'.")
            return np.asarray(values)
        import torch

        if isinstance(values, np.ndarray):
            raise TypeError("this model runs on PyTorch, the inputs are ndarrays: tokenize with return_tensors='pt'.")
        return torch.as_tensor(values, device=self.device)

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        seed: int | None = None,
        tokenizer: Any = None,
        generation_config: Any = None,
        **settings: Any,
    ) -> Any:
        """Each prompt's ids and then up to `max_new_tokens` new ones (20), ended by an end-of-text id if that came ->
        (B, T), an array on NumPy, a tensor on PyTorch; behind a text that ended first comes `pad_token_id`.

        `input_ids`: (B, S) with an attention_mask, whose padding is left out and handed back as it was; or lists of
        ids, of any lengths, which come back with padding on the left. New ids begin at column S either way. An
        encoder-decoder takes the source, padded with the model's pad_id, and gives the target, which begins with
        `decoder_start_token_id`. `seed` is ours; `tokenizer` is needed for `stop_strings`.

        `settings` are those of transformers, by their names; what is not given is taken from `generation_config`, by
        default generation_config.json, or config.json where there is none. Where that says nothing either, decoding is
        greedy, and sampling keeps the 50 likeliest (`top_k`; 0 keeps all), as in transformers. `eos_token_id` is then
        config.json's; [] never stops. `num_beams` above 1 is beam search (minillm/beam.py), which draws nothing. Each
        prompt gives `num_return_sequences` rows (1), of beams best first. What changes the text and is not done here is
        refused by name (hub/generation.py has the list): ValueError, TypeError for a name that transformers lacks.
        """
        if self.head not in ("causal", "seq2seq"):
            raise ValueError(f"generate: a {type(self.model).__name__} for {self.head!r} does not continue texts.")
        how = settings_of(self.generation_config, self.config.values, settings, generation_config)
        inputs = settings.get("inputs") if input_ids is None else input_ids
        if inputs is None:
            raise ValueError("generate: give it input_ids, (B, S) or lists of ids.")
        model: Any = self.model
        if self.head == "seq2seq":  # what is continued is the target, which begins with one id
            if how.get("decoder_start_token_id") is None:
                raise ValueError("generate: an encoder-decoder needs decoder_start_token_id, which begins each target.")
            model = self.model.given(self.array(inputs))
            inputs, attention_mask = [[how["decoder_start_token_id"]]] * len(inputs), None
        given = [np.asarray(row.cpu() if hasattr(row, "cpu") else row).tolist() for row in inputs]
        rows = given
        if attention_mask is not None:
            rows = [[i for i, keep in zip(row, mask) if keep] for row, mask in zip(given, attention_mask)]
        found = new_ids(model, rows, how, seed, tokenizer)
        made = [(row, new) for row, several in zip(given, found) for new in several]
        return self.array_of_ids(in_one_block([row for row, _ in made], [new for _, new in made], how))

    def array_of_ids(self, ids: np.ndarray) -> Any:
        """(B, T) as this engine has it."""
        if not self.on_torch:
            return ids
        import torch

        return torch.as_tensor(ids, device=self.device)

    # --- saving it

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: Any = None, max_shard_size: str | int = "5GB"
    ) -> list[Path]:
        """Write config.json, the weights and generation_config.json (if there is one) for transformers, and for
        `from_pretrained` here; returns the weight files.

        `dtype`: of the numbers in the files, the model's by default. A model that transformers has no architecture for
        (LSTM, encoder–decoder) is written in minillm's own format. The tokenizer has a save_pretrained of its own.
        """
        if adapters(self.model):
            raise ValueError(
                "save_pretrained: this model has LoRA adapters. hub.adapters.save_adapter(model, folder, base) writes "
                "these; merge(model) and remove_lora(model) come first where the whole model is to be written."
            )
        folder = Path(folder)
        named = dict(self.model.named_parameters())
        written = dtype_name(next(iter(named.values())).dtype if dtype is None else dtype)
        sources = {}
        for name, parameter in named.items():
            theirs, shape, turned = in_file(name, tuple(parameter.shape), self.architecture, self.head)
            sources[theirs] = Source(shape, partial(numbers, parameter), turned)
        files = write_folder(folder, dict(sorted(sources.items())), written, size_in_bytes(max_shard_size))
        values = self.config_json()
        if self.architecture is not None:
            values = dict(sorted({**values, "dtype": written}.items()))
        write_json(folder / "config.json", values)
        if self.generation_config is not None:
            write_json(folder / "generation_config.json", self.generation_config)
        return files

    def config_json(self) -> Values:
        """The config.json that goes with the model: transformers' settings, or ours where it has none such."""
        config = self.model.config
        return config_to_dict(config) if self.architecture is None else to_hf(config, self.original, self.head)


def numbers(parameter: Any) -> np.ndarray:
    """A parameter of either engine as an array."""
    if isinstance(parameter, Tensor):
        return parameter.data
    from ..port import array_of

    return array_of(parameter)


def padded_right(ids: Any, mask: Any, types: Any) -> tuple[Any, Any, Any]:
    """ids, mask and token types (None: none), (B, T) each, with the padding of every row moved behind its tokens."""
    T = mask.shape[1]
    places = (
        (mask == 0) * T + np.arange(T)
        if isinstance(mask, np.ndarray)
        else (mask == 0) * T + mask.new_ones(mask.shape).cumsum(1)
    )  # (B, T): tokens by their positions, padding after all of them
    order = places.argsort(1)  # (B, T)
    moved = [a if a is None else np.take_along_axis(a, order, 1) if isinstance(a, np.ndarray) else a.gather(1, order)
             for a in (ids, mask, types)]  # fmt: skip
    return moved[0], moved[1], moved[2]


def check_right_padding(mask: Any) -> None:
    """Raise ValueError if a mask (B, T) hides a token before one that it shows."""
    if bool(((mask[:, 1:] != 0) & (mask[:, :-1] == 0)).any()):
        raise ValueError(
            "attention_mask hides positions on the left. Pad on the right (tokenizer.padding_side = 'right'): causal "
            "attention never looks there. To continue texts of different lengths, give generate() lists of ids."
        )


def size_in_bytes(size: str | int) -> int:
    """5_000_000_000 for "5GB"; whole numbers are bytes."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    found = re.fullmatch(r"([\d.]+)\s*([KMG]I?B)", str(size).strip().upper())
    if isinstance(size, int) and size > 0:
        return size
    if found is None or not found.group(1).replace(".", "", 1).isdigit() or float(found.group(1)) == 0:
        raise ValueError(f"a size is a number and KB, MB, GB, KiB, MiB or GiB, such as '5GB', not {size!r}.")
    return int(float(found.group(1)) * units[found.group(2)])
