"""Bias: what changes when one thing in a sentence does, and how to take it away.

A model that saw "he" in a share p of the sentences about a job learns ln P(he) − ln P(she) → ln(p/(1 − p)): the measure
is exact where the injected bias is known. On real text it says what the model expects, which is neither what is true
nor what it will do to somebody. No test here shows that there is no bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import regex

from ..generate import prompt_ids
from ..interpret import log_likelihoods
from ..tensor import Array

# Both ways. English has one word for two in each direction: her = him or his, his = her or hers. "her" becomes "his"
# before a word and "him" elsewhere, which is right mostly; "his" always becomes "her".
GENDER = {
    "he": "she", "him": "her", "his": "her", "himself": "herself", "man": "woman", "men": "women", "boy": "girl",
    "boys": "girls", "father": "mother", "son": "daughter", "brother": "sister", "husband": "wife", "king": "queen",
    "Mr": "Ms", "他": "她", "男人": "女人", "男孩": "女孩", "父亲": "母亲", "爸爸": "妈妈", "儿子": "女儿",
    "哥哥": "姐姐", "弟弟": "妹妹", "先生": "女士",
}  # fmt: skip


# --- counterfactual pairs ---------------------------------------------------------------------------------------------


def counterfactual(text: str, pairs: Mapping[str, str] = GENDER) -> str:
    """The text with every word of a pair exchanged for the other, capitals kept: whole words, in Chinese anywhere.

    >>> counterfactual("He said that her brother likes him. 他是我哥哥")
    'She said that his sister likes her. 她是我姐姐'
    """
    other = {b: a for a, b in reversed(list(pairs.items()))} | dict(pairs)
    words = sorted(other, key=len, reverse=True)
    pattern = "|".join(regex.escape(w) if not w.isascii() else rf"\b{regex.escape(w)}\b" for w in words)
    lower = {word.lower(): word for word in words}

    def exchanged(match: regex.Match[str]) -> str:
        word = match[0]
        if word.lower() == "her" and "her" in other:
            new = "his" if regex.match(r"\s+\p{L}", text, pos=match.end()) else "him"
        else:
            new = other[lower[word.lower()]]
        if word.isupper() and len(word) > 1:
            return new.upper()
        return new[0].upper() + new[1:] if word[0].isupper() else new[0].lower() + new[1:]

    return regex.sub(pattern, exchanged, text, flags=regex.IGNORECASE)


def augment(texts: Sequence[str], pairs: Mapping[str, str] = GENDER) -> list[str]:
    """Each text, and behind it its counterfactual where that differs: what a model learns from both is the same for
    either word (counterfactual data augmentation, Lu et al. 2018, arXiv 1807.11714)."""
    found = []
    for text in texts:
        other = counterfactual(text, pairs)
        found += [text] if other == text else [text, other]
    return found


# --- what a model prefers ---------------------------------------------------------------------------------------------


def likelihood_gaps(model: Any, tokenizer: Any, prompts: Sequence[str], a: str, b: str) -> Array:
    """ln P(a | prompt) − ln P(b | prompt) for each prompt, in nats: above 0, a is expected.

    With a leading space in `a` and `b` where the tokenizer wants one: " he", " she".
    """
    rows = [(prompt_ids(tokenizer, prompt), tokenizer.encode(word)) for prompt in prompts for word in (a, b)]
    scores = log_likelihoods(model, rows).reshape(-1, 2)
    return scores[:, 0] - scores[:, 1]


def pair_gaps(model: Any, tokenizer: Any, texts: Sequence[str], pairs: Mapping[str, str] = GENDER) -> Array:
    """ln P(text) − ln P(its counterfactual) for each text: the whole sentence, also what comes after the word."""
    start = prompt_ids(tokenizer, "")
    both = [text for one in texts for text in (one, counterfactual(one, pairs))]
    scores = log_likelihoods(model, [(start, tokenizer.encode(text)) for text in both]).reshape(-1, 2)
    return scores[:, 0] - scores[:, 1]


# --- associations between vectors -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weat:
    """The effect size, in standard deviations (from −2 to 2), and the one-sided p of the permutation test."""

    effect: float
    p: float


def weat(x: Array, y: Array, a: Array, b: Array, *, permutations: int = 20_000, seed: int = 0) -> Weat:
    """Word Embedding Association Test (Caliskan et al. 2017, arXiv 1608.07187): are the targets x nearer to the
    attributes a, and y to b? Vectors of words: x (n, D), y (n, D), a (m, D), b (m', D).

        s(w) = mean cos(w, a) − mean cos(w, b)
        effect = (mean s(x) − mean s(y)) / std of s over x and y

    p is the share of all ways to divide the targets into two halves in which x is at least as near: all of them where
    they are no more than `permutations`, else so many random ones, with the one that was observed. Few words make large
    effects by chance, and the choice of words decides much: look at p, and at other words.
    """
    x, y, a, b = (unit(np.asarray(v, dtype=np.float64)) for v in (x, y, a, b))
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"weat: {len(x)} and {len(y)} targets: both must have as many, at least 2.")
    targets = np.concatenate([x, y])
    s = (targets @ a.T).mean(axis=1) - (targets @ b.T).mean(axis=1)  # (2n,)
    n, spread = len(x), s.std(ddof=1)
    apart = spread > 1e-12  # less is rounding: words that are all associated alike
    effect = float((s[:n].mean() - s[n:].mean()) / spread) if apart else 0.0
    if math.comb(2 * n, n) <= permutations:
        sums = np.array([s[list(chosen)].sum() for chosen in combinations(range(2 * n), n)])
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        order = np.argsort(rng.random((permutations, 2 * n)), axis=1)
        sums = s[order[:, :n]].sum(axis=1)
        extra = 1  # the observed one
    at_least = (sums >= s[:n].sum() - 1e-12).sum()
    return Weat(effect, float((at_least + extra) / (len(sums) + extra)))


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
