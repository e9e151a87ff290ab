"""The training loop: what it computes, exact resume, stopping, early stopping, a loss that becomes nan."""

import dataclasses
import json
import math
import os
import signal
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import Batcher, Document, pack
from minillm.engines.numpy_engine import NumpyEngine, batch_loss
from minillm.models import GPT, GPTConfig
from minillm.settings import IGNORE, EngineConfig, TrainConfig
from minillm.training.checkpoint import CheckpointError, find_checkpoint, read_checkpoint
from minillm.training.diagnose import first_non_finite
from minillm.training.evaluate import Evaluation, evaluate, perplexity
from minillm.training.interrupt import StopRequest
from minillm.training.run_folder import RunState, TrainingDiverged
from minillm.training.run_log import RunLog, read_metrics
from minillm.training.text import TextData
from minillm.training.train import expected_steps, note_evaluation, schedule_factor, train


class Bytes:
    """The smallest tokenizer: a token is a byte, and 256 ends a text."""

    vocab_size = 257
    eos_id = 256

    def encode(self, text, disallowed_special=()):
        return list(text.encode())

    def fingerprint(self):
        return "bytes"

    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


TEXT = "".join(f"{i} times {i} is {i * i}. " for i in range(300))
SHORT = {"max_steps": 12, "batch_size": 3, "warmup_steps": 3, "eval_every": 4, "save_every": 4, "eval_tokens": 200}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    train_data = pack([Document(TEXT, "a"), Document(TEXT[::-1], "b")], Bytes(), folder / "train.bin")
    return train_data, pack([Document(TEXT[1000:2000], "c")], Bytes(), folder / "val.bin")


def make_model(dropout=0.0, seed=0, **changes):
    sizes = {"vocab_size": 257, "context": 16, "n_layers": 2, "n_heads": 2, "d_model": 16, **changes}
    return GPT(GPTConfig(**sizes, dropout=dropout), np.random.default_rng(seed))


def run(data, folder, *, model=None, resume=False, engine=NumpyEngine, **changes):
    model = model or make_model(0.1)
    config = TrainConfig(**{**SHORT, **changes})
    return train(
        model, TextData(*data), config, folder, engine=engine, tokenizer=Bytes(), resume=resume, progress=False
    ), model


def losses(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


class StopAfter(NumpyEngine):
    """An engine that sends this process a signal during a given step."""

    at, signal = 6, signal.SIGINT

    def forward_backward(self, micro_batches):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.signal)
        return super().forward_backward(micro_batches)


# --- what a step computes -----------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_leaves_a_run_folder(data, tmp_path):
    result, _ = run(data, tmp_path, max_steps=60, lr=3e-3, eval_every=20)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert result.reason == "finished" and result.state.step == 60
    assert result.state.tokens == 60 * 3 * 16 == [r["tokens"] for r in rows][-1]
    assert result.evaluation.loss < rows[0]["loss"] - 0.5
    assert [r["step"] for r in rows if "val_loss" in r] == [20, 40, 60]
    assert {"loss", "lr", "grad_norm", "tokens_per_second", "memory_gb", "seconds"} <= set(rows[0])
    assert rows[0]["lr"] == pytest.approx(1e-3) and rows[-2]["lr"] == pytest.approx(3e-4)
    names = {
        "config.json", "model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json", ".minillm.json"
    }  # fmt: skip
    assert {p.name for p in (tmp_path / "last").iterdir()} == {p.name for p in (tmp_path / "best").iterdir()} == names


@settings(max_examples=20)
@given(
    n_micro=st.integers(1, 4),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    ignored=st.lists(st.integers(0, 8 * 4 - 1), max_size=24),
)
def test_accumulated_gradients_are_those_of_one_large_batch(n_micro, label_smoothing, ignored):
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, 11, (2, n_micro * 2, 4))
    targets.reshape(-1)[[i for i in ignored if 0 < i < targets.size]] = IGNORE  # unequal counts per micro-batch
    model = make_model(vocab_size=11, context=4).to(np.float64)
    engine = NumpyEngine(model, TrainConfig(label_smoothing=label_smoothing))
    whole = engine.forward_backward([(ids, targets)])
    grads = {name: p.grad for name, p in model.named_parameters()}
    mean = model(ids, targets, reduction="mean", label_smoothing=label_smoothing)
    assert whole == pytest.approx(mean.item(), rel=1e-12)
    parts = engine.forward_backward([(ids[i : i + 2], targets[i : i + 2]) for i in range(0, len(ids), 2)])
    assert parts == pytest.approx(whole, rel=1e-12)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, grads[name], rtol=1e-10, atol=1e-14)


