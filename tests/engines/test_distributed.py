"""Two processes under torchrun, on the CPU (gloo), against one: the same losses and checkpoints; one process killed."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch is built without torch.distributed", allow_module_level=True)

import distributed_worker as worker  # noqa: E402

from minillm.engines.choose import engine_class  # noqa: E402
from minillm.engines.numpy_engine import NumpyEngine  # noqa: E402
from minillm.engines.protocol import PackedLoss, ProcessLost  # noqa: E402
from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.hub.checkpoint import open_checkpoint  # noqa: E402
from minillm.settings import EngineConfig  # noqa: E402
from minillm.training.checkpoint import read_checkpoint  # noqa: E402
from minillm.training.run_log import read_metrics  # noqa: E402
from minillm.training.text import TextData  # noqa: E402
from minillm.training.train import train  # noqa: E402

CLOSE = 1e-10


def torchrun(folder, what, processes=2):
    here = Path(__file__).parents[1] / "shared"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*command, str(here / "distributed_worker.py"), str(folder), what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


class Stopped(Exception):
    pass


class Stopping(NumpyEngine):
    """Stops a run in its sixth step, after the checkpoint of the fourth."""

    calls = 0

    def forward_backward(self, micro_batches):
        self.calls += 1
        if self.calls == 6:
            raise Stopped
        return super().forward_backward(micro_batches)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of one NumPy process, and the runs of two torch processes, new and resumed from NumPy's."""
    folder = tmp_path_factory.mktemp("distributed")
    data = worker.make_data(folder)
    config = worker.make_config(1)
    train(worker.make_model(), TextData(*data), config, folder / "one", progress=False)
    with pytest.raises(Stopped):
        train(worker.make_model(), TextData(*data), config, folder / "resumed-ddp", engine=Stopping, progress=False)
    shutil.copytree(folder / "resumed-ddp", folder / "resumed-fsdp")
    done = torchrun(folder, "train")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def losses(folder):
    return [row.get("loss", row.get("val_loss")) for row in read_metrics(folder / "metrics.jsonl")]


def assert_same_run(ours, theirs, steps=8):
    """The losses, training and validation, and the last checkpoint of one run are those of the other."""
    assert len(losses(ours)) == len(losses(theirs)) == steps + steps // 4
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=CLOSE)
    a, b = read_checkpoint(ours / "last"), read_checkpoint(theirs / "last")
    assert a.state["run"]["step"] == steps and a.state["run"]["tokens"] == b.state["run"]["tokens"]
    assert a.state["data"] == b.state["data"]
    for mine, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert sorted(mine) == sorted(other)
        for name in mine:
            assert mine[name].dtype == other[name].dtype
            np.testing.assert_allclose(mine[name], other[name], rtol=CLOSE, atol=CLOSE, err_msg=name)


def test_ranks_that_are_sent_their_part_read_no_array(runs):
    """Of the one file that NumPy wrote the first rank reads each array once, the other the numbers of steps."""
    asked = {
        (parallel, rank): json.loads((runs / f"asked-{parallel}-{rank}.json").read_text())
        for parallel in worker.PARALLEL
        for rank in (0, 1)
    }
    every = asked["ddp", 0]
    assert sorted(every) == sorted(asked["ddp", 1]) == sorted(asked["fsdp", 0]) and len(every) > 30
    assert asked["fsdp", 1] == [name for name in asked["fsdp", 0] if name.endswith(".step")]


@pytest.mark.parametrize("parallel", worker.PARALLEL)
@pytest.mark.parametrize("began", ["new", "resumed"])
def test_two_processes_equal_one(runs, parallel, began):
    assert_same_run(runs / f"{began}-{parallel}", runs / "one")


def test_muon_in_two_processes_equals_one(runs):
    """Each orthogonalizes half of the matrices, both at the same time: neither waits for the other's before its own."""
    config = worker.make_config(1, optimizer="muon")
    train(worker.make_model(), TextData(*worker.data(runs)), config, runs / "muon-one", progress=False)
    done = torchrun(runs, "muon")
    assert done.returncode == 0, done.stderr[-3000:]
    for parallel in worker.PARALLEL:
        assert_same_run(runs / f"muon-{parallel}", runs / "muon-one")
        for rank in (0, 1):
            done = (runs / f"did-{parallel}-{rank}.txt").read_text()
            assert done and not done.replace("compute send send", "").strip()


def test_copies_of_the_model_that_are_cut_up_equal_one_process(runs):
    done = torchrun(runs, "hsdp")
    assert done.returncode == 0, done.stderr[-3000:]
    for group in (0, 1):
        assert_same_run(runs / f"hsdp-{group}", runs / "one")
    assert "2 processes cannot be divided into groups of 3" in done.stdout


