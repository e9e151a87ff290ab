"""Splits of examples don't leak: copies and near copies stay together, leaks in given splits are named."""

import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from minillm.data import Chat, Labelled, Pair, Preference, check_leak, find_leaks, split_examples
from minillm.data.copies import FEWEST_CHARS, character_runs, copies, jaccard, letters_of
from minillm.data.example_split import contradictions, group_copies, notes_on, stratum_of

WORDS = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("n", "rk", "lt", "sh", "mp", "d")]


def sentence(rng, n_words=16):
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


def labelled(n, seed=0, n_classes=3):
    rng = random.Random(seed)
    return [Labelled(sentence(rng), str(rng.randrange(n_classes)), f"a.csv, line {i + 2}") for i in range(n)]


def near_copy(text, rng):
    """One of a text's words changed, or only what no letter is."""
    words = text.split()
    if rng.random() < 0.5:
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        return " ".join(words)
    return "  ".join(words).capitalize() + "!"


def sides(splits):
    return {example.where: name for name, examples in splits.items() for example in examples}


def test_planted_copies_never_leak_and_without_grouping_would():
    rng = random.Random(1)
    examples = labelled(400)
    texts = [e.text for e in examples[:150]]
    examples += [Labelled(near_copy(text, rng), "1", f"b.csv, line {i}") for i, text in enumerate(texts)]
    for seed in range(5):
        split = split_examples(examples, seed=seed)
        check_leak(split)
        where = sides(split)
        assert all(where[f"a.csv, line {i + 2}"] == where[f"b.csv, line {i}"] for i in range(150))
        assert sum(map(len, split.values())) == 550
    shuffled = rng.sample(examples, len(examples))
    leaks = find_leaks({"train": shuffled[:440], "val": shuffled[440:495], "test": shuffled[495:]})
    assert 30 < len(leaks) < 80  # about 150 · (1 − 0.8² − 2 · 0.1²) = 51 pairs on two sides


def test_leaks_are_named_with_both_lines():
    rng = random.Random(2)
    a, b, c = (sentence(rng) for _ in range(3))
    train = [Labelled(a, "1", "train.csv, line 2"), Labelled(b, "0", "train.csv, line 3")]
    near = b.replace(b.split()[0], "banana", 1)
    splits = {
        "train": train,
        "val": [Labelled(a.upper() + " ...", "1", "val.csv, line 9")],
        "test": [Labelled(c, "1", "test.csv, line 2"), Labelled(near, "0", "test.csv, line 3")],
    }
    with pytest.raises(ValueError) as error:
        check_leak(splits)
    text = str(error.value)
    assert "train.csv, line 2 (train) and val.csv, line 9 (val): the same text;" in text
    assert "train.csv, line 3 (train) and test.csv, line 3 (test): nearly the same text (0." in text
    assert "test.csv, line 2" not in text
    assert [leak.similarity for leak in find_leaks(splits, near=None)] == []  # the dots are no white space
    check_leak({"train": train, "test": [splits["test"][0]]})


@pytest.mark.parametrize(("n", "more"), [(5, ""), (6, "; and 1 more"), (7, "; and 2 more")])
def test_five_leaks_are_named_and_the_others_counted(n, more):
    with pytest.raises(ValueError) as error:
        check_leak({"train": labelled(n), "val": labelled(n)})
    text = str(error.value)
    assert text.count("the same text") == 5 and f"the same text{more}. Remove them" in text


@pytest.mark.parametrize(("sizes", "told"), [([3, 1, 1], True), ([2, 1], False), ([3, 1, 1, 1], False)])
def test_more_than_half_in_one_group_are_told(sizes, told):
    places = iter(range(sum(sizes)))
    groups = [[next(places) for _ in range(size)] for size in sizes]
    assert told == any("hang together" in note for note in notes_on(labelled(sum(sizes), n_classes=1), groups))


def test_numbers_have_five_levels():
    strata = stratum_of([Labelled("x", float(i)) for i in range(10)])
    assert strata == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]


