"""What is personal is found, what only looks so is left: planted findings beside their near misses."""

from __future__ import annotations

import re
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.pii import KINDS, Span, find_pii, is_resident_id, luhn, precision_recall, scrub

# Kind, then what must be found as a whole, then what looks like it and must be left.
TABLE = {
    "email": (
        ["ada@example.org", "ada.lovelace+list@mail.example.co.uk", "zhang_wei88@qq.com", "o'neil@x-y.io", "A@B.CN"],
        ["ada@localhost", "@property.setter", "a@b", "git@github.com:owner/name.git", "icon@2x.png", "x @ w.T",
         "pkg@1.2.3", "a..b@example.org", "user@example..org", "@example.org"],
    ),
    "phone": (
        ["+44 20 7946 0958", "+1 (415) 555-2671", "+8613812345678", "(415) 555-2671", "415-555-2671", "415.555.2671",
         "13812345678", "138 1234 5678", "138-1234-5678", "010-62345678", "0755-2345678"],
        ["2024-01-15", "1699999999", "1699999999999", "978-3-16-148410-0", "12345678901234", "3.14159265358",
         "12812345678", "1-2-3", "+1", "20:15:30", "415-555-26712", "id13812345678", "13812345678.5",
         "1e+12345678", "+35236450.6"],
    ),
    "ipv4": (
        ["8.8.8.8", "81.2.69.142", "5.1.2.3"],
        ["127.0.0.1", "0.0.0.0", "192.168.1.17", "10.0.0.1", "192.0.2.1", "256.1.1.1", "8.8.8", "v1.2.3.4",
         "version 1.2.3.4", "1.2.3.4.5", "08.8.8.8", "3.1.4.1-rc1", "224.0.0.1"],
    ),
    "ipv6": (
        ["2001:4860:4860::8888", "2a00:1450:4001:81b::200e", "2606:4700:4700:0:0:0:0:1111"],
        ["::1", "fe80::1", "2001:db8::1", "std::vector", "dead::beef", "12:30:45", "aa:bb:cc:dd:ee:ff", "x[2000::3]",
         "22:33:44:55:66:77", "2001:4860:4860:::8888"],
    ),
    "card": (
        ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424",
         "30569309025904", "3530111333300000", "2221000000000009"],
        ["4111111111111112", "0000000000000000", "1699999999999999", "9780306406157", "41111111111111111111",
         "a4111111111111111", "352099001761481", "4111 1111 1111 1111 1"],
    ),
    "resident_id": (
        ["11010519491231002X", "11010519491231002x", "440524188001010014"],
        ["110105194912310021", "11010519491331002X", "01010519491231002X", "11010519491231002", "110105491231002",
         "11010519491231002XY"],
    ),
    "name": (
        ["Ada Lovelace", "O'Neil", "Smith-Jones", "张伟"],
        ["Monday", "the United States", "我叫他来"],
    ),
}  # fmt: skip
BEFORE = {"name": {"张伟": "姓名：", "Ada Lovelace": "my name is ", None: "Mr. "}}
AROUND = [("", ""), ("Ask (", ")."), ("请联系：", "。"), ("a, ", ", b"), ("x\n", "\ny"), ('"', '"')]


def planted(kind, item):
    """The cue that a name needs, and nothing for other kinds."""
    cues = BEFORE.get(kind, {})
    return cues.get(item, cues.get(None, ""))


@pytest.mark.parametrize("kind", TABLE)
def test_each_is_found_as_a_whole(kind):
    for item in TABLE[kind][0]:
        for before, after in AROUND:
            text = before + planted(kind, item) + item + after
            start = len(text) - len(item) - len(after)
            assert find_pii(text) == [Span(start, start + len(item), kind)], text


@pytest.mark.parametrize("kind", TABLE)
def test_near_misses_are_left(kind):
    for item in TABLE[kind][1]:
        for before, after in AROUND:
            found = [span for span in find_pii(before + item + after) if span.kind == kind]
            assert not found, (before + item + after, found)


