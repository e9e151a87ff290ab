"""Chapter 20's bookkeeping: what is missing is said with the line that installs it; refusals and headings."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("matplotlib")
from minillm.workshop import ecosystem

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["transformers", "peft"])
def test_a_reader_without_the_other_libraries_is_told_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} cannot be imported.*pip install -e \"\.\[ecosystem\]\""):
        ecosystem.others()


def test_that_line_installs_all_of_them():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = " ".join(extras["ecosystem"])
    for name in ecosystem.NEEDED:
        assert name in named or name == "tokenizers", name  # which transformers brings along


def test_a_refusal_is_shown_without_the_folder(tmp_path):
    def action():
        raise ValueError(f"{tmp_path / 'model'} is no model, nor is {tmp_path}/x/y.json.")

    assert ecosystem.refusal(action, tmp_path) == "ValueError: model is no model, nor is x/y.json."
    with pytest.raises(AssertionError, match="was to be refused"):
        ecosystem.refusal(list, tmp_path)


def test_headings_are_not_comments_in_code():
    card = "# A model\n\n```python\n# a comment\nx = 1\n```\n\n## Data\ntext # 1\n"
    assert ecosystem.headings(card) == ["A model", "Data"]
