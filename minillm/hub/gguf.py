"""GGUF, the one-file format of llama.cpp and of what is built on it: written from a checkpoint, and read back.

A GGUF file holds settings by name, the tokenizer among them, and tensors by name, each in a type of its own. Its names
are ours but for the tables below; its matrices stand as ours do, (out, in). One thing is turned around: llama.cpp
rotates neighbouring pairs of features in a Llama (not in a Qwen), so the rows of queries and keys are interleaved. The
types are float32, float16 and Q8_0, in which 32 neighbours share a scale and each is a whole number of 8 bits (what
that costs is measured in chapters/20_the_ecosystem.ipynb).

What llama.cpp cannot compute, or a tokenizer that it has not, is refused by name before a byte is written.
gguf_reader.py is the way back. Needs the package `gguf`, by llama.cpp's own authors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import whole_file
from ..models import GPTConfig, LlamaConfig, ModelConfig, MoeConfig, model_from_config
from ..models.rope import rope_frequencies
from ..models.sketch import sketch
from ..tokenizers import BPETokenizer, Tokenizer
from ..tokenizers.byte_spelling import spell
from .adapters import merged_reader
from .checkpoint import Checkpoint
from .llama import variant
from .tokenizer import AutoTokenizer, PretrainedTokenizer

Array = np.ndarray
Key = tuple[str, str, Any]  # what a setting is for in GGUF's words, its name, its value

TABLE = "token_embedding.weight"  # which a tied head shares; llama.cpp takes it where there is no output.weight
BLOCK = {  # our names inside a block -> theirs, in all architectures
    "norm_1": "attn_norm", "norm_2": "ffn_norm", "attn.qkv": "attn_qkv", "attn.proj": "attn_output",
    "mlp.fc": "ffn_up", "mlp.proj": "ffn_down", "attn.q_proj": "attn_q", "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v", "attn.o_proj": "attn_output", "attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm",
    "mlp.gate": "ffn_gate", "mlp.up": "ffn_up", "mlp.down": "ffn_down",
}  # fmt: skip
OUTSIDE = {
    "token_embedding": "token_embd", "position_embedding": "position_embd", "norm": "output_norm", "head": "output",
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # by what each pair's frequency is divided, where not by 1
ROPE_SCALING = "minillm.rope_scaling"  # the settings that the factors come from, which GGUF has no names for, as JSON
PRE_TOKENIZERS = {"gpt2": "gpt-2", "gpt4": "llama-bpe", "qwen2": "qwen2"}  # our split pattern -> theirs
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens
TYPES = ("float32", "float16", "q8_0")
SHARING = 32  # numbers that share a scale in Q8_0


def require_gguf() -> Any:
    """The package gguf. Raises ImportError that says how to get it."""
    try:
        import gguf
    except ImportError:
        raise ImportError("GGUF files need the package gguf: install it, or the extra [gguf].") from None
    return gguf


def write_gguf(checkpoint: Checkpoint, out: Path, dtype: str = "float32") -> Path:
    """Write a checkpoint as the GGUF file `out`, whole or not at all, one tensor at a time; returns `out`.

    `dtype`: of the matrices; float32, float16 or q8_0. Vectors and position tables stay float32, as in llama.cpp's own
    files, and in q8_0 a matrix whose rows are no multiple of 32 is float16. Raises ValueError for a model or a
    tokenizer that llama.cpp has not, FileExistsError if the file is there.
    """
    gguf = require_gguf()
    if dtype not in TYPES:
        raise ValueError(f"dtype = {dtype!r}: a GGUF file is written in {', '.join(TYPES)}.")
    if out.exists():
        raise FileExistsError(f"{out} exists already: choose another name.")
    kind = gguf_architecture(checkpoint.config, checkpoint.head)
    keys = [*model_keys(checkpoint.config, kind), *tokenizer_keys(checkpoint)]
    quantized = gguf.GGMLQuantizationType
    with whole_file(out) as temporary:
        writer = gguf.GGUFWriter(temporary, kind)
        writer.add_name(checkpoint.folder.resolve().name)
        writer.add_file_type({"float32": 0, "float16": 1, "q8_0": 7}[dtype])
        if dtype == "q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for how, name, value in keys:
            getattr(writer, how)(name, value)
        tensors = [(name, read, type_of(name, shape, dtype)) for name, shape, read in tensors_of(checkpoint, kind)]
        shapes = {name: shape for name, shape, _ in tensors_of(checkpoint, kind)}
        for name, _, code in tensors:
            stored = quantized[code]
            shape = gguf.quant_shape_to_byte_shape(shapes[name], stored) if code == "Q8_0" else shapes[name]
            kind_of_number = np.dtype({"F32": np.float32, "F16": np.float16, "Q8_0": np.uint8}[code])
            n_bytes = int(np.prod(shape)) * kind_of_number.itemsize
            writer.add_tensor_info(name, shape, kind_of_number, n_bytes, stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, read, code in tensors:
            array = np.ascontiguousarray(read(), dtype=np.float32)
            writer.write_tensor_data(gguf.quants.quantize(array, quantized[code]))
        writer.close()
    return out


def type_of(name: str, shape: tuple[int, ...], dtype: str) -> str:
    """The type of one tensor, in GGUF's words."""
    if len(shape) == 1 or name.startswith(("position_embd", "rope_freqs")) or dtype == "float32":
        return "F32"
    return "Q8_0" if dtype == "q8_0" and shape[-1] % SHARING == 0 else "F16"


