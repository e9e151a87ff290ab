"""Splitting by hash: stable, and leaks are measured."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minillm.data.documents import Document
from minillm.data.split import Contamination, contamination, split_of, split_place
from minillm.data.stdlib import stdlib_documents


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.4), st.integers(-5, 5))
def test_a_split_depends_on_nothing_but_the_text(text: str, val: float, test: float, seed: int) -> None:
    name = split_of(text, val, test, seed=seed)
    assert name == split_of(" " + "\n ".join(text.split()) + "\t", val, test, seed=seed)
    assert 0 <= split_place(text, seed) < 1
    if name != "train":  # more validation takes no document out of validation, nor out of the test
        assert split_of(text, val + 0.05, test, seed=seed) == name


def test_fractions_are_met_and_checked() -> None:
    names = [split_of(f"document {i}", 0.2, 0.1) for i in range(5000)]
    more = [split_of(f"document {i}", 0.3, 0.1) for i in range(5000)]
    assert all(b == a or (a, b) == ("train", "val") for a, b in zip(names, more))
    assert abs(names.count("val") / 5000 - 0.2) < 0.03 and abs(names.count("test") / 5000 - 0.1) < 0.03
    assert names != [split_of(f"document {i}", 0.2, 0.1, seed=1) for i in range(5000)]
    assert {split_of(str(i), 0.0, 0.0) for i in range(100)} == {"train"}
    assert {split_of(str(i), 0.5) for i in range(100)} == {"train", "val"}
    assert 50 < [split_of(f"document {i}") for i in range(2000)].count("val") < 150  # one in twenty
    for val, test in ((1.0, 0.0), (-0.1, 0.0), (0.6, 0.4), (0.0, 1.0), (0.1, -0.1), (float("nan"), 0.0)):
        with pytest.raises(ValueError, match="leave something to train on"):
            split_of("x", val, test)


@pytest.mark.parametrize(("place", "name"), [(0.0, "val"), (0.25, "train"), (0.5, "train"), (0.75, "test")])
def test_each_stretch_of_the_line_holds_its_beginning(place: float, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minillm.data.split.split_place", lambda text, seed: place)
    assert split_of("x", 0.25, 0.25) == name


def test_what_was_held_out_once_is_held_out_for_ever() -> None:
    """These numbers decide which documents are held out: if they change, what was tested on is trained on."""
    assert split_place("a document") == 0.2679531707585241
    assert split_place("a document", 1) == 0.3187711354326339
    assert split_place("a document", -1) == 0.15293523876112758


WORDS = st.lists(st.sampled_from("abc"), max_size=25)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 5))
def test_overlap_is_that_of_plain_python(train: list[list[str]], held_out: list[list[str]], n: int) -> None:
    def runs(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    in_train = {run for words in train for run in runs(words)}
    in_held_out = {run for words in held_out for run in runs(words)}
    check = Contamination(n)
    for words in held_out:
        check.add_held_out(" ".join(words))
    for words in train:
        mine = runs(words)
        expected = sum(r in in_held_out for r in mine) / len(mine) if mine else 0
        assert check.train_overlap(" ".join(words)) == pytest.approx(expected)
    for words in held_out:
        mine = runs(words)
        expected = sum(r in in_train for r in mine) / len(mine) if mine else 0
        assert check.held_out_overlap(" ".join(words)) == pytest.approx(expected)


def test_a_training_document_that_will_be_dropped_marks_nothing() -> None:
    text = " ".join(map(str, range(30)))
    check = Contamination()
    check.add_held_out(text)
    assert check.train_overlap(text, limit=0.5) == 1.0
    assert check.held_out_overlap(text) == 0.0
    assert check.train_overlap(text) == 1.0
    assert check.held_out_overlap(text) == 1.0
    with pytest.raises(RuntimeError, match="before the first training"):
        check.add_held_out("more")
    with pytest.raises(ValueError, match="not added"):
        check.held_out_overlap(" ".join(map(str, range(100, 130))))


def test_a_held_out_document_comes_too_late_after_any_training_document() -> None:
    """What stood in the training documents before it would not be found."""
    check = Contamination(2)
    check.add_held_out("a b c")
    assert check.train_overlap("x y z") == 0.0  # nothing in common
    with pytest.raises(RuntimeError, match="before the first training"):
        check.add_held_out("x y z")
    check = Contamination(2)
    assert check.train_overlap("x y z") == 0.0
    with pytest.raises(RuntimeError, match="before the first training"):
        check.add_held_out("x y z")


def test_runs_are_of_13_words_as_gpt3s() -> None:
    words = [str(i) for i in range(14)]
    for n_shared, share in ((12, 0.0), (13, 0.5), (14, 1.0)):
        check = Contamination()
        check.add_held_out(" ".join(words))
        check.train_overlap(" ".join(words[:n_shared]))
        assert check.held_out_overlap(" ".join(words)) == share
    held_out = [Document(" ".join(words), "h")]
    assert contamination([Document(" ".join(words[:12]), "t")], held_out) == {"h": 0.0}
    assert contamination([Document(" ".join(words[1:]), "t")], held_out) == {"h": 0.5}
    with pytest.raises(ValueError, match="n must be at least 1"):
        Contamination(0)
    assert Contamination(1).n == 1


def test_the_most_contaminated_comes_first() -> None:
    held_out = [Document(text, text[:1]) for text in ("c x", "b y", "d z", "a z")]
    found = contamination([Document("b y", "t"), Document("d z", "t")], held_out, n=2)
    assert list(found.items()) == [("b", 1.0), ("d", 1.0), ("a", 0.0), ("c", 0.0)]


def test_help_topics_leak_until_their_paragraphs_are_deduplicated() -> None:
    from minillm.data.dedup import deduplicate

    def worst(documents: list[Document]) -> float:
        train = [d for d in documents if split_of(d.text, 0.3) == "train"]
        held_out = [d for d in documents if split_of(d.text, 0.3) == "val"]
        return next(iter(contamination(train, held_out).values()))

    topics = list(stdlib_documents("topics"))
    assert worst(topics) > 0.5
    assert worst(list(deduplicate(topics, paragraphs=True))) < 0.3


def test_a_share_exactly_at_the_limit_is_to_be_dropped() -> None:
    check = Contamination(2)
    check.add_held_out("a b c")
    assert check.train_overlap("a b x", limit=0.5) == 0.5  # of its runs "a b" and "b x" one
    assert check.held_out_overlap("a b c") == 0.0
    assert check.train_overlap("a b x", limit=0.51) == 0.5
    assert check.held_out_overlap("a b c") == 0.5
