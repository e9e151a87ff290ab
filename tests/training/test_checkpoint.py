"""Checkpoints: what is saved comes back, a kill at any instant leaves one that loads, damage is named."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.disk import whole
from minillm.engines.shards import Shards
from minillm.hub.checkpoint import load_model_and_tokenizer, open_checkpoint
from minillm.models import GPT, GPTConfig, config_to_dict
from minillm.nn import shapes
from minillm.tokenizers import CharTokenizer
from minillm.training import checkpoint
from minillm.training.checkpoint import (
    CheckpointError,
    checkpoint_in,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

TABLE = "token_embedding.weight"
CONFIG = GPTConfig(vocab_size=12, context=8, n_layers=1, n_heads=2, d_model=8)


def make_model(seed=0, **changes):
    return GPT(dataclasses.replace(CONFIG, **changes), np.random.default_rng(seed))


def make_tokenizer(text="abcdefgh"):
    return CharTokenizer.train([text])


def save(folder, model=None, step=0, tokenizer=None, **state):
    model = model or make_model()
    tokenizer = tokenizer or make_tokenizer()
    save_checkpoint(
        folder,
        config=config_to_dict(model.config),
        model=model.state_dict(),
        optimizer={f"{TABLE}.exp_avg": np.full((12, 8), step, np.float32), f"{TABLE}.step": np.array(step)},
        state={"step": step, "tokenizer": tokenizer.fingerprint(), **state},
        tokenizer=tokenizer,
    )
    return model


def test_what_is_saved_comes_back(tmp_path):
    random = np.random.default_rng(5).bit_generator.state  # holds integers of 128 bits
    model = save(tmp_path / "last", step=3, random=random, text="Überraschung 你好")
    back = read_checkpoint(tmp_path / "last")
    assert back.config == config_to_dict(model.config)
    assert back.state["random"] == random and back.state["text"] == "Überraschung 你好"
    assert back.optimizer[f"{TABLE}.step"].shape == () and back.optimizer[f"{TABLE}.step"] == 3
    loaded, tokenizer = load_model_and_tokenizer(tmp_path / "last")
    assert tokenizer.fingerprint() == make_tokenizer().fingerprint()
    for (name, a), (_, b) in zip(model.named_parameters(), loaded.named_parameters()):
        np.testing.assert_array_equal(a.data, b.data, err_msg=name)
    assert {p.name for p in tmp_path.iterdir()} == {"last"}  # nothing is left over


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    """Of the one file, as of shards: a process that is sent its part by another needs names and shapes alone."""
    save(tmp_path / "last", step=3)
    whole, lazy = read_checkpoint(tmp_path / "last"), read_checkpoint(tmp_path / "last", lazily=True)
    for ours, theirs in ((lazy.model, whole.model), (lazy.optimizer, whole.optimizer)):
        assert isinstance(theirs, dict) and isinstance(ours, Shards)
        assert shapes(ours) == shapes(theirs)
        assert all(ours[name].dtype == theirs[name].dtype and (ours[name] == theirs[name]).all() for name in theirs)
    file = tmp_path / "last" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_checkpoint(tmp_path / "last", verify=False, lazily=True)


def test_float64_weights_stay_float64(tmp_path):
    model = save(tmp_path / "last", make_model().to(np.float64))
    loaded = open_checkpoint(tmp_path / "last").model()
    assert loaded.token_embedding.weight.dtype == np.float64
    np.testing.assert_array_equal(loaded.token_embedding.weight.data, model.token_embedding.weight.data)


def test_a_transposed_array_is_saved_as_it_reads(tmp_path):
    array = np.arange(6.0).reshape(2, 3).T
    save_checkpoint(tmp_path / "c", config={}, model={"a": array}, optimizer={}, state={})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "c").model["a"], array)


def test_a_run_folder_gives_its_best_checkpoint_and_last_without_one(tmp_path):
    save(tmp_path / "last", step=2)
    assert checkpoint_in(tmp_path) == tmp_path / "last"
    save(tmp_path / "best", step=1)
    assert checkpoint_in(tmp_path) == tmp_path / "best"
    assert checkpoint_in(tmp_path / "last") == tmp_path / "last"


# --- kills --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill is to the process: no cleaning up is done after it."""


def disk_operations(monkeypatch, stop_at):
    """Make the `stop_at`-th operation on the disk, of those that saving makes, the last one. Returns the counter."""
    done = [0]

    def counted(function):
        def call(*args, **kwargs):
            if done[0] == stop_at:
                raise Killed
            done[0] += 1
            return function(*args, **kwargs)

        return call

    def rmtree(path, ignore_errors=False, original=shutil.rmtree):  # a kill in the middle of removing a folder, too
        if done[0] >= stop_at:
            raise Killed
        for file in sorted(path.rglob("*")):
            if file.is_file():
                counted(os.unlink)(file)
        counted(original)(path)

    monkeypatch.setattr(checkpoint, "save_file", counted(checkpoint.save_file))
    monkeypatch.setattr(checkpoint, "write_json", counted(checkpoint.write_json))
    monkeypatch.setattr(whole, "flush_to_disk", counted(whole.flush_to_disk))
    monkeypatch.setattr(os, "rename", counted(os.rename))
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    return done


