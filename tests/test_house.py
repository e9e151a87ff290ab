"""The house stays a house: arrows between rooms run down, no circle but the declared ones, torch where it belongs.
`python tests/house.py` draws it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).with_name("house.py")
spec = importlib.util.spec_from_file_location("house", HOUSE)
house = importlib.util.module_from_spec(spec)
sys.modules["house"] = house
spec.loader.exec_module(house)


@pytest.fixture(scope="module")
def imports():
    return house.read_imports(house.ROOT)


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    wrong = house.rooms_and_floors(house.ROOT)
    assert not wrong, "\n".join(wrong)


def test_at_most_32_rooms():
    """30, and two that no other could take: interpret, on which plot and hub stand, and responsible, which needs
    optim, generate and models and is no engine."""
    rooms = sorted(house.lines_of(house.ROOT))
    assert len(rooms) <= 32, f"{len(rooms)} rooms: {', '.join(rooms)}. Put a new file into a room that is there."


def test_no_arrow_runs_back_up(imports):
    wrong = house.backward_arrows(imports)
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files(imports):
    wrong = [
        "\n  ".join([f"{', '.join(circle)} import each other. Move what they share into a file that both import:"]
                    + [str(i) for i in imports if i.source in circle and i.target in circle])
        for circle in house.circles(imports)
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_every_declared_exception_is_needed(imports):
    arrows = house.arrows(imports)
    for pair, (how, _) in house.BACK_UP.items():
        ways = {i.how for i in arrows.get(pair, [])}
        assert ways == {how}, f"{' -> '.join(pair)} is declared {how}, but is {ways or 'not there'}: see BACK_UP."
    for file in (*house.TORCH_FILES, *house.TORCH_INSIDE):
        there = any(i.file in (f"minillm/{file}", file) and i.target.startswith(("torch", "triton")) for i in imports)
        assert there, f"{file} doesn't import torch any more: take it out of TORCH_INSIDE in tests/house.py."


def test_torch_and_triton_are_imported_where_they_belong(imports):
    wrong = house.torch_imports(imports)
    assert not wrong, "\n".join(wrong)


def test_the_drawing_names_every_room():
    drawing = house.draw(house.ROOT)
    assert all(room in drawing for room in house.lines_of(house.ROOT))
    assert "models -> nn: KVCache" in drawing


# --- the tests can fail: a made-up package with every fault -----------------------------------------------------------


@pytest.fixture
def made_up(tmp_path):
    """low <- middle/ <- high, and what must not be."""
    files = {
        "minillm/__init__.py": "__version__ = '1'\n",
        "minillm/low.py": "def f():\n    from . import high\n",  # back up, inside a function
        "minillm/middle/__init__.py": "from .a import x\n",
        "minillm/middle/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import y\nx = 1\n",
        "minillm/middle/b.py": "from . import a\nfrom ..low import f\ny = a.x\n",  # a circle of two files
        "minillm/high.py": "import torch.nn\nfrom minillm.middle import x\nfrom .side import z\n",
        "minillm/side.py": "import importlib\nz = importlib.import_module('triton')\n",
        "kernels/__init__.py": "import torch\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


FLOORS = (("__init__", "low", "kernels"), ("middle",), ("high", "side"))


def test_arrows_that_run_up_and_sideways_are_found(made_up):
    imports = house.read_imports(made_up)
    sideways, up = house.backward_arrows(imports, FLOORS, {})
    assert up.startswith("minillm/low.py:2 takes high from minillm.high, inside a function: the arrow low -> high runs")
    assert "runs back up. Move" in up and "FLOORS" in up
    assert sideways.startswith("minillm/high.py:3 takes z from minillm.side, at the top") and "sideways" in sideways
    allowed = {("low", "high"): (house.INSIDE, "why"), ("high", "side"): (house.TYPES, "why")}
    assert house.backward_arrows(imports, FLOORS, allowed) == [sideways]  # allowed in the declared way only


def test_circles_between_rooms_and_inside_one_are_found(made_up):
    imports = house.read_imports(made_up)
    inside = ["minillm.middle.a", "minillm.middle.b"]
    assert house.circles(imports, {("low", "high"): (house.INSIDE, "why")}) == [inside]
    (both,) = house.circles([*imports, house.Import("minillm.middle.a", "minillm.high", "x", "a.py", 1, house.TOP)], {})
    assert {*inside, "minillm.low", "minillm.high"} <= set(both)


def test_rooms_without_a_floor_and_floors_without_a_room_are_found(made_up):
    assert house.rooms_and_floors(made_up, FLOORS) == []
    wrong = house.rooms_and_floors(made_up, (("__init__", "low", "kernels", "gone"), ("middle",), ("high",)))
    assert [w.split()[0] for w in wrong] == ["side", "gone"]


def test_a_new_import_of_torch_is_found(made_up):
    wrong = house.torch_imports(house.read_imports(made_up))
    assert [w.split()[0] for w in wrong] == ["minillm/high.py:1", "minillm/side.py:2"]
