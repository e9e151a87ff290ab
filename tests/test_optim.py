"""Optimizers against torch.optim in float64, the decay rule, clipping, and the schedules."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minillm.engines.sgd import SGD
from minillm.models.gpt import GPT, GPTConfig
from minillm.numpy_ops.blocks import BLOCK
from minillm.optim import AdamW, clip_grad_norm_, param_groups
from minillm.tensor import Parameter
from minillm.training import schedules

SHAPES = [(7, 5), (3,), (BLOCK + 3,), ()]  # one is larger than a block, one has no axes


def make_params(rng, shapes=SHAPES):
    return [Parameter(rng.standard_normal(shape)) for shape in shapes]


def run_beside_torch(make_ours, make_theirs, n_steps=50, skip_gradient=False):
    """Step both optimizers on the same gradients; returns the largest relative gap of any parameter."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = make_params(rng)
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    a, b = make_ours(ours), make_theirs(torch.optim, theirs)
    for step in range(n_steps):
        for group_a, group_b in zip(a.param_groups, b.param_groups):
            group_a["lr"] = group_b["lr"] = 0.01 / (step + 1)  # as a schedule would
        for i, (p, q) in enumerate(zip(ours, theirs)):
            grad = np.asarray(rng.standard_normal(p.shape) * 10.0 ** rng.integers(-6, 3))
            p.grad, q.grad = grad, torch.tensor(grad)
            if skip_gradient and i == 1 and step % 3 != 1:
                p.grad = q.grad = None  # a layer that this batch did not use
        before = [None if p.grad is None else p.grad.copy() for p in ours]
        a.step()
        b.step()
        for p, grad in zip(ours, before):
            np.testing.assert_array_equal(p.grad, grad) if grad is not None else None
    return max(np.max(np.abs(p.data - q.detach().numpy()) / (1 + np.abs(p.data))) for p, q in zip(ours, theirs))


@pytest.mark.parametrize("skip_gradient", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs(weight_decay, skip_gradient):
    options = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": weight_decay}
    gap = run_beside_torch(
        lambda ps: AdamW(ps, **options), lambda optim, ps: optim.AdamW(ps, **options), skip_gradient=skip_gradient
    )
    assert gap < 1e-12


@pytest.mark.parametrize("skip_gradient", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ],
)
def test_sgd_is_torchs(options, skip_gradient):
    gap = run_beside_torch(
        lambda ps: SGD(ps, lr=0.01, **options),
        lambda optim, ps: optim.SGD(ps, lr=0.01, **options),
        skip_gradient=skip_gradient,
    )
    assert gap < 1e-12


@pytest.mark.parametrize("cls", [AdamW, SGD])
def test_defaults_are_torchs(cls):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.optim, cls.__name__)([torch.nn.Parameter(torch.ones(2))]).param_groups[0]
    (ours,) = cls([Parameter(np.ones(2))]).param_groups
    del ours["params"]
    assert ours == {name: theirs[name] for name in ours}


def test_groups_have_their_own_settings():
    torch = pytest.importorskip("torch")
    gap = run_beside_torch(
        lambda ps: AdamW([{"params": ps[:2], "weight_decay": 0.5}, {"params": ps[2:]}], lr=0.1),
        lambda optim, ps: optim.AdamW([{"params": ps[:2], "weight_decay": 0.5}, {"params": ps[2:]}], lr=0.1),
    )
    assert torch and gap < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [AdamW, lambda ps: SGD(ps, momentum=0.9, nesterov=True, weight_decay=0.1)])
def test_no_dtype_changes_and_the_gradient_may_be_a_read_only_view(make, dtype):
    p = Parameter(np.ones((4, 6), dtype))
    optimizer = make([p])
    grad = np.arange(24, dtype=dtype).reshape(6, 4).T
    grad.flags.writeable = False
    data = p.data
    p.grad = grad
    optimizer.step()
    assert p.data is data and p.data.dtype == dtype
    assert all(a.dtype == dtype and a.shape == p.shape for a in optimizer.state[id(p)].values())


def test_parameters_that_share_one_gradient_array_step_alike():
    a, b = Parameter(np.ones(3)), Parameter(np.ones(3))
    a.grad = b.grad = np.array([3.0, 0.0, 4.0])
    norm = clip_grad_norm_([a, b], 1.0)
    assert norm == pytest.approx(math.sqrt(50))
    np.testing.assert_allclose(a.grad, np.array([3.0, 0.0, 4.0]) / norm, rtol=1e-6)
    np.testing.assert_array_equal(a.grad, b.grad)


def test_state_goes_through_a_file_format_and_continues_exactly():
    def run(stop_at):
        rng = np.random.default_rng(1)
        params = make_params(np.random.default_rng(0))
        names = {id(p): f"p{i}" for i, p in enumerate(params)}
        optimizer = AdamW(params, lr=0.1)
        for step in range(10):
            if step == stop_at:  # a new process: new optimizer, same parameters
                saved = {k: v.copy() for k, v in optimizer.state_dict(names).items()}
                optimizer = AdamW(params, lr=0.1)
                optimizer.load_state_dict(names, saved)
            for p in params:
                p.grad = rng.standard_normal(p.shape)
            optimizer.step()
        return [p.data for p in params]

    for whole, resumed in zip(run(stop_at=None), run(stop_at=5)):
        np.testing.assert_array_equal(whole, resumed)


