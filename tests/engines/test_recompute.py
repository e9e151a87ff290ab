"""What is computed again in the backward pass: the same gradients to the last bit, for far less memory."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaves import leaf

from minillm import nn, numpy_ops, ops
from minillm.debug import debug_mode
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.recompute import blocks, checkpoint
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.lora import LoraConfig, add_lora
from minillm.models import (
    GPT,
    BertConfig,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    model_from_config,
)
from minillm.settings import EngineConfig, TrainConfig
from minillm.tensor import Parameter, Tensor, no_grad

MODES = ("layers", "selective")
SHAPE = {"vocab_size": 40, "context": 12}
HEADS = {**SHAPE, "n_heads": 2, "d_model": 16}
FAMILIES = {
    "gpt": lambda **own: GPTConfig(**HEADS, **own),
    "llama": lambda **own: LlamaConfig(**HEADS, **own, d_ff=24, n_kv_heads=1, qk_norm=True),
    "gemma": lambda **own: GemmaConfig(**HEADS, **own, d_ff=24, n_kv_heads=1, window=4, full_layers=()),
    "moe": lambda **own: MoeConfig(**HEADS, **own, d_ff=24, n_experts=3, dense_layers=(0,)),
    "gpt-oss": lambda **own: MoeConfig(**HEADS, **own, d_ff=24, attention_sinks=True, swiglu_limit=7.0),
    "bert": lambda **own: BertConfig(**HEADS, **own, d_ff=24),
    "encoder-decoder": lambda **own: EncoderDecoderConfig(**HEADS, **own, d_ff=24),
    "encoder-decoder, pre": lambda **own: EncoderDecoderConfig(**HEADS, **own, d_ff=24, norm="pre"),
    "lstm": lambda **own: LSTMConfig(**SHAPE, **own, d_model=16),
}


def batch_for(config, seed=0, rows=4):
    draw = np.random.default_rng(seed)
    ids, targets = draw.integers(0, config.vocab_size, (2, rows, config.context))
    if isinstance(config, EncoderDecoderConfig):
        return ids, ids[:, ::-1].copy(), targets
    return ids, np.where(draw.random(ids.shape) < 0.3, targets, -100) if isinstance(config, BertConfig) else targets


def trained(make, config, how, prepare=None, steps=2, micro_batches=2, seed=0):
    """Losses, gradients, weights and the generator's state of a few steps."""
    model = model_from_config(config, np.random.default_rng(seed))
    if prepare is not None:
        prepare(model)
    engine = make(model, TrainConfig(batch_size=4), recompute=how)
    losses = []
    for step in range(steps):
        losses.append(engine.forward_backward([batch_for(config, 10 * step + i) for i in range(micro_batches)]))
        losses.append(engine.clip_gradients(1.0))
        gradients = {name: p.grad for name, p in model.named_parameters()}
        engine.step(1e-2)
    return losses, gradients, model.state_dict(), model.rng.bit_generator.state


