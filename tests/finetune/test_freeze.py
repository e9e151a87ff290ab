"""Freezing: not one bit changes, nothing is computed or kept for what is frozen, on every engine; learning rates layer
by layer; gradual unfreezing, resumed to the last bit."""

import importlib
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.sgd import SGD
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.freeze import (
    GradualUnfreezing,
    count,
    count_line,
    depths,
    freeze,
    layer_wise_groups,
    trainable_parameters,
    unfreeze,
)  # fmt: skip
from minillm.models import (
    GPT,
    LSTM,
    Bert,
    BertConfig,
    Classifier,
    ClassifierConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GPTConfig,
    LSTMConfig,
)  # fmt: skip
from minillm.optim import AdamW, param_groups
from minillm.settings import TrainConfig

linear_ops = importlib.import_module("minillm.numpy_ops.linear")  # the file: the room gives the function this name
IDS = np.random.default_rng(0).integers(0, 50, (4, 9))
BATCH = (IDS[:, :-1], IDS[:, 1:])
CONFIG = {"batch_size": 4, "weight_decay": 0.5, "lr": 0.01}


def small_gpt(seed=0, dropout=0.0):
    config = GPTConfig(vocab_size=50, context=8, n_layers=3, n_heads=2, d_model=16, dropout=dropout)
    return GPT(config, np.random.default_rng(seed))


def torch_engine(model, config, groups=param_groups):
    pytest.importorskip("torch")
    from minillm.engines.torch_engine import TorchEngine
    from minillm.settings import EngineConfig

    return TorchEngine(model, config, EngineConfig(device="cpu"), groups)


ENGINES = {"numpy": NumpyEngine, "threads": partial(ThreadedNumpyEngine, threads=3), "torch": torch_engine}


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def step(run, lr=0.01):
    loss = run.forward_backward([BATCH])
    run.clip_gradients(1.0)
    run.step(lr)
    return float(loss)


def arrays(run):
    return {name: np.array(array) for name, array in run.model_arrays().items()}


# --- names ------------------------------------------------------------------------------------------------------------


def test_patterns_are_names_of_parameters_or_of_what_they_are_in():
    model = small_gpt()
    everything = dict(model.named_parameters())
    assert freeze(model) == list(everything) and trainable_parameters(model) == {}
    second = [n for n in everything if n.startswith("blocks.1.")]
    assert unfreeze(model, "blocks.1", "norm.bias") == second + ["norm.bias"]
    assert freeze(model, "*.bias") == [n for n in everything if n.endswith("bias")]
    assert set(trainable_parameters(model)) == {n for n in second if "bias" not in n}
    lower = [n for n in everything if n.startswith(("blocks.0.attn", "blocks.1.attn"))]
    assert unfreeze(model, "blocks.[0-1].attn.*") == lower


def test_blocks_1_is_not_blocks_10():
    model = GPT(GPTConfig(vocab_size=9, context=4, n_layers=11, n_heads=1, d_model=2))
    assert all(name.startswith("blocks.1.") for name in freeze(model, "blocks.1"))


def test_a_pattern_that_matches_nothing_says_what_is_near_and_changes_nothing():
    model = small_gpt()
    with pytest.raises(ValueError, match=r"called 'block\.1\.atn'\. Near it: blocks\.1\.attn"):
        freeze(model, "norm", "block.1.atn")
    assert len(trainable_parameters(model)) == len(dict(model.named_parameters()))


def test_the_line_before_a_run():
    model = small_gpt()
    total = sum(p.data.size for p in model.parameters())
    freeze(model)
    unfreeze(model, "norm")
    assert count(model) == (32, total)
    assert count_line(model) == f"trains 32 of {total:,} parameters ({32 / total:.2%})"


# --- the trap: a frozen parameter does not change by one bit and has no optimizer state -------------------------------


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "momentum": 0.9}], ids=["adamw", "sgd"])
def test_what_is_frozen_does_not_change_by_one_bit_and_has_no_state(engine, settings):
    model = small_gpt()
    frozen = freeze(model, "token_embedding", "blocks.0", "blocks.1.attn.qkv.weight", "*.norm_2.*")
    run = engine(model, TrainConfig(**CONFIG, **settings))
    before = arrays(run)
    for _ in range(5):
        step(run)
    after = arrays(run)
    assert {name for name in before if np.array_equal(before[name], after[name])} == set(frozen)
    stateful = {name.rpartition(".")[0] for name in run.optimizer_arrays()}
    assert stateful == set(before) - set(frozen)
    assert all(p.grad is None for name, p in run.model.named_parameters() if name in frozen)
    state = getattr(run.optimizer, "state")  # noqa: B009
    kept = [s for s in state.values() if s]
    assert len(kept) == len(before) - len(frozen)


def test_gradients_of_what_learns_are_those_of_the_whole_model():
    whole, part = small_gpt(), small_gpt()
    freeze(part, "*.weight")
    for model in (whole, part):
        model(*BATCH).backward()
    for name, p in trainable_parameters(part).items():
        assert np.array_equal(p.grad, dict(whole.named_parameters())[name].grad)


