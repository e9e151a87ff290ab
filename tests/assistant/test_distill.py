"""Distillation: the divergences are their formulas, on both engines; a student that equals its teacher has nothing to
learn; one that does not comes nearer; what a student writes follows from its weights, the seed and the example."""

import math
import threading
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.assistant.distill import DistillConfig, DistillLoss, check_teacher, divergence
from minillm.assistant.packing import collate_packed
from minillm.assistant.run import some_layers
from minillm.commands.cli import main
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.engines.torch_engine import TorchEngine
from minillm.models import GPT, LSTM, GPTConfig, Llama, LlamaConfig, LSTMConfig
from minillm.nn import evaluating
from minillm.optim import AdamW
from minillm.port import to_torch
from minillm.settings import IGNORE, EngineConfig, TrainConfig
from minillm.tensor import Tensor, no_grad
from minillm.tokenizers import CharTokenizer
from minillm.training.config_file import ConfigError

KINDS = ("forward", "reverse", "js")
SIZES = {"n_layers": 1, "n_heads": 2, "d_model": 16}
MODELS = {
    "gpt": (GPT, GPTConfig(vocab_size=30, context=12, dropout=0.2, **SIZES)),
    "llama": (Llama, LlamaConfig(vocab_size=30, context=12, d_ff=24, **SIZES)),
    "lstm": (LSTM, LSTMConfig(vocab_size=30, context=12, n_layers=1, d_model=16)),
}


def new(kind="gpt", seed=0, spread=5.0, **changes):
    """A model in float64 whose distributions are far from uniform."""
    cls, config = MODELS[kind]
    model = cls(type(config)(**{**vars(config), **changes}), np.random.default_rng(seed)).to(np.float64)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= spread
    return model


def batch_of(rng, rows=4, length=9, vocab_size=30):
    """ids and targets, of which each row's first ones do not count, and some of the last are padding."""
    ids = rng.integers(0, vocab_size, (rows, length + 1))
    targets = ids[:, 1:].copy()
    for row, (prompt, end) in enumerate(zip(rng.integers(1, 5, rows), rng.integers(6, length + 1, rows))):
        targets[row, :prompt] = targets[row, end:] = IGNORE
    return ids[:, :-1], targets


def drawn_logits(rng, rows, vocab_size, spread):
    """Logits of two models, some rows of them alike, on one id, or with impossible ids."""
    teacher = rng.normal(0, spread, (rows, vocab_size))
    student = np.where(rng.random((rows, 1)) < 0.1, teacher, rng.normal(0, spread, (rows, vocab_size)))
    return teacher, student


def plain(teacher, student, kind, beta=0.5, temperature=1.0):
    """The divergences as they stand in the papers, in PyTorch: probabilities and their logarithms."""
    p, q = torch.softmax(teacher / temperature, -1), torch.softmax(student / temperature, -1)
    m = beta * p + (1 - beta) * q

    def kl(a, b):
        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(-1)

    return {"forward": kl(p, q), "reverse": kl(q, p), "js": beta * kl(p, m) + (1 - beta) * kl(q, m)}[kind]


def with_gradients(function, teacher, student, weights, *options):
    """(values, gradient for the teacher, for the student) of the rows' weighted sum, from our engine or from torch."""
    ours = not isinstance(teacher, torch.Tensor)
    t, s = (Tensor(x.copy(), requires_grad=True) if ours else x.clone().requires_grad_() for x in (teacher, student))
    values = function(t, s, *options)
    (values * (weights if ours else torch.from_numpy(weights))).sum().backward()
    results = (values.detach(), t.grad, s.grad)
    return [np.asarray(x.data if isinstance(x, Tensor) else x) for x in results]


def ours(teacher, student, kind, beta, temperature):
    return divergence(teacher, student, kind, beta=beta, temperature=temperature)