def test_a_kill_before_any_operation_on_the_disk_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        total = disk_operations(patched, stop_at=10**6)
        save(tmp_path / "count", step=1)
        save(tmp_path / "count", step=2)
    assert total[0] > 20
    seen = set()
    for stop_at in range(total[0] // 2 + 4):
        folder = tmp_path / str(stop_at) / "last"
        save(folder, step=1)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            disk_operations(patched, stop_at)
            save(folder, step=2)
            raise Killed  # past the last operation
        step = read_checkpoint(folder).state["step"]
        seen.add(step)
        load_model_and_tokenizer(folder)
        assert checkpoint_in(folder.parent) == find_checkpoint(folder)
        save(folder, step=3)  # and the next save works, whatever the kill left behind
        assert read_checkpoint(folder).state["step"] == 3
        assert {p.name for p in folder.parent.iterdir()} == {"last"}
    assert seen == {1, 2}


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    save(tmp_path / "last", step=1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "last", step=2)
    assert read_checkpoint(tmp_path / "last").state["step"] == 1
    assert {p.name for p in tmp_path.iterdir()} == {"last"}


SAVE_FOREVER = """
    import sys, numpy as np
    from minillm.training.checkpoint import save_checkpoint
    for step in range(1, 10**9):
        arrays = {"a": np.full((64, 1024), step, np.float32)}
        save_checkpoint(sys.argv[1], config={"step": step}, model=arrays, optimizer=arrays, state={"step": step})
        if step == 1:
            print("saving", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_at_a_random_moment_leaves_a_whole_checkpoint(tmp_path):
    rng = np.random.default_rng()
    for trial in range(4):
        folder = tmp_path / str(trial)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVE_FOREVER), str(folder)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        back = read_checkpoint(folder)
        step = back.state["step"]
        assert step >= 1 and back.config["step"] == step
        assert (back.model["a"] == step).all() and (back.optimizer["a"] == step).all()


# --- damage and strangers -----------------------------------------------------------------------------------------

FILES = ("model.safetensors", "config.json", "optimizer.safetensors", "state.json", "tokenizer.json")


@given(name=st.sampled_from(FILES), part=st.floats(0, 0.99))
def test_a_truncated_file_is_named(tmp_path_factory, name, part):
    folder = tmp_path_factory.mktemp("run") / "last"
    save(folder)
    file = folder / name
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(folder)
        load_model_and_tokenizer(folder)


@given(st.binary(max_size=200), st.sampled_from(FILES))
def test_a_file_of_random_bytes_is_named(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("run") / "last"
    save(folder)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(folder)
        load_model_and_tokenizer(folder)


def test_missing_and_foreign_checkpoints_say_what_they_lack(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"there is no folder .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"not a complete minillm checkpoint: it has no state.json"):
        read_checkpoint(tmp_path / "empty")
    for load in (open_checkpoint, load_model_and_tokenizer):
        with pytest.raises(OSError, match=r"no checkpoint in .*empty: it has no config.json"):
            load(tmp_path / "empty")

    save(tmp_path / "last")
    for file, content, message in [
        ("config.json", {"model_type": "mamba", "hidden_size": 64}, "'mamba' is not an architecture"),
        ("config.json", {**config_to_dict(CONFIG), "n_layer": 2}, "'n_layer'. Did you mean 'n_layers'"),
        ("config.json", {**config_to_dict(CONFIG), "n_heads": 3}, "must be divisible"),
        ("config.json", {**config_to_dict(CONFIG), "d_model": 16}, r"token_embedding.weight is \(12, 8\)"),
        ("config.json", {**config_to_dict(CONFIG), "n_layers": 2}, "missing: blocks.1"),
        ("config.json", [1, 2], "must hold a JSON object, not a list"),
        ("state.json", {"step": 1}, "was not written by minillm"),
        ("state.json", {"format": "minillm checkpoint", "version": 99}, "version 99; this minillm reads 1"),
    ]:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "last", folder)
        (folder / file).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            read_checkpoint(folder, verify=False)  # the checksums would find it first
            open_checkpoint(folder)


def test_a_tokenizer_that_does_not_match_the_model_is_refused(tmp_path):
    save(tmp_path / "last")
    make_tokenizer("zyxwvuts").save(tmp_path / "last")
    with pytest.raises(CheckpointError, match="was trained with tokenizer"):
        load_model_and_tokenizer(tmp_path / "last")
    make_tokenizer("abcdefghijklmnopqrst").save(tmp_path / "last")
    with pytest.raises(CheckpointError, match=r"the tokenizer has .* ids but the model in .* only 12"):
        load_model_and_tokenizer(tmp_path / "last")
    (tmp_path / "last" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.json"):
        load_model_and_tokenizer(tmp_path / "last")


def test_a_tokenizer_may_have_as_many_ids_as_the_model_and_no_more():
    tokenizer = make_tokenizer()
    checkpoint.check_tokenizer(tokenizer, tokenizer.vocab_size, None, "here")
    checkpoint.check_tokenizer(tokenizer, tokenizer.vocab_size + 1, None, "here")
    with pytest.raises(CheckpointError, match="the model in here only"):
        checkpoint.check_tokenizer(tokenizer, tokenizer.vocab_size - 1, None, "here")
