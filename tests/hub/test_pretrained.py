"""A PretrainedModel under the hands of somebody who comes from transformers."""

import copy
import json

import numpy as np
import pytest
from hf_models import IDS, build, reload, torch, transformers

from minillm.hub import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    Output,
    PretrainedModel,
    WeightsError,
)
from minillm.models import LSTM, EncoderDecoder, EncoderDecoderConfig, GPTConfig, LSTMConfig, model_from_config

ENGINES = ["numpy", "torch"]
AUTO = {"gpt2": AutoModelForCausalLM, "llama": AutoModelForCausalLM, "qwen3": AutoModelForCausalLM}
AUTO["bert"] = AutoModelForMaskedLM


def given(ids, engine):
    return ids if engine == "numpy" else torch.tensor(ids)


def array(value):
    return value if isinstance(value, np.ndarray) else value.detach().numpy()


def random_shape(family, rng):
    """Settings of a small model of the family."""
    heads, width = int(rng.integers(1, 4)), 2 * int(rng.integers(1, 4))
    n = {"vocab_size": int(rng.integers(61, 80))}
    if family == "gpt2":
        return {**n, "n_head": heads, "n_embd": heads * width, "n_layer": int(rng.integers(1, 4))}
    shape = {"num_attention_heads": heads, "hidden_size": heads * width, "num_hidden_layers": int(rng.integers(1, 4))}
    decoder = {} if family == "bert" else {"num_key_value_heads": 1, "head_dim": width}
    return {**n, **shape, **decoder, "intermediate_size": int(rng.integers(5, 30))}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", AUTO)
def test_hidden_states_and_attentions_are_those_of_transformers(exact, family, engine, tmp_path):
    rng = np.random.default_rng(len(family))
    for seed in range(3):
        theirs = build(family, seed, **random_shape(family, rng), attn_implementation="eager").double()
        theirs.save_pretrained(tmp_path)
        ours = AUTO[family].from_pretrained(tmp_path, engine=engine)
        mask = (np.arange(11) < [[11], [7]]).astype(int)
        with torch.no_grad():
            wanted = {"output_hidden_states": True, "output_attentions": True}
            labels = torch.tensor(np.where(mask == 1, IDS, -100))
            expected = theirs(torch.tensor(IDS), attention_mask=torch.tensor(mask), labels=labels, **wanted)
        output = ours(given(IDS, engine), given(mask, engine), labels=given(labels.numpy(), engine), **wanted)
        assert list(output) == [key for key in expected if key in output]
        for name in ("hidden_states", "attentions"):
            assert len(output[name]) == len(expected[name])
            for a, b in zip(output[name], expected[name]):
                seen = mask[:, :, None] if name == "hidden_states" else mask[:, None, :, None]
                assert np.abs((array(a) - b.numpy()) * seen).max() < 1e-9
        assert float(output.loss.item()) == pytest.approx(expected.loss.item(), abs=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_classifier_and_a_model_without_a_head_show_the_same_inside(family, tmp_path):
    name = {"gpt2": "GPT2ForSequenceClassification", "bert": "BertForSequenceClassification"}[family]
    theirs = build(family, cls=name, pad_token_id=0, attn_implementation="eager")
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS), output_hidden_states=True, output_attentions=True)
    with pytest.warns(UserWarning, match="not used"):
        body = AutoModel.from_pretrained(tmp_path)
    for ours in (AutoModelForSequenceClassification.from_pretrained(tmp_path), body):
        output = ours(IDS, output_hidden_states=True, output_attentions=True)
        for a, b in zip(output.hidden_states + output.attentions, expected.hidden_states + expected.attentions):
            assert np.abs(a - b.numpy()).max() < 1e-4
    assert output.last_hidden_state is output[0] and np.array_equal(output.hidden_states[-1], output[0])


def test_our_own_models_show_their_inside_too():
    shape = {"vocab_size": 31, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 8, "d_ff": 12}
    model = EncoderDecoder(EncoderDecoderConfig(**shape, norm="pre", pad_id=0), np.random.default_rng(0)).eval()
    source = np.array([[3, 4, 5, 0], [6, 7, 8, 9]])
    output = PretrainedModel(model)(
        source, decoder_input_ids=source[:, :3], output_hidden_states=True, output_attentions=True
    )
    assert np.allclose(output.cross_attentions[0].sum(-1), 1) and output.cross_attentions[1].shape == (2, 2, 3, 4)
    assert (output.cross_attentions[0][0, :, :, 3] == 0).all() and (output.encoder_attentions[1][0, ..., 3] == 0).all()
    assert np.allclose(output.encoder_hidden_states[-1], model.encode(source).data)
    assert np.allclose(output.decoder_hidden_states[-1] @ model.head.weight.data.T, output.logits, atol=1e-6)
    with pytest.raises(ValueError, match="LSTM has no blocks"):
        PretrainedModel(LSTM(LSTMConfig(vocab_size=30, d_model=8)))(IDS % 30, output_hidden_states=True)