def test_nothing_is_computed_for_what_is_frozen(monkeypatch):
    """Below the lowest layer that learns no backward runs at all; in it only products that are needed."""
    products = []

    def counting(grad, needs, *saved):
        products.append(needs)
        return backward(grad, needs, *saved)

    backward = linear_ops.linear_backward
    monkeypatch.setattr(linear_ops, "linear_backward", counting)
    model = small_gpt()
    freeze(model)
    unfreeze(model, "blocks.2.mlp", "norm")
    model(*BATCH).backward()
    # proj: input, weight, bias; fc: weight and bias only, since nothing below learns; no other of the 12 Linears
    assert products == [(True, True, True), (False, True, True)]


@pytest.mark.parametrize("optimizer", [AdamW, SGD])
def test_an_optimizer_alone_leaves_frozen_parameters_alone(optimizer):
    model = small_gpt()
    model(*BATCH).backward()
    model.norm.weight.requires_grad = False  # with its gradient still there
    before = model.norm.weight.data.copy()
    o = optimizer(model.parameters(), lr=0.1, weight_decay=0.1)
    o.step()
    assert np.array_equal(before, model.norm.weight.data)
    assert not o.state[id(model.norm.weight)] and o.steps[id(model.norm.weight)] == 0


def test_ports_keep_what_is_frozen():
    pytest.importorskip("torch")
    from minillm.port import to_numpy, to_torch

    model = small_gpt()
    freeze(model, "blocks.0", "norm")
    names = list(trainable_parameters(model))
    assert list(trainable_parameters(to_torch(model))) == names
    assert list(trainable_parameters(to_numpy(to_torch(model)))) == names
    ported = to_torch(small_gpt())
    assert freeze(ported, "blocks.0", "norm") == freeze(small_gpt(), "blocks.0", "norm")
    assert list(trainable_parameters(ported)) == names


def test_both_engines_train_the_rest_alike():
    pytest.importorskip("torch")
    results = []
    for make in (NumpyEngine, torch_engine):
        model = small_gpt().to(np.float64)
        freeze(model, "token_embedding", "blocks.[0-1]")
        run = make(model, TrainConfig(**CONFIG), groups=partial(layer_wise_groups, factor=0.5))
        results.append(([step(run) for _ in range(100)], arrays(run)))
    assert np.abs(np.subtract(results[0][0], results[1][0])).max() < 1e-10
    assert max(np.abs(results[0][1][name] - results[1][1][name]).max() for name in results[0][1]) < 1e-10


# --- layer-wise learning rates ----------------------------------------------------------------------------------------


def test_depths_of_every_kind_of_model():
    decoder = GPTConfig(vocab_size=50, context=8, n_layers=3, n_heads=2, d_model=16)
    found = depths(Classifier(ClassifierConfig(decoder, n_labels=3)))
    assert found["score.weight"] == found["decoder.norm.bias"] == 0
    assert [found[f"decoder.blocks.{i}.attn.qkv.weight"] for i in range(3)] == [3, 2, 1]
    assert found["decoder.token_embedding.weight"] == found["decoder.position_embedding.weight"] == 4

    found = depths(Bert(BertConfig(vocab_size=50, n_layers=2, d_model=8, n_heads=2, d_ff=8, head="classification")))
    assert found["norm.weight"] == found["token_type_embedding.weight"] == 3  # BERT's first norm is the embeddings'
    assert found["classifier.weight"] == found["pooler.bias"] == 0

    sizes = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 8}
    found = depths(EncoderDecoder(EncoderDecoderConfig(vocab_size=50, shared_embeddings=False, **sizes)))
    assert [found[f"{name}.{i}.mlp.fc.weight"] for name in ("encoder", "decoder") for i in (0, 1)] == [4, 3, 2, 1]
    assert found["head.weight"] == 0 and found["source_embedding.weight"] == 5

    found = depths(LSTM(LSTMConfig(vocab_size=50, n_layers=2, d_model=8)))
    assert [found["token_embedding.weight"], found["layers.0.weight_ih"], found["layers.1.bias_hh"]] == [3, 2, 1]


def test_learning_rates_fall_with_depth(engine):
    """SGD without decay moves each parameter by lr · factor^depth · its gradient."""
    model = small_gpt().to(np.float64)
    reference = small_gpt().to(np.float64)
    reference(*BATCH).backward()
    config = TrainConfig(batch_size=4, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.01)
    run = engine(model, config, groups=partial(layer_wise_groups, factor=0.5))
    before = arrays(run)
    run.forward_backward([BATCH])
    run.clip_gradients(0.0)
    run.step(0.01)
    after = arrays(run)
    for name, p in reference.named_parameters():
        moved = 0.01 * 0.5 ** depths(model)[name] * p.grad
        assert np.abs(before[name] - after[name] - moved).max() < 1e-14, name


