"""minillm evaluate: on the run's corpus and on any text."""

import shutil

import pytest
from command_line import minillm

from minillm.training.run_log import read_metrics


def test_evaluate_prints_the_figures_of_the_corpus_and_of_any_text(made, text_folder, tmp_path, capsys):
    out = minillm("evaluate", made / "run", capsys=capsys)
    rows = [row for row in read_metrics(made / "run" / "metrics.jsonl") if "val_loss" in row]
    assert f"loss {min(row['val_loss'] for row in rows):.3f}"[:-1] in out and "bits per byte" in out
    out = minillm("evaluate", made / "run" / "last", "--data", text_folder / "0.txt", "--max-tokens", 50, capsys=capsys)
    assert "0.txt: loss" in out
    assert "last on val: loss" in minillm("evaluate", made / "run" / "last", capsys=capsys)
    shutil.copytree(made / "run" / "last", tmp_path / "moved")
    error = minillm("evaluate", tmp_path / "moved", status=2, capsys=capsys)
    assert "moved does not say what it was trained on" in error
    with pytest.raises(SystemExit):
        minillm("evaluate", made / "run", "--max-tokens", "-1")
    assert "argument --max-tokens: must be 0 or more, not -1" in capsys.readouterr().err
    error = minillm("evaluate", made / "run", "--split", "test", status=2, capsys=capsys)
    assert "has no split 'test'; its report.json has train, val." in error


def test_options_that_mean_nothing_are_refused(made, tmp_path, capsys):
    (tmp_path / "finetune.toml").write_text("")
    for option in (["--split", "val"], ["--context", "8"], ["--max-tokens", "100"]):
        error = minillm("evaluate", tmp_path, *option, status=2, capsys=capsys)
        assert f"{option[0]} is for models of text" in error and f"leave {option[0]} out" in error
    for option in (["--samples", "3"], ["--json", tmp_path / "scores.json"]):
        error = minillm("evaluate", made / "run", *option, status=2, capsys=capsys)
        assert f"{option[0]} is for runs of minillm finetune" in error
    error = minillm("evaluate", made / "run", "--split", "val", "--data", "a.txt", status=2, capsys=capsys)
    assert "leave one of them out" in error
