"""Every model on both engines: 100 AdamW steps with the same numbers, every attention, decoding, torch's tools."""

import copy
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # our kernels on the CPU; read when triton is first imported

from minillm.generate import Sampling, generate  # noqa: E402
from minillm.models import (  # noqa: E402
    Bert,
    BertConfig,
    ClassifierConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    model_from_config,
)
from minillm.models.sketch import sketch  # noqa: E402
from minillm.optim import AdamW, param_groups  # noqa: E402
from minillm.port import to_numpy, to_torch  # noqa: E402

SHAPE = {"vocab_size": 31, "context": 16, "n_layers": 2, "d_model": 16}
HEADS = {**SHAPE, "n_heads": 4, "d_ff": 24, "dropout": 0.0}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}
CLASSES = {**HEADS, "head": "classification", "n_labels": 3}
CONFIGS = {
    "llama": LlamaConfig(**HEADS, n_kv_heads=2),
    "llama tied, yarn": LlamaConfig(**HEADS, tie_embeddings=True, rope_scaling=YARN),
    "llama dynamic": LlamaConfig(**HEADS, rope_scaling=DYNAMIC),
    "qwen2": LlamaConfig(**HEADS, n_kv_heads=1, qkv_bias=True),
    "qwen3": LlamaConfig(**HEADS, n_kv_heads=2, head_dim=6, qk_norm=True, tie_embeddings=True),
    "mistral": LlamaConfig(**HEADS, n_kv_heads=2, window=3, mlp_bias=True),
    "ministral": LlamaConfig(**HEADS, window=5, full_layers=[0]),
    "bert": BertConfig(**HEADS, pad_id=0, next_sentence=True),
    "gemma": GemmaConfig(**HEADS, n_kv_heads=2, head_dim=6, window=4, full_layers=(0,), query_scalar=9),
    "moe": MoeConfig(**HEADS, n_kv_heads=2, n_experts=5, d_expert=10, balance=0.1),
    "moe, dense below": MoeConfig(**HEADS, n_experts=4, norm_weights=False, dense_layers=(0,), tie_embeddings=True),
    "gpt-oss": MoeConfig(
        **HEADS,
        n_kv_heads=2,
        head_dim=6,
        window=4,
        full_layers=(1,),
        attention_sinks=True,
        qkv_bias=True,
        out_bias=True,
        qk_norm=False,
        n_experts=4,
        router_bias=True,
        swiglu_limit=0.5,
        rope_scaling=YARN,
    ),
    "llama with sinks": LlamaConfig(**HEADS, n_kv_heads=2, attention_sinks=True, window=5),
    "roberta bert": BertConfig(**HEADS, pad_id=1, family="roberta"),
    "roberta bert classifier": BertConfig(**CLASSES, pad_id=0, family="roberta"),
    "distilbert classifier": BertConfig(**CLASSES, family="distilbert"),
    "bert classifier": BertConfig(**CLASSES, pad_id=0),
    "bert multi-label": BertConfig(**CLASSES, problem_type="multi_label_classification"),
    "bert regression": BertConfig(**CLASSES, problem_type="regression"),
    "gpt classifier": ClassifierConfig(GPTConfig(**SHAPE, n_heads=4), n_labels=3),
    "llama classifier": ClassifierConfig(LlamaConfig(**HEADS, tie_embeddings=True), n_labels=3, pad_id=0),
    "encoder-decoder post": EncoderDecoderConfig(**HEADS, pad_id=0),
    "encoder-decoder pre": EncoderDecoderConfig(**HEADS, norm="pre", positions="learned", shared_embeddings=False),
    "lstm": LSTMConfig(**SHAPE, d_hidden=20),
    "lstm tied": LSTMConfig(**SHAPE, tie_embeddings=True),
}
DECODERS = [name for name in CONFIGS if "bert" not in name and "classifier" not in name]
every_model = pytest.mark.parametrize("name", CONFIGS)


