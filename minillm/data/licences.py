"""Licence headers: the comment at the top of a file that says whose it is and what one may do with it.

Text about licences is content, and so is the rest of a comment that has a notice in it. So a line is taken only if

    it stands in a comment above the first line of code (a `#!` line, a docstring and other comments may come before);
    that comment has a notice ("Copyright (c) 2031", "SPDX-License-Identifier:", "All rights reserved") or a grant
        ("Licensed under the ... licence", "Permission is hereby granted", "Redistribution and use in source ...");
    and a notice, a grant or another known phrase of licences is in it, or it ends a sentence that began so.

`#include "copyright.h"`, "# Copyright law in Europe" and "## License" are none of these.
"""

from __future__ import annotations

import bisect
import itertools
import re

HEAD_CHARS = 40_000  # of a text, in which a header must end

# The shortest phrases, of which one must stand in the head. (To look for them takes longest, so it comes last.)
_HINT = re.compile(
    r"copyright|licen[sc]|\(c\)|©|spdx|reserved|redistrib|public domain|permission|版权|著作权|许可", re.I
)
_NOTICE = re.compile(
    r"copyright[\s:,]*(?:\(c\)|©|&copy;|\d{4})|(?:\(c\)|©)[\s:,]*(?:copyright|\d{4})|all rights reserved"
    r"|spdx-(?:license-identifier|filecopyrighttext)\s*:|版权所有|著作权所有|保留所有权利",
    re.IGNORECASE,
)
_A_YEAR_ONLY = re.compile(r"copyright[\s:,]*\d{4}(?!.*(?:\(c\)|©|all rights reserved)).*", re.IGNORECASE)
_GRANT = re.compile(
    r"(?:licensed|released|(?:re)?distributed|published|provided|governed|used) (?:to you )?(?:under|by)\b.{0,90}?"
    r"(?:licen[sc]e|\bterms\b|\b[al]?gpl|\bmit\b|\bbsd\b|\bapache\b|\bmpl\b|\bcc0|\bcc[ -]by|\bisc\b)"
    r"|licensed to the apache|permission is hereby granted|permission to use, copy|redistribution and use in source"
    r"|is free software[:;,]|(?:released|placed|is) (?:in|into) the public domain"
    r"|under the terms of the .{0,60}licen[sc]e|(?:根据|依据|采用|遵循).{0,40}许可",
    re.IGNORECASE,
)
_PHRASE = re.compile(  # of the texts of licences: these alone make no header
    r"above copyright notice|this permission notice|neither the names? of|warrant(?:y|ies)\b|in no event shall"
    r"|[\"“'‘`]as is|you may (?:not use|obtain)|you should have received"
    r"|gnu (?:lesser |library |affero )?general public"
    r"|licen[sc]e|unless required by applicable law|redistribut|following conditions|\bliab(?:le|ility)\b|许可",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!:。：][\s\"”')\]]*$")
_GOES_ON = re.compile(r",\s*$")  # a list of years that goes on in the next line

_DIRECTIVE = re.compile(  # of C and C#: no comment, though it begins with #
    r"#(?:include|import|define|undef|if|ifn?def|elif|else|endif|pragma|error|warning|line|region|endregion)\b"
    r"|#\s+(?:include\s*[<\"]|define\s+\w+[\s(]|pragma\s|ifn?def\s|endif\b)"
)
_LINE_COMMENT = re.compile(r"#(?!!)|//|--(?![->])|;|%")
_BLOCKS = {"/*": "*/", "<!--": "-->", "(*": "*)", "{-": "-}"}
_DRAWN = " \t*/#;%!-=~"  # what comments are drawn with
_DOCSTRING = re.compile(r"[rRuU]?(\"\"\"|''')")
_PASSED_OVER = re.compile(r"#!|<\?|<!doctype\b", re.IGNORECASE)


def cut_headers(text: str) -> tuple[str, list[str]]:
    """(text without the licence headers at its top, what was taken of each comment)."""
    head = text if len(text) <= HEAD_CHARS else text[: text.rfind("\n", 0, HEAD_CHARS) + 1]
    lines = head.split("\n")
    kept: list[str] = []
    taken: list[str] = []
    i = 0
    while i < len(lines):
        end, is_comment = next_piece(lines, i)
        if end == i:  # code begins
            break
        rest, header = split_comment(lines[i:end]) if is_comment else (lines[i:end], "")
        kept += rest
        if header:
            taken.append(header)
        i = end
    if not taken or _HINT.search(text, 0, HEAD_CHARS) is None:
        return text, []
    return "\n".join(kept + lines[i:]) + text[len(head) :], taken


