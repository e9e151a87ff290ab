"""GPT against an independent GPT-2, against itself with a cache, and against what it promises to refuse."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm import nn, numpy_ops, ops
from minillm.models import config_from_dict, config_to_dict, model_from_config
from minillm.models.gpt import GPT, GPTConfig
from minillm.tensor import Parameter, Tensor, no_grad

TINY = GPTConfig(vocab_size=29, context=16, n_layers=2, n_heads=2, d_model=8)


def tiny(dtype=np.float64, config: GPTConfig = TINY, seed: int = 0) -> GPT:
    """With larger weights than the initial ones, biases and norms included, so that every term counts."""
    model = GPT(config, np.random.default_rng(seed)).to(dtype)
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():
        p.data += (0.3 * rng.standard_normal(p.shape)).astype(dtype)
    return model


def random_ids(batch: int = 2, length: int = 10, seed: int = 0, config: GPTConfig = TINY) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, (batch, length))


# --- parity with transformers' GPT-2 --------------------------------------------------------------------------------

CONV = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")  # stored (in, out)


THEIRS = {
    "wte": "token_embedding", "wpe": "position_embedding", "ln_1": "norm_1", "ln_2": "norm_2", "ln_f": "norm",
    "c_attn": "qkv", "c_fc": "fc", "c_proj": "proj",
}  # fmt: skip


def theirs_to_ours(name: str) -> str:
    name = name.removeprefix("transformer.").replace("h.", "blocks.", 1) if ".h." in name else name.split(".", 1)[1]
    for theirs, ours in THEIRS.items():
        name = name.replace(theirs, ours)
    return name


@pytest.fixture(scope="module")
def gpt2():
    """transformers' GPT2LMHeadModel in float64 with the weights of `tiny()`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=TINY.vocab_size, n_positions=TINY.context, n_embd=TINY.d_model, n_layer=TINY.n_layers,
        n_head=TINY.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).double()
    ours = tiny().state_dict()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            array = ours[theirs_to_ours(name)]
            parameter.copy_(torch.from_numpy(array.T if name.endswith(CONV) else array))
    return theirs


def test_the_names_map_one_to_one(gpt2):
    assert sorted(theirs_to_ours(n) for n, _ in gpt2.named_parameters()) == sorted(tiny().state_dict())


def test_logits_equal_those_of_transformers(gpt2):
    torch = pytest.importorskip("torch")
    ids = random_ids()
    with torch.no_grad():
        expected = gpt2(torch.from_numpy(ids)).logits.numpy()
    found = tiny()(ids).data
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_gradients_equal_those_of_transformers(gpt2):
    torch = pytest.importorskip("torch")
    ids = random_ids()
    labels = random_ids(seed=5)
    labels[0, :3] = -100
    gpt2.zero_grad()
    logits = gpt2(torch.from_numpy(ids)).logits
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, TINY.vocab_size), torch.from_numpy(labels).reshape(-1)
    )
    expected.backward()
    model = tiny()
    loss = model(ids, targets=labels)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    ours = dict(model.named_parameters())
    for name, parameter in gpt2.named_parameters():
        grad = parameter.grad.numpy()
        found = ours[theirs_to_ours(name)].grad
        np.testing.assert_allclose(found, grad.T if name.endswith(CONV) else grad, rtol=0, atol=1e-8, err_msg=name)


# --- size and beginning ---------------------------------------------------------------------------------------------


def test_the_default_configuration_is_gpt2s_124m(monkeypatch):
    """Counted on the real model, its weights views of one zero, so that nothing is allocated."""

    def no_memory(rng, shape, std):
        return Parameter(np.broadcast_to(np.float32(0), shape))

    monkeypatch.setattr(nn, "normal", no_memory)
    model = GPT(GPTConfig())
    assert sum(p.data.size for p in model.parameters()) == 124_439_808
    names = [name for name, _ in model.named_parameters()]
    assert names[:2] == ["token_embedding.weight", "position_embedding.weight"]
    assert names[-2:] == ["norm.weight", "norm.bias"]
    assert len(names) == 2 + 12 * 12 + 2


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 20))
def test_the_parameter_count_by_formula(n_layers, n_heads, head, vocab_size, context):
    D = n_heads * head
    model = GPT(GPTConfig(vocab_size=vocab_size, context=context, n_layers=n_layers, n_heads=n_heads, d_model=D))
    block = (4 * D * D + 4 * D) + (8 * D * D + 5 * D) + 4 * D  # attention, feed-forward, two norms
    assert sum(p.data.size for p in model.parameters()) == (vocab_size + context) * D + n_layers * block + 2 * D


