"""Tokens found in the text before all else (added.py): the rules of the `tokenizers` library, and streams."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.tokenizers import BPETokenizer, WordPieceTokenizer
from minillm.tokenizers.added import AddedToken, find_added_tokens
from minillm.tokenizers.formats import tokenizer_json
from minillm.tokenizers.wordpiece import WordPieceTokenizer as WordPiece

TEXTS = ["<a>", "<a><b>", "a>", "ab", "Ab", "É", "e", "<A>", "中", " x", "x "]
flags = st.lists(st.booleans(), min_size=5, max_size=5)
rules = st.lists(st.tuples(st.sampled_from(TEXTS), flags), max_size=5, unique_by=lambda rule: rule[0])
pieces = [
    *TEXTS,
    " ",
    "\n",
    "\t",
    "b",
    "B",
    "x",
    "_",
    "e\u0301",
    "\u0301",
    "\u0338",
    "\u2003",
    "\x1c",
    "<",
    ">",
    "中",
    "1",
]
texts = st.lists(st.sampled_from(pieces), max_size=12).map("".join)

WORDS = ["<a> ab Ab É e x 中 _ 1 b B abab éé"]
BPE = BPETokenizer.train(WORDS, 290, pattern="qwen2", special_tokens=(), nfc=True)
PLAIN = BPETokenizer.train(WORDS, 290, special_tokens=())
PIECES = WordPieceTokenizer.train(WORDS, 60, min_frequency=1)


def with_tokens(base: Any, drawn: list[tuple[str, list[bool]]]) -> tuple[Any, Any]:
    """A tokenizer of ours, and the one that the `tokenizers` library reads from its file, with tokens added."""
    from tokenizers import Tokenizer

    names = ["special", "single_word", "lstrip", "rstrip", "normalized"]
    known = PIECES.vocab if base is PIECES else {}
    free = base.vocab_size
    added = []
    for text, values in drawn:
        added.append(AddedToken(text, known.get(text, free), **dict(zip(names, values))))
        free += text not in known
    if base is PIECES:
        ours: Any = WordPiece(PIECES.vocab, PIECES.special_tokens, added_tokens=added, template=PIECES.template)
        return ours, Tokenizer.from_str(json.dumps(ours.to_json()))
    ours = BPETokenizer(base.tokens + [t.text.encode() for t in added], base.merges, base.pattern, {}, nfc=base.nfc,
                        added_tokens=added)  # fmt: skip
    return ours, Tokenizer.from_str(json.dumps(tokenizer_json(ours)))


@pytest.mark.parametrize("base", [BPE, PLAIN, PIECES], ids=["nfc", "plain", "wordpiece"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=rules, text=texts, chunk_bytes=st.integers(1, 9))
def test_added_tokens_are_found_as_the_tokenizers_library_finds_them(
    base: Any, drawn: list[tuple[str, list[bool]]], text: str, chunk_bytes: int, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers.models")
    if base is not PIECES:  # a single byte's token cannot be added as another
        drawn = [rule for rule in drawn if rule[0] not in ("ab", "Ab", "e", "中", "É")]
    if base is PIECES:  # of two that are equal when normalised the library takes either, by the order of a hash table
        drawn = [
            *{(values[4] and PIECES._normalize(text)) or (text,): (text, values) for text, values in drawn}.values()
        ]
    ours, peer = with_tokens(base, drawn)
    ids = ours.encode(text, allowed_special="all")
    assert ids == peer.encode(text, add_special_tokens=False).ids
    (tmp_path / "text.txt").write_bytes(text.encode())
    arrays = ours.encode_file(tmp_path / "text.txt", chunk_bytes=chunk_bytes, allowed_special="all")
    assert [i for array in arrays for i in array.tolist()] == ids


@settings(max_examples=300)
@given(drawn=rules, parts=st.lists(texts, max_size=6))
def test_a_stream_is_found_through_as_its_whole_text(drawn: list[tuple[str, list[bool]]], parts: list[str]) -> None:
    tokens = [AddedToken(text, i, *values) for i, (text, values) in enumerate(drawn)]

    def joined(items: Any) -> list[str | int]:
        out: list[str | int] = []
        for item in items:
            if isinstance(item, str) and out and isinstance(out[-1], str):
                out[-1] += item
            elif item != "":
                out.append(item)
        return out

    assert joined(find_added_tokens(parts, tokens)) == joined(find_added_tokens(["".join(parts)], tokens))


def test_rules_one_by_one() -> None:
    def found(text: str, **rule: bool) -> list[str | int]:
        return [*find_added_tokens([text], [AddedToken("<m>", 7, **rule)])]

    assert found("a <m> b") == ["a ", 7, " b"]
    assert found("a <m> b", lstrip=True) == ["a", 7, " b"]
    assert found("a <m> \n b", rstrip=True) == ["a ", 7, "b"]
    assert [*find_added_tokens(["<m> ", " ", " b"], [AddedToken("<m>", 7, rstrip=True)])] == [7, "b"]
    assert "".join(map(str, find_added_tokens(["a ", " <", "m>"], [AddedToken("<m>", 7, lstrip=True)]))) == "a7"
    assert found("a<m> _<m> <m>, é<m>", single_word=True) == ["a<m> _<m> ", 7, ", é<m>"]
    assert found("a <m> <m>", lstrip=True, rstrip=True) == ["a", 7, 7]


def test_tokens_that_are_not_special_need_no_leave() -> None:
    word = AddedToken("<word>", PLAIN.vocab_size, special=False)
    mark = AddedToken("<mark>", PLAIN.vocab_size + 1)
    tok = BPETokenizer([*PLAIN.tokens, b"<word>", b"<mark>"], PLAIN.merges, "gpt4", {}, added_tokens=[word, mark])
    assert tok.special_tokens == {"<mark>": mark.id} and tok.encode("<word>") == [word.id]
    with pytest.raises(ValueError, match="holds '<mark>' at character 1"):
        tok.encode("a<mark>")
    assert tok.decode([word.id, mark.id], skip_special_tokens=True) == "<word>"
