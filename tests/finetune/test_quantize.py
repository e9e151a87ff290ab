"""Frozen matrices in 4 and 8 bits: bitsandbytes' codes and numbers, gradients for the input, training beside them."""

import logging
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.finetune.freeze import count, freeze, trainable_parameters  # noqa: E402
from minillm.finetune.lora import LoraConfig, add_lora, merge  # noqa: E402
from minillm.finetune.quantize import (  # noqa: E402
    KINDS,
    NF4,
    dequantize_int8,
    dequantize_nf4,
    memory_bytes,
    quantize_base,
    quantize_int8,
    quantize_nf4,
    scale_values,
    unpack,
)  # fmt: skip
from minillm.hub.adapters import save_adapter  # noqa: E402
from minillm.hub.checkpoint import open_checkpoint  # noqa: E402
from minillm.models import GPT, GPTConfig, Llama, LlamaConfig, config_to_dict  # noqa: E402
from minillm.nn import Linear  # noqa: E402
from minillm.port import to_torch  # noqa: E402
from minillm.settings import EngineConfig, TrainConfig  # noqa: E402
from minillm.training.checkpoint import save_checkpoint  # noqa: E402

SHAPES = [(64, 64), (300, 128), (7, 50), (1, 1), (130, 257)]  # 7 · 50 fills no block, 130 · 257 more than 256 of them
IDS = np.random.default_rng(3).integers(0, 50, (4, 12))


def weights(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def llama(**changes):
    config = {"vocab_size": 50, "context": 16, "n_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 64, **changes}
    return Llama(LlamaConfig(**config), np.random.default_rng(0))


def nf4(weight):
    return SimpleNamespace(**quantize_nf4(weight), packed_shape=tuple(weight.shape))


@pytest.fixture(scope="module")
def bnb():
    """bitsandbytes, which logs that a package called `kernels` (here a folder of ours) is not what it looks for."""
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: nothing to compare the codes with")
    import bitsandbytes.functional

    return bitsandbytes.functional


def test_the_values_are_those_of_bitsandbytes(bnb):
    assert torch.equal(NF4, bnb.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(scale_values(), bnb.create_dynamic_map())


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != (1, 1)])  # whose one scale is its own mean
def test_codes_and_numbers_are_those_of_bitsandbytes(bnb, shape):
    weight = weights(shape)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    expected = bnb.dequantize_4bit(theirs, state)
    ours = nf4(weight)
    assert torch.equal(ours.codes[: theirs.numel()], theirs.flatten())
    assert torch.equal(ours.scale_mean, state.offset) and torch.equal(ours.group_scale, state.state2.absmax)
    # Halfway between two values of a scale, theirs rounds as a kernel's order of operations has it.
    other = ours.scale_codes != state.absmax
    assert other.float().mean() < 0.01
    steps = (ours.scale_codes.int() - state.absmax.int()).abs()
    assert steps.max() <= 1
    ours.codes, ours.scale_codes = torch.nn.functional.pad(theirs.flatten(), (0, -theirs.numel() % 32)), state.absmax
    assert torch.equal(dequantize_nf4(ours), expected)


def test_the_values_are_quantiles_of_the_normal_distribution():
    normal = torch.distributions.Normal(0.0, 1.0)
    top = (1 - 1 / 30 + 1 - 1 / 32) / 2
    above = normal.icdf(torch.linspace(0.5, top, 9, dtype=torch.float64))
    below = normal.icdf(torch.linspace(0.5, top, 8, dtype=torch.float64))
    expected = torch.cat([-below.flip(0), above[1:]]) / above[-1]
    assert (NF4 - expected).abs().max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_what_comes_back_is_near(shape):
    weight = weights(shape)
    for kind, back, bound in (
        ("nf4", dequantize_nf4(nf4(weight)), 0.16),  # half the widest step, of a block's largest
        ("int8", dequantize_int8(SimpleNamespace(**quantize_int8(weight))), 0.51 / 127),
    ):
        assert back.shape == shape and back.dtype == torch.float32
        assert (back - weight).abs().max() <= bound * weight.abs().max(), kind
    zeros = torch.zeros(shape)
    assert torch.equal(dequantize_nf4(nf4(zeros)), zeros)
    assert torch.equal(dequantize_int8(SimpleNamespace(**quantize_int8(zeros))), zeros)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_computes_with_the_numbers_that_come_back(kind):
    model = to_torch(GPT(GPTConfig(vocab_size=50, context=16, n_layers=2, n_heads=2, d_model=32)))
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    names = quantize_base(model, kind)
    assert names == [f"blocks.{i}.{n}" for i in (0, 1) for n in ("attn.qkv", "attn.proj", "mlp.fc", "mlp.proj")]
    plain = GPT(GPTConfig(vocab_size=50, context=16, n_layers=2, n_heads=2, d_model=32))
    expected = to_torch(plain)
    with torch.no_grad():
        for name in names:
            expected.get_submodule(name).weight.copy_(unpack(model.get_submodule(name)))
    ids = torch.tensor(IDS)
    assert (model(ids) - expected(ids)).abs().max() < 1e-5
    assert not set(dict(model.named_parameters())) & {f"{name}.weight" for name in names}

    # The gradient for the input, through a quantized layer: that of the unpacked matrix.
    layer = model.get_submodule("blocks.0.mlp.fc")
    x = torch.randn(3, 32, requires_grad=True)
    layer(x).square().sum().backward()
    x2 = x.detach().requires_grad_()
    expected.get_submodule("blocks.0.mlp.fc")(x2).square().sum().backward()
    assert torch.allclose(x.grad, x2.grad, atol=1e-5)
    assert layer.bias.grad is None


def test_memory_is_what_was_promised():
    model = to_torch(llama(d_model=256, d_ff=512))
    sizes = {name: module.weight.numel() for name, module in model.named_modules() if isinstance(module, Linear)}
    before, total = memory_bytes(model), count(model)[1]
    freeze(model)
    assert before == 4 * total + memory_of_constants(model)
    names = quantize_base(model, "nf4")
    packed = sum(sizes[name] for name in names)
    now = memory_bytes(model) - (before - 4 * packed)  # what the packed weights take
    assert len(names) == 14 and now == pytest.approx(packed * 4.127 / 8 + len(names) * 1092, rel=0.001)
    assert count(model) == (0, total)  # counted as numbers, however they are packed


def memory_of_constants(model):
    return sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())


