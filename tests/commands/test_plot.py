"""minillm plot: one run or several in one picture, legible without colours."""

import json
import sys

import pytest
from command_line import TINY, minillm

from minillm.commands import options
from minillm.plot import loss_of_runs
from minillm.training.run_log import read_metrics

matplotlib = pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):
    """Two runs with one tokenizer, and one of characters."""
    folder = tmp_path_factory.mktemp("runs")
    minillm("tokenizer", "train", made / "corpus", "--kind", "char", "--out", folder / "char.json")
    data = ["--corpus", made / "corpus", *TINY]
    minillm("pretrain", *data, "--tokenizer", made / "tokenizer.json", "--out", folder / "one")
    minillm("pretrain", *data, "--tokenizer", made / "tokenizer.json", "--out", folder / "two$ runs")
    minillm("pretrain", *data, "--tokenizer", folder / "char.json", "--out", folder / "char")
    return folder


def test_one_run_has_its_picture_in_its_folder(runs, capsys):
    out = minillm("plot", runs / "one", capsys=capsys)
    assert out == f"wrote {runs / 'one' / 'loss.png'}\n"
    assert (runs / "one" / "loss.png").read_bytes()[:4] == PNG
    marker = json.loads((runs / "one" / ".minillm.json").read_text())
    assert "loss.png" in marker["files"]  # or --overwrite would take it for somebody's


def test_several_runs_in_one_picture(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    minillm("plot", runs / "one", runs / "two$ runs", "--x", "tokens")
    assert (tmp_path / "loss.png").read_bytes()[:4] == PNG
    minillm("plot", runs / "one", runs / "char", "--out", "both.svg")
    assert "different tokenizers" in capsys.readouterr().out
    assert (tmp_path / "both.svg").read_text().startswith("<?xml")


def test_the_curves_are_the_rows_and_each_run_looks_otherwise(runs):
    rows = {name: read_metrics(runs / name / "metrics.jsonl") for name in ("one", "two$ runs")}
    figure = loss_of_runs(rows, x="tokens")
    (ax,) = figure.axes
    marked = [line for line in ax.lines if line.get_marker() != "None"]
    assert len(ax.lines) == 4 and len(marked) == 2
    wanted = [(row["tokens"], row["val_loss"]) for row in rows["one"] if "val_loss" in row]
    assert [tuple(point) for point in marked[0].get_xydata()] == wanted
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, look)() for line in marked}) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tokens read", "loss (nats per token)")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"one: {wanted[-1][1]:.3f}", rf"two\$ runs: {wanted[-1][1]:.3f}"]
    figure.canvas.draw()
    (in_bits,) = loss_of_runs(rows, y="bits_per_byte").axes
    assert len(in_bits.lines) == 2 and in_bits.get_ylabel() == "bits per byte"


@pytest.mark.parametrize("n_runs", [8, 15])
def test_many_runs_still_differ(n_runs):
    rows = {f"run {i}": [{"step": s, "val_loss": 1.0 + i} for s in (1, 2)] for i in range(n_runs)}
    lines = loss_of_runs(rows).axes[0].lines  # of which get_linestyle calls all patterns of dashes "--"
    looks = {(line.get_color(), line.get_marker(), str(line._unscaled_dash_pattern)) for line in lines}
    assert len(looks) == n_runs


def test_what_cannot_be_drawn_is_said(runs, tmp_path, monkeypatch, capsys):
    for words, message in [
        ([runs], "is no run folder: there is no metrics.jsonl in it."),
        ([runs / "one", runs / "one"], "is named twice"),
        ([runs / "one", "--out", "x.bmp"], "--out x.bmp: the ending says what to write"),
    ]:
        assert message in minillm("plot", *words, status=2, capsys=capsys)
    (tmp_path / "metrics.jsonl").write_text("")
    assert "no step has been logged yet" in minillm("plot", tmp_path, status=2, capsys=capsys)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    error = minillm("plot", runs / "one", status=2, capsys=capsys)
    assert "drawing needs matplotlib: pip install matplotlib" in error


def test_commands_to_type_next_are_those_that_were_typed(tmp_path, monkeypatch):
    """Where the environment is not activated, `minillm` is not found, and .venv/bin/minillm is."""
    script = tmp_path / "my venv" / "minillm"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "quickstart"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert options.program() == f"'{script}'"
    monkeypatch.setenv("PATH", str(script.parent))
    assert options.program() == "minillm"
    monkeypatch.setattr(sys, "argv", ["/clone/minillm/__main__.py", "quickstart"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert options.program().endswith(" -m minillm")