def assert_same(found, expected):
    for one, other in zip(found, expected):
        if isinstance(one, dict) and all(isinstance(value, np.ndarray | None) for value in one.values()):
            assert list(one) == list(other)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        else:
            assert one == other


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3)
@given(
    n_layers=st.integers(1, 3),
    dropout=st.sampled_from([0.0, 0.2]),
    micro_batches=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_models_learn_the_same_to_the_last_bit(family, n_layers, dropout, micro_batches, seed):
    config = FAMILIES[family](n_layers=n_layers, dropout=dropout)
    run = partial(trained, NumpyEngine, config, micro_batches=micro_batches, seed=seed)
    plain = run("none")
    for how in MODES:
        assert_same(run(how), plain)


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("family", ["gpt", "encoder-decoder"])
def test_in_threads(family, how):
    make, config = partial(ThreadedNumpyEngine, threads=3), FAMILIES[family](n_layers=2, dropout=0.2)
    assert_same(trained(make, config, how), trained(make, config, "none"))


def freeze_all_but_the_last(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith("blocks.1")


def adapted(model):
    add_lora(model, LoraConfig(rank=2, dropout=0.3, targets="all-linear"), np.random.default_rng(1))


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("prepare", [freeze_all_but_the_last, adapted], ids=["freeze", "lora"])
def test_where_only_a_part_learns(prepare, how):
    """The first layer's input wants no gradient, and some products make no node."""
    config = FAMILIES["gpt"](n_layers=2, dropout=0.2)
    found = trained(NumpyEngine, config, how, prepare)
    assert_same(found, trained(NumpyEngine, config, "none", prepare))
    learned = [name for name, grad in found[1].items() if grad is not None]
    assert learned and all(name.startswith("blocks") for name in learned)


@pytest.mark.parametrize("how", MODES)
def test_in_debug_mode(how):
    config = FAMILIES["llama"](n_layers=2, dropout=0.2)
    with debug_mode():
        found = trained(NumpyEngine, config, how)
    assert_same(found, trained(NumpyEngine, config, "none"))


def test_layers_are_left_as_they_were():
    model = model_from_config(FAMILIES["encoder-decoder"](n_layers=2))
    assert [type(block).__name__ for block in blocks(model)] == ["EncoderBlock"] * 2 + ["DecoderBlock"] * 2
    engine = NumpyEngine(model, TrainConfig(), recompute="layers")
    batch = batch_for(model.config)
    engine.forward_backward([batch])
    with pytest.raises(IndexError):
        engine.forward_backward([(batch[0] + 40, *batch[1:])])
    assert not any("forward" in vars(block) for block in blocks(model))
    for wrong in ("all", "", True):
        with pytest.raises(ValueError, match="recompute must be one of 'none', 'layers', 'selective', not"):
            NumpyEngine(model, TrainConfig(), recompute=wrong).forward_backward([batch])
    with pytest.raises(ValueError, match="recompute must be one of 'none', 'layers', 'selective', not 'all'"):
        EngineConfig(recompute="all")


# --- memory and work --------------------------------------------------------------------------------------------------

ROWS, CONTEXT, WIDTH = 4, 128, 64
ARRAY = ROWS * CONTEXT * WIDTH * 4  # bytes of a layer's input


def bytes_of_a_step(n_layers, how):
    """(bytes that wait for the backward pass, the most there were at a time), without weights and gradients."""
    model = GPT(GPTConfig(vocab_size=64, context=CONTEXT, n_layers=n_layers, n_heads=2, d_model=WIDTH))
    engine = NumpyEngine(model, TrainConfig(), recompute=how)
    waiting = []

    def loss(model, *batch):
        found = model(*batch, reduction="sum")
        waiting.append(tracemalloc.get_traced_memory()[0])
        return found, {}

    engine.loss = loss
    loss.count = lambda *batch: batch[-1].size
    batch = batch_for(model.config, rows=ROWS)
    engine.forward_backward([batch])  # what is made once and kept; and the gradients
    tracemalloc.start()
    try:
        engine.forward_backward([batch])
        return waiting[-1], tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("how", "least", "most"), [("none", 16, 20), ("selective", 9, 11), ("layers", 1, 1.5)])
def test_what_a_layer_keeps(how, least, most):
    """Arrays of the size of a layer's input (attention weights are T/2 numbers a head more: 2 to 3 arrays here)."""
    (few, few_at_most), (many, at_most) = (bytes_of_a_step(n, how) for n in (2, 6))
    assert least < (many - few) / 4 / ARRAY < most
    weights = 4 * sum(p.data.size for p in GPT(GPTConfig(64, CONTEXT, 1, 2, WIDTH)).blocks[0].parameters())
    assert (at_most - few_at_most) / 4 < most * ARRAY + weights  # and the gradients of its weights
    assert few_at_most < few + 30 * ARRAY  # of the layer that is computed again, and gradients on their way


def products(monkeypatch, how):
    """How many products of layers, and of attention with the values, a step of a GPT with two layers has."""
    counted = {"linear": 0, "attention": 0}

    def counting(name, plain, position):
        def op(*given):
            counted[name] += len(given) <= position or given[position] is None
            return plain(*given)

        return op

    with monkeypatch.context() as patch:
        patch.setattr(numpy_ops, "linear", counting("linear", numpy_ops.linear, 3))
        patch.setattr(numpy_ops, "attention", counting("attention", numpy_ops.attention, 13))
        trained(NumpyEngine, FAMILIES["gpt"](n_layers=2), how, steps=1, micro_batches=1)
    return counted


def test_what_costs_most_is_not_done_twice(monkeypatch):
    """Four products in each layer; in the second pass the last one is spared."""
    assert products(monkeypatch, "none") == {"linear": 8, "attention": 2}
    assert products(monkeypatch, "selective") == {"linear": 8, "attention": 2}
    assert products(monkeypatch, "layers") == {"linear": 8 + 6, "attention": 4}


def test_nothing_is_left_behind():
    gc.disable()
    try:
        x, w = leaf(64, 64), leaf(64, 64, seed=1)
        inner = []

        def function(x):
            h = ops.linear(x, w).tanh()
            inner.append(weakref.ref(h.data))
            return ops.linear(h, w)

        for keep in (False, True):
            out = checkpoint(function, x, keep=keep)
            assert inner.pop()() is None  # already
            del out
            out = checkpoint(function, x, keep=keep)
            out.sum().backward()
            assert [ref() for ref in inner] == [None, None]
            inner.clear()
    finally:
        gc.enable()


# --- functions of any kind --------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def mixed(x, pair, extra, *, scale):
    """Several inputs and outputs, nested, with a parameter and an array of no gradient."""
    h = ops.linear(x * scale, pair.first) + extra["bias"]
    h = ops.layer_norm(h.tanh(), extra["gain"][0])
    return [ops.linear(h, pair.second), h[:, :2]], (h * h).sum()


def mixed_gradients(call):
    """Gradients of all that goes into `mixed`, twice with retain_graph."""
    x, first, second = leaf(5, 4), leaf(4, 4, seed=1), leaf(3, 4, seed=2)
    bias, gain = leaf(4, seed=3), Parameter(np.ones(4))
    mask = np.arange(5.0)[:, None]
    before = x * 2.0
    (a, b), c = call(mixed, before, Pair(first, second), {"bias": bias, "gain": [gain, mask]}, scale=0.5)
    loss = (a * a).sum() + (b * mask).sum() * c + before.sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return [t.grad for t in (x, first, second, bias, gain)]


@pytest.mark.parametrize("keep", [False, True])
def test_nested_inputs_and_several_outputs(keep):
    expected = mixed_gradients(lambda function, *inputs, **options: function(*inputs, **options))
    for found, other in zip(mixed_gradients(partial(checkpoint, keep=keep)), expected, strict=True):
        np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("keep", [False, True])
def test_inside_of_each_other(keep):
    """Parts of a part, of which the outer one keeps its input only; and a tensor with a graph, from outside of both."""
    weights = [leaf(6, 6, seed=i) for i in range(4)]

    def loss_of(part):
        rng = np.random.default_rng(3)
        x = leaf(7, 6, seed=9)
        outside = x.tanh()

        def layer(h, w):
            return ops.dropout(ops.linear(h, w).tanh(), 0.3, rng=rng) + outside

        def two(h, a, b):
            h = part(layer, h, a, rng=rng)
            between.append(weakref.ref(h.data))
            return part(layer, h, b, rng=rng)

        between: list[weakref.ref] = []
        out = part(two, part(two, x, *weights[:2], rng=rng), *weights[2:], rng=rng)
        assert [ref() is None for ref in between] == [isinstance(part, partial)] * 2
        for w in weights:
            w.grad = None
        (out * out).sum().backward()
        return out.data, x.grad, *[w.grad for w in weights], rng.random()

    expected = loss_of(lambda function, *inputs, rng: function(*inputs))
    for found, other in zip(loss_of(partial(checkpoint, keep=keep)), expected, strict=True):
        np.testing.assert_array_equal(found, other)


def test_a_function_is_run_again_no_further_than_needed():
    x, w = leaf(3, 4), leaf(4, 4, seed=1)
    reached = []

    def function(x):
        h = ops.linear(x.tanh(), w)
        reached.append("product")
        return h.reshape(12) + 1.0

    checkpoint(function, x).sum().backward()
    assert reached == ["product"]  # of the second pass only its input was asked for


@pytest.mark.parametrize("keep", [False, True])
def test_without_a_graph_it_is_a_plain_call(keep):
    calls = []

    def function(x):
        calls.append(x)
        return x * x

    x = leaf(3)
    with no_grad():
        assert checkpoint(function, x, keep=keep).node is None
    out = checkpoint(function, Tensor(np.ones(3)), keep=keep)
    assert out.node is None and len(calls) == 2
    out = checkpoint(function, x, keep=keep).sum()
    with no_grad():  # where a backward pass may run, as ever
        out.backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)