def compare(seed, kind, beta, temperature, spread, rows=50, vocab_size=7):
    rng = np.random.default_rng(seed)
    teacher, student = drawn_logits(rng, rows, vocab_size, spread)
    weights = rng.normal(size=rows)
    tensors = torch.from_numpy(teacher), torch.from_numpy(student)
    expected = with_gradients(plain, *tensors, weights, kind, beta, temperature)
    for inputs in ((teacher, student), tensors):
        found = with_gradients(ours, *inputs, weights, kind, beta, temperature)
        for a, b in zip(found, expected):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


# --- the formulas -----------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
    beta=st.floats(0.01, 0.99),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    spread=st.sampled_from([0.01, 1.0, 5.0]),
)
@settings(max_examples=60)
def test_divergences_are_the_papers_with_their_gradients_on_both_engines(seed, kind, beta, temperature, spread):
    compare(seed, kind, beta, temperature, spread)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_divergences_are_the_papers_on_a_hundred_thousand_rows(kind):
    rng = np.random.default_rng(1)
    for seed in range(500):
        beta, temperature, spread = rng.uniform(0.01, 0.99), rng.uniform(0.3, 20), rng.uniform(0.01, 8)
        compare(seed, kind, beta, temperature, spread, rows=200, vocab_size=int(rng.integers(1, 60)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_impossible_ids_give_numbers(kind, dtype):
    """−∞ for both, the teacher, the student, all but one, and all ids; and logits whose probabilities underflow."""
    minus = -np.inf
    teacher = [[0, 1, minus], [0, 1, minus], [0, 1, 2], [0, minus, minus], [minus] * 3, [0, 500, -500]]
    student = [[1, 1, minus], [0, 1, 2], [0, 1, minus], [0, minus, minus], [minus] * 3, [0, -900, 900]]
    teacher, student = np.array(teacher, dtype), np.array(student, dtype)
    found = {}
    for inputs in ((teacher, student), (torch.from_numpy(teacher), torch.from_numpy(student))):
        values, *gradients = with_gradients(ours, *inputs, np.ones(6, dtype), kind, 0.3, 1.0)
        assert np.isfinite(values).all() and all(np.isfinite(g).all() for g in gradients)
        assert (values >= 0).all()
        found[type(inputs[0])] = values
    for values in found.values():
        p, q = np.exp([0, 1]) / np.exp([0, 1]).sum(), np.array([0.5, 0.5])
        m = 0.3 * p + 0.7 * q
        first = {"forward": (p, q), "reverse": (q, p)}
        expected = (
            0.3 * (p * np.log(p / m)).sum() + 0.7 * (q * np.log(q / m)).sum()
            if kind == "js"
            else (first[kind][0] * np.log(first[kind][0] / first[kind][1])).sum()
        )
        assert values[0] == pytest.approx(expected, rel=1e-5)
        assert values[3] == values[4] == 0
        infinite = {"forward": (False, True), "reverse": (True, False), "js": (False, False)}[kind]
        assert tuple(values[1:3] > 1e25) == infinite


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS), temperature=st.sampled_from([0.5, 1.0, 4.0]))
def test_equal_models_have_nothing_to_learn(seed, kind, temperature):
    logits = np.random.default_rng(seed).normal(0, 3, (20, 11))
    values, _, gradient = with_gradients(ours, logits, logits, np.ones(20), kind, 0.3, temperature)
    assert np.abs(values).max() < 1e-13
    assert np.abs(gradient).max() < 1e-14