@pytest.mark.parametrize("n_layers", [1, 4])
def test_residual_projections_start_smaller(n_layers):
    model = GPT(dataclasses.replace(TINY, n_layers=n_layers, d_model=128), np.random.default_rng(0))
    for name, p in model.named_parameters():
        if name.endswith("proj.weight"):
            assert p.data.std() == pytest.approx(0.02 / np.sqrt(2 * n_layers), rel=0.05), name
        elif name == "position_embedding.weight":
            assert p.data.std() == pytest.approx(0.01, rel=0.1)
        elif name.endswith(".weight") and "norm" not in name:
            assert p.data.std() == pytest.approx(0.02, rel=0.1), name
        else:
            assert (p.data == (1 if name.endswith("weight") else 0)).all(), name


def test_the_initial_loss_is_near_ln_v():
    config = dataclasses.replace(TINY, vocab_size=500, d_model=64)
    ids = random_ids(8, 16, config=config)
    loss = GPT(config)(ids, targets=random_ids(8, 16, 1, config)).item()
    assert loss == pytest.approx(np.log(500), abs=0.1)


def test_the_same_seed_gives_the_same_model():
    a, b, c = (GPT(TINY, np.random.default_rng(seed)).state_dict() for seed in (3, 3, 4))
    assert all((a[name] == b[name]).all() for name in a)
    assert (a["token_embedding.weight"] != c["token_embedding.weight"]).any()


def test_it_overfits_a_tiny_batch():
    model = GPT(TINY, np.random.default_rng(0))
    ids = random_ids(4, 12)
    moments = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in model.parameters()]
    for step in range(1, 121):  # Adam in five lines, so that this file does not depend on the optimizer
        model.zero_grad()
        model(ids[:, :-1], targets=ids[:, 1:]).backward()
        for p, (m, v) in zip(model.parameters(), moments):
            m += 0.1 * (p.grad - m)
            v += 0.01 * (p.grad * p.grad - v)
            p.data -= 0.02 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
    assert model(ids[:, :-1], targets=ids[:, 1:]).item() < 0.2


# --- what it computes -----------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_the_logits():
    model, ids, targets = tiny(), random_ids(), random_ids(seed=1)
    targets[1, 4:] = -100
    for options in ({}, {"reduction": "sum"}, {"label_smoothing": 0.1}):
        expected = ops.cross_entropy(model(ids), targets, **options).item()
        assert model(ids, targets=targets, **options).item() == pytest.approx(expected, rel=1e-12)


def test_no_position_sees_the_future():
    model, ids = tiny(), random_ids()
    before = model(ids).data
    for t in range(10):
        other = ids.copy()
        other[:, t] = (other[:, t] + 1) % TINY.vocab_size
        moved = (np.abs(model(other).data - before) > 1e-12).any(axis=(0, 2))
        np.testing.assert_array_equal(moved, np.arange(10) >= t)


def test_gradients_by_finite_differences():
    """The whole model at once, along a random direction of all its parameters."""
    model, ids, targets = tiny(), random_ids(), random_ids(seed=1)
    model(ids, targets=targets).backward()
    rng = np.random.default_rng(3)
    directions = [rng.standard_normal(p.shape) for p in model.parameters()]
    claimed = sum((p.grad * d).sum() for p, d in zip(model.parameters(), directions))
    losses = []
    for step in (1e-6, -2e-6):
        for p, d in zip(model.parameters(), directions):
            p.data += step * d
        losses.append(model(ids, targets=targets).item())
    assert claimed == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)


