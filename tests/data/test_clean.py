"""Cleaning: each rule does what it is named for, is counted, and applying all of them twice changes nothing."""

import re
import unicodedata
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from minillm.data.clean import RULES, RepeatedLines, clean_text, comment_block, is_wordy, two_places
from minillm.data.stopwords import CHINESE, ENGLISH, remove_stop_words

HEADER = "# Copyright 1999 Somebody.\n# Licensed under a licence.\n"


def test_each_rule_is_counted_by_name() -> None:
    counts: Counter[str] = Counter()
    text = "#!/bin/sh\r\n" + HEADER + "\n\n\n\n\ncafe\u0301 \u202emirrored\u200b  \t\r\nx\x00y\u2028z"
    assert clean_text(text, counts=counts) == "#!/bin/sh\n\n\ncafé mirrored\nxy\nz\n"
    assert counts == {
        "line_endings": 3,
        "invisible": 3,
        "unicode": 1,
        "trailing_space": 1,
        "blank_lines": 1,
        "licence": 1,
    }
    assert set(counts) == set(RULES)
    counts.clear()
    assert clean_text("fine\n", counts=counts) == "fine\n" and not counts


def test_normalization_forms() -> None:
    assert clean_text("ﬁ ² ，", normalization="NFC") == "ﬁ ² ，\n"
    assert clean_text("ﬁ ² ，", normalization="NFKC") == "fi 2 ,\n"
    assert clean_text("e\u0301", normalization="none") == "e\u0301\n"
    with pytest.raises(ValueError, match="must be NFC, NFKC or none, not 'NFD'"):
        clean_text("x", normalization="NFD")  # type: ignore[arg-type]


def longest_row_of_marks(text: str) -> int:
    kinds = "".join("m" if unicodedata.combining(c) else "-" for c in text)
    return max(map(len, re.findall("m+", kinds)), default=0)


