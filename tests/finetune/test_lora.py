"""LoRA: nothing changes at first, only the adapters learn, on both engines alike; merging rounds once, unmerging gives
the bits back."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import nn
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.freeze import count_line, trainable_parameters
from minillm.finetune.lora import (
    LoraConfig,
    LoRALinear,
    adapters,
    add_lora,
    merge,
    remove_lora,
    unmerge,
    without_adapters,
)
from minillm.generate import generate
from minillm.models import (
    GPT,
    LSTM,
    Bert,
    BertConfig,
    Classifier,
    ClassifierConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    LSTMConfig,
)
from minillm.settings import TrainConfig
from minillm.tensor import Tensor, no_grad

IDS = np.random.default_rng(0).integers(0, 50, (4, 9))
BATCH = (IDS[:, :-1], IDS[:, 1:])
SIZES = {"n_layers": 2, "n_heads": 2, "d_model": 16}
MODELS = {
    "gpt": (GPT, GPTConfig(vocab_size=50, context=16, **SIZES)),
    "llama": (Llama, LlamaConfig(vocab_size=50, context=16, n_kv_heads=1, d_ff=24, **SIZES)),
    "bert": (Bert, BertConfig(vocab_size=50, context=16, d_ff=24, dropout=0.0, head="classification", **SIZES)),
    "classifier": (Classifier, ClassifierConfig(GPTConfig(vocab_size=50, context=16, **SIZES), 3)),
    "encoder-decoder": (EncoderDecoder, EncoderDecoderConfig(vocab_size=50, context=16, d_ff=24, dropout=0.0, **SIZES)),
}


def new(kind, seed=0):
    cls, config = MODELS[kind]
    return cls(config, np.random.default_rng(seed))


def inputs(kind):
    return (IDS[:1],) if kind == "classifier" else (IDS, IDS) if kind == "encoder-decoder" else (IDS,)


def shake(model, seed=1, std=0.02):
    """Every adapter's B drawn at random, as if it had learned: it then changes the weights by about their own size."""
    rng = np.random.default_rng(seed)
    for layer in adapters(model).values():
        b = layer.lora_B.data
        drawn = rng.normal(0, std, b.shape)
        b[...] = drawn if isinstance(b, np.ndarray) else b.new_tensor(drawn)
    return model


def adapted(kind="gpt", config=LoraConfig(4, targets="all-linear"), seed=0):  # noqa: B008
    model = new(kind, seed)
    add_lora(model, config, np.random.default_rng(7))
    return model


def outputs(model, kind):
    with no_grad():
        return model(*inputs(kind)).data


# --- what is adapted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gpt", ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]),
        ("llama", [f"blocks.{i}.attn.{n}_proj" for i in (0, 1) for n in "qv"]),
        ("bert", [f"blocks.{i}.attn.{n}_proj" for i in (0, 1) for n in "qv"]),
        ("classifier", ["decoder.blocks.0.attn.qkv", "decoder.blocks.1.attn.qkv"]),
    ],
)
def test_the_architectures_own_targets(kind, expected):
    model = new(kind)
    assert add_lora(model, LoraConfig(2), np.random.default_rng(0)) == expected == list(adapters(model))
    heads = {"classifier": ["score.weight"], "bert": ["classifier.weight", "classifier.bias"]}.get(kind, [])
    lora = [f"{name}.lora_{letter}" for name in expected for letter in "AB"]
    assert set(trainable_parameters(model)) == {*lora, *heads}


def test_targets_by_ending_by_pattern_and_all():
    def targets(*names):
        return list(adapters(adapted("llama", LoraConfig(2, targets=names))))

    linears = [name for name, module in new("llama").named_modules() if isinstance(module, nn.Linear)]
    assert targets("o_proj") == ["blocks.0.attn.o_proj", "blocks.1.attn.o_proj"]
    assert targets("mlp.up", "blocks.1.attn.*") == [
        "blocks.0.mlp.up", *[n for n in linears if n.startswith("blocks.1.attn")], "blocks.1.mlp.up"]  # fmt: skip
    assert targets("all-linear") == [name for name in linears if name != "head"]
    assert "classifier" not in adapters(adapted("bert"))
    assert set(trainable_parameters(adapted("llama", LoraConfig(2, train_also=("norm",))))) >= {"norm.weight"}


