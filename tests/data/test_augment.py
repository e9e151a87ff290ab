"""Augmentation: the same for (seed, epoch, index), never empty, never at protected words, in texts with and without
spaces."""

import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import Augmentation, back_translate, our_synonyms, read_synonyms
from minillm.data.augment import CONTRASTS, NEGATIONS, cut_words, plain_word, protected_in, word_pattern
from minillm.data.synonyms import table_of

PROTECTED = NEGATIONS | CONTRASTS
PATTERN = word_pattern(PROTECTED)
EN = "The film was not bad at all, but I didn't really like its slow, tedious ending."
ZH = "这部电影并不无聊，但是我没有特别喜欢它的结尾。"
MIXED = "我用 Python 写了 3 个 programs, 不过 it doesn’t 运行。"
PARTS = ["not", "Film", "big", "不", "电影", " ", ", ", "don't", "é"]
ANY_TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS)).map("".join))
RATES = st.floats(0, 0.99)


def words_of(text):
    return [plain_word(word) for word in cut_words(text, PATTERN)[1]]


@given(ANY_TEXT, RATES, RATES, RATES, st.integers(0, 2**70), st.integers(0, 10**6), st.integers(0, 10**6))
def test_promises_hold_for_any_text(text, dropout, swap, synonyms, seed, epoch, index):
    augment = Augmentation(dropout, swap, synonyms, our_synonyms(), seed=seed)
    new = augment(text, epoch, index)
    assert new == Augmentation(dropout, swap, synonyms, our_synonyms(), seed=seed)(text, epoch, index)
    assert bool(new.strip()) == bool(text.strip())
    assert [w for w in words_of(new) if w in PROTECTED] == [w for w in words_of(text) if w in PROTECTED]
    assert bool(words_of(new)) == bool(words_of(text))


@given(ANY_TEXT, st.integers(0, 9))
def test_off_means_off(text, epoch):
    assert Augmentation()(text, epoch, 0) == text


@pytest.mark.parametrize("text", [EN, ZH, MIXED])
def test_words_and_gaps_are_the_text(text):
    gaps, words = cut_words(text, PATTERN)
    assert gaps[0] + "".join(w + g for w, g in zip(words, gaps[1:])) == text


def test_words_of_texts_with_and_without_spaces():
    assert cut_words("I don’t 喜欢它。", PATTERN)[1] == ["I", "don’t", "喜", "欢", "它"]
    assert cut_words("我没有电影", word_pattern([*PROTECTED, *our_synonyms()]))[1] == ["我", "没有", "电影"]
    assert cut_words("हिन्दी 한국어 x_1", PATTERN)[1] == ["हिन्दी", "한국어", "x", "1"]


@pytest.mark.parametrize("text", [EN, ZH])
def test_dropout_leaves_out_its_share(text):
    augment = Augmentation(dropout=0.3)
    before = [w for w in words_of(text) if w not in PROTECTED]
    shares = []
    for epoch in range(400):
        new = augment(text, epoch, 5)
        after = words_of(new)
        assert not Counter(after) - Counter(words_of(text)) and "  " not in new
        shares.append(1 - sum(w not in PROTECTED for w in after) / len(before))
    assert abs(np.mean(shares) - 0.3) < 0.02


def test_dropout_keeps_the_spaces_right():
    seen = {Augmentation(dropout=0.5, protected=frozenset())("a bad, old film", epoch, 0) for epoch in range(200)}
    assert {"bad, old film", "a bad, film", "a bad, old", "old", "film"} <= seen
    assert not any("  " in text or text != text.strip() for text in seen)
    seen = {Augmentation(dropout=0.5)("I 中文", epoch, 0) for epoch in range(99)}
    assert seen == {"I 中文", "I 中", "I 文", "I", "中文", "中", "文"}


@pytest.mark.parametrize("text", [EN, ZH])
def test_swap_keeps_every_word_and_moves_some(text):
    augment = Augmentation(swap=0.3)
    new = [augment(text, epoch, 0) for epoch in range(50)]
    assert all(Counter(words_of(n)) == Counter(words_of(text)) and len(n) == len(text) for n in new)
    assert len(set(new)) > 20
    before = words_of(text)
    for n in new:  # by one place at most, and not over a comma
        moved = [abs(i - before.index(w)) for i, w in enumerate(words_of(n)) if before.count(w) == 1]
        assert max(moved) <= 1
    assert all("，但是" in n for n in new) if text is ZH else all(", but" in n for n in new)