# --- what comes back --------------------------------------------------------------------------------------------------


def test_an_output_is_read_by_key_by_place_and_by_attribute(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    output = model(IDS, labels=IDS)
    assert list(output) == ["loss", "logits"] == list(output.keys()) and "attentions" not in output
    assert output["logits"] is output.logits is output[1] is output[-1] and output[:1] == (output.loss,)
    assert output.hidden_states is None and len(output) == 2 and isinstance(output, dict)
    loss, logits = model(IDS, labels=IDS, return_dict=False)
    assert loss.item() == output.loss.item() and np.array_equal(logits, output.logits)
    with pytest.raises(KeyError, match="no 'attentions'; it has loss, logits"):
        output["attentions"]
    with pytest.raises(AttributeError, match="no 'logit'"):
        output.logit  # noqa: B018
    with pytest.raises(TypeError, match="'logit' is not one of"):
        Output(logit=1)
    again = copy.deepcopy(output)
    assert type(again) is Output and np.array_equal(again.logits, output.logits)


def test_arguments_that_mean_nothing_are_none_and_others_are_refused(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    plain = model(IDS).logits
    assert np.array_equal(model(IDS, inputs_embeds=None, past_key_values=None, use_cache=False).logits, plain)
    with pytest.raises(TypeError, match=r"takes no position_ids\. See"):
        model(IDS, position_ids=IDS)
    with pytest.raises(TypeError, match="needs input_ids"):
        model(labels=IDS)


# --- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_the_config_can_be_written_and_is_followed(engine, tmp_path):
    theirs = build("gpt2", cls="GPT2ForSequenceClassification", num_labels=3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs", engine=engine)
    padded = np.where(np.arange(11) < [[11], [5]], IDS, 0)
    with pytest.raises(ValueError, match="which tokens of 2 texts"):
        ours(given(padded, engine))
    ours.config.pad_token_id = theirs.config.pad_token_id = 0
    with torch.no_grad():
        expected = theirs(torch.tensor(padded)).logits.numpy()
    assert np.abs(array(ours(given(padded, engine)).logits) - expected).max() < 1e-4
    ours.config.problem_type = theirs.config.problem_type = "multi_label_classification"
    marks = np.array([[1.0, 0, 1], [0, 0, 1]], np.float32)
    with torch.no_grad():
        loss = theirs(torch.tensor(padded), labels=torch.tensor(marks)).loss.item()
    assert ours(given(padded, engine), labels=given(marks, engine)).loss.item() == pytest.approx(loss, abs=1e-5)
    ours.config.id2label = {0: "bad", 1: "so-so", 2: "good"}
    ours.config.use_cache = False
    ours.config.output_hidden_states = True
    assert len(ours(given(padded, engine)).hidden_states) == 3
    ours.config.output_hidden_states = False
    ours.save_pretrained(tmp_path / "ours")
    saved = json.loads((tmp_path / "ours/config.json").read_text())
    assert saved["pad_token_id"] == 0 and saved["use_cache"] is False and saved["label2id"]["good"] == 2
    back = reload("AutoModelForSequenceClassification", tmp_path / "ours")
    assert back.config.id2label[1] == "so-so" and back.config.problem_type == "multi_label_classification"


def test_what_the_weights_have_settled_is_not_written(tmp_path):
    build("bert", cls="BertForSequenceClassification").save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    before = model.config.to_dict()
    with pytest.raises(ValueError, match=r"config.hidden_size = 24: the model is built with 12\."):
        model.config.hidden_size = 24
    with pytest.raises(ValueError, match="3 labels, and the head has 2"):
        model.config.num_labels = 3
    model.config.hidden_size = 12
    assert model.config.to_dict() == before
    lstm = PretrainedModel(LSTM(LSTMConfig(vocab_size=30, d_model=8)))
    with pytest.raises(ValueError, match="built with 8"):
        lstm.config.d_model = 9
    lstm.config.eos_token_id = 3
    assert lstm.config.eos_token_id == 3 and lstm.config.get("no_such", 7) == 7
    assert json.loads(model.config.to_json_string())["hidden_size"] == 12


def test_an_autoconfig_with_changes_is_what_the_model_is_built_by(tmp_path):
    build("bert").save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
    config.num_labels = 4
    config.output_attentions = True
    with pytest.warns(UserWarning):  # of a new head, and of an old one
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path, config=config, hidden_dropout_prob=0.3)
    output = model(IDS)
    assert output.logits.shape == (2, 4) and len(output.attentions) == 2
    assert model.model.config.dropout == 0.3


# --- from_pretrained --------------------------------------------------------------------------------------------------


def test_arguments_of_from_pretrained(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    harmless = {"trust_remote_code": False, "low_cpu_mem_usage": True, "use_safetensors": True, "device_map": None}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, torch_dtype="auto", attn_implementation="eager", output_hidden_states=True, **harmless
    )
    assert len(model(IDS).hidden_states) == 3
    for name, value in {"trust_remote_code": True, "load_in_4bit": True, "device_map": "auto"}.items():
        with pytest.raises(TypeError, match=f"from_pretrained: {name} = {value!r} is not supported here"):
            AutoModelForCausalLM.from_pretrained(tmp_path, **{name: value})


@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_of_labels(engine, tmp_path):
    theirs = build("bert", cls="BertForSequenceClassification", num_labels=3)
    theirs.save_pretrained(tmp_path)
    auto = AutoModelForSequenceClassification
    with pytest.raises(WeightsError, match=r"(?s)classifier.bias is \(3,\), not \(5,\).*ignore_mismatched_sizes=True"):
        auto.from_pretrained(tmp_path, num_labels=5, engine=engine)
    with pytest.warns(UserWarning, match=r"classifier.weight, classifier.bias in another shape: drawn at random"):
        ours = auto.from_pretrained(tmp_path, num_labels=5, engine=engine, ignore_mismatched_sizes=True)
    assert ours(given(IDS, engine)).logits.shape == (2, 5) and ours.config.num_labels == 5
    table = theirs.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(array(ours.model.token_embedding.weight.data), table)
    again = auto.from_pretrained(tmp_path, engine=engine, ignore_mismatched_sizes=True)  # nothing to ignore
    with torch.no_grad():
        assert np.abs(array(again(given(IDS, engine)).logits) - theirs(torch.tensor(IDS)).logits.numpy()).max() < 1e-4


# --- more tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "bert"])
def test_the_vocabulary_grows_and_shrinks_in_place(family, engine, tmp_path):
    theirs = build(family)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AUTO[family].from_pretrained(tmp_path / "theirs", engine=engine)
    before = array(ours(given(IDS, engine)).logits)
    assert ours.resize_token_embeddings(61) is ours.get_input_embeddings()
    ours.resize_token_embeddings(62, pad_to_multiple_of=8)
    after = array(ours(given(IDS, engine)).logits)
    assert after.shape[-1] == 64 and np.abs(after[..., :61] - before).max() < 1e-5
    assert (after[..., 61:].max(-1) < before.max(-1)).all()
    ours(given(IDS + 3, engine), labels=given(IDS, engine)).loss.backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.save_pretrained(tmp_path / "ours")
    theirs.resize_token_embeddings(64)
    back = reload(type(theirs).__name__, tmp_path / "ours")
    assert back.config.vocab_size == 64 and back.num_parameters() == theirs.num_parameters() == ours.num_parameters()
    with torch.no_grad():
        assert np.abs(back(torch.tensor(IDS)).logits.numpy() - after).max() < 1e-4
    ours.resize_token_embeddings(50)
    assert np.abs(array(ours(given(IDS % 50, engine)).logits).shape[-1]) == 50 == ours.config.vocab_size
    with pytest.raises(ValueError, match="a vocabulary has at least 1"):
        ours.resize_token_embeddings(0)


def test_a_classifier_gets_rows_for_new_tokens_and_two_vocabularies_are_refused():
    config = {"vocab_size": 31, "context": 12, "n_layers": 1, "n_heads": 2, "d_model": 8}
    from minillm.models import ClassifierConfig

    model = PretrainedModel(model_from_config(ClassifierConfig(GPTConfig(**config), pad_id=0)))
    before = model(IDS % 31).logits
    model.resize_token_embeddings(40)
    assert np.allclose(model(IDS % 31).logits, before) and model(IDS % 40).logits.shape == (2, 2)
    two = EncoderDecoderConfig(**config, d_ff=8, source_vocab_size=20, shared_embeddings=False)
    with pytest.raises(ValueError, match="vocabularies of their own"):
        PretrainedModel(EncoderDecoder(two)).resize_token_embeddings(40)


# --- a torch.nn.Module ------------------------------------------------------------------------------------------------


def test_on_torch_it_is_a_module_of_torch(tmp_path):
    build("llama").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, engine="torch")
    assert isinstance(model, torch.nn.Module) and isinstance(model, PretrainedModel) and not model.training
    assert model.train().model.training and not model.eval().model.training
    names = set(model.state_dict())
    assert names == {f"model.{name}" for name, _ in model.model.named_parameters()}
    before = model(torch.tensor(IDS)).logits
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).zero_()
    other.config.pad_token_id = 5
    assert model.config.pad_token_id is None and torch.equal(model(torch.tensor(IDS)).logits, before)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(torch.tensor(IDS)).logits, before)
    assert model.half().dtype == torch.float16
    assert model.to(device="cpu", dtype=torch.float64) is model and model.dtype == torch.float64
    assert (model(torch.tensor(IDS)).logits - before).abs().max() < 0.05
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    model(torch.tensor(IDS))
    assert calls == [1]
    assert isinstance(model.model.blocks[0].attn.q_proj, torch.nn.Linear)
    assert isinstance(model.get_input_embeddings(), torch.nn.Embedding)
    assert "in_features=12, out_features=24" in repr(model) and "Embedding(61, 12)" in repr(model)


