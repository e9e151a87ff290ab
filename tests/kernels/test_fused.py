"""Fused linear cross-entropy and the norms against PyTorch's own, composed and in float64."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from minillm.kernels import layer_norm, linear_cross_entropy, rms_norm  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

IMPLS = ["torch", "triton"]


def draw(device, dtype, n=37, size=16, vocabulary=50):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, size, generator=generator).to(device, dtype).requires_grad_()
    weight = torch.randn(vocabulary, size, generator=generator).to(device, dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (n,), generator=generator).to(device)
    targets[::5] = -100
    return h, weight, targets


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_in_float64(device, impl, label_smoothing, reduction):
    if impl == "triton" and device == "cuda":
        pytest.skip("float64 kernels run in the interpreter only")
    h, weight, targets = draw(device, torch.float64)
    options = dict(label_smoothing=label_smoothing, reduction=reduction)
    expected = F.cross_entropy(h @ weight.T, targets, **options)
    for chunk_tokens in (None, 10, 1):
        loss = linear_cross_entropy(h, weight, targets, impl=impl, chunk_tokens=chunk_tokens, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        got = torch.autograd.grad(3 * loss, (h, weight))
        for a, b in zip(got, torch.autograd.grad(3 * expected, (h, weight), retain_graph=True)):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cross_entropy_in_low_precision(device, impl, dtype):
    """No further from float64 than twice torch's own, computed in that dtype (the loss in float32)."""
    h, weight, targets = draw(device, dtype, vocabulary=5000)  # more than one block of columns
    h64, w64 = (t.detach().double().requires_grad_() for t in (h, weight))
    exact = F.cross_entropy(h64 @ w64.T, targets)
    exact_gradients = torch.autograd.grad(exact, (h64, w64))
    lowp = F.cross_entropy((h @ weight.T).float(), targets)
    lowp_gradients = torch.autograd.grad(lowp, (h, weight))
    loss = linear_cross_entropy(h, weight, targets, impl=impl, chunk_tokens=16)
    gradients = torch.autograd.grad(loss, (h, weight))
    assert loss.dtype == torch.float32 and all(g.dtype == dtype for g in gradients)
    for a, b, c in zip((loss, *gradients), (exact, *exact_gradients), (lowp, *lowp_gradients)):
        assert (a - b).abs().max() <= 2 * (c - b).abs().max() + 1e-6


def test_cross_entropy_in_float16_of_large_features(device):
    """A chunk of tokens with one target: the sum of their features passes float16, their mean does not."""
    h = torch.full((8192, 8), 10.0, device=device, dtype=torch.float16)
    h[:, 1] = 0.003
    targets = torch.full((8192,), 5, device=device)
    weight = torch.zeros(64, 8, device=device, dtype=torch.float16, requires_grad=True)
    (got,) = torch.autograd.grad(linear_cross_entropy(h, weight, targets, impl="torch"), weight)
    wide = weight.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(F.cross_entropy(h.double() @ wide.T, targets), wide)
    torch.testing.assert_close(got.double(), exact, rtol=2e-3, atol=1e-7)


