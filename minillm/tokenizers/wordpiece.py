"""WordPiece: the tokenizer of BERT and its family, in one file to read.

A text becomes words first (bert_text.py: cleaned, lower case, accents off, punctuation apart), and each word becomes
pieces of a vocabulary. A piece that does not begin its word is written with "##" before it:

>>> tok = WordPieceTokenizer.train(["low lower lowest, slow slower"], vocab_size=25)
>>> [tok.token_bytes(id).decode() for id in tok.encode("Low, slowest!")]
['low', ',', 'slow', '##e', '##s', '##t', '[UNK]']

Unlike byte-level BPE (bpe.py), a word with a character that the vocabulary lacks has no pieces: it is [UNK] as a whole;
and white space, case and accents are lost, so `decode` gives readable text, not the text.

Learning is by the same merges as BPE. Encoding is not: it takes the longest piece that fits, then the longest that fits
the rest, and knows nothing of the order of merges. (chapters/10_bert.ipynb uses it.) Read
`WordPieceTokenizer.encode_word` first, then `train`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from tqdm import tqdm

from ..disk import about
from . import wordpiece_formats
from .added import AddedToken
from .base import Tokenizer
from .bert_text import UNCASED, BertNormalizer, split_words
from .bpe import learn_merges
from .checks import check_special_tokens
from .json_parts import tokenizer_json_path
from .pieces import PieceCache, count_pieces
from .template import PLAIN, Template, bert_template, framed

BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPieceTokenizer(Tokenizer):
    """WordPiece as in BERT. Make one with `train`, or read one with `load` or `load_vocab`.

    vocab: piece -> id, the special tokens among them or not.
    special_tokens, added_tokens, template: as for every tokenizer (base.py).
    unk_token: the token of a word that cannot be written in pieces, or has more than max_word_chars characters.
    prefix: marks the pieces that do not begin a word.
    normalizer: which of BERT's steps a text goes through.
    cleanup: `decode` puts no space before "." "?" "!" "," and English endings such as 's.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        special_tokens: Mapping[str, int],
        *,
        normalizer: BertNormalizer = UNCASED,
        unk_token: str = "[UNK]",
        prefix: str = "##",
        max_word_chars: int = 100,
        cleanup: bool = True,
        added_tokens: Iterable[AddedToken] = (),
        template: Template = PLAIN,
    ):
        added_tokens = list(added_tokens)
        ids = {**vocab, **special_tokens, **{token.text: token.id for token in added_tokens}}
        tokens: list[bytes | None] = [None] * (max(ids.values(), default=-1) + 1)
        for token, token_id in ids.items():
            tokens[token_id] = token.encode()
        super().__init__(tokens, special_tokens, added_tokens=added_tokens, template=template)
        self.vocab = dict(vocab)
        if unk_token not in self.vocab:
            raise ValueError(f"the vocabulary must hold unk_token, {unk_token!r}, for the words it cannot write.")
        self.normalizer = normalizer
        self.unk_token = unk_token
        self.prefix = prefix
        self.max_word_chars = max_word_chars
        self.cleanup = cleanup
        self._longest = max(map(len, self.vocab))
        self._cache = PieceCache(self.encode_word)

    @property
    def is_bert(self) -> bool:
        """Whether this is what transformers' BertTokenizer makes of its vocabulary and its normalizer."""
        usual = self.prefix == "##" and self.max_word_chars == 100 and self.unk_token == "[UNK]" and self.cleanup
        named = self.vocab.keys() | self.special_tokens.keys()
        return usual and self.normalizer.clean_text and named.issuperset(BERT_SPECIAL_TOKENS)

    # ---- learning

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = BERT_SPECIAL_TOKENS,
        normalizer: BertNormalizer = UNCASED,
        min_frequency: int = 2,
        limit_alphabet: int = 1000,
        progress: bool = False,
    ) -> WordPieceTokenizer:
        """Learn a vocabulary of `vocab_size` pieces from `texts`, each read once.

        The ids: special tokens, then single characters by code point, then those characters that also stand inside a
        word, with "##", then one piece per merge. Merges are those of BPE: the commonest pair of neighbouring pieces is
        joined, a tie goes to the smallest (left id, right id), and it ends early when no pair is left that occurs
        `min_frequency` times. So does the `tokenizers` library (WordPieceTrainer), by whose rule BERT-like models are
        trained today; it numbers the "##" characters in no fixed order, so its ties fall differently from run to run.
        Schuster and Nakajima (2012), where WordPiece comes from, join the pair that raises the likelihood of
        the text most, count(ab) / (count(a) count(b)), instead; Google never published that trainer.

        limit_alphabet: only so many of the commonest characters are kept; a tie goes to the lower code point. Raises
        ValueError for a vocab_size that cannot hold the alphabet, or texts without a word.
        """
        specials = check_special_tokens(special_tokens)
        words = count_pieces(texts, partial(words_of, normalizer=normalizer), specials, progress=progress)
        alphabet = commonest_characters(words, limit_alphabet)
        inside = sorted({character for word in words for character in word[1:]} & set(alphabet))
        tokens = [*specials, *(c for c in alphabet if c not in specials), *("##" + c for c in inside)]
        n_merges = vocab_size - len(tokens)
        if n_merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: {len(specials)} special tokens, {len(alphabet)} characters and "
                f"{len(inside)} of them inside words need {len(tokens)}. Pass a smaller limit_alphabet, or more."
            )
        ids = {token: token_id for token_id, token in enumerate(tokens)}
        symbols: Counter[str] = Counter()  # a word as its pieces' ids, each written as the character of that number
        for word, n in words.items():
            pieces = [character if i == 0 else "##" + character for i, character in enumerate(word)]
            symbols["".join(chr(ids[piece]) for piece in pieces if piece in ids)] += n
        with tqdm(total=n_merges, desc="merge", unit="merge", disable=not progress) as steps:
            for (left, right), n in learn_merges(symbols, n_merges, len(tokens)):
                if n < min_frequency:
                    break
                tokens.append(tokens[left] + tokens[right].removeprefix("##"))
                steps.update()
        vocab = {token: token_id for token_id, token in enumerate(tokens)}
        special_ids = {token: vocab[token] for token in specials}
        return cls(vocab, special_ids, normalizer=normalizer, template=default_template(special_ids))

    # ---- text -> ids

    def encode_word(self, word: str) -> list[int]:
        """The ids of one word: again and again the longest piece that the rest of it begins with.

        >>> tok = WordPieceTokenizer({"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "##a": 4}, {"[UNK]": 0})
        >>> tok.encode_word("unaffable"), tok.encode_word("unaffected")
        ([1, 2, 3], [0])
        """
        unknown = [self.vocab[self.unk_token]]
        if len(word) > self.max_word_chars:
            return unknown
        ids = []
        start, prefix = 0, ""
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                token_id = self.vocab.get(prefix + word[start:end])
                if token_id is not None:
                    break
            else:
                return unknown
            ids.append(token_id)
            start, prefix = end, self.prefix
        return ids

    def _normalize(self, text: str) -> str:
        text.encode()  # raises UnicodeEncodeError for a lone surrogate, which `encode` explains
        return self.normalizer.normalize(text)

    def _encode_ordinary(self, text: str, final: bool) -> tuple[list[int], int]:
        used = len(text) if final else text.rfind(" ") + 1
        words = split_words(text[:used])
        return list(chain.from_iterable(map(self._cache.__getitem__, words))), used

    def _rule(self) -> dict[str, Any]:
        steps = self.normalizer
        strip_accents = steps.lowercase if steps.strip_accents is None else steps.strip_accents
        pieces = [piece for piece in self.vocab if self._is_findable(piece)]
        return {
            "prefix": self.prefix,
            "pieces": sorted((piece, self.vocab[piece]) for piece in pieces),
            "unknown": self.vocab[self.unk_token],
            "max_word_chars": self.max_word_chars,
            "normalization": [steps.clean_text, steps.handle_chinese_chars, strip_accents, steps.lowercase],
        }

    def _is_findable(self, piece: str) -> bool:
        """Whether a word can hold the piece: none holds "[CLS]", as brackets are words of their own."""
        return any(split_words(part) == [part] for part in (piece, piece.removeprefix(self.prefix)))

    # ---- ids -> text

    def decode(self, ids: Iterable[int], errors: str = "replace", *, skip_special_tokens: bool = False) -> str:
        """Pieces with "##" joined to those before them, a space before all others: readable, not the original text."""
        ids = self._without_special(ids) if skip_special_tokens else list(ids)
        shown = []
        for i, token_id in enumerate(ids):
            token = super().decode_bytes([token_id]).decode()
            if i > 0:
                token = token[len(self.prefix) :] if token.startswith(self.prefix) else " " + token
            shown.append(clean_up(token) if self.cleanup else token)
        return "".join(shown)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """`decode` in UTF-8. `token_bytes` gives a piece as it stands in the vocabulary, with its "##"."""
        return self.decode(ids.tolist() if isinstance(ids, np.ndarray) else ids).encode()

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 of one piece, with its "##". Raises ValueError for an id out of range."""
        return super().decode_bytes([token_id])

    # ---- files (wordpiece_formats.py)

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json, which the `tokenizers` library reads too."""
        model = {
            "type": "WordPiece",
            "unk_token": self.unk_token,
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": self.max_word_chars,
            "vocab": dict(sorted(self.vocab.items(), key=itemgetter(1))),
        }
        normalizer = {"type": "BertNormalizer", **asdict(self.normalizer)}  # its fields have the file's names
        decoder = {"type": "WordPiece", "prefix": self.prefix, "cleanup": self.cleanup}
        return framed(self, normalizer, {"type": "BertPreTokenizer"}, decoder, model)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WordPieceTokenizer:
        """Read a tokenizer.json of WordPiece with BERT's normaliser and pre-tokeniser, ours or anyone else's."""
        with about(tokenizer_json_path(path)):
            return cls(**wordpiece_formats.read_tokenizer_json(path))

    def save_vocab(self, folder: str | os.PathLike[str]) -> None:
        """Write BERT's own vocab.txt, a token per line. It does not say how text is normalised."""
        wordpiece_formats.save_vocab_txt(self.tokens, folder)

    @classmethod
    def load_vocab(cls, path: str | os.PathLike[str], *, normalizer: BertNormalizer = UNCASED) -> WordPieceTokenizer:
        """Read BERT's vocab.txt, from a folder or by its name. normalizer: lowercase=False for a cased vocabulary."""
        vocab = wordpiece_formats.read_vocab_txt(path)
        specials = {token: vocab[token] for token in BERT_SPECIAL_TOKENS if token in vocab}
        with about(wordpiece_formats.vocab_txt_path(path)):
            return cls(vocab, specials, normalizer=normalizer, template=default_template(specials))


def words_of(texts: Iterable[str], normalizer: BertNormalizer) -> Counter[str]:
    """How often each word occurs in some texts."""
    return Counter(chain.from_iterable(split_words(normalizer.normalize(text)) for text in texts))


def commonest_characters(words: Mapping[str, int], limit: int) -> list[str]:
    """The `limit` commonest characters, by code point."""
    counts: Counter[str] = Counter()
    for word, n in words.items():
        for character in word:
            counts[character] += n
    return sorted(sorted(counts, key=lambda character: (-counts[character], character))[:limit])


def default_template(special_tokens: Mapping[str, int]) -> Template:
    """BERT's [CLS] A [SEP] B [SEP] if those tokens are there, otherwise nothing around the texts."""
    if "[CLS]" in special_tokens and "[SEP]" in special_tokens:
        return bert_template("[CLS]", special_tokens["[CLS]"], "[SEP]", special_tokens["[SEP]"])
    return PLAIN


def clean_up(text: str) -> str:
    """The spaces that splitting put before punctuation and English endings taken out, as in `tokenizers`."""
    for space, without in [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ]:  # fmt: skip
        text = text.replace(space, without)
    return text
