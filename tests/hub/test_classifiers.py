"""Decoders that label a text: the same logits, gradients and losses as transformers, in both directions."""

import json

import numpy as np
import pytest
from hf_models import FAMILIES, IDS, build, reload, tensor_names, torch

from minillm.hub import AutoModelForCausalLM, AutoModelForSequenceClassification, PretrainedModel
from minillm.models import Classifier, ClassifierConfig, GPTConfig, LlamaConfig

ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert")  # which have heads of their own: test_families.py
DECODERS = [family for family in FAMILIES if family not in ENCODERS]
LENGTHS = np.array([[11], [6]])
PADDED = np.where(np.arange(11) < LENGTHS, IDS, 0)  # IDS has no 0
LABELS = {
    "single_label_classification": (3, np.array([2, 0])),
    "multi_label_classification": (3, np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
    "regression": (1, np.array([0.3, -1.2])),
}


def classifier(family, problem_type="single_label_classification", **settings):
    """A transformers classifier on this family's decoder."""
    cls = FAMILIES[family][1].replace("LMHeadModel", "ForSequenceClassification")
    cls = cls.replace("Gemma3", "Gemma3Text").replace("ForCausalLM", "ForSequenceClassification")
    n_labels = LABELS[problem_type][0]
    return cls, build(family, cls=cls, problem_type=problem_type, num_labels=n_labels, pad_token_id=0, **settings)


@pytest.mark.parametrize("family", DECODERS)
def test_logits_and_gradients_are_those_of_transformers_in_both_directions(exact, family, tmp_path):
    cls, theirs = classifier(family)
    theirs.double().save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    labels = LABELS["single_label_classification"][1]
    expected = theirs(torch.tensor(PADDED), attention_mask=torch.tensor(PADDED != 0), labels=torch.tensor(labels))
    output = ours(PADDED, PADDED != 0, labels=labels)
    assert output.logits.shape == (2, 3) and output.logits.dtype == np.float64
    assert np.abs(output.logits - expected.logits.detach().numpy()).max() < 1e-9
    expected.loss.backward()
    output.loss.backward()
    assert np.abs(ours.model.score.weight.grad - theirs.score.weight.grad.numpy()).max() < 1e-8
    table = ours.model.decoder.embed if hasattr(ours.model.decoder, "embed") else ours.model.decoder.token_embedding
    their_table = theirs.get_input_embeddings().weight.grad.numpy()
    assert np.abs(table.weight.grad[1:] - their_table[1:]).max() < 1e-8  # [1:]: they never train padding

    ours.save_pretrained(tmp_path / "ours")
    assert tensor_names(tmp_path / "ours") == tensor_names(tmp_path / "theirs")
    back = reload(cls, tmp_path / "ours")
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), back.parameters()))
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "ours"))
    assert {key: value for key, value in before.items() if after.get(key, "absent") != value} == {}


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("problem_type", LABELS)
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_every_loss(family, problem_type, engine, tmp_path):
    _, theirs = classifier(family, problem_type)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path, engine=engine)
    labels = LABELS[problem_type][1].astype(np.int64 if problem_type.startswith("single") else np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(PADDED), labels=torch.tensor(labels)).loss.item()
    inputs = [torch.tensor(a) if engine == "torch" else a for a in (PADDED, labels)]
    assert float(ours(inputs[0], labels=inputs[1]).loss.item()) == pytest.approx(expected, abs=1e-4)


def test_a_text_alone_and_in_a_padded_batch(tmp_path):
    """With a pad id, with a mask and no pad id (GPT-2 has none), and alone without either."""
    _, theirs = classifier("gpt2")
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    batch = model(PADDED).logits
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": None}))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert np.abs(model(IDS[1:, :6]).logits - batch[1]).max() < 1e-5
    assert np.abs(model(PADDED, PADDED != 0).logits - batch).max() < 1e-5
    with pytest.raises(ValueError, match="which tokens of 2 texts are padding"):
        model(PADDED)
    left = np.where(np.arange(11) >= np.array([[0], [5]]), 1, 0)  # the second row's six tokens behind padding
    ids = np.where(left == 1, IDS, 0)
    ids[1, 5:] = PADDED[1, :6]
    assert np.abs(model(ids, left).logits - batch).max() < 1e-5
    with pytest.warns(UserWarning, match=r"not used, as this model has no such head: score\.weight"):
        writer = AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Pad on the right"):  # where features are asked for, position by position
        writer(ids, left)


def test_a_new_head_on_a_pretrained_decoder(tmp_path):
    build("llama").save_pretrained(tmp_path)
    with pytest.warns(UserWarning) as caught:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5, pad_token_id=0)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "no weights for score.weight" in messages and "not used" in messages and "lm_head.weight" in messages
    assert model(PADDED).logits.shape == (2, 5) and model.config.id2label[4] == "LABEL_4"
    assert 0.005 < model.model.score.weight.data.std() < 0.04
    body = AutoModelForCausalLM.from_pretrained(tmp_path)
    features = body.model.hidden(IDS[:1]).data[:, -1]
    assert np.allclose(model(IDS[:1]).logits, features @ model.model.score.weight.data.T, atol=1e-5)


@pytest.mark.parametrize(
    ("decoder", "theirs"),
    [
        (GPTConfig(vocab_size=61, context=16, n_layers=2, n_heads=2, d_model=8), "GPT2ForSequenceClassification"),
        (
            LlamaConfig(61, 16, n_layers=1, n_heads=2, d_model=8, d_ff=12, qk_norm=True, tie_embeddings=True),
            "Qwen3ForSequenceClassification",
        ),
    ],
)
def test_a_classifier_made_here_is_a_transformers_model(decoder, theirs, tmp_path):
    model = Classifier(ClassifierConfig(decoder, n_labels=4, pad_id=0), np.random.default_rng(1)).eval()
    PretrainedModel(model).save_pretrained(tmp_path)
    loaded = reload(theirs, tmp_path)
    ids = PADDED % 61
    with torch.no_grad():
        expected = loaded(torch.tensor(ids)).logits.numpy()
    assert np.abs(model(ids).data - expected).max() < 1e-5
    assert loaded.config.pad_token_id == 0 and loaded.config.id2label[3] == "LABEL_3"
