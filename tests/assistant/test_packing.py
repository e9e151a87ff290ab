"""Packing: every example in one row, none over the context, and training as if each stood alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.assistant.packing import collate_packed, pack
from minillm.engines.protocol import PackedLoss
from minillm.models import GPTConfig, LlamaConfig, model_from_config
from minillm.models.segments import check_starts

lengths_and_context = st.integers(1, 40).flatmap(
    lambda context: st.tuples(st.lists(st.integers(1, context), max_size=60), st.just(context))
)
examples = st.lists(
    st.lists(st.integers(1, 5).map(lambda n: np.arange(n) + 3), min_size=1, max_size=3), min_size=1, max_size=3
).map(lambda rows: [[(ids, np.append(ids[1:], 2)) for ids in row] for row in rows])  # 2 ends an example


@given(lengths_and_context)
def test_nothing_is_lost_or_doubled_or_too_long(drawn):
    lengths, context = drawn
    rows = pack(lengths, context)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[number] for number in row) <= context for row in rows)
    assert rows == pack(np.array(lengths, dtype=np.int64), context)  # the same each time, of an array too


@given(lengths_and_context)
def test_best_fit_decreasing_as_it_is_written(drawn):
    """Against the rule, row by row: each from the longest on into the fullest row that it fits, or a new one."""
    lengths, context = drawn
    used: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [total for total in used if total + length <= context]
        if fitting:
            used.remove(max(fitting))
        used.append(max(fitting, default=0) + length)
    assert sorted(sum(lengths[number] for number in row) for row in pack(lengths, context)) == sorted(used)


def test_a_case_by_hand():
    assert pack([2, 7, 3, 8, 5, 2], 10) == [[3, 0], [1, 2], [4, 5]]
    assert pack([], 10) == []


def test_rows_get_full():
    """Of 3,000 lengths like those of short answers hardly 1 in 100 tokens is padding."""
    lengths = np.random.default_rng(0).lognormal(4, 0.8, 3000).astype(int).clip(1, 512)
    assert lengths.sum() > 0.99 * 512 * len(pack(lengths, 512))


@pytest.mark.parametrize("length", [0, -1, 11])
def test_an_example_that_fits_into_no_row_is_named(length):
    with pytest.raises(ValueError, match=rf"^pack: example 1 has {length} tokens, and a row takes 1 to 10\."):
        pack([3, length], 10)


@given(examples)
def test_every_example_is_found_again(rows):
    ids, segments, starts, targets = collate_packed(rows, pad_id=1)
    check_starts(segments, starts)
    assert ids.shape == segments.shape == targets.shape == (len(rows), max(sum(len(i) for i, _ in row) for row in rows))
    assert {array.dtype for array in (ids, segments, starts, targets)} == {np.dtype(np.int64)}
    for b, row in enumerate(rows):
        assert segments[b].max() == len(row) - 1
        for number, (example_ids, example_targets) in enumerate(row):
            np.testing.assert_array_equal(ids[b, segments[b] == number], example_ids)
            np.testing.assert_array_equal(targets[b, segments[b] == number], example_targets)
        padding = segments[b] == -1
        assert (ids[b, padding] == 1).all() and (targets[b, padding] == -100).all()
        assert (np.diff(padding.astype(int)) >= 0).all()  # at the end


def test_no_example_predicts_the_next():
    first, second = (np.array([5, 6]), np.array([6, 2])), (np.array([7, 8]), np.array([-100, 2]))
    ids, segments, starts, targets = collate_packed([[first, second], [first]], pad_id=0)
    assert ids.tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert segments.tolist() == [[0, 0, 1, 1], [0, 0, -1, -1]]
    assert starts.tolist() == [[0, 2, 4], [0, 2, 4]]  # padding is a text of its own
    assert targets.tolist() == [[6, 2, -100, 2], [6, 2, -100, -100]]


@pytest.mark.parametrize("row", [[], [(np.arange(0), np.arange(0))], [(np.arange(2), np.arange(3))]])
def test_rows_that_are_none_are_refused(row):
    good = [(np.arange(2), np.arange(2))]
    with pytest.raises(ValueError, match=r"^collate_packed: row 1 has examples of"):
        collate_packed([good, row], pad_id=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@settings(max_examples=10)
@given(rows=examples)
def test_the_loss_is_that_of_the_examples_alone(smoothing, rows):
    torch = pytest.importorskip("torch")
    from minillm.port import to_torch

    shape = {"vocab_size": 9, "context": 16, "n_layers": 1, "n_heads": 2, "d_model": 8}
    batch = collate_packed(rows, pad_id=0)
    for config in (GPTConfig(**shape), LlamaConfig(**shape, n_kv_heads=1, d_ff=8)):
        model = model_from_config(config).to(np.float64)
        loss = PackedLoss(smoothing)
        found, figures = loss(model, *batch)
        on_torch, _ = loss(to_torch(model), *map(torch.tensor, batch))
        options = {"reduction": "sum", "label_smoothing": smoothing}
        alone = [model(ids[None], targets[None], **options).item() for row in rows for ids, targets in row]
        assert figures == {} and found.item() == pytest.approx(sum(alone), rel=1e-13)
        assert on_torch.item() == pytest.approx(found.item(), rel=1e-13)
        ids, segments, _, targets = batch
        without, _ = loss(model, ids, segments, targets)  # of which starts are found on the device
        assert without.item() == pytest.approx(found.item(), rel=1e-13)
        assert loss.count(*batch) == sum(len(ids) for row in rows for ids, _ in row)
        model.eval()
        assert loss(model, *batch)[0].item() == pytest.approx(PackedLoss()(model, *batch)[0].item(), rel=1e-14)
