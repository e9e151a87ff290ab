"""to_torch and to_numpy: the same model on both engines, to the last digits, and at home in PyTorch's own tools."""

import copy
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from minillm import nn, ops  # noqa: E402
from minillm.generate import Sampling, generate  # noqa: E402
from minillm.models import GPT, GPTConfig  # noqa: E402
from minillm.models.sketch import is_sketched, sketch  # noqa: E402
from minillm.numpy_ops.cores import limit_blas_threads  # noqa: E402
from minillm.optim import AdamW, param_groups  # noqa: E402
from minillm.port import allocate, fill, to_numpy, to_torch, unwrap  # noqa: E402
from minillm.tensor import Parameter  # noqa: E402

CONFIG = GPTConfig(vocab_size=53, context=16, n_layers=2, n_heads=4, d_model=32)


def model_and_batch(dtype=np.float64, **changes):
    config = GPTConfig(**{**vars(CONFIG), **changes})
    draw = np.random.default_rng(7)
    ids, targets = draw.integers(0, config.vocab_size, (2, 3, 12))
    targets[0, :4] = -100
    return GPT(config, np.random.default_rng(0)).to(dtype), ids, targets


def train_both(model, ported, ids, targets, steps, tolerance, same_place=False):
    """`steps` of AdamW on each engine; the losses, each gradient, and in the end each parameter (10 times), stay within
    `tolerance`. With `same_place` the gradients are compared at our parameters, where another ported model is put."""
    follower = to_torch(model) if same_place else ported
    ours = AdamW(param_groups(model, 0.1), lr=1e-3)
    theirs = torch.optim.AdamW(param_groups(ported, 0.1), lr=1e-3)
    t_ids, t_targets = torch.tensor(ids), torch.tensor(targets)
    parameters, followers = dict(ported.named_parameters()), dict(follower.named_parameters())
    first = None
    for step in range(steps):
        model.zero_grad()
        ported.zero_grad()
        loss, t_loss = model(ids, targets), ported(t_ids, t_targets)
        loss.backward()
        t_loss.backward()
        first = loss.item() if first is None else first
        assert abs(loss.item() - t_loss.item()) < tolerance
        if same_place:
            for name, p in model.named_parameters():
                followers[name].data.copy_(torch.from_numpy(p.data))
            follower.zero_grad()
            follower(t_ids, t_targets).backward()
        for name, p in model.named_parameters():
            scale = max(1.0, np.abs(p.grad).max())
            gap = np.abs(p.grad - followers[name].grad.numpy()).max()
            assert gap < tolerance * scale, (step, name, gap)
        ours.step()
        theirs.step()
    assert loss.item() < first - 0.3 or steps < 50  # it learned
    for name, p in model.named_parameters():
        assert np.abs(p.data - parameters[name].detach().numpy()).max() < tolerance * 10, name


@pytest.mark.parametrize("attention", ["reference", "sdpa"])
def test_100_steps_in_float64(attention):
    model, ids, targets = model_and_batch()
    ported = to_torch(model)
    for block in ported.blocks:
        block.attn.impl = attention
    train_both(model, ported, ids, targets, steps=100, tolerance=1e-10)


