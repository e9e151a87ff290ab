"""The command as a whole: mistakes end with one line that says what to do, every option is in --help, and no command
waits for another's imports."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import minillm

from minillm.commands import cli
from minillm.training.config_file import ConfigError, describe
from minillm.training.pretrain import SECTIONS
from minillm.training.run_folder import TrainingDiverged

DATA = ["--corpus", "c", "--tokenizer", "t"]  # neither of which is there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain"], "[data]: corpus is not set: give --corpus PATH"),
        (["pretrain", "--config", "none.toml"], "there is no config file none.toml"),
        (["pretrain", "--config", "debgu"], "Did you mean 'debug'?"),
        (["pretrain", "--set", "lr=3"], "--set must be section.key=value"),
        (["pretrain", "--set", "trian.lr=3"], "unknown section 'trian'. Did you mean 'train'?"),
        (["pretrain", "--set", "train.lrr=3", *DATA], "unknown key 'lrr'. Did you mean 'lr'?"),
        (["pretrain", "--set", "train.lr=fast", *DATA], "lr must be a number, not 'fast'"),
        (["pretrain", "--set", "train.max_steps=1.5", *DATA], "a whole number, not 1.5"),
        (["pretrain", "--set", "train.schedule=cos", *DATA], "must be one of 'cosine', "),
        (["pretrain", "--corpus", "c", "--tokenizer", "t.json"], "t.json"),
        (["evaluate", "./nowhere"], "there is no folder ./nowhere"),
        (["generate", "./nowhere"], "there is no folder ./nowhere"),
        (["tokenizer", "encode", "nowhere.json", "text"], "nowhere.json"),
        (["tokenizer", "train", "nowhere.txt"], "nowhere.txt"),
        (["tokenizer", "train", "t", "--cased"], "--cased is for --kind wordpiece, not bpe: leave it out"),
        (
            ["tokenizer", "train", "t", "--kind", "wordpiece", "--pattern", "gpt2"],
            "--pattern is for --kind bpe, not word",
        ),
        (
            ["tokenizer", "train", "t", "--kind", "char", "--vocab-size", "9"],
            "is for --kind bpe or wordpiece, not char",
        ),
        (["corpus", "out", "--from", "nowhere"], "nowhere"),
        (["corpus", "out", "--val-fraction", "2"], "2"),
        (["corpus", "out", "--max-mb", "-1"], "--max-mb -1 must be at least 0"),
        (["corpus", "out", "--seed", "-1"], "--seed -1 must be 0 or more."),
        (["corpus", "out", "--min-chars", "0"], "--min-chars must be at least 1"),
        (["corpus", "out", "--processes", "0"], "--processes must be at least 1, not 0."),
        (["ablate", "classify", "--vary", "lr=1,2"], "--vary must be section.key=value,value"),
        (["quickstart", "--seconds", "0"], "--seconds 0 must be above 0"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = minillm(*arguments, status=2, capsys=capsys)
    assert message in error and error.startswith("minillm: ") and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_what_they_should_be(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.bin").write_bytes(bytes(range(256)))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.toml").write_text("[train\nlr = 1")
    (tmp_path / "flat.toml").write_text("train = 3")
    for arguments, message in [
        (["corpus", "out", "--from", "empty.txt"], "empty.txt"),
        (["evaluate", made / "run", "--data", "empty.txt"], "empty.txt"),
        (["tokenizer", "encode", made, "--file", "binary.bin"], "is not UTF-8"),
        (["tokenizer", "encode", made], "give either a text or --file"),
        (["pretrain", "--config", "bad.toml"], "bad.toml is not valid TOML"),
        (["pretrain", "--config", "flat.toml"], "train must be a section, [train], with keys below it, not 3."),
        (["evaluate", made / "run", "--context", "64"], "64 tokens in ids are more than the context of 32"),
    ]:
        error = minillm(*arguments, status=2, capsys=capsys)
        assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "m", "--batch-size"], ["compare", "m", "--context"], ["compare", "m", "--max-bytes"],
        ["evaluate", "m", "--batch-size"], ["inspect", "m", "--batch-size"], ["ablate", "--seeds"],
        ["chat", "m", "--max-new-tokens"], ["predict", "m", "--data", "d", "--out", "o", "--batch-size"],
        ["tokenizer", "train", "t", "--vocab-size"], ["tokenizer", "show", "t", "--merges"],
    ],
)  # fmt: skip
def test_counts_are_above_zero(words, capsys):
    for value in ("0", "-1", "1.5", "many"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words, value])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert f"argument {words[-1]}: must be 1 or more, not {value}" in error or "must be a whole number" in error


@pytest.mark.parametrize(
    ("words", "text", "shown"),
    [
        (["--top-k", "0"], "top_k = 0 must be at least 1.", "--top-k 0 must be at least 1."),
        (["--top-k=0"], "top_k = 0 must be at least 1.", "--top-k 0 must be at least 1."),
        ([], "top_k = 50 must be at least 1.", "top_k = 50 must be at least 1."),
        (["--top-k", "0"], "top_k = 3 must be at least 1.", "top_k = 3 must be at least 1."),  # another's
        (["--top-k", "0"], "top_k must be from 1, not 0.", "--top-k must be from 1, not 0."),
        (["--device", "x"], "device = 'x': use engine='torch'.", "--device x: use --engine torch."),
        (["--top-k", "0"], "[train]: lr = 0 must be above 0.", "[train]: lr = 0 must be above 0."),
    ],
)
def test_errors_name_what_was_typed(words, text, shown):
    given = argparse.Namespace(top_k=0, device="x", engine="numpy", lr=0)
    assert cli.as_typed(text, words, given) == shown


def test_errors_of_the_system_have_no_numbers():
    quoted = ValueError(f"no network: {FileNotFoundError(2, 'No such file or directory')}.")
    assert cli.in_words(quoted) == "no network: No such file or directory."
    assert cli.in_words(OSError(28, "No space left on device")) == "No space left on device."
    assert cli.in_words(FileNotFoundError(2, "No such file", "a.txt")) == "a.txt: No such file."


def test_a_diverged_run_has_its_own_status_and_tracebacks_can_be_asked_for(monkeypatch, capsys):
    def diverge(*args, **kwargs):
        raise TrainingDiverged("step 3: the loss is nan")

    monkeypatch.setattr("minillm.commands.pretrain.pretrain", diverge)
    assert "step 3: the loss is nan" in minillm("pretrain", status=1, capsys=capsys)
    with pytest.raises(ConfigError):
        cli.main(["--traceback", "pretrain", "--config", "none.toml"])


def test_ctrl_c_while_a_command_is_imported_is_said_in_one_line(monkeypatch, capsys):
    def interrupted(name, package):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert minillm("corpus", "out", status=130, capsys=capsys) == "\nminillm: stopped\n"


def all_parsers(parser):
    """Every parser below a parser, with its words."""
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, child in action.choices.items():
                yield [name], child
                yield from (([name, *words], p) for words, p in all_parsers(child))


def test_every_option_is_in_help_with_its_default(capsys):
    for words, parser in all_parsers(cli.make_parser()):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words, "--help"])
        assert stopped.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for action in parser._actions:
            for option in action.option_strings:
                assert option in text
            if action.option_strings and action.dest != "help":
                assert action.help, f"{words} {action.dest} has no help"
                shown = f"(default: {action.default})"
                if action.default in (None, [], "", ()) or action.default is False:
                    shown = ""  # nothing, which the help puts in words
                if action.default is argparse.SUPPRESS:  # it depends on other options: the help says how
                    shown = "default: "
                    assert shown in action.help, f"{words} {action.dest} does not say its default"
                assert shown in text, f"{words}: {action.option_strings} does not show {shown}"
        assert "(default: )" not in text and "(default: None)" not in text and "(default: [])" not in text
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    text = capsys.readouterr().out
    for section, cls in SECTIONS.items():
        fields = [(name, default) for name, default, _ in describe(cls) if name != "vocab_size"]  # is the tokenizer's
        assert all(f"{section}.{name} = {default!r}" in text for name, default in fields)
    assert "model.vocab_size  " in text


@pytest.mark.parametrize("words", [["--help"], ["corpus", "--help"], ["tokenizer", "train", "--help"]])
def test_a_command_imports_what_it_needs_itself(words):
    """Not the Hugging Face side of the library, and no torch."""
    program = f"""
import sys
from minillm.commands.cli import main
try:
    main({words!r})
finally:
    print([name for name in sys.modules if name == "torch" or name.startswith(("minillm.hub", "minillm.plot"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_every_file_in_commands_is_in_the_list():
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    parts = {"assistant", "ahead"}  # of finetune, of generate
    assert files - {"__init__", "cli", "options", "table", *parts} == set(cli.COMMANDS)


@pytest.mark.parametrize("module", ["minillm", "minillm.commands.cli"])
def test_the_command_is_also_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "tokenizer"], capture_output=True, text=True)
    assert done.returncode == 2 and "the following arguments are required: COMMAND" in done.stderr
