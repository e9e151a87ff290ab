"""The bookkeeping of chapter 04: what it counts as copied, as negated, as alike."""

import numpy as np
from minillm.workshop import collecting

from minillm.data import Document, NearDuplicates


def test_copied_paragraphs_are_told_apart_and_taken_out_of_train():
    shared = "These eight words or more stand in both of them."
    train = [Document(f"Only here.\n\n{shared}\n\nThe end of it.", "a")]
    copied, own, without = collecting.copied_and_own(train, [Document(f"{shared}\n\nNew words.", "b")])
    assert (copied, own) == (shared, "New words.")
    assert without == [Document("Only here.\n\nThe end of it.", "a")]


def test_negations_mark_what_follows_up_to_the_next_one_or_the_comma():
    marked = collecting.mark_negated("Nobody thought it was not bad, but it was.", "not nobody")
    assert marked == "not_thought not_it not_was bad but it was"
    assert collecting.mark_negated("汤不好，菜好", "不") == f"u{ord('汤')} not_u{ord('好')} u{ord('菜')} u{ord('好')}"


def test_words_are_taken_out_whole():
    assert collecting.without_words("It was not the knot, nothing else", "en", "not nothing") == "knot, else"
    assert collecting.without_words("我们的汤不好", "zh", "不") == "汤好"


def test_pairs_have_the_similarity_that_they_say():
    a, b = collecting.pair_of_sets(90, 60, np.random.default_rng(0))
    assert len(set(a) & set(b)) == 60 and len(set(a) | set(b)) == 120
    likeness, agree = collecting.signatures_of_pairs(0.5, pairs=5, k=16, seed=0)
    assert likeness == 0.5 and agree.shape == (5, 16)


def test_meetings_are_the_pairs_that_share_a_band():
    texts = ["one two three four five six seven", "one two three four five six seven!", "other words altogether, these"]
    assert collecting.meetings(NearDuplicates(0.8), [Document(text, text) for text in texts]) == 1


def test_what_cannot_be_seen_is_spelled_out():
    assert collecting.spelled("e\u0301\u200b\t\n 你") == "e<U+0301><U+200B>⇥↵ 你"
    assert collecting.change("a b  c", "a b c", around=3) == (" b  c", " b c")
