"""`minillm generate`: continue a text, printing each piece as soon as it is chosen, several texts at once, or the best
that beams find; of a model that answers (a translator, one fine-tuned for a task) its answers.

What the command line leaves open says the folder's generation_config.json, as for the Auto classes, and where it is
silent TEMPERATURE and MAX_NEW_TOKENS; models that answer then do so greedily.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..beam import beam_search
from ..data import Labelled, Pair
from ..finetune.objectives import Classify, TaskObjective, Write
from ..finetune.predict import predict, starts
from ..generate import Sampling, check_continues, generate, known_ids, prompt_ids, stream_text
from ..hub.architecture import Values
from ..hub.assistants import refuse_assistant
from ..hub.checkpoint import check_engine, load_model_and_tokenizer, open_checkpoint
from ..hub.configs import read_generation_config
from ..hub.finetuned import is_finetuned, open_finetuned
from ..hub.generation import drawing_in, n_new_tokens, rules_in, settings_of, stop_ids_in, stop_texts_in
from ..hub.rules import StopTexts, check_stop_texts, cut, until
from ..numpy_ops.cores import limit_blas_threads
from ..settings import EngineConfig
from .ahead import add_ahead, check_compile, check_continues_texts, compiled, guessed, guesses_of, rounded
from .options import add_option, add_sampling, choices, keywords, sampling_settings, typed_text

TEMPERATURE = 0.8  # when none is given
MAX_NEW_TOKENS = 200

NAMES = {  # options -> what transformers calls them
    "max_new_tokens": "max_new_tokens", "min_new_tokens": "min_new_tokens", "no_repeat_ngram": "no_repeat_ngram_size",
    "beams": "num_beams", "samples": "num_return_sequences",
}  # fmt: skip
LEAST = {
    "max_new_tokens": 1, "min_new_tokens": 0, "no_repeat_ngram": 0, "samples": 1, "seed": 0, "beams": 1, "ahead": 1,
}  # fmt: skip
UNSAID = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache")  # every folder's, of no interest
DRAWN = ("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "What is not given is as the model's generation_config.json says, where it has one; a note names it."
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder, of either format, or a hub name")
    prompt = "text to continue; -: read it from standard input"
    parser.add_argument("--prompt", type=typed_text, default="", help=prompt)
    length = f"length of the continuation (default: the folder's, or {MAX_NEW_TOKENS})"
    parser.add_argument("--max-new-tokens", type=int, help=length)
    parser.add_argument("--min-new-tokens", type=int, help="no end of text before so many new tokens")
    stop = "end before this text (repeatable)"
    parser.add_argument("--stop", type=typed_text, action="append", default=[], metavar="TEXT", help=stop)
    add_sampling(parser, f"the folder's, or {TEMPERATURE}")
    no_repeat = "no N tokens in a row come twice, the prompt counted (0: they may)"
    parser.add_argument("--no-repeat-ngram", type=int, metavar="N", help=no_repeat)
    parser.add_argument("--beams", type=int, help="search for the likeliest text with this many beams; draw nothing")
    samples = "how many continuations, in one batch; of beams the best ones (default: the folder's, or 1)"
    parser.add_argument("--samples", type=int, help=samples)
    parser.add_argument("--seed", type=int, help="of the first continuation; without it each run differs")
    parser.add_argument("--no-cache", action="store_true", help="compute every step from scratch: slower, same result")
    add_ahead(parser)
    add_option(parser, load_model_and_tokenizer, "engine", "what computes", choices=choices(EngineConfig, "name"))
    add_option(parser, load_model_and_tokenizer, "device", "PyTorch's: cpu, cuda, mps")
    add_option(parser, load_model_and_tokenizer, "verify", "compare a run's weights with their checksum")


def run(arguments: argparse.Namespace) -> int:
    check_options(arguments)
    if is_finetuned(arguments.model):
        check_continues_texts(arguments)
        model, objective, config = open_finetuned(arguments.model, **keywords(load_model_and_tokenizer, arguments))
        return answer(arguments, model, objective, settings(arguments, {"num_beams": config.task.beams}, {}))
    refuse_assistant(arguments.model, "answers in conversations only, in which it was trained")
    check_engine(arguments.engine, arguments.device)  # before anything is downloaded
    checkpoint = open_checkpoint(arguments.model)
    file = read_generation_config(checkpoint.folder)
    how = settings(arguments, file, checkpoint.original)
    check_compile(arguments, searches(arguments, how))
    opening = keywords(load_model_and_tokenizer, arguments)
    opening |= {"engine": "numpy", "device": None} if arguments.int8 else {}
    model, tokenizer = checkpoint.model_and_tokenizer(**opening)
    if getattr(model.config, "start_id", None) is not None:  # a pretrained encoder–decoder
        check_continues_texts(arguments)
        objective = Write.for_model(tokenizer, model.config)
        objective = replace(objective, start_id=how.get("decoder_start_token_id", objective.start_id))
        say_taken(arguments, how, file)
        return answer(arguments, model, objective, how, known_ids(tokenizer))
    check_continues(model)
    model = rounded(arguments, model) if arguments.int8 else model
    guessing = guesses_of(arguments, tokenizer, searches(arguments, how))
    say_taken(arguments, how, file)
    prompt = read_prompt(arguments)
    ids = prompt_ids(tokenizer, prompt)
    sampling = Sampling(**{"temperature": TEMPERATURE, **drawing_in(how)})
    own = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    options = options_of(arguments, how, stop_ids_in(file or {}) or own, len(ids))
    texts = arguments.stop or stop_texts_in(how)
    n, longest = how.get("num_return_sequences", 1), len(ids) + options["max_new_tokens"]
    model = compiled(arguments, model, 1 if guessing else n, longest, guessing.get("ahead", 0))
    if "draft" in guessing:
        guessing["draft"] = compiled(arguments, guessing["draft"], 1, longest)
    if not guessing and not searches(arguments, how) and n == 1:
        print(prompt, end="", flush=True)
        pieces = stream_text(model, tokenizer, prompt, seed=seeds(arguments, 1), sampling=sampling, **options)
        for piece in until(pieces, texts):
            print(piece, end="", flush=True)
        print()
        return 0
    options["ends"] = StopTexts(tokenizer, texts, after=len(ids)) if texts else None
    options["allowed"] = known_ids(tokenizer)
    if guessing:
        new = guessed(model, ids, seeds(arguments, n) or [None] * n, guessing, sampling=sampling, **options)
    else:
        new = written(arguments, how, model, ids, sampling, options)
    print(("\n" + "-" * 40 + "\n").join(prompt + cut(tokenizer.decode(row), texts) for row in new))
    return 0


def answer(
    arguments: argparse.Namespace, model: Any, objective: TaskObjective, how: Values, allowed: Any = None
) -> int:
    """What a model answers to the prompt: greedily, or as the options and `how` say. `allowed`: the ids that it may
    hold, by default those of the objective."""
    prompt = read_prompt(arguments)
    if isinstance(objective, Classify):
        check_class(arguments, sampling_settings(arguments))
        (found,) = predict(model, objective, [Labelled(prompt, "", "--prompt")])
        print(", ".join(found.value) if isinstance(found.value, tuple) else found.value)
        return 0
    n, search = how.get("num_return_sequences", 1), searches(arguments, how)
    row = objective.inputs(Pair(prompt, "", "--prompt"))
    prompts, writer = starts(model, objective, [row] * (1 if search else n))
    start = prompts[0]
    draws = asks_to_draw(arguments) or how.get("do_sample") or n > 1
    drawing = {"temperature": TEMPERATURE, **drawing_in(how)} if draws else {"temperature": 0.0}
    drawing["repetition_penalty"] = how.get("repetition_penalty", 1.0)
    options = options_of(arguments, how, stop_ids_in(how) or [objective.end_id], len(start))
    options["max_new_tokens"] = min(options["max_new_tokens"], objective.context - len(start) + 1)
    options["allowed"] = objective.allowed if allowed is None else allowed
    texts = arguments.stop or stop_texts_in(how)
    with limit_blas_threads(1):  # as in finetune/predict.py
        new = written(arguments, how, writer, start, Sampling(**drawing), options)
    for ids in new:
        print(cut(objective.tokenizer.decode(ids, skip_special_tokens=True), texts))
    return 0


# --- what was asked for -----------------------------------------------------------------------------------------------


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what cannot be done whatever the model, before one is read."""
    for name, least in LEAST.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least {least}.")
    check_stop_texts(arguments.stop)
    Sampling(**sampling_settings(arguments))
    new = arguments.max_new_tokens or MAX_NEW_TOKENS
    if (arguments.min_new_tokens or 0) > new:
        raise ValueError(f"--min-new-tokens {arguments.min_new_tokens} must be at most --max-new-tokens {new}.")


