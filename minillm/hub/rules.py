"""What generation_config.json forbids and forces, id by id: the rules that `minillm.generate` and beam search follow.

Each is the processor of `transformers` with its name, in its order. A rule takes the scores (V,) of the next id, logits
or log-probabilities, and gives −∞ to what must not come; a forced id has 0 and all others −∞.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..generate import Array, Sampling, penalized


@dataclass(frozen=True)
class Rules:
    """`Rules(...)(number of new ids, scores (V,), all ids so far)` -> new scores (V,).

    `stop_ids` and `max_new_tokens` are those of the generation. Raises ValueError for what is no rule, for an id beyond
    the vocabulary in `bad_words_ids` or a forced one, and where nothing is left to choose.
    """

    stop_ids: Sequence[int] = ()
    max_new_tokens: int | None = None
    repetition_penalty: float = 1.0  # as in `Sampling`; here it is beam search's, too
    no_repeat_ngram_size: int = 0  # n > 0: no n ids in a row come twice, the prompt counted
    bad_words_ids: Sequence[Sequence[int]] = ()  # ids that may not come in this order; a single stop id may
    min_new_tokens: int = 0  # before so many new ones, no stop id
    forced_bos_token_id: int | None = None  # the second id of all, after a prompt of one
    forced_eos_token_id: int | Sequence[int] | None = None  # the last id that there is room for
    suppress_tokens: Sequence[int] = ()  # never these
    begin_suppress_tokens: Sequence[int] = ()  # not at the beginning, of what is not forced

    def __post_init__(self) -> None:
        Sampling(repetition_penalty=self.repetition_penalty)  # checks it
        for name in ("no_repeat_ngram_size", "min_new_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 0, which is no rule.")
        if not all(len(word) for word in self.bad_words_ids):
            raise ValueError(f"bad_words_ids = {self.bad_words_ids!r:.60} must be lists of at least one id each.")

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        given = ("stop_ids", "max_new_tokens")
        return any(getattr(self, f.name) != f.default for f in fields(self) if f.name not in given)

    def __call__(self, n_new: int, scores: Array, ids: Array) -> Array:
        x = scores.copy()
        if self.repetition_penalty != 1:
            x = np.where(np.isneginf(x), x, penalized(x, ids, self.repetition_penalty))
        x[repeating(ids, self.no_repeat_ngram_size)] = -np.inf
        self.forbid(x, self.completing(ids, len(x)))
        if n_new < self.min_new_tokens:
            self.forbid(x, self.stop_ids)
        if self.forced_bos_token_id is not None and len(ids) == 1:
            x = self.only(x, [self.forced_bos_token_id], "forced_bos_token_id")
        if self.forced_eos_token_id is not None and n_new + 1 == self.max_new_tokens:
            x = self.only(x, np.ravel(self.forced_eos_token_id), "forced_eos_token_id")
        self.forbid(x, self.suppress_tokens)
        if n_new == int(self.forced_bos_token_id is not None and len(ids) - n_new <= 1):
            self.forbid(x, self.begin_suppress_tokens)
        if np.isneginf(x).all():
            raise ValueError(f"generate: no id may come after {ids[-5:].tolist()}: see the rules, {self}.")
        return x

    def completing(self, ids: Array, n_ids: int) -> list[int]:
        """The ids that would complete one of `bad_words_ids`."""
        if outside := [token for word in self.bad_words_ids for token in word if not 0 <= token < n_ids]:
            raise ValueError(f"bad_words_ids has id {outside[0]}, and the model's are 0 to {n_ids - 1}.")
        words = [tuple(word) for word in self.bad_words_ids if len(word) > 1 or word[0] not in self.stop_ids]
        return [word[-1] for word in words if len(word) <= 1 + len(ids) and ends_in(ids, word[:-1])]

    @staticmethod
    def forbid(x: Array, tokens: Sequence[int]) -> None:
        """−∞ for these, of those that there are."""
        x[[token for token in tokens if 0 <= token < len(x)]] = -np.inf

    @staticmethod
    def only(x: Array, tokens: Any, name: str) -> Array:
        """Scores that leave no other choice than `tokens`."""
        if min(tokens) < 0 or max(tokens) >= len(x):
            raise ValueError(f"{name} = {np.asarray(tokens).tolist()}: the model's ids are 0 to {len(x) - 1}.")
        forced = np.full_like(x, -np.inf)
        forced[tokens] = 0.0
        return forced


def repeating(ids: Array, n: int) -> Array:
    """The ids that would make the last n of a text ones that stood in it before; n = 0: none.

    >>> repeating(np.array([1, 2, 3, 1, 2]), 3)
    array([3])
    """
    if n == 0 or len(ids) < n:
        return np.array([], dtype=np.int64)
    grams = np.lib.stride_tricks.sliding_window_view(ids, n)  # (T − n + 1, n)
    return grams[(grams[:, :-1] == ids[len(ids) + 1 - n :]).all(axis=1), -1]


def ends_in(ids: Array, end: tuple[int, ...]) -> bool:
    return tuple(ids[len(ids) - len(end) :].tolist()) == end


# --- texts that end an answer -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StopTexts:
    """`StopTexts(tokenizer, texts)(ids)`: whether the last id completes one of the `texts`, even if more comes with it,
    as transformers' `stop_strings` do. `tokenizer`: of minillm.tokenizers. The first `after` ids are not looked at."""

    tokenizer: Any
    texts: Sequence[str]
    after: int = 0

    def __post_init__(self) -> None:
        check_stop_texts(self.texts)

    def __call__(self, ids: Sequence[int]) -> bool:
        tokens = self.tokenizer.tokens
        known = [token for token in ids[self.after :] if token < len(tokens) and tokens[token] is not None]
        if not known or known[-1] != ids[-1]:
            return False
        wanted = [text.encode() for text in self.texts]
        room = max(map(len, wanted)) + len(self.tokenizer.decode_bytes(known[-1:]))
        start = len(known) - 1
        while start > 0 and len(self.tokenizer.decode_bytes(known[start:])) < room:
            start -= 1
        before = self.tokenizer.decode_bytes(known[start:-1])
        text = self.tokenizer.decode_bytes(known[start:])
        return any((place := text.rfind(end)) >= 0 and place + len(end) > len(before) for end in wanted)


def check_stop_texts(texts: Sequence[str]) -> None:
    """Raise ValueError for a text that every text ends with."""
    if not all(texts):
        raise ValueError("a text that ends the answer must have at least one character.")


def cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the `stops`."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=None)]


def until(pieces: Iterator[str], stops: Sequence[str]) -> Generator[str, None, None]:
    """The pieces of a text up to the first of the `stops`; what may be the beginning of one waits for the rest. No
    piece is read after the one that completes a stop, though a longer one may have begun before it.

    >>> list(until(iter(["one t", "wo th", "ree"]), ["three"]))
    ['one ', 'two ']
    """
    check_stop_texts(stops)
    waiting = ""
    for piece in pieces:
        waiting += piece
        if any(stop in waiting for stop in stops):
            break
        begun = max((n for stop in stops for n in range(len(stop)) if waiting.endswith(stop[:n])), default=0)
        if said := waiting[: len(waiting) - begun]:
            yield said
        waiting = waiting[len(said) :]
    if said := cut(waiting, stops):
        yield said
