"""Llama, Qwen2 and Qwen3 against transformers with the same weights, cached decoding against none, and bad configs."""

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

from minillm.generate import Sampling, generate
from minillm.models import Llama, LlamaConfig, config_from_dict, config_to_dict, model_from_config
from minillm.models.rope import rope_tables
from minillm.tensor import no_grad

TINY = LlamaConfig(vocab_size=40, context=24, n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_ff=24)
SCALINGS = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn with its settings": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
        "truncate": False,
    },
    "yarn with an attention factor": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 12,
        "attention_factor": 1.3,
    },
}


def tiny(**changes):
    return LlamaConfig(**{**asdict(TINY), **changes})


def random_config(seed, **changes):
    draw = np.random.default_rng(seed)
    kv_heads = int(draw.integers(1, 4))
    shape = {
        "vocab_size": int(draw.integers(20, 60)),
        "n_layers": int(draw.integers(1, 4)),
        "n_heads": kv_heads * int(draw.integers(1, 4)),
        "n_kv_heads": kv_heads,
        "d_model": int(draw.integers(3, 20)),
        "head_dim": 2 * int(draw.integers(2, 8)),
        "d_ff": int(draw.integers(5, 40)),
        "norm_eps": float(draw.choice([1e-5, 1e-6])),
        "rope_theta": float(draw.choice([100.0, 10000.0, 1e6])),
        "tie_embeddings": bool(draw.integers(2)),
    }
    return tiny(**{**shape, **changes})


def random_model(config, seed=0):
    """A float64 model in which every parameter is random, the norms and biases too, and the rotary tables are exact."""
    model = Llama(config, np.random.default_rng(seed)).to(np.float64)
    draw = np.random.default_rng(seed + 1)
    for parameter in model.parameters():
        parameter.data[...] = 0.3 * draw.standard_normal(parameter.shape) + (parameter.ndim == 1)
    model.cos, model.sin = rope_tables(len(model.cos), config.head_dim, config.rope_theta, config.rope_scaling)
    return model


