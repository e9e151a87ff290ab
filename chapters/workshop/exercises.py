"""The check of an exercise: a verdict instead of a traceback; and what a reader may hand in."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


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
        raised = f"{type(error).__name__}: {error}"
        print(f"✗ Not yet. Your answer raised {raised}\n  in {line.name}: {line.line}")
    else:
        print("✓ Correct.")


def as_plain(answer: Any) -> Any:
    """A reader's answer as plain Python: arrays, Tensors, tuples, ranges and NumPy's numbers become lists and numbers.

    So a check compares what was meant: `(1, 2)`, `np.array([1, 2])` and `[1, 2]` are alike. Dictionaries keep their
    keys (a Counter becomes a dict), sets, strings, bytes and None stay.
    """
    answer = getattr(answer, "data", answer) if type(answer).__name__ in ("Tensor", "Parameter") else answer
    if isinstance(answer, np.generic | np.ndarray):
        return answer.tolist()
    if isinstance(answer, dict):
        return {key: as_plain(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple | range):
        return [as_plain(value) for value in answer]
    return answer


def as_mask(answer: Any) -> np.ndarray:
    """A mask as a boolean array: lists and tuples, and 0 and 1 in place of False and True, are taken.

    Raises AssertionError, which `check` shows, for any other values.
    """
    mask = np.asarray(answer)
    whole = mask.dtype == bool or (mask.dtype.kind in "iuf" and bool(np.isin(mask, (0, 1)).all()))
    assert whole, f"A mask holds True and False (or 1 and 0); yours has {mask.dtype} values such as {mask.flat[0]}."
    return mask.astype(bool)
