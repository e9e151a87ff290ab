"""Rewards: plain Python functions that say how good an answer is.

    def reward(answer: str, example: dict) -> float: ...

`example` is the record of the prompt with all its fields, as the user's file has them, and what is returned is a
number, True or False. A function with the attribute `batched = True` gets lists instead, of answers and of records, and
returns as many numbers: for what is slow one by one, as a reward model is.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Prompt
from ..data.fields import shown

Reward = Callable[..., Any]  # (answer, record) -> number; with `batched`: (answers, records) -> numbers


def load_reward(place: str) -> Reward:
    """The function that "FILE.py:function" names. The file is run, as the user's own code. Raises ValueError."""
    file, _, name = place.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"a reward is named as FILE.py:function, as in rewards.py:reward, not {place!r}.")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"the reward {place!r}: there is no file {file!r} (looked from {Path.cwd()}).")
    spec = importlib.util.spec_from_file_location(f"rewards_of_the_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # which only an unknown ending would make None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    sys.path.insert(0, str(path.resolve().parent))  # as for `python FILE.py`
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code: it can fail in any way
        raise ValueError(f"the reward {place!r}: {file} cannot be run: {told(error, path)}.") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        what = "has no function" if function is None else "has something that is no function under the name"
        raise ValueError(f"the reward {place!r}: {file} {what} {name!r}. Its functions: {', '.join(known) or 'none'}.")
    return function


class Rewards:
    """Several reward functions as one: the sum of what each gives, times its weight (1 by default)."""

    def __init__(self, functions: Sequence[Reward], weights: Sequence[float] | None = None) -> None:
        if not functions:
            raise ValueError("there must be a reward function: without one there is nothing to learn from.")
        self.functions = list(functions)
        self.weights = [1.0] * len(functions) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != len(self.functions) or not all(map(math.isfinite, self.weights)):
            raise ValueError(
                f"weights = {list(weights or [])} must be finite numbers, one for each of {len(functions)} rewards."
            )

    @property
    def names(self) -> list[str]:
        """What each is called in a log: its function's name, numbered where two have the same."""
        names = [getattr(function, "__name__", type(function).__name__) for function in self.functions]
        return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names, 1)]

    def __call__(self, answers: Sequence[str], prompts: Sequence[Prompt]) -> np.ndarray:
        """The reward of each answer to its prompt, (n,) float64. Raises ValueError, naming the prompt, where a function
        fails or gives what is no number."""
        return self.each(answers, prompts) @ np.array(self.weights)

    def each(self, answers: Sequence[str], prompts: Sequence[Prompt]) -> np.ndarray:
        """What each function gives for each answer, (n, functions) float64."""
        columns = [ask(function, name, answers, prompts) for function, name in zip(self.functions, self.names)]
        return np.stack(columns, axis=1)


def ask(function: Reward, name: str, answers: Sequence[str], prompts: Sequence[Prompt]) -> np.ndarray:
    """What one function gives, (n,) float64, checked."""
    if getattr(function, "batched", False):
        given = asked(function, name, list(answers), [dict(p.record) for p in prompts], prompts[0].where)
        try:
            values = list(given)
        except TypeError:
            values = [given]
        if len(values) != len(answers):
            raise ValueError(
                f"{prompts[0].where or 'a prompt'} and others: the reward {name!r} is batched and gave {len(values)} "
                f"values for {len(answers)} answers: it must return one number for each, in their order."
            )
    else:
        pairs = zip(answers, prompts)
        values = [asked(function, name, answer, dict(prompt.record), prompt.where) for answer, prompt in pairs]
    found = zip(values, answers, prompts)
    return np.array([number(value, name, answer, prompt) for value, answer, prompt in found], dtype=np.float64)


def asked(function: Reward, name: str, answer: Any, record: Any, where: str) -> Any:
    """What the user's function returns. Raises ValueError for whatever it raises."""
    try:
        return function(answer, record)
    except (Exception, SystemExit) as error:  # the user's code: an exit() in it would end the run without a word
        code = getattr(function, "__code__", None)
        file = Path(code.co_filename) if code is not None else None
        quoted = shown(answer) if isinstance(answer, str) else f"{len(answer)} answers"
        raise ValueError(
            f"{where or 'a prompt'}: the reward {name!r} raised {told(error, file)}, for {quoted}. Mend it: it must "
            "return a number whatever the answer is, as 0 for one that it cannot read."
        ) from error


def told(error: BaseException, file: Path | None) -> str:
    """ "ZeroDivisionError: division by zero (rewards.py, line 3)": the last place in the user's file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if file and Path(f.filename) == file]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    text = str(error.msg if isinstance(error, SyntaxError) else error).rstrip(".")
    place = f" ({file.name}, line {lines[-1]})" if file and lines else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def number(value: Any, name: str, answer: str, prompt: Prompt) -> float:
    """A reward as a float. Raises ValueError for what is no finite number."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # of NumPy or PyTorch
        value = value.item()
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    what = "None: does it end without a return?" if value is None else f"{shown(value)}."
    raise ValueError(
        f"{prompt.where or 'a prompt'}: the reward {name!r} must be a finite number, True or False, and for the answer "
        f"{shown(answer)} it is {what}"
    )
