"""Wikipedia dumps: articles come out as text, the rest is counted; hostile XML and markup do no harm."""

import bz2
import gzip
import time
import tracemalloc
from pathlib import Path
from xml.sax.saxutils import escape

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minillm.data import read_documents, wiki_documents
from minillm.data.wikitext import plain_text

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo><sitename>Wikipedia</sitename><namespaces>
    <namespace key="0" case="first-letter" />
    <namespace key="1" case="first-letter">Diskussion</namespace>
    <namespace key="6" case="first-letter">Datei</namespace>
    <namespace key="14" case="first-letter">Kategorie</namespace>
  </namespaces></siteinfo>
"""


def page(title: str, text: str, namespace: int = 0, redirect: str = "", earlier: str = "") -> str:
    revision = "<revision><contributor><username>Ann</username></contributor><text>{}</text></revision>"
    target = f'<redirect title="{redirect}" />' if redirect else ""
    revisions = "".join(revision.format(escape(t)) for t in (earlier, text) if t)
    return f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>1</id>{target}{revisions}</page>\n"


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + "</mediawiki>\n").encode()


PAGES = (
    page("Boot", "Ein '''Boot''' ist.{{x}}\n[[Datei:B.jpg|mini|Ein [[Boot]].]]\n[[Kategorie:Boote]]", earlier="alt"),
    page("Kahn", "#WEITERLEITUNG [[Boot]]", redirect="Boot"),
    page("Skiff", "#redirect [[Boot]]"),
    page("Diskussion:Boot", "Nein.", namespace=1),
    page("Leer", "{{nichts}}"),
    page("AT&T <b>", "Über A & B, 1 < 2, [[Diskussion:Boot|Boote]]."),
)


@pytest.mark.parametrize("ending", ["xml.bz2", "xml", "xml.gz"])
def test_articles_come_out_and_the_rest_is_counted(tmp_path: Path, ending: str) -> None:
    pack = {"bz2": bz2.compress, "gz": gzip.compress}.get(ending.rpartition(".")[2], bytes)
    file = tmp_path / f"dewiki.{ending}"
    file.write_bytes(pack(dump(*PAGES[:3])[: -len("</mediawiki>\n")]) + pack(dump(*PAGES[3:])[len(HEAD.encode()) :]))
    told: list[str] = []
    documents = list(wiki_documents(file, tell=told.append))
    assert [(d.text, d.source) for d in documents] == [
        ("Boot\n\nEin Boot ist.\n", f"{file.as_posix()}#Boot"),
        ("AT&T <b>\n\nÜber A & B, 1 < 2, Boote.\n", f"{file.as_posix()}#AT&T <b>"),
    ]
    counts = "2 redirects, 1 pages of other namespaces, 1 articles without text"
    assert told == [f"note: {file.as_posix()}: left out {counts}"]
    with pytest.raises(ValueError, match="it is a Wikipedia dump: put wiki: before its name"):
        list(read_documents(file))


@pytest.mark.parametrize("progress", [False, True])
def test_a_bar_is_shown_where_it_is_asked_for(tmp_path: Path, progress: bool, capfd: pytest.CaptureFixture) -> None:
    (tmp_path / "dewiki.xml").write_bytes(dump(*PAGES))
    assert len(list(wiki_documents(tmp_path / "dewiki.xml", tell=str, progress=progress))) == 2
    assert ("dewiki.xml" in capfd.readouterr().err) == progress


BOMB = '<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + HEAD + "<page><title>&b;</title></page>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "it declares types or entities of its own"),
        (b'<!DOCTYPE m SYSTEM "file:///etc/passwd">' + dump(), "it declares types or entities of its own"),
        (b"<html><body/></html>", "its first element is <html>, not <mediawiki>"),
        (b"<mediawiki>" + b"<a>" * 100, "more than 20 elements in each other"),
        (b"plain text", "damaged or cut-off XML"),
        (b"", "damaged or cut-off XML"),
        (dump(*PAGES)[:-20], "damaged or cut-off XML"),
        (b"\0\1", "damaged or cut-off XML"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.xml': .*{message}"):
        list(wiki_documents(tmp_path / "a.xml"))
    with pytest.raises(FileNotFoundError, match="there is no dump"):
        list(wiki_documents(tmp_path / "b.xml"))


def test_a_cut_off_dump_is_an_error_and_a_page_without_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bz2.compress(dump(*PAGES * 500))
    (tmp_path / "a.xml.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.xml\.bz2': damaged or cut-off"):
        list(wiki_documents(tmp_path / "a.xml.bz2"))
    monkeypatch.setattr("minillm.data.wiki.MAX_CHARS", 1000)
    (tmp_path / "a.xml").write_bytes(dump(page("Lang", "a" * 1001)))
    with pytest.raises(ValueError, match="the page 'Lang' is longer than 1,000 characters"):
        list(wiki_documents(tmp_path / "a.xml"))


def test_a_large_dump_is_read_in_bounded_memory(tmp_path: Path) -> None:
    text = "Das '''Boot''' [[Nummer|Nr.]] {}. " + "Es schwimmt. " * 400
    with bz2.open(tmp_path / "a.xml.bz2", "wt", compresslevel=1) as file:
        file.writelines([HEAD, *(page(f"Boot {i}", text.format(i)) for i in range(1000)), "</mediawiki>"])
    tracemalloc.start()
    n = sum(len(document.text) for document in wiki_documents(tmp_path / "a.xml.bz2"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n > 5_000_000 and peak < 2_000_000


# --- wikitext ---------------------------------------------------------------------------------------------------------


MARKUP = [
    ("'''Bold''' and ''italic'' and '''''both'''''", "Bold and italic and both"),
    ("a {{t|b={{u|[[c]]}}|d}}e {{{p|q}}}f", "a e f"),
    ("{{Box\n| a = b\n|}}\nText", "Text"),
    ("[[Boat]]s, [[Boat|a boat]], [[:Category:Boats|boats]], [[:Boat]]", "Boats, a boat, boats, Boat"),
    ("x [[File:a.jpg|thumb|A [[boat]], [http://x y]]] y [[Category:Boats]][[Image:b.png]]", "x y"),
    ("[[de:Boot]]Text[[zh-min-nan:Boot]]", "Text"),
    ("See [https://example.org the page], [//x.org y z] and http://x.org.", "See the page, y z and http://x.org."),
    ('A<ref name="x">{{cite|[[b]]}}</ref> b<ref name=x /> c<REF>d</REF >.', "A b c."),
    ("a<!-- {{ [[ -->b<!-- c", "ab c"),
    ("<math>x^{{2}} < y_{[[1]]}</math>, H<sub>2</sub>O, <nowiki>[[a]]</nowiki>.", "x^{{2}} < y_{[[1]]}, H2O, [[a]]."),
    ("Code:\n<syntaxhighlight>\n# ''one''\nx = {{}}\n</syntaxhighlight>", "Code:\n\n# ''one''\nx = {{}}"),
    ("a<br/>b<gallery>\nFile:x|y\n</gallery>c<x>d</x> 1<2", "a\nbc<x>d</x> 1<2"),
    ("a\n{|\n! b\n|-\n| c\n{| class=x\n| d\n|}\n|}\ne", "a\n\ne"),
    ("== A ==\n== B ==\n=== C ===\nText.\n=== D ===\n{{x}}\n== E ==\n* {{y}}", "B\n\nC\n\nText."),
    ("Text.\n== A == \nMore.", "Text.\n\nA\n\nMore."),
    ("* one\n** two\n# three\n: four\n; five\n*\n----", "- one\n- two\n- three\nfour\nfive"),
    ("Berlin ({{IPA|b}}; {{x}}) is&nbsp;a &lt;b&gt; &amp;amp; &#8211; &#x41; &no;", "Berlin is a <b> &amp; – A &no;"),
    ("__NOTOC__a -{zh-hans:计算机;zh-hant:計算機}- -{H|zh-cn:a}- -{b}-", "a 计算机 b"),
    ("An [[open link and {{an open template are text.", "An open link and an open template are text."),
    ("A closing ]] and }} alone", "A closing and alone"),
    ("Mixed [[a {{b]] c}} d", "Mixed a b c d"),
    ("| a row of a broken table\nText", "Text"),
]


@pytest.mark.parametrize(("markup", "text"), MARKUP)
def test_markup(markup: str, text: str) -> None:
    assert plain_text(markup) == text


MARKS = [
    "{{", "}}", "[[", "]]", "{|\n", "\n|}", "|", "<!--", "-->", "<ref>", "</ref>", "<math>", "</math>", "<br>", "'''",
    "==", "\n", " ", "a", "File:", "[http://", "]", "-{", "}-", "&amp;", "&#", "*", "{", "<", "\0", "é",
]  # fmt: skip


@given(st.lists(st.sampled_from(MARKS), max_size=60) | st.lists(st.text(max_size=3), max_size=20))
def test_any_text_is_read_and_what_is_no_markup_stays(parts: list[str]) -> None:
    text = plain_text("".join(parts))
    assert "\n\n\n" not in text and text == text.strip("\n")


@given(st.text(alphabet="abc .,!?\u00e9船", max_size=80))
def test_prose_stays_as_it_is(text: str) -> None:
    assert plain_text(text).split() == text.split()


REPEATED = [
    "[[",
    "]]",
    "{|\n",
    "\n|}",
    "<!--",
    "<ref>",
    "[[a|",
    "{{a",
    "}}a",
    "<a ",
    "[//",
    "== ",
    "( ",
    "[[a]]",
    "&#1",
]


@pytest.mark.parametrize("mark", REPEATED)
def test_time_is_linear(mark: str) -> None:
    """Four times the text: four times the time, or so short that it can't be told."""
    began = time.perf_counter()
    plain_text(mark * (60_000 // len(mark)))
    quarter = time.perf_counter() - began
    plain_text(mark * (240_000 // len(mark)))
    whole = time.perf_counter() - began - quarter
    assert whole < 1.0 or whole < 8 * quarter, (quarter, whole)


@pytest.mark.parametrize("mark", ["{{", "[[", "{{a|", "[[a "])
def test_a_megabyte_of_what_is_never_closed(mark: str) -> None:
    began = time.perf_counter()
    plain_text(mark * (1_000_000 // len(mark)))
    assert time.perf_counter() - began < 30


def test_time_is_linear_in_nested_links() -> None:
    began = time.perf_counter()
    plain_text("[[a|" * 50_000 + "b" * 100_000 + "]]" * 50_000)
    assert time.perf_counter() - began < 30