def test_what_cannot_be_adapted_says_so_and_changes_nothing():
    model = new("llama")

    def refused(match, *, on=model, **settings):
        with pytest.raises(ValueError, match=match):
            add_lora(on, LoraConfig(2, **settings), np.random.default_rng(0))
        assert not adapters(on) and len(trainable_parameters(on)) == len(dict(on.named_parameters()))

    refused(r"'query' names no Linear\. There are: down, gate, k_proj", targets=("query",))
    refused(r"'head' cannot have an adapter", targets=("head",))
    refused(r"called 'sore'\. Near it:", train_also=("sore",))
    refused(r"'lstm' has no attention", on=LSTM(LSTMConfig(vocab_size=9, n_layers=1, d_model=4)))
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model, LoraConfig(2), np.random.default_rng(0))
    for function in (merge, unmerge, remove_lora):
        with pytest.raises(ValueError, match="has no LoRA adapters"):
            function(new("gpt"))
    with pytest.raises(ValueError, match="no layer of this model is merged"):
        unmerge(model)
    for name, value in {"rank": 0, "alpha": 0, "dropout": 1.0}.items():
        with pytest.raises(ValueError, match=f"LoraConfig: {name} = {value}"):
            LoraConfig(**{name: value})


def test_the_scale_and_the_first_numbers():
    assert LoraConfig(4, alpha=6).scale == 1.5 and LoraConfig(4, alpha=6, rslora=True).scale == 3
    layer = adapted("gpt", LoraConfig(64)).blocks[0].attn.qkv
    bound = 1 / math.sqrt(16)
    assert np.abs(layer.lora_A.data).max() <= bound
    assert layer.lora_A.data.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not layer.lora_B.data.any() and layer.lora_A.dtype == np.float32


def test_the_formula():
    model = shake(adapted("gpt", LoraConfig(4, alpha=6, targets=("fc",)))).to(np.float64)
    layer = model.blocks[1].mlp.fc
    x = np.random.default_rng(0).normal(size=(3, 16))
    w, b, lora_a, lora_b = (p.data for p in (layer.weight, layer.bias, layer.lora_A, layer.lora_B))
    assert np.abs(layer(Tensor(x)).data - (x @ (w + 1.5 * lora_b @ lora_a).T + b)).max() < 1e-14


def test_dropout_is_the_models_and_off_in_evaluation():
    model = shake(adapted("gpt", LoraConfig(4, dropout=0.5)))
    still = outputs(model.eval(), "gpt")
    assert np.array_equal(still, outputs(model, "gpt"))
    model.train()
    state = model.rng.bit_generator.state
    moved = outputs(model, "gpt")
    assert not np.allclose(moved, still)
    model.rng.bit_generator.state = state  # what checkpoints keep
    assert np.array_equal(moved, outputs(model, "gpt"))


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_merged_model_answers_as_the_adapters_do_and_unmerge_restores_the_bits(kind, engine):
    plain, model = new(kind), adapted(kind)
    assert np.array_equal(outputs(plain, kind), outputs(model, kind))  # a new adapter changes nothing
    shake(model)
    run = partial(outputs, kind=kind)
    arrays = {name: p.data.copy() for name, p in model.named_parameters()}
    if engine == "torch":
        torch = pytest.importorskip("torch")
        from minillm.port import to_numpy, to_torch

        model = to_torch(model)

        def run(model):
            with torch.no_grad():
                return model(*map(torch.tensor, inputs(kind))).numpy()

    before = run(model)
    assert not np.allclose(before, outputs(plain, kind))
    assert merge(model) == list(adapters(model)) and merge(model) == []
    merged = run(model)
    assert np.abs(merged - before).max() < 1e-6 * max(1, np.abs(before).max())
    unmerge(model)
    assert np.array_equal(run(model), before)
    for name, p in model.named_parameters():
        assert np.array_equal(np.asarray(p.detach() if engine == "torch" else p.data), arrays[name])
    merge(model)
    remove_lora(model)
    assert np.array_equal(run(model), merged)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    if engine == "torch":
        assert np.array_equal(outputs(to_numpy(model), kind).shape, merged.shape)


@settings(max_examples=20)
@given(rank=st.integers(1, 9), alpha=st.floats(0.5, 64), seed=st.integers(0, 99))
def test_in_bfloat16_the_merged_weights_are_the_sum_rounded_once(rank, alpha, seed):
    torch = pytest.importorskip("torch")
    from minillm.port import to_torch

    model = to_torch(new("gpt", seed), dtype=torch.bfloat16)
    add_lora(model, LoraConfig(rank, alpha, targets="all-linear"), np.random.default_rng(seed))
    shake(model, seed)
    layers = adapters(model)
    wide = {
        name: layer.weight.double() + layer.lora.scale * layer.lora_B.double() @ layer.lora_A.double()
        for name, layer in layers.items()
    }
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    merge(model)
    for name, layer in layers.items():
        assert layer.weight.dtype == torch.bfloat16
        one_rounding = wide[name].abs() * 2**-8 + 1e-6  # half a unit in the last of 8 bits; float32's own
        assert ((layer.weight.double() - wide[name]).abs() <= one_rounding).all()
    unmerge(model)
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())


