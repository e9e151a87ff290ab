"""Labels: the classes of labelled examples, in an order that saves and loads, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .examples import Labelled

FEWEST = 2  # examples of a class below which it can't be learned and tested


def names_of(example: Labelled) -> tuple[str, ...]:
    """The classes of one example. Raises ValueError for a number, which has none."""
    if isinstance(example.label, float):
        raise ValueError(f"{example.where or 'an example'}: the label {example.label} is a number, not a class.")
    return (example.label,) if isinstance(example.label, str) else example.label


def count_labels(examples: Iterable[Labelled]) -> Counter[str]:
    """How many examples have each class."""
    return Counter(name for example in examples for name in names_of(example))


def label_names(examples: Iterable[Labelled]) -> list[str]:
    """The classes, sorted: by number where all are whole numbers ("2" before "10"), else as texts. A class's place in
    this list is its id."""
    names = sorted(count_labels(examples))
    try:
        return sorted(names, key=int)
    except ValueError:
        return names


def check_labels(
    train: Sequence[Labelled], others: Mapping[str, Sequence[Labelled]], *, fewest: int = FEWEST
) -> list[str]:
    """Raise ValueError where no classifier can be trained on `train` and tested on `others` ({"val": ..., ...}): fewer
    than two classes, or a class that `train` lacks. Return a sentence for each class with fewer than `fewest` examples
    in `train`."""
    counts = count_labels(train)
    multi = any(isinstance(example.label, tuple) for example in train)
    if len(counts) < (1 if multi else 2):
        found = f"only the class {next(iter(counts))!r}" if counts else "no class"
        raise ValueError(f"the training examples have {found}: a classifier needs two. Is it the right label column?")
    for split, examples in others.items():
        unknown = {name: e.where for e in reversed(examples) for name in names_of(e) if name not in counts}
        if unknown:
            listed = "; ".join(f"{name!r} (first in {where or split})" for name, where in sorted(unknown.items())[:5])
            more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
            raise ValueError(
                f"{split} has labels that no training example has: {listed}{more}. Nobody can predict them: correct "
                "the spelling, add training examples, or remove these."
            )
    rare = [name for name in label_names(train) if counts[name] < fewest]
    return [f"The class {name!r} has {counts[name]} of the training examples, fewer than {fewest}." for name in rare]
