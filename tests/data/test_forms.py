"""What people bring: web pages, tables, Parquet, compressed lines, archives, each as it comes out of other programs."""

import csv
import gzip
import importlib
import io
import json
import os
import random
import sys
import tracemalloc
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import Document, Dropped, archives, read_documents, read_table
from minillm.data.columns import first_rows, read_rows
from minillm.data.documents import Reading
from minillm.data.opening import File, open_text

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="{charset}"><title>A lamp - Harbour notes</title>
<script>document.write("<p>never shown</p>")</script><style>.a {{ color: red }}</style></head><body>
<header><nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav></header>
<div id="cookie-banner" class="cookie-consent">We use cookies. <button>Accept all</button></div>
<main><article><h1>Repairing a lamp</h1>
<p>The lamp on the north pier had been dark for a week, and the boats found their way by the sound of the bell. I took
the ladder out on Sunday morning, before the wind rose, and opened the housing near the café.</p>
<p>Water had come in through the seal. It took <a href="/tools">a brass brush</a> and two hours to make it clean.</p>
<ul><li>Take two brushes, because one always falls into the water.</li><li>Tell the harbour master.</li></ul>
<p>In the evening it burned. Nobody said anything about it, which is how you know that a lamp works.</p>
</article><section id="comments" class="comments"><h3>One comment</h3><div class="comment-body"><p>Anna: It has never
burned so well, and I should know, since I have lived beside it for forty years and more.</p></div></section>
<aside><h3>Related posts</h3><ul><li><a href="/1">The bell</a></li></ul></aside></main>
<footer><p>Copyright Harbour notes. <a href="/privacy">Privacy</a></p></footer></body></html>"""


def texts(path: Path, **options: object) -> list[str]:
    return [document.text for document in read_documents(path, **options)]  # type: ignore[arg-type]


def skipped_in(folder: Path) -> dict[str, str]:
    """Of everything below a folder, the reasons by the end of the place."""
    skipped: list[Dropped] = []
    list(read_documents(folder, skipped=skipped))
    return {Path(one.source).name: one.reason for one in skipped}


# --- web pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf-8", "windows-1252", "nonsense"])
def test_of_a_page_the_main_text_is_kept(tmp_path: Path, charset: str) -> None:
    pytest.importorskip("trafilatura", reason="reads HTML: the extra `data`")
    content = PAGE.format(charset=charset).encode("utf-8" if charset == "nonsense" else charset)
    (tmp_path / "lamp.html").write_bytes(content)
    (tmp_path / "lamp.htm.gz").write_bytes(gzip.compress(content))
    documents = list(read_documents(tmp_path))
    assert [Path(d.source).name for d in documents] == ["lamp.htm.gz", "lamp.html"]
    for text in (document.text for document in documents):
        assert text.startswith("# Repairing a lamp\n\nThe lamp on the north pier") and "near the café." in text
        assert "- Take two brushes" in text and "a brass brush and two hours" in text and text.endswith("works.\n")
        for other in ("cookies", "About us", "never shown", "Related", "Copyright", "Anna", "<"):
            assert other not in text


NO_TEXT = [b"", b"<", b"<html><body><script>x = 1</script></body></html>", b"<p>" * 3000, b"plain", b"<!--"]


@pytest.mark.parametrize("page", NO_TEXT)
def test_a_page_without_text_is_said_to_have_none(tmp_path: Path, page: bytes, capfd: pytest.CaptureFixture) -> None:
    pytest.importorskip("trafilatura", reason="reads HTML: the extra `data`")
    (tmp_path / "a.html").write_bytes(page)
    with pytest.raises(ValueError, match=r"a\.html': no main text was found in the page\."):
        list(read_documents(tmp_path / "a.html"))
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / "c.html").write_bytes(b"<b>" * 100_001)
    reasons = skipped_in(tmp_path)
    assert reasons.pop("c.html") == "a page of more than 100,000 tags"
    assert reasons == {"a.html": "no main text was found in the page"}
    assert capfd.readouterr() == ("", "")


# --- rows -------------------------------------------------------------------------------------------------------------

EXCEL = 'Name;Text\r\nKaja;"Die ""Möwe""; am Steg,\r\nim Nebel"\r\nBo;Früh\r\n'


def test_tables_as_excel_saves_them(tmp_path: Path) -> None:
    (tmp_path / "utf8.csv").write_bytes(EXCEL.encode("utf-8-sig"))
    (tmp_path / "unicode.csv").write_bytes(EXCEL.replace(";", "\t").encode("utf-16"))
    (tmp_path / "windows.csv").write_bytes(EXCEL.encode("cp1252"))
    expected = ['Die "Möwe"; am Steg,\r\nim Nebel', "Früh"]
    assert texts(tmp_path / "utf8.csv") == expected
    assert texts(tmp_path / "unicode.csv") == [expected[0].replace("; ", "\t "), expected[1]]
    assert texts(tmp_path / "windows.csv", encoding="cp1252") == expected
    with pytest.raises(ValueError, match=r"csv': not utf-8 text: line 2, .*encoding='cp1252' is that of Windows"):
        list(read_documents(tmp_path / "windows.csv"))
    assert [d.source.rpartition("#")[2] for d in read_documents(tmp_path / "utf8.csv")] == ["1", "3"]  # lines, from 0


@pytest.mark.parametrize(
    ("rows", "key", "told"),
    [
        ([{"text": "a", "n": 1}], "text", False),
        ([{"id": "a long, long name", "Body": "b"}], "Body", True),
        ([{"title": "a long, long name", "content": "b", "article": "c"}], "content", True),
        ([{"id": 7, "said": "b"}], "said", True),  # the only one
        ([{"id": "x1", "said": "more words"}, {"id": "x2", "said": ""}], "said", True),  # the longest
        ([{"said": "b"}], "said", False),  # there is no other
        ([{"text": None, "raw_content": "b"}], "raw_content", True),
    ],
)
def test_the_column_with_the_text_is_guessed_and_said(
    tmp_path: Path, rows: list[dict[str, object]], key: str, told: bool
) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "b.json"):
        notes: list[str] = []
        assert texts(tmp_path / name, tell=notes.append) == [row[key] for row in rows]
        assert [f"taken from {key!r}; --text-key names another" in note for note in notes] == [True] * told


def test_what_is_told_of_many_files_is_told_once_and_an_unusual_name_is_no_text_in_a_folder(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.csv").write_text(f"Id,Body\n{i},words {i}\n")
        (tmp_path / f"{i}.json").write_text(json.dumps({"name": "a package", "version": "1"}))
    notes: list[str] = []
    assert texts(tmp_path, tell=notes.append) == [f"words {i}" for i in range(3)] and len(notes) == 1
    reason = "no column of text has a usual name, and --text-key can name it: 'name', 'version'"
    assert skipped_in(tmp_path) == {f"{i}.json": reason for i in range(3)}
    assert texts(tmp_path / "0.json", tell=notes.append) == ["a package"]
    assert texts(tmp_path, text_key="name", tell=notes.append) == ["a package"] * 3


def test_a_bad_row_is_an_error_by_line_and_skipped_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,n\none,1\n"two,2\nthree,3,3\nfour,4\n')
    (tmp_path / "b.tsv").write_text("text\tn\none\t1\ntwo\n")
    for name, line in (("a.csv", 3), ("b.tsv", 3)):
        with pytest.raises(ValueError, match=f"{name}': line {line}: "):
            list(read_documents(tmp_path / name))
    assert texts(tmp_path) == ["one", "four", "one"]
    assert list(skipped_in(tmp_path)) == ["a.csv#2", "a.csv#3", "b.tsv#2"]
    (tmp_path / "c.jsonl").write_text("{\n")
    assert skipped_in(tmp_path)["c.jsonl"] == "no row of it can be read"


@pytest.mark.parametrize(("chars", "n"), [(1, 100), (500_000, 3), (600_000, 2)])
def test_the_column_is_guessed_from_few_rows(chars: int, n: int) -> None:
    assert len(list(first_rows((i, {"text": "x" * chars, "n": i}) for i in range(200)))) == n


WRITABLE = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


@given(st.lists(WRITABLE, min_size=1, max_size=5))
def test_a_csv_gives_the_texts_that_were_written(values: list[str]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["n", "text"], *([i, value] for i, value in enumerate(values))])
    file = File("a.csv", lambda: io.BytesIO(stream.getvalue().encode()))
    assert [document.text for document in read_rows(file, Reading())] == values


def test_a_field_longer_than_csv_allows_and_a_large_table_in_bounded_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt", compresslevel=1, newline="") as file:
        file.write("text,n\n" + "long " * 100_000 + ",0\n")
        for i in range(30_000):
            file.write(f'"A row, and its words {i}, in a table of many megabytes. {"More of it. " * 40}",{i}\n')
    tracemalloc.start()
    lengths = [len(document.text) for document in read_documents(tmp_path / "a.csv.gz")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(lengths) == 30_001 and lengths[0] == 500_000
    assert peak < 9_000_000  # of 16 MB: a field of half a million, and a sample of rows
    assert "over 131,072 characters" in str(read_table(tmp_path / "a.csv.gz").records[0][1])  # as ever


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_row_by_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="reads Parquet: the extra `data`")
    parquet = importlib.import_module("pyarrow.parquet")

    table = pa.table({
        "url": [f"http://{i}" for i in range(1000)],
        "text": [None if i == 3 else f"page {i}" for i in range(1000)],
        "tokens": [[i] for i in range(1000)],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    documents = list(read_documents(tmp_path))
    assert [d.text for d in documents[:5]] == ["page 0", "page 1", "page 2", "", "page 4"] and len(documents) == 1000
    assert documents[999].source.endswith("a.parquet#999")
    notes: list[str] = []
    said = table["text"].cast("large_string").dictionary_encode()
    unusual = pa.table({"url": table["url"], "said": said, "tokens": table["tokens"]})
    parquet.write_table(unusual, tmp_path / "b.parquet")
    assert texts(tmp_path / "b.parquet", text_key="said")[999] == "page 999"
    assert texts(tmp_path / "b.parquet", tell=notes.append)[0] == "http://0" and "'url'" in notes[0]  # the longer
    with pytest.raises(ValueError, match=r"the column 'tokens' holds list<.*>, not text"):
        list(read_documents(tmp_path / "b.parquet", text_key="tokens"))
    with pytest.raises(ValueError, match="no row has a column 'x'; there are 'url', 'said', 'tokens'"):
        list(read_documents(tmp_path / "b.parquet", text_key="x"))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"b\.parquet': "):
        list(read_documents(tmp_path / "b.parquet"))
    assert list(skipped_in(tmp_path)) == ["b.parquet"]
    parquet.write_table(table, tmp_path / "a.parquet", compression="none", write_page_checksum=True)
    data = (tmp_path / "a.parquet").read_bytes()
    assert len(texts(tmp_path / "a.parquet")) == 1000
    (tmp_path / "a.parquet").write_bytes(data.replace(b"page 77", b"page 78", 1))
    with pytest.raises(ValueError, match="CRC checksum"):
        list(read_documents(tmp_path / "a.parquet"))


def test_a_wrong_size_in_a_parquet_file_takes_no_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reads .parquet: the extra `data`")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": [f"page {i} " * 9 for i in range(300)]}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    column = parquet.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    for place in range(column.dictionary_page_offset, column.dictionary_page_offset + 12):  # the first page's header
        huge = data[:place] + b"\xff\xff\xff\x06" + data[place + 4 :]  # where a size has begun: 900 million
        (tmp_path / "a.parquet").write_bytes(huge)
        with pytest.raises(ValueError, match=r"a\.parquet"):
            list(read_documents(tmp_path / "a.parquet"))
    assert pyarrow.default_memory_pool().max_memory() < 200_000_000


def test_parquet_in_bounded_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="reads Parquet: the extra `data`")
    parquet = importlib.import_module("pyarrow.parquet")

    rng = random.Random(0)
    writer = None
    for _ in range(8):  # row groups of 5 MB
        batch = pa.table({"text": [rng.randbytes(2500).hex() for _ in range(1000)]})
        writer = writer or parquet.ParquetWriter(tmp_path / "a.parquet", batch.schema)
        writer.write_table(batch)
    writer.close()
    before = pa.default_memory_pool().max_memory()
    assert sum(map(len, texts(tmp_path / "a.parquet"))) == 40_000_000
    assert pa.default_memory_pool().max_memory() <= max(before, 30_000_000)


# --- compressed, in archives ------------------------------------------------------------------------------------------


def test_lines_of_a_crawl_in_zst(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="reads .zst: the extra `data`")
    rows = [{"url": f"http://x/{i}", "text": f"A page {i}.", "meta": {"lang": "en"}} for i in range(3000)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    frames = b"".join(zstandard.compress(data[at : at + 50_000]) for at in range(0, len(data), 50_000))
    for content in (zstandard.compress(data), frames):  # one frame, and as several workers write it
        (tmp_path / "crawl.jsonl.zst").write_bytes(content)
        assert texts(tmp_path / "crawl.jsonl.zst") == [row["text"] for row in rows]
    for cut in (1, 200):
        (tmp_path / "crawl.jsonl.zst").write_bytes(frames[:-cut])
        with pytest.raises(ValueError, match="damaged or cut-off compressed data"):
            list(read_documents(tmp_path / "crawl.jsonl.zst"))
    noise = bytes(np.random.default_rng(0).integers(1, 256, 5000, dtype=np.uint8))
    (tmp_path / "old.txt.zst").write_bytes(zstandard.compress(b"one\n\xff" + noise)[:-8])
    with pytest.raises(ValueError, match=r"old.txt.zst': not utf-8 text: byte 0xff"):  # and cut off, which is met later
        list(read_documents(tmp_path / "old.txt.zst"))
    (tmp_path / "crawl.jsonl.zst").write_bytes(b"not zstandard")
    with pytest.raises(ValueError, match=r"crawl\.jsonl\.zst': damaged or cut-off compressed data"):
        list(read_documents(tmp_path / "crawl.jsonl.zst"))


def test_a_zst_that_inflates_is_read_in_bounded_memory(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="reads .zst: the extra `data`")
    compressor = zstandard.ZstdCompressor().compressobj()
    with open(tmp_path / "a.c.zst", "wb") as file:
        for _ in range(60):
            file.write(compressor.compress(b"a\n" * 500_000))
        file.write(compressor.flush())
    assert (tmp_path / "a.c.zst").stat().st_size < 20_000
    tracemalloc.start()
    assert sum(len(document.text) for document in read_documents(tmp_path / "a.c.zst")) == 60_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def archive(path: Path, members: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_the_members_of_an_archive_are_files_of_their_own(tmp_path: Path) -> None:
    book = "*** START OF THE BOOK ***\r\n\r\n" + "It was a dark night in the harbour.\r\n\r\n" * 1000
    members: dict[str, bytes | str] = {
        "books/2.txt": book.replace("dark", "grey"),
        "books/1.txt": book,
        "books/cover.jpg": b"\xff\xd8\0",
        "books/old.txt": b"caf\xe9",
        "__MACOSX/books/._1.txt": b"\0",
        "__MACOSX/1.txt": b"of a Mac",
        ".git/1.txt": b"of git",
        "more.zip": b"PK",
        "rows.jsonl.gz": gzip.compress(b'{"text": "a row"}\n'),
    }
    file = archive(tmp_path / "books.zip", members)
    skipped: list[Dropped] = []
    documents = list(read_documents(file, skipped=skipped))
    name = file.as_posix()
    assert {d.source.split("#")[0] for d in documents} == {
        f"{name}!/books/1.txt", f"{name}!/books/2.txt", f"{name}!/rows.jsonl.gz"
    }  # fmt: skip
    assert "".join(d.text for d in documents if "1.txt" in d.source) == book
    assert [(s.source.removeprefix(f"{name}!/"), s.reason.split(" (")[0].split(":")[0]) for s in skipped] == [
        (".git/1.txt", "hidden file"),
        ("__MACOSX/1.txt", "hidden file"),
        ("__MACOSX/books/._1.txt", "hidden file"),
        ("books/cover.jpg", "extension '.jpg' is not one of text"),
        ("books/old.txt", "not utf-8 text"),
        ("more.zip", "an archive inside an archive"),
    ]
    assert list(read_documents(tmp_path)) == documents
    assert texts(archive(tmp_path / "l.zip", {"a.txt": b"caf\xe9"}), encoding="latin-1") == ["café"]
    with pytest.raises(ValueError, match=r"n\.zip': the archive holds no readable text: .*1 \.jpg skipped: extension"):
        list(read_documents(archive(tmp_path / "n.zip", {"a.jpg": b"x"})))


def test_archives_that_inflate_without_end_or_are_damaged(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.zip", {"a.txt": b"a fine text", "b.txt": b"b\n" * 40_000_000, "c.txt": b"more"})
    skipped: list[Dropped] = []
    documents = read_documents(bomb, skipped=skipped)
    assert next(documents).text == "a fine text"
    assert sum(len(document.text) for document in documents) <= 50_000_000
    assert [(s.source[-5:], s.reason[:40]) for s in skipped] == [
        (name, "its archive inflates to over 200 times i") for name in ("b.txt", "c.txt")
    ]
    data = archive(tmp_path / "d.zip", {"a.txt": b"one " * 1000, "b.txt": b"two"}).read_bytes()
    (tmp_path / "d.zip").write_bytes(data[:40] + b"\xff\xff\xff" + data[43:])
    skipped.clear()
    assert [d.text for d in read_documents(tmp_path / "d.zip", skipped=skipped)] == ["two"]
    assert "can't be read in its archive" in skipped[0].reason
    (tmp_path / "d.zip").write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"d\.zip': no archive, or a damaged one"):
        list(read_documents(tmp_path / "d.zip"))


def test_what_an_archive_may_inflate_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    one, more = (archive(tmp_path / f"{n}.zip", {"a.txt": b"a" * n}) for n in (1000, 1001))
    assert texts(more) == ["a" * 1001]  # of less than 200 times its size
    monkeypatch.setattr(archives, "MOST_TIMES", 0)
    assert texts(one) == ["a" * 1000]
    with pytest.raises(ValueError, match="its archive inflates to over"):
        list(read_documents(more))


# --- Markdown, names that say nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("---\ntitle: A lamp\ntags:\n  - one\n- two\n# why\n---\nA [link](x) <!-- c -->\n", "A [link](x) <!-- c -->\n"),
        ("---\r\ntitle: A lamp\r\n---\r\nText\r\n", "Text\r\n"),
        ('+++\ntitle = "A lamp"\n[extra]\n+++\nText', "Text"),
        ("---\nA scene: it was dark and nobody came.\nTwo lines.\n\n---\nText", None),
        ("---\n\n---\nText", None),
        ("Text\n---\na: b\n---\n", None),
        ("---\ntitle: never closed\nText", None),
        ("---\n" + "a: b\n" * 300 + "---\nText", None),
    ],
)
def test_front_matter_is_left_out_and_the_rest_of_markdown_kept(tmp_path: Path, text: str, kept: str | None) -> None:
    (tmp_path / "a.md").write_text(text, newline="")
    assert "".join(texts(tmp_path / "a.md")) == (text if kept is None else kept)
    (tmp_path / "a.txt").write_text(text, newline="")
    assert "".join(texts(tmp_path / "a.txt")) == text


def test_a_file_of_no_known_name_is_text_or_lines_of_json(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("some text")
    (tmp_path / "train").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "odd.log").write_text("{not json}\n")
    assert texts(tmp_path / "notes") == ["some text"] and texts(tmp_path / "train") == ["one", "two"]
    assert texts(tmp_path / "odd.log") == ["{not json}\n"]
    for name, remedy in {"a.pdf": "pdftotext", "a.docx": "pandoc", "a.ipynb": "jupyter", "a.tar.gz": "tar -xf"}.items():
        (tmp_path / name).write_bytes(gzip.compress(b"x") if name.endswith("gz") else b"{}")
        with pytest.raises(ValueError, match=rf"{name}': \.\w+ is no text: convert it first \({remedy}"):
            list(read_documents(tmp_path / name))


PACKAGES = [("trafilatura", "a.html"), ("pyarrow", "a.parquet"), ("zstandard", "a.txt.zst")]


@pytest.mark.parametrize(("package", "name"), PACKAGES)
def test_without_its_package_a_form_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("text")
    with pytest.raises(ValueError, match=rf"{name}': to read .* install minillm-from-scratch\[data\]\."):
        list(read_documents(tmp_path / name))
    assert "install minillm-from-scratch[data]" in skipped_in(tmp_path)[name] and texts(tmp_path) == ["text"]


def test_opening_leaves_no_file_open(tmp_path: Path) -> None:
    """A ResourceWarning would be an error."""
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    with open_text(File.of(tmp_path / "a.txt.gz"), "utf-8") as stream:
        assert stream.read() == "text"
    with pytest.raises(ValueError, match="no text encoding called 'utf-9'"):
        list(read_documents(tmp_path / "a.txt.gz", encoding="utf-9"))
    if os.path.isdir("/proc/self/fd"):
        there = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not any(path.startswith(str(tmp_path)) for path in there)


def test_documents_of_a_text_do_not_depend_on_how_it_is_packed(tmp_path: Path) -> None:
    text = "Some text.\n\n" * 5000
    (tmp_path / "a.txt").write_text(text)
    archive(tmp_path / "a.zip", {"a.txt": text})
    plain, zipped = list(read_documents(tmp_path / "a.txt")), list(read_documents(tmp_path / "a.zip"))
    assert [d.text for d in plain] == [d.text for d in zipped] and len(plain) == 4
    assert plain[1] == Document(plain[1].text, f"{(tmp_path / 'a.txt').as_posix()}#1")
