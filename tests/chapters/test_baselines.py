"""The baselines that chapter 01 leaves to the chapters that train a model."""

import json

from minillm.workshop import deliverables

from minillm.data import corpus_text
from minillm.training.baselines import NGramModel, xz_bits_per_byte


def test_baselines_are_measured_once_and_are_those_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MADE", str(tmp_path))
    found = deliverables.baselines("smoke", "code")
    assert list(found) == [f"{n}-gram" for n in range(1, 7)] + ["xz"]
    train, val = (corpus_text(deliverables.corpus("smoke", "code"), split) for split in ("train", "val"))
    assert found["3-gram"] == NGramModel.fit(train, order=3).bits_per_byte(val)
    assert found["xz"] == xz_bits_per_byte(val, given=train)
    assert 8 > found["1-gram"] > found["2-gram"] > found["3-gram"] > found["xz"] > 0

    [kept] = tmp_path.glob("baselines-code-*/baselines.json")
    kept.write_text(json.dumps({**found, "xz": 9.0}), encoding="utf-8")
    assert deliverables.baselines("smoke", "code")["xz"] == 9.0  # read, not measured again
