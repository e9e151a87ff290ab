"""Which tiles the forward kernel computes: no pair that counts is left out, none is computed in vain."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")


def counted(tq, tk, lengths, causal, window):
    """(Tq, Tk) bool: does the pair count?"""
    keep = torch.zeros(tq, tk, dtype=torch.bool)
    ends = [tq] if lengths is None else [sum(lengths[: n + 1]) for n in range(len(lengths))]
    for first, last in zip([0, *ends], ends):
        i, j = torch.arange(first, last)[:, None], torch.arange(first, last + tk - tq)[None, :]
        distance = j - (i + tk - tq)
        here = distance > -(10**9)
        here &= distance <= 0 if causal else here
        here &= distance.abs() < window if window else here
        keep[first:last, first : last + tk - tq] = here
    return keep


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_that_counts_once_and_no_tile_in_vain(device, seed):
    from minillm.kernels.visited import visited

    if device == "cuda":
        pytest.skip("only the interpreter can be watched")
    draws = random.Random(seed)
    causal, window = draws.random() < 0.6, draws.choice([None, 1, 40, 100, 100])
    lengths = [draws.choice([1, 33, 100]) for _ in range(3)] if draws.random() < 0.4 else None
    tq = sum(lengths) if lengths else draws.choice([17, 150, 256, 256])
    tk = tq if lengths else draws.choice([tq, 50, 200])
    tiles = visited(tq, tk, lengths=lengths, causal=causal, window=window)
    keep = counted(tq, tk, lengths, causal, window)
    times = torch.zeros(tq, tk, dtype=torch.int64)
    for t in tiles:
        inside = keep[t.row : t.row + t.height, t.column : t.column + t.width]
        assert inside.any(), f"{t} holds no pair that counts"
        full = inside.all() and inside.shape == (t.height, t.width)
        assert t.edge or full or t.row + t.height > tq or lengths, f"{t} is taken for whole"
        times[t.row : t.row + t.height, t.column : t.column + t.width] += 1
    assert (times[keep] >= 1).all() and (lengths or (times <= 1).all())


def test_the_picture(device):
    from minillm import plot

    if device == "cuda":
        pytest.skip("only the interpreter can be watched")
    pytest.importorskip("matplotlib")
    figure = plot.tiles_visited({"causal": {"tq": 96, "causal": True}, "all": {"tq": 64, "tk": 32}})
    causal, everything = figure.axes
    assert causal.get_title() == "causal\n78% computed" and everything.get_title() == "all\n100% computed"
    assert len(causal.patches) == 5 and len(everything.patches) == 1
