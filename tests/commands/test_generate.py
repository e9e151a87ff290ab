"""minillm generate: one continuation or several, the same with and without the cache."""

from command_line import minillm


def test_generate_continues_the_prompt_and_a_seed_repeats_it(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 20, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and first == minillm(*options, "--no-cache", capsys=capsys)
    two = minillm(*options, "--samples", 2, capsys=capsys)
    assert two.startswith(first.rstrip("\n")) and two.count("the cat") == 2
