"""How GPT-2 writes bytes as text: a printable character for each of the 256 values.

A token's bytes need not be UTF-8, but its files are text. So bytes that print in Latin-1 stand for themselves, and the
others for U+0100 and up, in their order. A space becomes "Ġ", a newline "Ċ", and 中 (E4 B8 AD) "ä¸Ń".

The order of those characters is also that of the first 256 ids, `BYTE_OF_ID`: "!" is 0, "a" is 64, the space is 220.
The order 0, 1, 2, ... would be simpler, but then neither GPT-2's files nor the `tokenizers` library would agree with
our ids, and ties between pairs would be broken differently.
"""

from __future__ import annotations

_PRINTING = [*range(33, 127), *range(161, 173), *range(174, 256)]  # "!" to "~", "¡" to "¬", "®" to "ÿ"
_OTHERS = [byte for byte in range(256) if byte not in _PRINTING]
BYTE_OF_ID = bytes(_PRINTING + _OTHERS)
ID_OF_BYTE = bytes(BYTE_OF_ID.index(byte) for byte in range(256))
CHARACTER_OF_BYTE = {byte: chr(byte) for byte in _PRINTING} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def spell(token: bytes) -> str:
    """A token's bytes in GPT-2's alphabet.

    >>> spell(" 中".encode())
    'Ġä¸Ń'
    """
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)


def unspell(text: str) -> bytes:
    """The bytes of a token written in GPT-2's alphabet. Raises KeyError for a character outside of it."""
    return bytes(BYTE_OF_CHARACTER[character] for character in text)
