"""Speculative decoding: guess some tokens ahead, and let the model read them all in one call (Leviathan et al. 2023,
arXiv 2211.17192; built step by step in chapters/09_generating_text.ipynb).

Reading five tokens in one call takes a large model little longer than one: what costs is fetching its weights. With q,
the distribution that a guess x was drawn from, and p, the model's own at that place, x is kept with probability
min(1, p(x)/q(x)); at the first that is not, the token comes from max(0, p − q), scaled to a sum of 1, and the guesses
behind it are dropped. If all are kept, the same call has given p for one token more. The text is distributed exactly as
if the model had written alone; at temperature 0 it is that text, token by token (but for ties that rounding decides).

Who guesses: a smaller model with the same ids (`draft`), or, in a text that repeats itself, the text: what stood behind
the last ids where they occurred before ("n-gram look-up", Saxena 2023), a distribution with all its weight on one id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from ..generate import Rules, Sampling, check_continues, next_logits
from ..models.decoding import plan_for
from ..models.decoding_plan import window_start
from ..nn import KVCache, evaluating

Array = np.ndarray
Distribution = Callable[[Array, Sequence[int]], Array]  # logits (V,), ids so far -> (V,)


def speculate(
    model: Any,
    prompt: Sequence[int],
    draft: Any = None,
    *,
    max_new_tokens: int,
    ahead: int = 4,
    ngram: int = 3,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    seed: Any = None,
    allowed: Array | None = None,
    rules: Rules | None = None,
) -> Iterator[int]:
    """The ids that continue a prompt, distributed as those of `generate.stream`, of a model on either engine. `draft`:
    the model that guesses `ahead` ids, on either engine too; None: the text itself, by its last `ngram` ids or fewer.

    Raises ValueError for a draft with other ids, and for models whose memory cannot be set back (an LSTM).
    """
    if not prompt or min(max_new_tokens, ahead, ngram) < 1:
        raise ValueError("speculate: the prompt needs at least one id; max_new_tokens, ahead and ngram at least 1.")
    if draft is not None and draft.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"speculate: the draft has {draft.config.vocab_size} ids, the model {model.config.vocab_size}: a guess "
            "must mean the same to both. Take a draft with the same tokenizer."
        )
    sampling, rng, text = sampling or Sampling(), np.random.default_rng(seed), list(prompt)

    def distribution(logits: Array, ids: Sequence[int]) -> Array:
        rule = None if rules is None else partial(rules, len(ids) - len(prompt))
        return sampling.probabilities(logits, np.array(ids), allowed, rule)

    with ExitStack() as modes:
        for each in (model, draft) if draft is not None else (model,):
            modes.enter_context(evaluating(each))
        end = len(prompt) + max_new_tokens
        reader = Reader(model, end)
        guess = Drafting(Reader(draft, end), distribution, rng) if draft is not None else NGrams(ngram)
        while len(text) < end:
            room = window_start(len(text), model.config.context) + model.config.context - len(text)
            guesses = guess(text, min(ahead, end - len(text) - 1, room))
            logits = reader.read([*text, *(token for token, _ in guesses)], len(guesses) + 1)
            for token in judged(text, guesses, logits, distribution, rng):
                text.append(token)
                yield token
                if token in stop_ids:
                    return


def judged(
    text: Sequence[int],
    guesses: Sequence[tuple[int, Array | None]],
    logits: Array,
    distribution: Distribution,
    rng: np.random.Generator,
) -> list[int]:
    """What follows a text: those of the guesses that are kept and one token more, given for each guess its id and its
    q (V,), None: it was certain; and logits (guesses + 1, V) of the model."""
    kept: list[int] = []
    for (token, q), own in zip(guesses, logits):
        p = distribution(own, [*text, *kept])
        if rng.random() * (1.0 if q is None else q[token]) >= p[token]:
            rest = p.copy()
            rest[token] = 0.0  # where q is p at most, as it is where it is certain
            if q is not None:
                rest = np.maximum(p - q, 0.0)
            return [*kept, draw(rest, rng)]
        kept.append(token)
    return [*kept, draw(distribution(logits[len(guesses)], [*text, *kept]), rng)]


def draw(weights: Array, rng: np.random.Generator) -> int:
    """An id, as likely as its weight says."""
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


class Reader:
    """A model that reads a text, and of a text that it has read in part only the rest."""

    def __init__(self, model: Any, longest: int) -> None:
        check_continues(model)
        self.model, self.plan = model, plan_for(model)
        self.seen: list[int] = []  # what the cache holds
        capacity = min(longest, model.config.context)
        if self.plan is not None:
            self.cache: Any = self.plan.new_cache(1, capacity)
        else:
            self.cache = model.new_cache(capacity)
            if not isinstance(self.cache, KVCache):
                raise ValueError(
                    f"speculate: what a {type(model).__name__} remembers cannot be set back to an earlier place, as "
                    "it must be when a guess is wrong. A gpt, llama or gemma model can."
                )

    def read(self, text: Sequence[int], n: int) -> Array:
        """Logits (n, V) for the tokens after the last n of the ids."""
        ids = list(text[window_start(len(text), self.model.config.context) :])
        same = next((i for i, (old, new) in enumerate(zip(self.seen, ids)) if old != new), len(self.seen))
        same = min(same, len(ids) - n)
        self.seen = ids
        if self.plan is not None:
            self.cache.lengths = [same]
            if same < len(ids) - n:  # of what stands before nothing is asked
                self.plan.logits(self.cache, [ids[same:-n]])
            return self.plan.logits(self.cache, [ids[-n:]], every=n > 1)
        self.cache.length = same
        return next_logits(self.model, np.array([ids[same:]]), self.cache, slice(-n, None))[0]


class Drafting:
    """Guesses by a small model, each with the distribution that it was drawn from."""

    def __init__(self, reader: Reader, distribution: Distribution, rng: np.random.Generator) -> None:
        self.reader, self.distribution, self.rng = reader, distribution, rng

    def __call__(self, text: Sequence[int], n: int) -> list[tuple[int, Array | None]]:
        guesses: list[tuple[int, Array | None]] = []
        ids = list(text)
        for _ in range(n):
            q = self.distribution(self.reader.read(ids, 1)[0], ids)
            guesses.append((draw(q, self.rng), q))
            ids.append(guesses[-1][0])
        return guesses


class NGrams:
    """Guesses by looking up where the last ids of the text stood before, first `longest` of them, then fewer."""

    def __init__(self, longest: int) -> None:
        self.longest, self.read = longest, 0
        self.behind: dict[tuple[int, ...], int] = {}  # ids -> the place behind their last occurrence

    def __call__(self, text: Sequence[int], n: int) -> list[tuple[int, Array | None]]:
        for place in range(self.read, len(text)):  # not the last place: nothing stands behind it yet
            for size in range(1, min(self.longest, place) + 1):
                self.behind[tuple(text[place - size : place])] = place
        self.read = len(text)
        for size in range(min(self.longest, len(text)), 0, -1):
            found = self.behind.get(tuple(text[-size:]))
            if found is not None:
                return [(token, None) for token in text[found : found + n]]
        return []
