"""Folders: which of the files below one are text to be read, and why the others are not."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

MARKDOWN_EXTENSIONS = frozenset({".md", ".markdown"})
PROSE_EXTENSIONS = frozenset({".txt", ".rst", ".text"}) | MARKDOWN_EXTENSIONS
PYTHON_EXTENSIONS = frozenset({".py", ".pyi"})
CODE_EXTENSIONS = PYTHON_EXTENSIONS | frozenset(
    {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".java", ".js", ".ts", ".go", ".rs", ".sh", ".tex"}
)
JSONL_EXTENSIONS = frozenset({".jsonl", ".ndjson"})
ROW_EXTENSIONS = JSONL_EXTENSIONS | {".json", ".csv", ".tsv", ".parquet"}  # rows of which one column is text
WEB_EXTENSIONS = frozenset({".html", ".htm", ".xhtml"})
ARCHIVES = frozenset({".zip"})
TEXT_EXTENSIONS = PROSE_EXTENSIONS | CODE_EXTENSIONS | ROW_EXTENSIONS | WEB_EXTENSIONS
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})
KINDS_NAMED = 10  # in a report


def files_below(folder: str, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    """Yield (file, reason to skip it or None) for everything below `folder`, sorted; hidden folders and `__pycache__`
    are not looked into. With `follow_links`, links to folders are, each folder once, and files outside are read."""
    root = os.path.realpath(folder)
    seen = {root}
    faults: list[OSError] = []
    for where, folders, files in os.walk(folder, onerror=faults.append, followlinks=follow_links):
        below = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
        folders.clear()
        for path in [os.path.join(where, name) for name in below]:
            real = os.path.realpath(path)
            if os.path.islink(path) and not follow_links:
                yield path, "a link to a folder (links are followed on request)"
            elif follow_links and real in seen:
                yield path, "a folder that was read already, under another name"
            else:
                seen.add(real)
                folders.append(os.path.basename(path))
        for name in sorted(files):
            file = os.path.join(where, name)
            why_not = why_not_text(name)
            if why_not is not None:
                yield file, why_not
            elif not os.path.isfile(file):
                yield file, "not a regular file (a broken link, a pipe or a device)"
            elif os.path.islink(file) and not follow_links and not Path(os.path.realpath(file)).is_relative_to(root):
                yield file, "a link that leaves the folder (links are followed on request)"
            else:
                yield file, None
    for fault in faults:
        yield str(fault.filename), f"a folder that cannot be read ({fault.strerror})"


def why_not_text(name: str) -> str | None:
    """The reason to skip a file of this name in a folder, None where there is none."""
    extension = extension_of(name)
    if name.startswith("."):
        return "hidden file"
    if extension in TEXT_EXTENSIONS | ARCHIVES:
        return None
    return f"extension {extension!r} is not one of text" if extension else "no extension"


def extension_of(file: str) -> str:
    """The extension that says what a file holds: ".txt" for "a.txt" and for "a.txt.gz"."""
    stem, extension = os.path.splitext(file.lower())
    return os.path.splitext(stem)[1] if extension in COMPRESSIONS else extension


def kinds_skipped(sources_and_reasons: Iterable[tuple[str, str]]) -> list[str]:
    """What was skipped, counted by kind, the commonest first: "12 .html skipped: extension '.html' is not one of text".

    A kind is an extension and a reason without its details: what stands in parentheses, behind a colon or semicolon.
    """
    kinds: Counter[tuple[str, str]] = Counter()
    for source, reason in sources_and_reasons:
        name, _, part = source.rpartition("#")
        extension = extension_of(name if part.isdigit() else source)
        kind = re.split(r" \(|: |; ", re.sub(r"^cannot read '.*?': ", "", reason))[0]
        kinds[extension or "without extension", kind] += 1
    ranked = kinds.most_common()
    lines = [f"{n:,} {extension} skipped: {reason}" for (extension, reason), n in ranked[:KINDS_NAMED]]
    rest = sum(n for _, n in ranked[KINDS_NAMED:])
    return lines + (
        [f"{rest:,} of {len(ranked) - KINDS_NAMED:,} other kinds skipped: see dropped.jsonl"] if rest else []
    )