# --- the model --------------------------------------------------------------------------------------------------------


def gguf_architecture(config: ModelConfig, head: str) -> str:
    """What llama.cpp calls this model: gpt2, llama, qwen2 or qwen3. Raises ValueError for one that it has not."""
    if head != "causal" or not isinstance(config, GPTConfig | LlamaConfig) or isinstance(config, MoeConfig):
        raise ValueError(
            f"a {config.model_type!r} model for {head!r} has no place in GGUF here: take a GPT-2, Llama, Qwen2 or "
            "Qwen3 that continues texts."
        )
    if isinstance(config, GPTConfig):
        return "gpt2"
    kind = variant(config)
    if kind is None:
        raise ValueError("a Llama with attention sinks has no place in GGUF here.")
    if config.window or config.mlp_bias:
        raise ValueError(
            f"a {kind} with window = {config.window} and mlp_bias = {config.mlp_bias} is not written to GGUF: only "
            "models that see all keys, without biases in the feed-forward network, are."
        )
    scaling = (config.rope_scaling or {}).get("rope_type", "default")
    if scaling not in ("default", "linear", "llama3"):
        raise ValueError(f"rope_scaling of the type {scaling!r} is not written to GGUF: llama.cpp computes its own.")
    if kind == "qwen3" and config.qkv_bias:
        raise ValueError("a Qwen3 with biases in its attention (qkv_bias) has no place in llama.cpp.")
    if kind != "qwen3" and config.head_dim * config.n_heads != config.d_model:
        raise ValueError(
            f"{kind} with head_dim = {config.head_dim}, {config.n_heads} heads and d_model = {config.d_model}: "
            "llama.cpp takes heads that share out d_model."
        )
    return kind


def model_keys(config: Any, kind: str) -> Iterator[Key]:
    """The settings of a model."""
    gpt = kind == "gpt2"
    yield "add_uint32", f"{kind}.context_length", config.context
    yield "add_uint32", f"{kind}.embedding_length", config.d_model
    yield "add_uint32", f"{kind}.block_count", config.n_layers
    yield "add_uint32", f"{kind}.feed_forward_length", config.ff_features if gpt else config.d_ff
    yield "add_uint32", f"{kind}.attention.head_count", config.n_heads
    if gpt:
        yield "add_float32", f"{kind}.attention.layer_norm_epsilon", config.norm_eps
        return
    yield "add_uint32", f"{kind}.attention.head_count_kv", config.n_kv_heads
    yield "add_uint32", f"{kind}.attention.key_length", config.head_dim
    yield "add_uint32", f"{kind}.attention.value_length", config.head_dim
    yield "add_float32", f"{kind}.attention.layer_norm_rms_epsilon", config.norm_eps
    yield "add_uint32", f"{kind}.rope.dimension_count", config.head_dim
    yield "add_float32", f"{kind}.rope.freq_base", config.rope_theta
    yield "add_uint32", f"{kind}.vocab_size", config.vocab_size
    if (config.rope_scaling or {}).get("rope_type") == "linear":
        yield "add_string", f"{kind}.rope.scaling.type", "linear"
        yield "add_float32", f"{kind}.rope.scaling.factor", float(config.rope_scaling["factor"])
    elif config.rope_scaling is not None:
        yield "add_string", ROPE_SCALING, json.dumps(config.rope_scaling)


def tensors_of(checkpoint: Checkpoint, kind: str) -> Iterator[tuple[str, tuple[int, ...], Callable[[], Array]]]:
    """Every tensor by llama.cpp's name, its shape, and the function that reads it."""
    config: Any = checkpoint.config
    for name, parameter in model_from_config(config, sketch()).named_parameters():
        if name not in checkpoint.plan.tensors:
            continue  # a head that is the token table
        _, turned = checkpoint.plan.tensors[name]
        read = as_written(merged_reader(checkpoint.plan, name, checkpoint.lora), turned, heads_of(name, config, kind))
        yield gguf_name(name), tuple(parameter.shape), read
    if getattr(config, "rope_scaling", None) and config.rope_scaling["rope_type"] == "llama3":
        plain, _ = rope_frequencies(config.context, config.head_dim, config.rope_theta, {"rope_type": "default"})
        slowed, _ = rope_frequencies(config.context, config.head_dim, config.rope_theta, config.rope_scaling)
        yield ROPE_FACTORS, plain.shape, lambda: plain / slowed


