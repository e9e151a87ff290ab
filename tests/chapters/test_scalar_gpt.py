"""Chapter 07's GPT on single numbers is the library's, and runs without it."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from minillm.workshop import scalar_gpt
from minillm.workshop.deliverables import ARCHITECTURES, architecture

from minillm.models.gpt import GPT, GPTConfig
from minillm.optim import AdamW


def test_gradients_and_losses_are_the_librarys():
    """Two layers: the same losses for three steps of AdamW, and before the first the same gradient of every weight."""
    config = GPTConfig(vocab_size=7, context=5, n_layers=2, n_heads=2, d_model=4)
    model = GPT(config, rng=np.random.default_rng(0)).to(np.float64)
    for p in model.parameters():
        p.data += np.random.default_rng(1).standard_normal(p.shape) / 3
    weights = {name: scalar_gpt.as_values(array.tolist()) for name, array in model.state_dict().items()}
    values = scalar_gpt.all_values(list(weights.values()))
    moments = [[0.0, 0.0] for _ in values]
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for step in (1, 2, 3):
        ids = np.random.default_rng(step).integers(0, 7, 6)
        ours = scalar_gpt.cross_entropy(scalar_gpt.gpt(ids[:-1].tolist(), weights, 2, 2), ids[1:].tolist())
        theirs = model(ids[None, :-1], targets=ids[None, 1:])
        assert ours.data == pytest.approx(theirs.item(), abs=1e-12)
        ours.backward()
        optimizer.zero_grad()
        theirs.backward()
        if step == 1:
            expected = np.concatenate([p.grad.reshape(-1) for p in model.parameters()])
            assert np.allclose([v.grad for v in values], expected, rtol=0, atol=1e-12)
        scalar_gpt.adamw(values, moments, step, lr=1e-2, weight_decay=0.1)
        optimizer.step()


def test_it_has_the_librarys_names_and_runs_alone(tmp_path):
    weights = scalar_gpt.new_weights(7, 5, 2, 4, random.Random(0))
    model = GPT(GPTConfig(vocab_size=7, context=5, n_layers=2, n_heads=2, d_model=4))
    shapes = {name: np.shape([v.data for v in scalar_gpt.all_values(w)]) for name, w in weights.items()}
    assert shapes == {name: (array.size,) for name, array in model.state_dict().items()}

    folder = Path(scalar_gpt.__file__).parent
    program = "import scalar_gpt; scalar_gpt.main(steps=2)"  # with no site-packages: nothing but Python
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.strip().splitlines()[-1]) > 40


@pytest.mark.parametrize("scale", ARCHITECTURES)
def test_the_chosen_architecture_is_a_tied_llama_with_fewer_key_heads(scale):
    config = architecture(scale, vocab_size=500)
    assert config.tie_embeddings and config.n_kv_heads < config.n_heads and config.vocab_size == 500
