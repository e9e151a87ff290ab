"""More special tokens for a tokenizer that is made: some tasks need marks that its texts did not, such as [MASK]."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from .added import AddedToken
from .base import Tokenizer
from .pipeline import PipelineTokenizer

T = TypeVar("T", bound=Tokenizer)


def with_special_tokens(tokenizer: T, texts: Iterable[str]) -> T:
    """The tokenizer with these special tokens: those it lacks get the ids after its last. Every text keeps its ids.

    Raises ValueError for a text that is an added token without special meaning there.

    >>> from minillm.tokenizers import CharTokenizer
    >>> extended = with_special_tokens(CharTokenizer.train(["abc"]), ["<|endoftext|>", "[MASK]"])
    >>> extended.special_tokens, extended.encode("cab")
    ({'<|endoftext|>': 3, '[MASK]': 4}, [2, 0, 1])
    """
    extended = copy.copy(tokenizer)  # of what is shared with the original, nothing is changed below
    ordinary = {token.text for token in tokenizer.added_tokens if not token.special}
    for text in texts:
        if text in ordinary:
            raise ValueError(f"{text!r} stands for ordinary text in this tokenizer, so it cannot be a special one too.")
        if text not in extended.special_tokens:
            token = AddedToken(text, extended.vocab_size)
            extended.tokens = [*extended.tokens, text.encode()]
            extended.added_tokens = [*extended.added_tokens, token]
            extended.special_tokens = {**extended.special_tokens, text: token.id}
            if isinstance(extended, PipelineTokenizer):
                extended.name_added()
    return extended
