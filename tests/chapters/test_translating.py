"""Chapter 12's bookkeeping: the parts of sentences, planted mistakes, faults of a search, the table it quotes."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from minillm.workshop import translating as tr

from minillm.data import Pair
from minillm.data.tasks import summarization, translation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def splits():
    return tr.sentences("smoke")


@pytest.fixture(scope="module")
def untrained(splits):
    return tr.new_model(tr.new_tokenizer(splits["train"], 1000), 48, seed=0)


def test_parts_of_every_sentence_are_those_of_the_grammar(splits):
    for pair in [pair for pairs in splits.values() for pair in pairs]:
        read, written = tr.cut_source(pair.source), tr.cut_target(pair.target)
        assert len(read) == len(pair.source) and len(written) == len(pair.target)
        part = {k: "".join(c for c, label in zip(pair.source, read) if label == k).strip() for k in tr.PARTS}
        zh = {k: "".join(c for c, label in zip(pair.target, written) if label == k) for k in (*tr.PARTS, "measure")}
        assert translation.PLACES[part["place"]][1] == zh["place"]
        n = tr.value_of(part["number"])
        assert translation.english(n) == part["number"] and translation.counted(n) == zh["number"]
        assert part["noun"] in [w for one, several, noun in translation.NOUNS[zh["measure"]] for w in (one, several)]
        assert pair.source.endswith(f" {part['time']}.") and pair.target.startswith(zh["time"])


def test_labels_of_tokens(untrained):
    _, objective = untrained
    text = "There were two cats in Lima tomorrow."
    labels = tr.token_labels(objective.tokenizer, text, tr.cut_source(text))
    assert len(labels) == len(objective.tokenizer.encode(text)) and set(labels) == {"", *tr.PARTS}


def test_a_changed_translation_differs_in_what_it_says():
    twice = Pair("There were fifty-five cats in Lima yesterday.", "昨天利马有五十五只猫。")
    assert tr.changed(twice)["another digit"] == "昨天利马有三十五只猫。"
    pair = Pair("There were two thousand five books in Lima yesterday.", "昨天利马有两千零五本书。")
    assert tr.changed(pair) == {
        "place before time": "利马昨天有两千零五本书。",
        "number in figures": "昨天利马有2005本书。",
        "another digit": "昨天利马有三千零五本书。",
        "another measure word": "昨天利马有两千零五头书。",
        "no place": "昨天有两千零五本书。",
    }


def test_fed_the_truth_and_fed_its_own(untrained, splits):
    model, objective = untrained
    scores = tr.token_scores(model, objective, splits["test"][:3])
    assert np.array_equal(scores["whole truth"], scores["whole own"]) and 0 <= scores["own"] <= 1
    fooled, fine = tr.after_a_mistake(model, objective, splits["test"], 3, digits_only=True)
    source, ids, targets = objective.collate([objective.encode(pair) for pair in splits["test"]])
    log_p = tr.of_targets(tr.log_chances(model, source, ids), targets)
    assert fooled.shape == fine.shape == (3,) and not np.allclose(fooled, fine)
    assert np.isclose(-log_p.sum() / (targets >= 0).sum(), model(source, ids, targets=targets).item(), rtol=1e-5)
    assert (fine > 0).all() and (log_p[targets < 0] == 0).all()


def test_a_translator_is_trained_saved_and_searched(untrained, splits, tmp_path):
    """It learns three sentences by heart. With the right one of another as its reference, a search cannot help."""
    some = splits["train"][:3]
    model, objective = tr.new_model(untrained[1].tokenizer, 48, seed=1)
    how = {"seed": 0, "batch": 3, "folder": tmp_path, "measured": ("train",)}
    tr.train(model, objective, {"train": some}, 80, **how)
    loaded, objective, notes = tr.load_writer(tmp_path / "0")
    assert len(notes["losses"]) == 80 and notes["curve"][-1] == {"step": 80, "train": 1.0}
    assert (tmp_path / "half-0").is_dir() and tr.exact(loaded, objective, some) == 1
    wrong = Pair(some[0].source, some[1].target)
    assert tr.search(loaded, objective, [*some, wrong], 2).tolist() == [75, 0, 25]


def test_facts_and_renaming():
    reports = tr.reports("smoke")
    pair = reports["test"][0]
    known = summarization.facts(reports["train"][0])
    other = tr.renamed(pair, *known[:2])
    assert summarization.facts(other) == (*known[:2], *summarization.facts(pair)[2:])
    texts = [pair.target, "nothing"]
    assert tr.facts_said(texts, [pair, pair]).tolist() == [0.5] * 4
    assert np.mean([summarization.fact_accuracy(text, pair) for text in texts]) == 0.5


def test_figures_that_are_quoted_stand_in_the_results():
    chapter = (ROOT / "chapters" / "12_translation_and_summarization.py").read_text(encoding="utf-8")
    results = (ROOT / "tests" / "bench" / "RESULTS.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```\n( +runs.*?)```", chapter, re.DOTALL)
    assert table in results
    flat = " ".join(results.split())
    assert "0.735 ± 0.008 of all facts" in flat and "0.986 ± 0.006" in flat
    assert "0.735 ± 0.008 of all facts" in " ".join(chapter.split())
