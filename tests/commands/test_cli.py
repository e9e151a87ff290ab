"""The command: each subcommand on a tiny corpus, what a user can get wrong, configuration, Ctrl-C."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm import cli, commands
from minillm.data import CorpusConfig
from minillm.models import GPTConfig, LlamaConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import load_tokenizer
from minillm.training.config_file import ConfigError, build, describe, override, read_toml, to_toml
from minillm.training.diagnose import TrainingDiverged
from minillm.training.pretrain import PRESETS, SECTIONS, build_config, read_config
from minillm.training.run_log import read_metrics

DATA = ["--corpus", "c", "--tokenizer", "t"]  # neither of which is there
TINY = ["--config", "debug", "--set", "train.max_steps=6", "--set", "train.eval_every=3", "--set", "train.save_every=2"]


def minillm(*arguments, status=0, capsys=None):
    """Run a command line in this process; returns what it printed, after checking the exit status."""
    assert cli.main([str(a) for a in arguments]) == status
    if capsys is None:
        return ""
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text with spaces")
    rng = np.random.default_rng(0)
    words = ["the", "a", "cat", "dog", "bird", "sees", "hears", "follows", "and", "or", "quickly", "你好", "über"]
    for i in range(60):
        sentences = [" ".join(rng.choice(words, 12)) + "." for _ in range(12)]
        (folder / f"{i}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(text_folder, tmp_path_factory):
    """A folder in which corpus, tokenizer and a short training run have been made by the command."""
    folder = tmp_path_factory.mktemp("made")
    minillm("corpus", folder / "corpus", "--from", text_folder, "--val-fraction", "0.2", "--near-threshold", "0")
    minillm("tokenizer", "train", folder / "corpus", "--vocab-size", "300", "--out", folder / "tokenizer.json")
    data = ["--corpus", folder / "corpus", "--tokenizer", folder / "tokenizer.json"]
    minillm("pretrain", *data, *TINY, "--out", folder / "run")
    return folder


def test_the_road_leaves_its_files(made):
    assert {"train.jsonl", "val.jsonl", "report.json", "dropped.jsonl"} <= {p.name for p in (made / "corpus").iterdir()}
    assert {p.name for p in (made / "run").iterdir()} == {"best", "last", "config.toml", "metrics.jsonl"}
    echoed = read_toml(made / "run" / "config.toml", SECTIONS)
    assert echoed["train"]["max_steps"] == 6 and echoed["train"]["lr"] == TrainConfig().lr
    assert echoed["model"]["d_model"] == 32 and 260 < echoed["model"]["vocab_size"] <= 300
    config, _ = build_config(echoed)  # the echo is a configuration that makes the run again
    assert config.train == dataclasses.replace(build_config(echoed)[0].train, max_steps=6)


def test_evaluate_prints_the_figures_of_the_corpus_and_of_any_text(made, text_folder, tmp_path, capsys):
    out = minillm("evaluate", made / "run", capsys=capsys)
    rows = [row for row in read_metrics(made / "run" / "metrics.jsonl") if "val_loss" in row]
    assert f"loss {min(row['val_loss'] for row in rows):.3f}"[:-1] in out and "bits per byte" in out
    out = minillm("evaluate", made / "run" / "last", "--data", text_folder / "0.txt", "--max-tokens", 50, capsys=capsys)
    assert "0.txt: loss" in out
    assert "last on val: loss" in minillm("evaluate", made / "run" / "last", capsys=capsys)
    shutil.copytree(made / "run" / "last", tmp_path / "moved")
    error = minillm("evaluate", tmp_path / "moved", status=2, capsys=capsys)
    assert "moved does not say what it was trained on" in error


def test_generate_continues_the_prompt_and_a_seed_repeats_it(made, capsys):
    options = ["generate", made / "run", "--prompt", "the cat", "--max-new-tokens", 20, "--seed", 3]
    first = minillm(*options, capsys=capsys)
    assert first.startswith("the cat") and first == minillm(*options, "--no-cache", capsys=capsys)
    two = minillm(*options, "--samples", 2, capsys=capsys)
    assert two.startswith(first.rstrip("\n")) and two.count("the cat") == 2


def test_tokenizer_encode_and_show(made, tmp_path, capsys):
    ids = minillm("tokenizer", "encode", made / "tokenizer.json", "the cat 你好", capsys=capsys)
    (tmp_path / "text.txt").write_text("the cat 你好", encoding="utf-8")
    assert ids == minillm("tokenizer", "encode", made, "--file", tmp_path / "text.txt", capsys=capsys)
    assert len(minillm("tokenizer", "encode", made, "<|endoftext|>", capsys=capsys).split()) > 1
    assert len(minillm("tokenizer", "encode", made, "<|endoftext|>", "--special", capsys=capsys).split()) == 1
    shown = minillm("tokenizer", "show", made, "the cat 你好", "--steps", capsys=capsys)
    assert "你好" in shown and "' cat'" in shown
    assert len(minillm("tokenizer", "show", made, "--merges", 5, capsys=capsys).splitlines()) == 6


def test_a_wordpiece_tokenizer(made, tmp_path, capsys):
    train = ["tokenizer", "train", made / "corpus", "--kind", "wordpiece", "--vocab-size", 80]
    for options, shown in [([], "'the'"), (["--cased"], "'[UNK]'")]:  # the corpus has no capitals
        assert "80 ids" in minillm(*train, *options, "--out", tmp_path, capsys=capsys)
        lines = minillm("tokenizer", "show", tmp_path, "The cat, the [MASK]", capsys=capsys).splitlines()
        assert lines[0].startswith("WordPieceTokenizer(vocab_size=80, special_tokens=['[PAD]', '[UNK]', '[CLS]', ")
        assert lines[1].endswith(shown) and lines[-1] == "    4  '[MASK]'"
        ids = minillm("tokenizer", "encode", tmp_path, "THE cat", capsys=capsys)
        assert (ids == minillm("tokenizer", "encode", tmp_path, "the cat", capsys=capsys)) is not bool(options)
        (tmp_path / "text.txt").write_text("THE cat")
        assert ids == minillm("tokenizer", "encode", tmp_path, "--file", tmp_path / "text.txt", capsys=capsys)
    for option in (["--steps"], ["--merges", 3]):
        error = minillm("tokenizer", "show", tmp_path, "the", *option, status=2, capsys=capsys)
        assert f"{option[0]} is for byte-level BPE, and this is a WordPieceTokenizer" in error
    special = ["--special", "[UNK]", "<|endoftext|>", "--out", tmp_path]
    minillm(*train, *special, capsys=capsys)
    assert "special_tokens=['[UNK]', '<|endoftext|>']" in minillm("tokenizer", "show", tmp_path, capsys=capsys)


def test_patterns_of_the_field(made, tmp_path, capsys):
    """Each gives numbers to its own rule: three digits to a token at most, or one."""
    shown = {}
    for pattern in ("gpt2", "gpt4", "llama3", "qwen2"):
        out = tmp_path / f"{pattern}.json"
        minillm("tokenizer", "train", made / "corpus", "--vocab-size", 300, "--pattern", pattern, "--out", out)
        shown[pattern] = minillm("tokenizer", "show", out, "12345", "--steps", capsys=capsys)
        nfc = load_tokenizer(out).nfc
        assert nfc is (pattern == "qwen2")
    pieces = {pattern: text.split("is ")[1].split(" ")[0] for pattern, text in shown.items()}
    assert pieces == {"gpt2": "1", "gpt4": "2", "llama3": "2", "qwen2": "5"}


def test_a_character_tokenizer(made, tmp_path, capsys):
    minillm("tokenizer", "train", made / "corpus", "--kind", "char", "--out", tmp_path / "char.json", capsys=capsys)
    assert "你" in minillm("tokenizer", "show", tmp_path / "char.json", "你", capsys=capsys)


def test_a_run_is_not_overwritten_and_can_be_resumed_for_longer(made, tmp_path, capsys):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    before = (made / "run" / "config.toml").read_text()
    error = minillm("pretrain", *data, *TINY, "--set", "train.lr=1", "--out", made / "run", status=2, capsys=capsys)
    assert "already holds a run" in error and (made / "run" / "config.toml").read_text() == before
    minillm("pretrain", *data, *TINY, "--out", tmp_path / "run")
    minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", "train.max_steps=8")
    assert [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in r] == list(range(1, 9))
    error = minillm("pretrain", "--resume", "--out", tmp_path / "no", status=2, capsys=capsys)
    assert "there is no run to resume" in error


def test_other_models_by_config(made, tmp_path):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    llama = ["model.model_type=llama", "model.d_ff=64", "model.context=16", "train.max_steps=2"]
    sets = [item for option in llama for item in ("--set", option)]
    minillm("pretrain", *data, "--config", "debug", *sets, "--out", tmp_path / "llama")
    assert json.loads((tmp_path / "llama" / "last" / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain"], "[data]: corpus is not set: give --corpus PATH"),
        (["pretrain", "--config", "none.toml"], "there is no config file none.toml"),
        (["pretrain", "--config", "debgu"], "Did you mean 'debug'?"),
        (["pretrain", "--set", "lr=3"], "--set takes section.key=value"),
        (["pretrain", "--set", "trian.lr=3"], "unknown section 'trian'. Did you mean 'train'?"),
        (["pretrain", "--set", "train.lrr=3", *DATA], "unknown key 'lrr'. Did you mean 'lr'?"),
        (["pretrain", "--set", "train.lr=fast", *DATA], "lr must be a number, got 'fast'"),
        (["pretrain", "--set", "train.max_steps=1.5", *DATA], "a whole number, got 1.5"),
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
        (["quickstart", "--seconds", "0"], "seconds is 0.0"),
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
        (["pretrain", "--config", "flat.toml"], "train should be a section, [train]"),
        (["evaluate", made / "run", "--context", "64"], "64 tokens are more than the context of 32"),
    ]:
        error = minillm(*arguments, status=2, capsys=capsys)
        assert message in error and "Traceback" not in error


def test_a_diverged_run_has_its_own_status_and_tracebacks_can_be_asked_for(monkeypatch, capsys):
    def diverge(*args, **kwargs):
        raise TrainingDiverged("step 3: the loss is nan")

    monkeypatch.setattr(commands, "pretrain", diverge)
    assert "step 3: the loss is nan" in minillm("pretrain", status=1, capsys=capsys)
    with pytest.raises(ConfigError):
        cli.main(["--traceback", "pretrain", "--config", "none.toml"])


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
                if action.default is argparse.SUPPRESS:  # it depends on other options: the help says how
                    shown = "default: "
                    assert shown in action.help, f"{words} {action.dest} does not say its default"
                assert shown in text, f"{words}: {action.option_strings} does not show {shown}"
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    text = capsys.readouterr().out
    for section, cls in SECTIONS.items():
        assert all(f"{section}.{name} = {default!r}" in text for name, default, _ in describe(cls))


def run_process(*arguments, **options):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "minillm", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_exits_and_the_run_goes_on(made, tmp_path, number, status):
    data = ["--corpus", made / "corpus", "--tokenizer", made / "tokenizer.json"]
    process = run_process("pretrain", *data, *TINY, "--set", "train.max_steps=1000000", "--out", tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "finishing this step and saving" in output and "to go on: minillm pretrain --resume" in output
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_text())["run"]
    step = state["step"]
    assert step == [row["step"] for row in read_metrics(metrics) if "loss" in row][-1] > 0
    minillm("pretrain", "--resume", "--out", tmp_path / "run", "--set", f"train.max_steps={step + 2}")
    assert [row["step"] for row in read_metrics(metrics) if "loss" in row] == list(range(1, step + 3))


def test_quickstart_at_a_small_scale(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "MPLCONFIGDIR", str(tmp_path / "mpl"))
    out = minillm("quickstart", "--out", tmp_path / "my run", "--seconds", 2, capsys=capsys)
    for number in range(1, 8):
        assert f"\n{number}. " in out
    results = json.loads((tmp_path / "my run" / "results.json").read_text())
    table = results["bits_per_byte"]
    assert len(table) == 5 and all(0 < bits < 8.5 for bits in table.values())
    assert table["unigram (how often each byte occurs)"] > table["5-gram (the byte after the last four)"]
    names = {p.name for p in (tmp_path / "my run").iterdir()}
    assert {"corpus", "tokenizer.json", "best", "last", "metrics.jsonl", "config.toml", "samples.txt"} <= names
    for file in ("data/build.py", "bpe.py", "models/gpt.py", "training/train.py", "evaluate.py", "generate.py"):
        assert file.rpartition("/")[2] in out  # each step says where its code is

    error = minillm("quickstart", "--out", tmp_path / "my run", "--seconds", 2, status=2, capsys=capsys)
    assert "--overwrite" in error
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    minillm("quickstart", "--out", tmp_path / "other", "--seconds", 2, "--overwrite", status=2, capsys=capsys)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


# --- configuration ------------------------------------------------------------------------------------------------


@given(
    st.builds(
        TrainConfig,
        seed=st.integers(0, 2**64),
        lr=st.floats(0, 1e300),
        max_seconds=st.floats(0, 1e9),
        nesterov=st.booleans(),
        schedule=st.sampled_from(["cosine", "linear", "wsd", "constant"]),
    )
)
def test_a_config_goes_through_toml_unchanged(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    llama = LlamaConfig(rope_scaling={"rope_type": "linear", "factor": 8.0})
    sections = {"train": config, "model": llama}
    path.write_text(to_toml("title", sections), encoding="utf-8")
    back = read_toml(path, sections)
    assert build(TrainConfig, back["train"], "x") == config
    assert build(LlamaConfig, back["model"], "x") == llama


@given(st.text())
def test_any_text_goes_through_toml_unchanged(text):
    @dataclasses.dataclass
    class Texts:
        text: str
        texts: tuple[str, ...]

    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    back = tomllib.loads(to_toml("t", {"s": Texts(text, (text, "b"))}))["s"]
    assert back == {"text": text, "texts": [text, "b"]}


@pytest.mark.parametrize(
    ("option", "value"),
    [("train.lr=1e-3", 1e-3), ("train.lr=2", 2), ("train.nesterov=true", True), ("train.schedule=wsd", "wsd"),
     ('train.schedule="wsd"', "wsd"), ("train.x=[1, 2]", [1, 2]), ("train.path=/a b/c=d", "/a b/c=d")],
)  # fmt: skip
def test_set_reads_toml_values_and_plain_texts(option, value):
    sections = {"train": {"lr": 5}}
    override(sections, option, SECTIONS)
    key = option.partition("=")[0].removeprefix("train.")
    assert sections["train"][key] == value


def test_types_are_checked():
    assert build(TrainConfig, {"lr": 1}, "x").lr == 1.0 and isinstance(build(TrainConfig, {"lr": 1}, "x").lr, float)
    assert build(CorpusConfig, {"stop_words": ["en"]}, "x").stop_words == ("en",)
    assert build(LlamaConfig, {"n_kv_heads": 4}, "x").n_kv_heads == 4
    for cls, values, message in [
        (TrainConfig, {"max_steps": True}, "must be a whole number, got True"),
        (TrainConfig, {"max_steps": "5"}, "must be a whole number, got '5'"),
        (TrainConfig, {"lr": True}, "must be a number, got True"),
        (TrainConfig, {"nesterov": 1}, "must be true or false, got 1"),
        (LlamaConfig, {"n_kv_heads": "four"}, "must be a whole number, got 'four'"),
        (CorpusConfig, {"stop_words": "en"}, "must be a list"),
        (CorpusConfig, {"stop_words": [1]}, "must be a text in quotes, got 1"),
        (GPTConfig, {"dropout": 2.0}, "dropout = 2.0 must be at least 0"),
        (TrainConfig, {"lr": math.nan}, "lr must be 0 or more, got nan"),
    ]:
        with pytest.raises(ConfigError) as error:
            build(cls, values, "[section]")
        assert message in str(error.value) and str(error.value).startswith("[section]: ")


def test_the_configs_that_come_with_minillm_are_valid(made):
    presets = sorted(path.stem for path in PRESETS.glob("*.toml"))
    assert {"debug", "quickstart"} <= set(presets)
    for name in presets:
        sections = read_config(name)
        sections["data"] = {"corpus": str(made / "corpus"), "tokenizer": str(made / "tokenizer.json")}
        build_config({key: sections[key] for key in sections if key in SECTIONS})


def test_comments_behind_fields_are_read():
    described = {name: comment for name, _, comment in describe(TrainConfig)}
    assert described["save_every"] == "steps" and all(described.values())


def test_sources_stand_before_or_after_the_folder_and_repeat():
    parse = cli.make_parser().parse_args
    assert parse(["corpus", "out"]).sources == ["stdlib"]
    for arguments in (["corpus", "--from", "a", "--from", "b", "out"], ["corpus", "out", "--from", "a", "--from", "b"]):
        assert (parse(arguments).sources, parse(arguments).out) == (["a", "b"], "out")
    assert parse(["corpus", "out"]).sources == ["stdlib"]