def test_groups_keep_what_decays_and_hold_each_parameter_once():
    model = small_gpt()
    decays = {id(p): group["weight_decay"] for group in param_groups(model, 0.3) for p in group["params"]}
    groups = layer_wise_groups(model, 0.3, 0.9)
    members = [p for group in groups for p in group["params"]]
    assert len(members) == len({id(p) for p in members}) == len(decays)
    assert all(group["weight_decay"] == decays[id(p)] for group in groups for p in group["params"])
    assert AdamW(groups, 0.01).param_groups[0]["lr_scale"] == groups[0]["lr_scale"]
    with pytest.raises(ValueError, match=r"factor = 1\.5 must be above 0 and at most 1\."):
        layer_wise_groups(model, 0.3, 1.5)


# --- gradual unfreezing -----------------------------------------------------------------------------------------------


def test_one_more_layer_learns_every_k_steps():
    model = small_gpt()
    freeze(model, "position_embedding")  # for good
    plan = GradualUnfreezing(model, every=10)
    assert set(trainable_parameters(model)) == {"norm.weight", "norm.bias"}
    for at, top in ((9, 3), (10, 2), (29, 1), (30, 0)):
        names = plan.at_step(at, model)
        assert list(trainable_parameters(model)) == names
        blocks = [n for n, _ in model.named_parameters() if n.startswith("blocks")]
        assert [n for n in names if n in blocks] == [n for n in blocks if int(n.split(".")[1]) >= top]
    assert set(plan.at_step(40, model)) == {n for n, _ in model.named_parameters()} - {"position_embedding.weight"}
    plan.at_step(0, model)
    assert set(trainable_parameters(model)) == {"norm.weight", "norm.bias"}
    with pytest.raises(ValueError, match=r"every = 0 must be at least 1 step\."):
        GradualUnfreezing(model, every=0)
    freeze(model)
    with pytest.raises(ValueError, match=r"frozen for good"):
        GradualUnfreezing(model, every=1)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "momentum": 0.9}], ids=["adamw", "sgd"])
def test_unfreezing_during_a_run_and_resuming_it(engine, settings):
    """Each layer changes from its step on; a run that is saved and loaded anew goes on to the last bit."""
    config = TrainConfig(**CONFIG, **settings)

    def begin():
        model = small_gpt(dropout=0.1)
        plan = GradualUnfreezing(model, every=3)
        return engine(model, config), plan

    def go(run, plan, first, last):
        changed = []
        for n in range(first, last):
            plan.at_step(n, run.model)
            before = arrays(run)
            step(run)
            after = arrays(run)
            changed.append({name for name in before if not np.array_equal(before[name], after[name])})
        return changed

    run, plan = begin()
    changed = go(run, plan, 0, 8)
    at = [plan.at_step(n, run.model) for n in range(8)]
    assert [set(names) for names in at] == changed
    plan.at_step(7, run.model)

    other, plan_2 = begin()
    go(other, plan_2, 0, 6)
    plan_2.at_step(6, other.model)  # what begins to learn now has not made a step yet
    saved = [{k: np.array(v) for k, v in part.items()} for part in (other.model_arrays(), other.optimizer_arrays())]
    random = other.random_state()
    resumed, plan_3 = begin()
    resumed.load(*saved, random)
    go(resumed, plan_3, 6, 8)
    ours, theirs = (({**arrays(r), **r.optimizer_arrays()}) for r in (run, resumed))
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_every_engine_unfreezes_alike(engine):
    results = []
    for make in (NumpyEngine, engine):
        model = small_gpt().to(np.float64)
        run = make(model, TrainConfig(**CONFIG))
        plan = GradualUnfreezing(run.model, every=2)  # which the engine hears of when it has begun
        losses = []
        for n in range(10):
            plan.at_step(n, run.model)
            losses.append(step(run, 0.001))
        results.append((losses, arrays(run)))
    assert np.abs(np.subtract(results[0][0], results[1][0])).max() < 1e-10
    assert max(np.abs(results[0][1][name] - results[1][1][name]).max() for name in results[0][1]) < 1e-10


def test_a_state_that_lacks_what_learns_is_refused(engine):
    config = TrainConfig(**CONFIG)
    model = small_gpt()
    freeze(model, "norm")
    run = engine(model, config)
    step(run)
    other = engine(small_gpt(), config)
    with pytest.raises(ValueError, match=r"missing: norm\.weight"):
        other.load(run.model_arrays(), run.optimizer_arrays(), None)


def test_unfreezing_among_several_processes(tmp_path):
    """Under DDP and FSDP: the losses, weights and optimizer's arrays of one process on NumPy."""
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch is built without torch.distributed")
    import freezing_worker

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command += [freezing_worker.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = freezing_worker.unfreezing_run(NumpyEngine)
    for parallel in ("ddp", "fsdp"):
        with np.load(tmp_path / f"{parallel}.npz") as found:
            assert set(found) == set(expected)
            assert all(np.abs(found[name] - expected[name]).max() < 1e-10 for name in expected), parallel


def test_freezing_between_backward_and_step(engine):
    run = engine(small_gpt(), TrainConfig(**CONFIG))
    before = arrays(run)
    run.forward_backward([BATCH])
    run.clip_gradients(0.0)
    freeze(run.model, "norm")
    run.step(0.01)
    after = arrays(run)
    assert {name for name in before if np.array_equal(before[name], after[name])} == {"norm.weight", "norm.bias"}
