"""`pip install -e .` in a clone called minillm, as the README has it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIND = """
import importlib.util, site, sys
site.addsitedir(sys.argv[1])
print(importlib.util.find_spec("minillm").origin)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in a folder with a space, and beside it what an editable install puts into site-packages."""
    parent = tmp_path_factory.mktemp("my projects")
    ignored = shutil.ignore_patterns("__pycache__", "*.ipynb", "made", "tasks", "*.egg-info")
    for folder in ("minillm", "kernels", "chapters/workshop"):
        shutil.copytree(ROOT / folder, parent / "minillm" / folder, ignore=ignored)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / file, parent / "minillm" / file)
    for package in ("minillm/data/tasks", "minillm/data/tasks/execution"):
        (parent / "minillm" / package).mkdir(exist_ok=True)
    build = "from setuptools.build_meta import build_editable; build_editable('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=parent / "minillm", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(parent / "site")
    return parent / "minillm"


@pytest.mark.parametrize("place", [".", "..", "../elsewhere", "chapters"])
def test_minillm_is_found_from_any_folder(clone, place):
    """`-S`: nothing else is installed there. From the clone's parent, the clone is a folder of that name."""
    here = clone / place
    here.mkdir(exist_ok=True)
    script = here / "script.py"
    script.write_text(FIND)
    run_it = [sys.executable, "-S", script.name, str(clone.parent / "site")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(run_it, cwd=here, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(clone / "minillm" / "__init__.py"), done.stderr


def test_another_package_of_that_name_comes_first_where_there_is_one(clone, tmp_path):
    """As in a second clone: what is run there is that one, not the one that is installed."""
    (tmp_path / "minillm").mkdir()
    (tmp_path / "minillm" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text(FIND)
    run_it = [sys.executable, "-S", "script.py", str(clone.parent / "site")]
    done = subprocess.run(run_it, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "minillm" / "__init__.py"), done.stderr
