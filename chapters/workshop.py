"""What every chapter needs besides the library: the scale, the versions, a progress bar, a check for exercises, finite
differences, a debugger to watch."""

from __future__ import annotations

import io
import os
import pdb
import platform
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import minillm
import numpy as np
from tqdm import tqdm

Item = TypeVar("Item")

SCALES = ("smoke", "cpu", "gpu")


def read_scale() -> str:
    """How much a chapter computes, from the environment variable MINILLM_SCALE: "smoke" (seconds, for tests), "cpu"
    (the default: minutes on a laptop) or "gpu" (as much as is worth it on a large machine)."""
    scale = os.environ.get("MINILLM_SCALE", "cpu")
    if scale not in SCALES:
        raise ValueError(
            f"MINILLM_SCALE = {scale!r}: choose one of {', '.join(SCALES)}, or leave it unset for 'cpu'."
        )
    return scale


def show_versions(scale: str) -> None:
    """Print what the numbers of a chapter depend on."""

    print(
        f"minillm {minillm.__version__}, NumPy {np.__version__}, Python {platform.python_version()}, scale: {scale}"
    )


def progress(items: Iterable[Item], title: str) -> Iterable[Item]:
    """The items, with a bar that tells how many are done, the rate and the time left, and that goes when all are.

    build.py turns it off (by TQDM_DISABLE): a committed notebook shows results only.
    """
    return tqdm(items, title, leave=False)


@contextmanager
def check() -> Iterator[None]:
    """Run the checks of an exercise and print a verdict. A failed check does not stop the rest of the notebook.

    Inside stand lines such as `assert condition, "what is wrong and where to look"`; any other exception is reported as
    coming from the answer.
    """
    try:
        yield
    except AssertionError as error:
        print(f"✗ Not yet. {error or 'A check failed; it gave no reason.'}")
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"✗ Not yet. Your answer raised {type(error).__name__}: {error}\n  in {line.name}: {line.line}"
        )
    else:
        print("✓ Correct.")


def numerical_gradient(loss: Callable[[], float], x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """dL/dx by central differences, two calls of `loss` for each element of x (float64, changed in place and restored).

    Chapter 02 derives it and shows why eps = 1e-6.
    """
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + eps
        above = loss()
        x[index] = kept - eps
        below = loss()
        x[index] = kept
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def type_into_debugger(statement: str, commands: list[str], namespace: dict[str, object]) -> str:
    """What Python's debugger (pdb) shows when `statement` runs and `commands` are typed: the lines as on a screen,
    without the folders that files lie in and the debugger's own frames."""
    # In a notebook, pdb.Pdb is IPython's debugger, whose colours are no text. Python's own stands behind it.
    plain = next(kind for kind in pdb.Pdb.__mro__ if kind.__module__ == "pdb")

    class Typed(plain):
        def precmd(self, line: str) -> str:
            print("(Pdb)", line, file=self.stdout)
            return super().precmd(line)

    screen = io.StringIO()
    typed = io.StringIO("\n".join([*commands, "continue"]) + "\n")
    debugger = Typed(stdin=typed, stdout=screen, nosigint=True, readrc=False)
    debugger.prompt = ""
    debugger.run(statement, namespace, namespace)
    shown = re.sub(
        r"^.*bdb\.py\(.*\n.*\n|^.*<string>.*\n|^Deleted .*\n",
        "",
        screen.getvalue(),
        flags=re.MULTILINE,
    )
    shown = shown.replace(str(Path(minillm.__file__).parents[1]) + os.sep, "")  # which may have a space in it
    return shown.removesuffix("(Pdb) continue\n").rstrip()
