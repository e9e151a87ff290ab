"""Figures in rows and columns, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence


def table(title: str, rows: Sequence[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """Rows under a title: first cells to the left, the others to the right.

    >>> print(table("weights", [("head", "1"), ("body", "100")]))
    weights
      head    1
      body  100
    """
    cells = [("", *columns), *rows] if columns else list(rows)
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    lines = [title]
    for first, *others in cells:
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append(("  " + "  ".join([first.ljust(widths[0]), *padded])).rstrip())
    return "\n".join(lines)
