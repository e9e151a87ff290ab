"""Attention beyond what every op is checked for: who may look at whom, and what a query sees that may look at
nothing."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import twins

from minillm import ops
from minillm.numpy_ops.attention import BLOCK
from minillm.tensor import Tensor

B, H, D = 2, 4, 3


def random_qkv(t_q: int, t_k: int, kv_heads: int = H, dtype=np.float64, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(B, H, t_q, D), (B, kv_heads, t_k, D), (B, kv_heads, t_k, D)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def attend(q, k, v, **options) -> np.ndarray:
    return ops.attention(Tensor(q), Tensor(k), Tensor(v), **options).data


def attend_with_gradients(q, k, v, grad=None, **options) -> tuple[np.ndarray, list[np.ndarray]]:
    tensors = [Tensor(a, requires_grad=True) for a in (q, k, v)]
    out = ops.attention(*tensors, **options)
    out.backward(np.random.default_rng(9).standard_normal(out.shape).astype(out.dtype) if grad is None else grad)
    return out.data, [t.grad for t in tensors]


@pytest.mark.parametrize(("t_q", "t_k"), [(4, 4), (3, 5), (5, 3), (1, 6), (6, 1), (1, 1), (2, 2), (2, 4)])
def test_causal_is_aligned_bottom_right(t_q, t_k):
    """Query i sees key j exactly if j ≤ i + Tk − Tq: change one key and value, and see which outputs move."""
    q, k, v = random_qkv(t_q, t_k)
    before = attend(q, k, v, causal=True)
    for j in range(t_k):
        k2, v2 = k.copy(), v.copy()
        k2[:, :, j] += 1.0
        v2[:, :, j] -= 1.0
        moved = (attend(q, k2, v2, causal=True) != before).any(axis=(0, 1, 3))  # (Tq,)
        np.testing.assert_array_equal(moved, [j <= i + t_k - t_q for i in range(t_q)])


def test_causal_decoding_step_by_step_equals_the_whole():
    """What a KV cache relies on: the last query against all keys is the last row of the whole."""
    q, k, v = random_qkv(6, 6)
    whole = attend(q, k, v, causal=True)
    for t in range(6):
        step = attend(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], causal=True)
        np.testing.assert_allclose(step, whole[:, :, t : t + 1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_query_that_may_look_at_nothing_gives_zeros_and_no_gradient(dtype):
    q, k, v = random_qkv(4, 5, dtype=dtype)
    mask = np.ones((B, 1, 4, 5), dtype=bool)
    mask[0, 0, 2] = False
    mask[1] = False  # a whole sequence of padding
    out, (dq, dk, dv) = attend_with_gradients(q, k, v, mask=mask)
    assert not out[0, :, 2].any() and not out[1].any()
    assert not dq[0, :, 2].any() and not dq[1].any() and not dk[1].any() and not dv[1].any()
    assert out[0, :, 1].all() and dq[0, :, 1].all() and dk[0].all()
    for array in (out, dq, dk, dv):
        assert np.isfinite(array).all()


def test_causal_with_more_queries_than_keys_leaves_the_first_without_any():
    out, (dq, dk, dv) = attend_with_gradients(*random_qkv(5, 2), causal=True)
    assert not out[:, :, :3].any() and not dq[:, :, :3].any()
    assert out[:, :, 3:].all() and np.isfinite(dk).all() and np.isfinite(dv).all()
    # a query that sees one key takes its value whole
    np.testing.assert_allclose(out[:, :, 3], random_qkv(5, 2)[2][:, :, 0], rtol=1e-14)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_mask_of_each_broadcastable_shape(kv_heads):
    """All 16 ways in which axes may have length 1, and leading axes left out: the same as the mask spelled out in
    full."""
    q, k, v = random_qkv(3, 5, kv_heads)
    full = (B, H, 3, 5)
    rng = np.random.default_rng(1)
    for kept in itertools.product([True, False], repeat=4):
        mask = rng.random([n if keep else 1 for n, keep in zip(full, kept)]) < 0.6
        expected, expected_grads = attend_with_gradients(q, k, v, mask=np.broadcast_to(mask, full).copy())
        shorter = mask
        while True:
            found, grads = attend_with_gradients(q, k, v, mask=shorter)
            np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)
            for g, e in zip(grads, expected_grads):
                np.testing.assert_allclose(g, e, rtol=1e-13, atol=1e-14)
            if shorter.ndim == 1 or shorter.shape[0] != 1:
                break
            shorter = shorter[0]


def test_true_means_may_look():
    q, k, v = random_qkv(2, 3)
    only_the_second = np.array([False, True, False])
    np.testing.assert_allclose(
        attend(q, k, v, mask=only_the_second), np.broadcast_to(v[:, :, 1:2], q.shape), rtol=1e-14
    )


def test_mask_and_causal_both_count():
    q, k, v = random_qkv(4, 4)
    mask = np.random.default_rng(2).random((B, 1, 1, 4)) < 0.5
    both = mask & np.tri(4, dtype=bool)
    np.testing.assert_array_equal(attend(q, k, v, mask=mask, causal=True), attend(q, k, v, mask=both))


def test_grouped_query_attention_shares_keys_and_values_in_order():
    """Query head h uses key/value head h // (H / Hkv): as if each were repeated, with the gradients of the copies
    summed."""
    q, k, v = random_qkv(3, 4, kv_heads=2)
    out, (dq, dk, dv) = attend_with_gradients(q, k, v, causal=True)
    repeated, (dq2, dk2, dv2) = attend_with_gradients(q, k.repeat(2, axis=1), v.repeat(2, axis=1), causal=True)
    np.testing.assert_allclose(out, repeated, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dq, dq2, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dk, dk2.reshape(B, 2, 2, 4, D).sum(axis=2), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dv, dv2.reshape(B, 2, 2, 4, D).sum(axis=2), rtol=1e-12, atol=1e-14)


def test_the_default_scale_is_one_over_the_root_of_d():
    q, k, v = random_qkv(3, 4)
    np.testing.assert_array_equal(attend(q, k, v), attend(q, k, v, scale=1 / math.sqrt(D)))
    with_zero = attend(q, k, v, scale=0.0)  # every key alike: the mean of the values
    np.testing.assert_allclose(with_zero, np.broadcast_to(v.mean(axis=2, keepdims=True), q.shape), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_do_not_overflow(dtype):
    q, k, v = random_qkv(3, 4, dtype=dtype)
    out, grads = attend_with_gradients(q * dtype(1e4), k * dtype(1e4), v, causal=True)
    assert np.isfinite(out).all() and all(np.isfinite(g).all() for g in grads)


def test_what_was_saved_is_not_what_the_caller_holds():
    """The scores are turned into probabilities in place: that must not reach q, k, v or the mask."""
    q, k, v = random_qkv(3, 4)
    mask = np.random.default_rng(3).random((B, H, 3, 4)) < 0.5
    copies = [a.copy() for a in (q, k, v, mask)]
    attend_with_gradients(q, k, v, mask=mask, causal=True)
    for array, copy in zip((q, k, v, mask), copies):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("causal", "window"), [(False, None), (True, None), (True, 1), (True, BLOCK), (True, BLOCK + 1), (True, 200)]
)
@pytest.mark.parametrize(
    ("t_q", "t_k"), [(127, 127), (128, 128), (129, 129), (257, 257), (130, 300), (300, 130), (1, 300)]
)
def test_at_the_borders_of_the_blocks(t_q, t_k, causal, window):
    """Queries are taken 64 at a time: with and without a mask, the same as the twin, which takes all at once."""
    q, k, v = random_qkv(t_q, t_k, kv_heads=2)
    rng = np.random.default_rng(5)
    for mask in (None, rng.random((t_q, t_k)) < 0.3, rng.random((B, 1, 1, t_k)) < 0.3, rng.random((H, t_q, 1)) < 0.5):
        out, grads = attend_with_gradients(q, k, v, causal=causal, mask=mask, window=window)
        tensors = [Tensor(a, requires_grad=True) for a in (q, k, v)]
        expected = twins.attention(*tensors, causal=causal, mask=mask, window=window)
        expected.backward(np.random.default_rng(9).standard_normal(out.shape))
        np.testing.assert_allclose(out, expected.data, rtol=1e-12, atol=1e-13)
        for g, tensor in zip(grads, tensors):
            np.testing.assert_allclose(g, tensor.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("t_q", "t_k"), [(300, 300), (300, 320), (300, 130)])
def test_causal_attention_computes_no_keys_that_a_block_may_not_look_at(t_q, t_k):
    """About half of the scores: each block of queries ends at the last key that its last query sees."""
    q, k, v = (Tensor(a, requires_grad=True) for a in random_qkv(t_q, t_k))
    *_, blocks, _, _, _ = ops.attention(q, k, v, causal=True).node.saved
    last = [min(start + BLOCK, t_q) - 1 for start in range(0, t_q, BLOCK)]
    assert [p.shape[-1] for texts, *_, p, _ in blocks if texts.start == 0] == [max(i + t_k - t_q + 1, 0) for i in last]


@pytest.mark.parametrize("window", [None, 300])
def test_what_may_be_seen_is_never_held_for_all_pairs(window):
    """Of 2,048 queries and keys, a block's at most: one number for each pair would be 16 MB."""
    q, k, v = (Tensor(np.ones((1, 1, 2048, 8), np.float32)) for _ in range(3))
    tracemalloc.start()
    ops.attention(q, k, v, causal=True, window=window)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK * 2048 * 4


