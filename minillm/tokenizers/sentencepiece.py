"""SentencePiece itself: how a model file (sentencepiece_file.py) turns a text into pieces, and pieces into text.

    " Hello  world" → normalise → "▁Hello▁world" → unigram or BPE → ["▁Hello", "▁wor", "ld"]

pipeline.py reads a tokenizer.json that `tokenizers` made of such a file, and gives what that library gives. This gives
what SentencePiece gives, which is what Marian and all folders without a tokenizer.json are read with; the two differ
in rare texts. Scores are float32 there, so that here the sums of unigram.py are rounded as they are there: which of two
nearly equal ways is taken hangs on it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import inf

from .sentencepiece_file import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, SentencePieceFile
from .unigram import UNKNOWN_PENALTY

SPACE = "▁"
Part = tuple[str, bool]  # a piece's text, and whether it is known


class SentencePiece:
    """`encode` and `decode` of one model file."""

    def __init__(self, file: SentencePieceFile) -> None:
        self.file = file
        self.reserved: dict[str, int] = {}  # pieces that no text has: unknown, <s>, <0x41>
        self.known: dict[str, int] = {}
        for token_id, (text, _, kind) in enumerate(file.pieces):
            (self.known if kind in (NORMAL, USER_DEFINED, UNUSED) else self.reserved)[text] = token_id
        self.kinds = [kind for _, _, kind in file.pieces]
        self.scores = [score for _, score, _ in file.pieces]
        worst = min((score for _, score, kind in file.pieces if kind == NORMAL), default=0.0)
        self.unknown_score = rounded(worst - UNKNOWN_PENALTY)
        self.unknown = next(text for text, token_id in self.reserved.items() if self.kinds[token_id] == UNKNOWN)
        self.longest = max(map(len, self.known), default=0)

    @cached_property
    def user_defined(self) -> re.Pattern[bytes] | None:
        """Pieces that are found before all else, the longest first; None if there are none."""
        texts = [text.encode() for text, _, kind in self.file.pieces if kind == USER_DEFINED]
        return re.compile(b"|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None

    def id_of(self, piece: str) -> int:
        """The id of a piece, that of the unknown one for any other text."""
        return self.reserved.get(piece, self.known.get(piece, self.reserved[self.unknown]))

    # ---- text -> pieces

    def normalize(self, text: str) -> str:
        """The text with replacements made, spaces put in order and written "▁"."""
        file = self.file
        parts = self.replaced(text)
        if file.strips_spaces:
            parts = without_leading_spaces(parts)
        space = SPACE if file.escapes_spaces else " "
        made = []
        after_space = file.strips_spaces
        for part in parts:
            part = part.lstrip(" ") if after_space else part
            if part:
                made.append(part.replace(" ", space))
                after_space = file.strips_spaces and part.endswith(" ")
        if not parts:
            return ""
        prefix = space * file.dummy_prefix
        whole = "".join(made) if file.space_behind else prefix + "".join(made)
        if file.strips_spaces:
            whole = whole.rstrip(space)
        return whole + prefix if file.space_behind else whole

    def replaced(self, text: str) -> list[str]:
        """What each character, or the longest text of the table that stands there, becomes."""
        charsmap, special = self.file.charsmap, self.user_defined
        data, at, parts = text.encode(), 0, []
        while at < len(data):
            size = n_bytes(data[at])
            part = data[at : at + size].decode("utf-8", "replace")
            if special is not None and (match := special.match(data, at)):
                size, part = len(match.group()), match.group().decode()
            elif charsmap is not None and (rule := charsmap.longest(data, at)):
                size, part = rule
            parts.append(part)
            at += size
        return parts

    def encode(self, text: str) -> list[Part]:
        """The pieces of a text; unknown characters in a row are one, as they stand in the text, or their bytes."""
        made: list[Part] = []
        parts = (self.unigram if self.file.kind == "unigram" else self.bpe)(self.normalize(text))
        for is_known, run in groupby(parts, lambda part: part[1]):
            if is_known:
                made += run
                continue
            unknown = "".join(part for part, _ in run)
            if self.file.byte_fallback:
                made += [(f"<0x{byte:02X}>", True) for byte in unknown.encode()]
            else:
                made.append((unknown, False))
        return made

    def ids(self, text: str) -> list[int]:
        """The model's own ids of a text."""
        return [self.id_of(piece) if is_known else self.reserved[self.unknown] for piece, is_known in self.encode(text)]

    def unigram(self, text: str) -> list[Part]:
        """The best way through the text, as in unigram.py. A user-defined piece is worth more than any other."""
        best = [0.0] + [-inf] * len(text)
        came_from, known = [0] * (len(text) + 1), [True] * (len(text) + 1)
        for start in range(len(text)):
            alone = False  # whether a piece is this character
            for end in range(start + 1, min(start + self.longest, len(text)) + 1):
                token_id = self.known.get(text[start:end])
                if token_id is None or self.kinds[token_id] == UNUSED:
                    continue
                score = self.scores[token_id]
                if self.kinds[token_id] == USER_DEFINED:
                    score = 0.1 * (len(text[start:end].encode()) - 1)  # as of SentencePiece 0.2.3
                if (score := rounded(best[start] + score)) > best[end]:
                    best[end], came_from[end], known[end] = score, start, True
                alone |= end == start + 1
            if not alone and (score := rounded(best[start] + self.unknown_score)) > best[start + 1]:
                best[start + 1], came_from[start + 1], known[start + 1] = score, start, False
        way, end = [], len(text)
        while end > 0:
            way.append((text[came_from[end] : end], known[end]))
            end = came_from[end]
        return way[::-1]

    def bpe(self, text: str) -> list[Part]:
        """Neighbours whose union is a piece join, those of the highest score first, of equal ones the leftmost."""
        symbols, frozen = self.characters(text)
        behind = list(range(1, len(symbols) + 1))  # a list in which each knows its neighbours
        before = list(range(-1, len(symbols) - 1))
        made_of: dict[str, tuple[str, str]] = {}  # unused pieces, which fall apart at the end

        def pair(left: int, right: int) -> tuple[float, int, int, str] | None:
            if left < 0 or right >= len(symbols) or frozen[left] or frozen[right]:
                return None
            token_id = self.known.get(joined := symbols[left] + symbols[right])
            if token_id is None:
                return None
            if self.kinds[token_id] == UNUSED:
                made_of[joined] = (symbols[left], symbols[right])
            return -self.scores[token_id], left, right, joined

        agenda = [found for left in range(len(symbols) - 1) if (found := pair(left, left + 1))]
        heapify(agenda)
        while agenda:
            _, left, right, joined = heappop(agenda)
            if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != joined:
                continue  # one of them has joined another since
            symbols[left], symbols[right] = joined, ""
            behind[left] = behind[right]
            if behind[left] < len(symbols):
                before[behind[left]] = left
            for found in (pair(before[left], left), pair(left, behind[left])):
                if found is not None:
                    heappush(agenda, found)
        parts = (part for symbol in symbols if symbol for part in self.used(symbol, made_of))
        return [(part, self.kinds[self.id_of(part)] not in (UNKNOWN, UNUSED)) for part in parts]

    def characters(self, text: str) -> tuple[list[str], list[bool]]:
        """What merges begin with: characters, and user-defined pieces, which stay as they are."""
        symbols, frozen, data, at = [], [], text.encode(), 0
        while at < len(data):
            match = self.user_defined.match(data, at) if self.user_defined else None
            size = len(match.group()) if match else n_bytes(data[at])
            symbols.append(data[at : at + size].decode())
            frozen.append(match is not None)
            at += size
        return symbols, frozen

    def used(self, symbol: str, made_of: dict[str, tuple[str, str]]) -> Iterator[str]:
        """A piece, or if it is unused those that it was made of."""
        waiting = [symbol]
        while waiting:
            part = waiting.pop()
            unused = self.kinds[self.known[part]] == UNUSED if part in self.known else False
            if unused and part in made_of:
                waiting += made_of[part][::-1]
            else:
                yield part

    # ---- pieces -> text

    def decode(self, pieces: Sequence[str]) -> str:
        """The text of pieces, without the space that was put before it."""
        text, at_start, seen = "", True, False
        kinds = [self.kinds[self.id_of(piece)] for piece in pieces]
        for is_byte, run in groupby(zip(pieces, kinds), lambda item: item[1] == BYTE):
            if is_byte:
                text += text_of(bytes(int(piece[3:5], 16) for piece, _ in run))
                continue
            for piece, kind in run:
                at_start = at_start and not (seen or text)
                said, seen = self.said(piece, kind, at_start)
                text += said
        return text

    def said(self, piece: str, kind: int, at_start: bool) -> tuple[str, bool]:
        """What a piece is in a text, and whether a space before the text has gone with it."""
        if kind == CONTROL:
            return "", False
        if self.id_of(piece) == self.reserved[self.unknown]:
            return (self.file.unknown_surface if piece == self.unknown else piece), False
        gone = at_start and (self.file.dummy_prefix or self.file.strips_spaces) and piece.startswith(SPACE)
        return piece[gone:].replace(SPACE, " "), gone and not self.file.strips_spaces


def rounded(score: float) -> float:
    """To float32."""
    return float(struct.unpack("f", struct.pack("f", score))[0])


def n_bytes(first: int) -> int:
    """How many bytes a character has in UTF-8 that begins with this one."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def without_leading_spaces(parts: list[str]) -> list[str]:
    first = next((i for i, part in enumerate(parts) if part != " "), len(parts))
    return parts[first:]


def text_of(data: bytes) -> str:
    """Bytes as text: each that belongs to no character is U+FFFD."""
    made, at = "", 0
    while at < len(data):
        size = n_bytes(data[at])
        try:
            made += data[at : at + size].decode()
        except UnicodeDecodeError:
            made, size = made + "\ufffd", 1
        at += size
    return made
