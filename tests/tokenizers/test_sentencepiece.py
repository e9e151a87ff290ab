"""SentencePiece's model files against SentencePiece itself: pieces and text, whatever the settings."""

import functools
import struct

import pytest
from drawn_texts import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES

sentencepiece = pytest.importorskip("sentencepiece")

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
@settings(max_examples=10_000)
@given(text=drawn)
def test_the_same_for_many_texts(name, text):
    check_equal(name, text)
