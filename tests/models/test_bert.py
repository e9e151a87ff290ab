"""BERT against transformers with the same weights: features, masked language model, next sentence, classification."""

from dataclasses import asdict

import numpy as np
import pytest

from minillm.models import Bert, BertConfig, config_from_dict, config_to_dict, model_from_config

TINY = BertConfig(vocab_size=50, context=20, n_layers=2, n_heads=4, d_model=16, d_ff=24, dropout=0.0)
LONGEST = np.array([12, 7])  # tokens in each of the two rows; the rest is padding


def tiny(**changes):
    return BertConfig(**{**asdict(TINY), **changes})


def random_config(seed, **changes):
    draw = np.random.default_rng(seed)
    heads = int(draw.integers(1, 5))
    shape = {
        "vocab_size": int(draw.integers(20, 60)),
        "n_layers": int(draw.integers(1, 4)),
        "n_heads": heads,
        "d_model": heads * int(draw.integers(3, 8)),
        "d_ff": int(draw.integers(5, 40)),
        "token_types": int(draw.integers(2, 4)),
    }
    return tiny(**{**shape, **changes})


def random_model(config, seed=0):
    """A float64 model in which every parameter is random, the norms and biases too."""
    model = Bert(config, np.random.default_rng(seed)).to(np.float64)
    draw = np.random.default_rng(seed + 1)
    for name, parameter in model.named_parameters():
        parameter.data[...] = 0.3 * draw.standard_normal(parameter.shape) + ("norm" in name and "weight" in name)
    return model


def random_batch(config, seed=5):
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, config.vocab_size, (2, 12))  # without 0: transformers leaves [PAD]'s embedding untrained
    types = draw.integers(0, config.token_types, (2, 12))
    mask = np.arange(12) < LONGEST[:, None]
    hidden = (draw.random((2, 12)) < 0.4) & mask
    hidden[0, 0] = True
    targets = np.where(hidden, draw.integers(0, config.vocab_size, (2, 12)), -100)
    targets[0, 0] = 0  # a token like any other
    return ids, targets, types, mask


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


HF_NAMES = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "token_type_embedding": "bert.embeddings.token_type_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "pooler": "bert.pooler.dense",
    "classifier": "classifier",
    "next_sentence": "cls.seq_relationship",
    "mlm.transform": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm": "cls.predictions",
    "attn.q_proj": "attention.self.query",
    "attn.k_proj": "attention.self.key",
    "attn.v_proj": "attention.self.value",
    "attn.o_proj": "attention.output.dense",
    "norm_1": "attention.output.LayerNorm",
    "fc": "intermediate.dense",
    "proj": "output.dense",
    "norm_2": "output.LayerNorm",
}


def hf_name(name):
    path, _, tensor = name.rpartition(".")
    if path.startswith("blocks."):
        _, layer, part = path.split(".", 2)
        return f"bert.encoder.layer.{layer}.{HF_NAMES[part]}.{tensor}"
    return f"{HF_NAMES[path]}.{tensor}"


