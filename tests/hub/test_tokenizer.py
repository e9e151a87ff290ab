"""AutoTokenizer against transformers' tokenizers: batches, pairs, padding, truncation, special tokens,
conversations."""

import itertools
import json

import numpy as np
import pytest

from minillm.hub import AutoTokenizer, PretrainedTokenizer
from minillm.hub.padding import truncate
from minillm.tokenizers import BPETokenizer, CharTokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog " * 3,
    "Hello world! 中文 naïve don't stop",
    "def f(x):\n  return x",
]
TEXTS = ["Hello world!", "", "a <|endoftext|> b", "the quick brown fox, 中文 " * 3, "x"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}\n"
    "  {% if message.role == 'alien' %}{{ raise_exception('no aliens') }}{% endif %}\n"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}{{ eos_token }}\n"
    "{% endfor %}\n"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MESSAGES = [{"role": "user", "content": " Hi, 中! "}, {"role": "assistant", "content": "Hello world!"}]


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    module.utils.logging.set_verbosity_error()
    return module


def bpe(pattern="gpt2", specials=("<|endoftext|>", "<|user|>")):
    return BPETokenizer.train(CORPUS, 300, pattern=pattern, special_tokens=specials)


def bert_folder(folder):
    """A small BERT tokenizer, as transformers writes one."""
    tokenizers = pytest.importorskip("tokenizers")
    words = [
        "hello",
        "world",
        "the",
        "quick",
        "brown",
        "fox",
        "x",
        "a",
        "b",
        "!",
        ",",
        "##s",
        "中",
        "文",
        "don",
        "'",
        "t",
    ]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    inner = tokenizers.BertWordPieceTokenizer(vocabulary)
    inner.enable_truncation(5)  # as real files have it, to be ignored
    inner.enable_padding(length=9)
    inner.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 16, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(params=["bert", "gpt2", "gpt2 by config.json", "generic", "llama 3"])
def pair(request, transformers, tmp_path):
    """A folder read by minillm and by transformers."""
    if request.param == "bert":
        bert_folder(tmp_path)
    elif request.param == "llama 3":  # a byte-level BPE that begins each text with a token
        core = bpe(specials=("<|endoftext|>", "<|begin|>"))
        core.save(tmp_path)
        path = tmp_path / "tokenizer.json"
        content = json.loads(path.read_text())
        begin = core.special_tokens["<|begin|>"]
        one, two = [
            [{"SpecialToken": {"id": "<|begin|>", "type_id": t}}, {"Sequence": {"id": "AB"[t], "type_id": t}}]
            for t in (0, 1)
        ]
        template = {"type": "TemplateProcessing", "single": one, "pair": one + two}
        template["special_tokens"] = {"<|begin|>": {"id": "<|begin|>", "ids": [begin], "tokens": ["<|begin|>"]}}
        byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        content["post_processor"] = {"type": "Sequence", "processors": [byte_level, template]}
        path.write_text(json.dumps(content))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>", "bos_token": "<|begin|>"}
        config["model_input_names"] = ["input_ids", "attention_mask"]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    elif request.param == "gpt2 by config.json":
        bpe().save(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    else:
        bpe().save(tmp_path)
        name = "GPT2Tokenizer" if request.param == "gpt2" else "PreTrainedTokenizerFast"
        config = {"tokenizer_class": name, "pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 14}))
    return AutoTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:.*max_length. is ignored")
def test_every_way_of_calling_gives_what_transformers_gives(pair):
    ours, theirs = pair
    n_compared = 0
    pads = [False, True, "max_length"] if theirs.pad_token is not None else [False]
    strategies = [None, True, False, "longest_first", "only_first", "only_second"]
    for padding, truncation, max_length, special in itertools.product(
        pads, strategies, [None, 4, 7, 12], [True, False]
    ):
        options = {
            "padding": padding,
            "truncation": truncation,
            "max_length": max_length,
            "add_special_tokens": special,
        }
        for texts in [(TEXTS,), (TEXTS, TEXTS[::-1]), (TEXTS[0],), (TEXTS[3], "a b"), ([("a", "b"), ("b", "a x")],)]:
            try:
                expected = dict(theirs(*texts, **options))
            except Exception:  # only_first on a text that is too short: the Rust code raises just this
                with pytest.raises(ValueError, match="cannot be cut"):
                    ours(*texts, **options)
                continue
            assert dict(ours(*texts, **options)) == expected, (texts, options)
            n_compared += 1
    assert n_compared > 150


def test_tensors(pair):
    ours, theirs = pair
    import torch

    for text in ("Hello world!", ["x a", "b x"]):
        for kind, check in (("np", np.array_equal), ("pt", torch.equal)):
            mine, reference = ours(text, return_tensors=kind), theirs(text, return_tensors=kind)
            assert list(mine) == list(reference) and all(check(mine[name], reference[name]) for name in reference)
            assert mine.input_ids.dtype == reference["input_ids"].dtype
    if theirs.pad_token is not None:
        options = {"padding": True, "pad_to_multiple_of": 8, "return_tensors": "np"}
        assert np.array_equal(ours(TEXTS, **options).attention_mask, theirs(TEXTS, **options)["attention_mask"])
    with pytest.raises(ValueError, match=r"rows of one length: pass padding=True"):
        ours(TEXTS, return_tensors="np")
    with pytest.raises(ValueError, match="return_tensors = 'tf'"):
        ours(TEXTS, return_tensors="tf")


def test_decoding(pair):
    ours, theirs = pair
    for text in [*TEXTS, "don't [SEP] stop"]:
        ids = theirs(text)["input_ids"]
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert ours.batch_decode([np.array(theirs("x a")["input_ids"])]) == [theirs.decode(theirs("x a")["input_ids"])]


def test_special_tokens(pair):
    ours, theirs = pair
    for role in ("pad_token", "eos_token", "bos_token", "mask_token"):
        assert getattr(ours, role) == getattr(theirs, role), role
        assert getattr(ours, role + "_id") == getattr(theirs, role + "_id")
    assert len(ours) == len(theirs)


def test_sides(pair):
    ours, theirs = pair
    for side in ("left", "right"):
        ours.padding_side = ours.truncation_side = theirs.padding_side = theirs.truncation_side = side
        options = {"padding": theirs.pad_token is not None, "truncation": True, "max_length": 6}
        assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))


