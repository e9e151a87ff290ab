"""Checkpoints of transformers into minillm and back: names, numbers, ties, shards, dtypes, heads."""

import json

import numpy as np
import pytest
from hf_models import FAMILIES, IDS, build, for_tokens, reload, tensor_names, their_logits, torch

from minillm.beam import beam_search
from minillm.generate import Sampling, generate
from minillm.hub import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    ConfigurationError,
    PretrainedModel,
    WeightsError,
)
from minillm.hub.checkpoint import open_checkpoint
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
    config_to_dict,
)
from minillm.training.checkpoint import save_checkpoint


def auto_class(family):
    return AutoModelForMaskedLM if for_tokens(family) else AutoModelForCausalLM


# --- both directions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_float64_logits_are_those_of_transformers_in_both_directions(exact, family, tmp_path):
    theirs = build(family).double()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = auto_class(family).from_pretrained(tmp_path / "theirs")
    assert ours(IDS).logits.dtype == np.float64
    assert np.abs(ours(IDS).logits - their_logits(theirs)).max() < 1e-9

    ours.save_pretrained(tmp_path / "ours")
    assert tensor_names(tmp_path / "ours") == tensor_names(tmp_path / "theirs")
    back = reload(FAMILIES[family][1], tmp_path / "ours")
    assert np.abs(their_logits(back) - their_logits(theirs)).max() < 1e-9
    names = [dict(m.named_parameters()) for m in (theirs, back)]
    assert all(torch.equal(names[0][name], names[1][name]) for name in names[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_config_json_survives_the_round_trip(family, tmp_path):
    build(family).save_pretrained(tmp_path / "theirs")
    before = json.loads((tmp_path / "theirs/config.json").read_text())
    auto_class(family).from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    after = json.loads((tmp_path / "ours/config.json").read_text())
    lost = {key: value for key, value in before.items() if after.get(key, "absent") != value}
    assert lost == {}
    files = [tmp_path / name / "generation_config.json" for name in ("theirs", "ours")]
    assert files[0].exists() == files[1].exists() == (not for_tokens(family))
    if not for_tokens(family):
        assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("family", ["gpt2", "llama tied", "qwen3", "bert"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_shards(family, dtype, engine, tmp_path):
    theirs = build(family)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.to(getattr(torch, dtype)))
    expected = their_logits(theirs)
    theirs.to(getattr(torch, dtype)).save_pretrained(tmp_path / "theirs", max_shard_size="2KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 2
    ours = auto_class(family).from_pretrained(tmp_path / "theirs", engine=engine, dtype="float32")
    if engine == "numpy":
        assert ours(IDS).logits.dtype == np.float32
        assert np.abs(ours(IDS).logits - expected).max() < 2e-4
    else:
        with torch.no_grad():
            assert np.abs(ours(torch.tensor(IDS)).logits.numpy() - expected).max() < 2e-4

    files = ours.save_pretrained(tmp_path / "ours", dtype=dtype, max_shard_size="2KB")
    assert len(files) > 2 and json.loads((tmp_path / "ours/config.json").read_text())["dtype"] == dtype
    back = reload(FAMILIES[family][1], tmp_path / "ours")
    assert all(
        torch.equal(a, b) and b.dtype == getattr(torch, dtype) for a, b in zip(theirs.parameters(), back.parameters())
    )


def test_torch_takes_the_dtype_of_the_file_by_default(tmp_path):
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, engine="torch")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(tmp_path).parameters()} == {np.dtype("float32")}
    assert next(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=np.float64).parameters()).dtype == np.float64
    with pytest.raises(ValueError, match="float32 or float64, not bfloat16"):
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype="bfloat16")


# --- ties -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama tied", "qwen2", "bert"])
def test_a_tied_head_is_one_array_and_not_in_the_file(family, tmp_path):
    build(family).save_pretrained(tmp_path / "theirs")
    ours = auto_class(family).from_pretrained(tmp_path / "theirs")
    assert sum(p.shape == (61, 12) for p in ours.parameters()) == 1
    ours.save_pretrained(tmp_path / "ours")
    assert not any("lm_head" in name or "decoder" in name for name in tensor_names(tmp_path / "ours"))


