"""A tokenizer made of SentencePiece's model files: Marian's two, with its vocab.json, or a folder's tokenizer.model.

Marian (the translators opus-mt) cuts source texts with one model and target texts with another; what a piece's id is,
vocab.json says for both. A text may begin with the language to translate into, ">>fra<<", which is one token.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..disk import about, read_json
from .added import AddedToken
from .base import Tokenizer
from .json_parts import check_ids, read_added_tokens
from .sections import find_spans
from .sentencepiece import SPACE, SentencePiece
from .sentencepiece_file import BYTE, CONTROL, MAX_BYTES, UNKNOWN, read_sentencepiece
from .template import PLAIN, Template, framed, read_template

KIND = "SentencePiece"  # the model's type in our own tokenizer.json
FILES = {"source": "source.spm", "target": "target.spm", "vocab": "vocab.json"}  # Marian's
MODEL_FILE = "tokenizer.model"
END, UNK = "</s>", "<unk>"


class SentencePieceTokenizer(Tokenizer):
    """source: a model file's bytes. With `vocab`, piece -> id, and `target`, a second model file, it is Marian's."""

    def __init__(
        self,
        source: bytes,
        target: bytes | None = None,
        vocab: Mapping[str, int] | None = None,
        *,
        added_tokens: Iterable[AddedToken] = (),
        template: Template | None = None,
    ) -> None:
        self.data = {"source": source, "target": target}
        self.source = SentencePiece(read_sentencepiece(source))
        self.target = None if target is None else SentencePiece(read_sentencepiece(target))
        self.is_marian = vocab is not None
        own = {text: i for i, (text, _, _) in enumerate(self.source.file.pieces)}
        self.vocab = own if vocab is None else dict(vocab)
        added = list(added_tokens) or self.reserved_tokens()
        ids = {**self.vocab, **{token.text: token.id for token in added}}
        tokens: list[bytes | None] = [None] * (max(ids.values()) + 1)
        for text, token_id in ids.items():
            is_byte = self.source.kinds[self.source.id_of(text)] == BYTE
            tokens[token_id] = bytes([int(text[3:5], 16)]) if is_byte else text.replace(SPACE, " ").encode()
        ends = PLAIN
        if self.is_marian:
            ends = Template((("$A", 0), (END, 0)), (("$A", 0), ("$B", 0), (END, 0)), {END: (ids[END],)})
        super().__init__(tokens, {}, added_tokens=added, template=template or ends)
        self.pieces = {token_id: text for text, token_id in self.vocab.items()}
        self.on_target = False

    def reserved_tokens(self) -> list[AddedToken]:
        """The special tokens of files that declare none: Marian's, or the model's control and unknown pieces."""
        if self.is_marian:
            if absent := [text for text in (END, UNK) if text not in self.vocab]:
                raise ValueError(f"vocab.json has no {absent[0]!r}, which every Marian has.")
            return [AddedToken(text, self.vocab[text]) for text in (END, UNK, "<pad>") if text in self.vocab]
        kinds = enumerate(self.source.file.pieces)
        return [AddedToken(text, i) for i, (text, _, kind) in kinds if kind in (UNKNOWN, CONTROL)]

    @property
    def names(self) -> dict[int, str]:
        """id -> piece or added token, as the files write it."""
        return {**self.pieces, **{token.id: token.text for token in self.added_tokens}}

    @property
    def target_side(self) -> SentencePieceTokenizer:
        """The same tokenizer for texts in the language that is translated into."""
        if self.target is None:
            return self
        made = copy.copy(self)
        made.on_target = True
        return made

    # ---- text -> ids

    def _encode_stream(self, texts: Iterable[str], wanted: Sequence[AddedToken]) -> Iterator[list[int]]:
        """All of the text at once, and what lies between two added tokens by itself."""
        text = "".join(texts)
        text.encode()  # raises UnicodeEncodeError for a lone surrogate, which `encode` explains
        for start, end, token_id in find_spans(text, wanted):
            yield [token_id] if token_id is not None else self.ids_of(text[start:end])

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text in which nothing is special."""
        model = self.target if self.on_target and self.target is not None else self.source
        if not self.is_marian:
            return model.ids(text)
        language = text[: text.find("<<") + 2] if text.startswith(">>") and "<<" in text else ""
        pieces = [language] * bool(language) + [piece for piece, _ in model.encode(text[len(language) :])]
        unknown = self.vocab[UNK]
        return [unknown if piece in self.special_tokens else self.vocab.get(piece, unknown) for piece in pieces]

    def _rule(self) -> dict[str, Any]:
        return self.model_json()

    # ---- ids -> text

    def _text_of(self, ids: list[int], data: bytes) -> str:
        """By the source's model, as Marian has it, without the space before the text."""
        special, added = set(self.special_tokens.values()), {token.id: token.text for token in self.added_tokens}
        text = ""
        for is_special, run in groupby(ids, special.__contains__):
            names = [added.get(token_id) or self.pieces[token_id] for token_id in run]
            if is_special:
                text += "".join(name + " " * self.is_marian for name in names)
            else:
                text += self.source.decode(names)
        return text.replace(SPACE, " ").strip() if self.is_marian else text

    # ---- files

    def model_json(self) -> dict[str, Any]:
        packed = {name: None if data is None else base64.b64encode(data).decode() for name, data in self.data.items()}
        return {"type": KIND, **packed, "vocab": self.vocab if self.is_marian else None}

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json, in a format of our own: the model files as they are."""
        return framed(self, None, None, None, self.model_json())

    def files(self) -> dict[str, Any]:
        """What other libraries read: file name -> its bytes, or its content as JSON."""
        if not self.is_marian:
            return {MODEL_FILE: self.data["source"]}
        return {**{FILES[name]: data for name, data in self.data.items()}, FILES["vocab"]: self.vocab}

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> SentencePieceTokenizer:
        """The reverse of `to_json`. Raises ValueError."""
        model = content["model"]
        try:
            packed = [model.get("source"), model.get("target")]
            data = [None if text is None else base64.b64decode(text, validate=True) for text in packed]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: the model's source and target must be in base64: {error}.") from None
        vocab = model.get("vocab")
        if data[0] is None or (vocab is None) != (data[1] is None):
            raise ValueError(f"{path}: the model needs a source, and both of target and vocab, or none of the two.")
        if vocab is not None:
            check_vocab(vocab, path)
        added = read_added_tokens(content, path)
        with about(path):
            made = cls(data[0], data[1], vocab, added_tokens=added)
        known = {i for i, token in enumerate(made.tokens) if token is not None}
        made.template = read_template(content.get("post_processor"), known, path)
        return made

    @classmethod
    def load_marian(cls, folder: Path) -> SentencePieceTokenizer:
        """Marian's three files. Raises FileNotFoundError or ValueError, each with the file's name."""
        vocab = read_json(folder / FILES["vocab"])
        check_vocab(vocab, folder / FILES["vocab"])
        source, target = (read_model(folder / FILES[name]) for name in ("source", "target"))
        with about(folder / FILES["vocab"]):
            return cls(source, target, vocab)


def check_vocab(vocab: Any, path: Path) -> None:
    if not isinstance(vocab, dict) or not vocab:
        raise ValueError(f"{path}: the vocabulary must be an object of piece -> id.")
    check_ids(vocab, path)


def read_model(path: Path) -> bytes:
    """A model file's bytes, which are one. Raises ValueError with its name."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and a SentencePiece model at most {MAX_BYTES:,}.")
    data = path.read_bytes()
    with about(path):
        read_sentencepiece(data)
    return data
