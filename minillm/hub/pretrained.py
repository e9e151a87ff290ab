"""A model together with what its checkpoint folder says about it, called as transformers' models are called."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import write_json
from ..finetune.lora import adapters
from ..models import ClassifierConfig, Moe, config_to_dict
from ..models.moe import load_balance
from ..nn import Embedding, Module
from ..tensor import Tensor, no_grad
from .architecture import Values
from .config_view import ConfigView, GenerationValues
from .configs import architecture_of, label_names, to_hf
from .dtypes import dtype_name
from .experts import join_experts
from .generation import in_one_block, new_ids, settings_of
from .inside import looking_inside
from .loading import check_engine
from .names import in_file
from .options import WHEN_SAVING, drop_meaningless
from .output import Output
from .vocabulary import embeddings, resize
from .weights import Source, write_folder


class PretrainedModel(Module):
    """A model of either engine, `model`, with its checkpoint's `config` and `generation_config`.

    `head`: what it is for, "base" (features), "causal", "mlm", "classification" or "seq2seq". Around a model on PyTorch
    it is a `torch.nn.Module` itself, with all that torch, accelerate and peft expect of one: as in port.py, its class
    is made on the spot. Its parameters have our names, behind "model.".
    """

    accepts_loss_kwargs = False  # for transformers' Trainer: the loss is a batch's mean
    main_input_name = "input_ids"

    def __new__(cls, model: Any = None, *_: Any, **__: Any) -> PretrainedModel:
        if model is None or on_numpy(model):  # None: copy.copy and copy.deepcopy fill it themselves
            return object.__new__(cls)
        import torch

        own: Any = cls
        wrapper = torch_wrapper(own)
        wrapped = object.__new__(wrapper)
        torch.nn.Module.__init__(wrapped)
        return wrapped

    def __init__(
        self,
        model: Any,
        head: str | None = None,
        *,
        config: Values | None = None,
        generation_config: Values | None = None,
    ) -> None:
        self.model = model
        self.training = model.training
        self.head = head or model.config.task
        self.original = {} if config is None else dict(config)  # as it was read, and written since
        self.generation_config = None if generation_config is None else GenerationValues(generation_config)
        self.architecture = architecture_of(model.config)  # None: not one of transformers'
        self.config = ConfigView(self.config_json(), self.change_config)

    @property
    def on_torch(self) -> bool:
        return not on_numpy(self.model)

    @property
    def device(self) -> Any:
        """Where the weights are: "cpu" on NumPy, a torch.device on PyTorch."""
        return next(iter(self.model.parameters())).device if self.on_torch else "cpu"

    @property
    def dtype(self) -> Any:
        """That of the weights: NumPy's or torch's."""
        return next(iter(self.model.parameters())).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """All numbers in the weights; without those that don't learn, or without the token and position tables."""
        tables = (module for _, module in self.model.named_modules() if isinstance(module, Embedding))
        left_out = {id(table.weight) for table in tables} if exclude_embeddings else set()
        counted = [p for p in self.model.parameters() if id(p) not in left_out]
        return sum(int(np.prod(p.shape)) for p in counted if p.requires_grad or not only_trainable)

    # --- on NumPy; on PyTorch these are torch.nn.Module's

    def to(self, *args: Any, device: Any = None, dtype: Any = None) -> PretrainedModel:
        """Another dtype, float32 or float64, in place; a device may be named if it is the CPU."""
        for given in (*args, device, dtype):
            if str(given).split(":")[0] in ("cpu", "cuda", "mps", "meta"):
                check_engine("numpy", str(given))
            elif given is not None:
                self.model.to(dtype_name(given) if not isinstance(given, type) else given)
        return self

    # --- its config

    def change_config(self, name: str, value: Any) -> None:
        """`config.name = value`: what the model does follows. Raises ValueError for what its weights have settled."""
        config = self.model.config
        settled = (
            [field.name for field in dataclasses.fields(config)]
            if self.architecture is None
            else [*self.architecture.settings, *self.architecture.fixed, *self.architecture.further, "model_type"]
        )
        free = name in ("pad_token_id", "decoder_start_token_id", "problem_type", "id2label", "label2id")
        if name in settled and not free and value != self.config.values.get(name):
            raise ValueError(
                f"config.{name} = {value!r:.50}: the model is built with {self.config.values.get(name)!r:.50}. Give "
                "from_pretrained another; resize_token_embeddings changes vocab_size."
            )
        if name in ("num_labels", "id2label") and config.task == "classification":
            n = value if name == "num_labels" else len(value)
            if n != config.n_labels:
                raise ValueError(f"config.{name}: {n} labels, and the head has {config.n_labels}. Load it anew.")
            if name == "id2label":
                names = label_names({"id2label": value}, n)
                self.model.config = dataclasses.replace(config, labels=names)
        if name == "pad_token_id" and isinstance(config, ClassifierConfig):
            self.model.config = dataclasses.replace(config, pad_id=value)
        elif name.endswith("_token_id") and self.architecture is not None and name in self.architecture.settings:
            self.model.config = dataclasses.replace(config, **{self.architecture.settings[name][0]: value})
        if name == "problem_type" and config.task == "classification":
            kind = value or ("regression" if config.n_labels == 1 else "single_label_classification")
            self.model.config = dataclasses.replace(config, problem_type=kind)
        self.original[name] = value
        if name == "id2label":
            self.original["label2id"] = {label: int(number) for number, label in value.items()}

    def get_input_embeddings(self) -> Any:
        """The layer that turns ids into vectors; an encoder–decoder's, of its source."""
        return embeddings(self.model)[0]

    def get_output_embeddings(self) -> Any:
        """The layer whose weight (V, D) gives logits, the token table's if it is tied; None for a head without one."""
        return embeddings(self.model)[1] if self.head in ("causal", "mlm", "seq2seq") else None

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        *,
        seed: int = 0,
    ) -> Any:
        """Give the model rows for `new_num_tokens` ids, in place, in the token table and the output layer; returns the
        layer that turns ids into vectors. New rows are drawn about the mean of the old ones (see vocabulary.py);
        `mean_resizing` False is refused. None keeps the number, but for `pad_to_multiple_of`, which rounds it up."""
        if not mean_resizing:
            raise ValueError("resize_token_embeddings: mean_resizing = False: new rows are drawn about the mean here.")
        old = int(self.model.config.vocab_size)
        n = old if new_num_tokens is None else int(new_num_tokens)
        if pad_to_multiple_of is not None:
            n = -(-n // pad_to_multiple_of) * pad_to_multiple_of
        resize(self.model, n, seed)
        self.config.values["vocab_size"] = n
        return self.get_input_embeddings()

    def prepare_inputs_for_generation(self, input_ids: Any, **others: Any) -> Values:
        """What `forward` is called with for a text so far; peft asks for it."""
        return {"input_ids": input_ids, **others}

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Any:
        """Labels (B, T) -> what the decoder is given (B, T): the start id, then all but the last; −100 as padding.
        Raises ValueError where the config names no such ids."""
        start, pad = self.config.get("decoder_start_token_id"), self.config.pad_token_id
        if start is None or pad is None:
            raise ValueError("labels alone: config.decoder_start_token_id and pad_token_id are not set. Set them.")
        shifted = labels * 1  # a copy
        shifted[:, 1:] = labels[:, :-1]
        shifted[:, 0] = start
        shifted[shifted == -100] = pad
        return shifted

    # --- calling it

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        decoder_input_ids: Any = None,
        *,
        decoder_attention_mask: Any = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
        **further: Any,
    ) -> Any:
        """input_ids (B, T), and as the tokenizer made them attention_mask (B, T), 1 = a token, 0 = padding, and
        token_type_ids (B, T), which text of a pair -> an `Output`, or its values as a tuple if `return_dict` is False.

        `labels` adds the loss: (B, T) for "mlm" and "causal" (shifted here: labels may be the input_ids), (B,) or
        (B, n_labels) for "classification"; −100 is ignored. "seq2seq" takes the source as input_ids, the target so far
        as `decoder_input_ids` and `labels` not shifted, from which decoder_input_ids follow if config.json has a
        decoder_start_token_id. Decoders need no mask for padding on the right, which no token looks at, and refuse
        padding on the left, which would move the positions. `output_hidden_states` and `output_attentions` add what
        inside.py says; those not given are the config's. `further`: arguments of transformers that may only be None;
        `use_cache` may be anything, as nothing is kept here (`generate` keeps its own).
        """
        if refused := [name for name, value in further.items() if value is not None]:
            raise TypeError(f"a {self.head!r} model takes no {refused[0]}. See PretrainedModel.forward.")
        if input_ids is None:
            raise TypeError("a model needs input_ids (B, T).")
        ids, mask = self.array(input_ids), self.array(attention_mask)
        types, targets = self.array(token_type_ids), self.array(labels)
        if decoder_attention_mask is not None:
            check_right_padding(self.array(decoder_attention_mask))
        decoder_ids = self.array(decoder_input_ids)
        if self.head == "seq2seq" and decoder_ids is None:
            if targets is None:
                raise ValueError("an encoder-decoder needs decoder_input_ids (B, T), the target so far, or labels.")
            decoder_ids = self.prepare_decoder_input_ids_from_labels(targets)
        states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        weights = self.config.output_attentions if output_attentions is None else output_attentions
        with contextlib.nullcontext() if self.on_torch or targets is not None else no_grad():
            with looking_inside(self.model, states, weights) as inside:
                output = self.answer(ids, mask, types, targets, decoder_ids)
            output.update(inside)
        output = Output({name: value if name == "loss" else shown(value) for name, value in output.items()})
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def answer(self, ids: Any, mask: Any, types: Any, targets: Any, decoder_ids: Any) -> Output:
        h, memory = self.features(ids, mask, types, decoder_ids), None
        routes: Any = []  # of experts, in which layer which token took which
        if self.head == "seq2seq":
            h, memory = h  # (B, T, D), (B, S, D)
        if isinstance(self.model, Moe):
            h, routes = h
        if self.head == "base":
            has_pooler = getattr(self.model, "pooler", None) is not None
            return Output(last_hidden_state=h, pooler_output=self.model.pool(h) if has_pooler else None)
        logits = self.model.logits(h)
        if self.head == "causal" and targets is not None:
            h, targets = h[:, :-1], targets[:, 1:]  # each token is predicted from those before it
        loss = None if targets is None else self.model.loss(h, targets)
        extra = None
        if routes and self.model.config.balance:  # config.json's output_router_logits, as in transformers
            extra = load_balance(routes, None if mask is None else mask.reshape(-1, 1) != 0)
            loss = None if loss is None else loss + extra * self.model.config.balance
        return Output(loss=loss, aux_loss=extra, logits=logits, encoder_last_hidden_state=memory)

    def features(self, ids: Any, mask: Any, types: Any, decoder_ids: Any) -> Any:
        """What the head turns into logits: computed once, so that loss and logits come from one draw of dropout. Of an
        encoder–decoder, the decoder's features and the encoder's."""
        if self.head == "seq2seq":
            memory = self.model.encode(ids, mask)  # (B, S, D)
            return self.model.decode(decoder_ids, memory, self.model.source_mask(ids, mask)), memory
        is_decoder = self.architecture is None or self.architecture.is_decoder
        if mask is not None and self.head == "classification":  # no position is looked for: padding may move
            ids, mask, types = padded_right(ids, mask, types)
        if mask is not None and is_decoder:
            check_right_padding(mask)
        if not is_decoder:
            return self.model.hidden(ids, token_types=types, mask=mask)  # (B, T, D)
        if self.head == "classification":
            return self.model.hidden(ids, mask=mask)  # (B, D)
        return self.model.routed(ids) if isinstance(self.model, Moe) else self.model.hidden(ids)  # (B, T, D)

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
            model = self.model.given(self.array(inputs), self.array(attention_mask))
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
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: Any = None,
        max_shard_size: str | int = "5GB",
        state_dict: Any = None,
        **further: Any,
    ) -> list[Path]:
        """Write config.json, the weights and generation_config.json (if there is one) for transformers, and for
        `from_pretrained` here; returns the weight files.

        `dtype`: of the numbers in the files, the model's by default. A model that transformers has no architecture for
        (LSTM, encoder–decoder) is written in minillm's own format. The tokenizer has a save_pretrained of its own.
        `state_dict`: weights to write instead of the model's, by its own state_dict's names (accelerate gathers such).
        `further`: transformers' safe_serialization=True, is_main_process=True, save_function; others are refused.
        """
        drop_meaningless("save_pretrained", further, WHEN_SAVING)
        if further:
            raise TypeError(f"save_pretrained: {next(iter(further))!r} is not an argument of it.")
        if adapters(self.model):
            raise ValueError(
                "save_pretrained: this model has LoRA adapters. hub.adapters.save_adapter(model, folder, base) writes "
                "these; merge(model) and remove_lora(model) come first where the whole model is to be written."
            )
        folder = Path(folder)
        named = dict(self.model.named_parameters())
        if state_dict is not None:
            if missing := [name for name in named if f"model.{name}" not in state_dict]:
                raise ValueError(f"save_pretrained: state_dict has no 'model.{missing[0]}', as this model's own has.")
            named = {name: state_dict[f"model.{name}"] for name in named}
        written = dtype_name(next(iter(named.values())).dtype if dtype is None else dtype)
        sources = {}
        for name, parameter in named.items():
            theirs, shape, turned = in_file(name, tuple(parameter.shape), self.architecture, self.head)
            sources[theirs] = Source(shape, partial(numbers, parameter), turned)
        if self.architecture is not None and self.architecture.writes_fused:
            sources = join_experts(sources, self.architecture.fused)
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

    # --- on NumPy (last in the class: below, `float` would no longer be the type)

    def float(self) -> PretrainedModel:
        return self.to("float32")

    def double(self) -> PretrainedModel:
        return self.to("float64")

    def half(self) -> PretrainedModel:
        raise ValueError("half: the NumPy engine computes in float32 or float64. Use engine='torch'.")


def on_numpy(model: Any) -> bool:
    """Whether a model runs on NumPy, not on PyTorch."""
    return isinstance(next(iter(model.parameters())), Tensor)


@cache
def torch_wrapper(cls: Any) -> Any:
    """A PretrainedModel around a model on PyTorch: one torch class per class of ours."""
    from ..port import torch_class

    return type(cls.__name__, (torch_class(cls),), {"__init__": cls.__init__, "__doc__": cls.__doc__})


def shown(value: Any) -> Any:
    """What the user sees of a value, or of each of several: on NumPy the array, without its graph."""
    if isinstance(value, tuple):
        return tuple(shown(part) for part in value)
    return value.data if isinstance(value, Tensor) else value


def numbers(parameter: Any) -> np.ndarray:
    """A parameter of either engine as an array."""
    if isinstance(parameter, (Tensor, np.ndarray)):
        return parameter.data if isinstance(parameter, Tensor) else parameter
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
