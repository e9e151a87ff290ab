"""Options made from a signature: type, choices, default and help, and every one back to the parameter of its name."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest

from minillm.commands.options import add_fields, add_option, choices, keywords


def bake(
    cake: str = "plain",
    *,
    minutes: int = 40,
    sugar: float | None = None,
    icing: bool = True,
    shape: Literal["round", "square"] = "round",
    nuts: Sequence[str] = (),
) -> str:
    return f"{cake} {minutes} {sugar} {icing} {shape} {nuts}"


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    for name in ("cake", "minutes", "sugar", "icing", "shape", "nuts"):
        add_option(parser, bake, name, f"100% {name}")
    return parser


def test_defaults_are_the_parameters(parser):
    arguments = parser.parse_args([])
    assert bake(**keywords(bake, arguments)) == bake()
    assert "100% sugar" in parser.format_help()


def test_values_are_read_as_the_types_say(parser, capsys):
    words = "--cake carrot --minutes 30 --sugar 1e-1 --no-icing --shape square --nuts hazel pecan"
    arguments = parser.parse_args(words.split())
    assert bake(**keywords(bake, arguments)) == "carrot 30 0.1 False square ['hazel', 'pecan']"
    for wrong in (["--minutes", "1.5"], ["--sugar", "much"], ["--shape", "star"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    assert "invalid choice: 'star'" in capsys.readouterr().err


def test_settings_go_before_what_the_signature_says():
    parser = argparse.ArgumentParser()
    add_option(parser, bake, "icing", "", action="store_true", default=False)
    add_option(parser, bake, "minutes", "", default=50, metavar="N")
    assert vars(parser.parse_args([])) == {"icing": False, "minutes": 50}
    assert parser.parse_args(["--icing"]).icing is True


def test_what_a_function_has_no_parameter_for_is_left_out():
    assert keywords(bake, argparse.Namespace(minutes=1, oven="gas")) == {"minutes": 1}


@dataclass(frozen=True)
class Oven:
    degrees: int = 180  # Celsius
    heat: Literal["top", "fan"] = "fan"  # where from


def test_fields_of_a_dataclass_with_their_comments():
    parser = argparse.ArgumentParser()
    add_fields(parser, Oven)
    assert Oven(**keywords(Oven, parser.parse_args(["--degrees", "200"]))) == Oven(200)
    assert "Celsius" in parser.format_help() and "where from" in parser.format_help()
    assert choices(Oven, "heat") == ("top", "fan")