def gguf_name(name: str) -> str:
    """Our name of a tensor -> llama.cpp's: "blocks.0.attn.qkv.weight" -> "blk.0.attn_qkv.weight"."""
    module, _, part = name.rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    return f"blk.{block[1]}.{BLOCK[block[2]]}.{part}" if block else f"{OUTSIDE[module]}.{part}"


def heads_of(name: str, config: Any, kind: str) -> int:
    """How many heads have rows in this tensor that llama.cpp wants interleaved; 0 for none."""
    if kind != "llama" or (".attn.q_proj." not in name and ".attn.k_proj." not in name):
        return 0
    return config.n_heads if ".q_proj." in name else config.n_kv_heads


def as_written(read: Callable[[], Array], turned: bool, heads: int) -> Callable[[], Array]:
    def written() -> Array:
        array = read().T if turned else read()
        return interleaved(array, heads) if heads else array

    return written


def interleaved(array: Array, heads: int) -> Array:
    """The rows (heads · d, ...) of each head: those of its first half and its second half in turn. Our rotary positions
    turn feature i with feature i + d/2, llama.cpp's feature 2i with 2i + 1."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def in_halves(array: Array, heads: int) -> Array:
    """The inverse of `interleaved`."""
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def tokenizer_keys(checkpoint: Checkpoint) -> Iterator[Key]:
    """The settings of a tokenizer. Raises ValueError for one that llama.cpp has not."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.tokenizer_folder)
    core: Tokenizer = tokenizer.core
    if not isinstance(core, BPETokenizer):
        raise ValueError(
            f"{core!r} is no byte-level BPE, and llama.cpp has no other of ours: it cannot be written. Train a model "
            "that has one: a new one by minillm finetune sft gets it with --set start.tokenizer=bpe."
        )
    if core.pattern not in PRE_TOKENIZERS:
        raise ValueError(
            f"the tokenizer splits text by {core.pattern!r}, for which no name is known here that llama.cpp is certain "
            f"to have; it has {', '.join(PRE_TOKENIZERS)}: it cannot be written."
        )
    yield "add_string", "tokenizer.ggml.model", "gpt2"
    yield "add_string", "tokenizer.ggml.pre", PRE_TOKENIZERS[core.pattern]
    tokens, types = token_list(core, checkpoint.config.vocab_size)
    yield "add_array", "tokenizer.ggml.tokens", tokens
    yield "add_array", "tokenizer.ggml.token_type", types
    spelled = [spell(token) if token is not None else "" for token in core.tokens]
    yield "add_array", "tokenizer.ggml.merges", [f"{spelled[a]} {spelled[b]}" for a, b in core.merges]
    yield from named_tokens(tokenizer, core)


def named_tokens(tokenizer: PretrainedTokenizer, core: Tokenizer) -> Iterator[Key]:
    """Which tokens begin and end a text, and the chat template."""
    before, after = template_ends(core)
    roles = {"bos": before if before is not None else tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    roles["padding"] = tokenizer.pad_token_id
    for role, token_id in roles.items():
        if token_id is not None:
            yield "add_uint32", f"tokenizer.ggml.{role}_token_id", token_id
    yield "add_bool", "tokenizer.ggml.add_bos_token", before is not None
    yield "add_bool", "tokenizer.ggml.add_eos_token", after is not None
    if tokenizer.chat_template is not None:
        yield "add_string", "tokenizer.chat_template", tokenizer.chat_template


def template_ends(core: Tokenizer) -> tuple[int | None, int | None]:
    """The ids that the tokenizer's template puts before and behind a text. Raises ValueError for more than that."""
    whole, _ = core.template.apply([-1])
    at = whole.index(-1)
    before, after = whole[:at], whole[at + 1 :]
    if len(before) > 1 or len(after) > 1:
        n = len(whole) - 1
        raise ValueError(f"the tokenizer puts {n} tokens around a text; GGUF knows one before and one behind.")
    return before[0] if before else None, after[0] if after else None


def token_list(core: Tokenizer, size: int) -> tuple[list[str], list[int]]:
    """Each id's text, in GPT-2's alphabet if it is an ordinary one, and its type."""
    added = {token.id: token for token in core.added_tokens}
    texts, types = [], []
    for token_id in range(size):
        token = core.tokens[token_id] if token_id < len(core.tokens) else None
        if token_id in added:
            texts.append(added[token_id].text)
            types.append(CONTROL if added[token_id].special else USER_DEFINED)
        elif token is not None:
            texts.append(spell(token))
            types.append(NORMAL)
        else:
            texts.append(f"[UNUSED{token_id}]")
            types.append(UNUSED)
    return texts, types