def test_on_numpy_it_answers_to_the_same_names(tmp_path):
    theirs = build("gpt2")
    theirs.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert set(model.state_dict()) == {f"model.{name}" for name, _ in model.model.named_parameters()}
    assert model.to("cpu").double() is model and model.dtype == np.float64
    assert model.to(dtype=np.float32, device="cpu").dtype == np.float32 and model.device == "cpu"
    assert model.num_parameters(exclude_embeddings=True) == theirs.num_parameters(exclude_embeddings=True)
    with pytest.raises(ValueError, match="runs on the CPU only"):
        model.to("cuda")
    with pytest.raises(ValueError, match="Use engine='torch'"):
        model.half()


def test_transformers_trainer_trains_saves_and_resumes(tmp_path):
    build("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).save_pretrained(tmp_path / "model")
    load = {"pretrained_model_name_or_path": tmp_path / "model"}
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "model", engine="torch")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**load)
    labels = torch.tensor(np.where(np.arange(11) == 0, -100, IDS))  # of the first, which nothing predicts
    rows = [{"input_ids": row, "labels": label} for row, label in zip(torch.tensor(IDS), labels)]
    losses = {}
    for name, model in (("ours", ours), ("theirs", theirs)):
        arguments = transformers.TrainingArguments(
            output_dir=tmp_path / name, max_steps=4, per_device_train_batch_size=1, gradient_accumulation_steps=2,
            learning_rate=1e-2, logging_steps=1, save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
        )  # fmt: skip
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
        trainer.train()
        history = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        losses[name] = [float(loss) for loss in history] + [trainer.evaluate()["eval_loss"]]
        assert trainer.predict(rows).predictions.shape == (2, 11, 61)
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-3) and losses["ours"][-1] < losses["ours"][0]
    resumed = AutoModelForCausalLM.from_pretrained(tmp_path / "model", engine="torch")
    trainer.model = trainer.model_wrapped = resumed
    trainer = transformers.Trainer(model=resumed, args=arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=str(tmp_path / "ours/checkpoint-2"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours.parameters(), resumed.parameters()))


