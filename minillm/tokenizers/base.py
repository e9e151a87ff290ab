"""What every tokenizer can do, whatever its tokens are: special tokens, streaming, decoding.

A tokenizer is a list `tokens`, where tokens[id] is the bytes that the id stands for, and a rule that turns text into
ids. A subclass brings the rule (`_encode_ordinary`) and its file format (`to_json`, `load`); the rest is here.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..disk import write_json
from .added import END, AddedToken, find_added_tokens
from .bulk import Bulk
from .checks import check_text, check_texts, surrogate_error
from .json_parts import MAX_IDS, tokenizer_json_path
from .template import PLAIN, Template

END_OF_TEXT = "<|endoftext|>"
Special = Literal["all"] | Collection[str]  # texts of special tokens
MIN_ARRAY = 1 << 12  # ids that `encode_file` gathers before it yields an array


class Tokenizer:
    """Text to ids and back.

    tokens: id -> the token's bytes; None for an id that stands for nothing (only in files made elsewhere).
    special_tokens: text -> id of tokens that mark structure, such as the end of a document. They are never made from
        ordinary text: `encode` produces them only where the caller allows it.
    added_tokens: further tokens that are found in the text before all else, with rules of their own (added.py); the
        special ones among them join special_tokens, the others need no one's leave.
    template: what `encode_pair` puts around one text or between two (template.py).
    """

    bulk: Bulk | None = None  # what encodes much ordinary text at once, where there is such a thing
    end_of_text = END_OF_TEXT  # the special token that ends a document; Llama's is "</s>"

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        special_tokens: Mapping[str, int],
        *,
        added_tokens: Iterable[AddedToken] = (),
        template: Template = PLAIN,
    ):
        self.tokens = list(tokens)
        self.added_tokens = [AddedToken(text, token_id) for text, token_id in special_tokens.items()]
        self.added_tokens += added_tokens
        self.special_tokens = {token.text: token.id for token in self.added_tokens if token.special}
        self.template = template

    def _normalize(self, text: str) -> str:
        """`text` in the form that the vocabulary was made for. A cut before an ASCII character must change nothing."""
        return text

    def _encode_ordinary(self, text: str, final: bool) -> tuple[list[int], int]:
        """(ids, how many characters of `text` they cover), special tokens not regarded.

        final=True: all of `text`. final=False: more text follows, so only what it cannot change any more.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how to encode.")

    def _rule(self) -> dict[str, Any]:
        """All that decides which ids a text gets, but for the added tokens, ready for JSON."""
        raise NotImplementedError(f"{type(self).__name__} must say what decides its ids.")

    def to_json(self) -> dict[str, Any]:
        """The contents of tokenizer.json."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is saved.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `path` (or `path`/tokenizer.json, unless the name ends in .json), whole or not at all.

        Raises ValueError for more ids than `load` takes.
        """
        if self.vocab_size > MAX_IDS:
            raise ValueError(f"{self.vocab_size} ids are more than a file can have, {MAX_IDS}: give lower ones.")
        write_json(tokenizer_json_path(path), self.to_json())

    # ---- properties

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included: every id is in 0..vocab_size-1."""
        return len(self.tokens)

    @property
    def eos_id(self) -> int | None:
        """The id of `end_of_text`, which ends a document; None if the tokenizer has no such token."""
        return self.special_tokens.get(self.end_of_text)

    @property
    def target_side(self) -> Tokenizer:
        """The tokenizer of texts that are to be written: this one, but for a translator's with two (Marian)."""
        return self

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for. Raises ValueError for an id out of range."""
        return self.decode_bytes([token_id])

    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for two tokenizers that give every text the same ids, different otherwise.

        So the kind of tokenizer, its rule and its added tokens count; the template, file formats and decoding don't.
        (That other merges or pieces would come to the same ids is not always known: then the fingerprints differ.)
        """
        rule = self._rule()
        looked_for = {t: self._normalize(t.text) if t.normalized else t.text for t in self.added_tokens}
        added = sorted(self.added_tokens, key=looked_for.__getitem__)  # of equal texts the first counts
        if not rule.get("normalization") and len({token.normalized for token in added}) == 1:
            added = [replace(token, normalized=False) for token in added]  # all are looked for in one and the same text
        text = json.dumps([type(self).__name__, rule, [astuple(token) for token in added]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={list(self.special_tokens)})"

    # ---- text -> ids

    def encode(self, text: str, *, allowed_special: Special = (), disallowed_special: Special = "all") -> list[int]:
        """The ids of `text` alone, without the template that `encode_pair` puts around it.

        A document that happens to hold the text "<|endoftext|>" must not end early. So, by the rule of tiktoken, the
        text of a special token becomes its id only if it is in `allowed_special` (a collection, or "all"); if it is in
        `disallowed_special` ("all": every one not allowed) it raises ValueError; otherwise it is ordinary text. Where
        two special tokens fit at one place, the longer is taken.
        """
        return self.encode_batch([text], allowed_special=allowed_special, disallowed_special=disallowed_special)[0]

    def encode_batch(
        self, texts: Iterable[str], *, allowed_special: Special = (), disallowed_special: Special = "all"
    ) -> list[list[int]]:
        """`encode` for each of several texts."""
        check_texts(texts)
        allowed, disallowed = self._special_rule(allowed_special, disallowed_special)
        encoded = []
        for text in texts:
            try:
                parts = self._encode_stream(refuse_special([check_text(text)], disallowed), allowed)
                encoded.append(list(chain.from_iterable(parts)))
            except UnicodeEncodeError:
                raise surrogate_error(text) from None
        return encoded

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` for each of several texts, with special tokens' texts as ordinary text: what packing needs."""
        if self.bulk is None or not all(token.special for token in self.added_tokens):
            return [np.array(ids, np.int64) for ids in self.encode_batch(texts, disallowed_special=())]
        ids, counts, _ = self.bulk.encode(map(self._normalize, texts))
        return np.split(ids, np.cumsum(counts)[:-1])

    def encode_pair(
        self, text: str, pair: str | None = None, *, allowed_special: Special = (), disallowed_special: Special = "all"
    ) -> tuple[list[int], list[int]]:
        """(ids, token type ids) of one text, or of two, as the model wants to see them: [CLS] A [SEP] B [SEP].

        To truncate in between, `encode` the texts and give the ids to `template.apply`.
        """
        texts = [text] if pair is None else [text, pair]
        encoded = self.encode_batch(texts, allowed_special=allowed_special, disallowed_special=disallowed_special)
        return self.template.apply(*encoded)

    def encode_file(
        self,
        path: str | os.PathLike[str],
        *,
        chunk_bytes: int = 1 << 20,
        allowed_special: Special = (),
        disallowed_special: Special = "all",
        progress: bool = False,
    ) -> Iterator[np.ndarray]:
        """Encode a UTF-8 file of any size, yielding its ids in arrays of uint16 (uint32 above 65,536 tokens).

        Joined, the arrays equal `encode` of the whole file, line ends and all: the text is cut only where that changes
        no token. Memory holds about `chunk_bytes` of text at a time, or the longest pre-token if that is longer.
        progress: show a bar of bytes done. Raises ValueError if the file is not UTF-8, naming the first bad byte.
        """
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes must be at least 1, not {chunk_bytes}.")
        allowed, disallowed = self._special_rule(allowed_special, disallowed_special)
        path = Path(path)
        bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc="encode", disable=not progress)
        return self._encode_chunks(refuse_special(read_chunks(path, chunk_bytes, bar), disallowed), allowed)

    def _encode_chunks(self, chunks: Iterable[str], allowed: list[AddedToken]) -> Iterator[np.ndarray]:
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        ids: list[int] = []
        for part in self._encode_stream(chunks, allowed):
            ids += part
            if len(ids) >= MIN_ARRAY:
                yield np.array(ids, dtype)
                ids = []
        if ids:
            yield np.array(ids, dtype)

    def _special_rule(self, allowed: Special, disallowed: Special) -> tuple[list[AddedToken], dict[str, int]]:
        """The two arguments as the tokens to look for, and those to refuse: text -> id."""
        chosen: list[set[str]] = []
        for name, tokens in [("allowed_special", allowed), ("disallowed_special", disallowed)]:
            if tokens == "all":
                tokens = self.special_tokens if name == "allowed_special" else set(self.special_tokens) - chosen[0]
            if isinstance(tokens, str):
                raise ValueError(f'{name} must be "all" or a collection of strings, so {{{tokens!r}}}, not {tokens!r}.')
            if unknown := [token for token in tokens if token not in self.special_tokens]:
                known = list(self.special_tokens) or "none at all"
                raise ValueError(f"{name} names {unknown[0]!r}, which is no special token of this tokenizer: {known}.")
            chosen.append(set(tokens))
        wanted = [token for token in self.added_tokens if not token.special or token.text in chosen[0]]
        return wanted, {text: token_id for text, token_id in self.special_tokens.items() if text in chosen[1]}

    def _encode_stream(self, texts: Iterable[str], wanted: Sequence[AddedToken]) -> Iterator[list[int]]:
        """Ids of the parts of one text as they come: find tokens, normalise what lies between, find, encode the rest.

        Each step holds back the end of what it has as long as more text could change it.
        """
        plain = [token for token in wanted if not token.normalized]
        normal = [replace(token, text=self._normalize(token.text)) for token in wanted if token.normalized]
        found = find_added_tokens(self._normalize_stream(find_added_tokens(texts, plain)), normal)
        text, retry_at = "", 0
        for item, following in pairwise(chain(found, [END])):
            if isinstance(item, int):
                yield [item]
                continue
            text += item
            final = not isinstance(following, str)
            if final or len(text) >= retry_at:
                ids, used = self._encode_ordinary(text, final)
                text = text[used:]
                retry_at = 0 if used else 2 * len(text)  # so that a very long pre-token is not rescanned n times
                yield ids

    def _normalize_stream(self, items: Iterable[str | int]) -> Iterator[str | int]:
        text = ""
        for item, following in pairwise(chain(items, [END])):
            if isinstance(item, int):
                yield item
                continue
            text += item
            cut = len(text)
            if isinstance(following, str):
                cut = next((i for i in range(len(text) - 1, 0, -1) if text[i] < "\x80"), 0)
            if cut:
                yield self._normalize(text[:cut])
                text = text[cut:]

    # ---- ids -> text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for, one after the other; special tokens give the UTF-8 of their text.

        ids: any iterable of integers, or an integer array of one dimension. Raises ValueError for an id out of range.
        """
        if isinstance(ids, np.ndarray):
            ids = ids.tolist()
        ids = list(ids)
        try:
            if not ids or min(ids) >= 0:
                return b"".join([self.tokens[token_id] for token_id in ids])  # type: ignore[misc]
        except (IndexError, TypeError):
            pass  # explained below
        for place, token_id in enumerate(ids):
            if not hasattr(token_id, "__index__"):
                raise TypeError(f"ids must be integers, but ids[{place}] is {token_id!r}; decode a batch row by row.")
            if not 0 <= token_id < self.vocab_size or self.tokens[token_id] is None:
                raise ValueError(
                    f"ids[{place}] is {token_id}, and this tokenizer has no such token: its ids are 0.."
                    f"{self.vocab_size - 1}. Are they another tokenizer's, or a model's whose vocabulary is padded?"
                )
        raise AssertionError("unreachable: some id must have been wrong.")

    def decode(self, ids: Iterable[int], errors: str = "replace", *, skip_special_tokens: bool = False) -> str:
        """The text that `ids` stand for; without the special tokens if `skip_special_tokens`.

        A token may hold part of a character, so ids cut anywhere need not be UTF-8. errors: "replace" puts U+FFFD for
        each bad sequence, "strict" raises UnicodeDecodeError, "backslashreplace" shows the bytes, as in `bytes.decode`.
        """
        ids = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        data = self.decode_bytes(ids)  # raises for an id that is none
        if skip_special_tokens:
            ids = self._without_special(ids)
            data = self.decode_bytes(ids)
        return data.decode("utf-8", errors) if errors != "replace" else self._text_of(ids, data)

    def _text_of(self, ids: list[int], data: bytes) -> str:
        """The text of valid ids, whose bytes are `data`: not these alone where a decoder looks at its neighbours."""
        return data.decode("utf-8", "replace")

    def _without_special(self, ids: Iterable[int]) -> list[int]:
        special = set(self.special_tokens.values())
        return [token_id for token_id in ids if token_id not in special]


def refuse_special(texts: Iterable[str], disallowed: Mapping[str, int]) -> Iterator[str]:
    """The parts of a text as they are, or a ValueError as soon as one of the special tokens `disallowed` shows."""
    keep = max(map(len, disallowed), default=1) - 1
    start, end = 0, ""  # where in the whole text the part begins, and the end of what came before it
    for text in texts:
        seen = end + text
        for token, token_id in disallowed.items():
            if token in seen:
                raise ValueError(
                    f"the text holds {token!r} at character {start - len(end) + seen.index(token)}, which is the text "
                    f"of a special token. Pass allowed_special={{{token!r}}} to encode it as that token (id "
                    f"{token_id}), or disallowed_special=() to encode it as ordinary text."
                )
        start, end = start + len(text), seen[max(len(seen) - keep, 0) :] if keep else ""
        yield text


def read_chunks(path: Path, chunk_bytes: int, bar: tqdm) -> Iterator[str]:
    """A UTF-8 file as pieces of text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    with bar, open(path, "rb") as file:
        while True:
            chunk = file.read(chunk_bytes)
            pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk began
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at offset "
                    f"{done - pending + error.start} ({error.reason}). If it is text in another encoding, convert "
                    f"it first: open(path, encoding=...).read() and write it back as UTF-8."
                ) from None
            if not chunk:
                return
            done += len(chunk)
            bar.update(len(chunk))
            yield text
