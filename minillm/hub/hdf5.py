"""Where the arrays lie in an HDF5 file that Keras saved. A process of its own looks.

The library that reads HDF5 is written in C and believes its files: a single changed byte can send it into a loop
without end, which no Ctrl-C ends, or break the process that called it. So another Python runs this very file, is ended
after a while, and prints as JSON what it found. It imports nothing of minillm.

HDF5 is a tree of groups, with arrays as leaves. Keras's has, under "layers", a group for each layer, numbered; in it a
group "vars", which bears the layer's name and holds its arrays, "0" and "1"; beside that the layers inside the layer.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 30  # after which the other process is ended; it takes less than one

Place = tuple[str, tuple[int, ...], int]  # the dtype in NumPy's spelling, the shape, the first byte


def arrays_in(path: Path) -> dict[str, Place]:
    """Where each array of the layers in the file lies, by the layer's name and the array's number:
    "blocks_0_mlp_fc/0", "blocks_0_attn/query/1". Raises ValueError for what is damaged or wasn't saved by Keras, and
    ImportError without the package h5py."""
    if importlib.util.find_spec("h5py") is None:
        raise ImportError("a Keras model is read by the package h5py: install it, or the extra [keras].")
    command = [sys.executable, "-c", Path(__file__).read_text(encoding="utf-8"), path.name]
    try:  # in the file's own folder, so that nothing is imported from where we are
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"HDF5's library has not come to an end with it in {SECONDS} s.") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"HDF5's library ended its process with {done.returncode}. {' '.join(said):.200}".strip())
    found = json.loads(done.stdout)
    if "error" in found:
        raise ValueError(found["error"])
    return {name: (dtype, tuple(shape), offset) for name, dtype, shape, offset in found["arrays"]}


def look(path: str) -> dict[str, Any]:
    """What the other process prints: {"arrays": [[name, dtype, shape, offset], ...]} or {"error": why not}."""
    import h5py

    found: dict[str, list[Any]] = {}
    try:
        with h5py.File(path, "r") as content:
            for layer in members(members(content)["layers"]).values():
                for name, array in arrays_of(layer):
                    if name in found:
                        raise ValueError(f"two layers have the same name: {name!r:.100} stands in both.")
                    place = array.id.get_offset()  # None: in pieces, compressed, or in another file
                    if place is None:
                        raise ValueError(f"{name!r:.100} doesn't lie in one piece, as Keras writes it.")
                    found[name] = [name, array.dtype.str, list(array.shape), place]
    except Exception as error:  # whatever a damaged file leads the package to
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return {"error": f"{kind}{error}".rstrip(".")[:300] + "."}
    return {"arrays": list(found.values())}


def members(group: Any) -> dict[str, Any]:
    """What lies in a group. Raises ValueError for a link to somewhere else, which may be any file of this machine."""
    kinds = {name: type(group.get(name, getlink=True)).__name__ for name in group}
    if away := [f"{name!r:.50}, a {kind}" for name, kind in kinds.items() if kind != "HardLink"]:
        raise ValueError(f"{away[0]}, leads out of its group, which nothing does that Keras saves.")
    return {name: group[name] for name in kinds}


def arrays_of(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a layer by its name, then those of the layers inside it, once: an attention has four."""
    parts = members(layer)
    if "vars" not in parts:
        return
    variables = parts.pop("vars")
    name = f"{prefix}{variables.attrs['name']}"
    yield from ((f"{name}/{number}", array) for number, array in members(variables).items())
    for inner in () if prefix else parts.values():
        yield from arrays_of(inner, f"{name}/")


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1])))
