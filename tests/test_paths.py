"""Every file that pages, chapters, docstrings and comments send a reader to is there.

A path (`minillm/data/packing.py`, `tests/bench/`, `training/presets/*.toml`) counts from the root of the repository,
from minillm/ or from the folder of the text. A bare name (`nn.py`) stands beside the text, in minillm/, tests/ or at
the root, in the room that a test is for, or in a folder that the same text names. What an `__init__.py` tells to read
stands beside it or in minillm/.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9]*.py"))
TOP = ("minillm", "kernels", "chapters", "tests", "data", ".github", ".vscode", ".ci")
PAGES = ("README.md", "chapters/*.md", "data/README.md", ".github/*.md", "tests/README.md", "tests/bench/*.md",
         ".vscode/launch.json", "pyproject.toml", ".pre-commit-config.yaml", ".ci/run")  # fmt: skip
CODE = ("minillm/**/*.py", "kernels/*.py", "chapters/**/*.py", "tests/**/*.py")

# Files of other projects and of Python, and what benchmarks write, by the names that a text calls them.
ELSEWHERE = {"tokenization.py", "encoder.py", "topics.py", "pydoc_data/topics.py"}
ELSEWHERE |= {"attention.md", "train.md", "summary.md"}

# A path, or a name that ends like a file of this repository; NAME.py and FILE.py are placeholders.
NAME = re.compile(r"(?<![\w./:~*-])(?:\$\{workspaceFolder\}/)?((?:[.\w*-]+/)+[.\w*-]*|[\w-]+\.(?:py|md|ipynb|sh)\b)")


def prose(path: Path, root: Path = ROOT) -> str:
    """What a person reads of a file, the rest blanked out: all of a page or a chapter; the docstrings and comments of
    tests; those of minillm, and what it prints."""
    text = path.read_text(encoding="utf-8")
    top = path.relative_to(root).parts[0]
    if path.suffix != ".py" or top == "chapters":
        return text
    lines, shown = text.splitlines(), {}
    for node in ast.walk(ast.parse(text)):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_string and top != "tests":
            shown.update({n: lines[n - 1] for n in range(node.lineno, node.end_lineno + 1)})
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            shown.update({n: lines[n - 1] for n in range(node.body[0].lineno, node.body[0].end_lineno + 1)})
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            shown.setdefault(token.start[0], token.string)
    return "\n".join(shown.get(n, "") for n in range(1, len(lines) + 1))


def is_ours(name: str) -> bool:
    """A name that claims to be a file or folder of this repository: by its ending, or by the folder that it begins
    with."""
    if "NAME" in name or name == "FILE.py" or name in ELSEWHERE or name.startswith(("http", "www.")):
        return False
    if "/" not in name:
        return True
    return name.split("/")[0] in TOP or name.endswith((".py", ".ipynb", ".md"))


def found(folder: Path, name: str) -> bool:
    """Whether a file, a folder or (with a *) anything of that name is in the folder."""
    name = name.rstrip("/.")
    return any(folder.glob(name)) if "*" in name else (folder / name).exists()


def missing_paths(path: Path, root: Path = ROOT) -> list[str]:
    """A sentence for each name in the file that leads nowhere."""
    text, here = prose(path, root), path.parent
    room = root.joinpath("minillm", *here.relative_to(root).parts[1:]) if here.is_relative_to(root / "tests") else here
    places = [root, root / "minillm", root / "tests", root / "tests/shared", here, room]
    names = [(text.count("\n", 0, m.start()) + 1, m[1]) for m in NAME.finditer(text) if is_ours(m[1])]
    for _, name in names:  # folders that the text itself names: "minillm/data/packing.py and batches.py"
        if "/" in name and "*" not in name:
            folder = name.rstrip("/.") if name.endswith("/") else name.rpartition("/")[0]
            places += [place / folder for place in (root, root / "minillm", here) if (place / folder).is_dir()]
    wrong = []
    for line, name in names:
        if name == "FILE.py":  # which stands for the reader's own
            continue
        strict = path.name == "__init__.py" and "/" not in name
        if not any(found(place, name) for place in ([here, root / "minillm"] if strict else places)):
            wrong.append(f"{path.relative_to(root)}:{line} names {name}, which is not there: correct the name.")
    return wrong


def texts(patterns: tuple[str, ...]) -> list[str]:
    return sorted({path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)})


@pytest.mark.parametrize("file", texts(PAGES))
def test_pages_name_files_that_exist(file):
    wrong = missing_paths(ROOT / file)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["minillm", "kernels", "chapters", "tests"])
def test_code_names_files_that_exist(folder):
    files = [file for file in texts(CODE) if file.startswith(f"{folder}/")]
    wrong = [sentence for file in files for sentence in missing_paths(ROOT / file)]
    assert files and not wrong, "\n".join(wrong)


def test_packages_are_the_folders():
    """pyproject.toml lists every package, and no other."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'^    "(minillm[.\w]*)",$', text, re.M))
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "minillm").rglob("__init__.py")}
    assert listed == folders | {"minillm.kernels", "minillm.workshop"}