def test_a_high_temperature_compares_centred_logits():
    """Hinton, section 2.1: τ² times the gradient tends to (x − z)/V of centred logits, that is of their squares."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 10, 8))
    centred = (student - student.mean(1, keepdims=True)) - (teacher - teacher.mean(1, keepdims=True))
    errors = []
    for temperature in (10.0, 100.0, 1000.0):
        values, _, gradient = with_gradients(ours, teacher, student, np.ones(10), "forward", 0.5, temperature)
        errors.append(np.abs(temperature**2 * gradient - centred / 8).max())
        if temperature == 1000:
            np.testing.assert_allclose(temperature**2 * values, (centred**2).mean(1) / 2, rtol=0.01)
    assert errors[0] < 0.1 and errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8


@pytest.mark.parametrize("engine", [Tensor, torch.from_numpy])
def test_js_has_the_two_others_as_its_limits(engine):
    teacher, student = (engine(x) for x in np.random.default_rng(0).normal(size=(2, 10, 8)))
    for beta, kind in ((1e-7, "forward"), (1 - 1e-7, "reverse")):
        js = divergence(teacher, student, "js", beta=beta) * (1 / min(beta, 1 - beta))
        np.testing.assert_allclose(js.numpy(), divergence(teacher, student, kind).numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="kind must be 'forward', 'reverse' or 'js', not 'backward'"):
        divergence(teacher, student, "backward")


def test_sixteen_bit_logits_are_compared_in_32():
    teacher, student = torch.randn(2, 10, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = teacher.bfloat16(), student.bfloat16()
    found = divergence(low, high, "js", temperature=2.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, divergence(low.double(), high.double(), "js", temperature=2.0).float())


# --- the loss ---------------------------------------------------------------------------------------------------------


def plain_loss(teacher, student, ids, targets, config):
    """The loss and its figures from both models' logits at all places, in PyTorch."""
    kept = torch.from_numpy(targets != IGNORE)
    with torch.no_grad():
        t = teacher(torch.from_numpy(ids))[kept]
    s = student(torch.from_numpy(ids))[kept]
    n = min(t.shape[-1], s.shape[-1])
    soft = plain(t[:, :n], s[:, :n], config.divergence, config.beta, config.temperature).sum()
    hard = torch.nn.functional.cross_entropy(s, torch.from_numpy(targets)[kept], reduction="sum")
    loss = (1 - config.hard) * config.temperature**2 * soft + config.hard * hard
    agreement = (t[:, :n].argmax(-1) == s[:, :n].argmax(-1)).sum()
    figures = {"kl": plain(t[:, :n], s[:, :n], "forward").sum(), "cross_entropy": hard, "agreement": agreement}
    return loss, {name: float(value.detach()) for name, value in figures.items()}


def numbers(figures):
    return {name: float(value.data if isinstance(value, Tensor) else value) for name, value in figures.items()}


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize(
    ("config", "teachers", "students"),
    [
        (DistillConfig(), 30, 30),
        (DistillConfig(divergence="reverse", temperature=2.0, hard=0.3), 36, 30),
        (DistillConfig(divergence="js", beta=0.2, temperature=0.7), 30, 33),
    ],
    ids=["forward", "reverse", "js"],
)
def test_the_loss_and_its_gradients_on_both_engines(kind, config, teachers, students):
    rng = np.random.default_rng(3)
    ids, targets = batch_of(rng)
    teacher = new("gpt", 1, vocab_size=teachers)
    student = new(kind, 2, vocab_size=students).eval()
    ported = to_torch(student).eval()
    loss = DistillLoss(teacher, config)

    ours, figures = loss(student, ids, targets)
    ours.backward()
    theirs, torch_figures = loss(ported, torch.from_numpy(ids), torch.from_numpy(targets))
    theirs.backward()
    expected = to_torch(student).eval()
    value, expected_figures = plain_loss(to_torch(teacher).eval(), expected, ids, targets, config)
    value.backward()

    assert ours.item() == pytest.approx(value.item(), rel=1e-10)
    assert theirs.item() == pytest.approx(value.item(), rel=1e-10)
    assert numbers(figures) == pytest.approx(expected_figures, rel=1e-10)
    assert numbers(torch_figures) == pytest.approx(expected_figures, rel=1e-10)
    assert loss.count(ids, targets) == (targets != IGNORE).sum()
    gradients = {name: p.grad.numpy() for name, p in expected.named_parameters() if p.grad is not None}
    assert len(gradients) > 3
    for name, parameter in student.named_parameters():
        np.testing.assert_allclose(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10)
    for name, parameter in ported.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), gradients[name], rtol=1e-8, atol=1e-10)
    assert all(p.grad is None for p in [*teacher.parameters(), *loss.ported.parameters()])


