"""Further calls of a tokenizer, as programs for transformers make them, against transformers itself."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers.models")
pytest.importorskip("transformers")

import transformers
from tokenizer_shapes import made

from minillm import AutoTokenizer
from minillm.hub.offsets import overflowing, token_mask, windows
from minillm.hub.tokenizer import PretrainedTokenizer
from minillm.tokenizers import BPETokenizer, CharTokenizer, load_tokenizer

TEXTS = ["Hello  world, it's 1234!", "", "a single man " * 9, "语言模型 é́ x"]
WORDS = [["Hello", "wor", "ld"], ["a"], ["it's", "single"], []]
PADS = {"xlm-r": "<pad>", "llama": "</s>", "neox": "<|endoftext|>"}
MARKED = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}{{ tools }}"
)


@pytest.fixture(params=PADS)
def pair(request, tmp_path):
    """A folder read by minillm and by transformers."""
    made(request.param).save(str(tmp_path / "tokenizer.json"))
    pad = PADS[request.param]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "eos_token": pad}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)


def plain(inputs):
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in dict(inputs).items()}


def test_offsets_masks_and_windows(pair):
    ours, theirs = pair
    window = {"return_overflowing_tokens": True, "return_offsets_mapping": True, "stride": 3}
    options = [{"return_offsets_mapping": True}, {"return_special_tokens_mask": True}, window]
    for padding, more, side in itertools.product((False, True, "max_length"), options, ("right", "left")):
        ours.truncation_side = theirs.truncation_side = side
        asked = {"padding": padding, "truncation": True, "max_length": 9, **more}
        for texts in (TEXTS, TEXTS[0], TEXTS[2]):
            assert plain(ours(texts, **asked)) == plain(theirs(texts, **asked)), (texts, asked)
        asked |= {"truncation": "only_second", "max_length": 14}
        for two in (("Hi", "so " * 12), (["a", "b"], ["x " * 20, "y"])):
            assert plain(ours(*two, **asked)) == plain(theirs(*two, **asked)), (two, asked)


def test_words(pair):
    ours, theirs = pair
    asked = {"is_split_into_words": True, "padding": True, "return_offsets_mapping": True}
    for words in (WORDS, WORDS[0]):
        made_here, expected = ours(words, **asked), theirs(words, **asked)
        assert plain(made_here) == plain(expected)
        for i in range(len(WORDS) if words is WORDS else 1):
            assert made_here.word_ids(i) == expected.word_ids(i)
    assert ours("a b").words is None
    with pytest.raises(ValueError, match="pass is_split_into_words=True or return_offsets_mapping=True"):
        ours("a b").word_ids()


def test_decoding_of_rows_one_id_and_cleaned_up(pair):
    ours, theirs = pair
    rows = theirs(TEXTS)["input_ids"]
    assert ours.decode(rows) == theirs.decode(rows) == ours.batch_decode(rows)
    assert ours.decode(rows[0], True) == theirs.decode(rows[0], skip_special_tokens=True)
    assert ours.decode(5) == theirs.decode(5) and ours.decode([]) == ""
    padded = ours(TEXTS, padding=True, return_tensors="np")["input_ids"]
    assert ours.decode(padded) == theirs.decode(padded)


def test_cleaning_up_spaces(tmp_path):
    core = BPETokenizer.train(TEXTS, 300)
    tok = PretrainedTokenizer(core)
    ids = core.encode("it 's , well , I 'm sure . Do n't")
    assert tok.decode(ids, clean_up_tokenization_spaces=True) == "it's, well, I'm sure. Don't"
    assert tok.decode(ids) == "it 's , well , I 'm sure . Do n't"
    assert PretrainedTokenizer(core, {"clean_up_tokenization_spaces": True}).decode(ids).startswith("it's, well")


def test_pad(pair):
    ours, theirs = pair
    assert plain(ours.pad(ours(TEXTS))) == plain(theirs.pad(theirs(TEXTS)))
    asked = {"padding": "max_length", "max_length": 90, "return_tensors": "np"}
    rows = [[dict(tok(text)) for text in TEXTS] for tok in pair]
    assert plain(ours.pad(rows[0], **asked)) == plain(theirs.pad(rows[1], **asked))
    one = ours.pad({"input_ids": [1, 2]}, padding="max_length", max_length=4)
    assert len(one["input_ids"]) == 4 and one["attention_mask"] == [1, 1, 0, 0]
    rows = ours.pad({"input_ids": np.ones((2, 3), int)}, pad_to_multiple_of=4, return_tensors="np")
    assert rows.input_ids.shape == (2, 4)
    with pytest.raises(ValueError, match="no padding token"):
        PretrainedTokenizer(BPETokenizer.train(TEXTS, 300, special_tokens=())).pad({"input_ids": [[1], [1, 2]]})


def test_tokens_added(pair, tmp_path):
    ours, theirs = pair
    text = "a foo<x>single man[P]<q>foobar"
    for tok in pair:
        counts = [
            tok.add_tokens(["foo", "single"]),
            tok.add_tokens(["foo", "<x>"], special_tokens=True),
            tok.add_special_tokens({"pad_token": "[P]", "extra_special_tokens": ["<q>"]}),
            tok.add_tokens("foo"),
            tok.add_tokens(transformers.AddedToken("bar", lstrip=True)),
            tok.add_tokens([]),
        ]
        assert counts == [2, 2, 2, 1, 1, 0]
    assert len(ours) == len(theirs) and ours.pad_token_id == theirs.pad_token_id
    assert ours.convert_ids_to_tokens(len(ours) - 1) == theirs.convert_ids_to_tokens(len(theirs) - 1)
    expected = plain(theirs(text, return_offsets_mapping=True))
    assert plain(ours(text, return_offsets_mapping=True)) == expected
    ours.save_pretrained(tmp_path / "saved")
    for again in (AutoTokenizer, transformers.AutoTokenizer):
        assert again.from_pretrained(tmp_path / "saved")(text)["input_ids"] == expected["input_ids"]
    with pytest.raises(ValueError, match="no special token has the role 'eos'"):
        ours.add_special_tokens({"eos": "<e>"})


def test_masks_of_what_the_assistant_says(pair):
    ours, theirs = pair
    said = ["Hi there", "Hello 12 me", "x", "bye"]
    chat = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    asked = {"chat_template": MARKED, "return_assistant_tokens_mask": True, "return_dict": True, "tools": tools}
    for conversation in (chat, [chat, chat[:2]]):
        batch = {"padding": isinstance(conversation[0], list)}
        expected = plain(theirs.apply_chat_template(conversation, **asked, **batch))
        assert plain(ours.apply_chat_template(conversation, **asked, **batch)) == expected
        assert 1 in np.array(expected["assistant_masks"])
    tensors = ours.apply_chat_template(chat, **asked, return_tensors="np")
    assert tensors["assistant_masks"].shape == tensors["input_ids"].shape


@given(n=st.integers(0, 30), size=st.integers(1, 10), stride=st.integers(0, 9), side=st.sampled_from(["left", "right"]))
def test_windows_hold_every_token_and_overlap(n, size, stride, side):
    if n > size and stride >= size:
        with pytest.raises(ValueError, match="stride"):
            windows(n, size, stride, side)
        return
    found = windows(n, size, stride, side)
    assert {i for start, end in found for i in range(start, end)} == set(range(n))
    assert all(end - start <= size for start, end in found)
    ordered = sorted(found)
    assert all(a[1] - b[0] >= stride for a, b in itertools.pairwise(ordered))


def test_what_cannot_overflow():
    with pytest.raises(ValueError, match="needs truncation='only_first' or 'only_second'"):
        overflowing([1, 2, 3], [4, 5], 4, "longest_first", 0, "right")
    assert overflowing([1, 2], [3], 9, "longest_first", 0, "right") == [([1, 2], [3])]
    assert token_mask([(0, 0), (0, 2), (2, 3), (3, 3), (3, 5)], [(1, 4)]) == [0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="a character tokenizer has no offsets"):
        PretrainedTokenizer(CharTokenizer.train(["abc"]))("abc", return_offsets_mapping=True)


@pytest.mark.parametrize("token_id", [300, 5000, 1_000_000])
def test_a_special_id_far_above_the_rest(tmp_path, token_id):
    core = BPETokenizer.train(TEXTS, 280, special_tokens=())
    tokens = [*core.tokens, *[None] * (token_id - len(core.tokens)), b"<far>"]
    far = BPETokenizer(tokens, core.merges, core.pattern, {"<far>": token_id})
    far.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode("a<far>", allowed_special="all") == far.encode("a<far>", allowed_special="all")
    assert again.fingerprint() == far.fingerprint()


def test_more_ids_than_a_file_can_have(tmp_path):
    core = BPETokenizer.train(TEXTS, 280, special_tokens=())
    far = BPETokenizer([*core.tokens, *[None] * (1 << 21), b"<far>"], core.merges, core.pattern, {})
    with pytest.raises(ValueError, match="ids are more than a file can have, 2097152"):
        far.save(tmp_path)


def test_what_names_gpt2_but_has_digits_apart_is_read_as_its_file_says(tmp_path):
    made("smollm").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    assert AutoTokenizer.from_pretrained(tmp_path).encode("a 1234") == made("smollm").encode("a 1234").ids