def test_the_loop_is_the_plain_loop_with_torch_in_float64(data, tmp_path):
    """The whole recipe (schedule, clipping, groups, accumulation) against torch.optim on the same gradients."""
    torch = pytest.importorskip("torch")
    config = TrainConfig(**{**SHORT, "max_steps": 8, "grad_accumulation": 2, "grad_clip": 0.5, "lr": 0.01})
    trained = make_model().to(np.float64)
    train(trained, TextData(*data), config, tmp_path, progress=False)

    model = make_model().to(np.float64)
    named = dict(model.named_parameters())
    theirs = {name: torch.nn.Parameter(torch.tensor(p.data)) for name, p in named.items()}
    decay = [p for name, p in theirs.items() if p.ndim == 2 and "embedding" not in name]
    rest = [p for name, p in theirs.items() if not any(p is q for q in decay)]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    batcher = Batcher(data[0], 3, 16, seed=config.seed)
    for step in range(8):
        batches = [batcher.next(), batcher.next()]
        for name, p in named.items():
            p.data[...], p.grad = theirs[name].detach().numpy(), None
        ids, targets = (np.concatenate(x) for x in zip(*batches))
        model(ids, targets).backward()
        for name, p in named.items():
            theirs[name].grad = torch.tensor(p.grad)
        torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * schedule_factor(config, step, 8)
        optimizer.step()
    for name, p in trained.named_parameters():
        np.testing.assert_allclose(p.data, theirs[name].detach().numpy(), rtol=1e-9, atol=1e-10, err_msg=name)


def test_evaluation_counts_each_token_once_and_bits_per_byte_are_of_the_text(data):
    model = make_model(dropout=0.5)  # must not act
    val = data[1]
    result = evaluate(lambda i, t: batch_loss(model, i, t), val, batch_size=4, context=16)
    tokens = val.tokens.astype(np.int64)
    total = 0.0
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        model.eval()
        total += model(window[None, :-1], window[None, 1:], reduction="sum").item()
    n = len(tokens) - 1
    assert result.n_tokens == n == 1001  # 1000 bytes and the closing separator
    assert result.loss == pytest.approx(total / n, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(total / n), rel=1e-4)
    assert result.bits_per_byte == pytest.approx(total / math.log(2) / 1000, rel=1e-5)
    assert "bits per byte (1,001 tokens, documents one after another)" in str(result)
    without = str(dataclasses.replace(result, bits_per_byte=math.nan))
    assert without.endswith(f"perplexity {result.perplexity:.2f} (1,001 tokens, documents one after another)")
    part = evaluate(lambda i, t: batch_loss(model, i, t), val, batch_size=4, context=16, max_tokens=100)
    assert part.n_tokens == 128
    assert perplexity(1e4) == math.inf


# --- resume -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_and_resumed_run_is_bit_for_bit_the_whole_run(data, tmp_path, optimizer, stopped_by):
    options = {"grad_accumulation": 2, "optimizer": optimizer, "label_smoothing": 0.1}
    _, whole = run(data, tmp_path / "whole", **options)

    StopAfter.signal = stopped_by
    before = signal.getsignal(stopped_by)
    result, _ = run(data, tmp_path / "parts", engine=StopAfter, **options)
    assert (result.reason, result.state.step, result.signal) == ("interrupted", 6, stopped_by)
    assert signal.getsignal(stopped_by) is before
    result, resumed = run(data, tmp_path / "parts", model=make_model(0.1, seed=99), resume=True, **options)

    assert result.reason == "finished" and result.state.step == 12
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters()):
        np.testing.assert_array_equal(a.data, b.data, err_msg=name)
    a, b = (read_checkpoint(tmp_path / kind / "last") for kind in ("whole", "parts"))
    assert a.optimizer.keys() == b.optimizer.keys()
    assert all((a.optimizer[name] == b.optimizer[name]).all() for name in a.optimizer)
    for key in ("data", "random", "train_config"):
        assert a.state[key] == b.state[key]
    assert a.state["run"]["best_score"] == b.state["run"]["best_score"]


