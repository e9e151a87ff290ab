"""BPE that begins with characters, as SentencePiece trains it: Llama 2, TinyLlama, Mistral, Gemma.

bpe.py begins with bytes, of which there are 256, so nothing is unknown to it. Here a character may have no token. It is
then written in tokens for its bytes, <0xE9> <0xBE> <0x98>, if there are those (byte_fallback), is the unknown token,
or, where there is none, is lost. What merges, and when, is as in bpe.py:

>>> vocab = {"<unk>": 0, "h": 1, "u": 2, "g": 3, "ug": 4, "hug": 5}
>>> bpe = CharacterBPE(vocab, [("u", "g"), ("h", "ug")], unk_token="<unk>")
>>> bpe.tokenize("hug!")
[(5, 0, 3), (0, 3, 4)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .bpe_fast import Pair, merge_in_place

Token = tuple[int, int, int]  # id, and from which byte of the piece to which


@dataclass
class CharacterBPE:
    """vocab: token -> id. merges: pairs of tokens, the earliest first.

    unk_token: of characters without a token. fuse_unk: several in a row are one. byte_fallback: bytes come first.
    whole_pieces: a piece that is a token as it stands is not built by merges. prefix, suffix: what a character that
    does not begin its piece, or ends it, has before or behind it ("##", "</w>").
    """

    vocab: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    unk_token: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    whole_pieces: bool = False
    prefix: str = ""
    suffix: str = ""
    ranks: dict[Pair, int] = field(init=False, repr=False)
    merged: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = [(self.vocab[left], self.vocab[right]) for left, right in self.merges]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.merged = [self.vocab[left + right.removeprefix(self.prefix)] for left, right in self.merges]

    @cached_property
    def byte_ids(self) -> list[int | None]:
        """The id of <0x00>, of <0x01>, ...; None for those that are no token."""
        return [self.vocab.get(f"<0x{byte:02X}>") for byte in range(256)]

    def characters(self, piece: str) -> list[tuple[int, int]]:
        """(id, how many bytes it covers) of each character before anything merges."""
        found: list[tuple[int, int]] = []
        unknown = 0  # bytes of the unknown token that is still open
        unk_id = None if self.unk_token is None else self.vocab[self.unk_token]
        last = len(piece) - 1
        for i, character in enumerate(piece):
            n_bytes = len(character.encode())
            written = (self.prefix if i else "") + character + (self.suffix if i == last else "")
            token_id = self.vocab.get(written)
            if token_id is not None:
                if unknown and unk_id is not None:
                    found.append((unk_id, unknown))
                    unknown = 0
                found.append((token_id, n_bytes))
                continue
            if self.byte_fallback:
                ids = [self.byte_ids[byte] for byte in written.encode()]
                whole = [(byte_id, 1) for byte_id in ids if byte_id is not None]
                if len(whole) == len(ids):
                    found += whole  # an unknown token stays open: `tokenizers` has it so
                    continue
            if unk_id is not None:
                if unknown and not self.fuse_unk:
                    found.append((unk_id, unknown))
                    unknown = 0
                unknown += n_bytes
        return found + [(unk_id, unknown)] * (unknown > 0) if unk_id is not None else found

    def tokenize(self, piece: str) -> list[Token]:
        """Each token of a piece, with the bytes that it covers (if none was lost before it)."""
        if self.whole_pieces and piece in self.vocab:
            return [(self.vocab[piece], 0, len(piece.encode()))]
        found = self.characters(piece)
        ids = merge_in_place([token_id for token_id, _ in found], self.ranks, self.merged)
        tokens: list[Token] = []
        at = 0
        for token_id, (_, n_bytes) in zip(ids, found):
            if token_id >= 0:
                tokens.append((token_id, at, at + n_bytes))
            else:
                tokens[-1] = (*tokens[-1][:2], at + n_bytes)
            at += n_bytes
        return tokens
