"""How a tokenizer.json makes text of tokens: its `decoder`, a step or a Sequence of steps.

A step takes the tokens of a text as strings and gives strings; at the end they are joined. `Decoder.token_bytes` says
what one token stands for within a text, which is what a model that writes token by token needs:

>>> steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
>>> decoder = read_decoder({"type": "Sequence", "decoders": steps}, Path("tokenizer.json"))
>>> decoder.decode(["▁Hi", "▁", "<0xC3>", "<0xA9>"]), decoder.token_bytes("<0xC3>")
(' Hi é', b'\\xc3')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import regex

from .byte_spelling import BYTE_OF_CHARACTER, unspell
from .json_parts import refuse, short, steps_of
from .patterns import pattern_in
from .pre_tokenizers import Metaspace, metaspace_of
from .wordpiece import clean_up

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


class Step(Protocol):
    """One change to the tokens of a text."""

    def apply(self, tokens: list[str]) -> list[str]:
        """All tokens of a text."""
        ...

    def within(self, token: bytes) -> bytes:
        """One token that is not the first of its text."""
        ...


@dataclass(frozen=True)
class Bytes:
    """ByteLevel: the tokens are bytes in GPT-2's alphabet."""

    def apply(self, tokens: list[str]) -> list[str]:
        return [b"".join(map(self.bytes_of, tokens)).decode("utf-8", "replace")]

    def within(self, token: bytes) -> bytes:
        return self.bytes_of(token.decode())

    def bytes_of(self, token: str) -> bytes:
        """A token with any other character stands for itself: it is an added one."""
        return unspell(token) if all(character in BYTE_OF_CHARACTER for character in token) else token.encode()


@dataclass(frozen=True)
class ByteFallback:
    """Runs of tokens like <0x0A> are bytes; each that is no UTF-8 together is U+FFFD by itself."""

    def apply(self, tokens: list[str]) -> list[str]:
        made: list[str] = []
        for is_byte, run in groupby(tokens, lambda token: BYTE_TOKEN.fullmatch(token) is not None):
            if not is_byte:
                made += run
                continue
            data = bytes(int(token[3:5], 16) for token in run)
            try:
                made.append(data.decode())
            except UnicodeDecodeError:
                made += ["\ufffd"] * len(data)
        return made

    def within(self, token: bytes) -> bytes:
        match = re.fullmatch(b"<0x([0-9A-Fa-f]{2})>", token)
        return bytes([int(match[1], 16)]) if match else token


@dataclass(frozen=True)
class Fuse:
    """All tokens as one."""

    def apply(self, tokens: list[str]) -> list[str]:
        return ["".join(tokens)]

    def within(self, token: bytes) -> bytes:
        return token


@dataclass(frozen=True)
class Strip:
    """Up to so many of one character away at the ends of each token."""

    content: str
    start: int
    stop: int

    def apply(self, tokens: list[str]) -> list[str]:
        return [self.stripped(token) for token in tokens]

    def stripped(self, token: str) -> str:
        start = 0
        while start < min(self.start, len(token)) and token[start] == self.content:
            start += 1
        end = len(token)
        while end > max(len(token) - self.stop, start) and token[end - 1] == self.content:
            end -= 1
        return token[start:end]

    def within(self, token: bytes) -> bytes:
        return token  # a text's ends, after Fuse


@dataclass(frozen=True)
class Spaces:
    """Metaspace: "▁" is a space, but for those of the first token, where one was put before the text."""

    metaspace: Metaspace

    def apply(self, tokens: list[str]) -> list[str]:
        mark, head = self.metaspace.mark, " " if self.metaspace.scheme == "never" else ""
        return [token.replace(mark, head if i == 0 else " ") for i, token in enumerate(tokens)]

    def within(self, token: bytes) -> bytes:
        return token.replace(self.metaspace.mark.encode(), b" ")


@dataclass(frozen=True)
class Replace:
    """Each match of a pattern by a text."""

    pattern: regex.Pattern[str]
    content: str

    def apply(self, tokens: list[str]) -> list[str]:
        return [self.pattern.sub(lambda _: self.content, token) for token in tokens]

    def within(self, token: bytes) -> bytes:
        try:
            return self.apply([token.decode()])[0].encode()
        except UnicodeDecodeError:
            return token  # a part of a character


@dataclass(frozen=True)
class WordPieces:
    """A space before each but those that go on with a word, whose prefix goes."""

    prefix: str
    cleanup: bool

    def apply(self, tokens: list[str]) -> list[str]:
        made = tokens[:1]
        for token in tokens[1:]:
            made.append(token[len(self.prefix) :] if token.startswith(self.prefix) else " " + token)
        return [clean_up(token) for token in made] if self.cleanup else made

    def within(self, token: bytes) -> bytes:
        return self.apply(["", token.decode()])[1].encode()


@dataclass(frozen=True)
class Suffix:
    """BPEDecoder: a suffix marks the end of a word, and is a space."""

    suffix: str

    def apply(self, tokens: list[str]) -> list[str]:
        last = len(tokens) - 1
        return [token.replace(self.suffix, "" if i == last else " ") for i, token in enumerate(tokens)]

    def within(self, token: bytes) -> bytes:
        return token.replace(self.suffix.encode(), b" ")


@dataclass(frozen=True)
class Decoder:
    """All steps, one after the other; without any, tokens are words, joined with spaces."""

    steps: tuple[Step, ...] | None

    def decode(self, tokens: list[str]) -> str:
        """The text that the tokens stand for."""
        if self.steps is None:
            return " ".join(tokens)
        for step in self.steps:
            tokens = step.apply(tokens)
        return "".join(tokens)

    def token_bytes(self, token: str) -> bytes:
        """What one token stands for, within a text."""
        data = token.encode()
        if self.steps is None:
            return b" " + data
        for step in self.steps:
            data = step.within(data)
        return data


def read_decoder(part: Any, path: Path) -> Decoder:
    """The steps of a file's `decoder`. Raises ValueError that names the part for what is not known."""
    if part is None:
        return Decoder(None)
    return Decoder(tuple(step_of(step, path) for step in steps_of(part, "decoders", path, "decoder")))


def step_of(step: Mapping[str, Any], path: Path) -> Step:
    kind = step["type"]
    if kind == "ByteLevel":
        return Bytes()
    if kind == "ByteFallback":
        return ByteFallback()
    if kind == "Fuse":
        return Fuse()
    if kind == "Metaspace":
        return Spaces(metaspace_of(step, path, "the decoder"))
    if kind == "Replace" and isinstance(step.get("content"), str):
        found = pattern_in(step, path, "the decoder's Replace")
        return Fuse() if found is None else Replace(found, step["content"])
    if kind == "WordPiece" and isinstance(step.get("prefix", "##"), str):
        return WordPieces(step.get("prefix", "##"), bool(step.get("cleanup", True)))
    if kind == "BPEDecoder" and isinstance(step.get("suffix", "</w>"), str):
        return Suffix(step.get("suffix", "</w>"))
    if kind == "Strip":
        content, start, stop = step.get("content"), step.get("start"), step.get("stop")
        if isinstance(content, str) and len(content) == 1 and type(start) is type(stop) is int:
            return Strip(content, start, stop)
        raise ValueError(f"{path}: the decoder's Strip needs one character and two numbers, but it is {short(step)}.")
    known = "ByteLevel, ByteFallback, Fuse, Strip, Metaspace, Replace, WordPiece and BPEDecoder can be read"
    raise refuse(path, "the decoder", step, known)
