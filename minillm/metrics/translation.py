"""BLEU and chrF: how many n-grams of words or characters a translation shares with its references.

Both are made of counts that add up over a corpus, so each has three functions: `..._counts` (a row of integers for each
sentence), `..._from_counts` (the score of summed rows, of many sums at once: what the bootstrap resamples), and the
score itself. All numbers are those of sacreBLEU 2.6 (Post 2018, arXiv 1804.08771). Scores run from 0 to 100.
chapters/12_translation_and_summarization.ipynb computes both by hand, on one sentence.

`references` has one entry for each hypothesis: a string, or a list of strings of which each is right (sacreBLEU wants
them the other way round: the first references of all, then the second).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from .. import __version__

Array = np.ndarray
References = Sequence[str] | Sequence[Sequence[str]]

ORDER = 4  # BLEU's longest n-gram
CHARACTERS = 6  # chrF's
BETA = 2  # chrF: recall weighs as much as BETA² precisions
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"  # ASCII's

# What sacreBLEU's "zh" sets apart as a token of its own. Its table means the ideographs beyond U+FFFF too, but spells
# them "\u20000", which Python reads as U+2000 and "0": so its ranges are U+2001 to U+2A6D and U+2F81 to U+2FA1, and
# rare ideographs are not split. To score alike, we do the same.
SET_APART = regex.compile(
    r"[\u2001-\u2A6D\u2E80-\u2EFF\u2F00-\u2FDF\u2FF0-\u303F\u3100-\u312F\u31A0-\u31BF\u31C0-\u31EF\u3200-\u33FF"
    r"\u3400-\u4DB5\u4E00-\u9FBB\uF900-\uFA2D\uFA30-\uFA6A\uFA70-\uFAD9\uFE10-\uFE1F\uFE30-\uFE4F\uFF00-\uFFEF]"
)


def split_latin(text: str) -> list[str]:
    """Words, and ASCII punctuation but for ' as tokens of its own; `.` and `,` stay between digits, `-` except after
    one (the rules of mteval-v13a)."""
    text = re.sub(r"[!-&(-+/:-@\[-`{-~]", r" \g<0> ", text)
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])-", r"\1 - ", text).split()


def tokens_13a(text: str) -> list[str]:
    """The default, mteval-v13a's: for languages with spaces."""
    for written, meant in (("<skipped>", ""), ("-\n", ""), ("\n", " ")):
        text = text.replace(written, meant)
    for written, meant in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(written, meant)
    return split_latin(f" {text} ")


def tokens_zh(text: str) -> list[str]:
    """Each Chinese character is a token; what stands between them is split as in 13a."""
    return split_latin(SET_APART.sub(r" \g<0> ", text.strip()))


def tokens_intl(text: str) -> list[str]:
    """mteval-v14's: all of Unicode's punctuation, unless between digits, and symbols."""
    text = regex.sub(r"(\P{N})(\p{P})", r"\1 \2 ", text)
    text = regex.sub(r"(\p{P})(\P{N})", r" \1 \2", text)
    return regex.sub(r"\p{S}", r" \g<0> ", text).split()


def tokens_char(text: str) -> list[str]:
    """Each character but white space."""
    return list("".join(text.split()))


Tokenizer = Callable[[str], list[str]]
TOKENIZERS: dict[str, Tokenizer] = {
    "13a": tokens_13a, "zh": tokens_zh, "intl": tokens_intl, "char": tokens_char, "none": str.split,
}  # fmt: skip


