"""A model together with what its checkpoint folder says about it, called as transformers' models are called."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..beam import beam_search
from ..disk import write_json
from ..finetune.lora import adapters
from ..generate import Sampling, generate
from ..models import config_to_dict
from ..tensor import Tensor, no_grad
from .architecture import Values
from .configs import architecture_of, n_labels, to_hf
from .dtypes import dtype_name
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
        input_ids: Any,
        attention_mask: Any = None,
        *,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        eos_token_id: int | list[int] | None = None,
        decoder_start_token_id: int | None = None,
        seed: int | None = None,
        num_beams: int | None = None,
        length_penalty: float | None = None,
        early_stopping: bool | Literal["never"] | None = None,
        num_return_sequences: int | None = None,
    ) -> list[list[int]]:
        """Each prompt's ids and then up to `max_new_tokens` new ones (20), ended by an end-of-text id if that came.

        `input_ids`: lists of ids, of any lengths, or arrays with an attention_mask, whose padding is left out. The rows
        that come back are lists, not padded. `max_length` counts the longest prompt in. What is not given is taken from
        generation_config.json; where that says nothing either, decoding is greedy, and sampling keeps the 50 likeliest
        (`top_k`; 0 keeps all), as in transformers. `eos_token_id` is then config.json's; [] never stops. An
        encoder–decoder takes the source as an array (B, S), padded with the model's pad_id, and gives the target, which
        begins with `decoder_start_token_id`.

        `num_beams` above 1 is beam search (minillm/beam.py), which draws nothing and knows no repetition_penalty. Each
        prompt then gives `num_return_sequences` rows (1), best first, fewer only where there are no more texts.
        """
        if self.head not in ("causal", "seq2seq"):
            raise ValueError(f"generate: a {type(self.model).__name__} for {self.head!r} does not continue texts.")
        model: Any = self.model
        if self.head == "seq2seq":  # what is continued is the target, which begins with one id
            if decoder_start_token_id is None:
                raise ValueError("generate: an encoder-decoder needs decoder_start_token_id, which begins each target.")
            model = self.model.given(self.array(input_ids))
            input_ids, attention_mask = [[decoder_start_token_id]] * len(input_ids), None
        rows = [np.asarray(row).tolist() for row in input_ids]
        if attention_mask is not None:
            rows = [[i for i, keep in zip(row, mask) if keep] for row, mask in zip(rows, attention_mask)]
        defaults = {"eos_token_id": self.config.values.get("eos_token_id"), **(self.generation_config or {})}

        def setting(name: str, given: Any, otherwise: Any = None) -> Any:
            found = defaults.get(name) if given is None else given
            return otherwise if found is None else found

        if max_new_tokens is None and max_length is None:
            max_new_tokens = setting("max_new_tokens", None)
            max_length = setting("max_length", None) if max_new_tokens is None else None
        if max_new_tokens is None:
            longest = max((len(row) for row in rows), default=0)
            max_new_tokens = 20 if max_length is None else max_length - longest
            if max_new_tokens < 1:
                raise ValueError(f"max_length = {max_length} counts the prompt in, and the longest has {longest} ids.")
        stops = setting("eos_token_id", eos_token_id, [])
        sampled = setting("do_sample", do_sample, False)
        stop_ids = [stops] if isinstance(stops, int) else list(stops)
        n_beams, n_return = setting("num_beams", num_beams, 1), setting("num_return_sequences", num_return_sequences, 1)
        if n_beams != 1:
            penalty = setting("repetition_penalty", repetition_penalty, 1.0)
            if sampled or penalty != 1:
                raise ValueError(
                    f"generate: with num_beams = {n_beams}, do_sample must be False and repetition_penalty 1, not "
                    f"{sampled} and {penalty}. What is not given comes from generation_config.json."
                )
            found = beam_search(
                model,
                rows,
                max_new_tokens=max_new_tokens,
                n_beams=n_beams,
                length_penalty=setting("length_penalty", length_penalty, 1.0),
                early_stopping=setting("early_stopping", early_stopping, False),
                n_return=n_return,
                stop_ids=stop_ids,
                keep_stop_id=True,
            )
            return [row + new.ids for row, best in zip(rows, found) for new in best]
        if n_return != 1:
            raise ValueError(f"generate: num_return_sequences = {n_return} needs num_beams of as many; or repeat rows.")
        new = generate(
            model,
            rows,
            max_new_tokens=max_new_tokens,
            sampling=Sampling(
                temperature=setting("temperature", temperature, 1.0) if sampled else 0.0,
                top_k=(setting("top_k", top_k, 50) or None) if sampled else None,
                top_p=setting("top_p", top_p) if sampled else None,
                repetition_penalty=setting("repetition_penalty", repetition_penalty, 1.0),
            ),
            stop_ids=stop_ids,
            keep_stop_id=True,
            seed=seed,
        )
        return [row + ids for row, ids in zip(rows, new)]

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
