"""Augmentation: training texts a little changed in each epoch, so that a model can't learn them by heart.

Words left out, neighbours exchanged, words replaced by synonyms: three of the four operations of EDA (Wei & Zou 2019,
arXiv 1901.11196; the fourth inserts synonyms), and translation there and back (Sennrich et al. 2016, arXiv 1511.06709).
What a text means for its label must stay: so words that turn a meaning round are protected. A change follows from
(seed, epoch, index of the example) alone, so a run can be resumed, and nothing is stored.

For training examples only: a changed validation or test text measures something else.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import regex

from .synonyms import Synonyms

Translate = Callable[[list[str]], list[str]]

_NEGATIONS = """
no not never none nobody nothing nowhere neither nor cannot without hardly barely scarcely lack lacks fail fails failed
don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't ain't
needn't mustn't 不 没 没有 无 未 非 别 勿 莫 否 并非 从不 毫无
"""
_CONTRASTS = """
but however although though yet except despite unless 但 但是 可是 不过 然而 虽然 尽管 除了 却
"""
NEGATIONS = frozenset(_NEGATIONS.split())
CONTRASTS = frozenset(_CONTRASTS.split())
# Ideographs and kana: scripts without spaces, in which each character is taken for a word.
_OWN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTERS = rf"(?![{_OWN}])[\p{{L}}\p{{N}}](?:(?![{_OWN}])[\p{{L}}\p{{M}}\p{{N}}])*"
_WORD = rf"[{_OWN}]\p{{M}}*|{_LETTERS}(?:['’]{_LETTERS})*"


@dataclass(frozen=True)
class Augmentation:
    """Changes a text: `augmentation(text, epoch, index)` -> another, or the same. All rates 0: always the same.

    `dropout` is the probability of each word to be left out, `swap` of each pair of neighbours to change places,
    `synonyms` of each word that `table` has to be replaced. Words in `protected` (small) are never left out, moved or
    replaced, nor put in for others. A text keeps one word at least. Chinese and Japanese are taken by character, but
    protected words and those in the table as a whole.
    """

    dropout: float = 0.0
    swap: float = 0.0
    synonyms: float = 0.0
    table: Synonyms = field(default_factory=dict)
    protected: frozenset[str] = NEGATIONS | CONTRASTS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dropout", "swap", "synonyms"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be a probability from 0 up, below 1, not {getattr(self, name)}.")
        if self.synonyms and not self.table:
            raise ValueError("synonyms need a table: our_synonyms(), or read_synonyms(FILE) of your own .tsv.")

    @functools.cached_property
    def pattern(self) -> regex.Pattern[str]:
        return word_pattern([*self.protected, *self.table])

    def __call__(self, text: str, epoch: int, index: int) -> str:
        """The text as this epoch shows it."""
        gaps, words = cut_words(text, self.pattern)
        before = list(words)
        rng = np.random.default_rng([self.seed % 2**64, epoch, index])
        draws = rng.random((4, len(words)))  # always as many, so that one switch doesn't change another's choices
        free = np.array([plain_word(word) not in self.protected for word in words], dtype=bool)
        for i in np.flatnonzero(free & (draws[0] < self.synonyms)).tolist():
            words[i] = self.synonym(words[i], draws[1, i])
        for i in range(len(words) - 1):
            if free[i] and free[i + 1] and draws[2, i] < self.swap and not gaps[i + 1].strip():
                words[i], words[i + 1] = words[i + 1], words[i]
                free[i + 1] = False  # a word moves by one place at most
        free = np.array([plain_word(word) not in self.protected for word in words], dtype=bool)
        left_out = free & (draws[3] < self.dropout)
        if words and left_out.all():
            left_out[np.argmax(draws[3])] = False
        if words == before and not left_out.any():
            return text
        new = join_words(gaps, words, left_out)
        # Characters that come to stand together may be read as another word: 但 and 是, which are "but" then.
        before_and_after = [protected_in(t, self.pattern, self.protected) for t in (text, new)]
        return new if before_and_after[0] == before_and_after[1] else text

    def synonym(self, word: str, draw: float) -> str:
        """One of the words that may stand for this one, or itself; a capital stays one."""
        others = [other for other in self.table.get(plain_word(word), ()) if other.casefold() not in self.protected]
        if not others:
            return word
        other = others[int(draw * len(others))]
        return other[0].upper() + other[1:] if word[0].isupper() else other


def plain_word(word: str) -> str:
    """A word as it is looked up: small, with a straight apostrophe."""
    return word.casefold().replace("’", "'")


def word_pattern(whole: Iterable[str]) -> regex.Pattern[str]:
    """What a word is: one of `whole` that spaces don't set off (Chinese ones), a character of its own, or letters."""
    unspaced = sorted({word for word in whole if regex.search(f"[{_OWN}]", word)}, key=len, reverse=True)
    return regex.compile("|".join([*map(regex.escape, unspaced), _WORD]))


def cut_words(text: str, pattern: regex.Pattern[str]) -> tuple[list[str], list[str]]:
    """(gaps, words): gap, word, gap, word, ..., gap together are the text."""
    gaps, words, end = [], [], 0
    for match in pattern.finditer(text):
        gaps.append(text[end : match.start()])
        words.append(match.group())
        end = match.end()
    return [*gaps, text[end:]], words


def join_words(gaps: Sequence[str], words: Sequence[str], left_out: np.ndarray) -> str:
    """The text without the words that are left out: without one of the spaces around each, and without a comma behind
    what was the first."""
    kept = gaps[0]
    for word, gap, out in zip(words, gaps[1:], left_out):
        if not out:
            kept += word + gap
        elif not kept.strip():
            kept += gap.lstrip(" ,;:，；：、")
        elif gap[:1].isspace():
            kept += gap.lstrip()
        elif gap:
            kept = kept.rstrip() + gap
    return kept.rstrip() if left_out[-1] and not gaps[-1] else kept


def back_translate(
    texts: Sequence[str], there: Translate, back: Translate, *, protected: frozenset[str] = NEGATIONS | CONTRASTS
) -> list[str]:
    """Each text translated by `there` and again by `back`: the same meaning in other words, where the translators are
    good. A text stays as it is if it would come back empty, or with other protected words (a lost "not").

    Raises ValueError where a translator returns another number of texts.
    """
    texts = list(texts)
    abroad = there(texts)
    returned = back(abroad) if len(abroad) == len(texts) else []
    if len(returned) != len(texts):
        n = len(abroad) if len(abroad) != len(texts) else len(returned)
        raise ValueError(
            f"back_translate: of {len(texts)} texts {n} came back from a translator: one for each is needed."
        )
    pattern = word_pattern(protected)
    kept = []
    for old, new in zip(texts, returned):
        before, after = (Counter(protected_in(text, pattern, protected)) for text in (old, new))
        kept.append(new if new.strip() and before == after else old)
    return kept


def protected_in(text: str, pattern: regex.Pattern[str], protected: frozenset[str]) -> list[str]:
    """The protected words of a text, in order."""
    return [word for word in map(plain_word, cut_words(text, pattern)[1]) if word in protected]
