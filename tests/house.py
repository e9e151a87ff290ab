"""The house, drawn from the imports: `python tests/house.py`.

A room is a flat file of minillm/ or one of its packages; kernels/ is the room `minillm.kernels`, chapters/workshop/ the
room `minillm.workshop`. An arrow says that one room imports from another: at the top of a file, inside a function, or
for types only (under TYPE_CHECKING). FLOORS is the declared order. tests/test_house.py fails on an arrow that runs back
up and on a circle of files.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Lowest first. A room imports from lower floors only; rooms that stand side by side don't import each other.
FLOORS = (
    ("__init__", "settings", "disk", "debug"),  # the ground; Python runs __init__ before any other file
    ("metrics",),
    ("tensor_methods", "tokenizers", "data", "kernels"),
    ("tensor_functions",),
    ("tensor",),
    ("numpy_ops", "torch_ops"),
    ("ops",),
    ("nn",),
    ("models",),
    ("costs", "port", "optim", "generate"),
    ("interpret",),
    ("plot", "engines", "beam", "responsible"),
    ("training",),
    ("finetune",),
    ("assistant",),
    ("hub",),
    ("commands", "workshop"),
    ("__main__",),
)

TOP, INSIDE, TYPES = "at the top", "inside a function", "for types only"

# (from, to): the only arrows that may run back up, in this way only, with the reason.
BACK_UP = {
    ("tensor_methods", "tensor"): (TYPES, "the methods' signatures name the class that they are methods of"),
    ("tensor_functions", "tensor"): (TYPES, "the same: further methods of that class"),
    ("__init__", "hub"): (INSIDE, "`from minillm import AutoModel` loads the hub when it is first asked for"),
}

# Who imports torch or triton: whole rooms that belong to them, single files that do, and some inside a function only.
TORCH_ROOMS = ("torch_ops", "port", "engines", "kernels")
TORCH_FILES = (
    "finetune/quantize.py", "models/decoding_torch.py", "models/static_cache.py", "chapters/workshop/on_pytorch.py",
)  # fmt: skip
TORCH_INSIDE = (
    "hub/loading.py", "hub/padding.py", "hub/pretrained.py", "chapters/workshop/tiling.py",
    "chapters/workshop/at_size_jobs.py",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported name: `file:line` imports `name` from the module `target` (minillm.nn, torch.nn, ...)."""

    source: str  # the importing module, minillm.models.gpt
    target: str
    name: str  # as the reader knows it: Tensor, or the module itself
    file: str  # minillm/models/gpt.py
    line: int
    how: str  # TOP, INSIDE or TYPES

    def __str__(self) -> str:
        return f"{self.file}:{self.line} takes {self.name} from {self.target}, {self.how}"


def files_of(root: Path) -> dict[str, Path]:
    """Module name, minillm.nn or minillm.kernels.call -> its file."""
    files = {}
    packages = {"minillm": "minillm", "minillm.kernels": "kernels", "minillm.workshop": "chapters/workshop"}
    for package, folder in ((name, root / place) for name, place in packages.items()):
        for path in sorted(folder.rglob("*.py")):
            names = path.relative_to(folder).with_suffix("").parts
            files[".".join([package, *(names[:-1] if names[-1] == "__init__" else names)])] = path
    return files


def room_of(module: str) -> str:
    """minillm.models.gpt -> models; minillm itself -> __init__."""
    return (module.split(".") + ["__init__"])[1]


def statements(node: ast.AST, how: str = TOP) -> Iterator[tuple[ast.AST, str]]:
    """Every node below, with how an import that stands there would import."""
    for child in ast.iter_child_nodes(node):
        inner = how
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = INSIDE
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            inner = TYPES
        yield child, inner
        yield from statements(child, inner)