# --- several texts in a row -----------------------------------------------------------------------------------------


def rows_of_texts(*rows) -> np.ndarray:
    """Segments (B, T) of texts of these lengths; the first text of a row has the number of its third, as it may."""
    return np.stack([np.repeat([7, 0, 7, 3, 5][: len(row)], row) for row in rows])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_texts_in_a_row_are_as_each_alone(kv_heads, causal):
    """Some longer than a block of queries, some that end where one ends, one of a single token."""
    lengths = ([128, 1, 140, 31], [100, 28, 172])
    q, k, v = random_qkv(300, 300, kv_heads)
    grad = np.random.default_rng(9).standard_normal(q.shape)
    out, grads = attend_with_gradients(q, k, v, grad, causal=causal, segments=rows_of_texts(*lengths))
    for b, row in enumerate(lengths):
        for end, length in zip(np.cumsum(row), row):
            text = np.s_[b : b + 1, :, end - length : end]
            alone, alone_grads = attend_with_gradients(q[text], k[text], v[text], grad[text], causal=causal)
            np.testing.assert_array_equal(out[text], alone)
            for g, a in zip(grads, alone_grads):
                np.testing.assert_array_equal(g[text], a)


@pytest.mark.parametrize("causal", [False, True])
def test_no_scores_are_computed_between_texts(causal):
    q, k, v = (Tensor(a, requires_grad=True) for a in random_qkv(10, 10))
    segments = rows_of_texts([4, 1, 5], [10])
    *_, blocks, _, _, _ = ops.attention(q, k, v, causal=causal, segments=segments).node.saved
    assert [p.shape[-2:] for *_, p, _ in blocks] == [(4, 4), (1, 1), (5, 5), (10, 10)]
    assert [len(p) for *_, p, _ in blocks] == [1, 1, 1, 1]