def test_gradients_reach_parameters_though_no_input_wants_one():
    w = leaf(4, 4)
    checkpoint(lambda x: ops.linear(x, w).tanh(), Tensor(np.ones((2, 4)))).sum().backward()
    assert w.grad is not None and w.grad.any()


def test_a_function_that_does_something_else_the_second_time_is_told():
    x, times = leaf(3, 4), []

    def changing(x):
        times.append(1)
        return x.tanh() if len(times) == 1 else x.exp().tanh()

    with pytest.raises(RuntimeError, match=r"changing did something else: operation 0, tanh \(3, 4\), is now exp \(3"):
        checkpoint(changing, x).sum().backward()

    norm, dropout = nn.LayerNorm(4), nn.Dropout(0.5, np.random.default_rng(0))
    norm.to(np.float64)
    out = checkpoint(lambda x: norm(dropout(x)).exp(), x, rng=dropout.rng)
    dropout.eval()
    with pytest.raises(RuntimeError, match=r"operation 0, dropout \(3, 4\), is now layer_norm .* as training mode"):
        out.sum().backward()

    def stopping(x):
        times.append(1)
        return x.exp() if len(times) > 4 else x.exp().tanh()

    times[:] = [1, 1, 1]
    with pytest.raises(RuntimeError, match=r"operation 1, tanh \(3, 4\), is now none"):
        checkpoint(stopping, x).sum().backward()


def test_debug_mode_guards_what_the_second_pass_begins_with():
    x, w = leaf(3, 4), leaf(4, 4, seed=1)
    with debug_mode():
        for keep in (False, True):
            out = checkpoint(lambda x: ops.linear(x, w).tanh(), x, keep=keep)
            for tensor in (x, w):
                with pytest.raises(ValueError, match="read-only"):
                    tensor.data[...] = 0
            out.sum().backward()
            x.data -= 0.1
            w.data -= 0.1
            checkpoint(lambda x: ops.linear(x, w).tanh(), x, keep=keep)  # dropped at once
            x.data -= 0.1
            w.data -= 0.1
