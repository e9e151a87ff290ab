"""What the debugger shows in a notebook: code, without the folders that a machine keeps it in."""

import regex
import tqdm
from minillm.workshop import stepping

from minillm import ops
from minillm.tensor import Tensor


def test_no_folder_of_the_machine_is_shown_wherever_a_library_lies():
    shown = stepping.type_into_debugger(
        "tqdm.tqdm.format_sizeof(2000)\nregex.compile('a')\nops.relu(Tensor([1.0]))",
        ["step", "step", "up", "step", "where", "next", *["step"] * 12, "where"],
        {"tqdm": tqdm, "regex": regex, "ops": ops, "Tensor": Tensor},
    )
    assert "site-packages" not in shown
    assert "tqdm/std.py(" in shown
