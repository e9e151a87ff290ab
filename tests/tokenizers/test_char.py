import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import any_text

from minillm.tokenizers import CharTokenizer, load_tokenizer


def test_characters_in_code_point_order_then_special_tokens() -> None:
    tok = CharTokenizer.train(["中ba", "a\n"], unk_token="<unk>")
    assert tok.characters == "\nab中"
    assert tok.special_tokens == {"<|endoftext|>": 4, "<unk>": 5} and tok.eos_id == 4 and tok.vocab_size == 6
    assert tok.token_bytes(3) == "中".encode()
    assert tok.encode("ab中\n") == [1, 2, 3, 0]
    assert tok.encode_batch(["a", "b"]) == [[1], [2]]


@given(text=any_text)
def test_decoding_gives_the_text_back(text: str) -> None:
    if text:
        tok = CharTokenizer.train([text], special_tokens=())
        ids = tok.encode(text)
        assert len(ids) == len(text) and tok.decode(ids) == text


def test_a_character_that_was_not_in_training() -> None:
    tok = CharTokenizer.train(["abc"])
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 2 was not in the training texts.*unk_token"):
        tok.encode("abé")
    tok = CharTokenizer.train(["abc"], unk_token="<unk>")
    assert tok.encode("aéb") == [0, tok.special_tokens["<unk>"], 1]
    assert tok.decode(tok.encode("aéb")) == "a<unk>b"


def test_special_tokens_follow_the_same_rule_as_in_bpe() -> None:
    tok = CharTokenizer.train(["text with <|endoftext|>"])
    assert "<" not in tok.characters
    with pytest.raises(ValueError, match="text of a special token"):
        tok.encode("t<|endoftext|>")
    assert tok.encode("t<|endoftext|>", allowed_special="all") == [*tok.encode("t"), tok.eos_id]


def test_save_and_load(tmp_path: Path) -> None:
    tok = CharTokenizer.train(["some text 中文\n"], special_tokens=["<a>", "<b>"], unk_token="<unk>")
    for name in ("folder", "tok.json"):
        tok.save(tmp_path / name)
        again = load_tokenizer(tmp_path / name)
        assert isinstance(again, CharTokenizer)
        assert again.tokens == tok.tokens and again.special_tokens == tok.special_tokens
        assert again.unk_token == tok.unk_token and again.fingerprint() == tok.fingerprint()
    assert CharTokenizer.train(["other"]).fingerprint() != tok.fingerprint()
    content = json.loads((tmp_path / "tok.json").read_text(encoding="utf-8"))
    del content["unk_token"]
    (tmp_path / "tok.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"must hold .*'unk_token'.*, but holds"):
        load_tokenizer(tmp_path / "tok.json")


def test_a_special_token_may_be_short_or_hold_characters() -> None:
    tok = CharTokenizer("abc", ["abc", "x"])
    assert tok.encode("abcx", allowed_special="all") == [3, 4]
    assert tok.encode("abc", disallowed_special=()) == [0, 1, 2]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no character to learn from"):
        CharTokenizer.train([])
    with pytest.raises(TypeError, match="several strings"):
        CharTokenizer.train("text")
    with pytest.raises(ValueError, match="lone surrogate"):
        CharTokenizer.train(["a\ud800"])
    with pytest.raises(ValueError, match="also an ordinary character"):
        CharTokenizer("abc", ["c"])
    with pytest.raises(ValueError, match="characters holds a character twice"):
        CharTokenizer("aa", [])
    with pytest.raises(ValueError, match="must be one of the special tokens"):
        CharTokenizer("ab", [], unk_token="<unk>")
    with pytest.raises(ValueError, match=r"ids\[0\] is 9"):
        CharTokenizer("ab", []).decode([9])


@given(training=any_text.filter(bool), text=any_text, unknown=st.sampled_from([None, "<unk>"]))
@settings(max_examples=60, deadline=None)
def test_the_tokenizers_library_gives_the_same_ids(tmp_path_factory, training, text, unknown):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = CharTokenizer.train([training], unk_token=unknown)
    if unknown is None:
        text = "".join(character for character in text if character in training)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.hf_json()))
    ids = tokenizer.encode(text)
    assert theirs.encode(text, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
    path = tmp_path_factory.mktemp("char") / "tokenizer.json"
    path.write_text(json.dumps(tokenizer.hf_json()), encoding="utf-8")
    assert load_tokenizer(path).fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("decoder", None, "decoder must be as minillm has it"),
        ("model", {"type": "WordLevel", "vocab": {"word": 0, "b": 1}, "unk_token": "b"}, "more than a character each"),
        ("model", {"type": "WordLevel", "vocab": ["a"]}, "vocab must be ids by text"),
        ("added_tokens", "none", "added_tokens a list of tokens"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer must be as minillm has it"),
    ],
)
def test_words_are_no_characters(tmp_path, part, value, message):
    content = {**CharTokenizer.train(["ab"], special_tokens=[]).hf_json(), part: value}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "tokenizer.json" in str(error.value)
