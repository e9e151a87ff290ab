"""minillm corpus: its sources."""

import json
import os

import pytest
from command_line import minillm

from minillm.commands import cli


def test_sources_stand_before_or_after_the_folder_and_repeat():
    parse = cli.make_parser(["corpus"]).parse_args
    assert parse(["corpus", "out"]).sources == ["stdlib"]
    for arguments in (["corpus", "--from", "a", "--from", "b", "out"], ["corpus", "out", "--from", "a", "--from", "b"]):
        assert (parse(arguments).sources, parse(arguments).out) == (["a", "b"], "out")
    assert parse(["corpus", "out"]).sources == ["stdlib"]


def texts_of(folder):
    lines = "".join((folder / f"{split}.jsonl").read_text() for split in ("train", "val")).split("\n")[:-1]
    return sorted(json.loads(line)["text"].strip() for line in lines)


def test_the_key_of_json_is_guessed_and_said_or_given(tmp_path, capsys):
    boats = [{"id": f"{i}", "log": f"The boat {i} left at dawn, with {i * 7} on board."} for i in range(10)]
    (tmp_path / "boats.json").write_text(json.dumps(boats))
    arguments = ["corpus", tmp_path / "c", "--from", tmp_path / "boats.json", "--near-threshold", 0]
    assert cli.main(list(map(str, arguments))) == 0
    told = capsys.readouterr().err
    assert "boats.json: the text is taken from 'log'; --text-key names another: 'id'" in told
    assert texts_of(tmp_path / "c") == sorted(boat["log"] for boat in boats)
    minillm(*arguments, "--overwrite", "--text-key", "id", "--min-chars", 1)
    assert texts_of(tmp_path / "c") == sorted(boat["id"] for boat in boats)
    error = minillm(*arguments, "--overwrite", "--text-key", "body", status=2, capsys=capsys)
    assert "no row has a column 'body'; there are 'id', 'log'" in error


