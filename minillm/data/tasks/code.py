"""Writing code: a request in English becomes a Python expression, which is judged by running it.

    the sum of the squares of the even numbers in xs          sum(x * x for x in xs if x % 2 == 0)
    take the words in tags that end in e and count them        len([w for w in tags if w.endswith('e')])

A request names a filter, a map and a reduction over a list of numbers or of words. Many expressions answer it, so a
prediction is right when it gives what the reference gives on all tests of `tests_of`, however it is written
(`passes(prediction, tests_of(pair))`).
Combinations are held out, each of whose parts is in training:

    train, val, test    combinations that are trained on, in requests that are not
    compositional       (filter, map, reduction) that never stood together in training, each two of the three may have
    pairs               (filter, map) that never stood together in training
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from ..examples import Pair
from .baselines import Nearest, most_frequent, test_splits
from .draw import Draw, fill, fill_more
from .execution import ExecutionError, evaluate, passes

__all__ = ["baselines", "make", "passes", "tests_of"]

# Each part: how a request may say it, and its code. {k} and {m} are numbers, {c} a letter, {of} and {xs} what is
# inside; {bare} is {of} without its "the".
FILTERS = {
    "all": ("", ""),
    "even": ("even", "x % 2 == 0"),
    "odd": ("odd", "x % 2 == 1"),
    "positive": ("positive", "x > 0"),
    "negative": ("negative", "x < 0"),
    "above": ("that are greater than {k}|above {k}", "x > {k}"),
    "below": ("that are less than {k}|below {k}", "x < {k}"),
    "multiples": ("that are multiples of {k}|divisible by {k}", "x % {k} == 0"),
    "other": ("other than {k}|that are not {k}", "x != {k}"),
}
MAPS = {
    "same": ("", "x"),
    "squares": ("squares", "x * x"),
    "cubes": ("cubes", "x ** 3"),
    "doubles": ("doubles", "2 * x"),
    "absolute": ("absolute values", "abs(x)"),
    "opposites": ("opposites", "-x"),
    "halves": ("halves", "x / 2"),
    "last digits": ("last digits", "abs(x) % 10"),
}
REDUCTIONS = {
    "sum": ("the sum of {of}|add up {of}|the total of {of}", "sum({xs})"),
    "largest": ("the largest of {of}|the maximum of {of}|find the largest of {of}", "max({xs})"),
    "smallest": ("the smallest of {of}|the minimum of {of}|find the smallest of {of}", "min({xs})"),
    "list": ("a list of {of}|list {of}|collect {of}", "[{xs}]"),
    "sorted": ("{of} in order|sort {of}|{of} from small to large", "sorted({xs})"),
    "different": ("how many different values there are among {of}|count the different {bare}", "len(set({xs}))"),
}
WORD_FILTERS = {
    "all": ("", ""),
    "starting": ("that start with {c}|beginning with {c}", "w.startswith('{c}')"),
    "ending": ("that end with {c}|ending in {c}", "w.endswith('{c}')"),
    "containing": ("that contain {c}|with {c} in them", "'{c}' in w"),
    "longer": ("longer than {m} letters|of more than {m} letters", "len(w) > {m}"),
    "shorter": ("shorter than {m} letters|of fewer than {m} letters", "len(w) < {m}"),
}
WORD_MAPS = {
    "same": ("", "w"),
    "lengths": ("lengths", "len(w)"),
    "first letters": ("first letters", "w[0]"),
    "last letters": ("last letters", "w[-1]"),
    "capitals": ("capitals", "w.upper()"),
    "reversals": ("reversals", "w[::-1]"),
}
WORD_REDUCTIONS = {
    "list": REDUCTIONS["list"],
    "sorted": ("{of} in order|sort {of}", "sorted({xs})"),
    "different": REDUCTIONS["different"],
    "first": ("the first of {of} in order|find the smallest of {of}", "min({xs})"),
    "last": ("the last of {of} in order|find the largest of {of}", "max({xs})"),
}
LETTERS = "aelnrst"  # each of them begins some of these words, and ends some
VOCABULARY = (
    "apple", "tree", "rain", "lantern", "sea", "noon", "table", "east", "letter", "salt", "nest", "river", "atlas",
    "error", "ear", "silent", "run", "lake", "sail", "on",
)  # fmt: skip
KINDS = {  # (filters, maps, reductions, the name of a thing, its variable, names of lists)
    "numbers": (FILTERS, MAPS, REDUCTIONS, "numbers", "x", ("xs", "ys", "ages", "scores")),
    "words": (WORD_FILTERS, WORD_MAPS, WORD_REDUCTIONS, "words", "w", ("words", "names", "tags", "cities")),
}


def write(draw: Draw, kind: str, parts: tuple[str, ...], where: str) -> Pair:
    """A request for a (filter, map, reduction), in words drawn for each, and the expression that answers it."""
    filters, maps, reductions, things, x, lists = KINDS[kind]
    kept, mapped, reduced = filters[parts[0]], maps[parts[1]], reductions[parts[2]]
    fields = {"k": str(draw.between(2, 9)), "m": str(draw.between(3, 6)), "c": draw.choice(LETTERS)}
    quality, name = draw.choice(kept[0].split("|")), draw.choice(lists)
    before = quality in ("even", "odd", "positive", "negative")  # the even numbers, but the numbers above 3
    noun = f"{quality} {things} in {name}" if before else f"{things} in {name} {quality}".rstrip()
    of = f"the {mapped[0]} of the {noun}" if mapped[0] else f"the {noun}"
    request = draw.choice(reduced[0].split("|")).replace("{of}", of).replace("{bare}", of[4:]).format(**fields)
    inside = f"{mapped[1]} for {x} in {name}" + (f" if {kept[1]}" if kept[1] else "")
    return Pair(request, reduced[1].replace("{xs}", inside).format(**fields), where)


def make(seed: int = 0, train: int = 8000) -> dict[str, list[Pair]]:
    """{"train", "val", "test", "compositional", "pairs"}; `where` is "numbers: filter, map, reduction"."""
    draw, taken = Draw(seed, "code"), set[str]()
    combinations: dict[str, list[tuple[str, tuple[str, ...]]]] = {"train": [], "compositional": [], "pairs": []}
    for kind, (filters, maps, reductions, *_) in KINDS.items():
        apart = draw.held_out(10, list(filters)[1:], list(maps)[1:])  # what is plain is held out with nothing
        alone = draw.held_out(20, list(filters)[1:], list(maps)[1:], reductions)
        for parts in product(filters, maps, reductions):
            split = "pairs" if parts[:2] in apart else "compositional" if parts in alone else "train"
            combinations[split].append((kind, parts))

    def request(split: str) -> tuple[str, Pair] | None:
        kind, parts = draw.choice(combinations[split])
        pair = write(draw, kind, parts, f"{kind}: {', '.join(parts)}")
        return pair.source, pair

    held_out = {
        "val": fill(300, partial(request, "train"), taken),
        "test": fill(600, partial(request, "train"), taken),
        "compositional": fill(600, partial(request, "compositional"), taken),
        "pairs": fill(400, partial(request, "pairs"), taken),
    }
    return {"train": fill_more(train, partial(request, "train"), taken)} | held_out


def tests_of(pair: Pair, count: int = 5) -> list[tuple[dict[str, Any], Any]]:
    """(variables, what the reference gives) for `count` drawings of all lists, the same for a request every time.

    Every list has other values, so that the right operation on the wrong list is noticed, and the last answer differs
    from the first if it can. Lists for which the reference has no answer (the largest of none) are drawn again.
    Raises ValueError where it never has one.
    """
    draw, tests = Draw(0, pair.source), list[tuple[dict[str, Any], Any]]()
    for drawn in range(1000):
        variables: dict[str, Any] = {name: [draw.between(-20, 20) for _ in range(8)] for name in KINDS["numbers"][-1]}
        variables |= {name: [draw.choice(VOCABULARY) for _ in range(8)] for name in KINDS["words"][-1]}
        try:
            expected = evaluate(pair.target, variables)
        except ExecutionError:
            continue
        if len(tests) < count - 1 or expected != tests[0][1] or drawn > 100:
            tests.append((variables, expected))
        if len(tests) == count:
            return tests
    raise ValueError(f"{pair.target!r} has no value for any of 1,000 drawings of {', '.join(variables)}.")


def baselines(splits: dict[str, list[Pair]]) -> dict[str, dict[str, list[str]]]:
    """Predictions for each test split: the commonest expression, and the answer to the nearest training request."""
    tests, nearest = test_splits(splits), Nearest([pair.source for pair in splits["train"]])
    common = most_frequent(pair.target for pair in splits["train"])
    return {
        "most frequent": {name: [common] * len(pairs) for name, pairs in tests.items()},
        "retrieval": {
            name: [splits["train"][i].target for i in nearest.find([pair.source for pair in pairs])]
            for name, pairs in tests.items()
        },
    }
