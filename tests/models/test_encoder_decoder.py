"""The encoder–decoder against torch.nn.Transformer with the same weights, cached decoding, learning, bad input."""

import doctest
from dataclasses import asdict

import numpy as np
import pytest

from minillm.generate import Sampling, generate
from minillm.models import (
    EncoderDecoder,
    EncoderDecoderConfig,
    config_from_dict,
    config_to_dict,
    encoder_decoder,
    model_from_config,
)
from minillm.optim import AdamW
from minillm.tensor import no_grad

TINY = EncoderDecoderConfig(
    vocab_size=30, context=12, n_layers=2, n_heads=4, d_model=16, d_ff=24, dropout=0.0, pad_id=0
)
LAYOUTS = [(norm, positions) for norm in ("post", "pre") for positions in ("sinusoidal", "learned")]


def tiny(**changes):
    return EncoderDecoderConfig(**{**asdict(TINY), **changes})


def random_model(config, seed=0):
    """A float64 model in which every parameter is random, the norms and biases too."""
    model = EncoderDecoder(config, np.random.default_rng(seed)).to(np.float64)
    draw = np.random.default_rng(seed + 1)
    for name, parameter in model.named_parameters():
        parameter.data[...] = 0.3 * draw.standard_normal(parameter.shape) + ("norm" in name and "weight" in name)
    return model


def random_batch(config, seed=5):
    """Sources of 9 and 6 tokens, padded; target ids and the ids that come next, some ignored."""
    draw = np.random.default_rng(seed)
    source = draw.integers(1, config.source_vocab_size or config.vocab_size, (2, 9))
    source[1, 6:] = 0
    ids, targets = draw.integers(1, config.vocab_size, (2, 2, 7))
    targets[0, -2:] = -100
    return source, ids, targets


# --- torch.nn.Transformer --------------------------------------------------------------------------------------------


def torch_transformer(torch, model):
    """A torch.nn.Transformer with our blocks' weights."""
    config = model.config
    theirs = torch.nn.Transformer(
        config.d_model,
        config.n_heads,
        config.n_layers,
        config.n_layers,
        config.d_ff,
        dropout=0.0,
        layer_norm_eps=config.norm_eps,
        norm_first=config.norm == "pre",
        batch_first=True,
        dtype=torch.float64,
    )
    if config.norm == "post":  # torch ends with a norm in either layout, the paper only has those in the blocks
        theirs.encoder.norm = theirs.decoder.norm = None
    state = {k: torch.tensor(v) for k, v in model.state_dict().items()}
    weights = {}
    for name in theirs.state_dict():
        side, *path, tensor = name.split(".")
        if path[0] == "norm":
            weights[name] = state[f"{side}_norm.{tensor}"]
            continue
        layer, part = path[1], ".".join(path[2:])
        ours = f"{side}.{layer}."
        if part in ("self_attn", "multihead_attn"):  # queries, keys and values one below the other
            attn = ours + ("attn" if part == "self_attn" else "cross")
            tensor = tensor.removeprefix("in_proj_")
            weights[name] = torch.cat([state[f"{attn}.{x}_proj.{tensor}"] for x in "qkv"])
        elif part.endswith("out_proj"):
            attn = "attn" if part.startswith("self") else "cross"
            weights[name] = state[f"{ours}{attn}.o_proj.{tensor}"]
        elif part.startswith("linear"):
            weights[name] = state[f"{ours}mlp.{'fc' if part == 'linear1' else 'proj'}.{tensor}"]
        else:
            sublayers = ["attn", "mlp"] if side == "encoder" else ["attn", "cross", "mlp"]
            weights[name] = state[f"{ours}add_{sublayers[int(part[-1]) - 1]}.norm.{tensor}"]
    theirs.load_state_dict(weights)
    return theirs


