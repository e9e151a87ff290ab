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


@pytest.mark.parametrize("seed", range(SHORT))
def test_training(device, seed):
    check_case(seed, device)


@pytest.mark.parametrize("seed", range(SHORT // 2))
def test_cache(device, seed):
    check_cache(seed, device)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SHORT, WHOLE))
def test_more_of_training(device, seed):
    check_case(seed, device)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SHORT // 2, WHOLE // 2))
def test_more_caches(device, seed):
    check_cache(seed, device)
