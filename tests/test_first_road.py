"""The road of the first reader: the files that a learner opens to follow a byte-pair tokenizer and a GPT from text to
sampled text. Such a run is watched here; the files on its road are to be short together and to hold little else.

`python -m pytest -s tests/test_first_road.py` prints them, file by file."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm.data import Document, pack
from minillm.generate import Sampling, generate, stream_text
from minillm.models import GPT, GPTConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer
from minillm.training.text import TextData
from minillm.training.train import train

PACKAGE = Path(minillm.__file__).parent

MOST_LINES = 2300  # in all files of the road together, blank ones not counted
MOST_UNUSED = 0.20  # of a file's lines: in functions that the run doesn't call and that have no reason below

# On the road if the run calls something in it: all flat files but WORKSHOP, all of numpy_ops/, and these.
ROAD = ("models/gpt.py", "tokenizers/bpe.py", "training/train.py")
WORKSHOP = ("settings.py", "debug.py", "port.py", "torch_ops.py", "cli.py", "__init__.py")

# What stands on the road without being called, and why: whole files, then functions.
REASONS = {
    "ops.py": "the contract: every op of the library on one page",
    "tensor_methods.py": "a Tensor's arithmetic on one page, each method beside its derivative",
}


@dataclass
class Function:
    name: str  # Tensor.backward
    lines: int  # blank ones not counted
    called: bool


def functions_in(path: Path, called_lines: set[int]) -> list[Function]:
    """The functions and methods of a file, from the top down. A function inside one that isn't called is part of it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                size = sum(bool(line.strip()) for line in lines[first - 1 : child.end_lineno])
                found.append(Function(prefix + child.name, size, first in called_lines))
                if first in called_lines:
                    visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)

    visit(ast.parse("\n".join(lines)), "")
    return found


def first_run(folder: Path) -> str:
    """Text, tokenizer, packed data, a few steps of a tiny GPT without dropout, a few more from where it was saved, and
    text drawn from it."""
    text = "".join(f"{i} times {i} is {i * i}.\n" for i in range(200))
    BPETokenizer.train([text], vocab_size=300).save(folder / "tokenizer.json")
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    train_data = pack([Document(text, "train")], tokenizer, folder / "train.bin")
    val_data = pack([Document(text[:500], "val")], tokenizer, folder / "val.bin")
    gpt_config = GPTConfig(tokenizer.vocab_size, context=16, n_layers=2, n_heads=2, d_model=16)
    for resume, steps in ((False, 2), (True, 4)):
        config = TrainConfig(max_steps=steps, batch_size=2, warmup_steps=1, eval_every=2, save_every=2, eval_tokens=100)
        model = GPT(gpt_config, np.random.default_rng(0))
        options = {"tokenizer": tokenizer, "resume": resume, "progress": False}
        train(model, TextData(train_data, val_data), config, folder / "run", **options)
    options = {"sampling": Sampling(temperature=0.8, top_k=20, top_p=0.9), "seed": 0, "plain": True}
    generate(model, [tokenizer.encode("7 times")], max_new_tokens=4, **options)
    return "".join(stream_text(model, tokenizer, "7 times", max_new_tokens=20, **options))


@pytest.fixture(scope="module")
def called(tmp_path_factory) -> dict[str, set[int]]:
    """File in minillm/ -> the first lines of the functions that the run calls."""
    codes = set()

    def profile(frame, event, _):
        if event == "call":
            codes.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        text = first_run(tmp_path_factory.mktemp("road"))
    finally:
        sys.setprofile(before)
    assert text
    found: dict[str, set[int]] = {}
    for code in codes:
        path = Path(code.co_filename)
        if path.is_relative_to(PACKAGE) and not code.co_name.startswith("<"):  # a module, a comprehension
            found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(code.co_firstlineno)
    return found


def on_the_road(file: str) -> bool:
    return file in ROAD or file.startswith("numpy_ops/") or ("/" not in file and file not in WORKSHOP)


def not_blank(file: str) -> int:
    return sum(bool(line.strip()) for line in (PACKAGE / file).read_text(encoding="utf-8").splitlines())


def unused(file: str, called: dict[str, set[int]]) -> list[Function]:
    """The functions of a file that the run doesn't call and that have no reason to stand there."""
    functions = functions_in(PACKAGE / file, called[file])
    return [f for f in functions if not (f.called or file in REASONS or f"{file}: {f.name}" in REASONS)]


@pytest.fixture(scope="module")
def road(called) -> list[str]:
    """Prints the road and returns its files."""
    files = sorted(file for file in called if on_the_road(file))
    print()
    for file in files:
        functions = functions_in(PACKAGE / file, called[file])
        n_called = sum(f.called for f in functions)
        print(f"{file}: {not_blank(file)} lines, {n_called} functions called, {len(functions) - n_called} not:")
        print("   ", ", ".join(f"{f.name} ({f.lines})" for f in functions if not f.called) or "-")
    print(f"the first road: {len(files)} files, {sum(map(not_blank, files)):,} lines, blank ones not counted")
    print("called in the workshop:", ", ".join(f"{f} ({not_blank(f)})" for f in sorted(called) if f not in files))
    return files


def test_the_road_goes_where_it_is_said_to_go(road):
    named = {"tensor.py", "tensor_methods.py", "ops.py", "nn.py", "optim.py", "generate.py", *ROAD}
    assert named <= set(road)
    assert any(file.startswith("numpy_ops/") for file in road)


def test_the_road_is_short(road):
    total = sum(map(not_blank, road))
    assert total < MOST_LINES, (
        f"The files that a GPT's training and sampling run through have {total:,} lines, not under {MOST_LINES:,}. "
        "Move what the run doesn't call into files of its own; the list is printed with -s."
    )


def test_the_road_holds_nothing_else(road, called):
    wrong = []
    for file in road:
        functions = unused(file, called)
        share = sum(f.lines for f in functions) / not_blank(file)
        if share > MOST_UNUSED:
            names = ", ".join(f"{f.name} ({f.lines})" for f in functions)
            wrong.append(f"{file}: {share:.0%} of its lines are in functions that the run doesn't call: {names}.")
    assert not wrong, "\n".join([*wrong, "Move them into files of their own, or give a reason in REASONS."])


def test_every_reason_is_needed(road, called):
    for entry, reason in REASONS.items():
        file, _, name = entry.partition(": ")
        functions = functions_in(PACKAGE / file, called.get(file, set()))
        idle = [f for f in functions if not f.called and name in ("", f.name)]
        assert idle, f"{entry!r} ({reason}) is called or gone: take it out of REASONS."


def test_what_a_run_does_not_call_is_seen(tmp_path):
    """The reading itself, on a small made-up file."""
    path = tmp_path / "made_up.py"
    path.write_text("import functools\n\n\nclass A:\n    @functools.cache\n    def f(self):\n\n        return 1\n\n"
                    "    def g(self):\n        def inner():\n            return 2\n        return inner\n")  # fmt: skip
    found = functions_in(path, {5})
    assert [(f.name, f.lines, f.called) for f in found] == [("A.f", 3, True), ("A.g", 4, False)]
    assert [f.name for f in functions_in(path, {10})] == ["A.f", "A.g", "A.g.inner"]
