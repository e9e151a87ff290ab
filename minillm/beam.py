"""Beam search: of all continuations of a text look for the likeliest, where greedy decoding takes the likeliest token.

A model gives a continuation y of n tokens the probability Π p(yₜ | what stands before), so the search is for the
largest sum of log-probabilities Σ log p(yₜ | ...). The likeliest first token may lead to where all else is unlikely,
and there are Vⁿ continuations, too many to try. In between (Lowerre 1976, the Harpy system): keep the `n_beams` best
beginnings of equal length, ask the model for every token after each, and keep the n_beams best of these n_beams · V.
With one beam this is greedy decoding, with Vⁿ it is exact.
When that is the wrong thing to look for is measured in chapters/09_generating_text.ipynb.

A continuation that ends, with a stop id or at `max_new_tokens`, is finished and leaves the search as a hypothesis.
Every token adds a negative number, so sums favour short texts; hypotheses are therefore compared by

    score(y) = Σ log p(yₜ | ...) / nᵅ        α = `length_penalty`; n counts the stop id

(Wu et al. 2016, arXiv 1609.08144, section 7, in the form of `transformers`): with α = 0 by the sum, with 1 by the mean,
and beyond it long ones win. When n_beams hypotheses are finished the search may end (`early_stopping`): True: it does.
False: unless the best beginning, if it ended where it is, were better than the worst of them. "never": unless some
continuation of it could be. A sum s only falls, so no later score exceeds s / max_new_tokensᵅ with α > 0, and s / nᵅ
otherwise: False, the usual choice, is exact for α <= 0 and a guess above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from .generate import Rules, Sampling, check_continues, next_logits, window_start
from .models.encoder_decoder import Decoder
from .nn import evaluating

Array = np.ndarray


class Hypothesis(NamedTuple):
    """A finished continuation."""

    ids: list[int]
    score: float  # sum of the log-probabilities / length ** length_penalty


def beam_search(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    n_return: int = 1,
    stop_ids: Sequence[int] = (),
    keep_stop_id: bool = False,
    use_cache: bool = True,
    allowed: Array | None = None,
    rules: Rules | None = None,
    ends: Callable[[list[int]], bool] | None = None,
) -> list[list[Hypothesis]]:
    """For each prompt (a list of ids) the `n_return` best continuations found, best first; fewer where so few exist.

    Their ids are the new ones, without the stop id unless `keep_stop_id`. `allowed` is as for `generate`: probabilities
    are those among the ids that it allows. So is the window: a text longer than the model's context is continued from
    its last part, and so are all its beams. An encoder-decoder comes as `model.given(source)`, a prompt for each row of
    its source. Prompts may differ in length; each is searched as if it were alone. `rules` and `ends` are as for
    `generate`; rules change the log-probabilities, which are not scaled to a sum of 1 again. Raises ValueError for what
    cannot be searched, FloatingPointError for logits that are NaN or infinite.
    """
    check_continues(model)
    check_search(model, prompts, max_new_tokens, n_beams, length_penalty, early_stopping, n_return)
    stops, lengths = frozenset(stop_ids), [len(prompt) for prompt in prompts]
    how = (max_new_tokens, n_beams, length_penalty, early_stopping, stops)
    searches = [Search(*how, prompt=tuple(prompt), ends=ends) for prompt in prompts]
    end = max(lengths) + max_new_tokens
    # As in generate.decode_steps all rows stand at the same position: a longer prompt is a single beam whose next id is
    # known. The rows of one prompt are its beams, as many as it has: one at first, none when its search has ended.
    owners = list(range(len(prompts)))  # which prompt each row belongs to, R of them
    ids = np.array([prompt[: min(lengths)] for prompt in prompts], dtype=np.int64)  # (R, position)
    sums = np.zeros(len(prompts))  # (R,) log-probability of each row's new ids
    given, cache, cache_start = model, None, -1
    with evaluating(model):
        for position in range(min(lengths), end):
            start = window_start(position, model.config.context)
            if use_cache and start == cache_start:
                logits = next_logits(given, ids[:, position - 1 :], cache)  # (R, V)
            else:  # the first step, or the window has moved and with it every position
                cache, cache_start = model.new_cache(min(end, model.config.context)) if use_cache else None, start
                logits = next_logits(given, ids[:, start:], cache)
            beams: list[Beam] = []
            for prompt in sorted(set(owners)):
                rows = [row for row, owner in enumerate(owners) if owner == prompt]
                if position < lengths[prompt]:
                    beams.append(Beam(rows[0], prompts[prompt][position], 0.0))
                    continue
                p = np.stack([Sampling().probabilities(logits[row], ids[row], allowed) for row in rows])
                with np.errstate(divide="ignore"):  # log 0 = −∞: never chosen
                    scores = np.log(p)  # (k, V)
                if rules is not None:
                    n_new = position - lengths[prompt]
                    scores = np.stack([rules(n_new, after, ids[row]) for row, after in zip(rows, scores)])
                going = searches[prompt].step(ids[rows, lengths[prompt] :], sums[rows][:, None] + scores)
                beams += [Beam(rows[row], token, total) for row, token, total in going]
            if not beams:
                break
            before = [beam.row for beam in beams]
            ids = np.column_stack([ids[before], [beam.token for beam in beams]])
            sums = np.array([beam.total for beam in beams])
            if cache is not None and before != list(range(len(owners))):
                cache.reorder(before)  # a beam goes on with the keys and values of the one that it continues
            was, owners = owners, [owners[row] for row in before]
            given = model.select(owners) if isinstance(model, Decoder) and owners != was else given
    cut = () if keep_stop_id else stops
    found = [search.finished[:n_return] for search in searches]
    return [[Hypothesis(new[:-1] if new[-1] in cut else new, score) for new, score in row] for row in found]


class Beam(NamedTuple):
    """A beginning that is kept: what stands in `row`, and then `token`."""

    row: int
    token: int
    total: float  # log-probability of its new ids


@dataclass
class Search:
    """The search for the continuations of one prompt."""

    max_new_tokens: int
    n_beams: int
    length_penalty: float
    early_stopping: bool | str
    stops: frozenset[int]
    finished: list[Hypothesis] = field(default_factory=list)  # the n_beams best so far, best first
    prompt: tuple[int, ...] = ()
    ends: Callable[[list[int]], bool] | None = None  # of the prompt and new ids: whether a text is done with them

    def step(self, new: Array, totals: Array) -> list[Beam]:
        """One token further: the new ids of k beams (k, n − 1) and the log-probabilities of each with every next id
        (k, V) -> the beams to go on with, best first; none when the search has ended."""
        length = new.shape[1] + 1
        going: list[Beam] = []
        # Of n_beams · (1 + stops) candidates n_beams go on, even if the best ones all stop. A stop counts only among
        # the n_beams best: else each step would finish texts that are worse than all that go on.
        n_stops = max(len(self.stops), self.ends is not None)
        for rank, place in enumerate(best(totals, self.n_beams * (1 + n_stops))):
            row, token = divmod(place, totals.shape[1])
            total = float(totals[row, token])
            if token in self.stops or length == self.max_new_tokens or self.done([*new[row].tolist(), token]):
                if rank < self.n_beams:
                    self.finished.append(Hypothesis([*new[row].tolist(), token], total / length**self.length_penalty))
            elif len(going) < self.n_beams:
                going.append(Beam(row, token, total))
        self.finished = sorted(self.finished, key=attrgetter("score"), reverse=True)[: self.n_beams]
        return [] if going and self.ended(going[0].total, length) else going

    def done(self, new: list[int]) -> bool:
        return self.ends is not None and self.ends([*self.prompt, *new])

    def ended(self, total: float, length: int) -> bool:
        """Whether to stop, the best beginning having `length` new ids and the log-probability `total`."""
        if len(self.finished) < self.n_beams:
            return False
        at = self.max_new_tokens if self.early_stopping == "never" and self.length_penalty > 0 else length
        return self.early_stopping is True or total / at**self.length_penalty <= self.finished[-1].score


def best(totals: Array, n: int) -> list[int]:
    """The places of the n largest numbers, largest first, equal ones in their order; −∞ is none."""
    flat = totals.reshape(-1)
    least = np.partition(flat, -n)[-n] if n < flat.size else -np.inf
    places = np.flatnonzero((flat >= least) & (flat > -np.inf))
    return places[np.argsort(-flat[places], kind="stable")][:n].tolist()


def check_search(
    model: Any, prompts: Any, max_new_tokens: int, n_beams: int, penalty: float, early_stopping: Any, n_return: int
) -> None:
    """Raise ValueError for what cannot be searched."""
    if len(prompts) == 0 or min(len(prompt) for prompt in prompts) == 0:
        raise ValueError("beam_search: each prompt needs at least one id, such as the end-of-text id.")
    if isinstance(model, Decoder) and len(prompts) != len(model.source):
        raise ValueError(f"beam_search: {len(prompts)} prompts for {len(model.source)} rows of source: give one each.")
    for name, value in (("max_new_tokens", max_new_tokens), ("n_beams", n_beams), ("n_return", n_return)):
        if value < 1:
            raise ValueError(f"beam_search: {name} = {value} must be at least 1.")
    if n_return > n_beams:
        raise ValueError(f"beam_search: n_return = {n_return} must be at most n_beams = {n_beams}, which finish.")
    if not (math.isfinite(penalty) and abs(penalty) * math.log(max_new_tokens) < 700):
        raise ValueError(f"beam_search: length_penalty = {penalty} must be a number, small enough for a power of it.")
    if not isinstance(early_stopping, bool) and early_stopping != "never":
        raise ValueError(f"beam_search: early_stopping = {early_stopping!r} must be True, False or 'never'.")
