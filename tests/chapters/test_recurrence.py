"""What chapter 05 compares is comparable, and what it leaves to chapter 07 is what it says."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import recurrence

from minillm.models.gpt import GPTConfig


@pytest.mark.parametrize("scale, vocabulary", [("cpu", 2000), ("gpu", 8000)])
def test_the_language_models_have_equally_many_weights(scale, vocabulary):
    recipe = recurrence.LANGUAGE_MODELS[scale]
    sizes = [
        recurrence.count_weights(recurrence.language_model(kind, vocabulary, recipe, 0)) for kind in recurrence.RATES
    ]
    assert max(sizes) < 1.05 * min(sizes), sizes


def test_bits_per_byte_of_a_model_that_guesses():
    """All tokens equally likely: log₂ V for each token, times the tokens in a byte; what does not fill a window too."""
    model = recurrence.language_model("LSTM", 16, {"context": 8, "lstm": 4}, 0)
    for parameter in model.parameters():
        parameter.data[:] = 0
    ids = np.arange(100) % 16
    assert recurrence.bits_per_byte(model, ids, n_bytes=50, context=8) == pytest.approx(4 * 100 / 50)


def test_training_lowers_the_loss_and_is_the_same_every_time():
    recipe = {"steps": 30, "batch": 4, "context": 8, "lstm": 16, "gpt": 16}
    ids = np.arange(500) % 16
    for kind in recurrence.RATES:
        runs = [
            recurrence.train_language_model(recurrence.language_model(kind, 16, recipe, 1), ids, recipe, 0.01, 1)
            for _ in range(2)
        ]
        assert runs[0] == runs[1] and runs[0][-1] < 0.95 * runs[0][0]


def test_a_small_gpt_starts_with_matrices_for_its_width():
    model = recurrence.small_gpt(10, context=4, seed=0, d_model=64)
    assert isinstance(model.config, GPTConfig)
    assert model.blocks[0].attn.qkv.weight.data.std() == pytest.approx(1 / 8, rel=0.05)
