"""Weights of 8 bits: the numbers of the rounded matrices, on both engines, and no matrix of floats left."""

import numpy as np
import pytest

from minillm.finetune.lora import LoraConfig, add_lora
from minillm.generate import Sampling, generate, next_logits
from minillm.models import GPT, GPTConfig, Llama, LlamaConfig, int8
from minillm.models.decoding import plan_for
from minillm.models.int8 import Int8Matrix, int8_product, quantize_int8

SHAPE = {"vocab_size": 61, "context": 24, "n_layers": 2, "n_heads": 2, "d_model": 32}
KINDS = {
    "gpt": lambda: GPT(GPTConfig(**SHAPE), np.random.default_rng(0)),
    "llama": lambda: Llama(LlamaConfig(**SHAPE, d_ff=64, n_kv_heads=1), np.random.default_rng(0)),
    "llama, tied": lambda: Llama(LlamaConfig(**SHAPE, d_ff=40, tie_embeddings=True), np.random.default_rng(0)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, dtype=np.float64):
    model = KINDS[kind]().to(dtype)
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.ndim == 2 else 1
    return model.eval()


def rounded(kind):
    """The model with every matrix but the position table rounded as int8 rounds it, in floats."""
    model = make(kind)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name != "position_embedding.weight":
            scale = np.abs(parameter.data).max(axis=1, keepdims=True) / 127
            parameter.data = np.rint(parameter.data / scale) * scale
    return model


@each_kind
def test_it_writes_what_the_rounded_matrices_write(kind):
    model, expected = quantize_int8(make(kind)), rounded(kind)
    options = {"max_new_tokens": 30, "sampling": Sampling(temperature=0.9), "seed": 1}
    prompts = [[1, 2, 3], [4], [5] * 30]
    assert plan_for(model) is not None
    assert generate(model, prompts, **options) == generate(expected, prompts, **options)
    assert generate(model, prompts, **options, plain=True) == generate(expected, prompts, **options)
    ids = np.arange(20)[None]
    np.testing.assert_allclose(next_logits(model, ids, None), next_logits(expected, ids, None), atol=1e-10)


@each_kind
def test_torch_gives_the_same_up_to_bfloat16(kind):
    pytest.importorskip("torch")
    from minillm.port import to_torch

    model, ids = quantize_int8(make(kind, np.float32)), np.arange(20)[None]
    ported = to_torch(model)
    for part in (ids, np.repeat(ids, 4, axis=0)):  # few rows and many
        ours, theirs = next_logits(model, part, None), next_logits(ported, part, None)
        np.testing.assert_allclose(theirs, ours, atol=0.03 * np.abs(ours).max())
    assert len(generate(ported, [[1, 2], [3]], max_new_tokens=5, seed=0)[1]) == 5


def test_cores_and_blocks_change_nothing_and_a_row_of_zeros_stays_zero(monkeypatch):
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((2100, 512)), rng.standard_normal((3, 512))
    weight[7] = 0
    product = int8_product(Int8Matrix(weight, None))
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    expected = x @ (np.rint(weight / np.where(scale > 0, scale, 1)) * scale).T
    for cores in (1, 2, 3):
        monkeypatch.setattr(int8, "blas_threads", lambda cores=cores: cores)
        np.testing.assert_allclose(product(x), expected, atol=1e-10)
        np.testing.assert_allclose(product(x[:1]), expected[:1], atol=1e-10)
        assert not product(x)[:, 7].any()


def test_a_quarter_of_the_memory():
    model = GPT(GPTConfig(vocab_size=2000, context=16, n_layers=2, n_heads=2, d_model=256))
    before = sum(p.data.nbytes for p in model.parameters())
    quantize_int8(model)
    arrays = [v for _, m in model.named_modules() for v in vars(m).values() if isinstance(v, np.ndarray)]
    assert sum(p.data.nbytes for p in model.parameters()) + sum(a.nbytes for a in arrays) < 0.27 * before


def test_what_cannot_be_rounded_is_refused_unchanged():
    adapted = make("gpt")
    add_lora(adapted, LoraConfig(), np.random.default_rng(0))
    for model in (adapted, quantize_int8(make("gpt")), object()):
        with pytest.raises(ValueError, match="only a GPT or a Llama on NumPy"):
            quantize_int8(model)
