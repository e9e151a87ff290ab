"""A run of a preset is held against what healthy runs of it had; a run of another size against nothing."""

from dataclasses import replace

import numpy as np
import pytest

from minillm.data import pack, stdlib_documents
from minillm.disk import read_json
from minillm.models import GPT, GPTConfig
from minillm.settings import TrainConfig
from minillm.tokenizers import BPETokenizer
from minillm.training import bands as bands_module
from minillm.training.bands import BANDS, band, compare_with_bands, differences, size_of
from minillm.training.health import examine
from minillm.training.pretrain import preset_names, read_config
from minillm.training.run_log import read_metrics
from minillm.training.text import TextData
from minillm.training.train import train

DEBUG = read_config("debug")
RECIPE = TrainConfig(**DEBUG["train"])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    documents = list(stdlib_documents(max_bytes=400_000))
    tokenizer = BPETokenizer.train((document.text for document in documents[2:]), 512)
    return [
        pack(part, tokenizer, folder / f"{name}.bin")
        for name, part in (("train", documents[2:]), ("val", documents[:2]))
    ]


def health_of(text, folder, shape=(), **settings):
    config = replace(RECIPE, **settings)
    model = GPT(
        GPTConfig(vocab_size=text[0].vocab_size, **{**DEBUG["model"], **dict(shape)}),
        np.random.default_rng(config.seed),
    )
    train(model, TextData(*text), config, folder, progress=False)
    return examine(folder)


@pytest.mark.parametrize("seed", [101, 102])
def test_a_healthy_run_of_a_preset_is_within_its_band(text, tmp_path, seed):
    health = health_of(text, tmp_path, seed=seed)
    assert health.findings == [], health
    assert health.facts["band"].startswith("within that of 18 healthy runs of preset debug at step 50, on Python")


@pytest.mark.parametrize(("factor", "said"), [(30, "the share of a weight that an update"), (1 / 100, "the loss at")])
def test_a_learning_rate_far_off_is_outside(text, tmp_path, factor, said):
    lr = RECIPE.lr * factor
    health = health_of(text, tmp_path, lr=lr)
    assert health.facts["band"].startswith("outside that of 18 healthy runs of preset debug at step 50"), health
    low, high = read_json(BANDS)["debug"]["at"]["50"]["loss"]
    log_v = np.log(512)
    found = [finding for finding in health.findings if said in finding]
    assert len(found) == 1 and f"Other than there: lr {lr!r} (there 0.001)." in found[0], health
    if said == "the loss at":
        losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row][30:50]
        assert found[0].startswith(
            f"the loss at step 50 is {np.mean(losses):.2f}; 18 healthy runs of preset debug had {low * log_v:.2f} to "
            f"{high * log_v:.2f}. Other"
        )


@pytest.mark.long
@pytest.mark.parametrize(("factor", "outside"), [(1, False), (30, True), (1 / 100, True)])
def test_the_laptops_band_tells_a_healthy_run_from_a_sick_one(text, tmp_path, factor, outside):
    sections = read_config("laptop")
    recipe = TrainConfig(**{**sections["train"], "max_steps": 110, "seed": 103, "lr": factor * sections["train"]["lr"]})
    model = GPT(GPTConfig(vocab_size=text[0].vocab_size, **sections["model"]), np.random.default_rng(103))
    train(model, TextData(*text), recipe, tmp_path, progress=False)
    health = examine(tmp_path)
    verdict = "outside" if outside else "within"
    assert health.facts["band"].startswith(f"{verdict} that of 9 healthy runs of preset laptop at step 100"), health


def test_a_run_of_another_size_has_no_band(text, tmp_path):
    health = health_of(text, tmp_path, {"d_model": 64, "n_layers": 3})
    assert health.facts["band"] == (
        "none of this size: nearest is preset debug, with n_layers = 2 (here 3), d_model = 32 (here 64)"
    )


@pytest.mark.parametrize(
    ("preset", "changes", "step", "said"),
    [
        ("gpt2-124m", {}, 900, "none: preset gpt2-124m takes a GPU, and no healthy runs of it have been measured"),
        ("debug", {"vocab_size": 97}, 50, "none: preset debug was measured with vocabularies of 512 to 8,192"),
        ("debug", {}, 24, "none before step 25, from where on preset debug was measured"),
        ("debug", {"dropout": 0.1}, 50, "none of this size: nearest is preset debug, with dropout = 0.0 (here 0.1)"),
        ("debug", {"step_tokens": 64}, 50,
         "none of this size: nearest is preset debug, with step_tokens = 128 (here 64)"),
        ("debug", {"model_type": "lstm"}, 50, "none: there is no preset of a 'lstm' model"),
        ("debug", {"attention": "sdpa"}, 24, "none before step 25, from where on preset debug was measured"),
    ],
)  # fmt: skip
def test_what_there_is_no_band_for_is_said(preset, changes, step, said):
    size = {**size_of(preset), "vocab_size": 1000, **changes}
    settings = {**vars(TrainConfig()), **read_config(preset)["train"]}
    assert compare_with_bands(size, settings, [], step, []) == (said, [])


def test_a_run_that_began_from_trained_weights_has_no_band():
    size = {**size_of("debug"), "vocab_size": 1000}
    settings = {**vars(TrainConfig()), **read_config("debug")["train"]}
    for loss, said in [(3.0, "none: with a first loss of 3.00 it began from trained weights"), (6.9, "within that of")]:
        found, findings = compare_with_bands(size, settings, [{"step": 1, "loss": loss}], 50, [])
        assert found.startswith(said) and findings == []


def test_of_two_presets_of_one_size_it_is_the_one_with_these_settings(monkeypatch):
    twin = read_config("laptop")
    twin["train"] |= {"lr": 9e-3, "optimizer": "sgd"}
    presets = {"quickstart": twin}  # as if it differed from the other in how it trains only
    monkeypatch.setattr(bands_module, "read_config", lambda name: presets.get(name) or read_config(name))
    assert not differences(size_of("laptop"), size_of("quickstart"))
    for preset in ("laptop", "quickstart"):
        settings = {**vars(TrainConfig()), **(presets.get(preset) or read_config(preset))["train"]}
        said, _ = compare_with_bands({**size_of(preset), "vocab_size": 2048}, settings, [], 300, [])
        assert f"preset {preset} at step 300" in said


def test_each_preset_is_measured_or_said_to_take_a_gpu():
    bands = read_json(BANDS)
    for preset in preset_names():
        assert (preset in bands) == (read_config(preset).get("engine", {}).get("name") != "torch")
    for preset, measured in bands.items():
        assert measured["runs"] >= 5, "several seeds"
        for at in measured["at"].values():
            assert all(0 <= low < high for low, high in at.values()) and at["loss"][1] < 1, f"{preset} learns"


def test_a_band_has_a_margin_of_three_deviations_of_seeds_and_one_of_texts():
    assert band([[1.0, 3.0]]) == pytest.approx((0.0, 3 + 3 * 2**0.5))  # a seed's variance is 2; nothing is below 0
    assert band([[11.0, 13.0], [11.0, 13.0]]) == pytest.approx((11 - 3 * 2**0.5, 13 + 3 * 2**0.5))
    assert band([[10.0], [14.0]]) == pytest.approx((10 - 8**0.5, 14 + 8**0.5))  # the variance of the texts is 8
