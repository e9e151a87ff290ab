"""The pipeline: what ends up in the folder, the report, and that nothing half-made ever loads."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minillm.data import (
    CorpusConfig,
    CorpusReport,
    Document,
    Dropped,
    build_corpus,
    contamination,
    corpus_documents,
    corpus_text,
    load_report,
    read_documents,
    split_of,
    stdlib_documents,
)
from minillm.data.corpus import check_splits
from minillm.data.divide import Kept, choose_splits, too_few


def some_documents(n: int = 60, seed: int = 0) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [Document(" ".join(f"w{i}" for i in rng.integers(0, 3000, 80)) + "\n", f"d{k}") for k in range(n)]


def test_the_standard_library_becomes_a_corpus(tmp_path: Path) -> None:
    report = build_corpus(stdlib_documents(max_bytes=400_000), tmp_path / "c", CorpusConfig(val_fraction=0.2))
    assert report.splits["train"]["documents"] > report.splits["val"]["documents"] > 0
    assert load_report(tmp_path / "c") == report
    assert report.fingerprint in report.summary() and "Python" in report.summary()
    digest = hashlib.sha256()
    for name in report.splits:
        for document in corpus_documents(tmp_path / "c", name):
            digest.update(len(document.text.encode()).to_bytes(8, "little") + document.text.encode())
        digest.update(name.encode())
    assert report.fingerprint == digest.hexdigest()[:16]
    train, val = list(corpus_documents(tmp_path / "c")), list(corpus_documents(tmp_path / "c", "val"))
    assert {split_of(d.text, 0.2) for d in train} == {"train"} and {split_of(d.text, 0.2) for d in val} == {"val"}
    assert max(contamination(train, val).values()) == pytest.approx(report.overlap["max"])
    assert report.overlap["max"] < 0.2
    assert sum(s["bytes"] for s in report.splits.values()) == sum(len(d.text.encode()) for d in train + val)
    assert corpus_text(tmp_path / "c", "val", 1000) == "".join(d.text for d in val)[:1000]
    again = build_corpus(stdlib_documents(max_bytes=400_000), tmp_path / "d", CorpusConfig(val_fraction=0.2))
    assert again == report
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        ".minillm.json",
        "dropped.jsonl",
        "report.json",
        "train.jsonl",
        "val.jsonl",
    ]


def test_what_is_dropped_is_reported_line_by_line(tmp_path: Path) -> None:
    documents = some_documents()
    copied = documents[3]
    documents += [
        Document(copied.text + "\n\n", "copy"),
        Document(copied.text + "tail", "near copy"),
        Document("x", "tiny"),
        Document("A notice that stands in every document here.\n", "only notice"),
    ]
    documents = [
        replace(d, text=d.text + "A notice that stands in every document here.\n") for d in documents[:60]
    ] + documents[60:]
    documents[60] = Document(documents[3].text + "\n", "copy")
    documents[61] = Document(documents[3].text + "tail", "near copy")
    skipped = [Dropped("picture.png", "read", "extension")]
    report = build_corpus(documents, tmp_path / "c", skipped=skipped)
    lines = [json.loads(line) for line in (tmp_path / "c" / "dropped.jsonl").read_text().splitlines()]
    found = {d["source"]: (d["stage"], d["duplicate_of"]) for d in lines}
    assert found == {
        "picture.png": ("read", None),
        "tiny": ("clean", None),
        "only notice": ("clean", None),
        "copy": ("exact", "d3"),
        "near copy": ("near", "d3"),
    }
    assert report.dropped == {"read": 1, "clean": 2, "exact": 1, "near": 1}
    assert report.rules["repeated_lines"] == 63
    assert "notice" not in corpus_text(tmp_path / "c")


def test_documents_keep_their_split_when_others_are_added(tmp_path: Path) -> None:
    few = build_corpus(some_documents(40), tmp_path / "few", CorpusConfig(val_fraction=0.3, test_fraction=0.2))
    build_corpus(
        some_documents(30, seed=9) + some_documents(40),
        tmp_path / "many",
        CorpusConfig(val_fraction=0.3, test_fraction=0.2),
    )
    for split in few.splits:
        texts = {d.text for d in corpus_documents(tmp_path / "few", split)}
        assert texts and texts <= {d.text for d in corpus_documents(tmp_path / "many", split)}


@pytest.mark.parametrize(("mode", "loser"), [("drop_held_out", "val"), ("drop_train", "train"), ("report", None)])
def test_contaminated_documents(tmp_path: Path, mode: str, loser: str | None) -> None:
    documents = some_documents()
    held_out = next(d for d in documents if split_of(d.text) == "val")
    rest = " ".join(f"new{i}" for i in range(200))
    leak = next(
        d for k in range(50) if split_of((d := Document(f"{k} {held_out.text} {rest}", "leak")).text) == "train"
    )
    config = CorpusConfig(contamination=mode)  # type: ignore[arg-type]
    report = build_corpus([*documents, leak], tmp_path / "c", config)
    sources = {s: {d.source for d in corpus_documents(tmp_path / "c", s)} for s in ("train", "val")}
    assert ("leak" in sources["train"]) == (loser != "train")
    assert (held_out.source in sources["val"]) == (loser != "val")
    assert report.dropped == ({} if loser is None else {"contamination": 1})
    assert report.overlap["max"] == (1.0 if loser is None else 0.0)
    n_held_out = report.splits["val"]["documents"]
    assert report.overlap["mean"] == pytest.approx(1 / n_held_out if loser is None else 0.0)


def test_an_empty_validation_split_takes_the_next_in_line(tmp_path: Path) -> None:
    documents = [d for d in some_documents(200) if split_of(d.text, 0.05) == "train"][:5]
    report = build_corpus(documents, tmp_path / "c")
    assert report.splits["val"]["documents"] == 1 and report.splits["train"]["documents"] == 4
    assert "noisy" in report.notes[0]
    for n in (1, 3):  # three copies are one document
        with pytest.raises(ValueError, match=r"only one document is left, of 35 characters.*--val-fraction 0 to train"):
            build_corpus([Document("too short to be cut into two parts", "s")] * n, tmp_path / "one")
    with pytest.raises(ValueError, match=r"nothing is left of the 2 documents read \(dropped: clean 2\)"):
        build_corpus([Document("x", "s")] * 2, tmp_path / "one")
    assert build_corpus(documents[:1], tmp_path / "one", CorpusConfig(val_fraction=0)).splits.keys() == {"train"}
    with pytest.raises(ValueError, match="stream of documents is empty"):
        build_corpus([], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_interrupted_build_leaves_nothing_and_the_old_corpus_in_place(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Document]:
        yield from some_documents(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus(interrupted(), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="is not a corpus"):
        load_report(tmp_path / "c")
    report = build_corpus(some_documents(30), tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        build_corpus(interrupted(), tmp_path / "c", overwrite=True)
    assert load_report(tmp_path / "c") == report
    (tmp_path / "c.partial").mkdir()
    (tmp_path / "c.partial" / "the user's own").write_text("x")
    left_behind = tmp_path / ".c.0123abcd.minillm-tmp"
    left_behind.mkdir()
    (left_behind / "by a killed build").write_text("x")
    newer = build_corpus(some_documents(31), tmp_path / "c", overwrite=True)
    assert load_report(tmp_path / "c") == newer != report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.partial"]


def test_a_build_that_is_killed_as_it_takes_its_place_loses_no_corpus(tmp_path: Path) -> None:
    report = build_corpus(some_documents(30), tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / ".c.0123abcd.minillm-old")  # what such a kill leaves
    assert load_report(tmp_path / "c") == report
    assert len(list(corpus_documents(tmp_path / "c"))) == report.splits["train"]["documents"]
    with pytest.raises(FileExistsError, match="holds a corpus already"):
        build_corpus(some_documents(31), tmp_path / "c")
    newer = build_corpus(some_documents(31), tmp_path / "c", overwrite=True)
    assert load_report(tmp_path / "c") == newer
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_the_old_corpus_returns_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = build_corpus(some_documents(30), tmp_path / "c")
    rename = os.rename

    def failing(src: Path, dst: Path) -> None:
        if "minillm-tmp" in str(src):
            raise PermissionError("in use")
        rename(src, dst)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(PermissionError):
        build_corpus(some_documents(31), tmp_path / "c", overwrite=True)
    assert load_report(tmp_path / "c") == report
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_the_messy_example_shows_every_fault_of_its_data_card(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "data" / "messy"
    config = CorpusConfig(paragraphs=True, val_fraction=0.2, contamination="report")
    report = build_corpus(read_documents(folder), tmp_path / "c", config)
    assert report.documents_in == 15
    assert report.rules == {
        "line_endings": 2,
        "invisible": 7,
        "unicode": 1,
        "trailing_space": 2,
        "blank_lines": 1,
        "licence": 1,
        "repeated_lines": 12,
    }
    lines = [json.loads(line) for line in (tmp_path / "c" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(d["source"].split("/")[-1], d["stage"]) for d in lines} >= {
        ("lamp-copy", "exact"),
        ("lamp-edited", "near"),
        ("short", "clean"),
        ("ferry", "paragraph"),
        ("library-zh", "paragraph"),
    }


def test_other_peoples_folders_are_safe(tmp_path: Path) -> None:
    build_corpus(some_documents(30), tmp_path / "c")
    with pytest.raises(FileExistsError, match="holds a corpus already"):
        build_corpus(some_documents(30), tmp_path / "c")
    for beside in ("c.old", "c.partial", "c.new"):  # names that a corpus was once built under
        (tmp_path / beside).mkdir()
        (tmp_path / beside / "mine.txt").write_text("precious")
    build_corpus(some_documents(30), tmp_path / "c", overwrite=True)
    assert all((tmp_path / f"c.{end}" / "mine.txt").read_text() == "precious" for end in ("old", "partial", "new"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("years of work")
    (tmp_path / "thesis" / "report.json").write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"thesis (was not made by minillm|is there already and not empty)"):
            build_corpus(some_documents(30), tmp_path / "thesis", overwrite=overwrite)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file"):
        build_corpus(some_documents(30), tmp_path / "file", overwrite=True)
    (tmp_path / "c" / "thesis.tex").write_text("years of work")  # in a corpus of ours
    with pytest.raises(FileExistsError, match=r"did not put there \(thesis\.tex\), so it is not replaced"):
        build_corpus(some_documents(30), tmp_path / "c", overwrite=True)
    assert (tmp_path / "c" / "thesis.tex").read_text() == "years of work" and load_report(tmp_path / "c")
    (tmp_path / "c" / "thesis.tex").unlink()
    (tmp_path / "empty").mkdir()
    build_corpus(some_documents(30), tmp_path / "empty")
    with pytest.raises(ValueError, match=r"no split 'test'; its report\.json has train, val"):
        list(corpus_documents(tmp_path / "c", "test"))


def test_the_only_document_is_cut_into_parts(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 3000, 2600)
    text = "".join(f"w{i}" + (" " if k % 12 else ".\n") for k, i in enumerate(words))
    (tmp_path / "book.txt").write_text(text)
    assert 14_000 < len(text) < 16_000
    report = build_corpus(read_documents(tmp_path / "book.txt"), tmp_path / "c", CorpusConfig(near_threshold=0))
    n_parts = report.splits["train"]["documents"] + report.splits["val"]["documents"]
    assert report.splits["val"]["documents"] >= 1 and 18 <= n_parts <= 22 and report.documents_in == 1
    assert f"1 document could not be divided as asked, so those longer than {len(text) // 20} " in report.notes[0]
    assert f"gave {n_parts} parts" in report.notes[0]
    both = [d for split in ("train", "val") for d in corpus_documents(tmp_path / "c", split)]
    both.sort(key=lambda d: int(d.source.split("#")[1]))
    assert "".join(d.text for d in both).split() == text.split()
    whole = build_corpus(read_documents(tmp_path / "book.txt"), tmp_path / "all", CorpusConfig(val_fraction=0))
    assert whole.splits["train"]["documents"] == 1


def test_how_the_only_document_is_cut(tmp_path: Path) -> None:
    text = "".join(f"line {i:03} of the one.\n" for i in range(17))  # 20 characters each and the line end
    config = CorpusConfig(near_threshold=0, repeated_lines=False, val_fraction=0.01, contamination="report")
    for n, n_parts in ((4, 2), (5, 2), (8, 3), (17, 6)):  # of at most 4 × 20 characters: three lines
        report = build_corpus([Document(text[: n * 21], "s")], tmp_path / str(n), config)
        assert sum(split["documents"] for split in report.splits.values()) == n_parts and report.dropped == {}
    report = build_corpus([Document(text[: 7 * 21 - 2], "s")], tmp_path / "short", config)
    assert report.dropped == {} and report.splits["train"]["documents"] == 1  # the last has 19 characters, and joins
    assert sum(split["bytes"] for split in report.splits.values()) == 7 * 21 - 1
    with pytest.raises(ValueError, match="too short to be cut in two"):
        build_corpus([Document(text[: 3 * 21], "s")], tmp_path / "whole", config)


SENTENCES = {
    "English": "The boat left at {} with {} crates of salt. ",
    "Chinese": "船在{}点开，带着{}箱盐。",
    "Thai": "เรือออกเวลา {} พร้อมเกลือ {} ลัง ",
    "one line of a poem": "{} and {}\n",
}


@pytest.mark.parametrize("kind", SENTENCES)
@pytest.mark.parametrize("n_files", [1, 2, 3])
def test_a_small_text_is_divided(kind: str, n_files: int, tmp_path: Path) -> None:
    """20 kB in one, two or three files; without a line end in them, too."""
    texts = []
    for i in range(n_files):
        numbers = np.random.default_rng(i).integers(0, 10**6, (10_000 // n_files // len(SENTENCES[kind]), 2))
        texts.append("".join(SENTENCES[kind].format(a, b) for a, b in numbers).strip() + "\n")
    report = build_corpus([Document(text, f"file {i}") for i, text in enumerate(texts)], tmp_path / "c")
    val, train = (report.splits[name]["bytes"] for name in ("val", "train"))
    assert 0.02 < val / (val + train) < 0.25 and val > 200
    assert f"{n_files} document" in report.notes[0] and "may stand on both sides" in report.notes[0]
    kept = [d.text for name in ("train", "val") for d in corpus_documents(tmp_path / "c", name)]
    assert sorted("".join("".join(kept).split())) == sorted("".join("".join(texts).split()))  # nothing is lost
    assert all(not text.startswith(tuple("ิ่้็")) for text in kept)  # no sign without its letter


def test_one_long_document_among_others_is_not_held_out_whole(tmp_path: Path) -> None:
    few = some_documents(8)
    long = next(d for d in some_documents(300, seed=1) if split_of(d.text) == "val")
    book = Document(long.text + "\n\n" + "\n\n".join(d.text for d in some_documents(40, seed=2)), "book")
    for seed in range(200):
        if split_of(book.text, seed=seed) == "val":
            break
    report = build_corpus([*few, book], tmp_path / "c", CorpusConfig(seed=seed))
    assert report.splits["val"]["bytes"] < report.splits["train"]["bytes"] / 3
    assert "9 documents could not be divided" in report.notes[0]
    sources = {d.source for name in ("train", "val") for d in corpus_documents(tmp_path / "c", name)}
    assert {d.source for d in few} < sources and "book#0" in sources  # the short ones stay whole


def test_a_part_that_would_be_too_short_joins_the_one_before() -> None:
    paragraphs = "".join(f"Paragraph {i} of some words about the harbour.\n\n" for i in range(8))
    for text, limit, sources in (
        (paragraphs + "The end.\n", 100, ["d#0", "d#1", "d#2", "d#3"]),
        ("A line of words that is long.\n\nEnd.\n", 30, ["d"]),
    ):
        kept = Kept()
        parts = list(kept.add_parts(Document(text, "d"), limit, CorpusConfig(min_chars=30)))
        assert "".join(part.text for part in parts) == text and [part.source for part in parts] == sources
        assert list(kept.sizes) == [len(part.text) for part in parts]


def test_documents_are_few_where_a_side_has_none() -> None:
    config, kept = CorpusConfig(val_fraction=0.2, test_fraction=0.2), Kept()
    kept.places, kept.sizes = array("d", [0.1, 0.19, 0.2, 0.5, 0.79, 0.8, 0.99]), array("q", [1] * 7)
    chosen = ["val", "val", "train", "train", "train", "test", "test"]
    assert choose_splits(kept.places, config) == (chosen, []) and not too_few(kept, config)
    kept.places, kept.sizes = array("d", [0.3, 0.4]), array("q", [1, 1])
    assert too_few(kept, config) and not too_few(kept, CorpusConfig(val_fraction=0.0))


def test_each_side_gets_a_document_where_there_are_enough(tmp_path: Path) -> None:
    config = CorpusConfig(val_fraction=0.01, test_fraction=0.01, near_threshold=0, contamination="report")
    report = build_corpus(some_documents(12), tmp_path / "c", config)
    assert {name: split["documents"] for name, split in report.splits.items()} == {"train": 10, "val": 1, "test": 1}
    assert [note.split(" left none for ")[1].split(",")[0] for note in report.notes] == ["val", "test"]
    one_side = [d for d in some_documents(300) if split_of(d.text, 0.45, 0.45) == "val"][:6]
    config = CorpusConfig(val_fraction=0.45, test_fraction=0.45, contamination="report")
    report = build_corpus(one_side, tmp_path / "d", config)
    assert {name: split["documents"] for name, split in report.splits.items()} == {"train": 1, "val": 4, "test": 1}


def test_text_that_repeats_itself_keeps_something_to_measure_by(tmp_path: Path) -> None:
    """Every part shares its runs with the others: the one that shares least stays, and that is said."""
    line = "Two and two make four, and four and four make eight, and so it goes on and on for ever.\n"
    report = build_corpus([Document(line * 200, "song")], tmp_path / "c")
    assert report.splits["val"]["documents"] == 1 and report.overlap["mean"] == report.overlap["max"] == 1.0
    assert "was kept: a score on it flatters" in report.notes[-1]
    config = CorpusConfig(contamination="drop_train")
    with pytest.raises(ValueError, match=r"nothing is left to train on.*--contamination drop_held_out"):
        build_corpus([Document(line * 200, "song")], tmp_path / "d", config)


def test_the_report_shows_what_went(tmp_path: Path) -> None:
    header = "# Copyright (c) 2031 The Harbour Library.\n# All rights reserved.\n\n"
    notice = "This page was printed for readers of the library.\n"
    documents = [Document(header * (i % 2) + d.text + notice, d.source) for i, d in enumerate(some_documents(40))]
    report = build_corpus(documents, tmp_path / "c")
    assert report.rules == {"licence": 20, "repeated_lines": 40}
    assert report.removed == {
        "licence": {"# Copyright (c) 2031 The Harbour Library.": 20},
        "repeated_lines": {notice.strip(): 40},
    }
    assert report.removed_chars == {"licence": 20 * (len(header) - 2), "repeated_lines": 40 * (len(notice) - 1)}
    assert load_report(tmp_path / "c") == report
    shown = [" ".join(line.split()) for line in report.summary().splitlines()]
    assert "rule licence 20 times, 1,280 characters: 20 times '# Copyright (c) 2031 The Harbour Library.'" in shown
    old = json.loads((tmp_path / "c" / "report.json").read_text())
    del old["removed"], old["removed_chars"]  # as corpora had it before
    (tmp_path / "c" / "report.json").write_text(json.dumps(old))
    assert load_report(tmp_path / "c").removed == {}


def test_what_was_skipped_is_counted_by_kind(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.txt").write_text(some_documents(30)[i].text)
    for i in range(12):
        (tmp_path / "in" / f"{i}.css").write_text("p {}")
    (tmp_path / "in" / "a.txt").write_bytes(b"\0")
    (tmp_path / "in" / "b.txt").write_bytes(b"xx\0")
    (tmp_path / "in" / "c.txt").write_bytes(b"\xff")
    skipped: list[Dropped] = []
    report = build_corpus(read_documents(tmp_path / "in", skipped=skipped), tmp_path / "c", skipped=skipped)
    assert report.notes[:3] == [
        "12 .css skipped: extension '.css' is not one of text",
        "2 .txt skipped: it is binary, not text",
        "1 .txt skipped: not utf-8 text",
    ]
    assert "12 .css skipped" in report.summary() and report.dropped["read"] == 15


def test_names_that_are_not_unicode_survive(tmp_path: Path) -> None:
    name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    documents = [replace(d, source=f"{i}/{name}") for i, d in enumerate(some_documents(30))]
    documents.append(Document("half \ud800 a pair " + documents[0].text, "x"))
    build_corpus([*documents, documents[3]], tmp_path / "c", skipped=[Dropped(name, "read", "empty")])
    assert any(d.source == f"3/{name}" for s in ("train", "val") for d in corpus_documents(tmp_path / "c", s))
    assert "\ud800" not in corpus_text(tmp_path / "c") + corpus_text(tmp_path / "c", "val")


def test_stop_words_and_paragraphs_on_request(tmp_path: Path) -> None:
    documents = [Document("The fox and the hound " + d.text, d.source) for d in some_documents(30)]
    paragraph = "\n\nOne long paragraph stands in two documents, word for word, here.\n"
    documents[1] = Document(documents[1].text + paragraph, "p1")
    documents[2] = Document(documents[2].text + paragraph, "p2")
    report = build_corpus(documents, tmp_path / "c", CorpusConfig(stop_words=("en",), paragraphs=True))
    text = corpus_text(tmp_path / "c") + corpus_text(tmp_path / "c", "val")
    assert report.rules["stop_words"] >= 90 and "fox hound" in text and " the " not in text
    assert report.dropped == {"paragraph": 1} and text.count("long paragraph") == 1


def test_personal_information_is_replaced_on_request_and_counted_by_kind(tmp_path: Path) -> None:
    documents = some_documents(30)
    documents[1] = Document(documents[1].text + "\nWrite to ada@example.org or bob@example.org.\n", "1")
    documents[2] = Document(documents[2].text + "\nCall 415-555-2671.\n", "2")
    plain = build_corpus(documents, tmp_path / "plain")
    report = build_corpus(documents, tmp_path / "c", CorpusConfig(scrub=("email", "card")))
    text = corpus_text(tmp_path / "c") + corpus_text(tmp_path / "c", "val")
    assert {k: n for k, n in report.rules.items() if "scrub" in k} == {"scrub_email": 2, "scrub_card": 0}
    assert text.count("Write to [EMAIL] or [EMAIL].") == 1 and "415-555-2671" in text
    assert not any("scrub" in name for name in plain.rules)
    assert load_report(tmp_path / "c").config.scrub == ("email", "card")


def test_the_shortest_document_that_is_kept(tmp_path: Path) -> None:
    words = [*(d.text for d in some_documents(30)), "x" * 19, "y" * 20, "  " + "z" * 20]
    build_corpus([Document(text, text[:9]) for text in words], tmp_path / "c", CorpusConfig(val_fraction=0.5))
    kept = corpus_text(tmp_path / "c") + corpus_text(tmp_path / "c", "val")
    assert "xxx" not in kept and "y" * 20 in kept and "z" * 20 in kept
    (line,) = (tmp_path / "c" / "dropped.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "19 characters after cleaning, fewer than 20"


def test_the_first_characters_of_a_split(tmp_path: Path) -> None:
    report = build_corpus(some_documents(30), tmp_path / "c")
    assert (report.documents_in, report.bytes_in) == (30, sum(len(d.text.encode()) for d in some_documents(30)))
    texts = [d.text for d in corpus_documents(tmp_path / "c")]
    for n in (0, 1, len(texts[0]), len(texts[0]) + 1):
        assert corpus_text(tmp_path / "c", "train", n) == "".join(texts)[:n]
    assert corpus_text(tmp_path / "c") == "".join(texts)


def test_a_summary_says_all_that_was_done() -> None:
    splits = {"train": {"documents": 1500, "bytes": 2_500_000}, "val": {"documents": 3, "bytes": 400}}
    report = CorpusReport(CorpusConfig(), "3.11.2", "0123456789abcdef", 2000, 3_000_000, {"unicode": 12}, {"near": 7})
    report = replace(report, splits=splits, overlap={"mean": 0.0125, "max": 0.25}, notes=["a note"])
    assert report.summary().splitlines() == [
        "read       2,000 documents      3.000 MB",
        "  rule    unicode                 12 times",
        "  dropped near                     7",
        "train      1,500 documents      2.500 MB",
        "val            3 documents      0.000 MB",
        "held-out 13-word runs found in train: mean 1.2%, max 25.0%",
        "note: a note",
        "fingerprint 0123456789abcdef (Python 3.11.2)",
    ]
    assert "held-out" not in replace(report, overlap={}).summary()


def test_reports_of_no_corpus_are_refused() -> None:
    counts = {"documents": 0, "bytes": 0}
    check_splits({"train": counts})
    check_splits({"train": counts, "val": counts, "test": counts})
    for splits in ({}, {"val": counts}, {"train": counts, "other": counts}):
        with pytest.raises(ValueError, match="not of train, val, test"):
            check_splits(splits)
    for wrong in ({}, {"documents": 0}, {"documents": -1, "bytes": 0}, counts | {"more": 1}):
        with pytest.raises(ValueError, match="the split val has no counts"):
            check_splits({"train": counts, "val": wrong})


def test_the_edges_of_configs_are_legal() -> None:
    edges = {"near_threshold": (0, 1), "contamination_limit": (1, 1e-9), "min_chars": (1,), "val_fraction": (0, 0.99)}
    for name, values in edges.items():
        for value in values:
            assert getattr(CorpusConfig(**{name: value}), name) == value  # type: ignore[arg-type]
    default = CorpusConfig()
    assert (default.min_chars, default.near_threshold, default.val_fraction, default.test_fraction) == (
        20,
        0.8,
        0.05,
        0,
    )
    assert (default.seed, default.contamination_limit, default.paragraphs, default.licences) == (0, 0.2, False, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalization": "nfc"},
        {"stop_words": ("fr",)},
        {"scrub": ("mail",)},
        {"min_chars": 0},
        {"near_threshold": 1.1},
        {"near_threshold": -0.1},
        {"contamination": "ignore"},
        {"contamination_limit": 0},
        {"contamination_limit": 1.1},
        {"val_fraction": 1.0},
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_fraction")[0]):
        CorpusConfig(**wrong)  # type: ignore[arg-type]