def read_prompt(arguments: argparse.Namespace) -> str:
    return sys.stdin.read() if arguments.prompt == "-" else arguments.prompt


def asks_to_draw(arguments: argparse.Namespace) -> bool:
    """Whether an option says how a token is to be drawn."""
    return bool(sampling_settings(arguments)) or arguments.seed is not None


def settings(arguments: argparse.Namespace, file: Values | None, config: Values) -> Values:
    """All that decides about the text, in transformers' words: the options, and where they say nothing `file`, a
    generation_config.json, or without one `config`. --beams does away with all of the folder about drawing, an option
    about drawing with the folder's beams. Raises ValueError, by name, for what is not done here."""
    gone = DRAWN if arguments.beams is not None else ("num_beams", "early_stopping") if asks_to_draw(arguments) else ()
    below = [{k: v for k, v in (part or {}).items() if k not in gone} for part in (file, config)]
    if asks_to_draw(arguments):
        below = [{k: v for k, v in part.items() if (k, v) != ("do_sample", False)} for part in below]
    given = {theirs: getattr(arguments, ours) for ours, theirs in NAMES.items() if getattr(arguments, ours) is not None}
    how = settings_of(None if file is None else below[0], below[1], {**given, **sampling_settings(arguments)})
    if how.get("num_beams", 1) > 1 and how.get("do_sample"):
        raise ValueError(
            f"generation_config.json: num_beams = {how['num_beams']} with do_sample: beams draw nothing here. Give "
            "--beams, or one of --temperature, --top-k, --top-p, --min-p and --seed."
        )
    return how