def test_what_is_saved_loads_in_transformers(pair, transformers, tmp_path):
    ours, theirs = pair
    ours.chat_template = CHAT
    ours.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    mine = AutoTokenizer.from_pretrained(tmp_path / "again")
    for text in TEXTS:
        assert dict(again(text)) == dict(theirs(text)) == dict(mine(text))
    assert again.chat_template == mine.chat_template == CHAT
    assert (again.pad_token, again.model_max_length) == (theirs.pad_token, theirs.model_max_length)


def test_a_tokenizer_made_here_loads_in_transformers(transformers, tmp_path):
    for pattern in ("gpt2", "gpt4"):
        ours = PretrainedTokenizer(bpe(pattern))
        ours.save_pretrained(tmp_path / pattern)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / pattern)
        assert theirs.eos_token == ours.eos_token == "<|endoftext|>"
        for text in [*TEXTS, "12345 I've"]:
            assert theirs(text)["input_ids"] == ours(text)["input_ids"] == ours.core.encode(text, allowed_special="all")


def test_chat_templates(pair):
    ours, theirs = pair
    tools = [{"name": "weather", "arguments": "<city> & 中"}]
    for generation, tokenize, given in itertools.product([True, False], [True, False], [None, tools]):
        options = {"add_generation_prompt": generation, "tokenize": tokenize, "chat_template": CHAT, "tools": given}
        expected = theirs.apply_chat_template(MESSAGES, **options)
        mine = ours.apply_chat_template(MESSAGES, **options)
        assert (dict(mine) == dict(expected)) if tokenize else (mine == expected)
    text = ours.apply_chat_template(MESSAGES, tokenize=False, chat_template="{{ name }}", name="Ada")
    assert text == "Ada"
    with pytest.raises(ValueError, match="no aliens"):
        ours.apply_chat_template([{"role": "alien", "content": ""}], chat_template=CHAT)
    with pytest.raises(ValueError, match="refused the conversation, or is not valid"):
        ours.apply_chat_template(MESSAGES, chat_template="{% if %}")
    with pytest.raises(ValueError, match="no chat template"):
        ours.apply_chat_template(MESSAGES)


@pytest.mark.parametrize(
    "attack", ["{{ messages.__class__.__mro__ }}", "{{ ''.__class__ }}", "{{ messages.append(1) }}"]
)
def test_chat_templates_run_in_a_sandbox(attack):
    pytest.importorskip("jinja2")
    tokenizer = PretrainedTokenizer(bpe(), chat_template=attack)
    try:
        text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    except ValueError as error:
        assert "template" in str(error)
    else:
        assert text == ""  # what a template may not see is nothing to it


def test_templates_where_they_used_to_be():
    assert PretrainedTokenizer(bpe(), {"chat_template": "old"}).chat_template == "old"
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert PretrainedTokenizer(bpe(), {"chat_template": several}).chat_template == "d"
    assert PretrainedTokenizer(bpe(), {"chat_template": "old"}, chat_template="file").chat_template == "file"


def test_settings_and_special_tokens_map(tmp_path):
    pytest.importorskip("transformers")  # writes the folder
    bert_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"pad_token": {"content": "[PAD]"}, "sep_token": "[SEP]"})
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, model_max_length=7)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.model_max_length) == ("[PAD]", 0, 7)
    assert len(tokenizer("the quick brown fox " * 5, truncation=True).input_ids) == 7


