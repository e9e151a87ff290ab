"""A folder with a Keras model in it, written from a checkpoint, and read back.

    model.keras      what Keras saves: a zip with the model's graph, which minillm doesn't look at, and its weights
    config.json      the shape of the model, as everywhere in minillm's own format
    tokenizer.json   and whatever else lies beside a checkpoint

`keras.saving.load_model("OUT/model.keras")` opens it, in any Keras, without minillm; trained further, it is saved to
the same place, and `minillm convert OUT RUN --to minillm` brings it home.

Inside the zip stands model.weights.h5, a file of HDF5, in which each layer's arrays lie by the layer's name. We take
these, and nothing else: no Keras code runs when a stranger's file is read. And we ask HDF5 only where each array lies
(hdf5.py); it is read as one of a safetensors file is.

Two things are turned around. Keras's Dense computes x W + b with W (in, out), a Linear of ours x Wᵀ + b with W
(out, in). And its MultiHeadAttention has the heads as an axis of their own: (in, H, d), (H, d) and (H, d, out).
"""

from __future__ import annotations

import errno
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import copyfile, copyfileobj
from typing import Any

import numpy as np

from ..disk import write_json
from ..models import ModelConfig, config_from_dict, config_to_dict, model_from_config
from ..models.sketch import sketch
from ..nn import differences
from .architecture import ConfigurationError
from .configs import read_config
from .dtypes import NAMES, STORED
from .hdf5 import arrays_in
from .keras_models import build, check_config
from .sizes import check_sizes
from .weights import INDEX, KERAS, SINGLE, Source, Stored, WeightsError, common_dtype, write_folder

Array = np.ndarray

WEIGHTS = "model.weights.h5"  # inside
CONFIG_FILE = "config.json"
ATTENTION = {  # our layers inside an attention -> Keras's; the first is three in one
    "qkv": ("query", "key", "value"), "q_proj": ("query",), "k_proj": ("key",), "v_proj": ("value",),
    "proj": ("attention_output",), "o_proj": ("attention_output",),
}  # fmt: skip
NUMBERS = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "embeddings": 0}  # of a layer's variables in its group


# --- names and shapes -------------------------------------------------------------------------------------------------


def keras_names(name: str) -> list[str]:
    """Our name of a parameter -> those of the Keras variables that hold it.

    >>> keras_names("blocks.0.mlp.fc.weight"), keras_names("norm.bias")
    (['blocks_0_mlp_fc/kernel'], ['norm/beta'])
    >>> keras_names("blocks.0.attn.qkv.bias")
    ['blocks_0_attn/query/bias', 'blocks_0_attn/key/bias', 'blocks_0_attn/value/bias']
    """
    module, _, kind = name.rpartition(".")
    *outer, last = module.split(".")
    layer, variable = "_".join([*outer, last]), "kernel" if kind == "weight" else "bias"
    if outer and outer[-1] == "attn":
        return [f"{'_'.join(outer)}/{inner}/{variable}" for inner in ATTENTION[last]]
    if last == "mlm" or last.endswith("embedding"):
        return [f"{layer}/embeddings"]
    if last.startswith("norm"):
        return [f"{layer}/{'gamma' if kind == 'weight' else 'beta'}"]
    return [f"{layer}/{variable}"]


def to_keras(array: Array, name: str, n_heads: int) -> Array:
    """A parameter of ours, (out, in) or (features,), as the Keras variable of this name has it."""
    _, *inner, variable = name.split("/")
    array = array.T if variable == "kernel" else array  # (in, out)
    if name == "mlm/embeddings":
        return array[None]  # (1, V): a table of one row
    if not inner or (inner == ["attention_output"] and variable == "bias"):
        return array
    if inner == ["attention_output"]:
        return array.reshape(n_heads, -1, array.shape[-1])  # (H, d, out)
    return array.reshape(*array.shape[:-1], n_heads, -1)  # (in, H, d) or (H, d)


def from_keras(array: Array, name: str) -> Array:
    """The inverse of `to_keras`."""
    _, *inner, variable = name.split("/")
    if name == "mlm/embeddings":
        return array[0]
    if inner and inner != ["attention_output"]:
        array = array.reshape(*array.shape[:-2], -1)
    elif inner and variable == "kernel":
        array = array.reshape(-1, array.shape[-1])
    return array.T if variable == "kernel" else array


# --- writing ----------------------------------------------------------------------------------------------------------


def keras_model(config: Any, weights: Mapping[str, Source]) -> Any:
    """The Keras model of a config, with these weights, by our names."""
    model = build(config)
    variables = {variable.path: variable for variable in model.weights}
    for name, source in weights.items():
        array, places = source.read(), keras_names(name)
        array = array.T if source.turned else array
        for place, part in zip(places, np.split(array, len(places))):
            variables.pop(place).assign(to_keras(part, place, config.n_heads))
    assert not variables, f"{sorted(variables)} were given no weights."
    return model


def write_keras(folder: Path, config: ModelConfig, weights: Mapping[str, Source]) -> Path:
    """Write the Keras model of a checkpoint, in float32, to KERAS in a new folder, and return that."""
    keras_model(config, weights).save(folder / KERAS)
    return folder / KERAS


