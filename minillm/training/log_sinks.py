"""Other programs that show a run while it trains. They get the rows of metrics.jsonl, which stays the truth: a resumed
run sends all of them again, those before the interruption, too.

Both packages are extras, and imported when they are asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..disk import MARKER, claim, read_marker, remove_folder, write_text
from ..disk.markers import marker_text


class TensorBoard:
    """Event files in the folder `tensorboard` of the run: `tensorboard --logdir RUNS` compares the runs in RUNS."""

    def __init__(self, out_dir: Path) -> None:
        from tensorboard.summary import Writer

        folder = out_dir / "tensorboard"
        claim(out_dir, "run", [folder.name])
        if read_marker(folder):  # of before the interruption
            remove_folder(folder, "tensorboard")
        self.writer = Writer(str(folder))
        write_text(folder / MARKER, marker_text("tensorboard", [MARKER, *(file.name for file in folder.iterdir())]))

    def write(self, row: dict[str, Any]) -> None:
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project "minillm" in the folder `wandb` where the training was started. Nothing is sent anywhere
    before `wandb sync`, unless the variable WANDB_MODE says "online"."""

    def __init__(self, out_dir: Path) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(project="minillm", name=out_dir.resolve().name, mode=mode)

    def write(self, row: dict[str, Any]) -> None:
        self.run.log(numbers(row), step=row["step"])  # several rows of one step become one

    def close(self) -> None:
        self.run.finish()


SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_sinks(names: Iterable[str]) -> None:
    """Raise ImportError, saying how to get it, for a sink whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ImportError(
                f"--log {name} needs the package {name}, which is not installed here: install "
                f"minillm-from-scratch[{name}] (in a checkout: pip install -e '.[{name}]'), or leave it out: all that "
                "it would show is in metrics.jsonl, and `minillm plot` draws it."
            )


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What in a row is a finite number, but the step."""
    return {k: float(v) for k, v in row.items() if k != "step" and v is not None and math.isfinite(v)}