@pytest.mark.parametrize("precision", ["full", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_beside_a_quantized_base(kind, precision, tmp_path):
    base = llama()
    config = config_to_dict(base.config)
    save_checkpoint(tmp_path / "base", config=config, model=base.state_dict(), optimizer={}, state={})
    model = open_checkpoint(tmp_path / "base").model(engine="torch")
    add_lora(model, LoraConfig(8, alpha=32, targets="all-linear"), np.random.default_rng(0))
    quantize_base(model, kind)
    packed = {name: buffer.clone() for name, buffer in model.named_buffers()}
    config = TrainConfig(batch_size=4, max_steps=30, lr=0.02, warmup_steps=0)
    engine = partial(TorchEngine, settings=EngineConfig(device="cpu", precision=precision))(model, config)
    assert all("lora" in name for name in trainable_parameters(engine.model))
    batch = (IDS[:, :-1], IDS[:, 1:])
    losses = []
    for _ in range(30):
        losses.append(float(engine.forward_backward([batch])))
        engine.clip_gradients(1.0)
        engine.step(0.02)
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(buffer, packed[name]) for name, buffer in model.named_buffers())
    assert not any(name.removesuffix(".step").endswith(".weight") for name in engine.optimizer_arrays())

    # What is saved is the adapter alone; beside the unquantized base it does nearly the same.
    model.eval()
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    assert sorted(path.name for path in (tmp_path / "adapter").glob("*.*")) == [
        ".minillm.json", "adapter_config.json", "adapter_model.safetensors"]  # fmt: skip
    opened = open_checkpoint(tmp_path / "adapter").model()
    assert opened(*batch).item() < losses[0] - 0.3


def test_what_cannot_be_quantized_says_so():
    model = to_torch(llama())
    with pytest.raises(ValueError, match=r"kind = 'fp4' must be one of nf4, int8\."):
        quantize_base(model, "fp4")
    with pytest.raises(ValueError, match=r"no Linear is frozen"):
        quantize_base(model)
    with pytest.raises(TypeError, match=r"to_torch\(model\) comes first"):
        quantize_base(llama())
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    quantize_base(model)
    with pytest.raises(ValueError, match=r"merge: blocks\.0\.attn\.q_proj is quantized"):
        merge(model)
    with pytest.raises(ValueError, match=r"no Linear is frozen"):
        quantize_base(model)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which torch.compile does
def test_it_compiles_without_a_break():
    model = to_torch(llama(n_layers=1))
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    quantize_base(model)
    ids = torch.tensor(IDS)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss = compiled(ids[:, :-1], ids[:, 1:])
    loss.backward()
    grads = {name: p.grad.clone() for name, p in trainable_parameters(model).items()}
    model.zero_grad()
    plain = model(ids[:, :-1], ids[:, 1:])
    plain.backward()
    assert torch.allclose(loss, plain, atol=1e-6)
    assert all(torch.allclose(grads[name], p.grad, atol=1e-6) for name, p in trainable_parameters(model).items())
