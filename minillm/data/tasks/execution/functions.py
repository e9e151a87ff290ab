"""The functions and methods that code may call. None of them changes a value, reaches an attribute, or makes something
large before it has asked for room."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from .limits import BITS, BuiltIn, ExecutionError, Limits, Stream

SAFE: dict[str, Callable] = {  # of Python's own, those that are quick and small whatever they are given
    "abs": abs, "bin": bin, "bool": bool, "chr": chr, "divmod": divmod, "float": float, "hex": hex, "len": len,
    "oct": oct, "ord": ord,
}  # fmt: skip

TEXTS = (
    "capitalize casefold center count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust "
    "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
)
SETS = "difference intersection isdisjoint issubset issuperset symmetric_difference union"
METHODS: dict[type, list[str]] = {
    str: TEXTS.split(),
    list: ["count", "index"],
    tuple: ["count", "index"],
    dict: ["get", "items", "keys", "values"],
    set: SETS.split(),
}

BINARY: dict[type, Callable] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.BitAnd: operator.and_,
}  # fmt: skip


class Calls(Limits):
    """Calls of built-in functions and of methods, and arithmetic."""

    def apply(self, function: Any, values: list[Any], named: dict[str, Any]) -> Any:
        """function(*values, **named)."""
        if not isinstance(function, BuiltIn):
            raise TypeError(f"{type(function).__name__!r} object is not callable.")
        if function.name in SAFE:
            return self.checked(SAFE[function.name](*values, **named))
        return self.checked(BUILT_IN[function.name](self, *values, **named))

    def operate(self, kind: type, a: Any, b: Any) -> Any:
        """a + b and its siblings, after a look at how large the result would be."""
        if kind not in BINARY or (kind is ast.Mod and isinstance(a, str)):  # "%9999999d" % 1
            raise ExecutionError(f"{kind.__name__} is not allowed for {type(a).__name__}.", "forbidden")
        if kind is ast.Mult:
            for times, several in ((a, b), (b, a)):
                if isinstance(times, int) and isinstance(several, str | list | tuple):
                    self.room(self.measure(several) * times)
        if isinstance(a, int) and isinstance(b, int):
            if kind is ast.Pow and abs(a) > 1 and a.bit_length() * b > 2 * BITS:
                raise ExecutionError(f"{str(a)[:20]} ** {str(b)[:20]} is beyond {BITS} bits.", "size")
            if kind is ast.LShift and b > BITS:
                raise ExecutionError(f"<< {str(b)[:20]} is beyond {BITS} bits.", "size")
        return self.checked(BINARY[kind](a, b))

    def method(self, value: Any, name: str, values: list[Any], named: dict[str, Any]) -> Any:
        """value.name(*values, **named), of a method in METHODS."""
        if name == "join":
            values = [self.collect(self.items(one)) for one in values]
            self.room(len(value) * sum(map(len, values)))
        elif name == "replace" and len(values) > 1:
            self.room(len(value) + value.count(values[0]) * len(values[1]))
        elif name in ("center", "ljust", "rjust", "zfill") and values and isinstance(values[0], int):
            self.room(values[0])
        elif type(value) is set:
            values = [self.hashed(set, self.items(one)) for one in values]
        result = getattr(value, name)(*values, **named)
        return self.checked(list(result) if name in ("items", "keys", "values") else result)

    # --- built-in functions ------------------------------------------------------------------------------------------

    def to_int(self, x: Any = 0, *base: Any) -> int:
        if isinstance(x, str) and len(x) > BITS // 4:
            raise ExecutionError(f"int of {len(x)} characters is beyond {BITS} bits.", "size")
        return int(x, *base)

    def to_str(self, x: Any = "") -> str:
        return str(self.plain(x))

    def to_repr(self, x: Any) -> str:
        return repr(self.plain(x))

    def to_list(self, items: Any = ()) -> list[Any]:
        return self.collect(self.items(items))

    def to_tuple(self, items: Any = ()) -> tuple[Any, ...]:
        return tuple(self.collect(self.items(items)))

    def to_set(self, items: Any = ()) -> set[Any]:
        return self.hashed(set, self.items(items))

    def to_dict(self, items: Any = ()) -> dict[Any, Any]:
        return self.hashed(dict, items.items() if isinstance(items, dict) else map(self.pair, self.items(items)))

    def pair(self, items: Any) -> list[Any]:
        found = self.to_list(items)
        if len(found) != 2:
            raise ValueError(f"dict() takes pairs, not {len(found)} values.")
        return found

    def to_range(self, *bounds: int) -> range:
        found = range(*bounds)
        if found and (found[-1] - found[0]) // found.step >= self.size:  # its len() may be more than Python can say
            self.room((found[-1] - found[0]) // found.step + 1)
        return found

    def total(self, items: Any, start: Any = 0) -> Any:
        if isinstance(start, str):
            raise TypeError("sum() takes no strings: use ''.join(...).")
        for item in self.items(items):
            start = self.operate(ast.Add, start, item)
        return start

    def any_true(self, items: Any) -> bool:
        return any(self.items(items))

    def all_true(self, items: Any) -> bool:
        return all(self.items(items))

    def keys_of(self, found: list[Any], key: Any) -> list[Any]:
        """What `found` is compared by."""
        return found if key is None else self.collect(self.apply(key, [item], {}) for item in found)

    def in_order(self, items: Any, *, key: Any = None, reverse: Any = False) -> list[Any]:
        found = self.to_list(items)
        order = sorted(range(len(found)), key=self.keys_of(found, key).__getitem__, reverse=bool(reverse))
        return [found[i] for i in order]

    def least(self, *values: Any, **options: Any) -> Any:
        return self.extreme(min, values, **options)

    def largest(self, *values: Any, **options: Any) -> Any:
        return self.extreme(max, values, **options)

    def extreme(self, choose: Callable, values: tuple[Any, ...], key: Any = None, **default: Any) -> Any:
        found = self.to_list(values[0]) if len(values) == 1 else list(values)
        if not found and [*default] == ["default"]:
            return default["default"]
        if default.keys() - {"default"}:
            raise TypeError(f"{choose.__name__}() has no argument {next(iter(default))}")
        return found[choose(range(len(found)), key=self.keys_of(found, key).__getitem__)]

    def pairs(self, *many: Any) -> Stream:
        return Stream(zip(*map(self.items, many)))

    def numbered(self, items: Any, start: int = 0) -> Stream:
        return Stream(enumerate(self.items(items), start))

    def mapped(self, function: Any, *many: Any) -> Stream:
        return Stream(self.apply(function, list(row), {}) for row in zip(*map(self.items, many)))

    def filtered(self, function: Any, items: Any) -> Stream:
        return Stream(x for x in self.items(items) if (x if function is None else self.apply(function, [x], {})))

    def backwards(self, items: Any) -> Stream:
        if type(items) not in (str, list, tuple, range, dict):
            raise TypeError(f"{type(items).__name__!r} object is not reversible.")
        return Stream(reversed(items))

    def rounded(self, x: Any, digits: int | None = None) -> Any:
        if digits is not None and abs(digits) > BITS // 4:  # of an integer it would compute 10 ** −digits
            raise ExecutionError(f"round to {str(digits)[:20]} digits is beyond {BITS // 4}.", "size")
        return round(x, digits)

    def power(self, a: Any, b: Any, *modulus: int) -> Any:
        return pow(a, b, *modulus) if modulus else self.operate(ast.Pow, a, b)


BUILT_IN: dict[str, Callable] = {
    "all": Calls.all_true, "any": Calls.any_true, "dict": Calls.to_dict, "enumerate": Calls.numbered,
    "filter": Calls.filtered, "int": Calls.to_int, "list": Calls.to_list, "map": Calls.mapped, "max": Calls.largest,
    "min": Calls.least, "pow": Calls.power, "range": Calls.to_range, "repr": Calls.to_repr,
    "reversed": Calls.backwards, "round": Calls.rounded, "set": Calls.to_set, "sorted": Calls.in_order,
    "str": Calls.to_str, "sum": Calls.total, "tuple": Calls.to_tuple, "zip": Calls.pairs,
}  # fmt: skip
