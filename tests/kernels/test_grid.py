"""Everything at once: sizes, groups, dtypes, masks, windows, caps, sinks, dropout, packing, caches drawn at random."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from attention_reference import check, draw, dropout_mask_of, reference_attention  # noqa: E402
from minillm.kernels import flash_attention  # noqa: E402

IMPLS = ["simple", "fast"]
SHORT, WHOLE = 24, 400


def draw_case(seed, device):
    """(q, k, v, options, the dropout's mask), for training or against a cache."""
    draws, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    kv_heads = draws.choice([1, 2, 3])
    heads, batch = kv_heads * draws.choice([1, 2, 4]), draws.choice([1, 2])
    dtype = draws.choice([torch.float16, torch.bfloat16, torch.float32])
    sizes = dict(heads=heads, kv_heads=kv_heads, size=draws.choice([1, 7, 16, 24, 40, 64, 72, 128]), seed=seed)
    options = dict(causal=draws.random() < 0.5, window=draws.choice([None, None, None, 1, 16, 50]))
    if draws.random() < 0.3:
        options["softcap"] = draws.choice([0.5, 2.0, 50.0])
    if draws.random() < 0.3:
        options["sinks"] = torch.randn(heads, generator=generator).to(device).requires_grad_()
    if draws.random() < 0.2:
        options["scale"] = draws.choice([0.01, 1.0])
    if draws.random() < 0.2:  # packed sequences, some of them empty; of a length for keys too, or their own
        n, pair = draws.choice([1, 3, 6]), draws.random() < 0.5
        lengths = [[1, *[draws.choice([0, 1, 2, 17, 40]) for _ in range(n)]] for _ in range(2 if pair else 1)]
        sizes |= dict(tq=sum(lengths[0]), tk=sum(lengths[-1]))
        ends = [torch.tensor([0, *row], device=device).cumsum(0).to(torch.int32) for row in lengths]
        options["cu_seqlens"] = tuple(ends) if pair else ends[0]
        if draws.random() < 0.5:
            options["max_seqlen"] = max(max(row) for row in lengths)
        batch = 1
    else:
        sizes |= dict(tq=draws.choice([1, 2, 5, 16, 17, 63, 97, 150]), tk=draws.choice([1, 2, 17, 32, 64, 65, 97, 150]))
        if draws.random() < 0.3:
            options["key_padding_mask"] = (torch.rand(batch, sizes["tk"], generator=generator) < 0.7).to(device)
        if draws.random() < 0.3:
            shape = draws.choice([(heads, sizes["tq"]), (batch, 1, sizes["tq"]), (1, 1)])
            options["mask"] = (torch.rand(*shape, sizes["tk"], generator=generator) < 0.7).to(device)
    mask = None
    if draws.random() < 0.25 and "cu_seqlens" not in options:  # whose mask counts the heads of each packed sequence
        options |= dict(dropout_p=draws.choice([0.1, 0.5]), seed=seed)
        mask = dropout_mask_of(seed, options["dropout_p"], (batch, heads, sizes["tq"], sizes["tk"]), device)
    return draw(device, dtype, batch=batch, **sizes), options, mask


def check_case(seed, device):
    tensors, options, mask = draw_case(seed, device)
    cancels = tensors[0].shape[-1] == 1 or tensors[1].shape[2] <= 2 or options["window"] == 1 or "cu_seqlens" in options
    for impl in IMPLS:
        check(impl, tensors, dropout_mask=mask, cancels=cancels, **options)


def check_cache(seed, device):
    """A cache, in pages or not, gives what each of its sequences gives by itself."""
    draws, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    kv_heads, batch, size = draws.choice([1, 2]), draws.choice([1, 3]), draws.choice([16, 24, 64])
    heads, page, n_pages = kv_heads * draws.choice([1, 3]), draws.choice([1, 7, 16, 64]), draws.choice([1, 4, 9])
    dtype, options = draws.choice([torch.float16, torch.float32]), dict(causal=draws.random() < 0.7)
    if draws.random() < 0.4:
        options["window"] = draws.choice([1, 20])
    if draws.random() < 0.3:
        options["softcap"] = 5.0
    if draws.random() < 0.3:
        options["sinks"] = torch.randn(heads, generator=generator).to(device)
    lengths = [draws.randint(0, page * n_pages) for _ in range(batch)]
    queries = [draws.choice([1, 3, 20])] * batch
    k, v = (torch.randn(batch, kv_heads, page * n_pages, size, generator=generator).to(device, dtype) for _ in "kv")
    packed = draws.random() < 0.5
    if packed:
        queries = [draws.choice([0, 1, 5, 20]) for _ in range(batch)]
        options["cu_seqlens"] = torch.tensor([0, *queries], device=device).cumsum(0)
    q = [torch.randn(1, heads, n, size, generator=generator).to(device, dtype) for n in queries]
    options["key_lengths"] = torch.tensor(lengths, device=device)
    cache = (k, v)
    if draws.random() < 0.7:
        order = torch.randperm(batch * n_pages, generator=generator).to(device)
        cache = [torch.empty_like(k) for _ in "kv"]
        cache = [t.view(batch * n_pages, kv_heads, page, size) for t in cache]
        for to, t in zip(cache, (k, v)):
            to[order] = t.view(batch, kv_heads, n_pages, page, size).transpose(1, 2).flatten(0, 1)
        table = order.view(batch, n_pages).clone()
        reached = torch.arange(n_pages, device=device) * page < options["key_lengths"][:, None]
        options["block_table"] = table.masked_fill(~reached, -1)
    together = torch.cat(q, 2 if packed else 0)
    alone = {name: options[name] for name in options if name not in ("key_lengths", "block_table", "cu_seqlens")}
    for impl in IMPLS:
        out = flash_attention(together, *cache, impl=impl, **options)
        parts = out.split(queries, 2) if packed else out.split(1)
        for b, part in enumerate(parts):
            keys, values = k[b : b + 1, :, : lengths[b]], v[b : b + 1, :, : lengths[b]]
            exact = reference_attention(*(t.double() for t in (q[b], keys, values)), **alone)
            rounded = reference_attention(q[b], keys, values, **alone)
            if part.numel():
                error, allowed = ((t.double() - exact).abs().max().item() for t in (part, rounded))
                assert error <= 2 * allowed + 4e-6, (seed, impl, b, error, allowed)


@pytest.mark.parametrize("seed", [*range(SHORT), 47, 108, 117, 186])  # the last were wrong, or thought so, once
def test_training(device, seed):
    check_case(seed, device)


@pytest.mark.parametrize("seed", [*range(SHORT // 2), 29, 39])
def test_cache(device, seed):
    check_cache(seed, device)


def forward_bits(case, monkeypatch, descriptors):
    """(out, lse) of the fast forward kernel, and how many calls loaded by descriptors."""
    from dataclasses import replace

    from minillm.kernels import flash_fast

    config, made, described, launched = flash_fast.lookup("forward", case[0][0]), [], flash_fast.described, []
    config, launch = replace(config, descriptors=descriptors), flash_fast.launch_forward
    monkeypatch.setattr(flash_fast, "described", lambda *how: made.append(how) or described(*how))
    monkeypatch.setattr(flash_fast.flash_decode, "suits", lambda *_: False)

    def remember(*arguments):
        launched.append(launch(*arguments[:-1], config))
        return launched[-1]

    monkeypatch.setattr(flash_fast, "launch_forward", remember)
    (q, k, v, *_), options = case[0], case[1]
    flash_attention(q, k, v, impl="fast", **options)
    monkeypatch.undo()
    return launched[0], len(made)


def test_tensor_descriptors_give_the_same_bits(device, monkeypatch):
    """With every option; where they cannot be, they are not. Keys and values lie as the models' do, or head by head."""
    if device == "cuda" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("tensor descriptors are Hopper's and later cards'")
    counts = {"used": 0, "left": 0}
    for seed in range(60, 60 + SHORT):
        case = draw_case(seed, device)
        if seed % 2:
            case[0][1:3] = [t.detach().transpose(1, 2).contiguous().transpose(1, 2) for t in case[0][1:3]]
        plain, made = forward_bits(case, monkeypatch, 0)
        assert made == 0
        described, made = forward_bits(case, monkeypatch, 1)
        assert all(torch.equal(a, b) for a, b in zip(plain, described)), seed
        size, itemsize = case[0][1].shape[-1], case[0][1].element_size()
        possible = size * itemsize % 16 == 0 and "cu_seqlens" not in case[1]
        assert made == (2 if possible else 0), seed
        counts["used" if made else "left"] += 1
    assert min(counts.values()) >= 5, counts


def test_tensor_descriptors_do_not_read_behind_a_sequence(device, monkeypatch):
    """What stands behind a packed sequence, or in a cache where nothing is yet, may be NaN."""
    from minillm.kernels import flash_fast
    from minillm.kernels.call import Call

    q, k, v = (torch.ones(1, 2, 40, 16, device=device) for _ in "qkv")
    assert flash_fast.describable(k, v, Call(1.0)) or device == "cuda"
    cu, lengths = (torch.tensor(n, dtype=torch.int32, device=device) for n in ([0, 10, 20], [10]))
    for call in (Call(1.0, cu_q=cu, cu_k=cu, max_q=10, max_k=10), Call(1.0, key_lengths=lengths)):
        assert not flash_fast.describable(k, v, call)
    assert not flash_fast.describable(k[..., 1:], v[..., 1:], Call(1.0))
    assert not flash_fast.describable(k[:, :1].expand(1, 2, 40, 16), v, Call(1.0))
    k[:, :, 20:], v[:, :, 20:] = float("nan"), float("nan")
    out, made = forward_bits(((q, k, v), {"cu_seqlens": cu}), monkeypatch, 1)
    assert made == 0 and torch.equal(out[0][:, :, :20], q[:, :, :20])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SHORT, WHOLE))
def test_more_of_training(device, seed):
    check_case(seed, device)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SHORT // 2, WHOLE // 2))
def test_more_caches(device, seed):
    check_cache(seed, device)
