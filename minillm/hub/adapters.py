"""LoRA adapters in PEFT's format: a folder with what was learned, a few megabytes, and the name of the model beside
which it was learned.

    adapter_config.json         {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": ..., ...}
    adapter_model.safetensors   base_model.model.<layer in transformers' names>.lora_A.weight (r, in), .lora_B.weight
                                (out, r), and whole modules that learned: base_model.model.score.weight
    config.json                 of a classifier made here: the names of its labels

A model that transformers has no architecture for (the encoder-decoder) has our own names there, and `auto_mapping`
says so. Whatever PEFT can do beyond plain LoRA on Linears would load and be silently wrong: it is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..disk import about, check_values, whole_folder, write_json
from ..finetune.freeze import matching
from ..finetune.lora import BARE, HEADS, LoraConfig, adapters_in
from ..models import ModelConfig, model_from_config
from ..models.sketch import sketch
from ..nn import Linear
from ..tokenizers import Tokenizer
from .architecture import Architecture, ConfigurationError, Values
from .configs import architecture_of, read_config, read_object, to_hf
from .dtypes import CODES, dtype_name
from .loading import Plan
from .names import canonical_names, hf_name, in_file
from .places import ADAPTER_CONFIG, ADAPTER_WEIGHTS, NotFound, find_folder
from .pretrained import numbers
from .weights import Source, Stored, WeightsError, common_dtype, read_header, shorten, write_file

PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"  # PEFT's
LORA = (".lora_A", ".lora_B")  # ours
TASKS = {"causal": "CAUSAL_LM", "classification": "SEQ_CLS", "seq2seq": "SEQ_2_SEQ_LM", "base": "FEATURE_EXTRACTION"}
# Which layers have an adapter, and which modules learned whole, the tensors say; the rest has no part in what a trained
# adapter computes.
WITHOUT_MEANING = (
    "target_modules", "modules_to_save", "exclude_modules", "layers_to_transform", "layers_pattern", "revision",
    "inference_mode", "auto_mapping", "peft_version", "megatron_core", "qalora_group_size",
)  # fmt: skip
LABELS = ("id2label", "label2id", "num_labels", "problem_type", "pad_token_id")  # of config.json beside an adapter


@dataclass(frozen=True)
class PeftSettings:
    """The entries of adapter_config.json that mean something here, by their types."""

    peft_type: str
    r: int
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    use_rslora: bool = False
    fan_in_fan_out: bool = False  # of GPT-2's Conv1D, whose adapters stand as any other's
    bias: str = "none"
    init_lora_weights: bool | str = True
    task_type: str | None = None
    base_model_name_or_path: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder as it lies there: settings, and where its tensors are."""

    folder: Path
    peft: PeftSettings
    revision: str | None  # of the base model on the hub
    lora: LoraConfig  # whose targets `fit` finds out
    stored: dict[str, Stored]  # by their names without PREFIX

    @property
    def head(self) -> str | None:
        """What the adapted model is for; None: what the base model is for."""
        return {theirs: ours for ours, theirs in TASKS.items()}.get(self.peft.task_type or "")

    def settings(self) -> Values:
        """What the base model's config.json must say of the labels: as saved here, or as many as the head has."""
        if self.head != "classification":
            return {}
        if (self.folder / "config.json").exists():
            values = read_config(self.folder)
            return {name: values[name] for name in LABELS if name in values}
        rows = [self.stored[f"{name}.weight"].shape[0] for name in HEADS if f"{name}.weight" in self.stored]
        return {"num_labels": rows[0]} if rows else {}

    def find_base(self, **hub: Any) -> Path:
        """The folder of the base model: relative to the adapter's, as it is, or a name on the hub. `hub` as for
        `find_folder`."""
        base, place = self.peft.base_model_name_or_path, self.folder / ADAPTER_CONFIG
        what_to_do = f"Give its folder, or its name on the hub, as base_model_name_or_path in {place}."
        if not base:
            raise NotFound(f"{self.folder} is an adapter that does not name the model that it belongs to. {what_to_do}")
        try:
            beside = Path(os.path.realpath(self.folder / base))
        except ValueError:  # a NUL, or half of a surrogate pair
            raise NotFound(f"{place}: {base!r:.100} is no name that a folder can have. {what_to_do}") from None
        try:
            found = find_folder(beside if beside.is_dir() else base, **{**hub, "revision": self.revision})
        except OSError as error:
            raise NotFound(
                f"{self.folder} is an adapter, and its base model cannot be had: {error} {what_to_do}"
            ) from error
        if is_adapter(found):
            raise ConfigurationError(f"{place}: {base} is an adapter itself. Merge it first (minillm convert).")
        return found


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).exists()