def add_tensor(folder, name, array):
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    save_file({**load_file(path), name: np.ascontiguousarray(array)}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["gpt2", "llama tied"])
def test_a_second_copy_of_a_tied_head_must_be_equal(family, tmp_path):
    theirs = build(family)
    theirs.save_pretrained(tmp_path)
    table = theirs.get_input_embeddings().weight.detach().numpy()
    add_tensor(tmp_path, "lm_head.weight", table)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert np.abs(ours(IDS).logits - their_logits(theirs)).max() < 1e-4
    add_tensor(tmp_path, "lm_head.weight", table + 1)
    with pytest.raises(WeightsError, match=r"lm_head\.weight differs .*tie_word_embeddings"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls", ["GPT2Model", "GPT2LMHeadModel", "LlamaModel", "LlamaForCausalLM", "BertModel", "BertForMaskedLM"]
)
@pytest.mark.filterwarnings("ignore:.*not used, as this model has no such head")
def test_automodel_gives_features_from_any_checkpoint(cls, tmp_path):
    family = {"G": "gpt2", "L": "llama", "B": "bert"}[cls[0]]
    theirs = build(family, cls=cls)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModel.from_pretrained(tmp_path / "theirs")
    body = getattr(theirs, theirs.base_model_prefix, theirs)
    with torch.no_grad():
        expected = body(torch.tensor(IDS))
    output = ours(IDS)
    assert np.abs(output.last_hidden_state - expected.last_hidden_state.numpy()).max() < 1e-4
    if cls == "BertModel":
        assert np.abs(output.pooler_output - expected.pooler_output.numpy()).max() < 1e-5
    ours.save_pretrained(tmp_path / "ours")
    if cls == type(body).__name__:
        assert tensor_names(tmp_path / "ours") == tensor_names(tmp_path / "theirs")
    if cls != "BertForMaskedLM":  # that one's body has no pooler, which transformers' BertModel has
        back = reload(type(body).__name__, tmp_path / "ours")
        with torch.no_grad():
            same = back(torch.tensor(IDS)).last_hidden_state
        assert torch.allclose(same, expected.last_hidden_state, atol=1e-5)


def test_bert_with_types_mask_and_labels(tmp_path):
    theirs = build("bert", cls="BertForSequenceClassification", num_labels=3)
    theirs.config.id2label = {0: "bad", 1: "so-so", 2: "good"}
    theirs.config.label2id = {"bad": 0, "so-so": 1, "good": 2}
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    assert ours.config.id2label == {0: "bad", 1: "so-so", 2: "good"} and ours.config.num_labels == 3
    mask = np.arange(11) < np.array([[11], [6]])
    inputs = {
        "input_ids": IDS,
        "attention_mask": mask.astype(int),
        "token_type_ids": ((np.arange(11) > 4) * mask).astype(int),
    }
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    labels = np.array([2, 0])
    with torch.no_grad():
        expected = theirs(**tensors, labels=torch.tensor(labels))
    output = ours(**inputs, labels=labels)
    assert np.abs(output.logits - expected.logits.numpy()).max() < 1e-4
    assert output.loss.item() == pytest.approx(expected.loss.item(), abs=1e-4)
    assert output["logits"] is output.logits and output[1] is output.logits
    ours.save_pretrained(tmp_path / "ours")
    back = reload("BertForSequenceClassification", tmp_path / "ours")
    assert back.config.id2label == theirs.config.id2label
    assert AutoConfig.from_pretrained(tmp_path / "ours").label2id == {"bad": 0, "so-so": 1, "good": 2}


