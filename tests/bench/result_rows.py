"""What a benchmark finds, one line of JSON each in a file that several processes may add to: a cut-off run keeps all
lines that were written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def append(path: Path | None, **row: Any) -> None:
    """Add a row; it is on the disk when this returns. Without a path nothing happens."""
    if path is None:
        return
    line = (json.dumps(row) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)  # whole lines, also where others write
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, without a last line that a kill has cut short; [] where there is none."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
