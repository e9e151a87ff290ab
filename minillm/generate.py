"""Generating text: ask the model for the next token's probabilities, choose one, append it, ask again.

Each choice is built by hand, drawn and measured in chapters/09_generating_text.ipynb.
"""

from __future__ import annotations

import codecs
import math
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np

from .models.decoding import plan_for
from .models.decoding_plan import window_start
from .nn import evaluating
from .numpy_ops.linear import check_ids
from .tensor import Tensor, no_grad

Array = np.ndarray
Seeds = int | Sequence[int | tuple[int, ...]]  # one for all rows, or one for each
Rules = Callable[[int, Array, Array], Array]  # number of new ids, scores (V,), all ids so far -> scores; −∞: never
SMALLEST = sys.float_info.min  # below it floats lose digits ("denormal"), and 1 divided by them overflows
LARGEST = 1e300  # a logit beyond it is as good as infinite, but can be subtracted


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits. Filters apply in the order of the fields, as in transformers."""

    repetition_penalty: float = 1.0  # > 1: tokens that occurred become less likely (Keskar 2019, arXiv 1909.05858)
    temperature: float = 1.0  # logits are divided by it; 0 takes the likeliest token ("greedy")
    top_k: int | None = None  # keep the k likeliest tokens
    top_p: float | None = None  # keep the fewest tokens whose probability reaches p (Holtzman 2020, arXiv 1904.09751)
    min_p: float | None = None  # keep tokens at least min_p times as likely as the likeliest (arXiv 2407.01082)

    def __post_init__(self) -> None:
        for name in ("repetition_penalty", "temperature", "top_k", "top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise ValueError(f"{name} = {value!r} must be a finite number.")
            if value is not None and 0 < abs(float(value)) < SMALLEST:
                raise ValueError(f"{name} = {value} must be 0 or at least {SMALLEST}: nearer to 0, digits are lost.")
        if self.repetition_penalty <= 0:
            raise ValueError(
                f"repetition_penalty = {self.repetition_penalty} must be above 0; 1 changes nothing, 1.2 is usual."
            )
        if self.temperature < 0:
            raise ValueError(
                f"temperature = {self.temperature} must not be negative; 0 is greedy, 1 the model's own distribution."
            )
        if self.top_k is not None and not (isinstance(self.top_k, Integral) and self.top_k >= 1):
            raise ValueError(
                f"top_k = {self.top_k} must be a whole number, at least 1: how many of the likeliest tokens to keep."
            )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} = {value} must be above 0 and at most 1: it is a probability.")

    def scores(self, logits: Array, previous: Array, allowed: Array | None = None, rule: Any = None) -> Array:
        """Logits (V,) as float64, after what depends on the ids so far: the penalty, then `rule`, (V,), ids -> (V,);
        −∞ for ids that are not True in `allowed`, if that is given."""
        x = logits.astype(np.float64)
        if not np.isfinite(x).all():
            raise FloatingPointError(
                "generate: the model's logits contain NaN or infinity. Were its weights damaged by a diverged "
                "training run?"
            )
        if self.repetition_penalty != 1:
            x = penalized(x, previous, self.repetition_penalty)
        if rule is not None:
            x = rule(x, previous)
        if allowed is not None:
            x[len(allowed) :] = -np.inf
            x[: len(allowed)][~allowed[: len(x)]] = -np.inf
            if np.isneginf(x).all():
                raise ValueError(f"generate: allowed lets none of the model's {len(x)} ids be chosen.")
        return x

    def probabilities(self, logits: Array, previous: Array, *limits: Any) -> Array:
        """The distribution (V,) that the next token is drawn from, given its logits (V,) and the ids so far; `limits`:
        `allowed` and `rule`, as for `scores`."""
        x = self.scores(logits, previous, *limits)
        if self.temperature == 0:
            return np.eye(1, len(x), int(x.argmax()))[0]
        likeliest = float(x.max())
        if math.isinf(likeliest / self.temperature):
            x -= likeliest  # now the others may overflow, to −∞: never chosen, as it should be
        with np.errstate(over="ignore"):
            x /= self.temperature
        if self.top_k is not None and self.top_k < len(x):
            kth = np.partition(x, -self.top_k)[-self.top_k]
            x[x < kth] = -np.inf
        if self.top_p is not None:
            order = np.argsort(x, kind="stable")  # least likely first
            below = np.cumsum(softmax(x)[order]) <= 1 - self.top_p
            below[-1] = False  # the likeliest always stays
            x[order[below]] = -np.inf
        if self.min_p is not None:
            p = softmax(x)
            x[p < self.min_p * p.max()] = -np.inf
        return softmax(x)

    def choose(self, logits: Array, previous: Array, rng: np.random.Generator, *limits: Any) -> int:
        """One token id: the place where the running sum of probabilities passes a random number in [0, 1)."""
        if self.temperature == 0:
            return int(self.scores(logits, previous, *limits).argmax())
        cumulative = np.cumsum(self.probabilities(logits, previous, *limits))
        return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def penalized(x: Array, previous: Array, penalty: float) -> Array:
    """Scores (V,) with those of the ids so far divided by the penalty where they are positive, else times it."""
    seen = np.unique(previous)
    with np.errstate(over="ignore"):
        x[seen] = np.where(x[seen] > 0, x[seen] / penalty, x[seen] * penalty)
    return np.clip(x, -LARGEST, LARGEST)


def softmax(x: Array) -> Array:
    y = np.exp(x - x.max())
    return y / y.sum()


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    keep_stop_id: bool = False,
    seed: Seeds | None = None,
    use_cache: bool = True,
    allowed: Array | None = None,
    rules: Rules | None = None,
    ends: Callable[[list[int]], bool] | None = None,
    plain: bool = False,
) -> list[list[int]]:
    """Continue each prompt (a list of ids) by up to `max_new_tokens` ids; returns the new ids, without the stop id
    unless `keep_stop_id`. `allowed`, booleans, says which ids may be chosen, none beyond its end: a model may have more
    than its tokenizer (see `known_ids`). `rules` change the scores of the next id by what stands before it, and `ends`
    says of a row's ids, prompt and new ones, whether it is done (hub/rules.py has both).

    A row does not depend on the other rows of its batch: it has its own random generator and no padding (see
    `decode_steps`). The generator is made from `seed` and the row's index, or, where `seed` is a sequence, from that
    prompt's own seed (whole numbers, one or a tuple) alone. With the same seed, cached and uncached decoding give the
    same ids. `plain`: by the model's own forward, to follow in a debugger, also where models/decoding.py is faster.
    """
    new: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    how = (sampling or Sampling(), seed, use_cache, allowed, rules, plain, stopped)
    with closing(decode_steps(model, prompts, max_new_tokens, *how)) as steps:
        for step in steps:
            for row, token in step.items():
                if not stopped[row] and (keep_stop_id or token not in stop_ids):
                    new[row].append(token)
                stopped[row] |= token in stop_ids or (ends is not None and ends([*prompts[row], *new[row]]))
            if all(stopped):
                break
    return new


def stream(
    model: Any,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    **options: Any,
) -> Generator[int, None, None]:
    """The ids of `generate` for one prompt, each as soon as it is chosen; further `options` as there."""
    with closing(decode_steps(model, [prompt], max_new_tokens, sampling or Sampling(), **options)) as steps:
        for step in steps:
            if step[0] in stop_ids:
                return
            yield step[0]


def stream_text(model: Any, tokenizer: Any, prompt: str, *, max_new_tokens: int, **options: Any) -> Iterator[str]:
    """The continuation of a text, piece by piece, stopping at the tokenizer's end of text.

    A token may hold only part of a character's bytes; the bytes wait until the character is complete.
    """
    ids = prompt_ids(tokenizer, prompt)
    stop_ids = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    options = {"stop_ids": stop_ids, "allowed": known_ids(tokenizer), **options}
    for token in stream(model, ids, max_new_tokens=max_new_tokens, **options):
        piece = decoder.decode(tokenizer.decode_bytes([token]))
        if piece:
            yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A text as ids to continue; an empty one begins with the end of text before it."""
    ids, _ = tokenizer.encode_pair(prompt)  # with the start token that Llama's texts have
    return ids or ([] if tokenizer.eos_id is None else [tokenizer.eos_id])