def test_the_teacher_is_ported_once_in_the_students_precision_and_never_drops_out():
    ids, targets = batch_of(np.random.default_rng(0))
    teacher = new("gpt", 1)
    before = [p.data.copy() for p in teacher.parameters()]
    loss = DistillLoss(teacher.train(), DistillConfig())
    student = to_torch(new("gpt", 2, dropout=0.0), dtype=torch.float32).train()
    batch = torch.from_numpy(ids), torch.from_numpy(targets)
    first = loss(student, *batch)[0]
    ported = loss.ported
    assert first.dtype == torch.float32 and next(ported.parameters()).dtype == torch.float32
    assert first.item() == loss(student, *batch)[0].item()
    assert loss.ported is ported and not ported.training
    assert all((a == p.data).all() for a, p in zip(before, teacher.parameters()))
    on_numpy = DistillLoss(teacher, DistillConfig())(new("gpt", 2, dropout=0.0), ids, targets)[0]
    assert first.item() == pytest.approx(on_numpy.item(), rel=1e-4)
    again = DistillLoss(to_torch(teacher, dtype=torch.float32), DistillConfig())
    assert again(student, *batch)[0].item() == first.item()


def test_a_teacher_of_another_precision_teaches_on_numpy():
    ids, targets = batch_of(np.random.default_rng(0))
    student = new("gpt", 2).to(np.float32).eval()
    value = DistillLoss(new("gpt", 1), DistillConfig())(student, ids, targets)[0]
    assert value.dtype == np.float32
    same = DistillLoss(new("gpt", 1).to(np.float32), DistillConfig())(student, ids, targets)[0]
    assert value.item() == pytest.approx(same.item(), rel=1e-4)


@pytest.mark.parametrize("port", [False, True], ids=["numpy", "torch"])
def test_rows_without_a_target_give_zeros(port):
    """A thread or a rank may get such a share of a batch."""
    ids, targets = batch_of(np.random.default_rng(0))
    targets[:] = IGNORE
    student = new("gpt", 2).eval()
    loss = DistillLoss(new("gpt", 1), DistillConfig(hard=0.5, divergence="js"))
    batch = (ids, targets)
    if port:
        student, batch = to_torch(student).eval(), (torch.from_numpy(ids), torch.from_numpy(targets))
    value, figures = loss(student, *batch)
    value.backward()
    assert value.item() == 0 and set(numbers(figures).values()) == {0.0}
    assert all(p.grad is None or float(abs(p.grad).max()) == 0 for p in student.parameters())


def test_a_student_that_is_its_teacher_agrees_and_stays():
    ids, targets = batch_of(np.random.default_rng(0))
    student = new("gpt", 1).eval()
    for config in (DistillConfig(), DistillConfig(divergence="js", temperature=3.0)):
        value, figures = DistillLoss(new("gpt", 1), config)(student, ids, targets)
        value.backward()
        found = numbers(figures)
        assert abs(value.item()) < 1e-12 and abs(found["kl"]) < 1e-12
        assert found["agreement"] == (targets != IGNORE).sum()
        assert max(np.abs(p.grad).max() for p in student.parameters()) < 1e-12


@pytest.mark.parametrize("port", [False, True], ids=["numpy", "torch"])
def test_packed_rows_have_the_loss_of_one_row_for_each(port):
    rows = list(zip(*batch_of(np.random.default_rng(0), rows=4, length=6)))
    student = new("llama", 2).eval()
    loss = DistillLoss(new("gpt", 1), DistillConfig(divergence="js", hard=0.2))
    alone, packed = tuple(map(np.stack, zip(*rows))), collate_packed([rows[:2], rows[2:3], rows[3:]], 0)
    assert loss.count(*alone) == loss.count(*packed)
    if port:
        student = to_torch(student).eval()
        alone, packed = tuple(map(torch.from_numpy, alone)), tuple(map(torch.from_numpy, packed))
    (a, figures), (b, packed_figures) = loss(student, *alone), loss(student, *packed)
    assert a.item() == pytest.approx(b.item(), rel=1e-10)
    assert numbers(figures) == pytest.approx(numbers(packed_figures), rel=1e-10)