def test_float32_agrees_with_float64():
    ids, targets = random_ids(), random_ids(seed=1)
    exact, single = tiny(), tiny()
    single.to(np.float32)
    a, b = exact(ids, targets=targets), single(ids, targets=targets)
    a.backward()
    b.backward()
    assert b.dtype == np.float32 and b.item() == pytest.approx(a.item(), rel=1e-5)
    for (name, p), q in zip(exact.named_parameters(), single.parameters()):
        assert q.grad.dtype == np.float32 and q.grad.shape == q.shape
        np.testing.assert_allclose(q.grad, p.grad, rtol=0, atol=1e-5 * max(1, np.abs(p.grad).max()), err_msg=name)


def test_rows_of_a_batch_do_not_meet():
    model, ids = tiny(), random_ids(3)
    together = model(ids).data
    for i in range(3):
        np.testing.assert_allclose(model(ids[i : i + 1]).data[0], together[i], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("parts", [[10], [1] * 10, [3, 1, 4, 2], [9, 1]])
def test_a_cache_changes_nothing(parts):
    model, ids = tiny().eval(), random_ids()
    whole = model(ids).data
    cache, start = model.new_cache(), 0
    with no_grad():
        for n in parts:
            logits = model(ids[:, start : start + n], cache=cache).data
            np.testing.assert_allclose(logits, whole[:, start : start + n], rtol=1e-11, atol=1e-12)
            start += n
    assert cache.length == 10


def test_dropout_comes_from_the_models_generator_and_ends_with_eval():
    config = dataclasses.replace(TINY, dropout=0.3)
    model, ids = GPT(config, np.random.default_rng(0)), random_ids()
    state = model.rng.bit_generator.state
    first, second = model(ids).data, model(ids).data
    assert (first != second).any()
    model.rng.bit_generator.state = state
    np.testing.assert_array_equal(model(ids).data, first)
    model.eval()
    np.testing.assert_array_equal(model(ids).data, model(ids).data)
    np.testing.assert_allclose(
        np.mean([model.train()(ids).data for _ in range(400)], axis=0), model.eval()(ids).data, atol=0.1
    )


def test_every_dropout_is_reached():
    """Embedding, attention weights, and the two residual projections of each block: a draw for each, in each
    forward."""
    config = dataclasses.replace(TINY, dropout=0.3)
    model, ids = GPT(config, np.random.default_rng(0)), random_ids()
    drawn = []

    class Counting:
        def random(self, shape, dtype):
            drawn.append(tuple(shape))
            return np.ones(shape, dtype)

    for _, module in model.named_modules():
        if hasattr(module, "rng"):
            module.rng = Counting()
    model(ids)
    elements = sorted(int(np.prod(shape)) for shape in drawn)
    residual, weights = 2 * 10 * 8, 2 * 2 * 10 * 10
    assert elements == sorted([residual] * (1 + 2 * 2) + [weights] * 2)


# --- one frame per layer, module and op -----------------------------------------------------------------------------


def stacks_into(functions, call) -> list[tuple[str, ...]]:
    """The names of the frames above each call of one of these functions, outermost first."""
    codes = {function.__code__ for function in functions}
    found = []

    def profile(frame, event, _):
        if event == "call" and frame.f_code in codes:
            names = []
            while frame is not None and frame.f_code is not call.__code__:
                names.append(getattr(frame.f_code, "co_qualname", frame.f_code.co_name).rsplit(".", 2)[-1])
                frame = frame.f_back
            found.append(tuple(reversed(names)))

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def test_from_the_model_to_numpy_there_is_one_frame_per_step():
    """What a debugger's "step into" shows: model, layer, op, the NumPy code. No wrapper, dispatcher or decorator
    between."""
    model, ids = tiny(), random_ids()

    def forward():
        model(ids)

    functions = [numpy_ops.embedding, numpy_ops.linear, numpy_ops.layer_norm, numpy_ops.attention, numpy_ops.gelu]
    gpt = ("__call__", "forward", "hidden")
    block = (*gpt, "__call__", "forward")
    layer = ("__call__", "forward")
    expected = [(*gpt, *layer, "embedding", "embedding")]
    for _ in range(TINY.n_layers):
        expected += [
            (*block, *layer, "layer_norm", "layer_norm"),
            (*block, *layer, "heads", *layer, "linear", "linear"),
            (*block, *layer, "attention", "attention"),
            (*block, *layer, *layer, "linear", "linear"),
            (*block, *layer, "layer_norm", "layer_norm"),
            (*block, *layer, *layer, "linear", "linear"),
            (*block, *layer, "gelu", "gelu"),
            (*block, *layer, *layer, "linear", "linear"),
        ]
    expected += [(*gpt, *layer, "layer_norm", "layer_norm"), ("__call__", "forward", "logits", "linear", "linear")]
    assert stacks_into(functions, forward) == expected


# --- configurations -------------------------------------------------------------------------------------------------


def test_the_configuration_goes_through_json():
    config = dataclasses.replace(TINY, dropout=0.1)
    assert config_from_dict(config_to_dict(config)) == config
    assert isinstance(model_from_config(config), GPT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_model = 3


@given(
    st.sampled_from(["vocab_size", "context", "n_layers", "n_heads", "d_model"]),
    st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.text(max_size=3), st.none()),
)
def test_impossible_sizes_are_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match="GPTConfig: ") as error:
        dataclasses.replace(TINY, **{name: value})
    assert f"{name} = {value!r}" in str(error.value)