def say_taken(arguments: argparse.Namespace, how: Values, file: Values | None) -> None:
    """A note of what the folder decides."""
    given = {theirs for ours, theirs in NAMES.items() if getattr(arguments, ours) is not None}
    taken = {k: v for k, v in how.items() if k not in {*given, *sampling_settings(arguments), *UNSAID}}
    if "max_new_tokens" in given:
        taken.pop("max_length", None)
    if taken:
        name = "config.json" if file is None else "generation_config.json"
        print(f"note: {name} says " + ", ".join(f"{k} = {v!r:.60}" for k, v in taken.items()), file=sys.stderr)


def searches(arguments: argparse.Namespace, how: Values) -> bool:
    """Whether beams look for the likeliest text. Raises ValueError for options that they have no use for, by name, and
    for more texts than they find."""
    n_beams, n = how.get("num_beams", 1), how.get("num_return_sequences", 1)
    if arguments.beams is None and n_beams == 1:
        return False
    unused = [*sampling_settings(arguments), *(["seed"] if arguments.seed is not None else [])]
    if unused:
        names = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"--beams looks for the likeliest text and draws nothing: leave out {names}.")
    if n > n_beams:
        raise ValueError(f"--samples {n} must be at most --beams {n_beams}, which find them.")
    return True


def options_of(arguments: argparse.Namespace, how: Values, stop_ids: list[int], n_prompt: int) -> dict[str, Any]:
    """What `generate` and beam search are both told. Only beams leave the penalty to the rules."""
    new = MAX_NEW_TOKENS
    if "max_new_tokens" in how or "max_length" in how:
        new = n_new_tokens(how, n_prompt)
    rest = how if searches(arguments, how) else {**how, "repetition_penalty": 1.0}
    rules = rules_in(rest, stop_ids, new, n_prompt)
    return {"max_new_tokens": new, "stop_ids": stop_ids, "rules": rules, "use_cache": not arguments.no_cache}


def seeds(arguments: argparse.Namespace, n: int) -> list[int] | None:
    return None if arguments.seed is None else [arguments.seed + sample for sample in range(n)]


def written(
    arguments: argparse.Namespace, how: Values, model: Any, ids: list[int], sampling: Sampling, options: dict[str, Any]
) -> list[list[int]]:
    """The new ids of each text that was asked for, in one batch."""
    n = how.get("num_return_sequences", 1)
    if not searches(arguments, how):
        return generate(model, [ids] * n, seed=seeds(arguments, n), sampling=sampling, **options)
    search = {name: how[name] for name in ("length_penalty", "early_stopping") if name in how}
    found = beam_search(model, [ids], n_beams=how.get("num_beams", 1), n_return=n, **search, **options)
    return [hypothesis.ids for hypothesis in found[0]]


def check_class(arguments: argparse.Namespace, drawing: Iterable[str]) -> None:
    """Raise ValueError for options that a model which labels texts has no use for, by name."""
    idle = (*NAMES, "seed")
    unused = [
        *drawing,
        *(name for name in idle if getattr(arguments, name) is not None),
        *["stop"] * bool(arguments.stop),
    ]
    if unused:
        names = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"{arguments.model} labels a text, it writes and draws nothing: leave out {names}.")