def test_without_strata_all_go_somewhere():
    split = split_examples(labelled(40), seed=0, stratify=False)
    assert [len(split[name]) for name in ("train", "val", "test")] == [32, 4, 4]


def test_the_same_text_in_two_splits_is_a_leak_without_near():
    splits = {"train": [Pair("Go on.", "x", "a, line 1")], "test": [Pair("go  ON.", "y", "b, line 1")]}
    (leak,) = find_leaks(splits, near=None)
    assert str(leak) == "a, line 1 (train) and b, line 1 (test): the same text"


def test_short_texts_are_copies_only_with_the_same_letters():
    assert list(copies(["page 12", "page 13", "Page 12!", "👍", "👎", "👍"])) == [(0, 2, 1.0), (3, 5, 1.0)]


def test_a_similarity_at_the_threshold_is_one_of_copies():
    a, b = (
        "a sentence of some twenty words, of which one is another",
        "a sentence of some twenty words, of which one is new",
    )
    near = jaccard(*(character_runs(letters_of(text)) for text in (a, b)))
    assert list(copies([a, b], near)) == [(0, 1, near)] and list(copies([a, b], near + 1e-9)) == []


def test_chinese_near_copies_are_found():
    a = "这家餐厅的服务员非常热情而且上菜速度很快我们全家人都吃得十分满意下次还会再来"
    b = a.replace("十分", "很是")
    far = "昨天下午我们在公园里散步的时候突然下起了大雨大家只好躲进旁边的一家书店里避雨"
    assert [(i, j) for i, j, _ in copies([a, far, b], 0.7)] == [(0, 2)]
    assert list(copies([a, far])) == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.7, 0.8, 0.9]))
def test_groups_are_those_of_all_pairs_compared(seed, near):
    rng = random.Random(seed)
    texts = [sentence(rng, rng.randrange(2, 14)) for _ in range(40)]
    for _ in range(60):
        texts.append(near_copy(rng.choice(texts), rng))
    examples = [Labelled(text, "1") for text in texts]
    runs = [character_runs(letters_of(text)) for text in texts]
    parent = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            long = min(len(letters_of(texts[i])), len(letters_of(texts[j]))) >= FEWEST_CHARS
            if letters_of(texts[i]) == letters_of(texts[j]) or (long and jaccard(runs[i], runs[j]) >= near):
                old, new = parent[i], parent[j]
                parent = [new if p == old else p for p in parent]
    expected = {frozenset(i for i in range(len(texts)) if parent[i] == p) for p in parent}
    found = {frozenset(group) for group in group_copies(examples, near)}
    if near >= 0.8:  # below, ROWS lets one in some hundreds slip
        assert found == expected
    assert all(any(group <= whole for whole in expected) for group in found)


def test_stratified_and_exact():
    examples = labelled(1000) + [Labelled(sentence(random.Random(100 + i)), "rare", f"r, line {i}") for i in range(3)]
    split = split_examples(examples, seed=3)
    sizes = {name: len(part) for name, part in split.items()}
    assert all(abs(sizes[name] - 1003 * fraction) <= 2 for name, fraction in zip(sizes, (0.8, 0.1, 0.1)))
    total = Counter(e.label for e in examples)
    for name, fraction in zip(split, (0.8, 0.1, 0.1)):
        counts = Counter(e.label for e in split[name])
        assert all(abs(counts[label] - total[label] * fraction) <= 3 for label in "012")
    assert any(e.label == "rare" for e in split["train"])
    assert split.notes == []


def test_a_class_of_one_is_trained_on():
    for seed in range(5):
        rng = random.Random(1000 + seed)
        examples = labelled(150, seed) + [Labelled(sentence(rng), f"alone {i}") for i in range(20)]
        split = split_examples(examples, seed=seed)
        assert len({e.label for e in split["train"]}) == 23 and len(split["train"]) == 136


