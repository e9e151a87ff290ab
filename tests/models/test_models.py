"""What all models have in common: the table of them, configs to dictionaries and back, tasks, features to losses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from minillm.costs.architectures import COSTS
from minillm.models import (
    MODELS,
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    config_class,
    config_from_dict,
    config_to_dict,
    model_from_config,
    with_attention,
)

SHAPE = {"vocab_size": 31, "context": 16, "n_layers": 2, "d_model": 16, "dropout": 0.4}
HEADS = {**SHAPE, "n_heads": 4, "d_ff": 24}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}
LLAMA = LlamaConfig(**HEADS, n_kv_heads=2, tie_embeddings=True, rope_scaling=DYNAMIC)
CONFIGS = {
    "gpt": GPTConfig(**SHAPE, n_heads=4),
    "llama": LLAMA,
    "gemma": GemmaConfig(**HEADS, n_kv_heads=2, head_dim=6, window=4, full_layers=(1,)),
    "moe": MoeConfig(**HEADS, n_experts=4, dense_layers=(0,)),
    "bert": BertConfig(**HEADS, pad_id=0),
    "bert with next sentences": BertConfig(**HEADS, next_sentence=True),
    "bert classifier": BertConfig(**HEADS, head="classification", n_labels=3),
    "bert features": BertConfig(**HEADS, head="none", pooler=True),
    "encoder-decoder": EncoderDecoderConfig(**HEADS, pad_id=0),
    "lstm": LSTMConfig(**SHAPE, d_hidden=20),
    "gpt classifier": ClassifierConfig(GPTConfig(**SHAPE, n_heads=4), n_labels=3, pad_id=0),
    "llama classifier": ClassifierConfig(LLAMA, n_labels=3, problem_type="regression"),
}
TASKS = ["causal", "causal", "causal", "causal", "mlm", "mlm", "classification", "base", "seq2seq", "causal"]
TASKS += ["classification", "classification"]
WITH_LOSS = [name for name in CONFIGS if name != "bert features"]


@pytest.mark.parametrize(("name", "task"), list(zip(CONFIGS, TASKS)))
def test_every_model_is_in_the_tables(name, task):
    config = CONFIGS[name]
    assert MODELS[config.model_type] == (type(config), type(model_from_config(config)))
    assert config_class(config.model_type) is type(config)
    assert config.task == task
    assert set(COSTS) == set(MODELS) and {config.model_type for config in CONFIGS.values()} == set(MODELS)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_to_dictionaries_and_back(name):
    config = CONFIGS[name]
    values = config_to_dict(config)
    assert values["model_type"] == config.model_type
    assert config_from_dict(json.loads(json.dumps(values))) == config
    with pytest.raises(ValueError, match=f"{type(config).__name__} has no setting 'n_labals'"):
        config_from_dict({**values, "n_labals": 3})


@pytest.mark.parametrize("model_type", [None, "rnn", ["gpt"], {"gpt": 1}])
def test_unknown_model_types_are_refused(model_type):
    with pytest.raises(ValueError, match=r"is not a model of this library\. Known: 'gpt', 'llama', "):
        config_from_dict({"model_type": model_type})


def test_what_is_no_config_is_refused():
    with pytest.raises(TypeError, match="dict is not a config of this library"):
        model_from_config({})


@pytest.mark.parametrize("name", CONFIGS)
def test_another_way_to_compute_attention(name):
    config = CONFIGS[name]
    changed = with_attention(config, "sdpa")
    if name == "lstm":
        assert changed == config
    elif "pt classifier" in name or "llama classifier" in name:
        assert changed == replace(config, decoder=replace(config.decoder, attention="sdpa"))
    else:
        assert changed == replace(config, attention="sdpa")


# --- features, logits and losses ------------------------------------------------------------------------------------


def model_and_inputs(name):
    """A model in float64, its inputs, the targets, what goes with the inputs and what goes with the targets."""
    model = model_from_config(CONFIGS[name], np.random.default_rng(0)).to(np.float64)
    draw = np.random.default_rng(1)
    ids, targets = draw.integers(1, 31, (2, 3, 9))
    ids[0, 7:] = 0
    targets[1, 4:] = -100
    if name == "encoder-decoder":
        return model, [ids, draw.integers(1, 31, (3, 9))], targets, {}, {"label_smoothing": 0.1}
    if name == "bert with next sentences":
        given = {"token_types": ids % 2, "mask": ids > 0}
        return model, [ids], targets, given, {"next_sentence": np.array([0, 1, 1])}
    if name == "bert classifier":
        return model, [ids], np.array([2, 0, 1]), {"mask": ids > 0}, {"label_smoothing": 0.1}
    if name == "gpt classifier":
        return model, [ids], np.array([2, 0, 1]), {}, {}
    if name == "llama classifier":
        return model, [ids], draw.standard_normal((3, 3)), {"mask": ids > 0}, {}
    return model, [ids], targets, {}, {"label_smoothing": 0.1}


def array(x):
    """The numbers of a tensor of either engine."""
    return x.detach().numpy() if hasattr(x, "numpy") else x.data


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", WITH_LOSS)
def test_loss_and_logits_from_features_are_forwards(name, engine, reduction):
    model, inputs, targets, given, asked = model_and_inputs(name)
    if engine == "torch":
        torch = pytest.importorskip("torch")
        from minillm.port import to_torch

        model, targets = to_torch(model), torch.tensor(targets)
        inputs = [torch.tensor(ids) for ids in inputs]
        given, asked = (
            {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
            for options in (given, asked)
        )
    model.eval()
    h = model.hidden(*inputs, **given)
    whole = model(*inputs, targets, **given, **asked, reduction=reduction)
    assert model.loss(h, targets, **asked, reduction=reduction).item() == pytest.approx(whole.item(), rel=1e-14)
    np.testing.assert_array_equal(array(model.logits(h)), array(model(*inputs, **given)))


@pytest.mark.parametrize("name", WITH_LOSS)
def test_in_training_one_pass_gives_loss_and_logits_of_one_draw(name):
    """With dropout each pass differs; what is computed from one pass's features must not draw again."""
    model, inputs, targets, given, asked = model_and_inputs(name)
    first, second = model.hidden(*inputs, **given), model.hidden(*inputs, **given)
    assert not np.array_equal(first.data, second.data)
    np.testing.assert_array_equal(model.logits(first).data, model.logits(first).data)
    state = model.rng.bit_generator.state
    loss = model.loss(first, targets, **asked)
    assert loss.item() == model.loss(first, targets, **asked).item() != model.loss(second, targets, **asked).item()
    assert model.rng.bit_generator.state == state
    loss.backward()
    unused = [key for key, p in model.named_parameters() if p.grad is None]
    assert unused == []


def test_a_model_for_features_has_no_loss():
    model, (ids,), targets, _, _ = model_and_inputs("bert features")
    for call in (lambda: model(ids, targets), lambda: model.loss(model.hidden(ids), targets)):
        with pytest.raises(ValueError, match="head = 'none' has no loss"):
            call()
