"""Verifiable: prompts with short answers that a program can judge, for rewards instead of examples.

    arithmetic    How much is 37 plus 8?                                           45
    sorting       Sort these digits: 5 2 9 1                                       1 2 5 9
    slots         Note thing, people, day, hour: A table for two on Monday at ...  table, two, Monday, noon
    code          the sum of the squares of the numbers in xs                      sum(x * x for x in xs)

`reward(answer, record)` is from 0 to 1, with part of it for an answer that is partly right. The right answer stands in
the record too, at most 40 characters, so that a model can be shown some before it is rewarded (`chats`): without any
right answer in a group there is nothing to earn. Held out of training:

    val, test       new prompts
    combinations    sums of two numbers, pairs of digits, things on a day, and what is computed of what, that never
                    stood together in training
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import combinations
from typing import Any

from ..examples import Chat, Pair, Prompt
from . import code
from .baselines import Nearest, most_frequent, test_splits
from .dialogue import ANSWERS, GIVEN, HOURS, PEOPLE, SIGNS, SUMS, THINGS, WISHES
from .draw import Draw, fill, same_words_key
from .execution import passes
from .names import DAYS

LONGEST = 40  # characters of an answer
NUMBERS = [str(n) for n in range(1, 51)]
DIGITS = "0123456789"
SORTS = ("Sort these digits: {digits}", "Sort {digits} from small to large.", "Put {digits} in order.")
NOTES = ("Note thing, people, day, hour: {wish}", "{wish} Note thing, people, day, hour.")
Drawn = tuple[str, str, set[tuple[str, ...]]]  # a prompt, its answer, and the combinations that stand in it


def arithmetic(draw: Draw) -> Drawn:
    a, b, sign = int(draw.choice(NUMBERS)), int(draw.choice(NUMBERS)), draw.choice(SIGNS)
    a, b = (max(a, b), min(a, b)) if sign == "minus" else (a, b)
    value = a + b if sign == "plus" else a - b
    return draw.choice(SUMS).format(a=a, b=b, sign=sign), str(value), {(str(a), sign, str(b))}


def sorting(draw: Draw) -> Drawn:
    digits = [draw.choice(DIGITS) for _ in range(draw.between(3, 6))]
    asked, ordered = draw.choice(SORTS).format(digits=" ".join(digits)), sorted(digits)
    return asked, " ".join(ordered), set(combinations(sorted(set(digits)), 2))


def slots(draw: Draw) -> Drawn:
    thing = draw.choice(THINGS)
    told = {"people": draw.choice(PEOPLE), "day": draw.choice(DAYS), "hour": draw.choice(HOURS)}
    inside = [slot for slot in told if draw.chance(70)]
    rest = "".join(draw.choice(GIVEN[slot]) for slot in draw.shuffled(inside)).format(**told)
    behind = [draw.choice(ANSWERS[slot]).format(**told) for slot in draw.shuffled(told) if slot not in inside]
    begin = draw.choice(WISHES).format(thing=thing, rest=rest)
    wish = " ".join([begin, *(said[0].upper() + said[1:] for said in behind)])
    return draw.choice(NOTES).format(wish=wish), ", ".join([thing, *told.values()]), {(thing, told["day"])}


GRAMMARS = {"arithmetic": arithmetic, "sorting": sorting, "slots": slots}
KINDS = (*GRAMMARS, "code")


def make(seed: int = 0, train: int = 4000, kinds: Sequence[str] = KINDS) -> dict[str, list[Prompt]]:
    """{"train", "val", "test", "combinations"}: prompts of these kinds in turn, as many of each; `where` is the kind,
    `record` {"kind", "prompt", "answer"}."""
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}, not {', '.join(map(repr, kinds)) or 'none'}.")
    sizes = {"val": 200, "test": 400, "combinations": 400, "train": train}
    parts: dict[str, list[list[Prompt]]] = {split: [] for split in sizes}
    for kind in kinds:
        each = {split: -(-size // len(kinds)) for split, size in sizes.items()}
        made = requests(seed, each) if kind == "code" else drawn(kind, Draw(seed, f"verifiable {kind}"), each)
        for split, prompts in made.items():
            parts[split].append(prompts)
    mixed = {split: [prompt for row in zip(*made) for prompt in row][: sizes[split]] for split, made in parts.items()}
    return {split: mixed[split] for split in ("train", "val", "test", "combinations")}


def drawn(kind: str, draw: Draw, sizes: dict[str, int]) -> dict[str, list[Prompt]]:
    """Splits of these sizes of a kind that has a grammar here."""
    parts = {"arithmetic": (NUMBERS, SIGNS, NUMBERS), "sorting": (DIGITS, DIGITS), "slots": (THINGS, DAYS)}[kind]
    apart = draw.held_out(15, *parts)
    taken: set[str] = set()

    def one(held_out: bool) -> tuple[str, Prompt] | None:
        asked, answer, together = GRAMMARS[kind](draw)
        return None if bool(together & apart) != held_out else (asked, prompt(kind, asked, answer))

    return {
        split: fill(size, partial(one, split == "combinations"), taken, same_words_key) for split, size in sizes.items()
    }


def requests(seed: int, sizes: dict[str, int]) -> dict[str, list[Prompt]]:
    """Splits of these sizes of requests for code, those of code.py with short answers."""
    made = code.make(seed, train=4 * sizes["train"])
    found = {}
    for split, size in sizes.items():
        pairs = made["compositional"] + made["pairs"] if split == "combinations" else made[split]
        short = [prompt("code", pair.source, pair.target) for pair in pairs if len(pair.target) <= LONGEST]
        if len(short) < size:
            raise RuntimeError(f"code has {len(short)} short answers for {split}, fewer than the {size} asked for.")
        found[split] = short[:size]
    return found


def prompt(kind: str, asked: str, answer: str) -> Prompt:
    messages = ({"role": "user", "content": asked},)
    return Prompt(messages, {"kind": kind, "prompt": asked, "answer": answer}, kind)


# --- what an answer is worth ------------------------------------------------------------------------------------------


def reward(answer: str, record: dict[str, Any]) -> float:
    """How right an answer is, from 0 to 1, by the `record` of its prompt; white space around it is free.

    arithmetic: 1 for the number alone, else 0. sorting, slots: the share of places that are right. code: the share of
    its tests that it passes, with what the request asks for, however it is written.
    """
    said, right = answer.strip(), record["answer"]
    if record["kind"] == "arithmetic":
        return float(said == right)
    if record["kind"] == "sorting":
        return share(said.split(), right.split())
    if record["kind"] == "slots":
        return share(re.split(r",\s*", said), right.split(", "))
    tests = tests_of(record["prompt"], right)
    return sum(passes(said, [test]) for test in tests) / len(tests)


def share(said: Sequence[str], right: Sequence[str]) -> float:
    """The share of places that are right; those too many count as wrong."""
    return sum(a == b for a, b in zip(said, right)) / max(len(said), len(right))


@lru_cache(maxsize=10_000)
def tests_of(request: str, right: str) -> list[tuple[dict[str, Any], Any]]:
    return code.tests_of(Pair(request, right))


def chats(prompts: Sequence[Prompt]) -> list[Chat]:
    """The prompts with their right answers, to begin with."""
    return [Chat((*p.messages, {"role": "assistant", "content": p.record["answer"]}), p.where) for p in prompts]


def baselines(splits: dict[str, list[Prompt]]) -> dict[str, dict[str, list[str]]]:
    """Answers for each test split: the commonest of the same kind, and that to the nearest training prompt."""
    tests, train = test_splits(splits), splits["train"]
    nearest = Nearest([p.record["prompt"] for p in train])
    common = {k: most_frequent(p.record["answer"] for p in train if p.where == k) for k in {p.where for p in train}}
    return {
        "most frequent": {name: [common[p.where] for p in prompts] for name, prompts in tests.items()},
        "retrieval": {
            name: [train[i].record["answer"] for i in nearest.find([p.record["prompt"] for p in prompts])]
            for name, prompts in tests.items()
        },
    }
