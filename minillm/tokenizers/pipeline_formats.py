"""From a tokenizer.json to its parts: which model, and that nothing in the file is passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bpe_characters import CharacterBPE
from .byte_spelling import BYTE_OF_CHARACTER
from .decoders import read_decoder
from .formats import UNICODE_PATTERNS, merge_of
from .json_parts import check_ids, is_kind, read_added_tokens, refuse, short, steps_of
from .normalizers import read_normalizer
from .pipeline import Model, Parts, PipelineTokenizer
from .pre_tokenizers import read_pre_tokenizer
from .template import read_template
from .unigram import Unigram


def pipeline_of(content: Any, path: Path) -> PipelineTokenizer:
    """The tokenizer that the contents of a tokenizer.json describe; `path` is where they lie.

    Raises ValueError that names the part that is not known or not made as it must be.
    """
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path} is no tokenizer.json: it has no 'model'.")
    normalizer = read_normalizer(content.get("normalizer"), path)
    pre_tokenizer = read_pre_tokenizer(content.get("pre_tokenizer"), path)
    decoder = read_decoder(content.get("decoder"), path)
    model = model_of(content["model"], path)
    added = read_added_tokens(content, path)
    ids = {**model.vocab, **{token.text: token.id for token in added}}
    check_ids(ids, path)
    for token in added:
        if model.vocab.get(token.text, token.id) != token.id:
            both = f"{token.id}, but {model.vocab[token.text]} in the model"
            raise ValueError(f"{path}: the added token {token.text!r} has id {both}.")
    template = read_template(content.get("post_processor"), set(ids.values()), path)
    trim = trim_of(content.get("post_processor"), path)
    parts = Parts(normalizer, pre_tokenizer, model, decoder, content, trim)
    return PipelineTokenizer(parts, added_tokens=added, template=template)


def model_of(model: Mapping[str, Any], path: Path) -> Model:
    """The model by its type; files before 2021 leave it out for BPE."""
    kind = model.get("type", "BPE")
    if kind == "BPE":
        return bpe_of(model, path)
    if kind == "Unigram":
        return unigram_of(model, path)
    if kind == "WordPiece":
        return wordpiece_of(model, path)
    raise ValueError(f"{path}: the model is {short(kind)}, but only BPE, Unigram and WordPiece can be read.")


def bpe_of(model: Mapping[str, Any], path: Path) -> CharacterBPE:
    """BPE over characters, or over bytes written as characters."""
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise ValueError(f"{path}: the model has no 'vocab' and 'merges'.")
    check_ids(vocab, path)
    if model.get("dropout"):
        advice = "it leaves out merges at random, which is for training only"
        raise refuse(path, "model.dropout", model["dropout"], advice)
    texts = {name: model.get(name) or "" for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{path}: model.{name} must be a text, not {short(text)}.")
    unk_token, prefix, suffix = texts.values()
    if unk_token and unk_token not in vocab:
        raise ValueError(f"{path}: model.unk_token is {unk_token!r}, which is not in the vocabulary.")
    pairs = []
    for number, merge in enumerate(merges):
        parts = merge_of(merge, number, path)
        if len(parts) != 2:
            raise ValueError(f"{path}: merge {number} must be two tokens, not {merge!r}.")
        left, right = parts
        if absent := [token for token in (left, right, left + right.removeprefix(prefix)) if token not in vocab]:
            raise ValueError(
                f"{path}: merge {number} is {left!r} + {right!r}, but {absent[0]!r} is not in the vocabulary."
            )
        pairs.append((left, right))
    flags = {"fuse_unk": "fuse_unk", "byte_fallback": "byte_fallback", "whole_pieces": "ignore_merges"}
    options = {ours: bool(model.get(theirs)) for ours, theirs in flags.items()}
    return CharacterBPE(vocab, pairs, unk_token or None, prefix=prefix, suffix=suffix, **options)


def unigram_of(model: Mapping[str, Any], path: Path) -> Unigram:
    """Tokens with scores."""
    vocab, unk_id = model.get("vocab"), model.get("unk_id")
    if not isinstance(vocab, list) or not vocab:
        raise ValueError(f"{path}: the model has no 'vocab'.")
    pairs = []
    for token_id, entry in enumerate(vocab):
        is_pair = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        if not is_pair or type(entry[1]) not in (int, float) or not math.isfinite(entry[1]):
            raise ValueError(f"{path}: model.vocab must list [token, score], but entry {token_id} is {short(entry)}.")
        pairs.append((entry[0], float(entry[1])))
    if unk_id is not None and (type(unk_id) is not int or not 0 <= unk_id < len(pairs)):
        raise ValueError(f"{path}: model.unk_id must be one of the {len(pairs)} ids, not {short(unk_id)}.")
    return Unigram(pairs, unk_id, bool(model.get("byte_fallback")))


@dataclass(frozen=True)
class WordPiece:
    """The model of wordpiece.py, with the bytes that each token covers."""

    vocab: Mapping[str, int]
    unk_token: str
    prefix: str
    max_word_chars: int

    def tokenize(self, piece: str) -> list[tuple[int, int, int]]:
        """The longest piece that fits, again and again; all of the word is unknown if a part of it is."""
        unknown = [(self.vocab[self.unk_token], 0, len(piece.encode()))]
        if len(piece) > self.max_word_chars:
            return unknown
        tokens: list[tuple[int, int, int]] = []
        start, at = 0, 0
        while start < len(piece):
            for end in range(len(piece), start, -1):
                token_id = self.vocab.get((self.prefix if start else "") + piece[start:end])
                if token_id is not None:
                    break
            else:
                return unknown
            n_bytes = len(piece[start:end].encode())
            tokens.append((token_id, at, at + n_bytes))
            start, at = end, at + n_bytes
        return tokens


def wordpiece_of(model: Mapping[str, Any], path: Path) -> WordPiece:
    """WordPiece with whatever stands before it."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        raise ValueError(f"{path}: the model has no 'vocab'.")
    unk_token, prefix = model.get("unk_token", "[UNK]"), model.get("continuing_subword_prefix", "##")
    max_word_chars = model.get("max_input_chars_per_word", 100)
    if not isinstance(unk_token, str) or not isinstance(prefix, str) or type(max_word_chars) is not int:
        raise ValueError(
            f"{path}: the model's unk_token {unk_token!r:.50} and continuing_subword_prefix {prefix!r:.50} must be "
            f"texts, max_input_chars_per_word {max_word_chars!r:.50} a whole number."
        )
    if unk_token not in vocab:
        raise ValueError(f"{path}: model.unk_token is {unk_token!r}, which is not in the vocabulary.")
    return WordPiece(vocab, unk_token, prefix, max_word_chars)