def torch_logits(torch, model, theirs, tables, source, ids):
    """The whole model on torch: our tables and output layer around torch's blocks."""

    def embed(ids, table, positions):
        return tables[table][torch.tensor(ids)] * model.config.d_model**0.5 + positions[: ids.shape[1]]

    if model.config.positions == "sinusoidal":
        positions = [torch.tensor(model.waves)] * 2
    else:
        positions = [tables["source_position_embedding"], tables["target_position_embedding"]]
    shared = model.config.shared_embeddings
    padding = torch.tensor(source == 0)
    length = ids.shape[1]
    h = theirs(
        embed(source, "target_embedding" if shared else "source_embedding", positions[0]),
        embed(ids, "target_embedding", positions[1]),
        tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )
    return h @ tables["target_embedding" if shared else "head"].T


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's advice on its own fast path
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("norm", "positions"), LAYOUTS)
def test_logits_and_gradients_are_those_of_torch(norm, positions, shared):
    torch = pytest.importorskip("torch")
    different = {} if shared else {"shared_embeddings": False, "source_vocab_size": 19}
    model = random_model(tiny(norm=norm, positions=positions, **different))
    theirs = torch_transformer(torch, model)
    names = ("target_embedding", "source_embedding", "head", "source_position_embedding", "target_position_embedding")
    tables = {
        name: torch.tensor(getattr(model, name).weight.data, requires_grad=True)
        for name in names
        if hasattr(model, name)
    }
    source, ids, targets = random_batch(model.config)
    expected = torch_logits(torch, model, theirs, tables, source, ids)
    assert np.abs(model(source, ids).data - expected.detach().numpy()).max() < 1e-9

    loss = model(source, ids, targets, label_smoothing=0.1)
    t_loss = torch.nn.functional.cross_entropy(
        expected.flatten(0, 1), torch.tensor(targets).flatten(), label_smoothing=0.1
    )
    assert abs(loss.item() - t_loss.item()) < 1e-9
    loss.backward()
    t_loss.backward()
    for name, table in tables.items():
        ours = getattr(model, name).weight.grad
        if not (shared and name != "target_embedding" and "position" not in name):
            assert np.abs(ours - table.grad.numpy()).max() < 1e-8, name
    layers = dict(theirs.named_parameters())
    for side, last in (("encoder", "norm2"), ("decoder", "norm3")):
        for i, block in enumerate(getattr(model, side)):
            grads = [getattr(block.attn, p).weight.grad for p in ("q_proj", "k_proj", "v_proj")]
            expected = layers[f"{side}.layers.{i}.self_attn.in_proj_weight"].grad.numpy()
            assert np.abs(np.concatenate(grads) - expected).max() < 1e-8
            for ours, path in ((block.mlp.fc.bias, "linear1.bias"), (block.add_mlp.norm.weight, f"{last}.weight")):
                assert np.abs(ours.grad - layers[f"{side}.layers.{i}.{path}"].grad.numpy()).max() < 1e-8, path
    for i, block in enumerate(model.decoder):
        expected = layers[f"decoder.layers.{i}.multihead_attn.in_proj_bias"].grad.numpy()
        grads = [getattr(block.cross, p).bias.grad for p in ("q_proj", "k_proj", "v_proj")]
        assert np.abs(np.concatenate(grads) - expected).max() < 1e-8


# --- alone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "positions"), LAYOUTS)
def test_cached_equals_uncached(norm, positions):
    model = random_model(tiny(norm=norm, positions=positions))
    source, ids, _ = random_batch(model.config)
    whole = model(source, ids).data
    decoder = model.given(source)
    cache = decoder.new_cache()
    with no_grad():
        steps = [decoder.logits(decoder.hidden(ids[:, a:b], cache)).data for a, b in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, atol=1e-12)
    assert cache.length == 7


def test_the_source_is_encoded_once(monkeypatch):
    model = random_model(TINY)
    source, _, _ = random_batch(TINY)
    calls = []
    encode = EncoderDecoder.encode
    monkeypatch.setattr(EncoderDecoder, "encode", lambda self, *of: calls.append(of) or encode(self, *of))
    for block in model.decoder:
        keys_values = block.cross.keys_values
        block.cross.keys_values = lambda memory, f=keys_values: calls.append(memory) or f(memory)
    generate(model.given(source), [[1], [1]], max_new_tokens=8, seed=0)
    assert len(calls) == 1 + TINY.n_layers


def test_generation_with_and_without_cache():
    model = random_model(TINY)
    source, _, _ = random_batch(TINY)
    sampling = Sampling(temperature=0.9)
    cached, uncached = (
        generate(model.given(source), [[1], [1, 5]], max_new_tokens=9, sampling=sampling, seed=3, use_cache=use)
        for use in (True, False)
    )
    assert cached == uncached
    alone = generate(model.given(source[:1]), [[1]], max_new_tokens=9, sampling=sampling, seed=3)
    assert alone[0] == cached[0]


def test_padding_changes_nothing():
    model = random_model(TINY)
    source, ids, _ = random_batch(TINY)
    alone = model(source[1:, :6], ids[1:]).data
    np.testing.assert_allclose(model(source, ids).data[1:], alone, atol=1e-12)
    unmasked = random_model(tiny(pad_id=None))
    assert np.abs(unmasked(source, ids).data[1:] - alone).max() > 1e-3


