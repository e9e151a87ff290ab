"""Jinja with limits: a template from a stranger ends, in seconds, and in the memory that a conversation may take.

Jinja's sandbox keeps a template from files and from Python, but not from three loops of `range(99999)` in one another,
`"a" * 10**10` or a macro that calls itself. Here a template's syntax tree is changed before it is compiled: each loop
and macro first looks at the clock, and what can make a large value from small ones is asked for its size before it is
made. No thread and no signal takes part, so that it works anywhere.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import jinja2.ext
import jinja2.parser
from jinja2 import nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

SECONDS = 5.0  # for one conversation
SIZE = 10_000_000  # characters or items of one value, and characters written
PARTS = 300_000  # of a value that is written out or compared as a whole: messages in lists, lists in lists
MEMORY = 1 << 29  # bytes of all values made on the way
DIGITS = 10_000  # bits of a whole number
WIDE = re.compile(r"\d{6,}|\*")  # a width in a format that fills memory with spaces
REPEATING = ("indent", "expandtabs", "wordwrap")  # they write something for each line, tab or word
WALKING = ("tojson", "string", "pprint", "urlencode", "sum", "list", "sort", "unique", "dictsort")


class TemplateLimit(Exception):
    """A template that goes on for too long, or makes too much: the message says of what."""


class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: transformers' tags around what the assistant says. What is in between
    is written as it is, with the environment's two marks at its ends; a `set` in it holds up to its end."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.Output([nodes.EnvironmentAttribute(name)], lineno=lineno) for name in ("begin_mark", "end_mark")
        )
        return nodes.Scope([begin, *body, end], lineno=lineno)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The environment for one rendering; the clock starts when it is made. marks: see `Generation`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, marks: tuple[str, str] = ("", "")) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, Generation],
            optimized=False,  # the optimizer computes constants without asking
            finalize=write,
        )
        self.begin_mark, self.end_mark = marks
        self.deadline = time.monotonic() + SECONDS
        self.made = self.written = 0
        for name in ("urlize", "xmlattr"):
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)  # Jinja's own is for web pages
        self.filters = {name: self.limited(name, function) for name, function in self.filters.items()}
        self.tests = {name: self.limited(name, function) for name, function in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = Limits().visit(super()._parse(source, name, filename))
        return tree.set_environment(self)

    def tick(self) -> bool:
        if time.monotonic() > self.deadline:
            raise TemplateLimit(f"it takes longer than {SECONDS:g} s")
        return True

    def counted(self, value: Any) -> Any:
        """A value that was just made, its memory counted."""
        self.tick()
        if isinstance(value, (str, list, tuple, dict)):
            self.made += sys.getsizeof(value)
            if self.made > MEMORY:
                raise TemplateLimit(f"it makes values of more than {MEMORY >> 20} MB")
        return value

    def bounded(self, value: Any) -> Any:
        """A value that is about to be compared."""
        if not isinstance(value, str):
            size_of(value)
        return value

    def joined(self, *parts: Any) -> str:
        """What `~` makes."""
        check_size(sum(map(size_of, parts)))
        return self.counted("".join(map(str, parts)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
        return self.counted(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.tick()
        method = getattr(__obj, "__wrapped__", __obj)  # str.format, which the sandbox wraps
        check_growth(getattr(method, "__name__", ""), getattr(method, "__self__", None), (*args, *kwargs.values()))
        result = super().call(__context, __obj, *args, **kwargs)
        return __self.counted(result) if isinstance(getattr(method, "__self__", None), (str, bytes)) else result

    def limited(self, name: str, function: Any) -> Callable[..., Any]:
        """A filter or test that asks first. (Its first argument may be the environment or the context.)"""
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            before, value, rest = args[:skipped], args[skipped], args[skipped + 1 :]
            if name == "join":
                value = list(value)
            check_growth(name, value, (*rest, *kwargs.values()))
            result = function(*before, value, *rest, **kwargs)
            return result if result is value else self.counted(result)

        return checked


@functools.lru_cache(maxsize=16)
def compiled(source: str) -> CodeType:
    """The program that a template is. It is the same for every rendering: the environment comes with the rendering."""
    return LimitedEnvironment().compile(source)


@pass_context
def write(context: Any, value: Any) -> str:
    """What becomes of a value, or of the text between the braces, where it is written out."""
    environment = context.environment
    environment.tick()
    environment.written += size_of(value)
    check_size(environment.written)
    return value if isinstance(value, str) else str(value)


class Limits(NodeTransformer):
    """The syntax tree with a look at the clock in each loop and macro, and calls in place of what can't be asked."""

    def asking(self, name: str, *args: nodes.Expr) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=1)

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self.asking("tick"), lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(self.asking("tick"), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self.asking("tick"), lineno=node.lineno))
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Const:
        return nodes.Const(node.data, lineno=node.lineno)  # which is written by `write`

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return self.asking("joined", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = self.asking("bounded", node.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return self.asking("counted", node) if isinstance(node.arg, nodes.Slice) else node


def check_size(size: int) -> None:
    if size > SIZE:
        raise TemplateLimit(f"it makes more than {SIZE:,} characters or items")


def size_of(value: Any) -> int:
    """About how many characters a value takes when it is written out; what stands in it twice counts twice."""
    if isinstance(value, str):
        return len(value)
    size, parts, waiting = 0, 0, [value]
    while waiting:
        part = waiting.pop()
        parts += 1
        if parts + len(waiting) > PARTS:
            raise TemplateLimit(f"it writes out or compares a value of more than {PARTS:,} parts")
        if isinstance(part, Namespace):
            part = object.__getattribute__(part, "_Namespace__attrs")
        if isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += part
        size += len(part) if isinstance(part, str) else 1
        check_size(size)
    return size


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Raise TemplateLimit for an operation whose result would be too large."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if operator in ("*", "**") and bits > DIGITS:
            raise TemplateLimit(f"it makes a number of more than {DIGITS:,} bits")
    elif operator == "%" and isinstance(left, str):
        check_growth("format", left, (right,))
    elif operator in ("*", "+"):
        sizes = [len(part) if isinstance(part, (str, list, tuple)) else None for part in (left, right)]
        if operator == "+" and None not in sizes:
            check_size(len(left) + len(right))
        elif operator == "*" and sizes != [None, None]:
            counts = [part if size is None else size for part, size in zip((left, right), sizes)]
            check_size(counts[0] * counts[1] if all(isinstance(n, int) for n in counts) else 0)


def check_growth(name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Raise TemplateLimit before a filter or a method makes a value that is too large."""
    numbers = [abs(n) for n in args if isinstance(n, int)]
    check_size(max(numbers, default=0))
    texts = [text for text in args if isinstance(text, str)]
    if name in WALKING:
        size_of(value)
    if not isinstance(value, (str, list)):
        return
    if name in REPEATING:
        check_size(len(value) * max([8, *numbers, *map(len, texts)]))
    elif name == "replace" and isinstance(value, str) and len(texts) >= 2:
        check_size(len(value) + value.count(texts[0]) * len(texts[1]))
    elif name == "join":
        parts, between = (value, args[:1]) if isinstance(value, list) else (args[0] if args else (), (value,))
        items = parts if isinstance(parts, (list, tuple)) else ()
        check_size(size_of(items) + len(items) * sum(map(size_of, between)))
    elif name in ("format", "format_map") and isinstance(value, str):
        if WIDE.search(value):
            raise TemplateLimit(f"it formats by {value:.50}, wider than a line")
        check_size(len(value) + (value.count("%") + value.count("{")) * size_of(args))
