import json
import os
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_samples import SAMPLES, any_text, trained

from minillm.tokenizers import BPETokenizer, CharTokenizer, load_tokenizer
from minillm.tokenizers.bpe_plain import merge_steps
from minillm.tokenizers.byte_spelling import BYTE_OF_ID, CHARACTER_OF_BYTE, spell, unspell
from minillm.tokenizers.formats import tokenizer_json
from minillm.tokenizers.gpt2_files import load_gpt2, save_gpt2
from minillm.tokenizers.json_parts import MAX_IDS, check_ids, short
from minillm.tokenizers.split import UNICODE_PATTERNS

PATTERNS = sorted(UNICODE_PATTERNS)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def same(a: BPETokenizer, b: BPETokenizer) -> bool:
    return (a.tokens, a.merges, a.pattern, a.special_tokens, a.whole_pieces, a.fingerprint()) == (
        (b.tokens, b.merges, b.pattern, b.special_tokens, b.whole_pieces, b.fingerprint())
    )


def test_the_byte_alphabet() -> None:
    assert [spell(bytes([b])) for b in b" \n\t!a~"] == ["Ġ", "Ċ", "ĉ", "!", "a", "~"]
    assert unspell(spell(bytes(range(256)))) == bytes(range(256))
    assert sorted(CHARACTER_OF_BYTE.values()) == [CHARACTER_OF_BYTE[b] for b in BYTE_OF_ID]
    assert all(character.isprintable() and character != " " for character in CHARACTER_OF_BYTE.values())


# ---- there and back


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["tokenizer.json", "other.json", "folder", "a/b"])
def test_save_and_load(tmp_path: Path, pattern: str, name: str) -> None:
    tok = trained(pattern)
    tok.save(tmp_path / name)
    assert same(BPETokenizer.load(tmp_path / name), tok)
    assert same(load_tokenizer(tmp_path / name), tok)  # type: ignore[arg-type]
    tok.save(tmp_path / name)  # over itself
    assert same(BPETokenizer.load(tmp_path / name), tok)


