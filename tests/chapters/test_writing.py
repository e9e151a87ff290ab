"""Chapter 14's bookkeeping: what samples give when they are run, which one a rule hands in, what counts as Python."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import writing

from minillm.data import Pair
from minillm.data.tasks import code
from minillm.metrics import pass_at_k
from minillm.training.baselines import NGramModel

RESULTS = Path(__file__).parents[1] / "bench" / "RESULTS.md"


def test_values_are_written_alike_where_python_calls_them_equal():
    tests = [({"xs": [1, 2]}, None)]
    same = [writing.values_of(text, tests) for text in ("[x / 1 for x in xs]", "xs", "[True, 2]")]
    assert same[0] == same[1] == same[2] == ("[1.0, 2.0]",)
    assert writing.values_of("len(xs)", tests) != writing.values_of("str(len(xs))", tests)
    assert writing.values_of("xs[9]", tests) is None


def test_passed_agrees_with_the_task():
    pairs = code.make(0, train=50)["test"][:6]
    drawn = [[pair.target, "sum([0])", "oh no", pairs[0].target] for pair in pairs]
    found = writing.passed(pairs, writing.run_all(pairs, drawn))
    expected = [[code.passes(text, code.tests_of(pair)) for text in texts] for pair, texts in zip(pairs, drawn)]
    assert found.tolist() == expected and found[:, 0].all() and not found[:, 2].any()


RIGHT = ("1.0", "2.0", "3.0")
NEAR, NEARER = ("1.0", "0.0", "0.0"), ("1.0", "2.0", "0.0")  # agree with the first test, the first two


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("one sample", 0),
        ("commonest text", 1),
        ("commonest values", 3),
        ("passes one example", 3),
        ("passes two examples", 5),
        ("a perfect verifier", 6),
    ],
)
def test_each_rule_hands_in_its_sample(rule, expected):
    texts = ["a", "b", "b", "c", "d", "e", "f"]
    values = [None, None, None, NEAR, NEAR, NEARER, RIGHT]
    assert writing.chosen(rule, texts, values, RIGHT) == expected


def test_without_a_value_the_first_sample_is_handed_in():
    assert {writing.chosen(rule, ["a", "b"], [None, None], RIGHT) for rule in writing.RULES} == {0}


def test_the_perfect_verifiers_curve_is_pass_at_n():
    pair = Pair("how many", "len(xs)", "")
    right = writing.right_values(pair)
    values = [[right, right, *[None] * 6]]
    shares = writing.curve("a perfect verifier", [pair], [list("abcdefgh")], values, (1, 2, 4, 8), orders=2000)
    assert np.allclose(shares, [pass_at_k(8, 2, k)[0] for k in (1, 2, 4, 8)], atol=0.05)


def test_what_parses():
    start = "def f(x):\n    y = x\n"
    assert writing.parses(start + "    if y:\n") and not writing.parses(start + "    if (y:\n")
    assert writing.whole_lines("    a\n\n    b\n    c", 2) == "    a\n    b\n"
    assert writing.whole_lines("    a\n    b", 2) is None
    shares = writing.parsing_shares([start] * 2, ["    z = y\n    return (\n", "    z = y\n"], (1, 2))
    assert shares.tolist() == [1.0, 0.0]


def test_a_cooled_ngram_takes_the_likeliest_byte():
    grams = NGramModel.fit("ab" * 60 + "ac" * 40, order=2)
    drawn = [writing.continue_by_counting(grams, "a", 40, t, np.random.default_rng(0)) for t in (0.02, 1.0)]
    assert drawn[0] == "ba" * 20 and 2 < drawn[1].count("c") < 16


def test_beginnings_are_functions_that_parse_whole():
    text = "import os\n\n\nclass A:\n    def f(self):\n" + "".join(f"        x{i} = {i}\n" for i in range(9))
    ((start, rest),) = writing.beginnings([text, "not python("], 5)
    assert start == "def f(self):\n    x0 = 0\n    x1 = 1\n" and rest.startswith("    x2") and "x8" in rest


def test_the_full_table_is_found():
    command, table = writing.full_table(RESULTS)
    assert command.startswith("minillm ablate code") and "the run" in table and "retrieval" in table
    assert writing.full_table(RESULTS.with_name("none.md")) == ("", "")


def test_a_writer_learns_and_its_samples_follow_their_seed():
    writer = writing.Writer(code.make(0, train=120)["train"], seed=0)
    first = writer.learn(1)
    assert writer.learn(30) < first
    pairs = code.make(0, train=50)["test"][:2]
    drawn = writer.write(pairs, 2, 1.0, seed=3)
    assert np.shape(drawn) == (2, 2) and drawn == writer.write(pairs, 2, 1.0, seed=3)
    assert len({*writer.write(pairs, 3, 0.0)[0]}) == 1
