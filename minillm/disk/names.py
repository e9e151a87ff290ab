"""Names that nobody else gives: by them what is ours on a disk is told from what is the user's."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

AnyPath = str | os.PathLike[str]
TEMPORARY, OLD, LOCK = "minillm-tmp", "minillm-old", "minillm-lock"
OURS = re.compile(rf"\..+\.({TEMPORARY}|{OLD}|{LOCK})")
MARKER = ".minillm.json"
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers drop into every folder


def unused_name(path: Path, mark: str) -> Path:
    """A name beside `path` that nobody has, marked as ours."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{mark}")


def marked(path: Path, mark: str) -> list[Path]:
    """The folders beside `path` whose names `unused_name` gave, the last one renamed at the end."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.{mark}")
    found = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    found.append((entry.stat().st_ctime, entry.path))
    return [Path(name) for _, name in sorted(found)]