@given(st.integers(1, 64), st.integers(1, 64))
def test_heads_must_divide_the_features(n_heads, d_model):
    if d_model % n_heads:
        with pytest.raises(ValueError, match=f"d_model = {d_model} must be divisible by n_heads = {n_heads}"):
            dataclasses.replace(TINY, n_heads=n_heads, d_model=d_model)
    else:
        assert dataclasses.replace(TINY, n_heads=n_heads, d_model=d_model).d_model == d_model


@given(
    st.one_of(
        st.floats(max_value=-1e-9), st.floats(min_value=1.0), st.just(float("nan")), st.text(max_size=2), st.none()
    )
)
def test_impossible_dropout_is_refused(value):
    with pytest.raises(ValueError, match="GPTConfig: dropout"):
        dataclasses.replace(TINY, dropout=value)


@pytest.mark.parametrize(("name", "value"), [("attention", "flash"), ("attention", None)])
def test_unknown_choices_are_refused(name, value):
    with pytest.raises(ValueError, match=f"GPTConfig: {name} = {value!r}"):
        dataclasses.replace(TINY, **{name: value})


# --- bad input ------------------------------------------------------------------------------------------------------


def test_what_the_model_refuses():
    model = GPT(TINY)
    with pytest.raises(ValueError, match="17 tokens in ids are more than the context of 16"):
        model(random_ids(1, 17))
    with pytest.raises(IndexError, match="id 29 is outside the table of 29 rows"):
        model(np.array([[0, 29]]))
    with pytest.raises(IndexError, match="id -1 "):
        model(np.array([[0, -1]]))
    with pytest.raises(TypeError, match="float64"):
        model(np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"\(2, 9\).*\(2, 10\)"):
        model(random_ids(2, 10), targets=random_ids(2, 9))
    with pytest.raises(IndexError, match="target 29 is outside the 29 classes"):
        model(random_ids(1, 2), targets=np.array([[0, 29]]))
    with pytest.raises(ValueError, match=r"ids .*\(4,\).*\(B, T\)"):
        model(np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match=r"ids .*\(2, 0\)"):
        model(np.zeros((2, 0), dtype=int))


def test_a_cache_that_is_full_refuses():
    model = GPT(TINY).eval()
    cache = model.new_cache()
    model(random_ids(1, 16), cache=cache)
    with pytest.raises(ValueError, match="17 tokens in ids are more than the context of 16"):
        model(random_ids(1, 1), cache=cache)
    small = model.new_cache(capacity=4)
    with pytest.raises(ValueError, match="5 positions do not fit into a cache of 4"):
        model(random_ids(1, 5), cache=small)


def test_logits_are_a_tensor_of_the_models_precision():
    logits = GPT(TINY)(random_ids())
    assert isinstance(logits, Tensor) and logits.shape == (2, 10, 29) and logits.dtype == np.float32
