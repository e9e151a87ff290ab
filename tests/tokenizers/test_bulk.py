"""Much text at once (bulk.py, bpe_arrays.py) gives the ids of one piece after the other, and tiktoken's."""

import pickle
import random
from itertools import chain
from unittest import mock

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, few_characters, trained, tricky, unicode_text, white_space

from minillm.tokenizers import BPETokenizer, bpe, bulk
from minillm.tokenizers.bpe import merge_word
from minillm.tokenizers.bpe_arrays import array_merger, groups
from minillm.tokenizers.bpe_plain import merge_steps
from minillm.tokenizers.gpt2_files import mergeable_ranks
from minillm.tokenizers.split import UNICODE_PATTERNS, quickest, spelled_out, split_text

PATTERNS = sorted(UNICODE_PATTERNS)
# Spaces beside everything that could mind: other white space, newlines, what only looks like white space, the start.
spaces = st.text(alphabet=" " * 6 + "\n\n\r\t\x0b\x1c\x85\xa0\u3000a1!é中'", max_size=40)
texts = st.lists(st.one_of(any_text, spaces, spaces, white_space), max_size=6)
small = {"BATCH": st.integers(1, 60), "FEW": st.sampled_from([-1, 20, 1 << 12])}
sizes = st.fixed_dictionaries({**small, "MAX_KNOWN": st.sampled_from([3, 1 << 19])})


def plain(tok: BPETokenizer, text: str) -> list[int]:
    """Every piece by the definition, nothing kept."""
    return list(chain.from_iterable(list(merge_steps(tok, piece))[-1] for piece in split_text(text, tok.pattern)))


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=200)
@given(texts=texts, sizes=sizes)
def test_bulk_gives_the_plain_ids(pattern: str, texts: list[str], sizes: dict[str, int]) -> None:
    with mock.patch.multiple(bulk, **sizes):
        ids, counts, used = trained(pattern).bulk.encode(texts)
    assert [part.tolist() for part in np.split(ids, np.cumsum(counts))][:-1] == [
        plain(trained(pattern), t) for t in texts
    ]
    assert used == [len(text) for text in texts] and len(counts) == len(texts) and counts.sum() == len(ids)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_neighbourhood_of_spaces(pattern: str) -> None:
    """Every text of up to five characters of these kinds, so that no drawing of lots can miss one."""
    kinds = " \n\ta.1"
    every = [""]
    for _ in range(5):
        every += [text + kind for text in every[-(len(kinds) ** len(every[-1])) :] for kind in kinds]
    ids, counts, _ = trained(pattern).bulk.encode(every)
    found = [part.tolist() for part in np.split(ids, np.cumsum(counts))][:-1]
    assert found == [plain(trained(pattern), text) for text in every]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_long_texts_go_through_bulk_and_equal_tiktoken(pattern: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    tok = trained(pattern)
    ranks = mergeable_ranks(tok)
    peer = tiktoken.Encoding("test", pat_str=UNICODE_PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})
    draw = random.Random(0)
    words = " ".join(SAMPLES).split(" ")
    text = "".join(draw.choice(words) + draw.choice([" ", "  ", "\n", "\n    ", " \t", ""]) for _ in range(30_000))
    assert len(text) > 5 * bpe.MUCH
    assert tok.encode(text, disallowed_special=()) == peer.encode_ordinary(text)
    run = "".join(draw.choices("语言模型学习如何预测下一个词", k=50_000)) + "a" * 20_000
    assert tok.encode(run) == peer.encode_ordinary(run)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=200)
@given(text=st.one_of(any_text, spaces), more=any_text)
def test_what_is_settled_stays(pattern: str, text: str, more: str) -> None:
    tok = trained(pattern)
    ids, _, (used,) = tok.bulk.encode([text], final=False)
    assert ids.tolist() + plain(tok, text[used:] + more) == plain(tok, text + more)


def test_files_and_arrays_go_the_same_way(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bpe, "MUCH", 50)
    tok = trained("gpt4")
    text = "".join(SAMPLES * 5)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    for size in (64, 1000, 1 << 20):
        assert np.concatenate(list(tok.encode_file(tmp_path / "text.txt", chunk_bytes=size))).tolist() == plain(
            tok, text
        )
    assert [ids.tolist() for ids in tok.encode_arrays(SAMPLES)] == [tok.encode(sample) for sample in SAMPLES]
    assert [ids.tolist() for ids in tok.encode_arrays(["<|end|>", ""])] == [plain(tok, "<|end|>"), []]
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80 at character 60"):
        tok.encode("x " * 30 + "\udc80 " + "y" * 50)
    assert tok.encode(text) == plain(tok, text)  # nothing half-learned is left


