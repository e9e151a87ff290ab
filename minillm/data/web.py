"""Web pages: the main text of an HTML file, without navigation, banners, scripts and comments.

What is main text is for the package trafilatura to say (Barbaresi 2021, aclanthology.org/2021.acl-demo.15). It is asked
for Markdown, so that headings, lists and paragraphs stay what they are.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from .documents import MAX_DOCUMENT_CHARS, Document, Reading, cut_document
from .opening import INSTALL, File, Unreadable, open_text, whole_text

MAX_PAGE_CHARS, MAX_TAGS = 10_000_000, 100_000  # of a page
SECOND_OPINION = 5_000  # tags up to which trafilatura asks other methods, too, whose time may grow by the square
CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^<>]{0,300}?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)


def read_page(file: File, reading: Reading) -> Iterator[Document]:
    """The document of a page, if there is text in it. Its encoding is the one that it names in its head."""
    try:
        import trafilatura
    except ImportError:
        raise Unreadable(f"to read HTML {INSTALL}") from None
    with open_text(file, charset_of(file) or reading.encoding) as stream:
        page = whole_text(stream, most=MAX_PAGE_CHARS)
    tags = page.count("<")
    if tags > MAX_TAGS:
        raise Unreadable(f"a page of more than {MAX_TAGS:,} tags")
    with quiet("trafilatura"):
        fast = tags > SECOND_OPINION
        text = trafilatura.extract(page, output_format="markdown", include_comments=False, fast=fast)
    if not text or not text.strip():
        raise Unreadable("no main text was found in the page")
    yield from cut_document(Document(text + "\n", file.name), MAX_DOCUMENT_CHARS)


def charset_of(file: File) -> str | None:
    """The encoding that a page names in its first kilobyte, if Python knows it."""
    with file.open() as stream:
        found = CHARSET.search(stream.read(1024))
    try:
        return codecs.lookup(found[1].decode()).name if found else None
    except LookupError:
        return None


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keep what a package logs of a page from the terminal: that there is no text is said here."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