def next_piece(lines: list[str], start: int) -> tuple[int, bool]:
    """(index after the comment, docstring or blank line at lines[start], whether it is a comment); (start, False) where
    code or prose stands there."""
    line = lines[start].lstrip()
    if not line or _PASSED_OVER.match(line):
        return start + 1, False
    docstring = _DOCSTRING.match(line)
    if docstring:
        return end_of_block(lines, start, line[docstring.end() :], docstring[1]), False
    for opening, closing in _BLOCKS.items():
        if line.startswith(opening):
            return end_of_block(lines, start, line[len(opening) :], closing), True
    mark = _LINE_COMMENT.match(line)
    end = start
    while mark and end < len(lines) and is_line_comment(lines[end].lstrip(), mark[0]):
        end += 1
    return end, end > start


def is_line_comment(line: str, mark: str) -> bool:
    return line.startswith(mark) and not _PASSED_OVER.match(line) and not _DIRECTIVE.match(line)


def end_of_block(lines: list[str], start: int, first: str, closing: str) -> int:
    """The index after the line that ends with `closing`; `start` where something follows it, or there is none."""
    for i in range(start, len(lines)):
        line = first if i == start else lines[i]
        if closing in line:
            return i + 1 if line.index(closing) + len(closing) == len(line.rstrip()) else start
    return start


def split_comment(lines: list[str]) -> tuple[list[str], str]:
    """(what stays of a comment, what is taken of it as a licence header)."""
    words = [words_of(line) for line in lines]
    is_taken = licence_lines(words, is_heading=len(lines) == 1 and lines[0].lstrip().startswith("#"))
    if not any(is_taken):
        return lines, ""
    header = "\n".join(line for line, taken in zip(lines, is_taken) if taken)
    if not any(has_words(word) for word, taken in zip(words, is_taken) if not taken):
        return [], "\n".join(lines)
    opening, closing = ends_of(lines)
    inner = [line for i, line in enumerate(lines) if not is_taken[i]]
    if opening and is_taken[0]:
        inner.insert(0, opening)
    if closing and is_taken[-1]:
        inner.append(closing)
    return without_gaps(inner, bool(opening)), header


def ends_of(lines: list[str]) -> tuple[str, str]:
    """What opens and what closes a comment of /* ... */ or its like; empty for a run of line comments."""
    first = lines[0].lstrip()
    opening = next((mark for mark in _BLOCKS if first.startswith(mark)), "")
    if not opening:
        return "", ""
    return lines[0][: len(lines[0]) - len(first)] + opening, (" " if opening == "/*" else "") + _BLOCKS[opening]


def without_gaps(lines: list[str], is_block: bool) -> list[str]:
    """A comment's lines without the empty ones at its ends and those that follow an empty one."""
    first, last = (lines[:1], lines[-1:]) if is_block else ([], [])
    inner = lines[len(first) : len(lines) - len(last)]
    kept: list[str] = []
    for line in inner:
        if has_words(line) or (kept and has_words(kept[-1])):
            kept.append(line)
    if kept and not has_words(kept[-1]):
        kept.pop()
    return first + kept + last


def licence_lines(words: list[str], is_heading: bool) -> list[bool]:
    """Which lines of a comment, given without its marks, are of a licence. One that may be a heading ("# Copyright 2020
    in Europe", "# Released under BSD: a history") needs more to be a notice than a year, to be a grant a full stop."""
    is_taken = [False] * len(words)
    paragraphs = list(paragraphs_of(words))
    texts = [" ".join(words[first:last]) for first, last in paragraphs]
    grants = any(_GRANT.search(text) and not (is_heading and text[-1] != ".") for text in texts)
    notices = any(_NOTICE.search(text) and not (is_heading and _A_YEAR_ONLY.fullmatch(text)) for text in texts)
    if not grants and not notices:
        return is_taken
    for (first, last), text in zip(paragraphs, texts):
        ends = list(itertools.accumulate(len(word) + 1 for word in words[first:last]))  # of each line in the text
        for pattern in (_NOTICE, _GRANT, _PHRASE):
            spans = {bisect.bisect(ends, m.start()): bisect.bisect(ends, m.end() - 1) for m in pattern.finditer(text)}
            until, goes_on = -1, False  # the last line of a match; whether its sentence ends later
            for i, word in enumerate(words[first:last]):
                until = max(until, spans.get(i, -1))
                if i <= until or goes_on:
                    is_taken[first + i] = True
                    goes_on = bool(_GOES_ON.search(word)) if pattern is _NOTICE else not _SENTENCE_END.search(word)
    return is_taken


def words_of(line: str) -> str:
    """A line of a comment without what makes it a comment."""
    line = line.strip()
    for opening, closing in _BLOCKS.items():
        line = line.removeprefix(opening).removesuffix(closing)
    return line.strip(_DRAWN)


def paragraphs_of(words: list[str]) -> list[tuple[int, int]]:
    """(first, after the last) of each run of lines with words."""
    found, start = [], None
    for i, word in enumerate([*words, ""]):
        if has_words(word):
            start = i if start is None else start
        elif start is not None:
            found.append((start, i))
            start = None
    return found


def has_words(line: str) -> bool:
    return any(character.isalnum() for character in line)
