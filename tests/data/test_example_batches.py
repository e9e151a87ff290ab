"""Batches of examples: each once an epoch, alike in length where asked, the same on any number of processes, resumed
exactly."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import ExampleBatcher, Labelled, fingerprint, pad

SHAPES = {
    "n": st.integers(1, 120),
    "batch": st.integers(1, 7),
    "seed": st.integers(-9, 2**64),
    "bucket": st.one_of(st.none(), st.integers(1, 5)),
}


def rows_and_epochs(rows, epochs):
    return rows, epochs


def batcher(n, batch, seed, bucket, rank=0, world_size=1, data=""):
    lengths = None if bucket is None else (np.arange(n) * 7919) % 31
    return ExampleBatcher(
        n, batch, rows_and_epochs, seed=seed, data=data, lengths=lengths, bucket=bucket or 1, rank=rank,
        world_size=world_size,
    )  # fmt: skip


@given(**SHAPES)
def test_each_example_once_an_epoch(n, batch, seed, bucket):
    batches = batcher(n, batch, seed, bucket)
    rows, epochs = [], []
    while len(rows) < 3 * n:
        r, e = batches.next()
        assert r.shape == e.shape == (batch,) and r.dtype == e.dtype == np.int64
        rows += r.tolist()
        epochs += e.tolist()
    assert epochs == [i // n for i in range(len(epochs))]
    for epoch in range(3):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(**SHAPES, world=st.integers(1, 4))
def test_processes_together_give_the_batches_of_one(n, batch, seed, bucket, world):
    one = batcher(n, batch * world, seed, bucket)
    many = [batcher(n, batch, seed, bucket, rank, world) for rank in range(world)]
    for _ in range(5):
        assert [m.first_row for m in many] == [one.first_row + rank * batch for rank in range(world)]
        whole = one.next()
        parts = [m.next() for m in many]
        for i in range(2):
            assert np.array_equal(np.concatenate([p[i] for p in parts]), whole[i])


@given(**SHAPES, steps=st.integers(0, 9))
def test_resumes_exactly(n, batch, seed, bucket, steps):
    first, second = batcher(n, batch, seed, bucket, data="d"), batcher(n, batch, seed, bucket, data="d")
    for _ in range(steps):
        first.next()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(4):
        assert all(np.array_equal(a, b) for a, b in zip(first.next(), second.next()))


def test_the_position_does_not_depend_on_the_batch_size():
    first, second = batcher(100, 4, 1, None), batcher(100, 8, 1, None)
    first.next(), first.next()
    second.load_state_dict(first.state_dict())
    expected = np.concatenate([first.next()[0], first.next()[0]])
    assert np.array_equal(second.next()[0], expected)


def test_epochs_and_seeds_differ():
    batches = batcher(50, 50, 3, None)
    orders = [batches.next()[0] for _ in range(3)] + [batcher(50, 50, 4, None).next()[0]]
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_buckets_save_padding_and_are_shuffled():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 1600)

    def padded(batches):
        return [int(lengths[batches.next()[0]].max()) * 16 for _ in range(100)]

    plain = ExampleBatcher(1600, 16, rows_and_epochs, seed=1)
    alike = ExampleBatcher(1600, 16, rows_and_epochs, seed=1, lengths=lengths, bucket=50)
    in_plain, in_alike = padded(plain), padded(alike)
    assert sum(in_alike) < 1.1 * lengths.sum() < 1.5 * lengths.sum() < sum(in_plain)
    rising = np.mean(np.diff(in_alike) > 0)
    assert 0.3 < rising < 0.7  # not from short to long
    meet = [{tuple(sorted(alike.next()[0])) for _ in range(100)} for _ in range(2)]
    assert not meet[0] & meet[1]  # other rows meet in the next epoch


def test_buckets_are_cut_where_the_batches_are_in_every_epoch():
    """Epochs of 1,003 end in the middle of a batch of 16: in the later ones, too, a batch's rows are alike."""
    lengths = np.random.default_rng(0).permutation(1003)
    batches = ExampleBatcher(1003, 16, rows_and_epochs, seed=1, lengths=lengths, bucket=1000)
    spreads = []
    for _ in range(5 * 1003 // 16):
        rows, epochs = batches.next()
        if epochs[0] == epochs[-1]:
            spreads.append(np.ptp(lengths[rows]))
    assert max(spreads) < 40
    batches = ExampleBatcher(1600, 1, rows_and_epochs, seed=1, lengths=np.arange(1600) % 16, bucket=16)
    longest = np.array([batches.next()[0][0] % 16 for _ in range(1600)]).reshape(100, 16)
    places = longest.argmax(axis=1)
    assert len(set(places.tolist())) > 5  # each stretch is shuffled in its own way


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 2, "seed was 2 and is 1 now"),
        ("data", "other", "data was 'other'"),
        ("n_examples", 9, "n_examples was 9"),
        ("bucketed", [1, 2], "bucketed was"),
        ("examples_used", -1, "examples_used must be a whole number"),
        ("examples_used", True, "examples_used must be a whole number"),
    ],
)
def test_a_foreign_position_is_refused(key, value, message):
    batches = batcher(10, 2, 1, None)
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**batches.state_dict(), key: value})
    assert batches.examples_used == 0


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="lacks bucketed, data, n_examples"):
        batcher(10, 2, 1, None).load_state_dict({"windows_used": 3, "seed": 1, "examples_used": 1})
    with pytest.raises(ValueError, match="n_examples must be a whole number, at least 1, not 0"):
        batcher(0, 2, 1, None)
    with pytest.raises(ValueError, match="rank must be"):
        batcher(5, 2, 1, None, rank=2, world_size=2)
    with pytest.raises(ValueError, match="one for each of 3 examples"):
        ExampleBatcher(3, 1, rows_and_epochs, seed=0, lengths=[1, 2])


def test_steps_per_epoch_reach_every_example():
    assert [batcher(n, 4, 0, None, world_size=2).steps_per_epoch for n in (1, 8, 9)] == [1, 1, 2]


def test_what_is_saved_and_said_of_batches():
    assert batcher(10, 2, 0, 5, world_size=3).state_dict()["bucketed"] == [6, 30]
    assert (
        batcher(4, 2, 0, 5).row_tokens == np.mean(np.arange(4) * 7919 % 31) and batcher(4, 2, 0, None).row_tokens == 1
    )


def test_pad():
    assert [array.shape for array in pad([], 9)] == [(0, 0), (0, 0)]
    rows = [np.array([1, 2, 3]), np.array([], dtype=np.int64), np.array([4])]
    ids, mask = pad(rows, 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]] and ids.dtype == np.int64
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    ids, mask = pad(rows, 9, left=True)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9], [9, 9, 4]] and mask[2].tolist() == [False, False, True]


def test_fingerprint_tells_examples_apart_but_not_files():
    a = [Labelled("x", "1", "a.csv, line 2"), Labelled("y", "2")]
    assert fingerprint(a) == fingerprint([Labelled("x", "1", "b.csv, line 9"), Labelled("y", "2")])
    others = [a[:1], a[::-1], [Labelled("x", 1.0), a[1]], [Labelled("xy", "1"), Labelled("", "2")], []]
    assert len({fingerprint(e) for e in [a, *others]}) == 6
    arrays = [(np.arange(3), np.array([1]))]
    assert fingerprint(arrays) != fingerprint([(np.arange(2), np.array([2, 1]))])
