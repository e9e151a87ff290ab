"""Reading files and folders: every kind of file, every kind of bad file, in bounded memory."""

import bz2
import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minillm.data.documents import Document, Dropped, read_documents, read_jsonl, read_parts, write_jsonl


def test_folder_is_read_in_sorted_order_with_reasons_for_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "b" / "code.py").write_text("print('二')\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first\r\n", newline="")
    (tmp_path / "c.md").write_bytes("\ufeffmark".encode())
    (tmp_path / "u16.txt").write_bytes("wide 宽".encode("utf-16"))
    (tmp_path / "old.py").write_bytes("# -*- coding: latin-1 -*-\n# é\n".encode("latin-1"))
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\0\0\0")
    (tmp_path / "bad.txt").write_bytes(b"ok \xff not")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "image.png").write_bytes(b"x")
    (tmp_path / "Makefile").write_text("all:")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    with gzip.open(tmp_path / "z.txt.gz", "wt", encoding="utf-8") as f:
        f.write("zipped")
    (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "z.txt.gz").read_bytes()[:-6])
    (tmp_path / "z.txt.bz2").write_bytes(bz2.compress(b"b-zipped"))
    (tmp_path / "z.txt.xz").write_bytes(lzma.compress(b"x-zipped"))
    skipped: list[Dropped] = []
    found = list(read_documents(tmp_path, skipped=skipped))
    texts = {Path(d.source).name: d.text for d in found}
    assert texts == {
        "a.txt": "first\r\n",  # line endings are kept
        "c.md": "mark",
        "code.py": "print('二')\n",
        "old.py": "# -*- coding: latin-1 -*-\n# é\n",
        "u16.txt": "wide 宽",
        "z.txt.bz2": "b-zipped",
        "z.txt.gz": "zipped",
        "z.txt.xz": "x-zipped",
    }
    reasons = {Path(s.source).name: s.reason for s in skipped}
    assert reasons.keys() == {
        "picture.txt",
        "bad.txt",
        "empty.txt",
        "image.png",
        "Makefile",
        "gone.txt",
        "cut.txt.gz",
    }
    assert "binary" in reasons["picture.txt"] and "0xff" in reasons["bad.txt"] and "empty" in reasons["empty.txt"]
    assert "cut-off" in reasons["cut.txt.gz"] and ".png" in reasons["image.png"]
    assert [d.source for d in found] == [d.source for d in read_documents([tmp_path])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"ab\0c", "binary, not text .a zero byte at position 2"),
        ("a.txt", b"\xe9t\xe9", "not utf-8 text: byte 0xe9"),
        ("a.txt.gz", b"not gzip", "damaged or cut-off"),
        ("a.py", b"# coding: klingon\nx = 1\n", "coding line is wrong"),
        ("a.jsonl", b'{"text": "fine"}\nnonsense\n', "line 2: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "no key 'text'; the object's keys are .'body'"),
        ("a.jsonl", b'{"text": 3}\n', "is a int, not a string"),
        ("a.jsonl", b"[1]\n", "a JSON list where an object"),
        ("a.jsonl", b"\n\n", "no line holds"),
    ],
)
def test_a_file_named_by_the_user_that_cannot_be_read_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_documents(tmp_path / name))
    assert name in str(error.value)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_documents(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="at least one path"):
        list(read_documents([]))
    with pytest.raises(ValueError, match="holds no readable text"):
        list(read_documents(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="no text encoding called 'utf-9'"):
        list(read_documents(tmp_path / "a.txt", encoding="utf-9"))
    with pytest.raises(ValueError, match="part_chars must be at least 1"):
        list(read_documents(tmp_path / "a.txt", part_chars=0))


def test_bad_jsonl_lines_in_a_folder_are_skipped_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "source": "s1"}\n{bad\n{"text": "two"}\n', encoding="utf-8")
    skipped: list[Dropped] = []
    found = list(read_documents(tmp_path, skipped=skipped))
    assert [d.text for d in found] == ["one", "two"]
    assert found[0].source == "s1" and found[1].source.endswith("a.jsonl#2")
    assert len(skipped) == 1 and skipped[0].source.endswith("a.jsonl#1")


@given(st.text(alphabet="ab\n\r 世", max_size=200), st.integers(1, 40))
def test_parts_are_the_text_and_none_is_too_long(text: str, limit: int) -> None:
    import io

    parts = list(read_parts(io.StringIO(text, newline=""), "s", limit))
    assert all(0 < len(p.text) <= limit and p.text.strip() for p in parts)
    joined = "".join(p.text for p in parts)
    assert "".join(joined.split()) == "".join(text.split())  # only white space may fall between parts
    assert len({p.source for p in parts}) == len(parts)


def test_long_prose_is_cut_at_blank_lines_and_code_is_not(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i} " + "word " * 20 + "\n\n" for i in range(50)]
    (tmp_path / "book.txt").write_text("".join(paragraphs))
    (tmp_path / "code.py").write_text("".join(paragraphs))
    parts = list(read_documents(tmp_path / "book.txt", part_chars=1000))
    assert len(parts) > 3 and "".join(p.text for p in parts) == "".join(paragraphs)
    assert all(p.text.endswith("\n\n") and p.text.startswith("Paragraph") for p in parts)
    assert len(list(read_documents(tmp_path / "code.py", part_chars=1000))) == 1


def test_memory_stays_bounded_for_a_large_file(tmp_path: Path) -> None:
    line = "A sentence that stands in a large file.\n" * 100 + "\n"
    with gzip.open(tmp_path / "large.txt.gz", "wt", compresslevel=1) as f:
        for _ in range(5000):  # 20 MB
            f.write(line)
    tracemalloc.start()
    n = sum(len(d.text) for d in read_documents(tmp_path / "large.txt.gz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 5000 * len(line)
    assert peak < 2_000_000


def test_jsonl_round_trip(tmp_path: Path) -> None:
    documents = [Document('a "quoted"\n\t世界 \u2028 \x7f', "x"), Document("🙂", "y")]
    with open(tmp_path / "d.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for d in documents:
            write_jsonl(f, d)
    assert list(read_jsonl(tmp_path / "d.jsonl")) == documents
    assert "世界" in (tmp_path / "d.jsonl").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "d.jsonl").read_text(encoding="utf-8").split("\n")[0])["source"] == "x"
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="line 1: no key"):
        list(read_jsonl(tmp_path / "bad.jsonl"))