class Killed(BaseException):
    """What a kill is to the process: nothing after it runs."""


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_its_log_has_no_row_twice(data, tmp_path):
    class KilledIn(NumpyEngine):
        def step(self, lr):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 7:
                raise Killed
            super().step(lr)

    run(data, tmp_path / "whole")
    with pytest.raises(Killed):
        run(data, tmp_path / "killed", engine=KilledIn)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # cut off in the middle of a row
    result, _ = run(data, tmp_path / "killed", resume=True)
    assert result.state.step == 12
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    steps = [(row["step"], "loss" in row) for row in read_metrics(tmp_path / "killed" / "metrics.jsonl")]
    assert steps == [(row["step"], "loss" in row) for row in read_metrics(tmp_path / "whole" / "metrics.jsonl")]


def test_a_finished_run_can_be_continued_for_longer(data, tmp_path):
    run(data, tmp_path, max_steps=4, schedule="constant")
    again, _ = run(data, tmp_path, max_steps=4, schedule="constant", resume=True)
    assert (again.reason, again.state.step, again.evaluation) == ("finished", 4, None)
    longer, _ = run(data, tmp_path, max_steps=6, schedule="constant", resume=True)
    assert longer.state.step == 6 and len(losses(tmp_path)) == 6


def test_a_checkpoint_of_another_engine_is_taken_over_without_its_random_state(data, tmp_path):
    class Other(NumpyEngine):
        name = "other"

        def random_state(self):
            return {"generator": "of another kind"}

    run(data, tmp_path, max_steps=4, engine=Other)
    result, _ = run(data, tmp_path, max_steps=6, resume=True)
    assert result.state.step == 6


def test_what_cannot_be_resumed_says_why_and_changes_nothing(data, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        run(data, tmp_path / "none", resume=True)
    run(data, tmp_path, max_steps=2)
    with pytest.raises(FileExistsError, match="already holds a run: go on with it"):
        run(data, tmp_path)
    for options, message in [
        ({"model": make_model(d_model=32)}, "holds a model with d_model = 16, not 32"),
        ({"model": make_model(n_heads=1)}, "n_heads = 2, not 1"),
        ({"optimizer": "sgd"}, "the arrays of this SGD do not fit this model"),
        ({"seed": 7}, "seed was 1337 and is 7 now"),
    ]:
        model = options.setdefault("model", make_model())
        before = {name: p.data.copy() for name, p in model.named_parameters()}
        with pytest.raises(CheckpointError, match=message):
            run(data, tmp_path, resume=True, max_steps=4, **options)
        for name, p in model.named_parameters():
            np.testing.assert_array_equal(p.data, before[name])
    state_file = tmp_path / "last" / "state.json"
    good = json.loads(state_file.read_text())
    for key, value, message in [
        ("tokenizer", "else", "was trained with tokenizer else, this one is bytes"),
        ("random", {"a": 1}, "cannot be resumed"),
        ("run", {"steps": 2}, "cannot be resumed"),
        ("data", {}, "the saved data position lacks"),
    ]:
        state_file.write_text(json.dumps({**good, key: value}))
        model = make_model(seed=5)
        with pytest.raises(CheckpointError, match=message):
            run(data, tmp_path, model=model, resume=True, max_steps=4)
        np.testing.assert_array_equal(model.token_embedding.weight.data, make_model(seed=5).token_embedding.weight.data)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_early_stopping_ends_the_run_and_best_is_the_best(data, tmp_path):
    options = {"max_steps": 100, "lr": 0.5, "schedule": "constant", "warmup_steps": 1, "eval_every": 1, "patience": 3}
    result, _ = run(data, tmp_path, **options)
    assert result.reason == "early stopping" and result.state.step < 100
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "val_loss" in row]
    best = min(rows, key=lambda row: row["val_loss"])
    assert best["step"] == result.state.best_step == result.state.step - 3
    assert read_checkpoint(tmp_path / "best").state["run"]["step"] == best["step"]
    assert read_checkpoint(tmp_path / "last").state["run"]["step"] == result.state.step
    assert [row["best"] for row in rows].count(True) >= 1 and not rows[-1]["best"]


