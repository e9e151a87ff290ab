"""Threads that share a batch: the same results as one, the same results every time, and BLAS left as it was."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import Document, pack
from minillm.debug import debug_mode, guard, watching
from minillm.engines.choose import engine_class
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import Replicas, ThreadedNumpyEngine, replica
from minillm.generate import generate
from minillm.models import GPT, GPTConfig
from minillm.numpy_ops.cores import blas_threads, limit_blas_threads
from minillm.settings import IGNORE, EngineConfig, TrainConfig
from minillm.tensor import Tensor, no_grad, records_graph
from minillm.training.run_folder import TrainingDiverged
from minillm.training.run_log import read_metrics
from minillm.training.text import TextData
from minillm.training.train import train


def make_model(dropout=0.0, seed=0):
    config = GPTConfig(vocab_size=257, context=8, n_layers=2, n_heads=2, d_model=8, dropout=dropout)
    return GPT(config, np.random.default_rng(seed))


def make_batches(n_micro, rows, seed=0):
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(n_micro):
        ids, targets = rng.integers(0, 257, (2, rows, 8))
        targets[rng.random(targets.shape) < 0.3] = IGNORE
        batches.append((ids, targets))
    return batches


@settings(max_examples=25)
@given(
    threads=st.integers(1, 5), rows=st.integers(1, 7), n_micro=st.integers(1, 3), smoothing=st.sampled_from([0.0, 0.1])
)
def test_gradients_and_losses_are_those_of_one_thread(threads, rows, n_micro, smoothing):
    config = TrainConfig(label_smoothing=smoothing)
    model = make_model().to(np.float64)
    batches = make_batches(n_micro, rows)
    one, several = NumpyEngine(model, config), ThreadedNumpyEngine(model, config, threads)
    loss, total = one.forward_backward(batches), one.batch_loss(*batches[0])
    grads = {name: p.grad for name, p in model.named_parameters()}
    for _ in range(2):  # nothing is left over from the first time
        assert several.forward_backward(batches) == pytest.approx(loss, rel=1e-12)
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.grad, grads[name], rtol=1e-10, atol=1e-15, err_msg=name)
    assert several.batch_loss(*batches[0]) == pytest.approx(total, rel=1e-12)
    assert records_graph(model.token_embedding.weight)  # no_grad was left again


def test_replicas_share_weights_and_nothing_else():
    model = make_model(dropout=0.5)
    other = replica(model)
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters()):
        assert q is not p and q.data is p.data, name
    assert other.rng is not model.rng and other.blocks[0].mlp.dropout.rng is other.rng
    engine = ThreadedNumpyEngine(model, TrainConfig(warmup_steps=1), threads=2)
    engine.forward_backward(make_batches(1, 4))
    engine.clip_gradients(1.0)
    before = model.token_embedding.weight.data.copy()
    engine.step(0.1)
    assert (model.token_embedding.weight.data != before).any()
    assert engine.replicas.models[1].token_embedding.weight.data is model.token_embedding.weight.data


def test_no_more_threads_than_rows_and_as_many_as_blas_by_default():
    config = TrainConfig(batch_size=3)
    assert len(ThreadedNumpyEngine(make_model(), config, threads=8).replicas.models) == 3
    assert len(ThreadedNumpyEngine(make_model(), config).replicas.models) == min(blas_threads() or 1, 3)
    assert engine_class(EngineConfig(threads=1)).func is NumpyEngine
    assert len(engine_class(EngineConfig(threads=2))(make_model(), config).replicas.models) == 2
    with pytest.raises(ValueError, match="threads must be 0 or more, not -1"):
        EngineConfig(threads=-1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    text = "".join(f"{i} times {i} is {i * i}. " for i in range(200))

    class Bytes:
        vocab_size, eos_id = 257, 256

        def encode(self, text, disallowed_special=()):
            return list(text.encode())

        def fingerprint(self):
            return "bytes"

    return tuple(pack([Document(text, name)], Bytes(), folder / f"{name}.bin") for name in ("train", "val"))


def test_a_resumed_run_with_threads_dropout_and_accumulation_is_bit_for_bit_the_whole_run(data, tmp_path):
    options = {"batch_size": 4, "grad_accumulation": 2, "warmup_steps": 2, "eval_every": 3, "schedule": "constant"}
    engine = partial(ThreadedNumpyEngine, threads=3)
    whole, first, second = make_model(0.3), make_model(0.3), make_model(0.3, seed=9)
    train(
        whole, TextData(*data), TrainConfig(max_steps=8, **options), tmp_path / "whole", engine=engine, progress=False
    )
    train(
        first, TextData(*data), TrainConfig(max_steps=3, **options), tmp_path / "parts", engine=engine, progress=False
    )
    config = TrainConfig(max_steps=8, **options)
    train(second, TextData(*data), config, tmp_path / "parts", engine=engine, resume=True, progress=False)
    for (name, p), (_, q) in zip(whole.named_parameters(), second.named_parameters()):
        np.testing.assert_array_equal(p.data, q.data, err_msg=name)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    losses = [[row["loss"] for row in run if "loss" in row] for run in rows]
    assert losses[0] == losses[1] and len(losses[0]) == 8


def test_dropout_differs_between_threads_and_steps():
    model = make_model(dropout=0.5)
    engine = ThreadedNumpyEngine(model, TrainConfig(), threads=2)
    ids = np.tile(np.arange(8), (2, 1))  # both threads get the same row
    rngs = [m.rng for m in engine.replicas.models]
    drawn = []
    for _ in range(2):
        engine.forward_backward([(ids, ids)])
        drawn += [rng.random() for rng in rngs]  # where each thread's generator stands after the step
    assert len(set(drawn)) == 4


def test_a_layer_whose_output_is_not_finite_is_found_whichever_thread_met_it(data, tmp_path):
    class Overflow(ThreadedNumpyEngine):
        def forward_backward(self, micro_batches):
            self.model.blocks[1].mlp.fc.weight.data[...] = 3e38
            with np.errstate(all="ignore"):  # reaches the threads
                return super().forward_backward(micro_batches)

    with pytest.raises(TrainingDiverged, match=r"the loss is nan.*the output of blocks.1.mlp.fc \(Linear\)"):
        config = TrainConfig(batch_size=4, max_steps=3)
        train(make_model(), TextData(*data), config, tmp_path, engine=partial(Overflow, threads=4), progress=False)


def test_an_error_in_a_thread_reaches_the_caller_and_blas_is_as_before():
    before = blas_threads()
    engine = ThreadedNumpyEngine(make_model(), TrainConfig(), threads=2)
    with pytest.raises(IndexError):
        engine.forward_backward([(np.full((4, 8), 999), np.zeros((4, 8), dtype=np.int64))])
    assert blas_threads() == before
    assert math.isfinite(engine.forward_backward(make_batches(1, 4)))


@pytest.mark.skipif(blas_threads() is None, reason="NumPy does not use OpenBLAS here")
def test_blas_threads_are_limited_for_a_while():
    before = blas_threads()
    with limit_blas_threads(1):
        assert blas_threads() == 1
        with limit_blas_threads(before + 7):  # a limit, not a wish
            assert blas_threads() == 1
    assert blas_threads() == before


def test_no_grad_and_debug_mode_reach_the_threads():
    replicas = Replicas(make_model(), 3)
    batch = make_batches(1, 6)[0]

    def builds_a_graph(model, *rows):
        return float(model(*rows).node is not None)

    def freezes(model, *rows):
        return float(model(*rows).node.frozen is not None)

    assert sum(replicas.on_rows(builds_a_graph, batch)) == 3 and sum(replicas.on_rows(freezes, batch)) == 0
    with debug_mode():
        assert sum(replicas.on_rows(freezes, batch)) == 3
    with no_grad():
        assert sum(replicas.on_rows(builds_a_graph, batch)) == 0


def test_a_threaded_evaluation_builds_no_graph(monkeypatch):
    nodes = []

    def from_op(*arguments):
        out = make(*arguments)
        nodes.append(out.node)
        return out

    make = Tensor.from_op
    replicas = Replicas(make_model(), 3)
    monkeypatch.setattr(Tensor, "from_op", staticmethod(from_op))
    replicas.batch_loss(*make_batches(1, 6)[0])
    assert nodes and set(nodes) == {None}


def test_limits_that_overlap_in_two_threads_leave_blas_as_it_was():
    """The first limit ends before the second: neither restores what the other had set."""
    before = blas_threads()
    if before is None:
        pytest.skip("the BLAS library is not OpenBLAS")
    with limit_blas_threads(4):  # more than the machine has: no limit
        assert blas_threads() == min(before, 4)
    first, second = limit_blas_threads(1), limit_blas_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == 1
    second.__exit__(None, None, None)
    assert blas_threads() == before


def train_a_little(seed, debug):
    model = make_model(dropout=0.1, seed=seed)
    engine = ThreadedNumpyEngine(model, TrainConfig(batch_size=4, warmup_steps=1), threads=2)
    losses = []
    with debug_mode() if debug else contextlib.nullcontext():
        for batch in make_batches(12, 4, seed):
            losses.append(engine.forward_backward([batch]))
            assert (guard in watching.get()) == debug
            engine.clip_gradients(1.0)
            engine.step(1e-2)
            losses.append(engine.batch_loss(*batch))
    return losses


def test_two_threaded_trainings_and_a_generation_at_once_give_the_same_as_alone():
    """One of them in debug mode, which freezes the arrays of its own graphs only; BLAS is left as it was."""
    write = partial(generate, make_model(seed=9), [[1, 2]], max_new_tokens=30, seed=3)
    work = [partial(train_a_little, 0, True), partial(train_a_little, 1, False), write]
    before = blas_threads()
    alone = [task() for task in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert [task.result() for task in [pool.submit(task) for task in work]] == alone
    finally:
        sys.setswitchinterval(interval)
    assert blas_threads() == before and not watching.get()


STUCK = """
import os, signal, time
import numpy as np
from minillm.engines.threads import Replicas
from minillm.models import GPT, GPTConfig
from minillm.training.interrupt import StopRequest

