"""Chapter 18's tasks and instruments: the answers are right, and what is measured is what is said."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from minillm.workshop import inside as lab

from minillm.interpret import look_inside, run


def test_a_question_is_answered_by_what_stood_behind_its_key():
    ids, targets = lab.recall_rows(np.random.default_rng(0), 50)
    assert ids.shape == targets.shape == (50, lab.RECALL)
    for row, target in zip(ids, targets):
        pairs = dict(zip(row[: lab.ASKED : 2].tolist(), row[1 : lab.ASKED : 2].tolist()))
        asked = row[lab.ASKED :: 2]
        assert len(pairs) == len(set(pairs.values())) == len(set(asked[: lab.PAIRS].tolist())) == lab.PAIRS
        assert target[lab.ASKED :: 2].tolist() == [pairs[key] for key in asked.tolist()]
        assert (target[: lab.ASKED] == -100).all() and (target[lab.ASKED + 1 :: 2] == -100).all()
    third, answers, key = lab.questions(seed=1, rows=20, place=4)
    assert len(third) == 20 and (key == 4).all() and np.array_equal(third[:, 5], answers)
    assert np.array_equal(third[:, 4], third[:, lab.ASKED])


@pytest.mark.parametrize("period", [None, 8])
def test_what_repeats_is_asked_for_only_where_it_can_be_known(period):
    ids, targets = lab.copy_rows(np.random.default_rng(0), 50, period)
    for row, target in zip(ids, targets):
        asked = np.flatnonzero(target != -100)
        for t in asked:
            earlier = np.flatnonzero(row[:t] == row[t])
            assert len(earlier) and row[earlier[0] + 1] == target[t]
        assert period is None or asked[0] == period  # the id at t = 8 is the first to be met again


def test_another_token_is_of_its_kind_and_new_to_the_row():
    ids, _, key = lab.questions(seed=2, rows=30)
    for places in (3, key):
        changed = lab.other_token(ids, places, np.random.default_rng(0))
        where = changed != ids
        assert np.array_equal(where.argmax(axis=1), np.broadcast_to(places, 30)) and (where.sum(axis=1) == 1).all()
        assert np.array_equal(changed[where] < 16, ids[where] < 16)
        assert all(new not in row for new, row in zip(changed[where], ids))


def test_silent_heads_change_the_picture_and_not_the_answer():
    model = lab.new_model(32, lab.RECALL, 2, seed=0)
    other = lab.with_silent_heads(model)
    ids, _, _ = lab.questions(seed=3, rows=8)
    assert np.allclose(run(other, ids), run(model, ids), atol=1e-4)
    before, after = (look_inside(m, ids).attention for m in (model, other))
    assert np.allclose(after[:, :, :2], before, atol=1e-5)
    assert np.abs(after[:, :, 2:] - before).max() > 0.3


class Sure:
    """Gives the next id of rows that count 0, 1, 2, 0, ... nearly all probability."""

    def __call__(self, ids):
        from minillm.tensor import Tensor

        return Tensor(20.0 * np.eye(4)[(ids + 1) % 3])


def test_loss_by_time_round(monkeypatch):
    monkeypatch.setattr(lab, "run", lambda model, ids: model(ids).data)
    row = np.arange(9)[None] % 3
    losses = lab.loss_by_round(Sure(), row[:, :-1], row[:, 1:], np.array([3]))
    assert losses.shape == (2,) and losses.max() < 1e-6
    wrong = row[:, 1:].copy()
    wrong[0, 4] = 3  # what comes at place 5, in the second round: one of places 4 and 5
    assert np.allclose(lab.loss_by_round(Sure(), row[:, :-1], wrong, np.array([3])), [10, 0], atol=1e-6)
    wrong = row[:, 1:].copy()
    wrong[0, :3] = 3  # places 1 to 3: nobody can know them
    assert lab.loss_by_round(Sure(), row[:, :-1], wrong, np.array([3])).max() < 1e-6


def test_rank_agreement_and_brackets():
    a = np.array([[1.0, 2, 3, 4, 5]] * 3)
    b = np.array([[10.0, 20, 30, 40, 50], [5, 4, 3, 2, 1], [2, 1, 4, 3, 5]])
    assert np.allclose(lab.rank_agreement(a, b), [1, -1, 0.8])  # 1 − 6 · 4 / (5 · 24)
    assert lab.within_brackets([b"f", b"(", b"a[0", b"]", b"))", b" x", b"{"]).tolist() == [0, 1, 1, 1, 0, 0, 1]


def test_the_small_models_are_left_for_later(tmp_path, monkeypatch):
    from minillm.workshop.deliverables import small_insides

    monkeypatch.setenv("MINILLM_MADE", str(tmp_path))
    monkeypatch.setitem(lab.STEPS, "smoke", 2)
    folder = small_insides("smoke")
    sizes = {
        kind: sum(p.data.size for p in lab.load_models(folder, "smoke", kind)[0].parameters()) for kind in lab.KINDS
    }
    assert abs(sizes["one layer"] / sizes["two layers"] - 1) < 0.01  # as many weights
    assert small_insides("smoke") == folder
