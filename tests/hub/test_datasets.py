"""Data sets by name: which files are fetched, from a server on this machine that answers as the hub does."""

import json
import sys

import pytest
from small_hub import COMMIT, CONVERTED, Hub, corpus, serving

from minillm.hub.datasets import Asked, by_card, by_folders, by_name, choose, split_of

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub", reason="downloads: the extra `hub`")
    with serving() as address:
        yield address


def documents(folder):
    lines = "".join((folder / "c" / f"{split}.jsonl").read_text() for split in ("train", "val")).splitlines()
    return {row["source"]: row["text"].strip() for row in map(json.loads, lines)}


def fetched():
    """The names of the files that were fetched."""
    asked = [line.partition("/resolve/")[2] for line in Hub.requests if line.startswith("GET")]
    return [name[len(COMMIT) + 1 :] for name in asked if name]


def parquet_file(folder, texts, column="text"):
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet: the extra `data`")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": list(range(len(texts))), column: texts}), folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def shards(folder):
    texts = [f"The boat {i} left the harbour at dawn with {i * 7} on board." for i in range(40)]
    return {
        "data/test-00000-of-00001.parquet": parquet_file(folder, ["not asked for"]),
        "data/train-00000-of-00002.parquet": parquet_file(folder, texts[:20]),
        "data/train-00001-of-00002.parquet": parquet_file(folder, [*texts[20:], None]),
    }, texts


def test_the_parquet_of_a_data_set_is_fetched_shard_by_shard_and_once(hub, tmp_path):
    files, texts = shards(tmp_path)
    Hub.branches[COMMIT] |= files
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats", HF_TOKEN=TOKEN)
    assert run.returncode == 0, run.stderr
    assert f"hf:sea/boats: 2 files of commit {COMMIT[:12]}: data/train-00000-of-00002.parquet" in run.stdout
    found = documents(tmp_path)
    assert sorted(found.values()) == sorted(texts) and TOKEN not in run.stdout + run.stderr
    assert found["hf:sea/boats/data/train-00001-of-00002.parquet#19"] == texts[39]
    assert fetched() == [name for name in files if "train" in name]
    Hub.requests.clear()
    again = corpus(hub, tmp_path, "--from", "hf:sea/boats")
    assert again.returncode == 0 and fetched() == [] and documents(tmp_path) == found


def test_no_more_is_fetched_than_is_asked_for(hub, tmp_path):
    files, _ = shards(tmp_path)
    Hub.branches[COMMIT] |= files
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats:train", "--max-mb", "0.0005")
    assert run.returncode == 0, run.stderr
    assert len(documents(tmp_path)) == 10 and fetched() == ["data/train-00000-of-00002.parquet"]


def test_what_has_no_parquet_is_taken_as_the_hub_has_converted_it(hub, tmp_path):
    files, texts = shards(tmp_path)
    one, two = (file for name, file in files.items() if "train" in name)
    other = b"not read"
    Hub.branches[COMMIT] |= {"boats.py": b"", "boats.tar": b""}
    Hub.branches[CONVERTED] = {"en/partial-train/0000.parquet": one, "en/partial-train/0001.parquet": two}
    Hub.branches[CONVERTED] |= {"en/test/0000.parquet": other, "de/train/0000.parquet": other}
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats")
    message = "which configuration? It has de, en: --from hf:sea/boats/de, for example."
    assert run.returncode == 2 and message in run.stderr
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats/en")
    assert run.returncode == 0 and "has converted its beginning alone" in run.stdout, run.stderr
    assert sorted(documents(tmp_path).values()) == sorted(texts)
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats/en:dev")
    assert run.returncode == 2 and "there is no split 'validation'. It has train, test" in run.stderr


def test_rows_and_texts_where_there_is_no_parquet_at_all(hub, tmp_path):
    rows = [{"story": f"The boat {i} left the harbour with {i * 7} on board.", "n": i} for i in range(40)]
    Hub.branches[COMMIT] |= {
        "dataset_infos.json": b"{}",
        "train.jsonl": "\n".join(map(json.dumps, [*rows, {"n": 7}])).encode(),
        "test.jsonl": b"",
    }
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats")
    assert run.returncode == 0, run.stderr
    assert "the text is taken from 'story'" in run.stderr and "1 .jsonl skipped: no key 'story'" in run.stdout
    assert sorted(documents(tmp_path).values()) == sorted(row["story"] for row in rows) and fetched() == ["train.jsonl"]


