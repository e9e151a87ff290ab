"""A Wikipedia dump: the articles of a pages-articles.xml.bz2 (dumps.wikimedia.org), as plain text, one at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, Any
from xml.parsers import expat

from tqdm import tqdm

from .documents import MAX_DOCUMENT_CHARS, Document, cut_document, on_standard_error
from .opening import DAMAGED, MAX_CHARS, File, Unreadable, decompressed, why_unreadable
from .wikitext import plain_text

BLOCK = 1 << 16  # bytes of XML at a time
DEPTH = 20  # of XML elements in each other
WANTED = frozenset({"title", "ns", "text", "namespace"})  # elements whose text is read
UNSEEN_KEYS = ("-2", "6", "14")  # the namespaces of media, files and categories, whose names depend on the language


@dataclass
class Page:
    """A page of a dump as it stands there; of several revisions the last."""

    title: str = ""
    namespace: str = "0"
    text: str = ""
    redirects: bool = False


@dataclass
class DumpParser:
    """Takes XML block by block; whole pages come out of `pages`, names of namespaces without text of `unseen`. An XML
    that declares types or entities is no dump: small ones expand to gigabytes. Raises Unreadable."""

    pages: list[Page] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    path: list[str] = field(default_factory=list)  # the elements that are open
    page: Page = field(default_factory=Page)
    content: list[str] = field(default_factory=list)  # of the innermost, if it is WANTED
    chars: int = 0
    key: str = ""  # of the namespace that is being named

    def __post_init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.add
        self.parser.StartDoctypeDeclHandler = self.refuse_types

    def feed(self, data: bytes) -> list[Page]:
        """The pages that end in the next bytes (none: the XML must be at its end)."""
        try:
            self.parser.Parse(data, not data)
        except expat.ExpatError as error:
            raise Unreadable(f"damaged or cut-off XML ({error})") from error
        pages, self.pages = self.pages, []
        return pages

    def refuse_types(self, *_: Any) -> None:
        raise Unreadable("it declares types or entities of its own, as no dump of Wikipedia does")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self.path and name != "mediawiki":
            raise Unreadable(f"no dump of Wikipedia: its first element is <{name[:40]}>, not <mediawiki>")
        if len(self.path) >= DEPTH:
            raise Unreadable(f"no dump of Wikipedia: more than {DEPTH} elements in each other")
        self.path.append(name)
        self.content, self.chars = [], 0
        if name == "page":
            self.page = Page()
        elif name == "redirect":
            self.page.redirects = True
        elif name == "namespace":
            self.key = attributes.get("key", "")

    def add(self, text: str) -> None:
        if self.path[-1] in WANTED:
            self.content.append(text)
            self.chars += len(text)
            if self.chars > MAX_CHARS:
                raise Unreadable(f"the page {self.page.title[:80]!r} is longer than {MAX_CHARS:,} characters")

    def end(self, name: str) -> None:
        self.path.pop()
        text, self.content = "".join(self.content), []
        if name == "title":
            self.page.title = text
        elif name == "ns":
            self.page.namespace = text.strip()
        elif name == "text":
            self.page.text = text
        elif name == "page":
            self.pages.append(self.page)
        elif name == "namespace" and self.key in UNSEEN_KEYS:
            self.unseen.add(text)


def wiki_documents(
    path: str | os.PathLike[str], *, tell: Callable[[str], None] = on_standard_error, progress: bool = False
) -> Iterator[Document]:
    """Yield the articles of a dump, an .xml that may be compressed: title, blank line, text without markup.

    Redirects, pages that are no articles (talk, files, categories, templates, ...) and articles of nothing but
    templates are left out; at the end it is told how many. progress: a bar, in bytes of the file. Raises
    FileNotFoundError, or ValueError for what is no dump, is damaged or cut off.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"there is no dump {os.fspath(path)!r} (looked from the current folder {os.getcwd()!r})."
        )
    file, left_out = File.of(path), Counter[str]()
    try:
        with (
            closing(file.raw()) as raw,
            closing(decompressed(raw, file.name)) as stream,
            tqdm(desc=file.name, total=os.path.getsize(path), unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for page, unseen in pages_of(stream):
                bar.update(raw.tell() - bar.n)
                reason = why_not(page)
                text = "" if reason else plain_text(page.text, unseen)
                if text:
                    document = Document(f"{page.title}\n\n{text}\n", f"{file.name}#{page.title}")
                    yield from cut_document(document, MAX_DOCUMENT_CHARS)
                else:
                    left_out[reason or "articles without text"] += 1
    except (ValueError, OSError, *DAMAGED) as error:
        raise ValueError(f"cannot read {file.name!r}: {why_unreadable(file, error)}.") from error
    if left_out:
        tell(f"note: {file.name}: left out {', '.join(f'{n:,} {reason}' for reason, n in left_out.most_common())}")


def pages_of(stream: IO[bytes]) -> Iterator[tuple[Page, set[str]]]:
    """Yield (page, names of namespaces whose links show no text)."""
    parser = DumpParser()
    while True:
        data = stream.read(BLOCK)
        for page in parser.feed(data):
            yield page, parser.unseen
        if not data:
            return


def why_not(page: Page) -> str:
    """What a page is that is no article; empty for one."""
    if page.namespace != "0":
        return "pages of other namespaces"
    return "redirects" if page.redirects or page.text[:9].upper() == "#REDIRECT" else ""