def test_accelerate_prepares_and_gathers(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    build("bert").save_pretrained(tmp_path / "theirs")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # the Trainer has set it up otherwise
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs", engine="torch").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    output = prepared(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS))
    accelerator.backward(output.loss)
    optimizer.step()
    whole = accelerator.unwrap_model(prepared)
    whole.save_pretrained(
        tmp_path / "ours", is_main_process=True, save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(prepared),
    )  # fmt: skip
    back = AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", engine="torch")
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters()))
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(TypeError, match="push_to_hub = True is not supported"):
        model.save_pretrained(tmp_path / "ours", push_to_hub=True)


def test_peft_wraps_trains_merges(tmp_path):
    peft = pytest.importorskip("peft")
    build("llama").save_pretrained(tmp_path / "theirs")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", engine="torch")
    before = ours(torch.tensor(IDS)).logits
    wrapped = peft.get_peft_model(ours, peft.LoraConfig(task_type="CAUSAL_LM", r=4))  # q_proj and v_proj, as by default
    trainable, total = wrapped.get_nb_trainable_parameters()
    assert 0 < trainable < total / 5
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        loss = wrapped(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrapped.eval()
    trained = wrapped(input_ids=torch.tensor(IDS)).logits
    assert (trained - before).abs().max() > 1e-2
    assert len(wrapped.generate(input_ids=torch.tensor([[1, 2, 3]]), max_new_tokens=4)[0]) == 7
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = wrapped.merge_and_unload()
    assert merged is ours
    merged.save_pretrained(tmp_path / "merged")
    back = reload("LlamaForCausalLM", tmp_path / "merged")
    assert (back(torch.tensor(IDS)).logits - trained).abs().max() < 1e-4
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", engine="torch")
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    assert (again(input_ids=torch.tensor(IDS)).logits - trained).abs().max() < 1e-5


def test_a_generation_config_can_be_read_and_written_by_attribute(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.generation_config.max_new_tokens = 3
    assert model.generation_config["max_new_tokens"] == 3 and model.generation_config.num_beams is None
    assert len(model.generate(IDS[:1], eos_token_id=[])[0]) == 14