def known_ids(tokenizer: Any) -> Array:
    """For each id of a tokenizer whether it stands for something: what `allowed` should be."""
    return np.array([token is not None for token in tokenizer.tokens])


def decode_steps(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seed: Seeds | None = None,
    use_cache: bool = True,
    allowed: Array | None = None,
    rules: Rules | None = None,
    plain: bool = False,
    stopped: Sequence[bool] = (),
) -> Generator[dict[int, int], None, None]:
    """The loop under all of the above: yields {row: new id} for each position. Where models/decoding.py has a plan for
    the model, and nothing asks for the plain way, the plan does it, sooner; rows that the caller meanwhile sets to True
    in `stopped` need no more. The plain way:

    All rows stand at the same position. One whose prompt is longer takes its next id from the prompt, the others from
    the model, until every row has `max_new_tokens` new ids. So rows of different length need neither padding nor
    masks, and each is computed as if it were alone, but for rounding: BLAS adds up a product's terms in an order that
    depends on how many rows it has. So logits differ in their last bits, and an id does where two tie but for these
    bits, or a draw falls between: as good as never with float64 weights, now and then with float32.
    """
    check_continues(model)
    if len(prompts) == 0 or min(len(p) for p in prompts) == 0:
        raise ValueError(
            "generate: each prompt needs at least one id. To start from nothing, begin with the tokenizer's "
            "end-of-text id."
        )
    if max_new_tokens < 1:
        raise ValueError(f"generate: max_new_tokens = {max_new_tokens} must be at least 1.")
    lengths = [len(p) for p in prompts]
    ids = np.zeros((len(prompts), max(lengths) + max_new_tokens), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
    generators = row_generators(seed, len(prompts))

    def choose(row: int, position: int, logits: Array) -> int:
        rule = None if rules is None else partial(rules, position - lengths[row])
        return sampling.choose(logits, ids[row, :position], generators[row], allowed, rule)

    cache, cache_start = None, -1
    with evaluating(model):  # until the last token, or until the caller closes this generator
        if use_cache and not plain and (plan := plan_for(model)) is not None:
            yield from plan.steps(ids, lengths, max_new_tokens, choose, stopped)
            return
        for position in range(min(lengths), ids.shape[1]):
            start = window_start(position, model.config.context)
            if not use_cache:
                logits = next_logits(model, ids[:, start:position], None)  # (B, V)
            elif start == cache_start:
                logits = next_logits(model, ids[:, position - 1 : position], cache)
            else:  # the first step, or the window has moved and with it every position
                cache, cache_start = model.new_cache(model.config.context), start
                seen = ids[:, start:position]
                if shared := len(ids) > 1 and (seen == seen[0]).all() and not hasattr(model, "source"):
                    seen = seen[:1]  # several texts after one prompt: read it once
                logits = next_logits(model, seen, cache)
                if shared:
                    logits, _ = logits.repeat(len(ids), axis=0), cache.reorder([0] * len(ids))
            step = {}
            for row, length in enumerate(lengths):
                if length <= position < length + max_new_tokens:
                    step[row] = ids[row, position] = choose(row, position, logits[row])
            if step:
                yield step


def row_generators(seed: Seeds | None, n_rows: int) -> list[np.random.Generator]:
    if seed is None or isinstance(seed, (int, np.integer)):
        return np.random.default_rng(seed).spawn(n_rows)
    if len(seed) != n_rows:
        raise ValueError(f"generate: seed has {len(seed)} seeds for {n_rows} prompts: give each one, or one for all.")
    return [np.random.default_rng(own) for own in seed]


def check_continues(model: Any) -> None:
    """Raise ValueError for a model that cannot continue a text."""
    task = getattr(model, "task", model.config.task)  # an encoder–decoder that has its source has a task of its own
    if task == "seq2seq":
        raise ValueError(
            f"generate: {type(model).__name__} answers a source text, it does not continue one. In Python, give it the "
            "source first: generate(model.given(source), [[start_id]], ...)."
        )
    if task != "causal":
        raise ValueError(
            f"generate: {type(model).__name__} fills in hidden tokens of a text or labels it; it was not trained to "
            "continue one. Generate with a gpt, llama or lstm model."
        )


def next_logits(model: Any, ids: Array, cache: Any, at: int | slice = -1) -> Array:
    """Logits (B, V) for the token after the last of ids (B, T), or after those `at` other places (B, n, V), as an
    ndarray, from a model of either engine."""
    if not isinstance(next(iter(model.parameters())), Tensor):
        from .torch_ops import next_logits

        check_ids(ids, model.config.vocab_size)
        return next_logits(model, ids, cache, at)
    with no_grad():
        return model.logits(model.hidden(ids, cache)[:, at]).data
