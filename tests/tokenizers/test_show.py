import ast
import doctest
import importlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, trained

from minillm.tokenizers import CharTokenizer, WordPieceTokenizer
from minillm.tokenizers.bpe import count_words
from minillm.tokenizers.bpe_plain import train_naive
from minillm.tokenizers.show import note_on_parts, render, replay_encoding, replay_training, show, show_merges


@pytest.mark.parametrize(
    "module",
    ["bert_text", "bpe", "bpe_plain", "byte_spelling", "char", "extend", "show", "split", "template", "wordpiece"],
)
def test_the_examples_in_the_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"minillm.tokenizers.{module}"))
    assert results.failed == 0 and results.attempted


def test_real_characters_are_shown() -> None:
    assert render(" 语言🎉 é\t\\'".encode()) == r"""' 语言🎉 é\t\\\''"""
    assert render("中".encode()[1:]) == r"'\xb8\xad'"
    assert render("a中".encode()[:-1]) == r"'a\xe4\xb8'"
    assert render("\x85\u200b\x00".encode()) == r"'\u0085\u200b\x00'"


def test_a_stray_byte_and_the_character_of_its_number_look_different() -> None:
    for code, character in ((0x7F, r"\x7f"), (0x80, r"\u0080"), (0x9F, r"\u009f"), (0xA0, r"\u00a0"), (0xFF, "ÿ")):
        assert render(chr(code).encode()) == f"'{character}'"
        assert render(bytes([code])) == rf"'\x{code:02x}'"
    assert render("\u0100\u0378".encode()) == r"'Ā\u0378'"


def test_a_token_is_part_of_each_character_that_it_cuts() -> None:
    whole = "é中é".encode()  # two bytes, three, two
    parts = {"é": (0, 1), "é中": (1, 4), "中": (3, 4), "中é": (4, 7), "é中é": (1, 6)}
    assert {text: note_on_parts(whole, *ends) for text, ends in parts.items()} == {
        text: f"  part of {text!r}" for text in parts
    }
    assert [note_on_parts(whole, *ends) for ends in ((0, 2), (2, 5), (5, 7), (0, 7), (2, 7))] == [""] * 5


@given(token=st.one_of(st.binary(max_size=6), st.text(max_size=4).map(str.encode)))
def test_different_tokens_look_different(token: bytes) -> None:
    """What is shown is a literal that leads back to the bytes, if \\x80 and up is taken as a byte, not a character."""
    literal = re.sub(r"\\(\\|x[89a-f])", lambda m: m[0].replace("x", "udc"), render(token))
    shown = ast.literal_eval(literal)
    assert shown.encode("utf-8", "surrogateescape") == token
    assert render(token).isprintable()


def test_show_names_the_character_that_a_token_is_part_of() -> None:
    lines = show(trained("gpt4"), "the 靐鑫<|end|>").splitlines()
    tok = trained("gpt4")
    ids = tok.encode("the 靐鑫<|end|>", allowed_special="all")
    assert [int(line.split()[0]) for line in lines] == ids
    assert any(line.endswith("part of '鑫'") for line in lines) and lines[-1].endswith("'<|end|>'")
    assert show(CharTokenizer.train(["中文"]), "文中").split() == ["1", "'文'", "0", "'中'"]
    assert show(tok, "") == ""


def test_replay_of_an_encoding_ends_in_the_encoding() -> None:
    tok = trained("gpt4")
    for text in SAMPLES:
        last_states = []
        for line in replay_encoding(tok, text).splitlines()[1:]:
            if line.startswith("    "):
                last_states[-1] = line.strip()
            else:
                last_states.append("")
        assert " ".join(last_states) == " ".join(render(tok.token_bytes(i)) for i in tok.encode(text))


def test_merges_are_shown_in_order() -> None:
    tok = trained("gpt2")
    lines = show_merges(tok).splitlines()
    assert len(lines) == len(tok.merges)
    assert [int(line.split()[0]) for line in lines] == list(range(256, 256 + len(lines)))
    assert show_merges(tok, 3, 5).splitlines() == lines[3:5]


def test_replay_of_training_shows_each_merge_and_its_count() -> None:
    lines = replay_training(SAMPLES, 20, pattern="gpt2").splitlines()
    steps = list(train_naive(count_words(SAMPLES, "gpt2"), 20))
    assert [int(line.split()[-2]) for line in lines] == [count for _, count in steps]
    assert [int(line.split()[0]) for line in lines] == [*range(256, 276)]


def test_word_pieces_are_shown_as_the_vocabulary_has_them() -> None:
    tok = WordPieceTokenizer.train(["low lower lowest 低"], 99)
    lines = show(tok, "Lowes 低 [SEP]").splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["'lowe'", "'##s'", "'低'", "'[SEP]'"]
