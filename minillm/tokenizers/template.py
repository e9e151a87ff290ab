"""What a model wants to see around a text, or between two: BERT's [CLS] A [SEP] B [SEP], Llama 3's <|begin_of_text|>.

>>> bert = Template(
...     single=(("[CLS]", 0), ("$A", 0), ("[SEP]", 0)),
...     pair=(("[CLS]", 0), ("$A", 0), ("[SEP]", 0), ("$B", 1), ("[SEP]", 1)),
...     ids={"[CLS]": (101,), "[SEP]": (102,)},
... )
>>> bert.apply([7, 8], [9])
([101, 7, 8, 102, 9, 102], [0, 0, 0, 0, 1, 1])
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from .added import AddedToken
from .json_parts import refuse, steps_of

Parts = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Template:
    """Token texts in order, with "$A" and "$B" where the two texts go, and a token type (segment) for each.

    single: for one text; pair: for two; ids: the ids of each token text that they name.
    """

    single: Parts
    pair: Parts
    ids: Mapping[str, Sequence[int]]

    def apply(self, a: Sequence[int], b: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """(ids, token type ids) of one text or of a pair. Raises ValueError if there is no place for a second text."""
        ids: list[int] = []
        types: list[int] = []
        if b is not None and ("$B" not in [text for text, _ in self.pair]):
            raise ValueError("this tokenizer's template has no place for a second text.")
        for text, type_id in self.single if b is None else self.pair:
            part = a if text == "$A" else b if text == "$B" and b is not None else self.ids[text]
            ids += part
            types += [type_id] * len(part)
        return ids, types

    def to_json(self) -> dict[str, Any]:
        """The template as `post_processor` of tokenizer.json."""
        single, pair = [part_to_json(part) for part in self.single], [part_to_json(part) for part in self.pair]
        named = {text: {"id": text, "ids": list(ids), "tokens": [text]} for text, ids in sorted(self.ids.items())}
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}


PLAIN = Template(single=(("$A", 0),), pair=(("$A", 0), ("$B", 1)), ids={})


class Framed(Protocol):
    """What every tokenizer.json holds of its tokenizer, whatever the kind."""

    added_tokens: list[AddedToken]
    template: Template


def framed(tokenizer: Framed, normalizer: Any, pre_tokenizer: Any, decoder: Any, model: Any) -> dict[str, Any]:
    """The contents of tokenizer.json: what only one kind of tokenizer has, and around it what all have."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [token.to_json() for token in sorted(tokenizer.added_tokens, key=attrgetter("id"))],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None if tokenizer.template == PLAIN else tokenizer.template.to_json(),
        "decoder": decoder,
        "model": model,
    }


def bert_template(cls_token: str, cls_id: int, sep_token: str, sep_id: int) -> Template:
    """[CLS] A [SEP], and [CLS] A [SEP] B [SEP] with token types 0 and 1 (Devlin et al. 2019, section 3)."""
    single = ((cls_token, 0), ("$A", 0), (sep_token, 0))
    return Template(single, (*single, ("$B", 1), (sep_token, 1)), {cls_token: (cls_id,), sep_token: (sep_id,)})


def read_template(post_processor: Any, known_ids: Collection[int], path: Path) -> Template:
    """The template that a file's post_processor stands for; `PLAIN` if it adds no token.

    Raises ValueError that names the post_processor if it is of another kind, or puts in an id that is not known.
    """
    template = template_of(post_processor, path)
    for token_id in (token_id for ids in template.ids.values() for token_id in ids):
        if token_id not in known_ids:
            raise ValueError(f"{path}: the post_processor puts in the id {token_id}, which no token has.")
    return template


def template_of(post_processor: Any, path: Path) -> Template:
    steps = steps_of(post_processor or None, "processors", path, "post_processor")
    found = [step for step in steps if step["type"] != "ByteLevel"]  # that one only moves offsets
    kind = " + ".join(step["type"] for step in steps)
    if len(found) > 1:
        raise ValueError(f"{path}: the post_processor is {kind}; more than one that adds tokens is not supported.")
    if not found:
        return PLAIN
    step = found[0]
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        (cls, cls_id), (sep, sep_id) = named_id(step, "cls", path), named_id(step, "sep", path)
        if step["type"] == "BertProcessing":
            return bert_template(cls, cls_id, sep, sep_id)
        one = ((cls, 0), ("$A", 0), (sep, 0))  # RoBERTa: two ends of text between the two, and one type only
        return Template(one, (*one, (sep, 0), ("$B", 0), (sep, 0)), {cls: (cls_id,), sep: (sep_id,)})
    if step["type"] != "TemplateProcessing":
        known = "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel can be read"
        raise refuse(path, "the post_processor", {"type": kind}, known)
    ids = ids_from_json(step.get("special_tokens") or {}, path)
    single, pair = parts_from_json(step, "single", path), parts_from_json(step, "pair", path)
    if unknown := [text for text, _ in single + pair if text not in ids and text not in ("$A", "$B")]:
        raise ValueError(f"{path}: the post_processor names {unknown[0]!r} but gives no ids for it.")
    if "$B" in [text for text, _ in single]:
        raise ValueError(f"{path}: the post_processor puts a second text, B, into 'single', which has one: A.")
    return PLAIN if (single, pair or PLAIN.pair) == (PLAIN.single, PLAIN.pair) else Template(single, pair, ids)


def named_id(step: Mapping[str, Any], name: str, path: Path) -> tuple[str, int]:
    """The [text, id] that BertProcessing holds for "cls" and "sep"."""
    value = step.get(name)
    if not isinstance(value, list) or [type(item) for item in value] != [str, int]:
        raise ValueError(f"{path}: the post_processor {step['type']} needs {name!r}: [text, id], but it is {value!r}.")
    return value[0], value[1]


def ids_from_json(entries: Any, path: Path) -> dict[str, tuple[int, ...]]:
    """token text -> its ids, from `special_tokens` of a TemplateProcessing."""
    ids = {}
    for text, entry in entries.items() if isinstance(entries, dict) else [("special_tokens", entries)]:
        values = entry.get("ids") if isinstance(entry, dict) else None
        if not isinstance(values, list) or not all(type(token_id) is int for token_id in values):
            raise ValueError(f"{path}: post_processor.special_tokens must hold lists 'ids', but {text!r} has none.")
        ids[text] = tuple(values)
    return ids


def part_to_json(part: tuple[str, int]) -> dict[str, Any]:
    text, type_id = part
    if text in ("$A", "$B"):
        return {"Sequence": {"id": text[1], "type_id": type_id}}
    return {"SpecialToken": {"id": text, "type_id": type_id}}


def parts_from_json(step: Mapping[str, Any], name: str, path: Path) -> Parts:
    """`single` or `pair` of a TemplateProcessing."""
    found = []
    parts = step.get(name) or []
    for part in parts if isinstance(parts, list) else [parts]:
        entry = next(iter(part.values())) if isinstance(part, dict) and len(part) == 1 else None
        text = entry.get("id") if isinstance(entry, dict) else None
        type_id = entry.get("type_id", 0) if isinstance(entry, dict) else None
        if not isinstance(text, str) or type(type_id) is not int:
            example = '{"Sequence": {"id": "A", "type_id": 0}}'
            raise ValueError(f"{path}: the post_processor's {name!r} must list objects like {example}, not {part!r}.")
        found.append((("$" if "Sequence" in part else "") + text, type_id))
    return tuple(found)
