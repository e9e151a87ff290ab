"""Deduplication: shingles and signatures against plain Python, and what is kept and dropped."""

import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import dedup
from minillm.data.dedup import MinHash, NearDuplicates, choose_bands, deduplicate
from minillm.data.documents import Document, Dropped
from minillm.data.shingles import ngram_hashes, shingles, word_hashes

WORDS = st.lists(st.integers(0, 30).map(str), max_size=60)


def jaccard(a: list[str], b: list[str], n: int = 5) -> float:
    """The true Jaccard similarity of the sets of n-word runs."""

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        k = min(n, len(words))
        return {tuple(words[i : i + k]) for i in range(len(words) - k + 1)} if words else set()

    x, y = runs(a), runs(b)
    return len(x & y) / len(x | y) if x | y else 0.0


@given(st.text(alphabet="abéß9_ \n.,-中文かア한🙂", max_size=60))
def test_words_are_those_of_plain_python(text: str) -> None:
    words = re.findall(
        r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff_])\w)+", text.lower()
    )
    hashes = word_hashes(text)
    assert len(hashes) == len(words)
    number: dict[str, int] = {}
    for word, value in zip(words, hashes.tolist()):
        assert number.setdefault(word, value) == value
    assert len(set(number.values())) == len(number)
    assert np.array_equal(word_hashes(text.upper().lower()), word_hashes(text.upper().lower().swapcase().lower()))


@given(WORDS, st.integers(1, 7))
def test_runs_are_those_of_plain_python(words: list[str], n: int) -> None:
    hashes = ngram_hashes(word_hashes(" ".join(words)), n)
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(hashes) == len(runs)
    assert len(set(zip(runs, hashes.tolist()))) == len(set(runs)) == len(set(hashes.tolist()))


def test_words_ignore_layout_and_case_and_separate_ideographs() -> None:
    assert np.array_equal(word_hashes("Hello,\n  WORLD"), word_hashes("hello world"))
    assert len(word_hashes("你好世界 ok")) == 5
    assert len(word_hashes("")) == len(word_hashes(" .,!")) == len(shingles("--")) == 0
    assert len(shingles("one two")) == 1
    assert len(word_hashes("x" * 5000)) == 1
    with pytest.raises(ValueError, match="n must be at least 1"):
        ngram_hashes(word_hashes("a b"), 0)


@given(WORDS, WORDS)
def test_estimate_is_near_the_true_similarity(a: list[str], b: list[str]) -> None:
    minhash = MinHash(n_permutations=1024)
    x, y = minhash.signature(" ".join(a + b)), minhash.signature(" ".join(a))
    true = jaccard(a + b, a)
    if x is None or y is None:
        assert true == 0
    else:  # 6 standard deviations of a mean of 1024 draws
        assert abs(minhash.similarity(x, y) - true) <= 6 * np.sqrt(true * (1 - true) / 1024) + 1e-9


def test_estimate_is_unbiased_over_seeds() -> None:
    a, b = [str(i) for i in range(200)], [str(i) for i in range(60, 260)]
    estimates = []
    for seed in range(30):
        minhash = MinHash(seed=seed)
        x, y = minhash.signature(" ".join(a)), minhash.signature(" ".join(b))
        assert x is not None and y is not None
        estimates.append(minhash.similarity(x, y))
    assert abs(np.mean(estimates) - jaccard(a, b)) < 4 * np.sqrt(0.25 / (30 * 128))


def test_a_signature_is_the_smallest_number_of_each_permutation() -> None:
    rng = np.random.default_rng(1)
    factors = [int(a) | 1 for a in rng.integers(0, 2**64, 128, dtype=np.uint64)]
    summands = rng.integers(0, 2**64, 128, dtype=np.uint64).tolist()
    text = "one two three four five six seven eight nine"
    runs = shingles(text).tolist()
    expected = [min((a * x + b) % 2**64 for x in runs) >> 32 for a, b in zip(factors, summands)]
    signature = MinHash().signature(text)
    assert signature is not None and signature.dtype == np.uint32 and signature.tolist() == expected
    with pytest.raises(ValueError, match="n_permutations must be at least 1, not 0"):
        MinHash(0)
    one = MinHash(1).signature(text)
    assert one is not None and one.shape == (1,)


