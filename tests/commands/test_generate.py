"""minillm generate: one continuation or several, the same with and without the cache."""

import json
import re
from argparse import Namespace
from functools import partial, partialmethod

import pytest
from command_line import minillm

from minillm.beam import beam_search
from minillm.commands import cli
from minillm.commands.ahead import compiled
from minillm.generate import Sampling, generate, known_ids
from minillm.hub.checkpoint import load_model_and_tokenizer
from minillm.hub.rules import Rules
from minillm.models import GPT, LSTM, LSTMConfig
from minillm.models.decoding import Plan
from minillm.tensor import Tensor


def test_generate_continues_the_prompt_and_a_seed_repeats_it(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 20, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and first == minillm(*options, "--no-cache", capsys=capsys)
    two = minillm(*options, "--samples", 2, capsys=capsys)
    assert two.startswith(first.rstrip("\n")) and two.count("the cat") == 2
    second = minillm(*options[:-1], 4, capsys=capsys)  # a batch is what the texts are alone
    assert two == first.rstrip("\n") + f"\n{'-' * 40}\n" + second


def test_samples_are_written_in_one_batch(made, capsys, monkeypatch):
    sizes = []
    logits = Plan.logits
    monkeypatch.setattr(
        Plan, "logits", lambda self, cache, pieces: sizes.append(len(pieces)) or logits(self, cache, pieces)
    )
    four = ["--max-new-tokens", 4, "--min-new-tokens", 4]  # one that has ended would be left out
    minillm("generate", made / "run", "--prompt", "the cat", *four, "--samples", 5, capsys=capsys)
    assert sizes == [1, 5, 5, 5]  # the prompt once


def test_a_text_that_stops_is_left_out_with_what_follows(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 40, "--seed", 3]
    whole = minillm(*options, capsys=capsys)[len("the cat") : -1]
    stop = whole[6:9]
    expected = "the cat" + whole[: whole.index(stop)] + "\n"
    assert minillm(*options, "--stop", stop, capsys=capsys) == expected
    assert minillm(*options, "--stop", "no such text", "--stop", stop, capsys=capsys) == expected
    assert minillm(*options, "--stop", "\N{SNOWMAN}", capsys=capsys) == f"the cat{whole}\n"
    two = minillm(*options, "--stop", stop, "--samples", 2, capsys=capsys)
    assert two.startswith(expected + "-" * 40) and stop not in two.split("the cat")[2]
    beams = [*options[:-2], "--beams", 2]
    likeliest = minillm(*beams, capsys=capsys)[len("the cat") :]
    cut = minillm(*beams, "--stop", likeliest[3:5], capsys=capsys)
    assert likeliest[3:5] not in cut[len("the cat") :]


def test_rules_on_the_command_line(made, capsys):
    """Greedily an untrained model repeats itself; and one that would rather end goes on."""
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 30]
    model, tokenizer = load_model_and_tokenizer(made / "run")
    ids = tokenizer.encode("the cat")
    for how in (["--temperature", 0], ["--beams", 2], ["--seed", 1, "--samples", 2]):
        said = minillm(*options, "--no-repeat-ngram", 1, *how, capsys=capsys)
        assert said.startswith("the cat")
    (new,) = generate(model, [ids], max_new_tokens=30, sampling=Sampling(temperature=0), stop_ids=[tokenizer.eos_id],
                      allowed=known_ids(tokenizer), rules=Rules(no_repeat_ngram_size=2))  # fmt: skip
    said = minillm(*options, "--no-repeat-ngram", 2, "--temperature", 0, capsys=capsys)
    assert said == "the cat" + tokenizer.decode(new) + "\n" != minillm(*options, "--temperature", 0, capsys=capsys)