def test_checkpoints_in_shards_equal_one_process(runs):
    """Written while the training waits, and behind it; what several processes hold is written by one of them."""
    done = torchrun(runs, "shards")
    assert done.returncode == 0, done.stderr[-3000:]
    for parallel in worker.PARALLEL:
        for kind in ("sharded", "async"):
            last = runs / f"{kind}-{parallel}" / "last"
            assert_same_run(runs / f"{kind}-{parallel}", runs / "one")
            written = sorted(path.name for path in last.glob("*.safetensors"))
            assert written == [f"shard-0000{i}-model-0000{j}-of-00002.safetensors" for i in (1, 2) for j in (1, 2)]
            sizes = [path.stat().st_size for path in last.glob("shard-*-00002-of*")]
            assert max(sizes) < 2 * min(sizes)  # each writes about half
            opened = open_checkpoint(last).model().state_dict()
            whole = read_checkpoint(runs / "one" / "last").model
            assert all(np.allclose(opened[name], whole[name], rtol=CLOSE, atol=CLOSE) for name in whole)


@pytest.mark.long
def test_two_processes_then_one_then_two_equal_one(runs):
    """Each goes on from the shards, or the whole, that the one before it has left."""
    config = worker.make_config(1, max_steps=12)
    train(worker.make_model(), TextData(*worker.data(runs)), config, runs / "long", progress=False)
    done = torchrun(runs, "begin")
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in ("sharded", "async"):
        folder = runs / f"there-and-back-{kind}"
        assert read_checkpoint(folder / "last").state["run"]["step"] == 4 and list((folder / "last").glob("shard-*"))

        def stop(step, model):
            if step == 9:
                raise Stopped

        with pytest.raises(Stopped):
            alone = partial(TorchEngine, settings=EngineConfig(device="cpu"))
            options = {"engine": alone, "resume": True, "before_step": stop, "progress": False}
            train(worker.make_model(), TextData(*worker.data(runs)), config, folder, **options)
        assert read_checkpoint(folder / "last").state["run"]["step"] == 8
        assert not list((folder / "last").glob("shard-*"))
    done = torchrun(runs, "end")
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in ("sharded", "async"):
        assert_same_run(runs / f"there-and-back-{kind}", runs / "long", steps=12)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_in_the_midst_of_a_save_behind_leaves_the_one_before(runs, rank):
    done = torchrun(runs, f"kill-{rank}")
    assert done.returncode != 0 and "exitcode: -9" in done.stderr
    killed = runs / f"killed-kill-{rank}"
    assert read_checkpoint(killed / "last").state["run"]["step"] == 4
    train(worker.make_model(), TextData(*worker.data(runs)), worker.make_config(1), killed, resume=True, progress=False)
    assert_same_run(killed, runs / "one")
    assert {path.name for path in killed.iterdir()} == {".minillm.json", "best", "last", "metrics.jsonl"}


@pytest.mark.long
def test_a_full_disk_of_one_process_is_told_by_all(runs):
    done = torchrun(runs, "full")
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        said = (runs / f"full-async-{rank}.txt").read_text()
        assert "process 1 could not write its part" in said and "No space left on device" in said
        assert str(runs / "full-async" / "last") in said and "stays as it was" in said
    assert read_checkpoint(runs / "full-async" / "last").state["run"]["step"] == 4
    assert {path.name for path in (runs / "full-async").iterdir()} == {".minillm.json", "best", "last", "metrics.jsonl"}


@pytest.mark.long
def test_documents_apart_in_two_processes_equal_one(runs):
    config, text = worker.make_config(1), worker.packed_text(runs)
    packing = partial(NumpyEngine, loss=PackedLoss())
    train(worker.make_model(), text, config, runs / "packed-one", engine=packing, progress=False)
    done = torchrun(runs, "packed")
    assert done.returncode == 0, done.stderr[-3000:]
    for parallel in worker.PARALLEL:
        assert_same_run(runs / f"packed-{parallel}", runs / "packed-one")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_who_writes_whole_arrays_keeps_them(runs):
    """The rise of each rank's resident size while it saves, as shares of weights and optimizer's state together."""
    done = torchrun(runs, "memory")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((runs / "memory.json").read_text())
    shares = {kind: [rise / of["whole"] for rise in of["ranks"]] for kind, of in found.items()}
    print(f"{found['whole']['whole'] / 1e6:.0f} MB:", {k: [round(x, 2) for x in v] for k, v in shares.items()})
    assert shares["whole"][0] > 0.9 and shares["whole"][1] < 0.25
    assert max(shares["sharded"]) < 1.4  # its half, twice: torch makes bytes of all, and then one piece of these
    assert max(shares["async"]) < 1.75  # and the copy that training does not change, once


@pytest.mark.long
def test_two_copies_on_two_processes_each_equal_one_process(runs):
    done = torchrun(runs, "copies", processes=4)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(runs / "hsdp-copies", runs / "one")


@pytest.mark.long
def test_two_processes_compiled_equal_one(runs):
    done = torchrun(runs, "compile")
    assert done.returncode == 0, done.stderr[-3000:]
    for parallel in worker.PARALLEL:
        assert_same_run(runs / f"compiled-{parallel}", runs / "one")


def test_gradients_travel_while_others_are_computed(tmp_path):
    """Under DDP, compiled or not: buckets of gradients are ready before the end of the backward pass. Were the compiled
    graph not cut between the buckets, none would be."""
    done = torchrun(tmp_path, "overlap")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "overlap.json").read_text())
    assert min(how["buckets"] for how in found.values()) > 2
    assert found.pop("uncut")["after"] == 0
    assert min(how["after"] for how in found.values()) > 2, found


