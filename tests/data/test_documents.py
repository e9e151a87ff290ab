"""Reading files and folders: every kind of file, every kind of bad file, in bounded memory."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minillm.data.documents import (
    Document,
    Dropped,
    check_half_pairs,
    cut_document,
    read_jsonl,
    write_jsonl,
)
from minillm.data.folders import extension_of, kinds_skipped
from minillm.data.reading import read_documents


def test_folder_is_read_in_sorted_order_with_reasons_for_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "y.py").write_text("compiled")
    (tmp_path / ".z.txt").write_text("hidden")
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
        ".z.txt",
    }
    assert "binary" in reasons["picture.txt"] and "0xff" in reasons["bad.txt"] and "empty" in reasons["empty.txt"]
    assert "cut-off" in reasons["cut.txt.gz"] and ".png" in reasons["image.png"]
    assert [d.source for d in found] == [d.source for d in read_documents([tmp_path])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"ab\0c", "binary, not text .a zero byte at position 2"),
        ("a.txt", b"\xe9t\xe9", "not utf-8 text: line 1, byte 0xe9"),
        ("a.txt.gz", b"not gzip", "damaged or cut-off"),
        ("a.py", b"# coding: klingon\nx = 1\n", "coding line is wrong"),
        ("a.jsonl", b'{"text": "fine"}\nnonsense\n', "line 2: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n{"id": 3}', "line 2: no key 'body'; the object's keys are .'id'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: the value under 'text' is a int, not a string"),
        ("a.jsonl", b'{"text": 3}\n', "no column of it holds text: 'text'"),
        ("a.jsonl", b"[1]\n", "a JSON list where an object"),
        ("a.jsonl", b"\n\n", "no rows in it"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "line 1: not usable JSON"),
        ("a.txt", b"one\ntwo \xed\xa0\x80\n", "line 2, byte 0xed .half of a surrogate pair"),
        ("a.txt.gz", gzip.compress(b"one\n" * 50_000 + b"\xff"), "line 50001, byte 0xff"),
        ("a.json", b'[{"id": 1, "no": 2}]', "no column of it holds text: 'id', 'no'"),
        ("a.json", b'[{"text": "The boat left."}', "not JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[]", "no rows in it"),
        ("a.json", b"[[1]]", "a JSON list where an object"),
    ],
)
def test_a_file_named_by_the_user_that_cannot_be_read_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_documents(tmp_path / name))
    assert name in str(error.value)


def test_the_coding_line_is_looked_for_in_whole_lines(tmp_path: Path) -> None:
    for content in ("# x\né = 1", "é = 1", "# coding: utf-8\né = 1", "# x\n\né"):
        (tmp_path / "a.py").write_text(content, encoding="utf-8")
        assert [d.text for d in read_documents(tmp_path / "a.py")] == [content]
    (tmp_path / "a.py").write_bytes("# x\n# coding: latin-1\né".encode("latin-1"))
    assert [d.text for d in read_documents(tmp_path / "a.py")] == ["# x\n# coding: latin-1\né"]
    (tmp_path / "a.py").write_bytes(b"# x\n# coding: cp1252\n")
    assert [d.text for d in read_documents(tmp_path / "a.py")] == ["# x\n# coding: cp1252\n"]


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


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_tell_utf_32_from_utf_16(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffThe boat 船 left.".encode(encoding))
    assert [d.text for d in read_documents(tmp_path / "a.txt")] == ["The boat 船 left."]


def test_json_files_that_are_named(tmp_path: Path) -> None:
    def texts(content: object, **options: str) -> list[str]:
        (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return [d.text for d in read_documents(tmp_path / "a.json", **options)]  # type: ignore[arg-type]

    assert texts([{"id": 1, "content": "The boat left."}], text_key="content") == ["The boat left."]
    assert texts([{"text": "one"}, {"text": "two"}]) == ["one", "two"]
    assert texts(["one", "two"]) == ["one", "two"]
    assert texts({"text": "one"}) == ["one"]
    assert texts('{"text": "one"}\n{"text": "two"}\n') == ["one", "two"]  # JSONL under another name


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_that_leave_the_folder_are_not_followed_unless_asked(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.txt").write_text("outside")
    (folder / "in" / "a.txt").write_text("inside")
    (folder / "alias.txt").symlink_to(folder / "in" / "a.txt")  # stays inside: read
    (folder / "secret.txt").symlink_to(tmp_path / "out" / "secret.txt")
    (folder / "out").symlink_to(tmp_path / "out")
    (folder / "in" / "circle").symlink_to(folder)
    skipped: list[Dropped] = []
    found = [Path(d.source).relative_to(folder).as_posix() for d in read_documents(folder, skipped=skipped)]
    assert found == ["alias.txt", "in/a.txt"]
    assert {Path(s.source).name: s.reason.split(" (")[0] for s in skipped} == {
        "secret.txt": "a link that leaves the folder",
        "out": "a link to a folder",
        "circle": "a link to a folder",
    }
    skipped.clear()
    texts = [d.text for d in read_documents(folder, follow_links=True, skipped=skipped)]
    assert sorted(texts) == ["inside", "inside", "outside", "outside"]
    assert [s.reason for s in skipped] == ["a folder that was read already, under another name"]
    assert [d.text for d in read_documents(folder / "secret.txt")] == ["outside"]  # named, so wanted


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    skipped: list[Dropped] = []
    assert len(list(read_documents(tmp_path, skipped=skipped))) == 1
    assert [(Path(s.source).name, s.reason) for s in skipped] == [
        ("closed", "a folder that cannot be read (Permission denied)")
    ]


def test_kinds_of_what_was_skipped() -> None:
    def skipped(n_kinds: int) -> list[str]:
        return kinds_skipped((f"a.{i:02}", "why (this one)") for i in range(n_kinds) for _ in range(n_kinds - i))

    assert skipped(10) == [f"{10 - i} .{i:02} skipped: why" for i in range(10)]
    assert skipped(12)[10:] == ["3 of 2 other kinds skipped: see dropped.jsonl"]
    assert kinds_skipped([("a.txt#3", "x"), ("b.txt.gz", "cannot read 'b': x: y"), ("c#d.txt", "x; z")]) == [
        "3 .txt skipped: x"
    ]
    assert kinds_skipped([("README", "x")] * 1234) == ["1,234 without extension skipped: x"]
    assert [extension_of(name) for name in ("a.TXT", "a.txt.GZ", "a.gz", "a", "a.b.py")] == [
        ".txt",
        ".txt",
        "",
        "",
        ".py",
    ]


def test_half_of_a_surrogate_pair_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n{"text": "half \\ud800 pair"}\n')
    fine, half = read_documents(tmp_path / "a.jsonl")
    check_half_pairs(fine)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3\) holds half of a surrogate pair at character 5"):
        check_half_pairs(half)


@given(st.text(alphabet="ab\n\r 世", max_size=200), st.integers(1, 40))
def test_parts_are_the_text_and_none_is_too_long(text: str, limit: int) -> None:
    parts = list(cut_document(Document(text, "s"), limit))
    assert all(0 < len(p.text) <= limit and p.text.strip() for p in parts)
    joined = "".join(p.text for p in parts)
    assert "".join(joined.split()) == "".join(text.split())  # only white space may fall between parts
    assert len({p.source for p in parts}) == len(parts)


def test_a_text_is_cut_where_it_is_longer_than_a_part() -> None:
    def parts(text: str, limit: int = 10) -> list[tuple[str, str]]:
        return [(part.text, part.source) for part in cut_document(Document(text, "s"), limit)]

    assert parts("a" * 10) == [("a" * 10, "s")]
    assert parts("a" * 11) == [("a" * 10, "s#0"), ("a", "s#1")]
    assert parts("a" * 21) == [("a" * 10, "s#0"), ("a" * 10, "s#1"), ("a", "s#2")]
    # At a blank line rather than at a later line end, if all of it fits into the ten.
    assert parts("ab\n\ncd\nefg\nhij") == [("ab\n\n", "s#0"), ("cd\nefg\nhij", "s#1")]
    assert parts("abcdefgh\n\nk") == [("abcdefgh\n\n", "s#0"), ("k", "s#1")]
    assert parts("abcdef\r\n\r\nk") == [("abcdef\r\n\r\n", "s#0"), ("k", "s#1")]
    assert parts("abcdefg\r\n\r\nk") == [("abcdefg\r\n", "s#0"), ("\r\nk", "s#1")]
    assert parts(" " * 10 + "a") == [("a", "s")]


def test_long_prose_is_cut_at_blank_lines_and_code_is_not(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i} " + "word " * 20 + "\n\n" for i in range(50)]
    (tmp_path / "book.txt").write_text("".join(paragraphs))
    (tmp_path / "code.py").write_text("".join(paragraphs))
    parts = list(read_documents(tmp_path / "book.txt", part_chars=1000))
    assert len(parts) > 3 and "".join(p.text for p in parts) == "".join(paragraphs)
    assert all(p.text.endswith("\n\n") and p.text.startswith("Paragraph") for p in parts)
    assert len(list(read_documents(tmp_path / "code.py", part_chars=1000))) == 1
    for n, suffix, n_parts in ((20_000, "txt", 1), (20_001, "txt", 2), (1_000_000, "py", 1), (1_000_001, "py", 2)):
        (tmp_path / f"a.{suffix}").write_text("a" * n)
        assert [len(p.text) for p in read_documents(tmp_path / f"a.{suffix}")] == [n - (n_parts == 2), 1][:n_parts]


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
    with pytest.raises(ValueError, match="line 1: no text under the key"):
        list(read_jsonl(tmp_path / "bad.jsonl"))
