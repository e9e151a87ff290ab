"""The kernels as PyTorch operators: opcheck, torch.compile without a graph break, autocast, and errors that teach."""

import math
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from attention_reference import reference_attention  # noqa: E402
from minillm.kernels import flash_attention, flash_unavailable_reason  # noqa: E402


def draw(device, dtype=torch.float32, batch=2, heads=2, kv_heads=1, tokens=20, size=16):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, tokens, heads, size)] + [(batch, tokens, kv_heads, size)] * 2
    return [
        torch.randn(*shape, generator=generator).to(device, dtype).transpose(1, 2).requires_grad_() for shape in shapes
    ]


def test_opcheck(device):
    from minillm.kernels.attention import flash_forward

    q, k, v = draw(device)
    padding = (torch.arange(20, device=device) < 15).expand(2, 2, 20, 20)
    seed = torch.tensor([5], device=device)
    sinks = torch.zeros(2, device=device, requires_grad=True)
    options = (0.25, 7, 0, 0.1, 9.0, 0, 0, "fast", True)  # scale, left, right, dropout, softcap, max_q, max_k
    torch.library.opcheck(flash_forward, (q, k, v, padding, None, None, seed, sinks, None, None, *options))
    options = (0.25, 2**30, 0, 0.0, 0.0, 0, 0, "simple", True)
    torch.library.opcheck(flash_forward, (q, k, v, *[None] * 7, *options))


@pytest.mark.parametrize(
    ("setting", "exact"),
    [
        ("pass", True),
        ("torch.set_float32_matmul_precision('high')", False),
        ("torch.backends.cuda.matmul.allow_tf32 = True", False),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", False),
        ("torch.backends.cuda.matmul.fp32_precision = 'ieee'", True),
    ],
)
def test_every_way_to_ask_for_tf32_is_understood(setting, exact):
    """In a process each: torch refuses to mix its two ways."""
    if "fp32_precision" in setting and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip(f"torch {torch.__version__} has no fp32_precision")
    program = f"import torch\n{setting}\nfrom minillm.kernels.call import float32_is_exact\nprint(float32_is_exact())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str(exact), done.stderr


@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
def test_compiles_as_one_graph(device, dropout_p):
    def layer(q, k, v):
        x = flash_attention(q * 2, k, v, causal=True, window=9, dropout_p=dropout_p)
        return x.transpose(1, 2).flatten(2).square().mean()  # a view: the output lies as (B, T, H, D)

    tensors = draw(device)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    expected = torch.autograd.grad(layer(*tensors), tensors)
    torch.manual_seed(1)
    got = torch.autograd.grad(compiled(*tensors), tensors)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b)


def test_output_merges_heads_without_a_copy(device):
    out = flash_attention(*draw(device))
    assert out.transpose(1, 2).is_contiguous()


