"""Settings beside the vocabulary (tokenizer_config.json, added_tokens.json, arguments) against transformers: ids equal,
or refused by name."""

import json

import pytest

from minillm.hub import AutoTokenizer
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer
from minillm.tokenizers.extend import with_special_tokens
from minillm.tokenizers.gpt2_files import save_gpt2

CORPUS = ["Hello World! naïve café, 中文字 don't stop 12345\n  x"] * 9 + ["say Hello, hello; [MASK] the the"]
TEXTS = [
    "Hello WORLD naïve café 中文 [MASK] x",
    "say hello <new> <old> x",
    "<|endoftext|>hi <|user|> I'LL go TO 12345 places",
    "é e\u0301 \n\n  don't",
    "",
]


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers")
    module.utils.logging.set_verbosity_error()
    return module


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def bert_files(folder, kind):
    """A small BERT vocabulary, as vocab.txt or tokenizer.json."""
    core = WordPieceTokenizer.train(CORPUS, 120, normalizer=WordPieceTokenizer.train(CORPUS, 120).normalizer)
    if kind == "vocab.txt":
        core.save_vocab(folder)
    else:
        core.save(folder)
    return core


def bpe_files(folder, kind, pattern="gpt2", specials=("<|endoftext|>", "<|user|>"), nfc=False):
    core = BPETokenizer.train(CORPUS, 300, pattern=pattern, special_tokens=specials, nfc=nfc)
    if kind == "tokenizer.json":
        core.save(folder)
    else:
        save_gpt2(core, folder)
    return core


def check_equal(folder, transformers, **settings):
    theirs = transformers.AutoTokenizer.from_pretrained(folder, **settings)
    for ours in (AutoTokenizer.from_pretrained(folder, **settings), None):
        if ours is None:  # what is saved says the same, to both
            AutoTokenizer.from_pretrained(folder, **settings).save_pretrained(folder / "again")
            ours = AutoTokenizer.from_pretrained(folder / "again")
            theirs = transformers.AutoTokenizer.from_pretrained(folder / "again")
        for text in TEXTS:
            assert dict(ours(text)) == dict(theirs(text)), text
            assert dict(ours(text, "Second Text")) == dict(theirs(text, "Second Text")), text
            ids = theirs(text)["input_ids"]
            assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
        assert len(ours) == len(theirs)
        assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)
        for role in ("pad_token", "eos_token", "mask_token", "cls_token", "sep_token", "unk_token"):
            assert getattr(ours, role) == getattr(theirs, role), role
    return AutoTokenizer.from_pretrained(folder, **settings)


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"tokenize_chinese_chars": False},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"cls_token": "[MASK]"},
        {"sep_token": "</s>"},
        {"additional_special_tokens": ["<new>"]},
        {"split_special_tokens": True},
    ],
    ids=str,
)
def test_bert_settings(kind, settings, transformers, tmp_path):
    bert_files(tmp_path, kind)
    write(tmp_path, {"config.json": {"model_type": "bert"}, "tokenizer_config.json": settings})
    check_equal(tmp_path, transformers)
    (tmp_path / "tokenizer_config.json").unlink()
    check_equal(tmp_path, transformers, **settings)  # as arguments