def model_and_batch(name, dtype=np.float64, **changes):
    """A model, its positional arguments and its options by name, as NumPy arrays."""
    config = CONFIGS[name]
    if isinstance(config, ClassifierConfig):
        config = replace(config, decoder=replace(config.decoder, **changes))
    else:
        config = replace(config, **changes)
    model = model_from_config(config, np.random.default_rng(0)).to(dtype)
    draw = np.random.default_rng(7)
    ids, targets = draw.integers(1, 31, (2, 3, 12))
    ids[0, 9:] = 0
    targets[0, 5:] = -100
    if isinstance(model, EncoderDecoder):
        return model, [ids, draw.integers(1, 31, (3, 12)), targets], {"label_smoothing": 0.1}
    if name == "bert":
        return model, [ids, targets], {"token_types": ids % 2, "next_sentence": np.array([0, 1, 1])}
    if name.endswith(" classifier"):
        return model, [ids, np.array([2, 0, 1])], {"mask": ids > 3}
    if name == "bert multi-label":
        return model, [ids, (draw.random((3, 3)) > 0.5).astype(dtype)], {}
    if name == "bert regression":
        return model, [ids, draw.standard_normal((3, 3)).astype(dtype)], {}
    return model, [ids, targets], {"label_smoothing": 0.1}


def on_torch(args, options):
    tensors = {key: torch.tensor(v) if isinstance(v, np.ndarray) else v for key, v in options.items()}
    return [torch.tensor(a) for a in args], tensors


def train_both(model, args, options, steps, tolerance):
    """`steps` of AdamW on each engine: losses stay within `tolerance`, gradients and weights, which Adam's division by
    small gradients drives apart faster, within ten times that. Returns the losses.

    eps is 1e-6: a gradient that should be 0 is 1e-17 or so in float64, of another sign on each engine and on each
    processor, and 1e-8 would turn that into steps of 1e-9 of the learning rate, a hundred times."""
    ported = to_torch(model)
    t_args, t_options = on_torch(args, options)
    ours = AdamW(param_groups(model, 0.1), lr=1e-3, eps=1e-6)
    theirs = torch.optim.AdamW(param_groups(ported, 0.1), lr=1e-3, eps=1e-6)
    parameters = dict(ported.named_parameters())
    assert list(parameters) == [name for name, _ in model.named_parameters()]
    losses = []
    for _ in range(steps):
        model.zero_grad()
        ported.zero_grad()
        loss, t_loss = model(*args, **options), ported(*t_args, **t_options)
        assert abs(loss.item() - t_loss.item()) < tolerance
        losses.append(loss.item())
        loss.backward()
        t_loss.backward()
        for name, p in model.named_parameters():
            assert np.abs(p.grad - parameters[name].grad.numpy()).max() < 10 * tolerance, name
        ours.step()
        theirs.step()
    for name, p in model.named_parameters():
        assert np.abs(p.data - parameters[name].detach().numpy()).max() < 10 * tolerance, name
    return losses


@every_model
def test_100_steps_in_float64(name):
    model, args, options = model_and_batch(name)
    losses = train_both(model, args, options, steps=100, tolerance=1e-10)
    assert losses[-1] < losses[0] - 0.2


@every_model
def test_float32_is_close_to_float64(name):
    """Both engines in float32 are as far from NumPy in float64 as rounding explains."""
    exact, args, options = model_and_batch(name)
    single, f_args, f_options = model_and_batch(name, np.float32)
    ported = to_torch(single)
    t_args, t_options = on_torch(f_args, f_options)
    losses = [exact(*args, **options), single(*f_args, **f_options), ported(*t_args, **t_options)]
    for loss in losses:
        loss.backward()
        assert abs(loss.item() - losses[0].item()) < 1e-5
    for key, p in exact.named_parameters():
        assert np.abs(single_grads(single)[key] - p.grad).max() < 1e-5, key
        assert np.abs(ported.get_parameter(key).grad.numpy() - p.grad).max() < 1e-5, key


def single_grads(model):
    return {key: p.grad for key, p in model.named_parameters()}


@every_model
def test_there_and_back(name):
    model, args, options = model_and_batch(name)
    back = to_numpy(to_torch(model))
    assert back(*args, **options).item() == model(*args, **options).item()
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]


ATTENTIONS = [(name, impl) for name in CONFIGS if "lstm" not in name for impl in ("reference", "sdpa")]
ATTENTIONS += [("qwen2", "triton"), ("encoder-decoder post", "triton")]  # grouped and causal; masked and across


