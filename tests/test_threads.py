"""Threads beside each other: no_grad and a whole training are for the thread that runs them."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from leaves import leaf

from minillm.generate import generate
from minillm.models import GPT, GPTConfig
from minillm.optim import AdamW
from minillm.tensor import no_grad, records_graph


def test_no_grad_is_for_its_own_thread():
    """One thread evaluates while another trains: the other's graphs are whole, whoever enters and leaves when."""
    x = leaf(3)
    inside, trained = threading.Event(), threading.Event()

    def evaluate():
        with no_grad():
            inside.set()
            trained.wait(10)
            return (x * x).node

    with ThreadPoolExecutor(1) as pool:
        with no_grad():
            task = pool.submit(evaluate)
            inside.wait(10)
        (x * x).sum().backward()  # left before the other, which is still inside
        trained.set()
        assert task.result() is None
    np.testing.assert_allclose(x.grad, 2 * x.data)
    assert records_graph(x)


def tiny_gpt(seed):
    config = GPTConfig(vocab_size=17, context=8, n_layers=1, n_heads=2, d_model=8, dropout=0.1)
    return GPT(config, np.random.default_rng(seed))


def train_a_little(seed):
    model, rng = tiny_gpt(seed), np.random.default_rng(seed)
    optimizer = AdamW(list(model.parameters()), lr=1e-2)
    losses = []
    for _ in range(30):
        model.zero_grad()
        ids = rng.integers(0, 17, (4, 9))
        loss = model(ids[:, :-1], targets=ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_two_trainings_and_a_generation_at_once_give_the_same_as_alone():
    writer = tiny_gpt(9)
    write = partial(generate, writer, [[1, 2]], max_new_tokens=40, seed=3)
    work = [partial(train_a_little, 0), partial(train_a_little, 1), write]
    alone = [task() for task in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert [task.result() for task in [pool.submit(task) for task in work]] == alone
    finally:
        sys.setswitchinterval(interval)