def test_dropout_within_texts():
    """As above, with the identity as values: kept or dropped within a text, nothing between texts."""
    q, k, _ = random_qkv(6, 6)
    identity = np.broadcast_to(np.eye(6), (B, H, 6, 6)).copy()
    options = {"segments": rows_of_texts([2, 4], [3, 3])}
    p = attend(q, k, identity, **options)
    dropped = attend(q, k, identity, dropout_p=0.4, rng=np.random.default_rng(7), **options)
    assert (dropped[p == 0] == 0).all() and (p == 0).sum() == H * (16 + 18)
    kept = dropped[p > 0] / p[p > 0]
    np.testing.assert_allclose(kept[kept > 0], 1 / 0.6, rtol=1e-12)
    assert 0.2 < np.mean(kept == 0) < 0.6


# --- dropout on the probabilities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_attention_dropout_against_the_twin(kv_heads):
    """With the identity as values, the output is the probabilities after dropout; divided by those before it, that is
    the mask
    that this seed draws. The twin, given the mask, must have the same value and gradients."""
    q, k, v = random_qkv(4, 5, kv_heads)
    p = 0.4
    identity = np.broadcast_to(np.eye(5), (B, kv_heads, 5, 5)).copy()
    dropped = attend(q, k, identity, dropout_p=p, rng=np.random.default_rng(7))
    kept = dropped / attend(q, k, identity)  # (B, H, Tq, Tk): 0 or 1/(1 − p)
    np.testing.assert_allclose(kept[kept > 0], 1 / (1 - p), rtol=1e-12)
    assert 0.2 < np.mean(kept == 0) < 0.6

    out, grads = attend_with_gradients(q, k, v, dropout_p=p, rng=np.random.default_rng(7))
    tensors = [Tensor(a, requires_grad=True) for a in (q, k, v)]
    expected = twins.attention(*tensors, kept=np.where(kept > 0, 1 / (1 - p), 0.0))
    expected.backward(np.random.default_rng(9).standard_normal(out.shape))
    np.testing.assert_allclose(out, expected.data, rtol=1e-12, atol=1e-14)
    for g, tensor in zip(grads, tensors):
        np.testing.assert_allclose(g, tensor.grad, rtol=1e-11, atol=1e-13)


