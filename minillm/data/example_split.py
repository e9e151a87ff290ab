"""Splitting examples into train, validation and test so that nothing leaks, and finding leaks in a split that is given.

A model that has seen a test text in training (or the same with a comma changed) is tested on its memory. So copies and
near copies (copies.py) are first put into groups, and a group goes into one split as a whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from .copies import copies, root_of, same_text
from .examples import Chat, Labelled, Pair, Preference
from .split import SPLITS

Example = Labelled | Pair | Chat | Preference
E = TypeVar("E", bound=Example)

NAMED = 5  # examples, in a sentence
LARGE = 0.5  # share of all examples in one group, above which it is said
LEVELS = 5  # of numbers, for which a split is stratified


class ExampleSplit(dict[str, list[E]], Generic[E]):
    """{"train": examples, "val": ..., "test": ...}; `notes` are sentences about them, to be printed."""

    def __init__(self, splits: Mapping[str, list[E]], notes: list[str]) -> None:
        super().__init__(splits)
        self.notes = notes


@dataclass(frozen=True)
class Leak:
    """Two examples in different splits that are copies: Jaccard similarity 1 for the same letters."""

    splits: tuple[str, str]
    where: tuple[str, str]
    similarity: float

    def __str__(self) -> str:
        how = "the same text" if self.similarity == 1 else f"nearly the same text ({self.similarity:.2f})"
        return f"{self.where[0]} ({self.splits[0]}) and {self.where[1]} ({self.splits[1]}): {how}"


def compared_text(example: Example) -> str:
    """What must not be in two splits: the text, the source or the prompt that a model is given; a chat's whole text."""
    if isinstance(example, Labelled):
        return example.text
    if isinstance(example, Pair):
        return example.source
    if isinstance(example, Preference):
        prompt = example.prompt
        return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return "\n".join(message["content"] for message in example.messages)


def split_examples(
    examples: Sequence[E],
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    seed: int,
    near: float | None = 0.8,
    stratify: bool = True,
) -> ExampleSplit[E]:
    """Split examples into "train", "val" and (for three fractions) "test"; copies stay together.

    Near copies are those with a Jaccard similarity of at least `near` (copies.py; None: the same text only). With
    `stratify` each class gets its share of each split, as far as whole examples allow (numbers: each of five levels;
    several labels: the rarest of them), and the first of a class is for training. The same examples give the same
    splits, whatever their order in the file; in each split they stand in that order.

    Raises ValueError for fractions that are none, and where a split would be empty.
    """
    names = SPLITS[: len(fractions)]
    if len(fractions) not in (2, 3) or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions must be two or three shares (train, val, test) with the sum 1, train's above 0, not "
            f"{tuple(fractions)}."
        )
    groups = group_copies(examples, near)
    strata = stratum_of(examples) if stratify else [""] * len(examples)
    sizes = Counter(strata)
    ranked = []
    for members in groups:
        stratum = Counter(strata[i] for i in members)
        commonest = min(stratum, key=lambda name: (-stratum[name], name))
        text = min(same_text(compared_text(examples[i])) for i in members)
        digest = hashlib.sha256(seed.to_bytes(16, "little", signed=True) + text.encode("utf-8", "surrogatepass"))
        ranked.append((sizes[commonest], commonest, digest.digest(), members))
    ranked.sort()
    # One line of all groups, class by class, rare classes first. Each goes to the split that is the furthest behind its
    # share of the line so far, so that shares are right for the whole and, within one group, for each class.
    counts, chosen, before = np.zeros(len(names)), {}, None
    for _, stratum_name, _, members in ranked:
        behind = np.asarray(fractions) * (counts.sum() + len(members)) - counts
        place = 0 if stratum_name != before else int(np.argmax(behind))
        before = stratum_name
        counts[place] += len(members)
        chosen.update(dict.fromkeys(members, place))
    splits: dict[str, list[E]] = {name: [] for name in names}
    for i, example in enumerate(examples):
        splits[names[chosen[i]]].append(example)
    for name, fraction in zip(names, fractions):
        if fraction > 0 and not splits[name]:
            raise ValueError(
                f"nothing is left for {name}: {len(examples):,} examples make {len(groups):,} groups without copies "
                "between them, too few to be split so. Give more examples, a file for each split (--val, --test), "
                "or other fractions (two: no test)."
            )
    return ExampleSplit(splits, notes_on(examples, groups))