def test_launch_entries_start_what_exists():
    text = (ROOT / ".vscode/launch.json").read_text(encoding="utf-8")
    entries = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))["configurations"]
    for entry in entries:
        program = entry.get("program", "${workspaceFolder}/" + entry.get("module", "").replace(".", "/") + ".py")
        assert Path(program.replace("${workspaceFolder}", str(ROOT))).is_file(), entry["name"]


def test_what_leads_nowhere_is_found(tmp_path):
    """The reading itself, on a made-up repository."""
    files = {
        "minillm/__init__.py": "",
        "minillm/tensor.py": "# see room/a.py and gone.py\nname = 'other.py'  # a.py: the room's, as named above\n",
        "minillm/room/__init__.py": '"""Read a.py, then b.py, then test_a.py; tensor.py."""\n',
        "minillm/room/a.py": '"""Of tensor.py; BERT\'s tokenization.py, minillm/room/*.py, https://x.y/tests/z.py."""\n',
        "tests/room/test_a.py": 'PATH = "tests/nothing.py"  # a.py, tests/nowhere/, minillm/room/\n',
        "README.md": "[a](minillm/room/a.py), `big/tokens.json`, ${workspaceFolder}/tests/room/test_a.py, "
        "`kernels/NAME.py`,\nminillm/b.py. chapters/*.py, hub/x.py",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    wrong = {file: missing_paths(tmp_path / file, tmp_path) for file in files}
    wrong = {file: [w.split(",")[0].partition(":")[2] for w in sentences] for file, sentences in wrong.items()}
    assert wrong == {
        "minillm/__init__.py": [],
        "minillm/tensor.py": ["1 names gone.py", "2 names other.py"],
        "minillm/room/__init__.py": ["1 names b.py", "1 names test_a.py"],
        "minillm/room/a.py": [],
        "tests/room/test_a.py": ["1 names tests/nowhere/"],
        "README.md": ["2 names minillm/b.py.", "2 names chapters/*.py", "2 names hub/x.py"],
    }


@pytest.mark.parametrize("chapter", CHAPTERS[1:], ids=lambda chapter: chapter.stem)
def test_the_code_says_which_chapter_derives_it(chapter: Path) -> None:
    """And the chapter names back at least one of the modules that say so, so that a reader finds both ways."""
    citing = [
        path
        for top in ("minillm", "kernels")
        for path in sorted((ROOT / top).rglob("*.py"))
        if f"chapters/{chapter.stem}.ipynb" in path.read_text(encoding="utf-8")
    ]
    assert citing, f"No file of the library names chapters/{chapter.stem}.ipynb."
    text = chapter.read_text(encoding="utf-8")
    rooms = {path.stem if path.stem != "__init__" else path.parent.name for path in citing}
    assert any(re.search(rf"\b{room}\b", text) for room in rooms), (sorted(rooms), chapter.name)
