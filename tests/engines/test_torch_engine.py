"""The torch engine in one process: NumPy's losses, runs that change engines, mixed precision, reading ahead."""

import math
import re
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from distributed_worker import make_config, make_data, make_model  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from minillm.costs.sizes import n_parameters, training_flops, training_memory  # noqa: E402
from minillm.data import Batcher  # noqa: E402
from minillm.engines import torch_engine, torch_machine  # noqa: E402
from minillm.engines.numpy_engine import NumpyEngine  # noqa: E402
from minillm.engines.read_ahead import ReadAhead  # noqa: E402
from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.hub.checkpoint import open_checkpoint  # noqa: E402
from minillm.models import GPT, GPTConfig, config_from_dict  # noqa: E402
from minillm.models.sketch import Sketcher, sketch  # noqa: E402
from minillm.port import to_torch  # noqa: E402
from minillm.settings import IGNORE, EngineConfig, TrainConfig  # noqa: E402
from minillm.training import pretrain  # noqa: E402
from minillm.training.checkpoint import CheckpointError, read_checkpoint  # noqa: E402
from minillm.training.config_file import build  # noqa: E402
from minillm.training.run_folder import TrainingDiverged  # noqa: E402
from minillm.training.run_log import read_metrics  # noqa: E402
from minillm.training.text import TextData  # noqa: E402
from minillm.training.train import train  # noqa: E402


def on_torch(**settings):
    return partial(TorchEngine, settings=EngineConfig(**{"device": "cpu", **settings}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def run(data, folder, engine, *, model=None, resume=False, **changes):
    """Train; returns the rows of metrics.jsonl."""
    model = make_model() if model is None else model
    train(model, TextData(*data), make_config(1, **changes), folder, engine=engine, resume=resume, progress=False)
    return read_metrics(folder / "metrics.jsonl")


def small_model(dtype=np.float32, **changes):
    sizes = {"vocab_size": 257, "context": 16, "n_layers": 2, "n_heads": 2, "d_model": 16, **changes}
    return GPT(GPTConfig(**sizes), np.random.default_rng(0)).to(dtype)


def batches(data, n=2, seed=5):
    batcher = Batcher(data[0], 4, 16, seed=seed)
    return [batcher.next() for _ in range(n)]


class Stopped(Exception):
    pass


def stopping(engine, at):
    """`engine`, whose run ends with an exception in step `at`."""

    class Stopping(engine):
        calls = 0

        def forward_backward(self, micro_batches):
            self.calls += 1
            if self.calls == at:
                raise Stopped
            return super().forward_backward(micro_batches)

    return Stopping


# --- the same run as on NumPy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.1, "grad_clip": 0.0},
        {"optimizer": "sgd", "lr": 0.1, "nesterov": True},
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0},
        {"optimizer": "muon"},
    ],
)
def test_the_same_run_as_on_numpy(data, tmp_path, changes):
    ours = run(data, tmp_path / "numpy", NumpyEngine, **changes)
    theirs = run(data, tmp_path / "torch", on_torch(), **changes)
    assert len(ours) == len(theirs) == 10
    for a, b in zip(ours, theirs):
        for key in {"loss", "grad_norm", "lr", "val_loss", "tokens"} & set(a):
            assert abs(a[key] - b[key]) < 1e-10, key
    a, b = (read_checkpoint(tmp_path / name / "last") for name in ("numpy", "torch"))
    for mine, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert list(mine) == list(other)
        for name in mine:
            assert mine[name].dtype == other[name].dtype
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_run_may_change_engines(data, tmp_path, optimizer):
    """Four steps on NumPy, four on torch, four on NumPy: the losses of twelve on NumPy."""
    changes = {"max_steps": 12, "optimizer": optimizer}
    whole = run(data, tmp_path / "whole", NumpyEngine, **changes)
    mixed = tmp_path / "mixed"
    with pytest.raises(Stopped):
        run(data, mixed, stopping(NumpyEngine, 6), **changes)
    with pytest.raises(Stopped):
        run(data, mixed, stopping(TorchEngine, 6), resume=True, **changes)  # its sixth is the tenth of all
    rows = run(data, mixed, NumpyEngine, resume=True, **changes)
    for a, b in zip(whole, rows, strict=True):
        assert a["step"] == b["step"]
        assert abs(a.get("loss", 0) - b.get("loss", 0)) < 1e-10
        assert abs(a.get("val_loss", 0) - b.get("val_loss", 0)) < 1e-10


