"""minillm evaluate: on the run's corpus and on any text."""

import shutil

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
    error = minillm("evaluate", made / "run", "--max-tokens", "-1", status=2, capsys=capsys)
    assert "max_tokens = -1 must be 0 (all) or more." in error
    error = minillm("evaluate", made / "run", "--split", "test", status=2, capsys=capsys)
    assert "has no split 'test'; its report.json has train, val." in error