@pytest.mark.parametrize(("name", "attention"), ATTENTIONS)
def test_every_attention_gives_the_same(name, attention):
    if attention == "triton":
        pytest.importorskip("triton")
        from minillm.kernels.call import interpreted

        if not interpreted() or torch.cuda.is_available():
            pytest.skip("needs Triton's interpreter; on a GPU tests/kernels compares the kernels")
    model, args, options = model_and_batch(name, attention=attention, n_layers=2)
    automatic, _, _ = model_and_batch(name, n_layers=2)
    expected = automatic(*args, **options)
    expected.backward()
    ported = to_torch(model)
    t_args, t_options = on_torch(args, options)
    loss = ported(*t_args, **t_options)
    loss.backward()
    assert abs(loss.item() - expected.item()) < 1e-10
    for key, p in automatic.named_parameters():
        assert np.abs(p.grad - ported.get_parameter(key).grad.numpy()).max() < 1e-10, key
    if attention != "reference":
        with pytest.raises(ValueError, match=f"impl='{attention}' runs on PyTorch"):
            model(*args, **options)


@pytest.mark.parametrize("name", DECODERS)
def test_generation_is_the_same_on_both_engines(name):
    model, (source, *_), _ = model_and_batch(name, context=8)
    ported = to_torch(model)
    prompts = [[1, 2], [3], [4, 5, 6]]
    sampling = Sampling(temperature=0.8)
    found = []
    for engine, source_ids in ((model, source[:, :8]), (ported, torch.tensor(source[:, :8]))):
        for use_cache in (True, False):
            decoder = engine.given(source_ids) if isinstance(model, EncoderDecoder) else engine
            new = 5 if isinstance(model, EncoderDecoder) else 12  # the others past their context
            found.append(generate(decoder, prompts, max_new_tokens=new, sampling=sampling, seed=5, use_cache=use_cache))
    assert found[0] == found[1] == found[2] == found[3]


def test_state_carried_on_torch():
    model, (ids, targets), _ = model_and_batch("lstm")
    ported = to_torch(model)
    state, t_state = model.new_cache(), ported.new_cache()
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        loss = model(ids[:, part], targets[:, part], cache=state)
        t_loss = ported(torch.tensor(ids[:, part]), torch.tensor(targets[:, part]), cache=t_state)
        t_loss.backward()  # would fail in the second part, were the state not cut off
        assert abs(loss.item() - t_loss.item()) < 1e-12


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        "qwen3",
        "llama tied, yarn",
        "moe",
        "moe, dense below",
        "gpt-oss",
        "bert classifier",
        "llama classifier",
        "encoder-decoder post",
    ],
)
def test_compiles_without_a_graph_break(name):
    model, args, options = model_and_batch(name)
    ported = to_torch(model)
    compiled = torch.compile(ported, fullgraph=True, backend="eager")
    t_args, t_options = on_torch(args, options)
    loss = compiled(*t_args, **t_options)
    loss.backward()
    assert abs(loss.item() - model(*args, **options).item()) < 1e-12


@every_model
def test_trains_under_autocast_and_can_be_copied(name):
    model, args, options = model_and_batch(name, np.float32)
    ported = copy.deepcopy(to_torch(model))
    t_args, t_options = on_torch(args, options)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ported(*t_args, **t_options)
    loss.backward()
    assert loss.item() == pytest.approx(model(*args, **options).item(), abs=0.05)
    for key, p in ported.named_parameters():
        assert torch.isfinite(p.grad).all(), key


@every_model
def test_every_parameter_gets_a_gradient(name):
    """A layer that the loss does not reach would make DDP wait for it."""
    model, args, options = model_and_batch(name)
    model(*args, **options).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_model
def test_sketched_models_have_the_same_shape(name):
    config = CONFIGS[name]
    drawn, sketched = model_from_config(config), model_from_config(config, rng=sketch())
    assert {k: p.shape for k, p in drawn.named_parameters()} == {k: p.shape for k, p in sketched.named_parameters()}
    ported = to_torch(sketched, seed=1)
    for key, p in drawn.named_parameters():
        error = max(0.3, 4 / (2 * p.data.size) ** 0.5)  # of few numbers, what they scatter by
        assert ported.get_parameter(key).detach().std(unbiased=False).item() == pytest.approx(p.data.std(), rel=error)


def test_bert_sees_no_more_than_its_mask_on_torch():
    model = Bert(BertConfig(**HEADS, head="none")).to(np.float64)
    ids = np.arange(12).reshape(2, 6)
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    expected = to_torch(model)(torch.tensor(ids), mask=torch.tensor(mask))
    np.testing.assert_allclose(expected.detach().numpy(), model(ids, mask=mask).data, atol=1e-12)
