"""Words by script: which characters begin a word, which continue one, and which are one by themselves.

Where a script puts spaces between words, a run of letters and digits is a word, and so are the marks within it: the
vowel signs of Hindi (कि and की are two words), the points of Arabic and Hebrew, an accent behind its letter. Chinese,
Japanese, Thai, Lao, Khmer and Burmese put none, and to find their words would take a dictionary. Texts can be compared
by something smaller, as long as equal stretches are cut alike wherever they stand:

    Chinese, Japanese   each ideograph or kana
    Khmer, Burmese      each letter with its signs
    Thai, Lao           nearly a syllable: it begins at a vowel written in front (เ แ โ ใ ไ), or at a consonant that a
                        vowel or a tone mark follows; any other consonant goes with what stands before it

    กินข้าวที่นี่  ->  กิน ข้าว ที่ นี่

`word_starts` says it of whole texts in NumPy, `OWN_WORD` is the same as a pattern for the `regex` package.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
import regex

SEPARATOR, LETTER, OWN, MARK, FRONT_VOWEL, CONSONANT, VOWEL = range(7)  # the last three: of Thai and Lao
TABLE_SIZE = 0x20000  # above lie ideographs and, from MARKS_ABOVE on, marks that choose among their forms
MARKS_ABOVE = 0xE0000
FIRST_MARK = 0x300  # no mark stands below it, and no letter of a script without spaces

# Written without spaces, each letter a word: Burmese, Khmer, 々 〆 〇, kana, small kana, ideographs, narrow kana.
OWN_RANGES = (
    (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
)  # fmt: skip
SYLLABLES = {  # of Thai and Lao, whose blocks are laid out alike: what the vowels and consonants are
    FRONT_VOWEL: "\u0e40-\u0e44\u0ec0-\u0ec4",
    CONSONANT: "\u0e01-\u0e2e\u0e81-\u0eae\u0edc-\u0edf",
    VOWEL: "\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ebd\u0ec6",  # and the repetition marks
}
JOINERS = "\u200c\u200d"  # they shape the letters beside them: part of the word

_front, _consonant, _vowel = SYLLABLES.values()
_own = "".join(f"{chr(first)}-{chr(last)}" for first, last in OWN_RANGES) + "\U00020000-\U0003ffff"
_syllabic = f"{_front}{_consonant}{_vowel}"
OWN_WORD = (  # the place where a word of a script without spaces begins
    rf"(?:[\u4e00-\u9fff]|(?=[\p{{L}}\p{{N}}])[{_own}]"
    rf"|[{_front}]|(?<![{_front}]\p{{M}}*)[{_consonant}](?=[\p{{M}}{_vowel}])"
    rf"|(?<![{_syllabic}]\p{{M}}*)[{_consonant}{_vowel}])"
)
# A letter or mark of a script with spaces; for the flag V1 of `regex`.
SPACED_LETTER = rf"[[\p{{L}}\p{{M}}{JOINERS}]--[{_own}{_syllabic}]]"
_OWN_WORDS = regex.compile(OWN_WORD)


def count_words(text: str) -> int:
    """The pieces between white space, or the words of a script that has none between them: the more.

    >>> count_words("three words here"), count_words("这里有八个汉字。"), count_words("กินข้าวที่นี่")
    (3, 7, 4)
    """
    return max(len(text.split()), 0 if text.isascii() else len(_OWN_WORDS.findall(text)))


def word_starts(points: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(whether a word begins there, whether it belongs to a word) for each code point of a text: (n,) each."""
    highest = int(points.max(initial=0))
    if highest < TABLE_SIZE:
        kind = char_kinds()[points]  # (n,)
    else:
        above = np.where(points < MARKS_ABOVE, OWN, MARK).astype(np.uint8)
        kind = np.where(points < TABLE_SIZE, char_kinds()[np.minimum(points, TABLE_SIZE - 1)], above)
    if highest < FIRST_MARK:
        inside = kind != SEPARATOR
        starts = inside.copy()
        starts[1:] &= ~inside[:-1]
        return starts, inside
    marks = kind == MARK
    if marks.any():  # a mark is what its letter is; without one before it, nothing
        letter = np.maximum.accumulate(np.where(marks, 0, np.arange(len(kind))))
        kind = kind[letter]
        kind[kind == MARK] = SEPARATOR
    starts = kind != SEPARATOR
    starts[1:] &= (kind[1:] >= OWN) | (kind[:-1] != LETTER)
    syllabic = kind >= FRONT_VOWEL
    if syllabic.any():
        behind = syllabic[1:] & syllabic[:-1]
        followed = np.append((marks | (kind == VOWEL))[1:], False)
        begins = (kind == FRONT_VOWEL) | ((kind == CONSONANT) & followed)
        begins[1:] &= (kind[1:] == FRONT_VOWEL) | (kind[:-1] != FRONT_VOWEL)
        starts[1:] &= ~behind | begins[1:]
    starts &= ~marks
    return starts, kind != SEPARATOR


@functools.cache
def char_kinds() -> npt.NDArray[np.uint8]:
    """For each code point below TABLE_SIZE one of the seven kinds."""
    table = np.array([kind_of(chr(i)) for i in range(TABLE_SIZE)], dtype=np.uint8)
    for first, last in OWN_RANGES:
        table[first : last + 1][table[first : last + 1] == LETTER] = OWN
    for kind, characters in SYLLABLES.items():
        for match in regex.finditer(r"(.)-(.)|(.)", characters):
            first, last = (ord(match[i] or match[3]) for i in (1, 2))
            table[first : last + 1] = kind
    return table


def kind_of(character: str) -> int:
    if character.isalnum():
        return LETTER
    return MARK if unicodedata.category(character)[0] == "M" or character in JOINERS else SEPARATOR
