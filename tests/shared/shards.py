"""A checkpoint cut into shards by hand, as torch.distributed.checkpoint writes them from several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from minillm.disk import MARKER, checksum, read_json, write_json
from minillm.training.checkpoint import MODEL_FILE, OPTIMIZER_FILE, STATE_FILE


def write_shards(arrays: dict[str, np.ndarray], folder: Path, kind: int, edges: list[int]) -> list[str]:
    """Files of the rows between each two `edges` (shares of 100), as rank 0, 1, ... would write them: their names. What
    has no axes, the first writes."""
    names = []
    for rank, (a, b) in enumerate(zip([0, *edges], [*edges, 100])):
        parts, places = {}, {}
        for name, array in arrays.items():
            if array.ndim == 0 and rank:
                continue
            first, last = (len(array) * edge // 100 for edge in (a, b)) if array.ndim else (0, 0)
            parts[name] = np.ascontiguousarray(array[first:last]) if array.ndim else array
            places[name] = {"saved_offsets": [first] + [0] * (array.ndim - 1) if array.ndim else []}
        names.append(f"shard-{rank + 1:05d}-model-{kind:05d}-of-00002.safetensors")
        notes = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(places)}
        save_file(parts, folder / names[-1], metadata=notes)
    return names


def cut(folder: Path, edges: list[int]) -> None:
    """Put shards in the place of the arrays of a checkpoint."""
    state = read_json(folder / STATE_FILE)
    for kind, name in enumerate((MODEL_FILE, OPTIMIZER_FILE), 1):
        for shard in write_shards(load_file(folder / name), folder, kind, edges):
            state["crc32"][shard] = checksum(folder / shard)
        (folder / name).unlink()
        del state["crc32"][name]
    write_json(folder / STATE_FILE, state)
    marker = read_json(folder / MARKER)
    marker["files"] = sorted(path.name for path in folder.iterdir())
    write_json(folder / MARKER, marker)
