"""What a model answers to conversations, of either engine, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..finetune.predict import in_batches
from ..generate import Sampling, generate, known_ids
from ..numpy_ops.cores import limit_blas_threads
from .conversations import ChatTemplate


@dataclass(frozen=True)
class Answer:
    """What a model wrote: `ids` with the stop id, if it came to one (`ended`), and the text without."""

    ids: list[int]
    text: str
    ended: bool


def write_answers(
    model: Any,
    template: ChatTemplate,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seeds: Sequence[Any] | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Answer]:
    """An answer to each prompt (ids: `template.prompt`), which ends with a stop id of the template, after
    `max_new_tokens`, or where the model's context does. Greedy without `sampling`; `seeds`: one for each prompt, on
    which alone its answer depends, whatever else is written beside it. Each prompt must be shorter than the context.
    """
    context, sampling = model.config.context, sampling or Sampling(temperature=0)
    allowed, stop_ids = known_ids(template.tokenizer), template.stop_ids

    def written(batch: list[tuple[list[int], int]]) -> list[list[int]]:
        rows = [row for row, _ in batch]
        # All stand at one position: the shorter ones may write up to the context's end, the longer ones go beyond it
        # and are cut.
        room = min(max_new_tokens, context - min(map(len, rows)) + 1)
        options: dict[str, Any] = {"stop_ids": stop_ids, "keep_stop_id": True, "allowed": allowed}
        seed = None if seeds is None else [seeds[place] for _, place in batch]
        with limit_blas_threads(1):  # a step's products are so small that more threads would wait for each other
            answers = generate(model, rows, max_new_tokens=room, sampling=sampling, seed=seed, **options)
        return [answer[: context - len(row) + 1] for row, answer in zip(rows, answers)]

    numbered = [(row, place) for place, row in enumerate(prompts)]
    return [answer_of(ids, template) for ids in in_batches(numbered, batch_size, written, progress)]


def answer_of(ids: list[int], template: ChatTemplate) -> Answer:
    """The answer that ids stand for."""
    ended = bool(ids) and ids[-1] in template.stop_ids
    words = ids[:-1] if ended else ids
    return Answer(ids, template.tokenizer.decode(words, skip_special_tokens=True), ended)
