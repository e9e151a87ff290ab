"""What a fine-tuned model answers, of either engine, many examples at a time.

Rows of a batch do not see each other, and padding is not looked at: each gets the answer that it would get alone. So
examples are taken in the order of their length, which wastes nothing on padding, and given back in their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ..beam import beam_search
from ..engines.choose import ids_for, outputs_of
from ..generate import Sampling, generate
from ..numpy_ops.cores import limit_blas_threads
from .objectives import Array, Classify, Continue, Row, TaskObjective, Write


@dataclass(frozen=True)
class Answer:
    """A prediction: the class's name, names, number or text, and for classes how likely each is, (n_labels,)."""

    value: Any
    probabilities: Array | None = None


def predict(
    model: Any,
    objective: TaskObjective,
    examples: Sequence[Any],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 0,
    n_beams: int = 1,
    sampling: Sampling | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> list[Answer]:
    """An answer for each example; of its fields only the text or the source is used.

    Texts are written greedily, with `n_beams` (see beam.py), or drawn as `sampling` says, up to an end or
    `max_new_tokens` (0: as many as the context lets). Raises `Misfit` for an example that does not fit into the model.
    """
    rows = [objective.inputs(example) for example in examples]
    if isinstance(objective, Classify):
        forward = outputs_of(model)
        parts = in_batches(rows, batch_size, lambda batch: list(forward(*objective.collate(batch))), progress)
        return [classified(logits, objective) for logits in parts]
    tokenizer, context = objective.tokenizer, objective.context

    def written(batch: list[Row]) -> list[list[int]]:
        prompts, writer = starts(model, objective, batch)
        room = context - max(len(prompt) for prompt in prompts) + 1
        options: dict[str, Any] = {"stop_ids": (objective.end_id,), "allowed": objective.allowed}
        options |= {"max_new_tokens": min(max_new_tokens or room, room)}
        with limit_blas_threads(1):  # a step's products are so small that more threads would wait for each other
            if n_beams > 1:
                return [found[0].ids for found in beam_search(writer, prompts, n_beams=n_beams, **options)]
            return generate(writer, prompts, sampling=sampling or Sampling(temperature=0), seed=seed, **options)

    answers = in_batches(rows, batch_size, written, progress)
    return [Answer(tokenizer.decode(ids, skip_special_tokens=True)) for ids in answers]


def starts(model: Any, objective: Write | Continue, batch: list[Row]) -> tuple[list[list[int]], Any]:
    """What is to be continued, and by what: an encoder–decoder that has its sources writes from the start on."""
    if isinstance(objective, Continue):
        return [row[0].tolist() for row in batch], model
    (source,) = objective.collate(batch)
    return [[objective.start_id] for _ in batch], model.given(ids_for(model, source))


def in_batches(rows: Sequence[Any], size: int, work: Callable[[list[Any]], list[Any]], progress: bool) -> list[Any]:
    """`work` on rows of like length, `size` at a time; the results in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    results: list[Any] = [None] * len(rows)
    with tqdm(total=len(rows), unit="example", disable=None if progress else True, leave=False) as bar:
        for places in chunks(order, size):
            for place, result in zip(places, work([rows[i] for i in places])):
                results[place] = result
            bar.update(len(places))
    return results


def chunks(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def classified(logits: Array, objective: Classify) -> Answer:
    """The answer that logits (n_labels,) stand for: the likeliest class; of several, all above a half; or a number."""
    x, labels = np.asarray(logits, dtype=np.float64), objective.labels
    if objective.problem_type == "regression":
        return Answer(float(x[0]) * objective.scale + objective.center)
    if objective.problem_type == "multi_label_classification":
        p = np.exp(-np.logaddexp(0, -x))  # each for itself
        return Answer(tuple(label for label, likely in zip(labels, p > 0.5) if likely), p)
    p = np.exp(x - x.max())
    p /= p.sum()
    return Answer(labels[int(p.argmax())], p)