def test_attention_dropout_needs_a_generator():
    q, k, v = (Tensor(a) for a in random_qkv(2, 2))
    with pytest.raises(ValueError, match="rng="):
        ops.attention(q, k, v, dropout_p=0.5)


# --- errors ---------------------------------------------------------------------------------------------------------


def zeros(*shape) -> Tensor:
    return Tensor(np.zeros(shape))


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        (((2, 3, 4), (2, 1, 3, 4), (2, 1, 3, 4)), ["(2, 3, 4)", "4 axes"]),
        (((2, 4, 3, 8), (1, 4, 3, 8), (1, 4, 3, 8)), ["(2, 4, 3, 8)", "(1, 4, 3, 8)"]),
        (((2, 4, 3, 8), (2, 4, 3, 6), (2, 4, 3, 8)), ["(2, 4, 3, 6)"]),
        (((2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 6, 8)), ["(2, 4, 5, 8)", "(2, 4, 6, 8)"]),
        (((2, 4, 3, 8), (2, 3, 3, 8), (2, 3, 3, 8)), ["4 query heads", "3 key/value heads"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, names):
    with pytest.raises(ValueError, match=r"^attention: ") as error:
        ops.attention(*(zeros(*shape) for shape in shapes))
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize("shape", [(2, 4, 3, 6), (2, 2, 3, 5), (3, 1, 1, 5), (2, 5), (1, 2, 4, 3, 5)])
def test_a_mask_that_does_not_broadcast_is_named(shape):
    q, k = zeros(2, 4, 3, 8), zeros(2, 4, 5, 8)
    with pytest.raises(ValueError, match="attention: mask") as error:
        ops.attention(q, k, k, mask=np.ones(shape, dtype=bool))
    assert str(shape) in str(error.value) and "(2, 4, 3, 5)" in str(error.value)


def test_a_mask_of_numbers_is_refused():
    """A mask to be added (0 and −∞) would be read upside down as booleans."""
    q = zeros(1, 1, 2, 4)
    with pytest.raises(TypeError, match="float64"):
        ops.attention(q, q, q, mask=np.zeros((2, 2)))


def test_segments_that_do_not_fit_are_refused():
    q, k = zeros(2, 4, 3, 8), zeros(2, 4, 5, 8)
    segments = np.zeros((2, 3), dtype=np.int64)
    for keys, given in ((k, segments), (q, segments[:1]), (q, segments[:, :2]), (q, segments[0])):
        with pytest.raises(ValueError, match=r"^attention: segments .* must be \(B, T\) = \(2, 3\)"):
            ops.attention(q, keys, keys, segments=given)
    with pytest.raises(ValueError, match="segments and mask must not both be given"):
        ops.attention(q, q, q, segments=segments, mask=np.ones((3, 3), dtype=bool))
    for dtype in (np.float64, bool, np.uint8):
        with pytest.raises(TypeError, match=f"segments must be int64 or int32, not {np.dtype(dtype)}"):
            ops.attention(q, q, q, segments=segments.astype(dtype))


def test_an_unknown_implementation_is_named():
    q = zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="'flash'"):
        ops.attention(q, q, q, impl="flash")
    for impl in ("sdpa", "triton"):
        with pytest.raises(ValueError, match=impl):
            ops.attention(q, q, q, impl=impl)


