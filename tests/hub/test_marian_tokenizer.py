"""Marian's tokenizer and a folder's tokenizer.model against transformers and SentencePiece."""

import json

import pytest
from drawn_texts import drawn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("sentencepiece")
pytest.importorskip("transformers")

import transformers
from sentencepiece_models import marian_folder, peer, trained, words

from minillm.hub import AutoTokenizer
from minillm.tokenizers import SentencePieceTokenizer, load_tokenizer

language = st.sampled_from(
    ["", ">>fra<<", ">>fra<< ", ">>pt_BR<<", ">>xx<<", ">> ", ">>fra", "</s>", "<pad> ", "<unk>"]
)
texts = st.tuples(language, drawn, st.one_of(language, st.just("")), st.sampled_from(words()[:20])).map("".join)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marian")
    theirs = marian_folder(folder)
    return theirs, AutoTokenizer.from_pretrained(folder), folder


def check_equal(theirs, ours, text):
    assert ours.core.is_marian
    assert ours(text).input_ids == theirs(text).input_ids
    target = theirs(text_target=text).input_ids
    assert ours(text_target=text).input_ids == target
    assert ours.tokenize(text) == theirs.convert_ids_to_tokens(theirs(text, add_special_tokens=False).input_ids)
    for ids in (theirs(text).input_ids, target):
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_ids_and_texts_are_those_of_transformers(both, text):
    check_equal(*both[:2], text)


@pytest.mark.long
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts)
def test_the_same_for_many_texts(both, text):
    check_equal(*both[:2], text)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_ids_decode_as_in_transformers(both, data):
    theirs, ours, _ = both
    ids = data.draw(st.lists(st.integers(0, len(ours) - 1), max_size=12))
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_batches_are_padded_cut_and_paired_as_in_transformers(both):
    theirs, ours, _ = both
    batch, target = words()[:4], words()[4:8]
    for options in ({"padding": True}, {"truncation": True, "max_length": 9, "padding": "max_length"}):
        wanted = theirs(batch, text_target=target, return_tensors="np", **options)
        found = ours(batch, text_target=target, return_tensors="np", **options)
        assert set(found) == set(wanted)
        assert all((found[name] == wanted[name]).all() for name in wanted)
    assert ours(batch[0], batch[1]).input_ids == theirs(batch[0], batch[1]).input_ids
    assert ours.model_max_length == theirs.model_max_length == 512
    assert [ours.eos_token_id, ours.pad_token_id, ours.unk_token_id] == [0, len(theirs) - 1, 1]
    assert ours.batch_decode(found["labels"], True) == theirs.batch_decode(found["labels"], skip_special_tokens=True)
    with pytest.raises(ValueError, match="has no offsets: ask for ids only"):
        ours(batch[0], return_offsets_mapping=True)
    with pytest.raises(ValueError, match="needs a text, or a text_target"):
        ours()


def test_what_is_saved_is_read_again_here_and_there(both, tmp_path):
    theirs, ours, folder = both
    ours.add_tokens(["zap", "<new>"], special_tokens=True)
    ours.save_pretrained(tmp_path)
    back, again = transformers.AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(back, transformers.MarianTokenizer) and not (tmp_path / "tokenizer.json").exists()
    text = f">>fra<< {words()[3]} zap a<new>b"
    assert back(text).input_ids == again(text).input_ids == ours(text).input_ids != theirs(text).input_ids
    for name in ("source.spm", "target.spm"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    ours.core.save(tmp_path / "own.json")
    own = load_tokenizer(tmp_path / "own.json")
    assert own.fingerprint() == ours.core.fingerprint()
    assert own.encode_pair(words()[0]) == ours.core.encode_pair(words()[0])
    assert own.target_side.encode(words()[0]) == ours.core.target_side.encode(words()[0]) != own.encode(words()[0])


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("source", None, "the model needs a source, and both of target and vocab"),
        ("target", None, "the model needs a source, and both of target and vocab"),
        ("vocab", None, "the model needs a source, and both of target and vocab"),
        ("source", "?", "the model.s source and target must be in base64"),
        ("vocab", {}, "the vocabulary must be an object of piece -> id"),
        ("vocab", [0], "the vocabulary must be an object of piece -> id"),
    ],
)
def test_a_file_of_our_own_that_lacks_a_part_is_refused(both, part, value, message, tmp_path):
    content = both[1].core.to_json()
    content["model"] = {**content["model"], part: value}
    with pytest.raises(ValueError, match=f"tokenizer.json: {message}"):
        SentencePieceTokenizer.from_json(content, tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["llama", "gemma", "marian"])
@settings(max_examples=30, deadline=None)
@given(text=drawn)
def test_a_tokenizer_model_alone(name, text):
    model = SentencePieceTokenizer(trained(name))
    assert model.encode(text, disallowed_special=()) == peer(name).encode(text)
    ids = peer(name).encode(text)
    assert model.decode([i for i in ids if i]) == peer(name).decode([i for i in ids if i])
    assert model.vocab_size == peer(name).get_piece_size()


def test_a_folder_is_read_without_its_small_files_too(both, tmp_path):
    assert load_tokenizer(both[2]).fingerprint() == AutoTokenizer.from_pretrained(both[2]).core.fingerprint()
    (tmp_path / "tokenizer.model").write_bytes(trained("gemma"))
    assert load_tokenizer(tmp_path).encode("one  two") == peer("gemma").encode("one  two")


def test_what_stands_around_a_text_says_the_class(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained("llama"))
    ids = peer("llama").encode("one two")
    assert AutoTokenizer.from_pretrained(tmp_path)("one two").input_ids == ids
    config = tmp_path / "tokenizer_config.json"
    for values, around in (
        ({"tokenizer_class": "LlamaTokenizer"}, [1, *ids]),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": True}, [1, *ids, 2]),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, ids),
    ):
        config.write_text(json.dumps(values))
        ours = AutoTokenizer.from_pretrained(tmp_path)
        assert ours("one two").input_ids == around and ours.eos_token == "</s>"
    ours.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")("one two").input_ids == ids
    config.unlink()
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    assert AutoTokenizer.from_pretrained(tmp_path)("one two").input_ids == [1, *ids]
    for name, said in (("T5Tokenizer", "T5Tokenizer surrounds in its own way"), ("GemmaTokenizer", "no piece '<bos>'")):
        config.write_text(json.dumps({"tokenizer_class": name}))
        with pytest.raises(ValueError, match=said):
            AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"separate_vocabs": True}, "tokenizer_config.json: separate_vocabs is true"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs = {'enable_sampling': True}: a text is cut"),
    ],
)
def test_a_marian_that_is_not_read_is_refused_by_name(values, message, tmp_path):
    marian_folder(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ValueError, match=message):
        AutoTokenizer.from_pretrained(tmp_path)


def test_files_that_are_missing_or_wrong_are_named(tmp_path):
    marian_folder(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    for content, said in (
        ({**vocab, "x": 0}, "given to two tokens"),
        ({"a": 0}, "no '</s>'"),
        ([], "an object of pie"),
    ):
        (tmp_path / "vocab.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"vocab.json.*{said}"):
            AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "target.spm").write_bytes(b"\x0a\xff\xff\xff\xff\x7f")
    with pytest.raises(ValueError, match=r"target.spm: it ends within a field"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "target.spm").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no target.spm: a Marian's tokenizer is source.spm"):
        AutoTokenizer.from_pretrained(tmp_path)
