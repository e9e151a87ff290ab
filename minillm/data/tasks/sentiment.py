"""Sentiment in English and Chinese, where the words alone do not decide: negation, double negation, contrast.

    The soup was not bad.                                       positive
    It is not true that the hotel was not clean.                positive
    The film was great, but the ending was not clever.          negative

A clause says an adjective of a noun, under 0, 1 or 2 negations, each of which turns it round; an intensifier changes
nothing. Of two clauses the one after "but" decides, or the one without "although". Two labels: a neutral one would need
a judgement, and here each label can be proven. Held out of training:

    test        pairs of adjective and noun that never stood in one clause there
    negation    a quarter of the adjectives, never negated there: it must be learned from the other adjectives
    contrast    contrasts whose clauses are both negated; there at most one is
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..examples import Labelled
from .baselines import NaiveBayes, most_frequent, test_splits
from .draw import Draw, fill

LABELS = ("negative", "positive")


@dataclass(frozen=True)
class Words:
    """What a language says things with: {n} is a noun, {i} an intensifier, {a} an adjective, {0} and {1} clauses."""

    nouns: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    intensifiers: tuple[str, ...]
    clauses: tuple[tuple[str, ...], ...]  # with no negation, with one, with two
    contrasts: tuple[tuple[str, int], ...]  # (form, which of its clauses decides)
    end: str


ENGLISH = Words(
    nouns=("food", "soup", "coffee", "waiter", "service", "room", "bed", "hotel", "view", "film", "plot", "ending",
           "music", "book", "phone", "battery", "screen", "price", "trip", "guide"),
    positive=("good", "great", "excellent", "nice", "pleasant", "wonderful", "perfect", "lovely", "decent", "superb",
              "fine", "brilliant"),
    negative=("bad", "awful", "terrible", "poor", "horrible", "dreadful", "disappointing", "nasty", "weak",
              "dull", "useless", "mediocre"),
    intensifiers=("", "", "very ", "really ", "so ", "quite "),
    clauses=(
        ("the {n} was {i}{a}", "I found the {n} {i}{a}", "the {n} seemed {i}{a}"),
        ("the {n} was not {i}{a}", "I never found the {n} {i}{a}", "nobody thought that the {n} was {i}{a}",
         "the {n} was anything but {a}"),
        ("it is not true that the {n} was not {i}{a}", "nobody thought that the {n} was not {i}{a}",
         "I never said that the {n} was not {i}{a}"),
    ),
    contrasts=(("{0}, but {1}", 1), ("{0}, yet {1}", 1), ("although {0}, {1}", 1), ("{0}, although {1}", 0)),
    end=".",
)  # fmt: skip

CHINESE = Words(
    nouns=("菜", "汤", "咖啡", "服务", "房间", "床", "酒店", "风景", "电影", "故事", "结局", "音乐", "小说", "手机",
           "电池", "屏幕", "价格", "旅行", "导游", "早餐"),
    positive=("好", "棒", "出色", "令人满意", "精彩", "完美", "可爱", "像样", "舒服", "理想", "优秀", "迷人"),
    negative=("差", "糟糕", "可怕", "讨厌", "无聊", "令人失望", "恶劣", "难受", "乏味", "平庸", "低劣", "烦人"),
    intensifiers=("很", "很", "非常", "真的很", "特别", "十分"),
    clauses=(
        ("{n}{i}{a}", "我觉得{n}{i}{a}", "这次的{n}{i}{a}"),
        ("{n}不{a}", "{n}并不{a}", "{n}不太{a}", "{n}一点也不{a}", "我不觉得{n}{i}{a}"),
        ("{n}并不是不{a}", "没有人说{n}不{a}", "我不觉得{n}不{a}"),
    ),
    contrasts=(("{0}，但是{1}", 1), ("{0}，不过{1}", 1), ("虽然{0}，但{1}", 1), ("{0}，虽然{1}", 0)),
    end="。",
)  # fmt: skip

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True)
class Clause:
    noun: str
    adjective: str
    negations: int
    positive: bool  # what it says in the end
    text: str


def draw_clause(draw: Draw, words: Words, negations: int) -> Clause:
    noun, good = draw.choice(words.nouns), draw.chance(50)
    adjective = draw.choice(words.positive if good else words.negative)
    form = draw.choice(words.clauses[negations])
    text = form.format(n=noun, a=adjective, i=draw.choice(words.intensifiers))
    return Clause(noun, adjective, negations, good == (negations % 2 == 0), text)


def draw_text(draw: Draw, words: Words) -> tuple[str, bool, list[Clause]]:
    """A sentence of one clause or, two times in five, of two; whether it is positive; and its clauses."""
    clauses = [draw_clause(draw, words, draw.choice((0, 0, 1, 1, 2)))]
    text, deciding = clauses[0].text, 0
    if draw.chance(40):
        while len({clause.noun for clause in clauses}) < 2:
            clauses[1:] = [draw_clause(draw, words, draw.choice((0, 0, 1)))]
        form, deciding = draw.choice(words.contrasts)
        text = form.format(clauses[0].text, clauses[1].text)
    return text[0].upper() + text[1:] + words.end, clauses[deciding].positive, clauses


def make(seed: int = 0, language: str = "en", train: int = 6000) -> dict[str, list[Labelled]]:
    """{"train", "val", "test", "negation", "contrast"}: texts labelled "negative" or "positive", half of each.

    `where` says what is in a text: "contrast" or not, and for each clause noun/adjective/negations.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, not {language!r}.")
    words, draw = LANGUAGES[language], Draw(seed, f"sentiment {language}")
    apart = draw.held_out(15, words.nouns, words.positive) | draw.held_out(15, words.nouns, words.negative)
    affirmed = {a for kind in (words.positive, words.negative) for a in draw.shuffled(kind)[: len(kind) // 4]}
    taken: set[str] = set()

    def sentence(split: str, label: str) -> tuple[str, Labelled] | None:
        text, positive, clauses = draw_text(draw, words)
        is_apart = [(c.noun, c.adjective) in apart for c in clauses]
        is_new = [c.negations > 0 and c.adjective in affirmed for c in clauses]
        both = len(clauses) == 2 and all(c.negations for c in clauses)
        fits = {
            "train": not any(is_apart) and not any(is_new) and not both,
            "test": all(is_apart) and not any(is_new) and not both,
            "negation": all(is_new) and not any(is_apart) and len(clauses) == 1,
            "contrast": both and not any(is_apart) and not any(is_new),
        }
        where = "; ".join(f"{c.noun}/{c.adjective}/{c.negations}" for c in clauses)
        if LABELS[positive] != label or not fits[split]:
            return None
        return text, Labelled(text, label, ("contrast; " if len(clauses) == 2 else "") + where)

    def split_of(name: str, size: int, kind: str | None = None) -> list[Labelled]:
        halves = [fill(size // 2, partial(sentence, kind or name, label), taken) for label in LABELS]
        return draw.shuffled(halves[0] + halves[1])

    return {
        "train": split_of("train", train),
        "val": split_of("val", 400, "train"),
        "test": split_of("test", 600),
        "negation": split_of("negation", 400),
        "contrast": split_of("contrast", 400),
    }


def by_lexicon(text: str) -> str:
    """More adjectives of one kind than of the other: their label; as many of each: positive. Negation is not seen."""
    found = [sum(text.count(a) for w in LANGUAGES.values() for a in getattr(w, label)) for label in LABELS]
    return LABELS[found[1] >= found[0]]


def baselines(splits: dict[str, list[Labelled]]) -> dict[str, dict[str, list[str]]]:
    """Predictions for each test split: the commonest label, a bag of words (naive Bayes), and the lexicon."""
    tests = {name: [example.text for example in part] for name, part in test_splits(splits).items()}
    labels = [str(example.label) for example in splits["train"]]
    bag = NaiveBayes([example.text for example in splits["train"]], labels)
    common = most_frequent(labels)
    return {
        "majority": {name: [common] * len(texts) for name, texts in tests.items()},
        "bag of words": {name: bag.predict(texts) for name, texts in tests.items()},
        "lexicon": {name: [by_lexicon(text) for text in texts] for name, texts in tests.items()},
    }