def read_adapter(folder: Path) -> Adapter:
    """Read the settings and the headers. Raises ConfigurationError, naming the setting, for what is no plain LoRA, and
    WeightsError for missing or damaged weights."""
    path = folder / ADAPTER_CONFIG
    values = read_object(path)
    known = {name: values[name] for name in PeftSettings.__dataclass_fields__ if values.get(name) is not None}
    with about(path):
        check_values(PeftSettings, known)
    if known.get("peft_type") != "LORA" or "r" not in known:
        kind = f"peft_type = {values.get('peft_type')!r:.50} and r = {values.get('r')!r:.50}"
        raise ConfigurationError(f"{path}: {kind} must be 'LORA' and the rank: minillm has no other adapters.")
    peft = PeftSettings(**known)
    refused = {name: value for name, value in values.items() if value and name not in (*known, *WITHOUT_MEANING)}
    if peft.bias != "none":
        refused["bias"] = peft.bias
    if peft.init_lora_weights not in (True, False, "gaussian", "orthogonal", "eva"):  # others change the base model
        refused["init_lora_weights"] = peft.init_lora_weights
    for name, value in refused.items():
        raise ConfigurationError(f"{path}: {name} = {value!r:.100} is not supported, only plain LoRA on Linears is.")
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise WeightsError(f"{folder} has no {ADAPTER_WEIGHTS}; it must lie beside {ADAPTER_CONFIG}.")
    stored = read_header(folder / ADAPTER_WEIGHTS)
    if foreign := [name for name in stored if not name.startswith(PREFIX)]:
        raise WeightsError(f"{folder / ADAPTER_WEIGHTS}: names must begin with {PREFIX!r}, not {shorten(foreign)}.")
    common_dtype(stored)  # refuses integers
    with about(path):
        lora = LoraConfig(peft.r, peft.lora_alpha, peft.lora_dropout, (), peft.use_rslora, ())
    revision = values.get("revision")
    stored = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    return Adapter(folder, peft, revision if isinstance(revision, str) else None, lora, stored)


def fit(
    adapter: Adapter, plan: Plan, config: ModelConfig, architecture: Architecture | None
) -> tuple[LoraConfig, Plan]:
    """Which layers an adapter changes, and the base model's plan with the adapter's tensors in it. Raises WeightsError,
    with the list, for tensors that have no place in the model, another shape, or not their other half."""
    model = model_from_config(config, sketch())
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    linears = [n for n, module in model.named_modules() if isinstance(module, Linear) and n not in BARE]
    transposed: tuple[str, ...] = ()
    if architecture is None:
        today, places = {name: name for name in adapter.stored}, {name: name for name in shapes}  # to ours
    else:
        today = canonical_names(adapter.stored, architecture)
        places = {hf_name(name, architecture): name for name in shapes}
        transposed = architecture.transposed

    def place_of(theirs: str) -> tuple[str, tuple[int, ...], bool] | None:
        """Our name for a tensor, the shape that it must have, and whether it stands on its side there."""
        layer = theirs.removesuffix(A).removesuffix(B)
        ours = places.get(theirs if layer == theirs else f"{layer}.weight")
        if ours is None:
            return None
        shape, turned, rank = shapes[ours], ours.endswith(transposed), adapter.lora.rank
        if layer == theirs:
            return ours, shape[::-1] if turned else shape, turned
        name = ours.removesuffix(".weight")
        if name not in linears:
            return None
        if theirs.endswith(A):
            return f"{name}.lora_A", (rank, shape[1]), False
        return f"{name}.lora_B", (shape[0], rank), False

    found: dict[str, tuple[Stored, bool]] = {}
    problems = []
    for name, stored in adapter.stored.items():
        place = place_of(today.get(name, name))
        if place is None:
            problems.append(f"no place for {name}")
        elif stored.shape != place[1]:
            problems.append(f"{name} is {stored.shape}, not {place[1]}")
        else:
            found[place[0]] = stored, place[2]
    layers = {name.removesuffix(".lora_A").removesuffix(".lora_B") for name in found if name.endswith(LORA)}
    problems += [
        f"{layer} needs both lora_A and lora_B"
        for layer in sorted(layers)
        if {layer + kind for kind in LORA} - {*found}
    ]
    if problems or not layers:
        shown = "\n  ".join(problems[:8]) or "it holds no lora_A"
        raise WeightsError(f"{adapter.folder / ADAPTER_WEIGHTS} does not fit a {type(model).__name__}:\n  {shown}")
    tensors = {**plan.tensors, **found}
    if fresh := [name for name in plan.fresh if name not in tensors]:
        raise WeightsError(
            f"{adapter.folder}: neither the adapter nor its base model has weights for {shorten(fresh)}. Drawn at "
            "random they would not be those that it was trained with: LoraConfig's train_also must name such modules."
        )
    lora = replace(
        adapter.lora,
        targets=tuple(name for name in linears if name in layers),
        train_also=tuple(name for name in found if not name.endswith(LORA)),
    )
    return lora, Plan(tensors)


