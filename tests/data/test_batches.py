"""Batches: each window once an epoch, the same on any number of processes, exact resume, evaluation covers all."""

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import Batcher, TokenDataset, iter_eval_batches
from minillm.data.batches import permute, share_of_rank
from minillm.data.packing import PackInfo
from minillm.settings import IGNORE


class Ring(TokenDataset):
    """A dataset in memory whose token i is i, so that a batch shows where it was read."""

    def __init__(self, n: int) -> None:
        self.path = Path("ring.bin")
        self.info = PackInfo("uint32", n, n, 1, n, None, "none", f"sha-{n}")
        self.tokens = np.arange(n, dtype=np.uint32)


SHAPES = {
    "n": st.integers(2, 300),
    "context": st.integers(1, 20),
    "batch": st.integers(1, 7),
    "seed": st.integers(-9, 2**64),
}


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(n: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


def test_permutations_look_random() -> None:
    n = 1000
    many = np.stack([permute(np.arange(n), n, key) for key in range(300)])  # (300, n)
    assert abs(np.corrcoef(many[0], np.arange(n))[0, 1]) < 0.15
    assert len({tuple(row) for row in many.tolist()}) == 300
    first = np.bincount(many[:, 0] // 100, minlength=10)  # where element 0 goes: even over tenths
    assert first.max() < 60 and first.min() > 8
    assert np.mean(np.abs(np.diff(many[0])) == 1) < 0.02  # neighbours do not stay neighbours


def test_the_order_is_the_same_in_every_version() -> None:
    """A run that is taken up again must go on where it stopped, so these numbers stay as they are."""
    assert permute(np.arange(10), 10, 7).tolist() == [0, 1, 6, 2, 3, 7, 4, 8, 9, 5]
    assert permute(np.arange(1), 1, 3).tolist() == [0] and permute(np.arange(2), 2, 3).tolist() == [1, 0]
    last_key = [8, 2, 11, 16, 12, 13, 9, 6, 14, 3, 0, 4, 1, 10, 7, 5, 15]
    assert permute(np.arange(17), 17, 2**64 - 1).tolist() == last_key
    first_epochs = [51, 43, 27, 35, 19, 6, 36, 20, 52, 28, 44, 7, 32]  # of 6 windows each
    assert Batcher(Ring(53), 3, 8, seed=3).window_starts(np.arange(13)).tolist() == first_epochs
    assert Batcher(Ring(53), 3, 8, seed=-1).window_starts(np.arange(6)).tolist() == [28, 20, 36, 12, 44, 52]
    large = Batcher(Ring(53), 3, 8, seed=2**64 - 1)  # seeds are taken modulo 2⁶⁴
    assert large.window_starts(np.arange(6)).tolist() == [28, 20, 36, 12, 44, 52]
    larger = Batcher(Ring(53), 3, 8, seed=2**64 + 3)
    assert larger.window_starts(np.arange(13)).tolist() == first_epochs
    shortest = Batcher(Ring(2), 1, 1, seed=0)
    assert shortest.n_windows == 2 and sorted(shortest.window_starts(np.arange(2)).tolist()) == [0, 1]


@given(**SHAPES)
def test_each_window_once_an_epoch(n: int, context: int, batch: int, seed: int) -> None:
    if n < context + 1:
        with pytest.raises(ValueError, match="shorter than one window"):
            Batcher(Ring(n), batch, context, seed=seed)
        return
    batcher = Batcher(Ring(n), batch, context, seed=seed)
    n_windows = n // context
    rows: list[np.ndarray] = []
    while len(rows) < 2 * n_windows:
        ids, targets = batcher.next()
        assert ids.shape == targets.shape == (batch, context) and ids.dtype == targets.dtype == np.int64
        assert np.array_equal(targets, (ids + 1) % n)  # the next token of the ring
        rows += list(ids)
    for epoch in range(2):
        seen = np.concatenate(rows[epoch * n_windows : (epoch + 1) * n_windows])
        assert len(np.unique(seen)) == len(seen) == n_windows * context > n - context


@given(**SHAPES, steps=st.integers(0, 5), world=st.integers(1, 4))
def test_ranks_together_are_the_single_process(
    n: int, context: int, batch: int, seed: int, steps: int, world: int
) -> None:
    data = Ring(n + context)
    single = Batcher(data, batch * world, context, seed=seed)
    ranks = [Batcher(data, batch, context, seed=seed, rank=r, world_size=world) for r in range(world)]
    for _ in range(steps + 1):
        whole, targets = single.next()
        parts = [r.next() for r in ranks]
        assert np.array_equal(np.concatenate([p[0] for p in parts]), whole)
        assert np.array_equal(np.concatenate([p[1] for p in parts]), targets)
    assert all(r.state_dict() == single.state_dict() for r in ranks)


@given(**SHAPES, steps=st.integers(0, 9))
def test_resume_is_exact(n: int, context: int, batch: int, seed: int, steps: int) -> None:
    data = Ring(n + context)
    batcher = Batcher(data, batch, context, seed=seed)
    for _ in range(steps):
        batcher.next()
    state = json.loads(json.dumps(batcher.state_dict()))
    rest = [batcher.next() for _ in range(4)]
    resumed = Batcher(data, batch, context, seed=seed)
    resumed.load_state_dict(state)
    for ids, targets in rest:
        again = resumed.next()
        assert np.array_equal(again[0], ids) and np.array_equal(again[1], targets)
    # on twice as many processes of half a batch, or half as many of twice
    wide = Batcher(data, 2 * batch, context, seed=seed)
    wide.load_state_dict(state)
    assert np.array_equal(wide.next()[0], np.concatenate([rest[0][0], rest[1][0]]))


def test_epochs_and_seeds_differ() -> None:
    data = Ring(1000)
    batcher = Batcher(data, 100, 10, seed=0)
    first, second = batcher.next()[0], batcher.next()[0]
    assert batcher.windows_used == 2 * batcher.n_windows
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Batcher(data, 100, 10, seed=1).next()[0])
    offsets = set()
    batcher = Batcher(data, 100, 10, seed=0)
    for _ in range(20):
        offsets |= set((batcher.next()[0][:, 0] % 10).tolist())
    assert len(offsets) > 5  # windows begin at other places in other epochs


@given(n=st.integers(0, 50), world_size=st.integers(1, 9))
def test_the_shares_of_all_processes_are_the_whole_in_order(n: int, world_size: int) -> None:
    shares = [range(n)[share_of_rank(n, rank, world_size)] for rank in range(world_size)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) == -(-n // world_size)


def test_wrong_states_and_arguments() -> None:
    data = Ring(100)
    batcher = Batcher(data, 2, 8, seed=0)
    for wrong in (-1, 2**63, 1.0, True, "1"):
        with pytest.raises(ValueError, match=f"windows_used must be a whole number from 0 up, not {wrong!r}"):
            batcher.load_state_dict(batcher.state_dict() | {"windows_used": wrong})
    for used in (0, 2**63 - 1):
        batcher.load_state_dict(batcher.state_dict() | {"windows_used": used})
        assert batcher.windows_used == used
    with pytest.raises(ValueError, match="rank must be from 0 to world_size - 1 = 1, not -1"):
        Batcher(data, 2, 8, seed=0, rank=-1, world_size=2)
    for other, what in (
        (Batcher(data, 2, 8, seed=1), "seed was 1 and is 0"),
        (Batcher(data, 2, 4, seed=0), "context was 4 and is 8"),
        (Batcher(Ring(101), 2, 8, seed=0), "dataset was 'sha-101'"),
    ):
        with pytest.raises(ValueError, match=what):
            batcher.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="lacks context, dataset, seed"):
        batcher.load_state_dict({"windows_used": 3})
    with pytest.raises(ValueError, match="rank must be from 0 to world_size - 1 = 1, not 2"):
        Batcher(data, 2, 8, seed=0, rank=2, world_size=2)
    for wrong in ((0, 8), (2.5, 8), (2, 8.0), (2, "8"), (2, 0)):
        with pytest.raises(ValueError, match="batch_size and context must be whole numbers, at least 1, not"):
            Batcher(data, *wrong, seed=0)
    with pytest.raises(ValueError, match="batch_size and context must be whole numbers, at least 1, not 0"):
        next(iter_eval_batches(data, 0, 8))
    with pytest.raises(ValueError, match="no token to predict"):
        next(iter_eval_batches(Ring(1), 1, 8))


@given(st.integers(2, 200), st.integers(1, 5), st.integers(1, 17))
def test_evaluation_covers_every_target_once(n: int, batch: int, context: int) -> None:
    targets_seen: list[int] = []
    for ids, targets in iter_eval_batches(Ring(n), batch, context):
        assert ids.shape == targets.shape == (batch, context) and ids.dtype == targets.dtype == np.int64
        real = targets != IGNORE
        assert real.any() and np.array_equal(targets[real], ids[real] + 1)
        assert (ids[~real] == 0).all()
        targets_seen += targets[real].tolist()
    assert targets_seen == list(range(1, n))