def test_autocast_runs_attention_in_low_precision(device):
    q, k, v = draw(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = flash_attention(q, k.half(), v, causal=True)  # a norm hands float32 on, a projection bfloat16
    assert out.dtype == torch.bfloat16
    gradient = torch.autograd.grad(out.float().sum(), q)[0]
    assert gradient.dtype == torch.float32


def test_dropout_draws_from_torchs_generator(device):
    q, k, v = draw(device)
    torch.manual_seed(3)
    first, second = (flash_attention(q, k, v, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(first, flash_attention(q, k, v, dropout_p=0.5)) and not torch.equal(first, second)


@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
@pytest.mark.parametrize("how", ["layers", "selective"])
def test_what_is_kept_of_attention_is_not_computed_again(device, how, dropout_p):
    """As engine.recompute says it; with dropout it is, since what is drawn after it must be drawn again, too."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from minillm.engines.torch_blocks import recompute_blocks

    calls = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(getattr(func, "_opname", ""))
            return func(*args, **(kwargs or {}))

    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            out = flash_attention(q * 2, k, v, causal=True, dropout_p=dropout_p)
            return torch.nn.functional.dropout(out, 0.2).exp()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Layer()])

        def forward(self, *inputs):
            return self.layers[0](*inputs)

    found = []
    for recompute in (how, None):
        model, inputs = Model(), draw(device)
        if recompute:
            recompute_blocks(model, recompute)
        torch.manual_seed(3)
        calls.clear()
        with Counting():
            model(*inputs).sum().backward()
        found.append(([tensor.grad for tensor in inputs], calls.count("flash_forward")))
    (grads, computed), (plain, once) = found
    assert once == 1 and computed == (1 if how == "selective" and not dropout_p else 2)
    for grad, other in zip(grads, plain):
        assert torch.equal(grad, other)


def test_activation_checkpointing_replays_dropout(device):
    from torch.utils.checkpoint import checkpoint

    def layer(q, k, v):
        return flash_attention(q, k, v, dropout_p=0.3, causal=True)

    tensors = draw(device)
    gradients = []
    for run in (layer, lambda *t: checkpoint(layer, *t, use_reentrant=False)):
        torch.manual_seed(4)
        gradients.append(torch.autograd.grad(run(*tensors).square().sum(), tensors))
    for a, b in zip(*gradients):
        assert torch.equal(a, b)


def bad_calls(q, k, v):
    half = torch.ones(2, 10, dtype=torch.bool, device=q.device)
    cu = torch.tensor([0, 5, 20], dtype=torch.int32, device=q.device)
    one = [t[:1] for t in (q, k, v)]
    return {
        "must be (batch, heads, tokens, features)": lambda: flash_attention(q[0], k, v),
        "k and v must have one shape": lambda: flash_attention(q, k[:, :, :5], v),
        "multiple of the key heads": lambda: flash_attention(q, k.repeat(1, 3, 1, 1), v.repeat(1, 3, 1, 1)),
        "scale is 0": lambda: flash_attention(q, k, v, scale=0),
        "dropout_p is 1": lambda: flash_attention(q, k, v, dropout_p=1.0),
        "window is 0": lambda: flash_attention(q, k, v, window=0),
        "window is 2.5; it counts the keys": lambda: flash_attention(q, k, v, window=2.5),
        "window is True": lambda: flash_attention(q, k, v, window=True),
        "scale is inf": lambda: flash_attention(q, k, v, scale=float("inf")),
        "softcap is 0": lambda: flash_attention(q, k, v, softcap=0.0),
        "no features": lambda: flash_attention(q[..., :0], k[..., :0], v[..., :0]),
        "seed is 9223372036854775808": lambda: flash_attention(q, k, v, dropout_p=0.5, seed=2**63),
        "seed is 2.5": lambda: flash_attention(q, k, v, dropout_p=0.5, seed=2.5),
        "one int64, not torch.float32 (2,)": lambda: flash_attention(q, k, v, dropout_p=0.5, seed=torch.ones(2)),
        "sinks (3,), torch.float32": lambda: flash_attention(q, k, v, sinks=torch.zeros(3, device=q.device)),
        "mask (3, 20, 20) must be (B, H, Tq, Tk)": lambda: flash_attention(q, k, v, mask=half.new_ones(3, 20, 20)),
        "not torch.float32 (use mask.bool())": lambda: flash_attention(
            q, k, v, mask=half.new_ones(20, 20), key_padding_mask=half.new_ones(2, 20).float()
        ),
        "impl is 'quick'": lambda: flash_attention(q, k, v, impl="quick"),
        "must be (B, Tk)": lambda: flash_attention(q, k, v, key_padding_mask=half),
        "a mask must be bool": lambda: flash_attention(q, k, v, mask=torch.zeros(20, 20, device=q.device)),
        "packed in a batch of 1": lambda: flash_attention(q, k, v, cu_seqlens=cu),
        "do not go together": lambda: flash_attention(*one, cu_seqlens=cu, key_padding_mask=half),
        "65536 sequences": lambda: flash_attention(*[t[:1].expand(65_536, -1, -1, -1) for t in (q, k, v)]),
        "65537 sequences": lambda: flash_attention(*one, cu_seqlens=torch.arange(65_538, device=q.device)),
        "give cu_seqlens too": lambda: flash_attention(q, k, v, max_seqlen=20),
        "max_seqlen is 2.5": lambda: flash_attention(*one, cu_seqlens=cu, max_seqlen=2.5),
        "cu_seqlens must be int32 or int64": lambda: flash_attention(*one, cu_seqlens=cu.float()),
        "cu_seqlens must be (n+1,)": lambda: flash_attention(*one, cu_seqlens=cu[:0]),
        "with key_lengths, cu_seqlens is one": lambda: flash_attention(*one, cu_seqlens=(cu, cu), key_lengths=cu[1:]),
        "key_lengths (3,) must be (B,)": lambda: flash_attention(q, k, v, key_lengths=cu),
        "key_lengths and masks": lambda: flash_attention(q, k, v, key_lengths=cu[1:], mask=half.new_ones(20, 20)),
        "key_lengths [5, 21] must be 0 to 20": lambda: flash_attention(
            q, k, v, key_lengths=cu[1:] + cu.new_tensor([0, 1])
        ),
        "a row for each of 2": lambda: flash_attention(q[:1], k[:1], v[:1], cu_seqlens=cu, key_lengths=cu[1:]),
        "flash_attention: k (4": lambda: flash_attention(
            q[:1], k.repeat(2, 1, 1, 1), v.repeat(2, 1, 1, 1), cu_seqlens=cu, key_lengths=cu[1:]
        ),
        "q their batch and head size, not q (2, 2, 20, 16), k (4": lambda: flash_attention(
            q, k.repeat(2, 1, 1, 1), v.repeat(2, 1, 1, 1), key_lengths=cu[1:]
        ),
        "give key_lengths": lambda: flash_attention(q, k, v, block_table=cu[None]),
        "block_table (1, 3) must be (B, pages)": lambda: flash_attention(
            q, k, v, block_table=cu[None], key_lengths=cu[1:]
        ),
        "block_table [0, 2] must hold page numbers, 0 to 1": lambda: flash_attention(
            q, k, v, block_table=cu.new_tensor([[0], [2]]), key_lengths=cu[1:]
        ),
        "as a pair": lambda: flash_attention(one[0], one[1][:, :, :9], one[2][:, :, :9], cu_seqlens=cu),
    }


@pytest.mark.parametrize("impl", ["simple", "fast"])
def test_packed_queries_read_a_cache_of_a_row_for_each(device, impl):
    """That lies in no pages: what each sequence gives with its row alone."""
    q, k, v = draw(device)
    cu, lengths = torch.tensor([0, 3, 20], device=device), torch.tensor([7, 20], device=device)
    out = flash_attention(q[:1], k, v, cu_seqlens=cu, key_lengths=lengths, causal=True, impl=impl)
    for row, (own, n) in enumerate([(slice(0, 3), 7), (slice(3, 20), 20)]):
        keys, values = k[row : row + 1, :, :n], v[row : row + 1, :, :n]
        alone = flash_attention(q[:1, :, own], keys, values, causal=True, impl=impl)
        torch.testing.assert_close(out[:, :, own], alone, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("message", bad_calls(*[torch.zeros(2, 2, 20, 16)] * 3))
def test_contradictions_raise_value_errors(device, message):
    with pytest.raises(ValueError) as caught:
        bad_calls(*draw(device))[message]()
    assert message in str(caught.value) and str(caught.value).startswith("flash_attention: ")


@pytest.mark.parametrize("impl", ["simple", "fast"])
@pytest.mark.parametrize("offsets", [[1, 8], [0, 5, 3, 8], [0, 9], [-1, 8], [0, 2**32, 8]], ids=str)
def test_offsets_that_would_leave_the_tensors(device, offsets, impl):
    """On the CPU refused with their values; and cut to what exists where nobody looks, in either direction."""
    if device == "cuda":
        pytest.skip("on a GPU the device stops by an assertion, and the process has to end")
    tensors = draw(device, batch=1, tokens=8)
    cu_seqlens = torch.tensor(offsets)
    with pytest.raises(ValueError, match="must begin at 0, never fall, and end at most at 8") as caught:
        flash_attention(*tensors, cu_seqlens=cu_seqlens, impl=impl)
    assert ", ".join(map(str, offsets)) in str(caught.value)
    with pytest.raises(ValueError, match=r"cu_seqlens of the keys .* must begin at 0"):
        flash_attention(*tensors, cu_seqlens=(torch.tensor([0, *[8] * (len(offsets) - 1)]), cu_seqlens), impl=impl)
    out = flash_attention(*tensors, cu_seqlens=cu_seqlens, check_values=False, impl=impl)
    assert out.isfinite().all() and all(t.isfinite().all() for t in torch.autograd.grad(out.sum(), tensors))


def test_a_longest_sequence_below_the_truth_is_refused(device):
    if device == "cuda":
        pytest.skip("on a GPU the device stops by an assertion, and the process has to end")
    tensors = draw(device, batch=1)
    with pytest.raises(ValueError, match=r"\[0, 5, 20\] has a longer sequence than max_seqlen = 14"):
        flash_attention(*tensors, cu_seqlens=torch.tensor([0, 5, 20]), max_seqlen=14)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when torch.func is first used
def test_derivatives_that_there_are_not_are_refused_by_name(device):
    import torch.autograd.forward_ad as forward_ad

    q, k, v = draw(device)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="flash_attention has no forward-mode"):
        flash_attention(forward_ad.make_dual(q.detach(), q.detach()), k, v)
    for transform in (torch.func.grad, torch.func.vjp, torch.func.jacrev):
        with pytest.raises(RuntimeError, match=r"flash_attention does not run inside torch\.func\.grad"):
            arguments = (q.detach(),)
            by_q = lambda q: flash_attention(q, k, v).sum()  # noqa: E731
            transform(by_q, *arguments) if transform is torch.func.vjp else transform(by_q)(*arguments)
    gradient = torch.autograd.grad(flash_attention(q, k, v).square().sum(), q, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="flash_attention has no second derivative"):
        gradient.sum().backward()
    cached = flash_attention(q, k, v, key_lengths=torch.tensor([3, 20], device=device))
    with pytest.raises(RuntimeError, match=r"a cache .* has no backward pass"):
        cached.sum().backward()


@pytest.mark.parametrize("impl", ["simple", "fast"])
@pytest.mark.parametrize("tokens", [1, 40])  # decoding, and the forward kernel
@pytest.mark.parametrize("score", [-1e35, -1e31, 1e31], ids=str)
def test_scores_at_the_ends_of_float32(device, impl, tokens, score):
    """The one key that is ahead takes all; such rows are not taken for rows that see nothing."""
    power = 2.0 ** round(math.log2(abs(score) / 16))  # whose sums are exact, in whatever order
    q = torch.full((1, 1, tokens, 16), power, device=device, requires_grad=True)
    k = torch.full((1, 1, 5, 16), 1.0 if score > 0 else -1.0, device=device)
    k[:, :, 3] += 0.125
    k.requires_grad_()
    v = torch.arange(5.0, device=device)[None, None, :, None].expand(1, 1, 5, 16).contiguous().requires_grad_()
    out = flash_attention(q, k, v, scale=1.0, impl=impl)
    assert (out == 3).all()
    dv = torch.autograd.grad(out.sum(), v)[0]
    assert (dv[:, :, 3] == tokens).all() and not dv[:, :, :3].any()


def test_sinks_in_the_models_attention(device):
    """impl="triton" of ops.attention, packed texts too."""
    from minillm import ops

    q, k, v = (t.detach().requires_grad_() for t in draw(device))
    sinks = torch.tensor([0.5, -2.0], device=device, requires_grad=True)
    segments = torch.tensor([[0] * 7 + [1] * 13, [0] * 20], device=device)
    for options in ({}, {"segments": segments}):
        made = []
        for impl in ("triton", "reference"):
            out = ops.attention(q, k, v, causal=True, window=6, sinks=sinks, impl=impl, **options)
            made.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v, sinks))])
        for ours, theirs in zip(*made):
            torch.testing.assert_close(ours, theirs)


def test_reasons(device):
    q, k, v = draw(device)
    assert flash_unavailable_reason(q, k, v) is None
    assert "different dtypes" in flash_unavailable_reason(q, k.half(), v)
    assert "not supported" in flash_unavailable_reason(*[t.long() for t in (q, k, v)])
    wide = torch.zeros(1, 1, 4, 257, device=device)
    assert "257 is above 256" in flash_unavailable_reason(wide, wide, wide)
    meta = q.to("meta")
    assert "meta is not supported" in flash_unavailable_reason(meta, meta, meta)
    with pytest.raises(RuntimeError, match="257 is above 256"):
        flash_attention(wide, wide, wide)


@pytest.mark.parametrize(
    ("triton_version", "numpy_version", "reason"),
    [
        ("3.3.1", "2.0.0", "triton 3.3.1 is installed and the kernels need 3.4 or later"),
        ("3.6.0", "2.4.1", "the interpreter of triton 3.6.0 does not work with NumPy 2.4.1"),
        ("3.6.0", "2.3.5", None),
        ("3.10.0+git1", "2.5.0", None),
    ],
)
def test_reasons_in_versions(device, monkeypatch, triton_version, numpy_version, reason):
    import numpy
    import triton
    from minillm.kernels import availability

    monkeypatch.setattr(triton, "__version__", triton_version)
    monkeypatch.setattr(numpy, "__version__", numpy_version)
    availability.wrong_version.cache_clear()
    try:
        found = flash_unavailable_reason(*draw(device))
    finally:
        availability.wrong_version.cache_clear()
    if device == "cuda" and reason is not None and "interpreter" in reason:
        reason = None
    assert found is None if reason is None else found.startswith(reason)


def test_reason_on_an_old_card(monkeypatch):
    from minillm.kernels import availability, call

    class OnACard:
        device, dtype, shape = torch.device("cuda", 0), torch.float16, (1, 1, 4, 16)

    monkeypatch.setattr(call, "interpreted", bool)  # bool() is False
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert "Tesla T4 has compute capability 7.5" in availability.flash_unavailable_reason(*[OnACard()] * 3)


def in_fresh_python(code, **environment):
    import os

    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_neither_torch_nor_triton():
    out = in_fresh_python(
        "import sys, minillm.kernels as k; print(dir(k)); assert not {'torch', 'triton'} & set(sys.modules)\n"
        "try: k.flash_atention\nexcept AttributeError as e: print(e)"
    )
    assert "flash_attention" in out and "no attribute 'flash_atention'" in out


def test_reason_on_a_cpu_without_the_interpreter_says_what_to_do():
    out = in_fresh_python(
        "import torch, minillm.kernels as k; t = torch.zeros(1, 1, 4, 16); print(k.flash_unavailable_reason(t, t, t))",
        CUDA_VISIBLE_DEVICES="",
    )
    assert "TRITON_INTERPRET=1" in out and "impl='sdpa'" in out


def test_reason_where_triton_is_missing():
    out = in_fresh_python(
        "import importlib.util as u, minillm.kernels as k\n"
        "found = u.find_spec\n"
        "import minillm.kernels.availability as a\n"
        "a.find_spec = lambda name: None if name == 'triton' else found(name)\n"
        "print(k.flash_unavailable_reason(None, None, None))"
    )
    assert "triton is not installed" in out


def test_rows_that_begin_at_16_bytes(device):
    """What the compiler is promised must be so: a load of 16 bytes at another address is an error on a GPU."""
    from minillm.kernels.call import rows_are_aligned

    def tokens_first(size, dtype=torch.float16, heads=3):
        return torch.zeros(2, 5, heads, size, dtype=dtype, device=device).transpose(1, 2)

    assert rows_are_aligned(tokens_first(40), tokens_first(40)) and rows_are_aligned(tokens_first(20, torch.float32))
    assert not rows_are_aligned(tokens_first(64))  # Triton sees that by itself
    assert not rows_are_aligned(tokens_first(20))  # heads begin at multiples of 40 bytes
    assert not rows_are_aligned(tokens_first(40), tokens_first(48)[..., 4:44])  # the first row begins at 8 bytes
    assert not rows_are_aligned(tokens_first(40), tokens_first(44)[..., :40])  # heads begin at multiples of 88 bytes


@pytest.mark.parametrize("size", [20, 40, 72])
@pytest.mark.parametrize("shift", [0, 4])
def test_head_sizes_between_the_tiles(device, size, shift):
    """Aligned or not, the numbers are the same."""
    wide = [torch.randn(2, 33, 2, size + 8, device=device, dtype=torch.float16) for _ in range(3)]
    q, k, v = (t[..., shift : shift + size].transpose(1, 2).requires_grad_() for t in wide)
    out = flash_attention(q, k, v, causal=True)
    exact = reference_attention(*(t.double() for t in (q, k, v)), causal=True)
    grads, right = (torch.autograd.grad(o.square().sum(), (q, k, v)) for o in (out, exact))
    for a, b in zip((out, *grads), (exact, *right)):
        torch.testing.assert_close(a.double(), b.double(), rtol=2e-2, atol=2e-2)
