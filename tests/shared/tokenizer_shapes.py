"""Small tokenizers of the shapes that checkpoints have, trained by the `tokenizers` library: name -> the library's."""

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizer_samples import SAMPLES
from tokenizers import Regex, Tokenizer, models, processors, trainers
from tokenizers import decoders as d
from tokenizers import normalizers as n
from tokenizers import pre_tokenizers as p

TEXTS = SAMPLES * 3
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def changed(peer: Tokenizer, **parts: Any) -> Tokenizer:
    """With changes to its model, and bytes that are tokens but no added ones."""
    content = json.loads(peer.to_str())
    content["model"].update(parts)
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(content))


def llama() -> Tokenizer:
    """Llama 2, TinyLlama, Mistral 7B: no pre-tokenizer, and "▁" before all."""
    peer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    peer.normalizer = n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])
    peer.pre_tokenizer = p.Metaspace(prepend_scheme="never")  # for training only
    specials = ["<unk>", "<s>", "</s>", *BYTES]
    peer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=600, limit_alphabet=60, special_tokens=specials, show_progress=False)
    )
    peer = changed(peer)
    peer.add_tokens(["bar"])
    peer.pre_tokenizer = None
    peer.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
    peer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return peer


def mistral() -> Tokenizer:
    """Llama as transformers makes it since version 5: a Metaspace at the head of the text only."""
    peer = llama()
    peer.normalizer, peer.pre_tokenizer = None, p.Metaspace(prepend_scheme="first", split=False)
    return peer


def gemma() -> Tokenizer:
    """No "▁" before the text, and nothing to split at, since all spaces are gone by then."""
    peer = llama()
    peer.normalizer, peer.pre_tokenizer = n.Replace(" ", "▁"), p.Split(" ", "merged_with_previous")
    peer.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()])
    return peer


def unknown(fuse: bool) -> Tokenizer:
    """Without tokens for bytes."""
    peer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse))
    peer.pre_tokenizer = p.Metaspace()
    peer.decoder = d.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, limit_alphabet=30, special_tokens=["<unk>"], show_progress=False)
    peer.train_from_iterator(TEXTS, trainer)
    return changed(peer, ignore_merges=fuse)


def word_ends() -> Tokenizer:
    """GPT-1, CLIP: "</w>" at the end of a word."""
    peer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    peer.normalizer, peer.pre_tokenizer = n.Lowercase(), p.BertPreTokenizer()
    peer.decoder = d.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    peer.train_from_iterator(TEXTS, trainer)
    return peer


def unigram(in_bytes: bool, charsmap: bool) -> Tokenizer:
    """T5, XLM-R, Marian."""
    peer = Tokenizer(models.Unigram())
    before: list[Any] = [n.Nmt(), n.NFKC()]
    if charsmap:
        before = [n.Precompiled(pack(CHARS))]
    peer.normalizer = n.Sequence([*before, n.Replace(Regex(" {2,}"), " ")])
    peer.pre_tokenizer = p.Sequence([p.WhitespaceSplit(), p.Metaspace()])
    peer.decoder = d.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", *(BYTES if in_bytes else [])]
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=specials, unk_token="<unk>", show_progress=False)
    peer.train_from_iterator([text[:120] for text in TEXTS], trainer)
    peer = changed(peer, byte_fallback=in_bytes)
    peer.add_tokens(["zap"])
    peer.add_special_tokens(["<mask>"])
    peer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return peer


def word_pieces() -> Tokenizer:
    """WordPiece, with other words than BERT's."""
    peer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    peer.normalizer, peer.pre_tokenizer, peer.decoder = n.Lowercase(), p.Whitespace(), d.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    peer.train_from_iterator(TEXTS, trainer)
    return changed(peer, max_input_chars_per_word=9)


def byte_level(before: Any, normalizer: Any = None, post: Any = None, alphabet: bool = True) -> Tokenizer:
    """BPE over bytes; `before` is the pre-tokenizer. alphabet: every byte has a token."""
    peer = Tokenizer(models.BPE())
    if normalizer is not None:
        peer.normalizer = normalizer
    if post is not None:
        peer.post_processor = post
    peer.pre_tokenizer, peer.decoder = before, d.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=p.ByteLevel.alphabet() if alphabet else [],
        show_progress=False,
    )
    peer.train_from_iterator(TEXTS, trainer)
    return peer


