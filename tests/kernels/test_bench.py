"""The attention benchmark runs from end to end at toy sizes, so that it works when a GPU is at hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

SCRIPT = Path(__file__).parents[1] / "bench" / "attention.py"


def test_attention_benchmark_smoke(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path / "results", "--smoke"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "smoke run: these times mean nothing" in result.stdout
    written = json.loads((tmp_path / "results" / "attention.json").read_text())
    assert len(written["rows"]) == 8 and written["smoke"] is True
    for row in written["rows"]:
        assert row["error"]["fast"] < 1e-5 and row["ms"]["fast"] > 0 and "fast" not in row["refused"]
    table = (tmp_path / "results" / "attention.md").read_text()
    assert table.count("\n| forward | 16") == 4 and "| backward D128 against cudnn |" in table


def test_attention_benchmark_refuses_without_a_gpu(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: it would run")
    result = subprocess.run([sys.executable, SCRIPT, "--out", tmp_path], capture_output=True, text=True)
    assert result.returncode == 2 and "no CUDA device" in result.stderr


def test_what_fails_is_named_and_the_rest_is_measured_and_kept(device, tmp_path, monkeypatch):
    """Triton's errors are no RuntimeErrors; and what was measured before an interruption is on the disk."""
    import torch
    import triton

    monkeypatch.syspath_prepend(SCRIPT.parent)  # as where it is run
    specification = importlib.util.spec_from_file_location("bench_attention", SCRIPT)
    bench = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(bench)
    sound = bench.attention
    rows = 0

    def failing(name, *arguments):
        if name == "simple":
            raise triton.OutOfResources(300_000, 232_448, "shared memory")
        return sound(name, *arguments)

    def interrupted(row):
        nonlocal rows
        rows += 1
        if rows > 2:
            raise KeyboardInterrupt
        return line(row)

    line = bench.line
    monkeypatch.setattr(bench, "attention", failing)
    monkeypatch.setattr(bench, "matmul_rate", lambda *_: 1.0)
    one = bench.measure_one("backward", 16, True, 16, 32, 16, torch.float32, 2, device)
    assert one["refused"]["simple"].startswith("OutOfResources: out of resource: shared memory, Required: 300000")
    assert one["ms"]["fast"] > 0 and one["error"]["fast"] < 1e-5

    monkeypatch.setattr(bench, "line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.main(["--out", str(tmp_path), "--smoke"])
    written = json.loads((tmp_path / "attention.json").read_text())
    assert len(written["rows"]) == 1 and "simple did not run in 1 rows" in (tmp_path / "attention.md").read_text()
