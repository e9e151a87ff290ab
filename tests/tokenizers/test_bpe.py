from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, few_characters, trained, tricky, unicode_text

from minillm.tokenizers import BPETokenizer
from minillm.tokenizers.bpe import SHORT, count_words, learn_merges, merge_word
from minillm.tokenizers.bpe_fast import PairCounts, merge_long_word, merge_very_long
from minillm.tokenizers.bpe_plain import merge, merge_steps, train_naive
from minillm.tokenizers.byte_spelling import BYTE_OF_ID
from minillm.tokenizers.formats import tokenizer_json
from minillm.tokenizers.gpt2_files import mergeable_ranks
from minillm.tokenizers.pieces import PieceCache
from minillm.tokenizers.split import UNICODE_PATTERNS

PATTERNS = sorted(UNICODE_PATTERNS)
some_texts = st.lists(st.one_of(few_characters, tricky, unicode_text), min_size=1, max_size=8)
symbols = st.dictionaries(
    st.one_of(
        st.text(alphabet=[chr(i) for i in range(256)], min_size=1, max_size=10),
        st.text(alphabet="abc", min_size=1, max_size=20),
        st.text(alphabet="\x00\xff", min_size=1, max_size=20),
    ),
    st.integers(1, 5),
    max_size=10,
)


# ---- learning


@settings(max_examples=300)
@given(words=symbols, n_merges=st.integers(0, 60))
def test_the_fast_trainer_equals_the_naive_one(words: dict[str, int], n_merges: int) -> None:
    assert list(learn_merges(words, n_merges)) == list(train_naive(words, n_merges))


@given(words=symbols, n_merges=st.integers(0, 20))
def test_the_kept_counts_are_those_of_the_words_as_they_are(words: dict[str, int], n_merges: int) -> None:
    pairs = PairCounts(words)
    for new_id in range(256, 256 + n_merges):
        if (pair := pairs.commonest()) is not None:
            pairs.merge(pair, new_id)
    now = PairCounts({})
    for word, n in zip(pairs.words, pairs.word_counts):
        for left, right in pairwise(word):
            now.counts[left + right] += n
    assert {pair: n for pair, n in pairs.counts.items() if n} == now.counts


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_fast_trainer_equals_the_naive_one_on_real_text(pattern: str) -> None:
    words = count_words(SAMPLES, pattern)
    assert list(learn_merges(words, 400)) == list(train_naive(words, 400))


def test_a_tie_goes_to_the_smallest_pair_of_ids() -> None:
    """Each pair occurs once. Ids follow GPT-2's byte order, in which the space comes after "~"."""
    tok = BPETokenizer.train(["zy ba"], 260, special_tokens=())
    assert [tok.tokens[left] + tok.tokens[right] for left, right in tok.merges] == [b"ba", b"zy", b" ba"]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60)
@given(texts=some_texts, n_merges=st.integers(0, 40))
def test_the_tokenizers_library_learns_the_same_vocabulary(pattern: str, texts: list[str], n_merges: int) -> None:
    pytest.importorskip("tokenizers.models")
    if any(texts):
        ours = BPETokenizer.train(texts, 256 + n_merges, pattern=pattern, special_tokens=())
        assert train_peer(texts, 256 + n_merges, pattern) == vocabulary_and_merges(ours)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_tokenizers_library_learns_the_same_vocabulary_from_real_text(pattern: str) -> None:
    pytest.importorskip("tokenizers.models")
    ours = BPETokenizer.train(SAMPLES, 900, pattern=pattern, special_tokens=())
    assert ours.vocab_size > 600
    assert train_peer(SAMPLES, 900, pattern) == vocabulary_and_merges(ours)


def train_peer(texts: list[str], vocab_size: int, pattern: str) -> tuple[dict[str, int], list[list[str]]]:
    import json

    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    peer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    if pattern == "gpt2":
        peer.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(UNICODE_PATTERNS[pattern]), "isolated")
        peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    peer.train_from_iterator(texts, trainer)
    model = json.loads(peer.to_str())["model"]
    return model["vocab"], model["merges"]


def vocabulary_and_merges(tok: BPETokenizer) -> tuple[dict[str, int], list[list[str]]]:
    model = tokenizer_json(tok)["model"]
    return model["vocab"], model["merges"]


def test_ids_are_bytes_then_merges_then_special_tokens() -> None:
    tok = BPETokenizer.train(["aaa aaa"], 260, special_tokens=["<|a|>", "<|b|>"])
    assert tok.vocab_size == 260
    assert tok.tokens[:256] == [bytes([byte]) for byte in BYTE_OF_ID] and sorted(BYTE_OF_ID) == list(range(256))
    assert tok.tokens[256:] == [b"aa", b"aaa", b"<|a|>", b"<|b|>"]
    assert tok.special_tokens == {"<|a|>": 258, "<|b|>": 259}
    assert (tok.whole_pieces, tok.nfc) == (False, False)
    bare = BPETokenizer(tok.tokens, tok.merges, "gpt4", tok.special_tokens)
    assert (bare.whole_pieces, bare.nfc, bare.fingerprint()) == (False, False, tok.fingerprint())
    least = BPETokenizer.train(["aa"], 257)  # no merge
    assert least.merges == [] and least.tokens[256:] == [b"<|endoftext|>"]


