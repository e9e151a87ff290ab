"""Byte-pair encoding: the tokenizer of GPT-2, GPT-4 and Llama 3.

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

Read in this order: `learn_merges` and `merge_word`, which are all of BPE; the class around them; base.py (special
tokens, decoding). Then split.py (what may merge at all), bpe_plain.py (counting and merging with nothing kept from step
to step, to watch and to check by), bpe_fast.py and bulk.py (what makes it fast). chapters/03_tokens.ipynb builds it.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any

from tqdm import tqdm

from ..disk import about
from .added import AddedToken
from .base import END_OF_TEXT, Tokenizer
from .bpe_arrays import array_merger
from .bpe_fast import Pair, PairCounts, merge_long_word
from .bulk import Bulk
from .byte_spelling import BYTE_OF_ID, ID_OF_BYTE
from .checks import check_special_tokens
from .formats import check_special_spellings, read_tokenizer_json, tokenizer_json
from .json_parts import tokenizer_json_path
from .pieces import PieceCache, count_pieces
from .split import check_pattern_name, count_split, split_windows
from .template import PLAIN, Template

MAX_VOCAB_SIZE = 1 << 20  # ids are written as characters, of which there are 1,114,112
MUCH = 1 << 14  # characters from which bulk.py is quicker
SHORT = 10  # tokens up to which looking at every pair for every merge costs nothing


def learn_merges(words: Mapping[str, int], n_merges: int, n_symbols: int = 256) -> Iterator[tuple[Pair, int]]:
    """Learn what to merge: the commonest pair becomes a new token, everywhere; again and again.

    words: pre-token -> how often it occurs; its characters stand for ids, chr(id), those of single bytes at first
    (0..255). The first merge makes the id n_symbols.
    Yields ((left id, right id), count) for each merge. Of pairs that are equally common, the smallest (left id, right
    id) wins, as in the `tokenizers` library. Ends early when no pair is left.
    """
    pairs = PairCounts(words)  # how often each two neighbours occur (bpe_plain.py counts them anew for every merge)
    for new_id in range(n_symbols, n_symbols + n_merges):
        pair = pairs.commonest()
        if pair is None:
            return
        yield pair, pairs[pair]
        pairs.merge(pair, new_id)  # in every word, and the counts of what stands beside it change


def merge_word(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """Use what was learned on one pre-token: merge the pair that was learned first, the leftmost if it stands twice.

    ids: one token per byte; changed in place and returned. ranks: pair -> its place among the merges; merged: that
    place -> the id of the new token.
    """
    if len(ids) > SHORT:
        return merge_long_word(ids, ranks, merged)
    never = len(merged)
    while len(ids) > 1:
        pair_ranks = [ranks.get(pair, never) for pair in pairwise(ids)]
        rank = min(pair_ranks)
        if rank == never:
            break
        i = pair_ranks.index(rank)
        ids[i : i + 2] = [merged[rank]]
    return ids


class BPETokenizer(Tokenizer):
    """Byte-level BPE. Make one with `train`, or read one with `load` or gpt2_files.py.

    tokens: id -> bytes. In a trained tokenizer, 0..255 are the single bytes (byte_spelling.py), then one id per merge
        in order, then the special tokens. Files made elsewhere may have any other order.
    merges: the pairs of ids that merge, the earliest first; an earlier merge goes before a later one.
    pattern: "gpt2", "gpt4", "qwen2" or "qwen35": how text is cut into the pieces to merge within (split.py).
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
        self.id_of_byte = [self.id_of_token[bytes([byte])] for byte in range(256)]
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.merged = [self.id_of_token[tokens[a] + tokens[b]] for a, b in self.merges]  # type: ignore[operator]
        self._cache = PieceCache(self.encode_piece)
        check_special_spellings(self)

    def _ordinary_tokens(self) -> dict[bytes, int]:
        """What merges can make, and single bytes: all tokens but the added ones, unless a merge makes one of them."""
        added = {token.id: token.text.encode() for token in self.added_tokens}
        ordinary = {t: i for i, t in enumerate(self.tokens) if t is not None and i not in added}
        made = {self.tokens[a] + self.tokens[b] for a, b in self.merges}  # type: ignore[operator]
        both = {t: i for i, t in added.items() if t not in ordinary and (t in made or len(t) == 1)}
        return {**ordinary, **both}

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
        if n_merges < 0 or vocab_size > MAX_VOCAB_SIZE:
            raise ValueError(
                f"vocab_size must be from {256 + len(specials)} (256 single bytes, {len(specials)} special tokens, and "
                f"one for every merge learned) to {MAX_VOCAB_SIZE}, not {vocab_size}."
            )
        words = count_words(texts, pattern, specials, nfc=nfc, progress=progress)
        steps = learn_merges(words, n_merges)
        merges = [pair for pair, _ in tqdm(steps, total=n_merges, desc="merge", unit="merge", disable=not progress)]

        tokens = [bytes([byte]) for byte in BYTE_OF_ID]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        special_ids = {token: len(tokens) + i for i, token in enumerate(specials)}
        tokens += [token.encode() for token in specials]
        return cls(tokens, merges, pattern, special_ids, nfc=nfc)

    def _normalize(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.nfc else text

    def _encode_ordinary(self, text: str, final: bool) -> tuple[list[int], int]:
        if len(text) >= MUCH:
            array, _, (used,) = self.bulk.encode([text], final=final)
            return array.tolist(), used
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
        return merge_word([self.id_of_byte[byte] for byte in data], self.ranks, self.merged)

    @cached_property
    def bulk(self) -> Bulk:  # type: ignore[override]
        """The same for much text at once."""
        merger = array_merger(self.ranks, self.merged, self.id_of_byte)
        return Bulk(self.pattern, self.encode_piece, merger, self.id_of_token if self.whole_pieces else None)

    @cached_property
    def _not_built(self) -> dict[str, int]:
        """Tokens that only `whole_pieces` gives, since merging their bytes gives others: bytes in hexadecimal -> id."""
        if not self.whole_pieces:
            return {}
        built = {t: merge_word([self.id_of_byte[b] for b in t], self.ranks, self.merged) for t in self.id_of_token}
        return {t.hex(): i for t, i in sorted(self.id_of_token.items()) if built[t] != [i]}

    def _rule(self) -> dict[str, Any]:
        in_order = sorted((rank, pair) for pair, rank in self.ranks.items())
        merges = [(*pair, self.merged[rank]) for rank, pair in in_order]
        how = {"pattern": self.pattern, "normalization": "NFC" if self.nfc else None}
        return {**how, "bytes": self.id_of_byte, "merges": merges, "whole": self._not_built}

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json, which the `tokenizers` library reads too."""
        return tokenizer_json(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BPETokenizer:
        """Read a tokenizer.json, of ours or of anyone else's byte-level BPE with a pattern that split.py knows."""
        with about(tokenizer_json_path(path)):
            return cls(**read_tokenizer_json(path))


def count_words(
    texts: Iterable[str], pattern: str, special_tokens: Sequence[str] = (), *, nfc: bool = False, progress: bool = False
) -> dict[str, int]:
    """How often each pre-token occurs in `texts`, its bytes written as `learn_merges` reads them: chr(id of the byte).

    Raises ValueError if there is no text at all, or text that has no UTF-8.
    """
    check_pattern_name(pattern)
    counts = count_pieces(texts, partial(count_split, pattern=pattern, nfc=nfc), special_tokens, progress=progress)
    return {piece.encode().translate(ID_OF_BYTE).decode("latin-1"): count for piece, count in counts.items()}