def test_a_cased_vocabulary_keeps_its_case(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nHello\nhello\n")
    write(tmp_path, {"tokenizer_config.json": {"do_lower_case": False}})
    assert AutoTokenizer.from_pretrained(tmp_path)("Hello hello").input_ids == [2, 5, 6, 3]


def test_bert_files_with_added_tokens(transformers, tmp_path):
    core = bert_files(tmp_path, "vocab.txt")
    write(
        tmp_path,
        {
            "config.json": {"model_type": "bert"},
            "added_tokens.json": {"<new>": core.vocab_size, "<old>": core.vocab_size + 1},
            "special_tokens_map.json": {"mask_token": "[MASK]", "cls_token": "[CLS]"},
        },
    )
    tokenizer = check_equal(tmp_path, transformers)
    assert tokenizer("<new>").input_ids[1] == core.vocab_size == tokenizer.vocab_size == len(tokenizer) - 2


def test_qwen2_without_tokenizer_json(transformers, tmp_path):
    """The real folders: a vocabulary without special tokens, which tokenizer_config.json lists."""
    core = bpe_files(tmp_path, "two files", specials=())
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    decoder = {
        str(core.vocab_size + i): {"content": text, **token} for i, text in enumerate(["<|endoftext|>", "<|user|>"])
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config["additional_special_tokens"] = ["<|user|>"]
    write(tmp_path, {"tokenizer_config.json": {**config, "added_tokens_decoder": decoder}})
    tokenizer = check_equal(tmp_path, transformers)
    assert (tokenizer.core.pattern, tokenizer.core.nfc) == ("qwen2", True)
    assert tokenizer.vocab_size == core.vocab_size == len(tokenizer) - 2


@pytest.mark.parametrize(("name", "pattern"), [("GPT2Tokenizer", "gpt2"), ("Qwen2Tokenizer", "qwen2")])
@pytest.mark.parametrize(
    "settings",
    [
        {"additional_special_tokens": ["<new>", "<|user|>"]},
        {"extra_special_tokens": {"image_token": "<new>"}},
        {"image_token": "<new>"},
        {"split_special_tokens": True},
        {"pad_token": "<new>"},
        {
            "pad_token": {
                "content": "<new>",
                "lstrip": True,
                "rstrip": False,
                "normalized": False,
                "__type": "AddedToken",
            }
        },
    ],
    ids=str,
)
def test_bpe_settings(name, pattern, settings, transformers, tmp_path):
    bpe_files(tmp_path, "tokenizer.json", pattern, nfc=name == "Qwen2Tokenizer")
    write(tmp_path, {"tokenizer_config.json": {"tokenizer_class": name, "eos_token": "<|endoftext|>", **settings}})
    check_equal(tmp_path, transformers)


def test_gpt2_with_added_tokens(transformers, tmp_path):
    core = bpe_files(tmp_path, "two files")
    added = {"<new>": core.vocab_size}
    write(tmp_path, {"config.json": {"model_type": "gpt2"}, "added_tokens.json": added})
    check_equal(tmp_path, transformers)


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("two files", {"config.json": {"model_type": "longformer"}}, "model_type 'longformer' splits and surrounds"),
        (
            "two files",
            {"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}},
            "which RobertaTokenizer splits",
        ),
        (
            "two files",
            {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}},
            "add_bos_",
        ),
        (
            "vocab.txt",
            {"tokenizer_config.json": {"tokenizer_class": "MPNetTokenizer"}},
            "MPNetTokenizer reads in its own",
        ),
        (
            "tokenizer.json",
            {"tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}},
            "add_prefix_space is true",
        ),
        ("tokenizer.json", {"tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"}}, "'qwen2' after NFC, but"),
        ("tokenizer.json", {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}}, "holds no WordPiece"),
        ("bert json", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}, "no byte-level BPE"),
        (
            "tokenizer.json",
            {"tokenizer_config.json": {"added_tokens_decoder": {"700": {"content": "<new>"}}}},
            "'<new>' the id 700, but the next free id is 300",
        ),
        ("tokenizer.json", {"tokenizer_config.json": {"added_tokens_decoder": ["<new>"]}}, "added_tokens_decoder must"),
        ("tokenizer.json", {"tokenizer_config.json": {"pad_token": 7}}, "must be a text or an object"),
        (
            "tokenizer.json",
            {"tokenizer_config.json": {"added_tokens_decoder": {"9" * 5000: {"content": "<new>"}}}},
            "tokenizer_config.json: added_tokens_decoder must",
        ),
        ("tokenizer.json", {"added_tokens.json": {"<new>": "x"}}, "an object of token -> id"),
        ("tokenizer.json", {"added_tokens.json": {"<new>": True}}, "an object of token -> id"),
        ("tokenizer.json", {"tokenizer_config.json": []}, "must hold an object, not a list"),
    ],
)
def test_what_is_not_known_is_refused_by_name(kind, files, message, tmp_path):
    if kind in ("vocab.txt", "bert json"):
        bert_files(tmp_path, kind)
    else:
        bpe_files(tmp_path, kind)
    write(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        AutoTokenizer.from_pretrained(tmp_path)


def test_arguments_are_settings_or_for_the_hub_and_no_others(tmp_path, monkeypatch):
    bpe_files(tmp_path, "tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(
        tmp_path, use_fast=False, token="hf_secret", padding_side="left", model_max_length=9
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["padding_side"] == "left" and saved["model_max_length"] == 9 and not {"use_fast", "token"} & set(saved)
    seen = {}

    def found(name, revision, **hub):
        seen.update({"name": name, "revision": revision, **hub})
        return tmp_path

    monkeypatch.setattr("minillm.hub.tokenizer.find_folder", found)
    options = {"token": "hf_secret", "cache_dir": "cache", "local_files_only": True}
    AutoTokenizer.from_pretrained("owner/model", revision="main", **options).save_pretrained(tmp_path / "saved")
    seen.pop("only")  # the tokenizer's files, and no weights
    assert seen == {"name": "owner/model", "revision": "main", **options}
    saved = (tmp_path / "saved" / "tokenizer_config.json").read_text()
    assert "hf_secret" not in saved and not {*options, "revision"} & set(json.loads(saved))
    with pytest.raises(TypeError, match=r"knows no 'trust_remote_code' \(given: True\)"):
        AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)


def test_a_wordpiece_run_of_minillm_has_its_roles_and_token_types(tmp_path):
    core = bert_files(tmp_path, "tokenizer.json")
    write(tmp_path, {"config.json": {"model_type": "bert", "n_layers": 1, "d_model": 8}})
    for settings in ({}, {"model_max_length": 16}):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, **settings)
        inputs = tokenizer("hello", "stop", return_tensors="np", padding=True)
        assert list(inputs) == ["input_ids", "token_type_ids", "attention_mask"]
        assert inputs.token_type_ids.max() == 1
        roles = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]
        assert [*roles, tokenizer.mask_token_id] == [
            core.vocab[f"[{name}]"] for name in ("PAD", "UNK", "CLS", "SEP", "MASK")
        ]


def test_a_masked_run_over_bpe_has_its_mask(tmp_path):
    core = with_special_tokens(BPETokenizer.train(CORPUS, 300), ["[MASK]", "[PAD]"])
    core.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.eos_token) == ("[MASK]", "[PAD]", "<|endoftext|>")
