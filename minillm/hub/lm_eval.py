"""Any of our causal models, of either engine, as the lm-eval harness takes one (EleutherAI's, version 0.4):

    from lm_eval import simple_evaluate
    model, tokenizer = load_model_and_tokenizer("runs/mine")
    simple_evaluate(HarnessModel(model, tokenizer), tasks=["lambada_openai"])

The numbers are those of the harness's own adapter for transformers. It needs the extra `lm-eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..generate import Sampling, check_continues, known_ids, stream
from ..interpret import continuations
from ..tokenizers import Tokenizer

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise ImportError(
        f"the lm-eval harness cannot be imported here: {error}. Install minillm-from-scratch[lm-eval] (in a checkout: "
        "pip install -e '.[lm-eval]')."
    ) from error

MAX_NEW_TOKENS = 256  # where a task doesn't say


class HarnessModel(LM):
    """The three questions that a task may ask of a model. `batch_size`: texts scored at once; logits take memory for
    each of their tokens and the whole vocabulary."""

    def __init__(self, model: Any, tokenizer: Tokenizer, batch_size: int = 1) -> None:
        super().__init__()
        check_continues(model)
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1.")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.context = model.config.context
        start = self.encode("") or ([] if tokenizer.eos_id is None else [tokenizer.eos_id])
        if not start:
            raise ValueError(
                "the tokenizer has neither a start token nor an end of text: a text has nothing before it."
            )
        self.start_id = start[0]

    def encode(self, text: str) -> list[int]:
        """With the start token that Llama's texts have; what looks like a special token in a task's text is one."""
        return self.tokenizer.encode_pair(text, allowed_special="all")[0]

    # --- how likely is this continuation? ---------------------------------------------------------------------------

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For each (context, continuation): ln p of the continuation, and whether it is what greedy decoding gives."""
        rows = [self.pair(*request.args) for request in requests]
        answers = self.scores(rows)
        for request, answer in zip(requests, answers):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """(the ids before, the ids of the continuation). Spaces that end the context go to the next word."""
        stripped = context.rstrip()
        if not stripped:
            ids = self.tokenizer.encode(context + continuation, allowed_special="all")
            return ([self.start_id], ids) if ids[:1] != [self.start_id] else (ids[:1], ids[1:])
        before = self.encode(stripped)
        return before, self.encode(context + continuation)[len(before) :]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """For each text its ln p, in windows of the model's context, each token once, the last window filled up with
        what came before."""
        totals = []
        for request in requests:
            ids = self.encode(request.args[0])
            starts = range(0, len(ids), self.context)
            rows = [([self.start_id, *ids[:start]], ids[start : start + self.context]) for start in starts]
            totals.append(sum(score for score, _ in self.scores(rows)))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    def scores(self, rows: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For each (ids before, ids): (Σ ln p of the ids, whether each is the likeliest). What does not fit into the
        context is cut off on the left."""
        answers = [(0.0, True)] * len(rows)
        asked = [i for i, (_, ids) in enumerate(rows) if ids]
        if too_long := [len(rows[i][1]) for i in asked if len(rows[i][1]) > self.context]:
            raise ValueError(f"a continuation of {max(too_long)} tokens is longer than the context, {self.context}.")
        cut = [(rows[i][0][-(self.context + 1 - len(rows[i][1])) :], rows[i][1]) for i in asked]
        for i, log_p, greedy in zip(asked, *continuations(self.model, cut, self.batch_size)):
            answers[i] = float(log_p), bool(greedy)
        return answers

    # --- what comes next? -------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """For each (context, settings) the continuation, up to the first text of `until`, the end of text, or
        `max_gen_toks` tokens; greedily unless the settings say otherwise."""
        answers = []
        for request in requests:
            context, settings = request.args
            answers.append(self.continuation(context, dict(settings)))
            self.cache_hook.add_partial("generate_until", request.args, answers[-1])
        return answers

    def continuation(self, text: str, settings: dict[str, Any]) -> str:
        until, most = settings.pop("until", None) or [], settings.pop("max_gen_toks", MAX_NEW_TOKENS)
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        if not settings.pop("do_sample", settings.get("temperature", 0) > 0):
            settings["temperature"] = 0.0
        known = {field.name for field in fields(Sampling)}
        if unknown := settings.keys() - known:
            raise ValueError(f"generate_until: {sorted(unknown)} are no settings of this library: {sorted(known)}.")
        ids = (self.encode(text) or [self.start_id])[-max(self.context - most, 1) :]
        eos = self.tokenizer.eos_id
        new: list[int] = []
        for token in stream(
            self.model,
            ids,
            max_new_tokens=most,
            sampling=Sampling(**settings),
            stop_ids=() if eos is None else (eos,),
            allowed=known_ids(self.tokenizer),
            seed=0,
        ):
            new.append(token)
            if any(stop in self.tokenizer.decode(new, skip_special_tokens=True) for stop in stops):
                break
        answer = self.tokenizer.decode(new, skip_special_tokens=True)
        return answer[: min((answer.find(stop) for stop in stops if stop in answer), default=None)]
