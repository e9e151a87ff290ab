"""minillm generate: one continuation or several, the same with and without the cache."""

import pytest
from command_line import minillm

from minillm import cli


def test_generate_continues_the_prompt_and_a_seed_repeats_it(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 20, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and first == minillm(*options, "--no-cache", capsys=capsys)
    two = minillm(*options, "--samples", 2, capsys=capsys)
    assert two.startswith(first.rstrip("\n")) and two.count("the cat") == 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-new-tokens", 0, "max_new_tokens = 0 must be at least 1."),
        ("--samples", 0, "samples = 0 must be at least 1."),
        ("--seed", -1, "seed = -1 must be at least 0."),
    ],
)
def test_what_cannot_be_generated_is_said_before_anything_is_printed(made, option, value, message, capsys):
    assert cli.main(["generate", str(made / "run"), "--prompt", "the cat", option, str(value)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"minillm: {message}\n")


def test_a_device_that_is_not_here_is_an_error_that_says_so(made, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", bool)
    messages = {"cuda": "PyTorch sees no CUDA device here", "gpu": "device = 'gpu' must be 'cpu', 'cuda'"}
    for device, message in messages.items():
        error = minillm("generate", made / "run", "--engine", "torch", "--device", device, status=2, capsys=capsys)
        assert message in error