def test_the_loss_of_a_decoder_is_that_of_transformers(tmp_path):
    theirs = build("llama")
    theirs.save_pretrained(tmp_path)
    labels = np.where(np.arange(11) < 3, -100, IDS)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS), labels=torch.tensor(labels)).loss.item()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    loss = ours(IDS, labels=labels).loss
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    loss.backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_a_new_head_is_drawn_and_named(tmp_path):
    build("bert").save_pretrained(tmp_path)
    with pytest.warns(UserWarning) as caught:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "no weights for pooler.weight, pooler.bias, classifier.weight, classifier.bias" in messages
    assert "not used" in messages and "cls.predictions.bias" in messages
    assert model(IDS).logits.shape == (2, 5) and model.config.num_labels == 5
    assert 0.005 < model.model.classifier.weight.data.std() < 0.04


def test_greedy_generation_is_that_of_transformers(tmp_path):
    theirs = build("qwen3")
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = [[3, 4, 5], [9, 8, 7]]
    with torch.no_grad():
        expected = theirs.generate(torch.tensor(prompts), max_new_tokens=9, do_sample=False, pad_token_id=0)
    assert ours.generate(prompts, max_new_tokens=9).tolist() == expected.tolist()
    padded = np.array([[3, 4, 5], [9, 0, 0]])
    alone = ours.generate([[9]], max_new_tokens=4).tolist()[0]
    row = ours.generate(padded, [[1, 1, 1], [1, 0, 0]], max_new_tokens=4).tolist()[1]
    assert row == [9, 0, 0, *alone[1:]]  # padding comes back, new ids begin behind it
    stop = expected[0, 7].item()
    for eos in (stop, [stop, 1]):
        with torch.no_grad():
            stopped = theirs.generate(torch.tensor(prompts[:1]), max_new_tokens=9, eos_token_id=eos, pad_token_id=0)
        assert ours.generate(prompts[:1], max_new_tokens=9, eos_token_id=eos).tolist() == stopped.tolist()
    assert stopped[0, -1] == stop and stopped.shape[1] < 12


