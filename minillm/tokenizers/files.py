"""Tokenizer files on disk: where they lie, and JSON that is read with clear errors and written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TOKENIZER_JSON = "tokenizer.json"


def tokenizer_json_path(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: itself if its name ends in .json, otherwise tokenizer.json in that folder."""
    path = Path(path)
    return path if path.suffix == ".json" else path / TOKENIZER_JSON


def read_json(path: Path) -> Any:
    """The contents of a JSON file. Raises FileNotFoundError, or ValueError if it is cut off or no JSON."""
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else None
        raise FileNotFoundError(
            f"there is no file {path}; " + ("nor its folder" if beside is None else f"its folder holds {beside[:20]}")
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read: no such file should be") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, or was cut off ({path.stat().st_size} bytes): {error}") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON with real characters in it (中, not an escape), whole or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file so that it is there whole or not at all: into a temporary file, then renamed over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(text.encode("utf-8"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
