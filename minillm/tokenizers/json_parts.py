"""What the readers and writers of tokenizer.json share: where it lies, added tokens, checks, errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from .added import AddedToken

TOKENIZER_JSON = "tokenizer.json"
MAX_IDS = 1 << 21  # ids that a tokenizer can have: eight times as many as the largest vocabularies


def tokenizer_json_path(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: itself if its name ends in .json, otherwise tokenizer.json in that folder."""
    path = Path(path)
    return path if path.suffix == ".json" else path / TOKENIZER_JSON


def is_kind(part: Any, kind: str) -> TypeGuard[dict[str, Any]]:
    """Whether a part of the file is an object of that type."""
    return isinstance(part, dict) and part.get("type") == kind


def refuse(path: Path, part: str, value: Any, advice: str) -> ValueError:
    """The error for a part that would change ids in a way that this library does not know."""
    kind = value["type"] if isinstance(value, dict) and "type" in value else json.dumps(value)
    return ValueError(f"{path}: {part} is {kind}, which is not supported, and ids would differ without it; {advice}.")


def steps_of(part: Any, key: str, path: Path, name: str) -> list[dict[str, Any]]:
    """A part as the list of its steps: those of a Sequence, which holds them under `key`, itself, or none at all.

    Raises ValueError, naming the part and the file, for what is not made so.
    """
    if part is None:
        return []
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ValueError(f"{path}: the {name} must be an object with a 'type', or null, but it holds {short(part)}.")
    if part["type"] != "Sequence":
        return [part]
    if not isinstance(part.get(key), list):
        raise ValueError(f"{path}: the {name} is a Sequence, whose {key!r} must be a list, not {part.get(key)!r}.")
    return [step for inner in part[key] for step in steps_of(inner, key, path, name)]


def short(value: Any) -> str:
    """A value as JSON, the beginning of it if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def read_added_tokens(content: Mapping[str, Any], path: Path) -> list[AddedToken]:
    """The file's added tokens, those with an empty text left out, as nothing can find them."""
    tokens = []
    entries = content.get("added_tokens") or []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: added_tokens must be a list, not {short(entries)}.")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or "id" not in entry:
            raise ValueError(f"{path}: an added token must have a 'content' and an 'id', but one is {entry!r}.")
        if entry["content"]:
            tokens.append(AddedToken.from_json(entry))
    return tokens


def check_ids(ids: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError unless each token has an id of its own from 0 up, below `MAX_IDS`."""
    if bad := [token for token, token_id in ids.items() if type(token_id) is not int or token_id < 0]:
        raise ValueError(f"{path}: the id of {bad[0]!r} must be a whole number from 0 up, not {ids[bad[0]]!r}.")
    if max(ids.values(), default=0) >= MAX_IDS:
        raise ValueError(
            f"{path}: {len(ids)} tokens have ids up to {max(ids.values())}; with more than {MAX_IDS} the file must be "
            "wrong."
        )
    owner: dict[int, str] = {}
    for token, token_id in ids.items():
        if owner.setdefault(token_id, token) != token:
            raise ValueError(f"{path}: the id {token_id} is given to two tokens, {owner[token_id]!r} and {token!r}.")
