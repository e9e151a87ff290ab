"""What pyproject.toml can't say: where the clone is called minillm, too, `import minillm` finds the package in it also
from the clone's parent folder.

Python looks in a script's own folder first. A folder minillm without an __init__.py counts as a package there, an
empty one, and setuptools' hook of an editable install is asked only where there is none at all. So one more is
installed with it, which is asked first and speaks up for that one case.
"""

from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel

HOOK = '''"""`import minillm` means the package, not a folder of that name without one: see setup.py of minillm."""

import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

INIT = {init!r}


class NotTheFolder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "minillm":
            return None
        found = PathFinder.find_spec(name)
        return spec_from_file_location(name, INIT) if found is not None and found.origin is None else None


sys.meta_path.insert(0, NotTheFolder)
'''


class EditableWheel(editable_wheel):
    def _run_build_commands(self, dist_name: str, unpacked_wheel: Any, *args: Any) -> Any:
        init = Path(__file__).resolve().parent / "minillm" / "__init__.py"
        Path(unpacked_wheel, "_minillm_in_clone.py").write_text(HOOK.format(init=str(init)), encoding="utf-8")
        Path(unpacked_wheel, "_minillm_in_clone.pth").write_text("import _minillm_in_clone\n", encoding="utf-8")
        return super()._run_build_commands(dist_name, unpacked_wheel, *args)


setup(cmdclass={"editable_wheel": EditableWheel})