def test_rope_keeps_lengths_and_sees_only_distances():
    rng = np.random.default_rng(4)
    angle = np.arange(8)[:, None] * rng.random(3)
    q, k = rng.standard_normal((2, 1, 1, 1, 6)).repeat(8, axis=3)
    q, k = (
        ops.rope(Tensor(x), np.cos(angle), np.sin(angle)).data[0, 0] for x in (q, k)
    )  # (T, D), one vector at 8 positions
    np.testing.assert_allclose((q * q).sum(-1), (q[0] * q[0]).sum(), rtol=1e-13)
    scores = q @ k.T
    for distance in range(-7, 8):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-11)


def test_rope_errors():
    x = zeros(1, 1, 4, 6)
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 5\)"):
        ops.rope(zeros(1, 1, 4, 5), np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(5, 3\)"):
        ops.rope(x, np.zeros((5, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"not \(4, 3\) and \(4, 2\)"):
        ops.rope(x, np.zeros((4, 3)), np.zeros((4, 2)))
    for shape in ((2, 1, 4, 3), (1, 2, 4, 3), (1, 4, 3)):  # tables of other rows, for each head, without the heads
        with pytest.raises(ValueError, match=r"\(B, 1, T, D/2\)"):
            ops.rope(x, np.zeros(shape), np.zeros(shape))


# --- large scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0.01, 1.0, 5.0, 8.0, 30.0, 1e4])
def test_scores_of_any_size(size, dtype):
    """Small ones go into e^s as they are, from large ones the largest is subtracted: the softmax is the same."""
    q, k, v = (a.astype(dtype) for a in random_qkv(130, 130))
    q, k = q * dtype(size), k * dtype(size)
    out = ops.attention(*map(Tensor, (q, k, v)), causal=True).data
    scores = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2)) / math.sqrt(q.shape[-1])
    scores[..., np.triu(np.ones((130, 130), bool), 1)] = -np.inf
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = p / p.sum(axis=-1, keepdims=True) @ v.astype(np.float64)
    error = 2e-5 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(out, expected, rtol=0, atol=error * max(1.0, np.abs(scores[scores > -np.inf]).max()))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_one_key_takes_all_no_gradient_is_left(dtype, dropout_p):
    """Its weight is 1 whatever a little more or less of q or k; the rounding of two large numbers' difference, times
    large keys, was taken for a gradient."""
    q, k, v = (Tensor(a.astype(dtype) * dtype(1e4), requires_grad=True) for a in random_qkv(70, 70))
    rng = np.random.default_rng(0)
    out = ops.attention(q, k, v, causal=True, dropout_p=dropout_p, rng=rng)
    out.backward(rng.standard_normal(out.shape).astype(dtype))
    assert np.abs(v.grad).max() > 0.5
    assert max(np.abs(x.grad).max() for x in (q, k)) < 1e-12


def test_a_mask_of_one_for_all_keys_under_a_window():
    """Mask (1, 1, 1, 1), more keys than the window sees: the mask's one column stands for each of them."""
    q, k, v = random_qkv(1, 3)
    for allowed in (True, False):
        out = attend(q, k, v, causal=True, window=1, mask=np.full((1, 1, 1, 1), allowed))
        expected = np.repeat(v[:, :, 2:], H // v.shape[1], axis=1) if allowed else np.zeros_like(out)
        np.testing.assert_allclose(out, expected, rtol=1e-12)
