"""A tokenizer as tokenizer.json describes it, part by part: every shape that bpe.py and wordpiece.py are not made for.

    text -> added tokens found -> normalizer -> cut into pieces -> model -> ids        (and ids -> decoder -> text)

The parts are each in a file of their own: normalizers.py, pre_tokenizers.py, decoders.py, and for the model unigram.py,
bpe_characters.py or wordpiece.py. bpe.py does a part of this ten times as fast; this also knows, for every token, which
characters of the text it stands for (`encode_offsets`). Read `PipelineTokenizer.sections` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, Protocol

from .added import WHITE_SPACE, AddedToken
from .aligned import Aligned, Span, span_of
from .base import Special, Tokenizer
from .byte_spelling import CHARACTER_OF_BYTE, spell
from .decoders import Decoder
from .normalizers import Normalizer
from .pieces import PieceCache
from .pre_tokenizers import AtStart, ByteLevel, Metaspace, Piece, PreTokenizer
from .sections import find_spans
from .template import Template, framed

SPACES = WHITE_SPACE | {CHARACTER_OF_BYTE[ord(" ")]}


class Model(Protocol):
    """What makes tokens of a piece."""

    @property
    def vocab(self) -> Mapping[str, int]:
        """token -> id."""
        ...

    def tokenize(self, piece: str) -> list[tuple[int, int, int]]:
        """(id, first byte, last byte + 1) of each token."""
        ...


class Parts(NamedTuple):
    """The parts of a tokenizer.json, made and as they stand there.

    trim: whether offsets leave out white space at a token's ends, and whether a space was put before the text; None:
    they don't.
    """

    normalizer: Normalizer
    pre_tokenizer: tuple[PreTokenizer, ...]
    model: Model
    decoder: Decoder
    content: Mapping[str, Any]
    trim: bool | None


class Encoded(NamedTuple):
    """The ids of a text, and for each the span of characters that it stands for, and the number of its piece."""

    ids: list[int]
    offsets: list[Span]
    words: list[int]


class PipelineTokenizer(Tokenizer):
    """Made of the parts of a tokenizer.json: `load_tokenizer` reads one (pipeline_formats.py)."""

    def __init__(self, parts: Parts, *, added_tokens: Iterable[AddedToken], template: Template):
        added_tokens = list(added_tokens)
        self.parts = parts
        self.model = parts.model
        self.token_names = {token_id: token for token, token_id in parts.model.vocab.items()}
        top = max([*self.token_names, *(token.id for token in added_tokens)], default=-1)
        tokens: list[bytes | None] = [None] * (top + 1)
        for token_id, token in self.token_names.items():
            tokens[token_id] = parts.decoder.token_bytes(token)
        super().__init__(tokens, {}, added_tokens=added_tokens, template=template)
        self.name_added()
        self.is_byte_level = bool(parts.pre_tokenizer) and isinstance(parts.pre_tokenizer[-1], ByteLevel)
        self._first_only = any(isinstance(step, Metaspace) and step.scheme == "first" for step in parts.pre_tokenizer)
        self._cache = PieceCache(self.encode_piece)

    def name_added(self) -> None:
        """Take the added tokens' names as they are found in a text: those that are looked for in the normalised text
        are normalised themselves ("▁bar" in Llama 2). To be called again when there are more."""
        self.added_names = {}
        for token in self.added_tokens:
            normal = self._normalize(token.text) if token.normalized else ""
            self.added_names[token.id] = normal or token.text
            self.tokens[token.id] = self.parts.decoder.token_bytes(normal) if normal else token.text.encode()

    # ---- text -> ids

    def _normalize(self, text: str) -> str:
        return self.parts.normalizer.apply(text)

    def sections(self, text: str, wanted: Sequence[AddedToken], aligned: bool) -> Iterator[Section]:
        """The sections of a text: ids of the tokens found in it, and between them what is to be cut and encoded.

        aligned: with the place of every character in the text; otherwise only as far as cutting needs it.
        """
        plain = [token for token in wanted if not token.normalized]
        normal = [replace(token, text=self._normalize(token.text)) for token in wanted if token.normalized]
        normal = [token for token in normal if token.text]
        for start, end, token_id in find_spans(text, plain):
            if token_id is not None:
                yield Section(text[start:end], [(start, end)], token_id)
                continue
            keep_places = aligned or (self._first_only and start == 0)
            if keep_places:
                changed = self.parts.normalizer.align(Aligned.of(text[start:end], start))
            else:
                changed = Aligned(self._normalize(text[start:end]), [])
            for begin, stop, inner_id in find_spans(changed.text, normal):
                spans = changed.spans[begin:stop]
                yield Section(changed.text[begin:stop], spans, inner_id)

    def pieces(self, section: Section) -> list[Piece]:
        """A section cut by all steps of the pre_tokenizer."""
        pieces: list[Piece] = [(section.text, 0, 0)]
        at_start: AtStart | None = None
        if section.spans:
            at_start = lambda place: section.spans[place][0] == 0  # noqa: E731
        for step in self.parts.pre_tokenizer:
            pieces = step(pieces, at_start)
        return pieces

    def encode_piece(self, piece: str) -> list[int]:
        """The ids of one piece."""
        written = spell(piece.encode()) if self.is_byte_level else piece
        return [token_id for token_id, _, _ in self.model.tokenize(written)]

    def _encode_stream(self, texts: Iterable[str], wanted: Sequence[AddedToken]) -> Iterator[list[int]]:
        """All of the text at once: a normaliser may look at its beginning and end, and without a pre_tokenizer (Llama
        2) all of it is one piece."""
        text = "".join(texts)
        text.encode()  # raises UnicodeEncodeError for a lone surrogate, which `encode` explains
        for section in self.sections(text, wanted, aligned=False):
            if section.token_id is not None:
                yield [section.token_id]
            else:
                pieces = self.pieces(section)
                yield list(chain.from_iterable([self._cache[piece] for piece, _, _ in pieces]))

    def encode_offsets(
        self, text: str, *, allowed_special: Special = "all", disallowed_special: Special = ()
    ) -> Encoded:
        """The ids of a text, as `encode` gives them, with the places in it that they stand for."""
        wanted, _ = self._special_rule(allowed_special, disallowed_special)
        encoded = Encoded([], [], [])
        word = 0
        for section in self.sections(text, wanted, aligned=True):
            if section.token_id is not None:
                encoded.ids.append(section.token_id)
                encoded.offsets.append(span_of(section.spans))
                encoded.words.append(word)
                word += 1
                continue
            for piece, begin, added in self.pieces(section):
                spans = section.spans[begin : begin + 1] * added + section.spans[begin : begin + len(piece) - added]
                places = self.places(piece, spans)
                written = spell(piece.encode()) if self.is_byte_level else piece
                for token_id, start, end in self.model.tokenize(written):
                    encoded.ids.append(token_id)
                    encoded.offsets.append(span_of(places[start:end]))
                    encoded.words.append(word)
                word += 1
        if self.parts.trim is not None:
            self.trim(encoded)
        return encoded

    def places(self, piece: str, spans: Sequence[Span]) -> list[Span]:
        """The span of each byte of what the model sees of a piece."""
        if not self.is_byte_level:
            return [span for character, span in zip(piece, spans) for _ in character.encode()]
        of_bytes = [(byte, span) for character, span in zip(piece, spans) for byte in character.encode()]
        return [span for byte, span in of_bytes for _ in CHARACTER_OF_BYTE[byte].encode()]

    def trim(self, encoded: Encoded) -> None:
        """Leave white space at the ends of tokens out of their offsets, as ByteLevel's trim_offsets says."""
        for i, (token_id, (start, end)) in enumerate(zip(encoded.ids, encoded.offsets)):
            name = self.name_of(token_id)
            before = next((n for n, character in enumerate(name) if character not in SPACES), len(name))
            behind = next((n for n, character in enumerate(reversed(name)) if character not in SPACES), len(name))
            if before == 1 and (i == 0 or start == 0) and self.parts.trim:
                before = 0  # it was put before the text
            start = min(start + before, end)
            encoded.offsets[i] = (start, max(end - behind, start) if behind and end >= behind else end)

    def _rule(self) -> dict[str, Any]:
        content = self.parts.content
        return {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "model")}

    # ---- ids -> text

    def name_of(self, token_id: int) -> str:
        """How the file writes a token."""
        return self.added_names.get(token_id) or self.token_names[token_id]

    def _text_of(self, ids: list[int], data: bytes) -> str:
        """By the file's decoder: without the space that was put before the text."""
        return self.parts.decoder.decode(list(map(self.name_of, ids)))

    # ---- files

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json: the parts as they were read, with the added tokens and the template."""
        content = self.parts.content
        parts = [content.get(name) for name in ("normalizer", "pre_tokenizer", "decoder", "model")]
        made = framed(self, *parts)
        return {**made, "post_processor": self.parts.content.get("post_processor", made["post_processor"])}


class Section(NamedTuple):
    """A part of the normalised text; the span of each of its characters (empty if nobody asked); the id if it is an
    added token."""

    text: str
    spans: list[Span]
    token_id: int | None
