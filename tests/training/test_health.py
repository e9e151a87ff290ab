"""A healthy run has nothing to look at; each kind of sickness is named, and only by the run that has it."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm.commands.cli import main
from minillm.data import Document, pack
from minillm.disk import checksum
from minillm.models import GPT, GPTConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import CharTokenizer
from minillm.training.checkpoint import CheckpointError
from minillm.training.health import examine
from minillm.training.text import TextData
from minillm.training.train import train

TEXT = "the cat sees a dog and the bird hears it while a child follows them to the river at dawn"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 60)) for _ in range(120)]
    tokenizer = CharTokenizer.train(texts)
    return [
        pack([Document(t, "x") for t in part], tokenizer, folder / f"{name}.bin")
        for name, part in (("train", texts[:100]), ("val", texts[100:]))
    ]


def run(text, folder, **settings):
    config = {"max_steps": 120, "batch_size": 8, "warmup_steps": 10, "eval_every": 40, "save_every": 40, "lr": 3e-3}
    shape = GPTConfig(vocab_size=text[0].vocab_size, context=32, n_layers=2, n_heads=2, d_model=32)
    train(GPT(shape), TextData(*text), TrainConfig(**{**config, **settings}), folder, progress=False)
    return examine(folder)


@pytest.fixture(scope="module")
def healthy(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    run(text, folder)
    return folder


def test_a_healthy_run_has_nothing_to_look_at(healthy, capsys):
    health = examine(healthy)
    assert health.findings == [], health
    assert {layer.name for layer in health.layers} >= {"blocks.0.attn.qkv.weight", "token_embedding.weight"}
    assert all(1e-5 < layer.update_ratio < 0.1 and layer.gradient > 0 for layer in health.layers)
    assert main(["check", str(healthy)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("healthy")


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"lr": 1e-7}, "nothing was learned"),
        ({"warmup_steps": 500}, "never reached its peak"),
        ({"lr": 3.0, "grad_clip": 0.0}, "thrown about|jumped up|nothing was learned"),
        ({"grad_clip": 1e-3}, "of the gradients is"),
    ],
)
def test_a_sick_run_is_told_what_it_has(text, tmp_path, settings, finding, capsys):
    health = run(text, tmp_path, **settings)
    assert any(part in str(health) for part in finding.split("|")), health
    assert main(["check", str(tmp_path)]) == 1
    assert "to look at:" in capsys.readouterr().out


def test_muons_last_update_is_what_the_weights_moved_by(text, tmp_path):
    settings = {"optimizer": "muon", "schedule": "constant", "weight_decay": 0.0, "save_every": 1}
    health = {steps: run(text, tmp_path / str(steps), max_steps=steps, **settings) for steps in (59, 60)}
    before, after = (load_file(tmp_path / str(steps) / "last" / "model.safetensors") for steps in (59, 60))
    layers = {layer.name: layer for layer in health[60].layers}
    moved = {name for name in layers if name.startswith("blocks.")}
    assert {"blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"} <= moved
    for name in moved:  # the singular values are 0.7 to 1.2
        ratio = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(after[name])
        assert layers[name].update_ratio == pytest.approx(ratio, rel=0.3), name
        assert layers[name].gradient > 0
    assert "thrown about" not in str(health[60])


@pytest.mark.parametrize(("name", "value", "says"), [("loss", 0.001, "nothing left to learn"), ("lr", 0.0, "nearly 0")])
def test_layers_that_have_no_reason_to_move_are_not_judged(healthy, tmp_path, name, value, says):
    def late(lines):
        for line in lines:
            if line["step"] > 60 and name in line:
                line[name] = value

    assert not [f for f in changed(healthy, tmp_path, rows=late) if "hardly moves" in f]
    assert says in examine(tmp_path).facts["layers"]


def test_small_batches_that_differ_are_no_jump(healthy, tmp_path):
    draw = np.random.default_rng(0)

    def noisy(lines):  # by a tenth: one loss in a hundred is a quarter above the rest
        for line in lines:
            if "loss" in line:
                line["loss"] *= 1 + 0.12 * draw.standard_normal()

    def and_one_jump(lines):
        noisy(lines)
        next(line for line in lines if line["step"] == 100 and "loss" in line)["loss"] *= 3

    assert not [finding for finding in changed(healthy, tmp_path, rows=noisy) if "jumped up" in finding]
    found = changed(healthy, tmp_path, rows=and_one_jump)
    assert any("jumped up 1 times, first at step 100" in finding for finding in found)


def changed(healthy, folder, weights=None, optimizer=None, rows=None):
    shutil.copytree(healthy, folder, dirs_exist_ok=True)
    for file, change in (("model", weights), ("optimizer", optimizer)):
        if change is not None:
            path = folder / "last" / f"{file}.safetensors"
            arrays = {name: array.copy() for name, array in load_file(path).items()}
            change(arrays)
            save_file(arrays, path)
            state = json.loads((folder / "last" / "state.json").read_text())
            state["crc32"][path.name] = checksum(path)
            (folder / "last" / "state.json").write_text(json.dumps(state))
    if rows is not None:
        path = folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        rows(lines)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return examine(folder).findings


def test_each_kind_of_sickness(healthy, tmp_path):
    def dead(arrays):
        arrays["blocks.1.mlp.fc.weight.exp_avg_sq"][:5] = 0

    def unused(arrays):
        arrays["blocks.1.mlp.fc.weight.exp_avg_sq"][:] = 0

    def vanishing(arrays):
        arrays["blocks.0.attn.qkv.weight.exp_avg_sq"] *= 1e-12
        arrays["blocks.0.attn.qkv.weight.exp_avg"] *= 1e-6

    def spike(lines):
        next(line for line in lines if line.get("step") == 60 and "loss" in line)["loss"] *= 2

    def overfits(lines):
        [line for line in lines if "val_loss" in line][-1]["val_loss"] *= 2

    for number, (options, finding) in enumerate(
        [
            ({"optimizer": dead}, "blocks.1.mlp.fc.weight: 5 of 128 units never were active"),
            ({"optimizer": unused}, "blocks.1.mlp.fc.weight never had a gradient"),
            ({"optimizer": vanishing}, "fold between"),
            ({"rows": spike}, "the loss jumped up 1 times, first at step 60"),
            ({"rows": overfits}, "it overfits: the validation loss was best"),
            ({"rows": list.clear}, "has no training steps"),
        ]
    ):
        found = changed(healthy, tmp_path / str(number), **options)
        assert any(finding in one for one in found), found


def test_what_is_no_run_is_said(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="there is no run in"):
        examine(tmp_path)
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "there is no run in" in capsys.readouterr().err
