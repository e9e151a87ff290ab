"""Checkpoints in shards, read: the arrays that were cut, or an error that names the file. Saving in the background."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import write_shards

from minillm.data import Document, pack
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.shards import OPTIMIZER, WEIGHTS, Shards, shard_files
from minillm.hub.weights import WeightsError, fingerprint, read_folder
from minillm.models import GPT, GPTConfig
from minillm.nn import shapes
from minillm.settings import EngineConfig, TrainConfig
from minillm.training import saving
from minillm.training.checkpoint import read_checkpoint, save_checkpoint
from minillm.training.text import TextData
from minillm.training.train import train


@settings(max_examples=30)
@given(
    sizes=st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=4),
    edges=st.lists(st.integers(0, 100), max_size=3).map(sorted),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_cut_anywhere_the_arrays_come_back(sizes, edges, dtype, tmp_path_factory):
    """More shards than rows among them, where some are empty; by both readers, row by row too."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    arrays = {f"a{i}": np.asarray(rng.standard_normal(shape)).astype(dtype) for i, shape in enumerate(sizes)}
    write_shards(arrays, folder, WEIGHTS, edges)
    write_shards({"a0.step": np.array(3)}, folder, OPTIMIZER, edges)
    found, stored = Shards(shard_files(folder, WEIGHTS)), read_folder(folder)
    assert set(found) == set(stored) == set(arrays) and shapes(found) == shapes(arrays) == shapes(stored)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(stored[name].read(), array)
        if array.size and array.ndim:
            rows = dict(stored[name].blocks())
            np.testing.assert_array_equal(np.concatenate([rows[first] for first in sorted(rows)]), array)
    assert Shards(shard_files(folder, OPTIMIZER))["a0.step"] == 3
    whole = tmp_path_factory.mktemp("whole")
    write_shards(arrays, whole, WEIGHTS, [])
    assert fingerprint(stored) == fingerprint(read_folder(whole))


def test_shards_that_do_not_belong_together_are_refused_by_name(tmp_path):
    a = np.arange(12.0).reshape(6, 2)

    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            Shards(shard_files(tmp_path, WEIGHTS))
        with pytest.raises(WeightsError, match=match):
            read_folder(tmp_path)

    write_shards({"a": a}, tmp_path, WEIGHTS, [34, 67])
    middle = tmp_path / "shard-00002-model-00001-of-00002.safetensors"
    content = middle.read_bytes()
    middle.unlink()
    refused(r"shard-00003.* its part of 'a', \(2, 2\) from row 4, does not follow on 2 rows")
    middle.write_bytes(content.replace(b"[2, 0]", b"[1, 0]"))
    refused(r"shard-00002.* from row 1, does not follow on 2 rows")
    middle.write_bytes(content.replace(b"[2, 0]", b"[2, 1]"))
    refused(r"shard-00002.* 'a' \(2, 2\) begins at \[2, 1\], which is no row")
    middle.write_bytes(content.replace(b"DCP_SHARDING_INFO", b"DCP_SHARDING_XXXX"))
    refused("shard-00002.* its header does not say of which rows it is a part")
    middle.write_bytes(content[:-1])
    refused("shard-00002.*(damaged|cut off)")
    middle.unlink()
    write_shards({"a": a.astype(np.float16)}, tmp_path, WEIGHTS, [])
    with pytest.raises(ValueError, match="'a' is F16, which no run writes"):
        Shards(shard_files(tmp_path, WEIGHTS))


# --- in the background ------------------------------------------------------------------------------------------------


class Behind(NumpyEngine):
    """As PyTorch's engine with checkpoint = "async", in one process."""

    background = True

    def model_arrays(self):
        return copies(super().model_arrays())

    def optimizer_arrays(self):
        return copies(super().optimizer_arrays())


def copies(arrays):
    return {name: array.copy() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    class Bytes:
        vocab_size, eos_id = 257, 256

        def encode(self, text, disallowed_special=()):
            return list(text.encode())

        def fingerprint(self):
            return "bytes"

    folder = tmp_path_factory.mktemp("text")
    words = "".join(f"{i} times {i} is {i * i}. " for i in range(80))
    return TextData(*[pack([Document(words, "a")], Bytes(), folder / "text.bin")] * 2)


def run(text, folder, engine, eval_every=4, **options):
    model = GPT(GPTConfig(vocab_size=257, context=8, n_layers=1, n_heads=1, d_model=8, dropout=0.1))
    often = {"eval_every": eval_every, "save_every": 2, "eval_tokens": 60}
    config = TrainConfig(max_steps=8, batch_size=2, warmup_steps=2, **often)
    return train(model, text, config, folder, engine=engine, progress=False, **options)


def assert_same(ours, theirs):
    a, b = read_checkpoint(ours), read_checkpoint(theirs)
    assert {**a.state, "run": replace_seconds(a)} == {**b.state, "run": replace_seconds(b), "crc32": a.state["crc32"]}
    for mine, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert mine.keys() == other.keys() and all((mine[name] == other[name]).all() for name in mine)


def replace_seconds(checkpoint):
    return {**checkpoint.state["run"], "seconds": 0}


def engines():
    torch_engine = pytest.importorskip("minillm.engines.torch_engine").TorchEngine
    for kind in ("whole", "async"):
        yield partial(torch_engine, settings=EngineConfig(name="torch", device="cpu", checkpoint=kind))


class Late:
    """Saves that begin to write only after the next step is taken, and keep a copy of each."""

    def __init__(self, waits):
        self.stepped = {step: threading.Event() for step in (2, 4, 6)}
        for event in self.stepped.values() if not waits else ():
            event.set()

    def save(self, folder, *, state, **options):
        step = state["run"]["step"]
        if step in self.stepped:
            assert self.stepped[step].wait(60)
            save_checkpoint(folder.with_name(f"step {step}"), state=state, **options)
        save_checkpoint(folder, state=state, **options)

    def before(self, step, model):
        if step - 1 in self.stepped:
            self.stepped[step - 1].set()


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_is_saved_behind_is_what_was_there_when_it_was_asked_for(text, name, tmp_path, monkeypatch):
    at_once, behind = (NumpyEngine, Behind) if name == "numpy" else engines()
    for folder, engine, waits in (("now", at_once, False), ("behind", behind, True)):
        late = Late(waits)
        monkeypatch.setattr(saving, "save_checkpoint", late.save)
        run(text, tmp_path / folder, engine, eval_every=8, before_step=late.before)
    for kept in ("step 2", "step 4", "step 6", "last", "best"):
        assert_same(tmp_path / "now" / kept, tmp_path / "behind" / kept)


@pytest.mark.parametrize("failing", [2, 4])  # in the midst, and at the end of the run
def test_a_disk_that_is_full_behind_ends_the_run_and_leaves_what_was_there(text, tmp_path, monkeypatch, failing):
    calls = []

    def failing_save(folder, **options):
        calls.append(folder.name)
        if folder.name == "last" and calls.count("last") == failing:
            raise OSError(28, "No space left on device", str(folder))
        save_checkpoint(folder, **options)

    monkeypatch.setattr(saving, "save_checkpoint", failing_save)
    with pytest.raises(OSError, match="No space left on device"):
        run(text, tmp_path / "run", Behind)
    assert calls.count("last") == failing and calls[-1] == "last"
    assert read_checkpoint(tmp_path / "run" / "last").state["run"]["step"] == 2 * (failing - 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    monkeypatch.undo()
    run(text, tmp_path / "whole", NumpyEngine)
    run(text, tmp_path / "run", Behind, resume=True)
    assert_same(tmp_path / "run" / "last", tmp_path / "whole" / "last")