def test_an_end_may_be_asked_not_to_come_too_soon(made, tmp_path, capsys, monkeypatch):
    """The end of text is the likeliest id: nothing is said, unless so many tokens must come."""

    def ending(self, *h, logits):
        x = logits(self, *h)
        (x.data if isinstance(x, Tensor) else x)[..., eos] = 99.0
        return x

    eos = load_model_and_tokenizer(made / "run")[1].eos_id
    for cls in (GPT, Plan):
        monkeypatch.setattr(cls, "logits", partialmethod(ending, logits=cls.logits))
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 9]
    for how in (["--seed", 1], ["--beams", 2], ["--seed", 1, "--samples", 2]):
        assert set(minillm(*options, *how, capsys=capsys)) <= set("the cat\n-")
        longer = minillm(*options, *how, "--min-new-tokens", 5, capsys=capsys)
        assert len(longer) > len("the cat\n") + 4 and longer != minillm(*options, *how, capsys=capsys)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-new-tokens", 0, "--max-new-tokens 0 must be at least 1."),
        ("--samples", 0, "--samples 0 must be at least 1."),
        ("--seed", -1, "--seed -1 must be at least 0."),
        ("--beams", 0, "--beams 0 must be at least 1."),
        ("--no-repeat-ngram", -1, "--no-repeat-ngram -1 must be at least 0."),
        ("--min-new-tokens", -1, "--min-new-tokens -1 must be at least 0."),
        ("--min-new-tokens", 201, "--min-new-tokens 201 must be at most --max-new-tokens 200."),
        ("--stop", "", "a text that ends the answer must have at least one character."),
    ],
)
def test_what_cannot_be_generated_is_said_before_anything_is_printed(made, option, value, message, capsys):
    assert cli.main(["generate", str(made / "run"), "--prompt", "the cat", option, str(value)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"minillm: {message}\n")


def test_beams_give_the_likeliest_texts_best_first(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 12]
    one = minillm(*options, "--beams", 1, capsys=capsys)
    assert one == minillm(*options, "--temperature", 0, capsys=capsys)
    three = minillm(*options, "--beams", 3, "--samples", 3, capsys=capsys)
    assert three == minillm(*options, "--beams", 3, "--samples", 3, "--no-cache", capsys=capsys)
    assert three.startswith(minillm(*options, "--beams", 3, capsys=capsys))
    model, tokenizer = load_model_and_tokenizer(made / "run")
    found = beam_search(model, [tokenizer.encode("the cat")], max_new_tokens=12, n_beams=3, n_return=3,
                        stop_ids=[tokenizer.eos_id], allowed=known_ids(tokenizer))[0]  # fmt: skip
    texts = ["the cat" + tokenizer.decode(ids) for ids, _ in found]
    assert three == f"\n{'-' * 40}\n".join(texts) + "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", 0.8], "leave out --temperature."),
        (["--top-k", 5, "--min-p", 0.1, "--seed", 0], "leave out --top-k, --min-p, --seed."),
        (["--repetition-penalty", 1.0, "--top-p", 0.5], "leave out --top-p, --repetition-penalty."),
        (["--samples", 4], "--samples 4 must be at most --beams 3, which find them."),
    ],
)
def test_beams_draw_nothing(made, options, message, capsys):
    error = minillm("generate", made / "run", "--beams", 3, *options, status=2, capsys=capsys)
    assert error.startswith("minillm: ") and error.endswith(message + "\n")


def test_a_device_that_is_not_here_is_an_error_that_says_so(made, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", bool)
    messages = {"cuda": "PyTorch sees no CUDA device here", "gpu": "--device gpu must be 'cpu', 'cuda'"}
    for device, message in messages.items():
        error = minillm("generate", made / "run", "--engine", "torch", "--device", device, status=2, capsys=capsys)
        assert message in error


@pytest.mark.parametrize(
    ("values", "same_as"),
    [
        ({"do_sample": False, "max_new_tokens": 7}, ["--temperature", 0, "--max-new-tokens", 7]),
        ({"do_sample": True, "top_k": 3, "temperature": 0.5}, ["--temperature", 0.5, "--top-k", 3]),
        ({"top_p": 0.5, "repetition_penalty": 1.3}, ["--top-p", 0.5, "--repetition-penalty", 1.3]),
        ({"do_sample": False, "no_repeat_ngram_size": 1, "min_length": 30},
         ["--temperature", 0, "--no-repeat-ngram", 1, "--min-new-tokens", 20]),
        ({"num_beams": 3, "num_return_sequences": 2, "length_penalty": 1.0}, ["--beams", 3, "--samples", 2]),
        ({"num_return_sequences": 2}, ["--samples", 2]),
        ({"stop_strings": ["e"], "do_sample": True, "top_k": 0}, ["--temperature", 1.0, "--stop", "e"]),
    ],
)  # fmt: skip
def test_what_is_not_given_is_as_the_folder_says(made, tmp_path, values, same_as, capsys):
    minillm("convert", made / "run", tmp_path / "hf", "--to", "hf", capsys=capsys)
    command = ["generate", str(tmp_path / "hf"), "--prompt", "the cat"]
    seed = [] if "--beams" in same_as else ["--seed", "4"]
    length = [] if "max_new_tokens" in values else ["--max-new-tokens", "40"]
    asked = [*seed, *length, *map(str, same_as)]
    assert cli.main([*command, *asked]) == 0
    expected = capsys.readouterr()
    eos = json.loads((tmp_path / "hf" / "config.json").read_text())["eos_token_id"]
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps({"eos_token_id": eos, **values}))
    greedy = values.get("do_sample") is False  # a seed would ask to draw
    assert cli.main([*command, *length, *([] if greedy else seed)]) == 0
    captured = capsys.readouterr()
    assert captured.out == expected.out and expected.err == ""
    assert captured.err.startswith("note: generation_config.json says ")
    assert all(f"{name} = {value!r}" in captured.err for name, value in values.items())
    assert cli.main([*command, *asked]) == 0  # options go before
    assert capsys.readouterr().out == expected.out


