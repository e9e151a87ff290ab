"""Real Chinese sentences, which lie in data/chinese: Python itself brings hardly any Chinese text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

FILES = {"train": "sentences.txt", "val": "held_out.txt"}


def chinese_text(split: Literal["train", "val"]) -> str:
    """Sentences about everyday life, one a line: 4,729 characters to learn from ("train"), 838 to test on ("val"), line
    ends not counted.

    data/README.md says what they are. Raises FileNotFoundError where the folder data/ is not beside chapters/.
    """
    path = Path(__file__).parents[2] / "data" / "chinese" / FILES[split]
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name}: the Chinese sentences lie in the project's folder data/chinese, which is not there. "
            "Run the chapters from the project's own folder (pip install -e .)."
        )
    return path.read_text(encoding="utf-8")