def test_the_target_is_causal_and_the_source_is_not():
    model = random_model(TINY)
    source, ids, _ = random_batch(TINY)
    before = model(source, ids).data
    changed = ids.copy()
    changed[:, 4] = changed[:, 4] % 29 + 1
    after = model(source, changed).data
    assert np.array_equal(before[:, :4], after[:, :4])
    assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=-1) > 1e-6).all()
    changed = source.copy()
    changed[:, 5] = changed[:, 5] % 29 + 1
    assert (np.abs(before - model(changed, ids).data).max(axis=-1) > 1e-6).all()


def test_sinusoids_are_those_of_the_paper():
    waves = EncoderDecoder(tiny(context=50)).waves
    for position, feature in ((0, 0), (0, 1), (3, 4), (49, 15), (17, 8)):
        angle = position / 10000 ** ((feature - feature % 2) / 16)
        assert waves[position, feature] == pytest.approx(np.cos(angle) if feature % 2 else np.sin(angle), abs=1e-6)


def test_shared_embeddings_are_one_parameter():
    names = [name for name, _ in EncoderDecoder(TINY).named_parameters()]
    assert [name for name in names if "embed" in name or "head" in name] == ["target_embedding.weight"]
    separate = [name for name, _ in EncoderDecoder(tiny(shared_embeddings=False)).named_parameters()]
    assert {"target_embedding.weight", "source_embedding.weight", "head.weight"} <= set(separate)


def test_size_of_the_base_model():
    pytest.importorskip("torch")
    from minillm.models.sketch import sketch

    model = EncoderDecoder(EncoderDecoderConfig(), rng=sketch())
    blocks = 6 * (4 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 2 * 2 * 512)
    blocks += 6 * (8 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 3 * 2 * 512)
    assert sum(p.data.size for p in model.parameters()) == 37000 * 512 + blocks == 63_082_496  # "65M" in the paper


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_it_learns_to_reverse(norm):
    """Reversing needs cross-attention to every part of the source: the shuffled source must be useless to the rest."""
    config = tiny(vocab_size=10, context=8, norm=norm, d_model=32, d_ff=64)
    model = EncoderDecoder(config, np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=3e-3)
    draw = np.random.default_rng(1)
    for _ in range(250):
        source = draw.integers(2, 10, (32, 5))
        targets = source[:, ::-1]
        ids = np.concatenate([np.ones((32, 1), np.int64), targets[:, :-1]], axis=1)
        model.zero_grad()
        loss = model(source, ids, targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    source = draw.integers(2, 10, (8, 5))
    found = generate(model.given(source), [[1]] * 8, max_new_tokens=5, sampling=Sampling(temperature=0))
    assert np.mean(np.array(found) == source[:, ::-1]) > 0.9


def test_dropout_only_while_training():
    model = EncoderDecoder(tiny(dropout=0.3))
    source, ids, _ = random_batch(TINY)
    assert not np.array_equal(model(source, ids).data, model(source, ids).data)
    decoder = model.given(source)
    assert decoder.training
    decoder.eval()
    assert not model.training
    assert np.array_equal(model(source, ids).data, model(source, ids).data)


def test_what_is_too_long_is_refused():
    model = EncoderDecoder(TINY)
    short, long = np.ones((1, 3), np.int64), np.ones((1, 13), np.int64)
    with pytest.raises(ValueError, match="13 tokens in source are more than the context of 12"):
        model(long, short)
    with pytest.raises(ValueError, match="13 tokens in ids are more than the context of 12"):
        model(short, long)


def test_the_example_in_the_docstring():
    assert doctest.testmod(encoder_decoder) == doctest.TestResults(failed=0, attempted=5)


def test_config_survives_a_dictionary():
    config = tiny(positions="learned", shared_embeddings=False, source_vocab_size=12)
    assert config_from_dict(config_to_dict(config)) == config
    assert isinstance(model_from_config(config), EncoderDecoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": -1}, "n_layers = -1 must be a whole number"),
        ({"source_vocab_size": 0}, "source_vocab_size = 0 must be a whole number"),
        ({"n_heads": 3}, "d_model = 16 must be divisible by n_heads = 3"),
        ({"d_model": 15, "n_heads": 3}, "d_model = 15 must be even"),
        ({"positions": "rotary"}, "positions = 'rotary' must be one of sinusoidal, halves, learned"),
        ({"norm": "sandwich"}, "norm = 'sandwich' must be one of pre, post"),
        ({"attention": "flash"}, "attention = 'flash' must be one of auto"),
        ({"dropout": 1.5}, "dropout = 1.5"),
        ({"norm_eps": 0.0}, "norm_eps = 0.0 must be above 0"),
        ({"source_vocab_size": 12}, "shared_embeddings need one vocabulary"),
        ({"pad_id": 30}, "pad_id = 30 is outside the vocabulary of 30"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