def random_ids(config, shape, seed=5):
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape)


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torch(monkeypatch):
    """PyTorch, with transformers computing norms and rotary angles in float64: it rounds them to float32 whatever the
    model's dtype, by these names."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import safetensors.torch  # noqa: F401  (whose tables, like those below, are made before float32 changes its meaning)
    from transformers.models import llama, qwen2, qwen3  # noqa: F401

    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


HF_LAYER_NAMES = {
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    "attn": "self_attn",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def hf_name(name):
    if name.startswith("blocks."):
        _, layer, *rest = name.split(".")
        return ".".join(["model.layers", layer, *(HF_LAYER_NAMES.get(part, part) for part in rest)])
    tables = {"token_embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    return tables.get(name, "lm_head.weight")


def hf_model(torch, model, kind):
    """The transformers model of the same shape and weights."""
    import transformers

    config = model.config
    scaling = dict(config.rope_scaling or {"rope_type": "default"})
    context = config.context
    if scaling["rope_type"] == "dynamic":  # for transformers, the length before scaling begins is the model's
        context = scaling.pop("original_max_position_embeddings")
    settings = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": context,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {**scaling, "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.out_bias,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind == "llama":
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    elif kind == "qwen2":
        theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings))
    else:
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings))
    theirs = theirs.double().eval()
    weights = {hf_name(name): torch.tensor(array) for name, array in model.state_dict().items()}
    if config.tie_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights)  # strict: every name must fit
    if config.tie_embeddings:
        theirs.tie_weights()
    return theirs


FAMILIES = {
    "llama": {},
    "llama with biases": {"qkv_bias": True, "out_bias": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_transformers(torch, family, seed):
    config = random_config(seed, **FAMILIES[family])
    if family == "qwen2":  # has no head_dim of its own
        config = tiny(**{**asdict(config), "d_model": config.n_heads * config.head_dim})
    if "llama" in family:  # transformers wants a multiple of n_heads even when head_dim says otherwise
        config = tiny(**{**asdict(config), "d_model": config.n_heads * config.d_model})
    model = random_model(config, seed)
    theirs = hf_model(torch, model, family.split()[0])
    ids, targets = random_ids(config, (2, 2, 11))
    targets[0, :3] = -100

    logits = theirs(torch.tensor(ids)).logits
    assert np.abs(model(ids).data - logits.detach().numpy()).max() < 1e-9

    loss = model(ids, targets)
    loss.backward()
    t_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
    t_loss.backward()
    assert abs(loss.item() - t_loss.item()) < 1e-9
    gradients = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad - gradients[hf_name(name)].grad.numpy()).max() < 1e-8, name


@pytest.mark.parametrize("name", SCALINGS)
def test_every_rope_scaling_is_that_of_transformers(torch, name):
    model = random_model(tiny(head_dim=16, context=40, rope_scaling=SCALINGS[name]))
    theirs = hf_model(torch, model, "llama")
    for length in (6, 8, 9, 17, 40):
        ids = random_ids(model.config, (2, length))
        with torch.no_grad():
            expected = theirs(torch.tensor(ids)).logits.numpy()
        assert np.abs(model(ids).data - expected).max() < 1e-9, length


def test_dynamic_scaling_leaves_a_shorter_context_alone():
    model = random_model(tiny(context=6, rope_scaling=SCALINGS["dynamic"]))
    ids = random_ids(model.config, (2, 6))
    np.testing.assert_array_equal(model(ids).data, random_model(tiny(context=6))(ids).data)


def test_rope_frequencies_of_real_checkpoints(torch):
    """Llama 3.1 8B and Qwen2.5 7B with YaRN, as their config.json files have it, at full length."""
    from transformers import LlamaConfig as Theirs
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from minillm.models.rope import rope_frequencies

    llama = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    cases = [
        (500000.0, {**llama, "original_max_position_embeddings": 8192}),
        (1000000.0, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    ]
    for base, scaling in cases:
        theirs = Theirs(head_dim=128, max_position_embeddings=131072, rope_parameters={**scaling, "rope_theta": base})
        expected, amplitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](theirs)
        frequencies, ours = rope_frequencies(131072, 128, base, scaling)
        np.testing.assert_allclose(frequencies, expected.numpy(), rtol=1e-12)
        assert ours == pytest.approx(amplitude, rel=1e-15)


@pytest.mark.parametrize("scaling", ["default", "dynamic", "yarn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_is_that_of_transformers(torch, family, scaling):
    model = random_model(tiny(**FAMILIES[family], rope_scaling=SCALINGS[scaling]))
    theirs = hf_model(torch, model, family.split()[0])
    ids = random_ids(model.config, (2, 10))
    from hf_models import call_with_cache, transformers

    cache, t_cache = model.new_cache(), transformers.DynamicCache(config=theirs.config)
    for start, end in ((0, 4), (4, 5), (5, 8), (8, 9), (9, 10)):
        with torch.no_grad(), no_grad():
            out = call_with_cache(theirs, torch.tensor(ids[:, start:end]), t_cache)
            logits = model(ids[:, start:end], cache=cache)
        assert np.abs(logits.data - out.logits.numpy()).max() < 1e-9


def test_greedy_generation_is_that_of_transformers(torch):
    model = random_model(tiny(context=32))
    theirs = hf_model(torch, model, "llama")
    prompt = random_ids(model.config, (1, 5))
    everything = torch.ones(1, 5, dtype=torch.int64)
    expected = theirs.generate(torch.tensor(prompt), attention_mask=everything, max_new_tokens=20, do_sample=False)
    found = generate(model, prompt.tolist(), max_new_tokens=20, sampling=Sampling(temperature=0))
    assert found == [expected[0, 5:].tolist()]


# --- alone -----------------------------------------------------------------------------------------------------------


def test_tables_of_a_long_context_need_no_second_copy_in_float64():
    tracemalloc.start()
    tables = rope_tables(60_000, 64, 10000.0, dtype=np.float32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.4 * sum(table.nbytes for table in tables)
    exact = rope_tables(60_000, 64, 10000.0)
    assert all(np.array_equal(table, double.astype(np.float32)) for table, double in zip(tables, exact))
    angles = np.arange(60_000)[:, None] * 10000.0 ** (-np.arange(0, 64, 2) / 64)
    assert np.array_equal(exact[0], np.cos(angles)) and np.array_equal(exact[1], np.sin(angles))


@pytest.mark.parametrize("scaling", sorted(set(SCALINGS) - {"dynamic"}))
def test_cached_equals_uncached(scaling):
    model = random_model(tiny(qk_norm=True, rope_scaling=SCALINGS[scaling]))
    ids = random_ids(model.config, (2, 24))
    cache = model.new_cache()
    with no_grad():
        for start, end in ((0, 6), (6, 7), (7, 12), *((i, i + 1) for i in range(12, 24))):
            step = model(ids[:, start:end], cache=cache).data
            np.testing.assert_allclose(step[:, -1], model(ids[:, :end]).data[:, -1], atol=1e-12)
        assert cache.length == 24
        with pytest.raises(ValueError, match="25 tokens in ids are more than the context of 24"):
            model(ids[:, :1], cache=cache)


def test_generation_with_and_without_cache_beyond_the_context():
    model = random_model(tiny(context=8))
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]
    sampling = Sampling(temperature=0.8, top_k=20)
    cached, uncached = (
        generate(model, prompts, max_new_tokens=12, sampling=sampling, seed=3, use_cache=use) for use in (True, False)
    )
    assert cached == uncached


def test_grouped_heads_are_repeated_heads():
    """With each key/value head copied for its group, the grouped model is an ordinary one."""
    grouped = random_model(tiny())
    full = random_model(tiny(n_kv_heads=4))
    weights = grouped.state_dict()
    for name, array in weights.items():
        if "k_proj" in name or "v_proj" in name:
            weights[name] = array.reshape(2, 4, -1).repeat(2, axis=0).reshape(16, -1)
    full.load_state_dict(weights)
    ids = random_ids(TINY, (2, 7))
    np.testing.assert_allclose(full(ids).data, grouped(ids).data, atol=1e-13)


def test_the_last_position_looks_at_the_past_only():
    model = random_model(TINY)
    ids = random_ids(TINY, (1, 9))
    changed = ids.copy()
    changed[0, 6:] = (changed[0, 6:] + 1) % TINY.vocab_size
    before, after = model(ids).data, model(changed).data
    assert np.array_equal(before[:, :6], after[:, :6])
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-3


def test_dropout_only_while_training():
    model = Llama(tiny(dropout=0.4))
    ids = random_ids(TINY, (2, 9))
    assert not np.array_equal(model(ids).data, model(ids).data)
    model.eval()
    assert np.array_equal(model(ids).data, model(ids).data)


def test_initial_weights_and_loss():
    config = tiny(vocab_size=500, n_layers=8, d_model=64, d_ff=128)
    model = Llama(config)
    assert model.token_embedding.weight.data.std() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].mlp.down.weight.data.std() == pytest.approx(0.02 / 4, rel=0.05)
    assert model.blocks[0].attn.o_proj.weight.data.std() == pytest.approx(0.02 / 4, rel=0.05)
    ids, targets = random_ids(config, (2, 4, 20))
    assert model(ids, targets).item() == pytest.approx(np.log(500), abs=0.1)
    assert {p.data.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_config_survives_a_dictionary():
    config = tiny(rope_scaling=SCALINGS["llama3"], tie_embeddings=True)
    assert config_from_dict(config_to_dict(config)) == config
    assert isinstance(model_from_config(config), Llama)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 0}, "n_heads = 0 must be a whole number"),
        ({"d_ff": 2.5}, "d_ff = 2.5 must be a whole number"),
        ({"n_kv_heads": 3}, "n_heads = 4 must be divisible by n_kv_heads = 3"),
        ({"d_model": 18, "head_dim": 0}, "d_model = 18 must be divisible by n_heads = 4, or head_dim"),
        ({"head_dim": 5}, "head_dim = 5 must be even"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"norm_eps": 0.0}, "norm_eps = 0.0 must be above 0"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0 must be above 0"),
        ({"attention": "flash"}, "attention = 'flash'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "'longrope' is not supported. Known: default, linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'linear' needs 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor = 0.5 must be at least 1"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "8"}}, "factor = '8' must be a number"),
        ({"rope_scaling": {**SCALINGS["llama3"], "high_freq_factor": 1.0}}, "must be below high_freq_factor"),
        ({"rope_scaling": {**SCALINGS["yarn"], "beta": 3}}, "'yarn' has no setting 'beta'"),
        ({"head_dim": 2, "rope_scaling": SCALINGS["dynamic"]}, "more than 2 features"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        tiny(**changes)
