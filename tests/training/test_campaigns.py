"""Long campaigns: runs killed a hundred times, ten thousand steps, a thousand generations (pytest -m long), and a
short form of each for every day."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minillm.data import Document, TokenDataset, pack
from minillm.generate import generate
from minillm.models import GPT, GPTConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import CharTokenizer
from minillm.training.checkpoint import read_checkpoint
from minillm.training.run_log import read_metrics
from minillm.training.text import TextData
from minillm.training.train import train

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and resource limits")

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from minillm.data import TokenDataset
from minillm.engines.choose import engine_class
from minillm.models import GPT, GPTConfig
from minillm.settings import EngineConfig, TrainConfig
from minillm.training.run_folder import run_in
from minillm.training.text import TextData
from minillm.training.train import train

folder, engine, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
data = [TokenDataset(folder.parent / f"{name}.bin") for name in ("train", "val")]
shape = GPTConfig(vocab_size=data[0].vocab_size, context=8, n_layers=1, n_heads=1, d_model=8, dropout=0.1)
config = TrainConfig(max_steps=steps, batch_size=2, warmup_steps=2, eval_every=7, save_every=1)
make = engine_class(EngineConfig(name=engine, threads=1, device="cpu"))
train(GPT(shape), TextData(*data), config, folder, engine=make, resume=run_in(folder) is not None, progress=False)
"""


TEXT = "the cat sees a dog and the bird hears it while a child follows them"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("campaign"), np.random.default_rng(0)
    texts = [" ".join(draw.choice(TEXT.split(), 40)) for _ in range(30)]
    tokenizer = CharTokenizer.train(texts)
    for name, part in (("train", texts[:25]), ("val", texts[25:])):
        pack([Document(text, "x") for text in part], tokenizer, folder / f"{name}.bin")
    return folder


def losses(run):
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]


def start(run, engine, steps, **limits):
    command = [sys.executable, "-c", PROGRAM, str(run), engine, str(steps)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **limits)


def finish(process):
    """(status, what it said) of a process when it is over."""
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def kill_and_go_on(folder, engine, kills, steps):
    """A run that is killed `kills` times at random moments, most of them in the middle of a save, has the losses of
    one that never was."""
    whole, killed, draw = folder / f"whole-{engine}-{kills}", folder / f"killed-{engine}-{kills}", random.Random(1)
    status, error = finish(start(whole, engine, steps))
    assert status == 0, error
    per_life, lives = max(1, steps // (kills + 2)), 0
    for _ in range(kills):
        process = start(killed, engine, steps)
        before = len(losses(killed)) if (killed / "metrics.jsonl").exists() else 0
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if (killed / "metrics.jsonl").exists() and len(losses(killed)) >= before + per_life:
                break
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        lives += finish(process)[0] == -signal.SIGKILL
    status, error = finish(start(killed, engine, steps))
    assert status == 0, error
    assert losses(killed) == losses(whole) and len(losses(whole)) == steps
    ours, theirs = (read_checkpoint(run / "last") for run in (killed, whole))
    assert all(np.array_equal(ours.model[name], theirs.model[name]) for name in theirs.model)
    litter = {p.name for p in killed.iterdir()} - {".minillm.json", "best", "last", "metrics.jsonl"}
    assert not litter, f"what kills left behind is cleared away: {litter}"
    return lives


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_run_killed_now_and_then_goes_on_to_the_last_bit(folder, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    assert kill_and_go_on(folder, engine, kills=2, steps=16) >= 1


@pytest.mark.long
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_hundred_kills(folder, engine):
    lives = kill_and_go_on(folder, engine, kills=100, steps=408)
    print(f"{engine}: {lives} of 100 kills hit a living process")
    assert lives >= 90


def test_a_full_disk_leaves_the_checkpoint_whole_and_is_said(folder):
    """RLIMIT_FSIZE stands for a disk with no room: writing beyond it fails as on a full one, with OSError."""
    run = folder / "full"
    assert finish(start(run, "numpy", 5))[0] == 0
    size = (run / "last" / "optimizer.safetensors").stat().st_size

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    status, error = finish(start(run, "numpy", 9, preexec_fn=limit))
    assert status != 0 and "OSError" in error and "safetensors cannot be written, and stays as it was" in error, error
    assert read_checkpoint(run / "last").state["run"]["step"] == 5
    assert finish(start(run, "numpy", 9))[0] == 0
    assert len(losses(run)) == 9


def resident():
    """The bytes that this process has in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grows(work, times, warmup):
    for _ in range(warmup):
        work()
    before = resident()
    for _ in range(times):
        work()
    return resident() - before


def one_more_training(folder, tmp_path):
    train_data, val_data = (TokenDataset(folder / f"{name}.bin") for name in ("train", "val"))
    shape = GPTConfig(vocab_size=train_data.vocab_size, context=8, n_layers=1, n_heads=1, d_model=8)
    seen = []

    def watch(steps):
        config = TrainConfig(max_steps=steps, batch_size=2, warmup_steps=2, eval_every=10**6, save_every=10**6)
        train(GPT(shape), TextData(train_data, val_data), config, tmp_path / f"{len(seen)}", progress=False)
        seen.append(resident())

    return watch, seen


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize(("steps", "generations"), [(300, 30), pytest.param(10_000, 1_000, marks=pytest.mark.long)])
def test_memory_stays_flat(folder, tmp_path, steps, generations):
    watch, seen = one_more_training(folder, tmp_path)
    watch(max(steps // 10, 100))
    watch(steps)
    assert seen[1] - seen[0] < 8e6, f"{steps} steps took {(seen[1] - seen[0]) / 1e6:.1f} MB more than a tenth of them"
    model = GPT(GPTConfig(vocab_size=20, context=8, n_layers=1, n_heads=1, d_model=8))
    grown = grows(lambda: generate(model, [[1, 2]], max_new_tokens=20, seed=0), generations, generations // 10)
    assert grown < 4e6, f"{generations} generations took {grown / 1e6:.1f} MB"


def test_nothing_is_timed_by_a_clock_that_can_jump():
    """time.time() follows the system's clock, which somebody or NTP may set; perf_counter and monotonic never do."""
    root = Path(__file__).parents[2]
    files = [*(root / "minillm").rglob("*.py"), *(root / "kernels").rglob("*.py")]
    assert not [str(path) for path in files if "time.time()" in path.read_text(encoding="utf-8")]
