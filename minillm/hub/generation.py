"""The settings of transformers' `generate` and of generation_config.json: what is followed here, and what is refused.

`GenerationSettings` (configs.py) names those that are followed. REFUSED are those that would change the text, with the
values that change nothing; IDLE say how it is computed, or mean something to others only. An entry of a file that is
none of these is no setting of transformers', which passes over it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..beam import beam_search
from ..disk import check_values
from ..generate import Sampling, generate
from ..models.encoder_decoder import Decoder
from .architecture import Values
from .configs import GenerationSettings
from .rules import Rules, StopTexts

FOLLOWED = {field.name for field in fields(GenerationSettings)}

DRAWING = {  # refused only where something is drawn: else it means nothing
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
REFUSED: dict[str, tuple[Any, ...]] = {  # name -> values that change nothing; None never does
    "assistant_early_exit": (),
    "assistant_model": (),
    "constraints": (),
    "custom_generate": (),
    "decoder_attention_mask": (),
    "decoder_input_ids": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_outputs": (),
    "encoder_repetition_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_decoder_ids": ([],),
    "guidance_scale": (1.0,),
    "inputs_embeds": (),
    "is_assistant": (False,),
    "logits_processor": ([],),
    "low_memory": (False,),
    "max_time": (),
    "negative_prompt_ids": (),
    "negative_prompt_attention_mask": (),
    "num_beam_groups": (0, 1),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "output_logits": (False,),
    "output_scores": (False,),
    "past_key_values": (),
    "penalty_alpha": (0.0,),
    "position_ids": (),
    "prefix_allowed_tokens_fn": (),
    "prompt_lookup_num_tokens": (0,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "return_dict_in_generate": (False,),
    "sequence_bias": (),
    "speculation_type": (),
    "stopping_criteria": ([],),
    "streamer": (),
    "synced_gpus": (False,),
    "token_healing": (False,),
    "trust_remote_code": (False,),
    "use_mtp": (False,),
    "use_model_defaults": (),
    "watermarking_config": (),
}
IDLE = {
    "_commit_hash", "_from_model_config", "assistant_confidence_threshold", "assistant_ensemble_weight",
    "assistant_lookbehind", "assistant_tokenizer", "bos_token_id", "cache_config", "cache_implementation",
    "compile_config", "continuous_batching_config", "disable_compile", "inputs", "max_cache_len",
    "max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "prefill_chunk_size",
    "target_lookbehind", "token_type_ids", "transformers_version",
}  # fmt: skip


def settings_of(file: Values | None, config: Values, given: Mapping[str, Any], chosen: Any = None) -> Values:
    """The settings that hold, by name: those given, else those `chosen` (a dict, or an object of transformers with
    `to_dict`), else generation_config.json's, `file`, else config.json's, of which only the ids matter where there is a
    file. Raises TypeError for an unknown name among the given ones, ValueError for a value of a wrong type or one that
    is refused.
    """
    given = {name: plain(value) for name, value in given.items() if value is not None}
    if unknown := sorted(given.keys() - FOLLOWED - DRAWING.keys() - REFUSED.keys() - IDLE):
        name = unknown[0]
        raise TypeError(f"generate: {name} = {given[name]!r:.60} is no setting of generate, here or in transformers.")
    chosen = chosen.to_dict() if hasattr(chosen, "to_dict") else chosen or {}
    ids = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
    named = FOLLOWED | DRAWING.keys() | REFUSED.keys()
    below = {name: value for name, value in config.items() if name in (named if file is None else ids)}
    below = {name: value for name, value in below.items() if not name.startswith("output_")}  # of the model's call
    in_files = {name: value for name, value in {**below, **(file or {})}.items() if value is not None}
    in_files |= {name: value for name, value in chosen.items() if value is not None}
    for name, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if name in given:
            in_files.pop(other, None)
    values = {**in_files, **given}
    check_values(GenerationSettings, values)
    refuse(values, {name: "an argument" for name in given})
    return {name: value for name, value in values.items() if name in FOLLOWED and value is not None}


def refuse(values: Values, source: Mapping[str, str]) -> None:
    """Raise ValueError for a setting that would change the text and is not followed here."""
    drawn = bool(values.get("do_sample"))
    for name, idle in {**(DRAWING if drawn else {}), **REFUSED}.items():
        value = values.get(name)
        if value is None or any(value is same or (type(value) is not bool and value == same) for same in idle):
            continue
        if name == "penalty_alpha" and (drawn or values.get("top_k", 50) in (0, 1)):
            continue  # contrastive search asks for a top_k, and draws nothing
        place = source.get(name, "an entry of generation_config.json or config.json")
        raise ValueError(
            f"generate: {name} = {value!r:.60} ({place}) is not done here, and leaving it out would change the text. "
            f"To go on without, {'leave it out' if name in source else 'remove it there'}."
        )


def plain(value: Any) -> Any:
    """A number of NumPy's or torch's as Python's, an array, a tuple or a range as a list; the rest as it is."""
    if isinstance(value, (tuple, range, set, frozenset)):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def stop_ids_in(how: Values) -> list[int]:
    stops = how.get("eos_token_id", [])
    return [stops] if isinstance(stops, int) else list(stops)


