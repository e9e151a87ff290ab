"""The reference model of a preference loss: what it thinks of every answer, computed once and kept on the disk.

The reference is the model as it was before the first step, so that nothing is gained by keeping it in memory and asking
it again in every epoch: a number for each answer says all that the losses need. With LoRA it is the model without its
adapters.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..data.example_batches import fingerprint, pad
from ..disk import claim, whole_file
from ..engines.protocol import Engine
from ..finetune.lora import without_adapters
from ..finetune.objectives import Row
from ..finetune.predict import in_batches
from ..settings import IGNORE
from .preferences import answer_log_probs


def reference_log_probs(
    run: Engine, rows: Mapping[str, Sequence[Row]], path: str | Path, batch_size: int, *, progress: bool = True
) -> dict[str, np.ndarray]:
    """ln π(y|x) of all answers under the run's model, without adapters: by the names of `rows`, which are the arrays
    (ids, targets) of n answers one behind the other (pairs.py), arrays (rows, n).

    They are read from the file `path`, if they were computed before for the same rows and the same weights, and written
    to it otherwise. A file that is damaged is computed anew. All processes of a job take part; the first one writes.
    """
    path, show = Path(path), progress and run.rank == 0
    wanted = {name: fingerprint(part) for name, part in rows.items()} | {"weights": weights_checksum(run)}
    kept, why = read_reference(path, wanted)
    # What the first process found holds for all: it alone may have all of the weights to compare.
    if run.agree(float(kept is None and run.rank == 0)) == 0:
        kept = kept if run.rank == 0 else read_reference(path)[0]
        if kept is None:
            raise OSError(f"{path} cannot be read by process {run.rank}: all must see the folder of the run.")
        return kept
    if run.rank == 0:
        claim(path.parent, "run", [path.name])  # before anything is computed: it may be the user's
    if show and why:
        print(f"note       {path.name} {why}: the reference is computed anew")
    with without_adapters(run.model):
        found = {name: log_probs_of(run, part, batch_size, progress=show) for name, part in rows.items()}
    if run.rank == 0:
        with whole_file(path) as temporary:
            try:
                save_file(found, temporary, metadata={**wanted, "crc32": crc_of(found)})
            except SafetensorError as error:  # how the library says that the disk is full
                raise OSError(f"{path} cannot be written: {error}.") from error
    return found


def log_probs_of(run: Engine, rows: Sequence[Row], batch_size: int, *, progress: bool = False) -> np.ndarray:
    """ln π(y|x) (rows, n) of the n answers of each row, under the run's model as it is now, without dropout."""
    answers = [row[i : i + 2] for row in rows for i in range(0, len(row), 2)]
    ask = run.outputs(answer_log_probs)

    def batch(part: list[Row]) -> list[np.ndarray]:
        ids, _ = pad([ids[:-1] for ids, _ in part], 0)
        targets, _ = pad([targets for _, targets in part], IGNORE)
        return list(ask(ids, targets))

    return np.array(in_batches(answers, batch_size, batch, progress)).reshape(len(rows), -1)


def weights_checksum(run: Engine) -> str:
    """A checksum of the model's weights without adapters, those in few bits included; all processes must ask for it."""
    arrays = {name: array for name, array in run.model_arrays().items() if ".lora_" not in name}
    if hasattr(run.model, "named_buffers"):  # where 4-bit weights lie
        arrays |= {name: tensor.cpu().numpy() for name, tensor in run.model.named_buffers()}
    return crc_of(arrays)


def crc_of(arrays: Mapping[str, np.ndarray]) -> str:
    """The CRC-32 of arrays with their names and shapes, 8 hexadecimal digits."""
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def read_reference(path: Path, wanted: Mapping[str, str] | None = None) -> tuple[dict[str, np.ndarray] | None, str]:
    """(what the file holds, ""), or (None, why not): it is not there (no reason), is damaged, or is not what was
    `wanted`."""
    if not path.is_file():
        return None, ""
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        return None, f"is damaged ({error})"
    if about.pop("crc32", "") != crc_of(arrays):
        return None, "is damaged (its checksum is not the one that it was written with)"
    if wanted is not None and about != wanted:
        what = "weights" if about.get("weights") != wanted["weights"] else "pairs, or another template or tokenizer"
        return None, f"is of other {what}"
    return arrays, ""
