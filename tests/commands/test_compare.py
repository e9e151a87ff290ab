"""minillm compare: sizes exact, bits per byte equal to evaluate's and comparable between tokenizers, speeds
measured."""

import math
import re

import numpy as np
import pytest

from minillm.commands.cli import main
from minillm.commands.compare import compare, take_turns
from minillm.data import Document, first_bytes
from minillm.hub import PretrainedModel, PretrainedTokenizer
from minillm.hub.checkpoint import open_checkpoint
from minillm.models import GPT, LSTM, Bert, BertConfig, GPTConfig, Llama, LlamaConfig, LSTMConfig
from minillm.tokenizers import BPETokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " * 40
TOKENIZERS = [BPETokenizer.train([TEXT], size, pattern="gpt2") for size in (257, 290)]


@pytest.fixture
def folders(tmp_path):
    """A GPT on bytes and a Llama on longer tokens, saved as pretrained models are, and a held-out text."""
    shape = {"context": 40, "n_layers": 1, "n_heads": 2, "d_model": 16}
    models = [GPT(GPTConfig(vocab_size=257, **shape)), Llama(LlamaConfig(vocab_size=290, d_ff=24, **shape))]
    for i, (model, core) in enumerate(zip(models, TOKENIZERS)):
        for parameter in model.parameters():
            parameter.data[...] = 0.0  # all tokens equally likely: the bits follow from the vocabulary and the lengths
        PretrainedModel(model).save_pretrained(tmp_path / f"model-{i}")
        PretrainedTokenizer(core).save_pretrained(tmp_path / f"model-{i}")
    (tmp_path / "held_out.txt").write_text(TEXT)
    return [str(tmp_path / "model-0"), str(tmp_path / "model-1")], [str(tmp_path / "held_out.txt")]


def row(text, name):
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return [float(cell.replace(",", "").removesuffix("GB")) for cell in re.split(r"  +", line.strip())[1:]]


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_figures(folders, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    names, data = folders
    text = compare(names, data=data, batch_size=2, context=20, max_bytes=900, engine=engine)
    assert text.splitlines()[1].split() == ["model-0", "model-1"]
    # and the end of the text is one token more to predict
    kept = TEXT.encode()[:900].decode()
    expected = [(len(core.encode(kept)) + 1) * math.log2(core.vocab_size) / 900 for core in TOKENIZERS]
    assert row(text, "bits per byte") == pytest.approx(expected, abs=2e-4)
    assert row(text, "vocabulary") == [257, 290] and row(text, "context") == [40, 40]
    n = 290 * 16 * 2 + 4 * 16 * 16 + 3 * 16 * 24 + 3 * 16
    assert row(text, "parameters")[1] == n
    for speed in ("tokens read per second", "tokens written per second"):
        assert all(value > 10 for value in row(text, speed))


def test_each_checkpoint_is_opened_once(folders, monkeypatch):
    names, data = folders
    opened = []

    def counting(name):
        opened.append(name)
        return open_checkpoint(name)

    monkeypatch.setattr("minillm.commands.compare.open_checkpoint", counting)
    monkeypatch.setattr("minillm.hub.checkpoint.open_checkpoint", counting)
    compare(names, data=data, context=8, max_bytes=100)
    assert opened == names


@pytest.mark.parametrize("max_bytes", [0, -5])
def test_no_text_to_measure_on_is_refused(folders, max_bytes):
    with pytest.raises(ValueError, match=f"max_bytes = {max_bytes} must be at least 1"):
        compare(folders[0], data=folders[1], max_bytes=max_bytes)


def test_tasks_take_turns_and_the_first_round_does_not_count(monkeypatch):
    calls = []
    clock = iter(np.cumsum([0.0, 100.0, 0.0, 1.0, *[0.0, 2.0, 0.0, 3.0] * 3, *[0.0, 50.0] * 4]))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))

    class Task:
        def __init__(self, name):
            self.name = name

        def __call__(self):
            calls.append(self.name)

    seconds = take_turns([Task("a"), Task("b")])
    assert calls == ["a", "b"] * 6 and seconds == [2.0, 3.0]


def test_all_models_get_the_same_bytes():
    documents = [Document("abc中", "1"), Document("defgh", "2"), Document("ijk", "3")]
    for n, texts in [(20, ["abc中", "defgh", "ijk"]), (6, ["abc中"]), (5, ["abc"]), (8, ["abc中", "de"]), (0, [])]:
        assert [document.text for document in first_bytes(documents, n)] == texts


def test_models_that_do_not_predict_the_next_token_are_refused(tmp_path):
    bert = Bert(BertConfig(vocab_size=60, context=16, n_layers=1, n_heads=2, d_model=8, d_ff=12))
    PretrainedModel(bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="compare is for models that predict the next token"):
        compare([str(tmp_path)])


def test_a_model_without_a_head_or_with_another_tokenizer_is_refused(folders, tmp_path, capsys):
    names, _ = folders
    shape = {"context": 16, "n_layers": 1, "n_heads": 2, "d_model": 8, "d_ff": 12}
    llama = Llama(LlamaConfig(vocab_size=257, **shape, tie_embeddings=True))
    PretrainedModel(llama, "base").save_pretrained(tmp_path / "body")
    assert main(["compare", str(tmp_path / "body"), names[0]]) == 2
    assert "is a model without a head" in capsys.readouterr().err
    PretrainedTokenizer(TOKENIZERS[1]).save_pretrained(names[0])
    assert main(["compare", *names]) == 2
    assert "the tokenizer has 290 ids but the model in" in capsys.readouterr().err


def test_the_command_on_a_model_of_our_own(folders, tmp_path, capsys):
    lstm = LSTM(LSTMConfig(vocab_size=257, context=30, d_model=8, n_layers=1), np.random.default_rng(0))
    PretrainedModel(lstm).save_pretrained(tmp_path / "lstm")
    PretrainedTokenizer(TOKENIZERS[0]).save_pretrained(tmp_path / "lstm")
    arguments = ["compare", folders[0][1], str(tmp_path / "lstm"), "--max-bytes", "500", "--context", "16"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "LSTM" in out and "Python's help texts" in out
    assert 5 < row(out, "bits per byte")[1] < 12


def test_models_of_one_name_are_called_by_their_paths(folders, tmp_path):
    (names, data), heads = folders, []
    for i in range(len(names)):
        (tmp_path / f"run-{i}").mkdir()
        (tmp_path / f"model-{i}").rename(tmp_path / f"run-{i}" / "best")
        heads.append(str(tmp_path / f"run-{i}" / "best"))
    assert compare(heads, data=data, context=20).splitlines()[1].split() == heads
