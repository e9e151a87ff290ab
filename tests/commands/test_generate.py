"""minillm generate: one continuation or several, the same with and without the cache."""

import pytest
from command_line import minillm

from minillm.beam import beam_search
from minillm.commands import cli
from minillm.generate import known_ids
from minillm.hub.checkpoint import load_model_and_tokenizer


def test_generate_continues_the_prompt_and_a_seed_repeats_it(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 20, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and first == minillm(*options, "--no-cache", capsys=capsys)
    two = minillm(*options, "--samples", 2, capsys=capsys)
    assert two.startswith(first.rstrip("\n")) and two.count("the cat") == 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-new-tokens", 0, "--max-new-tokens 0 must be at least 1."),
        ("--samples", 0, "--samples 0 must be at least 1."),
        ("--seed", -1, "--seed -1 must be at least 0."),
        ("--beams", 0, "--beams 0 must be at least 1."),
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
