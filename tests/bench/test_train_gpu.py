"""The GPU benchmarks run from end to end at toy sizes, so that they work when a GPU is at hand; tests for a GPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from distributed_worker import make_config, make_data  # noqa: E402

from minillm.data import Batcher  # noqa: E402
from minillm.engines.read_ahead import ReadAhead  # noqa: E402
from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.models import GPT, GPTConfig  # noqa: E402
from minillm.models.sketch import sketch  # noqa: E402
from minillm.settings import EngineConfig  # noqa: E402

BENCH = Path(__file__).parent
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(*command, **environment):
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)


def test_training_benchmark_smoke(tmp_path):
    pytest.importorskip("triton")
    done = run(sys.executable, BENCH / "train_gpu.py", "--out", tmp_path, "--smoke", "--overlay", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "smoke run: these times mean nothing" in done.stdout
    result = json.loads((tmp_path / "train.json").read_text())
    assert list(result["rows"]) == ["pytorch", "minillm triton", "minillm sdpa"]
    assert all(row["tokens_per_second"] > 0 for row in result["rows"].values())
    ours, sdpa = (result["rows"][f"minillm {name}"]["first_losses"] for name in ("triton", "sdpa"))
    np.testing.assert_allclose(ours, sdpa, atol=0.02)
    assert abs(result["overlay"]["triton - sdpa"]["largest"]) < 0.02
    assert result["overlay"]["losses"]["sdpa"] == result["overlay"]["losses"]["sdpa again"]
    table = (tmp_path / "train.md").read_text()
    assert "| minillm triton |" in table and "overlay of 2 steps" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: it would run")
def test_without_a_gpu_the_benchmark_refuses(tmp_path):
    done = run(sys.executable, BENCH / "train_gpu.py", "--out", tmp_path)
    assert done.returncode == 2 and "no CUDA device" in done.stderr


# --- on a GPU ---------------------------------------------------------------------------------------------------------


def gpu_losses(tmp_path, attention="triton", steps=20, **settings):
    """Losses of a small GPT on the GPU, some steps of the engine."""
    dataset, _ = make_data(tmp_path)
    config = GPTConfig(vocab_size=257, context=64, n_layers=2, n_heads=2, d_model=128, attention=attention)
    engine = TorchEngine(GPT(config, sketch()), make_config(1), EngineConfig(device="cuda", **settings))
    batcher = ReadAhead(Batcher(dataset, 8, 64, seed=1), 2, pin=True)
    losses = []
    for _ in range(steps):
        batch = batcher.next()
        assert torch.from_numpy(batch[0]).is_pinned()
        losses.append(engine.forward_backward([batch]))
        engine.clip_gradients(1.0)
        engine.step(3e-3)
    return engine, list(engine.read(*losses))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "settings",
    [{"precision": "bf16"}, {"precision": "fp16"}, {"compile": "off"}, {"recompute": "layers"}, {"precision": "full"}],
    ids=str,
)
def test_on_the_gpu_every_setting_trains_alike(tmp_path, settings):
    _, exact = gpu_losses(tmp_path, "reference", precision="full", compile="off")
    engine, losses = gpu_losses(tmp_path, "triton", **settings)
    assert exact[-1] < exact[0] - 1
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert {"memory_gb"} <= set(engine.gauges(1e5))


@pytest.mark.gpu
@needs_gpu
def test_on_the_gpu_a_run_goes_on_from_its_arrays(tmp_path):
    first, _ = gpu_losses(tmp_path, compile="off")
    second = TorchEngine(
        GPT(replace(first.model.config), sketch(5)), make_config(1), EngineConfig(device="cuda", compile="off")
    )
    second.load(first.model_arrays(), first.optimizer_arrays(), first.random_state())
    batch = Batcher(make_data(tmp_path)[0], 8, 64, seed=2).next()
    a, b = (engine.forward_backward([batch]).item() for engine in (first, second))
    assert abs(a - b) < 1e-3