def test_a_resumed_run_repeats_its_dropout(data, tmp_path):
    def with_dropout():
        return small_model(dropout=0.2)

    whole = run(data, tmp_path / "whole", on_torch(), model=with_dropout())
    with pytest.raises(Stopped):
        run(data, tmp_path / "cut", stopping(TorchEngine, 6), model=with_dropout())
    rows = run(data, tmp_path / "cut", on_torch(), model=with_dropout(), resume=True)
    assert [r["loss"] for r in rows if "loss" in r] == [r["loss"] for r in whole if "loss" in r]
    without = run(data, tmp_path / "without", on_torch(), model=small_model())
    assert without[0]["loss"] != whole[0]["loss"]


def test_dropout_is_decided_by_seed_step_and_rank(data):
    engine = TorchEngine(small_model(dropout=0.2), make_config(1))

    def loss():
        return engine.forward_backward(batches(data)).item()

    first = loss()
    assert loss() == first
    engine.steps += 1
    assert loss() != first
    engine.steps, engine.rank = 0, 1
    assert loss() != first


def test_a_checkpoint_of_another_model_changes_nothing(data):
    engine = TorchEngine(small_model(), make_config(1))
    other = TorchEngine(small_model(d_model=32), make_config(1))
    before = engine.model_arrays()
    with pytest.raises(ValueError, match=r"token_embedding.weight is \(257, 32\), not \(257, 16\)"):
        engine.load(other.model_arrays(), other.optimizer_arrays(), other.random_state())
    missing = {name: a for name, a in engine.optimizer_arrays().items() if name != "token_embedding.weight.exp_avg"}
    with pytest.raises(ValueError, match=r"missing: token_embedding.weight.exp_avg \(257, 16\)"):
        engine.load(engine.model_arrays(), {**missing, "strange.step": np.array(0)}, None)
    assert all(np.array_equal(before[name], a) for name, a in engine.model_arrays().items())


def test_a_run_of_another_optimizer_cannot_be_resumed(data, tmp_path):
    run(data, tmp_path, on_torch())
    with pytest.raises(CheckpointError, match="momentum_buffer"):
        run(data, tmp_path, on_torch(), resume=True, optimizer="sgd")


def test_which_model_is_trained(data, tmp_path):
    plain, ported, sketched = small_model(), to_torch(small_model()), GPT(small_model().config, sketch())
    before = plain.token_embedding.weight.data.copy()
    run(data, tmp_path / "a", on_torch(), model=plain)
    run(data, tmp_path / "b", on_torch(), model=ported)
    rows = run(data, tmp_path / "c", on_torch(), model=sketched)
    assert np.array_equal(plain.token_embedding.weight.data, before)
    last = read_checkpoint(tmp_path / "b" / "last").model["token_embedding.weight"]
    assert np.array_equal(ported.token_embedding.weight.detach().numpy(), last) and not np.array_equal(last, before)
    assert np.array_equal(last, read_checkpoint(tmp_path / "a" / "last").model["token_embedding.weight"])
    assert abs(rows[0]["loss"] - math.log(257)) < 0.1  # freshly drawn weights
    assert open_checkpoint(tmp_path / "c").model().token_embedding.weight.data.std() > 0.01


def test_what_an_attention_of_torch_trained_runs_on_numpy(data, tmp_path):
    run(data, tmp_path, on_torch(), model=small_model(attention="sdpa"), max_steps=4)
    assert read_checkpoint(tmp_path / "last").config["attention"] == "sdpa"
    assert open_checkpoint(tmp_path).model()(np.arange(16)[None]).shape == (1, 16, 257)


def test_frozen_weights_stay(data):
    model = small_model()
    model.token_embedding.weight.requires_grad = False
    engine = TorchEngine(model, make_config(1))
    engine.forward_backward(batches(data))
    engine.clip_gradients(1.0)
    engine.step(1e-2)
    assert np.array_equal(engine.model_arrays()["token_embedding.weight"], model.token_embedding.weight.data)
    assert not np.array_equal(engine.model_arrays()["position_embedding.weight"], model.position_embedding.weight.data)
    assert not any(name.startswith("token_embedding") for name in engine.optimizer_arrays())


def test_a_nan_is_named_and_not_stepped_on(data, tmp_path):
    model = to_torch(small_model())
    with torch.no_grad():
        model.blocks[1].mlp.fc.weight[3, 3] = math.inf
    with pytest.raises(TrainingDiverged, match=r"step 1: the loss is nan.*blocks\.1\.mlp\.fc\.weight"):
        run(data, tmp_path, on_torch(), model=model)
    assert torch.isfinite(model.token_embedding.weight).all()


