"""The simplest tokenizer that there is: one id for each character seen in training.

>>> tok = CharTokenizer.train(["abra cadabra"])
>>> tok.encode("cab")
[3, 1, 2]
>>> tok.decode([3, 1, 2])
'cab'

It needs no theory, and its ids are easy to follow in a debugger. What it lacks shows why BPE exists: sequences are as
long as the text, and a character that was not in training has no id.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ..disk import about, read_json
from ..disk.records import fits
from .base import END_OF_TEXT, Tokenizer
from .checks import check_special_tokens, check_text, check_texts, surrogate_error
from .json_parts import is_kind, tokenizer_json_path

FORMAT = "minillm-char-tokenizer"
WORD_LEVEL = "WordLevel"  # what the `tokenizers` library calls a vocabulary of whole words
ANY = r"[\s\S]"  # any character
NO_UNK = "[UNK]"  # which that library must be given a name for


class CharTokenizer(Tokenizer):
    """One id per character. Make one with `train`, or read one with `load`.

    characters: those that have an id, in the order of their ids. special_tokens: their ids follow.
    unk_token: the special token that stands for any character without an id; None: such a character raises.
    """

    def __init__(self, characters: str, special_tokens: Iterable[str], unk_token: str | None = None):
        specials = check_special_tokens(special_tokens)
        if unk_token is not None and unk_token not in specials:
            raise ValueError(f"unk_token {unk_token!r} must be one of the special tokens {specials}.")
        if len(set(characters)) < len(characters):
            raise ValueError("characters holds a character twice.")
        if clash := [token for token in specials if len(token) == 1 and token in characters]:
            raise ValueError(f"the special token {clash[0]!r} is also an ordinary character; choose a longer text.")
        tokens = [character.encode() for character in characters] + [token.encode() for token in specials]
        super().__init__(tokens, {token: len(characters) + i for i, token in enumerate(specials)})
        self.characters = characters
        self.unk_token = unk_token
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def train(
        cls, texts: Iterable[str], *, special_tokens: Iterable[str] = (END_OF_TEXT,), unk_token: str | None = None
    ) -> CharTokenizer:
        """Give an id to every character in `texts`, in the order of their code points, then to the special tokens.

        unk_token: added to the special tokens, to stand for characters that the texts do not hold, e.g. "<unk>".
        Raises ValueError for texts without a character.
        """
        specials = check_special_tokens(special_tokens)
        if unk_token is not None and unk_token not in specials:
            specials.append(unk_token)
        seen: set[str] = set()
        check_texts(texts)
        for text in texts:
            check_text(text)
            for special in specials:
                text = text.replace(special, "")
            seen.update(text)
        if not seen:
            raise ValueError("the texts hold no character to learn from; a generator gives its texts only once.")
        characters = "".join(sorted(seen))
        try:
            return cls(characters, specials, unk_token)
        except UnicodeEncodeError:
            raise surrogate_error(characters) from None

    def _encode_ordinary(self, text: str, final: bool) -> tuple[list[int], int]:
        try:
            return [self._ids[character] for character in text], len(text)
        except KeyError as error:
            if self.unk_token is None:
                character = error.args[0]
                raise ValueError(
                    f"character {character!r} (U+{ord(character):04X}) at position {text.index(character)} was not in "
                    f"the training texts, so it has no id. Train on text that holds it, or with unk_token='<unk>', or "
                    f"use BPETokenizer, which can encode anything."
                ) from None
        unknown = self.special_tokens[self.unk_token]
        return [self._ids.get(character, unknown) for character in text], len(text)

    def _rule(self) -> dict[str, Any]:
        unknown = None if self.unk_token is None else self.special_tokens[self.unk_token]
        return {"characters": self.characters, "unknown": unknown}

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json, in a format of our own."""
        specials = list(self.special_tokens)
        return dict(format=FORMAT, characters=self.characters, special_tokens=specials, unk_token=self.unk_token)

    def hf_json(self) -> dict[str, Any]:
        """The contents of a tokenizer.json for the `tokenizers` library, which has no such tokenizer by name: each
        character is a word there. Without an unk_token an unknown character is an error there, too."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        vocab = {character: i for i, character in enumerate(self.characters)} | self.special_tokens
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token, **plain} for token, i in self.special_tokens.items()],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Split", "pattern": {"Regex": ANY}, "behavior": "Isolated", "invert": False,
            },
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": WORD_LEVEL, "vocab": vocab, "unk_token": self.unk_token or NO_UNK},
        }  # fmt: skip

    @classmethod
    def from_hf_json(cls, content: dict[str, Any]) -> CharTokenizer:
        """The tokenizer that `hf_json` wrote. Raises ValueError for any other of this kind: words, for one."""
        model: Any = content["model"]
        added: Any = content.get("added_tokens")
        if not fits(model.get("vocab"), dict[str, int]) or not fits(added, list[dict[str, Any]]):
            raise ValueError("vocab must be ids by text, and added_tokens a list of tokens.")
        in_order = sorted(model["vocab"], key=model["vocab"].__getitem__)
        specials = [token.get("content") for token in added]
        characters = in_order[: len(in_order) - len(specials)]
        if not fits(specials, list[str]) or any(len(character) != 1 for character in characters):
            raise ValueError("its words are more than a character each, and minillm has no tokenizer of words.")
        unknown = model.get("unk_token")
        tokenizer = cls("".join(characters), specials, unknown if unknown in specials else None)
        wanted = tokenizer.hf_json()
        if differing := [key for key, value in wanted.items() if content.get(key) != value]:
            raise ValueError(f"it is no tokenizer of characters: {' and '.join(differing)} must be as minillm has it.")
        return tokenizer

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Read what `save` wrote, or what `hf_json` gave."""
        path = tokenizer_json_path(path)
        content = read_json(path)
        if isinstance(content, dict) and is_kind(content.get("model"), WORD_LEVEL):
            with about(path):
                return cls.from_hf_json(content)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f'{path} is no character tokenizer: it does not say "format": "{FORMAT}".')
        expected = {"characters", "special_tokens", "unk_token"}
        if set(content) != expected:
            raise ValueError(f"{path} must hold {sorted(expected)}, but holds {sorted(content)}.")
        with about(path):
            kinds = {"characters": str, "special_tokens": list[str], "unk_token": str | None}
            if not all(fits(content[name], kind) for name, kind in kinds.items()):
                raise ValueError("characters and unk_token must be texts, special_tokens a list of them.")
            return cls(**content)
