"""What a value may be, and how large; how long a run may take.

text      at most TEXT characters, so that Python's own parser stays small
integers  at most BITS bits, asked of `a ** b` and `a << b` before they are computed
values    at most `size` numbers and characters, inner lists and all; asked of `s * n`, join, replace ... before
sets      at most HASHED elements, as dicts: numbers chosen to collide take n² steps
steps     one for each node of the tree and each item of a loop
depth     of nested expressions and calls, and of values
seconds   looked at on each step, of which the longest possible takes milliseconds
"""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

TEXT = 2_000  # characters of an expression or a function
BITS = 4_096  # of an integer: 1,233 digits
HASHED = 1_000
EXPRESSIONS, VALUES = 150, 50  # depth

Scope = dict[str, Any]


class ExecutionError(Exception):
    """Code that gave no value. `reason`: "syntax", "forbidden" (Python has it, this does not), "raised" (it raised an
    exception, which the message names), or the limit that it reached: "steps", "size", "depth" or "time"."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Stream:
    """Items that come one by one, once: what a generator expression, map, filter, zip, enumerate and reversed give."""

    source: Iterator[Any]


@dataclass(frozen=True, eq=False)
class Function:
    """A lambda or a def: its parameters, its body, and the names that it sees."""

    parameters: list[str]
    body: ast.expr | list[ast.stmt]
    scope: Scope


@dataclass(frozen=True)
class BuiltIn:
    """A function of functions.py, as a value: the `str` of map(str, xs)."""

    name: str


PLAIN = (bool, int, float, str, type(None), list, tuple, dict, set, range)
ITERABLE = (str, list, tuple, dict, set, range, Stream)


class Limits:
    """What is left of one run's limits, and the questions asked of every value."""

    def __init__(self, seconds: float, steps: int, size: int) -> None:
        self.deadline = time.monotonic() + seconds
        self.steps, self.size, self.depth = steps, size, 0

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise ExecutionError("this takes too many steps.", "steps")
        if time.monotonic() > self.deadline:
            raise ExecutionError("this takes too long.", "time")

    def room(self, n: int) -> None:
        """Raise before something of n numbers or characters is made."""
        if n > self.size:
            raise ExecutionError(
                f"a value of {str(n) if n < 1e18 else 'far too many'} items is beyond {self.size}.", "size"
            )

    def checked(self, value: Any) -> Any:
        """The value, if it may exist here and is not too large."""
        self.measure(value)
        return value

    def measure(self, value: Any, depth: int = 0) -> int:
        """How many numbers and characters a value holds: at most `size`."""
        kind, n = type(value), 1
        if kind is int and value.bit_length() > BITS:
            raise ExecutionError(f"an integer of {value.bit_length()} bits is beyond {BITS}.", "size")
        if kind not in PLAIN and kind not in (Stream, Function, BuiltIn):
            raise ExecutionError(f"values of type {kind.__name__} are not known here.", "forbidden")
        if kind in (str, range, list, tuple, dict, set):
            n += len(value)
            self.room(n - 1)
        if kind in (dict, set) and len(value) > HASHED:
            raise ExecutionError(f"a {kind.__name__} of {len(value)} elements is beyond {HASHED}.", "size")
        if depth > VALUES:
            raise ExecutionError("a value is nested too deeply.", "depth")
        for item in parts_of(value):
            n += self.measure(item, depth + 1) - 1
            self.room(n - 1)
        return n

    def plain(self, value: Any) -> Any:
        """The value, if it is data through and through: no function, nothing that gives its items one by one."""
        waiting = [self.checked(value)]
        while waiting:
            item = waiting.pop()
            if type(item) not in PLAIN:
                raise ExecutionError(f"a {type(item).__name__} is no value to return or to write.", "forbidden")
            waiting += parts_of(item)
        return value

    def items(self, value: Any) -> Iterator[Any]:
        """What a loop over the value gives, a step for each."""
        if type(value) not in ITERABLE:
            raise TypeError(f"{type(value).__name__!r} object is not iterable.")
        return self.stepped(value.source if isinstance(value, Stream) else value)

    def stepped(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.step()
            yield item

    def collect(self, items: Iterable[Any]) -> list[Any]:
        """They as a list, if there is room for them."""
        found, n = [], 0
        for item in items:
            found.append(item)
            n += self.measure(item)
            self.room(n)
        return found

    def hashed(self, kind: type, items: Iterable[Any]) -> Any:
        """They as a set or a dict, if there are few enough."""
        found = self.collect(items)
        if len(found) > HASHED:
            raise ExecutionError(f"a {kind.__name__} of {len(found)} elements is beyond {HASHED}.", "size")
        return self.checked(kind(found))


def parts_of(value: Any) -> Iterable[Any]:
    """What a list, tuple, set or dict holds; of a text or a range nothing."""
    if type(value) is dict:
        return [*value, *value.values()]
    return value if type(value) in (list, tuple, set) else ()