def test_learning_stops_when_nothing_is_left_to_merge() -> None:
    tok = BPETokenizer.train(["ab"], 1000)
    assert tok.tokens[256:] == [b"ab", b"<|endoftext|>"] and tok.vocab_size == 258 and tok.eos_id == 257


def test_texts_are_read_once_and_not_joined_and_special_tokens_skipped() -> None:
    def texts() -> Iterator[str]:
        yield "xy<|endoftext|>xy"
        yield "xy"

    assert list(train_naive(count_words(texts(), "gpt4", ["<|endoftext|>"]), 99)) == [((87, 88), 3)]
    assert BPETokenizer.train(texts(), 999).merges == [(87, 88)]


def test_progress_shows_bars_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    BPETokenizer.train(["some text some text"], 260)
    assert capsys.readouterr().err == ""
    BPETokenizer.train(["some text some text"], 260, progress=True)
    shown = capsys.readouterr().err
    assert "count" in shown and "merge" in shown


# ---- encoding


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=any_text)
def test_decoding_gives_the_text_back(pattern: str, text: str) -> None:
    tok = trained(pattern)
    ids = tok.encode(text, disallowed_special=())
    assert tok.decode(ids) == tok.decode(ids, errors="strict") == text
    assert tok.decode_bytes(np.array(ids, np.int64)) == text.encode()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_of_unicode_goes_round(pattern: str) -> None:
    tok = trained(pattern)
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=any_text)
def test_ids_equal_tiktoken(pattern: str, text: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    tok = trained(pattern)
    peer = tiktoken.Encoding(
        "test",
        pat_str=UNICODE_PATTERNS[pattern],
        mergeable_ranks=mergeable_ranks(tok),
        special_tokens=tok.special_tokens,
    )
    assert tok.encode(text, disallowed_special=()) == peer.encode(text, disallowed_special=())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_ids_decode_as_tiktoken_decodes_them(pattern: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    tok = trained(pattern)
    peer = tiktoken.Encoding(
        "test", pat_str=".", mergeable_ranks=mergeable_ranks(tok), special_tokens=tok.special_tokens
    )
    for seed in range(50):
        ids = np.random.default_rng(seed).integers(tok.vocab_size, size=20).tolist()
        assert tok.decode(ids) == peer.decode(ids)
        assert [tok.token_bytes(i) for i in ids] == peer.decode_tokens_bytes(ids)


@settings(max_examples=200)
@given(piece=st.one_of(few_characters, tricky))
def test_all_merge_loops_equal_the_plain_one(piece: str) -> None:
    tok = trained("gpt4")
    ids = [tok.id_of_byte[byte] for byte in piece.encode()]
    *_, plain = merge_steps(tok, piece)
    for loop in (merge_word, merge_long_word, merge_very_long):
        assert loop(list(ids), tok.ranks, tok.merged) == plain


@given(merges=st.permutations([(64, 64), (65, 64), (64, 65), (256, 64), (64, 256), (256, 256)]), word=few_characters)
def test_the_merge_loops_agree_where_the_merges_come_in_an_order_no_training_gives(
    merges: list[tuple[int, int]], word: str
) -> None:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    merged = [256 + rank for rank in range(len(merges))]
    ids = [64 if letter == "a" else 65 for letter in word]
    found = [loop(list(ids), ranks, merged) for loop in (merge_word, merge_long_word, merge_very_long)]
    assert found[0] == found[1] == found[2]
    assert merge_word(ids[:SHORT], ranks, merged) == merge_long_word(ids[:SHORT], ranks, merged)


def test_a_long_word_takes_time_in_proportion() -> None:
    """200,000 letters without a space: by scanning for each minimum it would take minutes."""
    tok = trained("gpt4")
    text = "ab" * 100_000
    ids = tok.encode(text)
    assert tok.decode(ids) == text and len(ids) < len(text) / 2


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PieceCache, "MAX_PIECES", 10)
    tok = BPETokenizer.train(["abc " * 9], 262)
    text = " ".join(f"w{i} {'x' * i}" for i in range(100))
    assert tok.decode(tok.encode(text)) == text
    assert len(tok._cache) <= 10 and max(map(len, tok._cache)) <= PieceCache.MAX_LENGTH
    cache = PieceCache(lambda piece: [len(piece)])
    for length in range(55, 67):
        assert cache["x" * length] == (length,)
    assert sorted(map(len, cache)) == [*range(55, 65)]  # ten, of which none is longer than 64
    assert cache["y"] == (1,) and list(cache) == ["y"]


def test_encode_batch() -> None:
    tok = trained("gpt4")
    assert tok.encode_batch(SAMPLES) == [tok.encode(text) for text in SAMPLES]
    assert tok.encode_batch([]) == [] and tok.encode("") == [] and tok.decode([]) == ""


def test_bytes_that_are_no_text() -> None:
    tok = trained("gpt2")
    ids = [tok.id_of_token[bytes([byte])] for byte in "中".encode()[:2]]
    assert tok.decode_bytes(ids) == b"\xe4\xb8"
    assert tok.decode(ids) == "\ufffd" and tok.decode(ids, errors="backslashreplace") == r"\xe4\xb8"
    with pytest.raises(UnicodeDecodeError):
        tok.decode(ids, errors="strict")


def test_merge_leaves_no_pair_and_keeps_the_rest() -> None:
    assert merge([1, 2, 1, 2, 2, 1], (1, 2), 7) == [7, 7, 2, 1]
    assert merge([], (1, 2), 7) == []


def test_fingerprints_tell_tokenizers_apart() -> None:
    tokenizers = [
        BPETokenizer.train(["abab"], 258),
        BPETokenizer.train(["acac"], 258),
        BPETokenizer.train(["abab"], 258, pattern="gpt2"),
        BPETokenizer.train(["abab"], 258, special_tokens=["<|end|>"]),
    ]
    assert len({tok.fingerprint() for tok in tokenizers}) == 4
    assert BPETokenizer.train(["abab"], 258).fingerprint() == tokenizers[0].fingerprint()
    assert len(tokenizers[0].fingerprint()) == 16


# ---- what cannot be


def test_training_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"must be from 257 \(256 single bytes, 1 special .* to 1048576, not 256\.$"):
        BPETokenizer.train(["text"], 256)
    with pytest.raises(ValueError, match="to 1048576, not 2000000"):
        BPETokenizer.train(["text"], 2_000_000)
    with pytest.raises(ValueError, match="hold nothing to learn from"):
        BPETokenizer.train(["", ""], 300)
    with pytest.raises(ValueError, match="hold nothing to learn from"):
        BPETokenizer.train(["<|endoftext|>"], 300)
    with pytest.raises(TypeError, match=r"pass \[text\] for one text"):
        BPETokenizer.train("a text", 300)
    with pytest.raises(TypeError, match="decode it first"):
        BPETokenizer.train([b"bytes"], 300)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"U\+D83D at character 3 of 'abc\\ud83d'"):
        BPETokenizer.train(["abc\ud83d"], 300)
    with pytest.raises(ValueError, match=r"split pattern must be one of .*, not 'gpt3'"):
        BPETokenizer.train(["text"], 300, pattern="gpt3")
    with pytest.raises(TypeError, match="special_tokens must be several strings"):
        BPETokenizer.train(["text"], 300, special_tokens="<|end|>")
    with pytest.raises(ValueError, match="non-empty string"):
        BPETokenizer.train(["text"], 300, special_tokens=[""])
    with pytest.raises(ValueError, match="twice"):
        BPETokenizer.train(["text"], 300, special_tokens=["<|x|>", "<|x|>"])
    with pytest.raises(ValueError, match=r"'t' is written like the ordinary token 83, .*'<\|t\|>'"):
        BPETokenizer.train(["text"], 300, special_tokens=["t"])


