"""minillm convert: formats, dtypes, ties and shards, one into the other, without the models changing."""

import contextlib
import json
import re

import numpy as np
import pytest

from minillm.commands.cli import main
from minillm.generate import Sampling, generate
from minillm.hub import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ConfigurationError,
    PretrainedModel,
    WeightsError,
)
from minillm.hub.checkpoint import load_model_and_tokenizer, open_checkpoint
from minillm.hub.convert import convert
from minillm.models import (
    GPT,
    LSTM,
    Bert,
    BertConfig,
    Classifier,
    ClassifierConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    LSTMConfig,
    config_to_dict,
)
from minillm.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer
from minillm.tokenizers.bert_text import BertNormalizer
from minillm.training.checkpoint import save_checkpoint

TEXT = ["the quick brown fox jumps over the lazy dog; the dog sleeps. " * 5]
TOKENIZER = BPETokenizer.train(TEXT, 280, pattern="gpt2")
IDS = np.array([[5, 6, 7, 270, 1]])
SHAPE = {"vocab_size": 280, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 8}
MODELS = {
    "gpt": GPT(GPTConfig(**SHAPE)),
    "llama": Llama(LlamaConfig(**SHAPE, d_ff=12, n_kv_heads=1)),
    "qwen2": Llama(LlamaConfig(**SHAPE, d_ff=12, qkv_bias=True, tie_embeddings=True)),
    "bert": Bert(BertConfig(**SHAPE, d_ff=12, next_sentence=True, dropout=0.0)),
}


def save_native(model, folder, tokenizer=TOKENIZER):
    """A checkpoint as `minillm pretrain` writes it."""
    config = config_to_dict(model.config)
    save_checkpoint(folder, config=config, model=model.state_dict(), optimizer={}, state={}, tokenizer=tokenizer)
    return folder


def logits(folder):
    if json.loads((folder / "config.json").read_text())["model_type"] == "bert":
        in_their_format = "architectures" in (folder / "config.json").read_text()
        with pytest.warns(match="not used") if in_their_format else contextlib.nullcontext():
            return AutoModelForMaskedLM.from_pretrained(folder)(IDS).logits
    return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_the_same_checkpoint(name, tmp_path):
    model = MODELS[name].eval()
    native = save_native(model, tmp_path / "native")
    convert(native, tmp_path / "hf", max_shard_size="4KB")
    convert(tmp_path / "hf", tmp_path / "back", to="minillm")
    assert np.array_equal(logits(tmp_path / "hf"), model(IDS).data)
    loaded, tokenizer = load_model_and_tokenizer(tmp_path / "back")
    assert np.array_equal(loaded.eval()(IDS).data, model(IDS).data)
    assert tokenizer.fingerprint() == TOKENIZER.fingerprint()
    again, before = vars(loaded.config), vars(model.config)
    written_out = {"n_kv_heads", "head_dim"} | {key for key in before if key.endswith("_dropout")}
    assert {key for key in before if before[key] != again[key]} <= written_out
    if name != "bert":
        options = {"max_new_tokens": 5, "sampling": Sampling(temperature=0)}
        assert generate(loaded, [[3]], **options) == generate(model, [[3]], **options)


