import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_samples import any_text, ascii_text

from minillm.tokenizers.split import UNICODE_PATTERNS, ascii_pattern, split_text, split_windows

PATTERNS = sorted(UNICODE_PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("possessive", [False, True])
@given(text=ascii_text)
def test_the_ascii_pattern_cuts_as_regex_does(pattern: str, possessive: bool, text: str) -> None:
    try:
        fast = re.compile(ascii_pattern(pattern, possessive=possessive))
    except re.error:
        pytest.skip("possessive quantifiers need Python 3.11")
    assert fast.findall(text) == regex.findall(UNICODE_PATTERNS[pattern], text)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("possessive", [False, True])
def test_the_ascii_pattern_on_every_short_text(pattern: str, possessive: bool) -> None:
    """Every triple of ASCII characters' kinds, so that no drawing of lots can miss one."""
    kinds = " \n\r\t\x0b\x1c\x1f\x00a'sSlLrve1_~\x7f"
    texts = [a + b + c + d for a in kinds for b in kinds for c in kinds for d in "a \n'1!"]
    texts += [chr(a) + chr(b) for a in range(128) for b in range(128)]
    try:
        fast = re.compile(ascii_pattern(pattern, possessive=possessive))
    except re.error:
        pytest.skip("possessive quantifiers need Python 3.11")
    slow = regex.compile(UNICODE_PATTERNS[pattern])
    assert [fast.findall(text) for text in texts] == [slow.findall(text) for text in texts]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=any_text, window=st.integers(1, 12))
def test_windows_of_any_size_cut_alike(pattern: str, text: str, window: int) -> None:
    whole = regex.findall(UNICODE_PATTERNS[pattern], text)
    windows = list(split_windows(text, pattern, window=window))
    assert [piece for pieces, _ in windows for piece in pieces] == whole == split_text(text, pattern)
    assert [n for _, n in windows] == [len("".join(pieces)) for pieces, _ in windows]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=any_text, more=any_text)
def test_what_is_settled_stays(pattern: str, text: str, more: str) -> None:
    settled = [piece for pieces, _ in split_windows(text, pattern, final=False) for piece in pieces]
    assert settled == regex.findall(UNICODE_PATTERNS[pattern], text + more)[: len(settled)]


def test_a_newline_may_yet_swallow_the_spaces_after_the_last_one() -> None:
    assert split_text("a\n    ", "gpt4") == ["a", "\n", "    "]
    assert split_text("a\n    \n", "gpt4") == ["a", "\n    \n"]
    assert list(split_windows("a\n    ", "gpt4", final=False)) == [(["a"], 1)]


def test_much_is_settled() -> None:
    """The rule above would also be kept by settling nothing."""
    text = "some words, then 中文没有空格的文字 and more"
    ((_, n_chars),) = split_windows(text, "gpt4", final=False)
    assert n_chars >= len(text) - 8


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_character_is_classified_as_the_tokenizers_library_does(pattern: str) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import Regex, pre_tokenizers

    peer = pre_tokenizers.Split(Regex(UNICODE_PATTERNS[pattern]), "isolated")
    characters = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co", "Lo")]
    for start in range(0, len(characters), 500):
        text = "".join(f"a{c}a 1{c}1 !{c}! {c}\n{c} {c}'{c} " for c in characters[start : start + 500])
        assert split_text(text, pattern) == [piece for piece, _ in peer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    "words",
    [["हिन्दी", " में", " लिखा"], ["กินข้าวที่นี่"], ["cafe\u0301", " no\u0308el"], [" שָׁלוֹם"], ["كَتَبَ", "،", " قال"], ["தமிழ்"]],
)
def test_marks_stay_with_their_letters(words: list[str]) -> None:
    assert split_text("".join(words), "qwen35") == words
    assert len(split_text("".join(words), "qwen2")) > len(words)


@given(text=ascii_text)
def test_without_marks_the_pattern_is_qwen2s(text: str) -> None:
    assert split_text(text, "qwen35") == split_text(text, "qwen2")


def test_an_unknown_pattern_is_named() -> None:
    with pytest.raises(ValueError, match="must be one of 'gpt2', 'gpt4', 'qwen2', 'qwen35', not 'gpt5'"):
        split_text("x", "gpt5")
