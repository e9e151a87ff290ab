"""Counts from a config against the model itself: parameters and matrix products exactly, activations closely."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minillm.costs.architectures import costs_of
from minillm.costs.sizes import (
    active_parameters,
    cache_bytes,
    forward_flops,
    in_bytes,
    n_parameters,
    numpy_training_bytes,
    parameters_by_part,
    training_flops,
    training_memory,
)
from minillm.models import (
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    model_from_config,
)
from minillm.nn import KVCache
from minillm.tensor import topological_order

BENCH = Path(__file__).parents[1] / "bench"
SHAPE = {"vocab_size": 61, "context": 32, "n_layers": 3, "d_model": 48}
HEADS = {**SHAPE, "n_heads": 4}
DEEP = {**HEADS, "d_ff": 100, "dropout": 0.0}
CONFIGS = {
    "gpt": GPTConfig(**HEADS),
    "llama": LlamaConfig(**DEEP, n_kv_heads=2),
    "llama tied": LlamaConfig(**DEEP, tie_embeddings=True),
    "qwen2": LlamaConfig(**DEEP, n_kv_heads=1, qkv_bias=True),
    "qwen3": LlamaConfig(**DEEP, n_kv_heads=2, head_dim=20, qk_norm=True),
    "llama biased": LlamaConfig(**DEEP, qkv_bias=True, out_bias=True),
    "gpt of its own width": GPTConfig(**HEADS, d_ff=70),
    "mistral": LlamaConfig(**DEEP, window=8, mlp_bias=True),
    "ministral": LlamaConfig(**DEEP, window=8, full_layers=(0, 2)),
    "gemma": GemmaConfig(**DEEP, n_kv_heads=2, head_dim=10, window=4, full_layers=(1,), attention_bias=True),
    "moe": MoeConfig(**DEEP, n_kv_heads=2, n_experts=5, d_expert=20, dense_layers=(1,), tie_embeddings=True),
    "gpt-oss": MoeConfig(
        **DEEP, qkv_bias=True, out_bias=True, attention_sinks=True, router_bias=True, swiglu_limit=7.0
    ),
    "roberta": BertConfig(**DEEP, family="roberta", pad_id=1),
    "roberta classifier": BertConfig(**DEEP, family="roberta", pad_id=1, head="classification"),
    "distilbert": BertConfig(**DEEP, family="distilbert"),
    "bert": BertConfig(**DEEP),
    "bert for pretraining": BertConfig(**DEEP, next_sentence=True),
    "bert classifier": BertConfig(**DEEP, head="classification", n_labels=5),
    "bert features": BertConfig(**DEEP, head="none", token_types=1),
    "bert pooled": BertConfig(**DEEP, head="none", pooler=True),
    "gpt classifier": ClassifierConfig(GPTConfig(**HEADS), n_labels=5, pad_id=60),
    "llama classifier": ClassifierConfig(LlamaConfig(**DEEP, n_kv_heads=2, tie_embeddings=True), pad_id=60),
    "encoder-decoder": EncoderDecoderConfig(**DEEP),
    "encoder-decoder pre": EncoderDecoderConfig(**DEEP, norm="pre", positions="learned"),
    "encoder-decoder untied": EncoderDecoderConfig(**DEEP, shared_embeddings=False, source_vocab_size=40),
    "lstm": LSTMConfig(**SHAPE, d_hidden=56),
    "lstm tied": LSTMConfig(**SHAPE, tie_embeddings=True),
}
QWEN2 = {"vocab_size": 151936, "n_layers": 24, "n_heads": 14, "n_kv_heads": 2, "d_model": 896, "d_ff": 4864}
QWEN3 = {
    "vocab_size": 151936,
    "n_layers": 28,
    "n_heads": 16,
    "n_kv_heads": 8,
    "d_model": 1024,
    "d_ff": 3072,
    "head_dim": 128,
}
QWEN3_MOE = {
    "vocab_size": 151936, "n_layers": 48, "n_heads": 32, "n_kv_heads": 4, "d_model": 2048, "head_dim": 128,
    "n_experts": 128, "top_k": 8, "d_expert": 768,
}  # fmt: skip
GPT_OSS = {
    "vocab_size": 201088, "n_layers": 24, "n_heads": 64, "n_kv_heads": 8, "d_model": 2880, "head_dim": 64,
    "n_experts": 32, "top_k": 4, "d_expert": 2880, "swiglu_limit": 7.0, "router_bias": True, "qkv_bias": True,
    "out_bias": True, "qk_norm": False, "attention_sinks": True,
}  # fmt: skip
every_config = pytest.mark.parametrize("name", CONFIGS)


def arguments(config, model, batch=4, length=32):
    """Positional arguments of a forward pass with a loss."""
    draw = np.random.default_rng(0)
    ids, targets = draw.integers(0, 40, (2, batch, length))
    if isinstance(config, EncoderDecoderConfig):
        return [ids, ids, targets]
    if isinstance(config, ClassifierConfig) or (isinstance(config, BertConfig) and config.head == "classification"):
        return [ids, draw.integers(0, 2, batch)]
    if isinstance(config, BertConfig):
        return [ids, np.where(np.arange(length) % 7 == 0, targets, -100)]
    return [ids, targets]


TABLES = ("token_embedding.weight", "target_embedding.weight", "source_embedding.weight")


@every_config
def test_parameters_are_counted_exactly(name):
    config = CONFIGS[name]
    model = model_from_config(config)
    assert n_parameters(config) == sum(p.data.size for p in model.parameters())
    tables = sum(p.data.size for key, p in model.named_parameters() if key.removeprefix("decoder.") in TABLES)
    assert parameters_by_part(config)["token embedding"] == tables or "bert" in name


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPTConfig(), 124_439_808),
        (LlamaConfig(), 6_738_415_616),  # Llama 2 7B
        (
            LlamaConfig(vocab_size=128256, context=131072, n_kv_heads=8, d_ff=14336, rope_theta=500000.0),
            8_030_261_248,  # Llama 3.1 8B
        ),
        (LlamaConfig(**QWEN2, qkv_bias=True, tie_embeddings=True), 494_032_768),  # Qwen2.5 0.5B
        (LlamaConfig(**QWEN3, qk_norm=True, tie_embeddings=True), 596_049_920),  # Qwen3 0.6B
        (MoeConfig(**QWEN3_MOE), 30_532_122_624),  # Qwen3 30B-A3B
        (MoeConfig(**GPT_OSS), 20_914_757_184),  # gpt-oss 20b
        (BertConfig(head="none", pooler=True), 109_482_240),  # bert-base-uncased
    ],
)
def test_sizes_of_published_models(config, expected):
    assert n_parameters(config) == expected


def test_parameters_that_a_token_meets():
    assert active_parameters(MoeConfig(**QWEN3_MOE)) == 3_353_032_704  # A3B
    assert active_parameters(MoeConfig(**GPT_OSS)) == 4_187_440_704
    assert active_parameters(CONFIGS["llama"]) == n_parameters(CONFIGS["llama"])


@pytest.mark.parametrize("name", [name for name in CONFIGS if "lstm" not in name])  # torch counts none inside its LSTM
def test_operations_are_those_that_torch_counts(name):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from minillm.port import to_torch

    config = CONFIGS[name]
    decoder = config.decoder if isinstance(config, ClassifierConfig) else config
    counted = replace(decoder, attention="reference")  # whose products are counted as what they are
    config = replace(config, decoder=counted) if isinstance(config, ClassifierConfig) else counted
    model = model_from_config(config)
    inputs = arguments(config, model)[:-1]
    with FlopCounterMode(display=False) as counter:
        to_torch(model)(*[torch.tensor(a) for a in inputs])
    found = forward_flops(config, 32)
    # "reference" computes all scores of a causal layer, where only (T + 1)/2 are needed, or those in a window
    if isinstance(config, EncoderDecoderConfig):
        found["attention scores"] *= 3 * 32 / (2 * 32 + 33 / 2)
    elif not isinstance(config, BertConfig):
        found["attention scores"] = sum(4.0 * 32 * kind.heads * kind.head_dim for kind in costs_of(config).attention)
    counted = counter.get_total_flops() / (4 * 32)
    small = 0
    if isinstance(config, ClassifierConfig):  # the score: once per text
        small = 2 * config.decoder.d_model * config.n_labels / 32
    if isinstance(config, BertConfig):  # pooler, classifier: once per text
        pooler = config.head == "classification"
        small = pooler * 2 * (config.d_model**2 + config.d_model * config.n_labels) / 32
    assert sum(found.values()) + small == pytest.approx(counted, rel=1e-12)


def test_operations_of_an_lstm():
    config = CONFIGS["lstm"]
    weights = [p for key, p in model_from_config(config).named_parameters() if "layers" in key or "head" in key]
    assert sum(forward_flops(config, 100).values()) == sum(2 * p.data.size for p in weights if p.ndim == 2)


def test_training_costs_three_forward_passes():
    gpt = CONFIGS["gpt"]
    assert training_flops(gpt, 32) == 3 * sum(forward_flops(gpt, 32).values())
    # Kaplan et al.: about 6 operations per parameter outside the embeddings, plus the head
    large = GPTConfig(d_model=1600, n_layers=48, n_heads=25)
    blocks = n_parameters(large) - (50257 + 1024) * 1600
    assert training_flops(large, 1024) == pytest.approx(6 * (blocks + 50257 * 1600), rel=0.07)
    bert = BertConfig()
    saved = 3 * 0.85 * 2 * (30522 * 768 + 768 * 768)
    assert training_flops(bert, 128) == pytest.approx(3 * sum(forward_flops(bert, 128).values()) - saved)


def saved_by_torch(model, inputs):
    """Bytes in the arrays that autograd keeps, each once, without parameters and constants; their order."""
    import torch

    from minillm.port import to_torch

    ported = to_torch(model)
    constant = {t.untyped_storage().data_ptr() for t in [*ported.parameters(), *ported.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ported(*[torch.tensor(a) for a in inputs])
    table = tuple(
        next(iter(model.parameters())).shape
    )  # the loss keeps the head's gradient, which is not an activation
    return sum(size for size, tensor in kept.values() if tuple(tensor.shape) != table)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("gpt", 1.0, 1.05),
        ("bert", 1.0, 1.05),
        ("bert classifier", 1.0, 1.05),
        ("encoder-decoder", 1.0, 1.05),
        ("encoder-decoder pre", 1.0, 1.05),
        ("llama tied", 1.0, 1.25),  # on a CPU the RMS norm is not fused and keeps its output too
        ("moe", 1.0, 1.5),
        ("qwen3", 1.0, 1.4),  # and keys and values are repeated for each group
    ],
)
def test_activations_are_those_that_torch_keeps(name, least, most):
    pytest.importorskip("torch")
    config = CONFIGS[name]
    model = model_from_config(config)
    found = saved_by_torch(model, arguments(config, model)) / (4 * 4 * 32)
    assert least <= found / costs_of(config).activations < most


def test_activations_of_an_lstm_are_those_that_numpy_keeps():
    config = CONFIGS["lstm"]
    model = model_from_config(config)
    loss = model(*arguments(config, model))
    parameters = {p.shape for p in model.parameters()}  # they and the head's gradient are no activations
    kept = {}
    for node in topological_order(loss.node):
        for array in node.saved:
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.shape not in parameters:
                owner = array if array.base is None else array.base
                kept[id(owner)] = owner.size
    assert sum(kept.values()) / (4 * 32) == pytest.approx(costs_of(config).activations, rel=0.05)


def test_training_memory():
    config = GPTConfig()
    memory = training_memory(config, batch_size=8, length=1024)
    n = 124_439_808
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * n, 4 * n, 8 * n)
    assert memory.activations == 4 * 8 * 1024 * (12 * 16 + 2) * 768
    assert memory.attention_weights == 4 * 8 * 12 * 12 * 1024 * 1024
    assert memory.total == 16 * n + memory.activations
    assert training_memory(config, 8, 1024, activation_bytes=2).activations == memory.activations // 2
    assert "optimizer                0.996 GB" in str(memory)
    assert [in_bytes(n) for n in (2_345, 12_345_678, 1.5e12)] == ["2.345 kB", "12.346 MB", "1,500.000 GB"]
    assert training_memory(CONFIGS["lstm"], 2, 10).attention_weights == 0


MEASURED = ["gpt laptop", "gpt large batch, layers"]
MORE = [
    "gpt laptop, 2 threads", "gpt wide", "gpt long", "gpt large batch", "gpt large batch, selective",
    "gpt large vocabulary", "llama", "llama, layers", "llama, selective", "bert", "encoder-decoder", "lstm",
]  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", [*MEASURED, *(pytest.param(name, marks=pytest.mark.long) for name in MORE)])
def test_memory_reckoned_on_numpy_is_about_what_a_step_takes(name):
    """Too little by a sixth would let a run begin that doesn't fit; half too much would refuse one that does."""
    command = [sys.executable, BENCH / "memory.py", "one", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    measured, reckoned = json.loads(done.stdout)
    assert 1 / 1.2 < reckoned / measured < 1.5, f"{name}: {in_bytes(reckoned)} reckoned, {in_bytes(measured)} measured"


def test_memory_on_numpy_grows_with_each_thread_and_token():
    config = CONFIGS["gpt"]
    n, V = n_parameters(config), config.vocab_size
    small, one = numpy_training_bytes(config, 1, 1), numpy_training_bytes(config, 4, 32)
    assert small < 12 * n + 4 * n + 8 * V * 48 + 26e6  # weights and moments, gradients, the tables', the process
    assert numpy_training_bytes(config, 1, 1, threads=3) - small == 2 * 4 * n  # gradients that a token has, too
    assert one > small and numpy_training_bytes(config, 4, 32, threads=30) > one
    more = training_memory(config, 8, 32).activations - training_memory(config, 4, 32).activations
    weights = 4 * 128 * 3 * 4 * 32  # the attention weights of 4 rows: a block of 64 queries is all of 32
    grown = round(1.1 * (more + weights)) + 4 * 128 * V
    assert numpy_training_bytes(config, 8, 32) - one == pytest.approx(grown, abs=1)


@every_config
def test_what_is_computed_again_takes_less(name):
    config = CONFIGS[name]
    none, selective, layers = (
        training_memory(config, 4, 32, recompute=how).activations for how in ("none", "selective", "layers")
    )
    costs = costs_of(config)
    assert layers < selective < none or (name.startswith("lstm") and layers == selective < none)
    assert costs.layer_inputs + costs.products < costs.activations
    assert layers == pytest.approx(4 * 4 * 32 * (2 * costs.layer_inputs + costs.activations) / 3, rel=0.2)


@pytest.mark.parametrize("name", ["gpt", "llama", "qwen3", "encoder-decoder", "lstm"])
def test_cache_is_as_large_as_the_buffers(name):
    config = CONFIGS[name]
    model = model_from_config(config)
    ids = np.ones((2, 32), np.int64)
    decoder = model.given(ids) if isinstance(config, EncoderDecoderConfig) else model
    cache = decoder.new_cache(32)
    decoder.hidden(ids, cache)
    if isinstance(cache, KVCache):
        arrays = [*cache.keys, *cache.values]
    elif isinstance(config, LSTMConfig):
        arrays = [t.data for pair in cache.layers for t in pair]
    else:
        arrays = [*cache.target.keys, *cache.target.values, *(t.data for pair in cache.source for t in pair)]
    assert cache_bytes(config, batch_size=2, length=32) == sum(a.nbytes for a in arrays)
    assert cache_bytes(CONFIGS["bert"], 2, 32) == 0


def test_no_config():
    with pytest.raises(TypeError, match="dict is not a config"):
        n_parameters({})
