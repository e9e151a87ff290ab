"""minillm pretrain --profile and --log: where a step's time goes, and other programs that show the log."""

import importlib.util
import json
import pstats
import struct

import pytest
from command_line import TINY, minillm

from minillm.training import log_sinks
from minillm.training.run_log import read_metrics

ONE = ["--set", "engine.threads=1"]


@pytest.fixture
def data(made):
    return ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]


# --- --profile --------------------------------------------------------------------------------------------------------


def test_a_profile_on_numpy_names_our_functions(data, tmp_path, capsys):
    run = tmp_path / "run"
    minillm("pretrain", *data, *TINY, *ONE, "--profile", "--out", run)
    assert "python -m pstats" in capsys.readouterr().out
    calls = {name: n for (_, _, name), (n, *_) in pstats.Stats(str(run / "profile.pstats")).stats.items()}
    assert calls["forward_backward"] == 3 and calls["clip_gradients"] == 3, "the steps that are watched"
    minillm("pretrain", *data, *TINY, *ONE, "--overwrite", "--out", run)
    assert not (run / "profile.pstats").exists(), "it is the run's, and gives way with it"


def test_a_trace_on_torch_is_one_that_perfetto_opens(data, tmp_path, capsys):
    pytest.importorskip("torch")
    run = tmp_path / "run"
    torch = ["--engine", "torch", "--set", "engine.device=cpu"]
    minillm("pretrain", *data, *TINY, *torch, "--profile", "--out", run)
    assert f"open {run / 'trace.json'} in ui.perfetto.dev" in capsys.readouterr().out
    events = json.loads((run / "trace.json").read_text())["traceEvents"]  # the Trace Event Format
    complete = [e for e in events if e["ph"] == "X"]
    assert all(e["dur"] >= 0 and {"ts", "pid", "tid"} <= set(e) for e in complete)
    assert sum(e["name"].startswith("Optimizer.step#AdamW") for e in complete) == 3
    assert sum(e["name"] == "aten::linear" for e in complete) > 3


def test_a_run_too_short_for_a_profile_says_so(data, tmp_path, capsys):
    minillm("pretrain", *data, *TINY, *ONE, "--set", "train.max_steps=2", "--profile", "--out", tmp_path / "run")
    assert "no profile: the run ended before step 3" in capsys.readouterr().out


def test_a_profile_of_several_threads_is_refused_before_anything_is_written(data, tmp_path, capsys):
    options = ["--set", "engine.threads=2", "--profile", "--out", tmp_path / "run"]
    error = minillm("pretrain", *data, *TINY, *options, status=2, capsys=capsys)
    assert "--profile sees one thread" in error and "--set engine.threads=1" in error
    assert not (tmp_path / "run").exists()


def test_a_file_of_the_users_is_no_profile(data, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "profile.pstats").write_text("mine")
    options = [*ONE, "--profile", "--out", tmp_path / "run"]
    error = minillm("pretrain", *data, *TINY, *options, status=2, capsys=capsys)
    assert "was not made by minillm" in error and (tmp_path / "run" / "profile.pstats").read_text() == "mine"


# --- --log ------------------------------------------------------------------------------------------------------------


class Rows:
    """A sink that keeps what it gets."""

    made = ()

    def __init__(self, out_dir):
        self.rows, self.closed = [], False
        Rows.made.append(self)

    def write(self, row):
        assert not self.closed
        self.rows.append(row)

    def close(self):
        self.closed = True


def test_a_sink_gets_the_rows_of_the_log_all_of_them_when_a_run_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Rows, "made", [])
    monkeypatch.setitem(log_sinks.SINKS, "wandb", Rows)
    monkeypatch.setattr(log_sinks, "find_spec", str)  # as if it were installed
    options = ["--log", "wandb", "--log", "wandb", "--out", tmp_path / "run"]
    minillm("pretrain", *data, *TINY, *options)
    first = read_metrics(tmp_path / "run" / "metrics.jsonl")
    minillm("pretrain", "--resume", *options, "--set", "train.max_steps=8")
    both = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(both) > len(first) and [sink.rows for sink in Rows.made] == [first, both]
    assert all(sink.closed for sink in Rows.made)


@pytest.mark.parametrize("name", log_sinks.SINKS)
def test_a_sink_that_is_not_installed_is_refused_before_anything_is_written(data, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(log_sinks, "find_spec", lambda name: None)
    error = minillm("pretrain", *data, *TINY, "--log", name, "--out", tmp_path / "run", status=2, capsys=capsys)
    assert f"minillm-from-scratch[{name}]" in error and not (tmp_path / "run").exists()


def expected(run):
    """(name, step) -> value of every figure of a run's log."""
    rows = read_metrics(run / "metrics.jsonl")
    return {(name, row["step"]): value for row in rows for name, value in log_sinks.numbers(row).items()}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_log_of_a_run_that_went_on(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    minillm("pretrain", *data, *TINY, "--log", "tensorboard", "--out", run)
    minillm("pretrain", "--resume", "--log", "tensorboard", "--out", run, "--set", "train.max_steps=8")
    events = EventAccumulator(str(run / "tensorboard"), {"tensors": 0}).Reload()  # 0: all
    found = [(n, e.step, e.tensor_proto.float_val[0]) for n in events.Tags()["tensors"] for e in events.Tensors(n)]
    rows = read_metrics(run / "metrics.jsonl")
    assert len(found) == sum(len(log_sinks.numbers(row)) for row in rows), "each figure once"
    assert {(name, step): value for name, step, value in found} == pytest.approx(expected(run), rel=1e-6)
    minillm("pretrain", *data, *TINY, "--overwrite", "--out", run)
    assert not (run / "tensorboard").exists()


def log_messages(data):
    """The messages of a .wandb file: seven bytes of header, then the format of LevelDB's logs, in blocks of 32 KiB:
    checksum (4 bytes), length (2), kind (1: whole, 2: first part, 3: middle, 4: last)."""
    at, message = 7, b""
    while at + 7 <= len(data):
        if 0x8000 - at % 0x8000 < 7:  # too little room for a record: zeros
            at += 0x8000 - at % 0x8000
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield message
            message = b""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_and_biases_keeps_the_log_offline(data, tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    minillm("pretrain", *data, *TINY, "--log", "wandb", "--out", run)
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    found = {}
    for message in log_messages(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        found |= {(name, items["_step"]): value for name, value in items.items() if not name.startswith("_")}
    assert found == expected(run)
