"""How BERT cleans a text and cuts it into words: what comes before WordPiece (wordpiece.py).

Devlin et al. 2019 published it as `BasicTokenizer` in BERT's tokenization.py; the `tokenizers` library has it as
BertNormalizer and BertPreTokenizer, and this gives the same words, character for character:

>>> split_words(BertNormalizer().normalize("Ça va?  東京は\\tNAÏVE\\0!"))
['ca', 'va', '?', '東', '京', 'は', 'naive', '!']

Unicode's categories decide what is an accent, a control character or punctuation, and Unicode grows by a version a
year. The library's tables for them stopped at Unicode 8 (2015), and its models were trained with those, so a character
that came later counts as a letter here too (`_LATER_THAN_UNICODE_8`). Two differences are left, both in characters
newer than some Python: lower case that this Python's Unicode does not know, and the few that Unicode 13 and 16 put
together of two (U+11938 is the first), which come apart here and stay whole there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from .added import WHITE_SPACE

# Ranges that hold accents, format characters or punctuation of Unicode 9 and later, and none of earlier ones.
_LATER_THAN_UNICODE_8 = (
    "5C8-5C9 61D-61D 7FD-7FD 890-8E2 9FD-9FE A76-A76 AFA-AFF B53-B55 C04-C3C C77-C77 C84-C84 D00-D00 D3B-D3C D81-D81 "
    "EBA-EBA ECE-ECE 180F-1886 1ABF-1AF0 1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C-A82C A8C5-A8C5 A8FF-A8FF "
    "A9BD-A9BD 10D24-10F89 11070-11074 110C2-110CD 111CF-111CF 1123E-11241 1133B-1133B 113BB-1145E 11660-1166C "
    "116B9-116B9 1182F-11FFF 12FF1-1612F 16D6D-16F4F 16FE2-16FE4 1CF00-1D128 1D25B-1D25C 1E000-1E6F5 1E944-1E95F"
)
_CATEGORY_IN_UNICODE_8 = {0x166D: "Po", 0x1734: "Mn", 0x111C9: "Po", 0x1171E: "Mn"}  # those that changed since

# The blocks of Chinese characters that BERT names: written without spaces, so each becomes a word. (At 2B920 BERT's
# own code has 2B820; the library's slip is kept, for equal ids.)
_CHINESE_BLOCKS = "4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B920-2CEAF F900-FAFF 2F800-2FA1F"


def blocks(ends: str) -> tuple[range, ...]:
    """The code points from each first to its last, "5C8-5C9 61D-61D"."""
    return tuple(range(int(first, 16), int(last, 16) + 1) for first, last in (end.split("-") for end in ends.split()))


_LATER, _CHINESE = blocks(_LATER_THAN_UNICODE_8), blocks(_CHINESE_BLOCKS)


def category(code: int) -> str:
    """The Unicode category of a code point, "Cn" (no character) for what came after Unicode 8 and would matter."""
    if code in _CATEGORY_IN_UNICODE_8:
        return _CATEGORY_IN_UNICODE_8[code]
    return "Cn" if any(code in block for block in _LATER) else unicodedata.category(chr(code))


def cleaned(code: int) -> str:
    """Control characters go away, white space becomes a space."""
    if chr(code) in "\t\n\r":
        return " "
    if code in (0, 0xFFFD) or category(code) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    return " " if chr(code) in WHITE_SPACE else chr(code)


def chinese_apart(code: int) -> str:
    """Chinese characters get spaces around them."""
    return f" {chr(code)} " if any(code in block for block in _CHINESE) else chr(code)


def without_marks(code: int) -> str:
    """Marks that take no space (Mn) go away: what is left of é after NFD is e."""
    return "" if category(code) == "Mn" else chr(code)


def words_apart(code: int) -> str:
    """White space becomes a space, and punctuation gets spaces around it."""
    character = chr(code)
    if character in WHITE_SPACE:
        return " "
    ascii_sign = 33 <= code < 127 and not character.isalnum()  # "$" and "^" too, which Unicode calls symbols
    return f" {character} " if ascii_sign or category(code)[0] == "P" else character


class _Table(dict[int, str]):
    """code point -> what stands in its place, for `str.translate`; worked out when a character first comes up."""

    def __init__(self, replace: Callable[[int], str]):
        super().__init__()
        self.replace = replace

    def __missing__(self, code: int) -> str:
        self[code] = text = self.replace(code)
        return text


_CLEANED, _CHINESE_APART = _Table(cleaned), _Table(chinese_apart)
_WITHOUT_MARKS, _WORDS_APART = _Table(without_marks), _Table(words_apart)


@dataclass(frozen=True)
class BertNormalizer:
    """Which of BERT's four steps are taken, in this order. strip_accents=None: as `lowercase` says."""

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True

    def normalize(self, text: str) -> str:
        """The text in the form that the vocabulary was made for."""
        if self.clean_text:
            text = text.translate(_CLEANED)
        if self.handle_chinese_chars and not text.isascii():
            text = text.translate(_CHINESE_APART)
        if (self.lowercase if self.strip_accents is None else self.strip_accents) and not text.isascii():
            text = unicodedata.normalize("NFD", text).translate(_WITHOUT_MARKS)
        if self.lowercase:
            text = text.replace("Σ", "σ").lower()  # Python alone would make the last sigma of a word a ς
        return text


UNCASED, CASED = BertNormalizer(), BertNormalizer(lowercase=False)


def split_words(text: str) -> list[str]:
    """The words of a normalised text: white space parts them and is gone, each punctuation mark is a word."""
    return [word for word in text.translate(_WORDS_APART).split(" ") if word]