def test_gpt2_files(tmp_path: Path) -> None:
    tok = BPETokenizer.train(SAMPLES, 500, pattern="gpt2")
    save_gpt2(tok, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["merges.txt", "vocab.json"]
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\nð Ł\ni n\nĠ a\n")
    assert same(load_gpt2(tmp_path), tok)
    assert same(load_tokenizer(tmp_path), tok)  # type: ignore[arg-type]
    plain = load_gpt2(tmp_path, special_tokens=())
    assert plain.special_tokens == {} and plain.vocab_size == 500
    with pytest.raises(ValueError, match=r"does not hold the special token '<\|x\|>'"):
        load_gpt2(tmp_path, special_tokens=["<|x|>"])
    with pytest.raises(ValueError, match=r"must be 'gpt2', not 'gpt4'\."):
        save_gpt2(trained("gpt4"), tmp_path)


def test_the_tokenizers_library_reads_gpt2_files(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer, models, pre_tokenizers

    tok = BPETokenizer.train(SAMPLES, 500, pattern="gpt2")
    save_gpt2(tok, tmp_path)
    peer = Tokenizer(models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")))
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert [peer.encode(text).ids for text in SAMPLES] == tok.encode_batch(SAMPLES)
    peer.model.save(str(tmp_path))  # and theirs, which has no special token
    again = load_gpt2(tmp_path, special_tokens=())
    assert (again.merges, again.vocab_size) == (tok.merges, tok.vocab_size)


def test_merges_of_number_signs_are_no_comments(tmp_path: Path) -> None:
    tok = BPETokenizer.train(["## #### ########"], 260, pattern="gpt2")
    save_gpt2(tok, tmp_path)
    assert "# #" in (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert same(load_gpt2(tmp_path), tok)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = BPETokenizer.train(["abab"], 258)
    tok.save(tmp_path)

    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        trained("gpt4").save(tmp_path)
    assert os.listdir(tmp_path) == ["tokenizer.json"] and same(BPETokenizer.load(tmp_path), tok)


# ---- the tokenizers library reads ours, and we read its


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=any_text)
def test_the_tokenizers_library_gives_equal_ids(pattern: str, text: str) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer

    tok = trained(pattern)
    peer = PEERS.setdefault(pattern, Tokenizer.from_str(json.dumps(tokenizer_json(tok))))
    ids = tok.encode(text, allowed_special="all")
    assert peer.encode(text).ids == ids
    assert peer.decode(ids, skip_special_tokens=False) == text


PEERS: dict[str, Any] = {}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_tokenizers_library_agrees_on_vocabulary_and_special_tokens(pattern: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer

    tok = trained(pattern)
    tok.save(tmp_path)
    peer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert peer.get_vocab_size() == tok.vocab_size
    assert {token: peer.token_to_id(token) for token in tok.special_tokens} == tok.special_tokens
    text = "a<|end|><|more|>b<|endoftext|> c"
    assert peer.encode(text).ids == tok.encode(text, allowed_special="all")
    peer.save(str(tmp_path / "theirs.json"))
    assert same(BPETokenizer.load(tmp_path / "theirs.json"), tok)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("behavior", ["isolated", "removed"])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_a_tokenizer_made_by_the_library_itself(
    pattern: str, behavior: str, ignore_merges: bool, tmp_path: Path
) -> None:
    """Its special tokens have the first ids, and it may look pieces up whole."""
    pytest.importorskip("tokenizers.models")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    peer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(UNICODE_PATTERNS[pattern]), behavior, invert=behavior == "removed")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    peer.decoder = decoders.ByteLevel()
    peer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(
        SAMPLES,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    peer.add_special_tokens(["<later>"])
    peer.save(str(tmp_path / "tokenizer.json"))
    tok = BPETokenizer.load(tmp_path)
    assert tok.special_tokens["<s>"] == 0 and tok.whole_pieces == ignore_merges and tok.vocab_size == 601
    for text in [*SAMPLES, "<s>" + "x".join(SAMPLES) + "</s> <later>", "aaaa" * 9]:
        ids = peer.encode(text).ids
        assert tok.encode(text, allowed_special="all") == ids
        assert tok.decode(ids) == peer.decode(ids, skip_special_tokens=False)
    tok.save(tmp_path / "again.json")
    again = Tokenizer.from_file(str(tmp_path / "again.json"))
    assert again.get_vocab() == peer.get_vocab()
    assert same(BPETokenizer.load(tmp_path / "again.json"), tok)


def test_whole_pieces_go_before_merges(tmp_path: Path) -> None:
    """As in files of Llama 3: a token that no merges lead to is found if it is a whole piece."""
    content = tokenizer_json(BPETokenizer.train(["ab"], 258))
    content["model"]["vocab"]["xyz"] = 258
    content["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tok = BPETokenizer.load(tmp_path)
    assert tok.encode("xyz") == [258] and len(tok.encode("xyzz")) == 4
    assert [*merge_steps(tok, "xyz")][-1] == [258]
    content["model"]["ignore_merges"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert len(BPETokenizer.load(tmp_path).encode("xyz")) == 3
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer

    content["model"]["ignore_merges"] = True
    assert Tokenizer.from_str(json.dumps(content)).encode("xyz xyzz").ids == tok.encode("xyz xyzz")


def test_old_spellings_are_read(tmp_path: Path) -> None:
    """Files of before 2021 have merges as one string and no model type."""
    tok = trained("gpt2")
    content = tokenizer_json(tok)
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    del content["model"]["type"], content["model"]["ignore_merges"], content["pre_tokenizer"]["use_regex"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert same(BPETokenizer.load(tmp_path), tok)


def test_ids_with_holes_and_out_of_order(tmp_path: Path) -> None:
    content = tokenizer_json(BPETokenizer.train(["abab"], 258))
    content["model"]["vocab"]["ab"] = 300
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tok = BPETokenizer.load(tmp_path)
    assert tok.encode("ab") == [300] and tok.vocab_size == 301
    with pytest.raises(ValueError, match=r"ids\[0\] is 299, and this tokenizer has no such token"):
        tok.decode([299])


def test_a_gpt2_tokenizer_saved_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tok = BPETokenizer.train(SAMPLES, 500, pattern="gpt2")
    save_gpt2(tok, tmp_path)
    peer = transformers.GPT2TokenizerFast.from_pretrained(str(tmp_path))
    peer.save_pretrained(str(tmp_path / "theirs"))
    assert same(BPETokenizer.load(tmp_path / "theirs"), tok)
    assert [peer.encode(text) for text in SAMPLES] == tok.encode_batch(SAMPLES)


@pytest.mark.parametrize(
    "post_processor",
    [
        BYTE_LEVEL,
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]},
        {"type": "Sequence", "processors": [BYTE_LEVEL, BYTE_LEVEL]},
    ],
)
def test_post_processors_that_add_nothing_are_read(tmp_path: Path, post_processor: dict[str, Any]) -> None:
    tok = BPETokenizer.train(["abab"], 258)
    content = tokenizer_json(tok) | {"post_processor": post_processor}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert same(BPETokenizer.load(tmp_path), tok)


def test_a_template_with_a_second_text_where_there_is_one_is_refused(tmp_path: Path) -> None:
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    content = tokenizer_json(BPETokenizer.train(["abab"], 258))
    content["post_processor"] = {"type": "TemplateProcessing", "single": single}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: the post_processor puts a second text, B, into 'single'"):
        BPETokenizer.load(tmp_path)


def test_transformers_reads_a_saved_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tok = trained("gpt4")
    tok.save(tmp_path)
    peer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in SAMPLES:
        assert peer.encode(text) == tok.encode(text)


# ---- files of the kinds that models are published with


def qwen2_file() -> dict[str, Any]:
    """As Qwen2's: NFC, digits one by one, tokens after the vocabulary of which some are not special."""
    transformers = pytest.importorskip("transformers")
    ours = BPETokenizer.train([*SAMPLES, "é e\u0301 한글 가"], 600, pattern="qwen2", special_tokens=(), nfc=True)
    model = tokenizer_json(ours)["model"]
    peer = transformers.Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    peer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    peer.add_tokens(["<tool_call>", "</tool_call>"])
    return json.loads(peer.backend_tokenizer.to_str())


def llama3_file() -> dict[str, Any]:
    """As Llama 3's: the pattern of GPT-4, whole pieces before merges, a BOS before each text."""
    pytest.importorskip("tokenizers.models")
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    model = tokenizer_json(trained("gpt4"))["model"]
    vocab = {token: token_id for token, token_id in model["vocab"].items() if "<|" not in token}
    bpe = models.BPE(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]], ignore_merges=True)
    peer = Tokenizer(bpe)
    split = pre_tokenizers.Split(Regex(UNICODE_PATTERNS["gpt4"]), "isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    peer.decoder = decoders.ByteLevel()
    peer.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False) for name in ("begin", "end", "eot")])
    bos = ("<|begin|>", peer.token_to_id("<|begin|>"))
    template = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|>:0 $A:0 <|begin|>:1 $B:1", special_tokens=[bos]
    )
    peer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return json.loads(peer.to_str())


