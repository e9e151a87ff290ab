"""From a GGUF file to a folder in minillm's own format, from which `convert` goes on: gguf.py the other way round.

Quantized tensors become float32: what was rounded away stays away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..disk import write_json, write_text
from ..disk.records import fits
from ..models import GPTConfig, LlamaConfig, config_to_dict, model_from_config
from ..models.sketch import sketch
from ..tokenizers import BPETokenizer
from ..tokenizers.added import AddedToken
from ..tokenizers.byte_spelling import unspell
from ..tokenizers.template import PLAIN, Template
from .gguf import (
    CONTROL,
    NORMAL,
    PRE_TOKENIZERS,
    ROPE_FACTORS,
    ROPE_SCALING,
    USER_DEFINED,
    gguf_name,
    heads_of,
    in_halves,
    require_gguf,
)
from .tokenizer import TEMPLATE_FILE
from .tokenizer_files import CONFIG_FILE
from .weights import Source, write_folder

T = TypeVar("T")
ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")


def unpack_gguf(file: Path, folder: Path) -> None:
    """Write the model, its tokenizer and its chat template to a new folder. Raises ValueError, which names the file,
    for one that is damaged or whose model or tokenizer is none of those that `write_gguf` writes."""
    gguf = require_gguf()
    try:
        reader = gguf.GGUFReader(file)
        keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file leads the package to
        raise ValueError(f"{file} is damaged, or no GGUF file: {type(error).__name__}: {error}.") from None
    try:
        config = config_of(keys, tensors)
        write_model(config, str(keys["general.architecture"]), tensors, gguf.quants.dequantize, folder)
        write_tokenizer(keys, folder)
    except KeyError as error:
        raise ValueError(f"{file} has no {error}.") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def value(keys: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """One setting, of the type that it must have. Raises ValueError, or KeyError where it is missing."""
    found = keys[name] if default is None else keys.get(name, default)
    if kind is float and isinstance(found, int | np.integer):
        found = float(found)
    if not fits(found, kind):
        raise ValueError(f"{name} = {found!r:.50} must be of type {kind}.")
    return found


def config_of(keys: Mapping[str, Any], tensors: Mapping[str, Any]) -> GPTConfig | LlamaConfig:
    """The shape of the model."""
    kind = value(keys, "general.architecture", str)
    if kind not in ARCHITECTURES:
        raise ValueError(f"its architecture is {kind!r}: only {', '.join(ARCHITECTURES)} can be read.")
    of = partial(value, keys)
    shared: dict[str, Any] = {
        "vocab_size": len(value(keys, "tokenizer.ggml.tokens", list)),
        "context": of(f"{kind}.context_length", int),
        "n_layers": of(f"{kind}.block_count", int),
        "n_heads": of(f"{kind}.attention.head_count", int),
        "d_model": of(f"{kind}.embedding_length", int),
    }
    if kind == "gpt2":
        inner, eps = of(f"{kind}.feed_forward_length", int), of(f"{kind}.attention.layer_norm_epsilon", float)
        inner = 0 if inner == 4 * shared["d_model"] else inner
        return GPTConfig(**shared, d_ff=inner, norm_eps=float(np.float64(str(np.float32(eps)))))
    return LlamaConfig(
        **shared,
        n_kv_heads=of(f"{kind}.attention.head_count_kv", int, shared["n_heads"]),
        head_dim=of(f"{kind}.attention.key_length", int, shared["d_model"] // shared["n_heads"]),
        d_ff=of(f"{kind}.feed_forward_length", int),
        norm_eps=float(np.float64(str(np.float32(of(f"{kind}.attention.layer_norm_rms_epsilon", float))))),
        rope_theta=of(f"{kind}.rope.freq_base", float, 10000.0),
        rope_scaling=rope_scaling_of(keys, kind, ROPE_FACTORS in tensors),
        qkv_bias="blk.0.attn_q.bias" in tensors,
        out_bias="blk.0.attn_output.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        tie_embeddings="output.weight" not in tensors,
    )


def rope_scaling_of(keys: Mapping[str, Any], kind: str, with_factors: bool) -> dict[str, Any] | None:
    """How rotary positions are stretched."""
    if with_factors and ROPE_SCALING not in keys:
        raise ValueError(f"{ROPE_FACTORS} holds frequencies of a Llama 3.1, whose settings the file does not name.")
    if with_factors:
        return value({ROPE_SCALING: json.loads(value(keys, ROPE_SCALING, str))}, ROPE_SCALING, dict[str, Any])
    scaling = value(keys, f"{kind}.rope.scaling.type", str, "none")
    if scaling not in ("none", "linear"):
        raise ValueError(f"rotary positions of the type {scaling!r} are not read.")
    factor = value(keys, f"{kind}.rope.scaling.factor", float, 1.0)
    return {"rope_type": "linear", "factor": factor} if scaling == "linear" else None


def write_model(
    config: GPTConfig | LlamaConfig, kind: str, tensors: Mapping[str, Any], dequantize: Any, folder: Path
) -> None:
    """config.json and the weights."""
    sources, wanted = {}, set()
    for name, parameter in model_from_config(config, sketch()).named_parameters():
        theirs = gguf_name(name)
        tensor, shape = tensors[theirs], tuple(parameter.shape)
        stands = tuple(int(n) for n in tensor.shape[::-1])  # GGUF names the innermost axis first
        if stands != shape:
            raise ValueError(f"{theirs} has the shape {stands}, the settings make it {shape}.")
        heads = heads_of(name, config, kind)
        sources[name] = Source(shape, partial(read_tensor, tensor, dequantize, shape, heads))
        wanted.add(theirs)
    if further := sorted(set(tensors) - wanted - {ROPE_FACTORS}):
        raise ValueError(f"it holds {', '.join(further[:5])}, for which the model has no place.")
    write_folder(folder, dict(sorted(sources.items())), "float32", 1 << 62)
    write_json(folder / "config.json", config_to_dict(config))


def read_tensor(tensor: Any, dequantize: Callable[..., Any], shape: tuple[int, ...], heads: int) -> np.ndarray:
    array = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)
    return in_halves(array, heads) if heads else array


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def write_tokenizer(keys: Mapping[str, Any], folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json and, if there is one, the chat template."""
    model, pre = value(keys, "tokenizer.ggml.model", str), value(keys, "tokenizer.ggml.pre", str)
    patterns = {theirs: ours for ours, theirs in PRE_TOKENIZERS.items()}
    if model != "gpt2" or pre not in patterns:
        raise ValueError(f"its tokenizer is {model!r} with {pre!r}: only byte-level BPE with {', '.join(patterns)}.")
    texts = value(keys, "tokenizer.ggml.tokens", list[str])
    types = value(keys, "tokenizer.ggml.token_type", list[int], [NORMAL] * len(texts))
    if len(types) != len(texts):
        raise ValueError(f"its tokenizer has {len(texts)} tokens and {len(types)} types of tokens.")
    tokens: list[bytes | None] = []
    special: dict[str, int] = {}
    added: list[AddedToken] = []
    for token_id, (text, kind) in enumerate(zip(texts, types)):
        if kind == CONTROL:
            special[text] = token_id
        if kind == USER_DEFINED:
            added.append(AddedToken(text, token_id, special=False))
        if kind in (CONTROL, USER_DEFINED):
            tokens.append(text.encode())
        else:
            tokens.append(unspelled(text) if kind == NORMAL else None)
    ids = {text: i for i, (text, kind) in enumerate(zip(texts, types)) if kind == NORMAL}
    merges = [merge_of(line, ids) for line in value(keys, "tokenizer.ggml.merges", list[str])]
    roles = {}
    for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        key = f"tokenizer.ggml.{name}_token_id"
        if key in keys:
            token_id = value(keys, key, int)
            if not 0 <= token_id < len(texts):
                raise ValueError(f"{key} = {token_id} is none of its {len(texts)} tokens.")
            roles[f"{role}_token"] = texts[token_id]
    template = PLAIN
    if keys.get("tokenizer.ggml.add_bos_token") and "bos_token" in roles:
        template = beginning_with(roles["bos_token"], special)
    tokenizer = BPETokenizer(
        tokens,
        merges,
        patterns[pre],
        special,
        whole_pieces=pre == "llama-bpe",
        nfc=pre == "qwen2",
        added_tokens=added,
        template=template,
    )
    tokenizer.save(folder)
    write_json(folder / CONFIG_FILE, {**roles, "tokenizer_class": "PreTrainedTokenizerFast"})
    if "tokenizer.chat_template" in keys:
        write_text(folder / TEMPLATE_FILE, value(keys, "tokenizer.chat_template", str))


def unspelled(text: str) -> bytes:
    try:
        return unspell(text)
    except KeyError:
        raise ValueError(f"the token {text!r:.50} is not written in GPT-2's alphabet.") from None


def merge_of(line: str, ids: Mapping[str, int]) -> tuple[int, int]:
    parts: Sequence[str] = line.split(" ")
    if len(parts) != 2 or not all(part in ids for part in parts):
        raise ValueError(f"the merge {line!r:.50} is not of two of its tokens.")
    return ids[parts[0]], ids[parts[1]]


def beginning_with(text: str, special: Mapping[str, int]) -> Template:
    """The template that puts one token before each text."""
    if text not in special:
        raise ValueError(f"its texts begin with {text!r:.50}, which is no special token.")
    start = ((text, 0), ("$A", 0))
    return Template(single=start, pair=(*start, (text, 1), ("$B", 1)), ids={text: (special[text],)})
