"""Evaluations and generations leave a model in the mode that they found it in, whatever happens on the way."""

import numpy as np
import pytest

from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import Replicas, ThreadedNumpyEngine
from minillm.generate import Sampling, decode_steps, generate, stream
from minillm.models import GPT, GPTConfig
from minillm.nn import evaluating
from minillm.settings import TrainConfig
from minillm.tensor import records_graph

CONFIG = GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=2, d_model=8, dropout=0.5)
GOOD, BAD = np.zeros((2, 4), dtype=np.int64), np.full((2, 4), 99)  # an id that the model does not have


def make(mode):
    model = GPT(CONFIG)
    return model.train(mode)


def ported(mode):
    torch_engine = pytest.importorskip("minillm.engines.torch_engine")
    return torch_engine.TorchEngine(make(mode), TrainConfig(batch_size=2)), "torch"


ENGINES = {
    "numpy": lambda mode: (NumpyEngine(make(mode), TrainConfig()), "numpy"),
    "threads": lambda mode: (ThreadedNumpyEngine(make(mode), TrainConfig(batch_size=2), 2), "numpy"),
    "torch": ported,
}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", ENGINES)
def test_an_evaluation_leaves_the_mode_as_it_was_also_when_it_fails(name, mode):
    engine, _ = ENGINES[name](mode)
    engine.model.train(mode)
    engine.batch_loss(GOOD, GOOD)
    assert all(module.training == mode for _, module in engine.model.named_modules())
    with pytest.raises(IndexError):
        engine.batch_loss(BAD, GOOD)
    assert all(module.training == mode for _, module in engine.model.named_modules())
    if name != "torch":
        assert records_graph(next(engine.model.parameters()))


def test_every_replica_is_in_evaluation_while_it_evaluates_and_only_then():
    replicas = Replicas(make(True), 2)
    seen = []
    for model in replicas.models:
        plain = model.hidden
        model.hidden = lambda *a, model=model, plain=plain: (seen.append(model.training), plain(*a))[1]
    first, second = replicas.batch_loss(GOOD, GOOD), replicas.batch_loss(GOOD, GOOD)
    assert seen == [False] * 4 and first == second, "dropout was off"
    assert all(model.training for model in replicas.models)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("on_torch", [False, True])
def test_a_generation_enters_evaluation_once_and_leaves_it(mode, on_torch):
    model = make(mode)
    if on_torch:
        model = pytest.importorskip("minillm.port").to_torch(model)
    switches = []
    plain = model.train
    model.train = lambda to=True: (switches.append(to), plain(to))[1]
    generate(model, [[1, 2]], max_new_tokens=5, seed=0)
    assert switches == [False, mode] and model.training == mode, "once for the generation, not once for each token"
    with pytest.raises((IndexError, ValueError)):
        generate(model, [[99]], max_new_tokens=2)
    assert model.training == mode

    tokens = stream(model, [1, 2], max_new_tokens=5, seed=0)
    next(tokens)
    tokens.close()  # a reader who has seen enough
    assert model.training == mode
    steps = decode_steps(model, [[1, 2]], 3, Sampling(), 0, True)
    assert len(list(steps)) == 3 and model.training == mode


def test_evaluating_gives_back_the_mode_after_an_exception():
    model = make(True)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training and not model.blocks[0].attn.training
        1 / 0  # noqa: B018
    assert model.training and model.blocks[0].attn.training
