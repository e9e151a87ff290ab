"""Where added tokens stand in a text that is there as a whole; added.py finds them in a stream, by the same rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .added import WHITE_SPACE, AddedToken, any_of, is_in_word

Found = tuple[int, int, int | None]  # from, to, and the id of the token; None for the text between two


def find_spans(text: str, tokens: Sequence[AddedToken]) -> Iterator[Found]:
    """The tokens and what lies between them, in order, together all of the text.

    >>> list(find_spans("a <s>b", [AddedToken("<s>", 7, lstrip=True)]))
    [(0, 1, None), (1, 5, 7), (5, 6, None)]
    """
    by_text = {token.text: token for token in reversed(tokens)}  # of equal texts the first counts
    done = 0
    for match in any_of(tuple(by_text)).finditer(text) if by_text else ():
        token = by_text[match.group()]
        start, end = match.span()
        if token.single_word and is_in_word(text, start, end):
            continue
        while token.lstrip and start > done and text[start - 1] in WHITE_SPACE:
            start -= 1
        while token.rstrip and end < len(text) and text[end] in WHITE_SPACE:
            end += 1
        if done < start:
            yield done, start, None
        yield start, end, token.id
        done = end
    if done < len(text):
        yield done, len(text), None