def trim_of(post_processor: Any, path: Path) -> bool | None:
    """Whether offsets leave out white space (ByteLevel and RobertaProcessing say so), and a space before the text."""
    for step in steps_of(post_processor or None, "processors", path, "post_processor"):
        if step["type"] in ("ByteLevel", "RobertaProcessing") and step.get("trim_offsets", True):
            return bool(step.get("add_prefix_space", True))
    return None


def is_plain_byte_level(content: Any) -> bool:
    """Whether bpe.py can do all of it, which is faster: byte-level BPE with one known pattern, and a token for every
    byte. What is not made as it must be is left to its reader, which says what is wrong."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return False
    further = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    vocab = model.get("vocab")
    if any(model.get(name) for name in further) or not isinstance(vocab, dict):
        return False
    if any(character not in vocab for character in BYTE_OF_CHARACTER):
        return False
    decoder, normalizer = content.get("decoder"), content.get("normalizer")
    if not is_kind(decoder, "ByteLevel") or not (normalizer is None or is_kind(normalizer, "NFC")):
        return False
    return is_known_pattern(content.get("pre_tokenizer"))


def is_plain_wordpiece(content: Any) -> bool:
    """Whether wordpiece.py can do all of it, which is faster: BERT's normalizer, words and decoder."""
    if not isinstance(content, dict) or not is_kind(content.get("model"), "WordPiece"):
        return False
    kinds = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "decoder": "WordPiece"}
    prefix = content["model"].get("continuing_subword_prefix", "##")
    same = all(is_kind(content.get(part), kind) for part, kind in kinds.items())
    return same and content["decoder"].get("prefix", "##") == prefix


def is_known_pattern(pre_tokenizer: Any) -> bool:
    """Whether it is ByteLevel with GPT-2's pattern, or a Split by a pattern that split.py knows and then ByteLevel."""
    steps = pre_tokenizer.get("pretokenizers") if is_kind(pre_tokenizer, "Sequence") else [pre_tokenizer]
    if not isinstance(steps, list) or not steps or not is_kind(steps[-1], "ByteLevel"):
        return False
    last = steps[-1]
    if last.get("add_prefix_space"):
        return False
    if len(steps) == 1:
        return bool(last.get("use_regex", True))
    pattern = steps[0].get("pattern") if is_kind(steps[0], "Split") else None
    known = isinstance(pattern, dict) and pattern.get("Regex") in UNICODE_PATTERNS.values()
    return len(steps) == 2 and known and not last.get("use_regex", True)
