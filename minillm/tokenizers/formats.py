"""BPE tokenizers as `tokenizer.json` of the Hugging Face `tokenizers` library, and the checks of every file.

Tokens are written in GPT-2's alphabet (byte_spelling.py). gpt2_files.py has the other format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

from ..disk import read_json
from .byte_spelling import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE, spell, unspell
from .json_parts import check_ids, is_kind, read_added_tokens, refuse, steps_of, tokenizer_json_path
from .split import UNICODE_PATTERNS
from .template import Framed, framed, read_template


class BPEParts(Framed, Protocol):
    """What the files hold of a `BPETokenizer`, which says what each part is."""

    tokens: list[bytes | None]
    id_of_token: dict[bytes, int]
    merges: list[tuple[int, int]]
    pattern: str
    whole_pieces: bool
    nfc: bool


# Only the exact patterns are known. tiktoken's newer spelling of gpt4 differs in white space at the end of a text
# (see split.py), and to be almost right would be worse than to refuse.
_PATTERN_NAMES = {pattern: name for name, pattern in UNICODE_PATTERNS.items()}


# ---- tokenizer.json


def tokenizer_json(tokenizer: BPEParts) -> dict[str, Any]:
    """The contents of tokenizer.json, by which the `tokenizers` library gives the same ids."""
    if tokenizer.pattern == "gpt2":
        pre_tokenizer = byte_level(use_regex=True)  # it has GPT-2's pattern built in
    else:
        regex = {"Regex": UNICODE_PATTERNS[tokenizer.pattern]}
        split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level(use_regex=False)]}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": tokenizer.whole_pieces,
        "vocab": vocabulary_of(tokenizer),
        "merges": spelled_merges(tokenizer),
    }
    normalizer = {"type": "NFC"} if tokenizer.nfc else None
    return framed(tokenizer, normalizer, pre_tokenizer, byte_level(use_regex=True), model)


def read_tokenizer_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `BPETokenizer` from a tokenizer.json.

    Raises ValueError that names the part, if anything in the file would give text other ids than ours.
    """
    path = tokenizer_json_path(path)
    content = read_json(path)
    model = model_of(content, path)
    pattern = pattern_of(content.get("pre_tokenizer"), path)  # before the vocabulary, which follows from it
    check_settings(content, path)
    added_tokens = read_added_tokens(content, path)
    added = {token.text: token.id for token in added_tokens}
    merges = [merge_of(merge, number, path) for number, merge in enumerate(model["merges"])]
    return {
        **tokens_and_merges(model["vocab"], merges, added, path),
        "pattern": pattern,
        "special_tokens": {},
        "added_tokens": added_tokens,
        "template": read_template(content.get("post_processor"), {*model["vocab"].values(), *added.values()}, path),
        "whole_pieces": bool(model.get("ignore_merges")),
        "nfc": is_nfc(content.get("normalizer"), path),
    }


def model_of(content: Any, path: Path) -> dict[str, Any]:
    """The part `model`, if it is BPE's."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path} is no tokenizer.json: it has no 'model'.")
    model = content["model"]
    kind = model.get("type", "BPE")  # files before 2021 leave it out
    if kind != "BPE":
        raise ValueError(
            f"{path}: the model is {kind}, but BPETokenizer reads byte-level BPE: load_tokenizer reads more."
        )
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise ValueError(f"{path}: the model has no 'vocab' and 'merges'.")
    return model


def merge_of(merge: Any, number: int, path: Path) -> tuple[str, ...]:
    """A merge, a pair of tokens or a text with a space between them."""
    if isinstance(merge, str):
        return tuple(merge.split(" "))
    if not isinstance(merge, list) or not all(isinstance(token, str) for token in merge):
        raise ValueError(f"{path}: model.merges: merge {number} must be two tokens' texts, not {merge!r}.")
    return tuple(merge)


def check_settings(content: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for settings that would change ids or text."""
    model = content["model"]
    decoder = content.get("decoder")
    changing = {
        "decoder": None if is_kind(decoder, "ByteLevel") else decoder,  # that is how we decode
        "model.dropout": model.get("dropout"),
        "model.continuing_subword_prefix": model.get("continuing_subword_prefix"),
        "model.end_of_word_suffix": model.get("end_of_word_suffix"),
        "model.byte_fallback": model.get("byte_fallback"),
    }
    for part, value in changing.items():
        if value:
            raise refuse(path, part, value, f"byte-level BPE without a {part.rpartition('.')[2]} can be read")


def is_nfc(normalizer: Any, path: Path) -> bool:
    """Whether a file's normalizer is NFC; ValueError if it is anything else but none."""
    steps = steps_of(normalizer, "normalizers", path, "normalizer")
    if unknown := [step for step in steps if not is_kind(step, "NFC")]:
        raise refuse(path, "normalizer", unknown[0], "byte-level BPE with the normalizer NFC, or none, can be read")
    return bool(steps)