GREEDY = {"do_sample": False}


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_generation_follows_generation_config(family, tmp_path):
    """Greedy, with an end of text that comes, a repetition penalty and a length; what is given wins."""
    theirs = build(family)
    theirs.generation_config.update(eos_token_id=[7, 5], repetition_penalty=1.7, max_length=20, pad_token_id=0)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    for seed in range(6):
        prompt = np.random.default_rng(seed).integers(8, 61, (1, 4))
        for options in ({}, {"max_new_tokens": 3}, {"repetition_penalty": 1.0, "max_length": 15}):
            with torch.no_grad():
                expected = theirs.generate(torch.tensor(prompt), **options)
            assert ours.generate(prompt, **options).tolist() == expected.tolist()
    assert len(ours.generate([[9, 8]], max_new_tokens=12, eos_token_id=[])[0]) == 14
    ours.generation_config["do_sample"] = True
    drawn, greedy = ([ours.generate([[9, 8]], seed=i, **how).tolist() for i in (1, 2)] for how in ({}, GREEDY))
    assert drawn[0] != drawn[1] and greedy[0] == greedy[1]
    with pytest.raises(ValueError, match=r"max_length = 4 counts the prompt in, and the longest has 5 ids"):
        ours.generate([[9], [9, 8, 7, 6, 5]], max_length=4)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_beams_are_those_of_transformers(engine, tmp_path):
    """By argument and by generation_config.json; scores are compared in tests/test_beam.py."""
    theirs = build("gpt2")
    theirs.generation_config.update(eos_token_id=[7, 5, 11, 40], pad_token_id=0, num_beams=3, length_penalty=0.5)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, engine=engine)
    prompts = [[3, 4, 5], [9, 8, 17]]
    cases = ({}, {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"}, {"num_return_sequences": 3},
             {"num_beams": 5, "num_return_sequences": 2, "early_stopping": True}, {"num_beams": 1})  # fmt: skip
    for options in cases:
        with torch.no_grad():
            expected = theirs.generate(torch.tensor(prompts), max_new_tokens=9, **options).tolist()
        made = ours.generate(prompts, max_new_tokens=9, **options).tolist()
        assert len(made) == len(expected)
        for row, padded in zip(made, expected):
            n = len(row) if row[-1] else row.index(0)
            assert row[:n] == padded[:n] and set(row[n:]) <= {0}
            assert set(padded[n:]) <= {0, 7}  # to their beam search a pad_token_id of 0 is none
    refused = {
        "with num_beams = 3, do_sample must be False": {"do_sample": True},
        "num_return_sequences = 2 needs do_sample, or num_beams": {"num_beams": 1, "num_return_sequences": 2},
        "n_return = 4 must be at most n_beams = 3": {"num_return_sequences": 4},
        "n_beams = 0 must be at least 1": {"num_beams": 0},
    }
    for message, options in refused.items():
        with pytest.raises(ValueError, match=message):
            ours.generate(prompts, **options)


def test_sampling_keeps_the_50_likeliest_unless_told_otherwise(tmp_path):
    theirs = build("gpt2")
    assert theirs.generation_config._get_default_generation_params()["top_k"] == 50
    with torch.no_grad():
        theirs.transformer.wte.weight.mul_(0.01)  # logits nearly equal: what is kept is drawn
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    sample = {"max_new_tokens": 1, "do_sample": True, "eos_token_id": []}
    drawn = {k: {ours.generate([[9]], **sample, seed=i, **k_of)[0][1] for i in range(400)} for k, k_of in KEPT.items()}
    assert drawn["default"] == drawn["50"] and len(drawn["50"]) <= 50 < len(drawn["all"])


KEPT = {"default": {}, "50": {"top_k": 50}, "all": {"top_k": 0}}


SETTINGS = [{"token": "secret"}, {"cache_dir": "x"}, {"local_files_only": True}, {"dtype": "auto"}, {"pad_token_id": 3}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_arguments_for_the_hub_are_not_saved(settings, tmp_path):
    build("llama").save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path, **settings).save_pretrained(tmp_path / "ours")
    before, after = (json.loads((path / "config.json").read_text()) for path in (tmp_path, tmp_path / "ours"))
    changed = {key: after[key] for key in after if key in settings or (key in before and before[key] != after[key])}
    assert {key: value for key, value in changed.items() if key != "dtype"} == (
        settings if "pad_token_id" in settings else {}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_chosen_by_the_name_that_transformers_has_for_it(family, tmp_path):
    theirs = build(family)
    theirs.save_pretrained(tmp_path)
    for name in ("auto", "eager", "reference", "sdpa"):
        ours = auto_class(family).from_pretrained(tmp_path, engine="torch", attn_implementation=name)
        assert ours.model.config.attention == {"eager": "reference"}.get(name, name)
        np.testing.assert_allclose(ours(torch.tensor(IDS)).logits.detach(), their_logits(theirs), atol=1e-4)
        ours.save_pretrained(tmp_path / name)  # it is no property of the weights
        assert "attention" not in json.loads((tmp_path / name / "config.json").read_text())
    for wrong, message in (("flash_attention_2", "flash attention is 'triton'"), ("triton", "Use engine='torch'")):
        with pytest.raises(ValueError, match=message):
            auto_class(family).from_pretrained(tmp_path, attn_implementation=wrong)


def test_attention_of_classifiers_and_of_models_made_here(tmp_path):
    build("gpt2", cls="GPT2ForSequenceClassification", num_labels=3).save_pretrained(tmp_path / "labels")
    options = {"engine": "torch", "attn_implementation": "sdpa"}
    labels = AutoModelForSequenceClassification.from_pretrained(tmp_path / "labels", **options)
    assert labels.model.config.decoder.attention == "sdpa"

    model = GPT(GPTConfig(vocab_size=30, context=8, n_layers=1, n_heads=1, d_model=8, attention="triton"))
    PretrainedModel(model, "causal").save_pretrained(tmp_path / "gpt")
    arrays = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(tmp_path / "native", config=config_to_dict(model.config), **arrays, state={}, tokenizer=None)
    for folder in ("gpt", "native"):  # trained on a card, loaded without one
        assert AutoModelForCausalLM.from_pretrained(tmp_path / folder)([[1, 2]]).logits.shape == (1, 2, 30)

    with pytest.raises(TypeError, match="attention = 'reference' is called attn_implementation here"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "gpt", attention="reference")

    body = GPTConfig(vocab_size=30, context=8, n_layers=1, n_heads=1, d_model=8, attention="triton")
    labels = Classifier(ClassifierConfig(body))
    arrays = {"model": labels.state_dict(), "optimizer": {}}
    save_checkpoint(tmp_path / "own", config=config_to_dict(labels.config), **arrays, state={}, tokenizer=None)
    assert open_checkpoint(tmp_path / "own").model().config.decoder.attention == "auto"

    PretrainedModel(LSTM(LSTMConfig(vocab_size=30, d_model=8)), "causal").save_pretrained(tmp_path / "lstm")
    with pytest.raises(ValueError, match="has no attention"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "lstm", **options)


@pytest.mark.parametrize(
    ("name", "says"),
    [("device_map", "not supported here. Use device="), ("use_flash", "no entry of"), ("nonsense", "no entry of")],
)
def test_an_argument_that_would_be_ignored_is_refused(name, says, tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=f"{name} = 'auto' is {says}"):
        AutoModelForCausalLM.from_pretrained(tmp_path, **{name: "auto"})


def test_the_old_name_of_dtype(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, engine="torch", torch_dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert "torch_dtype" not in model.config.values


STRETCHED = {
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "finetuned": True},
    "linear": {"rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 24},
    "yarn without a factor": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 12},
    "default": {"rope_type": "default", "partial_rotary_factor": 1.0},
}


@pytest.mark.parametrize("name", STRETCHED)
def test_texts_beyond_the_length_before_stretching(name, tmp_path):
    """Qwen2.5's yarn and vicuna's linear scaling stand beside the length that the model had before."""
    theirs = build("qwen2", rope_parameters={"rope_theta": 500.0, **STRETCHED[name]})
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(0, 61, (1, 24 if "without" in name or name == "default" else 90))
    assert np.abs(ours(ids).logits - their_logits(theirs, ids)).max() < 5e-4
    ours.save_pretrained(tmp_path / "ours")
    before, after = (json.loads((tmp_path / n / "config.json").read_text()) for n in ("theirs", "ours"))
    assert after["max_position_embeddings"] == before["max_position_embeddings"] == 24
    back = reload("Qwen2ForCausalLM", tmp_path / "ours")
    assert np.abs(their_logits(back, ids) - their_logits(theirs, ids)).max() < 1e-5


@pytest.mark.parametrize(
    "cls", ["BertForQuestionAnswering", "BertForTokenClassification", "GPT2ForTokenClassification"]
)
@pytest.mark.filterwarnings("ignore:.*not used, as this model has no such head")
def test_bodies_of_other_heads(cls, tmp_path):
    theirs = build("bert" if cls.startswith("Bert") else "gpt2", cls=cls)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.base_model(torch.tensor(IDS)).last_hidden_state.numpy()
    assert np.abs(AutoModel.from_pretrained(tmp_path)(IDS).last_hidden_state - expected).max() < 1e-4


def test_padding_on_the_left_of_a_decoder_is_refused(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    right = model(IDS, np.arange(11) < np.array([[11], [4]])).logits
    assert np.allclose(right[1, :4], model(IDS[1:, :4]).logits[0], atol=1e-5)
    with pytest.raises(ValueError, match="Pad on the right"):
        model(IDS, np.arange(11) >= np.array([[0], [4]]))


# --- models made here -------------------------------------------------------------------------------------------------

OURS = {
    "gpt": (GPT, GPTConfig(vocab_size=61, context=16, n_layers=2, n_heads=2, d_model=8), "GPT2LMHeadModel"),
    "llama": (
        Llama,
        LlamaConfig(vocab_size=61, context=16, n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_ff=24),
        "LlamaForCausalLM",
    ),
    "qwen3": (
        Llama,
        LlamaConfig(61, 16, n_layers=1, n_heads=2, d_model=8, d_ff=12, qk_norm=True, tie_embeddings=True),
        "Qwen3ForCausalLM",
    ),
    "bert": (Bert, BertConfig(61, 16, 2, 2, 8, 12, dropout=0.0, pad_id=0), "BertForMaskedLM"),
    "bert pretraining": (Bert, BertConfig(61, 16, 2, 2, 8, 12, next_sentence=True), "BertForPreTraining"),
    "classifier": (
        Bert,
        BertConfig(61, 16, 2, 2, 8, 12, head="classification", n_labels=4),
        "BertForSequenceClassification",
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_a_model_made_here_is_a_transformers_model(name, tmp_path):
    cls, config, theirs = OURS[name]
    model = cls(config, np.random.default_rng(1)).eval()
    PretrainedModel(model).save_pretrained(tmp_path)
    loaded = reload(theirs, tmp_path)
    ids = np.arange(1, 11).reshape(2, 5)
    with torch.no_grad():
        expected = loaded(torch.tensor(ids))[0].numpy()
    assert np.abs(model(ids).data - expected).max() < 1e-5
    assert loaded.config.eos_token_id is None  # not the 50256 that a vocabulary of 61 lacks


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_an_encoder_decoder_in_our_own_format(engine, tmp_path):
    config = EncoderDecoderConfig(61, context=16, n_layers=1, n_heads=2, d_model=8, d_ff=12, dropout=0.0, pad_id=0)
    model = EncoderDecoder(config, np.random.default_rng(2)).eval()
    PretrainedModel(model).save_pretrained(tmp_path, max_shard_size="1KB")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, engine=engine)
    source, target = np.array([[5, 6, 7], [8, 9, 0]]), np.array([[1, 4], [1, 3]])
    arrays = [torch.tensor(a) if engine == "torch" else a for a in (source, target)]
    output = again(arrays[0], decoder_input_ids=arrays[1], labels=arrays[1])
    expected = model(source, target, target).item()
    assert float(output.loss.item()) == pytest.approx(expected, abs=1e-5)
    assert tuple(output.logits.shape) == (2, 2, 61)
    new = generate(model.given(source), [[1], [1]], max_new_tokens=5, sampling=Sampling(temperature=0))
    made = again.generate(arrays[0], max_new_tokens=5, decoder_start_token_id=1)
    assert made.tolist() == [[1, *row] for row in new]
    found = beam_search(model.given(source), [[1], [1]], max_new_tokens=5, n_beams=3, n_return=2)
    made = again.generate(
        arrays[0], max_new_tokens=5, decoder_start_token_id=1, num_beams=3, num_return_sequences=2, length_penalty=1.0
    )
    assert made.tolist() == [[1, *new.ids] for best in found for new in best]
    with pytest.raises(ValueError, match="needs decoder_input_ids"):
        again(arrays[0])
    with pytest.raises(ValueError, match="needs decoder_start_token_id"):
        again.generate(arrays[0])
    with pytest.raises(WeightsError, match="made for 'seq2seq'"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_another_head_on_a_model_in_our_own_format(tmp_path):
    model = Bert(BertConfig(61, 16, 2, 2, 8, 12, dropout=0.0))
    config = config_to_dict(model.config)
    save_checkpoint(tmp_path, config=config, model=model.state_dict(), optimizer={}, state={}, tokenizer=None)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path)(IDS).logits.shape == (2, 11, 61)
    for cls in (AutoModel, AutoModelForSequenceClassification):
        with pytest.raises(WeightsError, match=r"made for 'mlm', in minillm's own format.*convert it first"):
            cls.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="num_labels = 3 is no entry"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)


def test_a_shape_that_no_architecture_has_is_refused(tmp_path):
    config = LlamaConfig(61, 16, n_layers=1, n_heads=2, d_model=8, d_ff=12, out_bias=True)
    with pytest.raises(ConfigurationError, match="out_bias = True"):
        PretrainedModel(Llama(config))
    model = LSTM(LSTMConfig(vocab_size=30, d_model=8))
    PretrainedModel(model).save_pretrained(tmp_path)  # in minillm's own format
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert np.array_equal(again(IDS % 30).logits, model(IDS % 30).data)
    with pytest.raises(WeightsError, match="made for 'causal'"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt2", {"activation_function": "relu"}, "a gpt2 with activation_function = 'relu'"),
        ("gpt2", {"n_inner": -7}, "ff_features = -7"),
        ("gpt2", {"layer_norm_epsilon": 0.0}, "norm_eps = 0.0 must be above 0"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("qwen2", {"mlp_bias": True}, "a qwen2 with mlp_bias = True"),
        ("mistral", {"layer_types": ["full_attention"] * 2}, "called 'ministral'"),
        ("mistral", {"sliding_window": 0}, "sliding_window = 0 must be a whole number, or null"),
        ("ministral", {"layer_types": ["sliding_attention"]}, "must be a list of 2"),
        ("ministral", {"layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
        ("llama", {"layer_types": ["sliding_attention"] * 2}, "only 'full_attention'"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, r"a llama with quantized weights \(gptq\)"),
        ("roberta", {"pad_token_id": None}, "pad_token_id = None must be an id"),
        ("roberta", {"pad_token_id": 23}, "pad_token_id = 23 must be an id"),
        ("distilbert", {"activation": "relu"}, "a distilbert with activation = 'relu'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1.0}}, "longrope"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "need use_sliding_window = true"),
        ("qwen2", {"use_sliding_window": True, "layer_types": None, "max_window_layers": "2"}, "max_window_layers"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("bert", {"model_type": "deberta"}, "'deberta' is not an architecture that minillm has"),
        ("gpt2", {"model_type": "bert"}, "a bert has no 'causal' head; gpt2, llama, mistral, ministral, "),
        ("gpt2", {"n_head": 5}, "n_heads = 5"),
        ("llama", {"rope_parameters": [1, 2]}, r"rope_parameters .* = \[1, 2\] must be an object"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}}, "above 1"),
        ("llama", {"rope_parameters": {"rope_theta": "many"}}, "rope_theta = 'many' must be a number"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused(family, changes, message, tmp_path):
    build(family).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(ConfigurationError, match=message):
        auto_class(family).from_pretrained(tmp_path)


def test_configs_from_before_rope_parameters(tmp_path):
    theirs = build("llama 3.1")
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    scaling = values.pop("rope_parameters")
    values["rope_theta"] = scaling.pop("rope_theta")
    values["rope_scaling"] = scaling
    path.write_text(json.dumps(values))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert np.abs(ours(IDS).logits - their_logits(theirs)).max() < 2e-4


def test_names_of_2018_and_constants_in_old_files(tmp_path):
    from safetensors.numpy import load_file, save_file

    for family in ("bert", "gpt2"):
        theirs = build(family)
        theirs.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        tensors = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
            for name, array in tensors.items()
        }
        if family == "gpt2":
            tensors["transformer.h.0.attn.bias"] = np.tril(np.ones((24, 24), np.uint8))
            tensors["transformer.h.0.attn.masked_bias"] = np.float32([-1e4])
        else:
            tensors["bert.embeddings.position_ids"] = np.arange(24)
            tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
            tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
        save_file(tensors, tmp_path / "model.safetensors")
        ours = auto_class(family).from_pretrained(tmp_path)
        assert np.abs(ours(IDS).logits - their_logits(theirs)).max() < 2e-4
