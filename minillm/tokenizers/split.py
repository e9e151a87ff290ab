r"""Cut text into pre-tokens: the pieces that byte-pair encoding may merge inside, but never across.

GPT-2 (Radford et al. 2019, section 2.2) found that plain BPE spends its vocabulary on "dog.", "dog!" and "dog?",
so it first cuts text by a regular expression into words, numbers, punctuation and white space, and merges only
within the pieces. A space belongs to the word after it:

>>> split_text("I've 12345 cats,\n  here", "gpt2")
['I', "'ve", ' 12345', ' cats', ',', '\n ', ' here']
>>> split_text("I've 12345 cats,\n  here", "gpt4")
['I', "'ve", ' ', '123', '45', ' cats', ',\n', ' ', ' here']

Two engines do the cutting. `regex` knows Unicode's letters (\p{L}), digits (\p{N}) and white space. The standard
library's `re` does not, but on pure ASCII text it needs no Unicode and is about twice as fast. So text goes through
in windows, and each window that is ASCII takes the fast path. The two give the same pieces, which the tests prove.
`re` also takes most of what is not ASCII: `spelled_out` writes Unicode's classes out for it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain

import regex

# The patterns as published: "gpt2" in GPT-2's encoder.py; "gpt4" is cl100k_base of tiktoken's first release, which
# GPT-3.5, GPT-4 and Llama 3 use; "qwen2", of Qwen 2 to 3, differs from it in giving each digit a piece of its own;
# "qwen35", of Qwen 3.5, besides counts marks as letters. The others cut a Hindi word at each of its vowel signs, a Thai
# one at its tones, a decomposed é at its accent.
# (Later tiktoken releases write gpt4's end as `\s++$|\s*[\r\n]|\s+(?!\S)|\s`, which puts a newline and the spaces
# after it into one piece at the end of a text, and only there. That changes ids only if the vocabulary has a token of a
# newline and then spaces, which training by this pattern never makes.)
UNICODE_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}

# A window and its pieces should stay in the processor's cache: 1 << 16 took half as long again when it was measured.
WINDOW_CHARS = 1 << 12
_LOOKAHEAD = 2  # how far past its end a piece's match may have looked: "'" alone, after trying "'ll"


def ascii_pattern(name: str, *, possessive: bool = sys.version_info >= (3, 11)) -> str:
    r"""The pattern called `name` for the standard library's `re`, right for ASCII text only.

    Three things differ from `UNICODE_PATTERNS`. The classes are spelled out, because `\s` in `re` also takes
    U+001C to U+001F, which Unicode does not call white space. The commonest alternative, a word after an optional
    space, comes first; that changes nothing, as no earlier alternative can begin with a letter or a space and a letter.
    Quantifiers are possessive (`++`: never give back) from Python 3.11 on: backtracking could not find anything there.
    An alternative that begins with an optional space stands as two, for `re` passes over one that can't begin here; a
    newline that no other follows has one of its own.
    ASCII has no marks, so that "qwen35" is "qwen2".
    """
    p = "+" if possessive else ""
    if name == "gpt2":
        return (
            rf" ?[A-Za-z]+{p}|'(?:[stmd]|re|ve|ll)| ?[0-9]+{p}| ?[^\t-\r A-Za-z0-9]+{p}"
            r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
        )
    digits = f"[0-9]{{1,3}}{p}" if name == "gpt4" else "[0-9]"
    signs = r"[^\t-\r A-Za-z0-9]"
    return (
        rf" [A-Za-z]+{p}|[A-Za-z]+{p}|'(?:[stmdSTMD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\nA-Za-z0-9][A-Za-z]+{p}"
        rf"|{signs}+{p}[\r\n]*{p}| {signs}+{p}[\r\n]*{p}|{digits}|[\r\n]+{p}(?![\t\x0b\x0c ]*{p}[\r\n])"
        r"|[\t-\r ]*[\r\n]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
    )


_BEYOND = re.compile("[\U00010000-\U0010ffff]+")
_IN_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]")
_UNICODE = {name: regex.compile(pattern) for name, pattern in UNICODE_PATTERNS.items()}
_ASCII = {name: re.compile(ascii_pattern(name)) for name in UNICODE_PATTERNS}


@cache
def spelled_out(name: str) -> Callable[[str], list[str]]:
    r"""`findall` of the pattern called `name` for the standard library's `re`, wrong only for letters, marks and digits
    above U+FFFF (emoji are none): those are too many for `re` to be quick.

    What `regex` says is in \p{L}, \p{M}, \p{N} and \s is written as ranges of characters, U+0041-U+005A and so on. "'ſ"
    is the one contraction with another letter.
    """
    contractions = "'(?:[sSſtTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
    pattern = UNICODE_PATTERNS[name].replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", contractions).replace(r"\S", r"[^\s]")
    pattern = re.sub(r"(\[[^]]*\])|(\\p\{.\}|\\s)", lambda part: part[1] or f"[{part[2]}]", pattern)
    characters = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000)
    for kind in (r"\p{L}", r"\p{M}", r"\p{N}", r"\s"):
        runs = regex.findall(f"{kind}+", characters)
        pattern = pattern.replace(kind, "".join(f"\\u{ord(run[0]):04x}-\\u{ord(run[-1]):04x}" for run in runs))
    return re.compile(pattern).findall


def quickest(text: str, pattern: str) -> Callable[[str], list[str]]:
    """What cuts this text alike in the least time: `findall` of one of three patterns."""
    if text.isascii():
        return _ASCII[pattern].findall
    beyond = "".join(_BEYOND.findall(text))
    if beyond and _IN_WORDS.search(beyond):
        return _UNICODE[pattern].findall
    return spelled_out(pattern)


def check_pattern_name(name: str) -> None:
    """Raise ValueError, naming the known ones, unless `name` is a pattern."""
    if name not in UNICODE_PATTERNS:
        raise ValueError(f"the split pattern must be one of {', '.join(map(repr, UNICODE_PATTERNS))}, not {name!r}.")


def split_text(text: str, pattern: str) -> list[str]:
    """All pre-tokens of `text`, in order, by the pattern "gpt2", "gpt4", "qwen2" or "qwen35"; joined, they are `text`.

    >>> split_text("हिन्दी में", "gpt4"), split_text("हिन्दी में", "qwen35")
    (['ह', 'िन', '्द', 'ी', ' म', 'ें'], ['हिन्दी', ' में'])
    """
    check_pattern_name(pattern)
    return [piece for pieces, _ in split_windows(text, pattern) for piece in pieces]


def split_windows(
    text: str, pattern: str, *, final: bool = True, window: int = WINDOW_CHARS
) -> Iterator[tuple[list[str], int]]:
    """Yield (pieces, how many characters they cover) for one window of `text` after the other.

    final=False says that more text will follow: the end of `text` that it could still change is left out.
    """
    start, size = 0, window
    while start < len(text):
        part = text[start : start + size]
        pieces = quickest(part, pattern)(part)
        used = len(part)
        if not final or start + used < len(text):
            used -= drop_unsettled(pieces)
        if used:
            yield pieces, used
            start, size = start + used, window
        elif start + size < len(text):
            size *= 2  # a piece longer than the window: look at more
        else:
            return


def count_split(texts: Iterable[str], pattern: str, nfc: bool = False) -> Counter[str]:
    """How often each pre-token occurs in some texts, brought into Unicode's form NFC first if `nfc`."""
    normal = (unicodedata.normalize("NFC", text) if nfc else text for text in texts)
    windows = chain.from_iterable(split_windows(text, pattern) for text in normal)
    return Counter(chain.from_iterable(pieces for pieces, _ in windows))


def drop_unsettled(pieces: list[str]) -> int:
    """Remove from the end of `pieces` what text to come could still change; return how many characters that is.

    Matching runs left to right and never looks back, so a piece changes only if its match looked at characters beyond
    the text at hand. A run of letters, digits or punctuation looks at most `_LOOKAHEAD` characters past its end; a run
    of white space looks at the whole run. So everything before a boundary is settled once `_LOOKAHEAD` characters
    follow the boundary and no white space ends at it. (`isspace` takes U+001C to U+001F too: too careful there.)
    """
    dropped, settled = 0, len(pieces)
    while settled and (dropped < _LOOKAHEAD or pieces[settled - 1][-1].isspace()):
        settled -= 1
        dropped += len(pieces[settled])
    del pieces[settled:]
    return dropped
