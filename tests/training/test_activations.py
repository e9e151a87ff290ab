"""Units that give nothing for any token are counted, by networks of every kind; what can't be run is said."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm.data import build_corpus, read_documents
from minillm.disk import checksum, read_json, write_json
from minillm.models import GPTConfig
from minillm.tokenizers import CharTokenizer
from minillm.training import activations
from minillm.training.activations import tokens_to_run
from minillm.training.health import examine
from minillm.training.pretrain import pretrain

KINDS = {
    "gpt": ("blocks.1.mlp.fc", "blocks.1.mlp.fc.bias"),
    "llama": ("blocks.1.mlp.gate", None),
    "bert": ("blocks.1.fc", "blocks.1.fc.bias"),
    "encoder-decoder": ("decoder.1.mlp.fc", "decoder.1.mlp.fc.bias"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that trains a model of a kind for a few steps: -> its run folder."""
    folder, draw = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    words = ["the", "cat", "sees", "a", "dog", "and", "bird", "hears", "it", "while", "child", "follows", "them"]
    (folder / "in").mkdir()
    for i in range(60):
        (folder / "in" / f"{i}.txt").write_text(" ".join(draw.choice(words, 80)))
    build_corpus(read_documents(folder / "in"), folder / "corpus")
    CharTokenizer.train(words + [" "], unk_token="<unk>").save(folder / "tokenizer.json")

    def train(kind):
        out = folder / kind
        if not out.exists():
            shape = {"model_type": kind, "context": 32, "n_layers": 2, "d_model": 16}
            heads = {} if kind == "lstm" else {"n_heads": 2}
            wide = {"d_ff": 64} if kind not in ("lstm", "gpt") else {}
            sections = {
                "data": {"corpus": str(folder / "corpus"), "tokenizer": str(folder / "tokenizer.json")},
                "model": {**shape, **heads, **wide},
                "train": {"max_steps": 45, "batch_size": 4, "warmup_steps": 5, "eval_every": 45, "save_every": 45},
            }
            pretrain(sections, out, progress=False)
        return out

    return train


def change_weights(folder, change):
    path = folder / "model.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    change(arrays)
    save_file(arrays, path)
    state = read_json(folder / "state.json")
    state["crc32"][path.name] = checksum(path)
    write_json(folder / "state.json", state)


def change_config(folder, config):
    write_json(folder / "config.json", config)
    state = read_json(folder / "state.json")
    state["crc32"]["config.json"] = checksum(folder / "config.json")
    write_json(folder / "state.json", state)


@pytest.mark.parametrize("kind", KINDS)
def test_units_that_give_nothing_are_counted(run, kind, tmp_path):
    network, bias = KINDS[kind]
    before = examine(run(kind))
    n = 4 if kind == "encoder-decoder" else 2  # networks of 64 units
    active = int(before.facts["active units"].split()[0])
    assert active == 64 * n if kind != "encoder-decoder" else 64 * n > active > 32 * n, before
    assert f" of {64 * n}, on 768 tokens of the validation text" in before.facts["active units"]
    assert not any("gave nothing" in finding for finding in before.findings)
    copy = shutil.copytree(run(kind), tmp_path / "run")

    def silence(arrays):
        if bias is None:
            arrays[f"{network}.weight"][:40] = 0
        else:
            arrays[bias][:40] = -100

    change_weights(copy / "last", silence)
    health = examine(copy)
    now = int(health.facts["active units"].split()[0])
    assert now == active - 40 if kind != "encoder-decoder" else active - 40 <= now < active
    found = [finding for finding in health.findings if "gave nothing" in finding]
    assert len(found) == 1 and found[0].startswith(f"{network}: ") and "of 64 units gave nothing for any of" in found[0]
    assert str(examine(copy / "last")) == str(health)  # named by its checkpoint


def test_a_model_without_such_networks_has_none(run):
    assert "active units" not in examine(run("lstm")).facts


def test_what_cannot_be_looked_at_is_said(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run("gpt"), tmp_path / "run")
    monkeypatch.setattr(activations, "OPERATIONS", 1e5)
    assert examine(copy).facts["active units"] == (
        "not looked at: the model is too large to be run here in a few seconds."
    )
    monkeypatch.undo()
    config = read_json(copy / "last" / "config.json")
    for changes, said in [
        ({"context": 31}, "its config.json is not that of its weights."),
        ({"n_layers": 10**9}, "too large"),
        ({"d_model": "16"}, "d_model"),
        ({"dropout": None}, "dropout"),
    ]:
        change_config(copy / "last", {**config, **changes})
        assert said in examine(copy).facts["active units"]
    change_config(copy / "last", config)
    (copy / "config.toml").unlink()
    assert "not looked at: there is no run to resume in" in examine(copy).facts["active units"]


def test_a_large_model_is_run_on_less_text():
    assert tokens_to_run(GPTConfig(vocab_size=500, context=128, n_layers=2, n_heads=2, d_model=64)) == (32, 128)
    n, length = tokens_to_run(GPTConfig())
    assert n == 1 and 64 <= length < 200
    with pytest.raises(ValueError, match="too large to be run here"):
        tokens_to_run(GPTConfig(n_layers=48, n_heads=25, d_model=1600))
