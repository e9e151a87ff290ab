"""Packed rows: each text has the loss and the gradients that it has alone, on both engines, in every attention."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # our kernels on the CPU; read when triton is first imported

from minillm.interpret import look_inside  # noqa: E402
from minillm.models import GemmaConfig, GPTConfig, LlamaConfig, LSTMConfig, MoeConfig, model_from_config  # noqa: E402
from minillm.models.segments import packed_positions  # noqa: E402
from minillm.port import to_torch  # noqa: E402

SHAPE = {"vocab_size": 23, "context": 12, "n_layers": 2, "d_model": 8, "n_heads": 4}
LLAMA = {**SHAPE, "d_ff": 12}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 6}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}
CONFIGS = {
    "gpt": GPTConfig(**SHAPE),
    "llama": LlamaConfig(**LLAMA, n_kv_heads=2),
    "llama tied, yarn": LlamaConfig(**LLAMA, tie_embeddings=True, rope_scaling=YARN),
    "ministral": LlamaConfig(**LLAMA, window=3, full_layers=(0,), mlp_bias=True),
    "gemma": GemmaConfig(**LLAMA, n_kv_heads=2, head_dim=6, window=4, full_layers=(1,)),
    "gpt-oss": MoeConfig(
        **LLAMA, window=3, full_layers=(1,), attention_sinks=True, n_experts=3, swiglu_limit=1.0, balance=0.0
    ),
    "qwen2": LlamaConfig(**LLAMA, n_kv_heads=1, qkv_bias=True),
    "qwen3": LlamaConfig(**LLAMA, n_kv_heads=2, head_dim=6, qk_norm=True, tie_embeddings=True),
}
every_model = pytest.mark.parametrize("name", CONFIGS)


@st.composite
def rows_of_lengths(draw, longest=12):
    """1 to 3 rows, each the lengths of its texts, together at most `longest`."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row = [draw(st.integers(1, longest))]
        while sum(row) < longest and len(row) < 4 and draw(st.booleans()):
            row.append(draw(st.integers(1, longest - sum(row))))
        rows.append(row)
    return rows


def random_model(name, **changes):
    """A NumPy model with larger weights than the initial ones, so that every term counts."""
    rng = np.random.default_rng(0)
    model = model_from_config(replace(CONFIGS[name], **changes), rng).to(np.float64)
    for p in model.parameters():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return model


def random_batch(rows, vocab_size=23):
    """ids, targets and segments (B, T) of texts of these lengths; behind them are the number −1 and no targets."""
    rng = np.random.default_rng(1)
    shape = (len(rows), max(map(sum, rows)))
    ids, targets = rng.integers(0, vocab_size, (2, *shape))
    segments = np.full(shape, -1)
    for row, lengths in zip(segments, rows):
        row[: sum(lengths)] = np.repeat([4, 0, 4, 2][: len(lengths)], lengths)
    targets[segments == -1] = -100
    return ids, targets, segments


def texts(rows):
    """Where each text stands: a row of the batch, a stretch of it."""
    return [np.s_[b : b + 1, end - n : end] for b, row in enumerate(rows) for n, end in zip(row, np.cumsum(row))]


def gradients(model):
    found = {}
    for name, p in model.named_parameters():
        found[name] = np.asarray(p.grad)
        p.grad = None
    return found


def check_packing(alone, packed, rows, to_engine=np.asarray):
    """The summed losses of all texts and every gradient: texts one by one in `alone`, side by side in `packed`."""
    ids, targets, segments = random_batch(rows)
    total = 0.0
    for text in texts(rows):
        loss = alone(ids[text], targets[text], reduction="sum")
        loss.backward()
        total += loss.item()
    expected = gradients(alone)
    loss = packed(to_engine(ids), to_engine(targets), segments=to_engine(segments), reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-12, abs=1e-12)
    found = gradients(packed)
    assert list(found) == list(expected)
    for name, grad in found.items():
        np.testing.assert_allclose(
            grad, expected[name], rtol=1e-12, atol=1e-12 * max(1, np.abs(grad).max()), err_msg=name
        )


@every_model
@settings(max_examples=15)
@given(rows=rows_of_lengths())
def test_on_numpy(name, rows):
    model = random_model(name)
    check_packing(model, model, rows)


@every_model
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@settings(max_examples=5)
@given(rows=rows_of_lengths())
def test_on_torch(name, impl, rows):
    check_packing(random_model(name), to_torch(random_model(name, attention=impl)), rows, torch.tensor)


