"""The names of tokens: which of them has which role ([PAD] pads, [CLS] begins), and how each id is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ..tokenizers import BPETokenizer, PipelineTokenizer, SentencePieceTokenizer, Tokenizer
from ..tokenizers.formats import spell, unspell

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class RoleText:
    """`tokenizer.pad_token`: the text of the token with a role, or None. It can be set to None, or a token there is."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name

    def __get__(self, tokenizer: NamedTokens, owner: type | None = None) -> str | None:
        return tokenizer.tokens.get(self.role)

    def __set__(self, tokenizer: NamedTokens, text: str | None) -> None:
        if text is None:
            tokenizer.tokens.pop(self.role, None)
            return
        if tokenizer.id_of(text) is None:
            known = list(tokenizer.core.special_tokens)
            raise ValueError(f"{self.role} = {text!r} is no special token of this tokenizer. Give one of {known}.")
        tokenizer.tokens[self.role] = text


class RoleId:
    """`tokenizer.pad_token_id`: the id of the token with a role, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    def __get__(self, tokenizer: NamedTokens, owner: type | None = None) -> int | None:
        text = tokenizer.tokens.get(self.role)
        return None if text is None else tokenizer.id_of(text)


class NamedTokens:
    """The part of a `PretrainedTokenizer` that knows tokens by name.

    core: what turns text into ids. tokens: role -> text, such as "pad_token" -> "[PAD]". further_tokens: special
    ones without such a role. vocab_size: how many tokens the file's model has; `len(tokenizer)` counts those added to
    it too, and a model's embedding table needs that many rows.
    """

    core: Tokenizer
    tokens: dict[str, str]
    further_tokens: list[str]
    vocab_size: int

    bos_token, eos_token, unk_token, sep_token = RoleText(), RoleText(), RoleText(), RoleText()
    pad_token, cls_token, mask_token = RoleText(), RoleText(), RoleText()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = RoleId(), RoleId(), RoleId(), RoleId()
    pad_token_id, cls_token_id, mask_token_id = RoleId(), RoleId(), RoleId()

    def id_of(self, text: str) -> int | None:
        """The id of a special or added token, None if there is none of this text."""
        return added_id(self.core, text)

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of the tokens with a role, then of the further ones, each once."""
        named = [self.tokens[role] for role in ROLES if role in self.tokens]
        return list(dict.fromkeys([*named, *self.further_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [token_id for text in self.all_special_tokens if (token_id := self.id_of(text)) is not None]

    def __len__(self) -> int:
        return self.core.vocab_size

    @cached_property
    def token_of(self) -> dict[int, str]:
        """id -> token as tokenizer.json writes it: "Ġthe" for " the" in byte-level BPE, "##s" in WordPiece."""
        bpe = isinstance(self.core, BPETokenizer)
        given = [(i, token) for i, token in enumerate(self.core.tokens) if token is not None]
        names = {i: spell(token) if bpe else token.decode("utf-8", "replace") for i, token in given}
        if isinstance(self.core, PipelineTokenizer):
            return {**self.core.token_names, **self.core.added_names}
        if isinstance(self.core, SentencePieceTokenizer):
            return self.core.names
        names.update({token.id: token.text for token in self.core.added_tokens})
        return names

    @cached_property
    def id_of_name(self) -> dict[str, int]:
        """The reverse of `token_of`."""
        added = {token.text: token.id for token in self.core.added_tokens}
        return {**{name: token_id for token_id, name in self.token_of.items()}, **added}

    def get_vocab(self) -> dict[str, int]:
        """token -> id, added tokens among them."""
        return dict(self.id_of_name)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or those of several (list, array or tensor). Raises ValueError for an id of no token."""
        if hasattr(ids, "tolist"):
            ids = ids.tolist()
        several = [ids] if isinstance(ids, int) else list(ids)
        if unknown := [token_id for token_id in several if token_id not in self.token_of]:
            raise ValueError(f"no token has the id {unknown[0]}: there are {len(self)} ids, from 0 on.")
        skipped = set(self.core.special_tokens.values()) if skip_special_tokens else set()
        tokens = [self.token_of[token_id] for token_id in several if token_id not in skipped]
        return tokens[0] if isinstance(ids, int) and tokens else tokens

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or those of several. For what is no token: the id of unk_token, None if there is none."""
        if isinstance(tokens, str):
            return self.id_of_name.get(tokens, self.unk_token_id)
        return [self.id_of_name.get(token, self.unk_token_id) for token in tokens]


def added_id(core: Tokenizer, text: str) -> int | None:
    """The id of a special or added token, None if there is none of this text."""
    return next((token.id for token in core.added_tokens if token.text == text), None)


def id_in_vocabulary(core: Tokenizer, text: str) -> int | None:
    """The id of a token by its spelling in the file, be it ordinary or added; None if there is none."""
    if (found := added_id(core, text)) is not None:
        return found
    if isinstance(core, BPETokenizer):
        try:
            return core.id_of_token.get(unspell(text))
        except KeyError:  # a character that no ordinary token is written with
            return None
    if isinstance(core, PipelineTokenizer):
        return core.model.vocab.get(text)
    if isinstance(core, SentencePieceTokenizer):
        return core.vocab.get(text)
    token_bytes = text.encode()
    return core.tokens.index(token_bytes) if token_bytes in core.tokens else None