def group_copies(examples: Sequence[E], near: float | None) -> list[list[int]]:
    """Examples that are copies of each other, directly or through others, as lists of their places."""
    parent = np.arange(len(examples))
    for i, j, _ in copies([compared_text(example) for example in examples], near):
        parent[root_of(parent, j)] = root_of(parent, i)
    groups = defaultdict(list)
    for i in range(len(examples)):
        groups[root_of(parent, i)].append(i)
    return list(groups.values())


def stratum_of(examples: Sequence[Example]) -> list[str]:
    """The class of each example; for numbers the level (a fifth of all), for several labels the one that the fewest
    examples have (as Sechidis et al. 2011, "On the stratification of multi-label data", begin with); "" for none."""
    labels = [example.label if isinstance(example, Labelled) else "" for example in examples]
    numbers = np.array([label for label in labels if isinstance(label, float)])
    edges = np.quantile(numbers, np.arange(1, LEVELS) / LEVELS) if len(numbers) else numbers
    n_with = Counter(name for label in labels if isinstance(label, tuple) for name in label)
    strata = []
    for label in labels:
        if isinstance(label, tuple):
            label = min(label, key=lambda name: (n_with[name], name), default="")
        strata.append(label if isinstance(label, str) else str(int(np.searchsorted(edges, label, side="right"))))
    return strata


def notes_on(examples: Sequence[Example], groups: list[list[int]]) -> list[str]:
    """Sentences about copies and about texts whose labels contradict each other."""
    notes = []
    together = sum(len(members) - 1 for members in groups)
    if together:
        notes.append(f"{together:,} of {len(examples):,} examples are copies or near copies of others: kept together.")
    largest = max(groups, key=len, default=[])
    if len(largest) > 2 and len(largest) > LARGE * len(examples):
        notes.append(
            f"{len(largest):,} of them hang together as near copies, each of another: sentences from one pattern? "
            "They are all in one split. With near=None (the same text only) they are split, and the test is easier."
        )
    found = contradictions(examples)
    if found:
        listed = "; ".join(
            f"{a.where or repr(a.text[:40])} says {a.label!r}, {b.where} {b.label!r}" for a, b in found[:NAMED]
        )
        more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        notes.append(f"The same text has different labels: {listed}{more}. Correct them: no model can learn both.")
    return notes


def contradictions(examples: Sequence[Example]) -> list[tuple[Labelled, Labelled]]:
    """Pairs (the first with this text, one with another label), capitals and white space aside."""
    first: dict[Hashable, Labelled] = {}
    found = []
    for example in examples:
        if isinstance(example, Labelled):
            other = first.setdefault(same_text(example.text), example)
            labels = [set(e.label) if isinstance(e.label, tuple) else e.label for e in (other, example)]
            if labels[0] != labels[1]:
                found.append((other, example))
    return found


def find_leaks(splits: Mapping[str, Sequence[Example]], *, near: float | None = 0.8) -> list[Leak]:
    """Copies that stand in different splits, in the order of the files: not all pairs of a group of copies, but one at
    least of each group that stands in two splits."""
    placed = [(name, i, example) for name, examples in splits.items() for i, example in enumerate(examples, 1)]
    leaks = []
    for i, j, similarity in sorted(copies([compared_text(example) for _, _, example in placed], near)):
        (name, a, first), (other, b, second) = placed[i], placed[j]
        if name != other:
            where = (first.where or f"example {a}", second.where or f"example {b}")
            leaks.append(Leak((name, other), where, similarity))
    return leaks


def check_leak(splits: Mapping[str, Sequence[Example]], *, near: float | None = 0.8) -> None:
    """Raise ValueError, naming the first pairs with file and line, where a text (or its near copy) is in two splits."""
    leaks = find_leaks(splits, near=near)
    if leaks:
        listed = "; ".join(str(leak) for leak in leaks[:NAMED])
        more = f"; and {len(leaks) - NAMED:,} more" if len(leaks) > NAMED else ""
        raise ValueError(
            f"the splits share texts, so that a score would measure memory: {listed}{more}. Remove them from one "
            "split, or give one file and let it be split."
        )
