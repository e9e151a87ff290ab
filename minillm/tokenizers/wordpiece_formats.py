"""Files of WordPiece tokenizers: `tokenizer.json` of the Hugging Face `tokenizers` library, and BERT's vocab.txt."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..disk import about, check_fields, read_json, write_text
from .bert_text import UNCASED, BertNormalizer
from .json_parts import check_ids, is_kind, read_added_tokens, refuse, tokenizer_json_path
from .template import read_template

VOCAB_TXT = "vocab.txt"


def read_tokenizer_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `WordPieceTokenizer` from a tokenizer.json.

    Raises ValueError that names the part, if anything in the file would give text other ids than ours.
    """
    path = tokenizer_json_path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not is_kind(content.get("model"), "WordPiece"):
        raise ValueError(f"{path} is no tokenizer.json of a WordPiece model.")
    model, normalizer, decoder = content["model"], content.get("normalizer"), content.get("decoder")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        raise ValueError(f"{path}: the model has no 'vocab'.")
    if not is_kind(normalizer, "BertNormalizer"):
        raise refuse(path, "normalizer", normalizer, "WordPiece with BertNormalizer can be read")
    if not is_kind(content.get("pre_tokenizer"), "BertPreTokenizer"):
        raise refuse(path, "pre_tokenizer", content.get("pre_tokenizer"), "WordPiece with BertPreTokenizer can be read")
    if not is_kind(decoder, "WordPiece"):
        raise refuse(path, "decoder", decoder, "WordPiece with a decoder of the same name can be read")
    prefix = model.get("continuing_subword_prefix", "##")
    if decoder.get("prefix", "##") != prefix:
        raise refuse(path, "decoder.prefix", decoder["prefix"], f"one that is the model's, {prefix!r}, can be read")
    added = read_added_tokens(content, path)
    ids = {**vocab, **{token.text: token.id for token in added}}
    check_ids(ids, path)
    made = BertNormalizer(**{name: normalizer[name] for name in asdict(UNCASED) if name in normalizer})
    check_fields(made)
    unk_token, max_word_chars = model.get("unk_token", "[UNK]"), model.get("max_input_chars_per_word", 100)
    if not isinstance(unk_token, str) or not isinstance(prefix, str) or type(max_word_chars) is not int:
        raise ValueError(
            f"{path}: the model's unk_token {unk_token!r:.50} and continuing_subword_prefix {prefix!r:.50} must be "
            f"texts, max_input_chars_per_word {max_word_chars!r:.50} a whole number."
        )
    return {
        "vocab": vocab,
        "special_tokens": {},
        "added_tokens": added,
        "normalizer": made,
        "unk_token": unk_token,
        "prefix": prefix,
        "max_word_chars": max_word_chars,
        "cleanup": decoder.get("cleanup", True),
        "template": read_template(content.get("post_processor"), set(ids.values()), path),
    }


# ---- vocab.txt


def save_vocab_txt(tokens: Iterable[bytes | None], folder: str | os.PathLike[str]) -> None:
    """Write vocab.txt: line n is the token of id n. Raises ValueError if an id has no token or a token a line end."""
    lines = []
    for token_id, token in enumerate(tokens):
        if token is None or b"\n" in token:
            raise ValueError(f"id {token_id} is {token!r}, which vocab.txt cannot hold; use save(): tokenizer.json.")
        lines.append(token.decode() + "\n")
    write_text(Path(folder) / VOCAB_TXT, "".join(lines))


def vocab_txt_path(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: itself if its name ends in .txt, otherwise vocab.txt in that folder."""
    path = Path(path)
    return path if path.suffix == ".txt" else path / VOCAB_TXT


def read_vocab_txt(path: str | os.PathLike[str]) -> dict[str, int]:
    """token -> id from vocab.txt, or from the folder that holds it. Of equal lines the last counts."""
    path = vocab_txt_path(path)
    with about(path):
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return {line.rstrip("\r"): token_id for token_id, line in enumerate(lines)}
