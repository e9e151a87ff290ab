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


def test_the_key_of_json_is_asked_for_and_given(tmp_path, capsys):
    boats = [{"id": i, "content": f"The boat {i} left at dawn, with {i * 7} on board."} for i in range(10)]
    (tmp_path / "boats.json").write_text(json.dumps(boats))
    arguments = ["corpus", tmp_path / "c", "--from", tmp_path / "boats.json", "--near-threshold", 0]
    error = minillm(*arguments, status=2, capsys=capsys)
    assert "which key holds the text?" in error and "'content', 'id'" in error and "--text-key" in error
    minillm(*arguments, "--text-key", "content")
    assert texts_of(tmp_path / "c") == sorted(boat["content"] for boat in boats)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_followed_on_request_and_skips_are_told(text_folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(text_folder)
    (tmp_path / "in" / "a.html").write_text("<p>")
    for i in range(12):
        (tmp_path / "in" / f"{i}.txt").write_text(f"One text {i} of a dozen, which has {i * 11} words or so.")
    arguments = ["--from", tmp_path / "in", "--near-threshold", 0, "--val-fraction", 0.2]
    out = minillm("corpus", tmp_path / "few", *arguments, capsys=capsys)
    assert "note: 1 .html skipped" in out and "1 without extension skipped: a link to a folder" in out
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
