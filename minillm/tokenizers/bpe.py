"""Byte-pair encoding: the tokenizer of GPT-2, GPT-4 and Llama 3, in one file to read.

A model sees integers, so text must become some. Single bytes would do (256 ids, nothing unknown), but make sequences
four times as long as need be. BPE starts from bytes and joins what often stands together: find the commonest pair
of neighbouring tokens, make it a new token, replace it everywhere, repeat (Sennrich et al. 2016, algorithm 1; on bytes:
Radford et al. 2019, section 2.2). The list of merges, in order, is all that there is to learn:

>>> tok = BPETokenizer.train(["low lower lowest low slow"], vocab_size=261, special_tokens=["<|endoftext|>"])
>>> [tok.token_bytes(id) for id in range(256, 261)]
[b'lo', b'low', b' low', b' lowe', b'<|endoftext|>']
>>> tok.encode("a low glow")
[64, 258, 220, 70, 257]
>>> tok.decode([64, 258, 220, 70, 257])
'a low glow'

Read in this order: `train_naive` and `merge` (learning), `BPETokenizer._encode_ordinary` (using what was learned),
then base.py (special tokens, files, decoding), split.py (what may merge at all) and bpe_fast.py (the same, faster).
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from tqdm import tqdm

from . import formats
from .added import AddedToken
from .base import END_OF_TEXT, Tokenizer
from .bpe_fast import merge_word, train_fast
from .checks import check_special_tokens, check_text, check_texts, surrogate_error
from .split import check_pattern_name, split_windows
from .template import PLAIN, Template

Pair = tuple[int, int]

# Ids 0..255 are the single bytes, in GPT-2's order: "!" is 0, "a" is 64, the space is 220 (formats.py says why). The
# order 0, 1, 2, ... would be simpler, but then neither GPT-2's files nor the `tokenizers` library would agree with our
# ids, and ties between pairs would be broken differently.
BYTE_OF_ID = formats.GPT2_BYTE_ORDER
ID_OF_BYTE = bytes(BYTE_OF_ID.index(byte) for byte in range(256))

MAX_VOCAB_SIZE = 1 << 20  # the fast trainer writes ids as characters, of which there are 1,114,112
MAX_CACHED_PIECES = 200_000  # about 60 MB; a language's common words are far fewer
MAX_CACHED_LENGTH = 64  # characters; longer pieces hardly ever come again


def train_naive(words: Mapping[bytes, int], n_merges: int) -> Iterator[tuple[Pair, int]]:
    """Learn merges the way the definition says: count all pairs, merge the commonest, start over.

    words: pre-token, as ids of single bytes (0..255) -> how often it occurs.
    Yields ((left id, right id), count) for each merge; merge number k makes the token with id 256 + k. Of pairs that
    are equally common, the smallest (left id, right id) wins, as in the `tokenizers` library. Ends early when no pair
    is left.

    `bpe_fast.train_fast` yields the same; this one takes minutes where that takes seconds.
    """
    current = [(list(word), count) for word, count in words.items()]
    for new_id in range(256, 256 + n_merges):
        pair_counts: Counter[Pair] = Counter()
        for word, count in current:
            for pair in pairwise(word):
                pair_counts[pair] += count
        if not pair_counts:
            return
        most = max(pair_counts.values())
        best = min(pair for pair, count in pair_counts.items() if count == most)
        yield best, most
        current = [(merge(word, best, new_id), count) for word, count in current]


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of `pair` in `ids` by `new_id`, from left to right.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


class BPETokenizer(Tokenizer):
    """Byte-level BPE. Make one with `train`, or read one with `load` or `load_gpt2`.

    tokens: id -> bytes. In a trained tokenizer, 0..255 are the single bytes (`BYTE_OF_ID`), then one id per merge in
        order, then the special tokens. Files made elsewhere may have any other order.
    merges: the pairs of ids that merge, the earliest first; an earlier merge goes before a later one.
    pattern: "gpt2", "gpt4" or "qwen2": how text is cut into the pieces to merge within (split.py).
    special_tokens, added_tokens, template: as for every tokenizer (base.py).
    whole_pieces: a piece that is a token as it stands is not built by merges (`ignore_merges` in files of Llama 3).
    nfc: text is brought into Unicode's form NFC first, where é is one character (Qwen). Then `decode` gives that form.
    """

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        merges: Sequence[Pair],
        pattern: str,
        special_tokens: Mapping[str, int],
        *,
        whole_pieces: bool = False,
        nfc: bool = False,
        added_tokens: Iterable[AddedToken] = (),
        template: Template = PLAIN,
    ):
        super().__init__(tokens, special_tokens, added_tokens=added_tokens, template=template)
        check_pattern_name(pattern)
        self.merges = list(merges)
        self.pattern = pattern
        self.whole_pieces = whole_pieces
        self.nfc = nfc
        self.id_of_token = self._ordinary_tokens()
        self._ids_of_bytes = [self.id_of_token[bytes([byte])] for byte in range(256)]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._merged = [self.id_of_token[tokens[a] + tokens[b]] for a, b in self.merges]  # type: ignore[operator]
        self._cache = _PieceCache(self)
        formats.check_special_spellings(self)

    def _ordinary_tokens(self) -> dict[bytes, int]:
        """What merges can make, and single bytes: all tokens but the added ones, unless a merge makes one of them."""
        added = {token.id: token.text.encode() for token in self.added_tokens}
        ordinary = {t: i for i, t in enumerate(self.tokens) if t is not None and i not in added}
        made = {self.tokens[a] + self.tokens[b] for a, b in self.merges}  # type: ignore[operator]
        both = {t: i for i, t in added.items() if t not in ordinary and (t in made or len(t) == 1)}
        return {**ordinary, **both}

    # ---- learning

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        pattern: str = "gpt4",
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        nfc: bool = False,
        progress: bool = False,
    ) -> BPETokenizer:
        """Learn a tokenizer of `vocab_size` ids from `texts`, each read once, so a generator over files will do.

        The ids: 256 bytes, then vocab_size - 256 - len(special_tokens) merges, then the special tokens. No merge
        crosses from one text to the next, and a special token's own text in them is skipped. If the texts are so small
        that every piece is one token before `vocab_size` is reached, learning stops there: the result is smaller.
        Raises ValueError for a vocab_size that cannot be, or texts without a character.
        """
        specials = check_special_tokens(special_tokens)
        n_merges = vocab_size - 256 - len(specials)
        if vocab_size > MAX_VOCAB_SIZE:
            raise ValueError(f"vocab_size={vocab_size} is too large: the fast trainer can hold {MAX_VOCAB_SIZE} tokens")
        if n_merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: 256 single bytes and {len(specials)} special tokens need "
                f"{256 + len(specials)}, and every token above that is one merge learned"
            )
        words = count_words(texts, pattern, specials, nfc=nfc, progress=progress)
        symbols = {word.decode("latin-1"): count for word, count in words.items()}  # byte 65 becomes chr(65)
        steps = tqdm(train_fast(symbols, n_merges), total=n_merges, desc="merge", unit="merge", disable=not progress)
        merges = [pair for pair, _ in steps]

        tokens = [bytes([byte]) for byte in BYTE_OF_ID]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        special_ids = {token: len(tokens) + i for i, token in enumerate(specials)}
        tokens += [token.encode() for token in specials]
        return cls(tokens, merges, pattern, special_ids, nfc=nfc)

    # ---- text -> ids

    def _normalize(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.nfc else text

    def _encode_ordinary(self, text: str, final: bool = True) -> tuple[list[int], int]:
        ids: list[int] = []
        used = 0
        for pieces, n_chars in split_windows(text, self.pattern, final=final):
            ids.extend(chain.from_iterable(map(self._cache.__getitem__, pieces)))
            used += n_chars
        return ids, used

    def encode_piece(self, piece: str) -> list[int]:
        """The ids of one pre-token: its bytes, merged."""
        data = piece.encode()
        if self.whole_pieces and data in self.id_of_token:
            return [self.id_of_token[data]]
        return merge_word([self._ids_of_bytes[byte] for byte in data], self._ranks, self._merged)

    def mergeable_ranks(self) -> dict[bytes, int]:
        """token -> id without the special tokens: what `tiktoken.Encoding(mergeable_ranks=)` takes.

        Raises ValueError for a tokenizer from a file whose ids are not in the order of the merges, as tiktoken needs.
        """
        if self._merged != sorted(self._merged):
            raise ValueError("tiktoken merges in the order of the ids, but this tokenizer's ids are in another order")
        return dict(self.id_of_token)

    def merge_steps(self, piece: str) -> Iterator[list[int]]:
        """Every state on the way from a pre-token's bytes to its ids, one merge at a time.

        >>> tok = BPETokenizer.train(["low lower lowest low slow"], vocab_size=261)
        >>> [[tok.token_bytes(id) for id in ids] for ids in tok.merge_steps("slow")]
        [[b's', b'l', b'o', b'w'], [b's', b'lo', b'w'], [b's', b'low']]
        """
        ids = [self._ids_of_bytes[byte] for byte in piece.encode()]
        yield ids
        if self.whole_pieces and piece.encode() in self.id_of_token:
            yield [self.id_of_token[piece.encode()]]
            return
        while True:
            ranked = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self._ranks]
            if not ranked:
                return
            rank, i = min(ranked)  # the earliest merge; of several places, the leftmost
            ids = [*ids[:i], self._merged[rank], *ids[i + 2 :]]
            yield ids

    # ---- files (formats.py)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `path` (`path`/tokenizer.json, unless it ends in .json), which the `tokenizers` library reads too."""
        formats.save_tokenizer_json(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BPETokenizer:
        """Read a tokenizer.json, of ours or of anyone else's byte-level BPE with a pattern that split.py knows."""
        return cls(**formats.read_tokenizer_json(path))

    def save_gpt2(self, folder: str | os.PathLike[str]) -> None:
        """Write GPT-2's vocab.json and merges.txt. They don't name the pattern, so it must be "gpt2"."""
        formats.save_gpt2_files(self, folder)

    @classmethod
    def load_gpt2(
        cls, folder: str | os.PathLike[str], *, special_tokens: Iterable[str] = (END_OF_TEXT,)
    ) -> BPETokenizer:
        """Read GPT-2's vocab.json and merges.txt. special_tokens: which of the vocabulary's entries are special."""
        return cls(**formats.read_gpt2_files(folder, check_special_tokens(special_tokens)))

    def _description(self) -> dict[str, Any]:
        return formats.tokenizer_json(self)


class _PieceCache(dict[str, tuple[int, ...]]):
    """pre-token -> ids, filled as pieces come up. Words repeat, so most of a text is looked up, not merged."""

    def __init__(self, tokenizer: BPETokenizer):
        super().__init__()
        self._encode_piece = tokenizer.encode_piece

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._encode_piece(piece))
        if len(piece) <= MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED_PIECES:
                self.clear()
            self[piece] = ids
        return ids


def count_words(
    texts: Iterable[str],
    pattern: str,
    special_tokens: Sequence[str] = (),
    *,
    nfc: bool = False,
    progress: bool = False,
) -> dict[bytes, int]:
    """How often each pre-token occurs in `texts`, as ids of single bytes: what both trainers start from.

    Text repeats its words (31 MB of Python hold 119,000 different ones), so learning from counts is what makes it fast.
    Raises ValueError if there is no text at all, or text that has no UTF-8.
    """
    check_pattern_name(pattern)
    check_texts(texts)
    counts: Counter[str] = Counter()
    for text in tqdm(texts, desc="count", unit="text", disable=not progress):
        parts = [check_text(text)]
        for special in special_tokens:
            parts = [part for whole in parts for part in whole.split(special)]
        for part in parts:
            for pieces, _ in split_windows(unicodedata.normalize("NFC", part) if nfc else part, pattern):
                counts.update(pieces)
    if not counts:
        raise ValueError("the texts hold no character to learn from; were they a generator that is used up?")
    try:
        return {piece.encode().translate(ID_OF_BYTE): count for piece, count in counts.items()}
    except UnicodeEncodeError as error:
        raise surrogate_error(error.object) from None