def gpt2_file() -> dict[str, Any]:
    """As GPT-2's own, from before 2021."""
    content = tokenizer_json(trained("gpt2"))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    content["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    content["added_tokens"] = [entry | {"normalized": True} for entry in content["added_tokens"]]
    return content


def roberta_file() -> dict[str, Any]:
    """As RoBERTa's: GPT-2's with a template of its own, and a mask that takes the space before it."""
    content = gpt2_file()
    content["added_tokens"][0] |= {"lstrip": True}
    sep, cls = [[token, content["model"]["vocab"][token]] for token in ("<|end|>", "<|endoftext|>")]
    content["post_processor"] = {"type": "RobertaProcessing", "sep": sep, "cls": cls}
    content["post_processor"] |= {"trim_offsets": True, "add_prefix_space": False}
    return content


PUBLISHED = [qwen2_file, llama3_file, gpt2_file, roberta_file]
MARKS = ["<|im_start|>", "<|im_end|>", "<tool_call>", "<|begin|>", "<|end|>", "<|endoftext|>", "<|eot|>", " "]
marked_text = st.lists(st.one_of(any_text, st.sampled_from([*MARKS, "e\u0301", "\u0338"])), max_size=5).map("".join)


@cache
def both(make: Callable[[], dict[str, Any]]) -> tuple[BPETokenizer, Any]:
    """A file read by us and by the `tokenizers` library."""
    content = make()
    from tokenizers import Tokenizer

    with TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        return BPETokenizer.load(folder), Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize("make", PUBLISHED)
@given(text=marked_text, pair=st.one_of(st.none(), marked_text))
def test_published_kinds_of_files_give_equal_ids(
    make: Callable[[], dict[str, Any]], text: str, pair: str | None
) -> None:
    pytest.importorskip("tokenizers.models")
    tok, peer = both(make)
    encoded = peer.encode(text, pair)
    assert tok.encode_pair(text, pair, allowed_special="all") == (encoded.ids, encoded.type_ids)
    assert tok.encode(text, allowed_special="all") == peer.encode(text, add_special_tokens=False).ids
    for skip in (False, True):
        assert tok.decode(encoded.ids, skip_special_tokens=skip) == peer.decode(encoded.ids, skip_special_tokens=skip)


@pytest.mark.parametrize("make", PUBLISHED)
def test_published_kinds_of_files_go_round(make: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("tokenizers.models")
    from tokenizers import Tokenizer

    tok, peer = both(make)
    tok.save(tmp_path)
    again = BPETokenizer.load(tmp_path)
    assert same(again, tok) and (again.template, again.nfc) == (tok.template, tok.nfc)
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*SAMPLES, "a <|end|> b", "e\u0301 <tool_call> 2024"]:
        assert theirs.encode(text, "b").ids == peer.encode(text, "b").ids == tok.encode_pair(text, "b", **ALL)[0]


ALL: Any = {"allowed_special": "all"}


def test_truncation_and_padding_of_a_file_are_left_to_the_caller(tmp_path: Path) -> None:
    content = tokenizer_json(trained("gpt4"))
    content |= {"truncation": {"max_length": 2}, "padding": {"strategy": {"Fixed": 128}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert same(BPETokenizer.load(tmp_path), trained("gpt4"))


def test_an_added_token_may_be_an_ordinary_one_too(tmp_path: Path) -> None:
    """`tokenizers` gives a word that is added, but known, the id that it has."""
    pytest.importorskip("tokenizers.models")
    from tokenizers import AddedToken, Tokenizer

    content = tokenizer_json(BPETokenizer.train(["abc abc"], 259))
    peer = Tokenizer.from_str(json.dumps(content))
    peer.add_tokens([AddedToken("abc", single_word=True), AddedToken("a", single_word=True)])
    peer.save(str(tmp_path / "tokenizer.json"))
    tok = BPETokenizer.load(tmp_path)
    for text in ["abc", "xabcx abc a", "aabc", "a bca"]:
        assert tok.encode(text) == peer.encode(text).ids
    tok.save(tmp_path)
    assert same(BPETokenizer.load(tmp_path), tok)


@pytest.mark.parametrize("pattern", ["gpt4", "qwen2"])
def test_to_keep_the_matches_or_to_remove_what_is_between_them(pattern: str, tmp_path: Path) -> None:
    content = tokenizer_json(trained(pattern))
    split = content["pre_tokenizer"]["pretokenizers"][0]
    cases = [("Isolated", False, True), ("Isolated", True, True), ("Removed", True, True), ("Removed", False, False)]
    for behavior, invert, same_pieces in [*cases, ("MergedWithNext", True, False)]:
        split |= {"behavior": behavior, "invert": invert}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        if same_pieces:
            assert same(BPETokenizer.load(tmp_path), trained(pattern))
        else:
            with pytest.raises(ValueError, match=rf"splits by .* \({behavior}\), which is not supported"):
                BPETokenizer.load(tmp_path)


# ---- files that cannot be read, and why


NFC = {"type": "NFC"}
BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [999], "tokens": ["<s>"]}},
}
SPLIT = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "NFKC"}, "normalizer is NFKC, which is not supported, .* the normalizer NFC, or none"),
        ("normalizer", {"type": "Sequence", "normalizers": [NFC, {"type": "Prepend"}]}, "normalizer is Prepend"),
        ("post_processor", {"type": "Other"}, "post_processor is Other, which is not supported"),
        (
            "post_processor",
            {"type": "Sequence", "processors": [BOS, BOS]},
            "is TemplateProcessing . TemplateProcessing",
        ),
        ("post_processor", BOS | {"special_tokens": {}}, "post_processor names '<s>' but gives no ids"),
        ("post_processor", BOS, "post_processor puts in the id 999, which no token has"),
        ("added_tokens", [{"id": 3}], "an added token must have a 'content' and an 'id'"),
        ("decoder", {"type": "WordPiece"}, "decoder is WordPiece"),
        ("model.type", "Unigram", "the model is Unigram, but BPETokenizer reads byte-level BPE: load_tokenizer reads"),
        ("model.dropout", 0.1, "model.dropout is 0.1"),
        ("model.end_of_word_suffix", "</w>", 'model.end_of_word_suffix is "</w>"'),
        ("model.continuing_subword_prefix", "##", "model.continuing_subword_prefix"),
        ("model.byte_fallback", True, "model.byte_fallback is true"),
        ("model.vocab", None, "no 'vocab' and 'merges'"),
        ("model.vocab", {"a": 0}, "255 of the 256 single bytes have no token"),
        ("model", None, "it has no 'model'"),
        ("model.merges", [["a", "q"]], "merge 0 is 'a' \\+ 'q', but 'aq' is not in the vocabulary"),
        ("model.merges", ["a b c"], "merge 0 must be two tokens"),
        ("pre_tokenizer", None, "the pre_tokenizer is none"),
        ("pre_tokenizer", {"type": "Metaspace"}, "the pre_tokenizer is Metaspace"),
        ("pre_tokenizer", BYTE_LEVEL | {"add_prefix_space": True}, "add_prefix_space=true"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL | {"add_prefix_space": True}]},
            "add_prefix_space=true",
        ),
        ("pre_tokenizer", BYTE_LEVEL | {"use_regex": False}, "ByteLevel with use_regex=False"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL | {"use_regex": False}]},
            r"splits by .*\(Isolated\), which is not supported. Known patterns: .*gpt2.*gpt4",
        ),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, BYTE_LEVEL]},
            r"Digits \+ ByteLevel with use_regex=True",
        ),
        # malformed parts
        ("pre_tokenizer", "x", 'the pre_tokenizer must be an object with a .type., or null, but it holds "x"'),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": []}, "the pre_tokenizer is none"),
        ("pre_tokenizer", {"type": "Sequence"}, "a Sequence, whose 'pretokenizers' must be a list"),
        *(
            (
                "pre_tokenizer",
                {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]},
                "the pre_tokenizer's Split has no 'pattern' object or no 'behavior'",
            )
            for split in (
                {"type": "Split", "pattern": {}},
                {"type": "Split", "behavior": "Isolated"},
                SPLIT | {"pattern": "x"},
            )
        ),
        ("normalizer", {"type": "Sequence"}, "the normalizer is a Sequence, whose 'normalizers' must be a list"),
        ("normalizer", "x", "the normalizer must be an object"),
        ("post_processor", "x", "the post_processor must be an object"),
        ("post_processor", {"type": "Sequence"}, "the post_processor is a Sequence, whose 'processors' must be a list"),
        ("post_processor", {"type": "BertProcessing"}, "the post_processor BertProcessing needs 'cls': .text, id."),
        ("post_processor", {"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": 1}, "RobertaProcessing needs 'sep'"),
        ("post_processor", BOS | {"single": [{"Foo": 1}]}, "the post_processor's 'single' must list objects"),
        ("post_processor", BOS | {"pair": [{}]}, "the post_processor's 'pair' must list objects"),
        ("post_processor", BOS | {"single": 7}, "the post_processor's 'single' must list objects"),
        ("post_processor", BOS | {"special_tokens": [1]}, "post_processor.special_tokens must hold lists 'ids'"),
        ("post_processor", BOS | {"special_tokens": {"<s>": {}}}, "special_tokens must hold lists 'ids', but '<s>'"),
        (
            "post_processor",
            BOS | {"special_tokens": {"<s>": {"ids": [True]}}},
            "special_tokens must hold lists 'ids', but '<s>'",
        ),
        (
            "post_processor",
            BOS | {"single": [{"Sequence": {"id": "A", "type_id": False}}]},
            "the post_processor's 'single' must list objects",
        ),
        ("model.merges", [1, 2], "model.merges: merge 0 must be two tokens' texts, not 1"),
        ("model.merges", [[1, 2]], r"model.merges: merge 0 must be two tokens' texts, not .1, 2."),
        ("added_tokens", {"a": 1}, "added_tokens must be a list"),
        ("added_tokens", [{"content": "x", "id": None}], "the added token 'x' has id None"),
    ],
)
def test_unsupported_parts_are_named(tmp_path: Path, part: str, value: object, message: str) -> None:
    content: dict[str, Any] = deepcopy(tokenizer_json(BPETokenizer.train(["abab"], 258)))
    *outer, key = part.split(".")
    (content[outer[0]] if outer else content)[key] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=f"tokenizer.json.*{message}"):
        BPETokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["Whitespace", "Metaspace", "WhitespaceSplit"])