def test_synonyms_come_from_the_table_and_keep_capitals():
    augment = Augmentation(synonyms=0.9, table=our_synonyms())
    seen = {augment("Big film, 无聊的电影", epoch, 0) for epoch in range(60)}
    assert "Large movie, 乏味的影片" in seen and all(text[0] in "BL" for text in seen)


def test_a_synonym_that_is_protected_is_never_put_in():
    augment = Augmentation(synonyms=0.99, table=table_of([["rarely", "never", "seldom"]]))
    counts = Counter(augment("I rarely go", e, 0) for e in range(50))
    assert set(counts) <= {"I rarely go", "I seldom go"} and counts["I seldom go"] > 40
    assert {augment("I never go", e, 0) for e in range(50)} == {"I never go"}


def test_epochs_and_rows_and_seeds_differ():
    kinds = [(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(3)]
    new = [Augmentation(dropout=0.5, seed=s)(EN, e, i) for s, e, i in kinds]
    assert len(set(new)) > 20


def test_one_switch_does_not_change_the_other():
    alone = Augmentation(dropout=0.4)
    both = Augmentation(dropout=0.4, synonyms=0.99, table=our_synonyms())
    assert any(alone(EN, e, 0).replace("film", "movie") == both(EN, e, 0).replace("film", "movie") for e in range(40))
    kept = [len(words_of(alone(EN, e, 0))) == len(words_of(both(EN, e, 0))) for e in range(40)]
    assert all(kept)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="dropout must be a probability from 0 up, below 1, not 1"):
        Augmentation(dropout=1.0)
    with pytest.raises(ValueError, match="synonyms need a table"):
        Augmentation(synonyms=0.1)


def test_our_synonyms():
    table = our_synonyms()
    assert table["film"] == ("movie",) and set(table["美味"]) == {"好吃", "可口"}
    assert not set(table) & PROTECTED
    assert all(word in table[other.casefold()] for word, others in table.items() for other in others)
    assert len(table) > 120


def test_a_users_synonyms(tmp_path):
    file = tmp_path / "s.tsv"
    file.write_text("Cat\tfeline\n\nnice\tkind\tfriendly\n", encoding="utf-8-sig")
    assert read_synonyms(file)["nice"] == ("kind", "friendly") and read_synonyms(file)["feline"] == ("Cat",)
    file.write_text("cat\tfeline\nalone\n")
    with pytest.raises(ValueError, match=r"s.tsv, line 2: a set of synonyms is two words or more"):
        read_synonyms(file)
    file.write_text("\n")
    with pytest.raises(ValueError, match=r"s\.tsv holds no synonyms"):
        read_synonyms(file)
    file.write_bytes(b"a\t\xff\n")
    with pytest.raises(ValueError, match=r"s\.tsv.*line 1, byte 0xff"):
        read_synonyms(file)
    with pytest.raises(FileNotFoundError):
        read_synonyms(tmp_path / "none.tsv")


def test_back_translation_keeps_what_must_stay():
    texts = ["I did not like it", "I like it", "Fine", "Good but slow"]

    def there(texts):
        return [text.upper() for text in texts]

    def back(texts):
        return [{"I DID NOT LIKE IT": "I enjoyed it", "FINE": " "}.get(text, text.capitalize()) for text in texts]

    assert back_translate(texts, there, back) == ["I did not like it", "I like it", "Fine", "Good but slow"]
    assert back_translate(texts, there, back, protected=frozenset())[0] == "I enjoyed it"
    assert back_translate([], there, back) == []
    with pytest.raises(ValueError, match="of 4 texts 3 came back"):
        back_translate(texts, there, lambda texts: texts[1:])
    with pytest.raises(ValueError, match="of 4 texts 5 came back"):
        back_translate(texts, lambda texts: ["x", *texts], back)


def test_protected_words_are_counted_in_any_spelling():
    assert protected_in("Don’t, DON'T! 并非没有", PATTERN, PROTECTED) == ["don't", "don't", "并非", "没有"]


def test_random_chinese_never_loses_a_negation():
    rng = random.Random(0)
    augment = Augmentation(0.6, 0.6, 0.6, our_synonyms())
    for i in range(300):
        text = "".join(rng.choice(["不", "好", "没有", "但", "是", "电影", "，", "我", "并", "非"]) for _ in range(12))
        new = augment(text, 0, i)
        assert [w for w in words_of(new) if w in PROTECTED] == [w for w in words_of(text) if w in PROTECTED]
