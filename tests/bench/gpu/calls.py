"""The calls of tests/bench/gpu.sh: which stages each makes, under which limits, and a rehearsal of them all on a CPU.

`first` and `second` are for a card that is lent for a quarter of an hour: what matters most comes first, and a stage
that is ended, or has no time left, costs the others nothing. `whole` is for a card of one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import result_rows
import stages
from stages import Stage
from summary import stage_of, summarize

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
# Of all stages of a call; starting takes some seconds besides.
SECONDS = {"first": 535.0, "second": 160.0, "whole": 24 * 3600.0, "rehearse": 3600.0}
STAGES = {
    "first": ("machine", "checks", "repeats", "attention", "tune", "repeats tuned", "attention tuned", "step",
              "profile", "head sizes"),
    "second": ("run",),
    "whole": ("machine", "tests", "repeats", "attention whole", "step whole", "profile", "head sizes", "prepare",
              "run long"),
}  # fmt: skip
STAGES["rehearse"] = ("prepare", *STAGES["first"], *STAGES["second"])
LIMITS = {
    "machine": 60, "checks": 100, "repeats": 45, "attention": 90, "tune": 110, "repeats tuned": 45,
    "attention tuned": 80, "step": 150, "profile": 75, "head sizes": 60, "run": 158,
}  # fmt: skip
LONG = 2 * 3600.0  # for a stage without a limit of its own
UNTUNED = ("machine", "checks", "repeats", "attention", "tune")  # which must not find what was tuned here before


def commands(out: Path, tokens: Path, smoke: bool) -> dict[str, list[str]]:
    """The command of every stage but for the rows that it adds to, and for what makes it a rehearsal."""
    bench, gpu = partial(script, HERE.parent), partial(script, HERE)
    peers = ["--only", "fast", "flash", "cudnn", "--causal-only"]
    three = [*peers, "--lengths", "1024", "4096", "16384", "--rounds", "10"]
    sizes = [*peers, "--head-sizes", "32", "80", "96", "256", "--lengths", "4096", "--rounds", "8"]
    # Forward last: its tensor descriptors are the one thing that no card has run, and a broken context ends the tuning.
    kernels = [word for kernel in ("dkdv", "dq", "forward") for word in ("--kernel", kernel)]
    step = ["--only", "pytorch", "minillm triton", "--rounds", "4", "--steps", "8", "--warmup", "3"]
    corpus = ["--megabytes", os.environ.get("CORPUS_MB", "150"), "--most", "4000"]
    run = ["--tokens", str(tokens)]
    tests = ["-c", REPOSITORY / "pyproject.toml", "--rootdir", REPOSITORY, REPOSITORY / "tests/kernels"]
    tests += [REPOSITORY / "tests/bench/test_train_gpu.py", REPOSITORY / "tests/models/test_static_cache.py"]
    tests += ["-q", "-W", "default", "-p", "no:cacheprovider"]
    tests += ["-n", "8"] if find_spec("xdist") else []  # most of the time goes into compiling, on the CPU
    found = {
        "machine": gpu("machine.py"),
        "checks": gpu("checks.py", "--processes", "2" if smoke else "12"),
        "repeats": gpu("repeats.py"),
        "attention": bench("attention.py", *three),
        "tune": [sys.executable, "-m", "minillm.kernels.tune", *kernels, "--candidates", str(HERE / "candidates.json")],
        "repeats tuned": gpu("repeats.py"),
        "attention tuned": bench("attention.py", *three),
        "step": bench("train_gpu.py", *step),
        "profile": gpu("profile_kernels.py"),
        "head sizes": bench("attention.py", *sizes),
        "run": gpu("real_run.py", *run, "--seconds", "90"),
        "tests": [sys.executable, "-m", "pytest", *map(str, tests)],
        "attention whole": bench("attention.py"),
        "step whole": bench("train_gpu.py", "--overlay", os.environ.get("OVERLAY", "2000")),
        "prepare": gpu("prepare.py", "--out", str(tokens), *(TOY_CORPUS if smoke else corpus)),
        "run long": gpu("real_run.py", *run, "--seconds", os.environ.get("RUN_SECONDS", "600")),
    }
    rows, toy = str(out / "rows.jsonl"), ["--smoke"] * smoke
    for name, command in found.items():
        if name == "tune":
            command += ["--times", rows, *toy, *(["--out", str(out / "tuned/rehearsed.json")] if smoke else [])]
        elif name not in ("tests", "prepare"):
            command += ["--rows", rows, "--stage", name, *toy]
    return found


REHEARSED = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
TOY_CORPUS = ("--megabytes", "0.3", "--ids", "300", "--most", "1")


def script(folder: Path, name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(folder / name), *arguments]


def make_stages(call: str, names: Sequence[str], out: Path, work: Path) -> list[Stage]:
    """The stages of a call, with what is in their environment: where kernels look for tuned configurations."""
    smoke = call == "rehearse"
    tokens = (REPOSITORY / "made/gpu" if call == "second" else work) / "tokens"
    known, made = commands(out, tokens, smoke), []
    if "tune" in names:  # what it finds lies in OUT at once
        (out / "tuned").mkdir(parents=True, exist_ok=True)
        (work / "tuned/minillm").mkdir(parents=True)
        (work / "tuned/minillm/kernels").symlink_to(out / "tuned")
    for name in names:
        place = work / ("untuned" if name in UNTUNED and name != "tune" else "tuned")
        environment = {"XDG_CACHE_HOME": str(place)} if call in ("first", "rehearse") else {}
        environment |= REHEARSED if smoke else {}
        keep = partial(copy_files, out / "tuned", own_cache()) if name == "tune" and not smoke else None
        limit = 600.0 if smoke else LIMITS.get(name, LONG)
        made.append(Stage(name, known[name], limit, environment, keep))
    return made


def own_cache() -> Path:
    """The folder in which `minillm.kernels.configs` looks for what was tuned on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minillm" / "kernels"


def copy_files(source: Path, target: Path) -> None:
    for file in source.glob("*.json"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/gpu.sh", description=__doc__.split("\n")[0])
    parser.add_argument("call", choices=SECONDS)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder, for what does not come back")
    options = parser.parse_args()
    wrong = [name for name in options.stages if name not in STAGES[options.call]]
    if wrong:
        parser.error(f"{options.call} has no stage {wrong[0]!r}; it has {', '.join(map(repr, STAGES[options.call]))}")
    out, work = options.out.resolve(), options.work.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = options.stages or STAGES[options.call]
    kept = [row for row in result_rows.read(out / "rows.jsonl") if stage_of(row) not in chosen]  # of other calls
    result_rows.replace(out / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
    if options.call == "second":  # what a first call on another machine found, if it was brought back
        copy_files(REPOSITORY / "made/gpu/tuned", own_cache())
    try:
        todo = make_stages(options.call, chosen, out, work)
        wrong = stages.run_stages(todo, out, SECONDS[options.call], summarize)
    except KeyboardInterrupt:
        print("stopped; what was measured is in", out)
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n" + (out / "summary.md").read_text(encoding="utf-8"))
    if options.call == "rehearse":
        print("a rehearsal: these times mean nothing")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