def sampling_in(how: Values) -> dict[str, Any]:
    """The fields of `Sampling` by which an id is drawn; of a greedy choice, a temperature of 0."""
    if not how.get("do_sample", False):
        return {"temperature": 0.0}
    return {
        "temperature": how.get("temperature", 1.0),
        "top_k": how.get("top_k", 50) or None,
        "top_p": how.get("top_p"),
        "min_p": how.get("min_p"),
    }


def drawing_in(how: Values) -> dict[str, Any]:
    """The fields of `Sampling` that the settings name, for those who draw unless `do_sample` is false."""
    named = [field.name for field in fields(Sampling) if field.name in how]
    drawing = {**{name: how[name] for name in named}, **(sampling_in(how) if "do_sample" in how else {})}
    return {**drawing, **({"top_k": drawing["top_k"] or None} if "top_k" in drawing else {})}


def rules_in(how: Values, stop_ids: Sequence[int], max_new_tokens: int, longest: int) -> Rules | None:
    """The rules among the settings, None if there are none; `longest`: ids of the longest prompt, which `min_length`
    counts in."""
    own = {field.name: how[field.name] for field in fields(Rules) if field.name in how} | {"stop_ids": stop_ids}
    own["min_new_tokens"] = how.get("min_new_tokens", max(how.get("min_length", 0) - longest, 0))
    rules = Rules(**{**own, "max_new_tokens": max_new_tokens})
    return rules or None


def stop_texts_in(how: Values) -> list[str]:
    texts = how.get("stop_strings", [])
    return [texts] if isinstance(texts, str) else list(texts)


def n_new_tokens(how: Values, longest: int) -> int:
    """How many new ids there may be: `max_new_tokens` before `max_length`, which counts the longest prompt in."""
    if "max_new_tokens" in how:
        return how["max_new_tokens"]
    if "max_length" not in how:
        return 20
    if how["max_length"] <= longest:
        raise ValueError(f"max_length = {how['max_length']} counts the prompt in, and the longest has {longest} ids.")
    return how["max_length"] - longest


def new_ids(
    model: Any, rows: list[list[int]], how: Values, seed: int | None, tokenizer: Any = None
) -> list[list[list[int]]]:
    """For each prompt its `num_return_sequences` continuations, with the id that ended them."""
    longest = max((len(row) for row in rows), default=0)
    stop_ids, n_return = stop_ids_in(how), how.get("num_return_sequences", 1)
    options: dict[str, Any] = {"stop_ids": stop_ids, "keep_stop_id": True, "use_cache": how.get("use_cache", True)}
    options["max_new_tokens"] = n_new_tokens(how, longest)
    options["rules"] = rules_in(how, stop_ids, options["max_new_tokens"], longest)
    if texts := stop_texts_in(how):
        if tokenizer is None:
            raise ValueError(f"generate: stop_strings = {texts} need the tokenizer, as tokenizer=tokenizer.")
        options["ends"] = StopTexts(getattr(tokenizer, "core", tokenizer), texts)
    if (n_beams := how.get("num_beams", 1)) != 1:
        if how.get("do_sample", False):
            raise ValueError(
                f"generate: with num_beams = {n_beams}, do_sample must be False: beams draw nothing here. What is not "
                "given comes from generation_config.json."
            )
        search = {name: how[name] for name in ("length_penalty", "early_stopping") if name in how}
        found = beam_search(model, rows, n_beams=n_beams, n_return=n_return, **search, **options)
        return [[new.ids for new in best] for best in found]
    if n_return < 1:
        raise ValueError(f"generate: num_return_sequences = {n_return} must be at least 1.")
    if n_return > 1 and not how.get("do_sample", False):
        raise ValueError(f"generate: num_return_sequences = {n_return} needs do_sample, or num_beams of as many.")
    order = [row for row in range(len(rows)) for _ in range(n_return)]
    if n_return > 1 and isinstance(model, Decoder):
        model = model.select(order)
    sampling = Sampling(**sampling_in(how))
    new = generate(model, [rows[row] for row in order], sampling=sampling, seed=seed, **options)
    return [new[start : start + n_return] for start in range(0, len(new), n_return)]


def in_one_block(prompts: list[list[int]], new: list[list[int]], how: Values) -> np.ndarray:
    """Prompts and what continues them as one array (B, T): shorter prompts are padded on the left, shorter
    continuations on the right, with `pad_token_id`, or else with the first end-of-text id."""
    left, right = max(map(len, prompts), default=0), max(map(len, new), default=0)
    pad = how.get("pad_token_id", next(iter(stop_ids_in(how)), None))
    if pad is None and any(len(p) < left or len(n) < right for p, n in zip(prompts, new)):
        raise ValueError("generate: rows of different lengths need a pad_token_id, to come back as one array.")
    block = np.full((len(prompts), left + right), 0 if pad is None else pad, dtype=np.int64)
    for row, (prompt, continuation) in enumerate(zip(prompts, new)):
        block[row, left - len(prompt) : left] = prompt
        block[row, left : left + len(continuation)] = continuation
    return block
