"""A run folder keeps its word: what is refused changes nothing, what was killed goes on, what can't be done is said."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import TINY, minillm
from shards import cut

from minillm.costs.sizes import training_memory
from minillm.models import GPT, GPTConfig
from minillm.settings import EngineConfig, TrainConfig
from minillm.tokenizers import load_tokenizer
from minillm.training import memory, pretrain, run_folder
from minillm.training.checkpoint import read_arrays, read_checkpoint
from minillm.training.config_file import ConfigError, build
from minillm.training.pretrain import DataConfig, packed
from minillm.training.run_log import read_metrics
from minillm.training.text import TextData
from minillm.training.train import train


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def data(made):
    return ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "model.n_layers=3"], "holds a model with n_layers = 2, not 3"),
        (["--set", "train.seed=1"], "seed was 1337 and is 1 now"),
        (["--set", "model.context=16"], "holds a model with context = 32, not 16"),
        (["--set", "train.optimizer=sgd"], "cannot be resumed with these settings"),
        (["--config", "debug"], "--resume goes on with the configuration of the run"),
        (["--tokenizer", "other.json"], "was packed with the tokenizer|was trained with tokenizer|holds a model with"),
    ],
)
def test_a_refused_resume_leaves_the_run_as_it_was(made, run, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    minillm("tokenizer", "train", made / "corpus", "--vocab-size", "290", "--out", "other.json")
    before = contents(run)
    capsys.readouterr()
    resume = ["pretrain", "--resume", "--out", run, "--set", "train.max_steps=9"]
    error = minillm(*resume, *options, status=2, capsys=capsys)
    assert any(part in error for part in message.split("|")), error
    assert contents(run) == before
    minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=7")  # and it can still go on
    assert read_checkpoint(run / "last").state["run"]["step"] == 7


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_file_of_the_users_in_a_checkpoint_is_named_before_training(made, run, data, name, tmp_path, capsys):
    (run / name / "thesis.tex").write_text("mine")
    before = contents(run)
    error = minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=9", status=2, capsys=capsys)
    assert f"{name} holds what minillm did not put there (thesis.tex)" in error and "move that elsewhere" in error
    tokenizer = load_tokenizer(made / "tokenizer.json")
    tokens = [packed(DataConfig(str(made / "corpus")), split, tokenizer) for split in ("train", "val")]
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, context=32, n_layers=2, n_heads=2, d_model=32))
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):  # by the library's own door, too
        train(model, TextData(*tokens), TrainConfig(max_steps=9), run, resume=True, progress=False)
    assert contents(run) == before
    (run / name / "thesis.tex").unlink()
    minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=9")


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_folder_of_the_users_is_not_taken_for_a_run(data, name, tmp_path, capsys):
    (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / name / "thesis.tex").write_text("mine")
    error = minillm("pretrain", *data, *TINY, "--out", tmp_path / "run", status=2, capsys=capsys)
    assert f"{name} was not made by minillm, and is not overwritten" in error
    assert [p.name for p in tmp_path.rglob("*")] == ["run", name, "thesis.tex"]


def test_a_run_killed_between_its_first_best_and_its_first_last_goes_on(run):
    shutil.rmtree(run / "last")
    step = read_checkpoint(run / "best").state["run"]["step"]
    minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=8")
    assert read_checkpoint(run / "last").state["run"]["step"] == 8
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row][step - 1 :][0] == step


def test_a_damaged_line_of_the_log_costs_no_other(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[2:2] = ["{broken", '"a text"', "[1, 2]", '{"step": "three"}', "[" * 5000]
    path.write_text("\n".join(lines) + "\n")
    minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=8")
    assert [row["step"] for row in read_metrics(path) if "loss" in row] == list(range(1, 9))


def test_other_settings_than_the_run_had_are_named(run):
    with pytest.warns(UserWarning, match=r"lr was 0\.001, is 0\.01; grad_clip was 1\.0, is 0\.5"):
        minillm("pretrain", "--resume", "--out", run, "--set", "train.max_steps=7", "--set", "train.lr=1e-2",
                "--set", "train.grad_clip=0.5")  # fmt: skip


def test_a_checkpoint_never_holds_weights_that_are_not_finite(data, tmp_path, monkeypatch, capsys):
    from minillm.engines.numpy_engine import NumpyEngine

    plain = NumpyEngine.step

    def spoil(engine, lr):  # the loss of this step was finite, what the step leaves is not
        plain(engine, lr)
        if engine.optimizer.steps[id(engine.optimizer.params[0])] == 4:
            next(engine.model.parameters()).data.flat[0] = np.nan

    monkeypatch.setattr(NumpyEngine, "step", spoil)
    one = ["--set", "engine.threads=1"]
    error = minillm("pretrain", *data, *TINY, *one, "--out", tmp_path / "run", status=1, capsys=capsys)
    assert "step 4: token_embedding.weight" in error and "holds nan or infinity" in error
    kept = read_checkpoint(tmp_path / "run" / "last")
    assert kept.state["run"]["step"] == 2 and all(np.isfinite(a).all() for a in kept.model.values())


def test_everybody_may_read_the_weights(run):
    modes = {p.name: p.stat().st_mode & 0o777 for p in (run / "last").iterdir() if p.is_file()}
    assert len(set(modes.values())) == 1, f"{modes}: the weights have the mode of every other file"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("device=cuda", "device = 'cuda' is PyTorch's"),
        ("precision=bf16", "precision = 'bf16' is PyTorch's"),
        ("compile=on", "compile = 'on' is PyTorch's"),
        ("recompute=all", "recompute must be one of 'none', 'layers', 'selective', not 'all'"),
        ("parallel=fsdp", "parallel = 'fsdp' is PyTorch's"),
        ("parallel=hsdp", "parallel = 'hsdp' is PyTorch's"),
        ("checkpoint=async", "checkpoint = 'async' is PyTorch's"),
        ("shard_group=2", "shard_group = 2 must be a number of processes"),
        ("device=gpu", "device must be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:0' and so on, not 'gpu'"),
    ],
)
def test_what_an_engine_cannot_honour_is_refused_before_the_run(data, tmp_path, setting, message, capsys):
    options = [*TINY, "--set", f"engine.{setting}", "--out", tmp_path / "run"]
    assert message in minillm("pretrain", *data, *options, status=2, capsys=capsys)
    assert not (tmp_path / "run").exists()
    if "PyTorch" in message:  # which has it
        name, _, value = setting.partition("=")
        EngineConfig(name="torch", **{name: value})


def test_what_does_not_fit_is_refused_with_numbers(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    error = minillm("pretrain", *data, *TINY, "--out", tmp_path / "run", status=2, capsys=capsys)
    assert "training needs about 26" in error and "1.000 MB are free" in error and "--force" in error
    assert not (tmp_path / "run").exists()
    minillm("pretrain", *data, *TINY, "--out", tmp_path / "run", "--force")


def test_a_run_that_does_not_fit_is_told_what_would():
    """The gentlest setting that fits, or the last where none does; nothing where nothing is left to be saved."""
    model = GPTConfig(vocab_size=512, context=256, n_layers=8, n_heads=4, d_model=64)
    train, engine = TrainConfig(batch_size=64), EngineConfig(threads=1)
    needed = {how: memory.needed_bytes(model, train, engine, how) for how in ("none", "selective", "layers")}
    assert needed["none"] > 1.2 * needed["selective"] > 2 * needed["layers"]
    for now, free, advice in (
        ("none", needed["selective"] + 1, "With engine.recompute=selective (--set) it takes about "),
        ("none", needed["selective"] - 1, "With engine.recompute=layers (--set) it takes about "),
        ("none", 10**6, "With engine.recompute=layers (--set) it takes about "),
        ("selective", 10**6, "With engine.recompute=layers (--set) it takes about "),
        ("layers", 10**6, "tokens. Make the model or train.batch_size smaller"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "free_memory", lambda free=free: free)
            with pytest.raises(ConfigError, match=re.escape(advice)):
                memory.check_memory(model, train, replace(engine, recompute=now))
            if advice.startswith("With") and free > 10**6:
                memory.check_memory(model, train, replace(engine, recompute=advice.split("=")[1].split()[0]))


def test_a_run_of_before_recompute_had_words_can_be_read():
    for said, means in ((False, "none"), (True, "layers"), ("selective", "selective")):
        assert build(EngineConfig, {"recompute": said}, "[engine]").recompute == means
    with pytest.raises(ConfigError, match="threads must be a whole number, not True"):
        build(EngineConfig, {"threads": True}, "[engine]")


@pytest.mark.parametrize("kind", ["gpt", "llama", "bert", "lstm", "encoder-decoder"])
def test_what_is_trained_by_default_fits_a_laptop(made, kind):
    data = {"corpus": str(made / "corpus"), "tokenizer": str(made / "tokenizer.json")}
    sections = {**pretrain.sections_for("laptop", {"model": {"model_type": kind}, "data": data}), "data": data}
    sections["model"]["model_type"] = kind
    config, _ = pretrain.build_config(sections)
    need = training_memory(config.model, config.train.batch_size, config.model.context)
    assert need.total < 1e9 and need.weights < 4 * 3e6, f"{kind}: {need}"
    assert run_folder.changed_settings({}, config.train) == []


def test_a_run_says_how_long_it_will_take(data, tmp_path, capsys):
    out = minillm("pretrain", *data, *TINY, "--out", tmp_path / "run", capsys=capsys)
    assert "6 steps, about" in out and "at the speed that this machine has now" in out
    assert json.loads((tmp_path / "run/last/state.json").read_text())["run"]["step"] == 6


def test_files_that_were_there_before_are_not_overwritten(data, tmp_path, capsys):
    for name in ("config.toml", "metrics.jsonl"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        (folder / "thesis.tex").write_text("also mine")
        error = minillm("pretrain", *data, *TINY, "--out", folder, status=2, capsys=capsys)
        assert f"{folder / name} was not made by minillm" in error
        assert contents(folder)[name] == b"mine"
        (folder / name).unlink()
        minillm("pretrain", *data, *TINY, "--out", folder)  # beside other files of the user's there may be a run
        assert (folder / "thesis.tex").read_text() == "also mine"
        minillm("pretrain", "--resume", "--out", folder, "--set", "train.max_steps=7")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json"])
def test_one_flipped_bit_is_noticed(run, name, capsys):
    path = run / "last" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    resume = ["pretrain", "--resume", "--out", run, "--set", "train.max_steps=7"]
    error = minillm(*resume, status=2, capsys=capsys)
    assert f"{path} is damaged" in error
    if name == "optimizer.safetensors":
        minillm(*resume, "--no-verify")  # for the hurried, who then see to it themselves


def test_a_flipped_bit_in_weights_is_noticed_where_they_are_used(run, capsys):
    for command in (["generate", run / "last", "--max-new-tokens", "2"], ["evaluate", run / "last"]):
        minillm(*command)
    path = run / "last" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    for command in (["generate", run / "last", "--max-new-tokens", "2"], ["evaluate", run / "last"]):
        assert f"{path} is damaged" in minillm(*command, status=2, capsys=capsys)
        minillm(*command, "--no-verify")


def test_a_checkpoint_in_shards_is_used_as_the_whole_one(run, tmp_path, capsys):
    """Evaluated, converted into one file of arrays, and gone on with to the last bit; a flipped bit is noticed."""
    parts = tmp_path / "parts"
    shutil.copytree(run, parts)
    cut(parts / "last", [30, 71])
    measured = [minillm("evaluate", folder / "last", capsys=capsys) for folder in (run, parts)]
    assert measured[0].replace(str(run), "") == measured[1].replace(str(parts), "")
    minillm("check", parts)
    minillm("convert", parts / "last", tmp_path / "one", "--to", "minillm")
    assert_same_arrays(run / "last", tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} >= {"config.json", "tokenizer.json"}

    shard = parts / "last" / "shard-00002-model-00001-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    for command in (["evaluate", parts / "last"], ["pretrain", "--resume", "--out", parts]):
        assert f"{shard} is damaged" in minillm(*command, status=2, capsys=capsys)
    shard.write_bytes(content)
    for folder in (run, parts):
        minillm("pretrain", "--resume", "--out", folder, "--set", "train.max_steps=8")
    assert_same_arrays(run / "last", parts / "last")


def assert_same_arrays(ours, theirs):
    a, b = (read_arrays(folder / "model.safetensors") for folder in (ours, theirs))
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_two_runs_in_one_folder_at_once_are_one_run(data, tmp_path, capfd):
    """The second is told who trains there; the first one's run is whole."""
    arguments = ["pretrain", *data, *TINY, "--set", "train.max_steps=40", "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "minillm", *map(str, arguments)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    statuses = sorted(process.returncode for process in both)
    assert statuses == [0, 2], errors
    refused = next(error for process, error in zip(both, errors) if process.returncode == 2)
    assert ("is in use by process" in refused or "already holds a run" in refused) and "Traceback" not in refused
    assert [row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl") if "loss" in row] == list(range(1, 41))