def test_what_the_folder_asks_for_and_is_not_done_is_refused_by_name(made, tmp_path, capsys):
    minillm("convert", made / "run", tmp_path / "hf", "--to", "hf", capsys=capsys)
    path = tmp_path / "hf" / "generation_config.json"
    for values, said in (
        ({"guidance_scale": 2.0}, "guidance_scale = 2.0 (an entry of generation_config.json or config.json)"),
        ({"max_length": 2}, "max_length = 2 counts the prompt in"),
        ({"temperature": "hot"}, "temperature"),
        ({"do_sample": True, "num_beams": 2}, "num_beams = 2 with do_sample: beams draw nothing here. Give --beams"),
        ({"do_sample": True, "typical_p": 0.5}, "typical_p = 0.5"),
    ):
        path.write_text(json.dumps(values))
        error = minillm("generate", tmp_path / "hf", "--prompt", "the cat", status=2, capsys=capsys)
        assert said in error and error.endswith(".\n")
    path.write_text('{"do_sample": true, "typical_p": 0.5, "top_k": 4}')
    minillm("generate", tmp_path / "hf", "--prompt", "the cat", "--beams", 2, "--max-new-tokens", 3, capsys=capsys)


def test_guessing_ahead_changes_no_greedy_text(made, tmp_path, capsys):
    """By lookup, and by a draft, here the model itself; of drawn texts each seed has its own."""
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 30]
    alone = minillm(*options, "--temperature", 0, capsys=capsys)
    for how in (["--lookup"], ["--draft", made / "run", "--ahead", 3]):
        assert minillm(*options, *how, "--temperature", 0, capsys=capsys) == alone
        stop = alone[len("the cat") + 4 : len("the cat") + 7]
        cut = alone[: alone.index(stop, len("the cat"))] + "\n"
        assert minillm(*options, *how, "--temperature", 0, "--stop", stop, capsys=capsys) == cut
        two = minillm(*options, *how, "--seed", 3, "--samples", 2, capsys=capsys)
        assert two == minillm(*options, *how, "--seed", 3, "--samples", 2, capsys=capsys)
        assert len(set(two.rstrip("\n").split("\n" + "-" * 40 + "\n"))) == 2
    for wrong in (["--lookup", "--draft", made / "run"], ["--lookup", "--beams", 2], ["--lookup", "--no-cache"]):
        error = minillm(*options, *wrong, status=2, capsys=capsys)
        assert "guesses ahead, without --beams and without --no-cache." in error


def test_compiled_steps_change_no_text_and_are_told_of(made, capsys, monkeypatch):
    """Before anything is written: all that the text and its guesses take."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 30, "--engine", "torch"]
    for how in (["--seed", 3, "--samples", 3], ["--lookup", "--temperature", 0]):
        alone = minillm(*options, *how, capsys=capsys)
        assert cli.main([str(word) for word in (*options, *how, "--compile")]) == 0
        out, err = capsys.readouterr()
        assert out == alone
        steps = ["4 x 1"] if "--samples" in how else ["1 x 1", "1 x 8"]
        notes = [line for line in err.splitlines() if line.startswith("note: compiled")]
        assert [re.sub(r"\d+ s$", "_ s", note) for note in notes] == [
            f"note: compiled a step of {step} tokens, cache 32 in _ s" for step in steps
        ]


def test_what_is_not_compiled_is_said(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--compile"]
    error = minillm(*options, status=2, capsys=capsys)
    assert error == "minillm: --compile is PyTorch's: give --engine torch, too, or leave it out.\n"
    pytest.importorskip("torch")
    from minillm.port import to_torch

    for wrong in (["--beams", 2], ["--no-cache"]):
        error = minillm(*options, "--engine", "torch", *wrong, status=2, capsys=capsys)
        assert "compiles steps that use the cache, without --beams and without --no-cache." in error
    lstm = to_torch(LSTM(LSTMConfig(31, 16, 1, 8)))
    assert compiled(Namespace(compile=True), lstm, 1, 10) is lstm
    assert "note: --compile changes nothing here: what a LSTM remembers is no cache" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_weights_of_8_bits_write_a_text(made, engine, capsys):
    if engine == "torch":
        pytest.importorskip("torch")
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 30, "--temperature", 0]
    said = minillm(*options, "--int8", "--engine", engine, capsys=capsys)
    assert said.startswith("the cat") and len(said) > len("the cat\n")
