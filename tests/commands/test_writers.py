"""Pretrained encoder–decoders, BART and Marian, by the Auto classes and from the command line: they answer as those of
transformers do, are fine-tuned, and go back."""

import json

import numpy as np
import pytest
from command_line import minillm

pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from hf_models import torch, transformers
from hf_writers import random_model, writer_folder

from minillm.commands import cli
from minillm.data import Pair
from minillm.hub import AutoModelForSeq2SeqLM, AutoTokenizer
from minillm.hub.finetuned import open_finetuned

WORDS = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("six", "sechs")]
PAIRS = [(f"{a} {c}", f"{b} {d}") for a, b in WORDS for c, d in WORDS]
SMALL = ["--set", "train.max_steps=2", "--set", "train.batch_size=2", "--set", "train.eval_every=1"]


@pytest.fixture(scope="module", params=["bart", "marian"])
def writer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return request.param, folder, writer_folder(request.param, folder)


def generation_config(folder, **values):
    """Entries added to generation_config.json; those that are None go."""
    path = folder / "generation_config.json"
    before = path.read_text() if path.exists() else None
    made = {**(json.loads(before) if before else {}), **values}
    path.write_text(json.dumps({name: value for name, value in made.items() if value is not None}))
    return before


@pytest.fixture
def configured(writer):
    """`configured(num_beams=3)` changes the folder's generation_config.json until the test ends."""
    path = writer[1] / "generation_config.json"
    before = path.read_text() if path.exists() else None
    yield lambda **values: generation_config(writer[1], **values)
    path.unlink() if before is None else path.write_text(before)


def theirs_say(folder, tokenizer, prompt, **options):
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    with torch.no_grad():
        rows = model.generate(tokenizer(prompt, return_tensors="pt").input_ids, **options)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def test_the_auto_classes_answer_as_transformers_do(writer):
    _, folder, tokenizer = writer
    ours, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    texts = ["one two", "three four five fünf"]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = ours(texts, padding=True, return_tensors="np")
    assert (inputs.input_ids == given.input_ids.numpy()).all()
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    for how in ({"num_beams": 1}, {"num_beams": 3}):
        with torch.no_grad():
            expected = theirs.generate(**given, max_new_tokens=7, do_sample=False, **how)
        found = model.generate(**inputs, max_new_tokens=7, **how)
        assert ours.batch_decode(found, True) == tokenizer.batch_decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("values", "options", "how"),
    [
        ({}, [], {}),
        ({"num_beams": 3, "length_penalty": 0.2, "early_stopping": True}, [], {}),
        ({"num_beams": 3, "num_return_sequences": 2}, [], {}),
        ({"num_beams": 3}, ["--beams", 2, "--samples", 2], {"num_beams": 2, "num_return_sequences": 2}),
        ({"no_repeat_ngram_size": 1, "repetition_penalty": 1.7}, [], {}),
        ({"no_repeat_ngram_size": 1}, ["--no-repeat-ngram", 0], {"no_repeat_ngram_size": 0}),
        ({"num_beams": 2, "repetition_penalty": 1.7, "bad_words_ids": [[40], [41, 42]]}, [], {}),
        ({"max_new_tokens": 3}, [], {"max_new_tokens": 3}),
        ({"max_length": 4}, [], {"max_new_tokens": None}),
        ({"forced_bos_token_id": 20, "suppress_tokens": list(range(30, 200))}, [], {}),
    ],
)
def test_the_command_follows_the_folder_as_transformers_does(writer, configured, values, options, how, capsys):
    _, folder, tokenizer = writer
    configured(**values)
    length = {} if {"max_new_tokens", "max_length"} & values.keys() else {"max_new_tokens": 6}
    given = ["--max-new-tokens", 6] if length else []
    said = minillm("generate", folder, "--prompt", "one two", *given, *options, capsys=capsys)
    how = {name: value for name, value in {**length, **how}.items() if value is not None}
    expected = theirs_say(folder, tokenizer, "one two", **how)
    assert said.splitlines() == [line for text in expected for line in (text + "\n").splitlines()]


def test_what_the_folder_decides_is_said_and_what_is_not_done_is_refused(writer, configured, capsys):
    _, folder, _ = writer
    command = ["generate", str(folder), "--prompt", "one two"]
    configured(num_beams=2, length_penalty=0.5, max_length=6)
    assert cli.main(command) == 0
    note = capsys.readouterr().err
    assert note.startswith("note: generation_config.json says ") and "num_beams = 2, length_penalty = 0.5" in note
    assert cli.main([*command, "--seed", "1", "--max-new-tokens", "4"]) == 0  # drawn: no beams
    assert "num_beams" not in capsys.readouterr().err
    configured(num_beams=2, do_sample=True)
    assert "num_beams = 2 with do_sample: beams draw nothing" in minillm(*command, status=2, capsys=capsys)
    configured(num_beams=None, do_sample=None, diversity_penalty=0.5)
    assert "diversity_penalty = 0.5" in minillm(*command, status=2, capsys=capsys)
    configured(diversity_penalty=None, do_sample=True, top_k=1)
    assert minillm(*command, "--max-new-tokens", 5, capsys=capsys) == minillm(
        *command, "--max-new-tokens", 5, "--temperature", 0, capsys=capsys
    )


