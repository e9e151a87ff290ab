"""What a run says while it trains: metrics.jsonl for programs, a progress bar and a line per evaluation for people."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..disk import write_text
from ..disk.records import fits
from .evaluate import Measured
from .log_sinks import SINKS
from .run_folder import RunState


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl. Lines that are no rows are left out: the last, which a kill may have cut short, and
    any that was damaged."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if fits(row, dict[str, float | bool | None]) and fits(row.get("step"), int):
            rows.append(row)
    return rows


class RunLog:
    """Writes one JSON row per step and one per evaluation, and keeps a progress bar where there is a terminal.

    `step` is where the run starts: rows of later steps, which a killed run wrote after its last checkpoint, are
    dropped, so that the file reads as if the run had never been interrupted. With `active=False` (on all processes
    but the first) nothing is written or shown. `log_to`: names of SINKS that get the rows, too, from the first on.
    """

    def __init__(
        self, path: Path, step: int, *, active: bool = True, progress: bool = True, log_to: Collection[str] = ()
    ):
        self.active = active
        self.show = active and progress
        self.smooth_loss: float | None = None
        self.note = ""
        if active:
            rows = [row for row in read_metrics(path) if row["step"] <= step] if path.exists() else []
            write_text(path, "".join(json_line(row) for row in rows))
            self._file = path.open("a", encoding="utf-8")
            self._sinks = [SINKS[name](path.parent) for name in log_to]
            for sink in self._sinks:
                for row in rows:
                    sink.write(row)
        # disable=None: no bar where the output is no terminal, as in a log file
        self._bar = tqdm(
            initial=step, unit="step", disable=None if self.show else True, bar_format=BAR, dynamic_ncols=True
        )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self.active:
            self._file.close()
            for sink in self._sinks:
                sink.close()

    def step(self, row: dict[str, Any], total_steps: float) -> None:
        """Log one training step; `row` has at least step, loss and tokens_per_second."""
        self._write(row)
        before = row["loss"] if self.smooth_loss is None else self.smooth_loss
        self.smooth_loss = 0.9 * before + 0.1 * row["loss"]
        self._bar.total = round(total_steps) if math.isfinite(total_steps) else None
        self._bar.set_postfix_str(
            f"loss {self.smooth_loss:.3f}, {row['tokens_per_second']:,.0f} tokens/s{self.note}", refresh=False
        )
        self._bar.update()

    def evaluation(self, state: RunState, evaluation: Measured, is_best: bool) -> None:
        """Log one evaluation and print it as a line, so that a log file shows it, too."""
        figures = evaluation.figures()
        row = {"step": state.step, **{f"val_{name}": value for name, value in figures.items()}}
        self._write({**row, "tokens": state.tokens, "seconds": state.seconds, "best": is_best})
        if not self.show:
            return
        self.note = f", val {evaluation.loss:.3f}"
        words = [
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in [*figures.items()][:3] if not math.isnan(value)
        ]
        self._bar.write(
            f"step {state.step:>6}  train loss {self.smooth_loss:.4f}  val {'  '.join(words)}"
            f"{'  (best so far)' if is_best else ''}"
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.show:
            self._bar.write(text)

    def _write(self, row: dict[str, Any]) -> None:
        if self.active:
            self._file.write(json_line(row))
            self._file.flush()
            for sink in self._sinks:
                sink.write(row)


BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}, {remaining} left{postfix}]"


def json_line(row: dict[str, Any]) -> str:
    """One row of strict JSON, which knows no infinity: null stands for it."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite) + "\n"
