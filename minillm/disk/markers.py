"""Whose folder it is: the marker in the folders that minillm made, and what in them it doesn't list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from .names import LITTER, MARKER, OURS
from .records import fits, read_json


def marker_text(kind: str, names: Iterable[str]) -> str:
    return json.dumps({"made_by": "minillm", "kind": kind, "files": sorted(names)}, ensure_ascii=False, indent=2) + "\n"


def read_marker(folder: Path) -> tuple[str, set[str]] | None:
    """(kind, names of what is ours in it) of a folder that minillm made; None for any other."""
    try:
        marker = read_json(folder / MARKER)
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or marker.get("made_by") != "minillm":
        return None
    kind, files = marker.get("kind"), marker.get("files")
    if not isinstance(kind, str) or len(kind) > 50 or not isinstance(files, list) or not fits(files, list[str]):
        return None
    if any("\ud800" <= letter <= "\udfff" for letter in "".join([kind, *files])):  # it could not be written again
        return None
    return kind, set(files)


def foreign_files(folder: Path) -> list[str]:
    """What in a folder that minillm made is not ours, by name: what its marker, and those of folders listed in it,
    don't list. Empty folders, and what file managers drop, don't count."""
    _, ours = read_marker(folder) or ("", set())
    foreign = []
    for where, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            path = Path(where, name)
            relative = path.relative_to(folder).as_posix()
            if name in folders and not path.is_symlink():
                if OURS.fullmatch(name):
                    folders.remove(name)
                elif relative in ours and read_marker(path):
                    folders.remove(name)
                    foreign += [f"{relative}/{inside}" for inside in foreign_files(path)]
            elif relative not in ours and name not in LITTER and not OURS.fullmatch(name):
                foreign.append(relative)
    return sorted(foreign)
