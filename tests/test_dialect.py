"""One dialect through the whole library: how errors speak, what functions are called, how modules import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "minillm").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
LONGEST = 3 * 120  # characters of a text, what it names not counted


def trees():
    for path in FILES:
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def spoken(node):
    """The parts of a text that stand in the source, what it names as "{}"; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = spoken(node.left), spoken(node.right)
        return None if left is None and right is None else (left or "{}") + (right or "{}")
    return None


def errors(tree):
    """(line, text) of every error that is made with a text: `raise ValueError("...")`, `return ConfigError(f"...")`."""
    for node in ast.walk(tree):
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        is_error = name.endswith(("Error", "NotFound", "Diverged", "ProcessLost"))
        if is_error and node.args and spoken(node.args[0]) is not None:
            yield node.lineno, spoken(node.args[0])


def complaints(tree):
    for line, text in errors(tree):
        if not text.rstrip().endswith((".", "?", ".)", "{}")) or text.rstrip().endswith(("..", "...{}")):
            yield line, f"the text must be sentences and end with a full stop: ...{text[-40:]!r}"
        if ", got " in text:
            yield line, "say what it must be and what it is: 'must be ..., not ...'"
        if len(text) > LONGEST and "\n" not in text:
            yield line, f"{len(text)} characters: at most {LONGEST}, three lines"


def test_errors_are_sentences_that_end_with_a_full_stop():
    found = [f"{path}:{line}: {what}" for path, tree in trees() for line, what in complaints(tree)]
    assert not found, "\n" + "\n".join(found)


def test_functions_of_a_module_have_plain_names():
    found = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in trees()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("_")
        and node.name not in ("_", "__getattr__", "__dir__")  # registered fakes, and the module's own protocol
    ]
    assert not found, "\n" + "\n".join(found)


def test_modules_import_each_other_relatively():
    found = [
        f"{path}:{node.lineno}: from {node.module} import ..."
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "minillm"
        if path.name != "__main__.py"
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('x must be 1, not 2.')", 0),
        ("raise ValueError(f'x = {x} must be 1')", 1),
        ("return ConfigError('x must be 1, got 2.')", 1),
        (f"raise OSError({'word ' * 80 + 'end.'!r})", 1),
    ],
)
def test_what_counts_as_a_complaint(source, expected):
    tree = ast.parse(f"def f(x):\n    {source}")
    assert len(list(complaints(tree))) == expected