def paired(hypotheses: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    """Each hypothesis with the list of its references, after a check that there is one for each."""
    lists = [[entry] if isinstance(entry, str) else list(entry) for entry in references]
    if isinstance(hypotheses, str) or isinstance(references, str) or not hypotheses or len(hypotheses) != len(lists):
        raise ValueError("hypotheses and references must be lists, one entry for each text, and not be empty.")
    if not all(lists):
        raise ValueError(f"text {[bool(entry) for entry in lists].index(False)} (from 0) has no reference.")
    return list(zip(hypotheses, lists))


def ngrams(tokens: Sequence, n: int) -> Counter:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


# --- BLEU ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bleu:
    """`score`; `precisions` (4,), `brevity_penalty` and lengths in tokens, which it is made of; `signature`, without
    which a BLEU score can't be compared with another."""

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    hypothesis_length: int
    reference_length: int
    signature: str


def bleu_counts(hypotheses: Sequence[str], references: References, tokenize: str = "13a") -> Array:
    """(N, 10) integers: tokens of the hypothesis and of the reference nearest in length, n-grams of length 1 to 4 that
    stand in a reference too (each at most as often as in one of them), and n-grams of length 1 to 4."""
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize = {tokenize!r} must be one of {', '.join(TOKENIZERS)}.")
    split, rows = TOKENIZERS[tokenize], []
    for hypothesis, texts in paired(hypotheses, references):
        tokens, others = split(hypothesis.rstrip()), [split(text.rstrip()) for text in texts]
        nearest = min((abs(len(tokens) - len(other)), len(other)) for other in others)[1]
        matches = []
        for n in range(1, ORDER + 1):
            allowed: Counter = Counter()
            for other in others:
                allowed |= ngrams(other, n)  # the larger of both counts
            matches.append((ngrams(tokens, n) & allowed).total())  # the smaller of both
        totals = [max(len(tokens) - n + 1, 0) for n in range(1, ORDER + 1)]
        rows.append([len(tokens), nearest, *matches, *totals])
    return np.array(rows, dtype=np.int64)


def bleu_from_counts(counts: Array, effective_order: bool = False) -> Array:
    """Summed counts (..., 10) -> BLEU (...) (Papineni et al. 2002, section 2.3):

        100 · exp(min(0, 1 − r/h)) · (p₁ p₂ p₃ p₄)^¼,    pₙ = matches / n-grams,  h and r the lengths

    The k-th pₙ without a match counts as 1/2ᵏ of one match ("exp" smoothing), but without any match the score is 0.
    A text too short for 4-grams scores 0; with `effective_order`, for single sentences, it is judged by those it has.
    """
    log_p, orders = precisions(counts)[1:]
    scored = log_p.sum(axis=-1) / np.maximum(orders, 1)
    whole = (counts[..., 2 : 2 + ORDER].sum(axis=-1) > 0) & (effective_order | (orders == ORDER))
    return 100 * np.where(whole, brevity_penalty(counts) * np.exp(scored), 0.0)


def precisions(counts: Array) -> tuple[Array, Array, Array]:
    """From (..., 10): the smoothed pₙ (..., 4), their logarithms, 0 where the text has no n-grams, and how many orders
    it has."""
    matches, totals = counts[..., 2 : 2 + ORDER], counts[..., 2 + ORDER :]
    none = (matches == 0) & (totals > 0)
    smoothed = np.where(none, 0.5 ** np.cumsum(none, axis=-1), matches)
    p = smoothed / np.maximum(totals, 1)
    return p, np.log(np.where(totals > 0, p, 1.0)), (totals > 0).sum(axis=-1)


def brevity_penalty(counts: Array) -> Array:
    """exp(1 − r/h) for texts shorter than their references, else 1, from (..., 10)."""
    h, r = counts[..., 0], counts[..., 1]
    return np.where(h >= r, 1.0, np.exp(1 - r / np.maximum(h, 1e-300)))


def bleu(hypotheses: Sequence[str], references: References, tokenize: str = "13a") -> Bleu:
    """BLEU of a corpus. For Chinese use tokenize="zh" or "char": "13a" takes a sentence for one word.

    >>> bleu(["the cat sat on the mat"], ["the cat sat on a mat"]).score
    53.7284965911771
    """
    total = bleu_counts(hypotheses, references, tokenize).sum(axis=0)
    p = np.where(total[2:6].any(), precisions(total)[0], 0.0)
    signature = f"{references_counted(references)}|case:mixed|eff:no|tok:{tokenize}|smooth:exp|{VERSION}"
    percents, penalty = tuple((100 * p).tolist()), float(brevity_penalty(total))
    return Bleu(float(bleu_from_counts(total)), percents, penalty, int(total[0]), int(total[1]), signature)


def sentence_bleu(hypothesis: str, references: str | Sequence[str], tokenize: str = "13a") -> float:
    """BLEU of one sentence, with `effective_order`."""
    return float(bleu_from_counts(bleu_counts([hypothesis], [references], tokenize)[0], effective_order=True))


VERSION = f"version:minillm-{__version__}"


def references_counted(references: References) -> str:
    """The signature's "nrefs:1"; "nrefs:var" where they differ."""
    numbers = {1 if isinstance(entry, str) else len(entry) for entry in references}
    return f"nrefs:{numbers.pop() if len(numbers) == 1 else 'var'}"


# --- chrF ------------------------------------------------------------------------------------------------------------


def chrf_counts(hypotheses: Sequence[str], references: References, word_order: int = 0) -> Array:
    """(N, 6 + word_order, 3) integers: for each length of n-gram, those of the hypothesis, those of the reference, and
    those in both; of several references the one with the best score."""
    rows = []
    for hypothesis, texts in paired(hypotheses, references):
        ours = chrf_ngrams(hypothesis, word_order)
        each = []
        for text in texts:
            pairs = list(zip(ours, chrf_ngrams(text, word_order)))
            each.append([(a.total() if b else 0, b.total(), (a & b).total()) for a, b in pairs])
        candidates = np.array(each)  # (n_references, orders, 3)
        rows.append(candidates[np.argmax(chrf_from_counts(candidates))])
    return np.array(rows, dtype=np.int64)


def chrf_ngrams(text: str, word_order: int) -> list[Counter]:
    """The n-grams of characters, white space left out, then of words, whose last or first punctuation is one itself."""
    characters, words = "".join(text.split()), list[str]()
    for word in text.split():
        if len(word) > 1 and word[-1] in PUNCTUATION:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in PUNCTUATION:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    runs = [Counter(characters[i : i + n] for i in range(len(characters) - n + 1)) for n in range(1, CHARACTERS + 1)]
    return runs + [ngrams(words, n) for n in range(1, word_order + 1)]


def chrf_from_counts(counts: Array, eps_smoothing: bool = False) -> Array:
    """Summed counts (..., orders, 3) -> chrF (...) (Popović 2015, "chrF: character n-gram F-score"):

        100 · (1 + β²) P R / (β² P + R),    P and R: the mean precision and recall over the lengths of n-gram

    of those lengths that both texts have. With `eps_smoothing`, as Popović's own chrF++.py has it: the mean, over all
    lengths, of each one's F, a missing precision or recall being 1e-16.
    """
    hypothesis, reference, both = np.moveaxis(counts, -1, 0).astype(np.float64)  # (..., orders) each
    precision = np.where(hypothesis > 0, both / np.maximum(hypothesis, 1), 1e-16)
    recall = np.where(reference > 0, both / np.maximum(reference, 1), 1e-16)
    if eps_smoothing:
        return 100 * f_score(precision, recall, 1e-16).mean(axis=-1)
    counted = (hypothesis > 0) & (reference > 0)
    n = np.maximum(counted.sum(axis=-1), 1)
    return 100 * f_score((precision * counted).sum(axis=-1) / n, (recall * counted).sum(axis=-1) / n, 0.0)


def f_score(p: Array, r: Array, otherwise: float) -> Array:
    """(1 + β²) P R / (β² P + R), or `otherwise` where both are 0."""
    below = BETA**2 * p + r
    return np.where(below > 0, (1 + BETA**2) * p * r / np.where(below > 0, below, 1), otherwise)


def chrf(hypotheses: Sequence[str], references: References, word_order: int = 0, eps_smoothing: bool = False) -> float:
    """chrF of a corpus; with word_order=2, chrF++ (Popović 2017, "chrF++: words helping character n-grams"). It needs
    no tokenizer, and so takes Chinese as it is.

    >>> chrf(["the cat"], ["the cat"]), chrf(["dog"], ["cat"])
    (100.0, 0.0)
    """
    return float(chrf_from_counts(chrf_counts(hypotheses, references, word_order).sum(axis=0), eps_smoothing))