def hf_model(torch, model, cls, **settings):
    """The transformers model of the same shape and weights."""
    import transformers

    config = model.config
    theirs = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.d_ff,
        max_position_embeddings=config.context,
        type_vocab_size=config.token_types,
        layer_norm_eps=config.norm_eps,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **settings,
    )
    theirs = getattr(transformers, cls)(theirs).double()
    weights = {hf_name(name): torch.tensor(array) for name, array in model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert {name for name in missing if "decoder" not in name and "position_ids" not in name} == set()
    theirs.tie_weights()
    return theirs


def assert_same_gradients(model, theirs):
    gradients = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        gap = np.abs(parameter.grad - gradients[hf_name(name)].grad.numpy()).max()
        assert gap < 1e-8, (name, gap)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_masked_language_model_is_that_of_transformers(torch, seed, masked):
    model = random_model(random_config(seed), seed)
    theirs = hf_model(torch, model, "BertForMaskedLM")
    ids, targets, types, mask = random_batch(model.config)
    ours = {"token_types": types, "mask": mask} if masked else {}
    options = {"token_type_ids": torch.tensor(types), "attention_mask": torch.tensor(mask).long()} if masked else {}

    out = theirs(torch.tensor(ids), labels=torch.tensor(targets), **options)
    assert np.abs(model(ids, **ours).data - out.logits.detach().numpy()).max() < 1e-9
    loss = model(ids, targets, **ours)
    assert abs(loss.item() - out.loss.item()) < 1e-9
    loss.backward()
    out.loss.backward()
    assert_same_gradients(model, theirs)
    total = model(ids, targets, reduction="sum", **ours)
    assert total.item() == pytest.approx(loss.item() * (targets != -100).sum(), rel=1e-12)


def test_next_sentence_is_that_of_transformers(torch):
    model = random_model(tiny(next_sentence=True))
    theirs = hf_model(torch, model, "BertForPreTraining")
    ids, targets, types, mask = random_batch(model.config)
    followed = np.array([0, 1])
    out = theirs(
        torch.tensor(ids),
        token_type_ids=torch.tensor(types),
        attention_mask=torch.tensor(mask).long(),
        labels=torch.tensor(targets),
        next_sentence_label=torch.tensor(followed),
    )
    h = model.hidden(ids, token_types=types, mask=mask)
    assert np.abs(model.next_sentence_logits(h).data - out.seq_relationship_logits.detach().numpy()).max() < 1e-9
    loss = model(ids, targets, token_types=types, mask=mask, next_sentence=followed)
    assert abs(loss.item() - out.loss.item()) < 1e-9
    loss.backward()
    out.loss.backward()
    assert_same_gradients(model, theirs)


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("single_label_classification", np.array([2, 0])),
        ("multi_label_classification", np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
        ("regression", np.array([[0.5, -1.0, 2.0], [0.0, 3.0, 1.0]])),
    ],
)
def test_classification_is_that_of_transformers(torch, problem, labels):
    model = random_model(tiny(head="classification", n_labels=3, problem_type=problem))
    theirs = hf_model(torch, model, "BertForSequenceClassification", num_labels=3, problem_type=problem)
    ids, _, types, mask = random_batch(model.config)
    out = theirs(
        torch.tensor(ids),
        token_type_ids=torch.tensor(types),
        attention_mask=torch.tensor(mask).long(),
        labels=torch.tensor(labels),
    )
    assert np.abs(model(ids, token_types=types, mask=mask).data - out.logits.detach().numpy()).max() < 1e-9
    loss = model(ids, labels, token_types=types, mask=mask)
    assert abs(loss.item() - out.loss.item()) < 1e-9
    loss.backward()
    out.loss.backward()
    assert_same_gradients(model, theirs)


