"""Summarization: a report of 4 to 7 sentences becomes one sentence that says who did what where and when.

The report tells its facts one or two at a time, in an order drawn for each, among sentences that matter to nobody and
sentences about an earlier event with another person, another town, another day and another number. No fact may be taken
from those. The first sentence never holds all facts, so that taking it as the summary is a fair baseline that can
be beaten. Surnames, given names and towns of "test" are never in training (they have to be copied); "seen" has new
reports about names that are.

`docstrings` makes the same task from real text: the body of a docstring, and the first line that its author gave it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import partial

from ..examples import Pair
from ..split import split_place
from ..stdlib import docstrings as docstrings_of
from ..stdlib import stdlib_documents
from .baselines import test_splits, words_of
from .draw import Draw, fill, near_copy_key
from .names import DAYS, name_pools

# Of each event: its summary, then ways to tell each fact. {who} {where} {when} {n} are the facts, {last} the surname.
EVENTS = {
    "race": (
        "{who} won the {n} km race in {where} on {when}.",
        {
            "who": ("The winner was {who}.", "Nobody was faster than {who}.", "In the end {who} came in first."),
            "where": ("The runners met in {where}.", "The streets of {where} were full of runners."),
            "where and when": ("The runners met in {where} on {when}.",),
            "when": ("The race was held on {when}.", "It began early on {when}."),
            "n": ("The course was {n} km long.", "All of them had {n} km to run."),
        },
    ),
    "opening": (
        "{who} opened a library with {n} books in {where} on {when}.",
        {
            "who": ("{who} cut the ribbon.", "The doors were opened by {who}.", "{who} gave the first speech."),
            "where": ("{where} has a new library.", "The new library stands in {where}."),
            "where and when": ("Readers in {where} had their first day on {when}.",),
            "when": ("It was opened on {when}.", "The first readers came on {when}."),
            "n": ("Its shelves hold {n} books.", "Readers can choose among {n} books."),
        },
    ),
    "rescue": (
        "{who} saved {n} people from the flood in {where} on {when}.",
        {
            "who": ("{who} went out with a boat.", "The boat was steered by {who}.", "{who} did not wait for help."),
            "where": ("The river rose in {where}.", "Water ran through the streets of {where}."),
            "where and when": ("The river rose in {where} on {when}.",),
            "when": ("The flood came on {when}.", "It had rained until {when}."),
            "n": ("In all {n} people were saved.", "{n} people are safe now."),
        },
    ),
    "find": (
        "{who} found {n} old coins in {where} on {when}.",
        {
            "who": ("{who} was digging in a garden.", "The lucky finder is {who}.", "{who} saw something shine."),
            "where": ("The garden lies in {where}.", "It is the largest find ever made in {where}."),
            "where and when": ("It happened in a garden in {where} on {when}.",),
            "when": ("The coins came to light on {when}.", "The find was made on {when}."),
            "n": ("There were {n} coins in the pot.", "Experts counted {n} coins."),
        },
    ),
    "concert": (
        "{who} played for {n} listeners in {where} on {when}.",
        {
            "who": ("{who} sat down at the piano.", "The pianist was {who}.", "People had come to hear {who}."),
            "where": ("The concert hall of {where} was lit.", "The concert was given in {where}."),
            "where and when": ("The hall of {where} was open on {when}.",),
            "when": ("It took place on {when}.", "Doors opened on {when} at eight."),
            "n": ("{n} listeners had a ticket.", "All {n} seats were taken."),
        },
    ),
}  # fmt: skip
FACTS = ("who", "where", "when", "n")
NOISE = (
    "The weather was fine.", "Many people had waited for this.", "It will not be the last time.",
    "Children waved flags.", "Some neighbours had their doubts.", "There was tea for everybody.",
    "A band played in the square.", "Reporters asked many questions.", "The mayor was pleased.",
    "The evening ended with a song.",
)  # fmt: skip
EARLIER = (
    "Last year the same had been done by {who} in {where}.", "{who} from {where} could not come.",
    "On {when} there had been a first try in {where}.", "{who} had hoped for more than {n}.",
    "A year ago there were only {n}.", "{who} spoke to the press on {when}.",
)  # fmt: skip
PATTERNS = [
    re.compile(re.escape(summary).replace(r"\{", "(?P<").replace(r"\}", ">.+)")) for summary, _ in EVENTS.values()
]


def draw_report(draw: Draw, names: tuple[list[str], list[str], list[str]]) -> tuple[str, Pair]:
    """A report, its summary, and as `where` the kind of event."""
    given, surnames, towns = (draw.some(pool, 2) for pool in names)
    days, amounts = draw.shuffled(DAYS), [draw.between(3, 60), draw.between(61, 99)]
    event, other = [
        {"who": f"{given[i]} {surnames[i]}", "where": towns[i], "when": days[i], "n": str(amounts[i])}
        for i in draw.shuffled((0, 1))
    ]
    kind = draw.choice(list(EVENTS))
    summary, ways = EVENTS[kind]
    parts = ("who", "where and when", "n") if draw.chance(50) else FACTS
    told = [draw.choice(ways[part]) for part in parts]
    aside = draw.some(NOISE, 2) + draw.some(EARLIER, 1)
    sentences = [s.format(**event) for s in told] + [s.format(**other) for s in aside[-draw.between(1, 3) :]]
    text = " ".join(draw.shuffled(sentences))
    return text, Pair(text, summary.format(**event), kind)


def make(seed: int = 0, train: int = 6000) -> dict[str, list[Pair]]:
    """{"train", "val", "test", "seen"}: reports and their summaries."""
    draw, taken = Draw(seed, "summarization"), set[str]()
    pools = name_pools(draw)
    seen, unseen = (partial(draw_report, draw, pools[kind]) for kind in ("seen", "unseen"))
    return {
        "train": fill(train, seen, taken),
        "val": fill(300, seen, taken),
        "test": fill(500, unseen, taken),
        "seen": fill(500, seen, taken),
    }


def facts(pair: Pair) -> tuple[str, ...]:
    """What a summary of this report must say: who, where, when, how many.

    Raises ValueError for another kind of pair.
    """
    for pattern in PATTERNS:
        if match := pattern.fullmatch(pair.target):
            return tuple(match[fact] for fact in FACTS)
    raise ValueError(f"{pair.target!r} is no summary of an event: facts are known of the pairs of make() only.")


def fact_accuracy(prediction: str, pair: Pair) -> float:
    """The share of the facts that the prediction says, as whole words (9 is not in 92)."""
    found = [re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", prediction) is not None for fact in facts(pair)]
    return sum(found) / len(found)


def docstrings(seed: int = 0, root: str | os.PathLike[str] | None = None) -> dict[str, list[Pair]]:
    """{"train", "val", "test"} from the standard library of the running Python: docstring body -> its first line.

    A whole package or module falls into one split, by the hash of its name, and no first line stands in two. `where` is
    the qualified name. What it holds varies with the version of Python. `root` reads another folder of sources.
    """
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    taken: set[str] = set()
    for document in stdlib_documents(root=root):
        module = document.source.removeprefix("stdlib/").removesuffix(".py").replace("/", ".")
        try:
            found = list(docstrings_of(document.text, module))
        except (SyntaxError, ValueError, RecursionError):
            continue  # not valid for the running version
        for name, text in found:
            first, _, rest = text.partition("\n\n")
            body, first = " ".join(rest.split())[:600], " ".join(first.split())
            keys = {near_copy_key(first), near_copy_key(body)}
            if 20 <= len(first) <= 100 and first.endswith(".") and len(body) >= 60 and not keys & taken:
                taken |= keys
                splits[package_split(document.source, seed)].append(Pair(body, first, name))
    return splits


def package_split(source: str, seed: int) -> str:
    place = split_place(re.split(r"[/.]", source.removeprefix("stdlib/"))[0], seed)
    return "test" if place < 0.15 else "val" if place < 0.25 else "train"


def sentences_of(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +", text)


def overlap(sentence: str, target: str) -> float:
    """ROUGE-1: the F1 of the words that the two share."""
    a, b = words_of(sentence), words_of(target)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / max(len(a) + len(b), 1)


def baselines(splits: dict[str, list[Pair]]) -> dict[str, dict[str, list[str]]]:
    """Predictions for each test split: the first sentence, and the "oracle": the sentence that shares most words with
    the true summary, which nobody can know beforehand: the best that taking one sentence can do."""
    tests = test_splits(splits)
    return {
        "lead sentence": {name: [sentences_of(p.source)[0] for p in pairs] for name, pairs in tests.items()},
        "oracle sentence": {
            name: [max(sentences_of(p.source), key=partial(overlap, target=p.target)) for p in pairs]
            for name, pairs in tests.items()
        },
    }
