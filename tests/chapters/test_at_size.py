"""Chapter 17's bookkeeping: processes that leave nothing behind and say what went wrong, memory, runs of many sizes."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import at_size, deliverables
from minillm.workshop import at_size_jobs as jobs

from minillm.costs.sizes import n_parameters, training_memory
from minillm.engines.numpy_engine import NumpyEngine
from minillm.models import GPT, GPTConfig
from minillm.settings import TrainConfig
from minillm.training.checkpoint import read_checkpoint
from minillm.training.run_folder import run_in
from minillm.training.train import train

SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(15)"]
SMALL = GPTConfig(vocab_size=64, context=32, n_layers=3, n_heads=2, d_model=32)


def pairs(rows, length=32):
    draw = np.random.default_rng(0).integers(0, 64, (2, rows, length))
    return draw[0], draw[1]


# --- processes ---------------------------------------------------------------------------------------------------


def test_none_of_the_processes_is_left_however_the_block_ends(tmp_path):
    class Wrong(Exception):
        pass

    with pytest.raises(Wrong), at_size.started([SLEEPER] * 2, tmp_path, [{}, {}]) as running:
        assert all(process.poll() is None for process in running)
        raise Wrong
    assert all(process.returncode not in (None, 0) for process in running)  # ended, not waited for


def test_a_time_limit_ends_them_and_tells_their_last_words(tmp_path):
    started, told = [], "the sleepers: not done after 3 seconds; they are ended. It printed out-0: awake."
    with pytest.raises(at_size.JobFailed) as caught, at_size.started([SLEEPER], tmp_path, [{}]) as running:
        started += running
        at_size.wait_for(lambda: running[0].poll() is not None, 3, tmp_path, "the sleepers")
    assert str(caught.value) == told and started[0].poll() is not None


def test_the_second_process_that_cannot_start_takes_the_first_with_it(tmp_path):
    before = time.monotonic()
    with pytest.raises(FileNotFoundError), at_size.started([SLEEPER, ["no such program"]], tmp_path, [{}, {}]):
        pass
    assert time.monotonic() - before < 12  # it was not waited for until its end


def test_a_run_that_ends_before_the_place_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(at_size, "job", lambda *arguments: [sys.executable, "-c", "raise SystemExit('no disk')"])
    with pytest.raises(at_size.JobFailed, match="ended before 'anywhere', with code 1: It printed out-0: no disk"):
        at_size.kill_in_save(tmp_path, "anywhere")


def test_ranks_that_noted_nothing_are_told(tmp_path):
    (tmp_path / "out-0.txt").write_text("Traceback\nValueError: too small\n")
    (tmp_path / "out-1.txt").write_text("")
    said = r"ddp-0.json is not there. It printed out-0: Traceback / ValueError: too small; out-1: nothing\."
    with pytest.raises(at_size.JobFailed, match=said):
        at_size.notes(tmp_path, "ddp")
    with pytest.raises(at_size.JobFailed, match=r"rank 0 has not noticed .*ValueError: too small"):
        at_size.said_of_the_loss(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="a kill is another thing there")
@pytest.mark.parametrize("where", jobs.INSTANTS)
def test_a_kill_at_each_place_of_a_save_leaves_a_whole_checkpoint(where, tmp_path):
    assert at_size.kill_in_save(tmp_path, where) == -9
    run = tmp_path / "run"
    assert any("minillm-tmp" in path.name for path in run.iterdir())  # it really was in the midst of it
    assert ("old folder" in where) == (not (run / "last").exists())
    assert read_checkpoint(run_in(run)).state["run"]["step"] == jobs.SAVE_EVERY


def test_two_ranks_hold_halves_and_the_last_one_dies(tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch is built without torch.distributed")
    text = jobs.text_in(tmp_path)
    codes = at_size.run_ranks(tmp_path)
    assert codes[0] == 3 and codes[1] != 0
    assert "another process of this job has died" in at_size.said_of_the_loss(tmp_path)
    n = n_parameters(jobs.SHAPE)
    ddp, fsdp = (at_size.notes(tmp_path, kind) for kind in ("ddp", "fsdp"))
    assert [note["held"] for note in ddp] == [{"weights": n, "gradients": n, "moments": 2 * n}] * 2
    for part, whole in ddp[0]["held"].items():
        assert sum(note["held"][part] for note in fsdp) == pytest.approx(whole, rel=0.01)
        assert max(note["held"][part] for note in fsdp) < 0.51 * whole
    assert ddp[0]["sent"] == {"all-reduce": n}
    assert fsdp[0]["sent"]["reduce-scatter"] == pytest.approx(n, rel=0.01)
    assert n < fsdp[0]["sent"]["all-gather"] < 2.02 * n
    alone = NumpyEngine(jobs.new_model(), jobs.settings())
    alone.forward_backward([jobs.uneven_batch()])
    right = at_size.flat({name: p.grad for name, p in alone.model.named_parameters()})
    assert max(at_size.off(at_size.arrays(tmp_path, f"{kind}-gradients"), right) for kind in ("ddp", "fsdp")) < 1e-12
    assert read_checkpoint(run_in(tmp_path / "run")).state["run"]["step"] == jobs.SAVE_EVERY
    train(jobs.new_model(), text, jobs.settings(), tmp_path / "run", resume=True, progress=False)
    assert read_checkpoint(tmp_path / "run" / "last").state["run"]["step"] == jobs.LAST_STEP


def test_a_job_that_is_not_known_ends_with_its_reason(tmp_path):
    done = subprocess.run(at_size.job("save", tmp_path, "nowhere"), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "nowhere" in done.stderr


# --- memory and time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 8])
def test_what_the_graph_keeps_is_what_is_counted(rows):
    need = training_memory(SMALL, rows, 32)
    kept = at_size.kept_bytes(GPT(SMALL, np.random.default_rng(0)), pairs(rows))
    assert kept == pytest.approx(need.activations + need.attention_weights, rel=0.15)


def test_what_is_computed_again_is_not_kept():
    model = GPT(SMALL, np.random.default_rng(0))
    none, selective, layers = (at_size.kept_bytes(model, pairs(8), how) for how in ("none", "selective", "layers"))
    assert layers < selective / 2 < none / 2


def test_micro_batches_need_less_at_once():
    ids, targets = pairs(8)
    engine = NumpyEngine(GPT(SMALL, np.random.default_rng(0)), TrainConfig())
    whole = at_size.most_bytes(engine, [(ids, targets)])
    parts = at_size.most_bytes(engine, [(ids[i::4], targets[i::4]) for i in range(4)])
    assert parts < 0.6 * whole


def busy(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_medians_of_processor_time_without_the_first_call():
    calls = []

    def first_is_slow():
        busy(0.002 if calls else 0.2)
        calls.append("a")

    def idle():
        time.sleep(0.02)
        calls.append("b")

    slow, sleeping = at_size.seconds_for([first_is_slow, idle], 3)
    assert calls == ["a", "b"] * 4
    assert 0.002 <= slow < 0.1 and sleeping < 0.02


# --- runs of many sizes ------------------------------------------------------------------------------------------


def test_a_run_takes_its_compute_and_depends_on_its_seed_alone():
    ids = np.random.default_rng(0).integers(0, at_size.CHARACTERS, (2, 4000))
    compute, first = 3e7, None
    for seed in (0, 0, 1):
        run = at_size.one_run((ids[0], ids[1]), (compute, 8, seed, 16))
        assert run["n"] == n_parameters(at_size.shape(8)) and run["tokens"] == run["steps"] * 256
        assert 6 * run["n"] * run["tokens"] == pytest.approx(compute, rel=0.15)
        if seed == 0 and first is not None:
            assert run == first
        first = first or run
    assert run["loss"] != first["loss"]


def test_the_table_of_runs_is_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MADE", str(tmp_path))
    monkeypatch.setattr(deliverables, "corpus", lambda scale, kind: tmp_path / "corpus" / "corpus")
    draw = np.random.default_rng(0).integers(0, at_size.CHARACTERS, (2, 4000))
    monkeypatch.setattr(at_size, "characters", lambda text: (draw[0], draw[1]))
    sweep = {2e7: (4, 8), 1e7: (8,)}
    runs = deliverables.runs_of_sweep("smoke", sweep)
    compute, width, seed = at_size.columns(runs, "compute", "width", "seed")
    found = list(zip(compute.tolist(), width.tolist(), seed.tolist()))
    assert found == [(1e7, 8, 0), (1e7, 8, 1), (2e7, 4, 0), (2e7, 4, 1), (2e7, 8, 0), (2e7, 8, 1)]
    assert deliverables.runs_of_sweep("smoke", sweep) == runs  # read, not made again


def test_characters_are_numbered_by_how_common_they_are_in_train(monkeypatch):
    texts = {"train": "b" * 9 + "a" * 5 + "c", "val": "abz"}
    monkeypatch.setattr(at_size, "corpus_text", lambda folder, split: texts[split])
    train_ids, val_ids = at_size.characters(None)
    assert train_ids.tolist() == [1] * 9 + [2] * 5 + [3] and val_ids.tolist() == [2, 1, 0]


def test_the_nearest_width():
    for width in at_size.WIDTHS:
        n = n_parameters(at_size.shape(width))
        assert at_size.nearest_width(1.05 * n) == width == at_size.nearest_width(0.96 * n)


def test_the_exercises_disk_loses_half_of_what_is_written_and_no_rename():
    disk = at_size.Disk({"a": "old!"}, kill_at=1)
    with pytest.raises(at_size.Killed):
        disk.write("a", "new!")
    assert disk.files == {"a": "ne"}
    for operation in (lambda disk: disk.rename("a", "b"), lambda disk: disk.remove("a")):
        disk = at_size.Disk({"a": "old!"}, kill_at=1)
        with pytest.raises(at_size.Killed):
            operation(disk)
        assert disk.files == {"a": "old!"}
        disk.kill_at = None
        operation(disk)
        assert "a" not in disk.files
    with pytest.raises(KeyError):
        disk.remove("a")
