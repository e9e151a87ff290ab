"""Expressions and small functions, evaluated node by node; `evaluate`, `call` and `passes` are the doors."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .functions import BUILT_IN, METHODS, SAFE, Calls
from .limits import EXPRESSIONS, TEXT, BuiltIn, ExecutionError, Function, Scope, Stream


def evaluate(
    expression: str,
    variables: Mapping[str, Any] | None = None,
    *,
    seconds: float = 1.0,
    steps: int = 100_000,
    size: int = 10_000,
) -> Any:
    """The value of a Python expression over numbers, strings, lists, tuples, dicts and sets.

    It may use `variables` (of those types), arithmetic, comparisons, `and or not`, `a if b else c`, indices and slices,
    comprehensions, lambda, f-strings without a format, and the functions and methods of functions.py. Values are
    Python's, but that dict.items() and its siblings give a list. Raises ExecutionError, whatever the expression is, and
    ValueError for variables of other types or beyond `size`. The limits: see limits.py.

    >>> evaluate("sum(x * x for x in xs if x % 2)", {"xs": [1, 2, 3]})
    10
    >>> evaluate("10 ** 10 ** 10")
    Traceback (most recent call last):
    minillm.data.tasks.execution.limits.ExecutionError: 10 ** 10000000000 is beyond 4096 bits.
    """
    run = Run(seconds, steps, size)
    return run.guarded(expression, "eval", run.variables(variables or {}))


def call(
    source: str, arguments: Mapping[str, Any], *, seconds: float = 1.0, steps: int = 100_000, size: int = 10_000
) -> Any:
    """What a function returns, from the text of its `def`, called with `arguments` by name. Its body may assign to
    names, branch with `if` and return; the rest is as in `evaluate`.

    >>> call("def f(n):\\n    return 1 if n < 2 else n * f(n - 1)", {"n": 5})
    120
    """
    run = Run(seconds, steps, size)
    return run.guarded(source, "exec", run.variables(arguments))


def passes(completion: str, tests: Sequence[tuple[Mapping[str, Any], Any]], **limits: Any) -> bool:
    """Whether an expression, or a `def`, gives what is expected in each test, (variables, expected), compared with `==`
    as in `assert f(x) == y`. Code that gives no value fails. `limits`: those of `evaluate`, for each test. Raises
    ValueError without tests.

    >>> passes("a + b", [({"a": 1, "b": 2}, 3), ({"a": 0, "b": 0}, 0)])
    True
    """
    if not tests:
        raise ValueError("passes needs at least one test: without any, everything would pass.")
    run = call if completion.lstrip().startswith("def ") else evaluate
    try:
        return all(bool(run(completion, variables, **limits) == expected) for variables, expected in tests)
    except ExecutionError:
        return False


class Run(Calls):
    """One evaluation."""

    def variables(self, values: Mapping[str, Any]) -> Scope:
        """The caller's values, checked."""
        try:
            return dict(self.plain(dict(values)))
        except ExecutionError as error:
            raise ValueError(f"the variables cannot be used: {error}") from error

    def guarded(self, text: str, mode: str, scope: Scope) -> Any:
        """Parse and run `text`; whatever it is, plain data or an ExecutionError."""
        if len(text) > TEXT:
            raise ExecutionError(f"{len(text)} characters are beyond {TEXT}.", "size")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes, of ~True
                tree: Any = ast.parse(text.strip(), mode=mode)
                value = self.value(tree.body, scope) if mode == "eval" else self.define(tree.body, scope)
                return self.plain(value)
        except SyntaxError as error:
            raise ExecutionError(f"this is no Python: {error.msg}.", "syntax") from error
        except (RecursionError, MemoryError) as error:
            raise ExecutionError("this is nested too deeply.", "depth") from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ExecutionError(f"{type(error).__name__}: {str(error)[:200].rstrip('.')}.", "raised") from error

    # --- expressions ------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, scope: Scope) -> Any:
        """The value of one node of the tree: the method for its kind, among NODES."""
        self.step()
        if type(node) not in NODES:
            raise ExecutionError(f"{type(node).__name__} is not allowed here.", "forbidden")
        self.depth += 1
        try:
            if self.depth > EXPRESSIONS:
                raise ExecutionError("this is nested too deeply.", "depth")
            return NODES[type(node)](self, node, scope)
        finally:
            self.depth -= 1

    def constant(self, node: ast.Constant, scope: Scope) -> Any:
        return self.checked(node.value)

    def name(self, node: ast.Name, scope: Scope) -> Any:
        if node.id in scope:
            return scope[node.id]
        if node.id in BUILT_IN or node.id in SAFE:
            return BuiltIn(node.id)
        raise ExecutionError(f"{node.id!r} is no variable, and none of the functions known here.", "forbidden")

    def elements(self, nodes: Iterable[ast.expr], scope: Scope) -> list[Any]:
        """The values of a list's or a call's parts, `*xs` spread out."""
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += self.collect(self.items(self.value(node.value, scope)))
            else:
                found.append(self.value(node, scope))
        return found

    def list_display(self, node: ast.List, scope: Scope) -> list[Any]:
        return self.checked(self.elements(node.elts, scope))

    def tuple_display(self, node: ast.Tuple, scope: Scope) -> tuple[Any, ...]:
        return self.checked(tuple(self.elements(node.elts, scope)))

    def set_display(self, node: ast.Set, scope: Scope) -> set[Any]:
        return self.hashed(set, self.elements(node.elts, scope))

    def dict_display(self, node: ast.Dict, scope: Scope) -> dict[Any, Any]:
        if None in node.keys:
            raise ExecutionError("** is not allowed here.", "forbidden")
        keys = [self.value(key, scope) for key in node.keys if key is not None]
        return self.checked(dict(zip(keys, (self.value(value, scope) for value in node.values))))

    def unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return self.checked(UNARY[type(node.op)](self.value(node.operand, scope)))

    def binary(self, node: ast.BinOp, scope: Scope) -> Any:
        return self.operate(type(node.op), self.value(node.left, scope), self.value(node.right, scope))

    def logic(self, node: ast.BoolOp, scope: Scope) -> Any:
        stop_at = isinstance(node.op, ast.Or)
        for part in node.values:
            value = self.value(part, scope)
            if bool(value) is stop_at:
                break
        return value

    def comparison(self, node: ast.Compare, scope: Scope) -> bool:
        left = self.value(node.left, scope)
        for op, part in zip(node.ops, node.comparators):
            right = self.value(part, scope)
            if not COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def choice(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.value(node.body if self.value(node.test, scope) else node.orelse, scope)

    def subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            index: Any = slice(*(part and self.value(part, scope) for part in parts))
        else:
            index = self.value(node.slice, scope)
        if type(value) not in (str, list, tuple, dict, range):
            raise TypeError(f"{type(value).__name__!r} object is not subscriptable.")
        return self.checked(value[index])

    def f_string(self, node: ast.JoinedStr, scope: Scope) -> str:
        parts = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                if part.format_spec is not None:  # f"{1:9999999}"
                    raise ExecutionError("a format inside an f-string is not allowed.", "forbidden")
                value = self.plain(self.value(part.value, scope))
                parts.append(WRITTEN[part.conversion](value))
            else:
                parts.append(self.value(part, scope))
        return self.checked("".join(parts))

    # --- comprehensions ---------------------------------------------------------------------------------------------

    def loops(self, generators: list[ast.comprehension], scope: Scope) -> Iterator[None]:
        """What runs `for ... if ... for ...`, with its names in `scope`, and yields where the element is to be
        computed. What the first `for` goes over is computed at once, as in Python, the rest when it is asked for."""
        if generators[0].is_async:
            raise ExecutionError("async is not allowed here.", "forbidden")
        return self.rounds(self.items(self.value(generators[0].iter, scope)), generators, scope)

    def rounds(self, items: Iterator[Any], generators: list[ast.comprehension], scope: Scope) -> Iterator[None]:
        first, *rest = generators
        for item in items:
            self.bind(first.target, item, scope)
            if all(self.value(test, scope) for test in first.ifs):
                if rest:
                    yield from self.loops(rest, scope)
                else:
                    yield

    def bind(self, target: ast.expr, item: Any, scope: Scope) -> None:
        """target = item."""
        if isinstance(target, ast.Name):
            scope[target.id] = item
        elif isinstance(target, ast.Tuple | ast.List):
            parts = self.collect(self.items(item))
            if len(parts) != len(target.elts):
                raise ValueError(f"cannot unpack {len(parts)} values into {len(target.elts)} names.")
            for inner, part in zip(target.elts, parts):
                self.bind(inner, part, scope)
        else:
            raise ExecutionError("only names can be assigned to.", "forbidden")

    def generator(self, node: Any, scope: Scope) -> Stream:
        inner = dict(scope)
        loops = self.loops(node.generators, inner)
        return Stream(self.value(node.elt, inner) for _ in loops)

    def list_comprehension(self, node: ast.ListComp, scope: Scope) -> list[Any]:
        return self.checked(self.collect(self.generator(node, scope).source))

    def set_comprehension(self, node: ast.SetComp, scope: Scope) -> set[Any]:
        return self.hashed(set, self.generator(node, scope).source)

    def dict_comprehension(self, node: ast.DictComp, scope: Scope) -> dict[Any, Any]:
        inner = dict(scope)
        loops = self.loops(node.generators, inner)
        return self.hashed(dict, ((self.value(node.key, inner), self.value(node.value, inner)) for _ in loops))

    # --- calls and functions ----------------------------------------------------------------------------------------

    def call(self, node: ast.Call, scope: Scope) -> Any:
        method = node.func if isinstance(node.func, ast.Attribute) else None
        called = self.value(method.value if method else node.func, scope)
        if method and method.attr not in METHODS.get(type(called), ()):
            raise ExecutionError(f"{type(called).__name__} has no {method.attr} here.", "forbidden")
        values, named = self.elements(node.args, scope), {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ExecutionError("** is not allowed here.", "forbidden")
            named[keyword.arg] = self.value(keyword.value, scope)
        return self.method(called, method.attr, values, named) if method else self.apply(called, values, named)

    def apply(self, function: Any, values: list[Any], named: dict[str, Any]) -> Any:
        """function(*values, **named)."""
        if not isinstance(function, Function):
            return super().apply(function, values, named)
        given = dict(zip(function.parameters, values))
        if len(values) > len(function.parameters) or {*given, *named} != {*function.parameters} or given.keys() & named:
            raise TypeError(f"a function of ({', '.join(function.parameters)}) was given other arguments.")
        scope = {**function.scope, **given, **named}
        if isinstance(function.body, list):
            returned = self.statements(function.body, scope)
            return returned[0] if returned else None
        return self.value(function.body, scope)

    def function(self, node: ast.Lambda, scope: Scope) -> Function:
        return Function(names_of(node.args), node.body, scope)

    def define(self, body: list[ast.stmt], arguments: Scope) -> Any:
        """Call the one function that a text defines."""
        if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].decorator_list:
            raise ExecutionError("there must be one function and nothing else.", "forbidden")
        definition, scope = body[0], Scope()
        scope[definition.name] = Function(names_of(definition.args), definition.body, scope)
        return self.apply(scope[definition.name], [], arguments)

    def statements(self, body: list[ast.stmt], scope: Scope) -> list[Any]:
        """Run them; [what is returned], or [] at their end."""
        for node in body:
            self.step()
            if isinstance(node, ast.Return):
                return [node.value and self.value(node.value, scope)]
            if isinstance(node, ast.If):
                branch = node.body if self.value(node.test, scope) else node.orelse
                if returned := self.statements(branch, scope):
                    return returned
            elif isinstance(node, ast.Assign):
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.bind(target, value, scope)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # a docstring
                raise ExecutionError(f"{type(node).__name__} is not allowed in a function here.", "forbidden")
        return []


def names_of(parameters: ast.arguments) -> list[str]:
    """The names of plain parameters."""
    others = (
        *parameters.posonlyargs,
        *parameters.kwonlyargs,
        *parameters.defaults,
        parameters.vararg,
        parameters.kwarg,
    )
    if any(others):
        raise ExecutionError("parameters must be names, without defaults or stars.", "forbidden")
    return [parameter.arg for parameter in parameters.args]


def contained(a: Any, b: Any) -> bool:
    return operator.contains(b, a)


def not_contained(a: Any, b: Any) -> bool:
    return not operator.contains(b, a)


WRITTEN: dict[int, Callable[[Any], str]] = {-1: str, ord("s"): str, ord("r"): repr, ord("a"): ascii}

UNARY: dict[type, Callable] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert, ast.Not: operator.not_,
}  # fmt: skip

COMPARE: dict[type, Callable] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: contained, ast.NotIn: not_contained, ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip

NODES: dict[type, Callable] = {
    ast.Constant: Run.constant, ast.Name: Run.name, ast.List: Run.list_display, ast.Tuple: Run.tuple_display,
    ast.Set: Run.set_display, ast.Dict: Run.dict_display, ast.UnaryOp: Run.unary, ast.BinOp: Run.binary,
    ast.BoolOp: Run.logic, ast.Compare: Run.comparison, ast.IfExp: Run.choice, ast.Subscript: Run.subscript,
    ast.JoinedStr: Run.f_string, ast.GeneratorExp: Run.generator, ast.ListComp: Run.list_comprehension,
    ast.SetComp: Run.set_comprehension, ast.DictComp: Run.dict_comprehension, ast.Call: Run.call,
    ast.Lambda: Run.function,
}  # fmt: skip
