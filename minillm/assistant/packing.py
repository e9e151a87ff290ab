"""Packing: several short examples in one row, so that hardly any of a batch is padding, and none of them notices.

Which examples share a row is bin packing: `pack` takes them from the longest to the shortest and puts each into the row
that it fills best ("best-fit decreasing"; Ding et al. 2024, "Fewer Truncations Improve Language Modeling", arXiv
2404.10830, section 3). `collate_packed` makes arrays of such rows, `PackedLoss` (engines/protocol.py) trains on them:
the model keeps the examples of a row apart (models/segments.py), so that loss and gradients are those of one row for
each.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import numpy as np

from ..data.example_batches import pad
from ..models.segments import starts_of
from ..settings import IGNORE

Array = np.ndarray
PADDING = -1  # the segment number of padding; examples are numbered from 0 in each row


def pack(lengths: Sequence[int] | Array, context: int) -> list[list[int]]:
    """Rows of examples, by their numbers 0 to len(lengths) − 1: each example in one row, and no row of more than
    `context` tokens. The same lengths give the same rows, the fullest of long examples first.

    Raises ValueError for an example without tokens, or of more than `context`.
    """
    for number, length in enumerate(lengths):
        if not 1 <= length <= context:
            raise ValueError(
                f"pack: example {number} has {length:,} tokens, and a row takes 1 to {context:,}. Shorten it or leave "
                "it out."
            )
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # tokens that still fit -> the numbers of such rows
    rooms: list[int] = []  # its keys in order
    for number in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        length = int(lengths[number])
        best = bisect_left(rooms, length)  # the least room that is enough
        if best == len(rooms):
            row, room = len(rows), context
            rows.append([])
        else:
            room = rooms[best]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[best]
        rows[row].append(number)
        if room - length not in with_room:
            with_room[room - length] = []
            insort(rooms, room - length)
        with_room[room - length].append(row)
    return rows


def collate_packed(rows: Iterable[Sequence[tuple[Array, ...]]], pad_id: int) -> tuple[Array, Array, Array, Array]:
    """ids, segments, starts and targets, int64, (B, T) each but starts (B, K), of rows of examples (ids (n,), targets
    (n,)), where targets[t] is the token after ids[t] or −100.

    `segments` number the examples of a row, `starts` are the columns where they begin (see models/segments.py; K is a
    power of two and one, so that a compiled model meets few shapes). What follows them up to T, the longest row, has
    the id `pad_id`, a segment of its own (−1) and targets of −100. The last target of an example is its own: none is
    the next one's first token. Raises ValueError for a row without examples, for an example without tokens, and where
    ids and targets differ in length.
    """
    ids, segments, targets = [], [], []
    for number, row in enumerate(rows):
        sizes = [(len(example_ids), len(example_targets)) for example_ids, example_targets in row]
        if not sizes or any(n_ids == 0 or n_ids != n_targets for n_ids, n_targets in sizes):
            raise ValueError(
                f"collate_packed: row {number} has examples of {sizes} ids and targets: at least one example, of at "
                "least one id and as many targets."
            )
        ids.append(np.concatenate([example_ids for example_ids, _ in row]))
        targets.append(np.concatenate([example_targets for _, example_targets in row]))
        segments.append(np.repeat(np.arange(len(sizes)), [n_ids for n_ids, _ in sizes]))
    numbers = pad(segments, PADDING)[0]
    return pad(ids, pad_id)[0], numbers, starts_of(numbers), pad(targets, IGNORE)[0]