def test_an_encoding_is_suggested_and_given(tmp_path, capsys):
    rows = [f"Kaja {i};Die Möwe {i} schlief auf dem Mast des Bootes {i * 7}.\r\n" for i in range(10)]
    (tmp_path / "a.csv").write_bytes("".join(["Name;Text\r\n", *rows]).encode("cp1252"))
    arguments = ["corpus", tmp_path / "c", "--from", tmp_path / "a.csv", "--near-threshold", 0]
    error = minillm(*arguments, status=2, capsys=capsys)
    assert "not utf-8 text: line 2, byte 0xf6" in error and "(--encoding cp1252 is that of Windows" in error
    minillm(*arguments, "--encoding", "cp1252", "--max-mb", 0.0002)
    assert 2 < len(texts_of(tmp_path / "c")) < 7 and all("Möwe" in text for text in texts_of(tmp_path / "c"))


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_followed_on_request_and_skips_are_told(text_folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(text_folder)
    (tmp_path / "in" / "a.css").write_text("p {}")
    for i in range(12):
        (tmp_path / "in" / f"{i}.txt").write_text(f"One text {i} of a dozen, which has {i * 11} words or so.")
    arguments = ["--from", tmp_path / "in", "--near-threshold", 0, "--val-fraction", 0.2]
    out = minillm("corpus", tmp_path / "few", *arguments, "--processes", 2, capsys=capsys)
    assert "note: 1 .css skipped" in out and "1 without extension skipped: a link to a folder" in out
    minillm("corpus", tmp_path / "many", *arguments, "--follow-links")
    assert len(texts_of(tmp_path / "few")) == 12 < len(texts_of(tmp_path / "many"))


def test_a_folder_of_the_users_is_never_replaced(text_folder, tmp_path, capsys):
    (tmp_path / "proj").mkdir()
    for name in ("report.json", "thesis.tex"):
        (tmp_path / "proj" / name).write_text("precious")
    for name in ("proj.old", "proj.partial"):
        (tmp_path / name).mkdir()
    error = minillm("corpus", tmp_path / "proj", "--from", text_folder, "--overwrite", status=2, capsys=capsys)
    assert "proj was not made by minillm" in error
    assert {p.name: p.read_text() for p in (tmp_path / "proj").iterdir()} == dict.fromkeys(
        ("report.json", "thesis.tex"), "precious"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["proj", "proj.old", "proj.partial"]


def test_every_file_that_was_written_is_named(text_folder, tmp_path, capsys):
    source = ["--from", text_folder, "--near-threshold", "0", "--val-fraction", "0.2"]
    for name, options in (("two", []), ("three", ["--test-fraction", "0.2"])):
        out = minillm("corpus", tmp_path / name, *source, *options, capsys=capsys)
        told = out.split(f"{name}: ")[-1].strip().split(", ")
        there = sorted(p.name for p in (tmp_path / name).iterdir() if not p.name.startswith("."))
        assert sorted(told) == there


TINY = [
    f"--set={key}"
    for key in ("train.max_steps=2", "train.max_seconds=0", "train.warmup_steps=1", "model.n_layers=1",
                "model.n_heads=2", "model.d_model=16", "model.context=32")
]  # fmt: skip


@pytest.fixture(scope="module")
def lines_file(tmp_path_factory):
    """200 short lines in one file, as a first user brings them."""
    names = ["boat", "lamp", "harbour", "tide", "salt", "crate", "rope", "wind", "gull", "pier"]
    lines = [f"The {names[i % 10]} {i} saw the {names[i * 7 // 10 % 10]} {i * i}.\n" for i in range(200)]
    file = tmp_path_factory.mktemp("lines") / "lines.txt"
    file.write_text("".join(lines))
    return file


def test_two_hundred_lines_in_one_file_can_be_trained_on(lines_file, tmp_path, capsys):
    out = minillm("corpus", tmp_path / "c", "--from", lines_file, capsys=capsys)
    assert "note: 1 document could not be divided as asked" in out and "may stand on both sides" in out
    assert "".join(sorted("".join(texts_of(tmp_path / "c")))).split() == "".join(sorted(lines_file.read_text())).split()
    minillm("tokenizer", "train", tmp_path / "c", "--vocab-size", 300, "--out", tmp_path / "t.json")
    pretrain = ["pretrain", "--config", "quickstart", "--tokenizer", tmp_path / "t.json", *TINY]
    out = minillm(*pretrain, "--corpus", tmp_path / "c", "--out", tmp_path / "run", capsys=capsys)
    assert "best validation loss" in out


def test_all_text_for_training(lines_file, tmp_path, capsys):
    """Nothing is evaluated then, and that is said; what the run leaves can be used."""
    out = minillm("corpus", tmp_path / "c", "--from", lines_file, "--val-fraction", 0, capsys=capsys)
    assert "could not be divided" not in out and "wrote" in out and "val.jsonl" not in out
    minillm("tokenizer", "train", tmp_path / "c", "--vocab-size", 300, "--out", tmp_path / "t.json")
    data = ["--tokenizer", tmp_path / "t.json", "--corpus", tmp_path / "c"]
    pretrain = ["pretrain", "--config", "quickstart", *data, *TINY]
    error = minillm(*pretrain, "--out", tmp_path / "p", "--set", "train.patience=2", status=2, capsys=capsys)
    assert "patience = 2 stops the run by its evaluations" in error and not (tmp_path / "p").exists()
    out = minillm(*pretrain, "--out", tmp_path / "run", capsys=capsys)
    assert "nothing is evaluated, and there is no best checkpoint" in out and "best validation loss" not in out
    assert not (tmp_path / "run" / "best").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and not any("val_loss" in row for row in rows)
    for command in (["check", tmp_path / "run"], ["evaluate", tmp_path / "run", "--split", "train"]):
        minillm(*command, capsys=capsys)
    out = minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", "train.max_steps=3", capsys=capsys)
    assert "finished at step 3" in out


def test_what_is_too_short_to_be_divided(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("One short line, and no more of it.\n")
    error = minillm("corpus", tmp_path / "c", "--from", tmp_path / "a.txt", status=2, capsys=capsys)
    assert "only one document is left, of 35 characters" in error and "--val-fraction 0" in error
    assert not (tmp_path / "c").exists()
    minillm("corpus", tmp_path / "c", "--from", tmp_path / "a.txt", "--val-fraction", 0)


@pytest.mark.parametrize("shares", [("1.5", "0"), ("0.5", "0.6"), ("-1", "0")])
def test_shares_that_cannot_be_are_named_by_their_options(shares, text_folder, tmp_path, capsys):
    given = [f"--val-fraction={shares[0]}", f"--test-fraction={shares[1]}"]
    said = minillm("corpus", tmp_path / "c", "--from", text_folder, *given, status=2, capsys=capsys)
    assert "--val-fraction and --test-fraction must be shares" in said and "_fraction" not in said