def test_sets_of_labels_are_split_by_their_rarest():
    rng = random.Random(0)
    names = "abcdefghij"
    examples = [Labelled(sentence(rng), tuple(rng.sample(names, rng.randrange(6)))) for _ in range(500)]
    split = split_examples(examples, seed=0)
    assert abs(len(split["train"]) - 400) <= 10
    for name in names:
        held_out = sum(name in e.label for e in split["val"] + split["test"])
        assert 0.1 < held_out / sum(name in e.label for e in examples) < 0.3


def test_numbers_are_split_by_level():
    rng = random.Random(0)
    examples = [Labelled(sentence(rng), float(i)) for i in range(500)]
    split = split_examples(examples, seed=0)
    for part in split.values():
        assert abs(np.mean([e.label for e in part]) - 249.5) < 40


@given(st.integers(-3, 2**64))
@settings(max_examples=20, deadline=None)
def test_the_same_whatever_the_order_of_the_file(seed):
    examples = labelled(60)
    rng = random.Random(seed)
    examples += [Labelled(near_copy(e.text, rng), e.label, f"b, line {i}") for i, e in enumerate(examples[:20])]
    first = split_examples(examples, seed=seed)
    assert sides(first) == sides(split_examples(rng.sample(examples, len(examples)), seed=seed))
    assert [e for e in examples if sides(first)[e.where] == "train"] == first["train"]


def test_seeds_differ():
    examples = labelled(100)
    assert sides(split_examples(examples, seed=0)) != sides(split_examples(examples, seed=1))


def test_contradictory_labels_and_copies_are_said():
    rng = random.Random(5)
    examples = labelled(40)
    examples.append(Labelled(examples[0].text.upper(), "other", "a.csv, line 99"))
    found = contradictions(examples)
    assert [(a.where, b.where) for a, b in found] == [("a.csv, line 2", "a.csv, line 99")]
    notes = split_examples(examples, seed=0).notes
    assert notes[0] == "1 of 41 examples are copies or near copies of others: kept together."
    assert "a.csv, line 2 says" in notes[1] and "a.csv, line 99 'other'" in notes[1]
    assert contradictions([Labelled("t", ("a", "b")), Labelled("t", ("b", "a"))]) == []
    words = sentence(rng, 12)
    pattern = [Labelled(f"{words} {words[::-1]} and then came number {i}", "1") for i in range(40)]
    notes = split_examples(labelled(30) + pattern, seed=0).notes
    assert any("40 of them hang together" in note for note in notes)


def test_every_kind_of_example():
    rng = random.Random(0)
    texts = [sentence(rng) for _ in range(30)]
    kinds = [
        [Pair(text, "the same target") for text in texts],
        [Chat(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": text})) for text in texts],
        [Preference(text, "a", "b") for text in texts],
        [Preference(({"role": "system", "content": "Hi"}, {"role": "user", "content": t}), "a", "b") for t in texts],
    ]
    for examples in kinds:
        split = split_examples(examples, (0.8, 0.2), seed=0)
        assert list(split) == ["train", "val"] and len(split["train"]) == 24 and not split.notes


def test_wrong_fractions_and_too_few_examples_are_refused():
    for fractions in [(1.0,), (0.5, 0.4), (0.0, 1.0), (0.9, 0.2, -0.1), (0.25,) * 4]:
        with pytest.raises(ValueError, match="fractions must be two or three shares"):
            split_examples(labelled(9), fractions, seed=0)
    with pytest.raises(ValueError, match="nothing is left for val: 5 examples make 1 groups"):
        split_examples([Labelled("same", "1")] * 5, seed=0)
    with pytest.raises(ValueError, match="near must be a similarity"):
        split_examples(labelled(9), seed=0, near=1.5)
    assert split_examples(labelled(9), (1.0, 0.0), seed=0)["val"] == []
    assert [len(part) for part in split_examples(labelled(50), (0.8, 0.2, 0.0), seed=0).values()] == [40, 10, 0]
