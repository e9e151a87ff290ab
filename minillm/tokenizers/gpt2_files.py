"""BPE the way GPT-2 and tiktoken keep it: vocab.json and merges.txt, and a dict of mergeable ranks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..disk import about, read_json, write_json, write_text
from .base import END_OF_TEXT
from .bpe import BPETokenizer
from .checks import check_special_tokens
from .formats import spelled_merges, tokens_and_merges, vocabulary_of


def save_gpt2(tokenizer: BPETokenizer, folder: str | os.PathLike[str]) -> None:
    """Write vocab.json (token -> id) and merges.txt (a version line, then "left right" in order).

    They don't name the pattern, so it must be "gpt2": ValueError if it is another.
    """
    if tokenizer.pattern != "gpt2":
        raise ValueError(
            "vocab.json and merges.txt do not say how text is split, and their readers use GPT-2's pattern, so it must "
            f"be 'gpt2', not {tokenizer.pattern!r}. Use save(), which writes tokenizer.json, or train with 'gpt2'."
        )
    lines = [f"{left} {right}\n" for left, right in spelled_merges(tokenizer)]
    write_json(Path(folder) / "vocab.json", vocabulary_of(tokenizer))
    write_text(Path(folder) / "merges.txt", "#version: 0.2\n" + "".join(lines))


def load_gpt2(folder: str | os.PathLike[str], *, special_tokens: Iterable[str] = (END_OF_TEXT,)) -> BPETokenizer:
    """Read GPT-2's vocab.json and merges.txt. special_tokens: which of the vocabulary's entries are special."""
    path = Path(folder) / "vocab.json"
    vocab = read_vocab_json(path)
    special_tokens = check_special_tokens(special_tokens)
    if missing := [token for token in special_tokens if token not in vocab]:
        raise ValueError(
            f"{path} does not hold the special token {missing[0]!r}: pass special_tokens= with those it holds, or ()."
        )
    merges_path = Path(folder) / "merges.txt"
    with about(merges_path):
        lines = merges_path.read_text(encoding="utf-8").split("\n")
    pairs = [line.rstrip("\r") for line in lines[lines[0].startswith("#version") :]]
    merges = [tuple(pair.split(" ")) for pair in pairs if pair]
    specials = {token: vocab[token] for token in special_tokens}
    with about(path):
        parts = tokens_and_merges(vocab, merges, specials, merges_path)
    with about(path):
        return BPETokenizer(**parts, pattern="gpt2", special_tokens=specials)


def read_vocab_json(path: Path) -> dict[str, Any]:
    """token -> id. Raises ValueError for what is no object; the ids are checked with the merges."""
    vocab = read_json(path)
    if not isinstance(vocab, dict):
        raise ValueError(f"{path} must hold an object of token -> id.")
    return vocab


def mergeable_ranks(tokenizer: BPETokenizer) -> dict[bytes, int]:
    """token -> id without the special tokens: what `tiktoken.Encoding(mergeable_ranks=)` takes.

    Raises ValueError for a tokenizer from a file whose ids are not in the order of the merges, as tiktoken needs.
    """
    if tokenizer.merged != sorted(tokenizer.merged):
        raise ValueError("tiktoken merges in the order of the ids, but this tokenizer's ids are in another order.")
    return dict(tokenizer.id_of_token)
