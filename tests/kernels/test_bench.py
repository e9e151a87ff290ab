"""The attention benchmark runs from end to end at toy sizes, so that it works when a GPU is at hand."""

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
