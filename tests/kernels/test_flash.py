"""Flash attention against float64, by flash-attention's own rule: at most twice the error of torch in that dtype."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from attention_reference import check, draw, run  # noqa: E402
from minillm.kernels import flash_attention  # noqa: E402

IMPLS = ["simple", "fast"]
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


# name: (dtype, sizes, options). Odd lengths, odd head sizes, Tq != Tk and grouped heads are spread over the cases.
CASES = {
    "full": (F16, dict(tq=97, size=64), {}),
    "full-bf16-odd-head": (BF16, dict(tq=97, size=40), {}),
    "full-tq-below-tk": (F16, dict(tq=33, tk=130, size=16), {}),
    "causal": (F16, dict(tq=200, size=64, heads=1), dict(causal=True)),
    "causal-bf16": (BF16, dict(tq=97, size=32), dict(causal=True)),
    "causal-f32-head-80": (F32, dict(tq=70, size=80), dict(causal=True)),
    "causal-tq-below-tk": (F16, dict(tq=50, tk=131, size=32), dict(causal=True)),
    "causal-tq-above-tk": (F16, dict(tq=131, tk=50, size=32), dict(causal=True)),  # 81 rows see nothing
    "causal-head-96": (BF16, dict(tq=65, size=96), dict(causal=True)),
    "causal-head-128": (F16, dict(tq=129, size=128, heads=1), dict(causal=True)),
    "causal-head-256": (F16, dict(tq=65, size=256, heads=1), dict(causal=True)),
    "grouped": (F16, dict(tq=65, heads=6, kv_heads=2, size=16), dict(causal=True)),
    "multi-query-bf16": (BF16, dict(tq=40, tk=70, heads=4, kv_heads=1, size=16), {}),
    "scale": (F32, dict(tq=33, size=16), dict(scale=0.5)),
    "window": (F16, dict(tq=200, size=32, heads=1), dict(causal=True, window=40)),
    "window-of-one": (F32, dict(tq=40, size=16), dict(causal=True, window=1)),
    "window-both-sides": (BF16, dict(tq=150, size=32, heads=1), dict(window=33)),
    "window-tq-below-tk": (F16, dict(tq=65, tk=200, size=32, heads=1), dict(causal=True, window=70)),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_against_float64(device, impl, name):
    dtype, sizes, options = CASES[name]
    check(impl, draw(device, dtype, **sizes), **options)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("causal", [False, True])
def test_key_padding_left_right_and_total(device, impl, causal):
    tensors = draw(device, F16, batch=3, tq=70, size=32, heads=2, kv_heads=1)
    padding = torch.ones(3, 70, dtype=torch.bool, device=device)
    padding[0, 50:] = False  # right padding
    padding[1, :40] = False  # left padding: with causal, the first 40 queries see nothing
    padding[2] = False  # nothing at all
    out, dq, dk, dv = check(impl, tensors, key_padding_mask=padding, causal=causal)
    for gradient in (out[2], dq[2], dk[2], dv[2], dk[0, :, 50:], dv[1, :, :40]):
        assert (gradient == 0).all(), "what is fully masked must give exactly zero"


@pytest.mark.parametrize("impl", IMPLS)
def test_dense_mask_with_broadcast_heads(device, impl):
    tensors = draw(device, F16, batch=2, tq=40, tk=70, size=32, heads=2)
    mask = torch.rand(2, 1, 40, 70, generator=torch.Generator().manual_seed(2)).to(device) > 0.5
    mask[0, 0, 3] = False
    check(impl, tensors, mask=mask, key_padding_mask=torch.arange(70, device=device).expand(2, 70) < 61)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 20}], ids=str)
def test_packed_sequences(device, impl, options):
    cu_seqlens = torch.tensor([0, 37, 38, 38, 100], dtype=torch.int32, device=device)  # lengths 37, 1, 0, 62
    tensors = draw(device, F16, tq=100, size=32, heads=2, kv_heads=1)
    check(impl, tensors, cu_seqlens=cu_seqlens, **options)
    out = flash_attention(*tensors, cu_seqlens=cu_seqlens, impl=impl, **options)
    again = flash_attention(*tensors, cu_seqlens=cu_seqlens, max_seqlen=62, impl=impl, **options)
    assert torch.equal(out, again)


@pytest.mark.parametrize("impl", IMPLS)
def test_packed_sequences_filled_up_to_as_many_as_tokens(device, impl, monkeypatch):
    """The same numbers, and no program is launched for what fills."""
    from minillm.kernels import attention

    launched = []
    for name, (forward, backward) in attention.IMPLEMENTATIONS.items():
        watched = [
            lambda *args, f=f: (launched.append(args[-1].sequences(args[0])), f(*args))[1] for f in (forward, backward)
        ]
        monkeypatch.setitem(attention.IMPLEMENTATIONS, name, tuple(watched))
    cu_seqlens = torch.tensor([0, 7, 8, 8, 30], dtype=torch.int32, device=device)
    filled = torch.cat([cu_seqlens, cu_seqlens.new_full((26,), 30)])
    tensors = draw(device, F16, tq=30, size=16, heads=2, kv_heads=1)
    do = torch.randn(tensors[0].shape, device=device)
    results = [run(flash_attention, tensors, do, impl=impl, causal=True, cu_seqlens=cu) for cu in (cu_seqlens, filled)]
    for plain, same in zip(*results):
        assert torch.equal(plain, same)
    assert launched == [4, 4, 4, 4]


@pytest.mark.parametrize("impl", IMPLS)
def test_packed_sequences_of_other_lengths_for_keys(device, impl):
    pair = (
        torch.tensor([0, 30, 70], dtype=torch.int32, device=device),
        torch.tensor([0, 80, 97], dtype=torch.int32, device=device),  # 40 queries on 17 keys: 23 see nothing
    )
    check(impl, draw(device, BF16, tq=70, tk=97, size=16), cu_seqlens=pair, causal=True)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
def test_dropout_replays_one_mask(device, impl, options):
    from attention_reference import dropout_mask_of

    p, seed = 0.3, 2**40 + 7
    tensors = draw(device, F16, batch=2, tq=40, tk=70, size=16, heads=2, kv_heads=1)
    mask = dropout_mask_of(seed, p, (2, 2, 40, 70), device)
    assert abs(mask.float().mean().item() - (1 - p)) < 0.02  # 11,200 draws: 0.0043 is one standard deviation
    ours = check(impl, tensors, dropout_mask=mask, dropout_p=p, seed=seed, **options)
    for other_seed in (seed + 1, seed + 2**32):  # both halves of the seed count
        assert not torch.equal(ours[0], flash_attention(*tensors, dropout_p=p, seed=other_seed, impl=impl, **options))


# Few queries, as against a cache, go to flash_decode: name: (dtype, sizes, options).
DECODE_CASES = {
    "long-cache": (F16, dict(tq=1, tk=250, size=32, heads=2), {}),
    "grouped": (BF16, dict(batch=2, tq=1, tk=100, size=64, heads=4, kv_heads=2), dict(causal=True)),
    "more-than-16-heads-a-group": (F16, dict(tq=1, tk=40, size=16, heads=17, kv_heads=1), dict(causal=True)),
    "short-cache-head-40": (F32, dict(tq=1, tk=3, size=40, heads=2), {}),
    "first-token": (F16, dict(tq=1, tk=1, size=16), {}),
    "window": (F16, dict(tq=1, tk=250, size=16), dict(causal=True, window=77)),
    "guessed-tokens": (F16, dict(batch=2, tq=5, tk=150, size=32, heads=6, kv_heads=2), dict(causal=True, window=99)),
    "as-many-rows-as-it-takes": (BF16, dict(tq=16, tk=70, size=32, heads=4, kv_heads=1), dict(causal=True)),
    "more-queries-than-keys": (F32, dict(tq=9, tk=4, size=16), dict(causal=True)),
    "window-both-sides": (F16, dict(tq=7, tk=60, size=16), dict(window=4)),
}


@pytest.mark.parametrize("name", DECODE_CASES)
def test_decoding_against_float64(device, name):
    dtype, sizes, options = DECODE_CASES[name]
    check("fast", draw(device, dtype, **sizes), **options)


def test_decoding_with_padding(device):
    tensors = draw(device, F16, batch=3, tq=1, tk=200, size=32, heads=2, kv_heads=1)
    padding = torch.ones(3, 200, dtype=torch.bool, device=device)
    padding[0, :150] = False  # whole parts of the cache are padding
    padding[1] = False
    out, dq, dk, dv = check("fast", tensors, key_padding_mask=padding, causal=True)
    assert all((t[1] == 0).all() for t in (out, dq, dk, dv))


@pytest.mark.parametrize("impl", IMPLS)
def test_output_gradient_expanded_and_transposed(device, impl):
    tensors = draw(device, F16, tq=50, size=32)
    expanded = torch.ones((), device=device, dtype=F16).expand(1, 2, 50, 32)  # what y.sum().backward() sends
    transposed = torch.randn(1, 2, 32, 50, device=device, dtype=F16).transpose(2, 3)
    for do in (expanded, transposed):
        check(impl, tensors, do=do, causal=True)


@pytest.mark.parametrize("impl", IMPLS)
def test_inputs_of_any_strides(device, impl):
    qkv = torch.randn(2, 50, 3 * 64, generator=torch.Generator().manual_seed(0)).to(device, F16)
    views = [t.view(2, 50, 2, 32).transpose(1, 2).requires_grad_() for t in qkv.split(64, dim=-1)]  # not copied
    features_apart = [
        torch.randn(2, 2, 32, 50, device=device).to(F16).transpose(2, 3).requires_grad_() for _ in range(3)
    ]
    shared_key = torch.randn(1, 1, 50, 32, device=device).to(F16)
    expanded = [views[0], shared_key.expand(2, 2, 50, 32).requires_grad_(), views[2]]
    for tensors in (views, features_apart, expanded):
        check(impl, tensors, causal=True)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradcheck_in_float64(device, impl):
    if device == "cuda":
        pytest.skip("float64 kernels run in the interpreter only")
    tensors = draw(device, F64, tq=6, tk=9, size=4, heads=2, kv_heads=1)
    options = dict(causal=True, window=6, dropout_p=0.2, seed=3, impl=impl)
    assert torch.autograd.gradcheck(
        lambda q, k, v: flash_attention(q, k, v, **options), tensors, fast_mode=True, nondet_tol=1e-12
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_runs_are_deterministic(device, impl):
    tensors = draw(device, BF16, tq=97, size=32)
    do = torch.randn_like(tensors[0])
    first, second = (run(flash_attention, tensors, do, causal=True, impl=impl) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_lengths(device, impl):
    q, k, v = draw(device, F16, tq=5, tk=5, size=16)
    assert (flash_attention(q, k[:, :, :0], v[:, :, :0], impl=impl) == 0).all()
    assert flash_attention(q[:, :, :0], k, v, impl=impl).shape == (1, 2, 0, 16)


# ------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", [16, 40, 64, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_on_the_gpu_every_head_size(device, dtype, size, causal, impl):
    check(impl, draw(device, dtype, batch=2, heads=4, kv_heads=2, tq=1025, tk=777, size=size), causal=causal)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 1000}], ids=str)
@pytest.mark.parametrize("tokens", [4096, 16384])
def test_on_the_gpu_long_sequences(device, tokens, options):
    check("fast", draw(device, BF16, batch=1, heads=1, tq=tokens, size=64), **options)


@pytest.mark.gpu
def test_on_the_gpu_dropout_at_real_length(device):
    from attention_reference import dropout_mask_of

    mask = dropout_mask_of(11, 0.2, (1, 2, 2048, 2048), device)
    for impl in IMPLS:
        tensors = draw(device, F16, tq=2048, size=64)
        check(impl, tensors, dropout_mask=mask, dropout_p=0.2, seed=11, causal=True)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"window": 500}], ids=str)
def test_on_the_gpu_decoding_a_long_cache(device, options):
    check("fast", draw(device, BF16, batch=2, heads=8, kv_heads=2, tq=1, tk=16384, size=128), causal=True, **options)


@pytest.mark.gpu
def test_on_the_gpu_past_two_to_the_31_elements(device):
    """The last row of a batch of 2.2e9 elements, whose offsets do not fit 32 bits, equals the same row by itself."""
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip(f"needs 40 GB of free GPU memory, there are {torch.cuda.mem_get_info()[0] / 1e9:.0f}")
    q = torch.randn(17, 131072, 16, 64, device=device, dtype=F16).transpose(1, 2)
    out = flash_attention(q, q, q, causal=True, window=256)
    alone = flash_attention(*[q[-1:].clone()] * 3, causal=True, window=256)
    assert torch.equal(out[-1:], alone)


@pytest.mark.gpu
def test_on_the_gpu_memory_grows_with_length_not_its_square(device):
    q, k, v = draw(device, BF16, batch=1, heads=8, tq=16384, size=64)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    flash_attention(q, k, v, causal=True).sum().backward()
    used = torch.cuda.max_memory_allocated() - before
    assert used < 12 * q.numel() * q.element_size(), f"{used / 1e6:.0f} MB; the table of scores alone takes 4.3 GB"


@pytest.mark.gpu
def test_on_the_gpu_compiled_and_autocast(device):
    def layer(q, k, v):
        with torch.autocast("cuda", dtype=BF16):
            return flash_attention(q * 1.0, k, v, causal=True).float().square().mean()

    tensors = draw(device, F32, tq=500, size=64)
    compiled = torch.compile(layer, fullgraph=True)
    expected, got = (torch.autograd.grad(f(*tensors), tensors) for f in (layer, compiled))
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b)