def test_without_a_padding_token_the_error_says_how_to_set_one():
    tokenizer = PretrainedTokenizer(bpe())
    with pytest.raises(ValueError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        tokenizer(TEXTS, padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert len({len(row) for row in tokenizer(TEXTS, padding=True).input_ids}) == 1
    with pytest.raises(ValueError, match=r"'\[PAD\]' is no special token"):
        tokenizer.pad_token = "[PAD]"
    tokenizer.pad_token = None
    assert tokenizer.pad_token is tokenizer.pad_token_id is None


def test_a_character_tokenizer_too(tmp_path):
    core = CharTokenizer.train(["abc "], special_tokens=["<|endoftext|>"], unk_token="<unk>")
    PretrainedTokenizer(core).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer("cab").input_ids) == "cab" and tokenizer.eos_token == "<|endoftext|>"


def test_limits_too_small_and_texts_that_do_not_pair():
    with pytest.raises(ValueError, match="too small for the special tokens"):
        truncate([1, 2], None, -1, "longest_first")
    with pytest.raises(ValueError, match="truncation = 'shortest'"):
        truncate([1, 2], None, 1, "shortest")
    with pytest.raises(ValueError, match="2 texts and 1 second texts"):
        PretrainedTokenizer(bpe())(["a", "b"], ["c"])
    with pytest.raises(AttributeError, match="no 'token_type_ids', only input_ids"):
        _ = PretrainedTokenizer(bpe())("a").token_type_ids


def test_names_of_tokens(pair):
    ours, theirs = pair
    for role in ("pad_token", "eos_token", "bos_token", "mask_token", "cls_token", "sep_token", "unk_token"):
        assert getattr(ours, role) == getattr(theirs, role), role
        assert getattr(ours, role + "_id") == getattr(theirs, role + "_id"), role
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.vocab_size, len(ours)) == (theirs.vocab_size, len(theirs))
    assert (ours.all_special_tokens, ours.all_special_ids) == (theirs.all_special_tokens, theirs.all_special_ids)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.tokenize(text, "a b", add_special_tokens=True) == theirs.tokenize(
            text, "a b", add_special_tokens=True
        )
        for skip in (False, True):
            tokens = theirs.convert_ids_to_tokens(ids, skip_special_tokens=skip)
            assert ours.convert_ids_to_tokens(np.array(ids), skip_special_tokens=skip) == tokens
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_ids_to_tokens(5) == theirs.convert_ids_to_tokens(5)
    assert ours.convert_tokens_to_ids("no such") == theirs.convert_tokens_to_ids("no such")
    with pytest.raises(ValueError, match="no token has the id 10000"):
        ours.convert_ids_to_tokens([10_000])


def test_several_conversations_and_open_ends(pair):
    ours, theirs = pair
    batch = [MESSAGES, [{"role": "user", "content": "x"}]]
    shared = {"chat_template": CHAT}
    calls = [
        {"tokenize": False},
        {},
        {"max_length": 3, "truncation": True},
        {"max_length": 3},
        {"return_dict": False},
        {"continue_final_message": True, "tokenize": False},
    ]
    if theirs.pad_token is not None:
        calls += [{"padding": True}, {"padding": "max_length", "max_length": 60}]
    for call, conversation in itertools.product(calls, [batch, MESSAGES]):
        mine = ours.apply_chat_template(conversation, **shared, **call)
        expected = theirs.apply_chat_template(conversation, **shared, **call)
        assert (dict(mine) == dict(expected)) if hasattr(expected, "keys") else (mine == expected), call
    arrays = {"max_length": 2, "truncation": True, "return_tensors": "np", **shared}
    for conversation in (batch, MESSAGES):
        expected = theirs.apply_chat_template(conversation, **arrays)["input_ids"]
        assert np.array_equal(ours.apply_chat_template(conversation, **arrays).input_ids, expected)


def test_wrong_ways_to_ask_for_a_conversation():
    pytest.importorskip("jinja2")
    tokenizer = PretrainedTokenizer(bpe(), chat_template=CHAT)
    with pytest.raises(ValueError, match="give one"):
        tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(TypeError, match="does not support sanitize_control_tokens"):
        tokenizer.apply_chat_template(MESSAGES, sanitize_control_tokens=True)
    for wrong in ([], "hi", [["hi"]], [MESSAGES, []], {"role": "user", "content": "x"}):
        with pytest.raises(ValueError, match=r"a conversation is a list|every message must be"):
            tokenizer.apply_chat_template(wrong)
    with pytest.raises(ValueError, match="template does not show the last message"):
        tokenizer.apply_chat_template(MESSAGES, chat_template="x", continue_final_message=True)
    with pytest.raises(ValueError, match="must be a text to go on with: None"):
        tokenizer.apply_chat_template([{"role": "user"}], continue_final_message=True)
