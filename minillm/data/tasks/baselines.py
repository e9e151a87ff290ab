"""Simple predictors that every model has to beat: the commonest answer, the nearest example, a bag of words.

All of them learn from the training split only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


def test_splits(splits: dict[str, list[T]]) -> dict[str, list[T]]:
    """All but what a model is trained and chosen with."""
    return {name: examples for name, examples in splits.items() if name not in ("train", "val")}


def most_frequent(answers: Iterable[str]) -> str:
    """The commonest answer; of several, the first in the alphabet."""
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def words_of(text: str) -> list[str]:
    """Words, lower-cased; each Chinese character for itself.

    >>> words_of("Not bad: 不坏")
    ['not', 'bad', '不', '坏']
    """
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+(?:'\w+)?", text.lower())


def count_matrix(texts: Sequence[Sequence[str]], place: dict[str, int]) -> npt.NDArray[np.float32]:
    """How often each feature of `place` stands in each text: (n_texts, n_features) float32. Others are passed over."""
    counts = np.zeros((len(texts), len(place)), dtype=np.float32)
    rows = [row for row, features in enumerate(texts) for feature in features if feature in place]
    columns = [place[feature] for features in texts for feature in features if feature in place]
    np.add.at(counts, (rows, columns), 1)
    return counts


def trigrams(text: str) -> list[str]:
    """Every run of three characters, the ends padded: "hi" -> [" hi", "hi "]."""
    padded = f" {text.lower()} "
    return [padded[i : i + 3] for i in range(len(padded) - 2)]


class Nearest:
    """Finds the training text that is most like a text.

    Likeness is the cosine of the counts of character trigrams, a rare trigram weighing more: count · log(N / df), as in
    retrieval (Spärck Jones 1972).
    """

    def __init__(self, train: Sequence[str]) -> None:
        known = [trigrams(text) for text in train]
        self.place = {gram: i for i, gram in enumerate(dict.fromkeys(gram for grams in known for gram in grams))}
        self.table = count_matrix(known, self.place)  # (n_train, n_trigrams)
        self.rarity = np.log(len(train) / (self.table > 0).sum(axis=0)).astype(np.float32)  # (n_trigrams,)
        self.table *= self.rarity
        self.table /= np.maximum(np.linalg.norm(self.table, axis=1, keepdims=True), 1e-9)

    def find(self, texts: Sequence[str]) -> list[int]:
        """The index of the nearest training text for each text; of equals the first."""
        found: list[int] = []
        for start in range(0, len(texts), 256):
            grams = [trigrams(text) for text in texts[start : start + 256]]
            rows = count_matrix(grams, self.place) * self.rarity  # (256, n_trigrams)
            found += (rows @ self.table.T).argmax(axis=1).tolist()
        return found


class NaiveBayes:
    """Multinomial naive Bayes over a bag of words, counts smoothed by 1 (Manning, Raghavan and Schütze 2008, ch. 13).

    The class with the largest  log P(class) + Σ_words log P(word | class). New words count nothing.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self.classes = sorted(set(labels))
        bags = [words_of(text) for text in texts]
        self.place = {word: i for i, word in enumerate(sorted({word for bag in bags for word in bag}))}
        counts = count_matrix(bags, self.place)  # (n_texts, n_words)
        member = np.array([[label == c for c in self.classes] for label in labels], dtype=np.float32)  # (n_texts, C)
        words = member.T @ counts + 1  # (C, n_words)
        self.log_word = np.log(words / words.sum(axis=1, keepdims=True))
        self.log_class = np.log(member.mean(axis=0))  # (C,)

    def predict(self, texts: Sequence[str]) -> list[str]:
        scores = count_matrix([words_of(text) for text in texts], self.place) @ self.log_word.T + self.log_class
        return [self.classes[i] for i in scores.argmax(axis=1)]
