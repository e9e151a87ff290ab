"""A text that changes step by step, and still knows where in the original each of its characters came from.

Labels on words, answers to questions: what a model says about tokens must be found again in the text that a person
wrote. So each character carries a span, (first, last + 1) in the original, through all that normalising does to it:

>>> Aligned.of("Ä!").changed([("A", 0), ("\\u0308", 1), ("!", 0)])
Aligned(text='Ä!', spans=[(0, 1), (0, 1), (1, 2)])

How characters that come in get their spans is what the `tokenizers` library does (NormalizedString), so that offsets
are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Span = tuple[int, int]
Change = tuple[str, int]  # a character, and how many characters it adds (1) or takes away (-n); 0: it replaces one


@dataclass
class Aligned:
    """text, and for each of its characters the span of the original that it stands for."""

    text: str
    spans: list[Span]

    @classmethod
    def of(cls, text: str, start: int = 0) -> Aligned:
        """A text that nothing has changed yet, `start` characters into the original."""
        return cls(text, [(i, i + 1) for i in range(start, start + len(text))])

    def changed(self, changes: Iterable[Change]) -> Aligned:
        """The text that `changes` spell. A character that replaces one has its span, one that is added that of the
        character before it."""
        spans, at, text = [], 0, []
        for character, change in changes:
            if change > 0:
                spans.append(self.spans[at - 1])  # the first is never one
            else:
                spans.append(self.spans[min(at, len(self.spans) - 1)])
                at += 1 - change
            text.append(character)
        return Aligned("".join(text), spans)

    def kept(self, keep: Callable[[str], bool]) -> Aligned:
        """Without the characters that `keep` says no to."""
        places = [i for i, character in enumerate(self.text) if keep(character)]
        return Aligned("".join([self.text[i] for i in places]), [self.spans[i] for i in places])

    def each(self, replace: Callable[[str], str]) -> Aligned:
        """With what `replace` makes of each character, one or more in place of it."""
        return self.changed((c, int(i > 0)) for old in self.text for i, c in enumerate(replace(old)))

    def slice(self, start: int, end: int) -> Aligned:
        """The characters from `start` to `end`."""
        return Aligned(self.text[start:end], self.spans[start:end])


def span_of(spans: list[Span]) -> Span:
    """From where the first begins to where the last ends."""
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)
