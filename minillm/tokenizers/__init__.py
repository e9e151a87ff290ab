"""Tokenizers: text to ids and back.

Read bpe.py first (what all current language models use); char.py is simpler still. base.py holds what they share:
special tokens, streaming, decoding. Then split.py (pre-tokens), bpe_fast.py (the same merges, faster), show.py (watch
it work), formats.py (tokenizer.json and GPT-2's files) and files.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from .base import END_OF_TEXT, Tokenizer
from .bpe import BPETokenizer
from .char import FORMAT, CharTokenizer
from .files import read_json, tokenizer_json_path

__all__ = ["END_OF_TEXT", "BPETokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(path: str | os.PathLike[str]) -> BPETokenizer | CharTokenizer:
    """Read a tokenizer of any kind from a tokenizer.json, or from a folder that holds one (or GPT-2's two files).

    Raises FileNotFoundError if there is none, ValueError if it is of a kind that this library cannot read.
    """
    file = tokenizer_json_path(path)
    if not file.exists() and (Path(path) / "vocab.json").is_file() and (Path(path) / "merges.txt").is_file():
        specials = [END_OF_TEXT] if END_OF_TEXT in read_json(Path(path) / "vocab.json") else []
        return BPETokenizer.load_gpt2(path, special_tokens=specials)
    content = read_json(file)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return CharTokenizer.load(path)
    return BPETokenizer.load(path)
