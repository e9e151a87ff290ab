"""Building a corpus by several processes: the same corpus as by one, in flat memory, with clean ends."""

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ended_scripts import end_script

from minillm.data import CorpusConfig, Document, build, build_corpus, encoding, per_document
from minillm.disk import processes
from minillm.disk.processes import ProcessKilled

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("a", "ea", "ing", "or", "ust")]
NOTICE = "This page was printed from the great library of the harbour.\n"
PARAGRAPH = "\n\na=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8: no sentence, but a paragraph.\n\n"
HEADER = "# Copyright (c) 2031 The Harbour Library.\n# All rights reserved.\n\n"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 6000)


def messy_documents(n: int = 110) -> Iterator[Document]:
    """Texts with something for each rule and each kind of copy, in narrow and wide scripts."""
    draw = random.Random(0)
    texts: list[str] = []
    for i in range(n):
        kind = draw.randrange(8)
        text = "\n".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(draw.randint(3, 30))) + "\n"
        if kind == 0 and texts:
            text = draw.choice(texts).replace(" ", "  ")
        elif kind == 1 and texts:
            text = draw.choice(texts) + "tail"
        elif kind == 2:
            text = "港口的船在清晨离开，带着盐和灯。" * draw.randint(1, 9) + "é e\u0301 ﬁ\u200b\n" + text[:90]
        elif kind == 3:
            text = HEADER + text.replace("\n", "  \r\n", 3) + "\n" * 6
        elif kind == 4:
            text = draw.choice(["", "x", NOTICE])
        elif kind == 5:
            text += "Write to ada@example.org.\nHalf \ud800 a pair.\n"
        texts.append(text + draw.choice(["", NOTICE, PARAGRAPH]))
        yield Document(texts[-1], f"{i}\udce9" if kind == 6 else f"{i}")  # a name that is not UTF-8


EVERYTHING = CorpusConfig(
    normalization="NFKC", paragraphs=True, scrub=("email",), stop_words=("zh",), val_fraction=0.2, test_fraction=0.1
)
DROP_TRAIN = CorpusConfig(val_fraction=0.3, contamination="drop_train", contamination_limit=0.02)


@pytest.mark.parametrize(
    ("start", "config"), [("fork", EVERYTHING), ("fork", DROP_TRAIN), ("spawn", EVERYTHING)], ids=["1", "2", "spawn"]
)
def test_a_corpus_is_the_same_for_any_number_of_processes(
    start: str, config: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if start == "fork" and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    monkeypatch.setattr(processes, "START", start)
    folders = [tmp_path / str(n) for n in ((1, 2, 3) if start == "fork" else (1, 2))]
    reports = [build_corpus(messy_documents(), one, config, processes=int(one.name)) for one in folders]
    assert set(reports[0].rules) >= {"licence", "invisible", "unicode", "trailing_space", "repeated_lines"}
    assert set(reports[0].dropped) >= {"clean", "exact", "near", "contamination"}
    assert ("paragraph" in reports[0].dropped) == config.paragraphs
    for one in folders[1:]:
        assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in folders[0].iterdir()}


def test_documents_are_read_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two batches a process wait, so that a corpus of any size fits into memory."""
    read = ahead = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for i in range(40):
            read += 1
            yield Document(f"{i} " + "word " * 1200, f"{i}")  # one fills a batch

    with per_document.each(per_document.cleaned, CorpusConfig(), documents(), 2) as results:
        for done, (document, one) in enumerate(results, 1):
            ahead = max(ahead, read - done)
            assert document.source == f"{done - 1}" and one.n_bytes == len(document.text)
    assert read == done == 40 and 1 <= ahead <= 4
    short = [Document("x", "")] * 100  # their results count, too: OVERHEAD characters each
    assert [len(batch) for batch in encoding.batched(short, per_document.size)] == [12] * 8 + [4]


def fails(*_: object, **__: object) -> None:
    raise RecursionError("too deep.")


@pytest.mark.parametrize("name", ["clean_text", "identify", "Contamination.find"])
@pytest.mark.parametrize("n", [1, 2])
def test_what_fails_in_any_process_is_named(n: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_document, "ALONE", 0)
    monkeypatch.setattr(f"minillm.data.per_document.{name}", fails)
    with pytest.raises(ValueError, match=r"^the document '.+' can't be worked on \(RecursionError: too deep\): leave"):
        build_corpus(messy_documents(), tmp_path / "c", processes=n)
    assert list(tmp_path.iterdir()) == []


def killed(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("name", ["clean_text", "identify", "Contamination.find"])
def test_a_killed_process_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_document, "ALONE", 0)
    monkeypatch.setattr(f"minillm.data.per_document.{name}", killed)
    with pytest.raises(ProcessKilled, match=r"was killed, perhaps for want of memory\. Use processes='1'"):
        build_corpus(messy_documents(), tmp_path / "c", processes=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("first_only", [False, True], ids=["all", "the first"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_an_end_by_a_signal_leaves_no_process(number: str, first_only: bool, tmp_path: Path) -> None:
    script = f"""
        import signal
        from minillm.data import Document, build_corpus, encoding

        def documents():
            for i in range(10**9):
                if i == 400:
                    print("going", flush=True)
                yield Document("some text " * 50, str(i))

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
            encoding.BATCH = 5000
            try:
                build_corpus(documents(), {str(tmp_path / "c")!r}, processes=2)
            except KeyboardInterrupt:
                print("interrupted")
        """
    end = ("interrupted\n", "", 0) if number == "SIGINT" else ("", "", -signal.SIGKILL)
    assert end_script(script, tmp_path, getattr(signal, number), first_only=first_only) == end
    assert not (tmp_path / "c").exists()
    if number == "SIGINT":
        assert [p.name for p in tmp_path.iterdir()] == ["script.py"]


def test_no_worker_is_left_where_deciding_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the error is looked at, as in a notebook, which keeps the frames that it passed through."""
    from multiprocessing import active_children

    monkeypatch.setattr(per_document, "ALONE", 0)
    monkeypatch.setattr(build.Kept, "add", fails)
    with pytest.raises(RecursionError) as caught:
        build_corpus(messy_documents(), tmp_path / "c", processes=2)
    assert caught.tb is not None and active_children() == []


@pytest.mark.parametrize("n", [0, -1])
def test_a_number_of_processes_that_is_none_is_refused(n: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"processes must be at least 1, not {n}"):
        build_corpus([], tmp_path / "c", processes=n)
    with pytest.raises(ValueError, match=f"processes must be at least 1, not {n}"):
        list(processes.in_order(fails, None, [1], alone=1, processes=n))