def read_imports(root: Path) -> list[Import]:
    """The imports of minillm's modules, of torch and of triton, in all files."""
    files = files_of(root)
    found = []
    for source, path in files.items():
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node, how in statements(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[tuple[str, str]] = []  # (module, name)
            if isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                module = ".".join(above + ([node.module] if node.module else []))
                for alias in node.names:
                    is_module = f"{module}.{alias.name}" in files
                    names.append((f"{module}.{alias.name}" if is_module else module, alias.name))
            elif isinstance(node, ast.Import):
                names = [(alias.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                names = [(a.value, a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
            for target, name in names:
                if str(target).split(".")[0] in ("minillm", "torch", "triton"):
                    file = path.relative_to(root).as_posix()
                    found.append(Import(source, target, name, file, getattr(node, "lineno", 0), how))
    return found


def arrows(imports: list[Import]) -> dict[tuple[str, str], list[Import]]:
    """(from room, to room) -> the imports that make the arrow."""
    found = defaultdict(list)
    for i in imports:
        if i.target.split(".")[0] == "minillm" and room_of(i.source) != room_of(i.target):
            found[room_of(i.source), room_of(i.target)].append(i)
    return dict(sorted(found.items()))


def backward_arrows(imports: list[Import], floors=FLOORS, back_up=BACK_UP) -> list[str]:
    """A sentence for each import that runs up or sideways: what, where, and what to do. Rooms without a floor are left
    to `rooms_and_floors`."""
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    wrong = []
    for pair, taken in arrows(imports).items():
        source, target = pair
        if source not in floor or target not in floor:
            continue
        for i in taken:
            if floor[source] <= floor[target] and back_up.get(pair, ("",))[0] != i.how:
                way = "back up" if floor[source] < floor[target] else "sideways"
                wrong.append(
                    f"{i}: the arrow {source} -> {target} runs {way}. Move what is taken to {source} or to a floor "
                    "below, or hand it over as an argument; FLOORS in tests/house.py is the order."
                )
    return wrong


def rooms_and_floors(root: Path, floors=FLOORS) -> list[str]:
    """A sentence for each room without a floor, and for each declared room that isn't there."""
    declared = [room for rooms in floors for room in rooms]
    there = {room_of(module) for module in files_of(root)}
    new, gone = sorted(there - set(declared)), [room for room in declared if room not in there]
    return [
        *(f"{room} has no floor: give it one in FLOORS of tests/house.py, just above what it imports." for room in new),
        *(f"{room} is no room any more: take it out of FLOORS in tests/house.py." for room in gone),
    ]


def circles(imports: list[Import], back_up=BACK_UP) -> list[list[str]]:
    """The circles of files, a module list for each, between rooms and inside them; declared exceptions are left out."""
    after = defaultdict(set)
    for i in imports:
        pair = (room_of(i.source), room_of(i.target))
        if i.target.split(".")[0] == "minillm" and i.target != i.source and back_up.get(pair, ("",))[0] != i.how:
            after[i.source].add(i.target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for module in after[waiting.pop()] - seen:
                seen.add(module)
                waiting.append(module)
        return seen

    ways = {module: reached(module) for module in list(after)}
    found = {tuple(sorted(m for m in ways[module] if module in ways.get(m, ()))) for module in ways}
    return sorted(list(circle) for circle in found if circle)


def torch_imports(imports: list[Import]) -> list[str]:
    """A sentence for each import of torch or triton that no entry of TORCH_ROOMS, TORCH_FILES or TORCH_INSIDE
    allows."""
    wrong = []
    for i in imports:
        if i.target.split(".")[0] in ("torch", "triton") and room_of(i.source) not in TORCH_ROOMS and i.how != TYPES:
            file = i.file.removeprefix("minillm/")
            if file in TORCH_FILES or (file in TORCH_INSIDE and i.how == INSIDE):
                continue
            wrong.append(
                f"{i}: only {', '.join(TORCH_ROOMS)} belong to torch. Reach it through ops, port or an engine; where "
                "that can't be, import it inside the function and add the file to TORCH_INSIDE in tests/house.py."
            )
    return wrong


def lines_of(root: Path) -> dict[str, tuple[int, int]]:
    """Room -> (files, lines)."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for module, path in files_of(root).items():
        files, lines = found[room_of(module)]
        found[room_of(module)] = files + 1, lines + len(path.read_text(encoding="utf-8").splitlines())
    return dict(found)


def draw(root: Path) -> str:
    """The whole house as text: floors with rooms and lines, top floor first, arrows, circles, and what is wrong."""
    imports, lines = read_imports(root), lines_of(root)
    text = [f"{len(lines)} rooms, {sum(n for _, n in lines.values()):,} lines", ""]
    homeless = tuple(room for room in lines if not any(room in rooms for rooms in FLOORS))
    for number, rooms in reversed(list(enumerate((*FLOORS, homeless)))):
        here = [f"{room} ({lines[room][0]} files, {lines[room][1]:,})" for room in rooms if room in lines]
        if here:
            text.append(f"{f'floor {number}' if number < len(FLOORS) else 'no floor'}: {', '.join(here)}")
    text += ["", "arrows: room -> room it imports from (what it takes)"]
    for (source, target), taken in arrows(imports).items():
        by_way = (
            (how, sorted({i.name.removeprefix("minillm.") for i in taken if i.how == how}))
            for how in (TOP, INSIDE, TYPES)
        )
        parts = [f"{', '.join(names)}{'' if how == TOP else f' [{how}]'}" for how, names in by_way if names]
        text.append(f"  {source} -> {target}: {'; '.join(parts)}")
    importers = sorted({i.file for i in imports if i.target.split(".")[0] in ("torch", "triton") and i.how != TYPES})
    text += ["", f"torch and triton are imported by {len(importers)} files: {', '.join(importers)}"]
    declared = [f"  {a} -> {b}, {how}: {why}" for (a, b), (how, why) in BACK_UP.items()]
    text += ["", "declared exceptions:", *declared]
    wrong = rooms_and_floors(root) + backward_arrows(imports) + torch_imports(imports)
    text += ["", f"circles of files: {len(circles(imports))}", *(f"  {', '.join(c)}" for c in circles(imports))]
    text += ["", f"faults: {len(wrong)}", *(f"  {w}" for w in wrong)]
    return "\n".join(text)


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