def test_what_is_not_there_is_said(hub, tmp_path):
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats")
    assert run.returncode == 2 and "has no files that can be read" in run.stderr and "README.md" in run.stderr
    run = corpus(hub, tmp_path, "--from", "hf:sea/monsters", HF_TOKEN=TOKEN)
    assert run.returncode == 2 and "the data set 'sea/monsters' could not be downloaded from" in run.stderr
    assert "datasets/sea/monsters/tree/main" in run.stderr and "Traceback" not in run.stderr and TOKEN not in run.stderr
    run = corpus("http://127.0.0.1:9", tmp_path, "--from", "hf:sea/boats", HF_TOKEN=f"{TOKEN}\n")
    assert run.returncode == 2 and "Traceback" not in run.stderr and TOKEN not in run.stderr
    Hub.branches[COMMIT]["train.parquet"] = b"no Parquet"
    run = corpus(hub, tmp_path, "--from", "hf:sea/boats")
    assert run.returncode == 2 and "cannot read 'hf:sea/boats/train.parquet': " in run.stderr
    assert not (tmp_path / "c").exists()


def test_without_huggingface_hub_the_error_names_it(monkeypatch):
    from minillm.hub.datasets import hub_documents

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OSError, match=r"'sea/boats' can't be downloaded without .*minillm-from-scratch\[hub\]"):
        list(hub_documents("sea/boats"))


@pytest.mark.parametrize("name", ["", "a//b", "a/b/c/d", "a/b:", "/a", ":train"])
def test_a_name_that_cannot_be_one(name):
    with pytest.raises(ValueError, match="is no name of a data set: hf: is followed by owner/name"):
        Asked.parse(name)


def test_names_of_data_sets():
    assert Asked.parse("squad") == Asked("squad")
    assert Asked.parse("a/b/c:d") == Asked("a/b", "c", "d")
    splits = {
        "train.csv": "train", "data/validation-00000-of-00001.parquet": "validation", "dev.jsonl": "validation",
        "test/part-1.txt": "test", "en/my_split-00000-of-00002.parquet": "my_split", "contest.txt": "train",
        "val/a.txt": "validation", "other.txt": "train",
    }  # fmt: skip
    assert {file: split_of(file) for file in splits} == splits


def test_configurations_of_a_card_of_folders_and_of_names():
    files = ["de/train-0.parquet", "en/test-0.parquet", "en/train-0.parquet", "en/train-1.parquet"]
    card = [
        {
            "config_name": "en",
            "data_files": [{"split": "train", "path": "en/tr*"}, {"split": "test", "path": ["en/te*"]}],
        },
        {"config_name": "de", "data_dir": "de", "default": True},
        {"config_name": "all", "data_files": "**"},
        {"config_name": "none", "data_files": "nothing*"},
        "nonsense",
    ]  # fmt: skip
    found = by_card(card, files)
    assert found["en"] == {"train": files[2:], "test": [files[1]]} and found["de"] == {"train": [files[0]]}
    assert found["all"] == {"train": [files[0], *files[2:]], "test": [files[1]]} and "none" not in found
    assert by_name(files, "en") == {"en": {"train": files[2:], "test": [files[1]]}} and by_name(files, "x") == {}
    assert by_folders(["a/test/0.parquet"]) == {"a": {"test": ["a/test/0.parquet"]}}
    assert by_folders(["0.parquet"]) == {"default": {"train": ["0.parquet"]}}
    assert choose(found, Asked("o/n"), "de") == [files[0]]
    assert choose(found, Asked("o/n", "en"), "de") == files[2:]
    assert choose({"default": {"validation": ["a"]}}, Asked("o/n", split="val"), "") == ["a"]
    with pytest.raises(ValueError, match=r"which configuration\? It has en, de, all: --from hf:o/n/en, for example\."):
        choose(found, Asked("o/n"), "")
    with pytest.raises(ValueError, match=r"hf:o/n/en:x: there is no split 'x'. It has train, test"):
        choose(found, Asked("o/n", "en", "x"), "")
    for strange in (None, 3, [3], [{}], [{"data_files": 3}], [{"data_files": [None, {"path": None}]}]):
        by_card(strange, files)