def test_merging_does_not_disturb_the_replicas_of_threads():
    """They have the weights' arrays, but not what says that these are merged."""
    from minillm.engines.threads import Replicas

    model = shake(adapted(), std=0.3)
    replicas = Replicas(model, 3)
    before = replicas.batch_loss(*BATCH)
    merge(model)
    assert replicas.batch_loss(*BATCH) == pytest.approx(before, rel=1e-5)


def test_adapted_models_generate_with_a_cache():
    model = shake(adapted("llama"))
    cached, plain = (generate(model, [[1, 2, 3]], max_new_tokens=8, use_cache=c, seed=0) for c in (True, False))
    assert cached == plain


# --- training ---------------------------------------------------------------------------------------------------------


def train(model, make, steps=20, lr=0.01, **changes):
    run = make(model, TrainConfig(**{"batch_size": 4, "weight_decay": 0.1, "lr": 0.01, **changes}))
    losses = []
    for _ in range(steps):
        losses.append(float(run.forward_backward([BATCH])))
        run.clip_gradients(1.0)
        run.step(lr)
    return run, losses


def torch_engine(model, config):
    pytest.importorskip("torch")
    from minillm.engines.torch_engine import TorchEngine
    from minillm.settings import EngineConfig

    return TorchEngine(model, config, EngineConfig(device="cpu"))


@pytest.mark.parametrize(
    "make", [NumpyEngine, partial(ThreadedNumpyEngine, threads=3), torch_engine], ids=["numpy", "threads", "torch"]
)
def test_only_adapters_learn(make):
    model = adapted("gpt", LoraConfig(4, dropout=0.1))
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    run, losses = train(model, make)
    after = run.model_arrays()
    assert losses[-1] < losses[0]
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == set(trainable_parameters(model)) and all("lora" in name for name in changed)
    assert {name.rpartition(".")[0] for name in run.optimizer_arrays()} == changed


@pytest.mark.parametrize("kind", ["gpt", "llama"])
def test_both_engines_learn_alike(kind):
    results = []
    for make in (NumpyEngine, torch_engine):
        run, losses = train(adapted(kind).to(np.float64), make, steps=100, lr=0.001)
        results.append((losses, run.model_arrays()))
    assert np.abs(np.subtract(results[0][0], results[1][0])).max() < 1e-10
    assert max(np.abs(results[0][1][name] - results[1][1][name]).max() for name in results[0][1]) < 1e-10


def test_a_model_that_is_on_torch_already_gets_the_same_adapters():
    torch = pytest.importorskip("torch")
    from minillm.port import to_numpy, to_torch

    config = LoraConfig(4, dropout=0.2, targets="all-linear")
    one, other = to_torch(adapted("llama", config)), to_torch(new("llama"))
    names = add_lora(other, config, np.random.default_rng(7))
    assert names == list(adapters(one)) == list(adapters(to_numpy(other)))
    pairs = list(zip(one.named_parameters(), other.named_parameters()))
    assert all(a == b and torch.equal(p, q) and p.requires_grad == q.requires_grad for (a, p), (b, q) in pairs)
    assert count_line(one) == count_line(other)
    assert isinstance(to_numpy(other).blocks[0].attn.q_proj, LoRALinear)
    compiled = torch.compile(other.eval(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.tensor(IDS)), one.eval()(torch.tensor(IDS)))


@pytest.mark.parametrize("kind", ["gpt", "llama", "encoder-decoder"])
def test_without_adapters_the_model_is_as_it_was(kind):
    torch = pytest.importorskip("torch")
    from minillm.port import to_torch

    model = new(kind)
    before = model(*inputs(kind)).data
    add_lora(model, LoraConfig(rank=2), np.random.default_rng(0))
    shake(model)
    ported = to_torch(model)
    after = model(*inputs(kind)).data
    assert not np.allclose(after, before)
    for tested, batch in ((model, inputs(kind)), (ported, tuple(map(torch.from_numpy, inputs(kind))))):
        with pytest.raises(RuntimeError, match="on the way"), without_adapters(tested):
            y = tested(*batch)
            np.testing.assert_allclose(y.data if tested is model else y.detach().numpy(), before, rtol=1e-5, atol=1e-6)
            raise RuntimeError("on the way")
        y = tested(*batch)  # back, also after an error
        np.testing.assert_allclose(y.data if tested is model else y.detach().numpy(), after, rtol=1e-5, atol=1e-6)
    merge(model)
    with pytest.raises(ValueError, match=r"is merged into its weight: unmerge\(model\) first"), without_adapters(model):
        pass
    unmerge(model)
    remove_lora(model)
    with without_adapters(model):  # nothing to do
        np.testing.assert_array_equal(model(*inputs(kind)).data, before)