def test_a_time_budget_ends_the_run_and_the_schedule_with_it(data, tmp_path):
    result, _ = run(data, tmp_path, max_steps=0, max_seconds=1.0, eval_every=10**6, save_every=10**6)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert result.reason == "finished" and 1.0 <= result.state.seconds < 3.0
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)
    assert result.evaluation is not None and find_checkpoint(tmp_path / "last")


def test_the_expected_number_of_steps():
    by_steps, by_time = TrainConfig(max_steps=50), TrainConfig(max_steps=0, max_seconds=10.0)
    both = TrainConfig(max_steps=50, max_seconds=10.0)
    assert expected_steps(by_steps, RunState(step=3, seconds=1.0)) == 50
    assert expected_steps(by_time, RunState()) == math.inf
    assert expected_steps(by_time, RunState(step=3, seconds=1.0)) == 30
    assert expected_steps(both, RunState(step=3, seconds=0.1)) == 50
    assert expected_steps(both, RunState(step=3, seconds=1.0)) == 30
    assert schedule_factor(by_time, 0, math.inf) == 0.01  # nothing known yet: the configured warmup
    assert schedule_factor(by_time, 2, 30.0) == 1.0  # 3 steps of warmup, not 100


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_signal_stops_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == 1.0 and stop.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_a_thread_installs_no_handlers(data, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(data, tmp_path, max_steps=2)[0]))
    thread.start()
    thread.join()
    assert results[0].reason == "finished"


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


# --- losses that are not finite -----------------------------------------------------------------------------------


def test_a_loss_that_becomes_nan_names_step_and_layer_and_keeps_the_last_good_checkpoint(data, tmp_path):
    class Overflow(NumpyEngine):
        def forward_backward(self, micro_batches):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 6:  # a layer whose output overflows, though its weights are finite
                self.model.blocks[1].mlp.fc.weight.data[...] = 3e38
            with np.errstate(all="ignore"):
                return super().forward_backward(micro_batches)

    with pytest.raises(TrainingDiverged) as error:
        run(data, tmp_path, engine=Overflow)
    message = str(error.value)
    assert "step 6: the loss is nan" in message
    assert "the output of blocks.1.mlp.fc (Linear); its input was finite" in message
    assert f"the last good checkpoint is {tmp_path / 'last'}" in message
    kept = read_checkpoint(tmp_path / "last")
    assert kept.state["run"]["step"] == 4
    assert all(np.isfinite(a).all() for a in kept.model.values())


def test_a_gradient_that_is_not_finite_is_not_stepped(data, tmp_path):
    class BadGradient(NumpyEngine):
        def forward_backward(self, micro_batches):
            loss = super().forward_backward(micro_batches)
            self.before = {name: p.data.copy() for name, p in self.model.named_parameters()}
            self.model.blocks[0].norm_1.weight.grad[3] = np.inf
            return loss

    model = make_model()
    with pytest.raises(TrainingDiverged, match=r"gradient of blocks.0.norm_1.weight \(16,\).*no checkpoint had been"):
        run(data, tmp_path, model=model, engine=BadGradient)
    fresh = make_model()
    for (name, a), (_, b) in zip(model.named_parameters(), fresh.named_parameters()):
        np.testing.assert_array_equal(a.data, b.data, err_msg=name)


def test_the_diagnosis_names_broken_weights_and_operations_between_layers():
    ids = np.zeros((1, 4), dtype=np.int64)
    model = make_model()
    model.blocks[0].attn.proj.bias.data[0] = np.nan
    message = first_non_finite(model, lambda: model(ids))
    assert message == "the weights themselves: blocks.0.attn.proj.bias (16,) holds nan or inf"

    model = make_model()
    model.blocks[0].attn.qkv.weight.data *= 1e25  # q·k overflows inside attention, between two layers
    message = first_non_finite(model, lambda: model(ids))
    assert message.startswith("the output of blocks.0.attn.proj (Linear); its input was already spoilt")
    assert all("forward" not in vars(module) for _, module in model.named_modules())  # nothing is left behind

    assert first_non_finite(make_model(), lambda: None).startswith("the loss itself")