def pattern_of(pre_tokenizer: Any, path: Path) -> str:
    """The name of the split pattern that a file's pre_tokenizer stands for."""
    steps = steps_of(pre_tokenizer, "pretokenizers", path, "pre_tokenizer")
    shown = " + ".join(step["type"] for step in steps) or "none"
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise ValueError(f"{path}: the pre_tokenizer is {shown}, but only BPE that ends in ByteLevel is supported.")
    if steps[-1].get("add_prefix_space"):
        raise ValueError(f"{path}: the pre_tokenizer has add_prefix_space=true, which is not supported.")
    use_regex = steps[-1].get("use_regex", True)
    if len(steps) == 1 and use_regex:
        return "gpt2"
    if len(steps) == 2 and is_kind(steps[0], "Split") and not use_regex:
        split = steps[0]
        if not isinstance(split.get("pattern"), dict) or not isinstance(split.get("behavior"), str):
            raise ValueError(f"{path}: the pre_tokenizer's Split has no 'pattern' object or no 'behavior': {split}.")
        regex_text = split["pattern"].get("Regex")
        # The patterns match every character, so it is the same to keep what matches or to throw away what does not.
        keeps_all = split["behavior"] == "Isolated" or (split["behavior"] == "Removed" and split.get("invert"))
        if regex_text in _PATTERN_NAMES and keeps_all:
            return _PATTERN_NAMES[regex_text]
        raise ValueError(
            f"{path}: the pre_tokenizer splits by {split['pattern']} ({split['behavior']}), which is not supported. "
            f"Known patterns: {UNICODE_PATTERNS}."
        )
    raise ValueError(f"{path}: the pre_tokenizer is {shown} with use_regex={use_regex}, which is not supported.")


# ---- shared by the two formats


def check_special_spellings(tokenizer: BPEParts) -> None:
    """Raise ValueError if a special token is written like an ordinary one: in a file the two would be one."""
    for added in tokenizer.added_tokens:
        special = added.text
        try:
            clash = tokenizer.id_of_token.get(unspell(special))
        except KeyError:
            continue  # has a character that no ordinary token is written with
        if clash is not None and clash != added.id:
            raise ValueError(
                f"the special token {special!r} is written like the ordinary token {clash}, "
                f"{tokenizer.tokens[clash]!r}; choose a text that is no word, such as '<|{special}|>'."
            )


def vocabulary_of(tokenizer: BPEParts) -> dict[str, int]:
    ordinary = {spell(token): token_id for token, token_id in tokenizer.id_of_token.items()}
    added = {token.text: token.id for token in tokenizer.added_tokens}
    return dict(sorted({**ordinary, **added}.items(), key=itemgetter(1)))


def tokens_and_merges(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, ...]], added: Mapping[str, int], path: Path
) -> dict[str, Any]:
    """tokens (id -> bytes) and merges (pairs of ids) from their spellings, with everything checked that must hold."""
    ids = {**vocab, **added}
    if moved := [token for token, token_id in added.items() if vocab.get(token, token_id) != token_id]:
        both = f"{ids[moved[0]]}, but {vocab[moved[0]]} in the model"
        raise ValueError(f"{path}: the added token {moved[0]!r} has id {both}.")
    check_ids(ids, path)
    made = {left + right for left, right in (merge for merge in merges if len(merge) == 2)} | set(BYTE_OF_CHARACTER)
    ordinary = {
        token: token_id
        for token, token_id in vocab.items()
        if token not in added or (token.isascii() and token in made)  # an added token may be an ordinary one as well
    }
    tokens: list[bytes | None] = [None] * (max(ids.values(), default=-1) + 1)
    for token, token_id in ids.items():
        try:
            tokens[token_id] = token.encode() if token in added else unspell(token)
        except KeyError as character:
            raise ValueError(
                f"{path}: the token {token!r} holds {character}, which is not in GPT-2's byte alphabet: this is not a "
                f"byte-level vocabulary, or {token!r} is a special token that the file does not declare."
            ) from None
    if absent := [byte for byte, character in CHARACTER_OF_BYTE.items() if character not in ordinary]:
        raise ValueError(
            f"{path}: {len(absent)} of the 256 single bytes have no token, among them {absent[0]:#04x}, so some text "
            f"could not be encoded. Train byte-level BPE with all bytes in its initial alphabet."
        )
    pairs = []
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            raise ValueError(f"{path}: merge {number} must be two tokens, not {merge!r}.")
        left, right = merge
        if absent_tokens := [token for token in (left, right, left + right) if token not in ordinary]:
            raise ValueError(
                f"{path}: merge {number} is {left!r} + {right!r}, but {absent_tokens[0]!r} is not in the vocabulary, "
                f"or is a special token there."
            )
        pairs.append((ordinary[left], ordinary[right]))
    return {"tokens": tokens, "merges": pairs}


def spelled_merges(tokenizer: BPEParts) -> list[list[str]]:
    """The merges in GPT-2's alphabet, in order."""
    spelled = [None if token is None else spell(token) for token in tokenizer.tokens]
    return [[spelled[left] or "", spelled[right] or ""] for left, right in tokenizer.merges]


def byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
