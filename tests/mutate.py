"""Mutation testing: change one operator or number of a module at a time, and see whether its tests notice.

    .venv-dev/bin/python tests/mutate.py minillm/optim.py -- tests/test_optim.py tests/test_edge_values.py

Each mutant is tried twice. First inside a process that has imported everything and collected the tests: a fork of it
takes over the mutant's functions and runs them, which is many times faster than to begin anew. What survives is tried
in a copy of the repository. What has been tried is kept in `--results` (JSON lines), so that a run can be stopped and
taken up again: where the module has not changed, only the rest is tried. Printed are the survivors: a test is missing,
or the change makes no difference and tests/README.md says why.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from inspect import unwrap
from pathlib import Path
from types import FunctionType, ModuleType

import hypothesis
import pytest
from _pytest.main import pytest_runtestloop

ROOT = Path(__file__).parents[1]
PRELOAD = ["torch.testing._internal.common_methods_invocations", "torch.testing._internal.common_optimizers",
           "hypothesis.extra.numpy"]  # fmt: skip
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
}  # fmt: skip


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Each other node that may stand in this one's place."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                other = copy.deepcopy(node)
                other.ops[i] = SWAPS[type(op)]()
                yield other
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
        other = copy.deepcopy(node)
        other.op = SWAPS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)


def places(node: ast.AST, path: tuple = ()) -> Iterator[tuple[tuple, ast.AST]]:
    """(how to get there, node) of every node whose change could be seen: no annotations, docstrings or error texts."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params") or (
            isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ):
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.JoinedStr, ast.Raise)):
                here = (*path, (field, i))
                yield here, child
                yield from places(child, here)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the module's text) for each mutant."""
    tree = ast.parse(source)
    for path, node in list(places(tree)):
        for other in variants(node):
            mutant = copy.deepcopy(tree)
            parent = mutant
            for field, i in path[:-1]:
                parent = getattr(parent, field) if i is None else getattr(parent, field)[i]
            field, i = path[-1]
            other = ast.copy_location(other, node)
            if i is None:
                setattr(parent, field, other)
            else:
                getattr(parent, field)[i] = other
            line = f"{node.lineno}:{node.col_offset}"
            yield f"{line} {ast.unparse(node)} -> {ast.unparse(other)}", ast.unparse(ast.fix_missing_locations(mutant))


def in_a_fork(do: Callable[[], int], timeout: float) -> str:
    """What becomes of a mutant: a fork of this process does something, quietly, that gives 0 where it survives.

    `timeout` counts seconds of a processor, which don't depend on what else the machine does; by the clock it may take
    ten times as long.
    """
    child = os.fork()
    if child == 0:
        if timeout < float("inf"):
            resource.setrlimit(resource.RLIMIT_CPU, (int(timeout) + 1, int(timeout) + 2))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            os._exit(int(do() != 0))
        except BaseException:
            os._exit(1)
    end = time.monotonic() + 10 * timeout
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid and os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            return "killed by time"
        if pid:
            return "survived" if status == 0 else "killed"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed by time"


def children_seconds() -> float:
    """What the forks that have ended took of a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(tests: list[str], root: Path, timeout: float) -> str:
    """The tests of a copy of the repository, begun anew but for the slow packages."""

    def begin() -> int:
        os.chdir(root)
        sys.path.insert(0, str(root))
        return pytest.main(tests_and_options(tests))

    return in_a_fork(begin, timeout)


def tests_and_options(tests: list[str]) -> list[str]:
    imported = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # before pytest could rewrite its assertions
    return ["-q", "-x", "-p", "no:cacheprovider", *imported, *tests]


class Inside:
    """A plugin of pytest's that runs the collected tests once for each mutant, in a fork, and keeps who was killed."""

    def __init__(self, path: Path, texts: Iterator[tuple[str, str]], keep: Callable[[str, str], None], end: float):
        self.path, self.texts, self.keep, self.end = path, texts, keep, end

    def pytest_sessionstart(self) -> None:
        drawn = hypothesis.settings.get_current_profile_name()
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a smaller example is not asked for
        hypothesis.settings.register_profile("mutants", hypothesis.settings.get_profile(drawn), phases=phases)
        hypothesis.settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        module = importlib.import_module(".".join(self.path.with_suffix("").parts))

        def tried(text: str) -> int:
            take_over(module, text)
            pytest_runtestloop(session)
            return session.testsfailed

        pytest_runtestloop(session)  # imports what the tests import within; raises where one fails
        start = children_seconds()
        unchanged = (ROOT / self.path).read_text(encoding="utf-8")
        assert in_a_fork(lambda: tried(unchanged), 600) == "survived", "taking over the same functions must not matter"
        timeout = 10 + 4 * (children_seconds() - start)
        for change, text in self.texts:
            if time.monotonic() > self.end:
                break
            outcome = in_a_fork(lambda text=text: tried(text), timeout)
            if outcome != "survived":
                self.keep(change, outcome)
        return True