# --- input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "training has no end"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number, not 2\.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"max_steps": "10"}, "max_steps must be a whole number, not '10'"),
        ({"lr": "0.1"}, "lr must be a finite number, not '0.1'"),
        ({"lr": math.inf}, "lr must be a finite number, not inf"),
        ({"max_seconds": math.inf}, "max_seconds must be a finite number"),
        ({"nesterov": 1}, "nesterov must be True or False, not 1"),
        ({"schedule": "cosin"}, "schedule must be one of 'cosine', 'linear', 'wsd', 'constant', not 'cosin'"),
        ({"lr": -1.0}, "lr must be 0 or more"),
        ({"lr": math.nan}, "lr must be 0 or more, not nan"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
        ({"final_lr": 2.0}, "final_lr must be from 0 to 1, a part of the peak"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_numbers_of_numpy_are_numbers_too_and_engines_settings_are_checked_alike():
    assert TrainConfig(batch_size=np.int64(2), lr=np.float32(0.5), weight_decay=1).batch_size == 2
    for changes, message in (
        ({"threads": 1.5}, "threads must be a whole number"),
        ({"recompute": True}, "recompute must be one of 'none', 'layers', 'selective', not True"),
        ({"device": None}, "device must be a text"),
        ({"name": "jax"}, "name must be one of 'numpy', 'torch'"),
    ):
        with pytest.raises(ValueError, match=message):
            EngineConfig(**changes)


def test_data_that_does_not_belong_together_is_refused(data, tmp_path):
    class Other(Bytes):
        def fingerprint(self):
            return "other"

    with pytest.raises(ValueError, match="token ids up to 256, the model's vocab_size is 100"):
        run(data, tmp_path, model=make_model(vocab_size=100))
    with pytest.raises(ValueError, match="was packed with the tokenizer bytes"):
        train(make_model(), TextData(*data), TrainConfig(), tmp_path, tokenizer=Other())
    other = pack([Document(TEXT, "a")], Other(), tmp_path / "other.bin")
    with pytest.raises(ValueError, match="pack both with the same one"):
        train(make_model(), TextData(data[0], other), TrainConfig(), tmp_path)


def test_the_bar_and_the_lines_for_people(tmp_path, capsys):
    with RunLog(tmp_path / "metrics.jsonl", 0) as log, warnings.catch_warnings():
        log.step({"step": 1, "loss": 2.0, "tokens_per_second": 1234.5}, math.inf)
        log.step({"step": 2, "loss": 2.0, "tokens_per_second": 1234.5}, 10.0)
        log.evaluation(RunState(step=2), Evaluation(800.0, math.inf, 3.0, 9), True)
    line = "step      2  train loss 2.0000  val loss 800  perplexity inf  bits per byte 3  (best so far)"
    assert line in capsys.readouterr().out
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["val_perplexity"] is None


def test_the_config_is_immutable_and_plain():
    assert json.loads(json.dumps(dataclasses.asdict(TrainConfig()))) == dataclasses.asdict(TrainConfig())


def test_only_a_lower_loss_is_a_new_best():
    def evaluated(loss):
        return note_evaluation(state, Evaluation(loss, 0.0, 0.0, 1))

    state = RunState(step=1)
    assert evaluated(2.0) and (state.best_score, state.best_step, state.evals_since_best) == (2.0, 1, 0)
    state.step = 2
    assert not evaluated(2.0) and not evaluated(math.nan) and not evaluated(2.5)
    assert (state.best_score, state.best_step, state.evals_since_best) == (2.0, 1, 3)
    assert evaluated(1.9) and (state.best_score, state.best_step, state.evals_since_best) == (1.9, 2, 0)
    assert not note_evaluation(RunState(), Evaluation(math.inf, math.inf, 0.0, 1))
