"""Configuration: dataclasses to TOML and back, --set, types and what a wrong one is answered."""

import dataclasses
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import CorpusConfig
from minillm.models import GPTConfig, LlamaConfig
from minillm.settings import TrainConfig
from minillm.training.config_file import ConfigError, build, describe, override, read_toml, to_toml
from minillm.training.pretrain import SECTIONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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

    back = tomllib.loads(to_toml("t", {"s": Texts(text, (text, "b"))}))["s"]
    assert back == {"text": text, "texts": [text, "b"]}


@pytest.mark.parametrize(
    ("option", "value"),
    [("train.lr=1e-3", 1e-3), ("train.lr=2", 2), ("train.nesterov=true", True), ("train.schedule=wsd", "wsd"),
     ('train.schedule="wsd"', "wsd"), ("train.x=[1, 2]", [1, 2]), ("train.path=/a b/c=d", "/a b/c=d"),
     ("train.lr=" + "9" * 5000, "9" * 5000), ("train.x=" + "[" * 5000, "[" * 5000)],
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
        (TrainConfig, {"max_steps": True}, "must be a whole number, not True"),
        (TrainConfig, {"max_steps": "5"}, "must be a whole number, not '5'"),
        (TrainConfig, {"lr": True}, "must be a number, not True"),
        (TrainConfig, {"nesterov": 1}, "must be true or false, not 1"),
        (LlamaConfig, {"n_kv_heads": "four"}, "must be a whole number, not 'four'"),
        (CorpusConfig, {"stop_words": "en"}, "must be a list"),
        (CorpusConfig, {"stop_words": [1]}, "must be a text in quotes, not 1"),
        (TrainConfig, {"lr": 10**400}, "lr must be a number below 1e308, not one of 1,329 bits"),
        (TrainConfig, {"max_steps": -(1 << 20_000)}, "must be a number below 1e308, not one of 20,001 bits"),
        (LlamaConfig, {"rope_scaling": {"rope_type": []}}, "rope_type = [] is not supported"),
        (GPTConfig, {"dropout": 2.0}, "dropout = 2.0 must be at least 0"),
        (TrainConfig, {"lr": math.nan}, "lr must be 0 or more, not nan"),
    ]:
        with pytest.raises(ConfigError) as error:
            build(cls, values, "[section]")
        assert message in str(error.value) and str(error.value).startswith("[section]: ")


def test_comments_behind_fields_are_read():
    described = {name: comment for name, _, comment in describe(TrainConfig)}
    assert described["save_every"] == "steps" and all(described.values())


def test_a_byte_order_mark_and_backslashes(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nlr = 0.5\r\n")  # as Notepad writes it
    assert read_toml(path, SECTIONS) == {"train": {"lr": 0.5}}
    for folder in (r"C:\Users\me", r"C:\data\x"):
        path.write_text(f'[data]\ncorpus = "{folder}"\n')
        with pytest.raises(ConfigError, match=r"is not valid TOML.*write paths with / or in single quotes"):
            read_toml(path, SECTIONS)
        path.write_text(f"[data]\ncorpus = '{folder}'\n")
        assert read_toml(path, SECTIONS) == {"data": {"corpus": folder}}


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "1" * 100_000])
def test_hostile_toml_is_refused_by_name(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        read_toml(tmp_path / "config.toml", SECTIONS)