def merged_reader(plan: Plan, name: str, lora: LoraConfig | None) -> Any:
    """A function that reads a weight as it stands in the base model's file, with its adapter's change if it has one:
    added in the file's precision, or float32 if that is less."""
    stored, turned = plan.tensors[name]
    module = name.removesuffix(".weight")
    if lora is None or f"{module}.lora_A" not in plan.tensors:
        return stored.read
    a, b = (plan.tensors[module + kind][0] for kind in LORA)
    return partial(read_merged, stored, turned, a, b, lora.scale)


def read_merged(stored: Stored, turned: bool, a: Stored, b: Stored, scale: float) -> Any:
    weight = stored.read()
    change = (b.read() @ a.read()) * scale
    return weight + (change.T if turned else change).astype(weight.dtype)


# --- and back ---------------------------------------------------------------------------------------------------------


def save_adapter(
    model: Any,
    folder: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    original: Values | None = None,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Write the adapters of a model of either engine, and what learned whole beside them, to a folder that PEFT and
    `open_checkpoint` read; an older adapter there gives way. `base`: the folder or name of the model that it was made
    from, whose weights are not written; a folder is noted relative to the new one. `original`: the config.json with the
    names of a classifier's labels. Raises ValueError for a model without adapters, FileExistsError for a folder with
    something else in it."""
    adapters_in(model, "save_adapter")
    with whole_folder(folder, kind="adapter", replace=True) as new:
        write_adapter(model, new, base, Path(folder), original=original)
        if tokenizer is not None:
            tokenizer.save(new)
    return Path(folder)


def write_adapter(
    model: Any, new: Path, base: str | os.PathLike[str], folder: Path, *, original: Values | None = None
) -> None:
    """Write an adapter's files into the folder `new`, which will stand at `folder`."""
    layers = adapters_in(model, "write_adapter")
    lora: LoraConfig = next(iter(layers.values())).lora
    config = model.config
    try:
        architecture = architecture_of(config)
    except ConfigurationError:  # a Llama that transformers has not
        architecture = None
    named = dict(model.named_parameters())
    also = [name for name in HEADS if f"{name}.weight" in named] if lora.train_also is None else lora.train_also
    whole = [name for name in (matching(model, *also) if also else []) if name.rpartition(".")[0] not in layers]

    def theirs(name: str) -> tuple[str, bool]:
        parameter_name, _, turned = in_file(name, (), architecture, config.task)
        return parameter_name, turned

    sources = {}
    for name in whole:
        full, turned = theirs(name)
        shape = tuple(named[name].shape)
        sources[PREFIX + full] = Source(shape[::-1] if turned else shape, partial(numbers, named[name]), turned)
    adapted = []
    for name in layers:
        adapted.append(theirs(f"{name}.weight")[0].removesuffix(".weight"))
        for ending, part in ((A, "lora_A"), (B, "lora_B")):
            parameter = named[f"{name}.{part}"]
            sources[PREFIX + adapted[-1] + ending] = Source(tuple(parameter.shape), partial(numbers, parameter))
    linears = [n for n, module in model.named_modules() if isinstance(module, Linear)]
    place = os.fspath(base)
    if os.path.isdir(place):
        place = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
    own = {"base_model_class": type(model).__name__, "parent_library": "minillm"}
    values: Values = {
        "peft_type": "LORA",
        "task_type": TASKS.get(config.task),
        "base_model_name_or_path": place,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "target_modules": short_names(adapted, [theirs(f"{n}.weight")[0].removesuffix(".weight") for n in linears]),
        "modules_to_save": sorted({theirs(name)[0].rpartition(".")[0] for name in whole}) or None,
        "fan_in_fan_out": any(theirs(f"{name}.weight")[1] for name in layers),
        "bias": "none",
        "inference_mode": True,
        "auto_mapping": None if architecture else own,
    }
    code = CODES[dtype_name(next(iter(layers.values())).lora_A.dtype)]
    write_file(new / ADAPTER_WEIGHTS, dict(sorted(sources.items())), code)
    write_json(new / ADAPTER_CONFIG, dict(sorted(values.items())))
    if config.task == "classification" and architecture is not None:
        write_json(new / "config.json", dict(sorted(to_hf(config, original or {}, config.task).items())))


def short_names(adapted: list[str], linears: Iterable[str]) -> list[str]:
    """The shortest endings that mean the adapted layers and no others: how PEFT names its targets.

    >>> short_names(["h.0.attn.c_proj"], ["h.0.attn.c_proj", "h.0.mlp.c_proj"])
    ['attn.c_proj']
    """
    linears = list(linears)
    for length in range(1, max(name.count(".") for name in adapted) + 2):
        endings = {".".join(name.split(".")[-length:]) for name in adapted}
        meant = [name for name in linears if any(f".{name}".endswith(f".{ending}") for ending in endings)]
        if set(meant) == set(adapted):
            break
    return sorted(endings)