def test_100_steps_in_float32():
    """Gradients at the same parameters: rounding, which differs between processors, moves the two models apart by 2e-5
    in a hundred steps, and then their own gradients are those of two different places."""
    model, ids, targets = model_and_batch(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # how sums are shared out among threads decides how they are rounded
    try:
        with limit_blas_threads(1):
            train_both(model, to_torch(model), ids, targets, steps=100, tolerance=1e-5, same_place=True)
    finally:
        torch.set_num_threads(threads)


def test_dropout_with_the_same_masks(monkeypatch):
    model, ids, targets = model_and_batch(dropout=0.3)
    for block in model.blocks:
        block.attn.dropout_p = 0.0  # the dropout inside attention takes no mask
    ported = to_torch(model)
    drop = ops.dropout

    def with_mask(x, p, *, training=True, rng=None):
        mask = masks.random(tuple(x.shape)) >= p
        return drop(x, p, training=training, mask=mask if isinstance(x, nn.Tensor) else torch.tensor(mask))

    monkeypatch.setattr(ops, "dropout", with_mask)
    masks = np.random.default_rng(3)
    loss = model(ids, targets)
    masks = np.random.default_rng(3)
    t_loss = ported(torch.tensor(ids), torch.tensor(targets))
    assert abs(loss.item() - t_loss.item()) < 1e-13
    assert abs(loss.item() - model.eval()(ids, targets).item()) > 1e-4
    loss.backward()
    t_loss.backward()
    for name, p in model.named_parameters():
        theirs = ported.get_parameter(name).grad.numpy()
        np.testing.assert_allclose(theirs, p.grad, rtol=1e-10, atol=1e-13, err_msg=name)


def test_it_is_a_torch_module_of_our_class():
    model, ids, _ = model_and_batch(np.float32)
    ported = to_torch(model)
    assert isinstance(ported, torch.nn.Module) and isinstance(ported, GPT)
    assert type(ported).__name__ == "GPT"
    assert type(ported.blocks[0]) is type(ported.blocks[1])
    assert [n for n, _ in ported.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert list(ported.state_dict()) == list(model.state_dict())
    assert "LayerNorm" in repr(ported)
    assert not ported.eval().blocks[1].attn.training and ported.train().blocks[1].attn.training
    ported.token_embedding.weight.data.zero_()
    assert model.token_embedding.weight.data.any(), "the port holds copies"
    assert ported(torch.tensor(ids)).shape == (3, 12, 53)


class Rotating(nn.Module):
    """A tied pair of layers, a module used twice, constants, a list that holds no modules, a module that is absent."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.rng = rng
        self.a = nn.Linear(4, 4, rng=rng, bias=False)
        self.layers = [nn.Linear(4, 4, rng=rng), nn.Dropout(0.1, rng), self.a]
        self.layers[0].weight = self.a.weight
        self.cos, self.sin = np.cos(np.ones((2, 2), np.float32)), np.sin(np.ones((2, 2), np.float32))
        self.order = np.array([1, 0])
        self.sizes = [1, 2]
        self.head = None
        self.frozen = Parameter(np.ones(4, np.float32), requires_grad=False)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        x = ops.rope(x.reshape(1, 1, 2, 4), self.cos, self.sin) * self.frozen
        return (x[:, :, self.order] * self.sizes[1]).sum()


def test_ties_constants_and_the_way_back():
    model = Rotating().eval()
    ported = to_torch(model)
    assert not ported.training and not ported.layers[1].training
    assert ported.layers[0].weight is ported.a.weight and ported.layers[2] is ported.a
    assert [n for n, _ in ported.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert {n for n, _ in ported.named_buffers()} == {"cos", "sin", "order"}
    assert not {"cos", "sin", "order"} & set(ported.state_dict())
    assert ported.order.dtype == torch.int64 and not ported.frozen.requires_grad
    assert ported.rng is ported.layers[1].rng is not model.rng

    back = to_numpy(ported)
    assert type(back) is Rotating and type(back.layers) is list and not back.training
    assert back.layers[0].weight is back.a.weight and back.layers[2] is back.a
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(np.array_equal(v, back.state_dict()[n]) for n, v in model.state_dict().items())
    assert back.rng is back.layers[1].rng and back.sizes == [1, 2] and back.head is None
    assert not back.frozen.requires_grad
    assert set(vars(back)) == set(vars(model)) | {"training"}

    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    values = [m(y).item() for m, y in ((model, nn.Tensor(x)), (back, nn.Tensor(x)), (ported, torch.tensor(x)))]
    assert values[0] == values[1] and abs(values[0] - values[2]) < 1e-6
    late = to_torch(model, device="meta")
    allocate(late, "cpu")
    fill(late, model)
    assert late.layers[0].weight is late.a.weight and late(torch.tensor(x)).item() == values[2]
    half = to_torch(model, dtype=torch.bfloat16)
    assert half.cos.dtype == half.a.weight.dtype == torch.bfloat16 and half.order.dtype == torch.int64
    assert to_numpy(half).a.weight.dtype == np.float32


def test_what_cannot_be_ported():
    model, _, _ = model_and_batch()
    with pytest.raises(TypeError, match="is on torch already"):
        to_torch(to_torch(model))
    with pytest.raises(TypeError, match="not a minillm"):
        to_torch(3)
    with pytest.raises(TypeError, match="was not made by to_torch"):
        to_numpy(torch.nn.Linear(2, 2))


def test_a_sketched_model_is_drawn_on_the_device():
    config = GPTConfig(vocab_size=1000, context=64, n_layers=2, n_heads=2, d_model=64)
    model = GPT(config, sketch())
    assert is_sketched(model.token_embedding.weight.data) and not is_sketched(model.norm.weight.data)
    gpt3 = GPT(GPTConfig(d_model=12288, n_layers=96, n_heads=96), sketch())
    assert sum(p.data.size for p in gpt3.parameters()) > 174e9  # and took no memory
    ported = to_torch(model, seed=1)
    assert abs(ported.token_embedding.weight.std().item() / 0.02 - 1) < 0.02
    assert abs(ported.blocks[1].attn.proj.weight.std().item() / 0.01 - 1) < 0.05  # 0.02/√(2·2)
    assert torch.equal(ported.norm.weight, torch.ones(64)) and not ported.blocks[0].mlp.fc.bias.any()
    same, other = to_torch(model, seed=1), to_torch(model, seed=2)
    assert torch.equal(ported.blocks[1].mlp.fc.weight, same.blocks[1].mlp.fc.weight)
    assert not torch.equal(ported.token_embedding.weight, other.token_embedding.weight)
    assert to_torch(model, device="meta").token_embedding.weight.is_meta
    assert to_torch(model, dtype=torch.bfloat16).token_embedding.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_graph_break(training):
    model, ids, targets = model_and_batch(dropout=0.1 if training else 0.0)
    ported = to_torch(model).train(training)
    compiled = torch.compile(ported, fullgraph=True, backend="aot_eager")
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    loss = compiled(ids, targets, reduction="sum")
    loss.backward()
    assert all(p.grad is not None for p in ported.parameters())
    if not training:
        assert abs(loss.item() - ported(ids, targets, reduction="sum").item()) < 1e-12
    assert unwrap(compiled) is ported and type(to_numpy(compiled)) is GPT


def test_compiled_decoding_keeps_one_graph():
    model, ids, _ = model_and_batch(np.float32)
    ported = to_torch(model).eval()
    ids = torch.tensor(ids)
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(ported, fullgraph=True, backend=counter)
    cache = ported.new_cache()
    with torch.no_grad():
        compiled(ids[:, :3], cache=cache)
        for t in range(3, 12):
            logits = compiled(ids[:, t : t + 1], cache=cache)
        torch.testing.assert_close(logits[:, -1], ported(ids)[:, -1])
    assert counter.frame_count <= 3  # the prompt, the first token, every later token


def test_generates_the_same_text():
    model, ids, _ = model_and_batch()
    ported = to_torch(model)
    prompts = [list(map(int, ids[0, :5])), list(map(int, ids[1, :2]))]
    for use_cache in (True, False):
        options = {"max_new_tokens": 20, "sampling": Sampling(temperature=0.8, top_k=10), "use_cache": use_cache}
        assert generate(model, prompts, seed=1, **options) == generate(ported, prompts, seed=1, **options)
    assert ported.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["reference", "sdpa"])
def test_autocast_and_scaler(dtype, attention):
    model, ids, targets = model_and_batch(np.float32, attention=attention)
    ported = to_torch(model)
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    exact = torch.autograd.grad(ported(ids, targets), list(ported.parameters()))
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16, init_scale=1024.0)
    optimizer = torch.optim.AdamW(ported.parameters(), lr=3e-3)
    losses = []
    for step in range(20):
        with torch.autocast("cpu", dtype=dtype):
            loss = ported(ids, targets)
            assert ported(ids).dtype == dtype
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if step == 0:
            for p, g in zip(ported.parameters(), exact):
                assert p.grad.dtype == torch.float32
                assert (p.grad - g).norm() < 0.05 * g.norm() + 1e-3
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_activation_checkpointing_changes_nothing():
    model, ids, targets = model_and_batch()
    ported = to_torch(model)
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    plain = torch.autograd.grad(ported(ids, targets), list(ported.parameters()))
    for block in ported.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    again = torch.autograd.grad(ported(ids, targets), list(ported.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, again))


def test_deepcopy_state_dict_and_safetensors(tmp_path):
    model, ids, targets = model_and_batch(np.float32)
    ported = to_torch(model)
    twin = copy.deepcopy(ported)
    assert type(twin) is type(ported) and twin.token_embedding.weight is not ported.token_embedding.weight
    safetensors.torch.save_file(ported.state_dict(), tmp_path / "model.safetensors")
    fresh = to_torch(GPT(CONFIG, np.random.default_rng(1)))
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    assert twin(ids, targets).item() == fresh(ids, targets).item() == ported(ids, targets).item()
    from safetensors.numpy import load_file

    loaded = GPT(CONFIG)
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert np.array_equal(loaded.token_embedding.weight.data, model.token_embedding.weight.data)