def test_our_attention_in_two_processes(runs, monkeypatch):
    """Triton's kernels, in the interpreter, on parameters that FSDP shards and gathers and DDP copies."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = torchrun(runs, "triton")
    assert done.returncode == 0, done.stderr[-3000:]
    for parallel in worker.PARALLEL:
        config = json.loads((runs / f"triton-{parallel}" / "last" / "config.json").read_text())
        assert config["attention"] == "triton"
        one = losses(runs / "one")
        del one[4]  # the validation after four steps, which is left out here
        np.testing.assert_allclose(losses(runs / f"triton-{parallel}"), one, rtol=1e-6)


@pytest.mark.parametrize("parallel", worker.PARALLEL)
def test_one_process_resumes_what_two_began(runs, parallel, tmp_path):
    """On torch and on NumPy, and the two go the same way."""
    config = worker.make_config(1, max_steps=12)
    ended = {}
    for name, engine in (("numpy", NumpyEngine), ("torch", partial(TorchEngine, settings=EngineConfig(device="cpu")))):
        shutil.copytree(runs / f"new-{parallel}", tmp_path / name)
        result = train(
            worker.make_model(),
            TextData(*worker.data(runs)),
            config,
            tmp_path / name,
            engine=engine,
            resume=True,
            progress=False,
        )
        assert result.state.step == 12
        ended[name] = losses(tmp_path / name)
    np.testing.assert_allclose(ended["torch"], ended["numpy"], rtol=CLOSE)


def test_the_numpy_engine_loads_what_two_processes_wrote(runs):
    model = open_checkpoint(runs / "new-fsdp").model()
    ids = np.arange(16)[None]
    np.testing.assert_allclose(model(ids).data, open_checkpoint(runs / "one").model()(ids).data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parallel", worker.PARALLEL)
def test_a_killed_process_ends_the_job_and_leaves_a_checkpoint(runs, parallel):
    killed, said = runs / f"killed-{parallel}", "another process of this job has died"  # by rank 0
    for _ in range(3):  # torchrun ends rank 0 when it has noticed, too, which may be before that has spoken
        shutil.rmtree(killed, ignore_errors=True)
        done = torchrun(runs, f"die-{parallel}")
        assert done.returncode != 0
        assert "exitcode: -9" in done.stderr  # what torchrun says of rank 1
        if said in done.stderr:
            break
    assert said in done.stderr
    assert read_checkpoint(killed / "last").state["run"]["step"] == 4
    train(worker.make_model(), TextData(*worker.data(runs)), worker.make_config(1), killed, resume=True, progress=False)
    assert_same_run(killed, runs / "one")


@pytest.mark.parametrize("call", ["total_norm", "model_arrays", "optimizer_arrays", "batch_loss"])
def test_a_connection_that_breaks_anywhere_is_named(monkeypatch, call):
    """The calls that wait for other ranks, one after another, in an engine that believes to be one of two."""
    engine = TorchEngine(worker.make_model(), worker.make_config(1), EngineConfig(device="cpu"))
    batch = np.zeros((2, 16), np.int64), np.zeros((2, 16), np.int64)
    engine.forward_backward([batch])
    engine.world_size = 2

    def broken(*args, **kwargs):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:535] Connection closed by peer [127.0.0.1]:1234")

    monkeypatch.setattr("minillm.engines.torch_engine.whole", broken)
    monkeypatch.setattr("minillm.engines.torch_engine.array_of", broken)
    monkeypatch.setattr("torch.distributed.all_reduce", broken)
    with pytest.raises(ProcessLost, match="rank 0 of 2: another process of this job has died"):
        getattr(engine, call)(*batch if call == "batch_loss" else ())


def test_other_errors_keep_their_name_and_a_lost_connection_its_cause(monkeypatch):
    engine = TorchEngine(worker.make_model(), worker.make_config(1), EngineConfig(device="cpu"))
    engine.world_size = 2
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), engine.lost_peer():
        raise RuntimeError("shapes do not fit")
    for error in (RuntimeError("[1.2.3.4] Broken pipe"), torch.distributed.DistBackendError("NCCL: out of memory")):
        with pytest.raises(ProcessLost) as caught, engine.lost_peer():
            raise error
        assert str(error) in str(caught.value)


def test_numpy_does_not_train_in_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="trains in one process, and torchrun started 2"):
        engine_class(EngineConfig())


def test_a_resumed_run_with_other_steps_warns(runs, tmp_path):
    shutil.copytree(runs / "new-ddp", tmp_path / "run")
    config = worker.make_config(2, max_steps=10)  # half the batch, as if there were two processes
    with pytest.warns(UserWarning, match="took 128 tokens in a step, with these settings and processes it takes 64"):
        train(worker.make_model(), TextData(*worker.data(runs)), config, tmp_path / "run", resume=True, progress=False)
    config = worker.make_config(2, max_steps=12)
    train(
        worker.make_model(), TextData(*worker.data(runs)), config, tmp_path / "run", resume=True, progress=False
    )  # said once
