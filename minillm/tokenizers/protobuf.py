"""Messages of Google's protocol buffers, as SentencePiece writes its models: enough to read a .spm file.

A message is fields one after the other. Before each stands a number, written seven bits to a byte, the lowest first, a
set eighth bit saying that more follow (a "varint"): its last three bits say how the value is written, the others which
field it is. What a field means, the bytes don't say.

>>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 2]) + b"hi"))
[(1, 150), (2, b'hi')]
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Value = int | float | bytes


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number that begins at `at`, the place behind it)."""
    value, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a number at byte {at - shift // 7} has no end.")
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field: whole numbers, floats of 32 bits, or bytes, which may be a text or a message.

    Raises ValueError for what ends too early or is written in another way.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind, value = key & 7, None
        if kind == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError(f"the field at byte {at} is cut off, or of the unknown kind {kind}.")
        part = data[at : at + size]
        at += size
        yield key >> 3, part if kind == 2 else struct.unpack("<f" if kind == 5 else "<d", part)[0]
