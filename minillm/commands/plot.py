"""`minillm plot`: the loss of one or several runs as a picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..disk import claim, read_json, read_marker, whole_file
from ..training.checkpoint import STATE_FILE, CheckpointError
from ..training.run_folder import run_in
from ..training.run_log import read_metrics
from .options import program

METRICS = "metrics.jsonl"
PICTURE = "loss.png"
ENDINGS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, of any kind of training")
    out = f"picture to write, {', '.join(ENDINGS)}; default: {PICTURE} in the run, or here where there are several"
    parser.add_argument("--out", metavar="FILE", help=out)
    parser.add_argument("--x", choices=["step", "tokens", "seconds"], default="step", help="what goes to the right")
    y = "what goes up; default: the loss, or bits per byte where the runs' tokenizers differ"
    parser.add_argument("--y", choices=["loss", "bits_per_byte"], help=y)


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out or (Path(arguments.runs[0], PICTURE) if len(arguments.runs) == 1 else PICTURE))
    if out.suffix not in ENDINGS:
        raise ValueError(f"--out {out}: the ending says what to write, one of {' '.join(ENDINGS)}.")
    check_matplotlib()
    folders = dict(zip(short_names(arguments.runs), map(Path, arguments.runs)))
    rows = {name: rows_of(folder) for name, folder in folders.items()}
    y = arguments.y or measure_for(folders, rows)
    draw(rows, out, x=arguments.x, y=y)
    print(f"wrote {out}")
    return 0


def draw(rows: dict[str, list[dict[str, Any]]], out: Path, *, x: str = "step", y: str = "loss") -> None:
    """Write the picture of the runs' rows, by name; into a run folder as a file of ours."""
    from ..plot import loss_of_runs

    figure = loss_of_runs(rows, x=x, y=y)
    if read_marker(out.parent) is not None:
        claim(out.parent, "run", [out.name])  # so that --overwrite may remove it
    with whole_file(out) as temporary:
        figure.savefig(temporary, bbox_inches="tight")


def check_matplotlib() -> None:
    """Raise ImportError, with what to do, where the package that draws is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError(f"drawing needs matplotlib: {how_to_get_it()}.") from None


def how_to_get_it() -> str:
    """The line that installs what draws."""
    return 'pip install matplotlib (or, in the clone, pip install -e ".[plot]")'


def how_to_draw(run: str) -> str:
    """What to do where a picture is missing, since nothing could draw it."""
    return f"{how_to_get_it()}, then {program()} plot {run}"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged. Raises CheckpointError for a folder that is no run."""
    for place in (folder, folder.parent) if folder.name in ("best", "last") else (folder,):
        if (place / METRICS).is_file():
            return read_metrics(place / METRICS)
    raise CheckpointError(f"{folder} is no run folder: there is no {METRICS} in it.")


def measure_for(folders: dict[str, Path], rows: dict[str, list[dict[str, Any]]]) -> str:
    """ "loss", or "bits_per_byte" for runs whose tokens are not the same, where all have it."""
    tokenizers = {tokenizer_of(folder) for folder in folders.values()} - {None}
    if len(tokenizers) < 2:
        return "loss"
    if all(any("val_bits_per_byte" in row for row in run) for run in rows.values()):
        print("the runs have different tokenizers, whose tokens are of different length: drawn are bits per byte")
        return "bits_per_byte"
    print("note: the runs have different tokenizers, and a loss per token says little across these")
    return "loss"


def tokenizer_of(folder: Path) -> str | None:
    """The fingerprint of a run's tokenizer; None where none was kept."""
    checkpoint = run_in(folder)
    if checkpoint is None or not (checkpoint / STATE_FILE).is_file():
        return None
    state = read_json(checkpoint / STATE_FILE)
    return state.get("tokenizer") if isinstance(state, dict) else None


def short_names(runs: list[str]) -> list[str]:
    """The runs' folders without what all of them begin with: ["a", "b"] of ["runs/a", "runs/b"]."""
    paths = [Path(run).resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a run is named twice among {', '.join(runs)}: name each once.")
    if len(paths) == 1:
        return [paths[0].name]
    common = Path(os.path.commonpath(paths))
    return [path.relative_to(common).as_posix() if path != common else path.name for path in paths]
