"""A fingerprint stands for what decides ids, and for nothing else: it names token files and guards --resume."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, trained

from minillm.tokenizers import (
    BertNormalizer,
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)  # fmt: skip
from minillm.tokenizers.added import AddedToken
from minillm.tokenizers.byte_spelling import BYTE_OF_ID
from minillm.tokenizers.extend import with_special_tokens
from minillm.tokenizers.gpt2_files import load_gpt2, save_gpt2
from minillm.tokenizers.split import UNICODE_PATTERNS
from minillm.tokenizers.template import PLAIN, bert_template

WORDS = ["low lower lowest low slow", "a slow glow, below [MASK]"]


def some_tokenizers() -> list[Tokenizer]:
    return [
        *(trained(pattern) for pattern in UNICODE_PATTERNS),
        BPETokenizer.train(SAMPLES, 400, nfc=True),
        WordPieceTokenizer.train(WORDS, 60),
        WordPieceTokenizer.train(WORDS, 60, normalizer=BertNormalizer(lowercase=False)),
        CharTokenizer.train(WORDS, unk_token="<unk>"),
        CharTokenizer.train(WORDS),
    ]


def test_tokenizers_that_give_other_ids_have_other_fingerprints() -> None:
    found = [tok.fingerprint() for tok in some_tokenizers()]
    assert len(set(found)) == len(found) and all(len(print_) == 16 for print_ in found)
    assert [tok.fingerprint() for tok in some_tokenizers()] == found


def test_they_are_the_same_in_every_version() -> None:
    """Token files and runs name their tokenizer by it, so another one would make them all strangers."""
    assert BPETokenizer.train(WORDS, 262).fingerprint() == "b9bf7fa27cb38b7c"
    assert WordPieceTokenizer.train(WORDS, 60).fingerprint() == "1bab7ece536e2bb3"
    assert CharTokenizer.train(WORDS, unk_token="<unk>").fingerprint() == "dc55c2526f0e314e"


# ---- what does not count


@pytest.mark.parametrize("number", range(8))
def test_a_file_keeps_it(tmp_path: Path, number: int) -> None:
    tok = some_tokenizers()[number]
    tok.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint() == tok.fingerprint()


@pytest.mark.parametrize("number", range(7))
def test_the_spelling_and_the_template_of_a_file_do_not_count(tmp_path: Path, number: int) -> None:
    """The fault: it hashed the file's contents, so that all of these had fingerprints of their own."""
    tok = some_tokenizers()[number]
    tok.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tokens = content["added_tokens"]
    first = {"cls": [tokens[0]["content"], tokens[0]["id"]], "sep": [tokens[0]["content"], tokens[0]["id"]]}
    content |= {
        "version": "2.0",
        "truncation": {"max_length": 5},
        "post_processor": {"type": "BertProcessing", **first},
    }
    content["added_tokens"] = tokens[::-1]
    content["model"]["vocab"] = dict(sorted(content["model"]["vocab"].items()))
    if content["model"]["type"] == "BPE":
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]  # as before 2024
        content["model"]["ignore_merges"] = True  # each token is what its own bytes merge to
    else:
        content["decoder"]["cleanup"] = False
    path.write_text(json.dumps(content, indent=None), encoding="utf-8")
    other = load_tokenizer(tmp_path)
    assert other.template != tok.template and other.fingerprint() == tok.fingerprint()


@pytest.mark.parametrize("number", range(7))
def test_a_file_written_by_the_tokenizers_library_keeps_it(tmp_path: Path, number: int) -> None:
    peers = pytest.importorskip("tokenizers")
    tok = some_tokenizers()[number]
    tok.save(tmp_path / "a.json")
    peers.Tokenizer.from_file(str(tmp_path / "a.json")).save(str(tmp_path / "b.json"))
    assert load_tokenizer(tmp_path / "b.json").fingerprint() == tok.fingerprint()


@pytest.mark.parametrize("number", range(7))
def test_a_folder_written_by_transformers_keeps_it(tmp_path: Path, number: int) -> None:
    transformers = pytest.importorskip("transformers")
    tok = some_tokenizers()[number]
    tok.save(tmp_path)
    ends = "[SEP]" if isinstance(tok, WordPieceTokenizer) else "<|endoftext|>"
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=ends)
    theirs.save_pretrained(tmp_path / "theirs")
    assert load_tokenizer(tmp_path / "theirs").fingerprint() == tok.fingerprint()


def test_gpt2s_two_files_keep_it(tmp_path: Path) -> None:
    tok = BPETokenizer.train(SAMPLES, 500, pattern="gpt2")
    save_gpt2(tok, tmp_path)
    assert os.listdir(tmp_path) != ["tokenizer.json"]
    assert load_gpt2(tmp_path).fingerprint() == tok.fingerprint()
    assert load_gpt2(tmp_path, special_tokens=()).fingerprint() != tok.fingerprint()