def test_regression_on_one_number():
    model = random_model(tiny(head="classification", n_labels=1, problem_type="regression"))
    ids, *_ = random_batch(TINY)
    labels = np.array([0.5, -1.0])
    expected = ((model(ids).data[:, 0] - labels) ** 2).mean()
    assert model(ids, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pooler", [False, True])
def test_features_and_pooler_are_those_of_transformers(torch, pooler):
    from transformers import BertModel  # noqa: F401

    model = random_model(tiny(head="none", pooler=pooler))
    theirs = hf_model(torch, random_model(tiny(head="classification")), "BertForSequenceClassification").bert
    weights = {hf_name(k).removeprefix("bert."): torch.tensor(v) for k, v in model.state_dict().items()}
    theirs.load_state_dict(weights, strict=pooler)
    ids, _, types, mask = random_batch(model.config)
    out = theirs(torch.tensor(ids), token_type_ids=torch.tensor(types), attention_mask=torch.tensor(mask).long())
    h = model(ids, token_types=types, mask=mask)
    assert np.abs(h.data - out.last_hidden_state.detach().numpy()).max() < 1e-9
    if pooler:
        assert np.abs(model.pool(h).data - out.pooler_output.detach().numpy()).max() < 1e-9


# --- alone -----------------------------------------------------------------------------------------------------------


def test_padding_changes_nothing():
    """A row alone, without its padding, gives the same features; and a mask made from pad_id is the mask given."""
    model = random_model(tiny(pad_id=0, head="none"))
    ids, *_ = random_batch(model.config)
    mask = np.arange(12) < LONGEST[:, None]
    ids[~mask] = 0
    h = model(ids)
    assert np.array_equal(h.data, model(ids, mask=mask).data)
    assert np.array_equal(h.data, model(ids, mask=mask.astype(np.int64)).data)
    for row, length in enumerate(LONGEST):
        np.testing.assert_allclose(h.data[row, :length], model(ids[row : row + 1, :length]).data[0], atol=1e-12)
    assert np.abs(h.data[1, :7] - model(ids, mask=np.ones_like(mask)).data[1, :7]).max() > 1e-3


def test_every_position_sees_both_sides():
    model = random_model(tiny(head="none"))
    ids, *_ = random_batch(TINY)
    changed = ids.copy()
    changed[0, 5] = (ids[0, 5] + 1) % TINY.vocab_size
    difference = np.abs(model(ids).data - model(changed).data).max(axis=-1)
    assert (difference[0] > 1e-6).all()
    assert (difference[1] == 0).all()


def test_only_what_is_asked_for_is_built():
    def parts(**changes):
        return {name.split(".")[0] for name, _ in Bert(tiny(**changes)).named_parameters()} & {
            "pooler", "mlm", "next_sentence", "classifier",
        }  # fmt: skip

    assert parts() == {"mlm"}
    assert parts(head="none") == set()
    assert parts(head="none", pooler=True) == {"pooler"}
    assert parts(next_sentence=True) == {"mlm", "pooler", "next_sentence"}
    assert parts(head="classification") == {"pooler", "classifier"}


def test_what_is_not_there_says_so():
    model = Bert(tiny(head="none"))
    ids, targets, _, _ = random_batch(TINY)
    with pytest.raises(ValueError, match="head = 'none' has no loss"):
        model(ids, targets)
    with pytest.raises(ValueError, match="built without a pooler"):
        model.pool(model(ids))
    with pytest.raises(ValueError, match="without a next-sentence head"):
        model.next_sentence_logits(model(ids))
    with pytest.raises(ValueError, match="features, no logits"):
        model.logits(model(ids))
    with pytest.raises(ValueError, match="24 tokens in ids are more than the context of 20"):
        model(np.concatenate([ids, ids], axis=1))


def test_dropout_only_while_training():
    model = Bert(tiny(dropout=0.3))
    ids, *_ = random_batch(TINY)
    assert not np.array_equal(model(ids).data, model(ids).data)
    model.eval()
    assert np.array_equal(model(ids).data, model(ids).data)


def test_size_of_bert_base():
    pytest.importorskip("torch")
    from minillm.models.sketch import sketch

    model = Bert(BertConfig(head="none", pooler=True), rng=sketch())
    assert sum(p.data.size for p in model.parameters()) == 109_482_240  # bert-base-uncased


def test_config_survives_a_dictionary():
    config = tiny(head="classification", n_labels=5, pad_id=0)
    assert config_from_dict(config_to_dict(config)) == config
    assert isinstance(model_from_config(config), Bert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "n_layers = 0 must be a whole number"),
        ({"token_types": True}, "token_types = True must be a whole number"),
        ({"d_model": 18}, "d_model = 18 must be divisible by n_heads = 4"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"norm_eps": 0.0}, "norm_eps = 0.0 must be above 0"),
        ({"head": "lm"}, "head = 'lm' must be one of none, mlm, classification"),
        ({"head": "none", "next_sentence": True}, "next_sentence is learned together with head = 'mlm'"),
        ({"problem_type": "ranking"}, "problem_type = 'ranking'"),
        ({"pad_id": 50}, "pad_id = 50 is outside the vocabulary of 50"),
        ({"attention": "flash"}, "attention = 'flash'"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
