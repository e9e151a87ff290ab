"""Tokens that are found in a text before anything else looks at it: special tokens, and words that a user added.

The rules are those of the `tokenizers` library, so that its files give equal ids. A text is a stream of items here: a
`str` is more text, an `int` the id of a token that was found, which ends the section before it. So a file of any size
goes through in chunks, and one text is a stream of one item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import regex

# Unicode's White_Space. str.isspace() takes U+001C to U+001F too.
WHITE_SPACE = frozenset(
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
END = -1  # closes a stream, as an id would
_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")  # \w of UTS #18, annex C


@dataclass(frozen=True)
class AddedToken:
    """A text that is one token wherever it stands.

    special: it marks structure. `encode` makes it only where the caller allows it, and `decode` can leave it out.
    single_word: only where no letter, digit or "_" touches it.
    lstrip, rstrip: white space before it, or after it, becomes part of it.
    normalized: looked for in the text after normalising (lower case and so on), its own text normalised as well.
    """

    text: str
    id: int
    special: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False

    def to_json(self) -> dict[str, Any]:
        """The token as an entry of `added_tokens` in tokenizer.json."""
        return {"id": self.id, "content": self.text, **{flag: getattr(self, flag) for flag in FLAGS}}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> AddedToken:
        """The token that an entry of `added_tokens` stands for. Raises KeyError if it has no content or id."""
        return cls(entry["content"], entry["id"], **{flag: bool(entry.get(flag)) for flag in FLAGS})


@lru_cache(maxsize=32)
def any_of(texts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("|".join(map(regex.escape, sorted(texts, key=len, reverse=True))))


def is_in_word(text: str, start: int, end: int) -> bool:
    """Whether a letter, a digit or "_" touches what stands from `start` to `end`."""
    return bool(_WORD.match(text[start - 1 : start]) or _WORD.match(text, end))


def find_added_tokens(items: Iterable[str | int], tokens: Sequence[AddedToken]) -> Iterator[str | int]:
    """The stream with the tokens found: their ids in place of their texts.

    Of several that fit at one place the longest is taken, and the search goes on behind it. Text is passed on as soon
    as what follows cannot change it.
    """
    if not tokens:
        yield from items
        return
    by_text = {token.text: token for token in reversed(tokens)}  # of equal texts the first counts
    longest = max(map(len, by_text))
    pattern = any_of(tuple(by_text))
    strips = any(token.lstrip for token in tokens)

    text = ""
    done = 0  # text[:done] is passed on
    searched = 0  # no token begins before it, apart from those passed on; the character before stays, for single_word
    for item, following in pairwise(chain(items, [END])):
        if isinstance(item, int):
            yield item
            continue
        text += item
        final = not isinstance(following, str)
        limit = len(text) if final else max(searched, len(text) - longest)  # what begins there could yet be longer
        for match in pattern.finditer(text, searched):
            token = by_text[match.group()]
            start, end = match.span()
            if start >= limit:
                break
            if token.rstrip:
                while end < len(text) and text[end] in WHITE_SPACE:
                    end += 1
                if end == len(text) and not final:  # the white space may go on
                    limit = start
                    break
            searched = match.end()
            if token.single_word and is_in_word(text, start, match.end()):
                continue
            if token.lstrip:
                while start > done and text[start - 1] in WHITE_SPACE:
                    start -= 1
            if done < start:
                yield text[done:start]
            yield token.id
            done = end
        searched = max(searched, limit)
        if strips and not final:  # the white space may belong to a token to come
            while limit > done and text[limit - 1] in WHITE_SPACE:
                limit -= 1
        if done < limit:
            yield text[done:limit]
            done = limit
        cut = len(text) if final else max(min(done, searched) - 1, 0)
        text, done, searched = text[cut:], max(done - cut, 0), max(searched - cut, 0)