# --- and reading ------------------------------------------------------------------------------------------------------


def is_keras(place: Path) -> bool:
    """Whether this is a file that Keras saved, or a folder with one and with no other weights."""
    if place.suffix == ".keras" and place.is_file():
        return True
    return (place / KERAS).is_file() and not any((place / name).exists() for name in (SINGLE, INDEX))


def unpack_keras(place: Path, folder: Path, beside: Iterable[str] = ()) -> None:
    """Write the model of such a place to a new folder in minillm's own format, with those of the files `beside` it that
    are there. Raises ValueError, which names the file, for one that is damaged, and for a model that doesn't fit the
    config.json beside it, or is none of those that `write_keras` writes."""
    file = place if place.is_file() else place / KERAS
    config = read_shape(file)
    with tempfile.TemporaryDirectory() as scratch:
        stored = read_variables(extract(file, Path(scratch)), file)
        sources = find_parameters(config, stored, file)
        dtype = "float64" if common_dtype(stored) == "float64" else "float32"
        write_folder(folder, dict(sorted(sources.items())), dtype, sys.maxsize)
    write_json(folder / CONFIG_FILE, config_to_dict(config))
    for name in beside:
        if (file.parent / name).is_file():
            copyfile(file.parent / name, folder / name)


def read_shape(file: Path) -> ModelConfig:
    """The config of the model in `file`, of the config.json beside it, which is minillm's."""
    path = file.with_name(CONFIG_FILE)
    if not path.exists():
        raise WeightsError(
            f"{file} has no {CONFIG_FILE} beside it: only a model that minillm convert made is read, in its folder, "
            "trained further in Keras or not."
        )
    try:
        config = config_from_dict(read_config(file.parent))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} describes no model of minillm: {error}") from None
    check_config(config, config.task)
    return config


def extract(file: Path, folder: Path) -> Path:
    """The HDF5 file inside, as a file of its own in `folder`, compared with the checksum that the zip has for it. It
    must stand there as it is, as Keras puts it: what is compressed may be small and fill a disk."""
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(WEIGHTS)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise WeightsError(f"{file}: {WEIGHTS} is compressed in it, which Keras doesn't do: it is not read.")
            with archive.open(entry) as inside, open(folder / WEIGHTS, "wb") as out:
                copyfileobj(inside, out)
    except KeyError:
        raise WeightsError(f"{file} holds no {WEIGHTS}: save the model by Keras, with the HDF5 format.") from None
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: sent to before the file's first byte
            raise
        raise WeightsError(f"{file} is damaged, or was not saved by Keras: {error}.") from None
    return folder / WEIGHTS


def read_variables(path: Path, file: Path) -> dict[str, Stored]:
    """Where each variable of a model lies in the HDF5 file `path`, by its layer's name and its number in that layer:
    "blocks_0_mlp_fc/0", "blocks_0_attn/query/1". `file`: what errors name."""
    try:
        places = arrays_in(path)
    except ValueError as error:
        raise WeightsError(f"{file} is damaged, or was not saved by Keras: {error}") from None
    codes = {STORED[code].str: code for code in ("F64", "F32", "F16")}
    stored = {}
    for name, (dtype, shape, offset) in places.items():
        if dtype not in codes:
            kinds = ", ".join(NAMES[code] for code in codes.values())
            raise WeightsError(f"{file}: {name!r:.100} holds numbers of the type {dtype}: only {kinds} are read.")
        stored[name] = Stored(path, codes[dtype], shape, offset)
        if offset + stored[name].size * STORED[codes[dtype]].itemsize > path.stat().st_size:
            raise WeightsError(f"{file} is damaged: {name!r:.100} reaches beyond its end.")
    return stored


def find_parameters(config: Any, stored: Mapping[str, Stored], file: Path) -> dict[str, Source]:
    """Every parameter of the model by our name, and how it is read. Raises WeightsError, with the list, for what is
    missing, of another shape or too much."""
    check_sizes(config, stored, file)
    sources, expected = {}, {}
    for name, parameter in model_from_config(config, sketch()).named_parameters():
        names = keras_names(name)
        for place, part in zip(names, np.split(parameter.data, len(names))):
            expected[numbered(place)] = to_keras(part, place, config.n_heads).shape
        sources[name] = Source(tuple(parameter.shape), partial(read_parameter, names, stored))
    if problems := differences(expected, {name: tensor.shape for name, tensor in stored.items()}):
        shown = "\n  ".join([*problems[:40], "..."] if len(problems) > 40 else problems)
        count = f"{len(problems)} differences"
        raise WeightsError(f"{file}: nothing was read, the weights do not fit {CONFIG_FILE} ({count}):\n  {shown}")
    return sources


def numbered(name: str) -> str:
    """The name of a Keras variable with its number in place of what it is: "norm/beta" is "norm/1"."""
    layer, _, variable = name.rpartition("/")
    return f"{layer}/{NUMBERS[variable]}"


def read_parameter(names: Sequence[str], stored: Mapping[str, Stored]) -> Array:
    """One of our parameters, from the variables that hold it."""
    return np.concatenate([from_keras(stored[numbered(name)].read(), name) for name in names])