def test_bpe_that_is_not_of_bytes_is_refused_by_its_pre_tokenizer(tmp_path: Path, kind: str) -> None:
    """Its vocabulary is of characters, but to say that first would not tell why."""
    model = {"type": "BPE", "vocab": {"中": 0, "▁a": 1, "\n": 2}, "merges": []}
    content = {"model": model, "pre_tokenizer": {"type": kind}, "decoder": {"type": "Metaspace"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=f"the pre_tokenizer is {kind}, but only BPE that ends in ByteLevel"):
        BPETokenizer.load(tmp_path)


def test_a_file_without_a_pre_tokenizer_and_one_nested_too_deeply(tmp_path: Path) -> None:
    content = tokenizer_json(BPETokenizer.train(["abab"], 258))
    del content["pre_tokenizer"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: the pre_tokenizer is none"):
        BPETokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is nested too deeply|is not JSON"):
        BPETokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aa": 3}, "the id 3 is given to two tokens"),
        ({"aa": "7"}, "the id of 'aa' must be a whole number from 0 up, not '7'"),
        ({"aa": -1}, "the id of 'aa' must be a whole number from 0 up, not -1"),
        ({"aa": 10**9}, "tokens have ids up to 1000000000"),
        ({"two words": 258}, "'two words' holds ' ', which is not in GPT-2's byte alphabet"),
        ({"<|endoftext|>": 299}, r"the added token '<\|endoftext\|>' has id 257, but 299 in the model"),
    ],
)
def test_broken_vocabularies_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = tokenizer_json(BPETokenizer.train(["abab"], 258))
    content["model"]["vocab"] |= changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


