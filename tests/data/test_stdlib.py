"""The standard library as a corpus: read as text, the same order every time, a clear message where it is missing."""

import codecs
import hashlib
import sys
from pathlib import Path

import pytest

from minillm.data.documents import Document, Dropped
from minillm.data.stdlib import (
    choose_sample,
    docstrings,
    documents_fingerprint,
    environment_documents,
    name_hash,
    python_files,
    sample_of,
    stdlib_documents,
)


def test_a_sample_of_the_sources() -> None:
    codecs.lookup("utf-8-sig")  # a codec is a module itself, loaded where it is first used
    before = set(sys.modules)
    documents = list(stdlib_documents(max_bytes=300_000))
    assert set(sys.modules) == before  # nothing was imported
    size = sum(len(d.text.encode()) for d in documents)
    assert 100_000 < size <= 310_000
    sources = [d.source for d in documents]
    assert sources == sorted(sources) and all(s.startswith("stdlib/") for s in sources)
    assert not any("/test/" in s or "_sysconfigdata" in s or "site-packages" in s for s in sources)
    smaller = {d.source for d in stdlib_documents(max_bytes=100_000)}
    assert smaller < set(sources)
    assert documents_fingerprint(documents) == documents_fingerprint(stdlib_documents(max_bytes=300_000))
    assert documents_fingerprint(documents) != documents_fingerprint(documents[::-1])


def test_a_fingerprint_is_of_the_lengths_and_texts() -> None:
    """Lengths too: what stands in two documents is not the same in one."""
    data = b"\x01" + 7 * b"\0" + b"a" + b"\x02" + 7 * b"\0" + "é".encode()
    documents = [Document("a", "x"), Document("é", "y")]
    assert documents_fingerprint(documents) == hashlib.sha256(data).hexdigest()[:16]
    assert documents_fingerprint([Document("aé", "x")]) != documents_fingerprint(documents)


def test_topics_are_english_text() -> None:
    topics = {d.source: d.text for d in stdlib_documents("topics")}
    assert len(topics) > 50 and "topics/assert" in topics
    assert "assert" in topics["topics/assert"] and "\\n" not in topics["topics/assert"]
    assert 0 < len(list(stdlib_documents("topics", max_bytes=20_000))) < len(topics)


def test_sources_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "b.py").write_text(
        '"""Module b."""\nclass C:\n    """A class."""\n    def f(self):\n        """Do."""\n'
    )
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "binary.py").write_bytes(b"\0\0\0\0")
    (tmp_path / "test" / "t.py").write_text("assert 1\n")
    (tmp_path / "pydoc_data" / "topics.py").write_text(
        "# made\nx = 1\ntopics = {'for': 'The for statement.', 'as': r'''As.'''}\nx: int = 2\n"
    )
    skipped: list[Dropped] = []
    assert [d.source for d in stdlib_documents(root=tmp_path, skipped=skipped)] == [
        "stdlib/a.py",
        "stdlib/b.py",
        "stdlib/broken.py",
    ]
    assert [s.source for s in skipped] == ["stdlib/binary.py"]
    assert "stdlib/test/t.py" in [d.source for d in stdlib_documents(root=tmp_path, include_tests=True)]
    (found,) = stdlib_documents("docstrings", root=tmp_path, skipped=skipped)
    assert found.source == "docstrings/b.py"
    assert found.text == "b\n\nModule b.\n\n\nb.C\n\nA class.\n\n\nb.C.f\n\nDo.\n"
    assert {s.source for s in skipped} == {"stdlib/binary.py", "docstrings/binary.py", "docstrings/broken.py"}
    assert [(d.source, d.text) for d in stdlib_documents("topics", root=tmp_path)] == [
        ("topics/as", "As."),
        ("topics/for", "The for statement."),
    ]


def test_a_sample_is_as_large_as_fits() -> None:
    first, second, third = sorted("abc", key=name_hash)
    sizes = {first: 5, second: 3, third: 2}
    found = {n: set(choose_sample(sizes, n)) for n in (1, 4, 5, 7, 8, 9, 10, 11)}
    assert found[1] == found[4] == found[5] == found[7] == {first}  # one at least
    assert found[8] == found[9] == {first, second} and found[10] == found[11] == set("abc")
    assert choose_sample(sizes, 10) == sorted(sizes) and choose_sample(sizes, None) == list(sizes)
    documents = [Document("é" * n, name) for name, n in sizes.items()]  # of two bytes each
    assert [d.source for d in sample_of(documents, 19)] == sorted([first, second])
    assert [d.source for d in sample_of(documents, 20)] == sorted(sizes)
    made = (document for document in documents)
    assert [d.source for d in sample_of(made, 5 * 2)] == [first] and [d.source for d in made] == [
        third
    ]  # none too many


def test_what_is_source_of_python(tmp_path: Path) -> None:
    wanted = ["a.py", "package/b.py", "testing.py"]
    others = ["c.txt", "_sysconfigdata_x.py", "sitecustomize.py", ".hidden/d.py", "config-3/e.py", "site-packages/f.py"]
    tests = ["package/tests/g.py", "test/h.py"]
    for name in [*wanted, *others, *tests, "pydoc_data/topics.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty.py").touch()
    assert list(python_files(tmp_path, include_tests=False)) == wanted
    assert list(python_files(tmp_path, include_tests=True)) == sorted(wanted + tests)


def test_missing_sources_are_explained(tmp_path: Path) -> None:
    for kind in ("source", "docstrings", "topics"):
        with pytest.raises(FileNotFoundError, match="installed without"):
            list(stdlib_documents(kind, root=tmp_path))
    (tmp_path / "one.py").write_text("x = 1\n")  # is enough in a folder of one's own
    assert [d.source for d in stdlib_documents(root=tmp_path)] == ["stdlib/one.py"]
    with pytest.raises(ValueError, match="not 'novels'"):
        list(stdlib_documents("novels"))
    with pytest.raises(ValueError, match="max_bytes must be at least 1"):
        list(stdlib_documents(max_bytes=0))


def test_the_environment_holds_installed_packages_too() -> None:
    sources = [d.source for d in environment_documents(max_bytes=2_000_000)]
    assert any(s.startswith("site-packages/") for s in sources)
    assert sources == sorted(sources)


def test_packages_are_read_where_they_would_be_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("lib", "first/site-packages", "second/dist-packages", "elsewhere")]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "same.py").write_text(f"x = {number}\n")
        (folder / f"only{number}.py").write_text("x = 9\n")
    monkeypatch.setattr("minillm.data.stdlib.sysconfig.get_paths", lambda: {"stdlib": str(folders[0])})
    monkeypatch.setattr(sys, "path", [str(folder) for folder in [*folders, tmp_path / "none" / "site-packages"]])
    assert {d.source: d.text[4] for d in environment_documents()} == {
        "site-packages/only1.py": "9",
        "site-packages/only2.py": "9",
        "site-packages/same.py": "1",
        "stdlib/only0.py": "9",
        "stdlib/same.py": "0",
    }


def test_docstrings_in_the_order_of_the_text() -> None:
    code = 'async def g():\n    "G \\d."\nclass A:\n    def f(self):\n        "F."\n    class B:\n        "B."\n'
    assert list(docstrings(code, "m")) == [("m.g", "G \\d."), ("m.A.f", "F."), ("m.A.B", "B.")]
    assert list(docstrings('"M."')) == [("", "M.")]