def test_many_threads_may_ask_one_teacher():
    rng = np.random.default_rng(0)
    loss = DistillLoss(new("gpt", 1), DistillConfig(temperature=2.0))
    batches = [batch_of(rng) for _ in range(8)]
    students = [new("gpt", seed, dropout=0.0) for seed in range(8)]
    expected = [loss(student, *batch)[0].item() for student, batch in zip(students, batches)]
    found = [[] for _ in batches]

    def work(i):
        for _ in range(20):
            value = loss(students[i], *batches[i])[0]
            value.backward()  # which has a graph: another thread's no_grad is not ours
            found[i].append(value.item())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[value] * 20 for value in expected]


def test_engines_compute_one_loss():
    """Threads share the rows; one of them gets a row without a target."""
    rng = np.random.default_rng(0)
    batches = [batch_of(rng, rows=3), batch_of(rng, rows=4)]
    batches[0][1][1] = IGNORE
    config = TrainConfig(max_steps=3, batch_size=4, grad_accumulation=2, lr=1e-3)
    options = DistillConfig(divergence="js", temperature=2.0, hard=0.2)
    makers = {
        "numpy": NumpyEngine,
        "threads": partial(ThreadedNumpyEngine, threads=3),
        "torch": partial(TorchEngine, settings=EngineConfig(device="cpu", compile="off")),
    }
    found = {}
    for name, make in makers.items():
        run = make(new("gpt", 2, dropout=0.0), config, loss=DistillLoss(new("gpt", 1), options))
        rows = [run.batch_sums(*batches[0])]
        for _ in range(3):
            loss = run.forward_backward(batches)
            run.clip_gradients(1.0)
            run.step(1e-3)
            rows.append({"loss": run.read(loss)[0], **run.gauges(1.0)})
            del rows[-1]["memory_gb"]
        found[name] = rows
    assert set(found["numpy"][-1]) == {"loss", "kl", "cross_entropy", "agreement"}
    for name in ("threads", "torch"):
        for a, b in zip(found["numpy"], found[name]):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-10)