def test_long_values_are_cut_short_in_errors() -> None:
    assert short("x" * 78) == '"' + "x" * 78 + '"'
    assert short("x" * 79) == '"' + "x" * 76 + "..."


def test_which_ids_can_be() -> None:
    path = Path("x.json")
    with pytest.raises(ValueError, match="2 tokens have ids up to 2097152; with more than 2097152"):
        check_ids({"a": MAX_IDS, "b": 0}, path)
    check_ids({"a": MAX_IDS - 1, "b": 0}, path)
    check_ids({}, path)
    for wrong in (True, 1.0, None):
        with pytest.raises(ValueError, match="the id of 'a' must be a whole number from 0 up, not"):
            check_ids({"a": wrong, "b": 0}, path)


def test_files_cut_off_missing_or_of_another_kind(tmp_path: Path) -> None:
    trained("gpt4").save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_bytes()
    for content in (whole[:1000], b"", whole[:-3], b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"tokenizer\.json is not JSON, or was cut off \({len(content)} bytes\)"):
            load_tokenizer(tmp_path)
    for text in ("[]", "{}", "3", '{"format": "something"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"is no tokenizer\.json: it has no 'model'"):
            load_tokenizer(tmp_path)
    path.rename(tmp_path / "words.txt")
    with pytest.raises(FileNotFoundError, match=r"no file .*tokenizer\.json; its folder holds words\.txt\."):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match="nor its folder"):
        load_tokenizer(tmp_path / "nowhere")


def test_character_and_bpe_files_are_told_apart(tmp_path: Path) -> None:
    CharTokenizer.train(["abc"]).save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), CharTokenizer)
    with pytest.raises(ValueError, match="it has no 'model'"):
        BPETokenizer.load(tmp_path)
    trained("gpt4").save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)
    with pytest.raises(ValueError, match="is no character tokenizer"):
        CharTokenizer.load(tmp_path)
