"""SentencePiece's model file (source.spm, tokenizer.model): its pieces with their scores, and how text is normalised.

The file is a protocol buffer: fields one after the other, each a number (which field, and of which of four kinds), then
its value. Of the many that SentencePiece's trainer writes down, a dozen decide what a text becomes; the others are
passed over. The numbers are those of `sentencepiece_model.proto` (Kudo & Richardson 2018, arXiv 1808.06226).

>>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))  # field 1 = 150, field 2 = b"hi"
[(1, 150), (2, b'hi')]
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .charsmap import CharsMap
from .json_parts import MAX_IDS

MAX_BYTES = 1 << 26  # of a file: Gemma's, with 256,000 pieces, has 4 million
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class SentencePieceFile:
    """What a model file says. pieces: (text, score, type) by id; charsmap: of its normaliser, None if it has none."""

    pieces: tuple[tuple[str, float, int], ...]
    kind: str  # "unigram" or "bpe"
    charsmap: CharsMap | None
    dummy_prefix: bool  # a space goes before each text
    strips_spaces: bool  # spaces at the ends go away, several are one
    escapes_spaces: bool  # they are written "▁"
    space_behind: bool  # a word's space stands behind it
    byte_fallback: bool  # what no piece has is written in bytes
    unknown_surface: str  # what the unknown piece is in a text


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: whole numbers as such, everything else as bytes. Raises ValueError for what is no
    protocol buffer."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind} at byte {at}, which SentencePiece does not write.")
        if at + size > len(data):
            raise ValueError(f"it ends within a field: {size} bytes from byte {at} on, and there are {len(data)}.")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for place in range(at, min(at + 10, len(data))):
        value |= (data[place] & 0x7F) << (7 * (place - at))
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError(f"a number that does not end at byte {at}.")


def last_fields(data: Any, name: str) -> dict[int, Any]:
    """number -> value of the fields of a part, of which each comes once, or the last one counts."""
    if not isinstance(data, bytes):
        raise ValueError(f"its {name} is a number.")
    return dict(fields(data))


def read_sentencepiece(data: bytes) -> SentencePieceFile:
    """The model in a file's bytes. Raises ValueError for what is no such file, or does something unknown here."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes are too many for a SentencePiece model: the largest have 5 million.")
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in fields(data):
        if number == 1:
            pieces.append(piece_in(value, len(pieces)))
        elif number == 2:
            trainer = last_fields(value, "trainer_spec")
        elif number == 3:
            normalizer = last_fields(value, "normalizer_spec")
        elif number == 5 and last_fields(value, "denormalizer_spec").get(2):
            raise ValueError("it has a denormalizer_spec, rules for texts that are decoded: they are not done here.")
    kind = KINDS.get(trainer.get(3, 1), "?")
    if kind not in ("unigram", "bpe"):
        raise ValueError(f"its trainer_spec.model_type is {kind!r} ({trainer.get(3)!r:.20}): unigram and bpe are read.")
    if trainer.get(53):
        raise ValueError(f"it was trained with pretokenization_delimiter = {trainer[53]!r:.20}: not done here.")
    check_pieces(pieces, bool(trainer.get(35)))
    packed = bytes_of(normalizer.get(2, b""), "normalizer_spec.precompiled_charsmap")
    return SentencePieceFile(
        pieces=tuple(pieces),
        kind=kind,
        charsmap=CharsMap(base64.b64encode(packed).decode()) if packed else None,
        dummy_prefix=bool(normalizer.get(3, 1)),
        strips_spaces=bool(normalizer.get(4, 1)),
        escapes_spaces=bool(normalizer.get(5, 1)),
        space_behind=bool(trainer.get(24, 0)),
        byte_fallback=bool(trainer.get(35, 0)),
        unknown_surface=bytes_of(trainer.get(44, " \u2047 ".encode()), "trainer_spec.unk_surface").decode(),
    )


def bytes_of(value: Any, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"its {name} is a number.")
    return value


def piece_in(value: Any, number: int) -> tuple[str, float, int]:
    """One piece: text, score and type. Raises ValueError."""
    if number >= MAX_IDS:
        raise ValueError(f"it has more than {MAX_IDS} pieces.")
    found = last_fields(value, f"piece {number}")
    text, score, kind = found.get(1, b""), found.get(2, bytes(4)), found.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise ValueError(f"piece {number} must have a text and a score.")
    if not text or kind not in range(NORMAL, BYTE + 1):
        raise ValueError(
            f"piece {number}, {text!r:.50}, of type {kind!r:.20}: a text and a type from 1 to 6 are known."
        )
    (number_in_log,) = struct.unpack("<f", score)
    if not math.isfinite(number_in_log):
        raise ValueError(f"piece {number}, {text!r:.50}, has the score {number_in_log}.")
    return text.decode(), number_in_log, kind  # UnicodeDecodeError is a ValueError


def check_pieces(pieces: list[tuple[str, float, int]], byte_fallback: bool) -> None:
    """Raise ValueError unless each text is there once, one piece is the unknown one, and bytes are all or none."""
    kinds = [kind for _, _, kind in pieces]
    if kinds.count(UNKNOWN) != 1:
        raise ValueError(f"it has {kinds.count(UNKNOWN)} unknown pieces among {len(pieces)}: one is needed.")
    for reserved in (False, True):
        texts = [text for text, _, kind in pieces if (kind in (UNKNOWN, CONTROL, BYTE)) == reserved]
        if len(set(texts)) != len(texts):
            twice = next(text for i, text in enumerate(texts) if text in texts[:i])
            raise ValueError(f"the piece {twice!r:.50} is there twice.")
    found = {text for text, _, kind in pieces if kind == BYTE}
    if found != ({f"<0x{byte:02X}>" for byte in range(256)} if byte_fallback else set()):
        raise ValueError(f"byte_fallback = {byte_fallback}, and there are {len(found)} pieces for bytes.")