@pytest.mark.parametrize("name", ["gpt", "qwen3"])
@settings(max_examples=2)
@given(rows=rows_of_lengths(longest=6))
def test_in_our_kernels(name, rows):
    """The interpreter computes float64, so that the tolerance is the same."""
    pytest.importorskip("triton")
    from minillm.kernels.call import interpreted

    if not interpreted() or torch.cuda.is_available():
        pytest.skip("needs Triton's interpreter; on a GPU tests/kernels compares the kernels")
    model = to_torch(random_model(name, attention="triton", n_layers=1))
    check_packing(random_model(name, n_layers=1), model, rows, torch.tensor)


@pytest.mark.parametrize(("name", "impl"), [("gpt", "sdpa"), ("qwen3", "reference"), ("llama", "triton")])
def test_compiles_as_one_graph(name, impl):
    if impl == "triton":
        pytest.importorskip("triton")
        from minillm.kernels.call import interpreted

        if not interpreted() or torch.cuda.is_available():
            pytest.skip("needs Triton's interpreter")
    model = to_torch(random_model(name, attention=impl, n_layers=1))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for rows in ([[3, 5, 2], [1, 9]], [[10], [4, 6]]):  # the second with other segments, in the graph of the first
        ids, targets, segments = map(torch.tensor, random_batch(rows))
        assert compiled(ids, targets, segments=segments).item() == model(ids, targets, segments=segments).item()


@settings(max_examples=50)
@given(rows=rows_of_lengths(), dtype=st.sampled_from([np.int64, np.int32]))
def test_positions_begin_anew_with_each_text(rows, dtype):
    model = random_model("gpt")
    ids, _, segments = random_batch(rows)
    segments = segments.astype(dtype)
    for tensor in (np.asarray, torch.tensor):
        found = packed_positions(model, tensor(ids), tensor(segments), None)
        assert str(found.dtype).endswith("int64")
        found = np.asarray(found)
        for text in texts(rows):
            np.testing.assert_array_equal(found[text], np.arange(found[text].shape[1])[None])
        for row, padded in zip(found, (segments == -1).sum(axis=1)):
            np.testing.assert_array_equal(row[len(row) - padded :], np.arange(padded))


def test_one_text_a_row_is_as_without_segments():
    model = random_model("llama")
    ids, targets, _ = random_batch([[9], [9]])
    assert model(ids, targets, segments=np.zeros_like(ids)).item() == model(ids, targets).item()


def test_no_text_looks_at_another():
    ids, _, segments = random_batch([[3, 4, 2], [9]])
    for name in ("gpt", "qwen3"):
        seen = look_inside(random_model(name), ids, segments=segments).attention  # (layers, B, H, T, T)
        assert (seen[:, 0, :, 3:7, 3:7][..., np.tri(4, dtype=bool)] > 0).all()
        assert not seen[:, 0, :, :3, 3:].any() and not seen[:, 0, :, 3:7, :3].any() and not seen[:, 0, :, 7:, :7].any()


@pytest.mark.parametrize("tensor", [np.asarray, torch.tensor])
def test_what_is_refused(tensor):
    engine = to_torch if tensor is torch.tensor else lambda model: model
    ids = np.zeros((2, 6), dtype=np.int64)
    for name in ("gpt", "llama"):
        model = engine(random_model(name))
        kind = type(model).__name__
        with pytest.raises(ValueError, match=rf"^{kind}: segments \(2, 5\) must be as ids, \(2, 6\)\."):
            model(tensor(ids), segments=tensor(ids[:, :5]))
        with pytest.raises(ValueError, match=rf"^{kind}: segments and a cache do not go together"):
            model(tensor(ids), segments=tensor(ids), cache=model.new_cache())
        with pytest.raises(ValueError, match="13 tokens in ids are more than the context of 12"):
            model(tensor(np.zeros((1, 13), int)), segments=tensor(np.zeros((1, 13), int)))
        with pytest.raises(TypeError, match="segments must be int64 or int32"):
            model(tensor(ids), segments=tensor(ids.astype(bool)))
    lstm = engine(model_from_config(LSTMConfig(vocab_size=23, context=12, n_layers=1, d_model=4)))
    with pytest.raises(ValueError, match=r"^LSTM: segments .*the state runs on"):
        lstm(tensor(ids), segments=tensor(ids))


def test_dynamic_angles_up_to_the_length_at_which_they_change():
    """Beyond it a text's angles depend on its length, which a row of several has not."""
    model = random_model("llama", head_dim=4, rope_scaling=DYNAMIC)
    check_packing(model, model, [[3, 5], [8]])
    ids, targets, segments = random_batch([[3, 6]])
    with pytest.raises(ValueError, match=r"rows of 9 tokens .* Pack rows of at most 8 tokens\."):
        model(ids, targets, segments=segments)
