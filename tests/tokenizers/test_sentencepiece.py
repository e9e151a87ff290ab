"""SentencePiece's model files against SentencePiece itself: pieces and text, whatever the settings."""

import functools
import struct

import pytest
from drawn_texts import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES

pytest.importorskip("sentencepiece")

import sentencepiece
from sentencepiece_models import MODELS, peer, trained, words

from minillm.tokenizers.sentencepiece import SentencePiece
from minillm.tokenizers.sentencepiece_file import fields, read_sentencepiece


@functools.cache
def ours(name):
    return SentencePiece(read_sentencepiece(trained(name)))


def check_equal(name, text):
    pieces = peer(name).encode(text, out_type=str)
    assert [piece for piece, _ in ours(name).encode(text)] == pieces
    assert ours(name).ids(text) == peer(name).encode(text)
    assert ours(name).decode(pieces) == peer(name).decode_pieces(pieces)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60)
@given(text=drawn)
def test_pieces_and_text_equal_sentencepiece(name, text):
    check_equal(name, text)


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3000)
@given(text=drawn)
def test_the_same_for_many_texts(name, text):
    check_equal(name, text)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_pieces_decode_as_in_sentencepiece(name, data):
    model = peer(name)
    piece = st.one_of(st.integers(0, model.get_piece_size() - 1).map(model.id_to_piece), st.sampled_from(["x▁", "▁zz"]))
    pieces = data.draw(st.lists(piece, max_size=10))
    assert ours(name).decode(pieces) == model.decode_pieces(pieces)


def field(number, value):
    """A field of a protocol buffer, as it stands in the file."""
    if isinstance(value, int):
        return bytes([number << 3, value]) if number < 16 else bytes([number << 3 & 0x7F | 0x80, number >> 4, value])
    data = struct.pack("<f", value) if isinstance(value, float) else value
    kind = 5 if isinstance(value, float) else 2
    key = number << 3 | kind
    size = b"" if kind == 5 else bytes([len(data) & 0x7F | 0x80, len(data) >> 7])
    return (bytes([key]) if key < 128 else bytes([key & 0x7F | 0x80, key >> 7])) + size + data


PLAIN = field(3, 0) + field(4, 0)  # neither a space before the text nor fewer within


def made(pieces, trainer=b"", normalizer=PLAIN):
    """A model file of (text, score, type)."""
    parts = [field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces]
    return b"".join(parts) + field(2, trainer) + field(3, normalizer)


UNK = ("<unk>", 0.0, 2)
parts = ["a", "b", "c", "ab", "bc", "abc", "ca", "cab", "aa", "aaa", "bb", "▁", "▁a", "é"]


@pytest.mark.parametrize("kind", [1, 2])
@settings(max_examples=200)
@given(
    scores=st.lists(st.tuples(st.integers(-6, 0), st.sampled_from([1, 1, 1, 4, 5])), min_size=14, max_size=14),
    text=st.text(alphabet="abcé x", max_size=20),
)
def test_equal_scores_unused_pieces_and_pieces_of_the_user(kind, scores, text):
    pieces = [UNK, *((part, score / 3, of) for part, (score, of) in zip(parts, scores))]
    data = made(pieces, field(3, kind))
    model = sentencepiece.SentencePieceProcessor(model_proto=data)
    mine = SentencePiece(read_sentencepiece(data))
    assert mine.ids(text) == model.encode(text)
    assert [piece for piece, _ in mine.encode(text)] == model.encode(text, out_type=str)


@pytest.mark.parametrize("text", ["a b", " ab  c ", "", "xé", " "])
def test_what_a_file_leaves_out_is_as_sentencepiece_has_it(text):
    data = made([UNK, *((part, -1.0, 1) for part in parts)], normalizer=b"")
    model = sentencepiece.SentencePieceProcessor(model_proto=data)
    mine = SentencePiece(read_sentencepiece(data))
    assert mine.ids(text) == model.encode(text)
    assert [piece for piece, _ in mine.encode(text)] == (pieces := model.encode(text, out_type=str))
    assert mine.decode(pieces) == model.decode_pieces(pieces)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 unknown pieces among 0: one is needed"),
        (b"\x0a\xff", "a number that does not end at byte 1"),
        (b"\x0b", "a field of wire type 3"),
        (b"\x0a\x05\x0a", "it ends within a field: 5 bytes from byte 2"),
        (b"\x08\x01", "its piece 0 is a number"),
        (b"\x10\x01", "its trainer_spec is a number"),
        (made([UNK, ("a", 0.0, 1), ("a", 0.0, 1)]), "the piece 'a' is there twice"),
        (made([UNK, ("a", 0.0, 7)]), "piece 1, b'a', of type 7"),
        (made([UNK, ("a", float("nan"), 1)]), "piece 1, b'a', has the score nan"),
        (made([UNK, UNK]), "2 unknown pieces among 2"),
        (made([UNK, ("<0x41>", 0.0, 6)]), "byte_fallback = False, and there are 1 pieces for bytes"),
        (field(1, field(1, 3)), "piece 0 must have a text and a score"),
        (field(1, field(1, b"a") + field(2, 3)), "piece 0 must have a text and a score"),
        (field(1, field(1, b"a") + field(2, b"abc")), "piece 0 must have a text and a score"),
        (made([UNK], field(3, 4)), "model_type is 'char' .4.: unigram and bpe are read"),
        (made([UNK], field(53, b"|")), "pretokenization_delimiter = b'|': not done here"),
        (made([UNK]) + field(5, field(2, b"abcd")), "it has a denormalizer_spec"),
        (made([UNK], normalizer=field(2, b"abcd")), "a precompiled_charsmap of 4 bytes cannot hold"),
        (made([UNK], normalizer=field(2, 3)), "its normalizer_spec.precompiled_charsmap is a number"),
    ],
)
def test_what_is_no_model_or_does_more_is_said(data, message):
    with pytest.raises(ValueError, match=message):
        read_sentencepiece(data)


def test_fields_are_read_as_they_are_written():
    """The helper above against the reader, and known bytes."""
    assert list(fields(field(53, b"|") + field(40, 5) + field(2, 1.5))) == [(53, b"|"), (40, 5), (2, b"\0\0\xc0?")]
    assert [piece for piece, _ in ours("marian").encode(" ")] == [] and SAMPLES and words()