def test_cross_entropy_in_float16_of_many_tokens(device):
    """The weight's gradient is that of the sum over all tokens: one product must not pass float16's 65,504."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(60_000, 8, generator=generator).to(device, torch.float16)
    h[:, 0] = 4.0
    targets = torch.randint(0, 64, (60_000,), generator=generator).to(device)
    targets[::3] = 5
    weight = torch.zeros(64, 8, device=device, dtype=torch.float16, requires_grad=True)
    (got,) = torch.autograd.grad(linear_cross_entropy(h, weight, targets, impl="torch"), weight)
    wide = weight.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(F.cross_entropy(h.double() @ wide.T, targets), wide)
    torch.testing.assert_close(got.double(), exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("impl", IMPLS)
def test_cross_entropy_of_no_targets(device, impl):
    h, weight, targets = draw(device, torch.float32)
    loss = linear_cross_entropy(h, weight, torch.full_like(targets, -100), impl=impl)
    assert loss.isnan()  # as torch's mean over nothing
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (h, weight)))
    loss = linear_cross_entropy(h, weight, torch.full_like(targets, -100), impl=impl, reduction="sum")
    assert loss == 0


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return out


def test_cross_entropy_never_holds_the_logits(device):
    from minillm.kernels.cross_entropy import chunked_cross_entropy

    n, size, vocabulary = 256, 8, 600
    h, weight, targets = draw(device, torch.float32, n=n, size=size, vocabulary=vocabulary)
    with LargestTensor() as seen, torch.no_grad():  # the operator's own body: modes do not look inside an operator
        chunked_cross_entropy._init_fn(h, weight, targets, -100, 0.1, True, 16, False, True, True)
    assert seen.numel == 16 * vocabulary < n * vocabulary


def test_cross_entropy_computes_only_the_gradients_that_are_needed(device):
    from minillm.kernels.cross_entropy import chunked_cross_entropy

    h, weight, targets = draw(device, torch.float32)
    frozen = linear_cross_entropy(h, weight.detach(), targets)
    full = linear_cross_entropy(h, weight, targets)
    torch.testing.assert_close(torch.autograd.grad(frozen, h), torch.autograd.grad(full, h, retain_graph=True))
    only_weight = linear_cross_entropy(h.detach(), weight, targets)
    torch.testing.assert_close(torch.autograd.grad(only_weight, weight), torch.autograd.grad(full, weight))
    _, dh, dw, _ = chunked_cross_entropy(h, weight, targets, -100, 0.0, True, 8, False, False, False)
    assert dh.numel() == dw.numel() == 0


def test_cross_entropy_under_autocast_and_compile(device):
    h, weight, targets = draw(device, torch.float32, n=30)
    h3, targets3 = h.detach().view(2, 15, 16).requires_grad_(), targets[:30].view(2, 15)

    def step(h, weight, targets):
        with torch.autocast(device, dtype=torch.bfloat16):
            return linear_cross_entropy(h, weight, targets)

    eager, compiled = step(h3, weight, targets3), torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h3, weight, targets3), eager)
    torch.testing.assert_close(eager, F.cross_entropy(h @ weight.T, targets), rtol=0.02, atol=0.02)
    dh, dw = torch.autograd.grad(eager, (h3, weight))
    assert dh.shape == h3.shape and dh.dtype == dw.dtype == torch.float32


def test_opcheck(device):
    from minillm.kernels.cross_entropy import chunked_cross_entropy
    from minillm.kernels.norms import norm_forward

    h, weight, targets = draw(device, torch.float32, n=9)
    torch.library.opcheck(chunked_cross_entropy, (h, weight, targets, -100, 0.1, True, 4, True, True, True))
    torch.library.opcheck(chunked_cross_entropy, (h, weight.detach(), targets, -100, 0.0, False, 4, False, True, False))
    torch.library.opcheck(norm_forward, (h, weight[0].detach(), weight[1].detach(), 1e-5, True))
    torch.library.opcheck(norm_forward, (h, weight[0].detach(), None, 1e-5, False))


@pytest.mark.parametrize(
    "message, change",
    [
        ("do not fit", dict(targets=torch.zeros(3, dtype=torch.int64))),
        ("reduction is 'none'", dict(reduction="none")),
        ("label_smoothing is 1.5", dict(label_smoothing=1.5)),
        ("impl is 'cuda'", dict(impl="cuda")),
    ],
)
def test_cross_entropy_errors(message, change):
    h, weight, targets = draw("cpu", torch.float32)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{"h": h, "weight": weight, "targets": targets, **change})


def norms(size):
    """name -> (ours, torch's), each of (x, weight, bias)."""
    return {
        "rms": (lambda x, w, b: rms_norm(x, w, 1e-6), lambda x, w, b: F.rms_norm(x, (size,), w, 1e-6)),
        "layer": (lambda x, w, b: layer_norm(x, w, b), lambda x, w, b: F.layer_norm(x, (size,), w, b)),
        "layer-no-bias": (lambda x, w, b: layer_norm(x, w), lambda x, w, b: F.layer_norm(x, (size,), w)),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", norms(0))
def test_norms(device, name, dtype):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("float64 kernels run in the interpreter only")
    size = 37
    ours, theirs = norms(size)[name]
    generator = torch.Generator().manual_seed(0)
    x = (3 + torch.randn(2, 9, size, generator=generator)).to(device, dtype).requires_grad_()
    w, b = (torch.randn(size, generator=generator).to(device, dtype).requires_grad_() for _ in range(2))
    dy = torch.randn(2, size, 9, generator=generator).to(device, dtype).transpose(1, 2)  # not contiguous
    inputs = [x, w] + ([b] if name == "layer" else [])

    def run(function, dtype):
        wide = [t.detach().to(dtype).requires_grad_() for t in (x, w, b)]
        out = function(*wide)
        return [out, *torch.autograd.grad(out, wide[: len(inputs)], dy.to(dtype))]

    got, exact, lowp = run(ours, dtype), run(theirs, torch.float64), run(theirs, dtype)
    for a, e, c in zip(got, exact, lowp):
        assert a.dtype == dtype and a.shape == e.shape
        assert (a - e).abs().max() <= 2 * (c - e).abs().max() + (1e-12 if dtype == torch.float64 else 2e-6)


def test_norms_of_a_slice_and_their_errors(device):
    x = torch.randn(5, 80, device=device)[:, :40].requires_grad_()
    weight = torch.ones(40, device=device)
    torch.testing.assert_close(rms_norm(x, weight), F.rms_norm(x, (40,), weight, 1e-6))
    with pytest.raises(ValueError, match=r"weights must be \(40,\)"):
        layer_norm(x, weight[:3])