def test_a_state_that_does_not_fit_changes_nothing():
    params = make_params(np.random.default_rng(0))
    names = {id(p): f"p{i}" for i, p in enumerate(params)}
    optimizer = AdamW(params)
    good = optimizer.state_dict(names)
    for wrong, message in [
        ({k: v for k, v in good.items() if k != "p2.exp_avg"}, "missing: p2.exp_avg"),
        ({**good, "p9.exp_avg": np.ones(3)}, "unexpected: p9.exp_avg"),
        ({**good, "p0.exp_avg": np.ones((5, 7))}, r"wrong shape: p0.exp_avg is \(5, 7\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(names, {k: v + 1 for k, v in wrong.items()})
        assert not any(a.any() for a in optimizer.state_dict(names).values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: AdamW([]), "no parameters"),
        (lambda p: AdamW([p, p]), "twice"),
        (lambda p: AdamW([{"params": [p], "learning_rate": 1.0}]), "unknown key 'learning_rate'"),
        (lambda p: AdamW([p], lr=-1.0), "lr must be 0 or more, not -1.0"),
        (lambda p: AdamW([p], lr=math.nan), "lr must be 0 or more, not nan"),
        (lambda p: AdamW([p], betas=(0.9, 1.0)), r"betas must be at least 0 and below 1"),
        (lambda p: SGD([p], nesterov=True), "nesterov"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(Parameter(np.ones((2, 2))))


def test_matrices_decay_and_norms_biases_and_embeddings_do_not():
    model = GPT(GPTConfig(vocab_size=11, context=4, n_layers=2, n_heads=2, d_model=8))
    name_of = {id(p): name for name, p in model.named_parameters()}
    decay, no_decay = param_groups(model, 0.1)
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.1, 0.0)
    decayed = {name_of[id(p)] for p in decay["params"]}
    kept = {name_of[id(p)] for p in no_decay["params"]}
    matrices = ("attn.qkv", "attn.proj", "mlp.fc", "mlp.proj")
    assert decayed == {f"blocks.{i}.{matrix}.weight" for i in (0, 1) for matrix in matrices}
    assert kept == set(name_of.values()) - decayed and {"token_embedding.weight", "position_embedding.weight"} <= kept


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    scale=st.floats(1e-3, 1e3),
    max_norm=st.floats(1e-3, 1e3),
)
def test_clipping_is_torchs(sizes, scale, max_norm):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(len(sizes))
    ours = make_params(rng, [(n,) for n in sizes])
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    for p, q in zip(ours, theirs):
        p.grad = rng.standard_normal(p.shape) * scale
        q.grad = torch.tensor(p.grad)
    norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert clip_grad_norm_(ours, max_norm) == pytest.approx(norm.item(), rel=1e-12)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12)


def test_clipping_leaves_gradients_that_are_not_finite_alone():
    a, b = Parameter(np.ones(2)), Parameter(np.ones(2))
    a.grad, b.grad = np.array([1e3, np.nan]), np.array([1.0, 2.0])
    assert math.isnan(clip_grad_norm_([a, b], 1.0))
    np.testing.assert_array_equal(b.grad, [1.0, 2.0])


ALL = st.sampled_from([schedules.cosine, schedules.linear, schedules.wsd, schedules.constant])


@given(schedule=ALL, total=st.integers(1, 500), warmup=st.integers(0, 60), final=st.floats(0, 1))
@example(schedule=schedules.wsd, total=2, warmup=0, final=0.0)
@example(schedule=schedules.wsd, total=3, warmup=1, final=0.5)
def test_every_schedule_climbs_to_one_and_falls_to_final(schedule, total, warmup, final):
    warmup = min(warmup, total - 1)
    factors = [schedule(step, total, warmup, final) for step in range(total)]
    assert all(0 <= f <= 1 for f in factors)
    assert factors[:warmup] == [pytest.approx((i + 1) / warmup) for i in range(warmup)]
    assert factors[warmup] == pytest.approx(1.0) or total - warmup <= 1 or schedule is schedules.wsd
    falling = factors[warmup:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
    if schedule is not schedules.constant and total - warmup > 1:
        assert factors[-1] == pytest.approx(final)
    assert schedule(total + 10, total, warmup, final) == pytest.approx(1.0 if schedule is schedules.constant else final)


def test_values_of_the_schedules_by_hand():
    assert schedules.cosine(50, 101) == pytest.approx(0.5)
    assert schedules.cosine(25, 101, 0, 0.1) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert schedules.linear(25, 101) == pytest.approx(0.75)
    assert [schedules.wsd(i, 101) for i in (0, 79)] == [1.0, 1.0]
    assert schedules.wsd(90, 101) == pytest.approx(10 / 19.2)
    for name in schedules.SCHEDULES:
        assert schedules.lr_factor(name, 30, 100, 5, 0.1) == getattr(schedules, name)(30, 100, 5, 0.1)
    with pytest.raises(ValueError, match="must be one of 'cosine', 'linear', 'wsd', 'constant', not 'cosin'"):
        schedules.lr_factor("cosin", 0, 10)