def test_a_signature_does_not_depend_on_the_piece_size(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(text_of(np.random.default_rng(3), 2000))
    whole = MinHash().signature(text)
    monkeypatch.setattr(dedup, "_CHUNK", 100)
    pieces = MinHash().signature(text)
    assert whole is not None and pieces is not None and np.array_equal(whole, pieces)


def test_bands_follow_the_formula() -> None:
    assert choose_bands(128, 0.8) == (21, 6)
    for threshold in (0.3, 0.5, 0.9, 1.0):
        bands, rows = choose_bands(128, threshold)
        assert bands * rows <= 128
        assert 1 - (1 - threshold**rows) ** bands >= 0.99 or rows == 1
        more = rows + 1  # than would do
        assert more > 128 or 1 - (1 - threshold**more) ** (128 // more) < 0.99
    assert choose_bands(128, 0.3) == (64, 2) and choose_bands(128, 0.01) == (128, 1)
    assert choose_bands(128, 1.0) == (1, 128)


def text_of(rng: np.random.Generator, n: int = 300) -> list[str]:
    return [f"w{i}" for i in rng.integers(0, 5000, n)]


def test_near_copies_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    near = NearDuplicates(0.8)
    originals = [text_of(rng) for _ in range(200)]
    for i, words in enumerate(originals):
        assert near.check_and_add(Document(" ".join(words), f"d{i}")) is None
    found = 0
    for i, words in enumerate(originals):
        copy = words.copy()
        copy[150] = "changed"  # true similarity: 291 / 301 = 0.967
        result = near.check_and_add(Document(" ".join(copy), "copy"))
        found += result is not None and result[0] == f"d{i}" and result[1] > 0.9
    assert found == 200
    half = originals[0][:150] + text_of(rng, 150)
    assert near.check_and_add(Document(" ".join(half), "half")) is None
    assert near.check_and_add(Document("...", "no words")) is None
    with pytest.raises(ValueError, match="threshold must be above 0"):
        NearDuplicates(0)


class FixedSignatures(MinHash):
    """Reads the signature from the text itself, so that a test can choose which bands agree."""

    def __init__(self) -> None:
        super().__init__(n_permutations=12)

    def signature(self, text: str) -> np.ndarray:
        return np.array(text.split(), dtype=np.uint32)


def test_every_document_of_a_bucket_is_a_candidate() -> None:
    near = NearDuplicates(0.8, FixedSignatures())
    assert (near.bands, near.rows) == (6, 2)
    assert near.check_and_add(Document("1 2 3 4 5 6 7 8 9 10 11 12", "a")) is None
    assert near.check_and_add(Document("1 2 3 4 5 6 7 8 20 21 22 23", "b")) is None  # shares the first four bands
    # As b but for two places, so that it meets b only in the bands where a stands first.
    assert near.check_and_add(Document("1 2 3 4 5 6 7 8 20 99 22 99", "c")) == ("b", 10 / 12)


def test_similar_documents_below_the_threshold_are_all_kept_and_found_again() -> None:
    near = NearDuplicates(0.95)  # many rows a band: similar documents that are both kept share buckets
    base = [f"w{i}" for i in range(400)]
    versions = []
    for k in range(4):
        words = base.copy()
        for at in range(20, 400, 60):
            words[at] = f"v{k}"
        versions.append(" ".join(words))
        assert near.check_and_add(Document(versions[-1], f"v{k}")) is None
    for k in range(4):
        assert near.check_and_add(Document(versions[k], "again")) == (f"v{k}", 1.0)


def test_deduplicate_keeps_the_first_and_says_why() -> None:
    rng = np.random.default_rng(1)
    words = text_of(rng)
    long = " ".join(words)
    documents = [
        Document(long, "first"),
        Document(long.replace(" ", "\n"), "same but for white space"),
        Document(long + " one more", "nearly"),
        Document(" ".join(text_of(rng)), "other"),
        Document("first", "first"),
    ]
    dropped: list[Dropped] = []
    kept = list(deduplicate(documents, dropped=dropped))
    assert [d.source for d in kept] == ["first", "other", "first"]
    assert [(d.source, d.stage, d.duplicate_of) for d in dropped] == [
        ("same but for white space", "exact", "first"),
        ("nearly", "near", "first"),
    ]
    assert dropped[0].similarity == 1.0
    assert dropped[1].similarity is not None and dropped[1].similarity > 0.9
    assert len(list(deduplicate(documents, near_threshold=None))) == 4
    twice = Document("the very same object", "s")
    assert list(deduplicate([twice, twice])) == [twice]


def test_repeated_paragraphs() -> None:
    notice = "This paragraph stands in several documents, word for word."
    a = Document(f"Alpha begins here.\n\n{notice}\n\nAlpha ends here.\n", "a")
    b = Document(f"Beta begins here.\n\n{notice.replace(' ', '  ')}\n \nBeta ends.\n", "b")
    c = Document(f"{notice}\n\n{notice}\n", "c")
    dropped: list[Dropped] = []
    kept = list(deduplicate([a, b, c], near_threshold=None, paragraphs=True, dropped=dropped))
    assert kept == [a, Document("Beta begins here.\n\nBeta ends.\n", "b")]
    assert [(d.source, d.duplicate_of) for d in dropped] == [("b", "a"), ("c", "a"), ("c", "a"), ("c", "a")]
    assert dropped[-1].reason == "no paragraph left"
    assert list(deduplicate([a, b, c])) == [a, b, c]  # not asked for
    blank = Document(" \n", "blank")
    assert list(deduplicate([blank], paragraphs=True)) == list(deduplicate([blank])) == [blank]
    short = Document("Seven words stand in this line here.\n\n" * 2, "d")
    assert list(deduplicate([short], paragraphs=True)) == [short]
    eight = Document("Now eight words stand in this line here.\n\n" * 2, "e")
    assert list(deduplicate([eight], paragraphs=True)) == [Document(eight.text[:41], "e")]
    chinese = Document("这一段话有八个字。\n\n" * 2 + "港口的地图\n\n" * 2, "f")  # no white space between its words
    assert list(deduplicate([chinese], paragraphs=True)) == [
        Document("这一段话有八个字。\n\n港口的地图\n\n港口的地图\n", "f")
    ]


def test_a_copy_exactly_at_the_threshold_is_one() -> None:
    for threshold, other in ((0.75, "1 2 3 4 5 6 7 8 9 20 21 22"), (1.0, "1 2 3 4 5 6 7 8 9 10 11 12")):
        near = NearDuplicates(threshold, FixedSignatures())
        assert near.check_and_add(Document("1 2 3 4 5 6 7 8 9 10 11 12", "a")) is None
        assert near.check_and_add(Document(other, "b")) == ("a", threshold)
    near = NearDuplicates(0.76, FixedSignatures())
    assert near.check_and_add(Document("1 2 3 4 5 6 7 8 9 10 11 12", "a")) is None
    assert near.check_and_add(Document("1 2 3 4 5 6 7 8 9 20 21 22", "b")) is None