def test_precision_and_recall_on_all_of_them_in_one_text():
    parts, true, at = [], [], 0
    for kind, (found, near) in TABLE.items():
        for item in [*found, *near]:
            before = f"- {planted(kind, item) if item in found else ''}"
            parts.append(f"{before}{item}\n")
            if item in found:
                true.append(Span(at + len(before), at + len(before) + len(item), kind))
            at += len(parts[-1])
    scores = precision_recall(find_pii("".join(parts)), true)
    assert scores == {kind: (1.0, 1.0) for kind in sorted(TABLE)}


def test_precision_and_recall_by_hand():
    true = [Span(0, 2, "a"), Span(3, 5, "a"), Span(6, 7, "b")]
    found = [Span(0, 2, "a"), Span(3, 4, "a"), Span(8, 9, "a"), Span(10, 11, "c")]
    assert precision_recall(found, true) == {"a": (1 / 3, 1 / 2), "b": (1.0, 0.0), "c": (0.0, 1.0)}


@given(st.integers(10**14, 10**15 - 1))
def test_one_digit_of_ten_satisfies_luhn_and_one_wrong_digit_never_does(number):
    right = [d for d in "0123456789" if luhn(f"{number}{d}")]
    assert len(right) == 1
    whole = f"{number}{right[0]}"
    wrong = whole[:5] + str((int(whole[5]) + 1) % 10) + whole[6:]
    assert not luhn(wrong)


@given(st.integers(100000, 999999), st.dates(), st.integers(0, 999))
def test_one_of_eleven_check_characters_is_right(region, born, number):
    """The weights as the standard prints them."""
    if born.year < 1850:
        return
    first = f"{region}{born:%Y%m%d}{number:03}"
    right = [c for c in "0123456789X" if is_resident_id(first + c)]
    total = sum(int(d) * w for d, w in zip(first, [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]))
    assert right == ["10X98765432"[total % 11]]


@given(st.text(), st.sampled_from([item for found, _ in TABLE.values() for item in found]), st.text())
def test_scrubbing_twice_changes_nothing_and_spans_hold_nothing_twice(before, item, after):
    text = before + item + after
    spans = find_pii(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    counts = Counter()
    once = scrub(text, counts=counts)
    assert scrub(once) == once and sum(counts.values()) == len(spans)
    rest = re.sub(rf"\[(?:{'|'.join(KINDS).upper()})\]", "", once)
    assert len(rest) <= len(text) and (spans or once == text)


def test_what_is_of_two_kinds_is_taken_once():
    assert find_pii("Mr. Ada@example.org") == [Span(4, 19, "email")]
    assert find_pii("Mr. Ada@example.org", ["name"]) == [Span(4, 7, "name")]


def test_kinds_are_chosen_and_unknown_ones_refused():
    text = "ada@example.org 13812345678"
    assert scrub(text, ["phone"]) == "ada@example.org [PHONE]"
    with pytest.raises(ValueError, match=r"scrub must be of email, .* not 'mail'"):
        scrub(text, ["mail"])


def test_takes_linear_time_on_hostile_text():
    for piece in ("a", "a.", "1", "1 ", "a@", "2001:", "1.", "+1 ", "4-", "A ", "Mr. A", "(", "2a:"):
        times = []
        for n in (5000, 20_000):
            text = piece * (n // len(piece))
            before = time.thread_time()
            find_pii(text)
            times.append(time.thread_time() - before)
        assert times[1] < 8 * times[0] + 0.05, (piece, times)


def test_random_digits_are_cards_one_time_in_hundred_and_ids_hardly_ever():
    """What a checksum is for: of 16 random digits 1 in 10 satisfies Luhn, 1 in 4 or so begins as a card does."""
    rng = np.random.default_rng(0)
    texts = ["".join(map(str, rng.integers(0, 10, 16))) for _ in range(3000)]
    share = sum(bool(find_pii(text, ["card"])) for text in texts) / len(texts)
    assert 0.01 < share < 0.04
    texts = ["".join(map(str, rng.integers(0, 10, 18))) for _ in range(3000)]
    assert sum(bool(find_pii(text, ["resident_id"])) for text in texts) < 3