def take_over(module: ModuleType, text: str) -> None:
    """Give an imported module what another text of it defines. Its functions and classes stay the same objects, which
    others may have imported."""
    fresh = dict(vars(module))
    exec(compile(text, str(module.__file__), "exec"), fresh)
    for name, new in fresh.items():
        old = vars(module).get(name)
        if callable(new) and hasattr(new, "__wrapped__") and new.__module__ == module.__name__:
            take_code(unwrap(old), unwrap(new))  # the function within @contextmanager, @cache
            getattr(old, "cache_clear", int)()
        elif isinstance(new, FunctionType) and new.__module__ == module.__name__:
            take_code(old, new)
        elif isinstance(new, type) and new.__module__ == module.__name__:
            for key, value in vars(new).items():
                if isinstance(value, FunctionType):
                    take_code(vars(old)[key], value)
                elif not key.startswith("__"):
                    setattr(old, key, value)
        elif not name.startswith("__"):
            setattr(module, name, new)


def take_code(old: FunctionType, new: FunctionType) -> None:
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing of one module.")
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+", help="the focused tests, after --")
    parser.add_argument("--then", type=shlex.split, help="slower tests, in quotes, for what survives those")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "mutants.jsonl")
    parser.add_argument("--preload", nargs="*", default=PRELOAD, help="slow packages")
    parser.add_argument("--sample", type=int, help="only so many mutants, a larger sample holding the smaller")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after this time")
    arguments = parser.parse_args()

    os.environ.update(CI="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sys.dont_write_bytecode = True  # Python would take the old one for a file of the same size and second
    for name in arguments.preload:
        importlib.import_module(name)
    source = (ROOT / arguments.module).read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    known: dict[str, str] = {}

    def look_up() -> None:
        if arguments.results.exists():
            rows = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
            known.update({row["change"]: row["outcome"] for row in rows if row["source"] == digest})

    def keep(change: str, outcome: str) -> None:
        with arguments.results.open("a", encoding="utf-8") as stream:
            row = {"module": str(arguments.module), "source": digest, "change": change, "outcome": outcome}
            stream.write(json.dumps(row) + "\n")

    end = time.monotonic() + arguments.seconds
    look_up()
    chosen = list(mutants(source))
    if arguments.sample is not None:
        drawn = random.Random(0).sample(range(len(chosen)), len(chosen))[: arguments.sample]
        chosen = [chosen[i] for i in sorted(drawn)]
    rest = ((change, text) for change, text in chosen if known.get(change, "survived") == "survived")
    inside = Inside(arguments.module, rest, keep, end)
    in_a_fork(lambda: pytest.main(tests_and_options(arguments.tests), plugins=[inside]), arguments.seconds + 600)
    look_up()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("minillm", "kernels", "tests", "pyproject.toml"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root / name)
        rounds = []  # (tests, seconds of a processor that they may take)
        all_killed = all(known.get(change, "survived") != "survived" for change, _ in chosen)
        for tests in filter(None, () if all_killed else (arguments.tests, arguments.then)):
            start = children_seconds()
            assert run(tests, root, 600) == "survived", "the tests must pass before anything is changed"
            rounds.append((tests, 10 + 4 * (children_seconds() - start)))
        counts: Counter[str] = Counter()
        for change, text in chosen:
            if change not in known or known[change] == "survived":
                if time.monotonic() > end:
                    print("time is up: the rest at the next call")
                    break
                (root / arguments.module).write_text(text, encoding="utf-8")
                for tests, timeout in rounds:
                    known[change] = run(tests, root, timeout)
                    if known[change] != "survived":
                        break
                keep(change, known[change])
            counts[known[change]] += 1
            if known[change] == "survived":
                print(f"survived: {arguments.module}:{change}", flush=True)
    print(f"{arguments.module}: {counts.total()} mutants: {dict(counts)}")


if __name__ == "__main__":
    main()
