"""The map in chapters/README.md shows what the table there says: an arrow from each chapter to those that build on it,
but for what another chapter on the way already needs."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "chapters" / "README.md"


def needs(text: str) -> dict[str, set[str]]:
    """For each chapter of the table, those in its last column; "06–08" means 06, 07 and 08."""
    found = {}
    for row in re.findall(r"^\| \[(\d\d) .*$", text, re.MULTILINE):
        cell = re.search(rf"^\| \[{row} .*\| ([^|]*) \|$", text, re.MULTILINE)
        assert cell, row
        chapters: set[str] = set()
        for first, last in re.findall(r"(\d\d)(?:–(\d\d))?", cell[1]):
            chapters |= {f"{number:02}" for number in range(int(first), int(last or first) + 1)}
        found[row] = chapters
    return found


def with_all_before(chapter: str, table: dict[str, set[str]]) -> set[str]:
    return set().union(*({before} | with_all_before(before, table) for before in table[chapter]), set())


def arrows(table: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Without those that a longer way replaces."""
    return {
        (before, chapter)
        for chapter, direct in table.items()
        for before in direct
        if not any(before in with_all_before(other, table) for other in direct)
    }


def test_the_map_is_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    drawing = text.partition("```mermaid")[2].partition("```")[0]
    assert drawing, "chapters/README.md has no map."
    table = needs(text)
    drawn = {(a, b) for a, more in re.findall(r"(\d\d) --> ([\d &]+)", drawing) for b in re.findall(r"\d\d", more)}
    assert drawn == arrows(table), sorted(drawn ^ arrows(table))
    assert set(re.findall(r"(\d\d)\[", drawing)) == set(table)


def test_reading_the_table() -> None:
    text = "| [00 A](a) | x | – |\n| [01 B](b) | y | 00 |\n| [02 C](c) | z | 00–01 |\n| [03 D](d) | z | 00, 02 |\n"
    table = needs(text)
    assert table == {"00": set(), "01": {"00"}, "02": {"00", "01"}, "03": {"00", "02"}}
    assert arrows(table) == {("00", "01"), ("01", "02"), ("02", "03")}