def test_a_step_can_be_compiled_as_a_whole(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced, not translated
    batch = batch_of(np.random.default_rng(0))
    config = TrainConfig(max_steps=1, batch_size=4, lr=1e-3)
    gradients, gauges = {}, {}
    for compile in ("on", "off"):
        loss = DistillLoss(new("gpt", 1), DistillConfig(divergence="js", temperature=2.0, hard=0.5))
        settings = EngineConfig(device="cpu", compile=compile)
        run = TorchEngine(new("gpt", 2, dropout=0.0), config, settings, loss=loss)
        run.forward_backward([batch])
        gradients[compile] = [p.grad for p in run.model.parameters()]
        gauges[compile] = {**run.gauges(1.0), "memory_gb": 0.0}
    assert gauges["on"] == pytest.approx(gauges["off"]) and gauges["on"]["kl"] > 0.1
    torch.testing.assert_close(gradients["on"], gradients["off"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_comes_nearer_to_its_teacher(kind):
    rng = np.random.default_rng(0)
    teacher, student = new("gpt", 1, dropout=0.0), new("lstm", 2)
    loss = DistillLoss(teacher, DistillConfig(divergence=kind))
    held_out = batch_of(rng, rows=64)
    optimizer = AdamW(student.parameters(), 1e-2, weight_decay=0.0)

    def measured():
        with evaluating(student), no_grad():
            _, figures = loss(student, *held_out)
        return numbers(figures)

    before = measured()
    for _ in range(80):
        batch = batch_of(rng, rows=16)
        student.zero_grad()
        (loss(student, *batch)[0] * (1 / loss.count(*batch))).backward()
        optimizer.step()
    after = measured()
    assert after["kl"] < 0.7 * before["kl"] and after["agreement"] > before["agreement"]


# --- what fits together -----------------------------------------------------------------------------------------------


def test_a_teacher_that_does_not_fit_is_refused():
    tokenizer, other = CharTokenizer.train(["abcdef"]), CharTokenizer.train(["abcxyz"])
    config = GPTConfig(vocab_size=30, context=12, **SIZES)
    longer = GPTConfig(vocab_size=40, context=20, **SIZES)
    check_teacher(longer, tokenizer, config, tokenizer, "logits")
    check_teacher(config, other, longer, tokenizer, "sequence")
    for method in ("logits", "on-policy"):
        with pytest.raises(ValueError, match=f"{method}.*compares the two models id by id.*another than the student's"):
            check_teacher(longer, other, config, tokenizer, method)
        with pytest.raises(ValueError, match="takes 12 tokens, the student 20"):
            check_teacher(config, tokenizer, longer, tokenizer, method)
        with pytest.raises(ValueError, match="the teacher has 3 ids, its tokenizer"):
            check_teacher(GPTConfig(vocab_size=3, context=12, **SIZES), tokenizer, config, tokenizer, method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta = 0.0 must lie between 0 and 1"),
        ({"beta": 1.0}, "beta = 1.0 must lie between"),
        ({"temperature": 0.0}, "temperature = 0.0 must be a finite number, at least 0.01"),
        ({"temperature": math.nan}, "temperature = nan must be"),
        ({"sampling_temperature": -1.0}, "sampling_temperature = -1.0 must be"),
        ({"hard": 1.5}, "hard = 1.5 must be from 0 to 1"),
        ({"on_policy_share": -0.1}, "on_policy_share = -0.1 must be from 0 to 1"),
        ({"method": "on-policy", "hard": 0.5}, "hard = 0.5 would teach the student its own tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0 must be at least 1"),
    ],
)
def test_settings_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**options)


# --- a student of its teacher's layers --------------------------------------------------------------------------------


def teachers_layers(model):
    """What `some_layers` gives, checked: the teacher itself with the other layers taken out computes the same."""
    for kept in ("0", "0,2", "1,2", "0,1,2"):
        student = some_layers(model, kept)
        numbers = [int(number) for number in kept.split(",")]
        assert student.config.n_layers == len(student.blocks) == len(numbers)
        whole = model.blocks
        try:
            model.blocks = [whole[number] for number in numbers]
            ids = np.arange(12).reshape(2, 6)
            with evaluating(model), evaluating(student), no_grad():
                assert np.array_equal(student(ids).data, model(ids).data)
        finally:
            model.blocks = whole
        mine = {id(p.data) for p in model.parameters()}
        assert not any(id(p.data) in mine for p in student.parameters())  # training it leaves the teacher alone


def test_a_student_may_begin_as_some_layers_of_its_teacher():
    shape = {"vocab_size": 12, "context": 8, "n_layers": 3, "n_heads": 2, "d_model": 8}
    teachers_layers(GPT(GPTConfig(**shape), np.random.default_rng(0)))
    teachers_layers(Llama(LlamaConfig(**shape, d_ff=12), np.random.default_rng(0)))
    windows = LlamaConfig(**shape, d_ff=12, window=2, full_layers=(2,))
    teachers_layers(Llama(windows, np.random.default_rng(0)))
    assert some_layers(Llama(windows), "0,2").config.full_layers == (1,)


@pytest.mark.parametrize("layers", ["3", "1,0", "1,1"])
def test_layers_that_a_teacher_lacks_are_refused(layers):
    teacher = Llama(LlamaConfig(vocab_size=12, context=8, n_layers=3, n_heads=2, d_model=8, d_ff=12))
    with pytest.raises(ConfigError, match="must be some of the teacher's 3 layers, 0 to 2, in their order"):
        some_layers(teacher, layers)


def test_layers_are_numbers():
    with pytest.raises(ValueError, match="must be numbers of the teacher's layers, from 0 on: '0,1,3'"):
        DistillConfig(layers="first")


def test_layers_beside_a_model_that_is_there_or_a_shape_are_refused(tmp_path, capsys):
    command = ["finetune", "distill", "--teacher", "nowhere", "--out", str(tmp_path / "run")]
    assert main([*command, "--model", "mine", "--set", "distill.layers=0,1"]) == 2
    assert "--model" in (said := capsys.readouterr().err) and "give --set distill.layers= with it." in said
    assert not (tmp_path / "run").exists()
