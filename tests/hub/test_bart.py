"""BART's and Marian's checkpoints, in and out, against transformers."""

import json

import numpy as np
import pytest
from hf_models import IDS, reload, tensor_names, torch
from hf_writers import CLASSES, random_model

from minillm.generate import Sampling, generate
from minillm.hub import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    ConfigurationError,
    PretrainedModel,
)
from minillm.hub.checkpoint import open_checkpoint
from minillm.models import ClassifierConfig, EncoderDecoder, EncoderDecoderConfig

TARGET = np.random.default_rng(5).integers(3, 61, (2, 7))
MASK = (np.arange(11) < [[11], [7]]).astype(int)


def compare(kind, seed, engine, folder):
    theirs = random_model(kind, seed).double()
    theirs.save_pretrained(folder / "theirs")
    ours = AutoModelForSeq2SeqLM.from_pretrained(folder / "theirs", engine=engine)
    labels = np.where(np.arange(7) < [[7], [4]], TARGET, -100)
    given = {"input_ids": IDS, "attention_mask": MASK, "labels": labels}
    wanted = {"output_hidden_states": True, "output_attentions": True}
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        expected = theirs(**{name: torch.tensor(value) for name, value in given.items()}, **wanted)
    inputs = {name: value if engine == "numpy" else torch.tensor(value) for name, value in given.items()}
    output = ours(**inputs, **wanted)
    shown = [output.logits, output.encoder_last_hidden_state]
    for name in ("decoder_hidden_states", "decoder_attentions", "cross_attentions", "encoder_hidden_states"):
        assert len(output[name]) == len(expected[name])
        shown += output[name]
    hidden = [expected.logits, expected.encoder_last_hidden_state, *expected.decoder_hidden_states]
    hidden += [*expected.decoder_attentions, *expected.cross_attentions, *expected.encoder_hidden_states]
    for a, b in zip(shown, hidden, strict=True):
        a, b = a if engine == "numpy" else a.detach().numpy(), b.numpy()
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-9
    assert float(output.loss.item()) == pytest.approx(expected.loss.item(), abs=1e-9)

    ours.save_pretrained(folder / "ours")
    assert tensor_names(folder / "ours") == tensor_names(folder / "theirs")
    back = reload(CLASSES[kind][1], folder / "ours")
    names = [dict(m.named_parameters()) for m in (theirs, back)]
    assert all(torch.equal(names[0][name], names[1][name]) for name in names[0])
    assert torch.equal(theirs.final_logits_bias, back.final_logits_bias)
    before, after = (json.loads((folder / name / "config.json").read_text()) for name in ("theirs", "ours"))
    assert {key: value for key, value in before.items() if after.get(key, "absent") != value} == {}

    for options in ({}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.3}):
        with torch.no_grad():
            ids, mask = torch.tensor(IDS), torch.tensor(MASK)
            rows = theirs.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **options).tolist()
        found = ours.generate(inputs["input_ids"], inputs["attention_mask"], max_new_tokens=8, **options)
        pad = theirs.config.pad_token_id
        found = [list(np.asarray(row).tolist()) for row in found]
        longest = max(len(row) for row in found)
        found = [row + [pad] * (longest - len(row)) for row in found]
        assert found == rows or np.allclose(chances(theirs, found), chances(theirs, rows), rtol=0, atol=1e-12)


def chances(model, rows):
    """The log-probability of each text: two that tie may stand in either order."""
    times = len(rows) // len(IDS)
    ids, mask = (torch.tensor(np.repeat(a, times, axis=0)) for a in (IDS, MASK))
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=torch.tensor(rows)[:, :-1]).logits
    chosen = logits.log_softmax(-1).gather(2, torch.tensor(rows)[:, 1:, None])
    return chosen.sum(dim=(1, 2)).numpy()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("kind", CLASSES)
def test_values_files_and_texts_are_those_of_transformers(exact, kind, engine, tmp_path):
    compare(kind, len(engine), engine, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_hundred_random_configs(exact, kind, engine, tmp_path):
    for seed in range(100):
        compare(kind, 1000 + seed, engine, tmp_path / str(seed))


@pytest.mark.parametrize("kind", CLASSES)
def test_decoding_with_a_cache_gives_what_it_gives_without(kind, tmp_path):
    random_model(kind, 3).save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).model
    given = model.given(IDS, MASK)
    found = [generate(given, [[2], [2]], max_new_tokens=12, use_cache=cached, sampling=Sampling(temperature=0))
             for cached in (True, False)]  # fmt: skip
    assert found[0] == found[1] and len(found[0][0]) == 12


