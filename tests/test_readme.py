"""The README does not lie: its links lead somewhere, its Python runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.hub import PretrainedModel
from minillm.hub.tokenizer import PretrainedTokenizer
from minillm.models import Bert, BertConfig
from minillm.tokenizers import WordPieceTokenizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


@pytest.fixture
def classifier(tmp_path):
    """A folder such as the README's example reads."""
    tokenizer = WordPieceTokenizer.train(["this is a great movie, that was not"], 60)
    config = BertConfig(tokenizer.vocab_size, 64, 1, 2, 8, 12, head="classification", n_labels=3)
    PretrainedModel(Bert(config)).save_pretrained(tmp_path)
    PretrainedTokenizer(tokenizer, {"tokenizer_class": "BertTokenizer"}).save_pretrained(tmp_path)
    return tmp_path


def test_python_examples_run(classifier):
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert examples
    for example in examples:
        example = example.replace("folder/of/a/classifier", classifier.as_posix())
        command = [sys.executable, "-W", "error", "-c", example]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip()


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"minillm ([a-z]+)\b", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)))))
)
def test_commands_exist(command):
    subprocess.run(
        [sys.executable, "-m", "minillm.commands.cli", command, "--help"], check=True, capture_output=True, timeout=60
    )


def test_the_environment_is_active_where_a_command_is_typed():
    """The first block makes one and activates it; no later line has a path of its own, nor needs one."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line.partition("#")[0].strip() for line in blocks[0].splitlines()]
    assert lines == ["python3 -m venv .venv && . .venv/bin/activate", 'pip install -e ".[plot]"', "minillm quickstart"]
    others = [line for line in "\n".join(blocks[1:]).splitlines() if not line.startswith("python3 -m venv .venv-dev")]
    assert not [line for line in others if ".venv/" in line]


def test_the_extras_that_are_named_are_there():
    extras = ",".join(re.findall(r"\.\[([\w,]+)\]", README)).split(",")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "plot" in extras and all(re.search(rf"^{extra} = ", text, re.M) for extra in extras)


def test_ci_runs_the_test_command():
    """`.ci/run` finds the command by its beginning."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv-dev && ")]
    assert len(lines) == 1
    assert "pytest" in lines[0]


def test_the_hooks_before_a_commit_are_the_linters_of_ci():
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    linters = re.findall(r"^\.venv-dev/bin/.*", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.M)
    assert hooks == linters


# --- the README in Chinese: the same structure, commands and links, in words of its own -------------------------------

CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"^```.*?^```$", re.S | re.M)


def code(text):
    """The blocks of code without their comments, which are translated: what stands behind a # at the beginning of a
    line or after a space. All else counts."""
    return [re.sub(r"(^|\s+)#.*", "", block, flags=re.M) for block in BLOCKS.findall(text)]


def shape(text):
    """What must be alike: the depths of headings, and of each table how many cells its rows have."""
    prose = BLOCKS.sub("", text)
    tables = re.findall(r"(?:^\|.*\|\n)+", prose, re.M)
    rows = [[re.sub(r"`[^`]*`", "", row).count("|") for row in table.splitlines()] for table in tables]
    return re.findall(r"^#+", prose, re.M), rows


def targets(text):
    """Where links lead, but for that to the other language; in a table they keep their order."""
    return [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("README")]


def test_the_two_languages_have_the_same_code_tables_and_links():
    assert code(README) == code(CHINESE) and len(code(README)) > 8
    assert shape(README) == shape(CHINESE)
    assert targets(README) == targets(CHINESE)
    named = [set(re.findall(r"`([^`\n]+)`", BLOCKS.sub("", text))) for text in (README, CHINESE)]
    assert named[0] == named[1]  # commands, options, files
    numbers = [sorted(re.findall(r"\d+\.\d+", BLOCKS.sub("", text))) for text in (README, CHINESE)]
    assert set(numbers[1]) <= set(numbers[0])


def test_each_language_leads_to_the_other_in_its_first_lines():
    assert "(README.zh-CN.md)" in "".join(README.splitlines()[:4])
    assert "(README.md)" in "".join(CHINESE.splitlines()[:4])


def test_the_chinese_is_written_as_chinese_is():
    """Full-width punctuation behind Chinese words, and no line break within a paragraph, which would show as a gap."""
    prose = BLOCKS.sub("", CHINESE)
    assert not re.findall(r"[\u4e00-\u9fff][,;:!?.()]", prose)
    assert not re.findall(r"[\u4e00-\u9fff，。；：、]\n[^\n|#]", prose)