def step(model, *rows):
    os.write(1, b"computing\\n")
    time.sleep(60)
    return 0.0

replicas = Replicas(GPT(GPTConfig(vocab_size=5, context=4, n_layers=1, n_heads=1, d_model=4)), 2)
with StopRequest():
    replicas.on_rows(step, (np.zeros((2, 4), dtype=int),))
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_second_ctrl_c_ends_the_process_at_once_though_threads_compute():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", STUCK], text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == process.stdout.readline() == "computing\n"
            process.send_signal(signal.SIGINT)
            while "stopping: finishing this step" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) != 0
            assert "KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()


def test_threads_end_with_their_replicas():
    before = threading.active_count()
    replicas = Replicas(make_model(), 3)
    assert threading.active_count() == before + 3
    del replicas
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_where_one_thread_fails_the_others_have_ended_before_the_error_is_raised():
    replicas, ended = Replicas(make_model(), 3), []

    def step(model, *rows):
        if model is replicas.models[0]:
            raise ArithmeticError("mine")
        time.sleep(0.1)
        ended.append(model)
        return 0.0

    with pytest.raises(ArithmeticError, match="mine"):
        replicas.on_rows(step, make_batches(1, 6)[0])
    assert len(ended) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_without_a_target_says_so(threads):
    ids = np.zeros((2, 8), dtype=int)
    engine = engine_class(EngineConfig(threads=threads))(make_model(), TrainConfig())
    with pytest.raises(ValueError, match="no target of this step counts: all are -100"):
        engine.forward_backward([(ids, np.full_like(ids, IGNORE))])