class NoWaiting(TorchDispatchMode):
    """Inside, a tensor's value cannot be asked for, as `item`, `float` and `if` do: on a GPU they would wait for it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "the processor waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("max_norm", [1e-3, 0.0])
def test_nothing_of_a_step_waits_for_the_device(data, optimizer, max_norm):
    engine = TorchEngine(small_model(), make_config(1, optimizer=optimizer), EngineConfig(device="cpu"))
    for _ in range(2):
        with NoWaiting():
            loss = engine.forward_backward(batches(data))
            norm = engine.clip_gradients(max_norm)
            engine.step(1e-2)
        assert engine.read(loss, norm) == (loss.item(), norm.item())
        after = torch.nn.utils.get_total_norm(engine.gradients()).item()
        assert after == pytest.approx(max_norm or norm.item(), rel=1e-2)  # torch's own clipping has the 1e-6, too
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        norm.item()


def test_what_processes_tell_each_other_does_not_lie_on_the_device(monkeypatch):
    """Whose queue of work they would wait for."""
    engine = TorchEngine(small_model(), make_config(1), EngineConfig(device="cpu"))
    engine.device, engine.world_size, engine.host_group = torch.device("meta"), 2, "host"

    def all_reduce(number, op, group):
        assert number.device.type == "cpu" and group == "host"
        number *= 2

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert engine.total(21) == 42 and engine.agree(1.5) == 3.0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_with_a_gradient_that_is_not_finite_is_none(data, optimizer, bad):
    engine = TorchEngine(small_model(), make_config(1, optimizer=optimizer), EngineConfig(device="cpu"))
    for spoilt in (False, True):
        before = {**engine.model_arrays(), **engine.optimizer_arrays()}
        engine.forward_backward(batches(data))
        if spoilt:
            engine.gradients()[3].view(-1)[7] = bad
            engine.grad_norm = engine.total_norm()
        engine.clip_gradients(1.0)
        engine.step(1e-2)
        assert [torch.isfinite(g).all().item() for g in engine.gradients()].count(False) == spoilt  # the others: as is
        after = {**engine.model_arrays(), **engine.optimizer_arrays()}
        names = [name for name in after if optimizer == "adamw" or not name.endswith(".step")]
        assert all(np.array_equal(before[name], after[name]) for name in names) == spoilt


@pytest.mark.parametrize("engine", [NumpyEngine, TorchEngine])
def test_a_step_without_targets_is_refused_before_it_changes_anything(data, engine):
    run = engine(small_model(), make_config(1))
    before = {name: array.copy() for name, array in run.model_arrays().items()}
    nothing = [(inputs, np.full_like(targets, IGNORE)) for inputs, targets in batches(data)]
    with pytest.raises(ValueError, match="no target of this step counts"):
        run.forward_backward(nothing)
    assert all(np.array_equal(before[name], array) for name, array in run.model_arrays().items())
    some = run.forward_backward([nothing[0], batches(data)[1]])  # one of its micro-batches may be empty
    assert math.isfinite(run.read(some)[0])


# --- mixed precision, compilation, recomputation ----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_alike(data, tmp_path, precision):
    exact = run(data, tmp_path / "full", on_torch(), model=small_model(), lr=1e-2)
    low = run(data, tmp_path / precision, on_torch(precision=precision), model=small_model(), lr=1e-2)
    assert exact[-1]["val_loss"] < exact[0]["loss"] - 0.3
    for a, b in zip(exact, low):
        assert abs(a.get("loss", 0) - b.get("loss", 0)) < 0.02
    assert exact[0]["loss"] != low[0]["loss"]
    assert abs(exact[0]["grad_norm"] / low[0]["grad_norm"] - 1) < 0.02


def test_an_fp16_overflow_is_run_again_with_a_smaller_scale(data):
    exact = TorchEngine(small_model(), make_config(1))
    engine = TorchEngine(small_model(), make_config(1), EngineConfig(precision="fp16"))
    engine.loss_scale = 2.0**40
    exact.forward_backward(batches(data))
    engine.forward_backward(batches(data))
    assert 2.0**4 < engine.loss_scale < 2.0**30
    assert abs(engine.grad_norm / exact.grad_norm - 1) < 0.02
    twin = TorchEngine(small_model(), make_config(1), EngineConfig(precision="fp16"))
    twin.load(engine.model_arrays(), engine.optimizer_arrays(), engine.random_state())
    assert twin.loss_scale == engine.loss_scale
    engine.steps_since_overflow = torch_engine.STEPS_TO_GROW - 1
    engine.forward_backward(batches(data))
    assert engine.loss_scale == 2 * twin.loss_scale


@pytest.mark.parametrize(("how", "optimizer"), [("layers", "adamw"), ("selective", "adamw"), ("none", "muon")])
def test_compiled_and_recomputed_is_the_same(data, tmp_path, monkeypatch, how, optimizer):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    steps = {"max_steps": 4, "optimizer": optimizer}
    plain = run(data, tmp_path / "plain", on_torch(), **steps)
    other = run(data, tmp_path / "other", on_torch(compile="on", recompute=how), **steps)
    for a, b in zip(plain, other):
        assert abs(a.get("loss", 0) - b.get("loss", 0)) < 1e-12
        assert abs(a.get("val_loss", 0) - b.get("val_loss", 0)) < 1e-12


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("how", "optimizer"), [("none", "adamw"), ("selective", "adamw"), ("none", "muon")])
def test_compiled_by_inductor_is_the_same(data, tmp_path, how, optimizer):
    steps = {"max_steps": 4, "optimizer": optimizer}
    plain = run(data, tmp_path / "plain", on_torch(), **steps)
    other = run(data, tmp_path / "other", on_torch(compile="on", recompute=how), **steps)
    for a, b in zip(plain, other):
        assert abs(a.get("loss", 0) - b.get("loss", 0)) < 1e-10


# --- reading ahead ----------------------------------------------------------------------------------------------------


def test_reading_ahead_changes_neither_batches_nor_position(data):
    plain, ahead = Batcher(data[0], 4, 16, seed=5), ReadAhead(Batcher(data[0], 4, 16, seed=5), 3, pin=False)
    assert ahead.state_dict() == plain.state_dict()
    for _ in range(7):
        ours, theirs = ahead.next(), plain.next()
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        assert ahead.state_dict() == plain.state_dict()
    saved = plain.state_dict()
    expected = plain.next()
    ahead.next()
    ahead.load_state_dict(saved)
    assert ahead.state_dict() == saved and np.array_equal(ahead.next()[0], expected[0])


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2-124m", "gpt2-350m", "llama-114m"])
def test_presets_fit_the_cards_they_name(name):
    """By the estimate that the presets quote: 2 bytes per activation and half as much again, in 90 % of the memory."""
    text = (pretrain.PRESETS / f"{name}.toml").read_text()
    sections = pretrain.read_config(name)
    config = config_from_dict({"model_type": "gpt", "vocab_size": 50304, **sections["model"]})
    assert n_parameters(config) == pytest.approx(1e6 * int(name[-4:-1]), rel=0.02)
    table = re.findall(r"(\d+) GB: (\d+) x (\d+)", text)
    assert [int(gb) for gb, _, _ in table] == [16, 24, 80, 140]
    for gb, batch_size, accumulation in table:
        assert int(batch_size) * int(accumulation) == 512
        memory = training_memory(config, int(batch_size), config.context, activation_bytes=2)
        assert memory.total + memory.activations / 2 < 0.9e9 * int(gb)
    assert sections["train"]["batch_size"] * sections["train"]["grad_accumulation"] == 512
    assert sections["engine"] == {"name": "torch"}


def test_a_large_model_on_torch_is_sketched():
    sections = {"model": {"vocab_size": 50304, **pretrain.read_config("gpt2-124m")["model"]}, "train": {}}
    for engine, large in (("torch", True), ("numpy", False)):
        model = build(GPTConfig, sections["model"], "[model]")
        config = pretrain.PretrainConfig(pretrain.DataConfig(), model, TrainConfig(), EngineConfig(name=engine))
        assert isinstance(pretrain.initial_weights(config), Sketcher) == large
    tiny = GPTConfig(d_model=12)
    small = pretrain.PretrainConfig(pretrain.DataConfig(), tiny, TrainConfig(), EngineConfig(name="torch"))
    assert not isinstance(pretrain.initial_weights(small), Sketcher)


# --- choices ----------------------------------------------------------------------------------------------------------


def test_what_a_machine_without_a_gpu_cannot_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", bool)
    monkeypatch.setattr(torch.backends.mps, "is_available", bool)
    assert torch_machine.choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no CUDA device"):
        torch_machine.choose_device("cuda")
    with pytest.raises(ValueError, match="no Apple GPU"):
        torch_machine.choose_device("mps")


def test_the_choice_of_precision(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for has_bf16, chosen in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert torch_machine.choose_precision("auto", cuda) == chosen
    assert torch_machine.choose_precision("auto", cpu) == "full"
    assert torch_machine.choose_precision("bf16", cpu) == "bf16"
    with pytest.raises(ValueError, match="Tesla T4 does not compute in bfloat16"):
        torch_machine.choose_precision("bf16", cuda)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L40S", 362e12), ("Other", None)],
)
def test_peak_arithmetic_rate(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert torch_machine.peak_flops(torch.device("cuda", 0), "bf16") == peak
    assert torch_machine.peak_flops(torch.device("cuda", 0), "full") is None
    assert torch_machine.peak_flops(torch.device("cpu"), "bf16") is None


def test_gauges(data):
    engine = TorchEngine(small_model(), make_config(1))
    assert set(engine.gauges(1000.0)) == {"memory_gb"} and engine.gauges(1000.0)["memory_gb"] > 0.01
    engine.peak_flops = 1e12
    assert engine.gauges(1000.0)["mfu"] == training_flops(engine.model.config, 16) * 1000.0 / 1e12
