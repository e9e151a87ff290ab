"""Looking at code while it runs: finite differences of a loss, and a debugger to watch."""

from __future__ import annotations

import io
import os
import pdb
import re
import site
from collections.abc import Callable
from pathlib import Path

import minillm
import numpy as np


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
    for folder in (*site.getsitepackages(), str(Path(minillm.__file__).parents[1])):  # which may have a space in it
        shown = shown.replace(folder + os.sep, "")
    return shown.removesuffix("(Pdb) continue\n").rstrip()
