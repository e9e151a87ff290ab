"""minillm pretrain: the run folder, going on with it, every model by config, Ctrl-C."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, minillm

from minillm.commands import cli
from minillm.commands.pretrain import sections_of
from minillm.costs.sizes import n_parameters
from minillm.engines.numpy_engine import NumpyEngine
from minillm.models import MODELS, GPTConfig, LlamaConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import CharTokenizer, load_tokenizer
from minillm.training.checkpoint import read_arrays
from minillm.training.config_file import read_toml
from minillm.training.pretrain import SECTIONS, build_config, preset_names, read_config, sections_for
from minillm.training.run_log import read_metrics


def test_the_road_leaves_its_files(made):
    assert {"train.jsonl", "val.jsonl", "report.json", "dropped.jsonl"} <= {p.name for p in (made / "corpus").iterdir()}
    assert {p.name for p in (made / "run").iterdir()} == {
        ".minillm.json", "best", "last", "config.toml", "metrics.jsonl"
    }  # fmt: skip
    echoed = read_toml(made / "run" / "config.toml", SECTIONS)
    assert echoed["train"]["max_steps"] == 6 and echoed["train"]["lr"] == TrainConfig().lr
    assert echoed["model"]["d_model"] == 32 and 260 < echoed["model"]["vocab_size"] <= 300
    config, _ = build_config(echoed)  # the echo is a configuration that makes the run again
    assert config.train == dataclasses.replace(build_config(echoed)[0].train, max_steps=6)


def test_a_run_is_not_overwritten_and_can_be_resumed_for_longer(made, tmp_path, capsys):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    before = (made / "run" / "config.toml").read_text()
    error = minillm("pretrain", *data, *TINY, "--set", "train.lr=1", "--out", made / "run", status=2, capsys=capsys)
    assert "already holds a run" in error and (made / "run" / "config.toml").read_text() == before
    minillm("pretrain", *data, *TINY, "--out", tmp_path / "run")
    minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", "train.max_steps=8")
    assert [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in r] == list(range(1, 9))
    error = minillm("pretrain", "--resume", "--out", tmp_path / "no", status=2, capsys=capsys)
    assert "there is no run to resume" in error


def test_a_corpus_that_may_not_be_written(made, tmp_path, monkeypatch, capsys):
    """As a data set on Kaggle: the token files go elsewhere, and `evaluate` finds them there."""
    shutil.copytree(made / "corpus", tmp_path / "corpus", ignore=shutil.ignore_patterns("tokens-*"))
    before = sorted(p.name for p in (tmp_path / "corpus").iterdir())
    mkdir = Path.mkdir

    def read_only(path, *arguments, **options):
        if tmp_path / "corpus" in path.parents:
            raise PermissionError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    data = ["--corpus", tmp_path / "corpus", "--tokenizer", made / "tokenizer.json", *TINY]
    error = minillm("pretrain", *data, "--out", tmp_path / "run", status=2, capsys=capsys)
    assert "cannot write token files into" in error and "--tokens FOLDER" in error
    minillm("pretrain", *data, "--out", tmp_path / "run", "--tokens", tmp_path / "tokens")
    monkeypatch.chdir(mkdir(tmp_path / "elsewhere") or tmp_path / "elsewhere")
    minillm("evaluate", tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == before
    (inside,) = (tmp_path / "tokens").iterdir()
    assert {p.name for p in inside.iterdir()} == {".minillm.json", "train.bin", "train.json", "val.bin", "val.json"}


def test_a_corpus_that_changed_is_packed_anew(made, tmp_path, capfd):
    shutil.copytree(made / "corpus", tmp_path / "corpus")
    train = tmp_path / "corpus" / "train.jsonl"
    train.write_text("".join(train.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    data = ["--corpus", tmp_path / "corpus", "--tokenizer", made / "tokenizer.json", *TINY]
    minillm("pretrain", *data, "--out", tmp_path / "run")
    assert "packing anew" in capfd.readouterr().err
    sidecars = (tmp_path / "corpus").glob("tokens-*/train.json")  # other tests have packed with other tokenizers
    (_,) = (path for path in sidecars if json.loads(path.read_text())["n_documents"] == 3)
    asked = cli.make_parser(["pretrain"]).parse_args(["pretrain", *map(str, data), "--no-verify", "--tokens", "t"])
    assert sections_of(asked)["data"].items() >= {"verify": False, "tokens": str(Path("t").resolve())}.items()


def test_other_models_by_config(made, tmp_path):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    llama = ["model.model_type=llama", "model.d_ff=64", "model.context=16", "train.max_steps=2"]
    sets = [item for option in llama for item in ("--set", option)]
    minillm("pretrain", *data, "--config", "debug", *sets, "--out", tmp_path / "llama")
    assert json.loads((tmp_path / "llama" / "last" / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("kind", ["gpt", "llama", "moe", "bert", "lstm", "encoder-decoder"])
def test_a_config_of_one_kind_gives_another_kind_its_size(made, preset, kind):
    data = {"corpus": str(made / "corpus"), "tokenizer": str(made / "tokenizer.json")}
    own = build_config({**read_config(preset), "data": data})[0]
    sections = sections_for(preset, {"model": {"model_type": kind}, "data": data})
    sections["model"]["model_type"] = kind
    config, _ = build_config({**sections, "data": data})
    assert config.model.model_type == kind and config.model.context == own.model.context
    assert n_parameters(config.model) == pytest.approx(n_parameters(own.model), rel=0.06)
    assert sections_for("debug", {"model": {"model_type": "gpt"}}) == sections_for("debug", {}) == read_config("debug")


def test_what_is_set_beside_the_kind_counts(made):
    """A wider model is meant to be larger; a width inside that is given is taken as it is."""
    data = {"tokenizer": str(made / "tokenizer.json")}
    llama = {"model_type": "llama", "d_model": 64}
    model = sections_for("debug", {"model": llama, "data": data})["model"]
    as_gpt = {**read_config("debug")["model"], "d_model": 64}
    vocab_size = load_tokenizer(made / "tokenizer.json").vocab_size
    count = n_parameters(LlamaConfig(**model, vocab_size=vocab_size))
    assert count == pytest.approx(n_parameters(GPTConfig(**as_gpt, vocab_size=vocab_size)), rel=0.02)
    model = sections_for("debug", {"model": {**llama, "d_ff": 24}, "data": data})["model"]
    assert model["d_ff"] == 24 and model["d_model"] == 64


def test_one_dial(made, tmp_path, capsys):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json", "--set", "train.max_steps=1"]
    for words in (["--size", "tiny"], ["--parameters", "300k", "--set", "model.model_type=llama"]):
        out = minillm("pretrain", *data, *words, "--out", tmp_path / words[0], capsys=capsys)
        count = int(re.search(r"with ([\d,]+) parameters", out)[1].replace(",", ""))
        assert count == pytest.approx(300_000, rel=0.2)
        echoed = read_toml(tmp_path / words[0] / "config.toml", SECTIONS)
        assert echoed["train"]["lr"] == 4e-3 and echoed["train"]["max_steps"] == 1
    for words, message in [
        (["--parameters", "many"], "--parameters takes a number such as 1M, 350k or 124M, not 'many'."),
        (["--parameters", "-1M"], "--parameters -1M must be a number of parameters above 0, such as 1M."),
        (["--parameters", "100"], "no model of 100 parameters has a vocabulary of"),
        (["--size", "tiny", "--resume"], "--resume goes on with the configuration of the run"),
        (["--size", "tiny", "--from", made / "run"], "leave --size and --parameters out"),
    ]:
        options = [f"{words[0]}={words[1]}", *words[2:]] if words[0] == "--parameters" else words
        assert message in minillm("pretrain", *data, *options, "--out", tmp_path / "no", status=2, capsys=capsys)
    assert not (tmp_path / "no").exists()


def test_presets_and_architectures_are_listed(capsys):
    out = minillm("pretrain", "--list-presets", capsys=capsys)
    assert all(name in out for name in [*preset_names(), "tiny", "300k"]) and "4 × 128" in out
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    out = capsys.readouterr().out
    for cls, _ in (MODELS[kind] for kind in ("gpt", "llama", "bert", "lstm", "encoder-decoder")):
        assert f"of {cls.model_type} " in out
        assert all(f"model.{field.name}" in out for field in dataclasses.fields(cls))


def test_training_goes_on_from_saved_weights(made, tmp_path, capsys):
    corpus, out = ["--corpus", made / "corpus"], tmp_path / "more"
    steps = ["--set", "train.lr=1e-9", "--set", "train.max_steps=1"]
    minillm("convert", made / "run", tmp_path / "hf")
    for start in (made / "run", tmp_path / "hf"):
        minillm("pretrain", "--from", start, *corpus, *steps, "--out", out, "--overwrite")
        before, after = (read_arrays(f / "model.safetensors") for f in (made / "run" / "best", out / "last"))
        assert all(np.abs(before[name] - after[name]).max() < 1e-6 for name in before)
        state = json.loads((out / "last" / "state.json").read_text())
        assert state["run"]["step"] == 1 and state["train_config"]["lr"] == 1e-9
    shutil.rmtree(tmp_path / "hf")  # a run stands alone, where it goes on
    minillm("pretrain", "--resume", "--out", out, "--set", "train.max_steps=3")
    minillm("pretrain", "--from", made / "run", *corpus, "--out", tmp_path / "as-it-was")
    echoed = read_toml(tmp_path / "as-it-was" / "config.toml", SECTIONS)
    assert echoed["train"]["max_steps"] == 6 and echoed["data"]["start"] == str(made / "run")
    capsys.readouterr()
    for words, message in [
        (["--set", "model.d_model=64"], "d_model = 64 is not as "),
        (["--set", "model.model_type=llama"], "model_type = 'llama' is not as "),
        (["--tokenizer", tmp_path / "other.json"], "was trained with tokenizer"),
    ]:
        CharTokenizer.train(["abc"]).save(tmp_path / "other.json")
        error = minillm("pretrain", "--from", made / "run", *corpus, *words, "--out", out, status=2, capsys=capsys)
        assert message in error
    error = minillm("pretrain", "--from", "./nowhere", *corpus, "--out", tmp_path / "n", status=2, capsys=capsys)
    assert "./nowhere" in error


def test_an_earlier_run_gives_way_only_when_all_is_well(made, tmp_path, capsys):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json", *TINY]
    out = ["--out", tmp_path / "run"]
    minillm("pretrain", *data, *out)
    weights = tmp_path / "run" / "last" / "model.safetensors"
    first = weights.read_bytes()
    assert "or replace it (--overwrite)" in minillm("pretrain", *data, *out, status=2, capsys=capsys)
    minillm("pretrain", *data, *out, "--overwrite", "--set", "model.n_heads=5", status=2, capsys=capsys)
    assert weights.read_bytes() == first
    minillm("pretrain", *data, *out, "--overwrite", "--set", "train.seed=1")
    assert weights.read_bytes() != first
    assert [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in r] == list(range(1, 7))
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    error = minillm("pretrain", *data, *out, "--overwrite", status=2, capsys=capsys)
    assert "thesis.tex" in error and (tmp_path / "run" / "thesis.tex").exists()


def test_the_configs_that_come_with_minillm_are_valid(made):
    assert {"debug", "quickstart"} <= set(preset_names())
    for name in preset_names():
        sections = read_config(name)
        sections["data"] = {"corpus": str(made / "corpus"), "tokenizer": str(made / "tokenizer.json")}
        build_config({key: sections[key] for key in sections if key in SECTIONS})


def run_process(*arguments, **options):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "minillm", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_what_is_said_to_be_written_is_there(made, tmp_path, monkeypatch, capsys):
    """A run that ends before its first evaluation has no best."""
    step = NumpyEngine.step

    def stopping(engine, lr):
        step(engine, lr)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(NumpyEngine, "step", stopping)
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    one = ["--set", "engine.threads=1"]
    assert cli.main(["pretrain", *map(str, data), *TINY, *one, "--out", str(tmp_path / "run")]) == 143
    assert "run: last, metrics.jsonl, config.toml (health:" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"last", "metrics.jsonl", "config.toml", ".minillm.json"}


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_exits_and_the_run_goes_on(made, tmp_path, number, status):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    process = run_process("pretrain", *data, *TINY, "--set", "train.max_steps=1000000", "--out", tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, output
    assert "finishing this step and saving" in output and "minillm pretrain --resume --out" in output
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_text())["run"]
    step = state["step"]
    assert step == [row["step"] for row in read_metrics(metrics) if "loss" in row][-1] > 0
    minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", f"train.max_steps={step + 2}")
    assert [row["step"] for row in read_metrics(metrics) if "loss" in row] == list(range(1, step + 3))
