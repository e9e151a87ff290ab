"""Tokenizers: text to ids and back.

Read bpe.py first (what all current language models use); char.py is simpler still; wordpiece.py is BERT's, with
bert_text.py before it. base.py holds what they share: special tokens, streaming, decoding; added.py finds tokens in a
text, template.py puts them around it. Then split.py (pre-tokens), pieces.py (counted, and their ids kept), bpe_plain.py
and bpe_fast.py (the same merges step by step, and fast), show.py (watch it work), extend.py (more special tokens). The
files: byte_spelling.py (bytes as text), formats.py and gpt2_files.py (BPE), wordpiece_formats.py, json_parts.py (what
the readers share).

pipeline.py is every other tokenizer.json, part by part: unigram.py (T5, XLM-R) or bpe_characters.py (Llama 2, Gemma) as
the model, normalizers.py with unicode_forms.py and charsmap.py before it, pre_tokenizers.py with patterns.py,
decoders.py behind it, aligned.py (which character came from where), sections.py, pipeline_formats.py.

Where there is no tokenizer.json but SentencePiece's own model file (Marian, or a folder with a tokenizer.model), read
sentencepiece_tokenizer.py, with sentencepiece.py and sentencepiece_file.py below it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..disk import about, read_json
from .base import END_OF_TEXT, Tokenizer
from .bert_text import BertNormalizer
from .bpe import BPETokenizer
from .char import FORMAT, WORD_LEVEL, CharTokenizer
from .gpt2_files import load_gpt2, read_vocab_json
from .json_parts import is_kind, tokenizer_json_path
from .pipeline import PipelineTokenizer
from .pipeline_formats import is_plain_byte_level, is_plain_wordpiece, pipeline_of
from .sentencepiece_tokenizer import FILES, KIND, MODEL_FILE, SentencePieceTokenizer, read_model
from .template import Template
from .wordpiece import WordPieceTokenizer
from .wordpiece_formats import VOCAB_TXT

__all__ = [
    "END_OF_TEXT", "BPETokenizer", "BertNormalizer", "CharTokenizer", "PipelineTokenizer", "SentencePieceTokenizer",
    "Template", "Tokenizer", "WordPieceTokenizer", "load_tokenizer",
]  # fmt: skip


def load_tokenizer(
    path: str | os.PathLike[str],
) -> BPETokenizer | CharTokenizer | PipelineTokenizer | SentencePieceTokenizer | WordPieceTokenizer:
    """Read a tokenizer of any kind from a tokenizer.json, or from a folder that holds one, or GPT-2's two files, or
    BERT's vocab.txt (as an uncased one: `WordPieceTokenizer.load_vocab` can be told otherwise), or SentencePiece's
    model files (Marian's, or tokenizer.model).

    Raises FileNotFoundError if there is none, ValueError if it is of a kind that this library cannot read.
    """
    file = tokenizer_json_path(path)
    if not file.exists() and (Path(path) / "vocab.json").is_file() and (Path(path) / "merges.txt").is_file():
        specials = [END_OF_TEXT] if END_OF_TEXT in read_vocab_json(Path(path) / "vocab.json") else []
        return load_gpt2(path, special_tokens=specials)
    if not file.exists() and (Path(path) / FILES["source"]).is_file():
        return SentencePieceTokenizer.load_marian(Path(path))
    if not file.exists() and (Path(path) / MODEL_FILE).is_file():
        return SentencePieceTokenizer(read_model(Path(path) / MODEL_FILE))
    if not file.exists() and (Path(path) / VOCAB_TXT).is_file():
        return WordPieceTokenizer.load_vocab(path)
    if not file.exists() and Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a tokenizer's file: give a tokenizer.json, or a folder with one.")
    content = read_json(file)
    if isinstance(content, dict) and (content.get("format") == FORMAT or is_kind(content.get("model"), WORD_LEVEL)):
        return CharTokenizer.load(path)
    if isinstance(content, dict) and is_kind(content.get("model"), KIND):
        return SentencePieceTokenizer.from_json(content, file)
    if is_plain_wordpiece(content):
        return WordPieceTokenizer.load(path)
    if is_plain_byte_level(content):
        return BPETokenizer.load(path)
    with about(file):
        return pipeline_of(content, file)