@settings(max_examples=200)
@given(pieces=st.lists(st.one_of(few_characters, tricky, unicode_text), max_size=8))
def test_arrays_merge_as_the_plain_loop_does(pieces: list[str]) -> None:
    tok = trained("gpt4")
    merger = array_merger(tok.ranks, tok.merged, tok.id_of_byte)
    assert merger is not None
    ids, counts = merger.merge([*pieces, "end"])
    expected = [list(merge_steps(tok, piece))[-1] for piece in [*pieces, "end"]]
    assert ids.tolist() == list(chain.from_iterable(expected)) and counts.tolist() == list(map(len, expected))


@settings(max_examples=300)
@given(
    merges=st.permutations([(97, 97), (98, 97), (97, 98), (98, 98), (256, 97), (97, 257), (256, 256), (258, 257)]),
    words=st.lists(few_characters, max_size=5),
)
def test_merges_in_any_order_are_taken_or_refused(merges: list[tuple[int, int]], words: list[str]) -> None:
    """With the numbers that these have, the first merge makes 256, and so on: some merge what is made later only."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    merged = [256 + rank for rank in range(len(merges))]
    late = any(part - 256 >= rank for rank, pair in enumerate(merges) for part in pair)
    merger = array_merger(ranks, merged, list(range(256)))
    assert (merger is None) == late
    if merger is not None:
        ids, _ = merger.merge([*words, "b"])
        expected = [merge_word([*word.encode()], ranks, merged) for word in [*words, "b"]]
        assert ids.tolist() == list(chain.from_iterable(expected))


def test_groups_by_hand() -> None:
    #          ab=256   cd=257   ab+cd=258  ef=259   ab+ef=260
    merges = [(97, 98), (99, 100), (256, 257), (101, 102), (256, 259)]
    assert groups(merges, [256, 257, 258, 259, 260]) == [2, 4, 5]
    assert groups(merges[::-1], [260, 259, 258, 257, 256]) is None
    assert groups([], []) == [0] and array_merger({}, [], list(range(256))).merge(["ab"])[0].tolist() == [97, 98]


@pytest.mark.parametrize("few", [-1, 1 << 12])
def test_a_merge_order_of_another_kind_and_whole_pieces(few: int, monkeypatch) -> None:
    monkeypatch.setattr(bulk, "FEW", few)
    tokens = [*(bytes([i]) for i in range(256)), b"ow", b"low", b" low", b"lo"]
    text = "\0 low  low glow slow\nlow ow low"  # the piece "\0" has the id 0
    for merges in ([(256 + 3, 119), (108, 111)], [(108, 111)], []):  # lo+w before l+o; l+o; nothing
        for whole in (True, False):
            tok = BPETokenizer(tokens, merges, "gpt4", {}, whole_pieces=whole)
            assert tok.bulk.encode([text])[0].tolist() == plain(tok, text)


def test_what_is_kept_is_bounded() -> None:
    tok = BPETokenizer.train(["abc " * 9], 262)
    text = " ".join(f"w{i}" for i in range(3000))
    with mock.patch.multiple(bulk, MAX_KNOWN=100, BATCH=256):
        assert tok.bulk.encode([text])[0].tolist() == plain(tok, text)
        assert len(tok.bulk.number) < 250
    with mock.patch.multiple(bulk, MAX_CHARACTERS=1000, BATCH=256):
        assert tok.bulk.encode([text])[0].tolist() == plain(tok, text)
        assert tok.bulk.n_characters < 1500


def test_a_tokenizer_with_bulk_can_be_pickled() -> None:
    tok = BPETokenizer.train(SAMPLES, 400)
    ids = tok.bulk.encode(SAMPLES)[0].tolist()
    again = pickle.loads(pickle.dumps(tok))
    assert len(again.bulk.number) == 0 and again.bulk.encode(SAMPLES)[0].tolist() == ids


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text(alphabet=st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs",)), max_size=60))
def test_spelled_out_classes_are_those_of_regex(pattern: str, text: str) -> None:
    assert spelled_out(pattern)(text + "😀🏽") == regex.findall(UNICODE_PATTERNS[pattern], text + "😀🏽")
    assert quickest(text, pattern)(text) == regex.findall(UNICODE_PATTERNS[pattern], text)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_spelled_out_classes_hold_every_character(pattern: str) -> None:
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    for form in ("a{}a", "1{}1", "!{}!", " {}", "{} ", "\n{}\n", "'{}", "'l{}"):
        text = "|".join(form.format(character) for character in characters)
        assert spelled_out(pattern)(text) == regex.findall(UNICODE_PATTERNS[pattern], text)


@pytest.mark.long
@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=25_000, deadline=None)
@given(texts=texts, sizes=sizes)
def test_bulk_gives_the_plain_ids_in_a_long_campaign(pattern: str, texts: list[str], sizes: dict[str, int]) -> None:
    with mock.patch.multiple(bulk, **sizes):
        ids, _, _ = trained(pattern).bulk.encode(texts)
    assert ids.tolist() == list(chain.from_iterable(plain(trained(pattern), text) for text in texts))
