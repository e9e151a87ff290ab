"""The kernels as PyTorch operators: opcheck, torch.compile without a graph break, autocast, and errors that teach."""

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
    options = (0.25, 7, 0, 0.1, 0, 0, "fast")  # scale, left, right, dropout, max_q, max_k
    torch.library.opcheck(flash_forward, (q, k, v, padding, None, None, seed, *options))
    torch.library.opcheck(flash_forward, (q, k, v, None, None, None, None, 0.25, 2**30, 0, 0.0, 0, 0, "simple"))


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
        "impl is 'quick'": lambda: flash_attention(q, k, v, impl="quick"),
        "must be (B, Tk)": lambda: flash_attention(q, k, v, key_padding_mask=half),
        "a mask must be bool": lambda: flash_attention(q, k, v, mask=torch.zeros(20, 20, device=q.device)),
        "packed in a batch of 1": lambda: flash_attention(q, k, v, cu_seqlens=cu),
        "do not go together": lambda: flash_attention(*one, cu_seqlens=cu, key_padding_mask=half),
        "65536 sequences": lambda: flash_attention(*[t[:1].expand(65_536, -1, -1, -1) for t in (q, k, v)]),
        "65537 sequences": lambda: flash_attention(*one, cu_seqlens=torch.arange(65_538, device=q.device)),
        "as a pair": lambda: flash_attention(one[0], one[1][:, :, :9], one[2][:, :, :9], cu_seqlens=cu),
    }


@pytest.mark.parametrize("message", bad_calls(*[torch.zeros(2, 2, 20, 16)] * 3))
def test_contradictions_raise_value_errors(device, message):
    with pytest.raises(ValueError) as caught:
        bad_calls(*draw(device))[message]()
    assert message in str(caught.value) and str(caught.value).startswith("flash_attention: ")


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
