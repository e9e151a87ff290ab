"""Every shape of tokenizer.json against the `tokenizers` library: ids, offsets, text."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_texts import drawn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES

pytest.importorskip("tokenizers.models")

from tokenizer_shapes import BYTES, CHARS, SHAPES, changed, made, pack, packed
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from minillm.tokenizers import BPETokenizer, PipelineTokenizer, load_tokenizer
from minillm.tokenizers.added import AddedToken, find_added_tokens
from minillm.tokenizers.aligned import Aligned
from minillm.tokenizers.charsmap import CharsMap
from minillm.tokenizers.decoders import read_decoder
from minillm.tokenizers.normalizers import read_normalizer
from minillm.tokenizers.patterns import compiled, outside_of_sets
from minillm.tokenizers.pipeline_formats import pipeline_of
from minillm.tokenizers.pre_tokenizers import read_pre_tokenizer
from minillm.tokenizers.sections import find_spans
from minillm.tokenizers.unicode_forms import FORMS, aligned_form
from minillm.tokenizers.unigram import Unigram

PATH = Path("tokenizer.json")
OURS: dict[str, PipelineTokenizer] = {}


def ours(name: str) -> PipelineTokenizer:
    if name not in OURS:
        OURS[name] = pipeline_of(json.loads(made(name).to_str()), PATH)
    return OURS[name]


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=20)
@given(text=drawn)
@example(text="e\u0301a\u0316\u0301 a\u0316\u0323e \u0323\u0301zo\u0323\u0302x")
def test_ids_offsets_and_text_equal_the_tokenizers_library(name: str, text: str) -> None:
    check_equal(name, text)


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=5000)
@given(text=drawn)
def test_the_same_for_many_texts(name: str, text: str) -> None:
    check_equal(name, text)


def check_equal(name: str, text: str) -> None:
    """Ids, offsets and decoded text."""
    peer, tok = made(name), ours(name)
    expected = peer.encode(text, add_special_tokens=False)
    encoded = tok.encode_offsets(text)
    assert encoded.ids == tok.encode(text, allowed_special="all") == expected.ids
    assert encoded.offsets == expected.offsets
    assert encoded.words == expected.word_ids
    for skip in (False, True):
        assert tok.decode(encoded.ids, skip_special_tokens=skip) == peer.decode(encoded.ids, skip_special_tokens=skip)


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=10)
@given(data=st.data())
def test_any_ids_decode_as_in_the_tokenizers_library(name: str, data: st.DataObject) -> None:
    peer, tok = made(name), ours(name)
    known = [i for i, token in enumerate(tok.tokens) if token is not None]
    ids = data.draw(st.lists(st.sampled_from(known), max_size=12))
    assert tok.decode(ids) == peer.decode(ids, skip_special_tokens=False)
    assert tok.decode_bytes(ids) == b"".join(tok.token_bytes(i) for i in ids)


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_read_surrounded_and_saved(name: str, tmp_path: Path) -> None:
    peer = made(name)
    peer.save(str(tmp_path / "tokenizer.json"))
    tok = load_tokenizer(tmp_path)
    assert isinstance(tok, PipelineTokenizer) and len(tok.tokens) == peer.get_vocab_size()
    for pair in (None, "und zwei"):
        expected = peer.encode("one two", pair)
        assert tok.encode_pair("one two", pair) == (expected.ids, expected.type_ids)
    tok.save(tmp_path / "again.json")
    again = load_tokenizer(tmp_path / "again.json")
    assert again.fingerprint() == tok.fingerprint() and again.to_json() == tok.to_json()
    assert Tokenizer.from_file(str(tmp_path / "again.json")).to_str() == peer.to_str()


def test_tokens_are_bytes_within_a_text() -> None:
    tok = ours("llama")
    ids = tok.encode("the 魑")
    assert tok.decode_bytes(ids) == " the 魑".encode() and tok.decode(ids) == "the 魑"
    assert tok.decode(ids[:-1], "backslashreplace") == " the \\xe9\\xad" and tok.decode(ids[:-1]) == "the \ufffd\ufffd"
    assert tok.decode_bytes(ours("smollm").encode("")) == b""


@given(
    text=st.lists(st.sampled_from(["<s>", "a", "b", "_", " ", "\n", "\u3000"]), max_size=12).map("".join),
    flags=st.lists(st.tuples(st.sampled_from(["<s>", "a", "ab", "<"]), *[st.booleans()] * 3), min_size=1, max_size=3),
)
def test_added_tokens_are_found_as_in_a_stream(text: str, flags: list[Any]) -> None:
    tokens = [
        AddedToken(content, i, single_word=single, lstrip=left, rstrip=right)
        for i, (content, single, left, right) in enumerate(flags)
    ]
    found = list(find_spans(text, tokens))
    assert "".join(text[start:end] for start, end, _ in found) == text
    assert [i if i is not None else text[a:b] for a, b, i in found] == [
        item for item in find_added_tokens([text], tokens) if item != ""
    ]


def test_a_file_of_any_kind_encodes_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(SAMPLES), encoding="utf-8", newline="")
    for name in ("llama", "xlm-r", "deepseek"):
        arrays = list(ours(name).encode_file(tmp_path / "text.txt", chunk_bytes=100))
        assert [int(i) for array in arrays for i in array] == ours(name).encode("".join(SAMPLES))


def test_what_bpe_py_can_do_stays_with_it(tmp_path: Path) -> None:
    tok = BPETokenizer.train(SAMPLES, 300)
    tok.save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)
    made("smollm").save(str(tmp_path / "tokenizer.json"))
    assert isinstance(load_tokenizer(tmp_path), PipelineTokenizer)
    peer = made("prefix")
    for before in (None, pre_tokenizers.Whitespace(), pre_tokenizers.Sequence([])):  # without ByteLevel
        peer = Tokenizer.from_str(peer.to_str())
        peer.pre_tokenizer = before
        peer.save(str(tmp_path / "tokenizer.json"))
        tok = load_tokenizer(tmp_path)
        assert isinstance(tok, PipelineTokenizer) and tok.encode("the\nend") == peer.encode("the\nend").ids


# ---- the parts


@settings(max_examples=15)
@given(text=drawn)
@pytest.mark.parametrize("behavior", ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("pattern", ["a+", r"\s", r"\p{N}{1,3}|[\p{P}a]", r"^.|\w$"])
def test_every_behavior_of_split(text: str, behavior: str, invert: bool, pattern: str) -> None:
    peer = pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)
    (step,) = read_pre_tokenizer(json.loads(peer.__getstate__()), PATH)
    pieces = step([(text, 0, 0)], None)
    assert [(piece, (start, start + len(piece))) for piece, start, _ in pieces] == [
        (piece, span) for piece, span in peer.pre_tokenize_str(text) if piece
    ]


@settings(max_examples=15)
@given(text=drawn)
@pytest.mark.parametrize(
    "peer",
    [
        pre_tokenizers.FixedLength(length=3),
        pre_tokenizers.CharDelimiterSplit("a"),
        pre_tokenizers.Punctuation("merged_with_previous"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    ],
)
def test_further_pre_tokenizers(text: str, peer: Any) -> None:
    pieces = [(text, 0, 0)]
    for step in read_pre_tokenizer(json.loads(peer.__getstate__()), PATH):
        pieces = step(pieces, None)
    assert [piece for piece, _, _ in pieces] == [piece for piece, _ in peer.pre_tokenize_str(text)]


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text(alphabet="aeﬁ각\u1100\u1161\u11a8\u0301\u0316\u0323\u0327\u0344\u0f73\u0f71", max_size=9))
def test_the_steps_to_a_form_of_unicode_lead_to_it(form: Any, text: str) -> None:
    assert aligned_form(Aligned.of(text), form).text == unicodedata.normalize(form, text)


def test_every_character_is_cleaned_for_translation_as_in_the_tokenizers_library() -> None:
    text = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x10000)]))
    (step,) = read_normalizer({"type": "Nmt"}, PATH).steps
    assert step.apply(text) == normalizers.Nmt().normalize_str(text)


def test_what_older_files_leave_out_of_byte_level() -> None:
    step = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    peer = Tokenizer.from_str(json.dumps({**json.loads(made("prefix").to_str()), "pre_tokenizer": step}))
    tok = pipeline_of(json.loads(made("prefix").to_str()) | {"pre_tokenizer": step}, PATH)
    assert tok.encode_offsets("one two  three").words == peer.encode("one two  three").word_ids


@settings(max_examples=50)
@given(text=drawn)
def test_a_charsmap_as_in_the_tokenizers_library(text: str) -> None:
    (step,) = read_normalizer({"type": "Precompiled", "precompiled_charsmap": packed(CHARS)}, PATH).steps
    assert step.apply(text) == step.align(Aligned.of(text)).text == PRECOMPILED.normalize_str(text)


PRECOMPILED = normalizers.Precompiled(pack(CHARS))


@settings(max_examples=30)
@given(tokens=st.lists(st.sampled_from(["▁", "▁a", "<0x41>", "<0xC3>", "<0xA9>", "<0x4>", "##x", "  ", "", "."])))
@pytest.mark.parametrize(
    "peer",
    [
        decoders.ByteFallback(),
        decoders.Metaspace(),
        decoders.Metaspace(prepend_scheme="never"),
        decoders.WordPiece(),
        decoders.BPEDecoder("a"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
    ],
)
def test_decoders(tokens: list[str], peer: Any) -> None:
    assert read_decoder(json.loads(peer.__getstate__()), PATH).decode(tokens) == peer.decode(tokens)


@pytest.mark.parametrize("tokens", [["a...", "b.", "..", "a.b", "c..."], ["..."]])
def test_a_decoder_that_strips_the_end(tokens: list[str]) -> None:
    peer = decoders.Sequence([decoders.Fuse(), decoders.Strip(".", 1, 2)])
    for step in (peer, decoders.Strip(".", 0, 2), decoders.Strip(".", 1, 1)):
        assert read_decoder(json.loads(step.__getstate__()), PATH).decode(tokens) == step.decode(tokens)


@given(scores=st.lists(st.integers(-9, 0), min_size=15, max_size=15), text=st.text(alphabet="abcx", max_size=12))
def test_the_best_of_all_ways_to_cut(scores: list[int], text: str) -> None:
    """Against every way there is; ties may fall either way, so scores are compared."""
    names = ["<unk>", "a", "b", "ab", "bc", "bx", "ca", "aa", "bb", "abc", "bca", "cab", "aba", "abca", "abcabc"]
    vocab = [(name, float(score)) for name, score in zip(names, scores)]
    model = Unigram(vocab, 0)
    value = dict(vocab)

    def best(rest: str) -> float:
        ways = [value[rest[:n]] + best(rest[n:]) for n in range(1, len(rest) + 1) if rest[:n] in value]
        unknown = [] if rest[:1] in value or not rest else [min(value.values()) - 10 + best(rest[1:])]
        return max(ways + unknown, default=0.0)

    cut = [text[start:end] for start, end, _ in model.best_cut(text)]
    assert "".join(cut) == text
    assert sum(value.get(part, model.unknown_score) for part in cut) == best(text)


def test_of_equal_ways_to_cut_the_one_of_longer_tokens_is_taken() -> None:
    peer = Tokenizer(models.Unigram([("a", -1.0), ("b", -1.0), ("ab", -2.0)]))
    assert pipeline_of(json.loads(peer.to_str()), PATH).encode("abab") == peer.encode("abab").ids == [2, 2]


def test_a_unigram_model_without_an_unknown_token() -> None:
    peer = Tokenizer(models.Unigram([("a", -1.0), ("b", -1.0), ("ab", -3.0)]))
    tok = pipeline_of(json.loads(peer.to_str()), PATH)
    assert tok.encode("aab") == peer.encode("aab").ids == [0, 0, 1]
    with pytest.raises(ValueError, match=r"has no token for 'x', and no unknown token \(unk_id\) either\."):
        tok.encode("x")


# ---- what cannot be read is named


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "Magic"}, "the normalizer is Magic, which is not supported"),
        ("normalizer", {"type": "ByteLevel"}, "the normalizer is ByteLevel, which is not supported"),
        ("normalizer", {"type": "Prepend"}, "the normalizer's Prepend lacks a text"),
        ("normalizer", {"type": "Replace", "content": ""}, "the normalizer's Replace has no 'pattern' object"),
        (
            "normalizer",
            {"type": "Replace", "content": "", "pattern": {"Regex": "("}},
            "the normalizer's Replace has the pattern .* cannot be read",
        ),
        (
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            "the normalizer's precompiled_charsmap cannot be read",
        ),
        ("pre_tokenizer", {"type": "UnicodeScripts"}, "the pre_tokenizer is UnicodeScripts"),
        ("pre_tokenizer", {"type": "Split", "behavior": "x"}, 'Split has the behavior "x", which must be one of Rem'),
        (
            "pre_tokenizer",
            {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": r"\h"}},
            "Split has the pattern .* means something else in Python",
        ),
        (
            "pre_tokenizer",
            {"type": "FixedLength", "length": 0},
            "the pre_tokenizer is FixedLength, which is not support",
        ),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "__"}, 'a Metaspace with replacement "__"'),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]},
            r"ByteLevel \+ Digits, but nothing can follow ByteLevel",
        ),
        ("decoder", {"type": "CTC"}, "the decoder is CTC"),
        ("decoder", {"type": "Strip", "content": "ab"}, "the decoder's Strip needs one character and two numbers"),
        ("model.type", "Syllables", 'the model is "Syllables", but only BPE, Unigram and WordPiece'),
        ("model.dropout", 0.5, "model.dropout is 0.5"),
        ("model.unk_token", "<no>", "model.unk_token is '<no>', which is not in the vocabulary"),
        ("model.merges", [["a", "q", "x"]], "merge 0 must be two tokens"),
        ("model.merges", [["zz", "qq"]], "merge 0 is 'zz' \\+ 'qq', but 'zz' is not in the vocabulary"),
        ("model.vocab", {"a": 0, "b": 0}, "the id 0 is given to two tokens"),
        ("model.vocab", None, "the model has no 'vocab' and 'merges'"),
        ("model", {"type": "Unigram", "vocab": {}}, "the model has no 'vocab'"),
        ("model", {"type": "Unigram", "vocab": [["a", "b"]]}, "must list .token, score., but entry 0 is"),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 1}, "model.unk_id must be one of the 1 ids"),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": -1}, "model.unk_id must be one of the 1 ids"),
        ("model", {"type": "WordPiece"}, "the model has no 'vocab'"),
        ("post_processor", {"type": "Magic"}, "the post_processor is Magic"),
        ("added_tokens", [{"id": 999, "content": "<s>"}], "the added token '<s>' has id 999, but 1 in the model"),
    ],
)
def test_unsupported_parts_are_named(tmp_path: Path, part: str, value: Any, message: str) -> None:
    content: dict[str, Any] = json.loads(made("llama").to_str())
    *outer, key = part.split(".")
    (content[outer[0]] if outer else content)[key] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=f"tokenizer.json.*{message}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("pattern", [r"\h", r"a\R", "[a&&b]", "[a[bc]]", r"(?m:a)", r"[\h]", "(?~a)", r"(a)\k<1>"])
def test_patterns_that_python_reads_otherwise_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="means something else in Python"):
        compiled(pattern)


@pytest.mark.parametrize("pattern", [r"\\h", r"[\[\]]", "[[:alpha:]x]", "[]a]", r"(?i:'s)|\s+(?!\S)", r"[^\r\n\p{L}&]"])
def test_patterns_that_are_alike_are_read(pattern: str) -> None:
    assert compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "outside", "sets"),
    [
        ("a[^]b]c", "ac", ["^]b"]),
        ("[]a]b", "b", ["]a"]),
        (r"[a\]b]c\[", r"c\[", [r"a\]b"]),
        ("[[:alpha:]x][^y]", "", ["[:alpha:]x", "^y"]),
    ],
)
def test_where_a_set_ends(pattern: str, outside: str, sets: list[str]) -> None:
    assert outside_of_sets(pattern) == (outside, sets)


def test_a_charsmap_that_is_cut_off() -> None:
    whole = packed(CHARS)
    for text in ("", "AAAA", whole[:40], "AQAAAAAA"):
        with pytest.raises(ValueError):
            CharsMap(text)


def test_the_merges_of_bytes_are_those_of_characters() -> None:
    """A file whose bytes all have tokens gives the same by either way."""
    tok = BPETokenizer.train(SAMPLES, 500, pattern="gpt2")
    by_parts = pipeline_of(tok.to_json(), PATH)
    for text in SAMPLES:
        assert by_parts.encode(text) == tok.encode(text)
    assert re.fullmatch("[0-9a-f]{16}", by_parts.fingerprint())
    assert changed(made("llama")).get_vocab_size() == made("llama").get_vocab_size() and len(BYTES) == 256


@pytest.mark.parametrize(
    "pattern", [r"\w", r"\W", r"[\w]", r"[^\w]", r"[\W]", r"[^\W]", r"\w+", r"\W+", r"\w$", r"[\w-]+|\W"]
)
def test_words_are_onigurumas(pattern: str) -> None:
    """Of Latin-1 and some beyond: ¼ is a word's outside of a set, and not in one."""
    peer = pre_tokenizers.Split(Regex(pattern), "removed")
    (step,) = read_pre_tokenizer(json.loads(peer.__getstate__()), PATH)
    for character in [*map(chr, range(0x500)), *"ⅧⅳⅣ①⑴²‿⁀\u200c\u200d中한क्ि"]:
        for text in (character, "0" + character, character + "-"):
            expected = [(piece, span[0]) for piece, span in peer.pre_tokenize_str(text) if piece]
            assert [(piece, start) for piece, start, _ in step([(text, 0, 0)], None)] == expected, text


@pytest.mark.parametrize("skip", [False, True])
def test_a_batch_of_ids_is_told_to_be_decoded_row_by_row(tmp_path: Path, skip: bool) -> None:
    made("llama").save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    for batch in (np.zeros((2, 2), int), [[0], [0]]):
        with pytest.raises(TypeError, match="decode a batch row by row"):
            tokenizer.decode(batch, skip_special_tokens=skip)
    ids = tokenizer.encode("some text")
    assert tokenizer.decode(np.array(ids), skip_special_tokens=skip) == tokenizer.decode(ids, skip_special_tokens=skip)
