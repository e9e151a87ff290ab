"""Wikitext: the markup of Wikipedia as plain text (mediawiki.org/wiki/Help:Formatting).

One walk over the text. What can stand inside itself (templates, tables, links) lies on a stack until it is closed; what
is never closed is taken for text. Depth is bounded, so that the time is linear whatever the text is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

DEPTH = 40  # of templates, tables and links in each other: as deep as MediaWiki expands templates
# Links to these show a picture, or belong to the page and not to its text; a dump names them in its language, too.
UNSEEN = frozenset({"file", "image", "media", "category"})
GONE = """ref references gallery timeline score imagemap table graph chart mapframe maplink hiero templatestyles
templatedata indicator style script"""  # tags that go with what they enclose
AS_IT_IS = "nowiki pre math chem ce code source syntaxhighlight"  # what they enclose is no markup
TAGS = frozenset(re.findall(r"\w+", f"""{GONE} {AS_IT_IS} abbr b bdi bdo big blockquote br center cite dd del dfn div dl
dt em font h1 h2 h3 h4 h5 h6 hr i includeonly ins kbd li mark noinclude ol onlyinclude p poem q rp rt ruby s samp
section small span strike strong sub sup td th tr tt u ul var wbr"""))  # fmt: skip
ENCLOSING = frozenset(re.findall(r"\w+", GONE + " " + AS_IT_IS))
BREAKS = frozenset({"br", "p", "div", "li", "dd", "dt", "tr", "blockquote", "hr", "poem"})
TOKEN = re.compile(  # each kind begins with one of a few characters, for which regular expressions look fast
    r"<!--|<(?P<end>/?)(?P<tag>[a-zA-Z]+[1-6]?)\b(?P<attributes>[^<>]*)>|\{{2,}|\}{2,}|\[\[|\]{2,}|"
    r"\n[ \t:*#]*\{\|(?!\|)|\n[ \t]*\|\}(?!\})"
)
EXTERNAL = re.compile(r"\[((?:https?://|ftp://|//|mailto:)[^\[\]\n]*)\]")
VARIANTS = re.compile(r"-\{([^{}]*)\}-")  # -{zh-hans:计算机;zh-hant:計算機}-
LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*:\S")  # [[de:Boot]], a link to another language's page
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
MARKS = re.compile(r"'{2,}|__[A-Z]+__")  # bold, italics; __NOTOC__
HEADING = re.compile(r"(={1,6})(.+?)\1[ \t]*$")
LIST = re.compile(r"([*#:;]+)[ \t]*")
EMPTY = re.compile(r" ?\([\s,;]{0,20}\)")  # (; ), where a template stood in parentheses
SPACES = re.compile(r"[ \t\xa0]+")
VERBATIM = "\0"  # before a line that is no markup; no dump has this character


@dataclass
class Open:
    """What was opened and not yet closed, and where it begins among the pieces of text."""

    kind: str  # "{{", "[[" or "{|"
    start: int


@dataclass
class Walk:
    """The pieces of text so far, and what is open."""

    unseen: frozenset[str]
    pieces: list[str] = field(default_factory=list)
    stack: list[Open] = field(default_factory=list)

    def open(self, kind: str) -> None:
        if len(self.stack) < DEPTH:
            self.stack.append(Open(kind, len(self.pieces)))

    def close(self, kind: str) -> None:
        """Close the innermost of its kind; what was opened inside of it, and not closed, is text."""
        if not any(one.kind == kind for one in self.stack):
            return
        while (last := self.stack.pop()).kind != kind:
            pass
        inside = self.pieces[last.start :]
        del self.pieces[last.start :]
        if kind != "{{":
            self.pieces.append(shown("".join(inside), self.unseen) if kind == "[[" else "\n")


def plain_text(wikitext: str, unseen: Iterable[str] = ()) -> str:
    """The text of a page: without templates, tables, references, comments, pictures and categories; of links what is
    shown; headings, if something stands below them, on lines of their own. `unseen` are further names of UNSEEN.

    >>> plain_text("A '''boat''' {{IPA|x}}is a [[Vessel|small vessel]]s' sister.<ref>No.</ref>")
    "A boat is a small vessels' sister."
    """
    walk = Walk(UNSEEN | {name.casefold() for name in unseen})
    wikitext, at, never_closed = f"\n{wikitext}", 0, set[str]()  # a table begins on a line of its own
    while (token := TOKEN.search(wikitext, at)) is not None:
        walk.pieces.append(wikitext[at : token.start()])
        at = token.end()
        mark = token[0].lstrip("\n \t:*#")
        if mark == "<!--":
            at = end_of("-->", wikitext, at, never_closed)[1]
        elif mark.startswith("<"):
            at = pass_tag(token, wikitext, walk, never_closed)
        elif mark.startswith(("{{", "}}")):  # three are a parameter, four two templates
            for _ in range(min(len(mark) // 2, DEPTH)):
                walk.open("{{") if mark[0] == "{" else walk.close("{{")
        elif mark in ("[[", "{|"):
            walk.open(mark)
        elif mark == "|}":
            walk.close("{|")
        else:
            walk.pieces.append("]" * (len(mark) % 2))  # of [http://...] at the end of a link
            for _ in range(min(len(mark) // 2, DEPTH)):
                walk.close("[[")
    walk.pieces.append(wikitext[at:])
    return "\n".join(lines_of_text("".join(walk.pieces)))


def pass_tag(token: re.Match[str], text: str, walk: Walk, never_closed: set[str]) -> int:
    """Take what a tag leaves of itself, and of what it encloses where that is no markup; return where to go on."""
    name, at = token["tag"].lower(), token.end()
    if name not in TAGS:
        walk.pieces.append(token[0])
    elif name in BREAKS:
        walk.pieces.append("\n")
    elif name in ENCLOSING and not token["end"] and not token["attributes"].endswith("/"):
        stop, at_end = end_of(rf"</{name}\s*>", text, at, never_closed)
        if name in AS_IT_IS.split():
            between = f"\n{VERBATIM}" if "\n" in text[at:stop].strip() else "\n"
            walk.pieces.append(text[at:stop].replace("\n", between))
        return at_end
    return at


def end_of(closing: str, text: str, at: int, never_closed: set[str]) -> tuple[int, int]:
    """Where the next `closing` begins and ends; `at` itself where there is none, which is looked for only once."""
    found = None if closing in never_closed else re.compile(closing, re.I).search(text, at)
    if found is None:
        never_closed.add(closing)
        return at, at
    return found.span()


def shown(link: str, unseen: frozenset[str]) -> str:
    """What a reader sees of the inside of [[...]]."""
    target, _, rest = link.partition("|")
    namespace, colon, _ = target.partition(":")
    if colon and (namespace.strip().casefold() in unseen or (not rest and LANGUAGE.match(target))):
        return ""
    return rest.rpartition("|")[2] or target.lstrip(":")


def lines_of_text(text: str) -> Iterator[str]:
    """The lines without what is left of markup; no two blank ones, and no heading without text below it."""
    headings: list[tuple[int, str]] = []  # (level, title), below which nothing stood so far
    begun = blank = False
    for line in text.split("\n"):
        line = without_marks(line)
        if (heading := HEADING.fullmatch(line)) is not None:
            level, blank = len(heading[1]), True
            headings = [(above, title) for above, title in headings if above < level]
            headings.append((level, heading[2].strip()))
        elif not line:
            blank = True
        else:
            for _, title in headings:
                yield from ["", title] if begun else [title]
                begun = blank = True
            headings = []
            yield from ["", line] if blank and begun else [line]
            begun, blank = True, False


def without_marks(line: str) -> str:
    """A line as it is read: no bold, no bullets but dashes, no addresses of links, no rows of broken tables."""
    if VERBATIM in line:
        return line.replace(VERBATIM, "").rstrip()
    for sign, pattern, instead in REST:
        if sign in line:  # which is much faster to see
            line = pattern.sub(instead, line)
    line = line.strip()
    if line.startswith("|") or not line.strip("-"):
        return ""
    if (marker := LIST.match(line)) is None:
        return line
    rest = line[marker.end() :]
    return f"- {rest}" if rest and marker[1][-1] in "*#" else rest


def label_of(external: re.Match[str]) -> str:
    """[https://x label] -> label"""
    return "".join(external[1].split(None, 1)[1:])


def first_variant(variants: re.Match[str]) -> str:
    """-{zh-hans:计算机;zh-hant:計算機}- -> 计算机; -{H|...}-, a rule for other places -> nothing"""
    flags, bar, rest = variants[1].partition("|")
    if bar and "H" in flags:
        return ""
    first = (rest if bar else flags).split(";")[0]
    return first.partition(":")[2] or first


def character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


REST: tuple[tuple[str, re.Pattern[str], Any], ...] = (  # (what a line with it holds, what goes, what takes its place)
    ("[", EXTERNAL, label_of),
    ("-{", VARIANTS, first_variant),
    ("''", MARKS, ""),
    ("__", MARKS, ""),
    ("(", EMPTY, ""),
    ("&", ENTITY, character),
    ("\xa0", SPACES, " "),
    ("  ", SPACES, " "),
    ("\t", SPACES, " "),
)
