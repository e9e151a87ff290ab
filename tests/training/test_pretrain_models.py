"""The pretrain command with every kind of model, on both engines, and what can be done with the checkpoints."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minillm.commands import cli
from minillm.data import pack, read_documents
from minillm.engines.numpy_engine import batch_loss
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.settings import EngineConfig
from minillm.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer, load_tokenizer
from minillm.tokenizers.extend import with_special_tokens
from minillm.training.evaluate import evaluate
from minillm.training.objectives import MaskedLM, NextToken, SpanCorruption
from minillm.training.pretrain import build_config, model_objective, read_config
from minillm.training.pretrain import pretrain as pretrain_sections
from minillm.training.run_log import read_metrics

SHAPES = {
    "gpt": {"n_heads": 2},
    "llama": {"n_heads": 2, "n_kv_heads": 1, "d_ff": 48},
    "moe": {"n_heads": 2, "d_ff": 48, "n_experts": 4, "attention_sinks": True, "window": 8},
    "bert": {"n_heads": 2, "d_ff": 64},
    "lstm": {},
    "encoder-decoder": {"n_heads": 2, "d_ff": 64, "norm": "pre", "context": 40},  # two spans: their places vary
}
MODELS = list(SHAPES)
ENGINES = ["numpy", "torch"]
TRAIN = {"max_steps": 24, "batch_size": 8, "warmup_steps": 2, "lr": 0.01, "eval_every": 12, "save_every": 12}


def minillm(*arguments, status=0, capsys=None):
    """Run a command line in this process; returns what it printed, after checking the exit status."""
    if capsys:
        capsys.readouterr()  # drop what was printed before, such as by a fixture that trained
    assert cli.main([str(a) for a in arguments]) == status
    captured = capsys.readouterr() if capsys else None
    return "" if captured is None else captured.err if status else captured.out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    words = ["the", "a", "cat", "dog", "bird", "sees", "hears", "follows", "and", "or", "quickly"]
    (folder / "text").mkdir()
    for i in range(40):
        sentences = [" ".join(rng.choice(words, 12)) + "." for _ in range(6)]
        (folder / "text" / f"{i}.txt").write_text("\n".join(sentences), encoding="utf-8")
    minillm("corpus", folder / "corpus", "--from", folder / "text", "--val-fraction", "0.2", "--near-threshold", "0")
    minillm("tokenizer", "train", folder / "corpus", "--vocab-size", "280", "--out", folder / "tokenizer.json")
    return folder


def pretrain(made, out, kind, engine="numpy", *changes, status=0, capsys=None):
    """Train a tiny model of one kind; each key of `changes` is "section.key=value"."""
    model = {"model_type": kind, "context": 20, "n_layers": 1, "d_model": 32, **SHAPES[kind]}
    settings = [f"model.{k}={json.dumps(v)}" for k, v in model.items()] + [f"train.{k}={v}" for k, v in TRAIN.items()]
    sets = [part for setting in (*settings, *changes) for part in ("--set", setting)]
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json", "--engine", engine]
    return minillm("pretrain", *data, *sets, "--out", out, status=status, capsys=capsys)


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """(kind, engine) -> the run folder of a model trained with dropout, made once."""
    runs = {}

    def run(kind, engine) -> Path:
        if engine == "torch":
            pytest.importorskip("torch")
        if (kind, engine) not in runs:
            runs[kind, engine] = tmp_path_factory.mktemp("run") / "out"
            pretrain(made, runs[kind, engine], kind, engine, "model.dropout=0.1")
        return runs[kind, engine]

    return run


def without_clock(rows):
    clock = ("seconds", "tokens_per_second", "memory_gb")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_falls(trained, kind, engine):
    rows = read_metrics(trained(kind, engine) / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    evaluations = [row for row in rows if "val_loss" in row]
    assert len(losses) == 24 and np.mean(losses[-4:]) < 0.8 * losses[0]
    assert evaluations[1]["val_loss"] < evaluations[0]["val_loss"]
    assert rows[0]["tokens"] == 8 * (40 if kind == "encoder-decoder" else 20)
    predicts_all = kind in ("gpt", "llama", "moe", "lstm")
    assert all((row["val_bits_per_byte"] is not None) == predicts_all for row in evaluations)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_resumed_run_equals_an_uninterrupted_one(made, trained, kind, engine, tmp_path):
    whole = trained(kind, engine)
    pretrain(made, tmp_path / "run", kind, engine, "model.dropout=0.1", "train.schedule=constant", "train.max_steps=12")
    pretrain(made, tmp_path / "whole", kind, engine, "model.dropout=0.1", "train.schedule=constant")
    minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", "train.max_steps=24")
    resumed, straight = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "whole"))
    assert without_clock(resumed) == without_clock(straight)
    assert len(resumed) == len(read_metrics(whole / "metrics.jsonl"))
    for name in ("model", "optimizer"):
        files = [tmp_path / run / "last" / f"{name}.safetensors" for run in ("run", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_checkpoint_evaluates_to_what_the_run_measured(made, trained, kind, engine, capsys):
    run = trained(kind, engine)
    best = min(row["val_loss"] for row in read_metrics(run / "metrics.jsonl") if "val_loss" in row)
    out = minillm("evaluate", run, capsys=capsys)
    assert float(out.split("loss ")[1].split()[0]) == pytest.approx(best, abs=1e-4)
    assert ("bits per byte" in out) == (kind in ("gpt", "llama", "moe", "lstm"))


def test_evaluation_asks_the_same_with_any_batch_size(made, trained, tmp_path):
    for kind in ("bert", "encoder-decoder"):
        model, tokenizer = load_model_and_tokenizer(trained(kind, "numpy"))
        data = pack(read_documents([str(made / "text" / "0.txt")]), tokenizer, tmp_path / kind / "tokens.bin")
        found = []
        for batch_size in (1, 3, 16):  # the last batch holds rows that are padding only
            result = evaluate(
                lambda *batch, model=model: batch_loss(model, *batch),
                data,
                batch_size=batch_size,
                context=model.config.context,
                objective=model_objective(model.config, tokenizer),
            )
            assert math.isnan(result.bits_per_byte) and "bits" not in str(result)
            found.append(result)
        assert len({result.n_tokens for result in found}) == 1
        assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5)
        assert found[0].loss == pytest.approx(found[2].loss, rel=1e-5)


def test_the_saved_tokenizer_knows_the_marks_of_the_task(made, trained):
    plain = load_tokenizer(made / "tokenizer.json")
    n = plain.vocab_size
    text = "the cat sees a dog. [MASK] <s>"
    model, tokenizer = load_model_and_tokenizer(trained("bert", "numpy"))
    assert tokenizer.special_tokens["[MASK]"] == n and tokenizer.special_tokens["[PAD]"] == n + 1
    assert (model.config.vocab_size, model.config.pad_id) == (n + 2, n + 1)
    assert tokenizer.encode(text, disallowed_special=()) == plain.encode(text)
    objective = model_objective(model.config, tokenizer)
    assert isinstance(objective, MaskedLM) and objective.random_below <= plain.eos_id
    model, tokenizer = load_model_and_tokenizer(trained("encoder-decoder", "numpy"))
    assert list(tokenizer.special_tokens)[1:] == ["<pad>", "<s>", "</s>", "<extra_id_0>", "<extra_id_1>"]
    assert isinstance(model_objective(model.config, tokenizer), SpanCorruption)
    model, tokenizer = load_model_and_tokenizer(trained("gpt", "numpy"))
    assert tokenizer.fingerprint() == plain.fingerprint()
    assert model_objective(model.config, tokenizer) == NextToken(n)


@pytest.mark.parametrize(
    "tokenizer",
    [
        BPETokenizer.train(["low lower lowest"], 262),
        CharTokenizer.train(["low lower lowest"]),
        WordPieceTokenizer.train(["low lower lowest"], vocab_size=40),
    ],
    ids=["bpe", "char", "wordpiece"],
)
def test_special_tokens_can_be_added_to_a_tokenizer(tokenizer, tmp_path):
    before = tokenizer.vocab_size
    extended = with_special_tokens(tokenizer, ["[MASK]", "<new>"])
    assert tokenizer.vocab_size == before and "<new>" not in tokenizer.special_tokens
    assert extended.special_tokens["<new>"] == extended.vocab_size - 1
    ids = extended.encode("low<new>low[MASK]", allowed_special="all")
    assert extended.special_tokens["<new>"] in ids and extended.special_tokens["[MASK]"] in ids
    assert extended.encode("lowest") == tokenizer.encode("lowest")
    assert extended.fingerprint() != tokenizer.fingerprint()
    extended.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint() == extended.fingerprint()
    assert loaded.encode("low<new>low[MASK]", allowed_special="all") == ids
    assert with_special_tokens(loaded, ["[MASK]", "<new>"]).fingerprint() == extended.fingerprint()


@pytest.mark.parametrize("kind", ["gpt", "llama", "moe", "lstm"])
def test_generate_continues_with_every_decoder(trained, kind, capsys):
    options = ["generate", trained(kind, "numpy"), "--prompt", "the cat", "--max-new-tokens", 30, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and len(first) > len("the cat") + 5
    assert first == minillm(*options, "--no-cache", capsys=capsys)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("bert", "Bert fills in hidden tokens"), ("encoder-decoder", "EncoderDecoder answers a source text")],
)
def test_generate_refuses_what_cannot_continue_a_text(trained, kind, message, capsys):
    options = ["generate", trained(kind, "numpy"), "--prompt", "the cat"]
    capsys.readouterr()
    assert cli.main([str(o) for o in options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bert", "model.model_type=t5", "[model]: model_type = 't5' is not a model of this library"),
        ("gpt", "model.model_type=classifier", "[model]: a classifier is made of a pretrained decoder"),
        ("bert", "model.head=classification", "head must be 'mlm' for pretraining, not 'classification'"),
        ("bert", "model.next_sentence=true", "next_sentence must be False for pretraining, not True"),
        ("encoder-decoder", "model.pad_id=3", "pad_id must be "),
        ("bert", "model.vocab_size=200", "vocab_size = 200 is too small for the tokenizer and the special tokens"),
        ("lstm", "model.n_heads=2", "[model]: unknown key 'n_heads'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(made, kind, change, message, tmp_path, capsys):
    assert message in pretrain(made, tmp_path / "run", kind, "numpy", change, status=2, capsys=capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "engine", "attention", "message"),
    [
        ("gpt", "numpy", "triton", "attention = 'triton' runs on PyTorch: give --engine torch"),
        ("encoder-decoder", "numpy", "sdpa", "attention = 'sdpa' runs on PyTorch: give --engine torch"),
        ("gpt", "torch", "triton", "attention = 'triton' cannot run here: the tensors are on the CPU"),
        ("llama", "torch", "triton", "use --attention sdpa"),
        ("bert", "torch", "triton", "set TRITON_INTERPRET=1"),
        ("encoder-decoder", "torch", "triton", "move them to a CUDA device"),
    ],
)
def test_an_attention_that_cannot_run_is_refused_before_anything_is_written(
    made, kind, engine, attention, message, tmp_path, monkeypatch, capsys
):
    if engine == "torch":
        pytest.importorskip("triton")
        from minillm.kernels import call

        monkeypatch.setattr(call, "interpreted", lambda: False)  # as without TRITON_INTERPRET
    change = (f"model.attention={attention}", "engine.device=cpu")
    assert message in pretrain(made, tmp_path / "run", kind, engine, *change, status=2, capsys=capsys)
    assert not (tmp_path / "run").exists()


def test_an_engine_of_the_callers_own_is_not_judged_by_the_settings(made, tmp_path):
    pytest.importorskip("torch")
    from minillm.engines.torch_engine import TorchEngine

    data = {"corpus": str(made / "corpus"), "tokenizer": str(made / "tokenizer.json")}
    shape = {"context": 8, "n_layers": 1, "n_heads": 1, "d_model": 8, "attention": "sdpa"}
    sections = {"data": data, "model": shape, "train": {"max_steps": 2, "batch_size": 2, "warmup_steps": 1}}
    engine = partial(TorchEngine, settings=EngineConfig(device="cpu"))
    assert pretrain_sections(sections, tmp_path / "run", engine=engine, progress=False).state.step == 2


def test_a_larger_vocabulary_may_be_asked_for(made):
    sections = {"data": {"corpus": "c", "tokenizer": str(made / "tokenizer.json")}, "model": {"vocab_size": 512}}
    sections["model"] |= {"model_type": "bert", "context": 8, "d_model": 8, "n_heads": 1, "d_ff": 8}
    config, tokenizer = build_config(sections)
    assert config.model.vocab_size == 512 and config.model.pad_id == tokenizer.special_tokens["[PAD]"]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_echoed_configuration_makes_the_same_run(made, kind, tmp_path):
    model = {"model_type": kind, "context": 20, "n_layers": 1, "d_model": 32, **SHAPES[kind]}
    sections = {"data": {"corpus": "c", "tokenizer": str(made / "tokenizer.json")}, "model": model}
    config, _ = build_config(sections)
    config.save(tmp_path / "config.toml")
    assert f'[model]\nmodel_type = "{kind}"\n' in (tmp_path / "config.toml").read_text()
    assert build_config(read_config(tmp_path / "config.toml"))[0] == config
    assert sections["model"] == model  # not changed on the way
