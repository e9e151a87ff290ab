"""minillm quickstart: the whole road, in seconds."""

import json
import os

from command_line import minillm

from minillm.commands import quickstart


def test_quickstart_at_a_small_scale(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "MPLCONFIGDIR", str(tmp_path / "mpl"))
    out = minillm("quickstart", "--out", tmp_path / "my run", "--seconds", 2, capsys=capsys)
    for number in range(1, 8):
        assert f"\n{number}. " in out
    results = json.loads((tmp_path / "my run" / "results.json").read_text())
    table = results["bits_per_byte"]
    assert len(table) == 5 and all(0 < bits < 8.5 for bits in table.values())
    assert table["unigram (how often each byte occurs)"] > table["5-gram (the byte after the last four)"]
    names = {p.name for p in (tmp_path / "my run").iterdir()}
    assert {"corpus", "tokenizer.json", "best", "last", "metrics.jsonl", "config.toml", "samples.txt"} <= names
    files = "build.py", "bpe.py", "models/gpt.py", "llama.py", "muon.py", "train.py", "evaluate.py", "generate.py"
    assert all(file in out for file in files), "each step says where its code is"

    error = minillm("quickstart", "--out", tmp_path / "my run", "--seconds", 2, status=2, capsys=capsys)
    assert "--overwrite" in error
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    minillm("quickstart", "--out", tmp_path / "other", "--seconds", 2, "--overwrite", status=2, capsys=capsys)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


def test_overwrite_removes_a_quickstart_that_was_stopped_early_and_nothing_else(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "build_corpus", stopped)
    minillm("quickstart", "--out", tmp_path / "q", status=130, capsys=capsys)
    error = minillm("quickstart", "--out", tmp_path / "q", status=2, capsys=capsys)
    assert "--overwrite" in error
    minillm("quickstart", "--out", tmp_path / "q", "--overwrite", status=130, capsys=capsys)
    (tmp_path / "q" / "thesis.tex").write_text("precious")
    error = minillm("quickstart", "--out", tmp_path / "q", "--overwrite", status=2, capsys=capsys)
    assert "(thesis.tex)" in error and (tmp_path / "q" / "thesis.tex").read_text() == "precious"
    (tmp_path / "mine" / "corpus").mkdir(parents=True)
    (tmp_path / "mine" / "corpus" / "poems.txt").write_text("precious")
    error = minillm("quickstart", "--out", tmp_path / "mine", "--overwrite", status=2, capsys=capsys)
    assert "was not made by minillm" in error and (tmp_path / "mine" / "corpus" / "poems.txt").exists()


def test_overwrite_of_a_whole_quickstart(tmp_path, monkeypatch, capsys):
    """Every file that one writes is listed as its own."""
    monkeypatch.setitem(os.environ, "MPLCONFIGDIR", str(tmp_path / "mpl"))
    minillm("quickstart", "--out", tmp_path / "q", "--seconds", 2, capsys=capsys)
    before = (tmp_path / "q" / "results.json").stat().st_mtime_ns
    minillm("quickstart", "--out", tmp_path / "q", "--seconds", 2, "--overwrite", capsys=capsys)
    assert (tmp_path / "q" / "results.json").stat().st_mtime_ns != before