@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0323\u0345", "\u0344", "\u0301" * 40 + "x"])
def test_normalizing_takes_linear_time(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the square of the marks in a row, so what counts is how many are given to it: 80,000 took 5 seconds."""
    rows: list[int] = []
    normalize = unicodedata.normalize

    class Counted:
        is_normalized = staticmethod(unicodedata.is_normalized)

        @staticmethod
        def normalize(form: str, text: str) -> str:
            rows.append(longest_row_of_marks(text))
            return normalize(form, text)

    monkeypatch.setattr("minillm.data.clean.unicodedata", Counted)
    text = "a" + marks * (80_000 // len(marks))
    cleaned = clean_text(text)
    assert rows and max(rows) <= 30 and longest_row_of_marks(cleaned) <= 30
    assert clean_text(cleaned) == cleaned
    written = normalize("NFD", cleaned.strip().replace("\u034f", ""))
    assert sorted(written) == sorted(normalize("NFD", "a") + "".join(normalize("NFD", c) for c in text[1:]))


def test_what_languages_write_is_not_cut() -> None:
    for text in ("Tiếng Việt\n", "हिन्दी में लिखा\n", "กินข้าวที่นี่\n", "Z̶̢͍a̴͓l̸͎g̶͕o̴͙\n", "שָׁלוֹם\n"):
        text = unicodedata.normalize("NFC", text)
        assert clean_text(unicodedata.normalize("NFD", text)) == text


def test_emoji_joiners_and_indentation_stay() -> None:
    for text in ("👩\u200d👧 fam\u200cily\n", "\tif x:\n\t\ty\n", "    code\n\n\n    more\n"):
        assert clean_text(text) == text


def test_licence_headers() -> None:
    body = "import os\n\n# a comment about nothing\nx = 1\n"
    assert clean_text(HEADER + "\n" + body) == body
    assert clean_text('"""Doc."""\n\n' + HEADER + "\n\n" + body) == '"""Doc."""\n\n\n' + body
    assert clean_text("/*\n * Copyright\n */\nint x;\n") == "int x;\n"
    assert clean_text("// SPDX-License-Identifier: MIT\nlet x;\n") == "let x;\n"
    assert clean_text(HEADER + body, licences=False) == HEADER + body
    deep = "x = 1\n" * 100 + HEADER  # not a header
    assert clean_text(deep) == deep
    said = 'print("copyright")\n"""Licensed."""\n'  # not a comment
    assert clean_text(said) == said
    assert RULES["licence"]('x = "licence"\n\n\n\n\ny') == (
        'x = "licence"\n\n\n\n\ny',
        0,
    )  # what it has no part in stays


def test_a_header_begins_within_the_first_80_lines_that_are_not_blank() -> None:
    for n, is_header in ((79, True), (80, False)):
        above = "x = 1\n\n" * n
        assert clean_text(above + HEADER + "y\n") == above + ("y\n" if is_header else HEADER + "y\n")


def test_where_a_comment_block_ends() -> None:
    lines = ["# a", " # b", "x", "/* c", "", "d */ ", "/* e */ y", "#!/bin/sh", "// f", "/* without end", "z"]
    blocks = [(2, True), (2, True), (3, False), (6, True), (5, False), (6, False), (7, False), (8, False)]
    assert [comment_block(lines, i) for i in range(8)] == blocks
    assert [comment_block(lines, i) for i in range(8, 11)] == [(9, True), (10, False), (11, False)]
    counts: Counter[str] = Counter()
    assert clean_text(HEADER + "x\n/* Copyright */\ny\n", counts=counts) == "x\ny\n" and counts == {"licence": 2}


def test_thirty_marks_in_a_row_are_left_as_they_are() -> None:
    assert clean_text("q" + "\u0323" * 30) == "q" + "\u0323" * 30 + "\n"
    assert clean_text("q" + "\u0323" * 31) == "q" + "\u0323" * 30 + "\u034f\u0323\n"


PIECES = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                "\n",
                "\n\n\n\n\n",
                "\r\n",
                "\r",
                "  \n",
                "\t",
                "# copyright\n",
                "// licence\n",
                "/* ",
                " */",
                "*/\n",
                "# a\n",
            ]
            + [
                "e\u0301",
                "e\u200b\u0301",
                "\u1100\u200b\u1161",
                "\u00a0\n",
                "\ufeff",
                "\ud800",
                "#!\n",
                "\u2028",
                "\x85",
            ]
        ),
    ),
    max_size=30,
)


@given(PIECES, st.sampled_from(["NFC", "NFKC", "none"]))
@example(["/* licence\n// copyright */ z\n*/"], "NFC")
@example(["e\u200b\u0301"], "NFC")
@example(["a\n\n\n# copyright\n\n\n" + "b\n" * 76 + "# licence\n"], "NFC")
@example(["/*\n// copyright\n*/ x\n*/\n"], "NFC")
def test_cleaning_is_idempotent_and_leaves_valid_text(pieces: list[str], normalization: str) -> None:
    once = clean_text("".join(pieces), normalization=normalization)  # type: ignore[arg-type]
    counts: Counter[str] = Counter()
    assert clean_text(once, normalization=normalization, counts=counts) == once  # type: ignore[arg-type]
    assert not counts
    once.encode()
    assert "\r" not in once and " \n" not in once and "\n\n\n\n" not in once


def test_a_long_run_of_spaces_takes_linear_time() -> None:
    assert clean_text("a" + " " * 2_000_000 + "b").endswith("b\n")


def test_repeated_lines_are_removed_where_they_are_boilerplate() -> None:
    notice = "This page was printed from the great library."
    texts = [f"Text number {i} is about {i}.\n{notice}\nAn end.\n" for i in range(20)]
    texts.append("def encode(self, input, errors='strict', final=False):\n" * 3)
    lines = RepeatedLines(min_documents=5, min_share=0.4)
    for text in texts:
        lines.count(text)
        lines.count("def encode(self, input, errors='strict', final=False):\n")
    assert lines.remove(texts[3]) == ("Text number 3 is about 3.\nAn end.\n", 1)
    assert lines.remove(texts[-1]) == (texts[-1], 0)  # code repeats by nature
    lines = RepeatedLines(min_documents=22, min_share=0.0)
    for text in texts:
        lines.count(text + notice)  # twice in one document counts once
    assert lines.remove(texts[3])[1] == 0
    with pytest.raises(ValueError, match="min_documents must be at least 2"):
        RepeatedLines(min_documents=1)


def test_what_reads_like_a_sentence() -> None:
    assert is_wordy("one two three, four five sixth.") and not is_wordy("one two three, four fifth.")
    assert is_wordy("one two three four five sixth x=1 y=2")  # two of eight pieces are no words: one in four
    assert not is_wordy("one two three four five sixth x=1 y=2 z=3")
    assert is_wordy("one\ttwo\tthree\tfour\tfive\tsixth")
    assert is_wordy("一二三四五六") and not is_wordy("一二三四五")


def test_lines_are_boilerplate_from_both_limits_on() -> None:
    notice = "This page was printed from the great library.\n"
    for n_with, n_all, removed in ((3, 12, 1), (2, 4, 0), (3, 13, 0)):  # at least 3 documents, and a quarter of all
        lines = RepeatedLines(min_documents=3, min_share=0.25)
        for i in range(n_all):
            lines.count(notice if i < n_with else "else")
        assert lines.remove("a\n" + notice) == (("a\n", 1) if removed else ("a\n" + notice, 0))
        assert lines.remove("a\n" + notice * 2 + "b")[1] == 2 * removed
    for wrong in ((1, 0.5), (2, -0.1), (2, 1.1)):
        with pytest.raises(ValueError, match="min_documents must be at least 2"):
            RepeatedLines(*wrong)
    assert RepeatedLines(2, 0.0).min_share == 0 and RepeatedLines(2, 1.0).min_share == 1
    assert (RepeatedLines().min_documents, RepeatedLines().min_share) == (10, 0.02)


def test_a_line_has_two_counters_that_have_nothing_in_common() -> None:
    places = np.array([two_places(str(i)) for i in range(4000)])  # (n, 2)
    assert places.min() >= 0 and places.max() < 2**20
    assert all(abs(places[:, row].mean() / 2**20 - 0.5) < 0.03 for row in range(2))
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.06
    for bit in range(20):  # each is drawn
        assert np.all(np.abs(((places >> bit) & 1).mean(axis=0) - 0.5) < 0.05)


def test_repeated_chinese_lines() -> None:
    lines = RepeatedLines(min_documents=3, min_share=0)
    for i in range(5):
        lines.count(f"第{i}篇文章\n本文由图书馆扫描整理。\n")
    assert lines.remove("第9篇文章\n本文由图书馆扫描整理。\n") == ("第9篇文章\n", 1)


def test_stop_words() -> None:
    assert remove_stop_words("The cat and the hat sat.", ["en"]) == ("cat hat sat.", 3)
    assert remove_stop_words("for_each x.is it's re-do the", ["en"]) == ("for_each x.is it's re-do ", 1)
    assert remove_stop_words("我们的目的是了解世界", ["zh"]) == ("目的了解世界", 3)
    assert remove_stop_words("The 猫的 hat") == ("猫 hat", 2)
    assert not ENGLISH & {"not", "no", "nor"} and "不" not in CHINESE
    with pytest.raises(ValueError, match="must be one of en, zh, not 'fr'"):
        remove_stop_words("le chat", ["fr"])


@given(st.lists(st.sampled_from(sorted(CHINESE | {"猫", "目", "天", "a", " "})), max_size=20))
def test_removing_chinese_stop_words_is_idempotent(pieces: list[str]) -> None:
    once, _ = remove_stop_words("".join(pieces), ["zh"])
    assert remove_stop_words(once, ["zh"]) == (once, 0)