@pytest.mark.parametrize("task", ["translate", "summarize"])
def test_it_is_fine_tuned_and_goes_back(writer, task, tmp_path, capsys):
    kind, folder, tokenizer = writer
    data, run, back = tmp_path / "pairs.tsv", tmp_path / "run", tmp_path / "back"
    data.write_text("source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    minillm("finetune", task, "--model", folder, "--data", data, "--out", run, *SMALL, capsys=capsys)
    model, objective, _ = open_finetuned(run)
    assert model.config.start_id == tokenizer.pad_token_id if kind == "marian" else 2
    assert objective.dressed and objective.pad_id == tokenizer.pad_token_id
    assert objective.end_id == tokenizer.eos_token_id
    assert objective.ids("two fünf") == tokenizer("two fünf").input_ids
    assert objective.encode(Pair("a", "zwei"))[1].tolist() == tokenizer(text_target="zwei").input_ids

    three = minillm("generate", run, "--prompt", "one two", "--seed", 5, "--samples", 3, capsys=capsys)
    alone = [minillm("generate", run, "--prompt", "one two", "--seed", 5 + i, capsys=capsys) for i in range(3)]
    assert three == "".join(alone)
    answers = tmp_path / "answers.tsv"
    minillm("predict", run, "--data", data, "--out", answers, capsys=capsys)
    assert len(answers.read_text("utf-8").splitlines()) >= len(PAIRS)
    assert "exact_match" in minillm("evaluate", run, capsys=capsys)

    minillm("convert", run, back, "--to", "hf", capsys=capsys)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(back, dtype=torch.float64).eval()
    again = transformers.AutoTokenizer.from_pretrained(back)
    ids = again(["one two", "four"], padding=True, return_tensors="pt")
    assert ids.input_ids.tolist() == tokenizer(["one two", "four"], padding=True).input_ids
    target = torch.tensor([[theirs.config.decoder_start_token_id, 5, 6]] * 2)
    with torch.no_grad():
        expected = theirs(**ids, decoder_input_ids=target).logits.numpy()
    ours = AutoModelForSeq2SeqLM.from_pretrained(back, dtype="float64")
    found = ours(ids.input_ids.numpy(), ids.attention_mask.numpy(), decoder_input_ids=target.numpy()).logits
    assert np.abs(found - expected).max() < 1e-5
    assert theirs.config.eos_token_id == again.eos_token_id == tokenizer.eos_token_id
    assert theirs.config.pad_token_id == again.pad_token_id == tokenizer.pad_token_id


def test_a_bart_that_labels_texts_learns_other_labels_and_goes_back(tmp_path, capsys):
    folder, run, back = tmp_path / "model", tmp_path / "run", tmp_path / "back"
    tokenizer = writer_folder("bart", folder)
    name, n = "BartForSequenceClassification", len(tokenizer)
    random_model("bart", 2, name, vocab_size=n, max_position_embeddings=40, num_labels=2).save_pretrained(folder)
    data = tmp_path / "texts.csv"
    data.write_text("text,label\n" + "".join(f"{a},{c}\n" for a, _ in PAIRS for c in ["xyz"[len(a) % 3]]))
    minillm("finetune", "classify", "--model", folder, "--data", data, "--out", run, *SMALL, capsys=capsys)
    assert minillm("generate", run, "--prompt", "one two", capsys=capsys).strip() in "xyz"
    minillm("convert", run, back, "--to", "hf", capsys=capsys)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(back)
    given = tokenizer(["one two", "four six fünf"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**given).logits.numpy()
    model, _, _ = open_finetuned(run)
    assert np.abs(model(given.input_ids.numpy()).data - expected).max() < 1e-5
    assert theirs.config.id2label == dict(enumerate(model.config.labels))


def test_a_folder_in_our_own_format_and_back_says_the_same(writer, tmp_path, capsys):
    kind, folder, theirs = writer
    said = []
    minillm("convert", folder, tmp_path / "own", "--to", "minillm", capsys=capsys)
    minillm("convert", tmp_path / "own", tmp_path / "back", "--to", "hf", capsys=capsys)
    for place in (folder, tmp_path / "own", tmp_path / "back"):
        said.append(minillm("generate", place, "--prompt", "one fünf", "--max-new-tokens", 6, capsys=capsys))
    assert said == said[:1] * 3
    assert (
        transformers.AutoTokenizer.from_pretrained(tmp_path / "back")("one fünf").input_ids
        == theirs("one fünf").input_ids
    )

    assert (tmp_path / "back" / "tokenizer.json").exists() == (kind == "bart")
