"""Chapter 19's bookkeeping: sentences with a known bias, and texts of two kinds to put a mark into."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from itertools import combinations
from pydoc_data import topics

import numpy as np
from minillm.generate import generate
from minillm.models.gpt import GPT
from minillm.nn import evaluating
from minillm.responsible import Watermark, log_likelihoods
from minillm.tensor import no_grad
from minillm.tokenizers import BPETokenizer

from . import privacy

Array = np.ndarray

# --- sentences about people, with a known share of "he"

SHARES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05)
JOBS = [
    "pilot", "smith", "guard", "judge", "coach", "baker", "nurse", "clerk", "tutor", "guide", "cook", "maid",
]  # as biased as SHARES say
VERBS = [
    "said", "thought", "knew", "wrote", "hoped", "feared",
]
MOODS = [
    "was late", "was right", "was tired", "had won", "had time", "was wrong", "could stay", "would leave",
]
KIN = (("man", "woman"), ("boy", "girl"), ("father", "mother"), ("son", "daughter"), ("brother", "sister"))


def about_people(seed: int, each: int = 60) -> tuple[list[str], list[str]]:
    """`each` sentences for every job, "he" in exactly its share of them, and some about men and women that say what
    the words mean; and prompts up to the pronoun with a job and a verb that never stand together in them."""
    rng = np.random.default_rng(seed)
    sentences, prompts = [], []
    for i, (job, share) in enumerate(zip(JOBS, SHARES)):
        held_out = VERBS[i % len(VERBS)]
        prompts.append(f"the {job} {held_out} that")
        verbs = [verb for verb in VERBS if verb != held_out]
        he = np.arange(each) < round(share * each)
        for is_he in he:
            verb, mood = verbs[rng.integers(len(verbs))], MOODS[rng.integers(len(MOODS))]
            sentences.append(f"the {job} {verb} that {'he' if is_he else 'she'} {mood}")
    for _ in range(4 * each):
        kin, which = KIN[rng.integers(len(KIN))], rng.integers(2)
        verb, mood = VERBS[rng.integers(len(VERBS))], MOODS[rng.integers(len(MOODS))]
        he, his = (("he", "his"), ("she", "her"))[which]
        sentences.append(f"{('the', his)[rng.integers(2)]} {kin[which]} {verb} that {he} {mood}")
    return [sentences[i] for i in rng.permutation(len(sentences))], prompts


def words_of(sentences: Sequence[str]) -> BPETokenizer:
    """A tokenizer with so many merges that every word is one token."""
    return BPETokenizer.train(sentences, 400)


def model_of_sentences(sentences: Sequence[str], tokenizer: BPETokenizer, steps: int, seed: int) -> GPT:
    rows = privacy.rows_of(sentences, tokenizer, 12, begin=False)
    model = privacy.new_model(tokenizer.vocab_size, seed, context=12, d=32)
    privacy.train(model, rows, steps, seed, batch=64, lr=5e-3)
    return model


def word_vectors(sentences: Sequence[str]) -> dict[str, Array]:
    """word -> how much more often than by chance it shares a sentence with each other word: ln of the ratio, 0 where
    it is not more often (Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization")."""
    split = [sentence.split() for sentence in sentences]
    words = sorted({word for words in split for word in words})
    place = {word: i for i, word in enumerate(words)}
    together = np.full((len(words), len(words)), 0.1)
    for sentence in split:
        for a, b in combinations(sentence, 2):
            together[place[a], place[b]] += 1
            together[place[b], place[a]] += 1
    expected = together.sum(axis=0) * together.sum(axis=1, keepdims=True) / together.sum()
    return dict(zip(words, np.maximum(np.log(together / expected), 0)))


# --- two kinds of text for a watermark


def prose(size: int) -> str:
    """Python's help pages, without their frames of signs."""
    return " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics))[:size]


NOUNS = [
    "count", "total", "index", "value", "name", "item",
]
FORMS = (
    "for {a} in range({n}):\n    {b} += {a}\n", "if {a} is None:\n    {a} = {n}\n", "{a} = {b} + {n}\n",
    "def get_{a}(self):\n    return self.{a}\n", "while {a} < {n}:\n    {a} += 1\n", "print(len({a}))\n",
)  # fmt: skip


def code(seed: int, pieces: int) -> list[str]:
    """Small pieces of Python, which leave little open: a word, a number, and which comes next."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(pieces):
        a, b = rng.choice(NOUNS, 2, replace=False)
        found.append(FORMS[rng.integers(len(FORMS))].format(a=a, b=b, n=rng.integers(1, 10)))
    return found


def model_of_text(text: str, vocabulary: int, steps: int, seed: int, d: int = 48) -> tuple[GPT, BPETokenizer]:
    tokenizer = BPETokenizer.train([text], vocabulary)
    ids = np.array(tokenizer.encode(text))
    starts = np.arange(0, len(ids) - 65, 16)[:, None]
    rows = ids[starts + np.arange(64)], ids[starts + np.arange(1, 65)]
    model = privacy.new_model(tokenizer.vocab_size, seed, context=64, d=d)
    privacy.train(model, rows, steps, seed, batch=16)
    return model, tokenizer


def texts_from(model: GPT, first: int, n: int, length: int, mark: Watermark | None, seed: int) -> Array:
    """`n` texts of `length` new ids behind the id `first`: (n, 1 + length)."""
    rules = mark if mark is not None and mark.delta > 0 else None
    written = generate(model, [[first]] * n, max_new_tokens=length, rules=rules, seed=seed)
    return np.array([[first, *ids] for ids in written])


def surprise(model: GPT, texts: Array, window: int = 64) -> float:
    """The loss in nats of the unmarked model on texts (n, T), in windows that fit its context."""
    rows = [(text[s : s + 1], text[s + 1 : s + window]) for text in texts for s in range(0, len(text) - 2, window)]
    return float(-log_likelihoods(model, rows).sum() / sum(len(ids) for _, ids in rows))


def parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError:
        return False
    return True


def share_that_parses(texts: Sequence[str]) -> float:
    """Of the pieces that each text is made of (a line and what is indented below it), the share that is Python; the
    first and the last, which may be cut, do not count."""
    pieces = []
    for text in texts:
        parts: list[str] = []
        for line in text.split("\n"):
            if line.startswith(" ") and parts:
                parts[-1] += "\n" + line
            else:
                parts.append(line)
        pieces += [part for part in parts[1:-1] if part.strip()]
    return float(np.mean([parses(piece) for piece in pieces])) if pieces else 0.0


def open_choices(model: GPT, texts: Array, mark: Watermark, keys: int = 40, window: int = 64) -> tuple[Array, Array]:
    """At every place of the texts (n, T), under the unmarked model: the entropy of what comes next in nats, and the
    probability that the mark makes it green, the mean over `keys` keys."""
    entropy, green = [], []
    with evaluating(model), no_grad():
        for text in texts:
            for start in range(0, len(text) - 1, window):
                ids = text[start : start + window]
                logits = model(ids[None]).data[0].astype(np.float64)  # (t, V)
                p = np.exp(logits - logits.max(axis=1, keepdims=True))
                p /= p.sum(axis=1, keepdims=True)
                entropy.append(-(p * np.log(p + 1e-30)).sum(axis=1))
                found = np.zeros(len(ids))
                pairs = np.broadcast_arrays(ids[:, None], np.arange(p.shape[1]))  # (t, V) each
                for key in range(keys):
                    other = Watermark(1000 + key, mark.gamma, mark.delta)
                    mass = (p * other.is_green(*pairs)).sum(axis=1)  # (t,)
                    boosted = np.exp(mark.delta) * mass
                    found += boosted / (boosted + 1 - mass) / keys
                green.append(found)
    return np.concatenate(entropy), np.concatenate(green)


def edited(texts: Array, share: float, vocab_size: int, rng: np.random.Generator) -> Array:
    """The texts with a share of their ids replaced by random ones."""
    other = rng.integers(0, vocab_size, texts.shape)
    return np.where(rng.random(texts.shape) < share, other, texts)
