"""Folders: which of the files below one are text to be read, and why the others are not."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

PROSE_EXTENSIONS = frozenset({".txt", ".md", ".rst", ".text"})
CODE_EXTENSIONS = frozenset(
    {".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".java", ".js", ".ts", ".go", ".rs", ".sh", ".tex"}
)
JSONL_EXTENSIONS = frozenset({".jsonl", ".ndjson"})
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz"})
KINDS_NAMED = 10  # in a report


def files_below(folder: str, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    """Yield (file, reason to skip it or None) for everything below `folder`, sorted; hidden folders and `__pycache__`
    are not looked into. With `follow_links`, links to folders are, each folder once, and files outside are read."""
    known = PROSE_EXTENSIONS | CODE_EXTENSIONS | JSONL_EXTENSIONS
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
            extension = extension_of(file)
            if name.startswith("."):
                yield file, "hidden file"
            elif extension not in known:
                yield file, f"extension {extension!r} is not one of text" if extension else "no extension"
            elif not os.path.isfile(file):
                yield file, "not a regular file (a broken link, a pipe or a device)"
            elif os.path.islink(file) and not follow_links and not Path(os.path.realpath(file)).is_relative_to(root):
                yield file, "a link that leaves the folder (links are followed on request)"
            else:
                yield file, None
    for fault in faults:
        yield str(fault.filename), f"a folder that cannot be read ({fault.strerror})"


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