def test_halves_of_characters_are_refused_from_the_first_to_the_last() -> None:
    for half in ("\ud800", "\udbff", "\udc00", "\udfff"):
        message = rf"a lone surrogate, U\+{ord(half):04X} at character 1 "
        with pytest.raises(ValueError, match=message):
            BPETokenizer.train(["text"], 300, special_tokens=["<" + half])
        with pytest.raises(ValueError, match=message):
            trained("gpt4").encode("x" + half)
    for neighbour in ("\ud7ff", "\ue000"):
        tok = BPETokenizer.train(["text"], 300, special_tokens=["<" + neighbour])
        assert tok.decode(tok.encode(neighbour)) == neighbour


def test_encoding_refuses_what_cannot_be() -> None:
    tok = trained("gpt4")
    with pytest.raises(TypeError, match="must be a str, not bytes; decode it first"):
        tok.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a str, not list"):
        tok.encode(["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="several strings"):
        tok.encode_batch("a text")
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80 at character 5000"):
        tok.encode("x" * 5000 + "\udc80")
    assert tok.encode("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")) == tok.encode("😀")


@pytest.mark.parametrize("bad", [[-1], [5, 100_000], np.array([700])])
def test_decoding_refuses_ids_out_of_range(bad: list[int]) -> None:
    tok = trained("gpt4")
    with pytest.raises(
        ValueError, match=rf"ids\[{len(bad) - 1}\] is {bad[-1]}, .* its ids are 0\.\.{tok.vocab_size - 1}"
    ):
        tok.decode(bad)


def test_decoding_refuses_what_is_no_id() -> None:
    tok = trained("gpt4")
    for bad in ([[1, 2]], [1.5], ["a"], np.zeros((2, 2), np.int64), [None]):
        with pytest.raises(TypeError, match=r"ids must be integers, but ids\[0\] is"):
            tok.decode(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("whole", [True, False])
def test_steps_end_with_the_ids_also_of_a_token_that_no_merge_builds(whole):
    tokenizer = BPETokenizer([*(bytes([i]) for i in range(256)), b"ow"], [], "gpt4", {}, whole_pieces=whole)
    assert list(merge_steps(tokenizer, "ow"))[-1] == tokenizer.encode("ow") == ([256] if whole else [*b"ow"])