def after(*steps: Any, prefix: bool = False, use_regex: bool = False) -> Any:
    return p.Sequence([*steps, p.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)])


DEEPSEEK = [
    p.Split(Regex("[\r\n]"), "isolated"),
    p.Split(Regex(r"\s?\p{L}+"), "isolated"),
    p.Split(Regex(r"\s?\p{P}+"), "isolated"),
    p.Split(Regex("[一-龥ࠀ-一가-퟿]+"), "isolated"),
    p.Digits(individual_digits=True),
]
SHAPES: dict[str, Callable[[], Tokenizer]] = {
    "llama": llama,
    "mistral": mistral,
    "gemma": gemma,
    "unknown": lambda: unknown(fuse=False),
    "unknown, fused": lambda: unknown(fuse=True),
    "word ends": word_ends,
    "unigram": lambda: unigram(in_bytes=False, charsmap=False),
    "unigram, bytes": lambda: unigram(in_bytes=True, charsmap=False),
    "xlm-r": lambda: unigram(in_bytes=False, charsmap=True),
    "word pieces": word_pieces,
    "smollm": lambda: byte_level(after(p.Digits(individual_digits=True), use_regex=True)),
    "deepseek": lambda: byte_level(after(*DEEPSEEK)),
    "prefix": lambda: byte_level(p.ByteLevel(add_prefix_space=True), post=processors.ByteLevel(trim_offsets=True)),
    "neox": lambda: byte_level(
        p.ByteLevel(add_prefix_space=False),
        n.NFC(),
        processors.ByteLevel(trim_offsets=True, add_prefix_space=False),
        alphabet=False,
    ),
    "nfkc": lambda: byte_level(
        p.ByteLevel(add_prefix_space=False), n.Sequence([n.NFKC(), n.Lowercase(), n.StripAccents()])
    ),
    "words": lambda: byte_level(after(p.Whitespace()), n.Sequence([n.Strip(), n.NFD(), n.Replace(Regex(r"\s+"), " ")])),
    "punctuation": lambda: byte_level(after(p.Punctuation("contiguous")), n.NFKD()),
    "bert's words": lambda: byte_level(after(p.BertPreTokenizer(), prefix=True), n.BertNormalizer()),
}


@cache
def made(name: str) -> Tokenizer:
    return SHAPES[name]()


# ---- a charsmap, as SentencePiece packs it

CHARS = {
    "\t": " ", "\n": " ", "\x85": " ", "\u2003": " ", "\u3000": " ", "ﬁ": "fi", "①": "1", "½": "1⁄2", "Å": "Å",
    "é": "é", "e\u0301": "é", "ſ": "s", "\x0b": "", "\u1161": "ᅡ", "▁": " ", "\U0001f468\u200d": "man",
}  # fmt: skip


def pack(table: dict[str, str]) -> bytes:
    """The texts of `table` as a double array, and what stands for them."""
    units: dict[int, int] = {0: 0}
    texts, starts = b"", {}
    for key, value in table.items():
        starts[key.encode()] = len(texts)
        texts += value.encode() + b"\0"

    def place(at: int, label: int, prefix: bytes) -> None:
        """The unit at `at`, whose children are the bytes that follow `prefix`."""
        children = sorted({key[len(prefix)] for key in starts if key.startswith(prefix) and len(key) > len(prefix)})
        leaf = prefix in starts
        base = next(b for b in range(1, 1 << 20) if not any((b ^ c) in units for c in [0, *children]))
        units[at] = label | leaf << 8 | (at ^ base) << 10
        units[base] = starts.get(prefix, 0) | (1 << 31)
        for child in children:
            units[base ^ child] = 0
        for child in children:
            place(base ^ child, child, prefix + bytes([child]))

    place(0, 0, b"")
    array = [units.get(i, 0) for i in range((max(units) | 0xFF) + 1)]
    return struct.pack(f"<I{len(array)}I", 4 * len(array), *array) + texts


def packed(table: dict[str, str]) -> str:
    return b64encode(pack(table)).decode()