def test_what_would_compute_something_else_is_refused(tmp_path):
    for kind, setting, value, said in (
        ("bart", "decoder_ffn_dim", 99, r"decoder_ffn_dim = 99 must be encoder_ffn_dim, \d+"),
        ("bart", "activation_function", "gelu_new", "'gelu_new' must be gelu, relu, silu or swish"),
        ("bart", "scale_embedding", "yes", "scale_embedding of a bart must be of type bool"),
        ("bart", "pad_token_id", "x", "pad_token_id of a bart must be of type int"),
        ("marian", "share_encoder_decoder_embeddings", False, "share_encoder_decoder_embeddings = False, which must"),
        ("marian", "decoder_vocab_size", 7, "decoder_vocab_size = 7 must be vocab_size, 61"),
    ):
        random_model(kind, 1).save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
        with pytest.raises(ConfigurationError, match=said):
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_the_model_of_2017_stays_our_own(tmp_path):
    model = EncoderDecoder(EncoderDecoderConfig(vocab_size=31, context=8, n_layers=1, n_heads=2, d_model=8, d_ff=12))
    PretrainedModel(model).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "encoder-decoder"
    with pytest.raises(ValueError, match="first_position = 9 must be 0 to 8"):
        EncoderDecoderConfig(first_position=9)
    with pytest.raises(ValueError, match="start_id = 31 is outside"):
        EncoderDecoderConfig(vocab_size=31, start_id=31)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_old_files_more_tokens_and_ids_that_are_written(engine, tmp_path):
    """The table may stand in a file under each of its names, Marian's waves too."""
    from safetensors.torch import load_file, save_file

    theirs = random_model("marian", 4)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("lm_head.weight", "model.encoder.embed_tokens.weight"):
        tensors[name] = tensors["model.shared.weight"].clone()
    tensors["model.encoder.embed_positions.weight"] = torch.zeros(24, theirs.config.d_model)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, engine=engine)
    ids, target = (IDS, TARGET) if engine == "numpy" else (torch.tensor(IDS), torch.tensor(TARGET))
    before = np.asarray(ours(ids, decoder_input_ids=target, return_dict=False)[0].data)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS), decoder_input_ids=torch.tensor(TARGET)).logits.numpy()
    assert np.abs(before - expected).max() < 1e-4
    ours.resize_token_embeddings(64)
    after = np.asarray(ours(ids, decoder_input_ids=target).logits.data)
    assert after.shape[-1] == 64 and np.abs(after[..., :61] - before).max() < 1e-5
    ours.config.decoder_start_token_id = ours.generation_config.decoder_start_token_id = 7
    assert ours.prepare_decoder_input_ids_from_labels(target)[:, 0].tolist() == [7, 7]
    assert ours.generate(ids, max_new_tokens=3)[0][0] == 7
    with pytest.raises(ValueError, match="needs decoder_input_ids"):
        ours(ids)


def compare_heads(seed, engine, folder):
    """A BART without a head, and one that labels texts."""
    rng = np.random.default_rng(seed)
    ids = np.where(MASK == 1, IDS, 1)
    ids[:, 0], ids[0, 10], ids[1, 6] = 0, 2, 2
    for name in ("BartModel", "BartForSequenceClassification"):
        options = {"num_labels": int(rng.integers(1, 6))} if "Classification" in name else {}
        theirs = random_model("bart", seed, name, **options).double()
        theirs.save_pretrained(folder / "theirs")
        given = {"input_ids": ids, "attention_mask": MASK}
        auto, labels = AutoModel, {}
        if options:
            auto, n = AutoModelForSequenceClassification, options["num_labels"]
            labels = {"labels": np.array([[0.5], [1.0]]) if n == 1 else np.array([0, n - 1])}
        wrap = (lambda value: value) if engine == "numpy" else torch.tensor
        ours = auto.from_pretrained(folder / "theirs", engine=engine)
        with torch.no_grad():
            expected = theirs(**{key: torch.tensor(value) for key, value in {**given, **labels}.items()})
        output = ours(**{key: wrap(value) for key, value in {**given, **labels}.items()})
        names = ["logits"] if options else ["last_hidden_state", "encoder_last_hidden_state"]
        for key in names:
            found = output[key] if engine == "numpy" else output[key].detach().numpy()
            assert found.shape == expected[key].shape and np.abs(found - expected[key].numpy()).max() < 1e-9
        if options:
            assert float(output.loss.item()) == pytest.approx(expected.loss.item(), abs=1e-9)
        ours.save_pretrained(folder / "ours")
        assert tensor_names(folder / "ours") == tensor_names(folder / "theirs")
        back = reload(name, folder / "ours")
        assert all(torch.equal(a, b) for a, b in zip(theirs.state_dict().values(), back.state_dict().values()))
        before, after = (json.loads((folder / part / "config.json").read_text()) for part in ("theirs", "ours"))
        assert {key: value for key, value in before.items() if after.get(key, "absent") != value} == {}


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_other_heads_are_those_of_transformers(exact, engine, tmp_path):
    compare_heads(len(engine), engine, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_other_heads_of_a_hundred_random_configs(exact, engine, tmp_path):
    for seed in range(100):
        compare_heads(1000 + seed, engine, tmp_path / str(seed))


def test_a_marian_without_its_head_is_refused_before_weights_are_read(tmp_path):
    random_model("marian", 1).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["MarianModel"]}))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"\['MarianModel'\] is not supported: MarianMTModel are"):
        open_checkpoint(tmp_path)
    with pytest.raises(ConfigurationError, match="a marian has no 'base' head"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"end_id = None and decoder\.start_id = None must be ids"):
        ClassifierConfig(EncoderDecoderConfig())