@pytest.mark.parametrize("decoder", [GPTConfig(**SHAPE), LlamaConfig(**SHAPE, d_ff=12, tie_embeddings=True)])
def test_a_classifier_there_and_back(decoder, tmp_path, capsys):
    model = Classifier(ClassifierConfig(decoder, n_labels=3, pad_id=1), np.random.default_rng(4)).eval()
    PretrainedModel(model).save_pretrained(tmp_path / "hf", max_shard_size="4KB")
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "native"), "--to", "minillm"]) == 0
    assert main(["convert", str(tmp_path / "native"), str(tmp_path / "back")]) == 0
    said = capsys.readouterr().out
    for name in ("native", "back"):
        told = re.search(rf"{name}: (.*)", said)
        assert told is not None and set(told[1].split(", ")) == {p.name for p in (tmp_path / name).iterdir()}
    for name in ("hf", "native", "back"):
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        assert again.model.config.pad_id == 1 and again.head == "classification"
        assert np.array_equal(again(IDS).logits, model(IDS).data)
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "native")]) == 0
    report = capsys.readouterr().out
    assert "n_layers 2" in report and "n_labels 3" in report and re.search(r"classifier +24 ", report), report
    with pytest.raises(WeightsError, match="made for 'classification'"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    folder = str(save_native(model, tmp_path / "run"))
    for arguments, message in (
        (["generate", folder, "--prompt", "the"], "Classifier fills in hidden tokens of a text or labels it"),
        (["evaluate", folder, "--data", __file__], "a classifier labels texts"),
        (["compare", folder, folder], "is a 'classifier' model"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_what_was_converted(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    model = MODELS[name].eval()
    convert(save_native(model, tmp_path / "native"), tmp_path / "hf")
    kind = json.loads((tmp_path / "hf/config.json").read_text())["architectures"][0]
    theirs, info = getattr(transformers, kind).from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        assert np.abs(theirs.eval()(torch.tensor(IDS))[0].numpy() - model(IDS).data).max() < 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer("the dog")["input_ids"] == TOKENIZER.encode("the dog")
    assert theirs.config.eos_token_id == TOKENIZER.eos_id == tokenizer.eos_token_id


def test_bfloat16_and_back(tmp_path):
    convert(save_native(MODELS["llama"], tmp_path / "a"), tmp_path / "b", dtype="bfloat16")
    assert open_checkpoint(tmp_path / "b").dtype == "bfloat16"
    convert(tmp_path / "b", tmp_path / "c", to="minillm")  # our own format has no bfloat16: float32, exactly
    assert open_checkpoint(tmp_path / "c").dtype == "float32"
    assert np.array_equal(logits(tmp_path / "c"), logits(tmp_path / "b"))
    gap = np.abs(logits(tmp_path / "c") - MODELS["llama"](IDS).data).max()
    assert 0 < gap < 0.01
    with pytest.raises(ValueError, match="holds float32 or float64"):
        convert(tmp_path / "b", tmp_path / "d", to="minillm", dtype="float16")
    assert not (tmp_path / "d").exists()


def test_ties(tmp_path):
    save_native(MODELS["qwen2"], tmp_path / "tied")
    convert(tmp_path / "tied", tmp_path / "untied", tied=False)
    assert open_checkpoint(tmp_path / "untied").config.tie_embeddings is False
    assert "lm_head.weight" in open_checkpoint(tmp_path / "untied").stored
    convert(tmp_path / "untied", tmp_path / "again", tied=True)
    assert "lm_head.weight" not in open_checkpoint(tmp_path / "again").stored
    for folder in ("untied", "again"):
        assert np.array_equal(logits(tmp_path / folder), MODELS["qwen2"](IDS).data)
    save_native(MODELS["llama"], tmp_path / "other")
    with pytest.raises(ValueError, match=r"differs from the token table by up to 0\.\d+: tying them would change"):
        convert(tmp_path / "other", tmp_path / "x", tied=True)
    save_native(MODELS["gpt"], tmp_path / "gpt")
    with pytest.raises(ValueError, match="head of a GPT is not one to tie or untie"):
        convert(tmp_path / "gpt", tmp_path / "x", tied=False)
    lstm = LSTM(LSTMConfig(vocab_size=280, d_model=8, n_layers=1, tie_embeddings=True))
    convert(save_native(lstm, tmp_path / "lstm"), tmp_path / "lstm untied", to="minillm", tied=False)
    assert np.array_equal(logits(tmp_path / "lstm untied"), lstm(IDS).data)


def test_what_comes_along(tmp_path):
    convert(save_native(MODELS["gpt"], tmp_path / "a"), tmp_path / "b")
    (tmp_path / "b/chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "b/generation_config.json").write_text('{"top_k": 7}')
    convert(tmp_path / "b", tmp_path / "c", dtype="float16")
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "c" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_tokenizers_of_every_kind(tmp_path):
    pieces = WordPieceTokenizer.train(TEXT, 60)
    bert = Bert(BertConfig(vocab_size=pieces.vocab_size, context=12, n_layers=1, n_heads=2, d_model=8, d_ff=12))
    convert(save_native(bert, tmp_path / "bert", pieces), tmp_path / "bert hf")
    ours = AutoTokenizer.from_pretrained(tmp_path / "bert hf")
    assert ours.pad_token == "[PAD]" and "token_type_ids" in ours("the dog")
    characters = CharTokenizer.train(TEXT, special_tokens=["<|endoftext|>"])
    gpt = GPT(GPTConfig(vocab_size=characters.vocab_size, context=8, n_layers=1, n_heads=2, d_model=8))
    convert(save_native(gpt, tmp_path / "char", characters), tmp_path / "char hf")
    assert AutoTokenizer.from_pretrained(tmp_path / "char hf")("dog").input_ids == characters.encode("dog")
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path / "char hf")
    assert theirs("dog").input_ids == characters.encode("dog") and theirs.eos_token == "<|endoftext|>"
    assert load_model_and_tokenizer(tmp_path / "char hf")[1].fingerprint() == characters.fingerprint()
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert hf")
    assert dict(theirs("The dog sleeps")) == dict(ours("The dog sleeps"))


ACCENTS = ["café naïve 中文 words low lower", "résumé 中文字 Été\x07s"] * 3


@pytest.mark.parametrize(
    "normalizer",
    [
        BertNormalizer(lowercase=False),
        BertNormalizer(lowercase=False, strip_accents=True),
        BertNormalizer(strip_accents=False, handle_chinese_chars=False),
        BertNormalizer(clean_text=False),  # which BertTokenizer cannot
    ],
    ids=str,
)
def test_every_normalizer_comes_along(normalizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = WordPieceTokenizer.train(ACCENTS, 80, normalizer=normalizer)
    bert = Bert(BertConfig(vocab_size=pieces.vocab_size, context=12, n_layers=1, n_heads=2, d_model=8, d_ff=12))
    convert(save_native(bert, tmp_path / "a", pieces), tmp_path / "b")
    ours = AutoTokenizer.from_pretrained(tmp_path / "b")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    for text in ACCENTS[:2]:
        expected = list(pieces.encode(text))
        for tokenizer in (ours, theirs):
            assert list(tokenizer(text, add_special_tokens=False)["input_ids"]) == expected, text
    assert theirs.mask_token == ours.mask_token == "[MASK]"


@pytest.mark.parametrize("tokens", [["[UNK]"], ["[UNK]", "[CLS]", "[SEP]"], ["<unk>"]], ids=str)
def test_wordpiece_that_is_not_bert_comes_along(tokens, tmp_path):
    """BertTokenizer would add the marks that are missing, with ids that the model has no rows for."""
    transformers = pytest.importorskip("transformers")
    trained = WordPieceTokenizer.train(ACCENTS, 80)
    vocab = {token: id for token, id in trained.vocab.items() if not token.startswith("[")}
    vocab = {token: i for i, token in enumerate([*tokens, *vocab])}
    special = {token: vocab[token] for token in tokens}
    pieces = WordPieceTokenizer(vocab, special, unk_token=tokens[0], cleanup=False)
    bert = Bert(BertConfig(vocab_size=pieces.vocab_size, context=12, n_layers=1, n_heads=2, d_model=8, d_ff=12))
    convert(save_native(bert, tmp_path / "a", pieces), tmp_path / "b")
    text = "low lower, words zzz!"
    for source in (AutoTokenizer, transformers.AutoTokenizer):
        tokenizer = source.from_pretrained(tmp_path / "b")
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert ids == list(pieces.encode(text)) and len(tokenizer) == pieces.vocab_size
        assert tokenizer.decode(ids) == pieces.decode(ids)


def test_what_cannot_be_converted(tmp_path):
    lstm = LSTM(LSTMConfig(vocab_size=280, d_model=8, n_layers=1))
    save_native(lstm, tmp_path / "lstm")
    with pytest.raises(ConfigurationError, match="no architecture for a model of type 'lstm'"):
        convert(tmp_path / "lstm", tmp_path / "x")
    with pytest.raises(ValueError, match="is the folder to convert"):
        convert(tmp_path / "lstm", tmp_path / "lstm", to="minillm")
    with pytest.raises(ValueError, match="to = 'onnx'"):
        convert(tmp_path / "lstm", tmp_path / "x", to="onnx")
    for size in ("5", "0GB", "1.2.3MB", "many", 0):
        with pytest.raises(ValueError, match="a size is a number and KB"):
            convert(save_native(MODELS["gpt"], tmp_path / "gpt"), tmp_path / "x", max_shard_size=size)
    assert not (tmp_path / "x").exists()


def test_nothing_is_lost_in_silence(tmp_path):
    convert(save_native(MODELS["bert"], tmp_path / "a"), tmp_path / "b")
    path = tmp_path / "b/config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "architectures": ["BertModel"]}))
    with pytest.raises(WeightsError, match=r"no place for .*cls\.predictions.*, which would be lost"):
        convert(tmp_path / "b", tmp_path / "c")
    path.write_text(json.dumps({**values, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(WeightsError, match=r"no weights for classifier\.weight, classifier\.bias"):
        convert(tmp_path / "b", tmp_path / "c")
    path.write_text(json.dumps({**values, "architectures": ["BertForTokenClassification"]}))
    with pytest.raises(ConfigurationError, match="BertForTokenClassification"):
        convert(tmp_path / "b", tmp_path / "c")


def test_the_command(tmp_path, capsys):
    save_native(MODELS["llama"], tmp_path / "run" / "best")
    arguments = ["convert", str(tmp_path / "run"), str(tmp_path / "hf"), "--dtype", "bfloat16"]
    assert main([*arguments, "--max-shard-size", "3KB"]) == 0
    assert "model-00001-of-0000" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "back"), "--to", "minillm"]) == 0
    assert main(["generate", str(tmp_path / "back"), "--prompt", "the", "--max-new-tokens", "3"]) == 0
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "x"), "--tied"]) == 2
    assert "would change the model" in capsys.readouterr().err


def test_labels_and_ids_survive_minillms_own_format(tmp_path):
    decoder = GPTConfig(**SHAPE)
    model = Classifier(ClassifierConfig(decoder, n_labels=2, pad_id=1))
    labels = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}, "eos_token_id": 7}
    PretrainedModel(model, config=labels).save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "native", to="minillm")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "native")
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    convert(tmp_path / "native", tmp_path / "back")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("hf", "back"))
    assert before == after


def test_an_existing_folder_is_left_alone(tmp_path, monkeypatch, capsys):
    PretrainedModel(MODELS["llama"]).save_pretrained(tmp_path / "hf")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty: choose another folder"):
        convert(tmp_path / "hf", tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
    for arguments in (["", "x"], [str(tmp_path / "hf"), ""]):
        assert main(["convert", *arguments]) == 2
        assert "empty" in capsys.readouterr().err
    monkeypatch.setattr("minillm.hub.convert.copy_beside", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(tmp_path / "hf", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "other"]


def test_a_model_without_a_head_stays_one(tmp_path):
    PretrainedModel(MODELS["qwen2"], "base").save_pretrained(tmp_path / "hf")
    with pytest.raises(ValueError, match="without a head"):
        convert(tmp_path / "hf", tmp_path / "native", to="minillm")
