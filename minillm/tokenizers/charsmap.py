"""SentencePiece's table of replacements, as it lies in tokenizer.json of XLM-R and T5 ("Precompiled").

Its normaliser (nmt_nfkc and others) is a map from short texts to short texts, packed: four bytes for the size of a
trie, the trie, then all replacements one after the other, each with a zero byte behind it. The trie is a double array
(Aoe 1989, as in the library darts-clone): a node is a 32-bit number that holds the byte by which one comes to it, and
how far away its children lie; a child is at `node position XOR distance XOR byte`, and is one only if its own byte says
so.

What is looked up is what `tokenizers` looks up, odd as it is: a whole grapheme (what a reader takes for one character,
e and its accent) of up to five bytes, by the shortest of its beginnings that is in the trie; if there is none, and for
longer ones, character by character.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from functools import cached_property

import regex

from .aligned import Aligned, Change

GRAPHEME = regex.compile(r"\X")
LONGEST = 5  # bytes of a grapheme that is looked up as a whole


class CharsMap:
    """The table, from its base64. Raises ValueError for what cannot be one."""

    def __init__(self, packed: str):
        data = base64.b64decode(packed, validate=True)
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 4 or size < 4 or size > len(data) - 4:
            raise ValueError(f"a precompiled_charsmap of {len(data)} bytes cannot hold a trie of {size}.")
        self.trie = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self.texts = data[4 + size :]
        self._seen: dict[str, str | None] = {}

    @cached_property
    def ascii_unchanged(self) -> bool:
        """Whether printable ASCII text stays as it is, so that it needs no look-up."""
        return all(self.replacement(chr(code)) is None for code in range(32, 127))

    def replacement(self, text: str) -> str | None:
        """What stands for the shortest beginning of `text` that the table has; None if it has none."""
        if text not in self._seen:
            self._seen[text] = self._look_up(text.encode())
        return self._seen[text]

    def _look_up(self, key: bytes) -> str | None:
        return next((text for _, text in self.beginnings(key)), None)

    def beginnings(self, key: bytes, start: int = 0) -> Iterator[tuple[int, str]]:
        """Every text of the table that `key` has from `start` on, the shortest first: its size, what stands for it."""
        place = distance(self.trie[0])
        for at in range(start, len(key)):
            place ^= key[at]
            if key[at] == 0 or place >= len(self.trie):
                return
            node = self.trie[place]
            if node & 0x800000FF != key[at]:  # no child by this byte
                return
            place ^= distance(node)
            if node & 0x100 and place < len(self.trie):  # a text of the table ends here
                found = self.trie[place] & 0x7FFFFFFF
                yield at + 1 - start, self.texts[found:].partition(b"\0")[0].decode("utf-8", "replace")

    def longest(self, key: bytes, start: int) -> tuple[int, str] | None:
        """What SentencePiece itself looks up: the longest text of the table there, its size and what stands for it."""
        found = None
        for found in self.beginnings(key, start):  # noqa: B007
            pass
        return found

    def parts(self, text: str) -> list[tuple[str, str | None]]:
        """(part, what stands for it) for all of the text; None: the part stays."""
        found: list[tuple[str, str | None]] = []
        for grapheme in GRAPHEME.findall(text):
            whole = self.replacement(grapheme) if len(grapheme.encode()) <= LONGEST else None
            if whole is not None:
                found.append((grapheme, whole))
            else:
                found += [(character, self.replacement(character)) for character in grapheme]
        return found

    def apply(self, text: str) -> str:
        """The text with everything replaced."""
        if text.isascii() and text.isprintable() and self.ascii_unchanged:
            return text
        return "".join([part if new is None else new for part, new in self.parts(text)])

    def align(self, text: Aligned) -> Aligned:
        """The same, with the places in the original."""
        changes: list[Change] = []
        for part, new in self.parts(text.text):
            if new is None:
                changes += [(character, 0) for character in part]
                continue
            more = len(new) - len(part)
            changes += [(c, int(i >= len(new) - more)) for i, c in enumerate(new)]
            if more < 0 and changes:  # the last one takes the place of those that are gone
                changes[-1] = (changes[-1][0], changes[-1][1] + more)
        return text.changed(changes)


def distance(node: int) -> int:
    """How far away a node's children lie: 22 bits, times 256 if bit 9 says so."""
    return (node >> 10) << ((node & 0x200) >> 6)