def test_a_special_token_counts_once_wherever_it_stands(tmp_path: Path) -> None:
    """In the vocabulary, as BERT's files have it, or only among the added tokens: no word holds "[MASK]"."""
    tok = WordPieceTokenizer.train(WORDS, 60, special_tokens=["[UNK]"])
    longer = with_special_tokens(tok, ["[MASK]"])
    vocab = {**tok.vocab, "[MASK]": longer.special_tokens["[MASK]"]}
    other = WordPieceTokenizer(vocab, longer.special_tokens)
    assert other.fingerprint() == longer.fingerprint() != tok.fingerprint()
    assert other.encode("a [MASK] low", allowed_special="all") == longer.encode("a [MASK] low", allowed_special="all")


def test_whole_pieces_count_where_they_make_a_difference() -> None:
    tokens = [*(bytes([byte]) for byte in BYTE_OF_ID), b"lo", b"low", b"ow"]
    merges = [(75, 78), (256, 86)]
    plain, whole = (BPETokenizer(tokens, merges, "gpt4", {}, whole_pieces=whole) for whole in (False, True))
    assert plain.encode("ow") != whole.encode("ow") and plain.fingerprint() != whole.fingerprint()
    plain, whole = (BPETokenizer(tokens[:-1], merges, "gpt4", {}, whole_pieces=whole) for whole in (False, True))
    assert plain.fingerprint() == whole.fingerprint()
    for whole_pieces in (True, False):  # of a token that no merges build, the text counts where whole pieces are taken
        first, second = (
            BPETokenizer([*tokens[:-1], token], merges, "gpt4", {}, whole_pieces=whole_pieces)
            for token in (b"ow", b"wo")
        )
        assert (first.encode("ow wo") != second.encode("ow wo")) == whole_pieces
        assert (first.fingerprint() != second.fingerprint()) == whole_pieces


# ---- what counts

ADDED = AddedToken("ab", 260, special=False)
FLAGS = ["special", "single_word", "lstrip", "rstrip", "normalized"]


@pytest.mark.parametrize("flag", FLAGS)
def test_the_rules_of_an_added_token_count(flag: str) -> None:
    tokens = [*(bytes([byte]) for byte in BYTE_OF_ID), *[None] * 4, b"ab"]
    found = {
        BPETokenizer(tokens, [], "gpt4", {}, nfc=True, added_tokens=[token]).fingerprint()
        for token in (ADDED, replace(ADDED, **{flag: not getattr(ADDED, flag)}), replace(ADDED, text="ac"))
    }
    assert len(found) == 3


def test_where_nothing_is_normalised_an_added_token_is_looked_for_in_the_same_text() -> None:
    tokens = [*(bytes([byte]) for byte in BYTE_OF_ID), *[None] * 4, b"ab"]
    first, second = (
        BPETokenizer(tokens, [], "gpt4", {}, added_tokens=[replace(ADDED, normalized=normalized)])
        for normalized in (False, True)
    )
    assert first.fingerprint() == second.fingerprint()


@st.composite
def small_tokenizers(draw: st.DrawFn) -> Tokenizer:
    """From so few choices that two are often the same, or nearly."""
    if draw(st.booleans()):
        merges = draw(st.lists(st.sampled_from([(64, 64), (64, 65), (256, 64)]), max_size=2, unique=True))
        tokens: list[bytes | None] = [bytes([byte]) for byte in BYTE_OF_ID]
        usable = []
        for left, right in merges:
            if left < len(tokens) and (new := (tokens[left] or b"") + (tokens[right] or b"")) not in tokens:
                tokens.append(new)
                usable.append((left, right))
        if draw(st.booleans()):
            tokens.append(b"ba")  # which no merge makes
        token = AddedToken("éa", len(tokens), special=draw(st.booleans()), normalized=draw(st.booleans()))
        return BPETokenizer(
            [*tokens, "éa".encode()],
            usable,
            draw(st.sampled_from(["gpt2", "gpt4"])),
            {},
            whole_pieces=draw(st.booleans()),
            nfc=draw(st.booleans()),
            added_tokens=draw(st.sampled_from([[], [token]])),
            template=draw(st.sampled_from([PLAIN, bert_template("a", 64, "b", 65)])),
        )
    vocab = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3}
    return WordPieceTokenizer(
        draw(st.sampled_from([vocab, vocab | {"##b": 4}, vocab | {"[CLS]": 4}])),
        {},
        normalizer=BertNormalizer(lowercase=draw(st.booleans()), strip_accents=draw(st.sampled_from([None, True]))),
        max_word_chars=draw(st.sampled_from([3, 100])),
        cleanup=draw(st.booleans()),
    )


@settings(max_examples=400)
@given(first=small_tokenizers(), second=small_tokenizers(), texts=st.lists(any_text | st.text("aAbé1' \n"), max_size=8))
def test_equal_fingerprints_mean_equal_ids(first: Tokenizer, second: Tokenizer, texts: list[str]) -> None:
    texts = [*texts, "aaab ab ba", "éa e\u0301", "ÀA Bb", "aaaa", "123 'S"]
    for allowed in ((), "all"):
        ids = [
            tok.encode_batch(texts, allowed_special=allowed, disallowed_special=())  # type: ignore[arg-type]
            for tok in (first, second)
        ]
        if first.fingerprint() == second.fingerprint():
            assert ids[0] == ids[1]
